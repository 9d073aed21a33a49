"""What an exact final state says, and samples drawn from it."""

from dataclasses import dataclass

import numpy as np

from qblock.backend import SolveResult
from qblock.problem import FloatArray, IntArray, States
from qblock_qiskit.ansatz import Simulator
from qblock_qiskit.vector import Amplitudes, expectation, probabilities

LOWEST = 100
"""How many of the lowest feasible energies are reported with their exact probabilities."""

TIE = 1e-12
"""Energies closer than this, relative to the largest, are equal up to rounding."""


@dataclass(frozen=True)
class Outcome:
    """Exact figures of a QAOA state.

    Attributes:
        energy: mean, penalty included.
        feasible_probability: of meeting every budget.
        gap: (mean feasible energy - lowest) / (random feasible mean - lowest): 0 if only optima
            are measured, 1 if feasible states are no better than a uniform guess; None if all
            feasible states have one energy.
        optimum_probability: of all states that share the lowest feasible energy.
        random_probability: the same for a uniform guess among the feasible states.
        lowest_energies, lowest_probabilities: of the `LOWEST` lowest feasible states, ascending.
    """

    energy: float
    feasible_probability: float
    gap: float | None
    optimum_probability: float
    random_probability: float
    lowest_energies: tuple[float, ...]
    lowest_probabilities: tuple[float, ...]


def exact_outcome(simulator: Simulator, psi: Amplitudes, offset: float) -> Outcome:
    """Figures of the final state `psi`; `offset` is added to every energy."""
    weights = probabilities(psi)
    energies, inside = simulator.energies[simulator.feasible], weights[simulator.feasible]
    count = min(LOWEST, len(energies))
    lowest = np.argpartition(energies, count - 1)[:count]
    lowest = lowest[np.argsort(energies[lowest], kind="stable")]
    ground = float(energies[lowest[0]])
    optimal = energies <= ground + TIE * float(np.abs(energies).max())
    feasible = float(inside.sum())
    spread = float(energies.mean()) - ground
    return Outcome(
        energy=float(weights @ simulator.energies) + offset,
        feasible_probability=feasible,
        gap=(float(inside @ energies) / feasible - ground) / spread if spread > 0 else None,
        optimum_probability=float(inside[optimal].sum()),
        random_probability=float(optimal.mean()),
        lowest_energies=tuple((energies[lowest] + offset).tolist()),
        lowest_probabilities=tuple(inside[lowest].tolist()),
    )


def draw(
    simulator: Simulator, psi: Amplitudes, shots: int, rng: np.random.Generator
) -> tuple[States, IntArray]:
    """Distinct states int8 (S, n) and occurrences (S,) of `shots` measurements of `psi`."""
    below = np.cumsum(probabilities(psi))
    indices = np.searchsorted(below, rng.random(shots) * below[-1], side="right")
    distinct, counts = np.unique(np.minimum(indices, len(below) - 1), return_counts=True)
    return simulator.states(distinct), counts.astype(np.int64)


def probability_up_to(result: SolveResult, energy: float) -> float:
    """Exact probability of a feasible state of at most this energy, from a QAOA result.

    With the certified lowest energy this is the probability of the optimum.

    Raises:
        ValueError: the result has no exact probabilities, or not up to this energy.
    """
    energies = np.array(result.details.get("lowest_energies", ()))
    limit = energy + TIE * max(abs(energy), float(np.abs(energies).max(initial=0.0)))
    if not len(energies) or (len(energies) == LOWEST and limit >= energies[-1]):
        raise ValueError(f"{result.backend}: no exact probabilities up to the energy {energy}")
    return float(np.sum(np.array(result.details["lowest_probabilities"])[energies <= limit]))


def landscape(simulator: Simulator, betas: FloatArray, gammas: FloatArray) -> FloatArray:
    """Mean energies (B, G) of one layer over a grid of betas (B,) and standardised gammas (G,)."""
    unit = float(simulator.energies.std()) or 1.0
    return np.array(
        [
            [
                expectation(
                    simulator.evolve(np.array([beta]), np.array([gamma / unit])),
                    simulator.energies,
                )
                for gamma in gammas
            ]
            for beta in betas
        ]
    )
