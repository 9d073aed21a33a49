"""Figures of a QAOA state; need matplotlib, the extra `plot`."""

from pathlib import Path
from typing import Any

import numpy as np

from qblock.errors import BackendUnavailable
from qblock.files import atomic_write
from qblock.problem import FloatArray
from qblock_qiskit.ansatz import Ansatz
from qblock_qiskit.outcome import energy_distribution, landscape


def plot_landscape(ansatz: Ansatz, path: str | Path, points: int = 41) -> FloatArray:
    """Mean energy of one layer over both angles, drawn to `path`.

    Returns:
        The energies (points, points), betas down, gammas across, both in standard units from
        -pi/2 to pi/2 and 0 to pi.

    Raises:
        BackendUnavailable: matplotlib is not installed.
    """
    axes, save = _figure(path)
    simulator = ansatz.simulator()
    betas, gammas = np.linspace(-np.pi / 2, np.pi / 2, points), np.linspace(0, np.pi, points)
    energies = landscape(simulator, ansatz.beta_unit * betas, gammas)
    energies += ansatz.problem.offset
    image = axes.pcolormesh(gammas, betas, energies, shading="nearest")
    axes.figure.colorbar(image, label="mean energy")
    axes.set_xlabel("gamma (1 / standard deviation of the energy)")
    axes.set_ylabel("beta (standard units)")
    axes.set_title(f"one layer: {ansatz.name}")
    save()
    return energies


def plot_distribution(ansatz: Ansatz, angles: FloatArray, path: str | Path, bins: int = 60) -> None:
    """The energies measured with standardised angles (2p,), and by a uniform guess, to `path`.

    Raises:
        BackendUnavailable: matplotlib is not installed.
    """
    axes, save = _figure(path)
    simulator = ansatz.simulator()
    psi = simulator.evolve(*ansatz.units(simulator).radians(np.asarray(angles)))
    edges, found, uniform = energy_distribution(simulator, psi, bins)
    edges = edges + ansatz.problem.offset
    axes.stairs(found, edges, fill=True, alpha=0.6, label=f"QAOA, p = {len(angles) // 2}")
    axes.stairs(uniform, edges, color="black", label="uniform feasible guess")
    axes.set_xlabel("energy of feasible states")
    axes.set_ylabel("probability")
    axes.set_title(ansatz.name)
    axes.legend()
    save()


def _figure(path: str | Path) -> tuple[Any, Any]:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise BackendUnavailable('figures need matplotlib: pip install "qblock[plot]"') from None
    target = Path(path)
    figure = Figure(figsize=(7, 5), layout="constrained")

    def save() -> None:
        with atomic_write(target) as stream:
            figure.savefig(stream, format=target.suffix.lstrip(".") or "png", dpi=150)

    return figure.add_subplot(), save
