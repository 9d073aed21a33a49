"""Depth-first branch and bound, in slices, so that it can be stopped and looked at.

Blocks are branched on in the order they have in `Model` (the caller sorts them by descending
diagonal), x = 1 first: removing a heavy block is refuted at once, and what remains is a smaller
problem for which a larger shift is valid. The whole state of the search is in arrays.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from qblock.exact.bound import Model, Slopes, lower_bound, move
from qblock.exact.pool import Pool, highest, offer
from qblock.problem import FloatArray, IntArray, States

TOLERANCE = 1e-9
"""Relative to the k-th energy: energies closer than this are not told apart."""

BRANCH, CLOSED = 0, 1
"""What becomes of a node: it has two children, or nothing more is to be found below it."""

DONE, MORE, WANTS_SHIFT = 0, 1, 2
"""Why a slice ended."""


class Shifts(NamedTuple):
    """Shifts by level; level l means that blocks 0 ... l-1 are decided.

    Attributes:
        d: float64 (n, n); row l is a shift for nodes of level l, where it has been made.
        row: int64 (n,), the row to use at each level: the last one made, up to this level.
        visits: int64 (n,), nodes bounded at each level.
        due: int64 (n,), the number of visits at which a level's shift is to be made (again).
        spread: float64 (n, n), row l is the sum of y (1 - y) over the visits of level l.
    """

    d: FloatArray
    row: IntArray
    visits: IntArray
    due: IntArray
    spread: FloatArray


class Stack(NamedTuple):
    """The open path of the search; every array has one row for each depth.

    Attributes:
        free: int64 (D, n), the undecided blocks ascending, in the first `size` places.
        size: int64 (D,).
        left: int64 (D, K), removals still to be made in each group.
        state: int8 (D, n), 1 = decided to be removed.
        base: float64 (D,), energy of the decided blocks.
        field: float64 (D, n), Q @ state.
        y, w: float64 (D, n), relaxed solution and Q @ y.
        bound: float64 (D,), no completion has a lower energy.
        child: int64 (D,), the next child to look at: 0, 1, or 2 when both are done.
        depth: int64 (1,), the last row in use, -1 when the search is over.
        nodes: int64 (1,), nodes looked at.
    """

    free: IntArray
    size: IntArray
    left: IntArray
    state: States
    base: FloatArray
    field: FloatArray
    y: FloatArray
    w: FloatArray
    bound: FloatArray
    child: IntArray
    depth: IntArray
    nodes: IntArray


def root_stack(model: Model) -> Stack:
    """A search that has not decided anything yet."""
    n, groups = len(model.Q), len(model.budgets)
    depths = n + 1
    stack = Stack(
        free=np.zeros((depths, n), dtype=np.int64),
        size=np.zeros(depths, dtype=np.int64),
        left=np.zeros((depths, groups), dtype=np.int64),
        state=np.zeros((depths, n), dtype=np.int8),
        base=np.zeros(depths),
        field=np.zeros((depths, n)),
        y=np.zeros((depths, n)),
        w=np.zeros((depths, n)),
        bound=np.full(depths, -np.inf),
        child=np.zeros(depths, dtype=np.int64),
        depth=np.zeros(1, dtype=np.int64),
        nodes=np.zeros(1, dtype=np.int64),
    )
    stack.free[0] = np.arange(n)
    stack.size[0] = n
    stack.left[0] = model.budgets
    stack.y[0] = (model.budgets / np.bincount(model.group_of))[model.group_of]
    stack.w[0] = model.Q @ stack.y[0]
    return stack


def new_shifts(model: Model, patience: int) -> Shifts:
    """No shifts yet; each level is due after `patience` visits."""
    n = len(model.Q)
    return Shifts(
        np.zeros((n, n)), np.zeros(n, dtype=np.int64), np.zeros(n, dtype=np.int64),
        np.full(n, patience), np.zeros((n, n)),
    )  # fmt: skip


def new_slopes(model: Model) -> Slopes:
    n, groups = len(model.Q), len(model.budgets)
    return Slopes(
        np.zeros(n), np.zeros(n), np.zeros(groups), np.zeros(groups),
        np.zeros(groups, dtype=np.int64), np.zeros(groups, dtype=np.int64),
    )  # fmt: skip


@njit(cache=True, nogil=True)
def tie_width(pool: Pool) -> float:
    """Energies that differ by no more than this count as equal."""
    top = highest(pool)
    return float(pool.width[0] + (TOLERANCE * abs(top) if np.isfinite(top) else 0.0))


@njit(cache=True, nogil=True)
def cut_threshold(pool: Pool) -> float:
    """Nodes with a bound of at least this are cut off.

    Normally it lies above the k-th energy by the tie width, so that every state tied with the
    k-th place is seen. Once one of these is known not to fit into the list, more of them would
    tell nothing, and the threshold moves below the k-th energy by as much; `pool.lost` then
    says what may be missing.
    """
    top = highest(pool)
    width = tie_width(pool)
    if pool.lost[0] > top + width or not np.isfinite(top):
        return float(top + width)
    pool.lost[0] = min(pool.lost[0], top - width)
    return float(top - width)


@njit(cache=True, nogil=True)
def _decide(model: Model, stack: Stack, at: int, i: int, value: int, first: int) -> None:
    """Decide block i; the caller takes it off the free list."""
    Q = model.Q
    if stack.y[at, i] != value:
        move(Q, i, value - stack.y[at, i], first, stack.y[at], stack.w[at])
        stack.y[at, i] = value
    if value == 1:
        stack.base[at] += Q[i, i] + 2.0 * stack.field[at, i]
        for q in range(first, len(Q)):
            stack.field[at, q] += Q[i, q]
        stack.left[at, model.group_of[i]] -= 1
        stack.state[at, i] = 1


@njit(cache=True, nogil=True)
def _settle_groups(model: Model, stack: Stack, at: int) -> bool:
    """Decide the groups of which no or all free blocks go. False if a budget cannot be met."""
    groups = len(model.budgets)
    sizes = np.zeros(groups, dtype=np.int64)
    for a in range(stack.size[at]):
        sizes[model.group_of[stack.free[at, a]]] += 1
    wanted = stack.left[at].copy()
    choice = False
    for k in range(groups):
        if wanted[k] < 0 or wanted[k] > sizes[k]:
            return False
        choice = choice or (sizes[k] > 0 and (wanted[k] == 0 or wanted[k] == sizes[k]))
    if not choice:
        return True
    kept = 0
    first = stack.free[at, 0]
    for a in range(stack.size[at]):
        i = stack.free[at, a]
        k = model.group_of[i]
        if wanted[k] == 0:
            _decide(model, stack, at, i, 0, first)
        elif wanted[k] == sizes[k]:
            _decide(model, stack, at, i, 1, first)
        else:
            stack.free[at, kept] = i
            kept += 1
    stack.size[at] = kept
    return True


@njit(cache=True, nogil=True)
def _offer_pairs(model: Model, stack: Stack, at: int, pool: Pool) -> None:
    """Offer all completions of a node with two removals left."""
    Q, group_of = model.Q, model.group_of
    field, left, state = stack.field[at], stack.left[at], stack.state[at]
    for a in range(stack.size[at]):
        i = stack.free[at, a]
        own = stack.base[at] + Q[i, i] + 2.0 * field[i]
        for b in range(a):
            j = stack.free[at, b]
            if left[group_of[i]] != (2 if group_of[i] == group_of[j] else 1):
                continue
            energy = own + Q[j, j] + 2.0 * field[j] + 2.0 * Q[i, j]
            if energy <= highest(pool) + tie_width(pool):
                state[i], state[j] = 1, 1
                offer(pool, energy, state)
                state[i], state[j] = 0, 0


@njit(cache=True, nogil=True)
def _offer_singles(model: Model, stack: Stack, at: int, pool: Pool) -> None:
    """Offer all completions of a node with one removal left."""
    state = stack.state[at]
    for a in range(stack.size[at]):
        i = stack.free[at, a]
        if stack.left[at, model.group_of[i]] == 1:
            state[i] = 1
            offer(pool, stack.base[at] + model.Q[i, i] + 2.0 * stack.field[at, i], state)
            state[i] = 0


@njit(cache=True, nogil=True)
def _fix_by_reduced_cost(
    model: Model, stack: Stack, at: int, bound: float, threshold: float, slopes: Slopes
) -> int:
    """Decide the blocks whose other value would pass the threshold; gives how many."""
    first = stack.free[at, 0]
    kept = 0
    size = stack.size[at]
    for a in range(size):
        i = stack.free[at, a]
        k, g = model.group_of[i], slopes.slope[i]
        if g > slopes.inside[k] and bound + g - slopes.inside[k] >= threshold:
            _decide(model, stack, at, i, 0, first)
        elif g < slopes.outside[k] and bound + slopes.outside[k] - g >= threshold:
            _decide(model, stack, at, i, 1, first)
        else:
            stack.free[at, kept] = i
            kept += 1
    stack.size[at] = kept
    return int(size - kept)


@njit(cache=True, nogil=True)
def _record_visit(shifts: Shifts, free: IntArray, y: FloatArray) -> None:
    level = free[0]
    shifts.visits[level] += 1
    for i in free:
        shifts.spread[level, i] += y[i] * (1.0 - y[i])


@njit(cache=True, nogil=True)
def process(
    model: Model, shifts: Shifts, stack: Stack, at: int, pool: Pool, slopes: Slopes, effort: float
) -> int:
    """Bound a node, fix what can be fixed, enumerate it if it is small; BRANCH or CLOSED."""
    while True:
        if not _settle_groups(model, stack, at):
            return CLOSED
        total = stack.left[at].sum()
        if stack.size[at] == 0:
            offer(pool, stack.base[at], stack.state[at])
            return CLOSED
        if total == 1:
            _offer_singles(model, stack, at, pool)
            return CLOSED
        if total == 2:
            _offer_pairs(model, stack, at, pool)
            return CLOSED
        threshold = cut_threshold(pool)
        free = stack.free[at, : stack.size[at]]
        bound = lower_bound(
            model, shifts.d[shifts.row[free[0]]], free, stack.left[at], stack.base[at],
            stack.field[at], stack.y[at], stack.w[at], threshold, effort, slopes,
        )  # fmt: skip
        _record_visit(shifts, free, stack.y[at])
        stack.bound[at] = max(stack.bound[at], bound)
        if bound >= threshold:
            return CLOSED
        if _fix_by_reduced_cost(model, stack, at, bound, threshold, slopes) == 0:
            return BRANCH


@njit(cache=True, nogil=True)
def _make_child(model: Model, stack: Stack, at: int) -> None:
    """Copy row `at` to the next row with the first free block decided, removed first."""
    to = at + 1
    value = 1 - stack.child[at]
    size = stack.size[at]
    first = stack.free[at, 0]
    stack.free[to, : size - 1] = stack.free[at, 1:size]
    stack.size[to] = size - 1
    stack.left[to] = stack.left[at]
    stack.state[to] = stack.state[at]
    stack.base[to] = stack.base[at]
    stack.bound[to] = stack.bound[at]
    stack.child[to] = 0
    for q in range(first, len(model.Q)):
        stack.field[to, q] = stack.field[at, q]
        stack.y[to, q] = stack.y[at, q]
        stack.w[to, q] = stack.w[at, q]
    _decide(model, stack, to, first, value, first)


@njit(cache=True, nogil=True)
def run_slice(
    model: Model, shifts: Shifts, stack: Stack, pool: Pool, slopes: Slopes,
    effort: float, max_nodes: int,
) -> int:  # fmt: skip
    """Continue the search below the rows on the stack, for at most `max_nodes` nodes.

    Ends with WANTS_SHIFT when the level of the next child of the last row is due for a shift.
    """
    for _ in range(max_nodes):
        while stack.depth[0] >= 0 and stack.child[stack.depth[0]] == 2:
            stack.depth[0] -= 1
        at = stack.depth[0]
        if at < 0:
            return DONE
        level = stack.free[at, 1]
        if shifts.visits[level] >= shifts.due[level]:
            return WANTS_SHIFT
        _make_child(model, stack, at)
        stack.child[at] += 1
        stack.nodes[0] += 1
        if process(model, shifts, stack, at + 1, pool, slopes, effort) == BRANCH:
            stack.depth[0] = at + 1
    return MORE


@njit(cache=True, nogil=True)
def open_bound(stack: Stack) -> float:
    """The lowest bound of what the search has not looked at yet; infinite when it is over."""
    lowest = np.inf
    for at in range(stack.depth[0] + 1):
        if stack.child[at] < 2:
            lowest = min(lowest, stack.bound[at])
    return lowest
