"""`qblock instances`: the problems that come with qblock, and how hard they are for whom."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from qblock.cli import _common as common
from qblock.files import bundled_instances, load_sensitivity
from qblock.problem import BlockRemovalProblem, Sensitivity
from qblock.study.analysis import Analysis, analyse, interval_text, listing
from qblock.study.plan_file import load_plan
from qblock.study.store import open_study


def instances(
    study: Annotated[
        Path | None,
        typer.Option("--study", help="A study of them, such as `qblock study run library` makes."),
    ] = None,
    as_json: common.JsonOption = False,
) -> None:
    """List the benchmark library; with a study, the proved optima and who finds them."""
    analysis = None
    if study is not None:
        with open_study(study) as store:
            analysis = analyse(store)
    rows = library_rows(analysis)
    if as_json:
        common.print_json(rows)
        return
    table = Table(title="benchmark library (`qblock study run library`)")
    for column in rows[0]:
        if column != "provenance":
            name = column.replace("_", " ")
            table.add_column(name, justify="left" if column in TEXT else "right", overflow="fold")
    for row in rows:
        table.add_row(*(_cell(row[column]) for column in row if column != "provenance"))
    common.console.print(table)


TEXT = ("name", "curvature", "fastest", "never_found_by")


def library_rows(analysis: Analysis | None = None) -> list[dict[str, Any]]:
    """One row for each problem of the library, then the bundled instances that it does not use.

    With a study of the library: the proved optimum, the contender of least time to solution,
    and those that never reached the reference.
    """
    problems = load_plan("library").problems
    rows = []
    for problem in problems:
        row = _facts(problem.sensitivity)
        row |= {"remove": problem.remove, "states": problem.reduced.num_feasible}
        if analysis is not None:
            row |= _findings(analysis, problem)
        rows.append(row)
    used = {problem.sensitivity.name for problem in problems}
    others = [load_sensitivity(name) for name in bundled_instances()]
    rows += [
        dict.fromkeys(rows[0]) | _facts(sensitivity)
        for sensitivity in others
        if sensitivity.name not in used
    ]
    return rows


def _facts(sensitivity: Sensitivity) -> dict[str, Any]:
    return {
        "name": sensitivity.name,
        "curvature": sensitivity.curvature,
        "blocks": len(sensitivity),
        "effective_rank": round(sensitivity.effective_rank, 2),
        "provenance": dict(sensitivity.provenance),
    }


def _findings(analysis: Analysis, problem: BlockRemovalProblem) -> dict[str, Any]:
    found: dict[str, Any] = {"proved_optimum": None, "fastest": None, "never_found_by": None}
    comparison = next((c for c in analysis.comparisons if c.problem == problem), None)
    if comparison is None:
        return found
    rows = {name: analysis.best_row(comparison, name) for name in analysis.contenders}
    solved = {
        name: row.tts
        for name, row in rows.items()
        if row is not None and row.tts is not None and row.tts.value is not None
    }
    if comparison.reference.proved:
        found["proved_optimum"] = comparison.reference.energy
    if solved:
        fastest = min(solved, key=lambda name: solved[name].value or 0.0)
        found["fastest"] = f"{fastest}, {interval_text(solved[fastest], ' s')}"
    never = [name for name, row in rows.items() if row is not None and name not in solved]
    found["never_found_by"] = listing(never) or "nobody"
    return found


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.6g}"
    return f"{value:.3g}" if isinstance(value, int) and value > 10**6 else str(value)
