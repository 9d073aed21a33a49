"""A walk over a part of the search tree: what one thread needs, and the shifts it makes."""

from copy import deepcopy

import numpy as np

from qblock.exact.bound import Model
from qblock.exact.pool import Pool
from qblock.exact.search import (
    CLOSED,
    DONE,
    WANTS_SHIFT,
    Policy,
    new_shifts,
    new_work,
    open_bound,
    open_rows,
    process,
    root_stack,
    run_slice,
    split,
)
from qblock.exact.shifts import average_shift, optimal_shift, scaled_shift
from qblock.problem import IntArray

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


class Walk:
    """A depth-first walk under way; two of them share nothing that changes.

    Attributes:
        model: the whole problem.
        pool: the lowest states that this walk knows.
        stack: the part of the tree it has still to look at.
        shifts: the shifts it uses and makes.
    """

    def __init__(self, model: Model, pool: Pool) -> None:
        self.model = model
        self.pool = pool
        self.stack = root_stack(model)
        self.shifts = new_shifts(model, PATIENCE)
        self.work = new_work(model)

    def companion(self) -> "Walk":
        """A walk with nothing to do yet that starts from what this one knows."""
        other = Walk(self.model, deepcopy(self.pool))
        other.shifts = deepcopy(self.shifts)
        other.stack.depth[0] = -1
        return other

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
        """Look at up to `max_nodes` more nodes; False when none are left."""
        last = self.nodes + max_nodes
        while self.nodes < last:
            end = run_slice(
                self.shifts, self.stack, self.pool, self.work, POLICY, last - self.nodes
            )
            if end == DONE:
                return False
            if end == WANTS_SHIFT:
                self._make_shift(int(self.stack.free[self.stack.depth[0], 1]))
        return True

    def _make_shift(self, level: int) -> None:
        if self.shifts.row[level] == level:
            self._average_shift(level)
        else:
            self._make_first_shift(level)

    @property
    def nodes(self) -> int:
        """Nodes looked at below the root."""
        return int(self.stack.nodes[0])

    @property
    def open_bound(self) -> float:
        """The lowest bound of what it has not looked at yet; infinite when that is nothing."""
        return float(open_bound(self.stack))

    @property
    def open_rows(self) -> int:
        """Nodes on its path with children that it has not looked at yet."""
        return len(open_rows(self.stack))

    def share_with(self, idle: "Walk") -> None:
        """Leave half of what is still to be looked at to a walk that has nothing to do."""
        part = split(self.stack)
        part.nodes[0] = idle.nodes
        idle.stack = part
