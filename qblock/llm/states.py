"""Which states of a problem to measure: the lowest, and random ones spread over the energies."""

from dataclasses import replace

import numpy as np

from qblock.errors import BackendUnavailable
from qblock.problem import BlockRemovalProblem, States
from qblock.registry import backends
from qblock.spectrum import Spectrum

EXACT_BACKENDS = ("exact", "brute-force")

POOL = 4096
"""Random states from which those spread over the spectrum are picked."""


def lowest(problem: BlockRemovalProblem, count: int) -> Spectrum:
    """The `count` lowest states, proved, from the first exact backend that is available.

    Raises:
        BackendUnavailable: none is.
        CapacityError: the problem is too large for it.
    """
    for name in EXACT_BACKENDS:
        entry = backends().get(name)
        if entry is not None and entry.backend is not None and entry.availability.ok:
            spectrum = Spectrum.of(problem, entry.backend.sample(problem, seed=0, k=count))
            return truncated(spectrum, count)
    raise BackendUnavailable(f"no exact backend is available ({', '.join(EXACT_BACKENDS)})")


def truncated(spectrum: Spectrum, count: int) -> Spectrum:
    """The `count` lowest states of a spectrum."""
    return replace(
        spectrum,
        states=spectrum.states[:count],
        energies=spectrum.energies[:count],
        occurrences=spectrum.occurrences[:count],
    )


def spread_states(
    problem: BlockRemovalProblem, count: int, *, exclude: States, seed: int
) -> States:
    """Random feasible states at even steps through the energies of a large random pool."""
    reduced = problem.reduced
    rng = np.random.default_rng(seed)
    pool = np.zeros((POOL, len(reduced)), dtype=np.int8)
    for k, budget in enumerate(reduced.budgets):
        members = np.flatnonzero(reduced.group_of == k)
        keys = rng.random((POOL, len(members))).argsort(axis=1)
        np.put_along_axis(pool, members[keys[:, : int(budget)]], 1, axis=1)
    ranked = Spectrum.of_states(problem, reduced.lift(pool)).states
    known = {state.tobytes() for state in exclude}
    fresh = np.array([state for state in ranked if state.tobytes() not in known])
    places = np.linspace(0, len(fresh) - 1, min(count, len(fresh))).round().astype(np.int64)
    return np.asarray(fresh[places], dtype=np.int8)
