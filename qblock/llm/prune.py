"""Writing a smaller model: layers deleted, verified by loading it afresh, ready for anyone.

The directory holds what `save_pretrained` writes, a model card that says what was removed and
why, and a mergekit recipe of the same removal. It appears under its name only when it is whole
and was loaded and run by plain transformers.
"""

import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor

from qblock.errors import ModelError
from qblock.llm.blocks import residual_stack
from qblock.llm.delete import delete_layers, layers_of_blocks
from qblock.llm.load import LoadedModel, input_device

RECIPE = "mergekit.yaml"
CARD = "README.md"
PROBE_TOKENS = 24
"""Length of the row on which the written model must agree with the original without blocks."""
AGREEMENT = {torch.float64: 1e-9, torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}
"""Largest difference of logits, relative to the largest logit: devices may round differently."""


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
    _check_space(out, loaded.model)
    probe = _probe(loaded.model)
    with torch.inference_mode(), stack.skipping(layers):
        expected = loaded.model(input_ids=probe, use_cache=False).logits.cpu()
    delete_layers(stack, layers)
    after = loaded.model.num_parameters()
    with _appearing(out) as folder:
        _save(loaded, folder)
        disagreement = _verify(folder, loaded.model, probe, expected)
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


def check_target(out: Path, force: bool) -> None:
    """Refuse a directory that cannot be made, or that is there and must not be replaced.

    Raises:
        ModelError: no parent directory; there already, without `force`; or no model.
    """
    if not out.parent.is_dir():
        raise ModelError(f"cannot write {out}: there is no directory {out.parent}")
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not force:
        raise ModelError(f"{out} is there already; name another, or replace it with --force")
    if not (out / "config.json").is_file():
        raise ModelError(f"{out} is not a model, so --force does not replace it")


def _check_space(out: Path, model: Any) -> None:
    needed = sum(p.numel() * p.element_size() for p in model.parameters())
    free = shutil.disk_usage(out.parent).free
    if free < needed:
        raise ModelError(
            f"the model takes up to {needed / 1e9:.1f} GB; free in {out.parent} are "
            f"{free / 1e9:.1f} GB"
        )


def _probe(model: Any) -> Tensor:
    """Token ids, int64 (1, PROBE_TOKENS), the same for the same vocabulary."""
    size = model.get_input_embeddings().num_embeddings
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, size, (1, PROBE_TOKENS), generator=generator)
    return ids.to(input_device(model))


@contextmanager
def _appearing(out: Path) -> Iterator[Path]:
    """A directory that takes its name `out` when the block ends well, and vanishes if not."""
    try:
        folder = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
    except OSError as error:
        raise ModelError(f"cannot write {out}: {error.strerror}") from None
    old = folder / "replaced"
    try:
        new = folder / "new"
        new.mkdir()
        yield new
        if out.exists():
            out.rename(old)
        new.rename(out)
    except OSError as error:
        if old.exists() and not out.exists():
            old.rename(out)
        raise ModelError(f"cannot write {out}: {error.strerror or error}") from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _save(loaded: LoadedModel, folder: Path) -> None:
    try:
        loaded.model.save_pretrained(folder)
        loaded.tokenizer.save_pretrained(folder)
    except OSError:
        raise
    except Exception as error:  # configurations are validated in as many ways as there are models
        raise ModelError(f"the pruned model cannot be saved: {error}") from error


def _verify(folder: Path, model: Any, probe: Tensor, expected: Tensor) -> float:
    """Load the written model afresh and compare; the largest relative difference of logits."""
    try:
        fresh, remarks = transformers.AutoModelForCausalLM.from_pretrained(
            folder, dtype=model.dtype, output_loading_info=True
        )
    except OSError:
        raise
    except Exception as error:  # a wrong configuration fails in as many ways as there are models
        raise ModelError(f"the pruned model cannot be loaded: {error}") from error
    wrong = {what: names for what, names in remarks.items() if names}
    if wrong:
        raise ModelError(f"the pruned model's weights do not fit its configuration: {wrong}")
    with torch.inference_mode():
        logits = fresh(input_ids=probe.to(fresh.device), use_cache=False).logits.cpu()
        difference = float((logits - expected).abs().max() / expected.abs().max())
        if not difference <= AGREEMENT.get(model.dtype, max(AGREEMENT.values())):
            raise ModelError(
                f"the pruned model, loaded afresh, gives other logits than the original without "
                f"these layers (relative difference {difference:.2g}): the description of the "
                f"architecture {model.config.model_type!r} misses something that counts layers"
            )
        try:
            ids = probe.to(fresh.device)
            fresh.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                pad_token_id=0,
                max_new_tokens=2,
                do_sample=False,
            )
        except Exception as error:
            raise ModelError(
                "the pruned model cannot generate text with a cache; keep at least one layer of "
                f"each kind: {error}"
            ) from error
    return difference
