"""How large the penalty weight must be, with proof.

Solvers without constraints minimise E(y) + lambda * sum_k (sum_{i in group k} y_i - m_k)^2.
Too small a lambda and an infeasible state wins; too large and the penalty drowns E in the
solver's temperature range and coefficient precision. Both named weights here are proved:

- "tight": every infeasible state lies above the best feasible state;
- "safe": every infeasible state lies above every feasible state, so that the whole feasible
  spectrum comes first and in order.

Let L(r) be a lower bound on the energy of the states with r_k blocks removed from group k, and U
an upper bound on the energy that must stay lowest. Then any

    lambda > max over r != m of (U - L(r)) / sum_k (r_k - m_k)^2

suffices. With exact L and U the right side is the smallest sufficient weight.

A first L for all r at once: let D be diagonal with Q - D positive semidefinite. On 0/1 states E
equals the convex f(y) = y'(Q - D)y + diag(D).y, which lies above its tangent at any point z of
the unit box: E(y) >= c + a.y with a = grad f(z), c = f(z) - a.z. So L(r) = c + sum_k s_k(r_k),
where s_k(r) sums the r smallest entries of a in group k. E need not be positive semidefinite.
For "tight" the counts that bind, a handful next to m, then get a bound of their own from a short
branch and bound (`qblock.exact`), until the one that binds cannot be improved.
"""

from typing import Annotated, Literal, TypeAlias

import numpy as np
from pydantic import Field

from qblock.convexify import convexifying_shift
from qblock.errors import ParameterError
from qblock.exact import prove
from qblock.problem import BlockRemovalProblem, FloatArray, IntArray, ReducedProblem, Sensitivity

Penalty: TypeAlias = Literal["tight", "safe"] | Annotated[float, Field(gt=0)]
"""A proved weight by name, or a positive number in units of the energy."""

MARGIN = 1e-3
"""Relative excess over the proved bound, so that it is strict and wider than the tolerances with
which samplers and `dimod` compare energies."""

MAX_COUNTS = 1_000_000
"""Combinations of counts that are bounded one by one."""

MAX_REFINED = 20
"""Combinations that get a bound of their own at most."""

NODES = 1000
"""Nodes of each such branch and bound: a few milliseconds."""


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
        weight = _tight_weight(problem)
    elif penalty == "safe":
        weight = float(_ratios(problem, _largest_feasible_energy(problem)).max())
    else:
        raise ParameterError(f"penalty must be 'tight', 'safe' or a number, not {penalty!r}")
    scale = float(np.abs(problem.Q).max(initial=0.0)) or 1.0
    return max(weight, 0.0) * (1 + MARGIN) + 0.1 * MARGIN * scale


def _tight_weight(problem: ReducedProblem) -> float:
    _, ceiling = _lowest_energy(problem, problem.budgets)
    ratios = _ratios(problem, ceiling)
    refined: set[tuple[int, ...]] = set()
    while True:
        binding = tuple(int(r) for r in np.unravel_index(np.argmax(ratios), ratios.shape))
        weight = float(ratios[binding])
        one_by_one = ratios.size > 1
        if weight <= 0 or binding in refined or len(refined) == MAX_REFINED or not one_by_one:
            return weight
        refined.add(binding)
        counts = np.array(binding, dtype=np.int64)
        bound, _ = _lowest_energy(problem, counts)
        violation = float(((counts - problem.budgets) ** 2).sum())
        ratios[binding] = min(weight, (ceiling - bound) / violation)


def _lowest_energy(problem: ReducedProblem, counts: IntArray) -> tuple[float, float]:
    """Proved lower bound and best energy found over the states with these counts (K,)."""
    same_form = BlockRemovalProblem(
        Sensitivity(H=problem.Q, groups=tuple(map(str, problem.group_of))),
        remove={str(k): int(count) for k, count in enumerate(counts)},
    ).reduced
    if not len(same_form):
        return same_form.offset, same_form.offset
    proof = prove(same_form, 1, max_nodes=NODES)
    best = proof.states[0].astype(np.float64)
    energy = _energy(same_form.Q, best)
    return proof.certificate.lower_bound + same_form.offset, energy + same_form.offset


def _ratios(problem: ReducedProblem, ceiling: float) -> FloatArray:
    """(ceiling - L(r)) / violation(r) by the tangent at the relaxed minimum, -inf at r = m.

    The array has one axis per group and one entry per count; where these are too many, a single
    entry that bounds them all.
    """
    shift = convexifying_shift(problem.Q)
    constant, sums = _tangent(problem, shift, _relaxed_minimum(problem, shift, problem.budgets))
    if np.prod([float(len(s)) for s in sums]) > MAX_COUNTS:
        return np.array([ceiling - constant - sum(float(s.min()) for s in sums)])
    lowest = constant + sum(np.ix_(*sums))
    away = [(np.arange(len(s)) - float(m)) ** 2 for s, m in zip(sums, problem.budgets, strict=True)]
    violation = sum(np.ix_(*away))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(violation > 0, (ceiling - lowest) / violation, -np.inf)


def _energy(Q: FloatArray, y: FloatArray) -> float:
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


def _largest_feasible_energy(problem: ReducedProblem) -> float:
    """An upper bound on the energy of every feasible state: the same bound, on -Q."""
    mirrored = ReducedProblem(**{**problem.__dict__, "Q": -problem.Q})
    shift = convexifying_shift(mirrored.Q)
    point = _relaxed_minimum(mirrored, shift, mirrored.budgets)
    constant, sums = _tangent(mirrored, shift, point)
    lowest = constant + sum(float(s[m]) for s, m in zip(sums, problem.budgets, strict=True))
    return -lowest
