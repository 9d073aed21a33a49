"""The tables of a report, as text that any format can hold."""

import html
from dataclasses import dataclass

from qblock.study.analysis import Analysis, interval_text
from qblock.study.compare import percent
from qblock.study.judge import Comparison, ComparisonRow
from qblock.study.statistics import Interval


@dataclass(frozen=True)
class TextTable:
    """A table of text. The first column names the row."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def to_markdown(self) -> str:
        """As GitHub-flavoured Markdown."""

        def line(cells: tuple[str, ...]) -> str:
            return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

        rule = "|" + "|".join(["---"] + ["---:"] * (len(self.columns) - 1)) + "|"
        return "\n".join([line(self.columns), rule, *map(line, self.rows)])

    def to_html(self) -> str:
        """As an HTML table with row and column headers."""
        head = "".join(f'<th scope="col">{html.escape(c)}</th>' for c in self.columns)
        body = "".join(
            f'<tr><th scope="row">{html.escape(row[0])}</th>'
            + "".join(f"<td>{html.escape(cell)}</td>" for cell in row[1:])
            + "</tr>"
            for row in self.rows
        )
        return (
            f'<div class="scroll" tabindex="0"><table><caption>{html.escape(self.title)}'
            f"</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
        )


def overview_table(analysis: Analysis) -> TextTable:
    """Every contender over all problems, best first, each at its best time limit."""
    leader = analysis.ranking[0]
    rows = []
    for contender in analysis.ranking:
        best = [analysis.best_row(c, contender) for c in analysis.comparisons]
        solved = sum(row is not None and bool(row.success and row.success.successes)
                     for row in best)  # fmt: skip
        found = [row.pooled_coverage for row in best if row is not None]
        known = [value for value in found if value is not None]
        difference = analysis.gap_difference(contender, leader) if contender != leader else None
        rows.append(
            (
                _label(contender, best),
                f"{solved} of {len(analysis.comparisons)}",
                interval_text(analysis.tts[contender], " s"),
                f"{sum(known) / len(known):.0%}" if known else "-",
                _difference(difference),
            )
        )
    return TextTable(
        "All problems together",
        (
            "contender",
            "reference reached",
            "TTS 99 %, median over problems",
            "lowest states found",
            f"gap minus that of {leader}",
        ),
        tuple(rows),
    )


def _label(contender: str, rows: list[ComparisonRow | None]) -> str:
    kinds = {row.execution for row in rows if row is not None} - {"classical"}
    return f"{contender} ({', '.join(sorted(kinds))})" if kinds else contender


def _difference(interval: Interval | None) -> str:
    if interval is None or interval.value is None or interval.high is None:
        return "-"
    return f"{interval.value:+.2%} [{interval.low:+.2%}, {interval.high:+.2%}]"


def problem_table(comparison: Comparison) -> TextTable:
    """Every contender and time limit on one problem."""
    reference = comparison.reference
    k = len(reference.states)
    rows = []
    for row in comparison.rows:
        if row.success is None or row.timing is None:
            continue
        low, high = row.success.interval()
        rows.append(
            (
                row.label,
                str(row.runs),
                f"{row.feasible_rate:.1%}",
                f"{row.success.successes}/{row.success.trials} [{low:.2f}, {high:.2f}]",
                percent(row.best_gap),
                percent(row.median_gap),
                "-" if not k else f">= {k}" if row.best_rank is None else str(row.best_rank),
                "-" if row.coverage is None else f"{row.coverage:.0%}",
                "-" if row.pooled_coverage is None else f"{row.pooled_coverage:.0%}",
                f"{row.timing.encode:.2g} + {row.timing.wait:.2g} + {row.timing.solve:.2g}",
                interval_text(row.tts, " s"),
                interval_text(row.time_to_epsilon, " s"),
            )
        )
    return TextTable(
        comparison.title,
        (
            "contender",
            "runs",
            "feasible",
            "reached the reference",
            "best gap",
            "median gap",
            "rank of the best",
            f"of the {k} lowest, a run" if k else "of the lowest, a run",
            "all runs",
            "encode + wait + solve, s",
            "TTS 99 %",
            "time to 1 % gap",
        ),
        tuple(rows),
    )


def error_table(analysis: Analysis) -> TextTable:
    """Why runs failed."""
    rows = [
        (comparison.title, row.label, str(count), message)
        for comparison in analysis.comparisons
        for row in comparison.rows
        for message, count in row.errors.items()
    ]
    return TextTable("Failed runs", ("problem", "contender", "runs", "reason"), tuple(rows))
