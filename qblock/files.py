"""Reading and writing sensitivity files. Nothing is ever unpickled; writes are atomic."""

import importlib.resources
import importlib.util
import json
import os
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from qblock.errors import ProblemError
from qblock.problem import SYMMETRY_TOLERANCE, Sensitivity
from qblock.qubo_files import load_qubo

SCHEMA_VERSION = 1
"""Version of the `.npz` layout written here; newer files are refused."""


@contextmanager
def atomic_write(path: Path) -> Iterator[IO[bytes]]:
    """A binary file that appears under `path` whole or not at all."""
    try:
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise ProblemError(f"cannot write {path}: {error.strerror}") from None
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)  # mkstemp is private; the result is an ordinary file
        temporary.replace(path)
    except OSError as error:
        raise ProblemError(f"cannot write {path}: {error.strerror}") from None
    finally:
        temporary.unlink(missing_ok=True)


def differing_facts(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """In words, where the facts of a kept run differ from this run's; empty if nowhere."""
    absent = object()
    return "; ".join(
        f"{key} ({there.get(key)!r}, now {here.get(key)!r})"
        for key in sorted(there.keys() | here.keys())
        if there.get(key, absent) != here.get(key, absent)
    )


def save_sensitivity(sensitivity: Sensitivity, path: str | Path) -> Path:
    """Write `sensitivity` to an `.npz` file (no pickle, schema version inside), atomically."""
    path = Path(path)
    if path.suffix != ".npz":
        raise ProblemError(f"{path}: sensitivity files are written as .npz")
    arrays: dict[str, Any] = {
        "schema": np.int64(SCHEMA_VERSION),
        "H": sensitivity.H,
        "blocks": np.array(sensitivity.blocks, dtype=np.str_),
        "groups": np.array(sensitivity.groups, dtype=np.str_),
        "curvature": np.array(sensitivity.curvature, dtype=np.str_),
        "name": np.array(sensitivity.name, dtype=np.str_),
        "provenance": np.array(json.dumps(sensitivity.provenance), dtype=np.str_),
    }
    arrays |= {key: value for key in ("g", "A") if (value := getattr(sensitivity, key)) is not None}
    with atomic_write(path) as stream:
        np.savez_compressed(stream, **arrays)
    return path


def bundled_instances() -> dict[str, Path]:
    """Names and paths of the instances that come with qblock."""
    folder = Path(str(importlib.resources.files("qblock") / "instances"))
    return {path.stem: path for path in sorted(folder.glob("*.npz"))}


def load_sensitivity(source: str | Path) -> Sensitivity:
    """Read a file, or a bundled instance by its name.

    Layouts: `.npz` as written by `save_sensitivity`, or with only `H` or only `A`; `.npy` with
    a square symmetric H or a samples-by-blocks A; `.pt` with a tensor A, as the paper's authors
    publish it (read with `weights_only=True`); `.qubo` and `.coo` (see `qubo_files`).

    Raises:
        ProblemError: no such file or instance, another layout, a newer schema, or contents
            that `Sensitivity` refuses.
    """
    bundled = bundled_instances()
    if str(source) in bundled:
        return _load_npz(bundled[str(source)])
    path = Path(source)
    readers = {
        ".npz": _load_npz,
        ".npy": _load_npy,
        ".pt": _load_pt,
        ".qubo": load_qubo,
        ".coo": load_qubo,
    }
    if not path.is_file():
        raise ProblemError(
            f"{str(source)!r} is neither a file nor a bundled instance ({', '.join(bundled)})"
        )
    if path.suffix not in readers:
        raise ProblemError(
            f"{path}: unknown file type {path.suffix!r}; expected {', '.join(readers)}"
        )
    return readers[path.suffix](path)


def _numpy_load(path: Path) -> Any:
    try:
        return np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        reason = "it holds Python objects" if "allow_pickle" in str(error) else str(error)
        raise ProblemError(f"{path} cannot be read as a numpy file: {reason}") from None


def _load_npz(path: Path) -> Sensitivity:
    archive = _numpy_load(path)
    if not isinstance(archive, Mapping):
        raise ProblemError(f"{path} is not an .npz archive")
    try:
        arrays = {key: archive[key] for key in archive}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ProblemError(f"{path} is damaged or holds Python objects: {error}") from None
    schema = int(arrays.get("schema", SCHEMA_VERSION))
    if schema > SCHEMA_VERSION:
        raise ProblemError(
            f"{path} has schema version {schema}; this qblock reads up to {SCHEMA_VERSION}: "
            "update it"
        )
    fields: dict[str, Any] = {"name": path.stem}
    fields |= {key: arrays[key] for key in ("g", "A") if key in arrays}
    fields |= {key: tuple(arrays[key].tolist()) for key in ("blocks", "groups") if key in arrays}
    fields |= {key: str(arrays[key]) for key in ("curvature", "name") if key in arrays}
    if "provenance" in arrays:
        fields["provenance"] = json.loads(str(arrays["provenance"]))
    if "H" in arrays:
        return Sensitivity(H=arrays["H"], **fields)
    if "A" in arrays:
        fields.pop("g", None)
        return Sensitivity.from_samples(fields.pop("A"), **fields)
    raise ProblemError(f"{path} holds neither H nor A (it has: {', '.join(arrays) or 'nothing'})")


def _load_npy(path: Path) -> Sensitivity:
    array = _numpy_load(path)
    if not isinstance(array, np.ndarray) or array.ndim != 2:
        raise ProblemError(f"{path} must hold a matrix: H (square) or A (samples x blocks)")
    if array.shape[0] != array.shape[1]:
        return Sensitivity.from_samples(array, name=path.stem)
    if np.isrealobj(array) and np.abs(array - array.T).max(initial=0) > SYMMETRY_TOLERANCE * (
        np.abs(array).max(initial=0)
    ):
        raise ProblemError(
            f"{path} is square but not symmetric, so it is no H; if it is A with as many samples "
            "as blocks, save it under the key A of an .npz file"
        )
    return Sensitivity(H=array, name=path.stem)


def _load_pt(path: Path) -> Sensitivity:
    if importlib.util.find_spec("torch") is None:
        raise ProblemError(f'{path} needs torch to be read: pip install "qblock[llm]"')
    import torch

    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds; all mean "not a plain tensor file"
        reason = str(error).splitlines()[0]
        raise ProblemError(f"{path} cannot be read as a plain tensor file: {reason}") from None
    tensor = loaded.get("A") if isinstance(loaded, dict) else loaded
    if not isinstance(tensor, torch.Tensor) or tensor.ndim != 2:
        raise ProblemError(f"{path} must hold one tensor A of shape samples x blocks")
    return Sensitivity.from_samples(tensor.to(torch.float64).numpy(), name=path.stem)
