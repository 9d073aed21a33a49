from pathlib import Path

import dimod
import numpy as np
import pytest
from dimod.serialization import coo
from hypothesis import given
from hypothesis import strategies as st
from support import all_states

from qblock import BlockRemovalProblem, load_sensitivity
from qblock.errors import ProblemError


@given(st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_coo_energies_agree_with_dimod(
    tmp_path_factory: pytest.TempPathFactory, n: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    bqm = dimod.BinaryQuadraticModel(np.round(rng.standard_normal((n, n)), 3), "BINARY")
    path = tmp_path_factory.mktemp("coo") / "toy.coo"
    path.write_text(coo.dumps(bqm, vartype_header=True) + f"\n{n - 1} {n - 1} 0.0\n")
    problem = BlockRemovalProblem(load_sensitivity(path), remove=0)
    states = all_states(n)
    np.testing.assert_allclose(problem.energy(states), bqm.energies((states, range(n))), atol=1e-5)


def test_a_qbsolv_file(tmp_path: Path) -> None:
    path = tmp_path / "toy.qubo"
    path.write_text("c a toy\np qubo 0 4 2 2\n0 0 1.5\n3 3 -2\n0 1 2\n1 3 -1e-1\n")
    sensitivity = load_sensitivity(path)
    assert (sensitivity.name, len(sensitivity)) == ("toy", 4)
    energy = BlockRemovalProblem(sensitivity, remove=2).energy([[1, 1, 0, 0], [0, 1, 0, 1]])
    np.testing.assert_allclose(energy, [3.5, -2.1])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0 1\n", "line 1: expected 'i j value'"),
        ("0 x 1\n", "line 1: expected 'i j value'"),
        ("p qubo 0 2 1 1\n0 5 1\n", "numbered 0 to 1"),
        ("-1 0 1\n", "numbered 0 to"),
        ("c nothing\n", "is empty"),
        ("# vartype=SPIN\n0 1 1\n", "Ising model"),
        ("0 0 nan\n", "NaN or infinite"),
        ("0 99999 1\n", "at most"),
        ("p qubo\n0 0 1\n", "line 1"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad.qubo"
    path.write_text(text)
    with pytest.raises(ProblemError, match=message):
        load_sensitivity(path)


def test_a_binary_file(tmp_path: Path) -> None:
    path = tmp_path / "bad.coo"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ProblemError, match="cannot be read as text"):
        load_sensitivity(path)
