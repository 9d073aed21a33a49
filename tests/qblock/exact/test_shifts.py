import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from support import problems

from qblock.exact.engine import Search
from qblock.exact.shifts import scaled_shift
from qblock.generators import random_instance
from qblock.problem import BlockRemovalProblem, Sensitivity


def least_curvature(walk, level):
    """Least z'(Q - D)z over unit z on the blocks of a level, of sum zero in each group."""
    members = walk._members(level)
    Q = walk.model.Q[np.ix_(members, members)] - np.diag(walk.shifts.d[level, members])
    marks = walk.model.group_of[members] == np.arange(len(walk.model.budgets))[:, None]
    null = np.linalg.svd(marks.astype(float))[2][np.linalg.matrix_rank(marks) :]
    return np.linalg.eigvalsh(null @ Q @ null.T).min(initial=np.inf)


@given(problems(max_blocks=10, undecided=True), st.integers(0, 9))
@settings(max_examples=200, deadline=None)
def test_every_shift_leaves_a_convex_form(problem, level):
    search = Search(problem.reduced, 3)
    search.seed_pool(0, lambda: False)
    walk = search.walks[0]
    walk.process_root()
    level = min(level, len(search.order) - 1)
    if len(walk._members(level)) > 1:
        walk._make_first_shift(level)
        assert least_curvature(walk, level) >= -1e-9 * np.abs(walk.shifts.d[level]).max() - (
            1e-9 * np.abs(walk.model.Q).max()
        )


def test_shifts_of_a_long_search_leave_convex_forms(monkeypatch):
    monkeypatch.setattr("qblock.exact.walk.PATIENCE", 20)
    monkeypatch.setattr("qblock.exact.walk.VISITS_BEFORE_AVERAGE", 300)
    search = Search(
        BlockRemovalProblem(random_instance("lowrank", 32, seed=3), remove=9).reduced, 50
    )
    search.seed_pool(0, lambda: False)
    walk = search.walks[0]
    walk.process_root()
    while search.nodes < 20_000 and search.advance(2000):
        pass
    made = [level for level in range(32) if walk.shifts.row[level] == level]
    assert any(walk.shifts.visits[level] > 300 for level in made)
    for level in made:
        if len(walk._members(level)) > 1:
            assert least_curvature(walk, level) >= -1e-9


def test_blocks_fixed_at_the_root_do_not_bend_the_bound():
    """Removing all but one: two of the states tie at the third place."""
    rng = np.random.default_rng(1988)
    n = int(rng.integers(4, 11))
    B = rng.standard_normal((n, n))
    problem = BlockRemovalProblem(Sensitivity(H=np.round(B + B.T)), remove=n - 1)
    search = Search(problem.reduced, 3)
    search.seed_pool(1, lambda: False)
    search.walks[0].process_root()
    while search.advance(100):
        pass
    assert search.certificate().proved
    assert search.certificate().ties_at_kth


@given(problems(max_blocks=10, undecided=True))
@settings(max_examples=200, deadline=None)
def test_the_cheap_shift_leaves_a_convex_form(problem):
    search = Search(problem.reduced, 3)
    walk = search.walks[0]
    walk.shifts.d[0] = scaled_shift(walk.model.Q, walk.model.group_of)
    if len(search.order) > 1:
        assert least_curvature(walk, 0) >= -1e-9 * np.abs(walk.model.Q).max()
