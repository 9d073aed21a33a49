"""Pictures drawn by matplotlib (the extra `plot`), and what they are written as."""

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from qblock.backend import SolveResult
from qblock.errors import ParameterError
from qblock.files import atomic_write
from qblock.problem import BlockRemovalProblem
from qblock.registry import get_backend
from qblock.spectrum import Spectrum

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = (".png", ".pdf", ".svg")
"""Kinds of picture that `save_picture` writes, by the end of the file name."""

GUESSES = 100_000
"""Random feasible states that stand for all of them in `energy_histogram`."""

BINS = 60


def check_picture(path: Path) -> None:
    """Raise `ParameterError` unless `save_picture` can write a file of this name here."""
    if path.suffix.lower() not in FORMATS:
        raise ParameterError(f"{path}: pictures are written as {', '.join(FORMATS)}")
    require_matplotlib()


def require_matplotlib() -> None:
    """Raise `ParameterError` with the install command unless matplotlib is there."""
    if importlib.util.find_spec("matplotlib") is None:
        raise ParameterError('pictures need matplotlib: pip install "qblock[plot]"')


def save_picture(figure: "Figure", path: Path) -> None:
    """Write a figure as the kind of picture that the file name says, atomically.

    Raises:
        ParameterError: another kind of file than `FORMATS`.
        ProblemError: the file cannot be written.
    """
    check_picture(path)
    with atomic_write(path) as stream:
        figure.savefig(stream, format=path.suffix[1:].lower(), dpi=150)


def energy_histogram(problem: BlockRemovalProblem, result: SolveResult) -> "Figure":
    """The energies of a run's feasible samples, over those of a uniform feasible guess.

    Raises:
        ParameterError: matplotlib is not installed.
    """
    require_matplotlib()
    from matplotlib.figure import Figure

    spectrum = Spectrum.of(problem, result)
    guesses = Spectrum.of(problem, get_backend("random").sample(problem, seed=0, num_reads=GUESSES))
    energies = np.concatenate((spectrum.energies, guesses.energies))
    edges = np.linspace(energies.min(), energies.max(), BINS + 1)
    total = int(result.samples.record.num_occurrences.sum())
    found, _ = np.histogram(spectrum.energies, edges, weights=spectrum.occurrences / total)
    uniform, _ = np.histogram(guesses.energies, edges, weights=guesses.occurrences / GUESSES)
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot()
    axes.stairs(found, edges, fill=True, alpha=0.6, label=f"{result.backend}, seed {result.seed}")
    axes.stairs(uniform, edges, color="black", label="uniform feasible guess")
    axes.set_xlabel("energy of feasible states")
    axes.set_ylabel("share of all samples")
    axes.set_title(
        f"{problem.sensitivity.name}, remove {problem.remove}: "
        f"{spectrum.feasible_rate:.1%} of the samples feasible"
    )
    axes.legend()
    return figure
