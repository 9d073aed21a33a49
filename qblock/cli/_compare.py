"""`qblock compare`: the same problem to several backends."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from qblock.cli import _common as common
from qblock.study.compare import Comparison, ComparisonRow, Contender, comparison_table
from qblock.study.compare import compare as run_comparison
from qblock.study.store import RunStore


def compare(
    problem: common.ProblemArgument,
    remove: common.RemoveOption,
    backend: Annotated[
        list[str],
        typer.Option(
            "--backend", "-b", metavar="NAME[:KEY=VALUE,...]", help="A backend; repeat for more."
        ),
    ],
    keep: common.KeepOption = "",
    drop: common.DropOption = "",
    linear: common.LinearOption = False,
    repeats: Annotated[int, typer.Option("--repeats", min=1, help="Runs per backend.")] = 10,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the first run.")] = 0,
    time_limit: common.TimeLimitOption = None,
    store: Annotated[
        Path, typer.Option("--store", help="Where finished runs are kept and found again.")
    ] = Path("qblock-study.db"),
    as_json: common.JsonOption = False,
) -> None:
    """Compare backends on one problem: same seeds, same time limit, one reference."""
    task = common.load_problem(problem, remove, keep, drop, linear)
    contenders = [Contender.parse(text) for text in backend]
    with common.progress_line("compare") as report:
        comparison = run_comparison(
            task,
            contenders,
            repeats=repeats,
            seed=seed,
            time_limit=time_limit,
            store=RunStore(store),
            report=report,
        )
    show(comparison, as_json=as_json)
    reused = f"; {comparison.reused} were there already" if comparison.reused else ""
    common.messages.print(f"runs are kept in {store}{reused}")
    if comparison.interrupted:
        common.messages.print("interrupted; the table is of the runs finished until then")
        raise typer.Exit(130)


def show(comparison: Comparison, *, as_json: bool) -> None:
    """Print a comparison as a table, or as one JSON document."""
    if as_json:
        common.print_json(comparison_document(comparison))
    else:
        common.console.print(comparison_table(comparison))


def comparison_document(comparison: Comparison) -> dict[str, Any]:
    """The JSON document of a comparison."""
    return {
        "problem": {
            "name": comparison.problem.sensitivity.name,
            "id": comparison.problem.id,
            "blocks": len(comparison.problem),
            "remove": comparison.problem.remove,
        },
        "reference": asdict(comparison.reference),
        "rows": [_row_document(row) for row in comparison.rows],
        "interrupted": comparison.interrupted,
    }


def _row_document(row: ComparisonRow) -> dict[str, Any]:
    document = asdict(row)
    if row.success is not None:
        low, high = row.success.interval()
        document["success"] |= {"rate": row.success.value, "low": low, "high": high}
    return document
