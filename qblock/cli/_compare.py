"""`qblock compare`: the same problem to several backends."""

from pathlib import Path
from typing import Annotated

import typer

from qblock.cli import _common as common
from qblock.study.compare import compare as run_comparison
from qblock.study.compare import comparison_table
from qblock.study.contender import Contender
from qblock.study.document import comparison_document
from qblock.study.judge import Comparison
from qblock.study.store import Store


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
    with common.progress_line("compare") as report, Store(store) as study:
        compared = run_comparison(
            task,
            contenders,
            repeats=repeats,
            seed=seed,
            time_limit=time_limit,
            store=study,
            report=report,
        )
    show(compared.comparison, as_json=as_json)
    reused = compared.execution.reused
    common.messages.print(
        f"runs are kept in {store}" + (f"; {reused} were there already" if reused else "")
    )
    if compared.execution.interrupted:
        common.messages.print("interrupted; the table is of the runs finished until then")
        raise typer.Exit(130)


def show(comparison: Comparison, *, as_json: bool) -> None:
    """Print a comparison as a table, or as one JSON document."""
    if as_json:
        common.print_json(comparison_document(comparison))
    else:
        common.console.print(comparison_table(comparison))
