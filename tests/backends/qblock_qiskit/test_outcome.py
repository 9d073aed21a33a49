"""Figures and numbers of a final state."""

import numpy as np
import pytest
from qblock_qiskit.ansatz import FixedWeightAnsatz, PenaltyAnsatz
from qblock_qiskit.optimise import linear_ramp, one_layer_more
from qblock_qiskit.outcome import exact_outcome, landscape
from qblock_qiskit.plot import landscape_figure
from qblock_qiskit.vector import conditional_value_at_risk

from qblock import BlockRemovalProblem, Sensitivity

SAMPLES = np.random.default_rng(0).normal(size=(20, 7))
PROBLEM = BlockRemovalProblem(Sensitivity.from_samples(SAMPLES), remove=3).reduced


def test_uniform_state_is_as_good_as_guessing() -> None:
    ansatz = FixedWeightAnsatz(PROBLEM, "ring")
    simulator = ansatz.simulator()
    start = exact_outcome(simulator, simulator.evolve(np.zeros(1), np.zeros(1)), offset=5.0)
    assert start.gap == pytest.approx(1)
    assert (
        start.optimum_probability
        == pytest.approx(start.random_probability)
        == pytest.approx(1 / 35)
    )
    assert start.energy == pytest.approx(simulator.energies.mean() + 5)
    assert len(start.lowest_energies) == 35


def test_penalty_state_knows_its_feasible_share() -> None:
    simulator = PenaltyAnsatz(PROBLEM, "tight").simulator()
    start = exact_outcome(simulator, simulator.evolve(np.zeros(1), np.zeros(1)), offset=0.0)
    assert start.feasible_probability == pytest.approx(35 / 128)
    assert start.optimum_probability == pytest.approx(1 / 128)


def test_landscape_is_flat_without_a_mixer_and_has_a_valley() -> None:
    simulator = FixedWeightAnsatz(PROBLEM, "complete").simulator()
    energies = landscape(simulator, np.linspace(-0.3, 0.3, 5), np.array([0.0, 0.5]))
    np.testing.assert_allclose(energies[2], simulator.energies.mean())
    assert energies[:, 1].min() < simulator.energies.mean() < energies[:, 1].max()


def test_the_landscape_is_drawn() -> None:
    pytest.importorskip("matplotlib")
    ansatz = FixedWeightAnsatz(PROBLEM, "ring")
    (mesh,) = landscape_figure(ansatz, points=5).axes[0].collections
    drawn = np.asarray(mesh.get_array())
    assert drawn.shape == (5, 5)
    np.testing.assert_allclose(drawn[2], ansatz.simulator().energies.mean() + PROBLEM.offset)


def test_conditional_value_at_risk_against_a_sorted_sample() -> None:
    energies = np.array([3.0, 1.0, 2.0, 4.0])
    weights = np.array([0.25, 0.25, 0.25, 0.25])
    order = np.argsort(energies)
    for alpha, expected in ((1.0, 2.5), (0.25, 1.0), (0.5, 1.5), (0.375, 4 / 3), (0.01, 1.0)):
        assert conditional_value_at_risk(energies, weights, order, alpha) == pytest.approx(expected)


def test_one_layer_more_keeps_a_ramp_a_ramp() -> None:
    np.testing.assert_allclose(one_layer_more(np.array([0.4, 0.7])), [0.4, 0.4, 0.7, 0.7])
    more = one_layer_more(linear_ramp(4))
    assert len(more) == 10
    assert (np.diff(more[:5]) < 0).all()
    assert (np.diff(more[5:]) > 0).all()
