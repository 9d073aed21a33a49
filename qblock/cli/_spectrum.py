"""`qblock spectrum`: the lowest states, proved, as a table and as a picture."""

from pathlib import Path
from typing import Annotated, Any

import typer

from qblock.cli import _common as common
from qblock.cli._solve import result_document
from qblock.files import load_sensitivity
from qblock.maps import removal_map, spectrum_table
from qblock.pictures import check_picture, save_picture
from qblock.registry import get_backend
from qblock.spectrum import Spectrum


def spectrum(
    problem: common.ProblemArgument,
    remove: Annotated[
        str,
        typer.Option(
            "--remove",
            metavar="M[,M...] | GROUP=M,...",
            help="How many blocks to remove: one number or several, or a number per group.",
        ),
    ],
    keep: common.KeepOption = "",
    drop: common.DropOption = "",
    linear: common.LinearOption = False,
    top: Annotated[int, typer.Option("--top", min=1, help="How many states to prove.")] = 20,
    plot: Annotated[
        Path | None,
        typer.Option("--plot", metavar="FILE", help="Save the block-removal map as a picture."),
    ] = None,
    seed: common.SeedOption = None,
    time_limit: common.TimeLimitOption = None,
    as_json: common.JsonOption = False,
) -> None:
    """Prove the lowest states of a problem, for one budget or several, and show them ranked."""
    if plot is not None:
        check_picture(plot)
    sensitivity = load_sensitivity(problem)
    tasks = [
        common.make_problem(sensitivity, budget, keep, drop, linear)
        for budget in split_budgets(remove)
    ]
    solver = get_backend("exact")
    found: list[Spectrum] = []
    documents: list[dict[str, Any]] = []
    interrupted = False
    for task in tasks:
        with common.progress_line(f"remove {task.remove}") as report:
            result = solver.sample(task, seed=seed, time_limit=time_limit, report=report, k=top)
        found.append(Spectrum.of(task, result))
        documents.append(result_document(task, result, top))
        interrupted = result.status == "interrupted"
        if not as_json:
            common.console.print(spectrum_table(found[-1]))
        if interrupted:
            break
    if as_json:
        common.print_json({"spectra": documents})
    if plot is not None:
        save_picture(removal_map(found), plot)
        common.messages.print(f"the map is in {plot}")
    if interrupted:
        common.messages.print("interrupted; these are the states found until then")
        raise typer.Exit(130)


def split_budgets(text: str) -> list[str]:
    """The budgets in "4,8,12"; a budget per group, as in "attention=2,moe=3", is one."""
    return [text] if "=" in text else text.split(",")
