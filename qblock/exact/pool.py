"""The pool: the k lowest states seen so far, and swap search to fill it before the proof."""

# ruff: noqa: NPY002  (compiled code has no other generators)

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numba import njit

from qblock.exact.heap import keep_lowest
from qblock.exact.kernel import kernel
from qblock.moves import apply_swap, local_field, random_state, swap_change
from qblock.problem import FloatArray, IntArray, States

TOLERANCE = 1e-9
"""Relative to the k-th energy: energies closer than this are not told apart."""


class Pool(NamedTuple):
    """The k lowest distinct states seen, as a max-heap by energy.

    Attributes:
        energies: float64 (k,); the first `used` are in use, the highest of them at 0.
        states: int8 (k, n).
        used: int64 (1,).
        lost: float64 (1,), no state that was seen, or cut off as a tie, and that is not in the
            pool has a lower energy.
        width: float64 (1,), energies of one state computed in two ways differ by less.
    """

    energies: FloatArray
    states: States
    used: IntArray
    lost: FloatArray
    width: FloatArray


def empty_pool(k: int, n: int, width: float) -> Pool:
    return Pool(
        np.full(k, np.inf),
        np.zeros((k, n), dtype=np.int8),
        np.zeros(1, dtype=np.int64),
        np.full(1, np.inf),
        np.full(1, width),
    )


@kernel
def highest(pool: Pool) -> float:
    """The k-th lowest energy, infinite while there are fewer than k states."""
    return float(pool.energies[0]) if pool.used[0] == len(pool.energies) else np.inf


@kernel
def tie_width(pool: Pool) -> float:
    """Energies that differ by no more than this count as equal."""
    top = highest(pool)
    return float(pool.width[0] + (TOLERANCE * abs(top) if np.isfinite(top) else 0.0))


@kernel
def _same(a: States, b: States) -> bool:
    for i in range(len(a)):  # noqa: SIM110  (numba compiles no generators)
        if a[i] != b[i]:
            return False
    return True


@kernel
def _holds(pool: Pool, energy: float, state: States) -> bool:
    for at in range(pool.used[0]):
        close = abs(pool.energies[at] - energy) <= pool.width[0]
        if close and _same(pool.states[at], state):
            return True
    return False


@kernel
def offer(pool: Pool, energy: float, state: States) -> None:
    """Keep the state if it is among the k lowest; remember the energy of what is lost."""
    top = highest(pool)
    if energy > top + pool.width[0]:
        pool.lost[0] = min(pool.lost[0], energy)
        return
    if _holds(pool, energy, state):
        return
    if pool.used[0] == len(pool.energies):
        pool.lost[0] = min(pool.lost[0], max(energy, top))
        if energy >= top:
            return
    pool.used[0] = keep_lowest(pool.energies, pool.states, pool.used[0], energy, state)


def merge(pool: Pool, other: Pool) -> None:
    """Take over what is in another pool, and what is known to be missing from it."""
    known = {state.tobytes() for state in pool.states[: pool.used[0]]}
    pool.lost[0] = min(pool.lost[0], other.lost[0])
    for at in range(other.used[0]):
        if other.states[at].tobytes() not in known:
            offer(pool, other.energies[at], other.states[at])


MAX_EXPANDED = 5000
"""Pool members at most whose neighbours are offered in one sweep."""

MEMBERS_PER_CALL = 4
"""Pool members expanded between two looks at the clock; each costs up to n^2 k / 4 steps."""


@kernel
def _energy(field: FloatArray, state: States) -> float:
    total = 0.0
    for i in range(len(state)):
        if state[i]:
            total += field[i]
    return total


@njit(cache=True, nogil=True)
def _offer_neighbours(Q: FloatArray, group_of: IntArray, state: States, pool: Pool) -> None:
    """Offer all states one swap away from `state`, which is left as it is."""
    field = local_field(Q, state)
    energy = _energy(field, state)
    removed, kept = np.flatnonzero(state == 1), np.flatnonzero(state == 0)
    for out in removed:
        for into in kept:
            if group_of[into] != group_of[out]:
                continue
            change = swap_change(Q, field, out, into)
            if energy + change < highest(pool):
                state[out], state[into] = 0, 1
                offer(pool, energy + change, state)
                state[out], state[into] = 1, 0


@njit(cache=True, nogil=True)
def _best_swap(
    Q: FloatArray, group_of: IntArray, state: States, field: FloatArray
) -> tuple[float, int, int]:
    """The steepest swap as (change, out, into)."""
    best, best_out, best_into = np.inf, -1, -1
    removed, kept = np.flatnonzero(state == 1), np.flatnonzero(state == 0)
    for out in removed:
        for into in kept:
            change = swap_change(Q, field, out, into)
            if change < best and group_of[into] == group_of[out]:
                best, best_out, best_into = change, int(out), int(into)
    return best, best_out, best_into


@njit(cache=True, nogil=True)
def fill_by_descent(
    Q: FloatArray, group_of: IntArray, budgets: IntArray, starts: int, seed: int, pool: Pool
) -> None:
    """Offer the ends of steepest descents by swaps from random states."""
    np.random.seed(seed)
    for _ in range(starts):
        state = random_state(group_of, budgets)
        field = local_field(Q, state)
        while True:
            change, out, into = _best_swap(Q, group_of, state, field)
            if not change < -pool.width[0]:
                break
            apply_swap(Q, state, field, out, into)
        offer(pool, _energy(field, state), state)


@njit(cache=True, nogil=True)
def offer_neighbours(Q: FloatArray, group_of: IntArray, states: States, pool: Pool) -> None:
    """Offer all states one swap away from any of `states`, int8 (S, n)."""
    for state in states:
        _offer_neighbours(Q, group_of, state, pool)


def close_under_swaps(
    Q: FloatArray, group_of: IntArray, pool: Pool, stop: Callable[[], bool]
) -> None:
    """Offer the neighbours of pool members, in sweeps, until one changes nothing or `stop()`."""
    while True:
        before, top = int(pool.used[0]), float(highest(pool))
        members = pool.states[: min(before, MAX_EXPANDED)].copy()
        for first in range(0, len(members), MEMBERS_PER_CALL):
            offer_neighbours(Q, group_of, members[first : first + MEMBERS_PER_CALL], pool)
            if stop():
                return
        if pool.used[0] == before and highest(pool) == top:
            return
