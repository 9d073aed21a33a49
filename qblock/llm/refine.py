"""Correcting the quadratic model by losses measured where it will be used.

A curvature expands the loss about the intact model; with many blocks removed, what it leaves out
counts. Losses measured at states with the budget removed tell how far it errs *there*. The
smallest change of H (in the Frobenius norm) that explains them,

    H <- H + sum_s c_s x_s x_s',   c = (K + ridge I)^-1 (measured - E),   K_st = (x_s . x_t)^2,

is kernel ridge regression with the quadratic kernel, started from the curvature in place of
nothing. The result is the same Ising problem to every solver. Solving it again and measuring its
lowest states in turn (`select` in several rounds) is optimisation of a costly function by a
quadratic surrogate, as in BOCS (Baptista and Poloczek, arXiv:1806.08838).
"""

from dataclasses import replace

import numpy as np

from qblock.problem import BlockRemovalProblem, FloatArray, Sensitivity, States

RIDGE = 1e-2
"""Of the regression, relative to the largest K_ss: measured losses carry a short text's noise."""


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
    X = np.asarray(states, dtype=np.float64)
    K = (X @ X.T) ** 2
    damped = K + ridge * K.diagonal().max() * np.eye(len(K))
    weights = np.linalg.solve(damped, changes - problem.energy(states))
    sensitivity = problem.sensitivity
    return replace(
        sensitivity,
        H=problem.Q + (X.T * weights) @ X,
        g=None,
        A=None,
        curvature=f"{sensitivity.curvature}, refined",
        name=f"{sensitivity.name}-refined",
        provenance={
            **sensitivity.provenance,
            "refined": {"remove": problem.remove, "states": len(states), "ridge": ridge},
        },
    )
