"""The bound of a node: a convex relaxation, minimised by pairwise steps, valid at every step.

A node has decided some blocks; the free ones C must still take `left[k]` removals from each
group k. On its 0/1 completions y (decided blocks at their values)

    E(y) = y'Qy = f(y),    f(y) = y'Qy + sum_{i in C} d_i y_i (1 - y_i)

for every shift d, because y_i (1 - y_i) = 0. Let d be such that z'(Q - diag d)z >= 0 for all z
supported on C whose sum over each group is zero. Then f is convex on the polytope

    P = {0 <= y_i <= 1, sum of y over the free blocks of group k = left[k]},

as the difference of two points of P is such a z. A convex function lies above its tangents, so
with g = grad f(y) at *any* y in P and all 0/1 completions x

    E(x) >= f(y) + g.(x - y) >= f(y) - g.y + sum_k (sum of the left[k] smallest g_i of group k)

(sums over C). This is the bound; no convergence is needed for its validity, and y may be
whatever the parent node left behind, moved back into P. Forcing a block i to 1 whose g_i is not
among the left[k] smallest replaces the last of these by g_i, forcing one to 0 that is among them
replaces it by the next: where the bound then passes the threshold, i can be fixed the other way
(reduced-cost fixing).

A shift that is valid for C is valid for every subset of C. The arrays `y` and `w = Qy` are kept
for all blocks; `field` is Q times the blocks decided to be removed, `base` their energy, so that
f(y) = base + sum_{i in C} y_i (field_i + w_i + d_i (1 - y_i)).
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from qblock.problem import FloatArray, IntArray

ROUNDING = 1e-15
"""Taken off every bound, relative to the sum of the magnitudes that it is computed from."""

MAX_STEPS = 400
"""Pairwise steps per bound at most."""

STEPS_PER_TEST = 4
"""Pairwise steps between two evaluations of the bound."""


class Model(NamedTuple):
    """What is the same at all nodes: Q float64 (n, n), group_of int64 (n,), budgets int64 (K,)."""

    Q: FloatArray
    group_of: IntArray
    budgets: IntArray


@njit(cache=True, nogil=True)
def move(Q: FloatArray, i: int, step: float, first: int, y: FloatArray, w: FloatArray) -> None:
    """y_i += step, with w = Qy kept for blocks `first` and later (the others are decided)."""
    y[i] += step
    for q in range(first, len(w)):
        w[q] += step * Q[i, q]


@njit(cache=True, nogil=True)
def _restore_budgets(
    model: Model, d: FloatArray, free: IntArray, left: IntArray, y: FloatArray, w: FloatArray
) -> None:
    """Move y back into P after blocks were decided, where it is cheapest to first order."""
    missing = left.astype(np.float64)
    for i in free:
        missing[model.group_of[i]] -= y[i]
    for k in range(len(left)):
        for _ in range(2 * len(free)):
            if abs(missing[k]) <= 1e-14:
                break
            best, best_slope = -1, np.inf
            for i in free:
                if model.group_of[i] != k:
                    continue
                slope = 2.0 * w[i] + d[i] * (1.0 - 2.0 * y[i])
                if missing[k] > 0.0 and y[i] < 1.0 and slope < best_slope:
                    best, best_slope = i, slope
                if missing[k] < 0.0 and y[i] > 0.0 and -slope < best_slope:
                    best, best_slope = i, -slope
            if best < 0:
                break
            before = y[best]
            target = min(1.0, max(0.0, before + missing[k]))
            move(model.Q, best, target - before, free[0], y, w)
            y[best] = target
            missing[k] -= target - before


@njit(cache=True, nogil=True)
def _smallest(values: FloatArray, count: int) -> None:
    """Reorder `values` so that the `count` smallest come first, the largest of them last
    (Hoare's selection; 0 < count <= len)."""
    low, high = 0, len(values) - 1
    k = count - 1
    while low < high:
        pivot = values[(low + high) // 2]
        i, j = low, high
        while i <= j:
            while values[i] < pivot:
                i += 1
            while values[j] > pivot:
                j -= 1
            if i <= j:
                values[i], values[j] = values[j], values[i]
                i += 1
                j -= 1
        if k <= j:
            high = j
        elif k >= i:
            low = i
        else:
            return


@njit(cache=True, nogil=True)
def _linear_minimum(
    model: Model,
    slope: FloatArray,
    free: IntArray,
    left: IntArray,
    scratch: FloatArray,
    inside: FloatArray,
    outside: FloatArray,
) -> float:
    """Least slope.x over P. `inside[k]` becomes the largest slope taken in group k,
    `outside[k]` the smallest left out."""
    total = 0.0
    for k in range(len(left)):
        if left[k] == 0:
            continue
        size = 0
        for i in free:
            if model.group_of[i] == k:
                scratch[size] = slope[i]
                size += 1
        _smallest(scratch[:size], left[k])
        inside[k] = scratch[left[k] - 1]
        outside[k] = np.inf
        for a in range(size):
            if a < left[k]:
                total += scratch[a]
            else:
                outside[k] = min(outside[k], scratch[a])
    return total


class Slopes(NamedTuple):
    """Work space of a bound, and what reduced-cost fixing reads from it.

    Attributes:
        slope: float64 (n,), the gradient g on the free blocks.
        scratch: float64 (n,).
        inside, outside: float64 (K,), see `_linear_minimum`.
        up, down: int64 (K,), per group the block to raise and the one to lower next.
    """

    slope: FloatArray
    scratch: FloatArray
    inside: FloatArray
    outside: FloatArray
    up: IntArray
    down: IntArray


@njit(cache=True, nogil=True)
def _slopes(
    model: Model, d: FloatArray, free: IntArray, y: FloatArray, w: FloatArray, slopes: Slopes
) -> tuple[float, int]:
    """Set the gradient; gives gradient.y and the group whose best pair promises most."""
    up, down, slope = slopes.up, slopes.down, slopes.slope
    up[:] = -1
    down[:] = -1
    along = 0.0
    for i in free:
        g = 2.0 * w[i] + d[i] * (1.0 - 2.0 * y[i])
        slope[i] = g
        along += g * y[i]
        k = model.group_of[i]
        if y[i] < 1.0 and (up[k] < 0 or g < slope[up[k]]):
            up[k] = i
        if y[i] > 0.0 and (down[k] < 0 or g > slope[down[k]]):
            down[k] = i
    best, gain = -1, 0.0
    for k in range(len(up)):
        if up[k] >= 0 and down[k] >= 0 and slope[down[k]] - slope[up[k]] > gain:
            best, gain = k, slope[down[k]] - slope[up[k]]
    return along, best


@njit(cache=True, nogil=True)
def _pairwise_step(
    model: Model, d: FloatArray, i: int, j: int, gain: float, first: int,
    y: FloatArray, w: FloatArray,
) -> float:  # fmt: skip
    """Raise y_i and lower y_j to the minimum of f along that line; gives the change of f."""
    Q = model.Q
    curvature = 2.0 * (Q[i, i] - d[i] + Q[j, j] - d[j] - 2.0 * Q[i, j])
    room = min(1.0 - y[i], y[j])
    step = room
    if curvature > 0.0:
        step = min(room, gain / curvature)
    to_top, to_bottom = step >= 1.0 - y[i], step >= y[j]
    y[i] = 1.0 if to_top else y[i] + step
    y[j] = 0.0 if to_bottom else y[j] - step
    for q in range(first, len(w)):
        w[q] += step * (Q[i, q] - Q[j, q])
    return float(step * (0.5 * step * curvature - gain))


@njit(cache=True, nogil=True)
def _magnitude(slope: FloatArray, free: IntArray) -> float:
    total = 0.0
    for i in free:
        total += abs(slope[i])
    return total


@njit(cache=True, nogil=True)
def lower_bound(
    model: Model, d: FloatArray, free: IntArray, left: IntArray, base: float, field: FloatArray,
    y: FloatArray, w: FloatArray, threshold: float, effort: float, slopes: Slopes,
) -> float:  # fmt: skip
    """A lower bound on the energy of every completion, from moving y towards the minimum of f.

    Stops when the bound passes `threshold`, when the gap f - bound is below `effort` times the
    distance of f from the threshold (the node cannot be cut off), or at the minimum.
    """
    _restore_budgets(model, d, free, left, y, w)
    value = base
    for i in free:
        value += y[i] * (field[i] + w[i] + d[i] * (1.0 - y[i]))
    step = 0
    while True:
        along, k = _slopes(model, d, free, y, w, slopes)
        last = k < 0 or step == MAX_STEPS
        if last or step % STEPS_PER_TEST == STEPS_PER_TEST - 1:
            bound = value - along
            bound += _linear_minimum(
                model, slopes.slope, free, left, slopes.scratch, slopes.inside, slopes.outside
            )
            bound -= ROUNDING * (abs(value) + _magnitude(slopes.slope, free))
            gap = value - bound
            if last or bound >= threshold or gap < 1e-11 * abs(value):
                return float(bound)
            if value < threshold and gap < effort * (threshold - value):
                return float(bound)
        i, j = slopes.up[k], slopes.down[k]
        gain = slopes.slope[j] - slopes.slope[i]
        value += _pairwise_step(model, d, i, j, gain, free[0], y, w)
        step += 1
