"""What every annealer backend shares, emulated or real: parameters, and the way back from qubits
to samples of the problem."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import dimod
import numpy as np
from pydantic import Field

from qblock.backend import Samples
from qblock.encoding import Encoding, PenaltyParameters
from qblock.errors import BackendError
from qblock.problem import IntArray, ReducedProblem, States
from qblock_dwave.embedding import EmbeddedProblem, Embedding

BROKEN_CHAINS_WORTH_A_WARNING = 0.1


class AnnealerParameters(PenaltyParameters):
    """Parameters of everything that samples an embedded problem."""

    num_reads: int = Field(100, ge=1, le=10_000, description="anneals, each read out once")
    chain_strength: float = Field(
        1.414,
        gt=0,
        description="chain strength, as a multiple of the typical torque on a chain "
        "(the prefactor of uniform torque compensation)",
    )
    chain_break_method: Literal["majority_vote", "minimize_energy", "discard"] = Field(
        "majority_vote", description="what becomes of a chain whose qubits disagree"
    )
    postprocess: Literal["none", "steepest-descent"] = Field(
        "none",
        description="local descent from every sample; the samples as read are kept in the "
        "details as 'raw_samples'",
    )


@dataclass(frozen=True)
class Programme:
    """What is kept of an embedded problem to read its samples, now or days later. JSON-like.

    Attributes:
        embedding: chain of each undecided block.
        penalty_weight, chain_strength: in units of the energy.
        coefficients: `CoefficientRange` as a dictionary.
    """

    embedding: Embedding
    penalty_weight: float
    chain_strength: float
    coefficients: Mapping[str, float]

    @classmethod
    def of(cls, embedded: EmbeddedProblem) -> "Programme":
        return cls(
            embedded.embedding,
            embedded.penalty_weight,
            embedded.chain_strength,
            asdict(embedded.coefficients),
        )

    def to_dict(self) -> dict[str, Any]:
        return {**self.__dict__, "embedding": self.embedding.to_dict()}

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> "Programme":
        return cls(**{**document, "embedding": Embedding.from_dict(document["embedding"])})


def unembed(
    problem: ReducedProblem,
    programme: Programme,
    physical: dimod.SampleSet,
    parameters: AnnealerParameters,
) -> Samples:
    """Samples of the problem from samples over qubits, with what is known of the chains.

    Raises:
        BackendError: every sample was discarded for a broken chain.
    """
    from dwave.embedding import unembed_sampleset
    from dwave.embedding.chain_breaks import MinimizeEnergy, broken_chains, discard, majority_vote

    encoding = Encoding(problem)
    logical = encoding.bqm(programme.penalty_weight).change_vartype("SPIN", inplace=False)
    chains = programme.embedding.of(list(logical.variables))
    columns = {qubit: column for column, qubit in enumerate(physical.variables)}
    broken = broken_chains(
        physical.record.sample,
        [np.array([columns[q] for q in chain]) for chain in programme.embedding.chains],
    )
    occurrences = physical.record.num_occurrences
    break_fraction = float(np.average(broken.mean(axis=1), weights=occurrences))
    method: Any = {
        "majority_vote": majority_vote,
        "discard": discard,
        "minimize_energy": MinimizeEnergy(logical, chains),
    }[parameters.chain_break_method]
    raw = unembed_sampleset(physical, chains, logical, chain_break_method=method)
    if not len(raw):
        raise BackendError(
            f"a chain broke in every one of {len(physical)} samples and "
            "chain_break_method='discard' leaves none; raise chain_strength, or use "
            "'majority_vote'"
        )
    raw_samples = None
    samples = raw
    if parameters.postprocess == "steepest-descent":
        raw_samples = _bit_strings(encoding.decode(raw), raw.record.num_occurrences)
        samples = _descend(logical, raw)
    warnings = []
    if break_fraction > BROKEN_CHAINS_WORTH_A_WARNING:
        warnings.append(
            f"{break_fraction:.0%} of chains broke; a larger chain_strength breaks fewer"
        )
    return Samples(
        states=encoding.decode(samples),
        occurrences=np.asarray(samples.record.num_occurrences, dtype=np.int64),
        warnings=tuple(warnings),
        details={
            **programme.to_dict(),
            "chain_lengths": [len(chain) for chain in programme.embedding.chains],
            "qubits": programme.embedding.num_qubits,
            "chain_break_fraction": break_fraction,
            "undecided_blocks": list(problem.blocks),
            "raw_samples": raw_samples,
        },
    )


def _descend(logical: dimod.BinaryQuadraticModel, samples: dimod.SampleSet) -> dimod.SampleSet:
    """Each sample moved to the local minimum that single flips lead to."""
    from dwave.samplers import SteepestDescentSampler

    polished = SteepestDescentSampler().sample(
        logical, initial_states=samples, num_reads=len(samples)
    )
    # The sampler keeps the order of its initial states, not how often each occurred.
    return dimod.SampleSet.from_samples(
        (polished.record.sample, list(polished.variables)),
        vartype=polished.vartype,
        energy=polished.record.energy,
        num_occurrences=samples.record.num_occurrences,
    )


def _bit_strings(states: States, occurrences: IntArray) -> dict[str, int]:
    """How often each state was seen, by the state written as a string of 0 and 1."""
    counts: dict[str, int] = {}
    for state, count in zip(states, occurrences, strict=True):
        text = "".join(map(str, state))
        counts[text] = counts.get(text, 0) + int(count)
    return counts
