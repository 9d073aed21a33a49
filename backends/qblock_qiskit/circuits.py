"""The QAOA circuits. Qubit i is variable i of the reduced problem; parameters are beta, gamma.

Both ansaetze start in an equal superposition and apply p layers of exp(-i gamma_l E) and a mixer
with angle beta_l. The XY mixers are ordered products of two-qubit gates (one Trotter step), in
the order of `mixer_schedule`. Circuits equal the exact simulators, global phase included.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from qblock.encoding import Encoding
from qblock.penalty import Penalty
from qblock.problem import ReducedProblem
from qblock_qiskit.subspace import Mixer, mixer_schedule, sorted_by_group

BASIS = ("cz", "rz", "sx", "x")
"""Gates that transpiled figures are given in where a device has none of its own."""


@dataclass(frozen=True)
class Ising:
    """E = constant + sum_i fields[i] s_i + sum_{i<j} couplings[i, j] s_i s_j, s = 2y - 1."""

    fields: Mapping[int, float]
    couplings: Mapping[tuple[int, int], float]
    constant: float

    @classmethod
    def of_energy(cls, problem: ReducedProblem) -> "Ising":
        """The energy y'Qy without a penalty, for circuits that never leave the budget."""
        Q, n = problem.Q, len(problem)
        return cls(
            dict(enumerate(Q.sum(axis=1) / 2)),
            {(i, j): Q[i, j] / 2 for i, j in itertools.combinations(range(n), 2) if Q[i, j]},
            float(Q.sum() + np.trace(Q)) / 4,
        )

    @classmethod
    def of_penalty(cls, problem: ReducedProblem, penalty: Penalty) -> "Ising":
        """The penalty form, through PyQUBO."""
        h, J, constant = Encoding(problem).ising(penalty)
        at = {block: i for i, block in enumerate(problem.blocks)}
        couplings = {(min(at[a], at[b]), max(at[a], at[b])): value for (a, b), value in J.items()}
        return cls({at[block]: value for block, value in h.items()}, couplings, constant)


def dicke_state(size: int, ones: int) -> Any:
    """A circuit that takes |0...0> to the equal superposition of all states with `ones` ones.

    Deterministic, without ancillas, O(size * ones) gates.
    Source: Baertschi and Eidenbenz, "Deterministic preparation of Dicke states",
    arXiv:1904.07358, with the roles of 0 and 1 exchanged where that is shorter.
    """
    from qiskit.circuit import QuantumCircuit
    from qiskit.circuit.library import RYGate

    circuit = QuantumCircuit(size, name=f"Dicke({size}, {ones})")
    inverted = 2 * ones > size
    weight = size - ones if inverted else ones
    if weight:
        circuit.x(range(size - weight, size))
    for length in range(size, 1, -1):
        last = length - 1
        for shift in range(1, min(weight, length - 1) + 1):
            angle = 2 * math.acos(math.sqrt(shift / length))
            target = last - shift
            controls = [last] if shift == 1 else [last, target + 1]
            circuit.cx(target, last)
            circuit.append(
                RYGate(angle).control(len(controls), annotated=False), [*controls, target]
            )
            circuit.cx(target, last)
    if inverted:
        circuit.x(range(size))
    return circuit


def _cost_layer(circuit: Any, ising: Ising, gamma: Any) -> None:
    n = circuit.num_qubits
    circuit.global_phase -= gamma * ising.constant
    for i, field in ising.fields.items():
        circuit.rz(-2 * gamma * field, i)  # s = 2y - 1 is minus Pauli Z
    # Pairs in rounds of disjoint ones, so that each round can run in parallel.
    for i, j in sorted(ising.couplings, key=lambda pair: (sum(pair) % n, pair)):
        circuit.rzz(2 * gamma * ising.couplings[i, j], i, j)


def _add_layers(circuit: Any, p: int, ising: Ising, mixer: Sequence[tuple[Any, ...]]) -> Any:
    from qiskit.circuit import ParameterVector

    betas, gammas = ParameterVector("beta", p), ParameterVector("gamma", p)
    for beta, gamma in zip(betas, gammas, strict=True):
        _cost_layer(circuit, ising, gamma)
        for gate, *qubits in mixer:
            circuit.append(gate(-2 * beta), qubits)
    return circuit


def penalty_ansatz(problem: ReducedProblem, p: int, penalty: Penalty = "tight") -> Any:
    """QAOA of the penalty form: |+...+>, cost layers, exp(i beta sum_i X_i)."""
    from qiskit.circuit import QuantumCircuit
    from qiskit.circuit.library import RXGate

    start = QuantumCircuit(len(problem), name="qaoa")
    start.h(range(len(problem)))
    mixer = [(RXGate, i) for i in range(len(problem))]
    return _add_layers(start, p, Ising.of_penalty(problem, penalty), mixer)


def fixed_weight_ansatz(problem: ReducedProblem, p: int, mixer: Mixer = "complete") -> Any:
    """QAOA inside the budgets: a Dicke state per group, cost layers, XY mixers.

    Source of the ansatz: Hadfield et al., "From the quantum approximate optimization algorithm
    to a quantum alternating operator ansatz", arXiv:1709.03489.
    """
    from qiskit.circuit import QuantumCircuit
    from qiskit.circuit.library import XXPlusYYGate

    start = QuantumCircuit(len(problem), name="qaoa-fixed-weight")
    for group, budget in enumerate(problem.budgets):
        members = np.flatnonzero(problem.group_of == group)
        start.compose(dicke_state(len(members), int(budget)), members.tolist(), inplace=True)
    order = sorted_by_group(problem).tolist()
    gates = [(XXPlusYYGate, order[i], order[j]) for i, j in mixer_schedule(problem, mixer).sequence]
    return _add_layers(start, p, Ising.of_energy(problem), gates)


@dataclass(frozen=True)
class CircuitSize:
    """Depth and two-qubit gates as written, and after transpilation."""

    depth: int
    two_qubit_gates: int
    transpiled_depth: int
    transpiled_two_qubit_gates: int

    @classmethod
    def of(cls, circuit: Any, transpiled: Any) -> "CircuitSize":
        def two_qubit_gates(of: Any) -> int:
            return int(of.num_nonlocal_gates())

        return cls(
            circuit.depth(),
            two_qubit_gates(circuit),
            transpiled.depth(),
            two_qubit_gates(transpiled),
        )


def draw_circuit(
    problem: ReducedProblem,
    *,
    mixer: Literal["x"] | Mixer = "complete",
    p: int = 1,
    width: int = 100,
) -> str:
    """The circuit as text, for teaching: "x" is the penalty ansatz, the others fixed-weight."""
    circuit = penalty_ansatz(problem, p) if mixer == "x" else fixed_weight_ansatz(problem, p, mixer)
    return str(circuit.draw("text", fold=width, idle_wires=False).single_string())
