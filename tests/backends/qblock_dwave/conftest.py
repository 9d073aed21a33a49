"""An emulated Leap service in a home directory of its own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("dwave.cloud")

from qblock_dwave.cloud import Patience
from qblock_dwave.leap import LeapBackend
from sapi_emulator import TOKEN, SapiEmulator

FAST = Patience(
    attempts=4, first_pause=0.02, longest_pause=0.1, request_seconds=2.0, job_seconds=20.0
)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home: no Ocean configuration, no cache, no jobs, no token."""
    for name in ("HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "QBLOCK_HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    for name in ("TOKEN", "ENDPOINT", "SOLVER", "REGION", "PROFILE"):
        monkeypatch.delenv(f"DWAVE_API_{name}", raising=False)
        monkeypatch.delenv(f"DWAVE_{name}", raising=False)
    monkeypatch.setattr(LeapBackend, "patience", FAST)
    return tmp_path


@pytest.fixture
def sapi(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SapiEmulator]:
    """A running service with a valid token in the environment."""
    with SapiEmulator() as emulator:
        monkeypatch.setenv("DWAVE_API_ENDPOINT", emulator.endpoint)
        monkeypatch.setenv("DWAVE_API_TOKEN", TOKEN)
        yield emulator
