"""The report of a study: one HTML file that needs no network, Markdown, or JSON."""

import base64
import gzip
import html
import importlib.util
import json
from dataclasses import asdict
from datetime import UTC, datetime
from importlib import resources
from string import Template
from typing import Any

from qblock.errors import StudyError
from qblock.study.analysis import Analysis, fairness, summary
from qblock.study.document import comparison_document
from qblock.study.tables import TextTable, error_table, overview_table, problem_table

DETAILED_PROBLEMS = 12
"""Of how many problems the HTML report shows figures; tables are there for all."""


def report_json(analysis: Analysis) -> str:
    """All figures of the report as one JSON document."""
    profile = analysis.profile()
    document: dict[str, Any] = {
        "study": analysis.name,
        "summary": summary(analysis),
        "fairness": fairness(analysis),
        "runs": dict(analysis.counts),
        "environments": [dict(e) for e in analysis.environments],
        "tts": {name: asdict(v) if v else None for name, v in analysis.tts.items()},
        "profile": {
            "tau": profile[0].tolist(),
            "share": dict(zip(analysis.contenders, profile[1].tolist(), strict=True)),
        },
        "problems": [comparison_document(c) for c in analysis.comparisons],
    }
    return json.dumps(document, indent=2, allow_nan=False) + "\n"


def report_markdown(analysis: Analysis) -> str:
    """The report as Markdown, without figures."""
    parts = [f"# {analysis.name}", summary(analysis)]
    for table in _tables(analysis):
        parts += [f"## {table.title}", table.to_markdown()]
    parts += ["## What makes it fair", "\n".join(f"- {line}" for line in fairness(analysis))]
    return "\n\n".join(parts) + "\n"


def report_html(analysis: Analysis) -> str:
    """The report as one page: summary, tables and interactive figures, light and dark.

    Raises:
        StudyError: plotly is not installed.
    """
    if importlib.util.find_spec("plotly") is None:
        raise StudyError('the HTML report needs plotly: pip install "qblock[report]"')
    from plotly.offline import get_plotlyjs

    from qblock.study.figures import Plot, problem_plots, study_plots

    figures: list[str] = []

    def show(plot: Plot) -> str:
        figures.append(plot.figure.to_json())
        name = f"plot-{len(figures) - 1}"
        caption = html.escape(plot.caption)
        return (
            f'<figure><h3 id="{name}-title">{html.escape(plot.title)}</h3>'
            f'<div class="plot" id="{name}" role="img" aria-labelledby="{name}-title" '
            f'aria-describedby="{name}-caption"></div>'
            f'<figcaption id="{name}-caption">{caption}</figcaption></figure>'
        )

    sections = [overview_table(analysis).to_html(), *map(show, study_plots(analysis))]
    for number, comparison in enumerate(analysis.comparisons):
        sections.append(f"<section><h2>{html.escape(comparison.title)}</h2>")
        sections.append(problem_table(comparison).to_html())
        if number < DETAILED_PROBLEMS:
            sections += map(show, problem_plots(comparison, analysis.contenders))
        sections.append("</section>")
    errors = error_table(analysis)
    if errors.rows:
        sections.append(f"<h2>Failed runs</h2>{errors.to_html()}")
    page = Template(resources.files("qblock.study").joinpath("report.html").read_text("utf-8"))
    # The library is 4.8 MB of text; packed, and unpacked by the browser, it takes 2 MB.
    library = gzip.compress(get_plotlyjs().encode(), compresslevel=6, mtime=0)
    return page.substitute(
        title=html.escape(analysis.name),
        summary=html.escape(summary(analysis)),
        sections="\n".join(sections),
        fairness="".join(f"<li>{html.escape(line)}</li>" for line in fairness(analysis)),
        environments=html.escape(json.dumps([dict(e) for e in analysis.environments], indent=1)),
        figures=f"[{','.join(figures)}]".replace("</", "<\\/"),
        library=base64.b64encode(library).decode(),
        created=datetime.now(UTC).isoformat(timespec="minutes"),
    )


def _tables(analysis: Analysis) -> list[TextTable]:
    tables = [overview_table(analysis), *map(problem_table, analysis.comparisons)]
    errors = error_table(analysis)
    return [*tables, errors] if errors.rows else tables
