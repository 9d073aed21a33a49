"""Judge any dimod sampler by a proved spectrum.

    python certify_a_dimod_sampler.py

Takes a `dimod.BinaryQuadraticModel` and a cardinality, proves its lowest states, and says how many
of them a sampler of yours finds. Here that is Ocean's simulated annealing on the penalty form.
"""

import dimod
import numpy as np
from dwave.samplers import SimulatedAnnealingSampler

from qblock import BlockRemovalProblem, Sensitivity, SolveResult, Spectrum, get_backend
from qblock.encoding import Encoding

K = 100
"""Lowest states to prove."""


def problem_of(bqm: dimod.BinaryQuadraticModel, cardinality: int) -> BlockRemovalProblem:
    """Minimise the model with exactly so many variables at 1. Its offset is left out."""
    binary = bqm.change_vartype("BINARY", inplace=False)
    names = list(binary.variables)
    index = {name: i for i, name in enumerate(names)}
    H = np.diag([float(binary.linear[name]) for name in names])
    for (u, v), bias in binary.quadratic.items():
        H[index[u], index[v]] += bias / 2
        H[index[v], index[u]] += bias / 2
    return BlockRemovalProblem(
        Sensitivity(H=H, blocks=tuple(map(str, names)), name="mine"), remove=cardinality
    )


def certified(problem: BlockRemovalProblem) -> SolveResult:
    """The K lowest states; `samples` is a `dimod.SampleSet`, `certificate` says what is proved."""
    return get_backend("exact").sample(problem, k=K)


def found(problem: BlockRemovalProblem, samples: dimod.SampleSet, truth: Spectrum) -> int:
    """How many of the proved lowest states are among the samples."""
    order = [samples.variables.index(name) for name in problem.blocks]
    seen = {row.tobytes() for row in samples.record.sample[:, order].astype(np.int8)}
    return sum(state.astype(np.int8).tobytes() in seen for state in truth.states)


def main() -> None:
    rng = np.random.default_rng(7)
    bqm = dimod.BinaryQuadraticModel(np.triu(rng.normal(size=(24, 24))), "BINARY")
    problem = problem_of(bqm, 8)
    result = certified(problem)
    assert result.certificate is not None
    assert result.certificate.proved
    truth = Spectrum.of(problem, result)
    print(f"proved: {len(truth)} states from {truth.energies[0]:.6g} to {truth.energies[-1]:.6g}")
    penalised = Encoding(problem.reduced).bqm()  # with the smallest weight that is proved to do
    samples = SimulatedAnnealingSampler().sample(penalised, num_reads=1000, seed=1)
    print(f"simulated annealing finds {found(problem, samples, truth)} of {len(truth)}")


if __name__ == "__main__":
    main()
