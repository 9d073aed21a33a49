"""Uniform feasible states: the floor that every solver must beat."""

import numpy as np
from pydantic import Field

from qblock.backend import Backend, Capabilities, Parameters, Run, Samples
from qblock.problem import ReducedProblem, States

BATCH = 4096
"""States drawn between two looks at the clock."""


def random_states(
    problem: ReducedProblem, count: int, rng: np.random.Generator
) -> States:
    """`count` independent uniform feasible states, int8 (count, n)."""
    states = np.zeros((count, len(problem)), dtype=np.int8)
    for k, budget in enumerate(problem.budgets):
        members = np.flatnonzero(problem.group_of == k)
        keys = rng.random((count, len(members)))
        chosen = members[np.argpartition(keys, int(budget) - 1, axis=1)[:, : int(budget)]]
        np.put_along_axis(states, chosen, 1, axis=1)
    return states


class UniformParameters(Parameters):
    num_reads: int = Field(1000, ge=1, description="states drawn", json_schema_extra={"unit": "states"})


class UniformRandom(Backend[UniformParameters]):
    """Independent uniform draws from the feasible states."""

    name = "random"
    Parameters = UniformParameters
    capabilities = Capabilities(
        summary="uniform feasible states, the floor every solver must beat",
        constraint="native",
        method="heuristic",
        time_limit_slack=0.2,
    )

    def solve(self, problem: ReducedProblem, parameters: UniformParameters, run: Run) -> Samples:
        rng = np.random.default_rng(run.seed)
        drawn: list[States] = []
        left = parameters.num_reads
        while left > 0 and not (drawn and run.expired()):
            drawn.append(random_states(problem, min(left, BATCH), rng))
            left -= BATCH
        return Samples(
            states=np.concatenate(drawn), status="complete" if left <= 0 else "time-limit"
        )
