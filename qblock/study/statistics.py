"""Statistics of repeated runs, with exact intervals and no infinities."""

import math
from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest

from qblock.problem import ReducedProblem

CONFIDENCE = 0.95
"""Coverage of every interval, unless said otherwise."""


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
class TimeToSolution:
    """Seconds until one success is seen with the wanted probability.

    Attributes:
        value: the estimate; None if no run succeeded.
        low: lower end of the interval.
        high: upper end; None if the data do not bound it (no success seen).
    """

    value: float | None
    low: float
    high: float | None


def time_to_solution(
    success: Proportion, seconds: float, target: float = 0.99, confidence: float = CONFIDENCE
) -> TimeToSolution:
    """TTS = t ln(1 - target) / ln(1 - p), never less than one run of t seconds.

    The ends of the exact interval of p are mapped through the formula, so without a success
    there is a lower bound and no estimate. Source: Ronnow et al., Science 345, 420 (2014).
    """

    def at(p: float) -> float | None:
        if p <= 0:
            return None
        runs = 1.0 if p >= target else math.log(1 - target) / math.log1p(-p)
        return seconds * runs

    low, high = success.interval(confidence)
    return TimeToSolution(at(success.value), at(high) or math.inf, at(low))


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
