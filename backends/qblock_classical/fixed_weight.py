"""Heuristics that never leave the budgets: annealing and tabu search by swaps."""

# ruff: noqa: NPY002  (compiled code has no other generators)

import numpy as np
from numba import njit
from pydantic import Field

from qblock.backend import Backend, Capabilities, Parameters, Run, Samples
from qblock.moves import apply_swap, local_field, random_state, swap_change
from qblock.problem import FloatArray, IntArray, ReducedProblem, States
from qblock_classical.reads import collect_reads, read_seeds
from qblock_classical.temperature import swap_costs


@njit(cache=True, nogil=True)
def _anneal_reads(
    Q: FloatArray, group_of: IntArray, budgets: IntArray, betas: FloatArray, seeds: IntArray
) -> States:
    """Metropolis annealing by random swaps, n proposals a sweep; the best state of each read.

    Blocks lie in slots: group by group, the removed blocks of a group before its kept ones. So
    slots are removed or kept once and for all, a swap exchanges the blocks of two slots, and
    every proposal drawn from the slots is a swap within one group.
    """
    n = len(group_of)
    sizes = np.bincount(group_of)
    starts = np.cumsum(sizes) - sizes
    removed_slots = np.empty(budgets.sum(), dtype=np.int64)
    at = 0
    for k in range(len(budgets)):
        for j in range(budgets[k]):
            removed_slots[at] = starts[k] + j
            at += 1
    best = np.empty((len(seeds), n), dtype=np.int8)
    block_in = np.empty(n, dtype=np.int64)
    for read in range(len(seeds)):
        np.random.seed(seeds[read])
        state = random_state(group_of, budgets)
        next_removed = starts.copy()
        next_kept = starts + budgets
        for i in range(n):
            following = next_removed if state[i] else next_kept
            block_in[following[group_of[i]]] = i
            following[group_of[i]] += 1
        field = local_field(Q, state)
        energy = lowest = 0.0  # relative to the start
        best[read] = state
        for beta in betas:
            for _ in range(n):
                removed = removed_slots[np.random.randint(len(removed_slots))]
                k = group_of[block_in[removed]]
                kept = starts[k] + budgets[k] + np.random.randint(sizes[k] - budgets[k])
                out, into = block_in[removed], block_in[kept]
                change = swap_change(Q, field, out, into)
                if change <= 0.0 or np.random.random() < np.exp(-beta * change):
                    apply_swap(Q, state, field, out, into)
                    block_in[removed], block_in[kept] = into, out
                    energy += change
                    if energy < lowest:
                        lowest = energy
                        best[read] = state
    return best


@njit(cache=True, nogil=True)
def _tabu_reads(
    Q: FloatArray,
    group_of: IntArray,
    budgets: IntArray,
    num_swaps: int,
    tenure: int,
    seeds: IntArray,
) -> States:
    """Steepest allowed swap, again and again; the best state of each read.

    Either end of a swap stays where it is for `tenure` to 2 `tenure` swaps (drawn), unless the
    swap would give the lowest energy of this read so far (aspiration).
    """
    n = len(group_of)
    best = np.empty((len(seeds), n), dtype=np.int8)
    for read in range(len(seeds)):
        np.random.seed(seeds[read])
        state = random_state(group_of, budgets)
        field = local_field(Q, state)
        free_at = np.zeros(n, dtype=np.int64)
        energy = lowest = 0.0  # relative to the start
        best[read] = state
        for step in range(num_swaps):
            best_change, best_out, best_into = np.inf, -1, -1
            for out in range(n):
                if state[out] == 0:
                    continue
                for into in range(n):
                    if state[into] == 1 or group_of[into] != group_of[out]:
                        continue
                    change = swap_change(Q, field, out, into)
                    tabu = free_at[out] > step or free_at[into] > step
                    if tabu and not energy + change < lowest - 1e-12 * abs(lowest):
                        continue
                    if change < best_change:
                        best_change, best_out, best_into = change, out, into
            if best_out < 0:  # everything is forbidden: let the oldest bans lapse
                free_at[:] = np.minimum(free_at, step + 1)
                continue
            apply_swap(Q, state, field, best_out, best_into)
            energy += best_change
            free_at[best_out] = step + 1 + tenure + np.random.randint(tenure + 1)
            free_at[best_into] = step + 1 + tenure + np.random.randint(tenure + 1)
            if energy < lowest:
                lowest = energy
                best[read] = state
    return best


class FixedWeightAnnealingParameters(Parameters):
    num_reads: int = Field(100, ge=1, description="independent anneals")
    num_sweeps: int = Field(
        200, ge=2, description="length of an anneal", json_schema_extra={"unit": "sweeps"}
    )


class FixedWeightAnnealing(Backend[FixedWeightAnnealingParameters]):
    """Simulated annealing by swaps at fixed magnetisation, geometric in temperature."""

    name = "fixed-weight-annealing"
    Parameters = FixedWeightAnnealingParameters
    capabilities = Capabilities(
        summary="simulated annealing by swaps that keep every budget",
        constraint="native",
        method="heuristic",
    )

    def solve(
        self, problem: ReducedProblem, parameters: FixedWeightAnnealingParameters, run: Run
    ) -> Samples:
        # A swap of 10 % quantile is free at first, one of 5 % quantile frozen in the end: on real
        # and on low-rank instances a hotter start or a colder end only costs sweeps.
        cheap, dearer = np.quantile(swap_costs(problem), [0.05, 0.1])
        betas = np.geomspace(np.log(2) / dearer, np.log(100) / cheap, parameters.num_sweeps)
        seeds = read_seeds(run, parameters.num_reads)
        states, status = collect_reads(
            lambda first, count: _anneal_reads(
                problem.Q, problem.group_of, problem.budgets, betas, seeds[first : first + count]
            ),
            parameters.num_reads,
            run,
        )
        return Samples(
            states, status=status, details={"beta_range": [float(betas[0]), float(betas[-1])]}
        )


class FixedWeightTabuParameters(Parameters):
    num_reads: int = Field(20, ge=1, description="searches from random states")
    num_swaps: int = Field(
        500, ge=1, description="length of a search", json_schema_extra={"unit": "swaps"}
    )
    tenure: int | None = Field(
        None,
        ge=1,
        description="shortest time a moved block stays where it is; about n / 8 if none",
        json_schema_extra={"unit": "swaps"},
    )


class FixedWeightTabu(Backend[FixedWeightTabuParameters]):
    """Tabu search by swaps at fixed magnetisation."""

    name = "fixed-weight-tabu"
    Parameters = FixedWeightTabuParameters
    capabilities = Capabilities(
        summary="tabu search by swaps that keep every budget",
        constraint="native",
        method="heuristic",
    )

    def solve(
        self, problem: ReducedProblem, parameters: FixedWeightTabuParameters, run: Run
    ) -> Samples:
        # A ban as long as the smaller side of the smallest group would leave no move at all.
        sizes = np.bincount(problem.group_of)
        room = int(np.minimum(problem.budgets, sizes - problem.budgets).min())
        tenure = parameters.tenure or max(1, min(len(problem) // 8, room // 2))
        seeds = read_seeds(run, parameters.num_reads)
        states, status = collect_reads(
            lambda first, count: _tabu_reads(
                problem.Q,
                problem.group_of,
                problem.budgets,
                parameters.num_swaps,
                tenure,
                seeds[first : first + count],
            ),
            parameters.num_reads,
            run,
        )
        return Samples(states, status=status, details={"tenure": tenure})
