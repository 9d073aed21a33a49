"""The bound of a node: a convex relaxation, minimised by pairwise steps, valid at every step.

A node has decided some blocks; the free ones C must still take `left[k]` removals from each
group k. On its 0/1 completions y (decided blocks at their values)

    E(y) = y'Qy = f(y),    f(y) = y'Qy + sum_{i in C} d_i y_i (1 - y_i)

for every shift d, because y_i (1 - y_i) = 0. Let d be such that z'(Q - diag d)z >= 0 for all z
supported on C whose sum over each group is zero. Then f is convex on the polytope

    P = {0 <= y_i <= 1, sum of y over the free blocks of group k = left[k]},

as the difference of two points of P is such a z. A convex function lies above its tangents, so
with g = grad f(y) at *any* y in P, any price p_k for each group and t_i = g_i - p_k(i), all 0/1
completions x have

    E(x) >= f(y) + g.(x - y) = f(y) + t.(x - y) >= f(y) - gap,
    gap = sum_i (t_i y_i if t_i > 0, else -t_i (1 - y_i))

because x and y remove equally many of each group, and x_i is 0 or 1. The right side is the
bound; no convergence is needed for its validity, and y may be whatever the parent node left
behind, moved back into P. Where t_i > 0, an x with x_i = 1 lies t_i higher still, and where
t_i < 0, one with x_i = 0 lies -t_i higher: if that passes the threshold, i can be fixed the
other way (reduced-cost fixing).

A shift that is valid for C is valid for every subset of C.

A node is a smaller problem over its m free blocks: their matrix (the corner of a larger array
that starts at row and column `first`), the linear terms c = 2 Q x of the decided blocks x, and
`base`, the energy of these. With g_i = c_i + 2 (Qy)_i + d_i (1 - 2 y_i),

    f(y) = base + sum_i y_i (c_i + (Qy)_i + d_i (1 - y_i)) = base + sum_i y_i (g_i + c_i + d_i) / 2.

g is computed anew for every bound, so that the rounding errors of the steps do not add up.
"""

from typing import NamedTuple

from qblock.exact.kernel import kernel
from qblock.problem import FloatArray, IntArray

ROUNDING = 1e-14
"""Taken off every bound, relative to the sum of the magnitudes that it is computed from."""

FAR = 1e300
"""Above all slopes."""

MAX_STEPS = 400
"""Pairwise steps per bound at most."""

STEPS_PER_TEST = 4
"""Pairwise steps between two evaluations of the bound."""


class Model(NamedTuple):
    """What is the same at all nodes: Q float64 (n, n), group_of int64 (n,), budgets int64 (K,)."""

    Q: FloatArray
    group_of: IntArray
    budgets: IntArray


class Node(NamedTuple):
    """The free blocks of a node.

    Attributes:
        Q: float64 (n, n); the node's matrix is Q[first:first + m, first:first + m].
        first: where it starts.
        group: int64 (m,), the group of each free block.
        left: int64 (K,), removals still to be made in each group.
        base: energy of the decided blocks.
        c: float64 (m,), linear terms from the decided blocks.
        d: float64 (m,), the shift.
        y: float64 (m,), the relaxed solution: where the search for it starts, and ends.
    """

    Q: FloatArray
    first: int
    group: IntArray
    left: IntArray
    base: float
    c: FloatArray
    d: FloatArray
    y: FloatArray


class Slopes(NamedTuple):
    """Work space of a bound, and what reduced-cost fixing reads from it.

    Attributes:
        slope: float64 (n,), the gradient g on the free blocks.
        price: float64 (K,), p.
    """

    slope: FloatArray
    price: FloatArray


@kernel
def _set_slopes(
    Q: FloatArray, first: int, c: FloatArray, d: FloatArray, y: FloatArray, slope: FloatArray
) -> None:
    """slope = c + 2 Qy + d (1 - 2y)."""
    for i in range(len(y)):
        slope[i] = c[i] + d[i] * (1.0 - 2.0 * y[i])
    for j in range(len(y)):
        twice = 2.0 * y[j]
        if twice != 0.0:
            row = Q[first + j, first:]
            for i in range(len(y)):
                slope[i] += twice * row[i]


@kernel
def _restore_budgets(
    Q: FloatArray, first: int, group: IntArray, left: IntArray, d: FloatArray, y: FloatArray,
    slope: FloatArray,
) -> None:  # fmt: skip
    """Move y back into P after blocks were decided, where it is cheapest to first order."""
    for k in range(len(left)):
        missing = float(left[k])
        for i in range(len(y)):
            if group[i] == k:
                missing -= y[i]
        for _ in range(2 * len(y)):
            if abs(missing) <= 1e-14:
                break
            best, best_slope = -1, FAR
            sign = 1.0 if missing > 0.0 else -1.0
            end = 1.0 if missing > 0.0 else 0.0
            for i in range(len(y)):
                cost = sign * slope[i] + (FAR * (group[i] != k) + FAR * (y[i] == end))
                best = i if cost < best_slope else best
                best_slope = cost if cost < best_slope else best_slope
            if best < 0:
                break
            target = min(1.0, max(0.0, y[best] + missing))
            step = target - y[best]
            y[best] = target
            missing -= step
            row = Q[first + best, first:]
            for q in range(len(y)):
                slope[q] += 2.0 * step * row[q]
            slope[best] -= 2.0 * step * d[best]


@kernel
def _steepest_pair(
    group: IntArray, y: FloatArray, slope: FloatArray, price: FloatArray
) -> tuple[int, int]:
    """The blocks (to raise, to lower) of one group with the largest difference of slopes.

    (-1, -1) if no such pair lowers f. The prices become the middle of the two slopes of each
    group: at the minimum, all blocks between 0 and 1 have that slope.
    """
    best_up, best_down, best_gain = -1, -1, 0.0
    several = len(price) > 1
    for k in range(len(price)):
        up, down, least, most = -1, -1, FAR, -FAR
        for i in range(len(y)):  # without branches, which would be mispredicted
            other = FAR * (group[i] != k) if several else 0.0
            above = slope[i] + (other + FAR * (y[i] >= 1.0))
            below = slope[i] - (other + FAR * (y[i] <= 0.0))
            up = i if above < least else up
            least = above if above < least else least
            down = i if below > most else down
            most = below if below > most else most
        price[k] = 0.5 * (least + most)
        if most - least > best_gain:
            best_up, best_down, best_gain = up, down, most - least
    return best_up, best_down


@kernel
def _pairwise_step(
    Q: FloatArray, first: int, d: FloatArray, i: int, j: int, y: FloatArray, slope: FloatArray
) -> float:
    """Raise y_i and lower y_j to the minimum of f along that line; gives the change of f."""
    up, down = first + i, first + j
    gain = slope[j] - slope[i]
    curvature = 2.0 * (Q[up, up] - d[i] + Q[down, down] - d[j] - 2.0 * Q[up, down])
    room = min(1.0 - y[i], y[j])
    step = room
    if curvature > 0.0:
        step = min(room, gain / curvature)
    to_top, to_bottom = step >= 1.0 - y[i], step >= y[j]
    y[i] = 1.0 if to_top else y[i] + step
    y[j] = 0.0 if to_bottom else y[j] - step
    raised, lowered = Q[up, first:], Q[down, first:]
    for q in range(len(y)):
        slope[q] += 2.0 * step * (raised[q] - lowered[q])
    slope[i] -= 2.0 * step * d[i]
    slope[j] += 2.0 * step * d[j]
    return float(step * (0.5 * step * curvature - gain))


@kernel(fastmath={"reassoc", "nsz"})
def _gap(
    group: IntArray, y: FloatArray, slope: FloatArray, price: FloatArray
) -> tuple[float, float]:
    """f(y) less the bound, and the sum of the magnitudes of the slopes."""
    gap, magnitude = 0.0, 0.0
    several = len(price) > 1
    for i in range(len(y)):
        t = slope[i] - (price[group[i]] if several else price[0])
        gap += t * (y[i] - (t < 0.0))
        magnitude += abs(slope[i])
    return gap, magnitude


@kernel
def lower_bound(node: Node, threshold: float, effort: float, slopes: Slopes) -> float:
    """A lower bound on the energy of every completion, from moving y towards the minimum of f.

    Stops when the bound passes `threshold`, when the gap f - bound is below `effort` times the
    distance of f from the threshold (the node cannot be cut off), or at the minimum.
    """
    Q, first, group, left, base, c, d, y = node
    slope, price = slopes
    _set_slopes(Q, first, c, d, y, slope)
    _restore_budgets(Q, first, group, left, d, y, slope)
    value = base
    for i in range(len(y)):
        value += 0.5 * y[i] * (slope[i] + c[i] + d[i])
    step = 0
    while True:
        i, j = _steepest_pair(group, y, slope, price)
        last = i < 0 or step == MAX_STEPS
        if last or step % STEPS_PER_TEST == STEPS_PER_TEST - 1:
            gap, magnitude = _gap(group, y, slope, price)
            bound = value - gap - ROUNDING * (abs(value) + magnitude)
            if last or bound >= threshold or gap < 1e-11 * abs(value):
                return float(bound)
            if value < threshold and gap < effort * (threshold - value):
                return float(bound)
        value += _pairwise_step(Q, first, d, i, j, y, slope)
        step += 1
