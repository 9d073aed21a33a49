"""The paper's curvature: per-sample gradients, H = A'A / m (arXiv:2602.00161).

The couplings have one row per sample, so the gradient of the *summed* loss with respect to
them is the per-sample gradient of the whole batch, in one backward pass. Cost: one forward and
one backward pass over the text, whatever the number of blocks.
"""

from typing import Any

import numpy as np
import torch

from qblock.llm.blocks import ResidualStack
from qblock.llm.load import input_device
from qblock.llm.losses import Report, silent, token_losses
from qblock.llm.text import Tokens
from qblock.problem import FloatArray, Sensitivity


def measure(stack: ResidualStack, tokens: Tokens, report: Report = silent) -> FloatArray:
    """Gradients d(mean token loss of row s) / d alpha_i at alpha = 1, float64 (b, N)."""
    model = stack.model
    device = input_device(model)
    ids = torch.from_numpy(tokens.ids).to(device)
    mask = torch.from_numpy(tokens.mask[:, 1:]).to(device)
    alpha = torch.ones(len(ids), len(stack), device=device, requires_grad=True)
    with torch.enable_grad(), stack.couplings(alpha):
        logits = model(input_ids=ids, use_cache=False).logits
        losses = token_losses(logits, ids, mask)
        loss = (losses.sum(1) / mask.sum(1).to(losses.device)).sum()
        del logits, losses
        (gradient,) = torch.autograd.grad(loss, alpha)
    report(1.0)
    return np.asarray(gradient.double().cpu().numpy())


def combine(rows: FloatArray, **fields: Any) -> Sensitivity:
    """The sensitivity from the rows (m, N) of all batches; keeps A and g."""
    return Sensitivity.from_samples(rows, curvature="fisher", **fields)
