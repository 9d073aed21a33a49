"""`qblock backends`: what can solve a problem here."""

from typing import Annotated, Any

import typer
from rich.table import Table

from qblock.backend import Availability
from qblock.cli import _common as common
from qblock.registry import BackendEntry
from qblock.registry import backends as registered


def backends(
    check: Annotated[
        bool, typer.Option("--check", help="Also ask the cloud services, over the network.")
    ] = False,
    as_json: common.JsonOption = False,
) -> None:
    """List the solver back ends, what they promise, and how to get those that are missing."""
    entries = list(registered().values())
    states = {
        entry.name: entry.backend.check_service() if check and entry.backend else entry.availability
        for entry in entries
    }
    if as_json:
        common.print_json([_document(entry, states[entry.name]) for entry in entries])
        return
    table = Table(title="backends")
    for column in ("name", "method", "constraint", "runs", "", "summary"):
        table.add_column(column)
    for entry in entries:
        state = states[entry.name]
        mark = "[green]ready[/green]" if state.ok else "[yellow]missing[/yellow]"
        note = "; ".join(filter(None, (state.reason, state.hint)))
        note = note if state.ok else f"[yellow]{note}[/yellow]"
        if entry.backend is None:
            table.add_row(entry.name, "", "", "", "[red]broken[/red]", note)
            continue
        can = entry.backend.capabilities
        runs = f"{can.location}, {can.execution}" if can.method == "quantum" else can.location
        summary = f"{can.summary}\n{note}" if note else can.summary
        table.add_row(entry.name, can.method, can.constraint, runs, mark, summary)
    common.console.print(table)


def _document(entry: BackendEntry, state: Availability) -> dict[str, Any]:
    document: dict[str, Any] = {
        "name": entry.name,
        "distribution": entry.distribution,
        "available": state.ok,
        "reason": state.reason,
        "hint": state.hint,
        "broken": entry.backend is None,
    }
    if entry.backend is not None:
        document |= entry.backend.capabilities.__dict__
        document["parameters"] = entry.backend.Parameters.model_json_schema()["properties"]
    return document
