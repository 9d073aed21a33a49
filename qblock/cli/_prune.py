"""`qblock prune`: build the smaller model."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qblock.cli import _common as common
from qblock.cli import _model
from qblock.errors import ParameterError
from qblock.problem import BlockRemovalProblem
from qblock.spectrum import RankedState, Spectrum

if TYPE_CHECKING:
    from qblock.llm.prune import PrunedModel


def prune(
    model: _model.ModelArgument,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="The directory to make.")],
    problem: Annotated[
        str, typer.Argument(metavar="[PROBLEM]", help="A sensitivity file or bundled instance.")
    ] = "",
    remove: Annotated[
        str, typer.Option("--remove", metavar="M | GROUP=M,...", help="How many blocks to remove.")
    ] = "",
    state: Annotated[
        int, typer.Option("--state", min=0, help="Which of the lowest states: 0 is the lowest.")
    ] = 0,
    blocks: Annotated[
        str, typer.Option("--blocks", metavar="BLOCK,...", help="Remove just these blocks.")
    ] = "",
    keep: common.KeepOption = "",
    drop: common.DropOption = "",
    linear: common.LinearOption = False,
    force: _model.ForceOption = False,
    revision: _model.RevisionOption = None,
    dtype: _model.DtypeOption = "stored",
    device: _model.DeviceOption = "cpu",
    architecture: _model.ArchitectureOption = None,
    as_json: common.JsonOption = False,
) -> None:
    """Delete blocks from a model and write the smaller one, ready for plain transformers.

    Removes the blocks of one of the lowest states of a problem (PROBLEM, --remove and --state),
    or those that --blocks names; with a PROBLEM beside --blocks their energy is noted.
    """
    removed, reason, task = choose(problem, remove, state, blocks, keep, drop, linear)
    from qblock.llm import prune as llm
    from qblock.llm.select import matching_stack
    from qblock.llm.write import check_target

    check_target(out, force)
    loaded = _model.load(model, revision=revision, dtype=dtype, device=device)
    if task is not None:
        matching_stack(loaded.model, task, architecture)  # refuses that of another model
    pruned = llm.prune(loaded, removed, out, reason=reason, force=force, architecture=architecture)
    if as_json:
        common.print_json(asdict(pruned) | {"path": str(pruned.path), "reason": reason})
        return
    common.console.print(summary(pruned, reason))
    if pruned.silenced:
        common.messages.print(f"note: {', '.join(pruned.silenced)} were silenced. {llm.SILENCED}")
    if loaded.is_gguf and not pruned.silenced:
        command = llm.llama_quantize_command(pruned, model)
        common.console.print("the same removal in llama.cpp, without leaving GGUF:")
        common.console.print(f"  {command}", soft_wrap=True)


def summary(pruned: "PrunedModel", reason: str) -> str:
    """What was written, in words."""
    share = 1 - pruned.parameters / pruned.parameters_before
    numbers = ", ".join(map(str, pruned.removed))
    gone = [f"without layers {numbers} ({len(pruned.removed)} of {pruned.layers})"]
    silent = [f"with {', '.join(pruned.silenced)} silenced"]
    what = ", ".join(gone * bool(pruned.removed) + silent * bool(pruned.silenced))
    return (
        f"{pruned.path}: {pruned.source} {what}; {pruned.parameters:,} parameters, {share:.1%} "
        f"less. {reason}"
    )


def choose(
    problem: str,
    remove: str,
    state: int,
    blocks: str,
    keep: str = "",
    drop: str = "",
    linear: bool = False,
) -> tuple[tuple[str, ...], str, BlockRemovalProblem | None]:
    """The blocks that the options name, in words why these, and the problem if there is one.

    Raises:
        ParameterError: options that do not go together, or a state beyond the last.
        ProblemError: a budget, pin or block that does not fit the problem.
    """
    named = tuple(name.strip() for name in blocks.split(",") if name.strip())
    if named and state:
        raise ParameterError("--state and --blocks exclude each other")
    if not problem:
        if not named:
            raise ParameterError(
                "which blocks? Give PROBLEM and --remove, or --blocks BLOCK,BLOCK,..."
            )
        return named, "They were named by hand.", None
    if not named and not remove:
        raise ParameterError("--remove is missing: how many blocks are to be removed?")
    task = common.load_problem(problem, remove or str(len(named)), keep, drop, linear)
    if named:
        chosen = Spectrum.of_states(task, task.state_of(named)[None])
        if not len(chosen):
            raise ParameterError(f"--blocks {blocks} does not meet the budget and the pins given")
        return named, f"They were named by hand. {_energy(task, chosen[0])}", task
    from qblock.llm.states import lowest

    spectrum = lowest(task, state + 1)
    if len(spectrum) <= state:
        raise ParameterError(f"--state {state}: there are only {len(spectrum)} feasible states")
    what = "lowest state" if state == 0 else f"state {state} (the lowest is 0)"
    reason = f"They are the {what} by energy. {_energy(task, spectrum[state])}"
    return spectrum[state].removed, reason, task


def _energy(task: BlockRemovalProblem, state: RankedState) -> str:
    source = task.sensitivity
    form = "x'Hx - 2g'x" if task.linear else "x'Hx"
    return (
        f"Energy {form} = {state.energy:.6g} with the {source.curvature} sensitivity "
        f"{source.name!r}, budget {task.remove}."
    )
