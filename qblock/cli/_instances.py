"""`qblock instances`: the problems that come with qblock, and how hard they are for whom."""

import json
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from qblock.cli import _common as common
from qblock.files import bundled_instances, load_sensitivity
from qblock.problem import Sensitivity
from qblock.study.analysis import Analysis, analyse, listing
from qblock.study.judge import Comparison
from qblock.study.plan_file import load_plan
from qblock.study.store import open_study


def instances(
    study: Annotated[
        Path | None,
        typer.Option(
            "--study",
            help="A study of them, such as `qblock study run library` makes, instead of the one "
            "that qblock was released with.",
        ),
    ] = None,
    as_json: common.JsonOption = False,
) -> None:
    """List the benchmark library: sizes, proved optima, and who finds them how fast."""
    if study is None:
        findings = released_findings()
    else:
        with open_study(study) as store:
            findings = study_findings(analyse(store))
    rows = library_rows(findings)
    if as_json:
        common.print_json(rows)
        return
    table = Table(title="benchmark library (`qblock study run library`)")
    for column in rows[0]:
        if column not in HIDDEN:
            name = column.replace("_", " ")
            table.add_column(name, justify="left" if column in TEXT else "right", overflow="fold")
    for row in rows:
        table.add_row(*(_cell(row[column]) for column in row if column not in HIDDEN))
    common.console.print(table)


TEXT = ("name", "fastest")
HIDDEN = ("provenance", "problem", "curvature", "tts_interval", "never_found_by")

Findings = Mapping[str, Mapping[str, Any]]
"""By problem id: `FINDINGS` of a study."""
FINDINGS = (
    "proved_optimum",
    "found_by",
    "fastest",
    "tts_seconds",
    "tts_interval",
    "never_found_by",
)
"""The energy, how many contenders reached it, the one of least time to solution with 99 %, that
time and its interval, and those that never did."""


def released_findings() -> Findings:
    """What the study found that qblock was released with: the output of
    `qblock instances --study library.db --json`, kept beside the instances."""
    text = (resources.files("qblock") / "instances" / "findings.json").read_text()
    return {row["problem"]: row for row in json.loads(text) if row["problem"]}


def study_findings(analysis: Analysis) -> Findings:
    """What a study found."""
    return {each.problem.id: _findings(analysis, each) for each in analysis.comparisons}


def library_rows(findings: Findings) -> list[dict[str, Any]]:
    """One row for each problem of the library, then the bundled instances that it does not use."""
    problems = load_plan("library").problems
    rows = []
    for problem in problems:
        row = _facts(problem.sensitivity)
        row |= {"remove": problem.remove, "states": problem.reduced.num_feasible}
        row |= {"problem": problem.id}
        found = findings.get(problem.id, {})
        row |= {name: found.get(name) for name in FINDINGS}
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


def _findings(analysis: Analysis, comparison: Comparison) -> dict[str, Any]:
    found: dict[str, Any] = dict.fromkeys(FINDINGS)
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
        time = solved[fastest]
        found |= {"fastest": fastest, "tts_seconds": time.value}
        found["tts_interval"] = [time.low, time.high]
    never = [name for name, row in rows.items() if row is not None and name not in solved]
    found["found_by"] = f"{len(solved)} of {len(solved) + len(never)}"
    found["never_found_by"] = listing(never) or "nobody"
    return found


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, dict):
        return ", ".join(f"{group}={count}" for group, count in value.items())
    if isinstance(value, float):
        return f"{value:.3g}"
    return f"{value:.3g}" if isinstance(value, int) and value > 10**6 else str(value)
