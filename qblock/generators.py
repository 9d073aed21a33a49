"""Random instances from a seed, of kinds that differ in what makes them easy or hard.

Each kind draws per-sample gradients A = (Z tau + mu) s: correlated Gaussians Z with covariance C,
a random factor tau per sample, a mean mu and a scale s per block; H = A'A / m, scaled to mean
diagonal 1. What decides hardness is the effective rank of H, not N.

- heavy: what real models look like; the first and last blocks 10 to 100 times heavier,
  neighbours correlated, heavy tails over the samples.
- homog: scales within a factor 2, positive correlation.
- flat: scales within 15 %, correlation 0.1 to 0.2.
- midrank, lowrank: 10 signed random factors, and 20 % or 3 % of variance of its own per block.

Libraries of linear algebra round differently on different processors. So that an instance is the
same to the bit on all of them, and a result can be looked up by the problem's id, H and g are
rounded to `DECIMALS` after the decimal point, far above that difference.
"""

from typing import Literal, TypeAlias, get_args

import numpy as np

from qblock.errors import ProblemError
from qblock.problem import FloatArray, Sensitivity

Kind: TypeAlias = Literal["heavy", "homog", "flat", "midrank", "lowrank"]
KINDS: tuple[Kind, ...] = get_args(Kind)

FACTORS = 10
"""Random factors of the kinds of low rank."""

DECIMALS = 7
"""Kept of H, whose mean diagonal is 1, and of g."""


def random_instance(kind: Kind, n: int, *, seed: int, num_samples: int = 2048) -> Sensitivity:
    """A Sensitivity of n blocks, without A; the same for the same arguments.

    Raises:
        ProblemError: an unknown kind.
    """
    if kind not in KINDS:
        raise ProblemError(f"no instance kind {kind!r}; there are {', '.join(KINDS)}")
    rng = np.random.default_rng([seed, n, KINDS.index(kind)])
    scale, covariance, mean = _heavy(n, rng) if kind == "heavy" else _even(kind, n, rng)
    Z = rng.standard_normal((num_samples, n)) @ np.linalg.cholesky(covariance).T
    if kind == "heavy":  # a Student t with 6 degrees of freedom
        tau = np.sqrt(3 / rng.gamma(3, size=(num_samples, 1)))
    else:
        tau = np.exp(0.3 * rng.standard_normal((num_samples, 1)))
    A = (Z * tau + mean) * scale
    A *= np.sqrt(n / np.sum(A**2) * num_samples)
    return Sensitivity(
        H=np.round(A.T @ A / num_samples, DECIMALS),
        g=np.round(A.mean(axis=0), DECIMALS),
        curvature="fisher",
        name=f"{kind}-{n}-{seed}",
        provenance={"generator": kind, "seed": seed, "samples": num_samples},
    )


def _neighbours(n: int) -> FloatArray:
    """Correlation that falls off over five blocks."""
    place = np.arange(n)
    return np.asarray(np.exp(-np.abs(place[:, None] - place) / 5))


def _heavy(n: int, rng: np.random.Generator) -> tuple[FloatArray, FloatArray, FloatArray]:
    depth = np.linspace(0, 1, n)
    edges = np.exp(-depth / 0.06) + np.exp(-(1 - depth) / 0.05)
    scale = (1 + 10 ** rng.uniform(1, 2) * edges) * np.exp(0.5 * rng.standard_normal(n))
    loadings = 0.35 * rng.standard_normal((n, 3))
    covariance = 0.75 * _neighbours(n) + loadings @ loadings.T + 0.1 * np.eye(n)
    return scale, covariance, 0.4 * rng.standard_normal(n) + 0.2


def _even(
    kind: Kind, n: int, rng: np.random.Generator
) -> tuple[FloatArray, FloatArray, FloatArray]:
    if kind == "homog":
        loadings = 0.25 + 0.12 * np.abs(rng.standard_normal((n, 2)))
        covariance = 0.15 * _neighbours(n) + 0.8 * loadings @ loadings.T + 0.75 * np.eye(n)
        return rng.uniform(1, 2, n), covariance, 0.15 * rng.standard_normal(n) + 0.1
    if kind == "flat":
        covariance = 0.1 * _neighbours(n) + 0.1 + 0.8 * np.eye(n)
        return rng.uniform(1, 1.15, n), covariance, 0.05 * rng.standard_normal(n)
    own = {"midrank": 0.2, "lowrank": 0.03}[kind]
    loadings = rng.standard_normal((n, FACTORS))
    loadings /= np.linalg.norm(loadings, axis=1, keepdims=True)
    covariance = (1 - own) * loadings @ loadings.T + own * np.eye(n)
    return rng.uniform(1, 2, n), covariance, 0.15 * rng.standard_normal(n)
