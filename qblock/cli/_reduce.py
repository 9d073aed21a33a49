"""`qblock reduce`: pins that are proved to lose none of the lowest states."""

from typing import Annotated

import typer

from qblock.backend import SolveResult
from qblock.cli import _common as common
from qblock.problem import BlockRemovalProblem
from qblock.reduction import Reduction, reduce_below, reduce_to
from qblock.registry import get_backend
from qblock.spectrum import Spectrum


def reduce(
    problem: common.ProblemArgument,
    remove: common.RemoveOption,
    undecided: Annotated[
        int,
        typer.Option("--undecided", min=0, help="At most so many blocks (or qubits) are left."),
    ] = 20,
    below: Annotated[
        float | None,
        typer.Option("--below", metavar="ENERGY", help="Lose no state below this energy instead."),
    ] = None,
    states: Annotated[
        int, typer.Option("--states", min=1, help="How many of the lowest states to prove first.")
    ] = 1000,
    keep: common.KeepOption = "",
    drop: common.DropOption = "",
    linear: common.LinearOption = False,
    time_limit: common.TimeLimitOption = None,
    as_json: common.JsonOption = False,
) -> None:
    """Pin the blocks on which all low states agree: a smaller problem, the same low spectrum."""
    task = common.load_problem(problem, remove, keep, drop, linear)
    with common.progress_line("exact") as report:
        result: SolveResult = get_backend("exact").sample(
            task, seed=0, time_limit=time_limit, report=report, k=states
        )
    spectrum = Spectrum.of(task, result)
    reduction = reduce_to(spectrum, undecided) if below is None else reduce_below(spectrum, below)
    if as_json:
        common.print_json(as_document(task, reduction))
    else:
        common.console.print(as_text(task, reduction), highlight=False, soft_wrap=True)


def as_document(task: BlockRemovalProblem, reduction: Reduction) -> dict[str, object]:
    """The reduction as one JSON document; `below` is null if nothing at all is lost."""
    return {
        "instance": task.sensitivity.name,
        "blocks": len(task),
        "undecided": list(reduction.problem.reduced.blocks),
        "keep": list(reduction.problem.keep),
        "drop": list(reduction.problem.drop),
        "below": reduction.below if reduction.below < float("inf") else None,
        "states": reduction.num_states,
    }


def as_text(task: BlockRemovalProblem, reduction: Reduction) -> str:
    """The reduction in words, and the options that apply it."""
    smaller = reduction.problem
    kept = f"--keep {','.join(smaller.keep)}" if smaller.keep else ""
    dropped = f"--drop {','.join(smaller.drop)}" if smaller.drop else ""
    limit = (
        f"no state below the energy {reduction.below:.9g} is lost"
        if reduction.below < float("inf")
        else "no state is lost"
    )
    return (
        f"{task.sensitivity.name}: {len(task)} blocks, {len(task.reduced)} undecided before, "
        f"{reduction.undecided} after; {smaller.reduced.num_feasible:,} feasible states left\n"
        f"Proved: {limit}, which are the {reduction.num_states} lowest.\n"
        f"The same problem, smaller: {kept} {dropped}".rstrip()
    )
