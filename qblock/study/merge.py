"""Joining two studies into one."""

import sqlite3
from contextlib import closing
from pathlib import Path

from qblock.errors import StudyError


def copy_study(source: Path, target: Path) -> None:
    if not source.is_file():
        raise StudyError(f"there is no study file {source}")
    try:
        with (
            closing(sqlite3.connect(f"{source.resolve().as_uri()}?mode=ro", uri=True)) as old,
            closing(sqlite3.connect(target)) as new,
        ):
            old.backup(new)
    except sqlite3.Error as error:
        raise StudyError(f"{source} cannot be read as a study file: {error}") from None


def take_over(connection: sqlite3.Connection) -> int:
    """Copy what the attached study `other` has and `main` lacks."""
    for table in ("plans", "instances", "problems", "environments"):
        connection.execute(f"INSERT OR IGNORE INTO main.{table} SELECT * FROM other.{table}")
    columns = [
        name
        for (_, name, *_) in connection.execute("PRAGMA other.table_info(runs)")
        if name != "id"
    ]
    names = ", ".join(columns)
    connection.execute(
        f"CREATE TEMP TABLE gained AS SELECT id, {names} FROM other.runs AS theirs "
        "WHERE NOT EXISTS (SELECT 1 FROM main.runs AS ours WHERE ours.key = theirs.key "
        "AND (ours.state IN ('done', 'running') OR theirs.state IN ('open', 'running') "
        "OR ours.state = theirs.state))"
    )
    connection.execute("DELETE FROM main.runs WHERE key IN (SELECT key FROM gained)")
    connection.execute(f"INSERT INTO main.runs ({names}) SELECT {names} FROM gained ORDER BY id")
    connection.execute(
        "INSERT INTO main.samples SELECT ours.id, length, states, occurrences "
        "FROM other.samples JOIN gained ON gained.id = run "
        "JOIN main.runs AS ours ON ours.key = gained.key"
    )
    gained = connection.execute(
        "SELECT COUNT(*) FROM gained WHERE state IN ('done', 'failed')"
    ).fetchone()[0]
    connection.execute("UPDATE main.runs SET state = 'open', owner = NULL WHERE state = 'running' "
                       "AND key IN (SELECT key FROM gained)")  # fmt: skip
    connection.execute("DROP TABLE gained")
    return int(gained)
