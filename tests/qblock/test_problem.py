import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from support import all_states, plain_energy, problems

from qblock.errors import ProblemError
from qblock.problem import BlockRemovalProblem, Sensitivity

H3 = np.array([[2.0, -1.0, 0.5], [-1.0, 3.0, 0.0], [0.5, 0.0, 1.0]])


@given(problems())
@settings(max_examples=100)
def test_energy_is_the_quadratic_form(problem):
    states = all_states(len(problem))
    expected = [plain_energy(problem.Q, state) for state in states]
    np.testing.assert_allclose(problem.energy(states), expected, rtol=1e-12, atol=1e-9)


@given(problems())
@settings(max_examples=200)
def test_reduced_problem_has_the_same_feasible_states_and_energies(problem):
    states = all_states(len(problem))
    feasible = states[problem.is_feasible(states)]
    reduced = problem.reduced
    free = all_states(len(reduced))
    free = free[reduced.is_feasible(free)]
    lifted = reduced.lift(free)
    assert {s.tobytes() for s in lifted} == {s.tobytes() for s in feasible}
    assert len(free) == reduced.num_feasible
    energies = np.array([plain_energy(reduced.Q, y) for y in free]) + reduced.offset
    np.testing.assert_allclose(
        problem.energy(lifted), energies, rtol=1e-9, atol=1e-9 * np.abs(problem.Q).sum()
    )
    sizes = np.bincount(reduced.group_of, minlength=len(reduced.budgets))
    assert ((reduced.budgets > 0) & (reduced.budgets < sizes)).all()


def test_fisher_estimate_is_the_mean_outer_product_and_gradient():
    A = np.random.default_rng(0).standard_normal((50, 4))
    sensitivity = Sensitivity.from_samples(A)
    np.testing.assert_allclose(sensitivity.H, sum(np.outer(a, a) for a in A) / 50)
    np.testing.assert_allclose(sensitivity.g, A.mean(axis=0))
    assert sensitivity.curvature == "fisher"


def test_linear_term_lowers_the_energy_by_twice_the_gradient():
    g = np.array([0.1, -0.2, 0.3])
    problem = BlockRemovalProblem(Sensitivity(H=H3, g=g), remove=2, linear=True)
    states = all_states(3)
    expected = [x @ H3 @ x - 2 * g @ x for x in states.astype(float)]
    np.testing.assert_allclose(problem.energy(states), expected, atol=1e-12)


def test_content_hash_knows_equal_from_different():
    problem = BlockRemovalProblem(Sensitivity(H=H3), remove=1)
    assert problem == BlockRemovalProblem(Sensitivity(H=H3.copy(), name="other"), remove=1)
    assert hash(problem) == hash(BlockRemovalProblem(Sensitivity(H=H3), remove=1))
    others = [
        BlockRemovalProblem(Sensitivity(H=H3), remove=2),
        BlockRemovalProblem(Sensitivity(H=H3), remove=1, keep=["0"]),
        BlockRemovalProblem(Sensitivity(H=H3), remove=1, drop=["0"]),
        BlockRemovalProblem(Sensitivity(H=H3 * 2), remove=1),
        BlockRemovalProblem(Sensitivity(H=H3, blocks=("a", "b", "c")), remove=1),
    ]
    assert len({problem.id, *(other.id for other in others)}) == 6


def test_immutable():
    sensitivity = Sensitivity(H=H3)
    with pytest.raises(ValueError, match="read-only"):
        sensitivity.H[0, 0] = 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        sensitivity.name = "x"
    source = H3.copy()
    sensitivity = Sensitivity(H=source)
    source[0, 0] = 99
    assert sensitivity.H[0, 0] == 2


def test_rounding_asymmetry_is_averaged_away():
    skewed = H3.copy()
    skewed[0, 1] += 1e-12
    H = Sensitivity(H=skewed).H
    assert (H == H.T).all()


@pytest.mark.parametrize(
    ("H", "message"),
    [
        (np.zeros((2, 3)), "square"),
        (np.zeros((0, 0)), "at least one block"),
        (np.zeros(3), "dimension"),
        (np.array([[1.0, 2.0], [0.0, 1.0]]), "not symmetric"),
        (np.array([[np.nan, 0.0], [0.0, 1.0]]), r"NaN or infinite .*\[0, 0\]"),
        (np.array([[1.0, np.inf], [np.inf, 1.0]]), "NaN or infinite"),
        ([["a"]], "real numbers"),
    ],
)
def test_bad_matrices_are_refused(H, message):
    with pytest.raises(ProblemError, match=message):
        Sensitivity(H=H)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"blocks": ("a", "b")}, "2 block names for 3 blocks"),
        ({"blocks": ("a", "b", "a")}, "'a' occurs twice"),
        ({"groups": ("x",)}, "1 group names for 3 blocks"),
        ({"g": np.zeros(2)}, "2 entries of g for 3 blocks"),
        ({"A": np.zeros((5, 2))}, "2 columns of A for 3 blocks"),
    ],
)
def test_mismatched_fields_are_refused(fields, message):
    with pytest.raises(ProblemError, match=message):
        Sensitivity(H=H3, **fields)


def test_empty_samples_are_refused():
    with pytest.raises(ProblemError, match="A is empty"):
        Sensitivity.from_samples(np.zeros((0, 4)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"remove": 4}, r"4 blocks cannot be removed from 3 \(budget `remove=4`, instance 'toy'\)"),
        ({"remove": -1}, "-1 blocks"),
        ({"remove": 1.5}, "whole number"),
        ({"remove": True}, "whole number"),
        ({"remove": 1, "keep": ["z"]}, "keep='z' names no block of 'toy'"),
        ({"remove": 1, "drop": ["z"]}, "drop='z'"),
        ({"remove": 1, "keep": ["0"], "drop": ["0"]}, "'0' is pinned twice"),
        ({"remove": 1, "drop": ["0", "1"]}, "drop= forces 2"),
        ({"remove": 3, "keep": ["0"]}, "keep= leaves 2"),
        ({"remove": {"moe": 1}}, "group 'moe'; its groups are x, y"),
        ({"remove": {"y": 2}}, "2 blocks cannot be removed from 1"),
        ({"remove": 1, "linear": True}, "needs the gradient"),
    ],
)
def test_bad_budgets_and_pins_are_refused(options, message):
    sensitivity = Sensitivity(H=H3, groups=("x", "x", "y"), name="toy")
    with pytest.raises(ProblemError, match=message):
        BlockRemovalProblem(sensitivity, **options)


@pytest.mark.parametrize("states", [np.zeros((2, 4)), np.zeros((1, 2, 3)), np.full((1, 3), 2)])
def test_bad_states_are_refused(states):
    with pytest.raises(ProblemError, match="states"):
        BlockRemovalProblem(Sensitivity(H=H3), remove=1).energy(states)


def test_state_of_removed_blocks():
    problem = BlockRemovalProblem(Sensitivity(H=H3, blocks=("a", "b", "c")), remove=2)
    assert problem.state_of(["c", "a"]).tolist() == [1, 0, 1]
    with pytest.raises(ProblemError, match="no block"):
        problem.state_of(["d"])


def test_effective_rank():
    assert Sensitivity(H=np.eye(7)).effective_rank == pytest.approx(7)
    assert Sensitivity(H=np.ones((7, 7))).effective_rank == pytest.approx(1)
    assert Sensitivity(H=np.zeros((3, 3))).effective_rank == 0
