"""QUBO files of other benchmark collections, read as sensitivities.

A QUBO minimise x'Qx has the form of a block-removal problem once a budget is added; its matrix
stands for H, with the linear terms on the diagonal. Constant offsets are left out.

- `.qubo`: the format of D-Wave's qbsolv and of QUBOTools: comments "c ...", one header
  "p qubo 0 NODES DIAGONALS ELEMENTS", then lines "i j value" with i <= j, counted from 0.
- `.coo`: lines "i j value", counted from 0, as dimod writes them; comments "# ...", of which
  "# vartype=SPIN" makes it an Ising model, which is refused.
"""

from pathlib import Path

import numpy as np

from qblock.errors import ProblemError
from qblock.problem import FloatArray, Sensitivity

MAX_VARIABLES = 10_000
"""Larger files are refused before a matrix of their size is made."""


def load_qubo(path: Path) -> Sensitivity:
    """Read a `.qubo` or `.coo` file.

    Raises:
        ProblemError: it cannot be read, or a line is not what the format says.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ProblemError(f"{path} cannot be read as text: {error}") from None
    declared = None
    entries: list[tuple[int, int, float]] = []
    for number, line in enumerate(lines, start=1):
        words = line.split()
        if not words or words[0] in ("c", "#") or line.startswith("#"):
            if "vartype=SPIN" in line.replace(" ", ""):
                raise ProblemError(f"{path} holds an Ising model in spins; convert it to bits")
            continue
        try:
            if words[0] == "p":
                declared = int(words[3])
            else:
                i, j, value = words
                entries.append((int(i), int(j), float(value)))
        except (ValueError, IndexError):
            raise ProblemError(
                f"{path}, line {number}: expected 'i j value', not {line[:60]!r}"
            ) from None
    return Sensitivity(
        H=_matrix(path, entries, declared),
        name=path.stem,
        curvature="unknown",
        provenance={"format": path.suffix.lstrip("."), "file": path.name},
    )


def _matrix(path: Path, entries: list[tuple[int, int, float]], declared: int | None) -> FloatArray:
    """The symmetric matrix of x'Qx; values for (i, j) and (j, i) add up."""
    highest = max((max(i, j) for i, j, _ in entries), default=-1)
    n = highest + 1 if declared is None else declared
    if not entries or min(min(i, j) for i, j, _ in entries) < 0 or highest >= n:
        raise ProblemError(
            f"{path}: variables must be numbered 0 to {n - 1}" if entries else f"{path} is empty"
        )
    if n > MAX_VARIABLES:
        raise ProblemError(f"{path} has {n} variables; at most {MAX_VARIABLES} are read")
    Q = np.zeros((n, n))
    for i, j, value in entries:
        Q[i, j] += value / 2
        Q[j, i] += value / 2
    return Q
