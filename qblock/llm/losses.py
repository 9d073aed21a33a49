"""The true loss of a model with blocks removed, for many removals at once.

States that agree on the first layers share the work up to there: sorted into a trie over the
layers, every distinct prefix is computed once, depth first, so that at most one hidden state
for each layer is held. Removed blocks are really skipped, never multiplied by zero.

The loss of a row is the mean cross entropy (nats) of its tokens given their predecessors. Rows
are padded on the right, so a causal model needs no attention mask: only the loss is masked.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from qblock.errors import MeasurementError
from qblock.llm.blocks import ResidualStack
from qblock.llm.load import input_device
from qblock.llm.text import Tokens
from qblock.problem import FloatArray, IntArray, States

VOCABULARY_TILE = 512
"""Columns of the logits held at a time: a tile that stays in a processor's cache."""

Report = Callable[[float], None]
"""Takes the share of the work done, 0 to 1."""


def silent(done: float) -> None:
    """A `Report` to nobody."""


def removal_losses(
    stack: ResidualStack,
    states: ArrayLike,
    tokens: Tokens,
    *,
    batch_size: int = 8,
    report: Report = silent,
) -> FloatArray:
    """Mean token loss of each row under each removal, float64 (S, m).

    Args:
        stack: the model's residual stack of N blocks.
        states: 0/1 (S, N), 1 = block removed.
        tokens: m rows.
        batch_size: rows that go through the model together.
        report: called after each state.

    Raises:
        MeasurementError: a loss is NaN or infinite.
    """
    X = np.asarray(states, dtype=np.int8).reshape(-1, len(stack))
    losses = np.empty((len(X), len(tokens)))
    total = max(1, losses.size)
    done = 0
    for start in range(0, len(tokens), batch_size):
        rows = slice(start, start + batch_size)
        replay = Replay(stack, tokens[rows])
        for index, values in replay.walk(X):
            if not np.isfinite(values).all():
                names = ", ".join(stack.names[i] for i in np.flatnonzero(X[index])) or "none"
                raise MeasurementError(
                    f"the loss is NaN or infinite with these blocks removed: {names}; "
                    "measure in float32 or bfloat16, and check the model and the text"
                )
            losses[index, rows] = values
            done += len(values)
            report(done / total)
    return losses


class Replay:
    """One batch of rows, and each layer's other inputs as the intact model gave them."""

    def __init__(self, stack: ResidualStack, tokens: Tokens) -> None:
        self.stack = stack
        device = input_device(stack.model)
        self.ids = torch.from_numpy(tokens.ids).to(device)
        self.mask = torch.from_numpy(tokens.mask[:, 1:]).to(device)
        self.inputs: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
        with torch.inference_mode(), ExitStack() as hooks:
            self._run_intact(hooks)

    def _run_intact(self, hooks: ExitStack) -> None:
        """Keep what enters the first layer and what else each layer is given.

        Also finds out whether the logits are the output embedding of the last hidden state and
        nothing more, so that they need not be held all at once.
        """
        model = self.stack.model
        head = model.get_output_embeddings()
        streams: list[Tensor] = []
        last: list[Tensor] = []

        def entering(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            rest = dict(kwargs)
            streams.append(args[0] if args else rest.pop("hidden_states"))
            self.inputs.append((args[1:], rest))

        def leaving_head(_: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
            last.extend((args[0], output))

        for layer in self.stack.layers:
            hooks.callback(layer.register_forward_pre_hook(entering, with_kwargs=True).remove)
        if isinstance(head, nn.Linear) and head.weight.device.type != "meta":
            hooks.callback(head.register_forward_hook(leaving_head).remove)
        base: list[Any] = []
        hooks.callback(model.base_model.register_forward_hook(lambda *a: base.append(a[2])).remove)
        logits = model(input_ids=self.ids, use_cache=False).logits
        self.first = streams[0]
        self.fused = (
            len(last) == 2
            and len(base) == 1  # some models call a part of their base model only
            and torch.equal(last[0], base[0].last_hidden_state)
            and torch.equal(last[1], logits)
        )

    def layer(self, index: int, hidden: Tensor) -> Tensor:
        """The residual stream after one layer, (b, L, D)."""
        args, kwargs = self.inputs[index]
        output = self.stack.layers[index](hidden, *args, **kwargs)
        return output[0] if isinstance(output, tuple) else output

    def walk(self, states: States) -> Iterator[tuple[int, FloatArray]]:
        """(state index, float64 (b,) losses of the rows), in the order of the trie."""
        layer_of = np.asarray(self.stack.layer_of)
        members = [np.flatnonzero(layer_of == k) for k in range(len(self.stack.layers))]

        def descend(index: int, hidden: Tensor, rows: IntArray) -> Iterator[tuple[int, FloatArray]]:
            if index == len(members):
                values = self.row_losses(hidden)
                yield from ((int(row), values) for row in rows)
                return
            patterns, which = np.unique(
                states[rows][:, members[index]], axis=0, return_inverse=True
            )
            for number, pattern in enumerate(patterns):
                after = self._without(index, hidden, members[index][pattern == 1], len(pattern))
                yield from descend(index + 1, after, rows[which.ravel() == number])

        with torch.inference_mode():
            yield from descend(0, self.first, np.arange(len(states)))

    def _without(self, index: int, hidden: Tensor, removed: IntArray, size: int) -> Tensor:
        """The residual stream after a layer of `size` blocks, some of them removed."""
        if size and len(removed) == size:
            return hidden
        if not len(removed):
            return self.layer(index, hidden)
        with self.stack.skipping(removed.tolist()):
            return self.layer(index, hidden)

    def row_losses(self, hidden: Tensor) -> FloatArray:
        """float64 (b,) from the residual stream after the last layer."""
        model = self.stack.model
        with self.stack.resuming(len(self.stack.layers), hidden):
            if self.fused:
                last = model.base_model(input_ids=self.ids, use_cache=False).last_hidden_state
                mask, targets = self.mask.to(last.device), self.ids[:, 1:].to(last.device)
                by_token = torch.zeros(mask.shape, dtype=torch.float64, device=last.device)
                by_token[mask] = tiled_losses(
                    last[:, :-1][mask], targets[mask], model.get_output_embeddings()
                ).double()
            else:
                logits = model(input_ids=self.ids, use_cache=False).logits
                by_token = token_losses(logits, self.ids, self.mask).double()
        means = by_token.sum(1) / self.mask.sum(1).to(by_token.device)
        return np.asarray(means.cpu().numpy())


def token_losses(logits: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
    """Cross entropy of each next token, (b, L-1), zero where the mask is; differentiable."""
    targets = ids[:, 1:].masked_fill(~mask, -100).to(logits.device)
    flat = nn.functional.cross_entropy(
        logits[:, :-1].flatten(0, 1).float(), targets.flatten(), ignore_index=-100, reduction="none"
    )
    return flat.view(targets.shape)


def tiled_losses(hidden: Tensor, targets: Tensor, head: nn.Linear) -> Tensor:
    """Cross entropy (T,) of targets (T,) from hidden (T, D), never holding all logits.

    The softmax normaliser is accumulated over tiles of the vocabulary (Milakov and
    Gimelshein, arXiv:1805.02867), which is also a quarter faster than full logits on a CPU.
    """
    weight, bias = head.weight, head.bias
    largest = torch.full((len(hidden),), -torch.inf, device=hidden.device)
    total = torch.zeros_like(largest)
    for start in range(0, len(weight), VOCABULARY_TILE):
        tile = slice(start, start + VOCABULARY_TILE)
        part = bias[tile] if bias is not None else None
        logits = nn.functional.linear(hidden, weight[tile], part).float()
        higher = torch.maximum(largest, logits.amax(1))
        total = total * torch.exp(largest - higher) + logits.sub_(higher[:, None]).exp_().sum(1)
        largest = higher
    chosen = (hidden.float() * weight[targets].float()).sum(1)
    if bias is not None:
        chosen = chosen + bias[targets].float()
    return largest + torch.log(total) - chosen
