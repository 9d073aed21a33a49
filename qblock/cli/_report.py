"""`qblock report`: what a study shows."""

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from qblock.cli import _common as common
from qblock.files import atomic_write
from qblock.study.analysis import analyse
from qblock.study.qoblib import qoblib_table
from qblock.study.report import report_html, report_json, report_markdown
from qblock.study.store import open_study

WRITERS = {
    "html": report_html,
    "markdown": report_markdown,
    "json": report_json,
    "qoblib": qoblib_table,
}


def report(
    study: Annotated[Path, typer.Argument(metavar="STUDY.db", help="A study file.")],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="File; stdout if not given, report.html for HTML."),
    ] = None,
    form: Annotated[
        Literal["html", "markdown", "json", "qoblib"],
        typer.Option("--format", help="A page, text, numbers, or QOBLIB's submission table."),
    ] = "html",
) -> None:
    """Report on a study: two sentences, tables, intervals, figures and what makes it fair."""
    with open_study(study) as store:
        text = WRITERS[form](analyse(store))
    if output is None and form == "html":
        output = Path("report.html")
    if output is None:
        sys.stdout.write(text)
        return
    with atomic_write(output) as stream:
        stream.write(text.encode())
    common.messages.print(f"report in {output} ({len(text.encode()) / 1e6:.1f} MB)")
