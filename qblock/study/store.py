"""Runs on disk: one SQLite file, one row per finished run, written as soon as it is finished."""

import sqlite3
from pathlib import Path

from qblock.backend import SolveResult
from qblock.errors import ProblemError

SCHEMA_VERSION = 1


class RunStore:
    """Finished runs by key. A process killed at any moment loses at most the run in flight.

    Several processes may use one file at a time (write-ahead log).

    Raises:
        ProblemError: the file is no study, of a newer version, or cannot be opened.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            self._connection = sqlite3.connect(self.path, timeout=30)
            self._connection.execute("PRAGMA journal_mode=WAL")
            version = self._connection.execute("PRAGMA user_version").fetchone()[0]
            if version > SCHEMA_VERSION:
                raise ProblemError(
                    f"{path} is a study of version {version}; this qblock reads up to "
                    f"{SCHEMA_VERSION}: update it"
                )
            with self._connection:
                self._connection.execute(
                    "CREATE TABLE IF NOT EXISTS runs (key TEXT PRIMARY KEY, result TEXT NOT NULL)"
                )
                self._connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
        except sqlite3.Error as error:
            raise ProblemError(f"{path} cannot be used as a study file: {error}") from None

    def get(self, key: str) -> SolveResult | None:
        """The stored result of a run, if it was finished before."""
        row = self._connection.execute("SELECT result FROM runs WHERE key = ?", (key,)).fetchone()
        return SolveResult.from_json(row[0]) if row else None

    def put(self, key: str, result: SolveResult) -> None:
        """Store a finished run."""
        try:
            with self._connection:
                self._connection.execute(
                    "INSERT OR REPLACE INTO runs VALUES (?, ?)", (key, result.to_json())
                )
        except sqlite3.Error as error:
            raise ProblemError(f"{self.path} cannot be written: {error}") from None

    def __len__(self) -> int:
        return int(self._connection.execute("SELECT COUNT(*) FROM runs").fetchone()[0])
