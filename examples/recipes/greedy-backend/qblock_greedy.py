"""Remove one block after the other, each time the one that raises the energy least."""

import numpy as np
from pydantic import Field

from qblock.backend import Backend, Capabilities, Parameters, Progress, Run, Samples, interrupt_flag
from qblock.problem import ReducedProblem, States


class GreedyParameters(Parameters):
    num_reads: int = Field(10, ge=1, description="constructions, each from another first block")


class Greedy(Backend[GreedyParameters]):
    """Randomised greedy construction: it never leaves the budgets and never looks back."""

    name = "greedy"
    Parameters = GreedyParameters
    capabilities = Capabilities(
        summary="randomised greedy construction, block by block",
        constraint="native",
        method="heuristic",
    )

    def solve(self, problem: ReducedProblem, parameters: GreedyParameters, run: Run) -> Samples:
        rng = np.random.default_rng(run.seed)
        states: list[States] = []
        with interrupt_flag() as interrupted:
            while len(states) < parameters.num_reads:
                states.append(construct(problem, first=int(rng.integers(len(problem)))))
                run.report(Progress("greedy", len(states) / parameters.num_reads))
                if interrupted() or run.expired():
                    break
            stopped = "interrupted" if interrupted() else "time-limit"
        complete = len(states) == parameters.num_reads
        return Samples(np.array(states), status="complete" if complete else stopped)


def construct(problem: ReducedProblem, first: int) -> States:
    """A feasible state, int8 (n,), that removes block `first` and then the cheapest allowed one."""
    state = np.zeros(len(problem), dtype=np.int8)
    left = problem.budgets.copy()
    block = first
    while True:
        state[block] = 1
        left[problem.group_of[block]] -= 1
        if not left.any():
            return state
        # Removing block i raises x'Qx by Q_ii + 2 sum_j Q_ij x_j.
        rise = np.diag(problem.Q) + 2 * problem.Q @ state
        allowed = (state == 0) & (left[problem.group_of] > 0)
        block = int(np.argmin(np.where(allowed, rise, np.inf)))
