"""The hybrid backends through the real cloud client: uploads, native budgets, one bill."""

import dataclasses
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from qblock_dwave.hybrid import LeapHybridBQM, LeapHybridCQM
from qblock_dwave.leap import LeapBackend
from qblock_dwave.nonlinear import LeapHybridNL, model_states, nonlinear_model
from sapi_emulator import Fault, SapiEmulator
from support import all_states, problems

from qblock.errors import ParameterError, QblockError, QuotaExceeded, ServiceError
from qblock.problem import BlockRemovalProblem
from qblock.registry import get_backend
from qblock.spectrum import Spectrum
from qblock.testing import BackendContract, random_sensitivity

BACKENDS = [LeapHybridBQM(), LeapHybridCQM(), LeapHybridNL()]


class _Contract(BackendContract):
    parameters: ClassVar[dict[str, Any]] = {}

    @pytest.fixture(autouse=True)
    def _service(self, sapi: SapiEmulator) -> None:
        """Every check runs against the emulated service."""


class TestBQMContract(_Contract):
    name = "leap-hybrid"


class TestCQMContract(_Contract):
    name = "leap-hybrid-cqm"


class TestNLContract(_Contract):
    name = "leap-hybrid-nl"


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
    assert result.details["service_timing_us"]["charge_time"] in (3_000_000, 5_000_000)
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


# The nonlinear model


@settings(max_examples=25)
@given(problem=problems(max_blocks=6, undecided=True))
def test_the_nonlinear_model_has_the_energy_of_the_problem(problem: BlockRemovalProblem) -> None:
    reduced = problem.reduced
    states = all_states(len(reduced))
    states = states[reduced.is_feasible(states)]
    model = nonlinear_model(reduced)
    with model.lock():
        model.states.resize(len(states))
        for k, chosen in enumerate(model.iter_decisions()):
            members = np.flatnonzero(reduced.group_of == k)
            for row, state in enumerate(states):
                chosen.set_state(row, np.flatnonzero(state[members]))
        energies = [float(model.objective.state(row)) for row in range(len(states))]
        assert np.array_equal(model_states(reduced, model), states)
    expected = problem.energy(reduced.lift(states)) - reduced.offset
    scale = 1 + np.abs(reduced.Q).sum() + abs(reduced.offset)
    assert energies == pytest.approx(expected, abs=1e-9 * scale)


@pytest.mark.parametrize(
    "fault",
    [
        Fault("download", "error", code=500),
        Fault("download", "refuse"),
        Fault("download", "cut"),
        Fault("download", "garbage"),
        Fault("download", "short"),
    ],
    ids=lambda fault: fault.kind,
)
def test_states_that_do_not_arrive_are_asked_for_again(
    fault: Fault, sapi: SapiEmulator, problem: BlockRemovalProblem
) -> None:
    sapi.faults = [dataclasses.replace(fault)]
    assert len(LeapHybridNL().sample(problem, seed=1).samples) == 1
    assert sapi.faults[0].times == 0
    sapi.faults = [dataclasses.replace(fault, times=10**6)]
    with pytest.raises(ServiceError, match="qblock fetch"):
        LeapHybridNL().sample(problem, seed=2)
    sapi.faults = []
    LeapHybridNL().sample(problem, seed=2)
    assert set(sapi.paid_labels().values()) == {1}
