"""Running many independent reads, in batches short enough to stop between them."""

import time
from collections.abc import Callable

import numpy as np

from qblock.backend import Progress, Run, Status, interrupt_flag
from qblock.problem import IntArray, States

BATCH_SECONDS = 0.05
"""How long a batch should take; the time limit and Ctrl-C are looked at in between."""


def read_seeds(run: Run, num_reads: int) -> IntArray:
    """One 31-bit seed per read, int64 (num_reads,), so that batching cannot change the samples."""
    words = np.random.SeedSequence(run.seed).generate_state(num_reads, dtype=np.uint32)
    return words.astype(np.int64) >> 1


def collect_reads(
    draw: Callable[[int, int], States], num_reads: int, run: Run
) -> tuple[States, Status]:
    """States of reads 0 ... num_reads - 1, or of the first of them if the run is cut short.

    Args:
        draw: `draw(first, count)` gives the states of these reads, int8 (count, n); it must not
            depend on how the reads are batched.

    Returns:
        States (S, n), S >= 1, and what ended the collection.
    """
    batches: list[States] = []
    done, count = 0, 1
    with interrupt_flag() as interrupted:
        while done < num_reads:
            started = time.perf_counter()
            batches.append(draw(done, min(count, num_reads - done)))
            done += len(batches[-1])
            if interrupted():
                return np.concatenate(batches), "interrupted"
            if run.expired() and done < num_reads:
                return np.concatenate(batches), "time-limit"
            if time.perf_counter() - started < BATCH_SECONDS / 2:
                count *= 2
            run.report(Progress(f"{done} of {num_reads} reads", done / num_reads))
    return np.concatenate(batches), "complete"
