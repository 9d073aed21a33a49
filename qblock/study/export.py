"""A study as flat tables, for other tools."""

import importlib.util
import json
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qblock.errors import StudyError
from qblock.files import atomic_write
from qblock.study.records import RunRecord
from qblock.study.store import Store

if TYPE_CHECKING:
    import pandas

NESTED = ("parameters", "certificate", "warnings", "details", "timing")


def runs_table(store: Store) -> list[dict[str, Any]]:
    """One flat row for each run, without samples; nested values are JSON text."""
    names = {key: store.problem(key) for key in store.problem_ids()}
    return [_run_row(run, names[run.problem_id].sensitivity.name) for run in store.runs()]


def samples_table(store: Store) -> list[dict[str, Any]]:
    """One row for each distinct sample of each run: energy, feasibility, removed blocks."""
    rows = []
    for problem_id in store.problem_ids():
        problem = store.problem(problem_id)
        for key, states, occurrences in store.all_samples(problem_id):
            columns = zip(
                states,
                occurrences.tolist(),
                problem.energy(states).tolist(),
                problem.is_feasible(states).tolist(),
                strict=True,
            )
            rows += [
                {
                    "run": key,
                    "energy": energy,
                    "feasible": feasible,
                    "occurrences": count,
                    "removed": " ".join(problem.blocks[i] for i in state.nonzero()[0]),
                }
                for state, count, energy, feasible in columns
            ]
    return rows


def frame(rows: list[dict[str, Any]]) -> "pandas.DataFrame":
    """A table as a pandas frame (`polars.from_pandas` takes it, and `polars.read_parquet` a
    written table).

    Raises:
        StudyError: pandas is not installed.
    """
    if importlib.util.find_spec("pandas") is None:
        raise StudyError('a table needs pandas: pip install "qblock[frame]"')
    import pandas

    return pandas.DataFrame(rows)


def write_table(rows: list[dict[str, Any]], path: str | Path) -> Path:
    """Write a table as .csv or .parquet, atomically.

    Raises:
        StudyError: another suffix, or pandas or pyarrow is not installed.
    """
    path = Path(path)
    writers = {".csv": "to_csv", ".parquet": "to_parquet"}
    if path.suffix not in writers:
        raise StudyError(f"{path}: tables are written as {' or '.join(writers)}")
    if path.suffix == ".parquet" and importlib.util.find_spec("pyarrow") is None:
        raise StudyError('Parquet needs pyarrow: pip install "qblock[frame]"')
    table = frame(rows)
    with atomic_write(path) as stream:
        getattr(table, writers[path.suffix])(stream, index=False)
    return path


def _run_row(run: RunRecord, instance: str) -> dict[str, Any]:
    row: dict[str, Any] = {"instance": instance}
    row |= {f.name: getattr(run, f.name) for f in fields(run) if f.name not in NESTED}
    for part in ("encode", "wait", "solve"):
        row[f"{part}_seconds"] = getattr(run.timing, part) if run.timing else None
    row["proved"] = run.certificate.proved if run.certificate else None
    row["parameters"] = json.dumps(run.parameters)
    row["warnings"] = "; ".join(run.warnings)
    row["details"] = json.dumps(run.details)
    return row
