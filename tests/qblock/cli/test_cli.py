import itertools
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from support import all_states
from typer.main import get_group
from typer.testing import CliRunner

from qblock.cli import app
from qblock.generators import random_instance
from qblock.problem import BlockRemovalProblem, Sensitivity
from qblock.spectrum import Spectrum

H = (lambda A: A.T @ A)(np.random.default_rng(0).standard_normal((30, 12)))


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez(tmp_path / "toy.npz", H=H)
    return str(tmp_path / "toy.npz")


def run(*arguments):
    """The command line in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "qblock", *map(str, arguments)],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip


def document(*arguments):
    """The JSON document of a command, in this process."""
    done = CliRunner().invoke(app, [*map(str, arguments), "--json"], catch_exceptions=False)
    assert done.exit_code == 0, done.stderr
    return json.loads(done.stdout)


def test_solve_json_on_a_file_with_only_H(file):
    found = document("solve", file, "--remove", 8, "--backend", "brute-force", "--top", 5)
    problem = BlockRemovalProblem(Sensitivity(H=H), remove=8)
    states = all_states(12)
    truth = Spectrum.of_states(problem, states[problem.is_feasible(states)])
    for place, state in enumerate(found["states"]):
        assert tuple(state["removed"]) == truth[place].removed
        assert state["energy"] == pytest.approx(truth[place].energy)
        assert state["feasible"] is True
        assert state["occurrences"] == 1
    assert len(found["states"]) == 5
    assert found["certificate"]["proved"]
    assert {"encode", "wait", "solve", "total"} == set(found["seconds"])
    assert found["parameters"]["k"] == 100
    assert {"python", "numpy", "qblock"} <= set(found["versions"])


@pytest.mark.parametrize(
    ("kind", "limit", "said"),
    [("heavy", 60, "proved: no other state is lower"), ("lowrank", 0.2, "stopped early")],
)
def test_solve_says_what_is_proved(tmp_path, kind, limit, said):
    np.savez(tmp_path / "large.npz", H=random_instance(kind, 80, seed=0).H)
    done = CliRunner().invoke(
        app,
        ["solve", str(tmp_path / "large.npz"), "--remove", "20", "-b", "exact",
         "--time-limit", str(limit)],
    )  # fmt: skip
    assert done.exit_code == 0
    assert said in " ".join(done.stdout.split())


def test_solve_shows_infeasible_states_as_such(file):
    found = document(
        "solve", file, "--remove", 3, "-b", "descent", "-p", "penalty=1e-9", "--seed", 0
    )
    assert not any(state["feasible"] for state in found["states"])
    assert found["feasible_rate"] == 0


def test_solve_takes_parameters_pins_and_seed(file):
    arguments = ("solve", file, "--remove", 4, "-b", "random", "-p", "num_reads=17",
                 "--keep", "0,1", "--drop", "11", "--seed", 5, "--top", 100)  # fmt: skip
    first, second = document(*arguments), document(*arguments)
    assert first["states"] == second["states"]
    assert sum(state["occurrences"] for state in first["states"]) == 17
    assert all("11" in s["removed"] and "0" not in s["removed"] for s in first["states"])


def test_dry_run_estimates_and_stops(file):
    estimate = document("solve", file, "--remove", 6, "-b", "brute-force", "--dry-run")
    assert 0 < estimate["seconds"] < 1
    refused = run(
        "solve", file, "--remove", 6, "-b", "brute-force", "-p", "max_states=3", "--dry-run"
    )
    assert refused.returncode == 2
    assert "max_states" in refused.stderr


def test_show_gives_the_model_that_solvers_see(file):
    qubo = document("show", file, "--remove", 4, "--penalty", "2.5")
    ising = document("show", file, "--remove", 4, "--penalty", "2.5", "--form", "ising")
    state = np.array([1, 0, 1, 1, 0, 0, 1, 0, 1, 0, 0, 0])
    expected = state @ H @ state + 2.5 * (5 - 4) ** 2
    for shown, values in ((qubo, state), (ising, 2 * state - 1)):
        value = shown["offset"]
        value += sum(shown["linear"][str(i)] * values[i] for i in range(12))
        value += sum(c * values[int(a)] * values[int(b)] for a, b, c in shown["quadratic"])
        assert value == pytest.approx(expected)


@pytest.mark.parametrize("form", ["qubo", "ising"])
def test_show_prints_the_hamiltonian(file, form):
    done = CliRunner().invoke(app, ["show", file, "--remove", "4", "--form", form])
    assert done.exit_code == 0
    assert "penalty weight" in done.stdout
    assert "495 feasible states" in done.stdout


def test_compare_json_and_resume(file):
    arguments = ("compare", file, "--remove", 4, "-b", "fixed-weight-tabu", "-b",
                 "random:num_reads=5", "--repeats", 3)  # fmt: skip
    found = document(*arguments)
    assert found["reference"]["proved"]
    tabu, floor = found["rows"]
    assert tabu["success"]["successes"] == 3
    assert 0 <= floor["success"]["low"] <= floor["success"]["rate"] <= floor["success"]["high"]
    assert document(*arguments)["rows"][1]["success"] == floor["success"]
    again = CliRunner().invoke(app, list(map(str, arguments)))
    assert "6 were there already" in again.stderr


def test_backends_and_instances_are_listed():
    listed = document("backends")
    tabu = next(b for b in listed if b["name"] == "tabu")
    assert tabu["constraint"] == "penalty"
    assert tabu["parameters"]["num_reads"]["default"] == 20
    assert any(i["blocks"] == 30 for i in document("instances"))


@pytest.mark.parametrize(("backend", "gate"), [("qaoa", "Rx"), ("qaoa-fixed-weight", "XX+YY")])
def test_show_draws_the_circuit_of_a_small_problem(file, backend, gate):
    pytest.importorskip("qiskit")
    kept = ",".join(map(str, range(3, 12)))
    shown = document(
        "show", file, "--remove", 1, "--keep", kept, "--form", "circuit", "-b", backend
    )
    assert gate.lower() in shown["circuit"].lower()


@pytest.mark.parametrize(
    ("form", "needs", "words"),
    [("landscape", "qiskit", "one layer: "), ("embedding", "dwave.system", "12 blocks on pegasus")],
)
def test_show_saves_pictures(file, tmp_path, form, needs, words):
    pytest.importorskip("matplotlib")
    pytest.importorskip(needs)
    picture = tmp_path / "picture.svg"
    done = run("show", file, "--remove", 4, "--form", form, "--plot", picture)
    assert done.returncode == 0, done.stderr
    assert words in picture.read_text()


def test_solve_draws_its_samples_beside_a_uniform_guess(file, tmp_path):
    pytest.importorskip("matplotlib")
    picture = tmp_path / "energies.svg"
    run("solve", file, "--remove", 4, "-b", "tabu", "--seed", 1, "--plot", picture)
    assert "uniform feasible guess" in picture.read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["solve", "nothing.npz", "--remove", "1", "-b", "tabu"], "neither a file nor a bundled"),
        (["solve", "FILE", "--remove", "13", "-b", "tabu"], "13 blocks cannot be removed from 12"),
        (["solve", "FILE", "--remove", "x", "-b", "tabu"], "expected a whole number"),
        (["solve", "FILE", "--remove", "3", "-b", "tabuu"], "Did you mean 'tabu'"),
        (["solve", "FILE", "--remove", "3", "-b", "tabu", "-p", "reads=3"], "no parameter 'reads'"),
        (["solve", "FILE", "--remove", "3", "-b", "tabu", "-p", "num_reads=0"], "num_reads=0"),
        (["solve", "FILE", "--remove", "3", "-b", "tabu", "-p", "num_reads"], "KEY=VALUE"),
        (["solve", "FILE", "--remove", "3", "-b", "tabu", "--time-limit", "0"], "time_limit"),
        (["solve", "FILE", "--remove", "3", "-b", "tabu", "--keep", "77"], "no block"),
        (["solve", "FILE", "--remove", "3", "-b", "tabu", "--linear"], "needs the gradient"),
        (["show", "FILE", "--remove", "3", "--penalty", "lots"], "--penalty 'lots'"),
        (["show", "FILE", "--remove", "3", "--form", "circuit", "-b", "tabu"], "no circuit"),
        (["show", "FILE", "--remove", "3", "--form", "embedding"], "--plot FILE"),
        (["show", "FILE", "--remove", "3", "--form", "ising", "--plot", "x.png"], "is text"),
        (["show", "FILE", "--remove", "3", "--form", "landscape", "--plot", "x.png", "-b", "tabu"],
         "no picture of the kind 'landscape'"),
        (["solve", "FILE", "--remove", "3", "-b", "tabu", "--plot", "x.txt"], ".svg"),
        (["compare", "FILE", "--remove", "3", "-b", "random:x"], "expected KEY=VALUE"),
        (["compare", "FILE", "--remove", "3", "-b", "random", "--store", "no/such/dir.db"],
         "cannot be used as a study file"),
    ],
)  # fmt: skip
def test_mistakes_get_one_clear_line_and_code_2(file, arguments, message):
    done = run(*[file if a == "FILE" else a for a in arguments])
    assert done.returncode == 2
    assert done.stdout == ""
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert "Traceback" not in done.stderr


ANNOUNCE = """
import contextlib, functools, sys
from qblock.cli import _common as common, main

@functools.cache
def announce():
    print("at work", file=sys.stderr, flush=True)

common.progress_line = lambda _: contextlib.nullcontext(lambda progress: announce())
main()
"""
"""The command line, saying when the solver first reports progress."""


@pytest.mark.parametrize(
    ("backend", "parameter"),
    [
        ("fixed-weight-annealing", "num_reads=1000000"),
        ("annealing", "num_reads=1000000"),
        ("tabu", "num_reads=1000000"),
        ("brute-force", "max_states=1e12"),
    ],
)
def test_ctrl_c_keeps_finished_work(tmp_path, backend, parameter):
    np.savez(tmp_path / "big.npz", H=np.eye(40) + 0.1)
    process = subprocess.Popen(
        [sys.executable, "-c", ANNOUNCE, "solve", str(tmp_path / "big.npz"), "--remove", "20",
         "-b", backend, "-p", parameter, "--json"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stderr.readline() == "at work\n"
        time.sleep(1)
        assert process.poll() is None
        os.kill(process.pid, signal.SIGINT)
        stdout, stderr = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, stderr
    assert "Traceback" not in stderr
    found = json.loads(stdout)
    assert found["status"] == "interrupted"
    assert found["states"]


def test_help_names_every_command():
    done = run("--help")
    assert done.returncode == 0
    for command in get_group(app).commands:
        assert command in done.stdout


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("command", ["heal", "prune", "demo"])  # those with long explanations
def test_the_lines_of_an_explanation_are_filled(monkeypatch, command, width):
    monkeypatch.setenv("COLUMNS", str(width))
    shown = CliRunner().invoke(app, [command, "--help"]).stdout.partition("╭")[0]
    lines = [line.strip() for line in shown.splitlines()]
    for line, following in itertools.pairwise(lines):
        if line and following:  # of one paragraph
            assert len(line) + 1 + len(following.split()[0]) > width - 3, line
