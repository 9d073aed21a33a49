import numpy as np
import pytest
from hypothesis import given, settings
from support import all_states, problems

from qblock.problem import BlockRemovalProblem, Sensitivity
from qblock.registry import get_backend
from qblock.spectrum import Spectrum, rank


@given(problems())
@settings(max_examples=100)
def test_ranks_distinct_feasible_states_by_energy(problem):
    states = all_states(len(problem))
    spectrum = Spectrum.of_states(problem, np.repeat(states, 2, axis=0))
    feasible = problem.is_feasible(states)
    assert len(spectrum) == feasible.sum()
    assert spectrum.infeasible == 2 * (~feasible).sum()
    assert (spectrum.occurrences == 2).all()
    scale = np.abs(spectrum.energies).max(initial=0)
    assert (np.diff(spectrum.energies) >= -1e-11 * scale).all()


def test_ties_come_in_the_order_of_the_removed_blocks():
    problem = BlockRemovalProblem(Sensitivity(H=np.eye(4)), remove=2)
    spectrum = Spectrum.of_states(problem, all_states(4)[::-1])
    assert [state.removed for state in spectrum] == [
        ("0", "1"), ("0", "2"), ("0", "3"), ("1", "2"), ("1", "3"), ("2", "3"),
    ]  # fmt: skip
    assert spectrum.degeneracy == 6
    assert spectrum.feasible_rate == 6 / 16


def test_rounding_does_not_decide_the_order():
    energies = np.array([1.0 + 1e-15, 1.0, 0.5, 1.0 + 1e-9])
    assert rank(energies).tolist() == [2, 0, 1, 3]


def test_merges_results_of_several_backends():
    sensitivity = Sensitivity.from_samples(np.random.default_rng(0).standard_normal((20, 8)))
    problem = BlockRemovalProblem(sensitivity, remove=3)
    results = [get_backend("random").sample(problem, seed=s, num_reads=50) for s in range(3)]
    merged = Spectrum.of(problem, *results)
    assert merged.occurrences.sum() == 150
    assert merged[0].energy == min(Spectrum.of(problem, r)[0].energy for r in results)
    assert merged[-1].rank == len(merged) - 1
    with pytest.raises(IndexError):
        merged[len(merged)]


def test_results_of_another_problem_are_refused():
    sensitivity = Sensitivity(H=np.eye(4))
    result = get_backend("random").sample(BlockRemovalProblem(sensitivity, remove=1), seed=0)
    with pytest.raises(ValueError, match="another problem"):
        Spectrum.of(BlockRemovalProblem(sensitivity, remove=2), result)


def test_empty():
    problem = BlockRemovalProblem(Sensitivity(H=np.eye(3)), remove=1)
    spectrum = Spectrum.of(problem)
    assert len(spectrum) == 0
    assert spectrum.feasible_rate == 0
    assert spectrum.degeneracy == 0
