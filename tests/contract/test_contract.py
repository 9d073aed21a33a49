"""Every local backend that qblock registers, held to the contract.

Cloud backends are not run from here, since a developer's token would be billed: their own tests
hold them to it against an emulated service.
"""

from typing import Any

from qblock.registry import backends
from qblock.testing import backend_contract

SHORTER: dict[str, dict[str, Any]] = {
    "dwave-local": {"num_reads": 10, "num_sweeps": 100},
    "path-integral": {"num_reads": 5, "num_sweeps": 100},
}
"""Settings that keep slow backends short; the contract is the same."""

for _entry in backends().values():
    _cloud = _entry.backend is not None and _entry.backend.capabilities.location == "cloud"
    if _entry.distribution == "qblock" and not _cloud:
        _suite = backend_contract(_entry.name, **SHORTER.get(_entry.name, {}))
        globals()[f"Test{_entry.name.title().replace('-', '')}"] = _suite
