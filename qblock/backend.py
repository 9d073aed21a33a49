"""The contract of a solver back end, and what comes back from one.

A backend is a class with a name, `Capabilities`, a `Parameters` model and one method,
`solve`, which takes a `ReducedProblem` and returns raw `Samples`. Everything that all
backends share (checking parameters, drawing and recording the seed, pinned blocks, energies,
timing, provenance) is done here, in `Backend.sample`.
"""

import functools
import importlib.metadata
import importlib.util
import json
import platform
import secrets
import signal
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from types import FrameType
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, TypeVar

import dimod
import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from qblock.errors import BackendUnavailable, ParameterError
from qblock.problem import BlockRemovalProblem, IntArray, ReducedProblem, States

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Status = Literal["complete", "time-limit", "interrupted"]


class Parameters(BaseModel):
    """Base of a backend's parameters: immutable, unknown names refused.

    Give every field a default and a description (`pydantic.Field`), bounds where there are
    any, and its unit as `json_schema_extra={"unit": "sweeps"}`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


P = TypeVar("P", bound=Parameters)


@dataclass(frozen=True)
class Capabilities:
    """What a backend is and promises, as data.

    Attributes:
        summary: one line for `qblock backends`.
        constraint: "native" if every sample meets the budgets by construction, "penalty" if
            the budget is a penalty term and samples may violate it.
        method: "exact" (returns a certificate), "heuristic" or "quantum".
        execution: "classical", or for quantum methods "simulated", "emulated" or "hardware".
        location: "local", or "cloud": runs only when named and may cost money.
        max_blocks: largest number of undecided blocks, None if only time and memory limit it.
        reproducible: what a seed fixes: "always" the same samples, "untimed" the same samples
            as long as no time limit cuts the run short, "never".
        time_limit_slack: seconds by which a time limit may be overrun.
    """

    summary: str
    constraint: Literal["native", "penalty"]
    method: Literal["exact", "heuristic", "quantum"]
    execution: Literal["classical", "simulated", "emulated", "hardware"] = "classical"
    location: Literal["local", "cloud"] = "local"
    max_blocks: int | None = None
    reproducible: Literal["always", "untimed", "never"] = "untimed"
    time_limit_slack: float = 1.0


@dataclass(frozen=True)
class Availability:
    """Whether a backend can run here, and if not, why not and how to change that."""

    ok: bool
    reason: str = ""
    hint: str = ""

    @classmethod
    def of_extra(cls, module: str, extra: str) -> "Availability":
        """Available if `module` can be imported; else the install command of `extra`."""
        if importlib.util.find_spec(module.partition(".")[0]) is not None:
            return cls(True)
        return cls(False, f"{module} is not installed", f'pip install "qblock[{extra}]"')


@dataclass(frozen=True)
class Estimate:
    """What a run would take; None where a quantity does not apply or is not known.

    `seconds` wall clock, `memory_bytes` peak, `qubits` logical or physical as the notes say,
    `qpu_seconds` billed time.
    """

    seconds: float | None = None
    memory_bytes: int | None = None
    qubits: int | None = None
    qpu_seconds: float | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Certificate:
    """What an exact solver has proved about its list of states.

    Attributes:
        proved: the list holds the k lowest feasible states (or all there are).
        lower_bound: no feasible state has a lower energy.
        complete_below: every feasible state with an energy below this is in the list.
        ties_at_kth: the k-th place is shared with states that may be missing from the list.
        tolerance: relative tolerance of the proof: energies closer than this are not told apart.
        nodes: search nodes or states looked at.
    """

    proved: bool
    lower_bound: float
    complete_below: float
    ties_at_kth: bool
    tolerance: float
    nodes: int


@dataclass(frozen=True)
class Progress:
    """One report of a running solver: what it is doing, and how much of it is done (0..1)."""

    message: str
    fraction: float | None = None


@dataclass
class Run:
    """What a backend knows of the run it is in.

    Attributes:
        seed: non-negative integer from which all randomness must derive.
        time_limit: seconds from `started`, or None.
        started: `time.perf_counter()` at the start.
        report: call it with a `Progress` now and then; cheap when nobody listens.
        problem: the whole problem, for backends that keep records of their jobs.
    """

    seed: int
    time_limit: float | None = None
    started: float = field(default_factory=time.perf_counter)
    report: Callable[[Progress], None] = lambda progress: None
    problem: BlockRemovalProblem | None = None

    def remaining(self) -> float:
        """Seconds left, infinite without a time limit; negative once overrun."""
        if self.time_limit is None:
            return float("inf")
        return self.time_limit - (time.perf_counter() - self.started)

    def expired(self) -> bool:
        return self.remaining() <= 0


@contextmanager
def interrupt_flag() -> Iterator[Callable[[], bool]]:
    """Inside the block Ctrl-C sets a flag, which the yielded function reads.

    For solvers that spend their time in compiled code and look up now and then. A second Ctrl-C
    raises `KeyboardInterrupt` as usual. Without effect outside the main thread, which alone
    receives signals.
    """
    pressed = False

    def remember(signum: int, frame: FrameType | None) -> None:
        nonlocal pressed
        if pressed:
            raise KeyboardInterrupt
        pressed = True

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before = signal.signal(signal.SIGINT, remember)
    try:
        yield lambda: pressed
    finally:
        signal.signal(signal.SIGINT, before)


@dataclass(frozen=True)
class Samples:
    """What `Backend.solve` returns: all its samples over the n undecided blocks.

    Attributes:
        states: int8 (S, n) of 0/1, feasible or not.
        occurrences: int64 (S,), how often each was seen; ones if None.
        status: "complete", or what cut the run short; the samples so far are kept.
        encode_seconds: building the model or the embedding.
        wait_seconds: network and queue.
        certificate: of an exact solver, in terms of the reduced energy y'Qy (no offset).
        warnings: chain breaks, clipped coefficients and the like.
        details: further facts of this backend, JSON-like.
    """

    states: States
    occurrences: IntArray | None = None
    status: Status = "complete"
    encode_seconds: float = 0.0
    wait_seconds: float = 0.0
    certificate: Certificate | None = None
    warnings: tuple[str, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Timing:
    """Wall-clock seconds of a run, split by what they were spent on."""

    encode: float
    wait: float
    solve: float

    @property
    def total(self) -> float:
        return self.encode + self.wait + self.solve


@dataclass(frozen=True)
class SolveResult:
    """The samples of one run and all that is needed to judge and repeat it.

    Attributes:
        backend: registered name.
        problem_id: content hash of the problem.
        samples: binary sample set over all block names; energies are `problem.energy`, never
            those of a penalty model. Infeasible samples are included.
        timing, status, certificate, warnings, details: see `Samples`.
        parameters: every parameter as used, defaults included.
        seed, time_limit: as used.
        versions: of Python, qblock, the backend's distribution and the numerical libraries.
        created: UTC time of the run's end, ISO 8601.
    """

    backend: str
    problem_id: str
    samples: dimod.SampleSet
    timing: Timing
    status: Status
    parameters: Mapping[str, Any]
    seed: int
    time_limit: float | None
    versions: Mapping[str, str]
    created: str
    certificate: Certificate | None = None
    warnings: tuple[str, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        """One JSON document; `from_json` gives an equal result back."""
        fields = {**self.__dict__, "samples": self.samples.to_serializable()}
        for name in ("timing", "certificate"):
            fields[name] = asdict(fields[name]) if fields[name] is not None else None
        return json.dumps(fields)

    @classmethod
    def from_json(cls, text: str) -> "SolveResult":
        fields = json.loads(text)
        fields["samples"] = dimod.SampleSet.from_serializable(fields["samples"])
        fields["timing"] = Timing(**fields["timing"])
        if fields["certificate"] is not None:
            fields["certificate"] = Certificate(**fields["certificate"])
        fields["warnings"] = tuple(fields["warnings"])
        return cls(**fields)


class Backend(ABC, Generic[P]):
    """A solver of block-removal problems. Subclass, set the three class attributes, write `solve`.

    Keep the module's import light (no SDK at the top): listing backends imports it.
    """

    name: ClassVar[str]
    capabilities: ClassVar[Capabilities]
    Parameters: ClassVar[type[Parameters]] = Parameters

    @abstractmethod
    def solve(self, problem: ReducedProblem, parameters: P, run: Run) -> Samples:
        """Sample the reduced problem; n >= 2 undecided blocks and a real choice.

        On `KeyboardInterrupt` or when `run.expired()`, return what there is with that status
        (with at least one sample; raise `SolverTimeout` if there is none).
        """

    def warm_up(self) -> None:
        """Compile what is needed, before the clock of the run and its time limit start."""

    def capabilities_with(self, parameters: P) -> Capabilities:
        """The capabilities with these parameters, if one of them says where the run happens."""
        return self.capabilities

    def available(self) -> Availability:
        """Whether the backend can run here; must neither raise nor touch the network."""
        return Availability(True)

    def check_service(self) -> Availability:
        """Like `available`, but a cloud backend asks its service, over the network."""
        return self.available()

    def fetch(
        self, job: str, *, report: Callable[[Progress], None] = lambda progress: None
    ) -> "tuple[BlockRemovalProblem, SolveResult] | None":
        """The problem and the result of a job submitted before; None if it is not known here.

        Cloud backends that keep a record of their jobs override this. Never submits anything.
        """
        return None

    def cancel(self, job: str) -> bool:
        """Cancel a job submitted before and drop its record; False if it is not known here.

        Raises:
            BackendError: the service goes on with it, or has solved it; the record stays.
        """
        return False

    def check(self, problem: ReducedProblem, parameters: P) -> None:
        """Raise `CapacityError` if the problem does not fit. Called before any work."""

    def estimate(self, problem: BlockRemovalProblem, **parameters: Any) -> Estimate:
        """What `sample` would take, before any cost."""
        return Estimate()

    def draw_circuit(self, problem: ReducedProblem) -> str:
        """The circuit that would run, as text, for teaching.

        Raises:
            ParameterError: this backend runs no circuit.
            CapacityError: too many blocks to be read.
        """
        raise ParameterError(f"backend {self.name!r} runs no circuit")

    def figure(self, form: str, problem: ReducedProblem, parameters: P) -> "Figure":
        """A matplotlib figure of how this backend sees the problem.

        Args:
            form: "embedding", the chains on the working graph, or "landscape", the mean energy
                over the two angles of one layer.

        Raises:
            ParameterError: this backend has no such picture, or matplotlib is not installed.
            CapacityError: the problem does not fit.
        """
        raise ParameterError(f"backend {self.name!r} has no picture of the kind {form!r}")

    def parse(self, parameters: Mapping[str, Any]) -> P:
        """Validated parameters.

        Raises:
            ParameterError: naming the parameter, the value and what is accepted.
        """
        try:
            return self.Parameters(**parameters)  # type: ignore[return-value]  # ClassVar of P
        except ValidationError as error:
            problems = []
            for item in error.errors():
                name = ".".join(str(part) for part in item["loc"][:1])
                if item["type"] == "extra_forbidden":
                    known = ", ".join(self.Parameters.model_fields) or "none"
                    problems.append(f"it has no parameter {name!r} (it takes: {known})")
                else:
                    problems.append(f"{name}={item['input']!r}: {item['msg']}")
            text = "; ".join(dict.fromkeys(problems))
            raise ParameterError(f"backend {self.name!r}: {text}") from None

    def require_available(self) -> None:
        """Raise `BackendUnavailable` with reason and remedy unless `available()`."""
        state = self.available()
        if not state.ok:
            raise BackendUnavailable(
                f"backend {self.name!r} is not available: {state.reason}. {state.hint}".strip()
            )

    def sample(
        self,
        problem: BlockRemovalProblem,
        *,
        seed: int | None = None,
        time_limit: float | None = None,
        report: Callable[[Progress], None] = lambda progress: None,
        **parameters: Any,
    ) -> SolveResult:
        """Run the solver on the problem.

        Args:
            problem: what to solve.
            seed: non-negative; drawn and recorded if None.
            time_limit: seconds of wall clock; the samples so far are returned when it ends.
            report: receives `Progress` while the solver runs.
            parameters: see `Parameters` of this backend.

        Raises:
            ParameterError: bad parameters, seed or time limit, before any work.
            BackendUnavailable: something this backend needs is missing.
            CapacityError: the problem is too large for it.
        """
        settings = self.parse(parameters)
        if seed is None:
            seed = secrets.randbits(32)
        elif isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
            raise ParameterError(f"seed must be a whole number >= 0, not {seed!r}")
        if time_limit is not None and not (
            isinstance(time_limit, int | float) and 0 < time_limit < float("inf")
        ):
            raise ParameterError(
                f"time_limit must be a positive number of seconds, not {time_limit!r}"
            )
        self.require_available()
        reduced = problem.reduced
        self.check(reduced, settings)
        if len(reduced):
            self.warm_up()
        run = Run(int(seed), time_limit, report=report, problem=problem)
        if len(reduced):
            samples = self.solve(reduced, settings, run)
        else:  # pins and budgets decide every block: one state, nothing to search
            samples = Samples(states=np.zeros((1, 0), dtype=np.int8))
            if self.capabilities.method == "exact":
                samples = Samples(
                    states=samples.states,
                    certificate=Certificate(True, 0.0, float("inf"), False, 0.0, 1),
                )
        elapsed = time.perf_counter() - run.started
        return self._result(problem, settings, run, samples, elapsed)

    def _result(
        self,
        problem: BlockRemovalProblem,
        settings: P,
        run: Run,
        samples: Samples,
        elapsed: float,
    ) -> SolveResult:
        reduced = problem.reduced
        # Repeated states are merged here: `aggregate_samples` would reorder the variables.
        states, which = np.unique(reduced.lift(samples.states), axis=0, return_inverse=True)
        occurrences = np.bincount(which.ravel(), weights=samples.occurrences).astype(np.int64)
        certificate = samples.certificate
        if certificate is not None:
            certificate = Certificate(
                **{
                    **asdict(certificate),
                    "lower_bound": certificate.lower_bound + reduced.offset,
                    "complete_below": certificate.complete_below + reduced.offset,
                }
            )
        solve = elapsed - samples.encode_seconds - samples.wait_seconds
        return SolveResult(
            backend=self.name,
            problem_id=problem.id,
            samples=sample_set(problem, states, occurrences),
            timing=Timing(samples.encode_seconds, samples.wait_seconds, solve),
            status=samples.status,
            parameters=settings.model_dump(mode="json"),
            seed=run.seed,
            time_limit=run.time_limit,
            versions=dict(versions(type(self).__module__.partition(".")[0])),
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            certificate=certificate,
            warnings=samples.warnings,
            details=dict(samples.details),
        )


def sample_set(
    problem: BlockRemovalProblem, states: States, occurrences: IntArray
) -> dimod.SampleSet:
    """States (S, N) and how often each was seen (S,), with their energies, as a sample set over
    the block names in their order."""
    return dimod.SampleSet.from_samples(
        (states, list(problem.blocks)),
        vartype="BINARY",
        energy=problem.energy(states),
        num_occurrences=occurrences,
        sort_labels=False,
    )


def parse_parameters(pairs: Iterable[str]) -> dict[str, Any]:
    """Parameters from texts "key=value"; a value is read as JSON if it is JSON, else as text.

    Raises:
        ParameterError: a text of another form.
    """
    parsed: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise ParameterError(f"{pair!r}: expected KEY=VALUE, such as num_reads=100")
        try:
            parsed[key] = json.loads(value)
        except json.JSONDecodeError:
            parsed[key] = value
    return parsed


@functools.cache  # looking through all installed distributions takes a second
def versions(*packages: str) -> Mapping[str, str]:
    """Versions of Python, qblock, the numerical libraries and the distributions of `packages`."""
    owners = importlib.metadata.packages_distributions()
    names = {"qblock", "numpy", "dimod", "pyqubo", "numba", "dwave-samplers"}
    names.update(owner for package in packages for owner in owners.get(package, ()))
    found = {"python": platform.python_version()}
    for name in sorted(names):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
