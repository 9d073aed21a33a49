"""Every backend that qblock registers, held to the contract."""

from typing import Any

from qblock.registry import backends
from qblock.testing import backend_contract

SHORTER: dict[str, dict[str, Any]] = {
    "dwave-local": {"num_reads": 10, "num_sweeps": 100},
    "path-integral": {"num_reads": 5, "num_sweeps": 100},
}
"""Settings that keep slow backends short; the contract is the same."""

for _entry in backends().values():
    if _entry.distribution == "qblock":
        _suite = backend_contract(_entry.name, **SHORTER.get(_entry.name, {}))
        globals()[f"Test{_entry.name.title().replace('-', '')}"] = _suite
