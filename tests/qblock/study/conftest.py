"""A plug-in with bad habits, importable by the worker processes of the tests."""

import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from qblock.registry import backends

SOLVER = r"""
import os, time
from typing import Literal
import numpy as np
from pydantic import Field
from qblock.backend import Backend, Capabilities, Parameters, Samples
from qblock.errors import AuthenticationError, BackendError

class Habits(Parameters):
    habit: Literal["none", "hang", "die", "hoard", "raise", "refuse", "chatter"] = Field(
        "none", description="what it does wrong")
    log: str = Field("", description="file to which the start and the end of each run are added")

class Naughty(Backend[Habits]):
    name = "naughty"
    Parameters = Habits
    capabilities = Capabilities(
        summary="for tests", constraint="native", method="heuristic", time_limit_slack=0.2
    )

    def solve(self, problem, parameters, run):
        if len(problem) == 8:  # the warm-up
            return Samples(problem_state(problem))
        note(parameters.log, "start")
        if parameters.habit == "hang":
            time.sleep(1000)
        if parameters.habit == "die":
            os.abort()
        if parameters.habit == "hoard":
            hoard = [np.ones(2**24) for _ in range(40)]
        if parameters.habit == "raise":
            raise ZeroDivisionError("oh")
        if parameters.habit == "refuse":
            raise AuthenticationError("the token was refused")
        if parameters.habit == "chatter":
            print("noise on stdout", flush=True)
        if parameters.log:
            time.sleep(0.05)
        note(parameters.log, "end")
        return Samples(problem_state(problem))

class NaughtyCloud(Naughty):
    name = "naughty-cloud"
    capabilities = Capabilities(
        summary="for tests", constraint="native", method="heuristic", location="cloud"
    )

def note(log, what):
    if log:
        with open(log, "a") as stream:
            stream.write(what + "\n")

def problem_state(problem):
    state = np.zeros((1, len(problem)), dtype=np.int8)
    for k, budget in enumerate(problem.budgets):
        state[0, np.flatnonzero(problem.group_of == k)[:budget]] = 1
    return state
"""


@pytest.fixture
def naughty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Registers the backends `naughty` and `naughty-cloud`, here and in new processes."""
    folder = tmp_path / "plugin"
    info = folder / "naughty_solver-1.0.dist-info"
    info.mkdir(parents=True)
    (folder / "naughty_solver.py").write_text(textwrap.dedent(SOLVER))
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: naughty-solver\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[qblock.backends]\nnaughty = naughty_solver:Naughty\n"
        "naughty-cloud = naughty_solver:NaughtyCloud\n"
    )
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("PYTHONPATH", str(folder), prepend=":")
    backends.cache_clear()
    yield
    backends.cache_clear()
    sys.modules.pop("naughty_solver", None)
