"""Correcting the quadratic model by losses measured where it will be used.

A curvature expands the loss about the intact model; with many blocks removed, what it leaves out
counts. Losses measured at states with the budget removed tell how far it errs *there*. Of all the
changes of H that explain them, the smallest is taken, each entry H_ij in units of its natural
scale sqrt(w_i w_j), w_i = abs(H_ii):

    H <- H + sum_s c_s (Wx_s)(Wx_s)',   c = (K + ridge diag(K))^-1 (measured - E),
    W = diag(w),   K_st = (x_s . W x_t)^2.

That is kernel ridge regression, started from the curvature in place of nothing. Without the
scale, what is learnt from states that lose a heavy block, whose loss is ruined, would be spread
over the light blocks, among which the choice is made. The ridge is relative to each K_ss because
the error of a quadratic model grows with the loss.

The result is the same Ising problem to every solver. Solving it again and measuring its lowest
states in turn (`select` in several rounds) is optimisation of a costly function by a quadratic
surrogate, as in BOCS (Baptista and Poloczek, arXiv:1806.08838).
"""

from dataclasses import replace

import numpy as np

from qblock.problem import BlockRemovalProblem, FloatArray, Sensitivity, States

RIDGE = 0.03
"""Variance, relative to K_ss, of what is taken for noise of the text and of what no quadratic form
explains."""


def refine(
    problem: BlockRemovalProblem, states: States, changes: FloatArray, *, ridge: float = RIDGE
) -> Sensitivity:
    """The sensitivity corrected by measured loss changes, as the module describes.

    Good near the budget at which the states were measured, and named after it.

    Args:
        problem: whose energy E is to be corrected.
        states: 0/1 (S, N).
        changes: float64 (S,), measured loss minus that of the intact model, nats per token.
        ridge: see `RIDGE`.
    """
    scale = np.abs(np.diag(problem.Q))
    scale = np.maximum(scale, np.median(scale) / 2 or 1.0)  # a block may seem to cost nothing
    X = np.asarray(states, dtype=np.float64)
    WX = X * scale
    K = (X @ WX.T) ** 2
    damped = K + ridge * np.diag(K.diagonal())
    weights = np.linalg.solve(damped, changes - problem.energy(states))
    sensitivity = problem.sensitivity
    return replace(
        sensitivity,
        H=problem.Q + (WX.T * weights) @ WX,
        g=None,
        A=None,
        curvature=f"{sensitivity.curvature}, refined",
        name=f"{sensitivity.name}-refined",
        provenance={
            **sensitivity.provenance,
            "refined": {"remove": problem.remove, "states": len(states), "ridge": ridge},
        },
    )
