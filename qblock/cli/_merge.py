"""`qblock merge`: one sensitivity from the shards of a calibration."""

from pathlib import Path
from typing import Annotated

import typer

from qblock.cli import _common as common
from qblock.files import load_sensitivity, save_sensitivity
from qblock.shards import merge as merge_shards


def merge(
    shards: Annotated[
        list[Path], typer.Argument(metavar="SHARD...", help="Files of calibrate --shard I/N.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The .npz file to write.")],
    force: common.OverwriteOption = False,
) -> None:
    """Put the shards of one calibration together, as if it had been run in one piece."""
    common.check_output(output, force)
    merged = merge_shards([load_sensitivity(path) for path in shards], name=output.stem)
    save_sensitivity(merged, output)
    common.console.print(
        f"{output}: {len(merged)} blocks, {merged.curvature}, {len(shards)} shards, "
        f"{merged.provenance['tokens_predicted']} tokens"
    )
