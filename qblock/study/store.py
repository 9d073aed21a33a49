"""A study on disk: one SQLite file with all problems, runs and samples.

Every change is one transaction of a write-ahead log, so a process killed at any moment loses
at most its runs in flight, and several processes may work on one file. A process that works
on runs is a *coordinator*: it claims open runs, and what it leaves behind when it dies is open
again as soon as another one looks.
"""

import json
import os
import secrets
import socket
import sqlite3
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from qblock.backend import SolveResult, sample_set
from qblock.errors import QblockError, StudyError
from qblock.problem import BlockRemovalProblem, IntArray, States
from qblock.study.contender import RunRequest
from qblock.study.merge import copy_study, take_over
from qblock.study.records import (
    RUN_COLUMNS,
    RunRecord,
    digest_of,
    insert_problem,
    pack_samples,
    problem_of,
    run_record,
    samples_of,
    unpack_samples,
)
from qblock.study.schema import migrate

LOCK_SECONDS = 60.0
"""How long to wait while another process writes."""

DEAD_AFTER = 60.0
"""Seconds without a sign of life after which a coordinator's runs are open again."""


def _use_write_ahead_log(connection: sqlite3.Connection) -> None:
    """Switch the file over. That needs it alone for a moment, and SQLite does not wait for this
    by itself as it does for other locks."""
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return


class Store:
    """A study file, created if it is not there; ":memory:" for one that is never written.

    Not to be shared between threads. Use it as a context manager, or call `close`.

    Raises:
        StudyError: the file is no study, of a newer schema, or cannot be opened or written.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = str(path)
        self.owner = secrets.token_hex(8)
        with self._errors():
            self._connection = sqlite3.connect(
                self.path, timeout=LOCK_SECONDS, isolation_level=None
            )
        try:
            with self._errors():
                _use_write_ahead_log(self._connection)
                # In a write-ahead log, NORMAL cannot lose a commit to a killed process nor
                # damage the file; a power cut can cost the last commits, which are run again.
                self._connection.execute("PRAGMA synchronous = NORMAL")
                self._connection.execute("PRAGMA foreign_keys = ON")
                migrate(self._connection, self.path)
        except BaseException:
            self._connection.close()
            raise

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the file back; runs still claimed are open for others again."""
        with self._write() as connection:
            connection.execute(
                "UPDATE runs SET state = 'open', owner = NULL WHERE owner = ?", (self.owner,)
            )
            connection.execute("DELETE FROM coordinators WHERE id = ?", (self.owner,))
        self._connection.close()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise StudyError(f"{self.path} cannot be used as a study file: {error}") from None

    @contextmanager
    def _write(self) -> Iterator[sqlite3.Connection]:
        """One transaction: all of the block or nothing."""
        with self._errors():
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:  # a full disk rolls back by itself
                    self._connection.execute("ROLLBACK")
                raise

    def _read(self, query: str, *values: object) -> list[Any]:
        with self._errors():
            return self._connection.execute(query, values).fetchall()

    # What is to be done

    def add_plan(self, document: Mapping[str, Any], requests: Iterable[RunRequest]) -> int:
        """Record a plan (as JSON-like data) and its runs; gives how many of them are new."""
        text = json.dumps(document, sort_keys=True)
        known: set[str] = set()
        new = 0
        with self._write() as connection:
            connection.execute(
                "INSERT OR IGNORE INTO plans VALUES (?, ?, ?)", (digest_of(text), text, _now())
            )
            for request in requests:
                if request.problem.id not in known:
                    insert_problem(connection, request.problem)
                    known.add(request.problem.id)
                new += connection.execute(
                    "INSERT OR IGNORE INTO runs (key, problem, purpose, contender, backend, "
                    "execution, parameters, seed, time_limit) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    (
                        request.key,
                        request.problem.id,
                        request.purpose,
                        str(request.contender),
                        request.contender.backend,
                        request.contender.capabilities.execution,
                        request.contender.settings,
                        request.seed,
                        request.time_limit,
                    ),
                ).rowcount
        return new

    def plans(self) -> list[dict[str, Any]]:
        """The plans recorded, oldest first."""
        return [json.loads(text) for (text,) in self._read(
            "SELECT document FROM plans ORDER BY created, rowid"
        )]  # fmt: skip

    def open_keys(self) -> set[str]:
        """Runs that nobody has done or is doing. Those of dead coordinators are opened again."""
        self._open_runs_of_the_dead()
        return {key for (key,) in self._read("SELECT key FROM runs WHERE state = 'open'")}

    def counts(self) -> dict[str, int]:
        """How many runs are in each state."""
        return dict(self._read("SELECT state, COUNT(*) FROM runs GROUP BY state"))

    def beat(self) -> None:
        """Say that this coordinator lives; wanted well within `DEAD_AFTER`."""
        with self._write() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO coordinators VALUES (?, ?, ?, ?)",
                (self.owner, socket.gethostname(), os.getpid(), time.time()),
            )

    def claim(self, key: str) -> bool:
        """Take an open run for this coordinator; False if it is not open any more."""
        with self._write() as connection:
            taken = connection.execute(
                "UPDATE runs SET state = 'running', owner = ? WHERE key = ? AND state = 'open'",
                (self.owner, key),
            ).rowcount
        return taken == 1

    def release(self, key: str) -> None:
        """Open a claimed run again, as if it had not been tried."""
        with self._write() as connection:
            connection.execute(
                "UPDATE runs SET state = 'open', owner = NULL WHERE key = ? AND owner = ?",
                (key, self.owner),
            )

    def reopen_failed(self) -> int:
        """Open all failed runs again; gives their number."""
        with self._write() as connection:
            return connection.execute(
                "UPDATE runs SET state = 'open', error_kind = NULL, error = NULL "
                "WHERE state = 'failed'"
            ).rowcount

    def _open_runs_of_the_dead(self) -> None:
        with self._write() as connection:
            for owner, host, pid, beat in connection.execute(
                "SELECT id, host, pid, beat FROM coordinators WHERE id != ?", (self.owner,)
            ).fetchall():
                here = host == socket.gethostname()
                if time.time() - beat > DEAD_AFTER or (here and not _process_lives(pid)):
                    connection.execute("DELETE FROM coordinators WHERE id = ?", (owner,))
            connection.execute(
                "UPDATE runs SET state = 'open', owner = NULL WHERE state = 'running' "
                "AND owner NOT IN (SELECT id FROM coordinators)"
            )

    # What was done

    def finish(self, key: str, result: SolveResult, machine: Mapping[str, Any]) -> bool:
        """Store a finished run with all its samples, in one transaction.

        Args:
            machine: JSON-like facts on where it ran.

        Returns:
            False, and nothing is stored, if another process has taken the run over because
            this one gave no sign of life for too long.
        """
        problem = self.problem(result.problem_id)
        states, occurrences = samples_of(result, problem)
        feasible = problem.is_feasible(states)
        energies = result.samples.record.energy[feasible]
        environment = json.dumps(
            {"versions": dict(result.versions), "machine": dict(machine)}, sort_keys=True
        )
        with self._write() as connection:
            connection.execute(
                "INSERT OR IGNORE INTO environments VALUES (?, ?)",
                (digest_of(environment), environment),
            )
            done = connection.execute(
                "UPDATE runs SET state = 'done', owner = NULL, parameters = ?, status = ?, "
                "encode = ?, wait = ?, solve = ?, samples = ?, feasible = ?, best = ?, "
                "certificate = ?, warnings = ?, details = ?, environment = ?, created = ? "
                "WHERE key = ? AND owner = ? RETURNING id",
                (
                    json.dumps(dict(result.parameters), sort_keys=True),
                    result.status,
                    result.timing.encode,
                    result.timing.wait,
                    result.timing.solve,
                    int(occurrences.sum()),
                    int(occurrences[feasible].sum()),
                    float(energies.min()) if len(energies) else None,
                    None if result.certificate is None else json.dumps(asdict(result.certificate)),
                    json.dumps(list(result.warnings)),
                    json.dumps(dict(result.details)),
                    digest_of(environment),
                    result.created,
                    key,
                    self.owner,
                ),
            ).fetchone()
            if done is None:
                return False
            connection.execute(
                "INSERT INTO samples VALUES (?, ?, ?, ?)",
                (done[0], len(states), *pack_samples(states, occurrences)),
            )
        return True

    def fail(self, key: str, error: QblockError) -> None:
        """Store that a claimed run failed, and why."""
        with self._write() as connection:
            connection.execute(
                "UPDATE runs SET state = 'failed', owner = NULL, error_kind = ?, error = ?, "
                "created = ? WHERE key = ? AND owner = ?",
                (type(error).__name__, str(error), _now(), key, self.owner),
            )

    def runs(self, problem_id: str | None = None) -> list[RunRecord]:
        """All runs, or those of one problem, in the order they were planned; no samples."""
        where = "" if problem_id is None else "WHERE problem = ?"
        rows = self._read(
            f"SELECT {RUN_COLUMNS} FROM runs {where} ORDER BY id",
            *([] if problem_id is None else [problem_id]),
        )
        return [run_record(row) for row in rows]

    def samples(self, key: str) -> tuple[States, IntArray]:
        """The distinct samples of a finished run: states int8 (S, N), occurrences int64 (S,)."""
        rows = self._read(
            "SELECT problem, states, occurrences FROM samples JOIN runs ON runs.id = samples.run "
            "WHERE key = ?",
            key,
        )
        if not rows:
            raise StudyError(f"{self.path} holds no finished run {key}")
        problem_id, states, occurrences = rows[0]
        return unpack_samples(states, occurrences, len(self.problem(problem_id)))

    def all_samples(self, problem_id: str) -> Iterator[tuple[str, States, IntArray]]:
        """Key, states and occurrences of every finished run of a problem, one at a time."""
        n = len(self.problem(problem_id))
        with self._errors():
            for key, states, occurrences in self._connection.execute(
                "SELECT key, states, occurrences FROM runs JOIN samples ON runs.id = samples.run "
                "WHERE problem = ? ORDER BY runs.id",
                (problem_id,),
            ):
                yield key, *unpack_samples(states, occurrences, n)

    def result(self, run: RunRecord) -> SolveResult:
        """A finished run as its backend returned it; energies are computed anew."""
        problem = self.problem(run.problem_id)
        states, occurrences = self.samples(run.key)
        if run.timing is None or run.status is None or run.created is None:
            raise StudyError(f"run {run.key} of {self.path} is not finished")
        return SolveResult(
            backend=run.backend,
            problem_id=run.problem_id,
            samples=sample_set(problem, states, occurrences),
            timing=run.timing,
            status=run.status,  # type: ignore[arg-type]  # as written by `finish`
            parameters=run.parameters,
            seed=run.seed,
            time_limit=run.time_limit,
            versions=self.environments()[run.environment or ""]["versions"],
            created=run.created,
            certificate=run.certificate,
            warnings=run.warnings,
            details=run.details,
        )

    def environments(self) -> dict[str, dict[str, Any]]:
        """Versions and machine by the key that runs refer to."""
        rows = self._read("SELECT id, document FROM environments")
        return {key: json.loads(document) for key, document in rows}

    # Problems

    @cached_property
    def _problems(self) -> dict[str, BlockRemovalProblem]:
        return {}

    def problem_ids(self) -> list[str]:
        """Of all problems, in the order they were planned."""
        return [key for (key,) in self._read("SELECT id FROM problems ORDER BY rowid")]

    def problem(self, problem_id: str) -> BlockRemovalProblem:
        """A problem of the study, whole: nothing but the study file is needed."""
        if problem_id not in self._problems:
            rows = self._read(
                "SELECT name, curvature, blocks, groups, H, g, provenance, budget "
                "FROM problems JOIN instances ON instances.id = instance WHERE problems.id = ?",
                problem_id,
            )
            if not rows:
                raise StudyError(f"{self.path} holds no problem {problem_id}")
            self._problems[problem_id] = problem_of(rows[0])
        return self._problems[problem_id]

    # Several studies

    def merge(self, other: str | Path) -> int:
        """Take over all that another study holds and this one lacks; gives the runs gained.

        A run that both have finished is kept as it is here. The other file is only read.
        """
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / "copy.db"
            copy_study(Path(other), copy)
            Store(copy).close()  # brings an older schema up to date
            with self._errors():
                self._connection.execute("ATTACH ? AS other", (str(copy),))
            try:
                with self._write() as connection:
                    return take_over(connection)
            finally:
                self._connection.execute("DETACH other")


def open_study(path: str | Path) -> Store:
    """The study in an existing file.

    Raises:
        StudyError: there is no such file, or it is no study.
    """
    if not Path(path).is_file():
        raise StudyError(f"there is no study file {path}")
    return Store(path)


def _process_lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it lives, and belongs to somebody else
        return True
    return True


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
