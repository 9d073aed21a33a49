import builtins

import numpy as np
import pytest
from dimod import ExactCQMSolver, ExactSolver, SampleSet
from hypothesis import given, settings
from support import all_states, plain_energy, problems

from qblock.encoding import Encoding
from qblock.errors import BackendUnavailable
from qblock.problem import BlockRemovalProblem, Sensitivity
from qblock.spectrum import Spectrum


def _penalised(reduced, weight):
    states = all_states(len(reduced))
    members = reduced.group_of[:, None] == np.arange(len(reduced.budgets))
    violations = ((states.astype(int) @ members - reduced.budgets) ** 2).sum(axis=1)
    return states, np.array([plain_energy(reduced.Q, y) for y in states]) + weight * violations


@given(problems(max_blocks=6, undecided=True))
@settings(max_examples=60)
def test_bqm_and_ising_are_the_penalised_energy_of_every_state(problem):
    reduced = problem.reduced
    encoding = Encoding(reduced)
    for weight in (0.25, 3.0):
        states, expected = _penalised(reduced, weight)
        bqm = encoding.bqm(weight)
        assert tuple(bqm.variables) == reduced.blocks
        tolerance = {"rtol": 1e-9, "atol": 1e-9 * (1 + np.abs(reduced.Q).sum())}
        np.testing.assert_allclose(bqm.energies((states, reduced.blocks)), expected, **tolerance)
        h, J, offset = encoding.ising(weight)
        spins = 2.0 * states - 1
        column = {block: spins[:, i] for i, block in enumerate(reduced.blocks)}
        ising = offset + sum(h[b] * column[b] for b in h)
        ising = ising + sum(J[a, b] * column[a] * column[b] for a, b in J)
        np.testing.assert_allclose(ising, expected, **tolerance)


@given(problems(max_blocks=6, undecided=True))
@settings(max_examples=40)
def test_every_view_has_the_same_ground_state(problem):
    reduced = problem.reduced
    encoding = Encoding(reduced)
    states = all_states(len(problem))
    truth = Spectrum.of_states(problem, states[problem.is_feasible(states)]).energies[0]
    close = {"rel": 1e-9, "abs": 1e-9 * (1 + np.abs(problem.Q).sum())}

    lowest = encoding.decode(ExactSolver().sample(encoding.bqm()).lowest())
    assert reduced.is_feasible(lowest).all()
    assert problem.energy(reduced.lift(lowest))[0] == pytest.approx(truth, **close)

    sampled = ExactCQMSolver().sample_cqm(encoding.cqm())
    best = sampled.filter(lambda row: row.is_feasible).first
    assert best.energy + reduced.offset == pytest.approx(truth, **close)


@given(problems(max_blocks=6, undecided=True))
@settings(max_examples=20)
def test_quadratic_program_has_the_same_objective_and_constraints(problem):
    pytest.importorskip("qiskit_optimization")
    reduced = problem.reduced
    program = Encoding(reduced).quadratic_program()
    states = all_states(len(reduced))
    np.testing.assert_allclose(
        [program.objective.evaluate(y) for y in states],
        [plain_energy(reduced.Q, y) for y in states],
        atol=1e-9 * (1 + np.abs(reduced.Q).sum()),
    )
    feasible = [program.is_feasible(y) for y in states]
    assert feasible == reduced.is_feasible(states).tolist()


def test_decode_goes_by_name():
    reduced = BlockRemovalProblem(Sensitivity(H=np.eye(3)), remove=1).reduced
    samples = SampleSet.from_samples(([[1, 0, 0], [0, 1, 0]], ["2", "0", "1"]), "BINARY", energy=0)
    assert Encoding(reduced).decode(samples).tolist() == [[0, 0, 1], [1, 0, 0]]
    spins = samples.change_vartype("SPIN", inplace=False)
    assert Encoding(reduced).decode(spins).tolist() == [[0, 0, 1], [1, 0, 0]]


def test_missing_qiskit_is_named(monkeypatch):
    real = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name.startswith("qiskit"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    reduced = BlockRemovalProblem(Sensitivity(H=np.eye(3)), remove=1).reduced
    with pytest.raises(BackendUnavailable, match=r'pip install "qblock\[qiskit\]"'):
        Encoding(reduced).quadratic_program()
