"""`qblock select`: re-rank low states by the loss that is measured."""

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from qblock.cli import _common as common
from qblock.cli import _model, _text
from qblock.files import save_sensitivity

if TYPE_CHECKING:
    from qblock.llm.select import MeasuredState


def select(
    model: _model.ModelArgument,
    problem: common.ProblemArgument,
    remove: common.RemoveOption,
    text: _text.TextOption,
    keep: common.KeepOption = "",
    drop: common.DropOption = "",
    linear: common.LinearOption = False,
    candidates: Annotated[
        int, typer.Option("--candidates", "-k", min=1, help="Low states measured in each round.")
    ] = 20,
    rounds: Annotated[
        int,
        typer.Option(
            "--rounds", min=1, help="How often to measure, each time with H corrected by the last."
        ),
    ] = 3,
    random: Annotated[
        int,
        typer.Option(
            "--random", min=0, help="Random states measured too; for a --refined to be used widely."
        ),
    ] = 0,
    samples: Annotated[int, typer.Option("--samples", min=1, help="Rows of text.")] = 32,
    search_samples: Annotated[
        int | None,
        typer.Option(
            "--search-samples",
            min=1,
            help="Rows that the rounds measure on; the finalists are measured on all.",
            show_default="a quarter of them",
        ),
    ] = None,
    finalists: Annotated[
        int, typer.Option("--finalists", min=1, help="States that are measured on all rows.")
    ] = 8,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the random states.")] = 0,
    refined: Annotated[
        Path | None,
        typer.Option(
            "--refined", metavar="FILE.npz", help="Write H as corrected by all that was measured."
        ),
    ] = None,
    seq_len: _text.SeqLenOption = 128,
    batch_size: _text.BatchSizeOption = 8,
    top: Annotated[int, typer.Option("--top", min=1, help="How many states to show.")] = 5,
    revision: _model.RevisionOption = None,
    dtype: _model.DtypeOption = "auto",
    device: _model.DeviceOption = "auto",
    architecture: _model.ArchitectureOption = None,
    force: common.OverwriteOption = False,
    as_json: common.JsonOption = False,
) -> None:
    """Re-rank the lowest states by measured loss: an excited state is often the best model.

    In each round H is corrected by what was measured and solved again, since the more blocks go,
    the more it errs; the best are measured on more text, beside what the cheap baselines (block
    influence, norm ratio, sliding window) would choose. Uses the calibration part of the text,
    so that the held-out part stays unseen. Ctrl-C keeps the rounds that are finished.
    """
    if refined is not None:
        common.check_output(refined, force)
    task = common.load_problem(problem, remove, keep, drop, linear)
    loaded = _model.load(model, revision=revision, dtype=dtype, device=device)
    from qblock.llm import select as llm
    from qblock.llm.baselines import cheap_choices

    stack = llm.matching_stack(loaded.model, task, architecture)
    tokens = _text.read(loaded, text, samples, seq_len).calibration.rows(samples, seq_len)
    with _text.progress_bar("measuring losses") as report:
        selection = llm.select(
            stack,
            task,
            tokens,
            candidates=candidates,
            rounds=rounds,
            random=random,
            search_rows=search_samples or max(1, samples // 4),
            finalists=finalists,
            challengers=cheap_choices(stack, task, tokens),
            seed=seed,
            batch_size=batch_size,
            report=report,
        )
    if refined is not None:
        save_sensitivity(selection.refined, refined)
    if as_json:
        common.print_json([document(item) for item in selection.measured])
    else:
        shown = selection.measured[:top]
        rows = ((str(item.state.rank), item) for item in shown)
        title = (
            f"{task.sensitivity.name}: {len(selection.measured)} states measured, the best "
            f"{len(shown)}"
        )
        common.console.print(selection_table("rank by energy", rows, title))
        blocks = ",".join(selection.best.removed)
        common.console.print(
            f"Next: qblock prune {model} {problem} --remove {remove} --blocks {blocks} -o DIR",
            markup=False,
            soft_wrap=True,
        )
    if selection.interrupted:
        raise KeyboardInterrupt


def document(item: "MeasuredState") -> dict[str, Any]:
    """One measured state as JSON."""
    return {**asdict(item.state), "loss": item.loss, "loss_error": item.error, "rows": item.rows}


def selection_table(heading: str, rows: "Iterable[tuple[str, MeasuredState]]", title: str) -> Table:
    """Measured states in the given order, each with a label in the first column."""
    table = Table(title=title)
    for column in (heading, "energy", "loss", "perplexity"):
        table.add_column(column, justify="right")
    table.add_column("removed blocks")
    for label, item in rows:
        table.add_row(
            label,
            f"{item.state.energy:.6g}",
            f"{item.loss:.4f} ± {item.error:.4f}",
            f"{item.perplexity:.2f}",
            " ".join(item.state.removed) or "none",
        )
    return table
