"""The hybrid backends through the real cloud client: uploads, native budgets, one bill."""

import dataclasses
from typing import Any, ClassVar

import pytest
from qblock_dwave.hybrid import LeapHybridBQM, LeapHybridCQM
from qblock_dwave.leap import LeapBackend
from sapi_emulator import Fault, SapiEmulator

from qblock.errors import ParameterError, QblockError, QuotaExceeded, ServiceError
from qblock.problem import BlockRemovalProblem
from qblock.registry import get_backend
from qblock.spectrum import Spectrum
from qblock.testing import BackendContract, random_sensitivity

BACKENDS = [LeapHybridBQM(), LeapHybridCQM()]


class _Contract(BackendContract):
    parameters: ClassVar[dict[str, Any]] = {}

    @pytest.fixture(autouse=True)
    def _service(self, sapi: SapiEmulator) -> None:
        """Every check runs against the emulated service."""


class TestBQMContract(_Contract):
    name = "leap-hybrid"


class TestCQMContract(_Contract):
    name = "leap-hybrid-cqm"


@pytest.fixture(scope="module")
def problem() -> BlockRemovalProblem:
    groups = ("a", "b", "a", "b", "b", "a")
    return BlockRemovalProblem(random_sensitivity(6, groups=groups), remove={"a": 1, "b": 2})


@pytest.mark.parametrize("backend", BACKENDS, ids=lambda backend: backend.name)
def test_groups_reach_the_solver_and_the_optimum_comes_back(
    backend: LeapBackend[Any], sapi: SapiEmulator, problem: BlockRemovalProblem
) -> None:
    truth = Spectrum.of(problem, get_backend("brute-force").sample(problem))
    result = backend.sample(problem, seed=1)
    found = Spectrum.of(problem, result)
    assert found.energies[0] == pytest.approx(truth.energies[0])
    assert result.details["service_timing_us"]["charge_time"] == 3_000_000
    backend.sample(problem, seed=1)
    assert len(sapi.jobs) == 1


@pytest.mark.parametrize("backend", BACKENDS, ids=lambda backend: backend.name)
def test_billed_time_is_estimated_limited_and_checked(
    backend: LeapBackend[Any], sapi: SapiEmulator, problem: BlockRemovalProblem
) -> None:
    assert backend.estimate(problem, solver_seconds=7.0).qpu_seconds == 7.0
    least = backend.estimate(problem).qpu_seconds
    assert least is not None
    assert least >= 1.0
    with pytest.raises(QuotaExceeded, match="nothing was sent"):
        backend.sample(problem, solver_seconds=7.0, max_qpu_seconds=5.0)
    for seconds in (0.001, 1e9):
        with pytest.raises(ParameterError, match="solver_seconds"):
            backend.sample(problem, solver_seconds=seconds)
    assert sapi.requests["submit"] == sapi.requests["upload"] == 0


@pytest.mark.parametrize("backend", BACKENDS, ids=lambda backend: backend.name)
@pytest.mark.parametrize(
    "fault",
    [
        Fault("upload", "refuse"),
        Fault("upload", "garbage"),
        Fault("submit", "cut"),
        Fault("answer", "error", code=500),
        Fault("answer", "cut"),
        Fault("answer", "short"),
    ],
    ids=lambda fault: f"{fault.route}-{fault.kind}",
)
def test_a_passing_fault_still_gives_the_answer_and_one_bill(
    fault: Fault, backend: LeapBackend[Any], sapi: SapiEmulator, problem: BlockRemovalProblem
) -> None:
    sapi.faults = [dataclasses.replace(fault)]
    assert len(backend.sample(problem, seed=1).samples) >= 1
    assert sapi.faults[0].times == 0
    assert max(sapi.paid_labels().values()) == 1


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS, ids=lambda backend: backend.name)
def test_an_upload_that_never_works_ends_in_an_error(
    backend: LeapBackend[Any], sapi: SapiEmulator, problem: BlockRemovalProblem
) -> None:
    sapi.faults = [Fault("upload", "error", times=10**6, code=500)]
    with pytest.raises(ServiceError) as caught:
        backend.sample(problem, seed=1)
    assert isinstance(caught.value, QblockError)
    assert not sapi.jobs
