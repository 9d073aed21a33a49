"""Diagonal shifts for the node bound: one for each level of the search, made when needed.

The convex bound of a node (see `bound`) needs a diagonal d such that Q - diag(d) is positive
semidefinite on the vectors over its free blocks whose sum over each group is zero. That holds
on all of space, and so there, if Q - diag(d) + sum_k c e_k e_k' is positive semidefinite, where
e_k marks group k and c >= 0: the added term vanishes on such vectors. It leaves d more freedom
than Q - diag(d) alone.
"""

import numpy as np

from qblock.convexify import convexifying_shift
from qblock.problem import FloatArray, IntArray

COUPLING = 100.0
"""The constant c in units of the mean |Q_ii|: large enough that more gains nothing."""

LEAST_WEIGHT = 1e-2
"""Weight of a block that the relaxation leaves at 0 or 1."""


def subspace_shift(
    Q: FloatArray,
    group_of: IntArray,
    y: FloatArray,
    start: FloatArray | None = None,
    precision: float = 1e-3,
) -> FloatArray:
    """A shift (n,) for the free blocks of which Q (n, n) is the matrix.

    The derivative of the relaxed minimum by d_i is y_i (1 - y_i), so that is the weight of d_i.

    Args:
        y: float64 (n,), a relaxed solution from which the weights are taken.
        start: a shift known to be valid.
    """
    typical = float(np.abs(np.diag(Q)).mean()) or float(np.abs(Q).max()) or 1.0
    same_group = group_of[:, None] == group_of
    return convexifying_shift(
        Q + COUPLING * typical * same_group,
        weights=y * (1 - y) + LEAST_WEIGHT,
        start=start,
        precision=precision,
    )
