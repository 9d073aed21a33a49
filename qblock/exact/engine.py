"""The proof of the k lowest states: seed, root, search, certificate."""

import functools
import math
import time
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from copy import deepcopy
from dataclasses import dataclass

import numpy as np

from qblock.backend import Certificate
from qblock.exact.bound import Model
from qblock.exact.pool import (
    close_under_swaps,
    empty_pool,
    fill_by_descent,
    highest,
    merge,
    tie_width,
)
from qblock.exact.walk import Walk
from qblock.problem import ReducedProblem, States

DESCENTS = 50
"""Descents from random states in a batch; the pool is full when a batch changes nothing."""

MAX_DESCENTS = 1000
"""Descents at most."""

NODES_PER_SLICE = 2000
"""Nodes between two looks at the clock: some milliseconds."""

NODES_BEFORE_THREADS = 200_000
"""Nodes after which a search goes on in several threads: about half a second."""

NODES_PER_ROUND = 10_000
"""Nodes of each thread between two exchanges: some tens of milliseconds."""


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
    threads: int = 1,
    max_nodes: int | None = None,
    stop: Callable[[], bool] = lambda: False,
    report: Callable[[str], None] = lambda message: None,
) -> Proof:
    """The k lowest states with proof, or what is known when the search is stopped.

    With k = 1 and a node limit this is a cheap way to a valid lower bound on the energy. Memory is
    taken at the start, and once more for each thread; it does not grow with the search.

    Args:
        problem: with at least one block to decide.
        k: how many states.
        seed: of the local search that fills the list first; it cannot change what is proved.
        threads: of a long search; short ones take one. It can change neither what is proved nor,
            but for ties at the k-th place, the list.
        max_nodes: stop after about this many nodes.
        stop: asked every few hundredths of a second.
        report: told of the progress as often.
    """
    started = time.perf_counter()
    search = Search(problem, k)
    search.seed_pool(seed, stop)
    seeded = time.perf_counter()
    search.walks[0].process_root()
    rooted = time.perf_counter()
    limit = math.inf if max_nodes is None else max_nodes
    with ThreadPoolExecutor(threads) as executor:  # starts none before it is given work
        more = True
        while more and search.nodes < limit:
            if threads > 1 and search.nodes >= NODES_BEFORE_THREADS:
                more = search.advance_side_by_side(executor, threads)
            else:
                more = search.advance(int(min(NODES_PER_SLICE, limit)))
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
    """A branch and bound under way.

    Attributes:
        order: int64 (n,), the order in which blocks are branched on.
        model: the problem in that order.
        pool: the k lowest states seen.
        walks: the first has the whole tree, until others take parts of it over.
    """

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
        self.walks = [Walk(self.model, self.pool)]

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

    def advance(self, max_nodes: int) -> bool:
        """Look at up to `max_nodes` more nodes; False when the search is over."""
        return self.walks[0].advance(max_nodes)

    def advance_side_by_side(self, executor: Executor, count: int) -> bool:
        """Look at more nodes in `count` walks at once; False when the search is over.

        Each walk looks at the same number of nodes before they tell each other what they found
        and share what is left. So no walk reads what another one writes, and the result does not
        depend on how fast the threads run.
        """
        while len(self.walks) < count:
            self.walks.append(self.walks[0].companion())
        for walk in self.walks:
            busiest = max(self.walks, key=lambda other: other.open_rows)
            if walk.open_rows == 0 and busiest.open_rows > 1:
                busiest.share_with(walk)
        more = list(executor.map(lambda walk: walk.advance(NODES_PER_ROUND), self.walks))
        for walk in self.walks[1:]:
            merge(self.pool, walk.pool)
        for walk in self.walks[1:]:
            walk.pool = deepcopy(self.pool)
        return any(more)

    @property
    def nodes(self) -> int:
        """Nodes looked at below the root."""
        return sum(walk.nodes for walk in self.walks)

    @property
    def open_bound(self) -> float:
        """The lowest bound of what has not been looked at yet; infinite when it is over."""
        return min(walk.open_bound for walk in self.walks)

    def gap(self) -> float:
        """From the lowest open bound to the k-th energy, relative to the latter; 0 when done."""
        top = float(highest(self.pool))
        below = top - self.open_bound
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
        unseen = self.open_bound - float(self.pool.width[0])
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
