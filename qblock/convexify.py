"""Diagonal shifts that make a quadratic form convex without changing it on 0/1 states.

For y in {0, 1}^n, y_i^2 = y_i, so y'Qy = y'(Q - D)y + diag(D).y for every diagonal D. With
Q - D positive semidefinite the right side is convex on the box [0, 1]^n, and its minimum there
bounds every 0/1 state from below: the better, the larger D.
"""

import numpy as np
from numpy.linalg import LinAlgError

from qblock.problem import FloatArray

ROUNDING = 4e-16
"""Error of the least eigenvalue, relative to the order times the largest one."""


def convexifying_shift(
    Q: FloatArray,
    weights: FloatArray | None = None,
    *,
    start: FloatArray | None = None,
    precision: float = 1e-3,
) -> FloatArray:
    """The diagonal d (n,) of nearly largest weighted sum with Q - diag(d) positive semidefinite.

    Maximises w.d + mu log det(Q - diag(d)) by damped Newton steps for falling mu (the barrier
    method for the dual of the max-cut relaxation), and then adds the least eigenvalue that is
    left. That last step alone makes the result valid, so the iteration may stop anywhere.

    Args:
        Q: float64 (n, n), symmetric, possibly indefinite.
        weights: positive (n,), ones if None.
        start: a shift (n,) to start from, such as that of a larger matrix; saves steps.
        precision: the last mu relative to the mean |Q_ii|.
    """
    n = len(Q)
    if n == 0:
        return np.zeros(0)
    typical = float(np.median(np.abs(np.diag(Q)))) or float(np.abs(Q).max()) or 1.0
    w = np.ones(n) if weights is None else weights / weights.mean()
    if start is None or not np.isfinite(_log_det(Q - np.diag(start))):
        start = np.full(n, float(np.linalg.eigvalsh(Q)[0]) - 1e-1 * typical)
    d = start
    for mu in np.geomspace(1e-1, precision, 3) * typical:
        d = _centre(Q, w, mu, d)
    return largest_uniform_step(Q, d)


def largest_uniform_step(Q: FloatArray, d: FloatArray) -> FloatArray:
    """d + c with the largest constant c for which Q - diag(d + c) is positive semidefinite."""
    eigenvalues = np.linalg.eigvalsh(Q - np.diag(d))
    room = ROUNDING * len(Q) * float(np.abs(eigenvalues).max())
    return np.asarray(d + (float(eigenvalues[0]) - room))


def _centre(Q: FloatArray, w: FloatArray, mu: float, d: FloatArray) -> FloatArray:
    """Newton steps from d, where Q - diag(d) is positive definite, to the maximum for one mu."""
    value = w @ d / mu + _log_det(Q - np.diag(d))
    for _ in range(20):
        try:
            inverse = np.linalg.inv(Q - np.diag(d))
            ascent = w / mu - np.diag(inverse)
            step = np.linalg.solve(inverse * inverse, ascent)
        except LinAlgError:  # singular to working precision: no better d can be told
            break
        slope = float(ascent @ step)
        if slope < 1e-2:
            break
        length = 1.0
        while length > 1e-6:
            trial = d + length * step
            trial_value = w @ trial / mu + _log_det(Q - np.diag(trial))
            if trial_value >= value + 0.1 * length * slope:
                break
            length /= 2
        else:
            break
        d, value = trial, trial_value
    return d


def _log_det(matrix: FloatArray) -> float:
    """log det of a symmetric matrix, -inf if it is not positive definite."""
    try:
        factor = np.linalg.cholesky(matrix)
    except LinAlgError:
        return -np.inf
    return 2 * float(np.log(np.diag(factor)).sum())
