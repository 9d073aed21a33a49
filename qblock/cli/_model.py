"""Options that the commands on language models share, and loading the model they name."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qblock.errors import ParameterError

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
MaxMemoryOption = Annotated[
    str,
    typer.Option(
        "--max-memory",
        metavar="DEVICE=SIZE,...",
        help="What each device may hold of the model, such as 0=70GB,cpu=100GB.",
    ),
]
OffloadOption = Annotated[
    Path | None,
    typer.Option(
        "--offload", metavar="FOLDER", help="Where weights go that fit on no device; slow."
    ),
]
ArchitectureOption = Annotated[
    Path | None,
    typer.Option(
        "--architecture", metavar="FILE", help="A TOML file that describes more architectures."
    ),
]
ForceOption = Annotated[
    bool, typer.Option("--force", help="Replace a model that is there already.")
]


def load(
    model: str,
    *,
    revision: str | None = None,
    dtype: str = "auto",
    device: str = "auto",
    attention: str | None = None,
    max_memory: str = "",
    offload: Path | None = None,
) -> "LoadedModel":
    """`qblock.llm.load.load_model`, imported when it is needed."""
    from qblock.llm.load import load_model

    return load_model(
        model,
        revision=revision,
        dtype=dtype,
        device=device,
        attention=attention,
        max_memory=parse_memory(max_memory),
        offload=offload,
    )


def parse_memory(text: str) -> dict[int | str, str]:
    """The value of --max-memory, "0=70GB,cpu=100GB", by device."""
    pairs = [part.strip().partition("=") for part in text.split(",") if part.strip()]
    for device, equals, size in pairs:
        if not (equals and re.fullmatch(r"\d+|cpu|mps", device)):
            raise ParameterError(f"--max-memory {text!r}: expected such as 0=70GB,cpu=100GB")
        if not re.fullmatch(r"\d+(\.\d+)?([KMG]i?B)", size):
            raise ParameterError(f"--max-memory {text!r}: {size!r} is no size such as 70GB")
    return {int(d) if d.isdecimal() else d: size for d, _, size in pairs}
