from math import comb

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from support import all_states, problems

from qblock.exact.bound import Node, Slopes, lower_bound
from qblock.exact.leaves import fewer_choices, new_prefixes, offer_completions
from qblock.exact.pool import empty_pool


def root_node(reduced, d):
    n = len(reduced)
    y = (reduced.budgets / np.bincount(reduced.group_of))[reduced.group_of]
    return Node(
        np.ascontiguousarray(reduced.Q), 0, reduced.group_of.copy(), reduced.budgets.copy(),
        0.0, np.zeros(n), d, y,
    )  # fmt: skip


def feasible_energies(reduced):
    states = all_states(len(reduced))
    marks = reduced.group_of[:, None] == np.arange(len(reduced.budgets))
    states = states[(states @ marks == reduced.budgets).all(axis=1)]
    return np.sort(np.einsum("si,ij,sj->s", states, reduced.Q, states))


@given(st.integers(1, 40), st.data(), st.integers(1, 10**6))
def test_fewer_choices_is_a_comparison_of_binomials(size, data, limit):
    take = data.draw(st.integers(0, size))
    assert fewer_choices(size, take, limit) == (comb(size, take) <= limit)


@given(problems(max_blocks=9, undecided=True), st.sampled_from([1, 4, 1000]))
@settings(max_examples=300, deadline=None)
def test_enumeration_offers_the_lowest_states_of_every_group(problem, k):
    reduced = problem.reduced
    energies = feasible_energies(reduced)
    k = min(k, len(energies))
    node = root_node(reduced, np.zeros(len(reduced)))
    pool = empty_pool(k, len(reduced), 1e-13 * float(np.abs(reduced.Q).sum()))
    state = np.zeros(len(reduced), dtype=np.int8)
    offer_completions(node, np.arange(len(reduced)), state, pool, new_prefixes(len(reduced)))
    scale = 1e-12 * np.abs(reduced.Q).sum()
    np.testing.assert_allclose(np.sort(pool.energies), energies[:k], rtol=0, atol=scale)
    assert not state.any()
    assert (node.left == reduced.budgets).all()


@given(problems(max_blocks=9, undecided=True), st.floats(0, 4))
@settings(max_examples=300, deadline=None)
def test_the_bound_of_a_convex_form_lies_below_every_state(problem, effort):
    reduced = problem.reduced
    n, scale = len(reduced), float(np.abs(reduced.Q).sum())
    d = np.full(n, float(np.linalg.eigvalsh(reduced.Q)[0]) - 1e-12 * scale)
    slopes = Slopes(np.zeros(n), np.zeros(len(reduced.budgets)))
    lowest = feasible_energies(reduced)[0]
    bound = lower_bound(root_node(reduced, d), lowest, effort, slopes)
    assert bound <= lowest + 1e-12 * scale
