"""`qblock baselines`: what the usual ways to pick blocks would remove, and how well it works."""

from typing import Annotated

import typer

from qblock.cli import _common as common
from qblock.cli import _model, _select, _text


def baselines(
    model: _model.ModelArgument,
    problem: common.ProblemArgument,
    remove: common.RemoveOption,
    text: _text.TextOption,
    keep: common.KeepOption = "",
    drop: common.DropOption = "",
    linear: common.LinearOption = False,
    only: Annotated[
        str, typer.Option("--only", metavar="NAME,...", help="Some of the baselines.")
    ] = "",
    samples: Annotated[int, typer.Option("--samples", min=1, help="Rows of text.")] = 16,
    seq_len: _text.SeqLenOption = 128,
    revision: _model.RevisionOption = None,
    dtype: _model.DtypeOption = "auto",
    device: _model.DeviceOption = "auto",
    architecture: _model.ArchitectureOption = None,
    as_json: common.JsonOption = False,
) -> None:
    """Choose blocks by each baseline on calibration text, and measure the loss on held-out text."""
    task = common.load_problem(problem, remove, keep, drop, linear)
    loaded = _model.load(model, revision=revision, dtype=dtype, device=device)
    from qblock.llm import baselines as llm
    from qblock.llm.select import matching_stack, measure
    from qblock.spectrum import Spectrum

    names = [name.strip() for name in only.split(",") if name.strip()] or list(llm.BASELINES)
    llm.check_names(names)
    stack = matching_stack(loaded.model, task, architecture)
    source = _text.read(loaded, text, samples, seq_len)
    calibration = source.calibration.rows(samples, seq_len)
    heldout = source.heldout.rows(samples, seq_len)
    found = []
    with _text.progress_bar("baselines") as report:
        for done, name in enumerate(names):
            state = llm.choose(name, stack, task, calibration)
            (item,) = measure(stack, Spectrum.of_states(task, state[None]), heldout)
            found.append((name, item))
            report((done + 1) / len(names))
    if as_json:
        common.print_json({name: _select.document(item) for name, item in found})
        return
    title = f"{task.sensitivity.name}, remove {remove}: loss on held-out text"
    common.console.print(_select.selection_table("chosen by", found, title))
