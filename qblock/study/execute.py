"""Doing the open runs of a plan on any `concurrent.futures.Executor`."""

import importlib.util
import os
import time
import weakref
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, CancelledError, Executor, Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from contextlib import contextmanager
from dataclasses import dataclass

from qblock.backend import Progress, interrupt_flag
from qblock.errors import AuthenticationError, BackendError, QblockError, QuotaExceeded, StudyError
from qblock.study.contender import RunRequest
from qblock.study.plan import Plan
from qblock.study.sandbox import Job, Outcome, Sandbox, register_sandboxes, run_isolated
from qblock.study.store import Store

GRACE = 5.0
"""Seconds beyond time limit and declared slack after which a run is killed."""

BEAT_SECONDS = 5.0
"""How often a coordinator says that it lives."""

LOOK_UP_SECONDS = 0.2
"""How often a coordinator that waits for runs looks whether Ctrl-C was pressed."""


@dataclass(frozen=True)
class Workers:
    """An executor and how many runs it does at a time."""

    executor: Executor
    count: int


@contextmanager
def local_workers(count: int | None = None) -> Iterator[Workers]:
    """Processes on this machine, one for each core unless said otherwise."""
    count = count or available_cores()
    # The threads only wait: each drives one child process (see `sandbox`).
    sandboxes: weakref.WeakSet[Sandbox] = weakref.WeakSet()
    executor = ThreadPoolExecutor(count, "qblock", register_sandboxes, (sandboxes,))
    try:
        yield Workers(executor, count)
    finally:
        executor.shutdown(wait=False, cancel_futures=True)
        for sandbox in list(sandboxes):
            sandbox.kill()
        executor.shutdown(wait=True)


@contextmanager
def dask_workers(address: str) -> Iterator[Workers]:
    """The workers of a running Dask cluster; qblock must be installed on them.

    Raises:
        StudyError: dask.distributed is not installed, or no scheduler with workers answers.
    """
    if importlib.util.find_spec("distributed") is None:
        raise StudyError('a scheduler needs dask.distributed: pip install "qblock[dask]"')
    from distributed import Client

    try:
        client = Client(address, timeout="5s", set_as_default=False)
    except (OSError, ValueError, TimeoutError) as error:
        raise StudyError(f"no Dask scheduler answers at {address}: {error}") from None
    with client:
        count = sum(client.nthreads().values())
        if not count:
            raise StudyError(f"the Dask scheduler at {address} has no workers")
        executor = client.get_executor()
        try:
            yield Workers(executor, count)
        finally:
            executor.shutdown(wait=False)


def available_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@dataclass(frozen=True)
class Execution:
    """What `execute` did.

    Attributes:
        done, failed: runs of this call, references included.
        reused: runs of the plan that were there already or are done by others, without
            references.
        interrupted: Ctrl-C ended it; finished runs are kept.
        halted: backends that refused further work (token, quota), with the message; their
            remaining runs stay open.
    """

    done: int
    failed: int
    reused: int
    interrupted: bool
    halted: dict[str, str]


def execute(
    plan: Plan,
    store: Store,
    workers: Workers,
    report: Callable[[Progress], None] = lambda progress: None,
) -> Execution:
    """Do those runs of the plan that the store does not hold, and store each when it ends.

    Failed runs are stored with their reason and not tried again. Other processes may work on
    the same store at the same time.
    """
    requests = list(plan.requests())
    store.beat()
    store.add_plan(plan.document(), requests)
    compared = {request.key for request in requests if request.purpose == "comparison"}
    reused = len(compared - store.open_keys())
    coordinator = _Coordinator(plan, store, workers)
    # A second look catches what processes left behind that died in the meantime.
    while coordinator.queue(requests) and not coordinator.interrupted:
        coordinator.work(report)
    return Execution(
        done=coordinator.done,
        failed=coordinator.failed,
        reused=reused,
        interrupted=coordinator.interrupted,
        halted=coordinator.halted,
    )


class _Coordinator:
    """The state of one `execute`: what waits, what is in flight, what came of it."""

    def __init__(self, plan: Plan, store: Store, workers: Workers) -> None:
        self.plan, self.store, self.workers = plan, store, workers
        self.waiting: deque[RunRequest] = deque()
        self.in_flight: dict[Future[Outcome], RunRequest] = {}
        self.load: Counter[str] = Counter()
        self.halted: dict[str, str] = {}
        self.done = self.failed = self.planned = 0
        self.interrupted = False
        self.last_beat = time.monotonic()

    def queue(self, requests: list[RunRequest]) -> bool:
        """Queue the runs that are open; False if there are none that can be done."""
        open_keys = self.store.open_keys()
        self.waiting.extend(
            request
            for request in requests
            if request.key in open_keys and request.contender.backend not in self.halted
        )
        self.planned = max(self.planned, self.done + self.failed + len(self.waiting))
        return bool(self.waiting)

    def work(self, report: Callable[[Progress], None]) -> None:
        """Do what is queued. Ctrl-C is looked at between transactions, never within one."""
        try:
            with interrupt_flag() as interrupted:
                while (self.waiting or self.in_flight) and not self.interrupted:
                    self._submit()
                    if not self.in_flight:
                        break  # others have taken the rest
                    finished, _ = wait_for(
                        self.in_flight, timeout=LOOK_UP_SECONDS, return_when=FIRST_COMPLETED
                    )
                    for future in finished:
                        self._settle(future)
                    self._beat()
                    ended = self.done + self.failed
                    share = ended / max(self.planned, 1)
                    report(Progress(f"{ended} of {self.planned} runs", share))
                    self.interrupted = interrupted()
        finally:
            self.waiting.clear()
            for future, request in self.in_flight.items():
                future.cancel()
                self.store.release(request.key)
            self.in_flight.clear()

    def _submit(self) -> None:
        """Keep every worker busy, with one more run each in hand."""
        passed_over: list[RunRequest] = []
        while self.waiting and len(self.in_flight) < 2 * self.workers.count:
            request = self.waiting.popleft()
            name = request.contender.backend
            if name in self.halted:
                continue
            cloud = request.contender.capabilities.location == "cloud"
            if cloud and self.load[name] >= self.plan.cloud_concurrency:
                passed_over.append(request)
                continue
            if not self.store.claim(request.key):
                continue
            self.in_flight[self.workers.executor.submit(run_isolated, self._job(request))] = request
            self.load[name] += 1
        self.waiting.extendleft(reversed(passed_over))

    def _job(self, request: RunRequest) -> Job:
        kill_after = self.plan.hard_limit
        capabilities = request.contender.capabilities
        if request.time_limit is not None and capabilities.location == "local":
            slack = capabilities.time_limit_slack + GRACE
            kill_after = min(kill_after, request.time_limit + slack)
        return Job(
            problem=self.store.problem(request.problem.id),  # without A, which may be large
            contender=request.contender,
            seed=request.seed,
            time_limit=request.time_limit,
            kill_after=kill_after,
            memory_limit=self.plan.memory_limit,
        )

    def _settle(self, future: "Future[Outcome]") -> None:
        request = self.in_flight.pop(future)
        self.load[request.contender.backend] -= 1
        try:
            outcome = future.result()
        except CancelledError:
            self.store.release(request.key)
            raise StudyError("the executor gave up the runs; is its scheduler gone?") from None
        except Exception as error:  # the cluster lost the run, not the run itself
            outcome = Outcome(None, BackendError(f"{type(error).__name__}: {error}"), {})
        if outcome.result is not None and outcome.result.status == "interrupted":
            outcome = Outcome(None, BackendError("the run was interrupted from outside"), {})
        if outcome.result is not None:
            self.store.finish(request.key, outcome.result, outcome.machine)
            self.done += 1
        elif isinstance(outcome.error, AuthenticationError | QuotaExceeded):
            self.store.release(request.key)  # not the run's fault: it can be done another day
            self.halted[request.contender.backend] = str(outcome.error)
        else:
            self.store.fail(request.key, outcome.error or QblockError("no result"))
            self.failed += 1

    def _beat(self) -> None:
        if time.monotonic() - self.last_beat > BEAT_SECONDS:
            self.store.beat()
            self.last_beat = time.monotonic()
