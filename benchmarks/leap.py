"""What the D-Wave backends cost and show, on this machine, without an account.

    python benchmarks/leap.py [--plots FOLDER]

Embeds the bundled instance on the emulated graphs, sweeps the chain strength, measures what our
layer adds to a call of Ocean's own sampler (both against the emulated service of the tests) and
sets CQM beside penalty BQM. The emulator answers by classical annealing: its times and its
success say nothing of the hardware.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from qblock_dwave.embedding import clique_embedding
from qblock_dwave.leap import LeapQPU
from qblock_dwave.local import SHAPES, emulated_graph
from qblock_dwave.plot import embedding_figure

from qblock.backend import SolveResult
from qblock.files import load_sensitivity
from qblock.pictures import save_picture
from qblock.problem import BlockRemovalProblem
from qblock.registry import get_backend
from qblock.spectrum import Spectrum

sys.path.insert(0, str(Path(__file__).parents[1] / "tests/backends/qblock_dwave"))

STRENGTHS = (0.5, 0.75, 1.0, 1.414, 2.0, 3.0, 4.0, 6.0)
REPEATS = 15


def seconds(action: Callable[[], object]) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def embeddings(problem: BlockRemovalProblem, plots: Path | None) -> None:
    print("| graph | qubits | longest chain | embedding, s |\n|---|---|---|---|")
    for topology in SHAPES:
        graph = emulated_graph(topology)
        took = seconds(lambda graph=graph: clique_embedding(graph, len(problem)))  # type: ignore[misc]
        embedding = clique_embedding(graph, len(problem))
        print(f"| {graph.name} | {embedding.num_qubits} | {embedding.longest_chain} | {took:.2f} |")
        if plots:
            save_picture(embedding_figure(embedding, graph), plots / f"embedding-{topology}.png")


def sweep(problem: BlockRemovalProblem, plots: Path | None) -> None:
    """Chain breaks against chain strength, and what each takes from the objective's precision."""
    print("| chain strength | chains broken | feasible | scale |\n|---|---|---|---|")
    backend = get_backend("dwave-local")
    rows = []
    for strength in STRENGTHS:
        result = backend.sample(problem, seed=1, num_reads=200, chain_strength=strength)
        feasible = Spectrum.of(problem, result).feasible_rate
        broken = result.details["chain_break_fraction"]
        scale = result.details["coefficients"]["scale"]
        rows.append((strength, broken, feasible))
        print(f"| {strength:g} | {broken:.1%} | {feasible:.1%} | {scale:.3g} |")
    if plots:
        from matplotlib.figure import Figure

        figure = Figure(figsize=(6, 4))
        axes = figure.add_subplot()
        strengths, broken_rates, feasible_rates = zip(*rows, strict=True)
        axes.plot(strengths, broken_rates, "o-", label="chains broken")
        axes.plot(strengths, feasible_rates, "s-", label="samples feasible")
        axes.set(xlabel="chain strength (multiple of the typical torque)", ylabel="fraction")
        axes.set_title("emulated annealer: simulated annealing on the physical model")
        axes.legend()
        save_picture(figure, plots / "chain-strength.png")


def overhead(problem: BlockRemovalProblem) -> None:
    """Wall clock of one call, encoding included: Ocean's sampler with a fixed embedding, and ours.

    Both make a client, look for the solver and find their embedding ready.
    """
    from dwave.system import DWaveSampler, FixedEmbeddingComposite

    from qblock.encoding import Encoding

    reduced = problem.reduced
    backend = LeapQPU()
    chains = clique_embedding_of_service(len(reduced)).of(reduced.blocks)

    def raw() -> None:
        with DWaveSampler() as sampler:
            bqm = Encoding(reduced).bqm().change_vartype("SPIN", inplace=False)
            FixedEmbeddingComposite(sampler, chains).sample(bqm, num_reads=100).resolve()

    raw()
    backend.sample(problem, seed=10**6)
    theirs = [seconds(raw) for _ in range(REPEATS)]
    ours = [
        seconds(lambda seed=seed: backend.sample(problem, seed=seed))  # type: ignore[misc]
        for seed in range(REPEATS)
    ]
    a, b = statistics.median(theirs), statistics.median(ours)
    print(f"Ocean {a:.3f} s, qblock {b:.3f} s: {1000 * (b - a):+.0f} ms, {b / a - 1:+.1%}")


def clique_embedding_of_service(n: int):  # type: ignore[no-untyped-def]
    from qblock_dwave.embedding import WorkingGraph
    from sapi_emulator import quantum_solver

    return clique_embedding(
        WorkingGraph.of_properties("service", quantum_solver()["properties"]), n
    )


def side_by_side(problem: BlockRemovalProblem) -> None:
    """The same problem as a CQM, as a nonlinear model, as a penalty BQM and embedded."""
    truth = get_backend("brute-force").sample(problem)
    best = Spectrum.of(problem, truth).energies[0]
    print("| backend | samples | feasible | best energy / optimum |\n|---|---|---|---|")
    for name in ("leap-hybrid-cqm", "leap-hybrid-nl", "leap-hybrid", "leap-qpu"):
        result: SolveResult = get_backend(name).sample(problem, seed=1)
        spectrum = Spectrum.of(problem, result)
        lowest = f"{spectrum.energies[0] / best:.3f}" if len(spectrum) else "none feasible"
        total = int(result.samples.record.num_occurrences.sum())
        print(f"| {name} | {total} | {spectrum.feasible_rate:.1%} | {lowest} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--plots", type=Path, help="folder to draw the figures in")
    plots = parser.parse_args().plots
    if plots:
        plots.mkdir(parents=True, exist_ok=True)
    problem = BlockRemovalProblem(load_sensitivity("smollm2-135m-fisher"), remove=8)
    embeddings(problem, plots)
    sweep(problem, plots)
    from sapi_emulator import TOKEN, SapiEmulator

    with tempfile.TemporaryDirectory() as home, SapiEmulator() as service:
        for name in ("HOME", "QBLOCK_HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"):
            os.environ[name] = home
        os.environ |= {"DWAVE_API_ENDPOINT": service.endpoint, "DWAVE_API_TOKEN": TOKEN}
        overhead(problem)
        side_by_side(problem)


if __name__ == "__main__":
    main()
