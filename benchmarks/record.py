"""What benchmarks share: what was measured, paired differences, sections of RESULTS.md."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from qblock.files import atomic_write, differing_facts


class Cache:
    """What earlier runs with the same settings measured and chose, in a JSON file."""

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        self.path = path
        self.known: dict[str, Any] = {"settings": settings}
        if path.exists():
            self.known = json.loads(path.read_text())
        if differing := differing_facts(self.known["settings"], settings):
            raise SystemExit(f"{path} is of a run with other settings: {differing}")

    def get(self, key: str, make: Callable[[], Any]) -> Any:
        """The JSON-like value that `make` gives, or gave in an earlier run."""
        if key not in self.known:
            self.keep({key: make()})
        return self.known[key]

    def keep(self, values: Mapping[str, Any]) -> None:
        """Add values and write them all."""
        self.known |= values
        with atomic_write(self.path) as stream:
            stream.write(json.dumps(self.known).encode())


def difference(losses: ArrayLike, reference: ArrayLike) -> str:
    """Mean paired difference in nats, with the 95 % interval over the rows (m,) of text."""
    values = np.asarray(losses) - np.asarray(reference)
    if not values.any():
        return "the same"
    half = 1.96 * values.std(ddof=1) / np.sqrt(len(values))
    return f"{values.mean():+.3f} ± {half:.3f}"


def write_section(path: Path, section: str) -> None:
    """Put the section in place of the one of the same heading, or at the end."""
    title = section.splitlines()[0]
    text = path.read_text() if path.exists() else "# Measured results\n"
    parts = text.split("\n## ")
    kept = [p for p in parts if not f"## {p}".startswith(title + "\n")]
    body = "\n## ".join(kept).rstrip() + "\n\n" + section
    with atomic_write(path) as stream:
        stream.write(body.encode())
