"""Swap moves inside the budgets: one block comes back, another of its group goes.

States are int8 (n,) with the field `field = Q @ state` kept beside them, so that a swap costs
O(1) to evaluate and O(n) to make.
"""

# ruff: noqa: NPY002  (compiled code has no other generators)

import numpy as np
from numba import njit

from qblock.problem import FloatArray, IntArray, States


@njit(cache=True, nogil=True)
def swap_change(Q: FloatArray, field: FloatArray, out: int, into: int) -> float:
    """Change of y'Qy when block `out` is put back and block `into` is removed instead."""
    return float(
        2.0 * (field[into] - field[out]) + Q[into, into] + Q[out, out] - 2.0 * Q[into, out]
    )


@njit(cache=True, nogil=True)
def apply_swap(Q: FloatArray, state: States, field: FloatArray, out: int, into: int) -> None:
    """Make the swap, in place."""
    state[out] = 0
    state[into] = 1
    for i in range(len(state)):
        field[i] += Q[into, i] - Q[out, i]


@njit(cache=True, nogil=True)
def random_state(group_of: IntArray, budgets: IntArray) -> States:
    """A uniform feasible state from numba's generator (selection sampling, one pass)."""
    n = len(group_of)
    left = np.zeros(len(budgets), dtype=np.int64)
    for i in range(n):
        left[group_of[i]] += 1
    wanted = budgets.copy()
    state = np.zeros(n, dtype=np.int8)
    for i in range(n):
        k = group_of[i]
        if np.random.random() * left[k] < wanted[k]:
            state[i] = 1
            wanted[k] -= 1
        left[k] -= 1
    return state


@njit(cache=True, nogil=True)
def local_field(Q: FloatArray, state: States) -> FloatArray:
    """Q @ state, float64 (n,)."""
    field = np.zeros(len(state))
    for j in range(len(state)):
        if state[j]:
            for i in range(len(state)):
                field[i] += Q[j, i]
    return field
