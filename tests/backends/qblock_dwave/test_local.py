"""The emulated annealer: what it shows of chains, and that it calls itself emulated."""

import numpy as np
import pytest

from qblock.backend import Backend
from qblock.errors import ParameterError
from qblock.files import load_sensitivity
from qblock.problem import BlockRemovalProblem
from qblock.registry import get_backend
from qblock.spectrum import Spectrum


@pytest.fixture
def backend() -> Backend:
    return get_backend("dwave-local")


@pytest.fixture(scope="module")
def problem() -> BlockRemovalProblem:
    return BlockRemovalProblem(load_sensitivity("smollm2-135m-fisher"), remove=8)


def test_it_calls_itself_emulated(backend: Backend, problem: BlockRemovalProblem) -> None:
    result = backend.sample(problem, seed=1, num_reads=3)
    assert backend.capabilities.execution == "emulated"
    assert "emulated" in backend.capabilities.summary
    assert "emulated" in result.details["execution"]
    assert "emulated" in backend.estimate(problem).notes[0]


def test_strong_chains_do_not_break_and_weak_ones_do(
    backend: Backend, problem: BlockRemovalProblem
) -> None:
    weak, strong = (
        backend.sample(problem, seed=1, num_reads=20, chain_strength=strength)
        for strength in (0.3, 8.0)
    )
    assert weak.details["chain_break_fraction"] > 0.2
    assert any("chains broke" in warning for warning in weak.warnings)
    assert strong.details["chain_break_fraction"] < 0.02
    assert strong.warnings == ()
    assert weak.details["chain_lengths"] == strong.details["chain_lengths"]
    # Strong chains are paid for with the range left to the objective.
    assert weak.details["coefficients"]["scale"] < strong.details["coefficients"]["scale"]


def test_the_polished_samples_are_reported_beside_the_raw_ones(
    backend: Backend, problem: BlockRemovalProblem
) -> None:
    raw = backend.sample(problem, seed=5, num_reads=30)
    polished = backend.sample(problem, seed=5, num_reads=30, postprocess="steepest-descent")
    assert raw.details["raw_samples"] is None
    kept = polished.details["raw_samples"]
    column = [raw.samples.variables.index(name) for name in polished.details["undecided_blocks"]]
    seen = {
        "".join(map(str, row.sample[column])): int(row.num_occurrences)
        for row in raw.samples.record
    }
    assert kept == seen
    assert polished.samples.record.num_occurrences.sum() == 30
    weight = raw.details["penalty_weight"]

    def mean_penalised(result: object) -> float:
        record = result.samples.record  # type: ignore[attr-defined]
        violation = (record.sample.sum(axis=1) - 8.0) ** 2
        return float(np.average(record.energy + weight * violation, weights=record.num_occurrences))

    assert mean_penalised(polished) < mean_penalised(raw)
    assert Spectrum.of(problem, polished).feasible_rate > Spectrum.of(problem, raw).feasible_rate


@pytest.mark.parametrize("method", ["majority_vote", "minimize_energy", "discard"])
def test_every_way_to_mend_chains(
    backend: Backend, problem: BlockRemovalProblem, method: str
) -> None:
    result = backend.sample(
        problem, seed=2, num_reads=30, chain_break_method=method, chain_strength=4.0
    )
    total = result.samples.record.num_occurrences.sum()
    assert 0 < total <= 30
    assert (total == 30) or method == "discard"


def test_a_problem_that_does_not_fit_is_refused_before_any_work(backend: Backend) -> None:
    from qblock.errors import CapacityError
    from qblock.testing import random_sensitivity

    with pytest.raises(CapacityError, match="at most"):
        backend.sample(BlockRemovalProblem(random_sensitivity(200), remove=20))


@pytest.mark.parametrize(
    "wrong", [{"num_reads": 0}, {"topology": "torus"}, {"chain_strength": 0}], ids=str
)
def test_wrong_parameters_are_named(
    backend: Backend, problem: BlockRemovalProblem, wrong: dict[str, object]
) -> None:
    with pytest.raises(ParameterError, match=next(iter(wrong))):
        backend.sample(problem, **wrong)
