"""Options and output that several subcommands share."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as ProgressBar

from qblock.backend import Progress
from qblock.errors import ProblemError
from qblock.files import load_sensitivity
from qblock.problem import BlockRemovalProblem, Sensitivity

ProblemArgument = Annotated[
    str,
    typer.Argument(metavar="PROBLEM", help="A sensitivity file or the name of a bundled instance."),
]
RemoveOption = Annotated[
    str,
    typer.Option(
        "--remove",
        metavar="M | GROUP=M,...",
        help="How many blocks to remove: in all, or per group such as attention=2,moe=3.",
    ),
]
KeepOption = Annotated[
    str, typer.Option("--keep", metavar="BLOCK,...", help="Blocks that must stay.")
]
DropOption = Annotated[
    str, typer.Option("--drop", metavar="BLOCK,...", help="Blocks that must go.")
]
LinearOption = Annotated[
    bool, typer.Option("--linear", help="Keep the gradient term (the paper drops it).")
]
SeedOption = Annotated[
    int | None, typer.Option("--seed", help="Whole number >= 0; drawn and shown if not given.")
]
TimeLimitOption = Annotated[
    float | None, typer.Option("--time-limit", metavar="SECONDS", help="Wall clock per run.")
]
OverwriteOption = Annotated[bool, typer.Option("--force", help="Overwrite the output file.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document, nothing else.")]

console = Console(width=None if sys.stdout.isatty() else 130)
"""For results, on stdout; into a file or a pipe, wide enough for every table."""
messages = Console(stderr=True)
"""For progress and remarks, on stderr."""


def parse_budget(text: str) -> int | dict[str, int]:
    """The value of --remove: "8", or "attention=2,moe=3"."""
    try:
        if "=" not in text:
            return int(text)
        pairs = [part.partition("=") for part in text.split(",")]
        return {group.strip(): int(count) for group, _, count in pairs}
    except ValueError:
        raise ProblemError(
            f"--remove {text!r}: expected a whole number, or GROUP=NUMBER separated by commas"
        ) from None


def make_problem(
    sensitivity: Sensitivity, remove: str, keep: str = "", drop: str = "", linear: bool = False
) -> BlockRemovalProblem:
    """The problem that the shared options describe."""
    return BlockRemovalProblem(
        sensitivity,
        remove=parse_budget(remove),
        keep=[name.strip() for name in keep.split(",") if name.strip()],
        drop=[name.strip() for name in drop.split(",") if name.strip()],
        linear=linear,
    )


def load_problem(
    problem: str, remove: str, keep: str = "", drop: str = "", linear: bool = False
) -> BlockRemovalProblem:
    """`make_problem` on a file or a bundled instance."""
    return make_problem(load_sensitivity(problem), remove, keep, drop, linear)


def check_output(output: Path, force: bool) -> None:
    """Refuse a place that could not be written in the end, before the work."""
    if output.suffix != ".npz":
        raise ProblemError(f"{output}: sensitivity files are written as .npz")
    if not output.absolute().parent.is_dir():
        raise ProblemError(f"cannot write {output}: the folder {output.parent} does not exist")
    if output.exists() and not force:
        raise ProblemError(f"{output} exists: name another file, or give --force")


def print_json(document: Any) -> None:
    """One JSON document on stdout. NaN and infinity, which JSON lacks, are the caller's bug."""
    json.dump(document, sys.stdout, indent=2, allow_nan=False)
    sys.stdout.write("\n")


@contextmanager
def progress_line(description: str) -> Iterator[Callable[[Progress], None]]:
    """A progress line on stderr while the block runs; silent unless stderr is a terminal."""
    bar = ProgressBar(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        console=messages,
        transient=True,
        disable=not messages.is_terminal,
    )
    with bar:
        task = bar.add_task(description, total=None)

        def report(progress: Progress) -> None:
            total = None if progress.fraction is None else 1.0
            bar.update(
                task,
                description=f"{description}: {progress.message}",
                total=total,
                completed=progress.fraction or 0,
            )

        try:
            yield report
        except KeyboardInterrupt as interrupt:
            if interrupt.args:  # such as the job that goes on; typer would drop it
                messages.print(f"interrupted; {interrupt}", soft_wrap=True)
            raise
