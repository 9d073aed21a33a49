"""Figures of a QAOA state."""

from typing import TYPE_CHECKING

import numpy as np

from qblock.pictures import require_matplotlib
from qblock_qiskit.ansatz import Ansatz
from qblock_qiskit.outcome import landscape

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def landscape_figure(ansatz: Ansatz, points: int = 41) -> "Figure":
    """A matplotlib figure of the mean energy of one layer over both angles.

    Betas go up and gammas across, both in standard units, from -pi/2 to pi/2 and from 0 to pi.

    Raises:
        ParameterError: matplotlib is not installed.
    """
    require_matplotlib()
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 5), layout="constrained")
    axes = figure.add_subplot()
    betas, gammas = np.linspace(-np.pi / 2, np.pi / 2, points), np.linspace(0, np.pi, points)
    energies = landscape(ansatz.simulator(), ansatz.beta_unit * betas, gammas)
    image = axes.pcolormesh(gammas, betas, energies + ansatz.problem.offset, shading="nearest")
    figure.colorbar(image, label="mean energy")
    axes.set_xlabel("gamma (1 / standard deviation of the energy)")
    axes.set_ylabel("beta (standard units)")
    axes.set_title(f"one layer: {ansatz.name}")
    return figure
