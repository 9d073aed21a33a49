"""Judging the runs of one problem against one reference."""

import statistics
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from qblock.backend import Timing
from qblock.problem import BlockRemovalProblem, FloatArray, IntArray, States
from qblock.spectrum import TIE_TOLERANCE, Spectrum, tie_width
from qblock.study.contender import RunRequest
from qblock.study.records import RunRecord
from qblock.study.statistics import (
    Interval,
    Proportion,
    coverage,
    random_feasible_mean,
    time_to_solution,
)
from qblock.study.store import Store

EPSILON = 0.01
"""Normalised gap that counts as near enough in the time to epsilon."""

GAP_EDGES = np.linspace(0.0, 1.2, 61)
"""Bins of the energy histograms: 0 is the reference, 1 the mean of random feasible states."""


@dataclass(frozen=True, eq=False)
class Reference:
    """What the runs are judged against.

    Attributes:
        energy: lowest energy known.
        proved: whether it is proved to be the lowest.
        lower_bound: proved lower bound, or None.
        source: the backend that proved it, or "best of all runs".
        random_mean: mean energy of uniform feasible states, which has gap 1.
        states: int8 (K, N), the proved lowest states in order; K = 0 without a proof.
        energies: float64 (K,) of them.
    """

    energy: float
    proved: bool
    lower_bound: float | None
    source: str
    random_mean: float
    states: States
    energies: FloatArray

    def gap(self, energy: float) -> float:
        """(E - E_ref) / (random mean - E_ref): 0 at the reference, 1 at random guessing.

        0 within rounding of the reference. Unlike the approximation ratio it does not depend on
        where zero is, which matters for a minimum near zero.
        """
        width = self.random_mean - self.energy
        if width <= 0 or energy <= self.energy + self.tie_width:
            return 0.0
        return (energy - self.energy) / width

    @property
    def tie_width(self) -> float:
        """Energies closer to the reference than this differ from it by rounding alone."""
        return TIE_TOLERANCE * max(abs(self.energy), abs(self.random_mean))

    def rank(self, energy: float) -> int | None:
        """How many states lie lower; None if above all proved states (or none are proved)."""
        lower = int(np.searchsorted(self.energies, energy - self.tie_width))
        return lower if lower < len(self.energies) else None


@dataclass(frozen=True, eq=False)
class ComparisonRow:
    """One contender at one time limit, over all its seeds.

    Attributes:
        contender: backend and parameters, as asked for.
        backend: registered name.
        execution: "classical", "simulated", "emulated" or "hardware".
        time_limit: seconds asked for, or None.
        runs: finished runs.
        errors: messages of the failed runs, each once, with their number.
        feasible_rate: share of feasible samples over all finished runs; None without one.
        seeds: of the finished runs.
        energies: lowest feasible energy of each of them; None if it has none.
        gaps: normalised gap of each of them.
        seconds: total seconds of each of them.
        timing: median seconds of each part.
        success: runs that reached the reference.
        near: runs with a gap of at most `EPSILON`.
        best_rank: of the best state found, in the proved spectrum; None if above it.
        coverage: share of the proved lowest states that one run finds, mean over the runs.
        pooled_coverage: the same of all runs together; both None without a proof.
        penalty_weight: as used, None for a backend without penalty.
        qpu_seconds: of a quantum processor in all runs, as its service reports; None without one.
        best_state: int8 (N,), the lowest feasible state found, or None.
        histogram: int64 (len(GAP_EDGES) - 1,), feasible samples by normalised gap, with
            multiplicity; those beyond the last edge are in the last bin.
    """

    contender: str
    backend: str
    execution: str
    time_limit: float | None
    runs: int
    errors: Mapping[str, int]
    feasible_rate: float | None = None
    seeds: tuple[int, ...] = ()
    energies: tuple[float | None, ...] = ()
    gaps: tuple[float | None, ...] = ()
    seconds: tuple[float, ...] = ()
    timing: Timing | None = None
    success: Proportion | None = None
    near: Proportion | None = None
    best_rank: int | None = None
    coverage: float | None = None
    pooled_coverage: float | None = None
    penalty_weight: float | None = None
    qpu_seconds: float | None = None
    best_state: States | None = None
    histogram: IntArray | None = None

    @property
    def label(self) -> str:
        """The contender, with how a quantum method was executed, and the time limit."""
        kind = "" if self.execution == "classical" else f" ({self.execution})"
        limit = "" if self.time_limit is None else f" @ {self.time_limit:g} s"
        return f"{self.contender}{kind}{limit}"

    @cached_property
    def best_gap(self) -> float | None:
        """Of the best run; None if no run has a feasible sample."""
        return min((gap for gap in self.gaps if gap is not None), default=None)

    @cached_property
    def median_gap(self) -> float | None:
        """Over the runs; one without a feasible sample counts as the largest gap.

        None if that is true of half the runs or more.
        """
        found = sorted(gap for gap in self.gaps if gap is not None)
        middle = len(self.gaps) // 2
        return found[middle] if middle < len(found) else None

    @property
    def median_seconds(self) -> float | None:
        return statistics.median(self.seconds) if self.seconds else None

    @property
    def tts(self) -> Interval | None:
        """Time to the reference with 99 % probability; None without a finished run."""
        return self._time_to(self.success)

    @property
    def time_to_epsilon(self) -> Interval | None:
        """Time to a gap of at most `EPSILON` with 99 % probability."""
        return self._time_to(self.near)

    def _time_to(self, success: Proportion | None) -> Interval | None:
        if success is None or self.median_seconds is None:
            return None
        return time_to_solution(success, self.median_seconds)


@dataclass(frozen=True, eq=False)
class Comparison:
    """One problem: its reference and a row for each contender and time limit."""

    problem: BlockRemovalProblem
    reference: Reference
    rows: tuple[ComparisonRow, ...]

    @property
    def title(self) -> str:
        """Instance, budget, pins and linear term in words."""
        problem, remove = self.problem, self.problem.remove
        budget = (
            f"{remove} of {len(self.problem)}"
            if isinstance(remove, int)
            else ", ".join(f"{count} {group}" for group, count in remove.items())
        )
        parts = [f"{problem.sensitivity.name}, remove {budget}"]
        parts += [f"keep {' '.join(problem.keep)}"] if problem.keep else []
        parts += [f"drop {' '.join(problem.drop)}"] if problem.drop else []
        parts += ["linear"] if problem.linear else []
        return ", ".join(parts)


def judge(
    store: Store, problem_id: str, requests: Collection[RunRequest] | None = None
) -> Comparison:
    """Judge the finished and failed runs of one problem: all of them, or those asked for."""
    problem = store.problem(problem_id)
    wanted = None if requests is None else {request.key for request in requests}
    runs = [r for r in store.runs(problem_id) if wanted is None or r.key in wanted]
    reference = _reference(store, problem, runs)
    groups: dict[tuple[str, float | None], list[RunRecord]] = {}
    for run in runs:
        if run.purpose == "comparison":
            groups.setdefault((run.contender, run.time_limit), []).append(run)
    keys = {run.key for run in runs}
    findings = {
        key: _findings(problem, reference, states, occurrences)
        for key, states, occurrences in store.all_samples(problem_id)
        if key in keys
    }
    return Comparison(
        problem, reference, tuple(_row(group, reference, findings) for group in groups.values())
    )


def _reference(store: Store, problem: BlockRemovalProblem, runs: Sequence[RunRecord]) -> Reference:
    best = [run.best for run in runs if run.best is not None]
    certified = [run for run in runs if run.state == "done" and run.certificate is not None]
    bounds = [run.certificate.lower_bound for run in certified if run.certificate is not None]
    proved = False
    source, states, energies = "best of all runs", np.zeros((0, len(problem)), np.int8), np.zeros(0)
    for run in certified:
        spectrum = Spectrum.of_states(problem, *store.samples(run.key), certificate=run.certificate)
        count = proved_count(spectrum)
        if count is None:
            continue
        if not proved or count > len(states):
            source = run.backend
            states, energies = spectrum.states[:count], spectrum.energies[:count]
        proved = True
    return Reference(
        energy=min(best, default=float("nan")),
        proved=proved,
        lower_bound=max(bounds, default=None),
        source=source,
        random_mean=random_feasible_mean(problem.reduced) + problem.reduced.offset,
        states=states,
        energies=energies,
    )


def proved_count(spectrum: Spectrum) -> int | None:
    """How many of a certified list are the lowest states beyond doubt; None if not even one.

    States that tie with the last place are left out, since others may be as low.
    """
    certificate = spectrum.certificate
    if certificate is None or not len(spectrum):
        return None
    if not certificate.proved:
        count = int((spectrum.energies < certificate.complete_below).sum())
        return count or None
    if not certificate.ties_at_kth:
        return len(spectrum)
    last = spectrum.energies[-1] - tie_width(spectrum.energies)
    return int((spectrum.energies < last).sum())


@dataclass(frozen=True, eq=False)
class _Findings:
    """What the samples of one run come down to."""

    low: States  # those low enough to be among the proved ones
    best: States | None
    best_energy: float
    histogram: IntArray


def _findings(
    problem: BlockRemovalProblem, reference: Reference, states: States, occurrences: IntArray
) -> _Findings:
    feasible = problem.is_feasible(states)
    states, occurrences = states[feasible], occurrences[feasible]
    if not len(states):
        return _Findings(states, None, np.inf, np.zeros(len(GAP_EDGES) - 1, dtype=np.int64))
    energies = problem.energy(states)
    width = reference.random_mean - reference.energy
    gaps = (energies - reference.energy) / width if width > 0 else np.zeros(len(energies))
    places = np.clip(np.digitize(gaps, GAP_EDGES) - 1, 0, len(GAP_EDGES) - 2)
    limit = reference.energies[-1] if len(reference.energies) else -np.inf
    best = int(energies.argmin())
    return _Findings(
        low=states[energies <= limit + reference.tie_width],
        best=states[best],
        best_energy=float(energies[best]),
        histogram=np.bincount(places, occurrences, len(GAP_EDGES) - 1).astype(np.int64),
    )


def _known(runs: Sequence[RunRecord], name: str) -> list[float]:
    """A detail of the runs that have it."""
    return [run.details[name] for run in runs if name in run.details]


def _row(
    group: Sequence[RunRecord], reference: Reference, findings: Mapping[str, _Findings]
) -> ComparisonRow:
    first = group[0]
    errors = Counter(run.error for run in group if run.error is not None)
    done = [run for run in group if run.state == "done"]
    times = [run.timing for run in done if run.timing is not None]
    if not done:
        return ComparisonRow(
            first.contender, first.backend, first.execution, first.time_limit, 0, errors
        )
    found = [findings[run.key] for run in done]
    energies = tuple(run.best for run in done)
    gaps = tuple(None if e is None else reference.gap(e) for e in energies)
    best = min(found, key=lambda f: f.best_energy)
    samples = sum(run.samples or 0 for run in done)
    proved = reference.states
    return ComparisonRow(
        contender=first.contender,
        backend=first.backend,
        execution=first.execution,
        time_limit=first.time_limit,
        runs=len(done),
        errors=errors,
        feasible_rate=sum(run.feasible or 0 for run in done) / samples if samples else 0.0,
        seeds=tuple(run.seed for run in done),
        energies=energies,
        gaps=gaps,
        seconds=tuple(t.total for t in times),
        timing=Timing(
            encode=statistics.median(t.encode for t in times),
            wait=statistics.median(t.wait for t in times),
            solve=statistics.median(t.solve for t in times),
        ),
        success=Proportion(sum(gap == 0.0 for gap in gaps), len(done)),
        near=Proportion(sum(gap is not None and gap <= EPSILON for gap in gaps), len(done)),
        best_rank=None if best.best is None else reference.rank(best.best_energy),
        coverage=float(np.mean([coverage(f.low, proved) for f in found])) if len(proved) else None,
        pooled_coverage=coverage(np.concatenate([f.low for f in found]), proved)
        if len(proved)
        else None,
        penalty_weight=done[0].details.get("penalty_weight"),
        qpu_seconds=sum(qpu) if (qpu := _known(done, "qpu_seconds")) else None,
        best_state=best.best,
        histogram=np.sum([f.histogram for f in found], axis=0),
    )
