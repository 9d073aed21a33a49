"""An embedding drawn on the working graph."""

from typing import TYPE_CHECKING, Any

import numpy as np

from qblock.pictures import require_matplotlib
from qblock_dwave.embedding import Embedding, WorkingGraph

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def embedding_figure(embedding: Embedding, graph: WorkingGraph) -> "Figure":
    """A matplotlib figure: the whole graph, and the part of it that the chains take.

    Every chain has a colour of its own.

    Raises:
        ParameterError: matplotlib is not installed.
    """
    require_matplotlib()
    from dwave import graphs
    from matplotlib.figure import Figure

    positions = getattr(graphs, f"{graph.graph.graph['family']}_layout")(graph.graph)
    figure = Figure(figsize=(11, 7), layout="constrained")
    whole, part = figure.subplots(1, 2, width_ratios=(2, 3))
    for axes in (whole, part):
        _draw_qubits(axes, embedding, graph, positions)
        axes.set_aspect("equal")
        axes.set_axis_off()
    used = np.array([positions[qubit] for chain in embedding.chains for qubit in chain])
    margin = 0.05 * np.ptp(used, axis=0).max() + 1e-3
    (left, low), (right, high) = used.min(axis=0) - margin, used.max(axis=0) + margin
    part.set(xlim=(left, right), ylim=(low, high))
    figure.suptitle(
        f"{len(embedding.chains)} blocks on {graph.name}: {embedding.num_qubits} qubits, "
        f"chains of at most {embedding.longest_chain}"
    )
    return figure


def _draw_qubits(axes: Any, embedding: Embedding, graph: WorkingGraph, positions: Any) -> None:
    from matplotlib import colormaps
    from matplotlib.collections import LineCollection

    idle = [positions[qubit] for qubit in graph.graph]
    axes.scatter(*zip(*idle, strict=True), s=1, color="0.85", zorder=0)
    colours = colormaps["hsv"]
    for number, chain in enumerate(embedding.chains):
        colour = colours(number / len(embedding.chains))
        couplers = graph.graph.subgraph(chain).edges
        axes.add_collection(
            LineCollection(
                [(positions[a], positions[b]) for a, b in couplers], colors=[colour], linewidths=1.5
            )
        )
        dots = [positions[qubit] for qubit in chain]
        axes.scatter(*zip(*dots, strict=True), s=10, color=[colour], zorder=2)
