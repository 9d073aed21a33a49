"""Finding QAOA angles: starts, optimisers, and keeping the best when time runs out.

Angles (2p,) are the betas, then the gammas, in the units of `ansatz.Units`, in which one linear
ramp is a fair start for every instance and angles carry over from one budget to another.
"""

import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from scipy.optimize import minimize

from qblock.backend import Progress, Run, Status
from qblock.problem import FloatArray

Optimiser = Literal["cobyla", "spsa"]

STEP = 0.2
"""First change of an angle, in standard units, that the optimisers try."""


@dataclass(frozen=True)
class Evaluation:
    """What one set of angles gives: the value to minimise, mean energy, share of feasible."""

    objective: float
    energy: float
    feasible: float


class _OutOfTime(Exception):
    """The time limit or the number of evaluations is used up."""


@dataclass
class Search:
    """A minimisation in progress; every evaluation is counted, recorded and reported.

    Attributes:
        evaluate: from angles (2p,) to what they give.
        evaluations: how many are allowed in all.
        run: clock and progress.
        angles: the best so far, or where to start.
        best: what the best angles give; None until something of their length was evaluated.
        history: mean energy of each evaluation.
        status: what cut the search short, if anything did.
    """

    evaluate: Callable[[FloatArray], Evaluation]
    evaluations: int
    run: Run
    angles: FloatArray
    best: Evaluation | None = None
    history: list[float] = field(default_factory=list)
    status: Status = "complete"

    def optimise(self, optimiser: Optimiser, until: int, rng: np.random.Generator) -> None:
        """Go on from the best angles until `until` evaluations were made in all."""
        if self.status != "complete":
            return
        with self._kept(until) as objective:
            if optimiser == "spsa":
                _spsa(objective, self.angles, rng)
            else:
                _cobyla(objective, self.angles, until)

    def try_all(self, candidates: Iterable[FloatArray], until: int) -> None:
        """Evaluate the candidates while there is time; the best is kept."""
        if self.status != "complete":
            return
        with self._kept(until) as objective:
            for candidate in candidates:
                objective(candidate)

    def restart(self, angles: FloatArray) -> None:
        """Start afresh from angles of another length."""
        if self.status == "complete":
            self.angles, self.best = angles, None

    @contextmanager
    def _kept(self, until: int) -> Iterator[Callable[[FloatArray], float]]:
        """The objective, and its end: whatever stops the work, the best so far is kept."""

        def objective(angles: FloatArray) -> float:
            if self.history and (self.run.expired() or len(self.history) >= until):
                raise _OutOfTime
            result = self.evaluate(angles)
            self.history.append(result.energy)
            if self.best is None or result.objective < self.best.objective:
                self.best, self.angles = result, np.array(angles)
            self.run.report(
                Progress(
                    f"evaluation {len(self.history)}, energy {result.energy:.6g}, "
                    f"feasible {result.feasible:.1%}",
                    min(len(self.history) / self.evaluations, 1.0),
                )
            )
            return result.objective

        try:
            yield objective
        except _OutOfTime:
            pass
        except KeyboardInterrupt:
            self.status = "interrupted"
        if self.status == "complete" and self.run.expired():
            self.status = "time-limit"


def find_angles(
    search: Search,
    p: int,
    optimiser: Optimiser,
    *,
    starts: int,
    layerwise: bool,
    rng: np.random.Generator,
) -> None:
    """Angles for p layers from ramps: the best of `starts`, then layer by layer or at once."""
    first = 1 if layerwise else p
    search.restart(linear_ramp(first))
    search.try_all(random_ramps(first, starts, rng), until=search.evaluations)
    for layers in range(first, p + 1):
        if layers > first:
            search.restart(one_layer_more(search.angles))
        until = search.evaluations * layers // p
        search.optimise(optimiser, until, rng)


def linear_ramp(p: int, beta: float = 0.6, gamma: float = 0.6) -> FloatArray:
    """Angles (2p,): betas falling from `beta`, gammas rising to `gamma`, as in annealing.

    Source: Sack and Serbyn, "Quantum annealing initialization of the quantum approximate
    optimization algorithm", Quantum 5, 491 (2021).
    """
    middle = (np.arange(p) + 0.5) / p
    return np.concatenate((beta * (1 - middle), gamma * middle))


def random_ramps(p: int, count: int, rng: np.random.Generator) -> list[FloatArray]:
    """The standard ramp, and `count` - 1 ramps of other slopes, drawn log-uniformly."""
    slopes = 0.6 * np.exp(rng.uniform(-1, 1, size=(count - 1, 2)))
    return [linear_ramp(p), *(linear_ramp(p, beta, gamma) for beta, gamma in slopes)]


def one_layer_more(angles: FloatArray) -> FloatArray:
    """Angles for p + 1 layers, interpolated from those for p: (2p,) -> (2p + 2,).

    Source: Zhou et al., "Quantum approximate optimization algorithm: performance, mechanism and
    implementation on near-term devices", Phys. Rev. X 10, 021067 (2020), INTERP.
    """
    p = len(angles) // 2
    step = np.arange(p + 1) / p
    return np.concatenate(
        [
            step * np.concatenate(([0.0], half)) + (1 - step) * np.concatenate((half, [0.0]))
            for half in (angles[:p], angles[p:])
        ]
    )


def _cobyla(objective: Callable[[FloatArray], float], start: FloatArray, most: int) -> None:
    with warnings.catch_warnings():  # fewer evaluations than angles is our choice
        warnings.simplefilter("ignore")
        minimize(
            objective,
            start,
            method="COBYLA",
            tol=1e-4,
            options={"rhobeg": STEP, "maxiter": max(most, 1)},
        )


def _spsa(
    objective: Callable[[FloatArray], float], start: FloatArray, rng: np.random.Generator
) -> None:
    """Simultaneous perturbation with Spall's gains, until the objective raises.

    The first step is scaled to `STEP` by the first estimate of the slope.
    Source: Spall, "Implementation of the simultaneous perturbation algorithm for stochastic
    optimization", IEEE Trans. Aerosp. Electron. Syst. 34, 817 (1998).
    """
    angles, scale = start.copy(), 0.0
    objective(angles)
    k = 0
    while True:
        width = STEP / (k + 1) ** 0.101
        signs = rng.choice((-1.0, 1.0), size=len(angles))
        difference = objective(angles + width * signs) - objective(angles - width * signs)
        slope = difference / (2 * width)
        if scale == 0.0:
            scale = STEP / abs(slope) if slope else 0.0
        angles = angles - scale / (k + 1) ** 0.602 * slope * signs
        k += 1
