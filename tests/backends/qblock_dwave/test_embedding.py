"""Clique embeddings are valid, and embedded problems keep their energies."""

import itertools

import dimod
import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from qblock_dwave.embedding import (
    Embedding,
    WorkingGraph,
    clique_embedding,
    embed,
    largest_clique,
)
from qblock_dwave.local import SHAPES, emulated_graph
from qblock_dwave.plot import embedding_figure
from support import problems

from qblock.errors import CapacityError
from qblock.files import load_sensitivity
from qblock.problem import BlockRemovalProblem


@pytest.fixture(scope="module")
def small() -> WorkingGraph:
    """A Pegasus graph of 128 qubits that holds cliques of up to 20 variables."""
    from dwave.system.testing import MockDWaveSampler

    mock = MockDWaveSampler(topology_type="pegasus", topology_shape=[3])
    return WorkingGraph.of_properties("pegasus-3", mock.properties)


@pytest.mark.parametrize("topology", SHAPES)
def test_the_bundled_instance_embeds_with_short_chains(topology: str) -> None:
    graph = emulated_graph(topology)  # type: ignore[arg-type]
    problem = BlockRemovalProblem(load_sensitivity("smollm2-135m-fisher"), remove=8).reduced
    embedding = clique_embedding(graph, len(problem))
    assert embedding.longest_chain <= 4
    used = [qubit for chain in embedding.chains for qubit in chain]
    assert len(set(used)) == len(used) == embedding.num_qubits
    for chain in embedding.chains:
        assert nx.is_connected(graph.graph.subgraph(chain))
    for a, b in itertools.combinations(embedding.chains, 2):
        assert any(graph.graph.has_edge(p, q) for p in a for q in b)


def test_qubits_that_do_not_work_are_avoided() -> None:
    from dwave.system.testing import MockDWaveSampler

    broken = set(range(0, 5600, 37))
    mock = MockDWaveSampler(topology_type="pegasus", topology_shape=[16], broken_nodes=broken)
    graph = WorkingGraph.of_properties("with defects", mock.properties)
    embedding = clique_embedding(graph, 20)
    assert not broken & {qubit for chain in embedding.chains for qubit in chain}


def test_an_embedding_is_found_once_and_survives_json(small: WorkingGraph) -> None:
    embedding = clique_embedding(small, 6)
    assert clique_embedding(small, 6) is embedding
    assert Embedding.from_dict(embedding.to_dict()) == embedding


def test_too_many_blocks_are_refused_with_the_largest_number(small: WorkingGraph) -> None:
    most = largest_clique(small)
    assert len(clique_embedding(small, most).chains) == most
    with pytest.raises(CapacityError, match=f"at most {most}"):
        clique_embedding(small, most + 1)


@settings(max_examples=25)
@given(problem=problems(max_blocks=6, undecided=True))
def test_unbroken_chains_have_the_energy_of_the_penalty_form(
    small: WorkingGraph, problem: BlockRemovalProblem
) -> None:
    reduced = problem.reduced
    embedded = embed(reduced, small, penalty="tight", prefactor=1.5)
    states = dimod.SampleSet.from_samples_bqm(
        [
            dict(zip(reduced.blocks, spins, strict=True))
            for spins in itertools.product((-1, 1), repeat=len(reduced))
        ],
        embedded.logical,
    )
    chains = embedded.embedding.of(list(embedded.logical.variables))
    names = list(states.variables)
    for row, energy in zip(states.record.sample, states.record.energy, strict=True):
        qubits = {q: row[names.index(block)] for block, chain in chains.items() for q in chain}
        scale = 1 + sum(map(abs, embedded.physical.quadratic.values()))
        assert embedded.physical.energy(qubits) == pytest.approx(energy, abs=1e-9 * scale)


def test_a_larger_penalty_takes_precision_from_the_objective(small: WorkingGraph) -> None:
    problem = BlockRemovalProblem(
        load_sensitivity("smollm2-135m-fisher"), remove=4, keep=map(str, range(14))
    )
    ranges = [
        embed(problem.reduced, small, penalty=weight, prefactor=1.414).coefficients
        for weight in (0.01, 1.0)
    ]
    assert ranges[0].bits_lost < ranges[1].bits_lost
    # A coefficient is its share of the objective plus the weight times a constant: a hundred
    # times the weight makes the largest a hundred times larger, but for the objective's share.
    assert ranges[1].bits_lost - ranges[0].bits_lost == pytest.approx(np.log2(100), abs=0.1)


def test_scaled_coefficients_fit_the_ranges_and_touch_one(small: WorkingGraph) -> None:
    problem = BlockRemovalProblem(
        load_sensitivity("smollm2-135m-fisher"), remove=4, keep=map(str, range(14))
    )
    embedded = embed(problem.reduced, small, penalty="tight", prefactor=1.414)
    scaled = embedded.physical.copy()
    scaled.scale(1 / embedded.coefficients.scale)
    fields, couplings = list(scaled.linear.values()), list(scaled.quadratic.values())
    sums = [sum(scaled.adj[q].values()) for q in scaled.variables]
    assert small.coupling_range is not None
    slack = [
        min(high - max(values), min(values) - low)
        for values, (low, high) in (
            (fields, small.h_range),
            (couplings, small.j_range),
            (sums, small.coupling_range),
        )
    ]
    assert min(slack) == pytest.approx(0, abs=1e-9)


def test_every_qubit_and_coupler_of_the_chains_is_drawn(small: WorkingGraph) -> None:
    collections_module = pytest.importorskip("matplotlib.collections")
    embedding = clique_embedding(small, 8)
    collections = embedding_figure(embedding, small).axes[0].collections
    couplers = [each for each in collections if isinstance(each, collections_module.LineCollection)]
    idle, *dots = [
        each for each in collections if not isinstance(each, collections_module.LineCollection)
    ]
    assert len(idle.get_offsets()) == len(small.graph)
    assert [len(each.get_offsets()) for each in dots] == [len(c) for c in embedding.chains]
    for lines, chain in zip(couplers, embedding.chains, strict=True):
        assert len(lines.get_paths()) >= len(chain) - 1  # a chain is connected
