"""What both exact simulators do to a state vector: cost layer, expected energy, threads.

The cost layer exp(-i gamma E) is diagonal. Its sine and cosine are evaluated by one polynomial
in a loop that the compiler vectorises, several times faster than a library call per amplitude.
"""

import itertools
import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from qblock.problem import FloatArray

Amplitudes = NDArray[np.complex128]
Task = tuple[Any, ...]
"""A compiled function and the arguments that follow the state vector."""

PARALLEL_ABOVE = 1 << 16
"""Amplitudes from which on a layer is worth the start of threads."""

CHUNKS = 8
"""Pieces that the work on a large state vector is cut into, to keep all threads busy."""


def chunks(amplitudes: int, length: int) -> list[slice]:
    """`range(length)` in pieces: one for a small state vector, `CHUNKS` for a large one."""
    pieces = CHUNKS if amplitudes > PARALLEL_ABOVE else 1
    ends = [length * k // pieces for k in range(pieces + 1)]
    return [slice(a, b) for a, b in itertools.pairwise(ends) if a < b]


def run_stages(psi: Amplitudes, stages: Sequence[Sequence[Task]], *last: float) -> None:
    """Call every task on psi, with `last` as its last arguments; stages one after the other.

    The tasks of one stage touch disjoint amplitudes and run in threads if psi is large (the
    kernels release the interpreter's lock). The result does not depend on the threads.
    """

    def call(task: Task) -> None:
        kernel, *arguments = task
        kernel(psi, *arguments, *last)

    if psi.size <= PARALLEL_ABOVE:
        for task in itertools.chain(*stages):
            call(task)
        return
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for stage in stages:
            for _ in pool.map(call, stage):
                pass


@numba.njit(cache=True, nogil=True, fastmath=True)
def apply_phase(psi: Any, start: int, end: int, energies: Any, gamma: float) -> None:
    """Multiply psi (complex128) by exp(-i gamma E) from start to end - 1, in place."""
    turns = gamma / (2 * math.pi)
    part, levels = psi[start:end], energies[start:end]
    for k in range(part.size):
        t = turns * levels[k]
        half = math.pi * (t - math.floor(t + 0.5))  # half the angle, in [-pi/2, pi/2]
        z = half * half
        # Taylor series nested up to the 21st order: below 1e-15 on this interval.
        s = 1 - z / 342 * (1 - z / 420)
        s = 1 - z / 156 * (1 - z / 210 * (1 - z / 272 * s))
        s = half * (1 - z / 6 * (1 - z / 20 * (1 - z / 42 * (1 - z / 72 * (1 - z / 110 * s)))))
        c = 1 - z / 306 * (1 - z / 380)
        c = 1 - z / 132 * (1 - z / 182 * (1 - z / 240 * c))
        c = 1 - z / 2 * (1 - z / 12 * (1 - z / 30 * (1 - z / 56 * (1 - z / 90 * c))))
        cosine, sine = c * c - s * s, 2 * s * c
        value = part[k]
        part[k] = complex(
            value.real * cosine + value.imag * sine, value.imag * cosine - value.real * sine
        )


@numba.njit(cache=True, nogil=True, fastmath=True)
def expectation(psi: Any, energies: Any) -> float:
    """Sum of |psi|^2 E."""
    total = 0.0
    for k in range(psi.size):
        value = psi[k]
        total += (value.real * value.real + value.imag * value.imag) * energies[k]
    return total


def probabilities(psi: Amplitudes) -> FloatArray:
    """|psi|^2, float64, of the shape of psi."""
    return np.asarray(psi.real**2 + psi.imag**2)


def conditional_value_at_risk(
    energies: FloatArray, weights: FloatArray, ascending: NDArray[np.int64], alpha: float
) -> float:
    """Mean energy of the lowest `alpha` of a distribution.

    Args:
        energies: float64 (D,).
        weights: float64 (D,), probabilities.
        ascending: int64 (D,), indices that sort the energies.
        alpha: in (0, 1].

    Source: Barkoutsos et al., "Improving variational quantum optimization using CVaR",
    Quantum 4, 256 (2020).
    """
    below = np.cumsum(weights[ascending])
    last = int(np.searchsorted(below, alpha * below[-1]))
    tail = ascending[: last + 1]
    share = weights[tail].copy()
    share[-1] -= below[last] - alpha * below[-1]
    return float(share @ energies[tail] / (alpha * below[-1]))
