"""The two QAOA backends: the penalty form with the X mixer, and inside the budgets.

Both go the same way: standardise the energies, find angles on the exact simulator (or on the
device itself), then draw the samples from the exact state or from the circuit on a device.
"""

import math
import time
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np

from qblock.backend import (
    Availability,
    Backend,
    Capabilities,
    Estimate,
    Progress,
    Run,
    Samples,
)
from qblock.errors import CapacityError, ParameterError, SolverTimeout
from qblock.problem import BlockRemovalProblem, FloatArray, IntArray, ReducedProblem, States
from qblock_qiskit.ansatz import Ansatz, FixedWeightAnsatz, PenaltyAnsatz, Simulator, Units
from qblock_qiskit.circuits import CircuitSize, draw_circuit
from qblock_qiskit.devices import Device, availability, check_capacity, open_device, transpile
from qblock_qiskit.optimise import Evaluation, Optimiser, Search, find_angles, linear_ramp
from qblock_qiskit.outcome import draw, exact_outcome
from qblock_qiskit.parameters import (
    FixedWeightParameters,
    PenaltyQaoaParameters,
    QaoaParameters,
)
from qblock_qiskit.vector import conditional_value_at_risk, expectation, probabilities

if TYPE_CHECKING:
    from matplotlib.figure import Figure

P = TypeVar("P", bound=QaoaParameters)
Evaluate = Callable[[FloatArray], Evaluation]

SECONDS_PER_SHOT = 300e-6
"""Of IBM hardware: reset delay and readout; the circuit itself takes less."""


MOST_DRAWN = 8
"""Qubits of a circuit that is drawn as text."""


@dataclass
class Prepared:
    """A circuit on an open device, and the samples of the best angles tried on it."""

    device: Device
    circuit: Any
    transpiled: Any
    shots: int
    best_objective: float = math.inf
    best_samples: tuple[States, IntArray] | None = None

    def sample(self, angles: FloatArray, units: Units, run: Run) -> tuple[States, IntArray]:
        """Measure with angles (2q,) of q <= p layers; the others do nothing."""
        p, q = len(self.circuit.parameters) // 2, len(angles) // 2
        values = np.zeros(2 * p)
        values[:q], values[p : p + q] = units.radians(angles)
        return self.device.sample(self.transpiled, values, self.shots, run)


def exact_evaluation(simulator: Simulator, units: Units, alpha: float) -> Evaluate:
    """Angles (2p,) to their mean or CVaR energy, in standard deviations, by exact simulation."""
    ascending = np.argsort(simulator.energies) if alpha < 1 else None
    always = bool(simulator.feasible.all())

    def evaluate(angles: FloatArray) -> Evaluation:
        psi = simulator.evolve(*units.radians(angles))
        energy = expectation(psi, simulator.energies)
        objective = energy
        if ascending is not None:
            weights = probabilities(psi)
            objective = conditional_value_at_risk(simulator.energies, weights, ascending, alpha)
        feasible = 1.0 if always else expectation(psi, simulator.feasible)
        return Evaluation(objective * units.gamma, energy, feasible)

    return evaluate


def measured_evaluation(
    ansatz: Ansatz, prepared: Prepared, units: Units, alpha: float, run: Run
) -> Evaluate:
    """The same from samples of a device; the samples of the best angles are kept."""

    def evaluate(angles: FloatArray) -> Evaluation:
        states, counts = prepared.sample(angles, units, run)
        energies, weights = ansatz.energies(states), counts / counts.sum()
        ascending = np.argsort(energies, kind="stable")
        objective = conditional_value_at_risk(energies, weights, ascending, alpha)
        if objective < prepared.best_objective:
            prepared.best_objective, prepared.best_samples = objective, (states, counts)
        feasible = float(weights[ansatz.problem.is_feasible(states)].sum())
        return Evaluation(objective * units.gamma, float(weights @ energies), feasible)

    return evaluate


class _Qaoa(Backend[P]):
    """What the two backends share."""

    @abstractmethod
    def ansatz(self, problem: ReducedProblem, parameters: P) -> Ansatz:
        """The ansatz that the parameters describe."""

    def capabilities_with(self, parameters: P) -> Capabilities:
        if not parameters.device.startswith("ibm:"):
            return self.capabilities
        return replace(
            self.capabilities, execution="hardware", location="cloud", reproducible="never"
        )

    def available(self) -> Availability:
        return availability()

    def parse(self, parameters: Mapping[str, Any]) -> P:
        settings = super().parse(parameters)
        if settings.angles and len(settings.angles) != 2 * settings.p:
            raise ParameterError(
                f"backend {self.name!r}: angles has {len(settings.angles)} numbers, but "
                f"p={settings.p} layers take {2 * settings.p}: the betas, then the gammas"
            )
        return settings

    def check(self, problem: ReducedProblem, parameters: P) -> None:
        if not len(problem):
            return
        check_capacity(parameters.device, len(problem))
        ansatz = self.ansatz(problem, parameters)
        simulated = parameters.device == "exact" or parameters.train_on == "simulator"
        needed = [ansatz] if simulated else []
        if parameters.transfer:
            needed.append(ansatz.with_fewer(parameters.transfer))
        for each in needed:
            if each.too_large:
                raise CapacityError(f"backend {self.name!r}: {each.too_large}")

    def estimate(self, problem: BlockRemovalProblem, **parameters: Any) -> Estimate:
        """Qubits, memory and gates from the circuit; seconds from a probe of about 0.1 s."""
        settings, reduced = self.parse(parameters), problem.reduced
        if not len(reduced):
            return Estimate(seconds=0.0, qubits=0, notes=("pins decide every block",))
        ansatz, p = self.ansatz(reduced, settings), settings.p
        notes = [f"{len(reduced)} logical qubits"]
        if self.available().ok:
            gates = ansatz.circuit(p).num_nonlocal_gates()
            notes.append(f"{gates} two-qubit gates before transpilation")
        qpu_seconds = None
        if settings.device.startswith("ibm:"):
            circuits = settings.iterations + 1 if settings.train_on == "device" else 1
            qpu_seconds = circuits * settings.shots * SECONDS_PER_SHOT
        elif settings.device != "exact":
            notes.append(f"time on device={settings.device} not included")
        if ansatz.too_large:
            notes.append(ansatz.too_large)
            return Estimate(qubits=len(reduced), qpu_seconds=qpu_seconds, notes=tuple(notes))
        notes.append(f"{ansatz.amplitudes} amplitudes")
        layers = (settings.iterations + 1) * p
        return Estimate(
            seconds=layers * ansatz.rotations * seconds_per_rotation(ansatz),
            memory_bytes=40 * ansatz.amplitudes,  # state, energies, probabilities, temporaries
            qubits=len(reduced),
            qpu_seconds=qpu_seconds,
            notes=tuple(notes),
        )

    def figure(self, form: str, problem: ReducedProblem, parameters: P) -> "Figure":
        if form != "landscape":
            return super().figure(form, problem, parameters)
        from qblock_qiskit.plot import landscape_figure

        ansatz = self.ansatz(problem, parameters)
        if ansatz.too_large:
            raise CapacityError(f"backend {self.name!r}: {ansatz.too_large}")
        return landscape_figure(ansatz)

    def solve(self, problem: ReducedProblem, parameters: P, run: Run) -> Samples:
        started = time.perf_counter()
        ansatz = self.ansatz(problem, parameters)
        with self._prepared(ansatz, parameters, run) as prepared:
            on_device = prepared is not None and (
                parameters.train_on == "device" or bool(ansatz.too_large)
            )
            simulator = None if on_device else ansatz.simulator()
            units = ansatz.units(simulator)
            if simulator is not None:
                evaluate = exact_evaluation(simulator, units, parameters.cvar)
            else:
                assert prepared is not None
                evaluate = measured_evaluation(ansatz, prepared, units, parameters.cvar, run)
            encode_seconds = time.perf_counter() - started
            rng = np.random.default_rng(run.seed)
            noisy = on_device and parameters.device.startswith(("noisy:", "ibm:"))
            optimiser = parameters.optimiser or ("spsa" if noisy else "cobyla")
            search = self._search(ansatz, evaluate, parameters, optimiser, rng, run)
            details: dict[str, Any] = {
                "ansatz": ansatz.name,
                "p": parameters.p,
                "device": parameters.device,
                "trained_on": parameters.device if on_device else "simulator",
                "qubits": len(problem),
                "angles": search.angles.tolist(),
                "units": asdict(units),
                "evaluations": len(search.history),
                "history": [energy + problem.offset for energy in search.history],
            }
            if prepared is None:
                assert simulator is not None
                states, counts, exact = _exact_samples(
                    simulator, search, units, parameters.shots, problem.offset, rng
                )
                details |= exact
            else:
                states, counts = _measured_samples(prepared, search, units, run)
                details["jobs"] = prepared.device.jobs
            if search.status == "complete":
                details |= asdict(self._size(ansatz, prepared, parameters.p))
        wait = prepared.device.wait_seconds if prepared else 0.0
        feasible = float(counts[problem.is_feasible(states)].sum() / counts.sum())
        details.setdefault("feasible_probability", feasible)
        return Samples(
            states=states,
            occurrences=counts,
            status=search.status,
            encode_seconds=encode_seconds,
            wait_seconds=wait,
            warnings=_warnings(details, feasible, self.capabilities.constraint),
            details=details,
        )

    @contextmanager
    def _prepared(self, ansatz: Ansatz, parameters: P, run: Run) -> Iterator[Prepared | None]:
        if parameters.device == "exact":
            yield None
            return
        with open_device(
            parameters.device,
            len(ansatz.problem),
            seed=run.seed,
            bond_dimension=parameters.bond_dimension,
            ibm_mode=parameters.ibm_mode,
        ) as device:
            run.report(Progress(f"transpiling for {device.name}"))
            circuit = ansatz.circuit(parameters.p)
            yield Prepared(device, circuit, device.transpile(circuit), parameters.shots)

    def _search(
        self,
        ansatz: Ansatz,
        evaluate: Evaluate,
        parameters: P,
        optimiser: Optimiser,
        rng: np.random.Generator,
        run: Run,
    ) -> Search:
        """The finished search for angles, from what the parameters name as its start."""
        left = parameters.iterations
        start = np.array(parameters.angles) if parameters.angles else None
        if parameters.transfer and start is None:
            smaller = ansatz.with_fewer(parameters.transfer)
            simulator = smaller.simulator()
            rehearsal = exact_evaluation(simulator, smaller.units(simulator), parameters.cvar)
            first = Search(rehearsal, max(left // 2, 1), run, linear_ramp(parameters.p))
            _from_ramps(first, parameters, "cobyla", rng)
            start, left = first.angles, max(left - len(first.history), 1)
            if first.status != "complete":
                return Search(evaluate, left, run, start, status=first.status)
        search = Search(evaluate, left, run, linear_ramp(parameters.p) if start is None else start)
        if start is None:
            _from_ramps(search, parameters, optimiser, rng)
        else:
            search.optimise(optimiser, left, rng)
        return search

    def _size(self, ansatz: Ansatz, prepared: Prepared | None, p: int) -> CircuitSize:
        if prepared is not None:
            return CircuitSize.of(prepared.circuit, prepared.transpiled)
        circuit = ansatz.circuit(p)
        return CircuitSize.of(circuit, transpile(circuit))


def _from_ramps(
    search: Search, parameters: QaoaParameters, optimiser: Optimiser, rng: np.random.Generator
) -> None:
    find_angles(
        search,
        parameters.p,
        optimiser,
        starts=parameters.starts,
        layerwise=parameters.layerwise,
        rng=rng,
    )


def _exact_samples(
    simulator: Simulator,
    search: Search,
    units: Units,
    shots: int,
    offset: float,
    rng: np.random.Generator,
) -> tuple[States, IntArray, dict[str, Any]]:
    psi = simulator.evolve(*units.radians(search.angles))
    states, counts = draw(simulator, psi, shots, rng)
    figures = asdict(exact_outcome(simulator, psi, offset))
    lists = {key: list(value) for key, value in figures.items() if isinstance(value, tuple)}
    return states, counts, figures | lists  # as they come back from JSON


def _measured_samples(
    prepared: Prepared, search: Search, units: Units, run: Run
) -> tuple[States, IntArray]:
    """Fresh samples with the best angles; those of the search if it was cut short.

    Raises:
        SolverTimeout: interrupted before anything was measured; the message has the angles.
    """
    cut_short = search.status != "complete" and prepared.best_samples is not None
    if not cut_short and not (search.status == "interrupted" and prepared.device.remote):
        try:
            return prepared.sample(search.angles, units, run)
        except KeyboardInterrupt:
            search.status = "interrupted"
    if prepared.best_samples is not None:
        return prepared.best_samples
    angles = ",".join(f"{angle:.6g}" for angle in search.angles)
    raise SolverTimeout(
        f"interrupted before anything was measured on {prepared.device.name}; the angles found "
        f"are angles=[{angles}]; jobs sent: {', '.join(prepared.device.jobs) or 'none'}"
    )


def _warnings(
    details: Mapping[str, Any], feasible_share: float, constraint: str
) -> tuple[str, ...]:
    found = []
    exact = details.get("optimum_probability")
    if exact is not None and exact <= details["random_probability"]:
        found.append(
            f"no better than random guessing: probability of the optimum {exact:.3g}, of a "
            f"uniform feasible guess {details['random_probability']:.3g}"
        )
    if constraint == "native" and feasible_share < 1:
        found.append(f"noise broke the budget in {1 - feasible_share:.1%} of the samples")
    return tuple(found)


def seconds_per_rotation(ansatz: Ansatz) -> float:
    """Seconds that the exact simulator needs per rotated pair of amplitudes, by a short probe.

    Measured on 16 blocks of which 6 go; compilation is not counted.
    """
    samples = np.random.default_rng(0).normal(size=(20, 16))
    small = ReducedProblem(
        Q=samples.T @ samples,
        offset=0.0,
        group_of=np.zeros(16, dtype=np.int64),
        budgets=np.array([6]),
        blocks=tuple(map(str, range(16))),
        free=np.arange(16),
        fixed=np.zeros(16, dtype=np.int8),
    )
    probe = replace(ansatz, problem=small)
    simulator = probe.simulator()
    angles = np.full(4, 0.1)
    simulator.evolve(angles[:1], angles[:1])
    best = math.inf
    for _ in range(3):
        started = time.perf_counter()
        simulator.evolve(angles, angles)
        best = min(best, time.perf_counter() - started)
    return best / len(angles) / probe.rotations


class Qaoa(_Qaoa[PenaltyQaoaParameters]):
    """QAOA on the penalty form."""

    name = "qaoa"
    Parameters = PenaltyQaoaParameters
    capabilities = Capabilities(
        summary="QAOA on the penalty QUBO with the X mixer; simulators and IBM hardware",
        constraint="penalty",
        method="quantum",
        execution="simulated",
        max_blocks=PenaltyAnsatz.MOST_QUBITS,
        time_limit_slack=10.0,
    )

    def ansatz(self, problem: ReducedProblem, parameters: PenaltyQaoaParameters) -> Ansatz:
        return PenaltyAnsatz(problem, parameters.penalty)

    def draw_circuit(self, problem: ReducedProblem) -> str:
        return _drawn(self, problem, "x")


class FixedWeightQaoa(_Qaoa[FixedWeightParameters]):
    """QAOA inside the budgets, without a penalty."""

    name = "qaoa-fixed-weight"
    Parameters = FixedWeightParameters
    capabilities = Capabilities(
        summary="QAOA with Dicke states and XY mixers: never leaves the budgets",
        constraint="native",
        method="quantum",
        execution="simulated",
        time_limit_slack=10.0,
    )

    def ansatz(self, problem: ReducedProblem, parameters: FixedWeightParameters) -> Ansatz:
        return FixedWeightAnsatz(problem, parameters.mixer)

    def draw_circuit(self, problem: ReducedProblem) -> str:
        return _drawn(self, problem, "complete")


def _drawn(backend: Backend[Any], problem: ReducedProblem, mixer: Literal["x", "complete"]) -> str:
    backend.require_available()
    if not 2 <= len(problem) <= MOST_DRAWN:
        raise CapacityError(
            f"a circuit of {len(problem)} qubits is not drawn; leave 2 to {MOST_DRAWN} blocks "
            "undecided by pinning the others (--keep, --drop)"
        )
    return draw_circuit(problem, mixer=mixer)
