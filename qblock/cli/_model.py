"""Options that the commands on language models share, and loading the model they name."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from qblock.llm.load import LoadedModel

ModelArgument = Annotated[
    str,
    typer.Argument(
        metavar="MODEL", help="A hub id, a directory with a saved model, or a GGUF file."
    ),
]
RevisionOption = Annotated[
    str | None, typer.Option("--revision", help="Branch, tag or commit of a model on the hub.")
]
DtypeOption = Annotated[
    str,
    typer.Option(
        "--dtype",
        help="float32, bfloat16, float16, stored, or auto: as stored, but float32 on a CPU.",
    ),
]
DeviceOption = Annotated[
    str,
    typer.Option("--device", help="cpu, cuda, cuda:1 ..., or auto: all accelerators there are."),
]
ArchitectureOption = Annotated[
    Path | None,
    typer.Option(
        "--architecture", metavar="FILE", help="A TOML file that describes more architectures."
    ),
]


def load(
    model: str,
    *,
    revision: str | None = None,
    dtype: str = "auto",
    device: str = "auto",
    attention: str | None = None,
) -> "LoadedModel":
    """`qblock.llm.load.load_model`, imported when it is needed."""
    from qblock.llm.load import load_model

    return load_model(model, revision=revision, dtype=dtype, device=device, attention=attention)
