"""All feasible states, one by one: the reference that needs no argument.

States are enumerated depth first, block by block within each group, so that states with a
common prefix share its energy and its field; the last block is a loop over one row.
"""

import math

import numpy as np
from numba import njit
from pydantic import Field

from qblock.backend import (
    Backend,
    Capabilities,
    Certificate,
    Estimate,
    Parameters,
    Progress,
    Run,
    Samples,
    Status,
    interrupt_flag,
)
from qblock.errors import CapacityError
from qblock.exact.heap import keep_lowest
from qblock.problem import BlockRemovalProblem, FloatArray, IntArray, ReducedProblem

TOLERANCE = 1e-12
"""Energies closer than this, relative to the largest |energy| listed, are not told apart."""

STATES_PER_SECOND = 8e7
"""For the estimate only: what one core enumerates, in round figures."""

ROWS_PER_SLICE = 300_000
"""Rows (last-level loops) between two looks at the clock: some tens of milliseconds."""


@njit(cache=True, nogil=True)
def _enumerate(
    Q: FloatArray,
    last: IntArray,
    first: IntArray,
    tie_width: float,
    slots: IntArray,
    field: FloatArray,
    prefix: FloatArray,
    depth: int,
    energies: FloatArray,
    chosen: IntArray,
    count: int,
    lost: float,
    max_rows: int,
) -> tuple[int, int, float, int]:
    """Continue the enumeration for at most `max_rows` rows.

    Slot s holds the s-th removed block. Within a group blocks ascend; `first[s]` is -1 where
    slot s follows the slot before it in the same group, else the group's first block, and
    `last[s]` is the highest block that leaves room for the slots behind it. `field[s]` is the
    cost of removing each block after slots 0 ... s-1, `prefix[s]` their energy. The arrays and
    the returned (depth, count, lost, states seen) are the whole state of the enumeration; it
    is over when depth is -1. `lost` is the lowest energy that was seen and is not kept.
    """
    n = len(Q)
    bottom = len(slots) - 1
    seen = 0
    rows = 0
    while depth >= 0 and rows < max_rows:
        if depth == bottom:
            low = slots[depth]
            row = field[depth]
            base = prefix[depth]
            smallest = np.inf
            for i in range(low, last[depth] + 1):
                smallest = min(smallest, row[i])
            full = count == len(energies)
            if not full or base + smallest <= energies[0] + tie_width:
                for i in range(low, last[depth] + 1):
                    energy = base + row[i]
                    slots[depth] = i
                    if count < len(energies):
                        count = keep_lowest(energies, chosen, count, energy, slots)
                    elif energy < energies[0]:
                        lost = min(lost, energies[0])
                        count = keep_lowest(energies, chosen, count, energy, slots)
                    else:
                        lost = min(lost, energy)
            seen += last[depth] + 1 - low
            rows += 1
            depth -= 1
            if depth >= 0:
                slots[depth] += 1
        elif slots[depth] > last[depth]:
            depth -= 1
            if depth >= 0:
                slots[depth] += 1
        else:
            i = slots[depth]
            prefix[depth + 1] = prefix[depth] + field[depth, i]
            for j in range(n):
                field[depth + 1, j] = field[depth, j] + 2.0 * Q[i, j]
            depth += 1
            slots[depth] = i + 1 if first[depth] < 0 else first[depth]
    return depth, count, lost, seen


class BruteForceParameters(Parameters):
    k: int = Field(100, ge=1, le=1_000_000, description="how many of the lowest states to keep")
    max_states: int = Field(
        2_000_000_000, ge=1, description="refuse to start on more states than this"
    )


class BruteForce(Backend[BruteForceParameters]):
    """Enumeration of every feasible state, with the k lowest kept."""

    name = "brute-force"
    Parameters = BruteForceParameters
    capabilities = Capabilities(
        summary="enumeration of every feasible state",
        constraint="native",
        method="exact",
        reproducible="untimed",
    )

    def check(self, problem: ReducedProblem, parameters: BruteForceParameters) -> None:
        if problem.num_feasible > parameters.max_states:
            raise CapacityError(
                f"{problem.num_feasible:.3g} feasible states are more than "
                f"max_states={parameters.max_states:.3g}; use the backend 'exact', which need "
                "not look at them all, or raise max_states"
            )

    def estimate(self, problem: BlockRemovalProblem, **parameters: object) -> Estimate:
        return Estimate(seconds=problem.reduced.num_feasible / STATES_PER_SECOND)

    def solve(self, problem: ReducedProblem, parameters: BruteForceParameters, run: Run) -> Samples:
        n, total = len(problem), problem.num_feasible
        order = np.argsort(problem.group_of, kind="stable")  # blocks of a group side by side
        Q = np.ascontiguousarray(problem.Q[np.ix_(order, order)])
        first, last = _slot_ranges(problem)
        m, k = len(first), min(parameters.k, total)
        slots = np.zeros(m, dtype=np.int64)
        field = np.zeros((m, n))
        field[0] = np.diag(Q)
        prefix = np.zeros(m)
        energies = np.full(k, np.inf)
        chosen = np.zeros((k, m), dtype=np.int64)
        tie_width = TOLERANCE * float(np.abs(Q).sum())
        depth, count, lost, done = 0, 0, math.inf, 0
        status: Status = "complete"
        with interrupt_flag() as interrupted:
            while depth >= 0:
                depth, count, lost, seen = _enumerate(
                    Q, last, first, tie_width, slots, field, prefix, depth,
                    energies, chosen, count, lost, ROWS_PER_SLICE,
                )  # fmt: skip
                done += seen
                run.report(Progress(f"{done:.3g} of {total:.3g} states", done / total))
                if depth >= 0 and (interrupted() or run.expired()):
                    status = "interrupted" if interrupted() else "time-limit"
                    break
        states = np.zeros((count, n), dtype=np.int8)
        np.put_along_axis(states, order[chosen[:count]], 1, axis=1)
        return Samples(
            states,
            status=status,
            certificate=_certificate(energies[:count], total, lost, done, tie_width)
            if status == "complete"
            else None,
            details={"states_seen": done},
        )


def _slot_ranges(problem: ReducedProblem) -> tuple[IntArray, IntArray]:
    """First and last block of each slot, with groups side by side (see `_enumerate`)."""
    sizes = np.bincount(problem.group_of)
    first, last = [], []
    start = 0
    for size, budget in zip(sizes.tolist(), problem.budgets.tolist(), strict=True):
        first += [start] + [-1] * (budget - 1)
        last += [start + size - budget + slot for slot in range(budget)]
        start += size
    return np.array(first, dtype=np.int64), np.array(last, dtype=np.int64)


def _certificate(
    energies: FloatArray, total: int, lost: float, seen: int, tie_width: float
) -> Certificate:
    highest = float(energies.max())
    everything = len(energies) == total
    return Certificate(
        proved=True,
        lower_bound=float(energies.min()),
        complete_below=math.inf if everything else highest,
        ties_at_kth=lost <= highest + tie_width,
        tolerance=TOLERANCE,
        nodes=seen,
    )
