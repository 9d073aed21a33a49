"""Diagonal shifts for the node bound: one for each level of the search, made when needed.

The convex bound of a node (see `bound`) needs a diagonal d such that Q - diag(d) is positive
semidefinite on the vectors over its free blocks whose sum over each group is zero. That holds
if Q + c sum_k e_k e_k' - diag(d) is positive semidefinite, where e_k marks group k and c >= 0:
the added term vanishes on such vectors, and leaves d more freedom than Q - diag(d) alone.

Which d gives the best bound is a semidefinite program. With spins s = 2y - 1 and one more spin
s_0 = 1, y'Qy becomes a form z'Cz in z = (s, s_0), and a budget "m of the n_k blocks of group k"
the square (e_k.s + (n_k - 2m) s_0)^2 = 0, c / 4 times which may be added to C. The dual of the
max-cut relaxation of min z'Cz,

    maximise sum(u)   subject to   C - diag(u) positive semidefinite,

then has the optimal d = 4 u (without u_0), of which only the semidefiniteness above is needed.
It is solved near one representative node of the level; for the others it is valid.

A level that many nodes visit deserves a shift that is good for them on average. The derivative
of a node's relaxed minimum by d_i is y_i (1 - y_i) at its minimum y (the envelope theorem), so
the valid d of largest sum weighted by the mean of y (1 - y) over the visits is a better one.
"""

import numpy as np

from qblock.convexify import convexifying_shift, largest_uniform_step
from qblock.problem import FloatArray, IntArray

COUPLING = 10.0
"""n times the constant c, in units of the median |Q_ii|: large enough that more gains little."""

PRECISION = 1e-3
"""Of the barrier method, see `convexifying_shift`."""


LEAST_WEIGHT = 1e-2
"""Weight of a block that no relaxed solution leaves between 0 and 1."""


def scaled_shift(Q: FloatArray, group_of: IntArray) -> FloatArray:
    """The largest shift (n,) in proportion to the diagonal: two eigenvalue problems in all.

    Where the diagonal is small it counts as a thousandth of the typical one, so that Q scaled by
    it on both sides exists.
    """
    typical = _typical(Q)
    coupled = _coupled(Q, group_of, typical)
    size = np.maximum(np.abs(np.diag(Q)), 1e-3 * typical)
    root = np.sqrt(size)
    least = np.linalg.eigvalsh(coupled / root / root[:, None])[0]
    return largest_uniform_step(coupled, least * size)


def optimal_shift(
    Q: FloatArray, group_of: IntArray, left: FloatArray, start: FloatArray | None = None
) -> FloatArray:
    """The best shift (n,) for a node with free blocks of which Q (n, n) is the matrix.

    Args:
        Q: float64 (n, n), with the linear terms from decided blocks on the diagonal.
        group_of: int64 (n,).
        left: float64 (K,), how many free blocks of each group will be removed; need not be
            whole.
        start: float64 (n,), a shift valid for these blocks.
    """
    typical = _typical(Q)
    members = (group_of == np.arange(len(left))[:, None]).astype(np.float64)
    weight = COUPLING / len(Q) * typical
    coupled = _coupled(Q, group_of, typical)
    if start is None:
        start = np.full(len(Q), float(np.linalg.eigvalsh(coupled)[0]))
    spins = _spin_form(Q, members, left, weight)
    u = convexifying_shift(
        spins, start=_inside(spins, start / 4, 0.1 * typical), precision=PRECISION
    )
    return largest_uniform_step(coupled, 4 * u[:-1])


def average_shift(
    Q: FloatArray, group_of: IntArray, spread: FloatArray, start: FloatArray
) -> FloatArray:
    """A shift (n,) that is good on average for nodes with a mean of y (1 - y) of `spread` (n,).

    `start` is a valid shift (n,), the one under which the spread was seen.
    """
    typical = _typical(Q)
    coupled = _coupled(Q, group_of, typical)
    return convexifying_shift(
        coupled, spread + LEAST_WEIGHT, start=start - 0.01 * typical, precision=PRECISION
    )


def _typical(Q: FloatArray) -> float:
    """A positive number in the order of the diagonal."""
    return float(np.median(np.abs(np.diag(Q)))) or float(np.abs(Q).max()) or 1.0


def _coupled(Q: FloatArray, group_of: IntArray, typical: float) -> FloatArray:
    """Q with the term that vanishes where the sum over each group is zero."""
    return np.asarray(Q + 4 * COUPLING / len(Q) * typical * (group_of[:, None] == group_of))


def _spin_form(Q: FloatArray, members: FloatArray, left: FloatArray, weight: float) -> FloatArray:
    """The matrix C (n + 1, n + 1) with z'Cz = y'Qy + weight * sum_k (budget k's square)."""
    rows = Q.sum(axis=1)
    C = np.block([[Q, rows[:, None]], [rows[None, :], np.array([[rows.sum()]])]]) / 4
    squares = np.concatenate([members, (members.sum(axis=1) - 2 * left)[:, None]], axis=1)
    return np.asarray(C + weight * squares.T @ squares)


def _inside(C: FloatArray, u: FloatArray, room: float) -> FloatArray:
    """(u, u_0) lowered by `room`, with u_0 such that C - diag(u, u_0) is positive definite if
    C without its last row and column less diag(u) is positive semidefinite."""
    u = u - room
    border = C[:-1, -1]
    schur = C[-1, -1] - border @ np.linalg.solve(C[:-1, :-1] - np.diag(u), border)
    return np.append(u, schur - room)
