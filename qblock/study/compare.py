"""The same problem to every backend, several seeds each, judged against one reference."""

import hashlib
import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.table import Table

from qblock.backend import Progress, SolveResult
from qblock.errors import CapacityError, ParameterError, QblockError
from qblock.problem import BlockRemovalProblem
from qblock.registry import backends, get_backend
from qblock.spectrum import Spectrum, tie_width
from qblock.study.statistics import (
    Proportion,
    TimeToSolution,
    random_feasible_mean,
    time_to_solution,
)
from qblock.study.store import RunStore

REFERENCE_SECONDS = 60.0
"""Default time limit of the reference solver."""


@dataclass(frozen=True)
class Contender:
    """A backend with parameters, as one row of a comparison."""

    backend: str
    parameters: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> "Contender":
        """From "name" or "name:key=value,key=value"; values are JSON if they parse as such."""
        name, _, rest = text.partition(":")
        parameters: dict[str, Any] = {}
        for pair in filter(None, rest.split(",")):
            key, equals, value = pair.partition("=")
            if not key or not equals:
                raise ParameterError(f"{text!r}: expected NAME:KEY=VALUE,KEY=VALUE")
            try:
                parameters[key] = json.loads(value)
            except json.JSONDecodeError:
                parameters[key] = value
        return cls(name, parameters)

    def __str__(self) -> str:
        settings = ",".join(f"{key}={value}" for key, value in self.parameters.items())
        return f"{self.backend}:{settings}" if settings else self.backend

    def run_key(self, problem: BlockRemovalProblem, seed: int, time_limit: float | None) -> str:
        """What identifies a run: the problem's content and all that was asked for."""
        settings = get_backend(self.backend).parse(self.parameters).model_dump(mode="json")
        parts = [problem.id, self.backend, settings, seed, time_limit]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Reference:
    """What the runs are judged against.

    Attributes:
        energy: lowest energy known.
        proved: whether it is proved to be the lowest.
        lower_bound: proved lower bound, or None.
        source: the backend that proved it, or "best of all runs".
        random_mean: mean energy of uniform feasible states, which has gap 1.
    """

    energy: float
    proved: bool
    lower_bound: float | None
    source: str
    random_mean: float

    def gap(self, energy: float) -> float:
        """(E - E_ref) / (random mean - E_ref): 0 at the reference, 1 at random guessing."""
        width = self.random_mean - self.energy
        return (energy - self.energy) / width if width > 0 else 0.0


@dataclass(frozen=True)
class ComparisonRow:
    """One contender over all its seeds.

    Attributes:
        contender: the backend and its parameters.
        execution: "classical", "simulated", "emulated" or "hardware".
        runs: finished runs.
        error: why it failed; all figures are then of the runs before.
        feasible_rate: share of feasible samples over all runs.
        best_gap, median_gap: of the best feasible state of each run; None if there is none.
        success: runs that reached the reference energy.
        seconds: median total seconds of a run.
        tts: time to solution at 99 %.
    """

    contender: Contender
    execution: str
    runs: int
    error: str = ""
    feasible_rate: float | None = None
    best_gap: float | None = None
    median_gap: float | None = None
    success: Proportion | None = None
    seconds: float | None = None
    tts: TimeToSolution | None = None


@dataclass(frozen=True)
class Comparison:
    """All rows, the reference they are judged against, and whether Ctrl-C cut it short."""

    problem: BlockRemovalProblem
    reference: Reference
    rows: tuple[ComparisonRow, ...]
    reused: int
    interrupted: bool


def find_reference(
    problem: BlockRemovalProblem, time_limit: float = REFERENCE_SECONDS
) -> SolveResult | None:
    """The result of the first exact backend that takes the problem, or None."""
    for name in ("exact", "brute-force"):
        entry = backends().get(name)
        if entry is None or entry.backend is None or not entry.availability.ok:
            continue
        try:
            return entry.backend.sample(problem, seed=0, time_limit=time_limit)
        except CapacityError:
            continue
    return None


def compare(
    problem: BlockRemovalProblem,
    contenders: Sequence[Contender],
    *,
    repeats: int = 10,
    seed: int = 0,
    time_limit: float | None = None,
    store: RunStore | None = None,
    report: Callable[[Progress], None] = lambda progress: None,
) -> Comparison:
    """Run every contender with seeds seed ... seed + repeats - 1 and judge the results.

    Runs that `store` already holds are not run again. A contender that fails is a row with its
    reason. After Ctrl-C the finished runs are judged.

    Raises:
        UnknownBackend, ParameterError: before anything runs.
    """
    if repeats < 1:
        raise ParameterError(f"repeats must be at least 1, not {repeats}")
    for contender in contenders:  # a typo in the last one must not cost the runs of the first
        get_backend(contender.backend).parse(contender.parameters)
    finished: dict[int, list[SolveResult]] = {i: [] for i in range(len(contenders))}
    errors: dict[int, str] = {}
    reused = 0
    interrupted = False
    proof: SolveResult | None = None
    try:
        report(Progress("reference"))
        proof = find_reference(problem)
        interrupted = proof is not None and proof.status == "interrupted"
        # Seeds in the outer loop: after an interruption every contender has had its share.
        for repeat in range(repeats):
            for i, contender in enumerate(contenders):
                if i in errors or interrupted:
                    continue
                done = (repeat * len(contenders) + i) / (repeats * len(contenders))
                report(Progress(f"{contender}, seed {seed + repeat}", done))
                key = contender.run_key(problem, seed + repeat, time_limit)
                result = store.get(key) if store is not None else None
                if result is not None:
                    reused += 1
                else:
                    try:
                        result = get_backend(contender.backend).sample(
                            problem,
                            seed=seed + repeat,
                            time_limit=time_limit,
                            **contender.parameters,
                        )
                    except QblockError as error:
                        errors[i] = str(error)
                        continue
                    if result.status == "interrupted":
                        interrupted = True
                        continue
                    if store is not None:
                        store.put(key, result)
                finished[i].append(result)
    except KeyboardInterrupt:
        interrupted = True
    spectra = {i: [Spectrum.of(problem, r) for r in results] for i, results in finished.items()}
    reference = _reference(problem, proof, [s for runs in spectra.values() for s in runs])
    rows = tuple(
        _row(contender, reference, finished[i], spectra[i], errors.get(i, ""))
        for i, contender in enumerate(contenders)
    )
    return Comparison(problem, reference, rows, reused, interrupted)


def _reference(
    problem: BlockRemovalProblem, proof: SolveResult | None, spectra: Sequence[Spectrum]
) -> Reference:
    certificate = proof.certificate if proof else None
    known = [s.energies[0] for s in spectra if len(s)]
    if proof is not None:
        known += Spectrum.of(problem, proof).energies[:1].tolist()
    proved = certificate is not None and certificate.proved
    return Reference(
        energy=float(min(known, default=float("nan"))),
        proved=proved,
        lower_bound=certificate.lower_bound if certificate else None,
        source=proof.backend if proof and proved else "best of all runs",
        random_mean=random_feasible_mean(problem.reduced) + problem.reduced.offset,
    )


def _row(
    contender: Contender,
    reference: Reference,
    results: Sequence[SolveResult],
    spectra: Sequence[Spectrum],
    error: str,
) -> ComparisonRow:
    execution = get_backend(contender.backend).capabilities.execution
    if not results:
        return ComparisonRow(contender, execution, 0, error)
    best = [float(s.energies[0]) for s in spectra if len(s)]
    reached = sum(
        len(s) > 0 and bool(s.energies[0] <= reference.energy + tie_width(s.energies))
        for s in spectra
    )
    feasible = sum(int(s.occurrences.sum()) for s in spectra)
    samples = feasible + sum(s.infeasible for s in spectra)
    success = Proportion(reached, len(results))
    seconds = statistics.median(r.timing.total for r in results)
    gaps = [reference.gap(energy) for energy in best]
    return ComparisonRow(
        contender=contender,
        execution=execution,
        runs=len(results),
        error=error,
        feasible_rate=feasible / samples if samples else 0.0,
        best_gap=min(gaps, default=None),
        # A run without a feasible state is worse than any gap, so it counts as the largest.
        median_gap=statistics.median_high(gaps + [float("inf")] * (len(results) - len(gaps)))
        if len(gaps) * 2 > len(results)
        else None,
        success=success,
        seconds=seconds,
        tts=time_to_solution(success, seconds),
    )


def comparison_table(comparison: Comparison) -> Table:
    """The comparison as a `rich` table; what `qblock compare` prints."""
    reference = comparison.reference
    kind = "proved optimum" if reference.proved else "best known"
    table = Table(title=f"{comparison.problem.sensitivity.name}, remove {_budget(comparison)}")
    bound = (
        f", proved lower bound {reference.lower_bound:.6g}"
        if reference.lower_bound is not None and not reference.proved
        else ""
    )
    table.caption = (
        f"{kind} {reference.energy:.6g} ({reference.source}){bound}; gap 0 % = {kind}, "
        "100 % = mean of random feasible states; intervals are exact, 95 %"
    )
    for title, justify in (
        ("backend", "left"),
        ("runs", "right"),
        ("feasible", "right"),
        ("best gap", "right"),
        ("median gap", "right"),
        ("success rate", "right"),
        ("seconds", "right"),
        ("TTS 99 %", "right"),
    ):
        table.add_column(title, justify=justify, overflow="fold")  # type: ignore[arg-type]
    for row in comparison.rows:
        label = str(row.contender)
        if row.execution != "classical":
            label += f" ({row.execution})"
        if row.success is None or row.tts is None:
            table.add_row(label, "0", f"[red]{row.error or 'not run'}[/red]")
            continue
        low, high = row.success.interval()
        table.add_row(
            label,
            str(row.runs),
            f"{row.feasible_rate:.1%}",
            _percent(row.best_gap),
            _percent(row.median_gap),
            f"{row.success.successes}/{row.success.trials} [{low:.2f}, {high:.2f}]",
            f"{row.seconds:.3g}",
            f"{row.tts.value:.3g} s" if row.tts.value is not None else f"> {row.tts.low:.3g} s",
        )
        if row.error:
            table.add_row("", "", f"[red]{row.error}[/red]")
    return table


def _budget(comparison: Comparison) -> str:
    remove = comparison.problem.remove
    if isinstance(remove, Mapping):
        return ", ".join(f"{count} {group}" for group, count in remove.items())
    return f"{remove} of {len(comparison.problem)}"


def _percent(gap: float | None) -> str:
    return "none feasible" if gap is None else f"{gap:.2%}"
