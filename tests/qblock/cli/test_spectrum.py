import json

import numpy as np
import pytest
from support import all_states
from typer.testing import CliRunner

from qblock.cli import app
from qblock.cli._spectrum import split_budgets
from qblock.errors import ParameterError
from qblock.problem import BlockRemovalProblem, Sensitivity
from qblock.spectrum import Spectrum

H = (lambda A: A.T @ A)(np.random.default_rng(0).standard_normal((30, 12)))


@pytest.fixture
def file(tmp_path):
    np.savez(tmp_path / "toy.npz", H=H, groups=np.array(["a", "b"] * 6))
    return str(tmp_path / "toy.npz")


def invoke(*arguments):
    return CliRunner().invoke(app, ["spectrum", *map(str, arguments)], catch_exceptions=False)


def test_several_budgets_as_json(file):
    done = invoke(file, "--remove", "3,6", "--top", 7, "--json")
    assert done.exit_code == 0
    spectra = json.loads(done.stdout)["spectra"]
    assert [found["problem"]["remove"] for found in spectra] == [3, 6]
    for found, remove in zip(spectra, (3, 6), strict=True):
        problem = BlockRemovalProblem(Sensitivity(H=H), remove=remove)
        states = all_states(12)
        truth = Spectrum.of_states(problem, states[problem.is_feasible(states)])
        assert found["certificate"]["proved"]
        assert [tuple(state["removed"]) for state in found["states"]] == [
            truth[place].removed for place in range(7)
        ]


def test_table_and_map(file, tmp_path):
    pytest.importorskip("matplotlib")
    picture = tmp_path / "map.svg"
    done = invoke(file, "--remove", "a=1,b=2", "--top", 5, "--plot", picture)
    assert done.exit_code == 0
    assert "proved" in done.stdout
    assert "<svg" in picture.read_text()


def test_bad_picture_is_refused_before_any_work(file, tmp_path):
    with pytest.raises(ParameterError, match="pictures"):
        invoke("no-such-file", "--remove", 3, "--plot", tmp_path / "map.txt")


def test_group_budget_is_one_budget():
    assert split_budgets("a=1,b=2") == ["a=1,b=2"]
    assert split_budgets("4,8") == ["4", "8"]
