"""All completions of a node that has few of them, one by one."""

from typing import NamedTuple

import numpy as np

from qblock.exact.bound import Node
from qblock.exact.kernel import kernel
from qblock.exact.pool import Pool, highest, offer, tie_width
from qblock.problem import FloatArray, IntArray, States


class Prefixes(NamedTuple):
    """Work space: the path of a depth-first enumeration, one row for each block chosen.

    Attributes:
        chosen: int64 (n,).
        energy: float64 (n,), of the decided and the chosen blocks.
        linear: float64 (n, n), what each block would add to it.
    """

    chosen: IntArray
    energy: FloatArray
    linear: FloatArray


def new_prefixes(n: int) -> Prefixes:
    return Prefixes(np.zeros(n, dtype=np.int64), np.zeros(n), np.zeros((n, n)))


@kernel
def fewer_choices(size: int, take: int, limit: int) -> bool:
    """Whether C(size, take) <= limit."""
    count = 1
    for t in range(min(take, size - take)):
        count = count * (size - t) // (t + 1)
        if count > limit:
            return False
    return True


@kernel
def offer_completions(
    node: Node, free: IntArray, state: States, pool: Pool, prefixes: Prefixes
) -> None:
    """Offer all completions that may be among the k lowest.

    `free` int64 (m,) are the node's blocks in `state` int8 (n,), which is left as it is.
    """
    chosen, energy, linear = prefixes
    Q, first, group, left, base, c = node[:6]
    size, total = len(free), left.sum()
    energy[0] = base
    for a in range(size):
        linear[0, a] = c[a] + Q[first + a, first + a]
    if total == 0:
        offer(pool, base, state)
    if total == 1:
        _offer_singles(group, left, free, base, linear[0], state, pool)
    limit = highest(pool) + tie_width(pool)
    if total == 2:
        _offer_pairs(Q, first, group, left, free, size, base, linear[0], state, pool, limit)
    if total <= 2:
        return
    t = 0
    chosen[0] = size
    while True:
        chosen[t] -= 1
        a = chosen[t]
        if a < total - t - 1:  # too few blocks before it
            t -= 1
            if t < 0:
                return
            left[group[chosen[t]]] += 1
            state[free[chosen[t]]] = 0
            continue
        if left[group[a]] == 0:
            continue
        energy[t + 1] = energy[t] + linear[t, a]
        coupling = Q[first + a, first:]
        for b in range(a):
            linear[t + 1, b] = linear[t, b] + 2.0 * coupling[b]
        left[group[a]] -= 1
        state[free[a]] = 1
        if total - t - 1 > 2:
            t += 1
            chosen[t] = a
            continue
        if energy[t + 1] + _lowest_pair(Q, first, a, linear, t + 1) <= limit:
            limit = _offer_pairs(
                Q, first, group, left, free, a, energy[t + 1], linear[t + 1], state, pool, limit
            )
        left[group[a]] += 1
        state[free[a]] = 0


@kernel(fastmath={"nnan", "nsz", "reassoc"})
def _lowest_pair(Q: FloatArray, first: int, size: int, linear: FloatArray, row: int) -> float:
    """The least that two of the first `size` blocks add, whatever their groups."""
    lowest = np.inf
    for a in range(1, size):
        coupling = Q[first + a, first:]
        in_row = np.inf
        for b in range(a):
            in_row = min(in_row, linear[row, b] + 2.0 * coupling[b])
        lowest = min(lowest, in_row + linear[row, a])
    return lowest


@kernel
def _offer_singles(
    group: IntArray, left: IntArray, free: IntArray, energy: float, linear: FloatArray,
    state: States, pool: Pool,
) -> None:  # fmt: skip
    for a in range(len(free)):
        if left[group[a]] == 1:
            state[free[a]] = 1
            offer(pool, energy + linear[a], state)
            state[free[a]] = 0


@kernel
def _offer_pairs(
    Q: FloatArray, first: int, group: IntArray, left: IntArray, free: IntArray, size: int,
    energy: float, linear: FloatArray, state: States, pool: Pool, limit: float,
) -> float:  # fmt: skip
    """Offer the pairs of the first `size` blocks with an energy up to `limit`; gives the new one.

    The limit is the k-th energy plus the width of a tie.
    """
    for a in range(size):
        own = energy + linear[a]
        for b in range(a):
            pair = own + linear[b] + 2.0 * Q[first + a, first + b]
            wanted = 2 if group[a] == group[b] else 1
            if pair > limit or left[group[a]] != wanted or left[group[b]] != wanted:
                continue
            state[free[a]], state[free[b]] = 1, 1
            offer(pool, pair, state)
            state[free[a]], state[free[b]] = 0, 0
            limit = highest(pool) + tie_width(pool)
    return limit
