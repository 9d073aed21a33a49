"""What is stored of a run and of a problem, and how it is written into columns."""

import hashlib
import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from qblock.backend import Certificate, SolveResult, Timing
from qblock.problem import BlockRemovalProblem, IntArray, Sensitivity, States
from qblock.study.contender import Purpose

RUN_COLUMNS = (
    "key, problem, purpose, contender, backend, execution, parameters, seed, time_limit, state, "
    "status, encode, wait, solve, samples, feasible, best, certificate, warnings, details, "
    "environment, created, error_kind, error"
)
"""Columns of the table `runs` that make a `RunRecord`, in the order `run_record` takes them."""


@dataclass(frozen=True)
class RunRecord:
    """One run without its samples, as stored. Fields without a value yet are None.

    Attributes:
        key: identifies the run (see `RunRequest.key`).
        contender: backend and parameters as asked for.
        execution: "classical", "simulated", "emulated" or "hardware".
        parameters: as used, defaults included.
        state: "open", "running", "done" or "failed".
        status: "complete" or "time-limit".
        timing: seconds spent.
        samples, feasible: number of samples, with multiplicity, and how many are feasible.
        best: lowest energy of a feasible sample.
        error_kind, error: class and message of the error of a failed run.
    """

    key: str
    problem_id: str
    purpose: Purpose
    contender: str
    backend: str
    execution: str
    parameters: Mapping[str, Any]
    seed: int
    time_limit: float | None
    state: str
    status: str | None
    timing: Timing | None
    samples: int | None
    feasible: int | None
    best: float | None
    certificate: Certificate | None
    warnings: tuple[str, ...]
    details: Mapping[str, Any]
    environment: str | None
    created: str | None
    error_kind: str | None
    error: str | None


def samples_of(result: SolveResult, problem: BlockRemovalProblem) -> tuple[States, IntArray]:
    """States int8 (S, N) in the problem's block order, and occurrences int64 (S,)."""
    variables = result.samples.variables
    order = [variables.index(block) for block in problem.blocks]
    record = result.samples.record
    return record.sample[:, order].astype(np.int8), record.num_occurrences.astype(np.int64)


def pack_samples(states: States, occurrences: IntArray) -> tuple[bytes, bytes]:
    """One bit for each block, and the narrowest unsigned integers that hold the counts."""
    width = np.min_scalar_type(int(occurrences.max(initial=0))).newbyteorder("<")
    return np.packbits(states, axis=1).tobytes(), occurrences.astype(width).tobytes()


def unpack_samples(states: bytes, occurrences: bytes, n: int) -> tuple[States, IntArray]:
    """What `pack_samples` packed, for n >= 1 blocks."""
    packed = np.frombuffer(states, dtype=np.uint8).reshape(-1, -(-n // 8))
    width = len(occurrences) // max(len(packed), 1)
    counts = np.frombuffer(occurrences, dtype=f"<u{width or 1}")
    return np.unpackbits(packed, axis=1, count=n).astype(np.int8), counts.astype(np.int64)


def insert_problem(connection: sqlite3.Connection, problem: BlockRemovalProblem) -> None:
    sensitivity = problem.sensitivity
    columns = (
        sensitivity.name,
        sensitivity.curvature,
        json.dumps(sensitivity.blocks),
        json.dumps(sensitivity.groups),
        sensitivity.H.astype("<f8").tobytes(),
        None if sensitivity.g is None else sensitivity.g.astype("<f8").tobytes(),
        json.dumps(sensitivity.provenance, sort_keys=True),
    )
    instance = digest_of(*columns)
    connection.execute(
        "INSERT OR IGNORE INTO instances VALUES (?, ?, ?, ?, ?, ?, ?, ?)", (instance, *columns)
    )
    budget = {name: getattr(problem, name) for name in ("remove", "keep", "drop", "linear")}
    connection.execute(
        "INSERT OR IGNORE INTO problems VALUES (?, ?, ?)",
        (problem.id, instance, json.dumps(budget)),
    )


def problem_of(row: tuple[Any, ...]) -> BlockRemovalProblem:
    name, curvature, blocks, groups, H, g, provenance, budget = row
    names = tuple(json.loads(blocks))
    sensitivity = Sensitivity(
        H=np.frombuffer(H, dtype="<f8").reshape(len(names), len(names)),
        g=None if g is None else np.frombuffer(g, dtype="<f8"),
        blocks=names,
        groups=tuple(json.loads(groups)),
        curvature=curvature,
        name=name,
        provenance=json.loads(provenance),
    )
    return BlockRemovalProblem(sensitivity, **json.loads(budget))


def run_record(row: tuple[Any, ...]) -> RunRecord:
    (key, problem_id, purpose, contender, backend, execution, parameters, seed, time_limit,
     state, status, encode, wait, solve, samples, feasible, best, certificate, warnings, details,
     environment, created, error_kind, error) = row  # fmt: skip
    return RunRecord(
        key=key,
        problem_id=problem_id,
        purpose=purpose,
        contender=contender,
        backend=backend,
        execution=execution,
        parameters=json.loads(parameters),
        seed=seed,
        time_limit=time_limit,
        state=state,
        status=status,
        timing=None if solve is None else Timing(encode, wait, solve),
        samples=samples,
        feasible=feasible,
        best=best,
        certificate=None if certificate is None else Certificate(**json.loads(certificate)),
        warnings=tuple(json.loads(warnings or "[]")),
        details=json.loads(details or "{}"),
        environment=environment,
        created=created,
        error_kind=error_kind,
        error=error,
    )


def digest_of(*parts: str | bytes | None) -> str:
    digest = hashlib.sha256()
    for part in parts:
        data = b"" if part is None else part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()[:32]
