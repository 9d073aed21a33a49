"""Deleting layers from a model in memory, with everything that counts layers put right."""

from collections.abc import Iterable
from typing import Any

from torch import nn

from qblock.errors import ModelError
from qblock.llm.architecture import Architecture
from qblock.llm.blocks import ResidualStack

NUMBER_ATTRIBUTES = ("layer_idx", "layer_id", "layer_number")
"""Where modules keep the number of their layer; the KV cache goes by it."""


def layers_of_blocks(stack: ResidualStack, removed: Iterable[str]) -> tuple[int, ...]:
    """Numbers of the layers that the named blocks are, ascending.

    Raises:
        ModelError: no block is named, all are, one is no layer of the model, or it is a
            sublayer: a model without it is of another architecture.
    """
    names = [str(number) for number in range(len(stack.layers))]
    numbers = set()
    for name in removed:
        if name not in names:
            raise ModelError(
                f"{name!r} is no layer of this model, whose layers are 0 to {len(names) - 1}; "
                "parts of layers, such as '3.mlp', can be measured but not deleted"
            )
        numbers.add(int(name))
    if not 0 < len(numbers) < len(names):
        raise ModelError(
            f"{len(numbers)} of {len(names)} layers to remove: expected 1 to {len(names) - 1}"
        )
    return tuple(sorted(numbers))


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
