"""Selecting and validating by measured loss."""

import numpy as np
import pytest
from llm_support import plain_losses, ragged_tokens
from scipy.stats import kendalltau, spearmanr
from tiny_models import tiny_model

from qblock.errors import ParameterError, ProblemError
from qblock.llm.blocks import residual_stack
from qblock.llm.calibrate import calibrate
from qblock.llm.select import matching_stack, select
from qblock.llm.states import lowest
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
    measured = select(stack, problem, tokens, candidates=6).measured
    assert sorted(item.state.rank for item in measured) == list(range(6))
    assert {m.state.removed for m in measured} == {s.removed for s in lowest(problem, 6)}
    for item in measured:
        expected = plain_losses(stack, problem.state_of(item.state.removed), tokens)
        assert item.loss == pytest.approx(np.mean(expected), rel=1e-4)
        assert item.error == pytest.approx(np.std(expected, ddof=1) / np.sqrt(3), rel=1e-2)
        assert item.rows == 3
    assert [m.loss for m in measured] == sorted(m.loss for m in measured)


def test_enough_rounds_find_the_best_state_of_all(stack, problem):
    found = select(stack, problem, ragged_tokens(), candidates=10, rounds=4)
    assert len({item.state.removed for item in found.measured}) == 35  # C(7, 3)
    everything = select(stack, problem, ragged_tokens(), candidates=35)
    assert found.best.removed == everything.best.removed


def test_finalists_are_measured_on_all_the_text(stack, problem):
    tokens = ragged_tokens(8)
    found = select(
        stack, problem, tokens, candidates=4, rounds=2, random=5, search_rows=2, finalists=3
    )
    first, others = found.measured[:3], found.measured[3:]
    assert [item.rows for item in first] == [8, 8, 8]
    assert len(others) == 4 + 4 + 5 - 3
    assert {item.rows for item in others} == {2}
    for part in (first, others):
        assert [item.loss for item in part] == sorted(item.loss for item in part)
    for item in (first[0], others[0]):
        rows = tokens[::4] if item.rows == 2 else tokens
        expected = plain_losses(stack, problem.state_of(item.state.removed), rows)
        assert item.loss == pytest.approx(np.mean(expected), rel=1e-4)
    assert found.best == first[0].state


@pytest.mark.parametrize("search_rows", [None, 2])
def test_a_better_state_chosen_otherwise_wins(stack, problem, search_rows):
    tokens = ragged_tokens(8)
    everything = select(stack, problem, tokens, candidates=35)
    best = problem.state_of(everything.best.removed)
    worst = problem.state_of(everything.measured[-1].state.removed)
    few = {"candidates": 1, "search_rows": search_rows}
    low = select(stack, problem, tokens, **few).best.removed
    found = select(stack, problem, tokens, challengers=np.array([worst, best]), **few)
    assert found.best.removed == everything.best.removed
    assert {m.state.removed for m in found.measured} >= {low, everything.best.removed}
    assert [m.rows for m in found.measured] == [8] * len(found.measured)
    kept = select(stack, problem, tokens, challengers=np.array([worst]), **few)
    assert kept.best.removed == low


def test_what_is_measured_corrects_the_energy(stack, problem):
    tokens = ragged_tokens()
    found = select(stack, problem, tokens, candidates=10, random=10)
    states = np.array([problem.state_of(m.state.removed) for m in found.measured])
    losses = np.array([m.loss for m in found.measured])
    refined = BlockRemovalProblem(found.refined, remove=3)
    before, after = (spearmanr(p.energy(states), losses)[0] for p in (problem, refined))
    assert after > max(before, 0.95)
    assert found.refined.provenance["refined"]["states"] == 20


def test_ctrl_c_keeps_finished_rounds(stack, problem):
    def interrupt(share: float) -> None:
        if share > 0.7:
            raise KeyboardInterrupt

    found = select(stack, problem, ragged_tokens(), candidates=8, rounds=2, report=interrupt)
    assert found.interrupted
    assert len(found.measured) == 8
    whole = select(stack, problem, ragged_tokens(), candidates=8)
    assert not whole.interrupted
    assert found.measured == whole.measured


@pytest.mark.parametrize("search_rows", [0, 4])
def test_rows_that_are_not_there_are_refused(stack, problem, search_rows):
    with pytest.raises(ParameterError, match=f"{search_rows} of 3 rows"):
        select(stack, problem, ragged_tokens(), search_rows=search_rows)


@pytest.mark.parametrize("option", ["candidates", "rounds", "finalists"])
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
