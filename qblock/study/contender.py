"""A backend with parameters, as one row of a comparison, and one run of it."""

import functools
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from qblock.backend import Capabilities, parse_parameters
from qblock.problem import BlockRemovalProblem
from qblock.registry import get_backend

Purpose: TypeAlias = Literal["comparison", "reference"]
"""Whether a run is compared, or is what the others are judged against."""


@dataclass(frozen=True)
class Contender:
    """A backend with parameters; those not named keep the backend's defaults."""

    backend: str
    parameters: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> "Contender":
        """From "name" or "name:key=value,key=value"; values are JSON if they parse as such."""
        name, _, rest = text.partition(":")
        return cls(name, parse_parameters(filter(None, rest.split(","))))

    @classmethod
    def from_settings(cls, backend: str, settings: str) -> "Contender":
        """From the JSON that `settings` gives."""
        return cls(backend, json.loads(settings))

    def __str__(self) -> str:
        settings = ",".join(f"{key}={value}" for key, value in self.parameters.items())
        return f"{self.backend}:{settings}" if settings else self.backend

    @functools.cached_property
    def settings(self) -> str:
        """JSON of every parameter as it will be used, defaults included.

        Raises:
            UnknownBackend, BackendUnavailable, ParameterError: it cannot be run as it is.
        """
        parsed = get_backend(self.backend).parse(self.parameters)
        return json.dumps(parsed.model_dump(mode="json"), sort_keys=True)

    @functools.cached_property
    def capabilities(self) -> Capabilities:
        """Of the backend with these parameters.

        Raises:
            UnknownBackend, BackendUnavailable, ParameterError: it cannot be run as it is.
        """
        backend = get_backend(self.backend)
        return backend.capabilities_with(backend.parse(self.parameters))


@dataclass(frozen=True)
class RunRequest:
    """One run that a plan asks for."""

    problem: BlockRemovalProblem
    contender: Contender
    seed: int
    time_limit: float | None
    purpose: Purpose = "comparison"

    @functools.cached_property
    def key(self) -> str:
        """What identifies the run: the problem's content and all that is asked for."""
        asked = [
            self.problem.id,
            self.contender.backend,
            self.contender.settings,
            self.seed,
            self.time_limit,
            self.purpose,
        ]
        return hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:32]
