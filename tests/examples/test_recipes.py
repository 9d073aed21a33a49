"""Every recipe runs as its reader would run it, and shows what it promises."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

RECIPES = Path(__file__).parents[2] / "examples" / "recipes"


def run(recipe: str, *arguments: object, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, RECIPES / recipe, *map(str, arguments)],
        env={**os.environ, **environment}, capture_output=True, text=True, timeout=250,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_compare_your_qubo(tmp_path: Path) -> None:
    Q = np.random.default_rng(0).normal(size=(16, 16))
    lines = ["p qubo 0 16 16 120"]
    lines += [f"{i} {j} {Q[i, j]}" for i in range(16) for j in range(i, 16)]
    (tmp_path / "my.qubo").write_text("\n".join(lines))
    table = run("compare_your_qubo.py", tmp_path / "my.qubo", "--remove", 5, "--repeats", 2)
    assert re.search(r"fixed-weight-tabu @ 1 s +│ +2 │ +100\.0% │ +0\.00%", table)
    assert "proved optimum" in table
    assert (tmp_path / "my.db").exists()


def test_certify_a_dimod_sampler() -> None:
    shown = run("certify_a_dimod_sampler.py")
    assert "proved: 100 states" in shown
    found = re.search(r"finds (\d+) of 100", shown)
    assert found is not None
    assert 0 < int(found[1]) < 100


def test_leap_with_a_budget(tmp_path: Path) -> None:
    """Through the real client, to a local server that speaks Leap's protocol."""
    pytest.importorskip("dwave.cloud")
    from sapi_emulator import TOKEN, SapiEmulator

    with SapiEmulator() as service:
        home = dict.fromkeys(("HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "QBLOCK_HOME"))
        variables = {name: str(tmp_path) for name in home}
        variables |= {"DWAVE_API_ENDPOINT": service.endpoint, "DWAVE_API_TOKEN": TOKEN}
        recipe = ("leap_with_a_budget.py", "--reads", 100)
        shown = run(*recipe, "--budget", 1, **variables)
        assert "nothing was sent" in shown
        assert not service.jobs
        for _ in range(2):  # the second time the paid answer is read again
            shown = run(*recipe, "--budget", 1, "--send", **variables)
            assert "0.023 s of QPU time used" in shown
            assert "proved optimum" in shown
            assert len(service.jobs) == 1
        refused = subprocess.run(
            [sys.executable, RECIPES / recipe[0], "--budget", "0.001", "--reads", "99", "--send"],
            env={**os.environ, **variables}, capture_output=True, text=True, timeout=100,
        )  # fmt: skip
        assert refused.returncode == 1
        assert "nothing was sent" in refused.stderr
        assert "Traceback" not in refused.stderr
        assert len(service.jobs) == 1


def test_prune_and_load(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    from tiny_models import save_tiny

    save_tiny(tmp_path / "model", num_hidden_layers=6)
    arguments = ["--remove", 2, "--out", tmp_path / "smaller", "--rows", 4, "--seq-len", 16]
    shown = run("prune_and_load.py", tmp_path / "model", *arguments)
    assert "by energy, perplexity" in shown
    assert "\n4 layers: " in shown


def test_the_greedy_backend_installs_and_keeps_the_contract(tmp_path: Path) -> None:
    """What the documentation shows as a backend of one's own."""
    source, site = tmp_path / "source", tmp_path / "site"
    shutil.copytree(RECIPES / "greedy-backend", source)
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
         "--no-deps", "--no-build-isolation", "--no-index", "--target", site, source],
        check=True, timeout=120,
    )  # fmt: skip
    path = os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_greedy.py"],
        cwd=source, env=environment, capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    listed = subprocess.run(
        [sys.executable, "-m", "qblock", "backends"],
        env=environment, capture_output=True, text=True, check=True, timeout=120,
    ).stdout  # fmt: skip
    assert "greedy" in listed
