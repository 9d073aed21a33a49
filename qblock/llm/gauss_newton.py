"""The generalised Gauss-Newton matrix of the N couplings, exactly, by forward-mode derivatives.

    H = mean over rows of the mean over tokens of J' (diag(p) - pp') J,   J = d logits / d alpha,

the Fisher information under the model's own predictions (Schraudolph, Neural Computation 14,
2002; Martens, JMLR 21, 2020), where `fisher` uses the gradients at the labels of the text. It
has no sampling noise from the labels, so far less text is needed. Cost: the tangents of the
blocks below each layer travel through it together: about N / 2 passes with derivatives, and N
products with the output embedding.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch.autograd.forward_ad as forward_ad
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from qblock.llm.blocks import ResidualStack
from qblock.llm.losses import Replay, Report, silent
from qblock.llm.text import Tokens
from qblock.problem import FloatArray, Sensitivity

TOKEN_TILE = 32
"""Tokens whose N + 1 rows of logits are held at a time."""


def measure(stack: ResidualStack, tokens: Tokens, report: Report = silent) -> FloatArray:
    """Gauss-Newton matrix, and below it the gradient, of each row: float64 (b, N + 1, N).

    Rows go one by one: the tangents of the N couplings are the batch.
    """
    rows = np.empty((len(tokens), len(stack) + 1, len(stack)))
    with plain_experts(stack.model):
        for row in range(len(tokens)):
            replay = Replay(stack, tokens[row : row + 1])
            with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), forward_ad.dual_level():
                rows[row] = _reduce(replay, *_push(stack, replay))
            report((row + 1) / len(tokens))
    return rows


@contextmanager
def plain_experts(model: Any) -> Iterator[None]:
    """Within, experts are run one by one: their grouped kernel has no forward derivative."""
    own = getattr(model.config, "_experts_implementation", None)
    try:
        model.set_experts_implementation("eager")
    except (AttributeError, ValueError):  # a model without experts
        yield
        return
    try:
        yield
    finally:
        model.set_experts_implementation(own)


def _push(stack: ResidualStack, replay: Replay) -> tuple[Tensor, Tensor]:
    """The last hidden state (1, L, D) and its derivatives (N, L, D) in the couplings."""
    n = len(stack)
    hidden = replay.first.clone()
    tangents = hidden.new_zeros(0, *hidden.shape[1:])
    done: list[int] = []
    for index in range(len(stack.layers)):
        new = [block for block in range(n) if stack.layer_of[block] == index]
        done += new
        count = len(done)
        alpha = torch.ones(count, n, device=hidden.device, dtype=hidden.dtype)
        direction = torch.zeros_like(alpha)
        for row in range(count - len(new), count):
            direction[row, done[row]] = 1
        fresh = tangents.new_zeros(len(new), *hidden.shape[1:])
        stream = forward_ad.make_dual(
            hidden.expand(count, -1, -1).clone(), torch.cat([tangents, fresh])
        )
        with stack.couplings(forward_ad.make_dual(alpha, direction)):
            after = forward_ad.unpack_dual(replay.layer(index, stream))
        hidden, tangents = after.primal[:1], after.tangent
    order = torch.tensor(done).argsort()
    return hidden, tangents[order]


def _reduce(replay: Replay, hidden: Tensor, tangents: Tensor) -> FloatArray:
    """Mean over the tokens of J'(diag(p) - pp')J, and below it of J'(p - target): (N + 1, N)."""
    model, n = replay.stack.model, len(tangents)
    places = replay.mask[0].nonzero()[:, 0]
    total = torch.zeros(n + 1, n, dtype=torch.float64)
    for start in range(0, len(places), TOKEN_TILE):
        tile = places[start : start + TOKEN_TILE]
        stream = forward_ad.make_dual(
            hidden[:, tile].expand(n, -1, -1).clone(), tangents[:, tile].contiguous()
        )
        with replay.stack.resuming(
            len(replay.stack.layers), stream
        ):  # what follows the layers acts token by token
            logits = model(input_ids=replay.ids[:, : len(tile)], use_cache=False).logits
        dual = forward_ad.unpack_dual(logits)
        targets = replay.ids[0, tile + 1].to(logits.device)
        p = dual.primal[0].float().softmax(-1)  # (tile, V)
        J = dual.tangent.float()  # (N, tile, V)
        mean = torch.einsum("ntv,tv->nt", J, p)
        J -= mean[..., None]  # centred under p, so that no large terms cancel below
        total[n] -= J.gather(2, targets.expand(n, -1)[..., None]).sum((1, 2)).double().cpu()
        root = J.mul_(p.sqrt()).flatten(1)
        total[:n] += (root @ root.T).double().cpu()
    return np.asarray((total / len(places)).numpy())


def combine(rows: FloatArray, **fields: Any) -> Sensitivity:
    """The sensitivity from the rows (m, N + 1, N) of all batches; keeps g."""
    mean = rows.mean(axis=0)
    H = (mean[:-1] + mean[:-1].T) / 2
    return Sensitivity(H=H, g=mean[-1], curvature="gauss-newton", **fields)
