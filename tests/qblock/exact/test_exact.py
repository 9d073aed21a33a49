import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import all_states, problems

from qblock.exact import prove
from qblock.exact.search import Policy
from qblock.exact.walk import Walk
from qblock.generators import random_instance
from qblock.problem import BlockRemovalProblem, Sensitivity
from qblock.registry import get_backend
from qblock.spectrum import Spectrum


def truth_of(problem):
    states = all_states(len(problem))
    return Spectrum.of_states(problem, states[problem.is_feasible(states)])


def assert_certificate_is_true(problem, found, truth, certificate):
    """Nothing lies below the lower bound, and nothing is missing below `complete_below`."""
    rounding = 1e-12 * (1e-300 + np.abs(problem.Q).sum())
    assert certificate.lower_bound <= truth.energies[0] + rounding
    listed = {state.tobytes() for state in found.states}
    for state, energy in zip(truth.states, truth.energies, strict=True):
        if energy < certificate.complete_below - rounding:
            assert state.tobytes() in listed


@pytest.fixture(scope="module", params=["eager to branch", "as shipped"], autouse=True)
def _policy(request):
    """Small problems never branch as shipped, let alone in several threads: they are enumerated
    at the root."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "eager to branch":
            patch.setattr("qblock.exact.walk.POLICY", Policy(effort=0.5, few=0, some=0))
            patch.setattr("qblock.exact.walk.PATIENCE", 2)
            patch.setattr("qblock.exact.walk.VISITS_BEFORE_AVERAGE", 3)
            patch.setattr("qblock.exact.engine.NODES_BEFORE_THREADS", 1)
            patch.setattr("qblock.exact.engine.NODES_PER_SLICE", 1)
            patch.setattr("qblock.exact.engine.NODES_PER_ROUND", 3)
        yield


@given(
    problems(max_blocks=11),
    st.sampled_from([1, 2, 5, 20, 100, 5000]),
    st.integers(0, 3),
    st.sampled_from([1, 2, 5]),
)
@settings(max_examples=400, deadline=None)
def test_k_lowest_states_equal_enumeration(problem, k, seed, threads):
    result = get_backend("exact").sample(problem, seed=seed, k=k, threads=threads)
    truth, found = truth_of(problem), Spectrum.of(problem, result)
    scale = np.abs(problem.Q).sum()
    assert len(found) == min(k, len(truth))
    np.testing.assert_allclose(
        found.energies, truth.energies[: len(found)], rtol=2e-9, atol=1e-13 * scale
    )
    certificate = result.certificate
    assert certificate.proved
    assert certificate.lower_bound == pytest.approx(truth.energies[0], rel=1e-9, abs=1e-12 * scale)
    assert_certificate_is_true(problem, found, truth, certificate)
    if len(truth) <= k:
        assert certificate.complete_below == np.inf
        assert not certificate.ties_at_kth
    elif truth.energies[k] == truth.energies[k - 1]:
        assert certificate.ties_at_kth
    elif truth.energies[k] > truth.energies[k - 1] + 1e-6 * scale:
        assert not certificate.ties_at_kth
        assert (found.states == truth.states[:k]).all()


@given(
    st.sampled_from(["lowrank", "indefinite", "grouped", "ties"]),
    st.integers(0, 10**6),
    st.integers(0, 60),
    st.sampled_from([1, 10, 50]),
    st.sampled_from([1, 3]),
)
@settings(max_examples=100, deadline=None)
def test_stopped_search_claims_only_what_is_true(kind, seed, max_nodes, k, threads):
    n = 14
    rng = np.random.default_rng(seed)
    B = rng.standard_normal((n, n))
    H = {"indefinite": B + B.T, "ties": np.round(B + B.T)}.get(kind, B[:, :3] @ B[:, :3].T)
    groups = tuple("aab"[i % 3] for i in range(n)) if kind == "grouped" else ()
    problem = BlockRemovalProblem(
        Sensitivity(H=H, groups=groups), remove={"a": 4, "b": 2} if groups else 6
    )
    proof = prove(problem.reduced, k, seed=seed, threads=threads, max_nodes=max_nodes)
    found = Spectrum.of_states(problem, problem.reduced.lift(proof.states))
    assert found.infeasible == 0
    assert_certificate_is_true(problem, found, truth_of(problem), proof.certificate)


def test_stopped_run_keeps_a_valid_bound():
    """The optimum of the same instance, proved by a longer run, lies between the bounds."""
    problem = BlockRemovalProblem(random_instance("lowrank", 44, seed=0), remove=14)
    backend = get_backend("exact")
    backend.sample(problem, seed=0, time_limit=0.01)  # compiled
    stopped = backend.sample(problem, seed=0, time_limit=0.1)
    full = backend.sample(problem, seed=0)
    assert stopped.status == "time-limit"
    assert not stopped.certificate.proved
    assert full.certificate.proved
    truth, found = Spectrum.of(problem, full), Spectrum.of(problem, stopped)
    assert stopped.certificate.lower_bound <= truth.energies[0]
    assert np.isfinite(stopped.certificate.lower_bound)
    assert_certificate_is_true(problem, found, truth, stopped.certificate)


def test_threads_share_the_search_and_do_not_depend_on_timing(monkeypatch):
    """Three threads list what one lists, and look at the same nodes each time."""
    monkeypatch.setattr("qblock.exact.engine.NODES_BEFORE_THREADS", 500)
    monkeypatch.setattr("qblock.exact.engine.NODES_PER_ROUND", 500)
    busy = []
    advance = Walk.advance

    def observed(walk, max_nodes):
        before = walk.nodes
        more = advance(walk, max_nodes)
        if walk.nodes > before:
            busy.append(threading.get_ident())
        return more

    monkeypatch.setattr(Walk, "advance", observed)
    problem = BlockRemovalProblem(random_instance("lowrank", 36, seed=0), remove=12).reduced
    alone = prove(problem, 50, threads=1)
    assert set(busy) == {threading.get_ident()}
    shared, again = (prove(problem, 50, threads=3) for _ in range(2))
    assert len(set(busy)) > 2
    assert shared.certificate == again.certificate
    for proof in (shared, again):
        assert proof.certificate.proved
        assert set(map(bytes, proof.states)) == set(map(bytes, alone.states))


def test_budgets_of_a_large_tied_problem_are_proved_at_once():
    """All C(80, 40) states have the same energy: no enumeration could tell."""
    H = np.eye(80) + 0.2
    result = get_backend("exact").sample(BlockRemovalProblem(Sensitivity(H=H), remove=40), seed=0)
    assert result.certificate.proved
    assert result.certificate.ties_at_kth
    assert len(result.samples) == 100


@pytest.mark.parametrize("kind", ["heavy", "homog", "flat", "midrank", "lowrank"])
def test_equal_to_brute_force_at_24_blocks(kind):
    problem = BlockRemovalProblem(random_instance(kind, 24, seed=1), remove=9)
    exact = Spectrum.of(problem, get_backend("exact").sample(problem, seed=0, k=300))
    brute = Spectrum.of(problem, get_backend("brute-force").sample(problem, seed=0, k=300))
    assert (exact.states == brute.states).all()
    assert (exact.energies == brute.energies).all()


def test_compilation_is_not_counted_against_the_time_limit(monkeypatch):
    compiling = 0.3
    monkeypatch.setattr(
        "qblock_classical.exact.compile_kernels", lambda: time.sleep(compiling) or compiling
    )
    problem = BlockRemovalProblem(random_instance("heavy", 12, seed=0), remove=4)
    prove(problem.reduced, 5)  # really compiled
    asked = []
    monkeypatch.setattr(
        "qblock.backend.Run.expired", lambda run: asked.append(run.started) or False
    )
    begun = time.perf_counter()
    get_backend("exact").sample(problem, seed=0, k=5, time_limit=5)
    assert asked
    assert min(asked) >= begun + compiling
