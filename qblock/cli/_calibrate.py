"""`qblock calibrate`: from a model and a text to a sensitivity file."""

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from qblock.cli import _common as common
from qblock.cli import _model, _text
from qblock.files import save_sensitivity
from qblock.shards import Shard

if TYPE_CHECKING:
    from qblock.llm.estimate import Estimate
    from qblock.llm.text import Tokens


def calibrate(
    model: _model.ModelArgument,
    text: _text.TextOption,
    output: Annotated[Path, typer.Option("--output", "-o", help="The .npz file to write.")],
    curvature: Annotated[
        Literal["fisher", "gauss-newton", "ablation"],
        typer.Option(
            "--curvature",
            help="fisher: per-sample gradients, as published, for any size. gauss-newton: exact "
            "in the couplings. ablation: every single and pair measured; the best up to a few "
            "dozen blocks.",
        ),
    ] = "fisher",
    samples: Annotated[
        int, typer.Option("--samples", metavar="M", min=1, help="Rows of text.")
    ] = 64,
    seq_len: _text.SeqLenOption = 128,
    batch_size: _text.BatchSizeOption = 8,
    granularity: Annotated[
        Literal["block", "sublayer"],
        typer.Option("--granularity", help="Whole layers, or attention and MLP apart."),
    ] = "block",
    checkpointing: Annotated[
        bool,
        typer.Option(
            "--checkpointing", help="fisher: compute each layer again going back; saves memory."
        ),
    ] = False,
    shard: Annotated[
        str,
        typer.Option(
            "--shard", metavar="I/N", help="Only the I-th of N parts of the rows; see qblock merge."
        ),
    ] = "1/1",
    estimate: Annotated[
        bool,
        typer.Option(
            "--estimate",
            help="Only tell the device memory this would take; no weights are downloaded.",
        ),
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with an interrupted calibration.")
    ] = False,
    force: common.OverwriteOption = False,
    revision: _model.RevisionOption = None,
    dtype: _model.DtypeOption = "auto",
    device: _model.DeviceOption = "auto",
    max_memory: _model.MaxMemoryOption = "",
    offload: _model.OffloadOption = None,
    architecture: _model.ArchitectureOption = None,
) -> None:
    """Measure how a model's loss reacts to each block and pair of blocks.

    The last fifth of the text (every fifth document of a dataset) is left for validation.
    """
    common.check_output(output, force)
    part = Shard.parse(shard)
    rows = part.rows(samples)
    if estimate:
        from qblock.llm.estimate import estimate as measure

        found = measure(
            model,
            curvature=curvature,
            batch_size=min(batch_size, rows.stop - rows.start),
            seq_len=seq_len,
            dtype=dtype,
            checkpointing=checkpointing,
            granularity=granularity,
            revision=revision,
            architecture=architecture,
        )
        common.console.print(estimated(found))
        return
    loaded = _model.load(
        model,
        revision=revision,
        dtype=dtype,
        device=device,
        max_memory=max_memory,
        offload=offload,
    )
    from qblock.llm.blocks import residual_stack
    from qblock.llm.calibrate import calibrate as run
    from qblock.llm.calibrate import checkpointed

    stack = residual_stack(loaded.model, granularity, architecture=architecture)
    source = _text.read(loaded, text, samples, seq_len).calibration
    every = source.rows(samples, seq_len)
    tokens = every[rows]
    layers = checkpointed(stack.layers) if checkpointing else nullcontext()
    partial = output.with_suffix(".partial.npz")
    try:
        with _text.progress_bar(f"{curvature} curvature") as report, layers:
            sensitivity = run(
                stack,
                tokens,
                curvature=curvature,
                batch_size=batch_size,
                partial=partial,
                resume=resume,
                name=output.stem,
                provenance={
                    "model": loaded.source,
                    "revision": loaded.revision,
                    "text": source.source,
                    "granularity": granularity,
                    **({} if part.count == 1 else shard_facts(part, every)),
                },
                report=report,
            )
    except KeyboardInterrupt:
        if partial.exists():
            common.messages.print(f"finished batches are in {partial}: go on with --resume")
        raise
    save_sensitivity(sensitivity, output)
    partial.unlink(missing_ok=True)
    half = sensitivity.provenance["split_half_spearman"]
    common.console.print(
        f"{output}: {len(sensitivity)} blocks, {curvature}, {tokens.predicted} tokens in "
        f"{sensitivity.provenance['seconds']} s, effective rank {sensitivity.effective_rank:.1f}"
        + ("" if half is None else f", split-half Spearman {half:.3f}")
    )


def estimated(found: "Estimate") -> str:
    """An estimate in words."""
    groups = ", ".join(f"{count} {group}" for group, count in found.groups.items())
    weights, fp8, working = (
        f"{size / 1e9:.1f} GB" for size in (found.weights, found.weights_fp8, found.working)
    )
    return (
        f"{found.parameters:,} parameters in blocks: {groups}\n"
        f"weights {weights} (with the layers' matrices in FP8, kept frozen: {fp8})\n"
        f"beside them about {working}\n"
        f"together about {(found.weights + found.working) / 1e9:.1f} GB"
    )


def shard_facts(part: Shard, every: "Tokens") -> dict[str, Any]:
    """What `qblock.shards.merge` has to know of a shard of the rows `every`."""
    return {
        "shard": part.index,
        "of": part.count,
        "first_row": part.rows(len(every)).start,
        "all_rows": len(every),
        "all_tokens_sha256": every.sha256,
    }
