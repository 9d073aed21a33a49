"""Taking layers and parts of layers from a model in memory.

Where layers are deleted, everything that counts layers is put right.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from qblock.errors import ModelError
from qblock.llm.architecture import Architecture
from qblock.llm.blocks import ResidualStack

NUMBER_ATTRIBUTES = ("layer_idx", "layer_id", "layer_number")
"""Where modules keep the number of their layer; the KV cache goes by it."""


@dataclass(frozen=True)
class Removal:
    """What is to be taken from a model.

    Attributes:
        layers: numbers of the layers to delete, ascending.
        parts: number and sublayer of the other parts that are to add nothing, ascending.
    """

    layers: tuple[int, ...]
    parts: tuple[tuple[int, str], ...] = ()

    @property
    def part_names(self) -> tuple[str, ...]:
        """Names of the parts as blocks, such as "3.mlp"."""
        return tuple(f"{number}.{part}" for number, part in self.parts)


def removal_of(stack: ResidualStack, removed: Iterable[str]) -> Removal:
    """What the named blocks are: layers, such as "3", and parts of layers, such as "3.mlp".

    A layer all of whose parts are named is deleted.

    Raises:
        ModelError: no block is named, every layer is, one is none of the model, or it is a part
            of a layer and the architecture's description does not tell how to silence it.
    """
    adds = stack.architecture.adds
    parts: dict[int, set[str]] = {}
    for name in removed:
        number, dot, part = name.partition(".")
        known = number in map(str, range(len(stack.layers)))
        if not known or (dot and part not in adds):
            raise ModelError(
                f"{name!r} is no layer of this model, whose layers are 0 to "
                f"{len(stack.layers) - 1}, nor a part of one ({', '.join(adds)})"
            )
        parts.setdefault(int(number), set()).update([part] if dot else adds)
    layers = tuple(sorted(number for number, named in parts.items() if named == set(adds)))
    rest = [(n, part) for n in sorted(parts) for part in sorted(parts[n]) if n not in layers]
    if not parts or len(layers) == len(stack.layers):
        raise ModelError(
            f"{len(layers)} of {len(stack.layers)} layers to remove: expected 1 to "
            f"{len(stack.layers) - 1}"
        )
    for _, part in rest:
        if part not in stack.architecture.outputs:
            raise ModelError(
                f"a part of a layer ({part}) can be measured here but not removed: the "
                f"description of the architecture {stack.config.model_type!r} has no `outputs`"
            )
    return Removal(layers, tuple(rest))


def silence(stack: ResidualStack, parts: Iterable[tuple[int, str]]) -> int:
    """Make parts of layers add nothing, by zeros in the weights their output is linear in.

    No configuration says that a layer lacks its attention or its MLP, so this is what plain
    transformers can load: the right function, but neither smaller nor faster.

    Returns:
        The number of weights that are zero now.

    Raises:
        ModelError: a layer has none of the described weights.
    """
    zeros = 0
    for number, part in parts:
        layer = stack.layers[number]
        paths = stack.architecture.outputs[part]
        weights = [
            weight
            for name, weight in layer.named_parameters()
            if any(name == path or name.startswith(f"{path}.") for path in paths)
        ]
        if not weights:
            raise ModelError(
                f"layer {number} has none of the weights {', '.join(paths)}; correct `outputs` in "
                "the description of the architecture"
            )
        with torch.no_grad():
            for weight in weights:
                weight.zero_()
                zeros += weight.numel()
    return zeros


def delete_layers(stack: ResidualStack, removed: Iterable[int]) -> None:
    """Delete layers from `stack.model` in place; the stack itself is out of date then.

    The configuration's layer count and per-layer fields follow, and so do the layers' own
    numbers.

    Raises:
        ModelError: a per-layer field does not have one entry for each layer.
    """
    gone = set(removed)
    kept = [number for number in range(len(stack.layers)) if number not in gone]
    _shorten_config(stack.config, stack.architecture, kept, len(stack.layers))
    parent_path, _, name = stack.path.rpartition(".")
    layers = nn.ModuleList(stack.layers[number] for number in kept)
    setattr(stack.model.get_submodule(parent_path), name, layers)
    for number, layer in enumerate(layers):
        for module in layer.modules():
            for attribute in NUMBER_ATTRIBUTES:
                if isinstance(getattr(module, attribute, None), int):
                    setattr(module, attribute, number)


def _shorten_config(config: Any, architecture: Architecture, kept: list[int], before: int) -> None:
    dense = architecture.dense
    if dense is not None:
        was_dense = _dense_layers(config, dense.period, dense.indices, before)
        setattr(config, dense.period, 1)
        setattr(config, dense.indices, [new for new, old in enumerate(kept) if old in was_dense])
    shorter: dict[str, Any] = {}
    for field in architecture.per_layer:
        entries = getattr(config, field, None)
        if entries is None:
            continue
        if len(entries) != before:
            raise ModelError(
                f"the configuration's {field} has {len(entries)} entries for {before} layers"
            )
        shorter[field] = [entries[old] for old in kept]
    config.num_hidden_layers = len(kept)
    for field, value in {**shorter, **architecture.reset}.items():
        setattr(config, field, value)


def _dense_layers(config: Any, period: str, indices: str, count: int) -> set[int]:
    """Numbers of the layers that have no experts, as Qwen's MoE models define them."""
    every = getattr(config, period)
    listed = set(getattr(config, indices) or ())
    return {n for n in range(count) if n in listed or (n + 1) % every}
