"""Finding backends: every distribution may declare some in the entry-point group `qblock.backends`.

    [project.entry-points."qblock.backends"]
    my-solver = "my_package:MySolver"

Listing reads metadata and imports each backend's (light) module; one that fails to import is
listed as broken with its reason and takes nothing else down.
"""

import difflib
import functools
import warnings
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from qblock.backend import Availability, Backend
from qblock.errors import BackendUnavailable, UnknownBackend

GROUP = "qblock.backends"


@dataclass(frozen=True)
class BackendEntry:
    """A registered backend: loaded, or broken with the reason why it could not be loaded.

    Attributes:
        name: registered name.
        distribution: what declares it.
        backend: an instance, or None if broken.
        broken: why it could not be loaded; empty if it was.
    """

    name: str
    distribution: str
    backend: Backend[Any] | None
    broken: str = ""

    @property
    def availability(self) -> Availability:
        """Whether it can run here; "broken" counts as not."""
        if self.backend is None:
            return Availability(
                False, f"broken plug-in: {self.broken}", f"update {self.distribution}"
            )
        try:
            return self.backend.available()
        except Exception as error:  # a third party's code must not take the listing down
            return Availability(
                False, f"available() failed: {error!r}", f"update {self.distribution}"
            )


def _load(entry: EntryPoint) -> BackendEntry:
    distribution = entry.dist.name if entry.dist else "unknown distribution"
    try:
        backend = entry.load()()
        if not isinstance(backend, Backend):
            raise TypeError(f"{entry.value} is not a qblock.backend.Backend")
        if backend.name != entry.name:
            raise TypeError(f"{entry.value} calls itself {backend.name!r}")
        backend.capabilities  # noqa: B018  # a class without them is broken, not a later crash
    except Exception as error:
        return BackendEntry(entry.name, distribution, None, f"{type(error).__name__}: {error}")
    return BackendEntry(entry.name, distribution, backend)


@functools.cache
def backends() -> dict[str, BackendEntry]:
    """All registered backends by name: qblock's own first, then the others, alphabetically.

    Of two that share a name the first in this order wins, with a warning. The listing is
    cached; `backends.cache_clear()` looks again.
    """
    found: dict[str, BackendEntry] = {}
    declared = entry_points(group=GROUP)
    for entry in sorted(declared, key=lambda e: (not e.dist or e.dist.name != "qblock", e.name)):
        loaded = _load(entry)
        first = found.setdefault(entry.name, loaded)
        if first is not loaded and first.distribution != loaded.distribution:
            warnings.warn(
                f"backend {entry.name!r} is declared by {first.distribution} and by "
                f"{loaded.distribution}; the first is used",
                stacklevel=2,
            )
    return found


def get_backend(name: str) -> Backend[Any]:
    """The backend of this name.

    Raises:
        UnknownBackend: not registered; the message lists what is.
        BackendUnavailable: registered, but its plug-in is broken.
    """
    known = backends()
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise UnknownBackend(f"no backend {name!r}.{hint} Registered: {', '.join(known) or 'none'}")
    backend = known[name].backend
    if backend is None:
        raise BackendUnavailable(
            f"backend {name!r} of {known[name].distribution} is broken: {known[name].broken}"
        )
    return backend
