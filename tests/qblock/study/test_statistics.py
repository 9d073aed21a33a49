import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from support import all_states, problems

from qblock.study.statistics import Proportion, random_feasible_mean, time_to_solution


def test_interval_covers_the_truth_as_often_as_promised():
    rng = np.random.default_rng(0)
    for p in (0.03, 0.3, 0.9):
        draws = rng.binomial(25, p, size=2000)
        ends = {s: Proportion(s, 25).interval() for s in set(draws.tolist())}
        covered = np.mean([ends[s][0] <= p <= ends[s][1] for s in draws.tolist()])
        assert covered >= 0.94


def test_known_interval():
    low, high = Proportion(0, 10).interval()
    assert low == 0
    assert high == pytest.approx(1 - 0.025 ** (1 / 10))
    assert Proportion(10, 10).interval()[1] == 1


@pytest.mark.parametrize(("successes", "trials"), [(-1, 3), (4, 3), (0, 0)])
def test_impossible_counts_are_refused(successes, trials):
    with pytest.raises(ValueError, match="successes"):
        Proportion(successes, trials)


def test_time_to_solution_of_a_coin():
    """Simulated: repeat a run of 2 s with success 0.3 until the first success."""
    tts = time_to_solution(Proportion(300, 1000), 2.0)
    runs = np.random.default_rng(1).geometric(0.3, size=200_000)
    enough = math.log(0.01) / math.log(0.7)
    assert tts.value == pytest.approx(2 * enough)
    assert np.mean(runs <= math.ceil(enough)) >= 0.99
    assert tts.low < tts.value < tts.high


def test_no_success_gives_a_bound_and_all_successes_one_run():
    none = time_to_solution(Proportion(0, 10), 1.0)
    assert none.value is None
    assert none.high is None
    assert 0 < none.low < math.inf
    every = time_to_solution(Proportion(10, 10), 1.5)
    assert every.value == every.low == 1.5
    assert every.high > 1.5


@given(problems(max_blocks=7))
@settings(max_examples=50)
def test_mean_of_random_feasible_states(problem):
    states = all_states(len(problem))
    expected = problem.energy(states[problem.is_feasible(states)]).mean()
    mean = random_feasible_mean(problem.reduced) + problem.reduced.offset
    assert mean == pytest.approx(expected, rel=1e-9, abs=1e-9 * (1 + np.abs(problem.Q).sum()))


def test_all_pairs_of_counts_are_ordered():
    for s, n in itertools.product(range(6), [5]):
        low, high = Proportion(s, n).interval()
        assert 0 <= low <= s / n <= high <= 1
