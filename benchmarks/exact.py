"""The exact engine against its goals and its peers, on seeded instances, one thread each unless
said otherwise.

    python benchmarks/exact.py spectra     the 100 lowest states proved, set-up included
    python benchmarks/exact.py threads     the long ones of these with one thread and with two
    python benchmarks/exact.py peers       one optimum: brute-force, SCIP, CP-SAT, Gurobi beside it
    python benchmarks/exact.py enumerate   equal to all C(32, 16) states, one by one

Times are of the CPU, in seconds, which another program on the machine does not lengthen.
Peers that are not installed (pyscipopt, ortools, gurobipy) are left out; Gurobi runs as far as
its size-limited licence allows. Compilation is not counted: a small problem is solved first.
Tables are in Markdown, ready for RESULTS.md.
"""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before numpy is loaded

import importlib.util
import sys
import time
from collections.abc import Callable

import numpy as np

from qblock.backend import SolveResult
from qblock.files import load_sensitivity
from qblock.generators import Kind, random_instance
from qblock.problem import BlockRemovalProblem, FloatArray, Sensitivity
from qblock.registry import get_backend
from qblock.spectrum import Spectrum

SPECTRA: list[tuple[Kind, int, list[int], float]] = [
    ("heavy", 80, [4, 8, 12, 16, 40], 1),
    ("homog", 80, [4, 8, 12, 16, 40], 1),
    ("flat", 80, [4, 8, 12, 16, 40], 1),
    ("midrank", 80, [8], 2),
    ("lowrank", 52, [16], 15),
    ("lowrank", 80, [8, 12], 60),
    ("heavy", 126, [16, 63], 5),
]
"""Kind, blocks, budgets and the goal in seconds."""

BUNDLED = "smollm2-135m-fisher"
BUNDLED_GOAL = 0.1
"""The bundled real instance, measured at every budget, and its goal in seconds."""

THREADED: list[tuple[Kind, int, int]] = [("lowrank", 80, 9), ("lowrank", 52, 16)]

PEERS: list[tuple[Kind, int, int]] = [
    ("heavy", 80, 16),
    ("homog", 80, 16),
    ("flat", 40, 12),
    ("flat", 80, 16),
    ("midrank", 52, 8),
    ("midrank", 80, 8),
    ("lowrank", 40, 12),
    ("lowrank", 52, 8),
]

LIMIT = 60.0
"""Seconds of wall clock for one spectrum."""

PEER_LIMIT = 20.0
"""Seconds of wall clock for one optimum."""


def problem_of(kind: Kind, n: int, remove: int) -> BlockRemovalProblem:
    return BlockRemovalProblem(random_instance(kind, n, seed=0), remove=remove)


def run_exact(
    problem: BlockRemovalProblem, k: int, limit: float = LIMIT
) -> tuple[float, SolveResult]:
    started = time.process_time()
    result = get_backend("exact").sample(problem, seed=0, k=k, threads=1, time_limit=limit)
    return time.process_time() - started, result


def spectra() -> None:
    print("| kind | N | M | goal | CPU s | nodes | proved |")
    print("|---|---|---|---|---|---|---|")
    sensitivity = load_sensitivity(BUNDLED)
    for remove in range(1, len(sensitivity.H)):
        _spectrum_row(BUNDLED, BlockRemovalProblem(sensitivity, remove=remove), BUNDLED_GOAL)
    for kind, n, budgets, goal in SPECTRA:
        for remove in budgets:
            _spectrum_row(kind, problem_of(kind, n, remove), goal)


def _spectrum_row(name: str, problem: BlockRemovalProblem, goal: float) -> None:
    seconds, result = run_exact(problem, 100)
    certificate = result.certificate
    assert certificate is not None
    best = float(result.samples.record.energy.min())
    proof = (
        "yes"
        if certificate.proved
        else f"no: {certificate.lower_bound:.4g} <= optimum <= {best:.4g}"
    )
    print(
        f"| {name} | {len(problem)} | {problem.remove} | {goal} | {seconds:.3f} "
        f"| {certificate.nodes} | {proof} |",
        flush=True,
    )


def threads() -> None:
    """Wall clock, which depends on what else the machine does: hence both in turn, twice."""
    print("| kind | N | M | threads | wall s | CPU s | nodes |")
    print("|---|---|---|---|---|---|---|")
    for kind, n, remove in THREADED:
        for count in (1, 2, 1, 2):
            started, cpu = time.perf_counter(), time.process_time()
            result = get_backend("exact").sample(
                problem_of(kind, n, remove), seed=0, k=100, threads=count
            )
            assert result.certificate is not None
            print(
                f"| {kind} | {n} | {remove} | {count} | {time.perf_counter() - started:.2f} "
                f"| {time.process_time() - cpu:.2f} | {result.certificate.nodes} |",
                flush=True,
            )


def scip(Q: FloatArray, remove: int) -> tuple[float | None, bool]:
    """Lowest energy and whether it is proved, with the objective as a quadratic constraint."""
    from pyscipopt import Model, quicksum

    model = Model()
    model.hideOutput()
    model.setParam("limits/time", PEER_LIMIT)
    model.setParam("lp/threads", 1)
    n = len(Q)
    x = [model.addVar(vtype="B") for _ in range(n)]
    bound = model.addVar(lb=None)
    model.addCons(quicksum(x) == remove)
    model.addCons(
        quicksum(Q[i, i] * x[i] for i in range(n))
        + quicksum(2 * Q[i, j] * x[i] * x[j] for i in range(n) for j in range(i))
        <= bound
    )
    model.setObjective(bound)
    model.optimize()
    value = float(model.getObjVal()) if model.getNSols() else None
    return value, model.getStatus() == "optimal"


def cp_sat(Q: FloatArray, remove: int) -> tuple[float | None, bool]:
    """Products linearised; coefficients scaled to integers of up to 1e9."""
    from ortools.sat.python import cp_model

    n = len(Q)
    scale = 1e9 / np.abs(Q).max()
    model = cp_model.CpModel()
    x = [model.new_bool_var(f"x{i}") for i in range(n)]
    model.add(sum(x) == remove)
    terms = [round(Q[i, i] * scale) * x[i] for i in range(n)]
    for i in range(n):
        for j in range(i):
            both = model.new_bool_var(f"p{i},{j}")
            model.add_bool_or([x[i].negated(), x[j].negated(), both])
            model.add_implication(both, x[i])
            model.add_implication(both, x[j])
            terms.append(round(2 * Q[i, j] * scale) * both)
    model.minimize(sum(terms))
    solver = cp_model.CpSolver()
    solver.parameters.max_time_in_seconds = PEER_LIMIT
    solver.parameters.num_workers = 1
    status = solver.solve(model)
    if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        return None, False
    state = np.array([solver.value(v) for v in x], dtype=np.float64)
    return float(state @ Q @ state), status == cp_model.OPTIMAL


def brute_force(Q: FloatArray, remove: int) -> tuple[float | None, bool]:
    problem = BlockRemovalProblem(Sensitivity(H=Q), remove=remove)
    result = get_backend("brute-force").sample(
        problem, seed=0, k=1, max_states=problem.reduced.num_feasible, time_limit=PEER_LIMIT
    )
    energies = result.samples.record.energy
    return float(energies.min()), result.status == "complete"


def gurobi(Q: FloatArray, remove: int) -> tuple[float | None, bool]:
    import gurobipy

    with gurobipy.Env(params={"OutputFlag": 0}) as env, gurobipy.Model(env=env) as model:
        model.Params.TimeLimit = PEER_LIMIT
        model.Params.Threads = 1
        model.Params.MIPGap = 1e-9
        x = model.addMVar(len(Q), vtype="B")
        model.addConstr(x.sum() == remove)
        model.setObjective(x @ Q @ x)
        model.optimize()
        value = float(model.ObjVal) if model.SolCount else None
        return value, model.Status == gurobipy.GRB.OPTIMAL


PEER_SOLVERS: dict[str, tuple[str, Callable[[FloatArray, int], tuple[float | None, bool]]]] = {
    "Gurobi": ("gurobipy", gurobi),
    "SCIP": ("pyscipopt", scip),
    "CP-SAT": ("ortools", cp_sat),
    "brute-force": ("qblock_classical", brute_force),
}


def peers() -> None:
    installed = {
        name: run
        for name, (module, run) in PEER_SOLVERS.items()
        if importlib.util.find_spec(module) is not None
    }
    print(f"| kind | N | M | exact, k=1 | {' | '.join(installed)} |")
    print("|---" * (4 + len(installed)) + "|")
    for kind, n, remove in PEERS:
        problem = problem_of(kind, n, remove)
        seconds, result = run_exact(problem, 1, PEER_LIMIT)
        assert result.certificate is not None
        best = float(result.samples.record.energy.min())
        cells = [_cell(seconds, best, best, result.certificate.proved)]
        for run in installed.values():
            started = time.process_time()
            value, proved = run(np.array(problem.Q), remove)
            cells.append(_cell(time.process_time() - started, value, best, proved))
        print(f"| {kind} | {n} | {remove} | {' | '.join(cells)} |", flush=True)


def _cell(seconds: float, value: float | None, best: float, proved: bool) -> str:
    text = f"{seconds:.3f} s" if proved else f"not proved in {PEER_LIMIT:.0f} s"
    if value is None:
        return f"{text}, nothing found"
    excess = (value - best) / abs(best)
    return text if abs(excess) < 1e-6 else f"{text}, {excess:+.2e} from the optimum"


def enumerate_all() -> None:
    problem = problem_of("lowrank", 32, 16)
    seconds, result = run_exact(problem, 100)
    started = time.process_time()
    brute = get_backend("brute-force").sample(problem, seed=0, k=100)
    print(f"exact {seconds:.3f} s, brute-force {time.process_time() - started:.1f} s")
    found, truth = Spectrum.of(problem, result), Spectrum.of(problem, brute)
    if not (np.array_equal(found.states, truth.states)):
        sys.exit("the spectra differ")
    print(f"the 100 lowest of {problem.reduced.num_feasible:,} states are equal")


def main() -> None:
    parts = {"spectra": spectra, "threads": threads, "peers": peers, "enumerate": enumerate_all}
    if len(sys.argv) != 2 or sys.argv[1] not in parts:
        sys.exit(__doc__)
    run_exact(problem_of("lowrank", 20, 8), 100)  # compiled and warm
    parts[sys.argv[1]]()


if __name__ == "__main__":
    main()
