"""`qblock validate`: does the energy rank models here?"""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from qblock.cli import _common as common
from qblock.cli import _model, _text
from qblock.pictures import check_picture, save_picture

if TYPE_CHECKING:
    from qblock.llm.validate import Validation


def validate(
    model: _model.ModelArgument,
    problem: common.ProblemArgument,
    remove: common.RemoveOption,
    text: _text.TextOption,
    keep: common.KeepOption = "",
    drop: common.DropOption = "",
    linear: common.LinearOption = False,
    states: Annotated[
        int, typer.Option("--states", min=4, help="Half the lowest, half random.")
    ] = 40,
    samples: Annotated[int, typer.Option("--samples", min=1, help="Rows of text.")] = 16,
    seq_len: _text.SeqLenOption = 128,
    batch_size: _text.BatchSizeOption = 8,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the random states.")] = 0,
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE", help="Scatter plot (.png, .svg, .pdf).")
    ] = None,
    revision: _model.RevisionOption = None,
    dtype: _model.DtypeOption = "auto",
    device: _model.DeviceOption = "auto",
    architecture: _model.ArchitectureOption = None,
    as_json: common.JsonOption = False,
) -> None:
    """Measure the true loss of low and random states, and say whether energy ranks them.

    Uses the held-out part of the text: the last fifth, or every fifth document of a dataset.
    """
    if plot is not None:
        check_picture(plot)
    task = common.load_problem(problem, remove, keep, drop, linear)
    loaded = _model.load(model, revision=revision, dtype=dtype, device=device)
    from qblock.llm import validate as llm
    from qblock.llm.select import matching_stack

    stack = matching_stack(loaded.model, task, architecture)
    tokens = _text.read(loaded, text, samples, seq_len).heldout.rows(samples, seq_len)
    with _text.progress_bar("measuring losses") as report:
        validation = llm.validate(
            stack, task, tokens, states=states, batch_size=batch_size, seed=seed, report=report
        )
    if plot is not None:
        save_picture(llm.scatter_plot(validation), plot)
    if as_json:
        common.print_json(document(validation))
        return
    common.console.print(agreement_table(validation))
    common.console.print(validation.verdict)


def agreement_table(validation: "Validation") -> Table:
    """Rank correlations of energy and measured loss, with their intervals."""
    sensitivity = validation.problem.sensitivity
    table = Table(
        title=f"{sensitivity.name} ({sensitivity.curvature}), remove {validation.problem.remove}",
        caption=f"loss of the intact model {validation.intact:.4f}, of the ground state "
        f"{validation.losses[0]:.4f}, best measured {validation.losses.min():.4f}",
    )
    for heading in ("states", "Spearman", "Kendall"):
        table.add_column(heading)
    for label, part in parts(validation).items():
        table.add_row(
            label,
            str(validation.agreement("spearman", part)),
            str(validation.agreement("kendall", part)),
        )
    return table


def parts(validation: "Validation") -> dict[str, slice]:
    """The sets of states over which correlations are given."""
    low, total = validation.num_lowest, len(validation.losses)
    return {
        f"all {total}": slice(None),
        f"{low} lowest": slice(low),
        f"{total - low} random": validation.random,
    }


def document(validation: "Validation") -> dict[str, Any]:
    """The JSON document of one validation."""
    return {
        "problem": validation.problem.id,
        "name": validation.problem.sensitivity.name,
        "curvature": validation.problem.sensitivity.curvature,
        "remove": validation.problem.remove,
        "intact_loss": validation.intact,
        "agreement": {
            label: {
                statistic: asdict(validation.agreement(statistic, part))
                for statistic in ("spearman", "kendall")
            }
            for label, part in parts(validation).items()
        },
        "verdict": validation.verdict,
        "states": [
            {
                "removed": [b for b, x in zip(validation.problem.blocks, state, strict=True) if x],
                "energy": float(energy),
                "loss": float(loss),
                "lowest": index < validation.num_lowest,
            }
            for index, (state, energy, loss) in enumerate(
                zip(validation.states, validation.energies, validation.losses, strict=True)
            )
        ],
    }
