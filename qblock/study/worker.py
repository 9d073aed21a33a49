"""The child process of a sandbox: `python -m qblock.study.worker DESCRIPTOR [MEMORY_LIMIT]`.

It receives jobs over the pipe it has inherited. For each it says when it is warm, when the run
has ended, and sends the outcome.
"""

import functools
import os
import platform
import sys
import threading
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from qblock.errors import BackendError, QblockError
from qblock.problem import BlockRemovalProblem, Sensitivity
from qblock.registry import get_backend
from qblock.study.contender import Contender
from qblock.study.sandbox import Job, Outcome

WARM_UP_SECONDS = 0.5
"""Time limit of the run that compiles and imports what a contender needs."""


def main(descriptor: int, memory_limit: int | None) -> None:
    """Do jobs until the other end of the pipe is closed."""
    connection: Connection[Any, Any] = Connection(descriptor)
    os.dup2(2, 1)  # what a solver prints must not get into the caller's results
    threading.Thread(target=_die_with, args=(os.getppid(),), daemon=True).start()
    if memory_limit is not None:
        _limit_memory(memory_limit)
    while True:
        try:
            job: Job = connection.recv()
        except EOFError:
            return
        warm_up(job.contender.backend, job.contender.settings)
        connection.send("warm")
        outcome = do(job)
        connection.send("done")
        connection.send(outcome)


def do(job: Job) -> Outcome:
    """Run the job; whatever goes wrong becomes its error."""
    try:
        result = get_backend(job.contender.backend).sample(
            job.problem, seed=job.seed, time_limit=job.time_limit, **job.contender.parameters
        )
    except QblockError as error:
        return Outcome(None, error, machine())
    except MemoryError:
        return Outcome(None, BackendError("the run reached its memory limit"), machine())
    except Exception as error:  # a third party's solver must not take the study down
        text = f"{job.contender.backend} failed: {type(error).__name__}: {error}"
        return Outcome(None, BackendError(text), machine())
    return Outcome(result, None, machine())


@functools.cache
def warm_up(backend_name: str, settings: str) -> None:
    """Run a local backend once on eight blocks, so that no run pays for compiling or importing."""
    contender = Contender.from_settings(backend_name, settings)
    if contender.capabilities.location == "cloud":  # it would cost
        return
    H = np.random.default_rng(0).standard_normal((20, 8))
    problem = BlockRemovalProblem(Sensitivity.from_samples(H, name="warm-up"), remove=4)
    backend = get_backend(backend_name)
    try:
        backend.sample(problem, seed=0, time_limit=WARM_UP_SECONDS, **contender.parameters)
    except Exception:  # the run itself will say what is wrong
        return


@functools.cache
def machine() -> dict[str, Any]:
    """What the run ran on; nothing that names the machine or its owner."""
    processor = platform.processor()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        models = [line for line in cpuinfo.read_text().splitlines() if "model name" in line]
        processor = models[0].partition(":")[2].strip() if models else processor
    return {
        "processor": processor or platform.machine(),
        "cores": os.cpu_count(),
        "system": platform.system(),
        "threads_per_run": 1,
    }


def _limit_memory(limit: int) -> None:
    try:
        import resource
    except ImportError:  # no such thing on this system
        return
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def _die_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else None)
