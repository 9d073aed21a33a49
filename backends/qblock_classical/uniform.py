"""Uniform feasible states: the floor that every solver must beat."""

import numpy as np
from pydantic import Field

from qblock.backend import Backend, Capabilities, Parameters, Run, Samples
from qblock.problem import FloatArray, ReducedProblem, States
from qblock_classical.reads import collect_reads


def feasible_states(problem: ReducedProblem, keys: FloatArray) -> States:
    """The feasible states, int8 (S, n), that remove the lowest keys (S, n) of each group.

    Independent continuous keys give independent uniform feasible states.
    """
    states = np.zeros(keys.shape, dtype=np.int8)
    for k, budget in enumerate(problem.budgets):
        members = np.flatnonzero(problem.group_of == k)
        lowest = np.argpartition(keys[:, members], int(budget) - 1, axis=1)[:, : int(budget)]
        np.put_along_axis(states, members[lowest], 1, axis=1)
    return states


class UniformParameters(Parameters):
    num_reads: int = Field(1000, ge=1, description="states drawn")


class UniformRandom(Backend[UniformParameters]):
    """Independent uniform draws from the feasible states."""

    name = "random"
    Parameters = UniformParameters
    capabilities = Capabilities(
        summary="uniform feasible states: the floor every solver must beat",
        constraint="native",
        method="heuristic",
    )

    def solve(self, problem: ReducedProblem, parameters: UniformParameters, run: Run) -> Samples:
        rng = np.random.default_rng(run.seed)
        states, status = collect_reads(
            lambda first, count: feasible_states(problem, rng.random((count, len(problem)))),
            parameters.num_reads,
            run,
        )
        return Samples(states, status=status)
