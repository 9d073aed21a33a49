"""The exact simulators against circuits and against brute-force linear algebra."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from qblock_qiskit.diagonal import LOW_QUBITS, DiagonalSimulator
from qblock_qiskit.subspace import FixedWeightSimulator, mixer_schedule, sorted_by_group
from qblock_qiskit.vector import apply_phase, expectation
from scipy.linalg import expm

from qblock import BlockRemovalProblem, Sensitivity
from qblock.encoding import Encoding
from qblock.penalty import penalty_weight
from qblock.problem import ReducedProblem

CASES = [
    ("aaaa", {"a": 2}),
    ("aaaaa", {"a": 4}),
    ("abababb", {"a": 1, "b": 2}),
    ("bcaabcabca", {"a": 2, "b": 1, "c": 2}),
    ("aaaaaaaaaa", {"a": 3}),
]


def problem_of(groups: str, remove: dict[str, int], seed: int = 0) -> ReducedProblem:
    samples = np.random.default_rng(seed).normal(size=(12, len(groups)))
    sensitivity = Sensitivity.from_samples(samples, groups=tuple(groups))
    return BlockRemovalProblem(sensitivity, remove=remove).reduced


def random_angles(p: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    betas, gammas = np.random.default_rng(seed).uniform(-2, 2, size=(2, p))
    return betas, gammas


@st.composite
def problems(draw: st.DrawFn) -> ReducedProblem:
    groups = draw(st.lists(st.sampled_from("abc"), min_size=2, max_size=9))
    sizes = {group: groups.count(group) for group in set(groups) if groups.count(group) > 1}
    if not sizes:
        groups, sizes = ["a", "a"], {"a": 2}
    remove = {g: draw(st.integers(1, size - 1)) for g, size in sorted(sizes.items())}
    return problem_of("".join(groups), remove, seed=draw(st.integers(0, 1000)))


@settings(max_examples=40, deadline=None)
@given(problem=problems())
def test_basis_is_exactly_the_feasible_states(problem: ReducedProblem) -> None:
    simulator = FixedWeightSimulator(problem)
    states = simulator.states(np.arange(len(simulator)))
    assert len(np.unique(states, axis=0)) == len(states) == problem.num_feasible
    assert problem.is_feasible(states).all()
    y = states.astype(float)
    np.testing.assert_allclose(simulator.energies, np.einsum("si,si->s", y @ problem.Q, y))


@settings(max_examples=25, deadline=None)
@given(problem=problems(), mixer=st.sampled_from(["ring", "complete"]), seed=st.integers(0, 99))
def test_mixer_is_the_product_of_its_gates(problem: ReducedProblem, mixer: str, seed: int) -> None:
    """Against matrix exponentials of each gate's hopping matrix; the norm is conserved."""
    simulator = FixedWeightSimulator(problem, mixer)
    states = simulator.states(np.arange(len(simulator)))
    index = {tuple(state): k for k, state in enumerate(states)}
    (beta,), _ = random_angles(1, seed)
    rng = np.random.default_rng(seed)
    psi = np.array([1, 1j]) @ rng.normal(size=(2, len(states)))
    psi /= np.linalg.norm(psi)
    expected = psi.copy()
    order = sorted_by_group(problem)
    for a, b in mixer_schedule(problem, mixer).sequence:
        i, j = order[a], order[b]
        hop = np.zeros((len(states), len(states)))
        for state, k in index.items():
            if state[i] != state[j]:
                moved = list(state)
                moved[i], moved[j] = state[j], state[i]
                hop[k, index[tuple(moved)]] = 1
        expected = expm(1j * beta * hop) @ expected
    simulator.apply_mixer(psi, beta)
    np.testing.assert_allclose(psi, expected, atol=1e-12)
    assert np.linalg.norm(psi) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize(("groups", "remove"), CASES)
def test_schedule_couples_every_pair_of_a_group_once(groups: str, remove: dict[str, int]) -> None:
    problem = problem_of(groups, remove)
    order = sorted_by_group(problem)
    pairs = [
        frozenset((int(order[i]), int(order[j])))
        for i, j in mixer_schedule(problem, "complete").sequence
    ]
    within = {
        frozenset(pair)
        for pair in itertools.combinations(range(len(problem)), 2)
        if problem.group_of[pair[0]] == problem.group_of[pair[1]]
    }
    assert len(pairs) == len(within)
    assert set(pairs) == within


def test_threads_change_nothing() -> None:
    """A vector above the threshold for threads equals the same gates one row at a time."""
    problem = problem_of("a" * 20, {"a": 8})  # 125 970 amplitudes
    for mixer in ("ring", "complete"):
        simulator = FixedWeightSimulator(problem, mixer)
        angles = random_angles(2, 1)
        psi = simulator.evolve(*angles)
        assert np.linalg.norm(psi) == pytest.approx(1, abs=1e-12)
        np.testing.assert_array_equal(psi, simulator.evolve(*angles))
        back = psi.copy()
        for beta, gamma in zip(*(half[::-1] for half in angles), strict=True):
            _undo_mixer(simulator, back, beta)
            apply_phase(back, 0, len(back), simulator.energies, -gamma)
        np.testing.assert_allclose(back, len(back) ** -0.5, atol=1e-12)


def _undo_mixer(simulator: FixedWeightSimulator, psi: np.ndarray, beta: float) -> None:
    """The inverse layer in numpy alone: the gates in reverse order with the opposite angle."""
    problem = simulator.problem
    states = simulator.states(np.arange(len(simulator))).astype(np.int64)
    codes = states @ (1 << np.arange(len(problem)))
    by_code = np.argsort(codes)
    order = sorted_by_group(problem)
    for a, b in reversed(mixer_schedule(problem, simulator.mixer).sequence):
        i, j = order[a], order[b]
        first = np.flatnonzero((states[:, i] == 1) & (states[:, j] == 0))
        partner_codes = codes[first] - (1 << i) + (1 << j)
        second = by_code[np.searchsorted(codes[by_code], partner_codes)]
        u, v = psi[first].copy(), psi[second].copy()
        psi[first] = np.cos(beta) * u - 1j * np.sin(beta) * v
        psi[second] = np.cos(beta) * v - 1j * np.sin(beta) * u


@settings(max_examples=20, deadline=None)
@given(problem=problems(), seed=st.integers(0, 99))
def test_diagonal_energies_are_those_of_the_model(problem: ReducedProblem, seed: int) -> None:
    weight = penalty_weight(problem)
    simulator = DiagonalSimulator(problem, weight)
    states = simulator.states(np.arange(len(simulator)))
    bqm = Encoding(problem).bqm()
    expected = bqm.energies((states, list(problem.blocks)))
    np.testing.assert_allclose(simulator.energies, expected, atol=1e-9 * max(weight, 1))
    np.testing.assert_array_equal(simulator.feasible, problem.is_feasible(states))
    psi = simulator.evolve(*random_angles(2, seed))
    assert np.linalg.norm(psi) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("n", [2, 3, 5, LOW_QUBITS, LOW_QUBITS + 1, LOW_QUBITS + 4, 17])
def test_x_mixer_is_a_product_of_rotations(n: int) -> None:
    problem = problem_of("a" * n, {"a": 1})
    simulator = DiagonalSimulator(problem, 1.0)
    betas, gammas = random_angles(2, n)
    expected = np.full(1 << n, 2 ** (-n / 2), dtype=complex)
    for beta, gamma in zip(betas, gammas, strict=True):
        expected = expected * np.exp(-1j * gamma * simulator.energies)
        gate = np.array([[np.cos(beta), 1j * np.sin(beta)], [1j * np.sin(beta), np.cos(beta)]])
        tensor = expected.reshape((2,) * n)
        for axis in range(n):
            tensor = np.moveaxis(np.tensordot(gate, tensor, axes=(1, axis)), 0, axis)
        expected = tensor.ravel()
    np.testing.assert_allclose(simulator.evolve(betas, gammas), expected, atol=1e-12)


def test_phase_is_accurate_for_large_angles() -> None:
    energies = np.random.default_rng(0).normal(size=1000) * 1e3
    psi = np.ones(1000, dtype=complex)
    apply_phase(psi, 0, 1000, energies, 0.7)
    np.testing.assert_allclose(psi, np.exp(-0.7j * energies), atol=1e-12)
    assert expectation(psi, energies) == pytest.approx(energies.sum())
