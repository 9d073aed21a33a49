"""Selecting and validating by measured loss."""

import numpy as np
import pytest
from llm_support import plain_losses, ragged_tokens
from scipy.stats import kendalltau, spearmanr
from tiny_models import tiny_model

from qblock.errors import ParameterError, ProblemError
from qblock.llm.blocks import residual_stack
from qblock.llm.calibrate import calibrate
from qblock.llm.select import lowest, matching_stack, refine, select
from qblock.llm.validate import Validation, rank_agreement, scatter_plot, validate
from qblock.problem import BlockRemovalProblem, Sensitivity


@pytest.fixture(scope="module")
def stack():
    return residual_stack(tiny_model(num_hidden_layers=7))


@pytest.fixture(scope="module")
def problem(stack):
    return BlockRemovalProblem(calibrate(stack, ragged_tokens()), remove=3)


def test_select_ranks_the_lowest_states_by_their_loss(stack, problem):
    tokens = ragged_tokens()
    measured = select(stack, problem, tokens, candidates=6)
    assert sorted(item.state.rank for item in measured) == list(range(6))
    assert {m.state.removed for m in measured} == {s.removed for s in lowest(problem, 6)}
    for item in measured:
        expected = plain_losses(stack, problem.state_of(item.state.removed), tokens)
        assert item.loss == pytest.approx(np.mean(expected), rel=1e-4)
        assert item.error == pytest.approx(np.std(expected, ddof=1) / np.sqrt(3), rel=1e-2)
    assert [m.loss for m in measured] == sorted(m.loss for m in measured)


def test_enough_rounds_find_the_best_state_of_all(stack, problem):
    measured = select(stack, problem, ragged_tokens(), candidates=10, rounds=4)
    assert len({item.state.removed for item in measured}) == 35  # C(7, 3)
    everything = select(stack, problem, ragged_tokens(), candidates=35)
    assert measured[0].state.removed == everything[0].state.removed


def test_refine_recovers_a_quadratic_loss():
    rng = np.random.default_rng(0)
    B = rng.standard_normal((6, 6))
    truth = BlockRemovalProblem(Sensitivity(H=B @ B.T), remove=3)
    wrong = BlockRemovalProblem(Sensitivity(H=np.eye(6)), remove=3)
    states = lowest(truth, 20).states
    refined = BlockRemovalProblem(refine(wrong, states, truth.energy(states), ridge=1e-9), remove=3)
    np.testing.assert_allclose(refined.energy(states), truth.energy(states), rtol=1e-4)


@pytest.mark.parametrize("option", ["candidates", "rounds"])
def test_nothing_to_measure_is_refused(stack, problem, option):
    with pytest.raises(ParameterError, match="at least one"):
        select(stack, problem, ragged_tokens(), **{option: 0})


def test_the_stack_is_the_one_that_was_calibrated(problem):
    model = tiny_model(num_hidden_layers=7)
    assert matching_stack(model, problem).names == problem.blocks
    sublayers = residual_stack(model, "sublayer")
    fine = BlockRemovalProblem(Sensitivity(H=np.eye(14), blocks=sublayers.names), remove=3)
    assert matching_stack(model, fine).names == sublayers.names
    with pytest.raises(ProblemError, match="calibrated"):
        matching_stack(tiny_model(), problem)


def test_validation_measures_low_and_spread_states(stack, problem):
    tokens = ragged_tokens()
    validation = validate(stack, problem, tokens, states=12)
    assert len({state.tobytes() for state in validation.states}) == 12
    assert problem.is_feasible(validation.states).all()
    np.testing.assert_array_equal(validation.states[:6], lowest(problem, 6).states)
    random_energies = validation.energies[validation.random]
    assert (np.diff(random_energies) >= 0).all()
    assert random_energies[-1] == pytest.approx(lowest(problem, 35).energies[-1])
    for state, loss in zip(validation.states, validation.losses, strict=True):
        assert loss == pytest.approx(np.mean(plain_losses(stack, state, tokens)), rel=1e-4)


def made_up(energies, losses):
    problem = BlockRemovalProblem(Sensitivity(H=np.diag(np.arange(1.0, 31))), remove=1)
    return Validation(problem, lowest(problem, 30).states, energies, losses, 1.0, 15)


def test_the_verdict_follows_the_interval():
    energies = np.arange(30.0)
    rng = np.random.default_rng(0)
    assert "ranks models here" in made_up(energies, energies**3).verdict
    rough = made_up(energies, energies + 8 * rng.standard_normal(30))
    assert "roughly" in rough.verdict
    assert "does not rank" in made_up(energies, rng.standard_normal(30)).verdict
    assert "number 30 of the 30" in made_up(energies, -energies).verdict


@pytest.mark.parametrize(("name", "reference"), [("spearman", spearmanr), ("kendall", kendalltau)])
def test_the_interval_holds_the_estimate(name, reference):
    rng = np.random.default_rng(1)
    x = rng.standard_normal(25)
    y = x + rng.standard_normal(25)
    interval = rank_agreement(x, y, name)
    assert interval.value == pytest.approx(reference(x, y).statistic)
    assert interval.low < interval.value < interval.high


def test_the_interval_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(2)
    truth = 6 / np.pi * np.arcsin(0.7 / 2)  # Spearman of a normal pair with correlation 0.7
    hits = 0
    for _ in range(40):
        x = rng.standard_normal(40)
        y = 0.7 * x + np.sqrt(1 - 0.49) * rng.standard_normal(40)
        interval = rank_agreement(x, y, "spearman")
        hits += interval.low <= truth <= interval.high
    assert hits >= 33


@pytest.mark.parametrize(("states", "error"), [(3, ParameterError), (36, ProblemError)])
def test_too_few_states_are_refused(stack, problem, states, error):
    with pytest.raises(error, match=str(states)):
        validate(stack, problem, ragged_tokens(), states=states)


def test_the_plot_shows_every_state():
    pytest.importorskip("matplotlib")
    validation = made_up(np.arange(30.0), np.arange(30.0))
    axes = scatter_plot(validation).axes[0]
    shown = np.concatenate([points.get_offsets() for points in axes.collections])
    assert sorted(map(tuple, shown)) == [(float(i), float(i)) for i in range(30)]
