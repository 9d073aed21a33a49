"""Local search on the penalty form with dwave-samplers: steepest descent and tabu search."""

import numpy as np
from pydantic import Field

from qblock.backend import Backend, Capabilities, Run, Samples
from qblock.encoding import PenaltyParameters
from qblock.problem import ReducedProblem, States
from qblock_classical.penalty_form import penalty_form
from qblock_classical.reads import collect_reads, read_seeds


class DescentParameters(PenaltyParameters):
    num_reads: int = Field(1000, ge=1, description="descents from random states")


class Descent(Backend[DescentParameters]):
    """Steepest descent by single flips from random states."""

    name = "descent"
    Parameters = DescentParameters
    capabilities = Capabilities(
        summary="steepest descent of the penalty form (dwave-samplers)",
        constraint="penalty",
        method="heuristic",
    )

    def solve(self, problem: ReducedProblem, parameters: DescentParameters, run: Run) -> Samples:
        from dwave.samplers import SteepestDescentSampler

        form = penalty_form(problem, parameters.penalty)
        starts = np.random.default_rng(run.seed).integers(
            2, size=(parameters.num_reads, len(problem)), dtype=np.int8
        )

        def draw(first: int, count: int) -> States:
            initial = (starts[first : first + count], list(problem.blocks))
            return form.encoding.decode(
                SteepestDescentSampler().sample(form.bqm, initial_states=initial)
            )

        states, status = collect_reads(draw, parameters.num_reads, run)
        return Samples(
            states,
            status=status,
            encode_seconds=form.seconds,
            details={"penalty_weight": form.weight},
        )


class TabuParameters(PenaltyParameters):
    num_reads: int = Field(20, ge=1, description="searches from random states")
    num_updates: int = Field(
        20_000, ge=1, description="length of a search", json_schema_extra={"unit": "flips"}
    )
    tenure: int | None = Field(
        None,
        ge=1,
        description="how long a flip stays forbidden; a quarter of n but at most 20 if none",
        json_schema_extra={"unit": "flips"},
    )


class Tabu(Backend[TabuParameters]):
    """Tabu search by single flips, one search per read."""

    name = "tabu"
    Parameters = TabuParameters
    capabilities = Capabilities(
        summary="tabu search of the penalty form (dwave-samplers)",
        constraint="penalty",
        method="heuristic",
    )

    def solve(self, problem: ReducedProblem, parameters: TabuParameters, run: Run) -> Samples:
        from dwave.samplers import TabuSampler

        form = penalty_form(problem, parameters.penalty)
        seeds = read_seeds(run, parameters.num_reads)
        tenure = parameters.tenure and min(parameters.tenure, len(problem) - 1)

        def draw(first: int, count: int) -> States:
            reads = [
                # Without a time-out a seed reproduces the search exactly; with one, the clock
                # may end it.
                TabuSampler().sample(
                    form.bqm,
                    seed=int(seed),
                    tenure=tenure,
                    timeout=None if run.time_limit is None else max(1, int(1e3 * run.remaining())),
                    num_restarts=0,
                    coefficient_z_first=1,
                    lower_bound_z=parameters.num_updates,
                )
                for seed in seeds[first : first + count]
            ]
            return np.concatenate([form.encoding.decode(read) for read in reads])

        states, status = collect_reads(draw, parameters.num_reads, run)
        return Samples(
            states,
            status=status,
            encode_seconds=form.seconds,
            details={"penalty_weight": form.weight},
        )
