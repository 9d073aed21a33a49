"""The contract that every backend keeps, and one test of what this one is for."""

from qblock import BlockRemovalProblem, Spectrum, get_backend
from qblock.testing import backend_contract, random_sensitivity

TestContract = backend_contract("greedy")


def test_it_beats_as_many_random_guesses() -> None:
    problem = BlockRemovalProblem(random_sensitivity(30), remove=10)
    lowest = {
        name: Spectrum.of(problem, get_backend(name).sample(problem, seed=1, num_reads=30))
        for name in ("greedy", "random")
    }
    assert lowest["greedy"].energies[0] < lowest["random"].energies[0]
