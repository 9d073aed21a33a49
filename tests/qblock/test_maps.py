import numpy as np
import pytest
from rich.console import Console

from qblock.errors import ParameterError
from qblock.maps import proof_line, removal_map, spectrum_table
from qblock.pictures import save_picture
from qblock.problem import BlockRemovalProblem, Sensitivity
from qblock.registry import get_backend
from qblock.spectrum import Spectrum


@pytest.fixture
def spectrum():
    H = np.diag(np.arange(1.0, 9.0)) + 0.1
    problem = BlockRemovalProblem(Sensitivity(H=H, name="toy"), remove=3)
    return Spectrum.of(problem, get_backend("exact").sample(problem, seed=0, k=6))


def test_table_ranks_states_with_their_gap(spectrum):
    console = Console(width=120, record=True, quiet=False)
    console.print(spectrum_table(spectrum, top=4))
    text = console.export_text()
    assert "0 1 2" in text
    assert f"{spectrum.energies[1] - spectrum.energies[0]:.3g}" in text
    assert "proved" in text
    assert len([line for line in text.splitlines() if line.startswith("│")]) == 4


def test_map_fills_the_removed_blocks(spectrum, tmp_path):
    pytest.importorskip("matplotlib")
    figure = removal_map([spectrum])
    grid = figure.axes[0].images[0].get_array()
    assert (np.asarray(grid) == spectrum.states).all()
    widths = [bar.get_width() for bar in figure.axes[1].patches]
    np.testing.assert_allclose(widths, spectrum.energies - spectrum.energies[0])
    save_picture(figure, tmp_path / "map.png")
    assert (tmp_path / "map.png").read_bytes().startswith(b"\x89PNG")


def test_unknown_picture_is_refused(spectrum, tmp_path):
    pytest.importorskip("matplotlib")
    with pytest.raises(ParameterError, match=r"\.png"):
        save_picture(removal_map([spectrum]), tmp_path / "map.xyz")


def test_states_without_certificate_are_called_unproved(spectrum):
    unproved = Spectrum.of_states(spectrum.problem, spectrum.states)
    assert "not proved" in proof_line(unproved)
