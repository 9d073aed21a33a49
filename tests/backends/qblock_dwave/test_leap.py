"""The quantum backend through the real cloud client: right answers, and nothing paid twice."""

import dataclasses
import time
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from qblock_dwave.hybrid import LeapHybridBQM
from qblock_dwave.leap import LeapQPU
from qblock_dwave.ledger import Ledger, default_folder, problem_document, problem_of
from sapi_emulator import TOKEN, Fault, Job, SapiEmulator, quantum_solver

from qblock.backend import Backend
from qblock.errors import (
    AuthenticationError,
    BackendError,
    BackendUnavailable,
    CapacityError,
    ParameterError,
    QblockError,
    QuotaExceeded,
    ServiceError,
    SolverTimeout,
)
from qblock.files import load_sensitivity
from qblock.problem import BlockRemovalProblem
from qblock.spectrum import Spectrum
from qblock.testing import BackendContract, random_sensitivity


@pytest.fixture
def qpu() -> LeapQPU:
    return LeapQPU()


@pytest.fixture(scope="module")
def problem() -> BlockRemovalProblem:
    return BlockRemovalProblem(random_sensitivity(6), remove=2)


class TestContract(BackendContract):
    name = "leap-qpu"
    parameters: ClassVar[dict[str, int]] = {"num_reads": 20}

    @pytest.fixture(autouse=True)
    def _service(self, sapi: SapiEmulator) -> None:
        """Every check runs against the emulated service."""


def test_the_optimum_comes_back(sapi: SapiEmulator, qpu: LeapQPU) -> None:
    problem = BlockRemovalProblem(random_sensitivity(5), remove=2)
    result = qpu.sample(problem, num_reads=100, chain_strength=2.0)
    states = np.array([[i in pair for i in range(5)] for pair in _pairs(5)], dtype=np.int8)
    best = float(problem.energy(states).min())
    assert Spectrum.of(problem, result).energies[0] == pytest.approx(best)
    assert result.details["service_timing_us"]["qpu_access_time"] == 14_000 + 100 * 90
    assert result.details["solver"] == "Emulated_system1"
    assert len(sapi.jobs) == 1


def test_a_gauge_changes_what_is_sent_and_not_what_comes_back(
    sapi: SapiEmulator, qpu: LeapQPU
) -> None:
    problem = BlockRemovalProblem(random_sensitivity(5), remove=2)
    plain = qpu.sample(problem, seed=1, num_reads=100)
    gauged = qpu.sample(problem, seed=1, num_reads=100, spin_reversal=True)
    sent = [job.request["data"]["lin"] for job in sapi.jobs.values()]
    assert sent[0] != sent[1]
    lowest = [Spectrum.of(problem, result).energies[0] for result in (plain, gauged)]
    assert lowest[0] == pytest.approx(lowest[1])


def _pairs(n: int) -> list[tuple[int, int]]:
    return [(i, j) for i in range(n) for j in range(i + 1, n)]


# What is sent, and what it costs


def test_an_estimate_sends_nothing(sapi: SapiEmulator, qpu: LeapQPU) -> None:
    problem = BlockRemovalProblem(load_sensitivity("smollm2-135m-fisher"), remove=8)
    few, many = (qpu.estimate(problem, num_reads=reads) for reads in (100, 1000))
    assert few.qpu_seconds is not None
    assert many.qpu_seconds is not None
    assert 0 < few.qpu_seconds < many.qpu_seconds < 1
    assert few.qubits is not None
    assert few.qubits > 30
    assert any("at most 36 blocks" in note for note in few.notes)
    assert sapi.requests["submit"] == 0


def test_more_than_the_limit_is_not_sent(
    sapi: SapiEmulator, qpu: LeapQPU, problem: BlockRemovalProblem
) -> None:
    with pytest.raises(QuotaExceeded, match="nothing was sent"):
        qpu.sample(problem, num_reads=1000, max_qpu_seconds=0.001)
    assert sapi.requests["submit"] == 0
    assert list(Ledger(default_folder())) == []


def test_a_limit_that_cannot_be_checked_is_not_ignored(
    sapi: SapiEmulator,
    qpu: LeapQPU,
    problem: BlockRemovalProblem,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(quantum_solver()["properties"], "problem_timing_data")
    with pytest.raises(QuotaExceeded, match="no timing model"):
        qpu.sample(problem, max_qpu_seconds=10.0)
    assert sapi.requests["submit"] == 0


def test_the_configured_solver_is_the_quantum_one(
    sapi: SapiEmulator, problem: BlockRemovalProblem, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DWAVE_API_SOLVER", "Emulated_system1")
    assert LeapQPU().sample(problem, num_reads=5).details["solver"] == "Emulated_system1"
    assert LeapHybridBQM().sample(problem).details["solver"].startswith("hybrid_binary")


def test_too_many_blocks_are_not_sent(sapi: SapiEmulator, qpu: LeapQPU) -> None:
    with pytest.raises(CapacityError, match="at most 36"):
        qpu.sample(BlockRemovalProblem(random_sensitivity(40), remove=2))
    assert sapi.requests["submit"] == 0


def test_values_out_of_the_solvers_range_are_not_sent(
    sapi: SapiEmulator, qpu: LeapQPU, problem: BlockRemovalProblem
) -> None:
    with pytest.raises(ParameterError, match="annealing_time"):
        qpu.sample(problem, annealing_time=3000.0)
    assert sapi.requests["submit"] == 0


def test_the_same_run_is_paid_once(
    sapi: SapiEmulator, qpu: LeapQPU, problem: BlockRemovalProblem
) -> None:
    first = qpu.sample(problem, seed=3, num_reads=20)
    again = qpu.sample(problem, seed=3, num_reads=20)
    assert again.details["answered_from_record"]
    assert not first.details["answered_from_record"]
    assert again.samples == first.samples
    # How chains are mended is decided here, not at the service.
    qpu.sample(problem, seed=3, num_reads=20, chain_break_method="minimize_energy")
    qpu.sample(problem, seed=3, num_reads=20, postprocess="steepest-descent")
    assert len(sapi.jobs) == 1
    qpu.sample(problem, seed=4, num_reads=20)
    assert len(sapi.jobs) == 2


# Jobs survive what happens to us


@pytest.fixture
def lost(sapi: SapiEmulator, qpu: LeapQPU, problem: BlockRemovalProblem) -> str:
    """The id of a job whose answer did not arrive in time."""
    qpu.estimate(problem)  # what is compiled the first time
    sapi.polls_until_done = 10**6
    with pytest.raises(SolverTimeout, match="qblock fetch"):
        qpu.sample(problem, seed=3, num_reads=20, time_limit=3.0)
    sapi.polls_until_done = 0
    (job,) = sapi.jobs
    return job


def test_a_late_job_is_fetched(
    lost: str, sapi: SapiEmulator, qpu: LeapQPU, problem: BlockRemovalProblem
) -> None:
    fetched = qpu.fetch(lost)
    assert fetched is not None
    assert fetched[0] == problem
    assert fetched[1].samples.record.num_occurrences.sum() == 20
    assert len(sapi.jobs) == 1


def test_time_that_ends_while_the_job_is_sent_is_a_timeout_and_the_job_is_found_later(
    sapi: SapiEmulator, qpu: LeapQPU, problem: BlockRemovalProblem
) -> None:
    qpu.estimate(problem)  # the graph is built, so that the time goes into the request
    sapi.faults = [Fault("submit", "delay", times=1, seconds=2.5)]
    with pytest.raises(SolverTimeout, match="same seed"):
        qpu.sample(problem, seed=3, num_reads=20, time_limit=1.0)
    time.sleep(2.5)  # until the service has taken it
    assert qpu.sample(problem, seed=3, num_reads=20).details["job"] in sapi.jobs
    assert len(sapi.jobs) == 1


def test_a_submission_without_an_answer_is_not_sent_again_blindly(
    sapi: SapiEmulator, qpu: LeapQPU, problem: BlockRemovalProblem
) -> None:
    sapi.faults = [Fault("submit", "delay", times=1, seconds=4.0)]
    with pytest.raises(ServiceError, match="run it again in a while"):
        qpu.sample(problem, seed=3, num_reads=20)
    assert sapi.requests["submit"] == 1
    time.sleep(2.5)  # until the service has taken it
    assert qpu.sample(problem, seed=3, num_reads=20).details["job"] in sapi.jobs
    assert len(sapi.jobs) == 1


def test_running_again_collects_a_late_job(
    lost: str, sapi: SapiEmulator, qpu: LeapQPU, problem: BlockRemovalProblem
) -> None:
    result = qpu.sample(problem, seed=3, num_reads=20)
    assert result.details["job"] == lost
    assert len(sapi.jobs) == 1


def test_a_job_sent_by_a_process_that_died_before_it_knew_the_id_is_found(
    lost: str, sapi: SapiEmulator, qpu: LeapQPU, problem: BlockRemovalProblem
) -> None:
    ledger = Ledger(default_folder())
    (record,) = ledger
    ledger.save(dataclasses.replace(record, job=""))
    assert qpu.sample(problem, seed=3, num_reads=20).details["job"] == lost
    assert len(sapi.jobs) == 1


def test_a_failed_job_is_not_taken_for_the_one_sent_after_it(
    sapi: SapiEmulator, qpu: LeapQPU, problem: BlockRemovalProblem
) -> None:
    sapi.faults = [Fault("status", "failed", message="chip is warm")]
    with pytest.raises(BackendError, match="chip is warm"):
        qpu.sample(problem, seed=3, num_reads=20)
    sapi.faults = [Fault("submit", "cut")]  # so that the second one is looked for by its label
    result = qpu.sample(problem, seed=3, num_reads=20)
    assert [result.details["job"]] == list(sapi.jobs)[1:]


def test_a_job_in_an_unknown_state_is_kept(
    sapi: SapiEmulator, qpu: LeapQPU, problem: BlockRemovalProblem
) -> None:
    sapi.faults = [Fault("answer", "strange", times=10**6)]
    with pytest.raises(ServiceError, match="qblock fetch"):
        qpu.sample(problem, seed=3, num_reads=20)
    sapi.faults = []
    qpu.sample(problem, seed=3, num_reads=20)
    assert len(sapi.jobs) == 1


@pytest.mark.parametrize("timing", [None, [], {"qpu_access_time": "n/a"}], ids=repr)
def test_samples_are_not_lost_to_a_strange_account_of_their_time(
    timing: object,
    sapi: SapiEmulator,
    qpu: LeapQPU,
    problem: BlockRemovalProblem,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answer = sapi.answer

    def strange(job: Job, *, short: bool) -> dict[str, Any]:
        document = answer(job, short=short)
        document["answer"]["timing"] = timing
        return document

    monkeypatch.setattr(sapi, "answer", strange)
    assert qpu.sample(problem, num_reads=5).details["service_timing_us"] == {}


def test_an_unknown_job_is_not_ours(sapi: SapiEmulator, qpu: LeapQPU) -> None:
    assert qpu.fetch("no-such-job") is None


def test_a_problem_survives_the_record() -> None:
    sensitivity = random_sensitivity(6, groups=("a", "b") * 3)
    problem = BlockRemovalProblem(
        sensitivity, remove={"a": 1, "b": 2}, keep=[sensitivity.blocks[0]]
    )
    assert problem_of(problem_document(problem)) == problem


# Faults, one by one, through the real client

ENDS_WELL = [
    Fault("solvers", "error", times=2, code=500),
    Fault("solvers", "refuse"),
    Fault("submit", "error", code=429, retry_after="1"),
    Fault("submit", "error", code=500),
    Fault("submit", "refuse"),
    Fault("submit", "cut"),
    Fault("submit", "garbage"),
    Fault("status", "error", code=500),
    Fault("status", "error", code=429),
    Fault("status", "refuse"),
    Fault("status", "cut"),
    Fault("status", "garbage"),
    Fault("status", "delay", seconds=3.0),
    Fault("answer", "error", code=500),
    Fault("answer", "error", code=429),
    Fault("answer", "refuse"),
    Fault("answer", "cut", times=2),
    Fault("answer", "garbage"),
    Fault("answer", "short"),
]


def _name(fault: Fault) -> str:
    return f"{fault.route}-{fault.kind}-{fault.code}x{fault.times}"


@pytest.mark.parametrize("fault", ENDS_WELL, ids=_name)
def test_a_passing_fault_still_gives_the_answer_and_one_bill(
    fault: Fault, sapi: SapiEmulator, qpu: LeapQPU, problem: BlockRemovalProblem
) -> None:
    sapi.faults = [dataclasses.replace(fault)]
    result = qpu.sample(problem, seed=3, num_reads=20)
    assert result.samples.record.num_occurrences.sum() == 20
    assert max(sapi.paid_labels().values()) == 1
    assert sapi.faults[0].times == 0, "the fault was never met"


ENDS_BADLY = [
    (Fault("solvers", "error", code=401), AuthenticationError, "DWAVE_API_TOKEN", 0),
    (Fault("solvers", "error", code=403), AuthenticationError, "project", 0),
    (Fault("solvers", "error", code=404), BackendUnavailable, "dwave solvers", 0),
    (Fault("solvers", "error", code=503), ServiceError, "network", 0),
    (Fault("submit", "error", code=401), AuthenticationError, "token", 0),
    (Fault("submit", "error", code=429), QuotaExceeded, "later", 0),
    (Fault("submit", "error", code=400, message="bad request"), BackendError, "refused", 0),
    (
        Fault("submit", "error", code=400, message="Insufficient remaining solver access time"),
        QuotaExceeded,
        "dashboard",
        0,
    ),
    (Fault("submit", "error", code=400, message="problem too large"), CapacityError, "--keep", 0),
    (Fault("submit", "error", code=500), ServiceError, "network", 0),
    (Fault("submit", "refuse"), ServiceError, "network", 0),
    (Fault("submit", "cut"), QblockError, "", 1),
    (Fault("status", "failed", message="chip is warm"), BackendError, "chip is warm", 1),
    (Fault("status", "failed", message="Solver is offline"), BackendUnavailable, "online", 1),
    (Fault("status", "cancelled"), BackendError, "cancelled", 1),
    (Fault("answer", "error", code=500), ServiceError, "qblock fetch", 1),
    (Fault("answer", "error", code=429), QuotaExceeded, "qblock fetch", 1),
    (Fault("answer", "cut"), ServiceError, "qblock fetch", 1),
    (Fault("answer", "garbage"), ServiceError, "qblock fetch", 1),
    (Fault("answer", "short"), ServiceError, "qblock fetch", 1),
]


@pytest.mark.parametrize(
    ("fault", "kind", "words", "paid"), ENDS_BADLY, ids=lambda value: getattr(value, "route", None)
)
def test_a_lasting_fault_ends_in_its_error_and_one_bill_at_most(
    fault: Fault,
    kind: type[QblockError],
    words: str,
    paid: int,
    sapi: SapiEmulator,
    qpu: LeapQPU,
    problem: BlockRemovalProblem,
) -> None:
    sapi.faults = [dataclasses.replace(fault, times=10**6)]
    if fault.route == "submit" and fault.kind == "cut":
        # The service took the job, so it is found at once.
        assert qpu.sample(problem, seed=3, num_reads=20).details["job"] in sapi.jobs
    else:
        with pytest.raises(kind, match=words) as caught:
            qpu.sample(problem, seed=3, num_reads=20)
        assert TOKEN not in str(caught.value)
        assert "\n" not in str(caught.value)
    assert len(sapi.jobs) == paid
    # Once the service is well, the same run gives an answer, from the same job if it goes on.
    sapi.faults = []
    assert qpu.sample(problem, seed=3, num_reads=20).samples.record.num_occurrences.sum() == 20
    gone = fault.kind in ("failed", "cancelled")
    assert max(sapi.paid_labels().values()) == (2 if gone else 1)


def test_a_waiting_job_is_cancelled_and_a_solved_one_kept(
    sapi: SapiEmulator, qpu: LeapQPU, problem: BlockRemovalProblem
) -> None:
    sapi.polls_until_done = 10**6
    with pytest.raises(SolverTimeout):
        qpu.sample(problem, seed=1, num_reads=2, time_limit=5.0)
    (job,) = sapi.jobs
    assert not LeapHybridBQM().cancel(job), "it is not this backend's"
    assert qpu.cancel(job)
    assert sapi.jobs[job].status == "CANCELLED"
    assert not qpu.cancel(job), "its record is gone"
    sapi.polls_until_done = 0
    solved = qpu.sample(problem, seed=1, num_reads=2).details["job"]  # a new job, not the old one
    assert solved != job
    with pytest.raises(BackendError, match=f"completed.*qblock fetch {solved}"):
        qpu.cancel(solved)
    assert qpu.sample(problem, seed=1, num_reads=2).details["answered_from_record"]


def test_a_job_that_was_solved_before_it_could_be_cancelled_is_kept(
    sapi: SapiEmulator, qpu: LeapQPU, problem: BlockRemovalProblem
) -> None:
    sapi.polls_until_done = 10**6
    with pytest.raises(SolverTimeout):
        qpu.sample(problem, seed=1, num_reads=2, time_limit=5.0)
    (job,) = sapi.jobs
    sapi.jobs[job].status = "COMPLETED"
    with pytest.raises(BackendError, match=f"qblock fetch {job}"):
        qpu.cancel(job)
    assert qpu.sample(problem, seed=1, num_reads=2).details["job"] == job


def test_an_offline_solver_is_unavailable(
    sapi: SapiEmulator, qpu: LeapQPU, problem: BlockRemovalProblem
) -> None:
    sapi.online = False
    with pytest.raises(BackendUnavailable, match="online"):
        qpu.sample(problem)
    sapi.online = True  # no stale definition is left in a cache
    qpu.sample(problem, num_reads=2)


def test_an_unknown_solver_is_unavailable(
    sapi: SapiEmulator, qpu: LeapQPU, problem: BlockRemovalProblem
) -> None:
    with pytest.raises(BackendUnavailable, match="no_such_solver"):
        qpu.sample(problem, solver="no_such_solver")


def test_a_wrong_token_is_refused_and_not_shown(
    sapi: SapiEmulator,
    qpu: LeapQPU,
    problem: BlockRemovalProblem,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DWAVE_API_TOKEN", "wrong-token-987")
    with pytest.raises(AuthenticationError) as caught:
        qpu.sample(problem)
    assert "wrong-token" not in str(caught.value)
    assert not qpu.check_service().ok


def test_without_a_token_nothing_is_tried(
    home: Path, qpu: LeapQPU, problem: BlockRemovalProblem
) -> None:
    assert not qpu.available().ok
    with pytest.raises(BackendUnavailable, match="DWAVE_API_TOKEN"):
        qpu.sample(problem)


def test_a_dead_service_is_an_error_and_not_a_hang(
    sapi: SapiEmulator,
    qpu: LeapQPU,
    problem: BlockRemovalProblem,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DWAVE_API_ENDPOINT", "http://127.0.0.1:9/sapi/v2/")
    with pytest.raises(ServiceError):
        qpu.sample(problem)


def test_the_token_is_written_nowhere(
    sapi: SapiEmulator,
    qpu: LeapQPU,
    problem: BlockRemovalProblem,
    home: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    state = qpu.available()
    assert state.ok
    assert "token found" in state.reason
    assert sapi.endpoint in state.reason
    result = qpu.sample(problem, num_reads=5)
    assert "online" in qpu.check_service().reason
    written = [path.read_bytes() for path in home.rglob("*") if path.is_file()]
    assert written
    assert not any(TOKEN.encode() in content for content in written)
    assert TOKEN not in result.to_json() + str(state) + caplog.text


@pytest.mark.parametrize(
    "spoilt", [f" {TOKEN}", f"{TOKEN}\n", f"{TOKEN}\r\n", f"{TOKEN}é"], ids=repr
)
def test_a_token_that_cannot_be_sent_is_refused_and_not_shown(
    spoilt: str,
    sapi: SapiEmulator,
    qpu: LeapQPU,
    problem: BlockRemovalProblem,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DWAVE_API_TOKEN", spoilt)
    assert TOKEN not in str(qpu.check_service())
    with pytest.raises(BackendUnavailable, match="copy it again") as caught:
        qpu.sample(problem)
    assert TOKEN not in str(caught.value)
    assert sum(sapi.requests.values()) == 0


def test_a_token_that_the_service_quotes_is_not_shown(
    sapi: SapiEmulator, qpu: LeapQPU, problem: BlockRemovalProblem
) -> None:
    sapi.faults = [Fault("submit", "error", code=400, message=f"bad request by {TOKEN}")]
    with pytest.raises(BackendError, match="bad request by <token>"):
        qpu.sample(problem)


def test_listing_the_backend_touches_no_network(home: Path, sapi: SapiEmulator) -> None:
    backend: Backend = LeapQPU()
    backend.available()
    assert sum(sapi.requests.values()) == 0
