"""QAOA: speed beside Aer and QOKit, real size, and the quality of both ansaetze.

    python benchmarks/qaoa.py [--qokit-python VENV/bin/python] [--instances 20]

QOKit pins old versions, so it is timed in an environment of its own:

    python -m venv qokit && qokit/bin/pip install qokit
"""

import argparse
import json
import resource
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from qblock_qiskit.ansatz import FixedWeightAnsatz, PenaltyAnsatz
from qblock_qiskit.vector import expectation

from qblock import BlockRemovalProblem, Sensitivity, get_backend, load_sensitivity
from qblock.problem import FloatArray

REPEATS = 7


def instance(n: int, seed: int) -> Sensitivity:
    """A random positive semidefinite instance with scales that differ about threefold."""
    rng = np.random.default_rng(seed)
    samples = rng.normal(size=(2 * n, n)) * np.exp(0.5 * rng.normal(size=n))
    return Sensitivity.from_samples(samples)


def fastest(call: Callable[[], float]) -> tuple[float, float]:
    """Least seconds of several calls after a first one, and what the call gives."""
    value, best = call(), np.inf
    for _ in range(REPEATS):
        started = time.perf_counter()
        value = call()
        best = min(best, time.perf_counter() - started)
    return best, value


def one_evaluation(qokit_python: str | None, n: int = 20) -> None:
    """Energy of p = 1 at n qubits, the same cost, by three simulators."""
    from qiskit_aer import AerSimulator
    from qiskit_aer.library import SaveStatevector

    ansatz = PenaltyAnsatz(BlockRemovalProblem(instance(n, 0), remove=n // 4).reduced, "tight")
    simulator = ansatz.simulator()
    betas, gammas = np.array([0.2]), np.array([0.3]) / simulator.energies.std()
    ours, energy = fastest(lambda: expectation(simulator.evolve(betas, gammas), simulator.energies))
    print(f"\n### One evaluation, p = 1, {n} qubits\n\n| simulator | seconds | ours is faster by |")
    print(f"|---|---|---|\n| qblock | {ours:.4f} | |")

    from qblock_qiskit.devices import transpile

    aer = AerSimulator(method="statevector")
    circuit = transpile(ansatz.circuit(1))

    def by_aer() -> float:
        bound = circuit.assign_parameters([*betas, *gammas])
        bound.append(SaveStatevector(n), range(n))
        state = np.asarray(aer.run(bound).result().get_statevector())
        return float(np.abs(state) ** 2 @ simulator.energies)

    seconds, found = fastest(by_aer)
    assert abs(found - energy) < 1e-9 * abs(energy)
    print(f"| Aer statevector circuit | {seconds:.4f} | {seconds / ours:.0f} x |")
    if qokit_python:
        with tempfile.TemporaryDirectory() as folder:
            costs = Path(folder) / "costs.npy"
            np.save(costs, simulator.energies / simulator.energies.std())
            script = Path(__file__).with_name("qaoa_qokit.py")
            command = [qokit_python, str(script), str(costs), str(REPEATS)]
            done = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
        print(
            f"| QOKit, its {done['simulator']!r} simulator | {done['seconds']:.4f} "
            f"| {done['seconds'] / ours:.0f} x |"
        )


def real_size() -> None:
    """Fixed-weight evaluations, p = 4, on 30 blocks."""
    sensitivity = load_sensitivity("smollm2-135m-fisher")
    print(f"\n### Fixed weight, p = 4, {len(sensitivity)} blocks ({sensitivity.name})\n")
    print("| removed | mixer | amplitudes | one evaluation, s | set-up, s |\n|---|---|---|---|---|")
    for remove in (4, 8):
        problem = BlockRemovalProblem(sensitivity, remove=remove)
        for mixer in ("ring", "complete"):
            ansatz = FixedWeightAnsatz(problem.reduced, mixer)
            started = time.perf_counter()
            simulator = ansatz.simulator()
            simulator.evolve(np.zeros(1), np.zeros(1))
            set_up = time.perf_counter() - started
            betas, gammas = np.full(4, 0.1), np.full(4, 0.2) / simulator.energies.std()
            best = np.inf
            for _ in range(3):
                started = time.perf_counter()
                expectation(simulator.evolve(betas, gammas), simulator.energies)
                best = min(best, time.perf_counter() - started)
            print(f"| {remove} | {mixer} | {len(simulator)} | {best:.3f} | {set_up:.2f} |")
    started = time.perf_counter()
    result = get_backend("qaoa-fixed-weight").sample(
        BlockRemovalProblem(sensitivity, remove=8), seed=0, p=4, iterations=60
    )
    details = result.details
    print(
        f"\n60 evaluations, 8 removed, complete mixer, with sampling: "
        f"{time.perf_counter() - started:.0f} s; P(optimum) {details['optimum_probability']:.3g}, "
        f"random {details['random_probability']:.3g}; peak memory of the process "
        f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB"
    )


def quality(instances: int, n: int = 12, remove: int = 4, p: int = 3) -> None:
    """Mean exact P(optimum) over random instances, with bootstrap intervals of the ratios."""
    settings = {
        "qaoa, penalty": ("qaoa", {}),
        "fixed weight, ring": ("qaoa-fixed-weight", {"mixer": "ring"}),
        "fixed weight, complete": ("qaoa-fixed-weight", {"mixer": "complete"}),
    }
    found: dict[str, list[float]] = {name: [] for name in settings}
    found["random feasible"] = []
    for seed in range(instances):
        problem = BlockRemovalProblem(instance(n, seed), remove=remove)
        for name, (backend, parameters) in settings.items():
            details = (
                get_backend(backend)
                .sample(problem, seed=seed, p=p, iterations=200, **parameters)
                .details
            )
            found[name].append(details["optimum_probability"])
        found["random feasible"].append(details["random_probability"])
    print(f"\n### P(optimum), N = {n}, M = {remove}, p = {p}, {instances} instances\n")
    print("| | mean P(optimum) | fixed weight (complete) is better by, 95 % interval |")
    print("|---|---|---|")
    best = np.array(found["fixed weight, complete"])
    for name, values in found.items():
        low, middle, high = ratio_interval(best, np.array(values))
        print(f"| {name} | {np.mean(values):.4f} | {middle:.1f} ({low:.1f} to {high:.1f}) |")


def ratio_interval(above: FloatArray, below: FloatArray) -> tuple[float, float, float]:
    """Bootstrap 2.5 %, the ratio of the means, and 97.5 %, over instances."""
    rng = np.random.default_rng(0)
    picks = rng.integers(0, len(above), size=(10_000, len(above)))
    ratios = above[picks].mean(axis=1) / below[picks].mean(axis=1)
    low, high = np.quantile(ratios, (0.025, 0.975))
    return float(low), float(above.mean() / below.mean()), float(high)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--qokit-python", help="python of an environment with QOKit")
    parser.add_argument("--instances", type=int, default=20)
    arguments = parser.parse_args()
    one_evaluation(arguments.qokit_python)
    real_size()
    quality(arguments.instances)


if __name__ == "__main__":
    main()
