"""`qblock fetch`: the answer of a cloud job sent earlier."""

from typing import Annotated

import typer

from qblock.cli import _common as common
from qblock.cli._solve import result_document, states_table
from qblock.errors import ProblemError
from qblock.registry import backends


def fetch(
    job: Annotated[str, typer.Argument(metavar="JOB", help="The service's id of the job.")],
    top: Annotated[int, typer.Option("--top", min=1, help="How many states to show.")] = 5,
    cancel: Annotated[
        bool, typer.Option("--cancel", help="Cancel the job instead, if it still waits.")
    ] = False,
    as_json: common.JsonOption = False,
) -> None:
    """Collect the answer of a cloud job whose run was killed, timed out or lost its connection."""
    for entry in backends().values():
        if entry.backend is None:
            continue
        if cancel:
            if entry.backend.cancel(job):
                common.console.print(f"job {job} is cancelled")
                return
            continue
        with common.progress_line(entry.name) as report:
            found = entry.backend.fetch(job, report=report)
        if found is None:
            continue
        task, result = found
        if as_json:
            common.print_json(result_document(task, result, top))
        else:
            common.console.print(states_table(task, result, top))
            for warning in result.warnings:
                common.messages.print(f"[yellow]warning:[/yellow] {warning}")
        return
    raise ProblemError(f"no record of a job {job!r}; only jobs sent from this computer are known")
