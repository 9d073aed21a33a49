"""Correcting the energy by measured losses."""

import numpy as np

from qblock.llm.refine import refine
from qblock.llm.states import lowest
from qblock.problem import BlockRemovalProblem, Sensitivity


def random_form(seed: int) -> BlockRemovalProblem:
    B = np.random.default_rng(seed).standard_normal((6, 6))
    return BlockRemovalProblem(Sensitivity(H=B @ B.T), remove=3)


def test_refine_recovers_a_quadratic_loss():
    truth = random_form(0)
    wrong = BlockRemovalProblem(Sensitivity(H=np.eye(6)), remove=3)
    states = lowest(truth, 20).states
    refined = BlockRemovalProblem(refine(wrong, states, truth.energy(states), ridge=1e-9), remove=3)
    np.testing.assert_allclose(refined.energy(states), truth.energy(states), rtol=1e-4)


def test_an_energy_that_is_right_is_left_alone():
    truth = random_form(1)
    states = lowest(truth, 7).states
    np.testing.assert_allclose(refine(truth, states, truth.energy(states)).H, truth.Q, atol=1e-12)


def test_the_gradient_is_part_of_what_is_corrected():
    B = np.random.default_rng(2).standard_normal((6, 6))
    linear = BlockRemovalProblem(Sensitivity(H=B @ B.T, g=np.ones(6)), remove=3, linear=True)
    states = lowest(linear, 5).states
    refined = refine(linear, states, linear.energy(states) + 1)
    assert refined.g is None
    corrected = BlockRemovalProblem(refined, remove=3).energy(states)
    assert (np.abs(corrected - linear.energy(states) - 1) < 0.2).all()
    assert refined.provenance["refined"]["remove"] == 3


def test_light_blocks_do_not_pay_for_a_heavy_one():
    """The loss without block 0 saturates; what that teaches must not disturb the others."""
    H = np.diag([100.0, 1, 1.1, 1.2, 1.3, 1.4])
    problem = BlockRemovalProblem(Sensitivity(H=H), remove=2)
    heavy = np.eye(6, dtype=np.int8)[1:] + np.eye(6, dtype=np.int8)[0]
    refined = refine(problem, heavy, np.full(5, 10.0))
    after = BlockRemovalProblem(refined, remove=2)
    assert (after.energy(heavy) < 20).all()
    light = [s for s in lowest(problem, 15).states if not s[0]]
    np.testing.assert_allclose(after.energy(light), problem.energy(light), rtol=0.05)
