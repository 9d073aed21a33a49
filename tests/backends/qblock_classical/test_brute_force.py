import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import all_states, problems

from qblock.errors import CapacityError
from qblock.problem import BlockRemovalProblem, Sensitivity
from qblock.registry import get_backend
from qblock.spectrum import Spectrum


@given(problems(), st.integers(1, 40))
@settings(max_examples=300)
def test_k_lowest_states_with_a_true_certificate(problem, k):
    result = get_backend("brute-force").sample(problem, seed=0, k=k)
    states = all_states(len(problem))
    truth = Spectrum.of_states(problem, states[problem.is_feasible(states)])
    found = Spectrum.of(problem, result)
    tolerance = 1e-10 * (1 + np.abs(problem.Q).sum())
    assert len(found) == min(k, len(truth))
    np.testing.assert_allclose(found.energies, truth.energies[: len(found)], atol=tolerance)

    certificate = result.certificate
    assert certificate.proved
    assert certificate.lower_bound == pytest.approx(truth.energies[0], abs=tolerance)
    listed = {state.tobytes() for state in found.states}
    for state, energy in zip(truth.states, truth.energies, strict=True):
        if energy < certificate.complete_below - tolerance:
            assert state.tobytes() in listed
    if len(truth) > k:
        tied = truth.energies[k] <= truth.energies[k - 1] + 1e-12 * np.abs(problem.Q).sum()
        assert certificate.ties_at_kth == tied
    else:
        assert not certificate.ties_at_kth


def test_too_many_states_are_refused_with_advice():
    problem = BlockRemovalProblem(Sensitivity(H=np.eye(60)), remove=30)
    with pytest.raises(CapacityError, match="backend 'exact'"):
        get_backend("brute-force").sample(problem)


def test_stopped_run_keeps_its_states_and_claims_nothing():
    A = np.random.default_rng(0).standard_normal((80, 40))
    problem = BlockRemovalProblem(Sensitivity.from_samples(A), remove=9)
    result = get_backend("brute-force").sample(problem, seed=0, time_limit=0.3)
    assert result.status == "time-limit"
    assert result.certificate is None
    assert len(Spectrum.of(problem, result)) == 100
