"""The same problem to every backend, several seeds each: a study of one problem."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from rich.table import Table

from qblock.backend import Progress
from qblock.errors import ParameterError
from qblock.problem import BlockRemovalProblem
from qblock.study.contender import Contender
from qblock.study.execute import Execution, Workers, execute, local_workers
from qblock.study.judge import Comparison, judge
from qblock.study.plan import Plan
from qblock.study.store import Store


@dataclass(frozen=True)
class Compared:
    """A comparison and how the runs behind it went."""

    comparison: Comparison
    execution: Execution


def compare(
    problem: BlockRemovalProblem,
    contenders: Sequence[Contender],
    *,
    repeats: int = 10,
    seed: int = 0,
    time_limit: float | None = None,
    store: Store | None = None,
    workers: Workers | None = None,
    report: Callable[[Progress], None] = lambda progress: None,
) -> Compared:
    """Run every contender with seeds seed ... seed + repeats - 1 and judge the results.

    Runs that `store` already holds are not run again. A contender that fails is a row with its
    reason. After Ctrl-C the finished runs are judged.

    Raises:
        UnknownBackend, ParameterError, StudyError: before anything runs.
    """
    if repeats < 1:
        raise ParameterError(f"repeats must be at least 1, not {repeats}")
    plan = Plan(
        problems=(problem,),
        contenders=tuple(contenders),
        seeds=tuple(range(seed, seed + repeats)),
        time_limits=(time_limit,),
        name=problem.sensitivity.name,
    )
    with ExitStack() as stack:
        store = store or stack.enter_context(Store(":memory:"))
        workers = workers or stack.enter_context(local_workers())
        execution = execute(plan, store, workers, report)
        return Compared(judge(store, problem.id, list(plan.requests())), execution)


def comparison_table(comparison: Comparison) -> Table:
    """The comparison as a `rich` table; what `qblock compare` prints."""
    reference = comparison.reference
    kind = "proved optimum" if reference.proved else "best known"
    table = Table(title=comparison.title)
    bound = (
        f", proved lower bound {reference.lower_bound:.6g}"
        if reference.lower_bound is not None and not reference.proved
        else ""
    )
    table.caption = (
        f"{kind} {reference.energy:.6g} ({reference.source}){bound}; gap 0 % = {kind}, "
        "100 % = mean of random feasible states; intervals are exact, 95 %"
    )
    for title, justify in (
        ("backend", "left"),
        ("runs", "right"),
        ("feasible", "right"),
        ("best gap", "right"),
        ("median gap", "right"),
        ("success rate", "right"),
        ("seconds", "right"),
        ("TTS 99 %", "right"),
    ):
        table.add_column(title, justify=justify, overflow="fold")  # type: ignore[arg-type]
    for row in comparison.rows:
        errors = "; ".join(f"{message} ({count} runs)" for message, count in row.errors.items())
        if row.success is None or row.tts is None:
            table.add_row(row.label, "0", f"[red]{errors or 'not run'}[/red]")
            continue
        low, high = row.success.interval()
        tts = row.tts
        table.add_row(
            row.label,
            str(row.runs),
            f"{row.feasible_rate:.1%}",
            percent(row.best_gap),
            percent(row.median_gap),
            f"{row.success.successes}/{row.success.trials} [{low:.2f}, {high:.2f}]",
            f"{row.median_seconds:.3g}",
            f"{tts.value:.3g} s" if tts.value is not None else f"> {tts.low:.3g} s",
        )
        if errors:
            table.add_row("", "", f"[red]{errors}[/red]")
    return table


def percent(gap: float | None) -> str:
    """A gap in words."""
    return "none feasible" if gap is None else f"{gap:.2%}"
