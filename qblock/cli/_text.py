"""Options on text that the commands on language models share, and progress over rows of it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from qblock.cli import _common as common

if TYPE_CHECKING:
    from qblock.llm.load import LoadedModel
    from qblock.llm.text import Text

TextOption = Annotated[
    str,
    typer.Option(
        "--text",
        metavar="SOURCE",
        help="A text file, builtin:python-docs, or hf:DATASET, then :config, :split and :column "
        "where they are needed.",
    ),
]
SeqLenOption = Annotated[
    int, typer.Option("--seq-len", metavar="L", min=2, help="Tokens in a row of text.")
]
BatchSizeOption = Annotated[
    int, typer.Option("--batch-size", min=1, help="Rows that go through the model together.")
]


def read(loaded: "LoadedModel", source: str, rows: int, seq_len: int) -> "Text":
    """The text, or as much of a dataset as gives that many rows in each of its two parts."""
    from qblock.llm.text import load_text

    return load_text(source, loaded.tokenizer, enough=(rows, seq_len))


@contextmanager
def progress_bar(description: str) -> Iterator[Callable[[float], None]]:
    """A bar with the time left on stderr while the block runs; silent unless it is a terminal."""
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        console=common.messages,
        transient=True,
        disable=not common.messages.is_terminal,
    )
    with bar:
        task = bar.add_task(description, total=1.0)
        yield lambda done: bar.update(task, completed=done)
