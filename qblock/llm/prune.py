"""Writing a smaller model: layers deleted, verified by loading it afresh, ready for anyone.

The directory holds what `save_pretrained` writes, a model card that says what was removed and
why, and a mergekit recipe of the same removal. It appears under its name only when it is whole
and was loaded and run by plain transformers.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from qblock.llm.blocks import residual_stack
from qblock.llm.delete import delete_layers, removal_of, silence
from qblock.llm.load import LoadedModel
from qblock.llm.quantized import refuse_quantized
from qblock.llm.write import CARD, appearing, check_space, check_target, probe, save, verify

RECIPE = "mergekit.yaml"
SILENCED = (
    "A configuration of this architecture cannot say that a layer lacks a part, so the part's "
    "output weights are zero instead: the model computes what it would without the part, but is "
    "neither smaller nor faster for it."
)


@dataclass(frozen=True)
class PrunedModel:
    """A model that was written.

    Attributes:
        path: its directory.
        source: what it was made from.
        removed: numbers of the original's layers that are gone, ascending.
        silenced: parts of other layers that add nothing, such as "3.mlp"; their weights are there
            still, those that their output is linear in being zero.
        layers: number of layers of the original.
        parameters, parameters_before: numbers of weights, tied ones once.
        disagreement: largest difference of logits between the written model and the original
            without the blocks, relative to the largest logit.
    """

    path: Path
    source: str
    removed: tuple[int, ...]
    layers: int
    parameters: int
    parameters_before: int
    disagreement: float
    silenced: tuple[str, ...] = ()


def prune(
    loaded: LoadedModel,
    removed: Sequence[str],
    out: str | Path,
    *,
    reason: str = "They were named by hand.",
    force: bool = False,
    architecture: str | Path | None = None,
) -> PrunedModel:
    """Delete blocks from a model and write the smaller model to a directory.

    `loaded.model` is used up: its layers are deleted. Verifying needs memory for the written
    model beside it.

    Args:
        loaded: the original, in the dtype that is to be written.
        removed: names of layers, such as "3", or of parts of layers, such as "3.mlp".
        out: the directory to make.
        reason: why these blocks; sentences for the model card.
        force: replace a model that is there already.
        architecture: see `residual_stack`.

    Raises:
        ModelError: before any work: the directory is there, quantized weights, blocks that cannot
            be deleted, or too little space on the disk; after it: the written model does not load
            without remarks, or does not give the logits of the original without these blocks.
            Nothing is left behind then.
    """
    out = Path(out)
    check_target(out, force)
    refuse_quantized(loaded.model, loaded.source, "pruning")
    stack = residual_stack(loaded.model, architecture=architecture)
    removal = removal_of(stack, removed)
    parts = residual_stack(loaded.model, "sublayer", architecture=architecture)
    gone = [
        index
        for index, name in enumerate(parts.names)
        if parts.layer_of[index] in removal.layers or name in removal.part_names
    ]
    before = loaded.model.num_parameters()
    count = len(stack)
    check_space(out, loaded.model)
    ids = probe(loaded.model)
    with torch.inference_mode(), parts.skipping(gone):
        expected = loaded.model(input_ids=ids, use_cache=False).logits.cpu()
    silence(stack, removal.parts)
    if removal.layers:
        delete_layers(stack, removal.layers)
    after = loaded.model.num_parameters()
    with appearing(out) as folder:
        save(loaded, folder)
        disagreement = verify(
            folder, loaded.model, ids, expected, "the original without these blocks"
        )
        pruned = PrunedModel(
            path=out,
            source=loaded.source,
            removed=removal.layers,
            layers=count,
            parameters=after,
            parameters_before=before,
            disagreement=disagreement,
            silenced=removal.part_names,
        )
        if not pruned.silenced:
            recipe = mergekit_recipe(pruned, loaded.model.dtype)
            (folder / RECIPE).write_text(recipe, encoding="utf-8")
        (folder / CARD).write_text(model_card(pruned, reason), encoding="utf-8")
    return pruned


def mergekit_recipe(pruned: PrunedModel, dtype: torch.dtype) -> str:
    """The same removal as a mergekit configuration in YAML (`layer_range` excludes its end)."""
    kept = [number for number in range(pruned.layers) if number not in pruned.removed]
    lines = ["slices:"]
    for first, last in _runs(kept):
        lines += [
            "- sources:",
            f"  - model: {json.dumps(pruned.source)}",
            f"    layer_range: [{first}, {last + 1}]",
        ]
    lines += ["merge_method: passthrough", f"dtype: {str(dtype).removeprefix('torch.')}"]
    return "\n".join(lines) + "\n"


def llama_quantize_command(pruned: PrunedModel, gguf: str | Path) -> str:
    """The llama.cpp command that removes the same layers from a GGUF file."""
    numbers = ",".join(map(str, pruned.removed))
    return f"llama-quantize --prune-layers {numbers} {gguf} {pruned.path.name}.gguf COPY"


def model_card(pruned: PrunedModel, reason: str) -> str:
    """The README.md of a pruned model, with the front matter that the hub reads."""
    is_hub_id = not pruned.source.endswith(".gguf") and "/" in pruned.source
    base = [f"base_model: {pruned.source}", "base_model_relation: finetune"] if is_hub_id else []
    share = 1 - pruned.parameters / pruned.parameters_before
    recipe = f" `{RECIPE}` describes the same removal for mergekit."
    return "\n".join(
        [
            "---",
            *base,
            "library_name: transformers",
            "pipeline_tag: text-generation",
            "tags: [qblock, pruned]",
            "---",
            f"# {pruned.source} without {_title(pruned)}",
            "",
            *_removed_lines(pruned),
            reason,
            "",
            f"Parameters: {pruned.parameters:,} of {pruned.parameters_before:,}, {share:.1%} less. "
            "The other weights are unchanged; the model was not trained after the removal.",
            "",
            "The written files were loaded by plain transformers and give the logits of the "
            "original without these blocks up to "
            f"{pruned.disagreement:.1g} of the largest logit.{'' if pruned.silenced else recipe}",
            "",
        ]
    )


def _title(pruned: PrunedModel) -> str:
    layers = f"{len(pruned.removed)} of its {pruned.layers} layers"
    parts = f"{len(pruned.silenced)} parts of layers"
    return " and ".join([layers] * bool(pruned.removed) + [parts] * bool(pruned.silenced))


def _removed_lines(pruned: PrunedModel) -> list[str]:
    lines = []
    if pruned.removed:
        numbers = ", ".join(map(str, pruned.removed))
        lines += [f"Removed layers, counted from 0 in the original: **{numbers}**.", ""]
    if pruned.silenced:
        lines += [f"Parts that add nothing: **{', '.join(pruned.silenced)}**. {SILENCED}", ""]
    return lines


def _runs(numbers: Sequence[int]) -> list[tuple[int, int]]:
    """First and last of each run of consecutive numbers."""
    runs: list[tuple[int, int]] = []
    for number in numbers:
        if runs and runs[-1][1] == number - 1:
            runs[-1] = (runs[-1][0], number)
        else:
            runs.append((number, number))
    return runs
