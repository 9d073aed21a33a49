import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from qblock.errors import UnknownBackend
from qblock.registry import backends, get_backend

ROOT = Path(__file__).resolve().parents[2]

GOOD = """
import numpy as np
from qblock.backend import Backend, Capabilities, Samples

class Greedy(Backend):
    name = "outside-greedy"
    capabilities = Capabilities(summary="lowest diagonal", constraint="native", method="heuristic")

    def solve(self, problem, parameters, run):
        state = np.zeros(len(problem), dtype=np.int8)
        for k, budget in enumerate(problem.budgets):
            members = np.flatnonzero(problem.group_of == k)
            state[members[np.argsort(np.diag(problem.Q)[members])[:budget]]] = 1
        return Samples(states=state[None])
"""

PROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[project]
name = "outside-plugin"
version = "1.0"
[project.entry-points."qblock.backends"]
outside-greedy = "outside_plugin:Greedy"
outside-broken = "outside_plugin.broken:Nothing"
random = "outside_plugin:Greedy"
[tool.hatch.build.targets.wheel]
packages = ["outside_plugin"]
"""


@pytest.fixture(scope="module")
def plugin(tmp_path_factory):
    """A distribution of somebody else, installed for real into a folder of its own."""
    source = tmp_path_factory.mktemp("outside")
    target = tmp_path_factory.mktemp("site")
    package = source / "outside_plugin"
    package.mkdir()
    (source / "pyproject.toml").write_text(PROJECT)
    (package / "__init__.py").write_text(GOOD)
    (package / "broken.py").write_text("import a_module_that_is_not_there\n")
    (source / "test_plugin.py").write_text(
        "from qblock.testing import backend_contract\n"
        'TestGreedy = backend_contract("outside-greedy")\n'
    )
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
         "--no-deps", "--no-build-isolation", "--no-index", "--target", target, source],
        check=True, timeout=120,
    )  # fmt: skip
    return source, {**os.environ, "PYTHONPATH": str(target)}


def _python(code, environment):
    return subprocess.run(
        [sys.executable, "-W", "always", "-c", textwrap.dedent(code)],
        env=environment, capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip


def test_outside_plugin_is_found_and_a_broken_one_takes_nothing_down(plugin):
    _, environment = plugin
    done = _python(
        """
        from qblock import backends, get_backend, QblockError
        entries = backends()
        assert entries["outside-greedy"].distribution == "outside-plugin"
        assert entries["outside-greedy"].availability.ok
        broken = entries["outside-broken"]
        assert broken.backend is None and "a_module_that_is_not_there" in broken.broken
        assert not broken.availability.ok
        assert entries["random"].distribution == "qblock"
        try:
            get_backend("outside-broken")
        except QblockError as error:
            print(error)
        """,
        environment,
    )
    assert "'outside-broken' of outside-plugin is broken" in done.stdout
    assert "'random' is declared by qblock and by outside-plugin" in done.stderr


def test_outside_plugin_is_listed_and_solves_from_the_command_line(plugin):
    _, environment = plugin
    listing = subprocess.run(
        [sys.executable, "-m", "qblock", "backends"],
        env=environment, capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    assert "outside-greedy" in listing.stdout
    assert "broken" in listing.stdout
    solved = subprocess.run(
        [sys.executable, "-m", "qblock", "solve", "smollm2-135m-fisher", "--remove", "2",
         "-b", "outside-greedy"],
        env=environment, capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    assert "100.0% of samples feasible" in solved.stdout


def test_outside_author_runs_the_contract_with_one_line(plugin):
    source, environment = plugin
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_plugin.py"],
        cwd=source, env=environment, capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout


def test_unknown_backend_names_the_nearest():
    with pytest.raises(UnknownBackend, match="Did you mean 'tabu'"):
        get_backend("tabuu")


def test_own_backends_come_first_and_work():
    assert {"annealing", "brute-force", "random", "tabu"} <= set(backends())
    assert all(not entry.broken for entry in backends().values() if entry.distribution == "qblock")
