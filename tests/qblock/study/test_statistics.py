"""Each statistic against a distribution whose truth is known."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qblock import BlockRemovalProblem
from qblock.study.statistics import (
    Interval,
    Proportion,
    coverage,
    median_over_instances,
    paired_difference,
    performance_profile,
    random_feasible_mean,
    time_to_solution,
)
from qblock.testing import random_sensitivity


@pytest.mark.parametrize("p", [0.02, 0.3, 0.9])
@pytest.mark.parametrize("trials", [5, 20])
def test_exact_intervals_cover_the_truth(p: float, trials: int) -> None:
    """The coverage is a finite sum, so nothing is left to chance."""
    covered = 0.0
    for successes in range(trials + 1):
        low, high = Proportion(successes, trials).interval()
        weight = math.comb(trials, successes) * p**successes * (1 - p) ** (trials - successes)
        covered += weight * (low <= p <= high)
    assert covered >= 0.95


def test_clopper_pearson_at_the_ends() -> None:
    # no success: the upper end solves (1 - p)^n = 0.025
    low, high = Proportion(0, 10).interval()
    assert low == 0
    assert high == pytest.approx(1 - 0.025 ** (1 / 10))
    low, high = Proportion(10, 10).interval()
    assert low == pytest.approx(0.025 ** (1 / 10))
    assert high == 1


def test_time_to_solution_of_known_probability() -> None:
    """Waiting for the first success of runs of 2 s: TTS is the 99 % quantile of the wait."""
    p, seconds = 0.2, 2.0
    tts = time_to_solution(Proportion(200, 1000), seconds)
    assert tts.value == pytest.approx(seconds * math.log(0.01) / math.log(1 - p))
    assert tts.high is not None
    assert tts.low < tts.value < tts.high
    waits = seconds * np.random.default_rng(0).geometric(p, 100_000)
    assert np.mean(waits <= tts.value + seconds) >= 0.99
    assert np.mean(waits <= tts.value - seconds) < 0.99


def test_time_to_solution_interval_covers_the_truth() -> None:
    p, trials = 0.3, 15
    truth = math.log(0.01) / math.log(1 - p)
    covered = 0.0
    for successes in range(trials + 1):
        tts = time_to_solution(Proportion(successes, trials), 1.0)
        inside = tts.low <= truth and (tts.high is None or truth <= tts.high)
        weight = math.comb(trials, successes) * p**successes * (1 - p) ** (trials - successes)
        covered += weight * inside
    assert covered >= 0.95


@given(st.integers(1, 200), st.floats(1e-6, 1e3))
def test_no_success_gives_a_bound_and_success_always_at_least_one_run(
    trials: int, seconds: float
) -> None:
    never = time_to_solution(Proportion(0, trials), seconds)
    assert never.value is None
    assert never.high is None
    assert seconds <= never.low < math.inf
    always = time_to_solution(Proportion(trials, trials), seconds)
    assert always.value == pytest.approx(seconds)
    assert always.low == pytest.approx(seconds)
    assert always.high is not None


def test_bootstrap_median_covers_the_truth() -> None:
    rng = np.random.default_rng(1)
    hits = 0
    for repeat in range(200):
        drawn = rng.lognormal(0.0, 1.0, 40)  # median 1
        interval = median_over_instances([Interval(v, v, v) for v in drawn], seed=repeat)
        assert interval.high is not None
        hits += interval.low <= 1.0 <= interval.high
    assert 0.90 <= hits / 200 <= 0.99


def test_median_over_instances_with_unsolved_ones() -> None:
    solved, unsolved = Interval(1.0, 0.5, 2.0), Interval(None, 7.0, None)
    most = median_over_instances([solved] * 9 + [unsolved])
    assert most.value == 1.0
    few = median_over_instances([solved] + [unsolved] * 9)
    assert few.value is None
    assert few.high is None
    assert few.low <= 7.0
    assert median_over_instances([solved]) == solved
    none = median_over_instances([unsolved])
    assert none == Interval(None, 7.0, None)


def test_paired_differences_cover_the_truth() -> None:
    rng = np.random.default_rng(2)
    hits = 0
    for repeat in range(200):
        difficulty = rng.lognormal(0, 2, 30)  # far larger than the difference of 0.5
        first, second = difficulty + rng.normal(0.5, 1, 30), difficulty
        interval = paired_difference(list(first), list(second), seed=repeat)
        assert interval.high is not None
        hits += interval.low <= 0.5 <= interval.high
    assert 0.88 <= hits / 200 <= 0.99
    assert paired_difference([1.0, 2.0], [0.0, 1.0]) == Interval(1.0, 1.0, 1.0)
    with pytest.raises(ValueError, match="two pairs"):
        paired_difference([1.0], [2.0])


def test_performance_profile_by_hand() -> None:
    costs = [[1.0, 4.0, math.inf, math.inf], [2.0, 1.0, 3.0, math.inf]]
    tau, share = performance_profile(costs)
    np.testing.assert_allclose(tau, [1, 2, 4])
    np.testing.assert_allclose(share, [[0.25, 0.25, 0.5], [0.5, 0.75, 0.75]])


def test_coverage_counts_states_not_samples() -> None:
    wanted = np.array([[1, 0, 0], [0, 1, 0]], dtype=np.int8)
    found = np.array([[1, 0, 0], [1, 0, 0], [0, 0, 1]], dtype=np.int8)
    assert coverage(found, wanted) == 0.5
    assert coverage(found[:0], wanted) == 0


def test_random_mean_is_the_mean_of_all_feasible_states() -> None:
    groups = ("a", "b", "a", "b", "a", "b")
    problem = BlockRemovalProblem(random_sensitivity(6, groups=groups), remove={"a": 2, "b": 1})
    states = np.array(list(itertools.product((0, 1), repeat=6)))
    feasible = states[problem.is_feasible(states)]
    reduced = problem.reduced
    assert random_feasible_mean(reduced) + reduced.offset == pytest.approx(
        problem.energy(feasible).mean()
    )
