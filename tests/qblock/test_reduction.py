"""Exact variable fixing against all feasible states."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qblock.backend import Certificate
from qblock.errors import ProblemError
from qblock.problem import BlockRemovalProblem, Sensitivity
from qblock.reduction import reduce_below, reduce_to
from qblock.spectrum import Spectrum


def all_feasible(problem: BlockRemovalProblem) -> Spectrum:
    n = len(problem)
    states = ((np.arange(2**n)[:, None] >> np.arange(n)) & 1).astype(np.int8)
    return Spectrum.of_states(problem, states)


def certified(problem: BlockRemovalProblem, k: int) -> Spectrum:
    """The k lowest states with the certificate that an exact solver would give."""
    truth = all_feasible(problem)
    below = float(truth.energies[k]) if k < len(truth) else np.inf
    proof = Certificate(True, float(truth.energies[0]), below, False, 1e-9, 0)
    return Spectrum.of_states(problem, truth.states[:k], certificate=proof)


@st.composite
def problems(draw: st.DrawFn) -> BlockRemovalProblem:
    n = draw(st.integers(4, 9))
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    scales = np.exp(rng.normal(size=n) * draw(st.sampled_from([0.1, 1.0, 2.0])))
    samples = rng.normal(size=(12, n)) * scales
    groups = tuple(draw(st.sampled_from(["a" * n, ("ab" * n)[:n]])))
    sensitivity = Sensitivity.from_samples(samples, groups=groups)
    remove = {g: draw(st.integers(1, groups.count(g) - 1)) for g in sorted(set(groups))}
    linear = draw(st.booleans())
    return BlockRemovalProblem(sensitivity, remove=remove, linear=linear)


@settings(max_examples=60, deadline=None)
@given(problem=problems(), k=st.integers(2, 40), undecided=st.integers(0, 9))
def test_no_state_below_the_limit_is_lost(
    problem: BlockRemovalProblem, k: int, undecided: int
) -> None:
    reduction = reduce_to(certified(problem, k), undecided)
    truth, left = all_feasible(problem), all_feasible(reduction.problem)
    lowest = truth.states[truth.energies < reduction.below]
    assert reduction.undecided <= undecided
    assert reduction.num_states == len(lowest) >= 1
    np.testing.assert_array_equal(left.states[: len(lowest)], lowest)
    np.testing.assert_allclose(
        left.energies[: len(lowest)], truth.energies[: len(lowest)], rtol=1e-9, atol=1e-9
    )
    assert problem.is_feasible(left.states).all()


def test_a_higher_limit_leaves_more_undecided() -> None:
    rng = np.random.default_rng(1)
    samples = rng.normal(size=(30, 10)) * np.linspace(0.5, 2, 10)
    problem = BlockRemovalProblem(Sensitivity.from_samples(samples), remove=4)
    spectrum = certified(problem, 100)
    sizes = [reduce_below(spectrum, float(e)).undecided for e in spectrum.energies[1:]]
    assert sizes == sorted(sizes)
    assert sizes[0] == 0
    assert reduce_to(spectrum, 6).undecided <= 6


def test_pins_of_the_problem_are_kept() -> None:
    samples = np.random.default_rng(2).normal(size=(20, 8))
    problem = BlockRemovalProblem(
        Sensitivity.from_samples(samples), remove=3, keep=["0"], drop=["5"]
    )
    reduction = reduce_to(certified(problem, 10), 8)
    assert "0" in reduction.problem.keep
    assert "5" in reduction.problem.drop


def test_refusals() -> None:
    problem = BlockRemovalProblem(Sensitivity(H=np.diag([1.0, 2.0, 3.0, 4.0])), remove=2)
    spectrum = certified(problem, 3)
    with pytest.raises(ProblemError, match="proved complete below 5 only"):
        reduce_below(spectrum, 6.0)
    with pytest.raises(ProblemError, match="no state has an energy below"):
        reduce_below(spectrum, 1.0)
    uncertified = Spectrum.of_states(problem, spectrum.states)
    with pytest.raises(ProblemError, match="certified"):
        reduce_to(uncertified, 2)
    tied = BlockRemovalProblem(Sensitivity(H=np.eye(4)), remove=2)
    with pytest.raises(ProblemError, match="prove more states"):
        reduce_to(certified(tied, 3), 4)
    with pytest.raises(ProblemError, match="differ in more than 2 blocks"):
        reduce_to(certified(tied, 6), 2)
