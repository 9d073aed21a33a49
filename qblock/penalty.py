"""How large the penalty weight must be, with proof.

Solvers without constraints minimise E(y) + lambda * sum_k (sum_{i in group k} y_i - m_k)^2.
Too small a lambda and an infeasible state wins; too large and the penalty drowns E in the
solver's temperature range and coefficient precision. Both named weights here are proved:

- "tight": every infeasible state lies above the best feasible state;
- "safe": every infeasible state lies above every feasible state, so that the whole feasible
  spectrum comes first and in order.

Proof. Let D be diagonal with Q - D positive semidefinite. On 0/1 states E equals the convex
f(y) = y'(Q - D)y + diag(D).y, which lies above its tangent at any point z of the unit box:
E(y) >= c + a.y with a = grad f(z), c = f(z) - a.z. So every state with r_k blocks removed from
group k has E(y) >= c + sum_k s_k(r_k), where s_k(r) sums the r smallest entries of a in group k.
With U an upper bound on the energy that must stay lowest, any

    lambda > max over r != m of (U - c - sum_k s_k(r_k)) / sum_k (r_k - m_k)^2

suffices. The maximum of this ratio is found by Dinkelbach's method; its inner minimum separates
over groups. The tangent point z is free: it is moved to the relaxed minimum at the counts that
bind, and the least weight found is kept. E need not be positive semidefinite.
"""

from typing import Annotated, Literal, TypeAlias

import numpy as np
from pydantic import Field

from qblock.convexify import convexifying_shift
from qblock.errors import ParameterError
from qblock.problem import FloatArray, IntArray, ReducedProblem, States

Penalty: TypeAlias = Literal["tight", "safe"] | Annotated[float, Field(gt=0)]
"""A proved weight by name, or a positive number in units of the energy."""

MARGIN = 1e-3
"""Relative excess over the proved bound, so that it is strict and wider than the tolerances with
which samplers and `dimod` compare energies."""


def penalty_weight(problem: ReducedProblem, penalty: Penalty = "tight") -> float:
    """The penalty weight lambda, in units of the energy.

    Args:
        penalty: "tight" or "safe" (see the module's text), or a number to use as it is.

    Raises:
        ParameterError: another name, or a number that is not positive and finite.
    """
    if not isinstance(penalty, str):
        if not 0 < penalty < np.inf:
            raise ParameterError(f"penalty must be positive and finite, not {penalty!r}")
        return float(penalty)
    if penalty == "tight":
        must_stay_lowest = _energy(problem.Q, best_swap_descent(problem))
    elif penalty == "safe":
        must_stay_lowest = _largest_feasible_energy(problem)
    else:
        raise ParameterError(f"penalty must be 'tight', 'safe' or a number, not {penalty!r}")
    scale = float(np.abs(problem.Q).max(initial=0.0)) or 1.0
    shift = convexifying_shift(problem.Q)
    counts, weight = problem.budgets, np.inf
    for _ in range(6):
        point = _relaxed_minimum(problem, shift, counts)
        bound, counts = _weight_from_tangent(problem, shift, point, must_stay_lowest)
        if bound >= weight * (1 - 1e-3):
            break
        weight = bound
    return max(weight, 0.0) * (1 + MARGIN) + 0.1 * MARGIN * scale


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


def _energy(Q: FloatArray, y: States | FloatArray) -> float:
    y = y.astype(np.float64)
    return float(y @ Q @ y)


def _gradient(Q: FloatArray, shift: FloatArray, y: FloatArray) -> FloatArray:
    return np.asarray(2 * (Q @ y - shift * y) + shift)


def _relaxed_minimum(
    problem: ReducedProblem, shift: FloatArray, counts: IntArray, steps: int = 400
) -> FloatArray:
    """A point (n,) of the box, with the given counts, near the minimum of the convex f.

    Pairwise steps from the centre; every point is valid, a better one gives a better bound.
    """
    Q, group_of = problem.Q, problem.group_of
    sizes = np.bincount(group_of)
    y = (counts / sizes)[group_of]
    gradient = _gradient(Q, shift, y)
    for _ in range(steps):
        gain, pair = 0.0, (0, 0)
        for k in range(len(sizes)):
            up = np.where((group_of == k) & (y < 1), gradient, np.inf)
            down = np.where((group_of == k) & (y > 0), gradient, -np.inf)
            i, j = int(np.argmin(up)), int(np.argmax(down))
            if down[j] - up[i] > gain:
                gain, pair = down[j] - up[i], (i, j)
        if gain <= 1e-9 * np.abs(Q).max():
            break
        i, j = pair
        curvature = 2 * (Q[i, i] + Q[j, j] - 2 * Q[i, j] - shift[i] - shift[j])
        step = min(1 - y[i], y[j], gain / curvature if curvature > 0 else np.inf)
        y[i], y[j] = y[i] + step, y[j] - step
        gradient += 2 * step * (Q[i] - Q[j])
        gradient[i] -= 2 * step * shift[i]
        gradient[j] += 2 * step * shift[j]
    return y


def _tangent(
    problem: ReducedProblem, shift: FloatArray, point: FloatArray
) -> tuple[float, list[FloatArray]]:
    """Constant c and, per group, prefix sums s_k (size + 1,) of E(y) >= c + sum_k s_k(r_k)."""
    slope = _gradient(problem.Q, shift, point)
    value = _energy(problem.Q, point) + float(shift @ (point - point**2))
    sums = [
        np.concatenate(([0.0], np.cumsum(np.sort(slope[problem.group_of == k]))))
        for k in range(len(problem.budgets))
    ]
    return value - float(slope @ point), sums


def _weight_from_tangent(
    problem: ReducedProblem, shift: FloatArray, point: FloatArray, ceiling: float
) -> tuple[float, IntArray]:
    """The weight that the tangent at `point` proves, and the counts (K,) that bind."""
    constant, sums = _tangent(problem, shift, point)
    missing = [(np.arange(len(s)) - m) ** 2.0 for s, m in zip(sums, problem.budgets, strict=True)]
    weight, binding = -np.inf, problem.budgets
    trial = 0.0
    while True:  # Dinkelbach: each round solves for the counts that bind at the trial weight
        scores = [s + trial * v for s, v in zip(sums, missing, strict=True)]
        best = [int(np.argmin(score)) for score in scores]
        if all(b == m for b, m in zip(best, problem.budgets, strict=True)):
            # Only infeasible counts may bind: leave the budget in the group where it costs least.
            for score, m in zip(scores, problem.budgets, strict=True):
                score[m] = np.inf
            extra = [
                float(score.min()) - float(s[m])
                for score, s, m in zip(scores, sums, problem.budgets, strict=True)
            ]
            k = int(np.argmin(extra))
            best[k] = int(np.argmin(scores[k]))
        violation = sum(float(v[b]) for v, b in zip(missing, best, strict=True))
        value = constant + sum(float(s[b]) for s, b in zip(sums, best, strict=True))
        needed = (ceiling - value) / violation
        if needed <= weight:
            return weight, binding
        weight, binding = needed, np.array(best, dtype=np.int64)
        trial = max(weight, 0.0)


def _largest_feasible_energy(problem: ReducedProblem) -> float:
    """An upper bound on the energy of every feasible state: the same bound, on -Q."""
    mirrored = ReducedProblem(**{**problem.__dict__, "Q": -problem.Q})
    shift = convexifying_shift(mirrored.Q)
    point = _relaxed_minimum(mirrored, shift, mirrored.budgets)
    constant, sums = _tangent(mirrored, shift, point)
    lowest = constant + sum(float(s[m]) for s, m in zip(sums, problem.budgets, strict=True))
    return -lowest
