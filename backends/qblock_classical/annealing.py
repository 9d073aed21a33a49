"""Annealing of the penalty form with dwave-samplers: thermal, and simulated quantum.

Both samplers take their temperature range by default from the coefficients of the model they
are given. In a penalty form those belong to the penalty, which is far larger than the energy
differences that matter, so the default schedule stops while the objective is still noise.
`beta_range="objective"` takes the range from the objective alone.
"""

import itertools
from typing import Any, Literal

import numpy as np
from pydantic import Field, field_validator

from qblock.backend import Backend, Capabilities, Progress, Run, Samples, interrupt_flag
from qblock.encoding import PenaltyParameters
from qblock.problem import ReducedProblem
from qblock_classical.penalty_form import penalty_form
from qblock_classical.temperature import swap_costs


class AnnealingParameters(PenaltyParameters):
    num_reads: int = Field(100, ge=1, description="independent anneals")
    num_sweeps: int = Field(
        1000, ge=2, description="length of an anneal", json_schema_extra={"unit": "sweeps"}
    )
    beta_range: Literal["default", "objective"] | tuple[float, float] = Field(
        "default",
        description="first and last inverse temperature: the sampler's own choice from the "
        "penalty form, a choice from the objective alone, or two numbers",
        json_schema_extra={"unit": "1 / energy"},
    )

    @field_validator("beta_range")
    @classmethod
    def _ascending(cls, value: str | tuple[float, float]) -> str | tuple[float, float]:
        if isinstance(value, tuple) and not 0 < value[0] <= value[1]:
            raise ValueError("two numbers with 0 < first <= last")
        return value


def objective_beta_range(problem: ReducedProblem) -> tuple[float, float]:
    """Inverse temperatures at which swaps are free at first and frozen in the end.

    A median swap is accepted half of the time at the start, a cheap one (the 5 % quantile) a
    hundredth of the time at the end.
    """
    cheap, typical = np.quantile(swap_costs(problem), [0.05, 0.5])
    return float(np.log(2) / typical), float(np.log(100) / cheap)


def _anneal(
    sampler: Any, problem: ReducedProblem, parameters: AnnealingParameters, run: Run
) -> Samples:
    """One call of a dwave-samplers annealer, stopped between reads by the clock or Ctrl-C."""
    form = penalty_form(problem, parameters.penalty)
    beta_range: Any = parameters.beta_range
    if beta_range == "objective":
        beta_range = objective_beta_range(problem)
    reads = itertools.count(1)
    with interrupt_flag() as interrupted:

        def stop() -> bool:  # called after every read
            done = next(reads)
            run.report(
                Progress(f"{done} of {parameters.num_reads} reads", done / parameters.num_reads)
            )
            return interrupted() or run.expired()

        samples = sampler.sample(
            form.bqm,
            num_reads=parameters.num_reads,
            num_sweeps=parameters.num_sweeps,
            beta_range=None if beta_range == "default" else list(beta_range),
            seed=int(np.random.default_rng(run.seed).integers(2**31)),
            interrupt_function=stop,
        )
    stopped = len(samples) < parameters.num_reads
    return Samples(
        states=form.encoding.decode(samples),
        status=("interrupted" if interrupted() else "time-limit") if stopped else "complete",
        encode_seconds=form.seconds,
        details={
            "penalty_weight": form.weight,
            "beta_range": [float(beta) for beta in samples.info["beta_range"]],
        },
    )


class Annealing(Backend[AnnealingParameters]):
    """Simulated annealing by single flips of the penalty form."""

    name = "annealing"
    Parameters = AnnealingParameters
    capabilities = Capabilities(
        summary="simulated annealing of the penalty form (dwave-samplers)",
        constraint="penalty",
        method="heuristic",
    )

    def solve(self, problem: ReducedProblem, parameters: AnnealingParameters, run: Run) -> Samples:
        from dwave.samplers import SimulatedAnnealingSampler

        return _anneal(SimulatedAnnealingSampler(), problem, parameters, run)


class PathIntegral(Backend[AnnealingParameters]):
    """Path-integral Monte Carlo of a transverse-field anneal of the penalty form."""

    name = "path-integral"
    Parameters = AnnealingParameters
    capabilities = Capabilities(
        summary="simulated quantum annealing of the penalty form (dwave-samplers)",
        constraint="penalty",
        method="heuristic",
    )

    def solve(self, problem: ReducedProblem, parameters: AnnealingParameters, run: Run) -> Samples:
        from dwave.samplers import PathIntegralAnnealingSampler

        return _anneal(PathIntegralAnnealingSampler(), problem, parameters, run)
