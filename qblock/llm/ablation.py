"""Measured curvature: the loss of every single and every pair of removals.

With L_S the loss once the blocks in S are removed, the quadratic form

    E(x) = sum_i (L_i - L_0) x_i + sum_{i<j} (L_ij - L_i - L_j + L_0) x_i x_j

equals the true loss change at every corner of the hypercube with at most two blocks removed:
an expansion about the intact model in differences, where `fisher` uses derivatives. Cost: of
N (N + 1) / 2 passes, those layers that no earlier state has run (about a third), and the
output embedding of each.
"""

from typing import Any

import numpy as np

from qblock.llm.blocks import ResidualStack
from qblock.llm.losses import Report, removal_losses, silent
from qblock.llm.text import Tokens
from qblock.problem import FloatArray, Sensitivity, States


def corners(n: int) -> States:
    """The intact model, the n singles, then the n (n - 1) / 2 pairs i < j: int8 (1+n+..., n)."""
    eye = np.eye(n, dtype=np.int8)
    first, second = np.triu_indices(n, k=1)
    return np.concatenate([np.zeros((1, n), np.int8), eye, eye[first] + eye[second]])


def measure(stack: ResidualStack, tokens: Tokens, report: Report = silent) -> FloatArray:
    """The E(x) form of each row as a matrix, float64 (b, N, N), symmetric."""
    n = len(stack)
    losses = removal_losses(
        stack, corners(n), tokens, batch_size=len(tokens), report=report
    ).T  # (b, states)
    change = losses[:, 1:] - losses[:, :1]
    single, pair = change[:, :n], change[:, n:]
    first, second = np.triu_indices(n, k=1)
    H = np.zeros((len(tokens), n, n))
    H[:, first, second] = (pair - single[:, first] - single[:, second]) / 2
    H += H.swapaxes(1, 2)
    H[:, range(n), range(n)] = single
    return H


def combine(rows: FloatArray, **fields: Any) -> Sensitivity:
    """The sensitivity from the rows (m, N, N) of all batches."""
    return Sensitivity(H=rows.mean(axis=0), curvature="ablation", **fields)
