"""The low spectrum: feasible states of one or more results, ranked.

The ground state is not the product: a low excited state often makes the better model, so
everything downstream (tables, `select`, `prune`) takes a rank in a `Spectrum`.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from qblock.backend import Certificate, SolveResult
from qblock.problem import BlockRemovalProblem, FloatArray, IntArray, States

TIE_TOLERANCE = 1e-12
"""Energies closer than this times the largest `|energy|` differ by rounding alone."""


@dataclass(frozen=True)
class RankedState:
    """One feasible state: its place (0 = lowest), removed blocks, energy and occurrences."""

    rank: int
    removed: tuple[str, ...]
    energy: float
    occurrences: int


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Distinct feasible states by ascending energy; ties by the order of the removed blocks.

    Attributes:
        problem: what was solved.
        states: int8 (K, N), distinct and feasible.
        energies: float64 (K,), `problem.energy` of the states.
        occurrences: int64 (K,).
        infeasible: how many samples (with multiplicity) broke a budget or a pin.
        certificate: of the one result that carried one, if any.
    """

    problem: BlockRemovalProblem
    states: States
    energies: FloatArray
    occurrences: IntArray
    infeasible: int
    certificate: Certificate | None = None

    @classmethod
    def of(cls, problem: BlockRemovalProblem, *results: SolveResult) -> "Spectrum":
        """Merge the samples of results for `problem` (at least none) into one ranking."""
        columns = [np.zeros((0, len(problem)), dtype=np.int8)]
        counts = [np.zeros(0, dtype=np.int64)]
        for result in results:
            if result.problem_id != problem.id:
                raise ValueError(f"result of {result.backend} belongs to another problem")
            samples = result.samples
            order = [samples.variables.index(block) for block in problem.blocks]
            columns.append(samples.record.sample[:, order].astype(np.int8))
            counts.append(samples.record.num_occurrences.astype(np.int64))
        certificates = [r.certificate for r in results if r.certificate is not None]
        return cls.of_states(
            problem,
            np.concatenate(columns),
            np.concatenate(counts),
            certificates[0] if len(certificates) == 1 else None,
        )

    @classmethod
    def of_states(
        cls,
        problem: BlockRemovalProblem,
        states: States,
        occurrences: IntArray | None = None,
        certificate: Certificate | None = None,
    ) -> "Spectrum":
        """Rank 0/1 states (S, N), feasible or not, repeated or not."""
        if occurrences is None:
            occurrences = np.ones(len(states), dtype=np.int64)
        feasible = problem.is_feasible(states)
        infeasible = int(occurrences[~feasible].sum())
        # Sorted with removed blocks first, so that equal energies come in lexicographic order.
        kept, where = np.unique(1 - states[feasible], axis=0, return_inverse=True)
        states = (1 - kept).astype(np.int8)
        counts = np.bincount(
            where.ravel(), weights=occurrences[feasible], minlength=len(states)
        ).astype(np.int64)
        order = rank(problem.energy(states))
        states, counts = states[order], counts[order]
        return cls(problem, states, problem.energy(states), counts, infeasible, certificate)

    def __len__(self) -> int:
        return len(self.states)

    def __getitem__(self, rank: int) -> RankedState:
        rank = range(len(self))[rank]
        removed = tuple(self.problem.blocks[i] for i in np.flatnonzero(self.states[rank]))
        return RankedState(rank, removed, float(self.energies[rank]), int(self.occurrences[rank]))

    def __iter__(self) -> Iterator[RankedState]:
        return (self[rank] for rank in range(len(self)))

    @property
    def feasible_rate(self) -> float:
        """Share of samples, with multiplicity, that meet every budget and pin; 0 if none."""
        feasible = int(self.occurrences.sum())
        total = feasible + self.infeasible
        return feasible / total if total else 0.0

    @property
    def degeneracy(self) -> int:
        """How many states share the lowest energy, up to rounding."""
        if not len(self):
            return 0
        return int((self.energies <= self.energies[0] + tie_width(self.energies)).sum())


def tie_width(energies: FloatArray) -> float:
    """The absolute difference below which energies of one spectrum count as equal."""
    return TIE_TOLERANCE * float(np.abs(energies).max(initial=0.0))


def rank(energies: FloatArray) -> IntArray:
    """Indices (K,) that sort energies ascending; those equal up to rounding keep their order."""
    order = np.argsort(energies, kind="stable")
    steps = np.diff(energies[order], prepend=energies[order][:1]) > tie_width(energies)
    level = np.empty(len(energies), dtype=np.int64)
    level[order] = np.cumsum(steps)
    return np.argsort(level, kind="stable")
