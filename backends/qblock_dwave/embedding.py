"""Dense problems on the sparse graph of an annealer: chains, their strength, and what they cost.

A clique embedding (Boothby, King and Roy, Quantum Inf. Process. 15, 495, 2016) gives every
variable a chain of qubits so that any two chains touch. It depends on the graph and on the
number of variables alone, never on coefficients, so one embedding serves every problem of that
size; it comes from `minorminer.busclique`, in a tenth of a second and with chains shorter than
a general heuristic finds.
"""

import bisect
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import dimod
import numpy as np

from qblock.encoding import Encoding
from qblock.errors import CapacityError
from qblock.penalty import Penalty, penalty_weight
from qblock.problem import FloatArray, ReducedProblem


@dataclass(frozen=True, eq=False)
class WorkingGraph:
    """The qubits and couplers of one annealer that work, and the ranges it accepts.

    Attributes:
        name: of the solver or of the topology, such as "pegasus-16".
        graph: networkx graph with the topology's attributes, nodes are qubit numbers.
        h_range, j_range: least and largest field and coupling that can be programmed.
        coupling_range: least and largest sum of the couplings at one qubit, or None.
    """

    name: str
    graph: Any
    h_range: tuple[float, float]
    j_range: tuple[float, float]
    coupling_range: tuple[float, float] | None = None

    @classmethod
    def of_properties(cls, name: str, properties: Mapping[str, Any]) -> "WorkingGraph":
        """From the properties that a solver reports of itself; equal ones give one object."""
        coupling = properties.get("per_qubit_coupling_range")
        return _working_graph(
            name,
            properties["topology"]["type"],
            tuple(properties["topology"]["shape"]),
            tuple(properties["qubits"]),
            tuple(map(tuple, properties["couplers"])),
            tuple(properties["h_range"]),
            tuple(properties.get("extended_j_range") or properties["j_range"]),
            tuple(coupling) if coupling else None,
        )


@functools.lru_cache(maxsize=8)  # building one takes longer than a short job at the service
def _working_graph(
    name: str,
    family: str,
    shape: tuple[int, ...],
    qubits: tuple[int, ...],
    couplers: tuple[tuple[int, int], ...],
    *ranges: Any,
) -> WorkingGraph:
    from dwave import graphs

    build = getattr(graphs, f"{family}_graph")
    return WorkingGraph(name, build(*shape, node_list=qubits, edge_list=couplers), *ranges)


@dataclass(frozen=True)
class Embedding:
    """A chain of qubits for each of n variables.

    Attributes:
        graph: name of the graph it is made for.
        chains: qubits of each variable's chain, in the order of the variables.
    """

    graph: str
    chains: tuple[tuple[int, ...], ...]

    @property
    def num_qubits(self) -> int:
        return sum(map(len, self.chains))

    @property
    def longest_chain(self) -> int:
        return max(map(len, self.chains))

    def to_dict(self) -> dict[str, Any]:
        """JSON-like; `from_dict` gives an equal embedding back."""
        return {"graph": self.graph, "chains": [list(chain) for chain in self.chains]}

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> "Embedding":
        chains = tuple(tuple(int(qubit) for qubit in chain) for chain in document["chains"])
        return cls(str(document["graph"]), chains)

    def of(self, variables: Sequence[str]) -> dict[str, tuple[int, ...]]:
        """The chain of each named variable, as Ocean's functions take it."""
        return dict(zip(variables, self.chains, strict=True))


@functools.lru_cache(maxsize=64)
def clique_embedding(graph: WorkingGraph, n: int) -> Embedding:
    """The clique embedding of n variables; found once per graph object and n.

    Raises:
        CapacityError: no clique of that size; the message names the largest there is.
    """
    from minorminer import busclique

    found = busclique.find_clique_embedding(n, graph.graph, seed=0, use_cache=False)
    if len(found) < n:
        raise CapacityError(
            f"{n} undecided blocks do not embed as a clique in {graph.name}, "
            f"which holds at most {largest_clique(graph)}; pin some with --keep or --drop"
        )
    return Embedding(graph.name, tuple(tuple(sorted(found[i])) for i in range(n)))


@functools.lru_cache(maxsize=8)
def largest_clique(graph: WorkingGraph) -> int:
    """How many variables a dense problem on this graph can have."""
    from minorminer import busclique

    # By bisection: busclique's own answer comes with a cache that it writes to disk.
    def fits(n: int) -> bool:
        return len(busclique.find_clique_embedding(n, graph.graph, use_cache=False)) == n

    sizes = range(1, len(graph.graph) + 1)
    return bisect.bisect_left(sizes, True, key=lambda n: not fits(n))


@dataclass(frozen=True)
class CoefficientRange:
    """What the physical model asks of the annealer's analogue range.

    Attributes:
        largest_field, largest_coupling: absolute values, in units of the energy.
        scale: by how much all coefficients are divided to fit the annealer's ranges.
        bits_lost: log2 of how much finer the same objective could be programmed without its
            penalty; so many bits of the analogue precision go to the constraint.
    """

    largest_field: float
    largest_coupling: float
    scale: float
    bits_lost: float


@dataclass(frozen=True, eq=False)
class EmbeddedProblem:
    """A reduced problem as programmed on an annealer.

    Attributes:
        logical: penalty form in spins, over the n blocks.
        physical: the same in spins over qubits, with chains; not yet scaled to the ranges.
        embedding: block to chain.
        penalty_weight, chain_strength: in units of the energy.
        coefficients: what the physical model asks of the hardware.
    """

    logical: dimod.BinaryQuadraticModel
    physical: dimod.BinaryQuadraticModel
    embedding: Embedding
    penalty_weight: float
    chain_strength: float
    coefficients: CoefficientRange


def embed(
    problem: ReducedProblem, graph: WorkingGraph, *, penalty: Penalty, prefactor: float
) -> EmbeddedProblem:
    """Embed the penalty form of the problem as a clique.

    Args:
        penalty: weight of the budgets, see `qblock.penalty`.
        prefactor: of the chain strength by uniform torque compensation: the typical coupling
            times the square root of the mean degree, times this (Raymond et al., Sci. Rep. 10,
            2020; `dwave.embedding.chain_strength`). Taken in spins, as it is programmed.

    Raises:
        CapacityError: the graph has no clique of this size.
    """
    embedding = clique_embedding(graph, len(problem))
    encoding = Encoding(problem)
    weight = penalty_weight(problem, penalty)
    logical = encoding.bqm(weight).change_vartype("SPIN", inplace=False)
    physical, strength = _with_chains(logical, embedding, graph, prefactor)
    objective = dimod.BinaryQuadraticModel(problem.Q, "BINARY").change_vartype("SPIN")
    objective.relabel_variables(dict(enumerate(problem.blocks)))
    bare, _ = _with_chains(objective, embedding, graph, prefactor)
    scale, bare_scale = _scale(physical, graph), _scale(bare, graph)
    fields, (_, _, couplings), _ = physical.to_numpy_vectors()
    lost = np.log2(scale / bare_scale) if scale > 0 and bare_scale > 0 else 0.0
    return EmbeddedProblem(
        logical=logical,
        physical=physical,
        embedding=embedding,
        penalty_weight=weight,
        chain_strength=strength,
        coefficients=CoefficientRange(
            largest_field=_largest(fields),
            largest_coupling=_largest(couplings),
            scale=scale,
            bits_lost=max(float(lost), 0.0),
        ),
    )


def _with_chains(
    logical: dimod.BinaryQuadraticModel,
    embedding: Embedding,
    graph: WorkingGraph,
    prefactor: float,
) -> tuple[dimod.BinaryQuadraticModel, float]:
    from dwave.embedding import embed_bqm
    from dwave.embedding.chain_strength import uniform_torque_compensation

    # The formula counts interactions, so a problem without couplings gets an arbitrary strength.
    strength = float(uniform_torque_compensation(logical, prefactor=prefactor)) or 1.0
    chains = embedding.of(list(logical.variables))
    return embed_bqm(logical, chains, graph.graph.adj, chain_strength=strength), strength


def _largest(values: FloatArray) -> float:
    return float(np.abs(values).max(initial=0.0))


def _scale(physical: dimod.BinaryQuadraticModel, graph: WorkingGraph) -> float:
    """The factor by which an annealer's auto-scaling divides this model."""
    fields, (rows, columns, couplings), _ = physical.to_numpy_vectors()
    demands = [(fields, graph.h_range), (couplings, graph.j_range)]
    if graph.coupling_range:
        ends, twice = np.concatenate((rows, columns)), np.tile(couplings, 2)
        totals = np.bincount(ends, weights=twice, minlength=len(fields))
        demands.append((totals, graph.coupling_range))
    return max(
        float(max(values.max(initial=0.0) / high, values.min(initial=0.0) / low))
        for values, (low, high) in demands
    )
