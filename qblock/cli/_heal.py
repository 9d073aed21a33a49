"""`qblock heal`: retrain a pruned model for a short while, with the original as its teacher."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from qblock.cli import _common as common
from qblock.cli import _model, _text


def heal(
    original: Annotated[
        str, typer.Argument(metavar="ORIGINAL", help="The model that was pruned: the teacher.")
    ],
    pruned: Annotated[str, typer.Argument(metavar="PRUNED", help="What was made of it.")],
    text: _text.TextOption,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="The directory to make.")],
    samples: Annotated[
        int, typer.Option("--samples", metavar="M", min=1, help="Rows of text to train on.")
    ] = 1024,
    seq_len: _text.SeqLenOption = 256,
    heldout_samples: Annotated[
        int, typer.Option("--heldout-samples", min=1, help="Rows that decide when to stop.")
    ] = 32,
    epochs: Annotated[float, typer.Option("--epochs", help="How often each row is seen.")] = 1.0,
    batch_size: _text.BatchSizeOption = 4,
    accumulate: Annotated[
        int, typer.Option("--accumulate", min=1, help="Batches that make one step.")
    ] = 1,
    learning_rate: Annotated[
        float, typer.Option("--learning-rate", help="Its highest value; with --lora try 1e-3.")
    ] = 1e-4,
    temperature: Annotated[
        float, typer.Option("--temperature", help="Softens the predictions that are compared.")
    ] = 1.0,
    hidden: Annotated[
        float, typer.Option("--hidden", help="Weight of the hidden-state loss; 0 leaves it out.")
    ] = 0.0,
    lora: Annotated[
        int,
        typer.Option(
            "--lora", metavar="RANK", min=0, help="Train low-rank updates (needs peft), merged in."
        ),
    ] = 0,
    mixed_precision: Annotated[
        Literal["no", "bf16", "fp16"],
        typer.Option("--mixed-precision", help="What it computes in while it is trained."),
    ] = "no",
    checkpointing: Annotated[
        bool, typer.Option("--checkpointing", help="Compute layers again going back; saves memory.")
    ] = False,
    evaluate_every: Annotated[
        int, typer.Option("--evaluate-every", min=1, help="Steps between held-out evaluations.")
    ] = 50,
    patience: Annotated[
        int, typer.Option("--patience", min=1, help="Evaluations without a better one to stop at.")
    ] = 5,
    seed: Annotated[
        int, typer.Option("--seed", min=0, help="Of the order of the rows and the start of --lora.")
    ] = 0,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with an interrupted run.")
    ] = False,
    force: _model.ForceOption = False,
    revision: _model.RevisionOption = None,
    dtype: _model.DtypeOption = "auto",
    device: _model.DeviceOption = "auto",
    architecture: _model.ArchitectureOption = None,
    as_json: common.JsonOption = False,
) -> None:
    """Train a pruned model to predict as the original does; keep the best held-out state.

    Uses the text without its last fifth (every fifth document of a dataset), which is left to
    judge with; a fifth of that decides when to stop.

    On several devices: accelerate launch -m qblock heal ...
    """
    from qblock.llm import heal as llm
    from qblock.llm.recipe import Recipe
    from qblock.llm.write import CARD, check_target

    recipe = Recipe(
        epochs=epochs,
        batch_size=batch_size,
        accumulate=accumulate,
        learning_rate=learning_rate,
        temperature=temperature,
        hidden=hidden,
        lora=lora,
        mixed_precision=mixed_precision,
        checkpointing=checkpointing,
        evaluate_every=evaluate_every,
        patience=patience,
        seed=seed,
    )
    check_target(out, force)
    device = llm.own_device() if device == "auto" else device
    teacher = _model.load(original, revision=revision, dtype=dtype, device=device)
    student = _model.load(pruned, dtype="stored", device=device)
    source = _text.read(teacher, text, 2 * (samples + heldout_samples), seq_len).calibration
    train = source.calibration.rows(samples, seq_len)
    heldout = source.heldout.rows(heldout_samples, seq_len)
    card = Path(pruned) / CARD
    try:
        with _text.progress_bar("healing") as report:
            healed = llm.heal(
                teacher,
                student,
                train,
                heldout,
                out,
                recipe=recipe,
                text=source.source,
                history=card.read_text(encoding="utf-8") if card.is_file() else "",
                resume=resume,
                force=force,
                architecture=architecture,
                report=report,
                watch=lambda found: common.messages.print(
                    f"step {found.step}: held-out loss {found.loss:.4f}, cross entropy "
                    f"{found.cross_entropy:.4f}"
                ),
            )
    except KeyboardInterrupt:
        common.messages.print(f"finished steps are in {out}.partial: go on with --resume")
        raise
    if as_json:
        common.print_json({**asdict(healed), "path": str(out), "recipe": asdict(recipe)})
        return
    common.console.print(summary(healed))


def summary(healed: Any) -> str:
    """One sentence on a `HealedModel`."""
    first, best = healed.heldout[0], healed.best
    return (
        f"{healed.path}: {healed.source} healed on {healed.tokens:,} tokens in "
        f"{len(healed.losses)} steps; held-out distillation loss {first.loss:.4f} -> "
        f"{best.loss:.4f}, cross entropy {first.cross_entropy:.4f} -> {best.cross_entropy:.4f} "
        f"nats per token (after step {best.step})"
    )
