"""Depth-first branch and bound, in slices, so that it can be stopped and looked at.

Blocks are branched on in the order they have in `Model` (the caller sorts them by descending
diagonal), x = 1 first: removing a heavy block is refuted at once, and what remains is a smaller
problem for which a larger shift is valid. The whole state of the search is in arrays.
"""

from copy import deepcopy
from typing import NamedTuple

import numpy as np

from qblock.exact.bound import Model, Node, Slopes, lower_bound
from qblock.exact.kernel import kernel
from qblock.exact.leaves import Prefixes, fewer_choices, new_prefixes, offer_completions
from qblock.exact.pool import Pool, highest, tie_width
from qblock.problem import FloatArray, IntArray, States

UNDECIDED = -1

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

    A child without its first block is the corner of its parent's matrix, so a node refers to the
    row of `Q` where its matrix begins; one that loses other blocks gets a matrix of its own.

    Attributes:
        free, group: int64 (D, n), the undecided blocks ascending, in the first `size` places,
            and their groups.
        c, y: float64 (D, n), their linear terms and relaxed solution, see `bound.Node`.
        Q: float64 (D, n, n), matrices of free blocks.
        frame, first: int64 (D,), the node's matrix is Q[frame, first:first + size, ...].
        size: int64 (D,).
        left: int64 (D, K), removals still to be made in each group.
        state: int8 (D, n), 1 = decided to be removed.
        base: float64 (D,), energy of the decided blocks.
        bound: float64 (D,), no completion has a lower energy.
        child: int64 (D,), the next child to look at: 0, 1, or 2 when both are done.
        depth: int64 (1,), the last row in use, -1 when the search is over.
        nodes: int64 (1,), nodes looked at.
    """

    free: IntArray
    group: IntArray
    c: FloatArray
    y: FloatArray
    Q: FloatArray
    frame: IntArray
    first: IntArray
    size: IntArray
    left: IntArray
    state: States
    base: FloatArray
    bound: FloatArray
    child: IntArray
    depth: IntArray
    nodes: IntArray


class Policy(NamedTuple):
    """How much work a node is worth.

    Attributes:
        effort: how far its bound is driven, see `bound.lower_bound`.
        few: with at most this many completions it is enumerated without a bound.
        some: with at most this many it is enumerated if its bound does not cut it off.
    """

    effort: float
    few: int
    some: int


class Work(NamedTuple):
    """Work space of one search.

    Attributes:
        slopes: of the bounds.
        prefixes: of the enumerations.
        d: float64 (n,), the shift of the node at hand.
        fate: int64 (n,), what becomes of its free blocks: 0, 1 or UNDECIDED.
    """

    slopes: Slopes
    prefixes: Prefixes
    d: FloatArray
    fate: IntArray


def root_stack(model: Model) -> Stack:
    """A search that has not decided anything yet."""
    n, groups = len(model.Q), len(model.budgets)
    depths = n + 1
    stack = Stack(
        free=np.zeros((depths, n), dtype=np.int64),
        group=np.zeros((depths, n), dtype=np.int64),
        c=np.zeros((depths, n)),
        y=np.zeros((depths, n)),
        Q=np.empty((depths, n, n)),  # most of it is never touched
        frame=np.zeros(depths, dtype=np.int64),
        first=np.zeros(depths, dtype=np.int64),
        size=np.zeros(depths, dtype=np.int64),
        left=np.zeros((depths, groups), dtype=np.int64),
        state=np.zeros((depths, n), dtype=np.int8),
        base=np.zeros(depths),
        bound=np.full(depths, -np.inf),
        child=np.zeros(depths, dtype=np.int64),
        depth=np.zeros(1, dtype=np.int64),
        nodes=np.zeros(1, dtype=np.int64),
    )
    stack.free[0] = np.arange(n)
    stack.group[0] = model.group_of
    stack.Q[0] = model.Q
    stack.size[0] = n
    stack.left[0] = model.budgets
    stack.y[0] = (model.budgets / np.bincount(model.group_of))[model.group_of]
    return stack


def new_shifts(model: Model, patience: int) -> Shifts:
    """No shifts yet; each level is due after `patience` visits."""
    n = len(model.Q)
    return Shifts(
        np.zeros((n, n)), np.zeros(n, dtype=np.int64), np.zeros(n, dtype=np.int64),
        np.full(n, patience), np.zeros((n, n)),
    )  # fmt: skip


def new_work(model: Model) -> Work:
    n, groups = len(model.Q), len(model.budgets)
    return Work(
        Slopes(np.zeros(n), np.zeros(groups)),
        new_prefixes(n),
        np.zeros(n),
        np.zeros(n, dtype=np.int64),
    )


@kernel
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


@kernel
def _node(stack: Stack, at: int, d: FloatArray) -> Node:
    size = stack.size[at]
    return Node(
        stack.Q[stack.frame[at]], stack.first[at], stack.group[at, :size], stack.left[at],
        stack.base[at], stack.c[at, :size], d[:size], stack.y[at, :size],
    )  # fmt: skip


@kernel
def _remove(stack: Stack, at: int, a: int) -> None:
    """Decide the a-th free block to be removed; the caller takes it off the free list."""
    Q, first, c = stack.Q[stack.frame[at]], stack.first[at], stack.c[at]
    stack.base[at] += Q[first + a, first + a] + c[a]
    for q in range(stack.size[at]):
        c[q] += 2.0 * Q[first + a, first + q]
    stack.left[at, stack.group[at, a]] -= 1
    stack.state[at, stack.free[at, a]] = 1


@kernel
def _apply_fates(stack: Stack, at: int, fate: IntArray) -> None:
    """Decide the free blocks whose fate is not UNDECIDED, and take them off the free list."""
    free, group, c, y = stack.free[at], stack.group[at], stack.c[at], stack.y[at]
    size = stack.size[at]
    for a in range(size):
        if fate[a] == 1:
            _remove(stack, at, a)
    kept = 0
    for a in range(size):
        if fate[a] == UNDECIDED:
            free[kept], group[kept], c[kept], y[kept] = free[a], group[a], c[a], y[a]
            fate[kept] = a  # from here on, where the kept ones were
            kept += 1
    old, new, first = stack.Q[stack.frame[at]], stack.Q[at], stack.first[at]
    for a in range(kept):
        for b in range(kept):
            new[a, b] = old[first + fate[a], first + fate[b]]
    stack.frame[at] = at
    stack.first[at] = 0
    stack.size[at] = kept


@kernel
def _settle_groups(stack: Stack, at: int, fate: IntArray) -> bool:
    """Decide the groups of which no or all free blocks go. False if a budget cannot be met."""
    group, left, size = stack.group[at], stack.left[at], stack.size[at]
    settled = 0
    for k in range(len(left)):
        members = 0
        for a in range(size):
            members += group[a] == k
        if left[k] < 0 or left[k] > members:
            return False
        choice = 0 < left[k] < members
        for a in range(size):
            if group[a] == k:
                fate[a] = UNDECIDED if choice else (1 if left[k] > 0 else 0)
        settled += 0 if choice else members
    if settled > 0:
        _apply_fates(stack, at, fate)
    return True


@kernel
def _fix_by_reduced_cost(stack: Stack, at: int, bound: float, threshold: float, work: Work) -> bool:
    """Decide the blocks whose other value would pass the threshold; True if there are any."""
    slopes, fate = work.slopes, work.fate
    fixed = 0
    for a in range(stack.size[at]):
        t = slopes.slope[a] - slopes.price[stack.group[at, a]]
        fate[a] = UNDECIDED
        if bound + abs(t) >= threshold:
            fate[a] = 0 if t > 0.0 else 1
        fixed += fate[a] != UNDECIDED
    if fixed > 0:
        _apply_fates(stack, at, fate)
    return fixed > 0


@kernel
def _set_shift(shifts: Shifts, free: IntArray, d: FloatArray) -> None:
    row = shifts.row[free[0]]
    for a in range(len(free)):
        d[a] = shifts.d[row, free[a]]


@kernel
def _record_visit(shifts: Shifts, free: IntArray, y: FloatArray) -> None:
    level = free[0]
    shifts.visits[level] += 1
    for a in range(len(free)):
        shifts.spread[level, free[a]] += y[a] * (1.0 - y[a])


@kernel
def process(shifts: Shifts, stack: Stack, at: int, pool: Pool, work: Work, policy: Policy) -> int:
    """Bound a node, fix what can be fixed, enumerate it if it is small; BRANCH or CLOSED."""
    while True:
        if not _settle_groups(stack, at, work.fate):
            return CLOSED
        free = stack.free[at, : stack.size[at]]
        total = stack.left[at].sum()
        if total <= 2 or fewer_choices(len(free), total, policy.few):
            node = _node(stack, at, work.d)
            offer_completions(node, free, stack.state[at], pool, work.prefixes)
            return CLOSED
        _set_shift(shifts, free, work.d)
        node = _node(stack, at, work.d)
        threshold = cut_threshold(pool)
        bound = lower_bound(node, threshold, policy.effort, work.slopes)
        _record_visit(shifts, free, node.y)
        stack.bound[at] = max(stack.bound[at], bound)
        if bound >= threshold:
            return CLOSED
        if _fix_by_reduced_cost(stack, at, bound, threshold, work):
            continue
        if fewer_choices(len(free), total, policy.some):
            offer_completions(node, free, stack.state[at], pool, work.prefixes)
            return CLOSED
        return BRANCH


@kernel
def _make_child(stack: Stack, at: int) -> None:
    """Copy row `at` to the next row with the first free block decided, removed first."""
    to = at + 1
    size = stack.size[at]
    for a in range(1, size):
        stack.free[to, a - 1] = stack.free[at, a]
        stack.group[to, a - 1] = stack.group[at, a]
        stack.c[to, a - 1] = stack.c[at, a]
        stack.y[to, a - 1] = stack.y[at, a]
    stack.frame[to] = stack.frame[at]
    stack.first[to] = stack.first[at] + 1
    stack.size[to] = size - 1
    for k in range(stack.left.shape[1]):
        stack.left[to, k] = stack.left[at, k]
    for i in range(stack.state.shape[1]):
        stack.state[to, i] = stack.state[at, i]
    stack.base[to] = stack.base[at]
    stack.bound[to] = stack.bound[at]
    stack.child[to] = 0
    if stack.child[at] == 0:
        Q, first = stack.Q[stack.frame[at]], stack.first[at]
        stack.base[to] += Q[first, first] + stack.c[at, 0]
        for q in range(size - 1):
            stack.c[to, q] += 2.0 * Q[first, first + 1 + q]
        stack.left[to, stack.group[at, 0]] -= 1
        stack.state[to, stack.free[at, 0]] = 1


@kernel
def run_slice(
    shifts: Shifts, stack: Stack, pool: Pool, work: Work, policy: Policy, max_nodes: int
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
        _make_child(stack, at)
        stack.child[at] += 1
        stack.nodes[0] += 1
        if process(shifts, stack, at + 1, pool, work, policy) == BRANCH:
            stack.depth[0] = at + 1
    return MORE


@kernel
def open_bound(stack: Stack) -> float:
    """The lowest bound of what the search has not looked at yet; infinite when it is over."""
    lowest = np.inf
    for at in range(stack.depth[0] + 1):
        if stack.child[at] < 2:
            lowest = min(lowest, stack.bound[at])
    return lowest


def open_rows(stack: Stack) -> IntArray:
    """Rows (R,) of the nodes with children that have not been looked at."""
    return np.flatnonzero(stack.child[: stack.depth[0] + 1] < 2)


def split(stack: Stack) -> Stack:
    """Move every second open row to a stack of its own.

    The rows of a path do not need each other: each holds its node in full, apart from its matrix,
    which is in the same place in both stacks. Every second one, as subtrees become smaller from
    row to row.
    """
    other = deepcopy(stack)
    rows = open_rows(stack)
    stack.child[rows[0::2]] = 2
    other.child[rows[1::2]] = 2
    return other
