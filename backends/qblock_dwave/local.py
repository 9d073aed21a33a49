"""A quantum annealer emulated on this machine: real graph, real chains, classical annealing."""

import functools
import itertools
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from qblock.backend import (
    Availability,
    Backend,
    Capabilities,
    Estimate,
    Progress,
    Run,
    Samples,
    interrupt_flag,
)
from qblock.problem import BlockRemovalProblem, ReducedProblem
from qblock_dwave.annealer import AnnealerParameters, Programme, unembed
from qblock_dwave.embedding import WorkingGraph, clique_embedding, embed

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Topology = Literal["pegasus", "zephyr"]

SHAPES: dict[Topology, list[int]] = {"pegasus": [16], "zephyr": [12, 4]}
"""Of the Advantage and the Advantage2 processors, without their defects."""


class LocalParameters(AnnealerParameters):
    topology: Topology = Field(
        "pegasus", description="graph of the Advantage (pegasus) or Advantage2 (zephyr) processors"
    )
    num_sweeps: int = Field(
        1000,
        ge=1,
        description="length of the classical anneal that stands in for the quantum one",
        json_schema_extra={"unit": "sweeps"},
    )


@functools.cache
def emulated_graph(topology: Topology) -> WorkingGraph:
    """The graph and the ranges of Ocean's mock of a processor."""
    from dwave.system.testing import MockDWaveSampler

    processor = MockDWaveSampler(topology_type=topology, topology_shape=SHAPES[topology])
    return WorkingGraph.of_properties(f"{topology}-{SHAPES[topology][0]}", processor.properties)


class DWaveLocal(Backend[LocalParameters]):
    """An emulated annealer: embedding, chains and ranges of a processor, no quantum mechanics.

    Shows what the embedding does to a problem. Its success says nothing of a quantum annealer's.
    """

    name = "dwave-local"
    Parameters = LocalParameters
    capabilities = Capabilities(
        summary="emulated D-Wave annealer: its graph and chains, simulated annealing underneath",
        constraint="penalty",
        method="quantum",
        execution="emulated",
        time_limit_slack=5.0,
    )

    def available(self) -> Availability:
        return Availability.of_extra("dwave.system", "dwave")

    def check(self, problem: ReducedProblem, parameters: LocalParameters) -> None:
        if len(problem):
            clique_embedding(emulated_graph(parameters.topology), len(problem))

    def estimate(self, problem: BlockRemovalProblem, **parameters: Any) -> Estimate:
        settings = self.parse(parameters)
        self.require_available()
        n = len(problem.reduced)
        if not n:
            return Estimate(qubits=0, notes=("pins and budgets decide every block",))
        embedding = clique_embedding(emulated_graph(settings.topology), n)
        return Estimate(
            qubits=embedding.num_qubits,
            notes=(
                "emulated: costs nothing",
                f"{n} chains of at most {embedding.longest_chain} qubits on {embedding.graph}",
            ),
        )

    def figure(self, form: str, problem: ReducedProblem, parameters: LocalParameters) -> "Figure":
        if form != "embedding":
            return super().figure(form, problem, parameters)
        from qblock_dwave.plot import embedding_figure

        graph = emulated_graph(parameters.topology)
        return embedding_figure(clique_embedding(graph, len(problem)), graph)

    def solve(self, problem: ReducedProblem, parameters: LocalParameters, run: Run) -> Samples:
        from dwave.samplers import SimulatedAnnealingSampler

        graph = emulated_graph(parameters.topology)
        embedded = embed(
            problem, graph, penalty=parameters.penalty, prefactor=parameters.chain_strength
        )
        encode_seconds = time.perf_counter() - run.started
        reads = itertools.count(1)
        with interrupt_flag() as interrupted:

            def stop() -> bool:  # called after every read
                done = next(reads)
                run.report(
                    Progress(
                        f"{done} of {parameters.num_reads} emulated reads",
                        done / parameters.num_reads,
                    )
                )
                return interrupted() or run.expired()

            physical = SimulatedAnnealingSampler().sample(
                embedded.physical,
                num_reads=parameters.num_reads,
                num_sweeps=parameters.num_sweeps,
                seed=int(np.random.default_rng(run.seed).integers(2**31)),
                interrupt_function=stop,
            )
        stopped = len(physical) < parameters.num_reads
        samples = unembed(problem, Programme.of(embedded), physical, parameters)
        return replace(
            samples,
            status=("interrupted" if interrupted() else "time-limit") if stopped else "complete",
            encode_seconds=encode_seconds,
            details={
                "execution": "emulated: simulated annealing on the physical model",
                **samples.details,
            },
        )
