"""Statistics of repeated runs: exact or bootstrap intervals, and bounds where data give no more.

Nothing here is infinite and nothing divides by zero: where the data only bound a quantity from
below, its estimate and upper end are None.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import binomtest, bootstrap

from qblock.problem import FloatArray, ReducedProblem

CONFIDENCE = 0.95
"""Coverage of every interval, unless said otherwise."""

TARGET = 0.99
"""Probability with which the time to solution is to be enough."""

RESAMPLES = 2000
"""Bootstrap resamples."""


@dataclass(frozen=True)
class Proportion:
    """A share of successes with its exact (Clopper-Pearson) interval.

    Attributes:
        successes, trials: counts, 0 <= successes <= trials, trials >= 1.
    """

    successes: int
    trials: int

    def __post_init__(self) -> None:
        if not 0 <= self.successes <= self.trials or self.trials < 1:
            raise ValueError(f"{self.successes} successes of {self.trials} trials")

    @property
    def value(self) -> float:
        return self.successes / self.trials

    def interval(self, confidence: float = CONFIDENCE) -> tuple[float, float]:
        """Low and high end; exact, so coverage is at least `confidence` at every true value."""
        test = binomtest(self.successes, self.trials)
        ends = test.proportion_ci(confidence_level=confidence, method="exact")
        return float(ends.low), float(ends.high)


@dataclass(frozen=True)
class Interval:
    """An estimate with its interval.

    Attributes:
        value: the estimate; None if the data only bound it from below.
        low: lower end.
        high: upper end; None if the data do not bound it.
    """

    value: float | None
    low: float
    high: float | None


def time_to_solution(
    success: Proportion, seconds: float, target: float = TARGET, confidence: float = CONFIDENCE
) -> Interval:
    """Seconds until one success is seen with probability `target`.

    TTS = t ln(1 - target) / ln(1 - p), never less than one run of t seconds. The ends of the
    exact interval of p are mapped through the formula, so without a success there is a lower
    bound and no estimate. Source: Ronnow et al., Science 345, 420 (2014).
    """
    low, high = success.interval(confidence)
    value, slow = _tts(np.array([success.value, low]), np.array(seconds), target)
    fast = _tts(np.array([high]), np.array(seconds), target)[0]
    return Interval(_finite(value), float(fast), _finite(slow))


def _tts(p: FloatArray, seconds: FloatArray, target: float) -> FloatArray:
    """TTS for success probabilities p; infinite where p = 0."""
    with np.errstate(divide="ignore"):
        runs = np.log(1 - target) / np.log1p(-np.minimum(p, target))
    return np.asarray(seconds * np.maximum(runs, 1.0))


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def median_over_instances(
    values: Sequence[Interval], confidence: float = CONFIDENCE, seed: int = 0
) -> Interval:
    """Median of at least one quantity, one per instance, by resampling the instances.

    An instance that is only bounded counts as infinite in the estimate and the upper end, and
    with its bound in the lower end. A single instance keeps its own interval.
    """
    if len(values) == 1:  # nothing to resample: the interval would have no width
        return values[0]
    low = np.array([v.low if v.value is None else v.value for v in values])
    high = np.array([math.inf if v.value is None else v.value for v in values])
    picked = np.random.default_rng(seed).integers(0, len(values), (RESAMPLES, len(values)))
    tail = (1 - confidence) / 2
    ends = [
        float(np.quantile(np.median(side[picked], axis=1), q, method="inverted_cdf"))
        for side, q in ((low, tail), (high, 1 - tail))
    ]
    return Interval(_finite(float(np.median(high))), ends[0], _finite(ends[1]))


def paired_difference(
    first: Sequence[float], second: Sequence[float], confidence: float = CONFIDENCE, seed: int = 0
) -> Interval:
    """Mean of first - second over at least two pairs, with a bootstrap interval over the pairs."""
    differences = np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64)
    if len(differences) < 2:
        raise ValueError("a paired comparison needs at least two pairs")
    mean = float(differences.mean())
    if np.ptp(differences) == 0:
        return Interval(mean, mean, mean)
    answer = bootstrap(
        (differences,),
        np.mean,
        confidence_level=confidence,
        n_resamples=RESAMPLES,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    ends = answer.confidence_interval
    return Interval(mean, float(ends.low), float(ends.high))


def performance_profile(costs: ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Dolan-More profile: share of instances on which a solver is within tau of the best.

    Args:
        costs: positive float (solvers, instances); infinite where a solver failed.

    Returns:
        tau: ascending float (T,), from 1.
        share: float (solvers, T); instances that nobody solved count against all.

    Source: Dolan and More, Mathematical Programming 91, 201 (2002).
    """
    table = np.asarray(costs, dtype=np.float64)
    best = table.min(axis=0)
    ratios = np.full_like(table, np.inf)
    solved = np.isfinite(best)
    ratios[:, solved] = table[:, solved] / best[solved]
    tau = np.unique(np.append(ratios[np.isfinite(ratios)], 1.0))
    share = (ratios[:, :, None] <= tau).mean(axis=1)
    return tau, share


def coverage(found: NDArray[np.int8], wanted: NDArray[np.int8]) -> float:
    """Share of the wanted states (K, N), K >= 1, that are among the found ones (S, N)."""
    have = {row.tobytes() for row in np.packbits(found, axis=1)}
    return sum(row.tobytes() in have for row in np.packbits(wanted, axis=1)) / len(wanted)


def random_feasible_mean(problem: ReducedProblem) -> float:
    """Mean of y'Qy over the uniform feasible states, exactly (no offset).

    Within a group of n blocks, m of them removed, E[y_i] = m/n and, for i != j,
    E[y_i y_j] = m(m-1) / n(n-1); blocks of two groups are independent.
    """
    sizes = np.bincount(problem.group_of, minlength=len(problem.budgets))
    single = (problem.budgets / sizes)[problem.group_of]
    pairs = np.outer(single, single)
    for k, (n, m) in enumerate(zip(sizes, problem.budgets, strict=True)):
        members = np.flatnonzero(problem.group_of == k)
        pairs[np.ix_(members, members)] = m * (m - 1) / (n * (n - 1))
    np.fill_diagonal(pairs, single)
    return float((problem.Q * pairs).sum())
