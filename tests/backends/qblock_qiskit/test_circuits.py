"""The circuits against the exact simulators and against Qiskit's own converters."""

import numpy as np
import pytest

pytest.importorskip("qiskit")

from qblock_qiskit.circuits import (
    Ising,
    dicke_state,
    draw_circuit,
    fixed_weight_ansatz,
    penalty_ansatz,
)
from qblock_qiskit.diagonal import DiagonalSimulator
from qblock_qiskit.subspace import FixedWeightSimulator
from qiskit.quantum_info import Statevector

from qblock import BlockRemovalProblem, Sensitivity
from qblock.encoding import Encoding
from qblock.penalty import penalty_weight
from qblock.problem import ReducedProblem


def problem_of(groups: str, remove: dict[str, int]) -> ReducedProblem:
    samples = np.random.default_rng(len(groups)).normal(size=(12, len(groups)))
    sensitivity = Sensitivity.from_samples(samples, groups=tuple(groups))
    return BlockRemovalProblem(sensitivity, remove=remove).reduced


PROBLEMS = [
    problem_of("aa", {"a": 1}),
    problem_of("aaaaaa", {"a": 4}),
    problem_of("abababb", {"a": 1, "b": 2}),
    problem_of("bcaabcabca", {"a": 2, "b": 1, "c": 2}),
]


def final_state(circuit: object, p: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    betas, gammas = np.random.default_rng(seed).uniform(-1, 1, size=(2, p))
    bound = circuit.assign_parameters([*betas, *gammas])
    return Statevector(bound).data, betas, gammas


@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda problem: f"n={len(problem)}")
@pytest.mark.parametrize("mixer", ["ring", "complete"])
@pytest.mark.parametrize("p", [1, 2, 3])
def test_fixed_weight_circuit_equals_simulator(problem: ReducedProblem, mixer: str, p: int) -> None:
    found, betas, gammas = final_state(fixed_weight_ansatz(problem, p, mixer), p, seed=p)
    simulator = FixedWeightSimulator(problem, mixer)
    states = simulator.states(np.arange(len(simulator))).astype(np.int64)
    expected = np.zeros(1 << len(problem), dtype=complex)
    expected[states @ (1 << np.arange(len(problem)))] = simulator.evolve(betas, gammas)
    np.testing.assert_allclose(found, expected, atol=1e-9)


@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda problem: f"n={len(problem)}")
@pytest.mark.parametrize("p", [1, 2, 3])
def test_penalty_circuit_equals_simulator(problem: ReducedProblem, p: int) -> None:
    found, betas, gammas = final_state(penalty_ansatz(problem, p), p, seed=p)
    simulator = DiagonalSimulator(problem, penalty_weight(problem))
    np.testing.assert_allclose(found, simulator.evolve(betas, gammas), atol=1e-9)


@pytest.mark.parametrize(("size", "ones"), [(2, 1), (3, 2), (5, 2), (5, 4), (6, 3), (4, 0), (4, 4)])
def test_dicke_state(size: int, ones: int) -> None:
    amplitudes = Statevector(dicke_state(size, ones)).data
    weights = np.array([index.bit_count() for index in range(1 << size)])
    expected = (weights == ones) / np.sqrt((weights == ones).sum())
    np.testing.assert_allclose(amplitudes, expected, atol=1e-12)


def test_ising_form_equals_that_of_qiskit_optimization() -> None:
    converters = pytest.importorskip("qiskit_optimization.converters")
    problem = PROBLEMS[2]
    weight = penalty_weight(problem)
    qubo = converters.QuadraticProgramToQubo(penalty=weight).convert(
        Encoding(problem).quadratic_program()
    )
    operator, offset = qubo.to_ising()
    diagonal = operator.to_matrix().diagonal().real + offset
    np.testing.assert_allclose(DiagonalSimulator(problem, weight).energies, diagonal, atol=1e-9)
    ising = Ising.of_penalty(problem, "tight")
    terms = sum(v**2 for v in [*ising.fields.values(), *ising.couplings.values()])
    assert terms == pytest.approx(diagonal.var())
    assert ising.constant == pytest.approx(diagonal.mean())


def test_drawing_shows_every_qubit_and_both_layers() -> None:
    text = draw_circuit(PROBLEMS[1], p=1)
    assert all(f"q_{i}:" in text for i in range(6))
    assert "gamma[0]" in text
    assert "XX+YY" in text
    assert "Rx" in draw_circuit(PROBLEMS[1], mixer="x")
