"""Exact QAOA inside the feasible states: one fixed-Hamming-weight space per group.

An XY mixer never changes the number of removed blocks of a group, so a state vector over the
feasible states is all there is: C(30, 8) = 5.9 million amplitudes where the full space has 2^30.

The variables, sorted by group, are cut into a low and a high half. At most one group straddles
the cut; the number w of its removed blocks in the low half labels a *sector*. In each sector
every low configuration goes with every high one, so the state vector is a list of matrices
(high configurations x low configurations), and tables over half the variables are enough to
find the partner of any state (H. Q. Lin, Phys. Rev. B 42, 6561 (1990)). Gates in the low half
act along rows, gates in the high half along columns, gates across the cut between two rows of
neighbouring sectors: each kind in one pass through memory for all its gates.
"""

import itertools
import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numba
import numpy as np
from numpy.typing import NDArray

from qblock.problem import FloatArray, IntArray, ReducedProblem, States
from qblock_qiskit.vector import Amplitudes, Task, apply_phase, chunks, run_stages

Mixer = Literal["ring", "complete"]
Pairs = tuple[tuple[int, int], ...]

COLUMNS = 64
"""Columns of a sector treated together by the gates of the high half, to stay in the cache."""


@dataclass(frozen=True)
class MixerSchedule:
    """The XY gates of one mixer layer, in the order in which they are applied.

    Pairs are positions in the order of the variables sorted by group. `low` and `high` lie in
    one half each; `across` holds (low, high) pairs sorted by the high position.
    """

    low: Pairs
    high: Pairs
    across: Pairs

    @property
    def sequence(self) -> Pairs:
        return self.low + self.high + self.across


def sorted_by_group(problem: ReducedProblem) -> IntArray:
    """Variable at each position, int64 (n,): the variables sorted by group, stably."""
    return np.argsort(problem.group_of, kind="stable")


def mixer_schedule(problem: ReducedProblem, mixer: Mixer) -> MixerSchedule:
    """XY gates on the ring, or on all pairs, of each group.

    Pairs within a half are ordered in rounds of disjoint pairs (i + j modulo the group's size;
    even edges before odd ones on a ring), so that a circuit can run each round in parallel.
    """
    cut = len(problem) // 2
    sizes = np.bincount(problem.group_of)
    pairs: list[tuple[int, int, int]] = []
    start = 0
    for size in map(int, sizes):
        if mixer == "complete":
            pairs += [
                ((i + j) % size, start + i, start + j)
                for i, j in itertools.combinations(range(size), 2)
            ]
        else:
            pairs += [(i % 2, start + i, start + i + 1) for i in range(size - 1)]
            if size > 2:
                pairs.append((2, start, start + size - 1))
        start += size
    pairs.sort()
    return MixerSchedule(
        low=tuple((i, j) for _, i, j in pairs if j < cut),
        high=tuple((i, j) for _, i, j in pairs if i >= cut),
        across=tuple(
            sorted(((i, j) for _, i, j in pairs if i < cut <= j), key=lambda pair: pair[::-1])
        ),
    )


@numba.njit(cache=True, nogil=True, inline="always")
def _rotate(psi: Any, a: Any, b: Any, c: float, s: float) -> None:
    """exp(i beta (XX + YY) / 2) on two amplitudes; c = cos(beta), s = sin(beta)."""
    u, v = psi[a], psi[b]
    psi[a] = complex(c * u.real - s * v.imag, c * u.imag + s * v.real)
    psi[b] = complex(c * v.real - s * u.imag, c * v.imag + s * u.real)


@numba.njit(cache=True, nogil=True)
def _mix_rows(
    psi: Any, rows: Any, sector: Any, table: Any, first: Any, second: Any, c: float, s: float
) -> None:
    """Gates of the low half: pairs of columns, the same in every row of a sector."""
    for row in range(rows.size):
        base = rows[row]
        for t in range(table[sector[row]], table[sector[row] + 1]):
            _rotate(psi, np.uintp(base + first[t]), np.uintp(base + second[t]), c, s)


@numba.njit(cache=True, nogil=True)
def _mix_columns(
    psi: Any, start: int, end: int, width: int, first: Any, second: Any, c: float, s: float
) -> None:
    """Gates of the high half: pairs of rows of one sector, in the columns start ... end - 1."""
    for t in range(first.size):
        u = psi[start + first[t] * width : end + first[t] * width]
        v = psi[start + second[t] * width : end + second[t] * width]
        for column in range(end - start):
            a, b = u[column], v[column]
            u[column] = complex(c * a.real - s * b.imag, c * a.imag + s * b.real)
            v[column] = complex(c * b.real - s * a.imag, c * b.imag + s * a.real)


@numba.njit(cache=True, nogil=True)
def _mix_across(
    psi: Any, above: Any, below: Any, first: Any, second: Any, c: float, s: float
) -> None:
    """Gates across the cut: pairs of columns, one in each of two rows."""
    for row in range(above.size):
        a, b = above[row], below[row]
        for t in range(first.size):
            _rotate(psi, np.uintp(a + first[t]), np.uintp(b + second[t]), c, s)


def _masks(sizes: list[int], weights: list[int]) -> IntArray:
    """All bit masks with `weights[g]` ones among the next `sizes[g]` bits, ascending, int64."""
    masks = np.zeros(1, dtype=np.int64)
    offset = 0
    for size, weight in zip(sizes, weights, strict=True):
        chosen = itertools.combinations((1 << (offset + i) for i in range(size)), weight)
        part = np.fromiter((sum(bits) for bits in chosen), dtype=np.int64)
        masks = (masks[:, None] | part).ravel()
        offset += size
    return np.sort(masks)


def _bit(masks: IntArray, position: int) -> NDArray[np.bool_]:
    return (masks >> position & 1).astype(np.bool_)


def _flips(source: IntArray, target: IntArray, ones: int, zeros: int) -> tuple[IntArray, IntArray]:
    """Where `source` has all bits of `ones` and none of `zeros`, and where in `target` it goes.

    Both arrays of masks are ascending; the move flips all these bits.
    """
    first = np.flatnonzero((source & (ones | zeros)) == ones)
    return first, np.searchsorted(target, source[first] ^ (ones | zeros))


def _joined(parts: list[tuple[IntArray, IntArray]]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    empty = np.zeros(0, dtype=np.int64)
    first = np.concatenate([empty, *(a for a, _ in parts)])
    second = np.concatenate([empty, *(b for _, b in parts)])
    return first.astype(np.int32), second.astype(np.int32)


@dataclass(frozen=True, eq=False)
class _Sector:
    """States with the same number of ones left of the cut: a matrix of high x low masks."""

    start: int
    low: IntArray
    high: IntArray

    def row(self, high: IntArray) -> IntArray:
        """Index of the first amplitude of these rows."""
        return self.start + high * len(self.low)


class FixedWeightSimulator:
    """State vectors over the feasible states, amplitudes complex128 (D,), D = num_feasible.

    Attributes:
        energies: float64 (D,), y'Qy of every feasible state.
        feasible: bool (D,), all true.
    """

    def __init__(self, problem: ReducedProblem, mixer: Mixer = "complete") -> None:
        self.problem = problem
        self.mixer = mixer
        self._order = sorted_by_group(problem)
        self._cut = len(problem) // 2
        self._sectors = self._make_sectors()
        self.energies = self._make_energies()
        self.feasible = np.ones(len(self.energies), dtype=np.bool_)

    def __len__(self) -> int:
        return len(self.energies)

    def _make_sectors(self) -> list[_Sector]:
        sizes = np.bincount(self.problem.group_of).tolist()
        budgets = self.problem.budgets.tolist()
        ends = np.cumsum(sizes)
        first = int(np.searchsorted(ends, self._cut, side="right"))  # group at the cut
        inside = self._cut - (int(ends[first]) - sizes[first])  # its positions below the cut
        outside = sizes[first] - inside
        sectors, start = [], 0
        for w in range(max(0, budgets[first] - outside), min(inside, budgets[first]) + 1):
            low = _masks([*sizes[:first], inside], [*budgets[:first], w])
            high = _masks(
                [outside, *sizes[first + 1 :]], [budgets[first] - w, *budgets[first + 1 :]]
            )
            sectors.append(_Sector(start, low, high))
            start += len(low) * len(high)
        return sectors

    def _bits(self, masks: IntArray, count: int) -> FloatArray:
        return np.asarray((masks[:, None] >> np.arange(count)) & 1, dtype=np.float64)

    def _make_energies(self) -> FloatArray:
        Q = self.problem.Q[np.ix_(self._order, self._order)]
        cut, n = self._cut, len(self._order)
        blocks = []
        for sector in self._sectors:
            low, high = self._bits(sector.low, cut), self._bits(sector.high, n - cut)
            block = (high @ (2 * Q[cut:, :cut])) @ low.T
            block += np.einsum("si,si->s", low @ Q[:cut, :cut], low)
            block += np.einsum("si,si->s", high @ Q[cut:, cut:], high)[:, None]
            blocks.append(block.ravel())
        return np.concatenate(blocks)

    @cached_property
    def _schedule(self) -> MixerSchedule:
        return mixer_schedule(self.problem, self.mixer)

    @cached_property
    def _row_tasks(self) -> list[Task]:
        """Calls of `_mix_rows`: the gates of the low half, all at once."""
        gates = self._schedule.low
        starts = np.concatenate([s.row(np.arange(len(s.high))) for s in self._sectors])
        sector = np.repeat(np.arange(len(self._sectors)), [len(s.high) for s in self._sectors])
        flips = [[_flips(s.low, s.low, 1 << i, 1 << j) for i, j in gates] for s in self._sectors]
        counts = [sum(len(first) for first, _ in part) for part in flips]
        table = np.concatenate(([0], np.cumsum(counts)))
        first, second = _joined([flip for part in flips for flip in part])
        return [
            (_mix_rows, starts[chunk], sector[chunk], table, first, second)
            for chunk in chunks(len(self), len(starts))
        ]

    @cached_property
    def _column_tasks(self) -> list[Task]:
        """Calls of `_mix_columns`: the gates of the high half, all at once."""
        tasks: list[Task] = []
        for sector in self._sectors:
            width = len(sector.low)
            first, second = _joined(
                [
                    _flips(sector.high, sector.high, 1 << i - self._cut, 1 << j - self._cut)
                    for i, j in self._schedule.high
                ]
            )
            for left in range(0, width, COLUMNS):
                right = min(left + COLUMNS, width)
                start = sector.start
                tasks.append((_mix_columns, start + left, start + right, width, first, second))
        return tasks

    @cached_property
    def _across_tasks(self) -> list[list[Task]]:
        """Calls of `_mix_across`: for each high position all its gates across the cut."""
        low_flips: dict[tuple[int, tuple[int, ...]], tuple[Any, Any]] = {}
        stages = []
        for j, pairs in itertools.groupby(self._schedule.across, key=lambda pair: pair[1]):
            partners = tuple(i for i, _ in pairs)
            tasks: list[Task] = []
            for k in range(1, len(self._sectors)):
                above, below = self._sectors[k], self._sectors[k - 1]
                if (k, partners) not in low_flips:
                    low_flips[k, partners] = _joined(
                        [_flips(above.low, below.low, 1 << i, 0) for i in partners]
                    )
                first, second = _flips(above.high, below.high, 0, 1 << j - self._cut)
                tasks += [
                    (
                        _mix_across,
                        above.row(first[chunk]),
                        below.row(second[chunk]),
                        *low_flips[k, partners],
                    )
                    for chunk in chunks(len(self), len(first))
                ]
            stages.append(tasks)
        return stages

    def apply_mixer(self, psi: Amplitudes, beta: float) -> None:
        """One mixer layer, the ordered product of exp(i beta (XX + YY) / 2), in place."""
        stages = [self._row_tasks, self._column_tasks, *self._across_tasks]
        run_stages(psi, stages, math.cos(beta), math.sin(beta))

    def evolve(self, betas: FloatArray, gammas: FloatArray) -> Amplitudes:
        """Equal amplitudes (Dicke states), then p layers exp(-i gamma_l E), mixer(beta_l)."""
        psi = np.full(len(self), len(self) ** -0.5, dtype=np.complex128)
        for beta, gamma in zip(betas, gammas, strict=True):
            phase = [
                (apply_phase, part.start, part.stop, self.energies, float(gamma))
                for part in chunks(len(self), len(self))
            ]
            run_stages(psi, [phase])
            self.apply_mixer(psi, float(beta))
        return psi

    def states(self, indices: IntArray) -> States:
        """Basis states (S, n), int8, at these indices (S,), in the order of the variables."""
        cut, n = self._cut, len(self._order)
        starts = np.array([sector.start for sector in self._sectors])
        of = np.searchsorted(starts, indices, side="right") - 1
        sorted_bits = np.empty((len(indices), n), dtype=np.int8)
        for k, sector in enumerate(self._sectors):
            mine = of == k
            row, column = np.divmod(indices[mine] - sector.start, len(sector.low))
            sorted_bits[mine, :cut] = self._bits(sector.low[column], cut)
            sorted_bits[mine, cut:] = self._bits(sector.high[row], n - cut)
        states = np.empty_like(sorted_bits)
        states[:, self._order] = sorted_bits
        return states
