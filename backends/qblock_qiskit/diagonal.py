"""Exact QAOA with the X mixer over all 2^n states: a diagonal cost and butterflies.

The penalty energies of all states are computed once; a cost layer multiplies by a diagonal, and
exp(i beta X) on every qubit is a fast transform of radix 4. The qubits are cut in two: the low
ones are transformed block by block in the cache, together with the cost layer, the high ones a
few columns at a time.
"""

import math
from typing import Any

import numba
import numpy as np

from qblock.problem import FloatArray, IntArray, ReducedProblem, States
from qblock_qiskit.vector import Amplitudes, apply_phase, chunks, run_stages

LOW_QUBITS = 12
"""Qubits transformed within one block of amplitudes (64 KiB), which stays in the cache."""

SHORT_ROW = 16
"""Amplitudes in a row below which a gate takes longer to start than to run."""

COLUMNS = 128
"""Amplitudes of a block treated together by the gates of the high qubits."""


@numba.njit(cache=True, nogil=True, fastmath=True)
def _one_qubit(u: Any, v: Any, c: float, s: float) -> None:
    """exp(i beta X) between two rows of amplitudes; c = cos(beta), s = sin(beta)."""
    for k in range(u.size):
        a, b = u[k], v[k]
        u[k] = complex(c * a.real - s * b.imag, c * a.imag + s * b.real)
        v[k] = complex(c * b.real - s * a.imag, c * b.imag + s * a.real)


@numba.njit(cache=True, nogil=True, fastmath=True)
def _two_qubits(p: Any, q: Any, r: Any, t: Any, c: float, s: float) -> None:
    """exp(i beta X) on two qubits between the four rows of their states 00, 01, 10, 11."""
    cc, cs, ss = c * c, c * s, s * s
    for k in range(p.size):
        w, x, y, z = p[k], q[k], r[k], t[k]
        outer = complex(-cs * (x.imag + y.imag), cs * (x.real + y.real))
        inner = complex(-cs * (w.imag + z.imag), cs * (w.real + z.real))
        p[k] = cc * w - ss * z + outer
        q[k] = cc * x - ss * y + inner
        r[k] = cc * y - ss * x + inner
        t[k] = cc * z - ss * w + outer


@numba.njit(cache=True, nogil=True, fastmath=True)
def _low_qubits(
    psi: Any, start: int, end: int, size: int, energies: Any, gamma: float, c: float, s: float
) -> None:
    """Cost layer and mixer on the low qubits, for the blocks in start ... end - 1."""
    for left in range(start, end, size):
        block = psi[left : left + size]
        apply_phase(psi, left, left + size, energies, gamma)
        h = 1
        while 4 * h <= size and h < SHORT_ROW:
            for k in range(h):  # rows across the block: those within a group are too short
                _two_qubits(
                    block[k :: 4 * h],
                    block[k + h :: 4 * h],
                    block[k + 2 * h :: 4 * h],
                    block[k + 3 * h :: 4 * h],
                    c,
                    s,
                )
            h *= 4
        while 4 * h <= size:
            for k in range(0, size, 4 * h):
                _two_qubits(
                    block[k : k + h],
                    block[k + h : k + 2 * h],
                    block[k + 2 * h : k + 3 * h],
                    block[k + 3 * h : k + 4 * h],
                    c,
                    s,
                )
            h *= 4
        if h < size:
            _one_qubit(block[:h], block[h:], c, s)


@numba.njit(cache=True, nogil=True, fastmath=True)
def _high_qubits(psi: Any, left: int, width: int, size: int, c: float, s: float) -> None:
    """Mixer on the high qubits, for `width` amplitudes of every block from `left` on."""
    h = size
    while 4 * h <= psi.size:
        for base in range(0, psi.size, 4 * h):
            for row in range(base, base + h, size):
                k = row + left
                _two_qubits(
                    psi[k : k + width],
                    psi[k + h : k + h + width],
                    psi[k + 2 * h : k + 2 * h + width],
                    psi[k + 3 * h : k + 3 * h + width],
                    c,
                    s,
                )
        h *= 4
    if h < psi.size:
        for row in range(0, h, size):
            k = row + left
            _one_qubit(psi[k : k + width], psi[k + h : k + h + width], c, s)


def quadratic_form(Q: FloatArray) -> FloatArray:
    """y'Qy of all 2^n states, float64 (2^n,); bit i of the index is y_i. Q is symmetric."""
    values = np.zeros(1)
    for k in range(len(Q)):
        field = np.full(1, Q[k, k])
        for j in range(k):
            field = np.concatenate((field, field + 2 * Q[k, j]))
        values = np.concatenate((values, values + field))
    return values


def violation_form(problem: ReducedProblem) -> tuple[FloatArray, float]:
    """(V, v) with y'Vy + v = sum_k (sum of group k - budget k)^2."""
    budgets = problem.budgets.astype(np.float64)
    V = (problem.group_of[:, None] == problem.group_of).astype(np.float64)
    return V - 2 * np.diag(budgets[problem.group_of]), float(budgets @ budgets)


class DiagonalSimulator:
    """State vectors over all 2^n states; bit i of an index is variable i, as in Qiskit.

    Attributes:
        energies: float64 (2^n,), y'Qy + weight * sum_k (sum of group k - budget k)^2.
        feasible: bool (2^n,), the states that meet every budget.
    """

    def __init__(self, problem: ReducedProblem, weight: float) -> None:
        self.problem = problem
        V, constant = violation_form(problem)
        violation = quadratic_form(V) + constant
        self.feasible = violation < 0.5
        violation *= weight
        self.energies = quadratic_form(problem.Q)
        self.energies += violation

    def __len__(self) -> int:
        return len(self.energies)

    def evolve(self, betas: FloatArray, gammas: FloatArray) -> Amplitudes:
        """|+...+>, then p layers exp(-i gamma_l E), exp(i beta_l sum_i X_i)."""
        psi = np.full(len(self), len(self) ** -0.5, dtype=np.complex128)
        size = min(len(self), 1 << LOW_QUBITS)
        for beta, gamma in zip(betas, gammas, strict=True):
            low = [
                (
                    _low_qubits,
                    part.start * size,
                    part.stop * size,
                    size,
                    self.energies,
                    float(gamma),
                )
                for part in chunks(len(self), len(self) // size)
            ]
            width = min(COLUMNS, size)
            high = [(_high_qubits, left, width, size) for left in range(0, size, width)]
            run_stages(psi, [low, high], math.cos(beta), math.sin(beta))
        return psi

    def states(self, indices: IntArray) -> States:
        """Basis states (S, n), int8, at these indices (S,)."""
        return ((indices[:, None] >> np.arange(len(self.problem))) & 1).astype(np.int8)
