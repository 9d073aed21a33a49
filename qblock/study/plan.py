"""What a study runs: problems x contenders x time limits x seeds, checked whole before a start."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from qblock.errors import QblockError, StudyError
from qblock.problem import BlockRemovalProblem
from qblock.registry import backends, get_backend
from qblock.study.contender import Contender, RunRequest

REFERENCE_BACKENDS = ("exact", "brute-force")
"""What may prove a reference, best first."""


@dataclass(frozen=True)
class Plan:
    """A study, whole. Every combination of the first four fields is one run.

    Attributes:
        problems: instances with their budgets.
        contenders: backends with their parameters.
        seeds: one run each.
        time_limits: seconds per run, asked of the backend; None for no limit.
        name: for titles.
        reference_seconds: time limit of the exact backend that proves the reference.
        hard_limit: seconds after which a run is killed from outside; a run with a time limit is
            killed that limit plus the backend's declared slack plus `GRACE` after its start.
        memory_limit: bytes of data a run's process may allocate, or None.
        cloud_concurrency: how many runs of one cloud backend may be in flight.
        tuning: what was tuned, how and on which instances; goes into the report.

    Raises:
        StudyError: an empty or repeated field, or limits that are not positive.
        UnknownBackend, ParameterError: of a contender that could never run.
    """

    problems: tuple[BlockRemovalProblem, ...]
    contenders: tuple[Contender, ...]
    seeds: tuple[int, ...] = tuple(range(10))
    time_limits: tuple[float | None, ...] = (None,)
    name: str = "study"
    reference_seconds: float = 60.0
    hard_limit: float = 3600.0
    memory_limit: int | None = None
    cloud_concurrency: int = 1
    tuning: str = "nothing was tuned: parameters are as listed, others at their defaults"

    def __post_init__(self) -> None:
        problems = {p.id: f"{p.sensitivity.name}, remove {p.remove}" for p in self.problems}
        for what, values in (
            ("problem", [p.id for p in self.problems]),
            ("backend", [f"{c.backend} {c.settings}" for c in self.contenders]),
            ("seed", self.seeds),
            ("time limit", self.time_limits),
        ):
            if not values:
                raise StudyError(f"plan {self.name!r} has no {what}")
            value, times = Counter(values).most_common(1)[0]
            if times > 1:
                shown = problems.get(str(value), value)
                raise StudyError(f"plan {self.name!r} has the same {what} twice: {shown}")
        limits = [t for t in self.time_limits if t is not None]
        for limit in (*limits, self.reference_seconds, self.hard_limit):
            if not 0 < limit < math.inf:
                raise StudyError(f"plan {self.name!r}: {limit} is no time limit in seconds")
        if min(self.seeds) < 0 or self.cloud_concurrency < 1:
            raise StudyError(f"plan {self.name!r}: seeds must be >= 0 and cloud_concurrency >= 1")

    def requests(self) -> Iterator[RunRequest]:
        """Every run: the references, then all contenders seed by seed.

        With seeds in the outer loop, an interrupted study has given every contender its share.
        """
        for problem in self.problems:
            reference = reference_contender(problem)
            if reference is not None:
                yield RunRequest(problem, reference, 0, self.reference_seconds, "reference")
        for seed in self.seeds:
            for problem in self.problems:
                for time_limit in self.time_limits:
                    for contender in self.contenders:
                        yield RunRequest(problem, contender, seed, time_limit)

    def document(self) -> dict[str, Any]:
        """The plan as JSON-like data, with problems by their ids."""
        return {
            "name": self.name,
            "problems": [problem.id for problem in self.problems],
            "contenders": [str(contender) for contender in self.contenders],
            "seeds": list(self.seeds),
            "time_limits": list(self.time_limits),
            "reference_seconds": self.reference_seconds,
            "hard_limit": self.hard_limit,
            "memory_limit": self.memory_limit,
            "cloud_concurrency": self.cloud_concurrency,
            "tuning": self.tuning,
        }


def reference_contender(problem: BlockRemovalProblem) -> Contender | None:
    """The best exact backend here that takes the problem, or None."""
    for name in REFERENCE_BACKENDS:
        entry = backends().get(name)
        if entry is None or entry.backend is None or not entry.availability.ok:
            continue
        try:
            entry.backend.check(problem.reduced, entry.backend.parse({}))
        except QblockError:
            continue
        return Contender(name)
    return None


@dataclass(frozen=True)
class PlanEstimate:
    """What a set of runs would take, one after the other.

    Attributes:
        runs: how many.
        seconds: wall clock of those runs whose backend can tell, or that have a time limit.
        unknown: contenders whose backends cannot tell.
        qpu_seconds: billed time of quantum hardware.
        notes: remarks of the backends, each once.
    """

    runs: int
    seconds: float
    unknown: tuple[str, ...]
    qpu_seconds: float
    notes: tuple[str, ...]


def estimate(requests: Sequence[RunRequest]) -> PlanEstimate:
    """What these runs would take, from each backend's own estimate; costs nothing."""
    seconds = qpu_seconds = 0.0
    unknown: dict[str, None] = {}
    notes: dict[str, None] = {}
    known = {}
    for request in requests:
        question = (request.problem.id, str(request.contender))
        if question not in known:
            backend = get_backend(request.contender.backend)
            try:
                known[question] = backend.estimate(request.problem, **request.contender.parameters)
            except QblockError as error:  # the run will fail in the same words
                notes[f"{request.contender}: {error}"] = None
                continue
        answer = known[question]
        expected = [s for s in (answer.seconds, request.time_limit) if s is not None]
        if expected:
            seconds += min(expected)
        else:
            unknown[str(request.contender)] = None
        qpu_seconds += answer.qpu_seconds or 0.0
        notes |= dict.fromkeys(f"{request.contender}: {note}" for note in answer.notes)
    return PlanEstimate(len(requests), seconds, tuple(unknown), qpu_seconds, tuple(notes))
