"""What a study costs beyond its solvers: `python benchmarks/study.py`.

Store: seconds per run to claim a run and to store its samples. Report: seconds, megabytes and
peak memory for a study of as many runs. Workers: throughput of two against one on runs that
keep a core busy.
"""

import resource
import tempfile
import time
from pathlib import Path

from qblock import BlockRemovalProblem, get_backend, load_sensitivity
from qblock.study.analysis import analyse
from qblock.study.contender import Contender
from qblock.study.execute import execute, local_workers
from qblock.study.plan import Plan
from qblock.study.report import report_html
from qblock.study.store import Store

RUNS = 10_000
PROBLEM = BlockRemovalProblem(load_sensitivity("smollm2-135m-fisher"), remove=8)
CONTENDERS = tuple(Contender("random", {"num_reads": n}) for n in (50, 100, 150, 200))


def peak_memory() -> float:
    """Peak resident memory of this process in MiB (Linux)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def store_and_report(folder: Path) -> None:
    """Fill a study with short runs, as the coordinator does, and report on it."""
    plan = Plan((PROBLEM,), CONTENDERS, seeds=tuple(range(RUNS // len(CONTENDERS))))
    requests = [r for r in plan.requests() if r.purpose == "comparison"]
    results = [get_backend(c.backend).sample(PROBLEM, seed=0, **c.parameters) for c in CONTENDERS]
    path = folder / "study.db"
    with Store(path) as store:
        started = time.perf_counter()
        store.add_plan(plan.document(), plan.requests())
        planned = time.perf_counter() - started
        before = peak_memory()
        started, busy = time.perf_counter(), time.process_time()
        for number, request in enumerate(requests):
            store.claim(request.key)
            store.finish(request.key, results[number % len(results)], {})
        stored = time.perf_counter() - started
        print(f"plan:   {1e3 * planned / RUNS:.2f} ms a run")
        busy = time.process_time() - busy
        print(
            f"store:  {1e3 * stored / RUNS:.2f} ms a run, of them {1e3 * busy / RUNS:.2f} ms "
            f"processor; memory +{peak_memory() - before:.0f} MiB"
        )
        started, busy = time.perf_counter(), time.process_time()
        page = report_html(analyse(store))
        print(
            f"report: {time.perf_counter() - started:.1f} s, of them "
            f"{time.process_time() - busy:.1f} s processor; {len(page) / 1e6:.1f} MB, memory "
            f"+{peak_memory() - before:.0f} MiB; study file {path.stat().st_size / 1e6:.1f} MB"
        )


def workers(folder: Path) -> None:
    """Runs a second with one worker and with two, workers already warm."""
    speeds = []
    for count in (1, 2):
        with Store(folder / f"{count}.db") as store, local_workers(count) as crew:
            busy = Contender("annealing", {"num_reads": 200})
            execute(Plan((PROBLEM,), (busy,), seeds=(10**6, 10**6 + 1)), store, crew)
            started = time.perf_counter()
            execute(Plan((PROBLEM,), (busy,), seeds=tuple(range(40))), store, crew)
            speeds.append(40 / (time.perf_counter() - started))
    print(
        f"workers: {speeds[0]:.2f} and {speeds[1]:.2f} runs a second: {speeds[1] / speeds[0]:.2f}x"
    )


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        store_and_report(Path(name))
        workers(Path(name))
