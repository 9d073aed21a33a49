"""The record of cloud jobs: written before a job is sent, so that none is lost or paid twice.

One JSON file per run, under `QBLOCK_HOME` or the user's state directory. It holds the problem,
what was asked for, the service's job id as soon as it is known and the answer once it is there.
It never holds a token. A lock per run keeps two processes from sending the same run at once.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from qblock.errors import BackendError, ProblemError, SolverTimeout
from qblock.files import atomic_write
from qblock.problem import BlockRemovalProblem, Sensitivity


@dataclass(frozen=True)
class JobRecord:
    """One run of a cloud backend.

    Attributes:
        key: hash of the problem, the backend, the parameters and the seed; the label of the job
            at the service, by which it is found again if its id never arrived.
        backend: registered name.
        problem: see `problem_document`.
        parameters, seed: of the run.
        programme: what the backend needs to read the answer.
        job: the service's id; empty until it is known that the service took the job.
        answer: the raw sample set, serialised; None until it has arrived.
    """

    key: str
    backend: str
    problem: Mapping[str, Any]
    parameters: Mapping[str, Any]
    seed: int
    programme: Mapping[str, Any]
    job: str = ""
    answer: Mapping[str, Any] | None = None

    @property
    def label(self) -> str:
        return f"qblock {self.key}"


def run_key(problem_id: str, backend: str, parameters: Mapping[str, Any], seed: int) -> str:
    """What identifies a run: asking for the same again is answered from the record."""
    content = json.dumps([problem_id, backend, parameters, seed], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:32]


def problem_document(problem: BlockRemovalProblem) -> dict[str, Any]:
    """The problem as JSON; `problem_of` gives an equal one (same `id`) back."""
    return {
        "name": problem.sensitivity.name,
        "Q": problem.Q.tolist(),
        "blocks": list(problem.blocks),
        "groups": list(problem.sensitivity.groups),
        "remove": problem.remove,
        "keep": list(problem.keep),
        "drop": list(problem.drop),
    }


def problem_of(document: Mapping[str, Any]) -> BlockRemovalProblem:
    """The problem that `problem_document` wrote. Any linear term is on the diagonal of its H."""
    sensitivity = Sensitivity(
        H=np.array(document["Q"]),
        blocks=tuple(document["blocks"]),
        groups=tuple(document["groups"]),
        name=document["name"],
    )
    return BlockRemovalProblem(
        sensitivity, remove=document["remove"], keep=document["keep"], drop=document["drop"]
    )


def default_folder() -> Path:
    """`$QBLOCK_HOME/jobs`, or `jobs` under the user's state directory."""
    home = os.environ.get("QBLOCK_HOME")
    if home:
        return Path(home) / "jobs"
    from platformdirs import user_state_path

    return user_state_path("qblock") / "jobs"


class Ledger:
    """The records in one folder. Every write is atomic.

    Every method raises `BackendError` if the folder cannot be used or a record cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def find(self, key: str) -> JobRecord | None:
        """The record of this run, or None."""
        path = self.folder / f"{key}.json"
        try:
            return JobRecord(**json.loads(path.read_text()))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._unusable(error) from None
        except (ValueError, TypeError):  # no JSON, or not of this layout
            raise BackendError(
                f"the job record {path} cannot be read, and may be of a job that was paid for; "
                "update qblock if a newer one wrote it, or move it away to send the run again"
            ) from None

    def find_job(self, job: str) -> JobRecord | None:
        """The record of the job with this id at the service, or None."""
        unreadable = None
        for path in sorted(self.folder.glob("*.json")):
            try:
                record = self.find(path.stem)
            except BackendError as error:  # it may be this job's, or another's
                unreadable = error
                continue
            if record is not None and record.job == job:
                return record
        if unreadable is not None:
            raise unreadable
        return None

    def __iter__(self) -> Iterator[JobRecord]:
        for path in sorted(self.folder.glob("*.json")):
            record = self.find(path.stem)
            if record:
                yield record

    @contextmanager
    def lock(self, key: str, seconds: float) -> Iterator[None]:
        """Held by one thread of one process at a time for this run.

        Raises:
            SolverTimeout: another one held it for longer than `seconds`.
        """
        from filelock import FileLock, Timeout

        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.folder / f".{key}.lock")
            lock.acquire(timeout=max(seconds, 0.0))
        except Timeout:  # before OSError, of which it is one
            raise SolverTimeout(
                "another process was sending the same run until the time limit; run it again "
                "with the same seed to collect its answer"
            ) from None
        except OSError as error:
            raise self._unusable(error) from None
        try:
            yield
        finally:
            lock.release()

    def save(self, record: JobRecord) -> JobRecord:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with atomic_write(self.folder / f"{record.key}.json") as stream:
                stream.write(json.dumps(record.__dict__).encode())
        except (OSError, ProblemError) as error:
            raise self._unusable(error, record.job) from None
        return record

    def _unusable(self, error: Exception, job: str = "") -> BackendError:
        reason = getattr(error, "strerror", None) or str(error)
        known = f" (job {job} was taken by the service)" if job else ""
        return BackendError(
            f"jobs cannot be recorded in {self.folder}: {reason}{known}; make it writable, or "
            "set QBLOCK_HOME to another folder"
        )

    def forget(self, record: JobRecord) -> None:
        """Drop the record of a job that the service refused or failed: it may be sent again."""
        (self.folder / f"{record.key}.json").unlink(missing_ok=True)
