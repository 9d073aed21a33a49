"""A whole study: every problem judged, and what can be said over all of them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from qblock.errors import StudyError
from qblock.problem import FloatArray
from qblock.study.judge import Comparison, ComparisonRow, judge
from qblock.study.statistics import (
    Interval,
    median_over_instances,
    paired_difference,
    performance_profile,
)
from qblock.study.store import Store


@dataclass(frozen=True, eq=False)
class Analysis:
    """What a study shows.

    Attributes:
        name: of the plan.
        comparisons: one for each problem.
        tuning: what the plans say was tuned, each statement once.
        environments: versions and machines of the runs.
        counts: how many runs are in each state.
    """

    name: str
    comparisons: tuple[Comparison, ...]
    tuning: tuple[str, ...]
    environments: tuple[Mapping[str, Any], ...]
    counts: Mapping[str, int]

    @cached_property
    def contenders(self) -> tuple[str, ...]:
        """In the order of the plan."""
        return tuple(dict.fromkeys(r.contender for c in self.comparisons for r in c.rows))

    def best_row(self, comparison: Comparison, contender: str) -> ComparisonRow | None:
        """A contender's row at its best time limit: of least TTS, else of least median gap.

        TTS at a badly chosen time limit misleads, so the optimum over the limits is compared
        and the whole sweep is shown.
        """
        rows = [r for r in comparison.rows if r.contender == contender and r.runs]

        def worth(row: ComparisonRow) -> tuple[float, float]:
            tts = row.tts.value if row.tts else None
            gap = row.median_gap
            return (np.inf if tts is None else tts, np.inf if gap is None else gap)

        return min(rows, key=worth, default=None)

    @cached_property
    def tts(self) -> Mapping[str, Interval | None]:
        """Of each contender, the median over the problems of its TTS at the best time limit.

        None for a contender that has not finished a run on every problem.
        """
        table: dict[str, Interval | None] = {}
        for contender in self.contenders:
            rows = [self.best_row(c, contender) for c in self.comparisons]
            values = [row.tts for row in rows if row is not None and row.tts is not None]
            complete = len(values) == len(self.comparisons)
            table[contender] = median_over_instances(values) if complete else None
        return table

    @cached_property
    def ranking(self) -> tuple[str, ...]:
        """Contenders by median TTS; those that only have a bound by how near they come."""

        def worth(contender: str) -> tuple[float, float]:
            tts = self.tts[contender]
            gaps = [
                1.0 if row is None or row.median_gap is None else row.median_gap
                for row in (self.best_row(c, contender) for c in self.comparisons)
            ]
            value = tts.value if tts else None
            return (np.inf if value is None else value, float(np.mean(gaps)))

        return tuple(sorted(self.contenders, key=worth))

    def profile(self) -> tuple[FloatArray, FloatArray]:
        """Dolan-More profile of TTS: tau (T,) and share (contenders, T)."""
        costs = np.full((len(self.contenders), len(self.comparisons)), np.inf)
        for i, contender in enumerate(self.contenders):
            for j, comparison in enumerate(self.comparisons):
                row = self.best_row(comparison, contender)
                if row is not None and row.tts is not None and row.tts.value is not None:
                    costs[i, j] = row.tts.value
        return performance_profile(costs)

    def gap_difference(self, first: str, second: str) -> Interval | None:
        """Mean difference in gap, first - second, over runs paired by problem, limit and seed.

        With five problems or more the pairs are the problems (mean gap over seeds), because
        runs on one problem say nothing of others. None with fewer than two pairs.
        """
        by_problem = []
        for comparison in self.comparisons:
            gaps = [_gaps(comparison, name) for name in (first, second)]
            shared = sorted(set(gaps[0]) & set(gaps[1]), key=str)
            if shared:
                by_problem.append([(gaps[0][run], gaps[1][run]) for run in shared])
        if len(by_problem) >= 5:
            pairs = [tuple(np.mean(runs, axis=0)) for runs in by_problem]
        else:
            pairs = [pair for runs in by_problem for pair in runs]
        if len(pairs) < 2:
            return None
        return paired_difference([a for a, _ in pairs], [b for _, b in pairs])


def _gaps(comparison: Comparison, contender: str) -> dict[tuple[float | None, int], float]:
    """Gap by time limit and seed; a run without a feasible sample counts as random guessing."""
    return {
        (row.time_limit, seed): 1.0 if gap is None else gap
        for row in comparison.rows
        if row.contender == contender
        for seed, gap in zip(row.seeds, row.gaps, strict=True)
    }


def analyse(store: Store) -> Analysis:
    """Judge all problems of a study.

    Raises:
        StudyError: the study has no finished run.
    """
    comparisons = [judge(store, problem_id) for problem_id in store.problem_ids()]
    finished = tuple(c for c in comparisons if any(row.runs for row in c.rows))
    if not finished:
        raise StudyError(f"{store.path} has no finished run to report on yet")
    plans = store.plans()
    return Analysis(
        name=", ".join(dict.fromkeys(str(plan.get("name", "study")) for plan in plans)),
        comparisons=finished,
        tuning=tuple(dict.fromkeys(str(plan["tuning"]) for plan in plans if "tuning" in plan)),
        environments=tuple(store.environments().values()),
        counts=store.counts(),
    )


def summary(analysis: Analysis) -> str:
    """The outcome in two sentences of plain words."""
    comparisons = analysis.comparisons
    proved = sum(c.reference.proved for c in comparisons)
    goal = "the proved optimum" if proved == len(comparisons) else "the best known state"
    where = comparisons[0].title if len(comparisons) == 1 else f"{len(comparisons)} problems"
    leader = analysis.ranking[0]
    tts = analysis.tts[leader]
    never = [
        name
        for name in analysis.contenders
        if not any(
            row.success is not None and row.success.successes
            for c in comparisons
            for row in c.rows
            if row.contender == name
        )
    ]
    if tts is not None and tts.value is not None:
        first = (
            f"On {where}, {leader} reaches {goal} soonest: {interval_text(tts, ' s')} for 99 % "
            "certainty."
        )
    else:
        first = f"On {where}, {leader} comes nearest, but no contender reaches {goal} on most."
    of = f"{len(never)} of {len(analysis.contenders)} contenders"
    second = (
        f"{of} never reach it: {listing(never)}."
        if never
        else "Every contender reaches it at least once."
    )
    return f"{first} {second}"


def fairness(analysis: Analysis) -> list[str]:
    """What a reader must know to trust the comparison, or not to."""
    comparisons = analysis.comparisons
    runs: Counter[tuple[str, str]] = Counter()
    for comparison in comparisons:
        for row in comparison.rows:
            runs[comparison.problem.id, row.contender] += row.runs
    uneven = len({runs[c.problem.id, name] for c in comparisons for name in analysis.contenders})
    statements = [
        "Every contender ran on the same problems with the same seeds and time limits."
        if uneven == 1
        else "Not every contender has the same number of finished runs on every problem: the "
        "tables give the numbers.",
    ]
    proofs = sorted({c.reference.source for c in comparisons if c.reference.proved})
    proved = sum(c.reference.proved for c in comparisons)
    if proved:
        statements.append(
            f"The reference is a proved optimum on {proved} of {len(comparisons)} problems "
            f"({listing(proofs)})."
        )
    if proved < len(comparisons):
        statements.append(
            f"On {len(comparisons) - proved} problems the reference is only the best state that "
            "any run found: gaps there are lower bounds and success rates upper bounds."
        )
    machines = [dict(e.get("machine", {})) for e in analysis.environments]
    processors = sorted({str(m["processor"]) for m in machines if "processor" in m})
    if processors:
        statements.append(
            f"Hardware: {listing(processors)}; each run in a process of its own with one thread."
        )
    statements += [f"Tuning: {text}." for text in analysis.tuning]
    kinds = {
        row.contender: row.execution
        for c in comparisons
        for row in c.rows
        if row.execution != "classical"
    }
    statements += [f"{name} is {kind}, not a classical solver." for name, kind in kinds.items()]
    statements.append(
        "Times are wall clock of one run, split into encoding, waiting (network and queue) and "
        "solving; compiling and importing are done before. Success means that a run's best "
        "feasible sample is the reference within rounding. TTS is t ln(0.01) / ln(1 - p), at "
        "least one run; its interval maps the exact (Clopper-Pearson) 95 % interval of p, and "
        "medians over problems are bootstrapped over the problems."
    )
    if analysis.counts.get("failed"):
        statements.append(f"{analysis.counts['failed']} runs failed; their reasons are listed.")
    left = analysis.counts.get("open", 0) + analysis.counts.get("running", 0)
    if left:
        statements.append(f"{left} planned runs are not done yet.")
    return statements


def interval_text(interval: Interval | None, unit: str = "") -> str:
    """An interval in words: "1.2 [0.9, 2]", or "> 7" where there is only a bound."""
    if interval is None:
        return "-"
    if interval.value is None:
        return f"> {interval.low:.3g}{unit}"
    high = "?" if interval.high is None else f"{interval.high:.3g}"
    return f"{interval.value:.3g}{unit} [{interval.low:.3g}, {high}]"


def listing(names: Sequence[str]) -> str:
    """Names with commas, the last with "and"."""
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))
