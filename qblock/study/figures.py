"""The figures of a report, as plotly figures that a notebook can show too.

Each comes with a caption that says what is to be seen, for those who do not see it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from qblock.study.analysis import Analysis, interval_text
from qblock.study.judge import GAP_EDGES, Comparison, ComparisonRow

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6BB1", "#7F7F7F")
"""Okabe and Ito's palette without black and yellow: told apart by all, on light and dark."""

SYMBOLS = ("circle", "square", "diamond", "hexagon", "x", "cross", "star", "pentagon")
"""So that colour is never the only difference."""

FLOOR = 1e-4
"""Gaps below this, 0 included, are drawn here on logarithmic axes."""


@dataclass(frozen=True, eq=False)
class Plot:
    """A figure, its title, and in words what it shows."""

    name: str
    title: str
    caption: str
    figure: "Figure"


def study_plots(analysis: Analysis) -> list[Plot]:
    """Over all problems: time to solution, and the performance profile if there are several."""
    plots = [tts_plot(analysis)]
    if len(analysis.comparisons) > 1:
        plots.append(profile_plot(analysis))
    return plots


def problem_plots(comparison: Comparison, names: Sequence[str]) -> list[Plot]:
    """Of one problem; `names` are the study's contenders, which fixes their colours."""
    plots = [gap_plot(comparison, names), histogram_plot(comparison, names)]
    plots.append(removal_plot(comparison))
    sweep = penalty_plot(comparison)
    return [*plots, sweep] if sweep else plots


def tts_plot(analysis: Analysis) -> Plot:
    """TTS of each contender on each problem with exact intervals; triangles are lower bounds."""
    figure = _figure("problem", "TTS 99 % (s)", log_y=True)
    titles = [c.title for c in analysis.comparisons]
    for number, contender in enumerate(analysis.contenders):
        x, y, up, down, symbols, texts = [], [], [], [], [], []
        for title, comparison in zip(titles, analysis.comparisons, strict=True):
            row = analysis.best_row(comparison, contender)
            if row is None or row.tts is None:
                continue
            tts = row.tts
            middle = tts.low if tts.value is None else tts.value
            x.append(title)
            y.append(middle)
            bars = tts.value is not None
            up.append((tts.high or middle) - middle if bars else None)
            down.append(middle - tts.low if bars else None)
            symbols.append(
                "triangle-up-open" if tts.value is None else SYMBOLS[number % len(SYMBOLS)]
            )
            texts.append(f"{row.label}: {interval_text(tts, ' s')}")
        figure.add_scatter(
            x=x, y=y, mode="markers", name=contender, text=texts, hoverinfo="text",
            error_y={"type": "data", "array": up, "arrayminus": down, "width": 4},
            marker={"color": _colour(number), "symbol": symbols, "size": 10},
        )  # fmt: skip
    figure.update_layout(scattermode="group")
    return Plot(
        "tts",
        "Time to solution",
        "Seconds until the reference is reached with 99 % probability, at each contender's best "
        "time limit; bars are exact 95 % intervals, open triangles lower bounds where it was never "
        "reached. Lower is better.",
        figure,
    )


def profile_plot(analysis: Analysis) -> Plot:
    """Dolan-More profile of TTS over the problems."""
    tau, share = analysis.profile()
    figure = _figure("TTS at most this many times the best", "share of problems", log_x=True)
    end = float(tau[-1]) * 1.5
    for number, contender in enumerate(analysis.contenders):
        figure.add_scatter(
            x=[*tau.tolist(), end],
            y=[*share[number].tolist(), float(share[number, -1])],
            mode="lines",
            name=contender,
            line={"shape": "hv", "color": _colour(number), "dash": _dash(number)},
        )
    figure.update_yaxes(range=[-0.03, 1.03])
    leader = analysis.contenders[int(share[:, 0].argmax())]
    return Plot(
        "profile",
        "Performance profile",
        f"Share of problems on which a contender's time to solution is within a factor of the "
        f"best. {leader} is the best on {share[:, 0].max():.0%} of them.",
        figure,
    )


def gap_plot(comparison: Comparison, names: Sequence[str]) -> Plot:
    """Median gap against median seconds; the points of a contender are its time limits."""
    figure = _figure("seconds per run (median)", "gap to the reference (median)",
                     log_x=True, log_y=True)  # fmt: skip
    best: tuple[float, str] = (np.inf, "nobody")
    for contender in dict.fromkeys(row.contender for row in comparison.rows):
        number = names.index(contender)
        rows = sorted(
            (r for r in comparison.rows if r.contender == contender and r.median_gap is not None),
            key=lambda r: r.median_seconds or 0.0,
        )
        if not rows:
            continue
        gaps = [r.median_gap or 0.0 for r in rows]
        best = min(best, (min(gaps), contender))
        figure.add_scatter(
            x=[r.median_seconds for r in rows],
            y=[max(gap, FLOOR) for gap in gaps],
            mode="lines+markers",
            name=contender,
            text=[f"{r.label}: gap {gap:.3%} in {r.median_seconds:.3g} s"
                  for r, gap in zip(rows, gaps, strict=True)],
            hoverinfo="text",
            line={"color": _colour(number), "dash": _dash(number)},
            marker={"symbol": SYMBOLS[number % len(SYMBOLS)], "size": 9},
        )  # fmt: skip
    return Plot(
        "gap",
        "Gap over time",
        f"Median normalised gap (0 at the reference, 1 at random guessing; {FLOOR:g} stands for "
        f"anything less) against median seconds of a run, one point for each time limit. "
        f"The lowest is {best[1]} with {best[0]:.2%}.",
        figure,
    )


def histogram_plot(comparison: Comparison, names: Sequence[str]) -> Plot:
    """How the sampled energies lie over the spectrum, and the proved lowest states."""
    figure = _figure("normalised gap", "share of feasible samples")
    centres = (GAP_EDGES[1:] + GAP_EDGES[:-1]) / 2
    for contender, rows in _by_contender(comparison).items():
        counts = np.sum([r.histogram for r in rows if r.histogram is not None], axis=0)
        total = counts.sum()
        if not total:
            continue
        number = names.index(contender)
        figure.add_scatter(
            x=centres.round(4).tolist(), y=(counts / total).round(5).tolist(), mode="lines",
            name=contender, line={"shape": "hvh", "color": _colour(number), "dash": _dash(number)},
        )  # fmt: skip
    reference = comparison.reference
    gaps = [round(reference.gap(e), 5) for e in reference.energies.tolist()]
    if gaps:
        figure.add_scatter(
            x=gaps, y=[0.0] * len(gaps), mode="markers", name="proved lowest states",
            marker={"symbol": "line-ns-open", "size": 12, "color": "#7F7F7F"},
            text=[f"state {i}: gap {gap:.3%}" for i, gap in enumerate(gaps)], hoverinfo="text",
        )  # fmt: skip
    return Plot(
        "histogram",
        "Energies over the certified spectrum",
        "Where the feasible samples of each contender lie between the reference (0) and the mean "
        "of random feasible states (1); the last bin holds all beyond. "
        + (
            f"Ticks on the axis are the {len(gaps)} proved lowest states, up to a gap of "
            f"{gaps[-1]:.2%}."
            if gaps
            else "No spectrum is proved for this problem."
        ),
        figure,
    )


def removal_plot(comparison: Comparison) -> Plot:
    """Which blocks the best states remove: proved ones first, then each contender's best."""
    reference = comparison.reference
    labels = [f"proved state {i}" for i in range(min(5, len(reference.states)))]
    states = [state.tolist() for state in reference.states[:5]]
    for contender, rows in _by_contender(comparison).items():
        found = [r for r in rows if r.best_state is not None and r.best_gap is not None]
        if found:
            row = min(found, key=lambda r: r.best_gap or 0.0)
            labels.append(contender)
            states.append(row.best_state.tolist() if row.best_state is not None else [])
    figure = _figure("block", "")
    figure.add_heatmap(
        z=states, x=list(comparison.problem.blocks), y=labels, showscale=False, xgap=1, ygap=1,
        colorscale=[[0, "rgba(127,127,127,0.15)"], [1, COLOURS[1]]], zmin=0, zmax=1,
        hovertemplate="%{y}: block %{x}, %{z}<extra></extra>",
    )  # fmt: skip
    figure.update_yaxes(autorange="reversed", automargin=True)
    figure.update_xaxes(type="category")
    figure.update_layout(height=160 + 22 * len(labels))
    always = [
        name
        for name, column in zip(comparison.problem.blocks, np.array(states).T, strict=True)
        if column.all()
    ]
    return Plot(
        "removal",
        "Blocks that the best states remove",
        "Rows are the proved lowest states and each contender's best state; filled cells are "
        "removed blocks. "
        + (f"Removed by all of them: {', '.join(always)}." if always else "None is in all."),
        figure,
    )


def penalty_plot(comparison: Comparison) -> Plot | None:
    """Feasibility and gap against the penalty weight, where a backend was run with several."""
    sweeps: dict[str, list[tuple[float, ComparisonRow]]] = {}
    for row in comparison.rows:
        weight = row.penalty_weight
        if weight is not None and row.feasible_rate is not None:
            limit = "" if row.time_limit is None else f" @ {row.time_limit:g} s"
            sweeps.setdefault(f"{row.backend}{limit}", []).append((weight, row))
    sweeps = {name: rows for name, rows in sweeps.items() if len({w for w, _ in rows}) > 1}
    if not sweeps:
        return None
    figure = _figure("penalty weight", "share", log_x=True)
    for number, (name, points) in enumerate(sweeps.items()):
        points.sort(key=lambda point: point[0])
        for what, dash in (("feasible samples", "solid"), ("median gap", "dot")):
            values = [r.feasible_rate if dash == "solid" else r.median_gap for _, r in points]
            figure.add_scatter(
                x=[w for w, _ in points], y=values, mode="lines+markers", name=f"{name}: {what}",
                line={"color": _colour(number), "dash": dash},
            )  # fmt: skip
    return Plot(
        "penalty",
        "Penalty sweep",
        "Share of feasible samples and median gap against the weight of the penalty. Too small "
        "a weight loses feasibility; too large a one drowns the objective.",
        figure,
    )


def _by_contender(comparison: Comparison) -> dict[str, list[ComparisonRow]]:
    groups: dict[str, list[ComparisonRow]] = {}
    for row in comparison.rows:
        if row.runs:
            groups.setdefault(row.contender, []).append(row)
    return groups


def _colour(number: int) -> str:
    return COLOURS[number % len(COLOURS)]


def _dash(number: int) -> str:
    return ("solid", "dash", "dot", "dashdot")[number // len(COLOURS) % 4]


def _figure(x: str, y: str, *, log_x: bool = False, log_y: bool = False) -> Any:
    from plotly.graph_objects import Figure

    figure = Figure()
    figure.update_layout(
        xaxis=_axis(x, log_x),
        yaxis=_axis(y, log_y),
        modebar={"bgcolor": "rgba(0,0,0,0)", "color": "#7F7F7F", "activecolor": "#0072B2"},
        margin={"l": 60, "r": 10, "t": 10, "b": 50},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        legend={"orientation": "h", "y": 1.08, "yanchor": "bottom"},
        height=500,
        template="none",
    )
    return figure


def _axis(title: str, log: bool) -> dict[str, Any]:
    axis = {
        "title": {"text": title},
        "gridcolor": "rgba(127,127,127,0.25)",
        "zeroline": False,
        "automargin": True,
    }
    return axis | ({"type": "log", "dtick": 1, "exponentformat": "power"} if log else {})
