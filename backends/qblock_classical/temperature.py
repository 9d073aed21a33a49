"""The energy scales of the objective, from which annealing schedules take their temperatures."""

import numpy as np

from qblock.moves import swap_change
from qblock.problem import FloatArray, ReducedProblem, States


def best_swap_descent(problem: ReducedProblem) -> States:
    """A good feasible state (n,), int8: greedy additions, then steepest descent by swaps."""
    Q, group_of = problem.Q, problem.group_of
    diagonal = np.diag(Q)
    state = np.zeros(len(problem), dtype=np.int8)
    left = problem.budgets.copy()
    field = np.zeros(len(problem))  # Q @ state
    while left.any():
        cost = np.where((state == 0) & (left[group_of] > 0), diagonal + 2 * field, np.inf)
        best = int(np.argmin(cost))
        state[best] = 1
        left[group_of[best]] -= 1
        field += Q[best]
    while True:
        inside, outside = np.flatnonzero(state == 1), np.flatnonzero(state == 0)
        change = (diagonal + 2 * field)[outside] + (diagonal - 2 * field)[inside, None]
        change = change - 2 * Q[np.ix_(inside, outside)]
        change[group_of[inside, None] != group_of[outside]] = np.inf
        out, into = np.unravel_index(np.argmin(change), change.shape)
        if not change[out, into] < -1e-12 * np.abs(Q).max():
            return state
        state[inside[out]], state[outside[into]] = 0, 1
        field += Q[outside[into]] - Q[inside[out]]


def swap_costs(problem: ReducedProblem) -> FloatArray:
    """The positive changes of energy by a swap out of a good local minimum, ascending.

    Their low and middle quantiles are the scales of the objective that set the cold and the hot
    end of an annealing schedule. [1.0] where no swap costs anything.
    """
    state = best_swap_descent(problem)
    field = problem.Q @ state
    changes = [
        swap_change(problem.Q, field, out, into)
        for out in np.flatnonzero(state == 1)
        for into in np.flatnonzero(state == 0)
        if problem.group_of[out] == problem.group_of[into]
    ]
    threshold = 1e-9 * float(np.abs(problem.Q).max(initial=0.0))
    costs = np.sort([change for change in changes if change > threshold])
    return costs if len(costs) else np.ones(1)
