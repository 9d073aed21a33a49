import pytest

from qblock.errors import ParameterError
from qblock.pictures import energy_histogram, save_picture
from qblock.problem import BlockRemovalProblem
from qblock.registry import get_backend
from qblock.testing import random_sensitivity

pytest.importorskip("matplotlib")


def test_shares_add_up_to_the_feasible_rate_and_to_one():
    problem = BlockRemovalProblem(random_sensitivity(10), remove=3)
    result = get_backend("annealing").sample(problem, seed=0, num_reads=50, num_sweeps=50)
    feasible = problem.is_feasible(result.samples.record.sample)
    rate = float(result.samples.record.num_occurrences[feasible].sum()) / 50
    assert 0 < rate < 1
    found, uniform = energy_histogram(problem, result).axes[0].patches
    assert found.get_data().values.sum() == pytest.approx(rate)
    assert uniform.get_data().values.sum() == pytest.approx(1)


def test_a_file_is_whole_or_not_there(tmp_path):
    problem = BlockRemovalProblem(random_sensitivity(6), remove=2)
    figure = energy_histogram(problem, get_backend("random").sample(problem, seed=0))
    save_picture(figure, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ParameterError, match=r"\.svg"):
        save_picture(figure, tmp_path / "a.xyz")
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
