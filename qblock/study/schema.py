"""The tables of a study file, as a list of migrations.

The number of migrations applied is the file's schema version (`PRAGMA user_version`). A
migration that has been released is never changed; a new one is appended.
"""

import sqlite3
from collections.abc import Sequence

from qblock.errors import StudyError

APPLICATION_ID = 0x71626C6B
"""Marks a SQLite file as a study ("qblk")."""

TABLES = """
CREATE TABLE plans (
    id TEXT PRIMARY KEY,              -- digest of the document
    document TEXT NOT NULL,           -- JSON: what was asked for
    created TEXT NOT NULL
);
CREATE TABLE instances (
    id TEXT PRIMARY KEY,              -- digest of the content
    name TEXT NOT NULL,
    curvature TEXT NOT NULL,
    blocks TEXT NOT NULL,             -- JSON list
    groups TEXT NOT NULL,             -- JSON list
    H BLOB NOT NULL,                  -- little-endian float64, N x N
    g BLOB,                           -- little-endian float64, N
    provenance TEXT NOT NULL          -- JSON
);
CREATE TABLE problems (
    id TEXT PRIMARY KEY,              -- BlockRemovalProblem.id
    instance TEXT NOT NULL REFERENCES instances,
    budget TEXT NOT NULL              -- JSON: remove, keep, drop, linear
);
CREATE TABLE environments (
    id TEXT PRIMARY KEY,              -- digest of the document
    document TEXT NOT NULL            -- JSON: versions and machine
);
CREATE TABLE coordinators (
    id TEXT PRIMARY KEY,
    host TEXT NOT NULL,
    pid INTEGER NOT NULL,
    beat REAL NOT NULL                -- Unix time of the last sign of life
);
CREATE TABLE runs (
    id INTEGER PRIMARY KEY,
    key TEXT NOT NULL UNIQUE,         -- RunRequest.key
    problem TEXT NOT NULL REFERENCES problems,
    purpose TEXT NOT NULL,            -- comparison, reference
    contender TEXT NOT NULL,          -- backend and parameters, as asked for
    backend TEXT NOT NULL,
    execution TEXT NOT NULL,          -- Capabilities.execution
    parameters TEXT NOT NULL,         -- JSON, as used
    seed INTEGER NOT NULL,
    time_limit REAL,                  -- seconds
    state TEXT NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'running', 'done', 'failed')),
    owner TEXT,                       -- coordinator, while running
    status TEXT,                      -- SolveResult.status
    encode REAL, wait REAL, solve REAL,     -- seconds
    samples INTEGER,                  -- with multiplicity
    feasible INTEGER,                 -- of them
    best REAL,                        -- lowest energy of a feasible sample
    certificate TEXT,                 -- JSON
    warnings TEXT,                    -- JSON list
    details TEXT,                     -- JSON
    environment TEXT REFERENCES environments,
    created TEXT,                     -- UTC, ISO 8601
    error_kind TEXT,
    error TEXT
);
CREATE TABLE samples (
    run INTEGER PRIMARY KEY REFERENCES runs ON DELETE CASCADE,
    length INTEGER NOT NULL,          -- distinct rows
    states BLOB NOT NULL,             -- numpy.packbits by row: ceil(N / 8) bytes each
    occurrences BLOB NOT NULL         -- little-endian unsigned, as wide as needed
);
"""

INDEX = "CREATE INDEX runs_by_contender ON runs (problem, contender, purpose, state);"

MIGRATIONS: Sequence[str] = (TABLES, INDEX)


def migrate(connection: sqlite3.Connection, name: str) -> None:
    """Bring an empty or older study to the newest schema, all or nothing.

    Raises:
        StudyError: the file is not a study, or of a newer schema.
    """
    connection.execute("BEGIN IMMEDIATE")  # another process may be creating the same file
    try:
        version = _version(connection, name)
        for migration in MIGRATIONS[version:]:
            for statement in filter(str.strip, migration.split(";\n")):
                connection.execute(statement)
        if version < len(MIGRATIONS):
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise


def _version(connection: sqlite3.Connection, name: str) -> int:
    """The schema version of a study, 0 if the file is empty."""
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    mark = int(connection.execute("PRAGMA application_id").fetchone()[0])
    tables = int(connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()[0])
    if mark != APPLICATION_ID and tables:
        raise StudyError(f"{name} is a database of another program, not a qblock study")
    if version > len(MIGRATIONS):
        raise StudyError(
            f"{name} is a study of schema version {version}; this qblock reads up to "
            f"{len(MIGRATIONS)}: update it"
        )
    return version
