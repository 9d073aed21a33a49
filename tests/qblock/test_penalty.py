import numpy as np
import pytest
from hypothesis import given, settings
from support import all_states, plain_energy, problems

from qblock.errors import ParameterError
from qblock.penalty import penalty_weight
from qblock.problem import BlockRemovalProblem, Sensitivity


def _energies_and_violations(reduced):
    states = all_states(len(reduced))
    energies = np.array([plain_energy(reduced.Q, y) for y in states])
    members = reduced.group_of[:, None] == np.arange(len(reduced.budgets))
    violations = ((states.astype(int) @ members - reduced.budgets) ** 2).sum(axis=1)
    return energies, violations


@given(problems(undecided=True))
@settings(max_examples=200)
def test_tight_weight_puts_every_infeasible_state_above_the_best_feasible(problem):
    reduced = problem.reduced
    energies, violations = _energies_and_violations(reduced)
    penalised = energies + penalty_weight(reduced, "tight") * violations
    assert penalised[violations > 0].min() > energies[violations == 0].min()


@given(problems(undecided=True))
@settings(max_examples=200)
def test_safe_weight_puts_every_infeasible_state_above_every_feasible(problem):
    reduced = problem.reduced
    energies, violations = _energies_and_violations(reduced)
    penalised = energies + penalty_weight(reduced, "safe") * violations
    assert penalised[violations > 0].min() > energies[violations == 0].max()


@given(problems(undecided=True))
@settings(max_examples=200)
def test_tight_is_never_above_safe(problem):
    reduced = problem.reduced
    assert penalty_weight(reduced, "tight") <= penalty_weight(reduced, "safe") * (1 + 1e-6)


def test_tight_weight_is_near_the_smallest_sufficient_one():
    """On random dense instances; the smallest one is known by enumeration."""
    ratios = []
    for seed in range(20):
        A = np.random.default_rng(seed).standard_normal((40, 10))
        reduced = BlockRemovalProblem(Sensitivity.from_samples(A), remove=4).reduced
        energies, violations = _energies_and_violations(reduced)
        best = energies[violations == 0].min()
        infeasible = violations > 0
        smallest = ((best - energies[infeasible]) / violations[infeasible]).max()
        ratios.append(penalty_weight(reduced, "tight") / smallest)
    assert min(ratios) > 1
    assert max(ratios) < 1.02


@pytest.mark.parametrize("penalty", [0, -1.0, float("inf"), float("nan"), "loose"])
def test_bad_weights_are_refused(penalty):
    reduced = BlockRemovalProblem(Sensitivity(H=np.eye(3)), remove=1).reduced
    with pytest.raises(ParameterError, match="penalty must be"):
        penalty_weight(reduced, penalty)
