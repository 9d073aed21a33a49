"""What the tests of measured losses share."""

from collections.abc import Sequence

import numpy as np
import torch
from tiny_models import tiny_ids

from qblock.llm.blocks import ResidualStack
from qblock.llm.text import Tokens


def ragged_tokens(rows: int = 3, length: int = 10) -> Tokens:
    """Random rows of which the second is padded."""
    ids = tiny_ids(rows, length).numpy()
    mask = np.ones(ids.shape, dtype=np.bool_)
    mask[1, 6:] = False
    return Tokens(ids, mask)


def plain_losses(stack: ResidualStack, state: Sequence[int], tokens: Tokens) -> list[float]:
    """transformers' own loss of each row alone, without its padding."""
    losses = []
    for ids, mask in zip(tokens.ids, tokens.mask, strict=True):
        row = torch.from_numpy(ids[mask])[None]
        with torch.no_grad(), stack.skipping(np.flatnonzero(state).tolist()):
            losses.append(stack.model(input_ids=row, labels=row, use_cache=False).loss.item())
    return losses
