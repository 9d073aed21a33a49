"""The contract suite: what every backend must do, runnable against any of them.

In a test file of your own distribution, one line:

    from qblock.testing import backend_contract
    TestMySolver = backend_contract("my-solver")

pytest then collects every check below for the registered backend of that name.
"""

import time
from collections.abc import Mapping
from typing import Any, ClassVar

import dimod
import numpy as np
import pytest

from qblock.backend import Backend, SolveResult
from qblock.errors import ParameterError
from qblock.problem import BlockRemovalProblem, Sensitivity, States
from qblock.registry import get_backend
from qblock.spectrum import Spectrum


def random_sensitivity(n: int, seed: int = 0, groups: tuple[str, ...] = ()) -> Sensitivity:
    """A dense positive semidefinite instance of n blocks with odd names, off-diagonals of both
    signs and scales that differ tenfold."""
    rng = np.random.default_rng(seed)
    A = rng.standard_normal((2 * n + 1, n)) * rng.uniform(0.3, 3.0, n)
    names = tuple(f"layer.{i}/x y" for i in range(n))
    return Sensitivity.from_samples(A, blocks=names, groups=groups, name=f"random-{n}-{seed}")


class BackendContract:
    """The checks. Subclass through `backend_contract`, which sets the two attributes."""

    name: ClassVar[str]
    parameters: ClassVar[Mapping[str, Any]]

    @pytest.fixture
    def backend(self) -> Backend[Any]:
        backend = get_backend(self.name)
        state = backend.available()
        if not state.ok:
            pytest.skip(f"{self.name} cannot run here: {state.reason}; {state.hint}")
        return backend

    def sample(
        self, backend: Backend[Any], problem: BlockRemovalProblem, seed: int = 7, **options: Any
    ) -> SolveResult:
        result = backend.sample(problem, seed=seed, **options, **self.parameters)
        self.check_result(backend, problem, result)
        return result

    def check_result(
        self, backend: Backend[Any], problem: BlockRemovalProblem, result: SolveResult
    ) -> None:
        """What must hold of every result."""
        samples = result.samples
        assert tuple(samples.variables) == problem.blocks
        assert samples.vartype is dimod.BINARY
        assert len(samples) > 0
        assert (samples.record.num_occurrences > 0).all()
        np.testing.assert_allclose(
            samples.record.energy, problem.energy(samples.record.sample), rtol=1e-12, atol=1e-12
        )
        if backend.capabilities.constraint == "native":
            assert problem.is_feasible(samples.record.sample).all()
        assert result.backend == self.name
        assert result.problem_id == problem.id
        assert result.timing.encode >= 0
        assert result.timing.wait >= 0
        assert result.timing.solve >= 0
        assert set(result.parameters) == set(backend.Parameters.model_fields)
        if backend.capabilities.method == "exact" and result.status == "complete":
            assert result.certificate is not None

    def test_name_and_capabilities(self, backend: Backend[Any]) -> None:
        assert backend.name == self.name
        assert backend.capabilities.summary
        for name, field in backend.Parameters.model_fields.items():
            assert field.description, f"parameter {name} has no description"
            assert not field.is_required(), f"parameter {name} has no default"

    def test_dense_problem(self, backend: Backend[Any]) -> None:
        # More than ten blocks, so that their numbers do not sort like their names.
        result = self.sample(backend, BlockRemovalProblem(random_sensitivity(11), remove=2))
        assert SolveResult.from_json(result.to_json()).samples == result.samples

    def test_exact_backends_give_the_truth(self, backend: Backend[Any]) -> None:
        if backend.capabilities.method != "exact":
            pytest.skip("not exact")
        problem = BlockRemovalProblem(random_sensitivity(7), remove=3)
        result = self.sample(backend, problem)
        assert result.certificate is not None
        assert result.certificate.proved
        found = Spectrum.of(problem, result)
        truth = Spectrum.of_states(problem, _all_states(7))
        np.testing.assert_allclose(found.energies, truth.energies[: len(found)], rtol=1e-9)
        assert (found.states == truth.states[: len(found)]).all()

    def test_same_seed_same_samples(self, backend: Backend[Any]) -> None:
        if backend.capabilities.reproducible == "never":
            pytest.skip("declared not reproducible")
        problem = BlockRemovalProblem(random_sensitivity(6), remove=3)
        first = self.sample(backend, problem, seed=11)
        second = self.sample(backend, problem, seed=11)
        assert _counts(first) == _counts(second)

    def test_groups(self, backend: Backend[Any]) -> None:
        groups = ("a", "b", "a", "b", "b", "a")
        sensitivity = random_sensitivity(6, groups=groups)
        self.sample(backend, BlockRemovalProblem(sensitivity, remove={"a": 1, "b": 2}))
        result = self.sample(backend, BlockRemovalProblem(sensitivity, remove={"b": 1}))
        untouched = [i for i, group in enumerate(groups) if group == "a"]
        assert not result.samples.record.sample[:, untouched].any()

    def test_pins(self, backend: Backend[Any]) -> None:
        sensitivity = random_sensitivity(6)
        keep, drop = sensitivity.blocks[0], sensitivity.blocks[4]
        problem = BlockRemovalProblem(sensitivity, remove=3, keep=[keep], drop=[drop])
        record = self.sample(backend, problem).samples.record.sample
        assert not record[:, 0].any()
        assert record[:, 4].all()

    @pytest.mark.parametrize("remove", [0, 5])
    def test_nothing_or_everything(self, backend: Backend[Any], remove: int) -> None:
        result = self.sample(backend, BlockRemovalProblem(random_sensitivity(5), remove=remove))
        assert (result.samples.record.sample == (remove > 0)).all()

    @pytest.mark.parametrize("remove", [0, 1])
    def test_one_block(self, backend: Backend[Any], remove: int) -> None:
        problem = BlockRemovalProblem(Sensitivity(H=np.array([[2.0]])), remove=remove)
        result = self.sample(backend, problem)
        assert (result.samples.record.sample == remove).all()

    def test_two_blocks(self, backend: Backend[Any]) -> None:
        self.sample(backend, BlockRemovalProblem(random_sensitivity(2), remove=1))

    def test_zero_matrix(self, backend: Backend[Any]) -> None:
        problem = BlockRemovalProblem(Sensitivity(H=np.zeros((4, 4))), remove=2)
        assert (self.sample(backend, problem).samples.record.energy == 0).all()

    def test_indefinite(self, backend: Backend[Any]) -> None:
        rng = np.random.default_rng(3)
        B = rng.standard_normal((6, 6))
        self.sample(backend, BlockRemovalProblem(Sensitivity(H=B + B.T), remove=2))

    def test_time_limit(self, backend: Backend[Any]) -> None:
        problem = BlockRemovalProblem(random_sensitivity(6), remove=3)
        self.sample(backend, problem)  # compiled and warm
        limit = 0.2
        started = time.perf_counter()
        self.sample(backend, problem, time_limit=limit)
        assert time.perf_counter() - started < limit + backend.capabilities.time_limit_slack

    @pytest.mark.parametrize(
        "options",
        [
            {"no_such_parameter": 1},
            {"seed": -1},
            {"seed": "x"},
            {"time_limit": 0},
            {"time_limit": "x"},
        ],
        ids=str,
    )
    def test_bad_input_is_refused(self, backend: Backend[Any], options: dict[str, Any]) -> None:
        problem = BlockRemovalProblem(random_sensitivity(4), remove=2)
        with pytest.raises(ParameterError):
            backend.sample(problem, **options)

    def test_bad_values_are_refused(self, backend: Backend[Any]) -> None:
        problem = BlockRemovalProblem(random_sensitivity(4), remove=2)
        for name in backend.Parameters.model_fields:
            wrong: dict[str, Any] = {name: object()}
            with pytest.raises(ParameterError, match=name):
                backend.sample(problem, **wrong)

    def test_estimate_is_free(self, backend: Backend[Any]) -> None:
        problem = BlockRemovalProblem(random_sensitivity(6), remove=3)
        estimate = backend.estimate(problem, **self.parameters)
        assert estimate.seconds is None or estimate.seconds >= 0


def backend_contract(name: str, **parameters: Any) -> type[BackendContract]:
    """A test class that holds the backend of this name to the contract.

    Args:
        parameters: used in every run, to keep slow backends short.
    """
    return type(f"Test[{name}]", (BackendContract,), {"name": name, "parameters": dict(parameters)})


def _counts(result: SolveResult) -> dict[bytes, int]:
    record = result.samples.record
    return {row.sample.tobytes(): int(row.num_occurrences) for row in record}


def _all_states(n: int) -> States:
    """All 2^n states, int8 (2^n, n)."""
    return ((np.arange(2**n)[:, None] >> np.arange(n)) & 1).astype(np.int8)
