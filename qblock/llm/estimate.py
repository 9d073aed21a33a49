"""What device memory a calibration takes, from the model's configuration alone.

The model is built and run with tensors that have shapes but no data (PyTorch's FakeTensorMode),
so that nothing is downloaded but the configuration and nothing is allocated. What a backward pass
would need is counted by asking autograd what it keeps. Counted are weights, what is kept, and
logits; not the allocator's fragmentation, nor workspaces of kernels. Reference implementations
keep more than fused kernels do, so with those (`mamba_ssm`, flash attention) less is needed.
"""

import fnmatch
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import transformers
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks
from transformers.integrations import moe

from qblock.llm.blocks import Granularity, ResidualStack, residual_stack
from qblock.llm.gauss_newton import TOKEN_TILE
from qblock.llm.load import check_dtype, load_config
from qblock.llm.losses import VOCABULARY_TILE, token_losses


@dataclass(frozen=True)
class Estimate:
    """Device memory of one calibration, in bytes.

    Attributes:
        parameters: number of weights, tied ones once.
        groups: number of blocks of each group.
        weights: as they are loaded.
        weights_fp8: if the layers' matrices are kept in 8 bits, and the rest as loaded.
        working: at the largest, beside the weights.
    """

    parameters: int
    groups: Mapping[str, int]
    weights: int
    weights_fp8: int
    working: int


def estimate(
    source: str | Path,
    *,
    curvature: str,
    batch_size: int,
    seq_len: int,
    dtype: str = "auto",
    checkpointing: bool = False,
    granularity: Granularity = "block",
    revision: str | None = None,
    architecture: str | Path | None = None,
) -> Estimate:
    """Device memory that `calibrate` would take with the same options.

    Args:
        source: a hub id, a directory or a GGUF file; only its configuration is read.
        dtype: that of the weights; as stored, if "auto" or "stored".

    Raises:
        ModelError: no such model or dtype, or its architecture is not described.
    """
    check_dtype(dtype)
    config = load_config(source, revision=revision)
    stored = getattr(config, "dtype", None) or torch.float32
    precision = stored if dtype in ("auto", "stored") else getattr(torch, dtype)
    with FakeTensorMode(), torch.device("cpu"), _grouped_products_of_any_dtype():
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=precision)
        model.eval().requires_grad_(False)
        with suppress(ValueError):  # no experts; else the way whose shapes do not follow the data
            model.set_experts_implementation("grouped_mm")
        stack = residual_stack(model, granularity, architecture=architecture)
        kept = _kept_for_backward(stack, batch_size, seq_len)
        parameters = dict(model.named_parameters())
        weights = sum(p.numel() * p.element_size() for p in parameters.values())
        saved = sum(p.numel() * (p.element_size() - 1) for p in _eight_bit(model, stack, config))
        return Estimate(
            parameters=sum(p.numel() for p in parameters.values()),
            groups=dict(Counter(stack.groups)),
            weights=weights,
            weights_fp8=weights - saved,
            working=_working(curvature, kept, stack, batch_size, seq_len, checkpointing),
        )


def _grouped_products_of_any_dtype() -> AbstractContextManager[Any]:
    """Within, experts of any dtype can be run on shapes; torch's kernel does only bfloat16."""
    return patch.object(moe, "_can_use_grouped_mm", lambda *_: False, create=True)


@dataclass(frozen=True)
class _Kept:
    """Bytes: of the residual stream, kept by autograd for each layer and beside the layers."""

    stream: int
    layers: tuple[int, ...]
    rest: int


def _kept_for_backward(stack: ResidualStack, rows: int, length: int) -> _Kept:
    """What the loss of `rows` rows keeps for a backward pass to the couplings."""
    # Storages are told apart by identity, so none may go while others are counted.
    seen: dict[int, Tensor] = {id(p.untyped_storage()): p for p in stack.model.parameters()}
    layers = [0] * len(stack.layers)
    rest = 0
    current: list[int] = []

    def pack(tensor: Tensor) -> Tensor:
        nonlocal rest
        storage = tensor.untyped_storage()
        if id(storage) not in seen:
            seen[id(storage)] = tensor
            if current:
                layers[current[-1]] += storage.nbytes()
            else:
                rest += storage.nbytes()
        return tensor

    def entering(number: int) -> Callable[..., None]:
        return lambda *_: current.append(number)

    def leaving(*_: Any) -> None:
        current.pop()

    hooks = [
        hook
        for number, layer in enumerate(stack.layers)
        for hook in (
            layer.register_forward_pre_hook(entering(number)),
            layer.register_forward_hook(leaving),
        )
    ]
    ids = torch.zeros(rows, length, dtype=torch.int64)
    mask = torch.ones(rows, length - 1, dtype=torch.bool)
    alpha = torch.ones(rows, len(stack), requires_grad=True)
    with stack.couplings(alpha), saved_tensors_hooks(pack, lambda tensor: tensor):
        logits = stack.model(input_ids=ids, use_cache=False).logits
        token_losses(logits, ids, mask).sum()
    for hook in hooks:
        hook.remove()
    width = stack.model.get_input_embeddings().embedding_dim
    return _Kept(rows * length * width * logits.element_size(), tuple(layers), rest)


def _working(
    curvature: str, kept: _Kept, stack: ResidualStack, rows: int, length: int, checkpointing: bool
) -> int:
    """Bytes beside the weights at the largest."""
    vocabulary: int = stack.model.get_input_embeddings().num_embeddings
    largest = max(kept.layers)
    if curvature == "fisher":
        gradient = rows * length * vocabulary * 4
        if not checkpointing:
            return sum(kept.layers) + kept.rest + gradient
        return len(stack.layers) * kept.stream + largest + kept.rest + gradient
    if curvature == "ablation":  # one stream for each layer of the trie, one layer, a logits tile
        tile = rows * length * VOCABULARY_TILE * 4 * 2
        return len(stack.layers) * kept.stream + largest + tile
    tangents = len(stack)  # of one row: values and derivatives
    tile = 2 * tangents * min(TOKEN_TILE, length) * vocabulary * 4
    return max(2 * tangents * largest // rows, tile) + len(stack.layers) * kept.stream // rows


def _eight_bit(model: Any, stack: ResidualStack, config: Any) -> list[nn.Parameter]:
    """The matrices that FP8 formats shrink: those of the layers, but for what the configuration
    excludes."""
    quantized: Any = getattr(config, "quantization_config", None) or {}
    if not isinstance(quantized, dict):
        quantized = quantized.to_dict()
    fields = ("modules_to_not_convert", "ignored_layers", "ignore", "exclude_modules")
    # Files may have another name for what holds the layers: only what follows is compared.
    layers = stack.path.rpartition(".")[2]
    excluded = [
        f"*{layers}.{pattern.partition(f'{layers}.')[2]}.*"
        for field in fields
        for pattern in quantized.get(field) or ()
        if f"{layers}." in pattern
    ]
    return [
        parameter
        for name, parameter in model.named_parameters()
        if name.startswith(stack.path)
        and parameter.ndim > 1
        and parameter.element_size() > 1
        and "conv" not in name
        and not any(fnmatch.fnmatch(f"{name}.", pattern) for pattern in excluded)
    ]
