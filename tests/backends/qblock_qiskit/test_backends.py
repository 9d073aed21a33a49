"""The QAOA backends as a user meets them."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("qiskit_ibm_runtime")

from qblock_qiskit import devices
from qblock_qiskit.outcome import probability_up_to

from qblock import BlockRemovalProblem, Sensitivity, SolveResult, get_backend
from qblock.backend import Progress
from qblock.errors import (
    AuthenticationError,
    BackendUnavailable,
    CapacityError,
    ParameterError,
    SolverTimeout,
)
from qblock.study.contender import Contender
from qblock.study.worker import warm_up

NAMES = ["qaoa", "qaoa-fixed-weight"]


def problem_of(n: int = 7, remove: Any = 3, groups: str = "") -> BlockRemovalProblem:
    samples = np.random.default_rng(n).normal(size=(20, n)) * np.linspace(1, 2, n)
    return BlockRemovalProblem(
        Sensitivity.from_samples(samples, groups=tuple(groups)), remove=remove
    )


def solve(name: str, problem: BlockRemovalProblem, **parameters: Any) -> SolveResult:
    parameters = {"seed": 1, "iterations": 30, "p": 2} | parameters
    return get_backend(name).sample(problem, **parameters)


@pytest.mark.parametrize("name", NAMES)
def test_seed_fixes_everything(name: str) -> None:
    problem = problem_of(7, {"a": 1, "b": 2}, "aababba")
    first, second = solve(name, problem), solve(name, problem)
    assert first.samples == second.samples
    assert first.details == second.details
    assert first.details["history"] != solve(name, problem, seed=2).details["history"]
    assert SolveResult.from_json(first.to_json()).details == first.details


def test_fixed_weight_never_leaves_the_budgets() -> None:
    problem = problem_of(7, {"a": 1, "b": 2}, "aababba")
    for device in ("exact", "aer"):
        result = solve("qaoa-fixed-weight", problem, device=device)
        assert problem.is_feasible(result.samples.record.sample).all()
        assert result.details["feasible_probability"] == pytest.approx(1)


@pytest.mark.parametrize("name", NAMES)
def test_samples_follow_the_exact_probabilities(name: str) -> None:
    """Chi-square of 20000 shots over the reported states, against the 99.9 % quantile."""
    problem = problem_of(6, 2)
    result = solve(name, problem, shots=20_000)
    probabilities = np.array(result.details["lowest_probabilities"])
    energies = np.array(result.details["lowest_energies"])
    assert probabilities.sum() == pytest.approx(result.details["feasible_probability"])
    record = result.samples.record
    feasible = problem.is_feasible(record.sample)
    counts = np.zeros(len(energies))
    for energy, count in zip(
        record.energy[feasible], record.num_occurrences[feasible], strict=True
    ):
        counts[np.argmin(np.abs(energies - energy))] += count
    expected = 20_000 * probabilities
    from scipy.stats import chi2

    assert ((counts - expected) ** 2 / expected).sum() < chi2.ppf(0.999, len(energies))


def test_exact_probability_of_the_optimum() -> None:
    problem = problem_of(6, 2)
    result = solve("qaoa-fixed-weight", problem)
    lowest = result.details["lowest_energies"]
    best = probability_up_to(result, lowest[0])
    assert best == pytest.approx(result.details["optimum_probability"])
    assert best > result.details["random_probability"] == pytest.approx(1 / 15)
    assert probability_up_to(result, lowest[-1]) == pytest.approx(1)
    assert probability_up_to(result, lowest[0] - 1) == 0
    with pytest.raises(ValueError, match="no exact probabilities"):
        probability_up_to(solve("qaoa", problem, device="aer"), lowest[0])


@pytest.mark.parametrize("name", NAMES)
def test_more_evaluations_and_layers_do_not_hurt(name: str) -> None:
    problem = problem_of(7, 3)
    start = solve(name, problem, p=1, iterations=1).details["energy"]
    one = solve(name, problem, p=1, iterations=40).details["energy"]
    three = solve(name, problem, p=3, iterations=150).details["energy"]
    assert three < one < start


@pytest.mark.parametrize("parameters", [{"cvar": 0.1}, {"transfer": 1}, {"optimiser": "spsa"}])
def test_other_ways_to_angles_beat_guessing(parameters: dict[str, Any]) -> None:
    details = solve("qaoa-fixed-weight", problem_of(8, 3), iterations=80, **parameters).details
    assert details["optimum_probability"] > 2 * details["random_probability"]
    assert details["evaluations"] == len(details["history"]) <= 80


def test_angles_of_a_result_can_be_used_again() -> None:
    problem = problem_of(7, 3)
    first = solve("qaoa-fixed-weight", problem)
    again = solve("qaoa-fixed-weight", problem, angles=first.details["angles"], iterations=1)
    assert again.details["energy"] == pytest.approx(first.details["energy"])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("device", ["statevector", "aer", "mps"])
def test_simulated_devices_agree_with_the_exact_state(name: str, device: str) -> None:
    problem = problem_of(6, 2)
    exact = solve(name, problem)
    result = solve(name, problem, device=device, shots=4000)
    assert result.details["angles"] == exact.details["angles"]
    assert result.details["two_qubit_gates"] == exact.details["two_qubit_gates"] > 0
    share = exact.details["feasible_probability"]
    deviation = np.sqrt(share * (1 - share) / 4000)
    assert result.details["feasible_probability"] == pytest.approx(share, abs=4 * deviation + 1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_noisy_device_trains_and_samples(name: str) -> None:
    # Under the tight penalty feasible states are hardly favoured; here they are to dominate.
    penalty = {"penalty": "safe"} if name == "qaoa" else {}
    options = {"device": "noisy:manila", "train_on": "device", "iterations": 5, "shots": 300}
    result = solve(name, problem_of(4, 2), **options, **penalty)
    assert result.samples.record.num_occurrences.sum() == 300
    assert 0.3 < result.details["feasible_probability"] < 1
    assert result.details["transpiled_two_qubit_gates"] >= result.details["two_qubit_gates"]
    assert any("noise" in warning for warning in result.warnings) == (name != "qaoa")


def test_hardware_path_runs_on_a_local_fake(monkeypatch: pytest.MonkeyPatch) -> None:
    """The IBM service is out of reach of a test; everything after the connection is real."""
    monkeypatch.setattr(devices, "connect", lambda name: devices.fake_backend(name))
    result = solve("qaoa", problem_of(4, 2), device="ibm:manila", p=1, iterations=5, shots=100)
    assert result.samples.record.num_occurrences.sum() == 100
    assert len(result.details["jobs"]) == 1
    assert result.timing.wait > 0


def test_hardware_is_called_so_and_never_warmed_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A study tells hardware from simulators, and sends it nothing that was not asked for."""
    connected: list[str] = []
    monkeypatch.setattr(devices, "connect", connected.append)
    for name in NAMES:
        hardware = Contender(name, {"device": "ibm:somewhere"})
        assert hardware.capabilities.location == "cloud"
        assert hardware.capabilities.execution == "hardware"
        assert Contender(name).capabilities.execution == "simulated"
        warm_up(name, hardware.settings)
    assert not connected


def test_no_account(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    from qiskit_ibm_runtime.accounts import management

    monkeypatch.delenv("QISKIT_IBM_TOKEN", raising=False)
    monkeypatch.setattr(
        management, "_DEFAULT_ACCOUNT_CONFIG_JSON_FILE", str(tmp_path / "none.json")
    )
    with pytest.raises(AuthenticationError, match="save_account") as caught:
        solve("qaoa", problem_of(), device="ibm:somewhere")
    assert "\n" not in str(caught.value)


def test_hidden_token_in_connection_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    import qiskit_ibm_runtime

    def refuse() -> None:
        raise OSError("cannot send token SECRET")

    monkeypatch.setattr(qiskit_ibm_runtime, "QiskitRuntimeService", refuse)
    with pytest.raises(BackendUnavailable) as caught:
        solve("qaoa", problem_of(), device="ibm:somewhere")
    assert "SECRET" not in str(caught.value)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"p": 0}, "p=0"),
        ({"device": "torus"}, "device='torus'.*noisy:<fake backend>"),
        ({"device": "noisy:"}, "device"),
        ({"device": "exact:"}, "device"),
        ({"device": "noisy:manilla"}, "manila"),
        ({"angles": [0.1]}, "p=2 layers take 4"),
        ({"angles": [0.1, 0.2, float("nan"), 0.1]}, "angles"),
        ({"cvar": 0.0}, "cvar"),
        ({"shots": 0}, "shots"),
    ],
)
def test_bad_parameters(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        solve("qaoa", problem_of(), **parameters)


def test_capacity_errors_name_what_fits() -> None:
    big = problem_of(30, 8)
    with pytest.raises(CapacityError, match=r"device=mps.*qaoa-fixed-weight.*pinning 4 blocks"):
        solve("qaoa", big)
    with pytest.raises(CapacityError, match=r"at most 20.*device=mps"):
        solve("qaoa-fixed-weight", big, device="statevector")
    with pytest.raises(CapacityError, match="fewer removed blocks"):
        solve("qaoa-fixed-weight", problem_of(40, 20))
    with pytest.raises(CapacityError, match="has 5"):
        solve("qaoa", problem_of(), device="noisy:manila")


def stop_after(reports: int) -> Callable[[Progress], None]:
    seen = []

    def report(progress: Progress) -> None:
        seen.append(progress)
        if len(seen) == reports:
            raise KeyboardInterrupt

    return report


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("reports", [1, 12])
def test_interrupted_search_returns_the_best_so_far(name: str, reports: int) -> None:
    problem = problem_of(7, 3)
    result = get_backend(name).sample(
        problem, seed=1, iterations=50, shots=200, report=stop_after(reports)
    )
    assert result.status == "interrupted"
    assert len(result.details["history"]) == reports
    assert result.details["energy"] == pytest.approx(min(result.details["history"]))
    assert result.samples.record.num_occurrences.sum() == 200


def test_interrupted_hardware_search_sends_no_further_job(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(devices, "connect", lambda name: devices.fake_backend(name))
    with pytest.raises(SolverTimeout, match="jobs sent: none"):
        get_backend("qaoa").sample(
            problem_of(4, 2), seed=1, device="ibm:manila", report=stop_after(3)
        )


@pytest.mark.parametrize("train_on", ["simulator", "device"])
def test_interrupted_sampling_keeps_what_was_measured_or_the_angles(
    train_on: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure = devices.Device.sample
    measured: list[Any] = []

    def interrupt_the_last(device: Any, *arguments: Any) -> Any:
        if len(measured) == (4 if train_on == "device" else 0):
            raise KeyboardInterrupt
        measured.append(measure(device, *arguments))
        return measured[-1]

    monkeypatch.setattr(devices.Device, "sample", interrupt_the_last)
    options = {"device": "aer", "train_on": train_on, "p": 1, "iterations": 4, "shots": 50}
    if train_on == "device":
        result = solve("qaoa", problem_of(4, 2), **options)
        assert result.status == "interrupted"
        assert result.samples.record.num_occurrences.sum() == 50
    else:
        with pytest.raises(SolverTimeout, match=r"angles=\[-?[0-9.]+,"):
            solve("qaoa", problem_of(4, 2), **options)


@pytest.mark.parametrize("name", NAMES)
def test_time_limit(name: str) -> None:
    solve(name, problem_of(12, 4), iterations=1)  # compiles
    result = solve(name, problem_of(12, 4), iterations=1_000_000, p=20, time_limit=0.3)
    assert result.status == "time-limit"
    assert result.timing.total < 2


@pytest.mark.parametrize("name", NAMES)
def test_estimate_is_free_and_near(name: str) -> None:
    problem = problem_of(12, 4)
    estimate = get_backend(name).estimate(problem, iterations=30, p=2)
    assert estimate.qubits == 12
    assert estimate.memory_bytes is not None
    assert estimate.seconds is not None
    assert 0 < estimate.seconds < 5
    assert any("two-qubit gates" in note for note in estimate.notes)
    too_large = get_backend("qaoa").estimate(problem_of(40, 4))
    assert too_large.seconds is None
    hardware = get_backend(name).estimate(problem, device="ibm:somewhere", shots=1000)
    assert hardware.qpu_seconds == pytest.approx(0.3)
