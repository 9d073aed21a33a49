"""The Leap backends: what all of them share, and the quantum processor."""

import time
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar

import dimod
import numpy as np
from pydantic import Field

from qblock.backend import (
    Availability,
    Backend,
    Capabilities,
    Estimate,
    Parameters,
    Progress,
    Run,
    Samples,
    SolveResult,
)
from qblock.errors import BackendError, ParameterError, QuotaExceeded, ServiceError
from qblock.problem import BlockRemovalProblem, ReducedProblem
from qblock_dwave import cloud
from qblock_dwave.annealer import AnnealerParameters, Programme, unembed
from qblock_dwave.cloud import Patience
from qblock_dwave.embedding import (
    EmbeddedProblem,
    WorkingGraph,
    clique_embedding,
    embed,
    largest_clique,
)
from qblock_dwave.ledger import (
    JobRecord,
    Ledger,
    default_folder,
    problem_document,
    problem_of,
    run_key,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class LeapParameters(Parameters):
    """Parameters of everything that runs at Leap."""

    solver: str = Field(
        "",
        description="name of the solver; empty: the least busy that fits, or for the quantum "
        "processor the one that Ocean is configured for",
    )
    max_qpu_seconds: float | None = Field(
        None,
        gt=0,
        description="refuse to send what is estimated to be billed for longer",
        json_schema_extra={"unit": "s"},
    )


P = TypeVar("P", bound=LeapParameters)


@dataclass(frozen=True)
class Prepared:
    """A job ready to be sent.

    Attributes:
        estimate: gives what it takes; not free to compute.
        programme: what `LeapBackend.read` needs beside the answer, JSON-like.
        send: submits it under a label and returns the cloud client's future.
    """

    estimate: Callable[[], Estimate]
    programme: Mapping[str, Any]
    send: Callable[[str], Any]


class LeapBackend(Backend[P]):
    """A solver at Leap. Subclasses prepare a job and read its answer; the rest is here."""

    client: ClassVar[Literal["qpu", "hybrid"]]
    features: ClassVar[Mapping[str, Any]]
    """What the solver must have, as the cloud client's `get_solver` takes it."""
    read_only_parameters: ClassVar[frozenset[str]] = frozenset({"max_qpu_seconds"})
    """Parameters that do not change what is sent: another value reads the same paid answer."""

    patience: Patience = Patience()

    @abstractmethod
    def prepare(self, solver: Any, problem: ReducedProblem, parameters: P, seed: int) -> Prepared:
        """Everything up to sending, for the cloud client's `solver`."""

    def decode(self, problem: ReducedProblem, answer: Any) -> dimod.SampleSet:
        """The samples in the cloud client's future, which is done."""
        samples = answer.sampleset
        samples.resolve()
        return samples

    @abstractmethod
    def check_answer(
        self, problem: ReducedProblem, parameters: P, record: JobRecord, answer: dimod.SampleSet
    ) -> None:
        """Raise `ServiceError` unless `answer` can be the answer to this job."""

    @abstractmethod
    def read(
        self, problem: ReducedProblem, parameters: P, record: JobRecord, answer: dimod.SampleSet
    ) -> Samples:
        """Samples of the problem from the service's answer."""

    def available(self) -> Availability:
        return cloud.credentials()

    def check_service(self) -> Availability:
        return cloud.check_service(self.client, self.patience, **self.features)

    def estimate(self, problem: BlockRemovalProblem, **parameters: Any) -> Estimate:
        """Asks Leap for the solver's properties, which is free, and sends no problem."""
        settings = self.parse(parameters)
        self.require_available()
        if not len(problem.reduced):
            return Estimate(notes=("pins and budgets decide every block: nothing is sent",))
        with cloud.connection(self.client, self.patience) as client:
            solver = self.find_solver(client, settings)
            return self.prepare(solver, problem.reduced, settings, seed=0).estimate()

    def find_solver(self, client: Any, parameters: P) -> Any:
        return cloud.find_solver(client, self.patience, parameters.solver, **self.features)

    def solve(self, problem: ReducedProblem, parameters: P, run: Run) -> Samples:
        assert run.problem is not None  # `Backend.sample` always sets it
        ledger = Ledger(default_folder())
        sent = parameters.model_dump(mode="json", exclude=set(self.read_only_parameters))
        key = run_key(run.problem.id, self.name, sent, run.seed)
        record = ledger.find(key)
        paid_before = record is not None and record.answer is not None
        encode_seconds = wait_seconds = 0.0
        if record is None or record.answer is None:
            with cloud.connection(self.client, self.patience) as client:
                future = None
                with ledger.lock(key, min(run.remaining(), self.patience.job_seconds)):
                    record = ledger.find(key)  # another process may have sent it meanwhile
                    if record is None or not record.job:
                        record, future, encode_seconds = self._send(
                            client, problem, parameters, run, ledger, key
                        )
                known = record

                def decode(done: Any) -> dimod.SampleSet:
                    samples = self.decode(problem, done)
                    self.check_answer(problem, parameters, known, samples)
                    return samples

                record = cloud.await_answer(
                    client, future, known, ledger, self.patience, run, decode
                )
            wait_seconds = time.perf_counter() - run.started - encode_seconds
        assert record.answer is not None
        answer = dimod.SampleSet.from_serializable(dict(record.answer))
        samples = self.read(problem, parameters, record, answer)
        details = {
            "solver": record.programme["solver"],
            "job": record.job,
            "answered_from_record": paid_before,
            "service_timing_us": numbers(answer.info.get("timing")),
            **samples.details,
        }
        access = details["service_timing_us"].get("qpu_access_time")
        if access is not None:
            details["qpu_seconds"] = access / 1e6
        return replace(
            samples, encode_seconds=encode_seconds, wait_seconds=wait_seconds, details=details
        )

    def _send(
        self,
        client: Any,
        problem: ReducedProblem,
        parameters: P,
        run: Run,
        ledger: Ledger,
        key: str,
    ) -> tuple[JobRecord, Any, float]:
        """Prepare and submit the job: its record, the client's future, seconds of encoding."""
        assert run.problem is not None
        solver = self.find_solver(client, parameters)
        started = time.perf_counter()
        prepared = self.prepare(solver, problem, parameters, run.seed)
        if parameters.max_qpu_seconds is not None:
            refuse_above(parameters.max_qpu_seconds, prepared.estimate())
        encode_seconds = time.perf_counter() - started
        run.report(Progress(f"sending to {solver.name}"))
        record = JobRecord(
            key=key,
            backend=self.name,
            problem=problem_document(run.problem),
            parameters=parameters.model_dump(mode="json"),
            seed=run.seed,
            programme={"solver": solver.name, **prepared.programme},
        )
        record, future = cloud.submit(client, prepared.send, record, ledger, self.patience, run)
        return record, future, encode_seconds

    def fetch(
        self, job: str, *, report: Callable[[Progress], None] = lambda progress: None
    ) -> tuple[BlockRemovalProblem, SolveResult] | None:
        record = self._record_of(job)
        if record is None:
            return None
        problem = problem_of(record.problem)
        # The record has the job's id, so this run asks for its answer and sends nothing.
        return problem, self.sample(problem, seed=record.seed, report=report, **record.parameters)

    def cancel(self, job: str) -> bool:
        record = self._record_of(job)
        if record is None:
            return False
        self.require_available()
        state = "COMPLETED"
        if record.answer is None:
            with cloud.connection(self.client, self.patience) as client:
                state = cloud.cancel_job(client, job, self.patience)
        if state not in cloud.ENDED_WITHOUT_ANSWER:
            raise BackendError(
                f"job {job} is not cancelled but {state.lower().replace('_', ' ')}; it is kept: "
                f"`qblock fetch {job}`"
            )
        Ledger(default_folder()).forget(record)
        return True

    def _record_of(self, job: str) -> JobRecord | None:
        """The record of a job that this backend sent, or None."""
        record = Ledger(default_folder()).find_job(job)
        return record if record is not None and record.backend == self.name else None


def refuse_above(limit: float, estimate: Estimate) -> None:
    """Raise `QuotaExceeded` if more than `limit` seconds would be billed, or nobody can tell."""
    if estimate.qpu_seconds is None:
        raise QuotaExceeded(
            f"the solver publishes no timing model, so max_qpu_seconds={limit:g} cannot be kept; "
            "nothing was sent. Leave the limit out to send it anyway"
        )
    if estimate.qpu_seconds > limit:
        raise QuotaExceeded(
            f"this run would be billed for about {estimate.qpu_seconds:.3g} s, above the limit "
            f"max_qpu_seconds={limit:g}; nothing was sent. Lower the reads or raise the limit"
        )


def numbers(facts: Any) -> dict[str, float]:
    """The numbers in a mapping that the service sent; what it tells beside the samples is not
    worth losing them for, so anything else is left out."""
    if not isinstance(facts, Mapping):
        return {}
    return {str(k): float(v) for k, v in facts.items() if isinstance(v, int | float)}


class LeapQPUParameters(AnnealerParameters, LeapParameters):
    annealing_time: float | None = Field(
        None,
        gt=0,
        description="length of one anneal; None: the solver's default",
        json_schema_extra={"unit": "µs"},
    )
    spin_reversal: bool = Field(
        False,
        description="send the problem in a random gauge drawn from the seed, which averages out "
        "some analogue errors over several seeds",
    )


class LeapQPU(LeapBackend[LeapQPUParameters]):
    """A D-Wave quantum annealer: the penalty form, embedded as a clique."""

    name = "leap-qpu"
    Parameters = LeapQPUParameters
    capabilities = Capabilities(
        summary="D-Wave quantum annealer at Leap, clique-embedded penalty form; costs QPU time",
        constraint="penalty",
        method="quantum",
        execution="hardware",
        location="cloud",
        reproducible="never",
        time_limit_slack=10.0,
    )
    client = "qpu"
    features: ClassVar[Mapping[str, Any]] = {"qpu": True}
    read_only_parameters = frozenset({"max_qpu_seconds", "chain_break_method", "postprocess"})

    def figure(self, form: str, problem: ReducedProblem, parameters: LeapQPUParameters) -> "Figure":
        """Asks Leap for the processor's graph, which is free, and sends no problem."""
        if form != "embedding":
            return super().figure(form, problem, parameters)
        from qblock_dwave.plot import embedding_figure

        with cloud.connection(self.client, self.patience) as client:
            solver = self.find_solver(client, parameters)
            graph = WorkingGraph.of_properties(solver.name, solver.properties)
        return embedding_figure(clique_embedding(graph, len(problem)), graph)

    def prepare(
        self, solver: Any, problem: ReducedProblem, parameters: LeapQPUParameters, seed: int
    ) -> Prepared:
        _check_ranges(solver, parameters)
        graph = WorkingGraph.of_properties(solver.name, solver.properties)
        embedded = embed(
            problem, graph, penalty=parameters.penalty, prefactor=parameters.chain_strength
        )
        flipped: list[int] = []
        physical = embedded.physical
        if parameters.spin_reversal:
            coins = np.random.default_rng(seed).integers(2, size=len(physical.variables))
            flipped = [int(q) for q, coin in zip(physical.variables, coins, strict=True) if coin]
            physical = physical.copy()
            for qubit in flipped:
                physical.flip_variable(qubit)
        options: dict[str, Any] = {"num_reads": parameters.num_reads}
        if parameters.annealing_time is not None:
            options["annealing_time"] = parameters.annealing_time
        return Prepared(
            estimate=lambda: self._estimate(solver, graph, embedded, options),
            programme={"embedded": Programme.of(embedded).to_dict(), "flipped": flipped},
            send=lambda label: solver.sample_bqm(physical, label=label, **options),
        )

    @staticmethod
    def _estimate(
        solver: Any, graph: WorkingGraph, embedded: EmbeddedProblem, options: Mapping[str, Any]
    ) -> Estimate:
        qubits = embedded.embedding.num_qubits
        try:
            seconds = float(solver.estimate_qpu_access_time(qubits, **options)) / 1e6
        except (KeyError, ValueError):  # the solver publishes no timing model
            seconds = None
        return Estimate(
            qubits=qubits,
            qpu_seconds=seconds,
            notes=(
                f"solver {solver.name}; {len(embedded.embedding.chains)} chains of at most "
                f"{embedded.embedding.longest_chain} qubits",
                f"it holds dense problems of at most {largest_clique(graph)} blocks",
                f"about {embedded.coefficients.bits_lost:.1f} bits of precision go to the penalty",
            ),
        )

    def check_answer(
        self,
        problem: ReducedProblem,
        parameters: LeapQPUParameters,
        record: JobRecord,
        answer: dimod.SampleSet,
    ) -> None:
        programme = Programme.from_dict(record.programme["embedded"])
        qubits = {qubit for chain in programme.embedding.chains for qubit in chain}
        reads = int(answer.record.num_occurrences.sum())
        if set(answer.variables) != qubits or reads != parameters.num_reads:
            raise ServiceError(
                f"job {record.job} was answered with {reads} reads of {len(answer.variables)} "
                f"qubits, expected {parameters.num_reads} of {len(qubits)}; "
                f"`qblock fetch {record.job}` asks again"
            )

    def read(
        self,
        problem: ReducedProblem,
        parameters: LeapQPUParameters,
        record: JobRecord,
        answer: dimod.SampleSet,
    ) -> Samples:
        flipped = record.programme["flipped"]
        if flipped:
            values = answer.record.sample.copy()
            values[:, [answer.variables.index(qubit) for qubit in flipped]] *= -1
            answer = dimod.SampleSet.from_samples(
                (values, list(answer.variables)),
                vartype=answer.vartype,
                energy=answer.record.energy,
                num_occurrences=answer.record.num_occurrences,
                sort_labels=False,
            )
        programme = Programme.from_dict(record.programme["embedded"])
        return unembed(problem, programme, answer, parameters)


def _check_ranges(solver: Any, parameters: LeapQPUParameters) -> None:
    """Raise `ParameterError` for what the solver would refuse."""
    for name, key in (("num_reads", "num_reads_range"), ("annealing_time", "annealing_time_range")):
        value, limits = getattr(parameters, name), solver.properties.get(key)
        if value is not None and limits and not limits[0] <= value <= limits[1]:
            raise ParameterError(
                f"{name}={value!r}: solver {solver.name} takes {limits[0]} to {limits[1]}"
            )
