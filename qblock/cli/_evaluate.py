"""`qblock evaluate`: quality, speed and size of models, the first being the one to compare with."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.table import Table

from qblock.cli import _common as common
from qblock.cli import _model, _text

if TYPE_CHECKING:
    from qblock.llm.evaluate import Evaluation


def evaluate(
    models: Annotated[
        list[str], typer.Argument(metavar="MODEL...", help="The original first, then others.")
    ],
    text: _text.TextOption,
    part: Annotated[
        Literal["heldout", "all"],
        typer.Option("--part", help="What calibrate leaves aside of the text, or all of it."),
    ] = "heldout",
    max_tokens: Annotated[
        int, typer.Option("--max-tokens", min=2, help="At most so many tokens of it.")
    ] = 20_000,
    context: Annotated[
        int | None, typer.Option("--context", min=2, help="Tokens in a window.")
    ] = None,
    stride: Annotated[
        int | None, typer.Option("--stride", min=1, help="Tokens between windows; half of one.")
    ] = None,
    tasks: Annotated[
        str, typer.Option("--tasks", metavar="TASK,...", help="Tasks of lm-eval, if installed.")
    ] = "",
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="At most so many questions per task.")
    ] = None,
    revision: _model.RevisionOption = None,
    dtype: _model.DtypeOption = "auto",
    device: _model.DeviceOption = "auto",
    as_json: common.JsonOption = False,
) -> None:
    """Measure perplexity, bits per byte, speed and size of one or more models on a text."""
    from qblock.llm import evaluate as llm

    names = [name.strip() for name in tasks.split(",") if name.strip()]
    if names:
        llm.require_harness()
    found: list[Evaluation] = []
    scores: list[dict[str, dict[str, float]]] = []
    for model in models:
        loaded = _model.load(model, revision=revision, dtype=dtype, device=device)
        source = _text.read(loaded, text, max_tokens, 2)
        ids = (source.heldout if part == "heldout" else source).ids[:max_tokens]
        with _text.progress_bar(f"measuring {loaded.source}") as report:
            found.append(llm.evaluate(loaded, ids, context=context, stride=stride, report=report))
        scores.append(llm.harness_scores(loaded, names, limit=limit) if names else {})
        del loaded
    if as_json:
        documents: list[dict[str, Any]] = [
            {**asdict(item), "perplexity": item.perplexity, "tasks": task}
            for item, task in zip(found, scores, strict=True)
        ]
        common.print_json(documents)
        return
    common.console.print(evaluation_table(found, f"{text} ({part}), {found[0].tokens} tokens"))
    for item, task in zip(found, scores, strict=True):
        for name, metrics in task.items():
            values = ", ".join(f"{metric} {value:.4f}" for metric, value in metrics.items())
            common.console.print(f"{item.source} {name}: {values}")


def evaluation_table(found: "list[Evaluation]", title: str) -> Table:
    """One row for each model."""
    table = Table(title=title)
    table.add_column("model")
    for column in ("parameters", "size", "perplexity", "bits/byte", "read tok/s", "write tok/s"):
        table.add_column(column, justify="right")
    for item in found:
        table.add_row(
            item.source,
            f"{item.parameters:,}",
            f"{item.bytes / 1e6:.1f} MB ({item.bytes / found[0].bytes:.0%})",
            f"{item.perplexity:.2f}",
            f"{item.bits_per_byte:.4f}",
            f"{item.read_speed:.0f} ({item.read_speed / found[0].read_speed:.2f}x)",
            f"{item.write_speed:.1f} ({item.write_speed / found[0].write_speed:.2f}x)",
        )
    return table
