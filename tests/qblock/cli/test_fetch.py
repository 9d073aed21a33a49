"""`qblock fetch` and the record of cloud jobs, as a user meets them."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("dwave.cloud")
from sapi_emulator import TOKEN, SapiEmulator


def environment(home: Path, service: SapiEmulator | None) -> dict[str, str]:
    variables = {key: value for key, value in os.environ.items() if "DWAVE" not in key}
    for name in ("HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "QBLOCK_HOME"):
        variables[name] = str(home)
    if service:
        variables |= {"DWAVE_API_ENDPOINT": service.endpoint, "DWAVE_API_TOKEN": TOKEN}
    return variables


def qblock(home: Path, service: SapiEmulator | None, *arguments: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "qblock", *arguments],
        env=environment(home, service),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert TOKEN not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout, done.stderr


def test_a_run_that_timed_out_is_fetched_by_another_process(tmp_path: Path) -> None:
    solve = ["solve", "smollm2-135m-fisher", "--remove", "8", "-b", "leap-qpu", "--seed", "1"]
    with SapiEmulator(polls_until_done=10**6) as service:
        code, _, message = qblock(tmp_path, service, *solve, "--time-limit", "10")
        (job,) = service.jobs
        assert code == 1
        assert f"qblock fetch {job}" in message
        service.polls_until_done = 0
        code, out, _ = qblock(tmp_path, service, "fetch", job, "--json")
        assert code == 0
        document = json.loads(out)
        assert document["details"]["job"] == job
        assert document["seed"] == 1
        assert len(service.jobs) == 1


def test_a_job_that_waits_is_cancelled(tmp_path: Path) -> None:
    solve = ["solve", "smollm2-135m-fisher", "--remove", "8", "-b", "leap-qpu", "--seed", "1"]
    with SapiEmulator(polls_until_done=10**6) as service:
        qblock(tmp_path, service, *solve, "--time-limit", "10")
        (job,) = service.jobs
        code, out, _ = qblock(tmp_path, service, "fetch", job, "--cancel")
        assert code == 0
        assert "cancelled" in out
        assert service.jobs[job].status == "CANCELLED"
        code, _, message = qblock(tmp_path, service, "fetch", job)
        assert code == 2
        assert "no record" in message


def test_a_dry_run_sends_nothing(tmp_path: Path) -> None:
    with SapiEmulator() as service:
        code, out, _ = qblock(
            tmp_path,
            service,
            "solve",
            "smollm2-135m-fisher",
            "--remove",
            "8",
            "-b",
            "leap-qpu",
            "--dry-run",
        )
        assert code == 0
        assert "qpu seconds" in out
        assert not service.jobs


def test_an_unknown_job_is_the_users_mistake(tmp_path: Path) -> None:
    code, _, message = qblock(tmp_path, None, "fetch", "nonsense")
    assert code == 2
    assert "no record of a job 'nonsense'" in message


def test_backends_show_whether_there_is_a_token_and_never_which(tmp_path: Path) -> None:
    with SapiEmulator() as service:
        code, out, _ = qblock(tmp_path, service, "backends", "--json")
        assert code == 0
        assert not service.requests
        with_token = {entry["name"]: entry for entry in json.loads(out)}
        code, out, _ = qblock(tmp_path, service, "backends", "--check", "--json")
        checked = {entry["name"]: entry for entry in json.loads(out)}
    code, out, _ = qblock(tmp_path, None, "backends", "--json")
    without = {entry["name"]: entry for entry in json.loads(out)}
    assert with_token["leap-qpu"]["available"]
    assert service.endpoint in with_token["leap-qpu"]["reason"]
    assert "online" in checked["leap-hybrid-cqm"]["reason"]
    assert not without["leap-qpu"]["available"]
    assert "DWAVE_API_TOKEN" in without["leap-qpu"]["hint"]


def test_ctrl_c_names_the_job_that_goes_on(tmp_path: Path) -> None:
    with SapiEmulator(polls_until_done=10**6) as service:
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "qblock",
                "solve",
                "smollm2-135m-fisher",
                "--remove=8",
                "-bleap-qpu",
            ],
            env=environment(tmp_path, service),
            stderr=subprocess.PIPE,
            text=True,
        )
        deadline = time.monotonic() + 200  # a first run compiles for long
        while service.requests["status"] < 2 and time.monotonic() < deadline:
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, message = process.communicate(timeout=120)
        (job,) = service.jobs
    assert process.returncode == 130
    assert f"qblock fetch {job}" in message
    assert "Traceback" not in message


def test_compare_sets_native_constraint_beside_penalty_and_pays_once(tmp_path: Path) -> None:
    compare = ["compare", "smollm2-135m-fisher", "--remove", "4", "--repeats", "2", "--json"]
    compare += ["-b", "leap-hybrid-cqm", "-b", "leap-hybrid", "--store", str(tmp_path / "s.db")]
    with SapiEmulator() as service:
        code, out, _ = qblock(tmp_path, service, *compare)
        assert code == 0
        native, penalty = json.loads(out)["rows"]
        assert len(service.jobs) == 4
        code, out, _ = qblock(tmp_path, service, *compare)
        assert json.loads(out)["rows"] == [native, penalty]
        assert len(service.jobs) == 4
    assert (native["backend"], penalty["backend"]) == ("leap-hybrid-cqm", "leap-hybrid")
    assert native["runs"] == penalty["runs"] == 2
    assert penalty["feasible_rate"] == 1


def test_qoblib_has_the_time_that_the_processor_reports(tmp_path: Path) -> None:
    store = str(tmp_path / "qpu.db")
    compare = ["compare", "smollm2-135m-fisher", "--remove", "4", "--repeats", "2"]
    with SapiEmulator() as service:
        assert qblock(tmp_path, service, *compare, "-b", "leap-qpu", "--store", store)[0] == 0
    code, out, _ = qblock(tmp_path, None, "report", store, "--format", "qoblib")
    assert code == 0
    (row,) = csv.DictReader(out.splitlines())
    assert float(row["QPU Runtime"]) == pytest.approx(2 * (14_000 + 100 * 90) / 1e6)
    assert row["Paradigm"] == "quantum hardware"
