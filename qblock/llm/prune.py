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
from qblock.llm.delete import delete_layers, layers_of_blocks
from qblock.llm.load import LoadedModel
from qblock.llm.write import CARD, appearing, check_space, check_target, probe, save, verify

RECIPE = "mergekit.yaml"


@dataclass(frozen=True)
class PrunedModel:
    """A model that was written.

    Attributes:
        path: its directory.
        source: what it was made from.
        removed: numbers of the original's layers that are gone, ascending.
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
        removed: names of whole layers.
        out: the directory to make.
        reason: why these blocks; sentences for the model card.
        force: replace a model that is there already.
        architecture: see `residual_stack`.

    Raises:
        ModelError: before any work: the directory is there, blocks that cannot be deleted, or
            too little space on the disk; after it: the written model does not load without
            remarks, or does not give the logits of the original without these blocks. Nothing
            is left behind then.
    """
    out = Path(out)
    check_target(out, force)
    stack = residual_stack(loaded.model, architecture=architecture)
    layers = layers_of_blocks(stack, removed)
    before = loaded.model.num_parameters()
    count = len(stack)
    check_space(out, loaded.model)
    ids = probe(loaded.model)
    with torch.inference_mode(), stack.skipping(layers):
        expected = loaded.model(input_ids=ids, use_cache=False).logits.cpu()
    delete_layers(stack, layers)
    after = loaded.model.num_parameters()
    with appearing(out) as folder:
        save(loaded, folder)
        disagreement = verify(
            folder, loaded.model, ids, expected, "the original without these blocks"
        )
        pruned = PrunedModel(out, loaded.source, layers, count, after, before, disagreement)
        (folder / RECIPE).write_text(mergekit_recipe(pruned, loaded.model.dtype), encoding="utf-8")
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
    numbers = ", ".join(map(str, pruned.removed))
    return "\n".join(
        [
            "---",
            *base,
            "library_name: transformers",
            "pipeline_tag: text-generation",
            "tags: [qblock, pruned]",
            "---",
            f"# {pruned.source} without {len(pruned.removed)} of its {pruned.layers} layers",
            "",
            f"Removed layers, counted from 0 in the original: **{numbers}**.",
            "",
            reason,
            "",
            f"Parameters: {pruned.parameters:,} of {pruned.parameters_before:,}, {share:.1%} less. "
            "The other weights are unchanged; the model was not trained after the removal.",
            "",
            "The written files were loaded by plain transformers and give the logits of the "
            f"original without these layers up to {pruned.disagreement:.1g} of the largest logit. "
            f"`{RECIPE}` describes the same removal for mergekit.",
            "",
        ]
    )


def _runs(numbers: Sequence[int]) -> list[tuple[int, int]]:
    """First and last of each run of consecutive numbers."""
    runs: list[tuple[int, int]] = []
    for number in numbers:
        if runs and runs[-1][1] == number - 1:
            runs[-1] = (runs[-1][0], number)
        else:
            runs.append((number, number))
    return runs
