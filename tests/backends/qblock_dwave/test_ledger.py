"""The record of jobs: shared by processes, and never lost to a disk or a damaged file."""

import dataclasses
import threading
from pathlib import Path

import pytest
from qblock_dwave.leap import LeapQPU
from qblock_dwave.ledger import JobRecord, Ledger, default_folder
from sapi_emulator import Fault, SapiEmulator

from qblock.errors import BackendError, SolverTimeout
from qblock.problem import BlockRemovalProblem
from qblock.testing import random_sensitivity

PROBLEM = BlockRemovalProblem(random_sensitivity(4), remove=2)


def test_the_same_run_started_twice_at_once_is_paid_once(sapi: SapiEmulator) -> None:
    LeapQPU().estimate(PROBLEM)  # the graph is built, so that both come to sending together
    sapi.faults = [Fault("submit", "delay", times=2, seconds=0.5)]
    jobs: list[str] = []

    def run() -> None:
        jobs.append(LeapQPU().sample(PROBLEM, seed=7, num_reads=5).details["job"])

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=20)
    assert len(sapi.jobs) == 1
    assert jobs == list(sapi.jobs) * 2


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"key": "a"}', b"\xff\xfe"], ids=repr)
def test_a_record_that_cannot_be_read_is_named_and_nothing_is_sent(
    content: bytes, sapi: SapiEmulator
) -> None:
    qpu = LeapQPU()
    job = qpu.sample(PROBLEM, seed=3, num_reads=5).details["job"]
    (path,) = default_folder().glob("*.json")
    path.write_bytes(content)
    with pytest.raises(BackendError, match=path.name):
        qpu.sample(PROBLEM, seed=3, num_reads=5)
    with pytest.raises(BackendError, match=path.name):
        qpu.fetch(job)
    assert len(sapi.jobs) == 1


def test_a_damaged_record_does_not_hide_the_others(sapi: SapiEmulator) -> None:
    qpu = LeapQPU()
    job = qpu.sample(PROBLEM, seed=3, num_reads=5).details["job"]
    (default_folder() / "0.json").write_bytes(b"{")
    assert qpu.fetch(job) is not None


def test_without_a_place_for_the_record_nothing_is_sent(
    sapi: SapiEmulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocked = tmp_path / "file"
    blocked.touch()
    monkeypatch.setenv("QBLOCK_HOME", str(blocked))
    with pytest.raises(BackendError, match="QBLOCK_HOME"):
        LeapQPU().sample(PROBLEM, num_reads=5)
    assert not sapi.jobs


def test_a_disk_that_fills_up_once_the_job_is_taken_loses_no_job(
    sapi: SapiEmulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = Ledger.save

    def full(self: Ledger, record: JobRecord) -> JobRecord:
        if record.job:
            raise BackendError("no space left")
        return save(self, record)

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "save", full)
        with pytest.raises(BackendError, match="no space left"):
            LeapQPU().sample(PROBLEM, seed=3, num_reads=5)
    assert LeapQPU().sample(PROBLEM, seed=3, num_reads=5).details["job"] in sapi.jobs
    assert len(sapi.jobs) == 1


def test_what_cannot_be_written_is_said_with_the_job(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.touch()
    record = JobRecord("key", "leap-qpu", {}, {}, 0, {})
    with pytest.raises(BackendError, match="job 42 was taken"):
        Ledger(blocked).save(dataclasses.replace(record, job="42"))


def test_waiting_for_the_lock_ends(tmp_path: Path) -> None:
    with Ledger(tmp_path).lock("key", 0.0):
        raised: list[BaseException] = []

        def wait() -> None:
            try:
                with Ledger(tmp_path).lock("key", 0.1):
                    pass
            except SolverTimeout as error:
                raised.append(error)

        thread = threading.Thread(target=wait)
        thread.start()
        thread.join(timeout=10)
    assert len(raised) == 1
