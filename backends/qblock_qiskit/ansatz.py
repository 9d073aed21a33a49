"""The two ansaetze: what each needs of a simulator and of a circuit."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from qblock.penalty import Penalty, penalty_weight
from qblock.problem import FloatArray, IntArray, ReducedProblem, States
from qblock_qiskit.circuits import Ising, fixed_weight_ansatz, penalty_ansatz
from qblock_qiskit.diagonal import DiagonalSimulator, violation_form
from qblock_qiskit.subspace import FixedWeightSimulator, Mixer, mixer_schedule
from qblock_qiskit.vector import Amplitudes


class Simulator(Protocol):
    """An exact simulator over D basis states.

    Attributes:
        energies: float64 (D,), what QAOA minimises.
        feasible: bool (D,).
    """

    energies: FloatArray
    feasible: NDArray[np.bool_]

    def __len__(self) -> int: ...
    def evolve(self, betas: FloatArray, gammas: FloatArray) -> Amplitudes: ...
    def states(self, indices: IntArray) -> States: ...


@dataclass(frozen=True)
class Units:
    """Angles are searched in units in which one start is fair for every instance.

    Attributes:
        beta: radians of the mixer per unit.
        gamma: 1 / standard deviation of the energy in the initial state.
    """

    beta: float
    gamma: float

    def radians(self, angles: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Betas (p,) and gammas (p,) from standardised angles (2p,)."""
        p = len(angles) // 2
        return self.beta * angles[:p], self.gamma * angles[p:]


@dataclass(frozen=True, eq=False)
class Ansatz(ABC):
    """A way to make a QAOA state for a problem."""

    problem: ReducedProblem

    @property
    @abstractmethod
    def name(self) -> str: ...

    @property
    @abstractmethod
    def amplitudes(self) -> int:
        """Length of the exact state vector."""

    @property
    @abstractmethod
    def rotations(self) -> float:
        """Pairs of amplitudes rotated by one mixer layer: the simulator's work."""

    @property
    @abstractmethod
    def beta_unit(self) -> float:
        """The mixer's angle that moves a block about as far as one neighbour on a line would."""

    @property
    @abstractmethod
    def too_large(self) -> str:
        """Why the exact simulator cannot hold the problem and what would; empty if it can."""

    @property
    @abstractmethod
    def weight(self) -> float:
        """Penalty weight in the energy of states that break a budget."""

    @abstractmethod
    def simulator(self) -> Simulator: ...

    @abstractmethod
    def circuit(self, p: int) -> Any:
        """The circuit with p layers: parameters beta[0..p-1], gamma[0..p-1], no measurements."""

    def energies(self, states: States) -> FloatArray:
        """Penalty energies (S,) of any states (S, n), as measured on a device."""
        V, constant = violation_form(self.problem)
        form = self.problem.Q + self.weight * V
        y = states.astype(np.float64)
        return np.asarray(np.einsum("si,si->s", y @ form, y) + self.weight * constant)

    def units(self, simulator: Simulator | None) -> "Units":
        """What the standardised angles are multiplied by."""
        if simulator is None:
            deviation = self._sampled_deviation()
        else:
            deviation = float(simulator.energies.std())
        return Units(self.beta_unit, 1 / deviation if deviation > 0 else 1.0)

    @abstractmethod
    def _sampled_deviation(self) -> float: ...

    def with_fewer(self, removed: int) -> "Ansatz":
        """The same ansatz with each budget lowered by `removed`, to at least 1."""
        budgets = np.maximum(self.problem.budgets - removed, 1)
        return replace(self, problem=replace(self.problem, budgets=budgets))


@dataclass(frozen=True, eq=False)
class PenaltyAnsatz(Ansatz):
    """Penalty QUBO, |+...+> and the X mixer."""

    penalty: Penalty

    MOST_QUBITS = 26  # 1 GiB of amplitudes, 1.6 GiB in all

    @property
    def name(self) -> str:
        return "penalty, X mixer"

    @property
    def amplitudes(self) -> int:
        return 1 << len(self.problem)

    @property
    def rotations(self) -> float:
        return self.amplitudes / 2 * len(self.problem)

    @property
    def beta_unit(self) -> float:
        return 1.0

    @property
    def too_large(self) -> str:
        n, most = len(self.problem), self.MOST_QUBITS
        if n <= most:
            return ""
        return (
            f"{n} blocks need 2^{n} amplitudes; device=exact holds 2^{most}. What would fit: "
            f"device=mps (approximate), the backend qaoa-fixed-weight "
            f"({self.problem.num_feasible} amplitudes), or pinning {n - most} blocks, which "
            "`qblock reduce` can prove harmless"
        )

    @cached_property
    def _weight(self) -> float:
        return penalty_weight(self.problem, self.penalty)

    @property
    def weight(self) -> float:
        return self._weight

    def simulator(self) -> DiagonalSimulator:
        return DiagonalSimulator(self.problem, self.weight)

    def circuit(self, p: int) -> Any:
        return penalty_ansatz(self.problem, p, self.penalty)

    def _sampled_deviation(self) -> float:
        """Exact: over all states the Ising terms are uncorrelated with unit variance."""
        ising = Ising.of_penalty(self.problem, self.penalty)
        coefficients = [*ising.fields.values(), *ising.couplings.values()]
        return math.sqrt(sum(value**2 for value in coefficients))


@dataclass(frozen=True, eq=False)
class FixedWeightAnsatz(Ansatz):
    """Dicke states and an XY mixer, one for each group."""

    mixer: Mixer

    MOST_AMPLITUDES = 100_000_000  # 1.6 GB of amplitudes, 4 GB in all

    @property
    def name(self) -> str:
        return f"Dicke states, {self.mixer} XY mixer"

    @property
    def amplitudes(self) -> int:
        return self.problem.num_feasible

    @property
    def rotations(self) -> float:
        sizes = np.bincount(self.problem.group_of)
        filling = (self.problem.budgets / sizes)[self.problem.group_of]
        gates = len(mixer_schedule(self.problem, self.mixer).sequence)
        return float(gates * self.amplitudes * (filling * (1 - filling)).mean())

    @property
    def beta_unit(self) -> float:
        if self.mixer == "ring":
            return 1.0
        return 2.0 / max(int(np.bincount(self.problem.group_of).max()) - 1, 2)

    @property
    def too_large(self) -> str:
        if self.amplitudes <= self.MOST_AMPLITUDES:
            return ""
        return (
            f"{self.amplitudes} feasible states are more than the {self.MOST_AMPLITUDES} "
            "amplitudes of device=exact. What would fit: fewer removed blocks, or more pins, "
            "which `qblock reduce` can prove harmless"
        )

    @cached_property
    def _weight(self) -> float:
        return penalty_weight(self.problem, "tight")

    @property
    def weight(self) -> float:
        return self._weight

    def simulator(self) -> FixedWeightSimulator:
        return FixedWeightSimulator(self.problem, self.mixer)

    def circuit(self, p: int) -> Any:
        return fixed_weight_ansatz(self.problem, p, self.mixer)

    def _sampled_deviation(self) -> float:
        """From 4096 uniform feasible states, always the same ones."""
        rng = np.random.default_rng(0)
        states = np.zeros((4096, len(self.problem)), dtype=np.int8)
        for group, budget in enumerate(self.problem.budgets):
            members = np.flatnonzero(self.problem.group_of == group)
            order = np.argsort(rng.random((len(states), len(members))), axis=1)
            np.put_along_axis(states, members[order[:, : int(budget)]], 1, axis=1)
        return float(self.energies(states).std())
