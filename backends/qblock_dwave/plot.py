"""An embedding drawn on the working graph."""

from pathlib import Path
from typing import Any

from qblock.errors import BackendUnavailable
from qblock_dwave.embedding import Embedding, WorkingGraph


def plot_embedding(embedding: Embedding, graph: WorkingGraph, path: str | Path) -> Path:
    """Draw the qubits of every chain in a colour of its own on the graph; by suffix, PNG or SVG.

    Raises:
        BackendUnavailable: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise BackendUnavailable(
            'matplotlib is not installed: pip install "qblock[plot]"'
        ) from None
    from dwave import graphs

    positions = getattr(graphs, f"{graph.graph.graph['family']}_layout")(graph.graph)
    figure = Figure(figsize=(8, 8))
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    _draw_qubits(axes, embedding, graph, positions)
    axes.set_title(
        f"{len(embedding.chains)} blocks on {graph.name}: {embedding.num_qubits} qubits, "
        f"chains of at most {embedding.longest_chain}"
    )
    axes.set_aspect("equal")
    axes.set_axis_off()
    figure.savefig(path, dpi=150, bbox_inches="tight")
    return Path(path)


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
        axes.scatter(*zip(*dots, strict=True), s=12, color=[colour], zorder=2)
