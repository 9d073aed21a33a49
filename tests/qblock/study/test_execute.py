import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from qblock import BlockRemovalProblem
from qblock.errors import StudyError
from qblock.study.contender import Contender
from qblock.study.execute import Execution, dask_workers, execute, local_workers
from qblock.study.plan import Plan
from qblock.study.records import RunRecord
from qblock.study.store import Store
from qblock.testing import random_sensitivity

PROBLEM = BlockRemovalProblem(random_sensitivity(10), remove=3)


def run(
    tmp_path: Path, *contenders: Contender, workers: int = 2, **fields: object
) -> tuple[Execution, list[RunRecord]]:
    plan = Plan((PROBLEM,), contenders, **{"seeds": (0, 1), **fields})  # type: ignore[arg-type]
    with Store(tmp_path / "s.db") as store, local_workers(workers) as crew:
        execution = execute(plan, store, crew)
        return execution, [r for r in store.runs() if r.purpose == "comparison"]


def test_runs_are_done_once_and_then_reused(tmp_path: Path) -> None:
    random = Contender("random", {"num_reads": 20})
    execution, runs = run(tmp_path, random)
    assert (execution.done, execution.failed, execution.reused) == (3, 0, 0)  # with a reference
    assert {r.state for r in runs} == {"done"}
    again, after = run(tmp_path, random)
    assert (again.done, again.reused) == (0, 2)
    assert after == runs
    more, runs = run(tmp_path, random, Contender("descent", {"num_reads": 5}))
    assert (more.done, more.reused) == (2, 2)


def test_a_run_does_not_pay_for_compiling(tmp_path: Path) -> None:
    """Compiling and importing takes seconds; a swap search on ten blocks does not."""
    _, runs = run(tmp_path, Contender("fixed-weight-tabu", {"num_reads": 2}), seeds=(0,))
    assert runs[0].timing is not None
    assert runs[0].timing.total < 0.2


@pytest.mark.usefixtures("naughty")
def test_bad_habits_cost_one_run_each(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    _, runs = run(
        tmp_path,
        *(Contender("naughty", {"habit": habit}) for habit in ("die", "raise", "chatter", "none")),
        Contender("naughty-cloud"),
        seeds=(0,),
    )
    by_name = {r.contender: r for r in runs}
    assert by_name["naughty:habit=none"].state == "done"
    assert by_name["naughty:habit=chatter"].state == "done"
    assert "SIGABRT" in (by_name["naughty:habit=die"].error or "")
    assert by_name["naughty:habit=raise"].error == "naughty failed: ZeroDivisionError: oh"
    assert by_name["naughty-cloud"].state == "done"
    assert "noise" not in capfd.readouterr().out


@pytest.mark.usefixtures("naughty")
def test_a_hung_run_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qblock.study.execute.GRACE", 0.3)
    started = time.monotonic()
    _, runs = run(
        tmp_path,
        Contender("naughty", {"habit": "hang"}),
        Contender("random"),
        seeds=(0,),
        time_limits=(0.2,),
        workers=1,
    )
    assert time.monotonic() - started < 60
    hung, good = runs
    assert (hung.state, hung.error_kind) == ("failed", "SolverTimeout")
    assert good.state == "done"


@pytest.mark.skipif(sys.platform != "linux", reason="memory limits are enforced on Linux")
@pytest.mark.usefixtures("naughty")
def test_a_run_that_takes_too_much_memory_fails_alone(tmp_path: Path) -> None:
    _, runs = run(
        tmp_path,
        Contender("naughty", {"habit": "hoard"}),
        Contender("naughty"),
        seeds=(0,),
        memory_limit=2 * 2**30,
    )
    assert "memory limit" in (runs[0].error or "")
    assert runs[1].state == "done"


@pytest.mark.usefixtures("naughty")
def test_a_cloud_backend_gets_its_own_number_of_runs_at_a_time(tmp_path: Path) -> None:
    log = tmp_path / "log"
    _, runs = run(tmp_path, Contender("naughty-cloud", {"log": str(log)}), seeds=(0, 1, 2, 3))
    assert {r.state for r in runs} == {"done"}
    assert log.read_text().split() == ["start", "end"] * 4


@pytest.mark.usefixtures("naughty")
def test_a_refused_token_leaves_the_runs_for_another_day(tmp_path: Path) -> None:
    execution, runs = run(
        tmp_path, Contender("naughty", {"habit": "refuse"}), Contender("random"), seeds=range(5)
    )
    assert execution.halted == {"naughty": "the token was refused"}
    assert {r.state for r in runs if r.backend == "naughty"} == {"open"}
    assert {r.state for r in runs if r.backend == "random"} == {"done"}


def test_two_processes_share_a_study(tmp_path: Path) -> None:
    plan = Plan((PROBLEM,), (Contender("random", {"num_reads": 5}),), seeds=tuple(range(60)))
    done = []

    def work() -> None:
        with Store(tmp_path / "s.db") as store, local_workers(1) as crew:
            done.append(execute(plan, store, crew).done)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with Store(tmp_path / "s.db") as store:
        assert store.counts() == {"done": 61}
    assert sum(done) == 61  # none twice


STUDY = """
import sys
from qblock import BlockRemovalProblem
from qblock.study import store as store_module
from qblock.study.contender import Contender
from qblock.study.execute import execute, local_workers
from qblock.study.plan import Plan
from qblock.study.store import Store
from qblock.testing import random_sensitivity

class Telling(Store):
    def finish(self, key, result, machine):
        stored = super().finish(key, result, machine)
        print(key, flush=True)
        return stored

plan = Plan((BlockRemovalProblem(random_sensitivity(10), remove=3),),
            (Contender("random", {"num_reads": 5}),), seeds=tuple(range(int(sys.argv[2]))))
with Telling(sys.argv[1]) as store, local_workers(2) as crew:
    print("ready", flush=True)
    execution = execute(plan, store, crew)
    sys.exit(130 if execution.interrupted else 0)
"""


def study_process(path: Path, runs: int) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", STUDY, str(path), str(runs)],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def kill_and_look(path: Path, runs: int, wait: float) -> None:
    """Kill a study process `wait` seconds after its first finished run; check the file."""
    before: dict[str, RunRecord] = {}
    if path.exists():
        with Store(path) as store:
            before = {r.key: r for r in store.runs() if r.state == "done"}
    process = study_process(path, runs)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    told = [process.stdout.readline().strip()]
    time.sleep(wait)
    process.kill()
    told += process.stdout.read().split()
    process.wait()
    with Store(path) as store:
        assert store._read("PRAGMA integrity_check") == [("ok",)]
        store.open_keys()
        after = {r.key: r for r in store.runs() if r.state == "done"}
        assert set(filter(None, told)) <= set(after), "a finished run was lost"
        assert not set(told) & set(before), "a finished run was done again"
        assert {key: after[key] for key in before} == before
        for key in after:
            assert store.samples(key)[1].sum() > 0
        assert set(store.counts()) <= {"done", "open"}


def test_killed_three_times_and_finished(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    for wait in (0.0, 0.013, 0.05):
        kill_and_look(path, 3000, wait)
    with Store(path) as store:
        assert store.counts()["done"] >= 3


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_killed_fifty_times(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    for kill in range(50):
        kill_and_look(path, 20_000, wait=(kill * 0.6180339887) % 1.0 * 0.5)


def test_ctrl_c_keeps_what_is_finished(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    process = study_process(path, 20_000)
    assert process.stdout is not None
    process.stdout.readline()
    told = [process.stdout.readline().strip()]
    time.sleep(0.2)
    os.killpg(process.pid, signal.SIGINT)
    told += process.stdout.read().split()
    assert process.wait(timeout=30) == 130
    with Store(path) as store:
        done = {r.key for r in store.runs() if r.state == "done"}
        assert set(told) == done
        assert set(store.counts()) == {"done", "open"}


def test_a_scheduler_that_is_not_there() -> None:
    pytest.importorskip("distributed")
    with pytest.raises(StudyError, match="no Dask scheduler answers"), dask_workers("tcp://x:1"):
        pass


@pytest.mark.timeout(180)
def test_the_runs_of_a_killed_dask_worker_are_done_by_the_other(tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed")
    plan = Plan((PROBLEM,), (Contender("random", {"num_reads": 5}),), seeds=tuple(range(200)))
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=None
        ) as cluster,
        Store(tmp_path / "s.db") as store,
        dask_workers(cluster.scheduler_address) as crew,
    ):
        assert crew.count == 2
        victim = next(iter(cluster.workers.values()))
        killed = threading.Event()

        def kill(progress: object) -> None:
            if store.counts().get("done", 0) >= 20 and not killed.is_set():
                killed.set()
                os.kill(victim.pid, signal.SIGKILL)

        execution = execute(plan, store, crew, report=kill)
        assert killed.is_set()
        assert execution.done == 201
        assert store.counts() == {"done": 201}
