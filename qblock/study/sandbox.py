"""One run in a process of its own, which can be killed: by the clock, by memory, by Ctrl-C.

`run_isolated` is the one function that executors call, be they local threads or the workers of
a cluster. Each thread that calls it keeps one child process, started from scratch and warm, so
compiled code and imported libraries are there before a run's clock starts.
"""

import os
import signal
import subprocess
import sys
import threading
import weakref
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe
from typing import Any

from qblock.backend import SolveResult
from qblock.errors import BackendError, QblockError, SolverTimeout
from qblock.problem import BlockRemovalProblem
from qblock.study.contender import Contender

START_LIMIT = 300.0
"""Seconds that a child may take to start and to warm up a backend."""

ONE_THREAD = {
    f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL", "NUMBA", "VECLIB")
}
"""Every run has one thread, so that runs side by side do not slow each other down."""


@dataclass(frozen=True)
class Job:
    """A run as sent to a worker.

    Attributes:
        kill_after: seconds after which the process of the run is killed.
        memory_limit: bytes of data it may allocate, or None.
    """

    problem: BlockRemovalProblem
    contender: Contender
    seed: int
    time_limit: float | None
    kill_after: float
    memory_limit: int | None


@dataclass(frozen=True)
class Outcome:
    """The result of a job, or the error that took its place, and facts on the machine."""

    result: SolveResult | None
    error: QblockError | None
    machine: dict[str, Any]


def run_isolated(job: Job) -> Outcome:
    """Do the job in this thread's child process, which is started or replaced as needed."""
    sandbox: Sandbox | None = getattr(_of_thread, "sandbox", None)
    if sandbox is None or not sandbox.alive or sandbox.memory_limit != job.memory_limit:
        sandbox = _of_thread.sandbox = Sandbox(job.memory_limit)
        register: weakref.WeakSet[Sandbox] | None = getattr(_of_thread, "register", None)
        if register is not None:
            register.add(sandbox)
    return sandbox.run(job)


def register_sandboxes(register: "weakref.WeakSet[Sandbox]") -> None:
    """Note this thread's child processes in `register`, so that another thread can kill them."""
    _of_thread.register = register


class Sandbox:
    """A child process that does one job at a time. It dies with this process."""

    def __init__(self, memory_limit: int | None) -> None:
        self.memory_limit = memory_limit
        self._connection, theirs = Pipe()
        # A session of its own: Ctrl-C in the terminal reaches the parent alone, which decides.
        self._process = subprocess.Popen(
            [sys.executable, "-m", "qblock.study.worker", str(theirs.fileno())]
            + ([] if memory_limit is None else [str(memory_limit)]),
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            env=os.environ | ONE_THREAD,
        )
        theirs.close()
        weakref.finalize(self, _reap, self._process, self._connection)

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        """End the child at once; a job it has ends with an error."""
        self._process.kill()
        self._process.wait()

    def run(self, job: Job) -> Outcome:
        """Do one job; what goes wrong is in the outcome."""
        try:
            self._connection.send(job)
            self._expect(START_LIMIT, "starting")
            self._expect(job.kill_after, f"the run with seed {job.seed}")
            outcome: Outcome = self._connection.recv()
        except QblockError as error:
            self.kill()
            return Outcome(None, error, {})
        except (EOFError, OSError):
            return Outcome(None, BackendError(self._cause_of_death()), {})
        return outcome

    def _expect(self, seconds: float, what: str) -> None:
        """Wait for the child's sign that the step is over."""
        if not self._connection.poll(seconds):
            raise SolverTimeout(f"{what} took more than {seconds:g} s and was killed")
        self._connection.recv()

    def _cause_of_death(self) -> str:
        code = self._process.wait()
        how = f"with exit code {code}"
        if code < 0:
            how = f"by signal {-code} ({signal.Signals(-code).name})"
        memory = (
            f"; it may have reached its memory limit of {self.memory_limit / 2**30:.3g} GiB"
            if self.memory_limit
            else ""
        )
        return f"the process of the run died {how}{memory}"


_of_thread = threading.local()


def _reap(process: "subprocess.Popen[bytes]", connection: "Connection[Any, Any]") -> None:
    connection.close()
    process.kill()
    process.wait()
