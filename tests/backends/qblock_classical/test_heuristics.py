"""What the heuristics are worth, and the temperature trouble of those on the penalty form."""

import numpy as np
import pytest

from qblock.files import load_sensitivity
from qblock.problem import BlockRemovalProblem, Sensitivity
from qblock.registry import get_backend
from qblock.spectrum import Spectrum

REAL = BlockRemovalProblem(load_sensitivity("smollm2-135m-fisher"), remove=8)


@pytest.fixture(scope="module")
def optimum():
    return Spectrum.of(REAL, get_backend("brute-force").sample(REAL, k=1))[0].energy


@pytest.mark.parametrize("name", ["fixed-weight-annealing", "fixed-weight-tabu"])
def test_swap_solvers_reach_the_proven_optimum_of_a_real_model(name, optimum):
    for seed in range(5):
        best = Spectrum.of(REAL, get_backend(name).sample(REAL, seed=seed))[0]
        assert best.energy == pytest.approx(optimum, rel=1e-12)


@pytest.mark.parametrize("name", ["fixed-weight-annealing", "fixed-weight-tabu"])
@pytest.mark.parametrize("seed", range(4))
def test_swap_solvers_on_grouped_indefinite_instances(name, seed):
    rng = np.random.default_rng(seed)
    B = rng.standard_normal((16, 16))
    groups = tuple(rng.choice(["a", "b"], 16).tolist())
    sizes = {group: groups.count(group) for group in "ab"}
    problem = BlockRemovalProblem(
        Sensitivity(H=B + B.T, groups=groups), remove={g: n // 2 for g, n in sizes.items()}
    )
    proven = Spectrum.of(problem, get_backend("brute-force").sample(problem, k=1))[0]
    found = Spectrum.of(problem, get_backend(name).sample(problem, seed=seed))[0]
    assert found.energy == pytest.approx(proven.energy)


def test_random_is_uniform_over_the_feasible_states():
    problem = BlockRemovalProblem(
        Sensitivity(H=np.eye(5), groups=("a", "a", "a", "b", "b")), remove={"a": 1, "b": 1}
    )
    result = get_backend("random").sample(problem, seed=0, num_reads=12_000)
    counts = Spectrum.of(problem, result).occurrences
    assert len(counts) == 6
    chi_squared = ((counts - 2000) ** 2 / 2000).sum()
    assert chi_squared < 20.5  # 0.1 % point of chi-squared with 5 degrees of freedom


def test_objective_range_ends_colder_than_the_penalty_allows_and_both_are_reported():
    backend = get_backend("annealing")
    default = backend.sample(REAL, seed=0, num_reads=10).details
    objective = backend.sample(REAL, seed=0, num_reads=10, beta_range="objective").details
    given = backend.sample(REAL, seed=0, num_reads=10, beta_range=[1.0, 50.0]).details
    assert given["beta_range"] == [1.0, 50.0]
    # The default is hot enough to break the penalty, the other to move within the budget.
    assert default["beta_range"][0] < 1 / default["penalty_weight"]
    assert objective["beta_range"][0] > default["beta_range"][0]


def test_a_large_penalty_drowns_the_objective():
    """The lesson of the comparison: the same annealer, the same sweeps, only the weight differs."""

    def mean_energy(penalty):
        result = get_backend("annealing").sample(REAL, seed=3, num_reads=200, penalty=penalty)
        spectrum = Spectrum.of(REAL, result)
        assert len(spectrum)
        return np.average(spectrum.energies, weights=spectrum.occurrences)

    assert mean_energy("safe") > 1.2 * mean_energy("tight")


def test_batching_does_not_change_the_samples(monkeypatch):
    import qblock_classical.reads as reads

    names = ("descent", "tabu", "random", "fixed-weight-annealing", "fixed-weight-tabu")
    usual = {n: get_backend(n).sample(REAL, seed=5, num_reads=7).samples for n in names}
    monkeypatch.setattr(reads, "BATCH_SECONDS", 0.0)  # never more than one read at a time
    for name in names:
        single = get_backend(name).sample(REAL, seed=5, num_reads=7).samples
        assert single == usual[name], name
