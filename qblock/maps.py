"""The block-removal map: the low spectrum as a table and as a picture.

States run down, blocks across, removed blocks filled; beside each state its energy above the
ground state.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from rich.table import Table

from qblock.pictures import require_matplotlib
from qblock.spectrum import Spectrum

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def spectrum_table(spectrum: Spectrum, top: int | None = None) -> Table:
    """The `top` lowest states (all if None): rank, energy, gap to the ground state, blocks."""
    problem = spectrum.problem
    table = Table(title=f"{problem.sensitivity.name}, remove {problem.remove}")
    table.caption = proof_line(spectrum)
    for column in ("rank", "energy", "gap"):
        table.add_column(column, justify="right")
    table.add_column("removed blocks")
    for state in list(spectrum)[:top]:
        table.add_row(
            str(state.rank),
            f"{state.energy:.8g}",
            f"{state.energy - spectrum.energies[0]:.3g}",
            " ".join(state.removed) or "none",
        )
    return table


def proof_line(spectrum: Spectrum) -> str:
    """What is proved about the list of states, in one sentence."""
    certificate = spectrum.certificate
    if certificate is None:
        return "not proved: states may be missing"
    if certificate.proved:
        ties = "; the last place is shared with states not listed" * certificate.ties_at_kth
        return f"proved: no other state is lower ({certificate.nodes:,} nodes){ties}"
    complete = int((spectrum.energies < certificate.complete_below).sum())
    lowest = f"the first {complete} states are proved" if complete else "no state is proved yet"
    return f"stopped early: {lowest}; no state lies below {certificate.lower_bound:.8g}"


def removal_map(spectra: Sequence[Spectrum], top: int | None = None) -> "Figure":
    """A matplotlib figure with one map per spectrum, below each other.

    Raises:
        ParameterError: matplotlib is not installed.
    """
    require_matplotlib()
    from matplotlib.figure import Figure

    rows = [max(len(spectrum.states[:top]), 1) for spectrum in spectra]
    blocks = max(len(spectrum.problem) for spectrum in spectra)
    figure = Figure(
        figsize=(3.5 + 0.14 * blocks, sum(1.2 + 0.1 * row for row in rows)), layout="constrained"
    )
    axes = figure.subplots(
        len(spectra), 2, squeeze=False, width_ratios=(5, 1), height_ratios=rows, sharey="row"
    )
    for spectrum, (grid, gaps) in zip(spectra, axes, strict=True):
        states, energies = spectrum.states[:top], spectrum.energies[:top]
        names = spectrum.problem.blocks
        grid.imshow(states, aspect="auto", cmap="Greys", vmin=0, vmax=1, interpolation="nearest")
        step = max(1, len(names) // 16)
        grid.set_xticks(range(0, len(names), step), names[::step], rotation=90, fontsize=7)
        grid.set_xlabel("block (filled: removed)")
        grid.set_ylabel("rank")
        grid.set_title(f"{spectrum.problem.sensitivity.name}, remove {spectrum.problem.remove}")
        ground = energies.min(initial=np.inf)
        gaps.barh(range(len(states)), energies - ground, height=0.8, color="tab:blue")
        gaps.set_xlabel("gap")
        gaps.tick_params(axis="x", labelsize=7)
    return figure
