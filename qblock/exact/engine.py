"""The proof of the k lowest states: seed, root, search, certificate."""

import functools
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from qblock.backend import Certificate
from qblock.exact.bound import Model
from qblock.exact.pool import (
    close_under_swaps,
    empty_pool,
    fill_by_descent,
    highest,
    tie_width,
)
from qblock.exact.search import (
    CLOSED,
    DONE,
    WANTS_SHIFT,
    Policy,
    new_shifts,
    new_work,
    open_bound,
    process,
    root_stack,
    run_slice,
)
from qblock.exact.shifts import average_shift, optimal_shift, scaled_shift
from qblock.problem import IntArray, ReducedProblem, States

DESCENTS = 50
"""Descents from random states in a batch; the pool is full when a batch changes nothing."""

MAX_DESCENTS = 1000
"""Descents at most."""

ROOT_ROUNDS = 5
"""Times at most that the root is bounded, each with a shift for what is left of it."""

PATIENCE = 1000
"""Nodes of one level that use the shift of an earlier level before it gets its own: a shift for 80
blocks costs as much as a thousand nodes."""

VISITS_BEFORE_AVERAGE = 3000
"""Nodes of one level after which its shift is first fitted to the nodes seen there."""

POLICY = Policy(effort=4.0, few=100, some=1000)
"""For the nodes of the search."""

ROOT_EFFORT = 0.01
"""The root's bound is driven further: it is what a search that is stopped can claim."""

NODES_PER_SLICE = 2000
"""Nodes between two looks at the clock: some tens of milliseconds."""


@dataclass(frozen=True)
class Proof:
    """What a search found and proved.

    Attributes:
        states: int8 (S, n), at most k.
        certificate: in terms of y'Qy; not proved if the search was stopped.
        seed_seconds, root_seconds, search_seconds: wall clock of the three parts.
    """

    states: States
    certificate: Certificate
    seed_seconds: float
    root_seconds: float
    search_seconds: float


def prove(
    problem: ReducedProblem,
    k: int,
    *,
    seed: int = 0,
    max_nodes: int | None = None,
    stop: Callable[[], bool] = lambda: False,
    report: Callable[[str], None] = lambda message: None,
) -> Proof:
    """The k lowest states with proof, or what is known when the search is stopped.

    With k = 1 and a node limit this is a cheap way to a valid lower bound on the energy.

    Args:
        problem: with at least one block to decide.
        k: how many states.
        seed: of the local search that fills the list first; it cannot change what is proved.
        max_nodes: stop after about this many nodes.
        stop: asked every few hundredths of a second.
        report: told of the progress as often.
    """
    started = time.perf_counter()
    search = Search(problem, k)
    search.seed_pool(seed, stop)
    seeded = time.perf_counter()
    search.process_root()
    rooted = time.perf_counter()
    limit = math.inf if max_nodes is None else max_nodes
    while search.nodes < limit and search.advance(int(min(NODES_PER_SLICE, limit))):
        report(f"{search.nodes:.3g} nodes, gap {search.gap():.2%}")
        if stop():
            break
    done = time.perf_counter()
    return Proof(
        search.states(), search.certificate(), seeded - started, rooted - seeded, done - rooted
    )


@functools.cache
def compile_kernels() -> float:
    """Compile all kernels, or load them from the cache; gives the seconds that took, once."""
    started = time.perf_counter()
    n, remove = 8, 4
    Q = np.diag(np.arange(1.0, n + 1)) + 1.0
    prove(
        ReducedProblem(
            Q=Q,
            offset=0.0,
            group_of=np.zeros(n, dtype=np.int64),
            budgets=np.array([remove]),
            blocks=tuple(map(str, range(n))),
            free=np.arange(n),
            fixed=np.zeros(n, dtype=np.int8),
        ),
        1,
    )
    return time.perf_counter() - started


class Search:
    """A branch and bound under way: the arrays of the kernels, and the order of the blocks."""

    def __init__(self, problem: ReducedProblem, k: int) -> None:
        n = len(problem)
        self.order = np.argsort(-np.diag(problem.Q), kind="stable")
        self.model = Model(
            np.ascontiguousarray(problem.Q[np.ix_(self.order, self.order)]),
            problem.group_of[self.order],
            problem.budgets,
        )
        self.num_feasible = problem.num_feasible
        self.pool = empty_pool(min(k, self.num_feasible), n, _rounding(problem))
        self.stack = root_stack(self.model)
        self.work = new_work(self.model)
        self.shifts = new_shifts(self.model, PATIENCE)

    def seed_pool(self, seed: int, stop: Callable[[], bool]) -> None:
        """Fill the pool by local search, so that the proof starts with a good threshold."""
        Q, group_of, budgets = self.model
        seeds = np.random.SeedSequence(seed).generate_state(MAX_DESCENTS // DESCENTS)
        for batch_seed in seeds.tolist():
            before = float(highest(self.pool))
            fill_by_descent(Q, group_of, budgets, DESCENTS, batch_seed, self.pool)
            close_under_swaps(Q, group_of, self.pool, stop)
            if float(highest(self.pool)) == before or stop():
                return

    def process_root(self) -> None:
        """Bound the root and fix blocks there, again while a shift for fewer blocks helps.

        The first shift is a cheap one: on easy instances it fixes many blocks, and the optimal
        one for the others costs as the cube of their number.
        """
        self.shifts.d[0] = scaled_shift(self.model.Q, self.model.group_of)
        for optimal in range(ROOT_ROUNDS):
            size = self.stack.size[0]
            if optimal:
                self._make_first_shift(0)
            if self._process(0) == CLOSED:
                self.stack.depth[0] = -1
                return
            if optimal and self.stack.size[0] > 0.9 * size:
                return

    def _process(self, at: int) -> int:
        policy = POLICY._replace(effort=ROOT_EFFORT)
        return int(process(self.shifts, self.stack, at, self.pool, self.work, policy))

    def _members(self, level: int) -> IntArray:
        """Blocks from `level` on that the root has not decided."""
        survivors = self.stack.free[0, : self.stack.size[0]]
        return survivors[survivors >= level]

    def _make_first_shift(self, level: int) -> None:
        """Give a level a shift of its own.

        It is made for the root with the earlier blocks decided in the mean, at their relaxed
        values.
        """
        model, stack, shifts = self.model, self.stack, self.shifts
        survivors = self._members(0)
        later = survivors >= level
        members, earlier = survivors[later], survivors[~later]
        c, y = stack.c[0, : len(survivors)], stack.y[0, : len(survivors)]
        linear = c[later] + 2 * model.Q[np.ix_(members, earlier)] @ y[~later]
        group_of = model.group_of[members]
        before = shifts.d[shifts.row[level], members]
        shift = optimal_shift(
            model.Q[np.ix_(members, members)] + np.diag(linear),
            group_of,
            np.bincount(group_of, weights=y[later], minlength=len(model.budgets)).astype(
                np.float64
            ),
            start=before + linear if before.any() else None,
        )
        shifts.d[level] = 0.0
        shifts.d[level, members] = shift - linear  # linear terms need no curvature
        shifts.row[level:] = np.maximum(shifts.row[level:], level)
        shifts.due[level] = shifts.visits[level] + VISITS_BEFORE_AVERAGE

    def _average_shift(self, level: int) -> None:
        """Make the shift of a level again, for the nodes seen there."""
        shifts, members = self.shifts, self._members(level)
        shifts.d[level, members] = average_shift(
            self.model.Q[np.ix_(members, members)],
            self.model.group_of[members],
            shifts.spread[level, members] / shifts.visits[level],
            shifts.d[level, members],
        )
        shifts.due[level] = 10 * shifts.visits[level]

    def advance(self, max_nodes: int) -> bool:
        """Look at up to `max_nodes` more nodes; False when the search is over."""
        end = run_slice(self.shifts, self.stack, self.pool, self.work, POLICY, max_nodes)
        if end == WANTS_SHIFT:
            level = int(self.stack.free[self.stack.depth[0], 1])
            if self.shifts.row[level] == level:
                self._average_shift(level)
            else:
                self._make_first_shift(level)
        return bool(end != DONE)

    @property
    def nodes(self) -> int:
        """Nodes looked at below the root."""
        return int(self.stack.nodes[0])

    def gap(self) -> float:
        """From the lowest open bound to the k-th energy, relative to the latter; 0 when done."""
        top = float(highest(self.pool))
        below = top - float(open_bound(self.stack))
        return max(below / abs(top), 0.0) if 0.0 < abs(top) < math.inf else math.inf

    def states(self) -> States:
        """The pool, int8 (count, n), in the problem's order of blocks."""
        states = np.zeros((int(self.pool.used[0]), len(self.order)), dtype=np.int8)
        states[:, self.order] = self.pool.states[: len(states)]
        return states

    def certificate(self) -> Certificate:
        """What is proved at this point of the search."""
        energies = self.pool.energies[: self.pool.used[0]]
        width = float(tie_width(self.pool))
        top = float(highest(self.pool))
        unseen = float(open_bound(self.stack)) - float(self.pool.width[0])
        everything = len(energies) == self.num_feasible
        return Certificate(
            proved=unseen == math.inf,
            lower_bound=min(float(energies.min(initial=math.inf)), unseen),
            complete_below=math.inf if everything else min(top, float(self.pool.lost[0]), unseen),
            ties_at_kth=bool(self.pool.lost[0] <= top + width) and not everything,
            tolerance=width / abs(top) if top not in (0.0, math.inf) else 0.0,
            nodes=self.nodes,
        )


def _rounding(problem: ReducedProblem) -> float:
    """How much energies of one state may differ when summed in different orders."""
    removed = int(problem.budgets.sum())
    rows = np.sort(np.abs(problem.Q), axis=1)[:, -removed:].sum(axis=1)
    return 1e-14 * float(np.sort(rows)[-removed:].sum())
