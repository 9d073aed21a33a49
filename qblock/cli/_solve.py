"""`qblock solve`: one problem, one backend, the best states."""

import math
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.table import Table

from qblock.backend import Estimate, SolveResult, parse_parameters
from qblock.cli import _common as common
from qblock.maps import proof_line
from qblock.pictures import check_picture, energy_histogram, save_picture
from qblock.problem import BlockRemovalProblem
from qblock.registry import get_backend
from qblock.spectrum import Spectrum, rank


def solve(
    problem: common.ProblemArgument,
    remove: common.RemoveOption,
    backend: Annotated[str, typer.Option("--backend", "-b", help="See `qblock backends`.")],
    keep: common.KeepOption = "",
    drop: common.DropOption = "",
    linear: common.LinearOption = False,
    top: Annotated[int, typer.Option("--top", min=1, help="How many states to show.")] = 5,
    parameters: Annotated[
        list[str] | None,
        typer.Option("-p", "--parameter", metavar="KEY=VALUE", help="A backend parameter."),
    ] = None,
    seed: common.SeedOption = None,
    time_limit: common.TimeLimitOption = None,
    plot: Annotated[
        Path | None,
        typer.Option(
            "--plot", metavar="FILE", help="Draw the samples' energies beside a uniform guess."
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what the run would take, and stop.")
    ] = False,
    as_json: common.JsonOption = False,
) -> None:
    """Solve a block-removal problem with one backend and show the lowest states it found."""
    if plot is not None:
        check_picture(plot)
    task = common.load_problem(problem, remove, keep, drop, linear)
    solver = get_backend(backend)
    settings = parse_parameters(parameters or [])
    if dry_run:
        solver.check(task.reduced, solver.parse(settings))
        show_estimate(solver.estimate(task, **settings), as_json=as_json)
        return
    with common.progress_line(backend) as report:
        result = solver.sample(
            task,
            seed=seed,
            time_limit=time_limit,
            report=report,
            **settings,
        )
    if plot is not None:
        save_picture(energy_histogram(task, result), plot)
        common.messages.print(f"the energies are in {plot}")
    if as_json:
        common.print_json(result_document(task, result, top))
    else:
        common.console.print(states_table(task, result, top))
        for warning in result.warnings:
            common.messages.print(f"[yellow]warning:[/yellow] {warning}")
    if result.status == "interrupted":
        common.messages.print("interrupted; these are the states found until then")
        raise typer.Exit(130)


def show_estimate(estimate: Estimate, *, as_json: bool) -> None:
    """Print what a run would take; quantities that are not known are left out."""
    if as_json:
        common.print_json(asdict(estimate))
        return
    units = {"seconds": "s", "memory_bytes": "bytes", "qubits": "", "qpu_seconds": "s billed"}
    for name, unit in units.items():
        value = getattr(estimate, name)
        if value is not None:
            common.console.print(f"{name.replace('_', ' ')}: {value:.4g} {unit}".rstrip())
    for note in estimate.notes or ("nothing was run",):
        common.console.print(note)


def best_states(task: BlockRemovalProblem, result: SolveResult, top: int) -> list[dict[str, Any]]:
    """The `top` best distinct samples: feasible ones by energy, then infeasible ones by energy."""
    spectrum = Spectrum.of(task, result)
    states = [
        {"removed": list(s.removed), "energy": s.energy, "feasible": True,
         "occurrences": s.occurrences}
        for _, s in zip(range(top), spectrum, strict=False)
    ]  # fmt: skip
    record = result.samples.record
    names = result.samples.variables
    broken = record[~task.is_feasible(record.sample[:, [names.index(b) for b in task.blocks]])]
    for row in broken[rank(broken.energy)][: top - len(states)]:
        removed = {names[i] for i in np.flatnonzero(row.sample)}
        states.append(
            {
                "removed": [block for block in task.blocks if block in removed],
                "energy": float(row.energy),
                "feasible": False,
                "occurrences": int(row.num_occurrences),
            }
        )
    return states


def result_document(task: BlockRemovalProblem, result: SolveResult, top: int) -> dict[str, Any]:
    """The JSON document of one run. Infinite bounds, which JSON lacks, become null."""
    certificate = asdict(result.certificate) if result.certificate else None
    if certificate:
        certificate = {
            key: None if isinstance(value, float) and math.isinf(value) else value
            for key, value in certificate.items()
        }
    return {
        "problem": {
            "name": task.sensitivity.name,
            "id": task.id,
            "blocks": len(task),
            "remove": task.remove,
            "keep": list(task.keep),
            "drop": list(task.drop),
            "linear": task.linear,
        },
        "backend": result.backend,
        "states": best_states(task, result, top),
        "feasible_rate": Spectrum.of(task, result).feasible_rate,
        "status": result.status,
        "certificate": certificate,
        "seconds": {**asdict(result.timing), "total": result.timing.total},
        "seed": result.seed,
        "time_limit": result.time_limit,
        "parameters": result.parameters,
        "details": result.details,
        "warnings": list(result.warnings),
        "versions": result.versions,
        "created": result.created,
    }


def states_table(task: BlockRemovalProblem, result: SolveResult, top: int) -> Table:
    """The best states of one run as a table."""
    spectrum = Spectrum.of(task, result)
    table = Table(title=f"{task.sensitivity.name}: {result.backend}, seed {result.seed}")
    proof = f"\n{proof_line(spectrum)}" if result.certificate else ""
    table.caption = (
        f"{spectrum.feasible_rate:.1%} of samples feasible, {len(spectrum)} distinct; "
        f"{result.timing.total:.3g} s ({result.timing.encode:.2g} encode, "
        f"{result.timing.wait:.2g} wait, {result.timing.solve:.2g} solve){proof}"
    )
    table.add_column("rank", justify="right")
    table.add_column("energy", justify="right")
    table.add_column("seen", justify="right")
    table.add_column("removed blocks")
    for place, state in enumerate(best_states(task, result, top)):
        table.add_row(
            str(place) if state["feasible"] else "infeasible",
            f"{state['energy']:.8g}",
            str(state["occurrences"]),
            " ".join(state["removed"]) or "none",
        )
    return table
