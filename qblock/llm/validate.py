"""Does the energy rank models here? The true loss of low and of random states, against E(x).

The expansion behind E(x) is made about the intact model, and removing blocks is not a small
step: whether low energy means low loss is a fact to measure for each model, curvature and
budget, on text that the calibration did not see.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from scipy.stats import rankdata

from qblock.errors import ParameterError, ProblemError
from qblock.llm.blocks import ResidualStack
from qblock.llm.losses import Report, removal_losses, silent
from qblock.llm.states import lowest, spread_states
from qblock.llm.text import Tokens
from qblock.pictures import require_matplotlib
from qblock.problem import BlockRemovalProblem, FloatArray, States

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RESAMPLES = 2000
TRUSTED, ROUGH = 0.9, 0.6
"""Lower ends of the interval of Spearman's correlation for a good and for a middling verdict."""


@dataclass(frozen=True)
class Interval:
    """An estimate and its bootstrap interval (percentiles, 95 %)."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True, eq=False)
class Validation:
    """States with their energies and measured losses.

    Attributes:
        problem: what was validated.
        states: int8 (S, N), the lowest first, then the random ones by energy.
        energies: float64 (S,).
        losses: float64 (S,), nats per token on the text.
        intact: loss of the intact model.
        num_lowest: how many of the states are the lowest of the spectrum.
    """

    problem: BlockRemovalProblem
    states: States
    energies: FloatArray
    losses: FloatArray
    intact: float
    num_lowest: int

    def agreement(
        self, statistic: Literal["spearman", "kendall"], among: slice = slice(None)
    ) -> Interval:
        """Rank correlation of energy and loss, with its interval, over some of the states."""
        return rank_agreement(self.energies[among], self.losses[among], statistic)

    @property
    def random(self) -> slice:
        """The random states among all."""
        return slice(self.num_lowest, None)

    @property
    def ground_state_place(self) -> int:
        """Place of the lowest-energy state by measured loss, 0 = best of all measured."""
        return int((self.losses < self.losses[0]).sum())

    @property
    def verdict(self) -> str:
        """One plain sentence or two for the user."""
        spearman = self.agreement("spearman")
        place = (
            f"The ground state is number {self.ground_state_place + 1} of the {len(self.losses)} "
            "states by measured loss."
        )
        if spearman.low >= TRUSTED:
            return f"Energy ranks models here. {place}"
        if spearman.low >= ROUGH:
            return (
                f"Energy ranks models roughly here: re-rank the low states by measured loss "
                f"(`qblock select`). {place}"
            )
        return (
            "Energy does not rank models here: do not trust the ground state. Calibrate with "
            f"another curvature (ablation) or more text. {place}"
        )


def validate(
    stack: ResidualStack,
    problem: BlockRemovalProblem,
    tokens: Tokens,
    *,
    states: int = 40,
    batch_size: int = 8,
    seed: int = 0,
    report: Report = silent,
) -> Validation:
    """Measure the lowest states and random ones, half of each.

    Args:
        stack: the model's blocks, those of the problem.
        problem: sensitivity and budget.
        tokens: held-out text.
        states: how many to measure in all.
        batch_size: rows that go through the model together.
        seed: of the random states.
        report: receives the share of work done.

    Raises:
        ParameterError: fewer than four states.
        ProblemError: too few feasible states.
        MeasurementError: a loss is NaN or infinite.
    """
    if states < 4:
        raise ParameterError(f"{states} states say nothing of a ranking: expected at least 4")
    if problem.reduced.num_feasible < states:
        raise ProblemError(
            f"only {problem.reduced.num_feasible} states are feasible, fewer than the {states} "
            "to measure"
        )
    low = lowest(problem, states // 2)
    spread = spread_states(problem, states - len(low), exclude=low.states, seed=seed)
    chosen = np.concatenate([low.states, spread])
    intact = np.zeros((1, len(problem)), dtype=np.int8)
    losses = removal_losses(
        stack, np.concatenate([intact, chosen]), tokens, batch_size=batch_size, report=report
    ).mean(axis=1)
    return Validation(
        problem=problem,
        states=chosen,
        energies=problem.energy(chosen),
        losses=losses[1:],
        intact=float(losses[0]),
        num_lowest=len(low),
    )


def rank_agreement(
    first: FloatArray, second: FloatArray, statistic: Literal["spearman", "kendall"], seed: int = 0
) -> Interval:
    """Spearman's or Kendall's (tau-b) correlation of two float64 (S,), and its bootstrap interval.

    Pairs are resampled; resamples in which one side is constant are left out.
    """
    rng = np.random.default_rng(seed)
    draws = rng.integers(0, len(first), (RESAMPLES, len(first)))
    usable = (np.ptp(first[draws], axis=1) > 0) & (np.ptp(second[draws], axis=1) > 0)
    resampled = _correlations(first[draws[usable]], second[draws[usable]], statistic)
    low, high = np.percentile(resampled, [2.5, 97.5]) if len(resampled) else (-1.0, 1.0)
    (value,) = _correlations(first[None], second[None], statistic)
    return Interval(float(value), float(low), float(high))


def _correlations(
    first: FloatArray, second: FloatArray, statistic: Literal["spearman", "kendall"]
) -> FloatArray:
    """Rank correlation of each row of two float64 (R, S), as (R,).

    Both are the cosine of two vectors: of centred ranks, or of the signs of all differences.
    """

    def vectors(values: FloatArray) -> FloatArray:
        if statistic == "spearman":
            return np.asarray(rankdata(values, axis=1) - (values.shape[1] + 1) / 2)
        return np.sign(values[:, :, None] - values[:, None, :]).reshape(len(values), -1)

    x, y = vectors(first), vectors(second)
    return np.asarray((x * y).sum(axis=1) / np.sqrt((x * x).sum(axis=1) * (y * y).sum(axis=1)))


def scatter_plot(validation: Validation) -> "Figure":
    """A matplotlib figure of the energies against the measured losses.

    Raises:
        ParameterError: matplotlib is not installed.
    """
    require_matplotlib()
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4.5), layout="constrained")
    axes = figure.subplots()
    for label, part, marker in (
        ("lowest", slice(validation.num_lowest), "o"),
        ("random", validation.random, "x"),
    ):
        axes.scatter(validation.energies[part], validation.losses[part], marker=marker, label=label)
    axes.axhline(validation.intact, linewidth=0.8, color="gray", label="intact model")
    axes.set_xlabel("energy E(x)")
    axes.set_ylabel("measured loss (nats per token)")
    problem = validation.problem
    axes.set_title(
        f"{problem.sensitivity.name} ({problem.sensitivity.curvature}), remove {problem.remove}: "
        f"Spearman {validation.agreement('spearman').value:.3f}"
    )
    axes.legend()
    return figure
