"""Backend `exact`: the k lowest states with a certificate."""

import numba
from pydantic import Field

from qblock.backend import (
    Backend,
    Capabilities,
    Parameters,
    Progress,
    Run,
    Samples,
    Status,
    interrupt_flag,
)
from qblock.exact import compile_kernels, prove
from qblock.problem import ReducedProblem


class ExactParameters(Parameters):
    k: int = Field(
        100,
        ge=1,
        le=100_000,
        description="how many of the lowest states to prove",
        json_schema_extra={"unit": "states"},
    )
    threads: int | None = Field(
        None,
        ge=1,
        description="of searches longer than about half a second; None: one for each core, "
        "or NUMBA_NUM_THREADS if that is set",
    )


class Exact(Backend[ExactParameters]):
    """Branch and bound over the feasible states that proves the k lowest."""

    name = "exact"
    Parameters = ExactParameters
    capabilities = Capabilities(
        summary="the k lowest states with proof, by branch and bound",
        constraint="native",
        method="exact",
    )

    def warm_up(self) -> None:
        compile_kernels()

    def solve(self, problem: ReducedProblem, parameters: ExactParameters, run: Run) -> Samples:
        with interrupt_flag() as interrupted:
            proof = prove(
                problem,
                parameters.k,
                seed=run.seed,
                threads=parameters.threads or numba.config.NUMBA_NUM_THREADS,
                stop=lambda: interrupted() or run.expired(),
                report=lambda message: run.report(Progress(message)),
            )
            status: Status = "complete"
            if not proof.certificate.proved:
                status = "interrupted" if interrupted() else "time-limit"
        return Samples(
            proof.states,
            status=status,
            certificate=proof.certificate,
            details={
                "compile_seconds": compile_kernels(),  # measured once, by `prepare`
                "seed_seconds": proof.seed_seconds,
                "root_seconds": proof.root_seconds,
                "search_seconds": proof.search_seconds,
            },
        )
