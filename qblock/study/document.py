"""Comparisons as JSON documents. What is infinite or unknown is null."""

from dataclasses import asdict
from typing import Any

from qblock.study.judge import Comparison, ComparisonRow, Reference
from qblock.study.statistics import Proportion


def comparison_document(comparison: Comparison) -> dict[str, Any]:
    """The JSON document of a comparison."""
    problem = comparison.problem
    return {
        "problem": {
            "name": problem.sensitivity.name,
            "id": problem.id,
            "blocks": len(problem),
            "remove": problem.remove,
            "keep": list(problem.keep),
            "drop": list(problem.drop),
            "linear": problem.linear,
            "effective_rank": problem.sensitivity.effective_rank,
            "feasible_states": problem.reduced.num_feasible,
        },
        "reference": _reference_document(comparison.reference),
        "rows": [_row_document(row) for row in comparison.rows],
    }


def _reference_document(reference: Reference) -> dict[str, Any]:
    return {
        "energy": None if reference.energy != reference.energy else reference.energy,
        "proved": reference.proved,
        "lower_bound": reference.lower_bound,
        "source": reference.source,
        "random_mean": reference.random_mean,
        "proved_states": len(reference.states),
    }


def _row_document(row: ComparisonRow) -> dict[str, Any]:
    return {
        "contender": row.contender,
        "backend": row.backend,
        "execution": row.execution,
        "time_limit": row.time_limit,
        "runs": row.runs,
        "errors": dict(row.errors),
        "feasible_rate": row.feasible_rate,
        "best_gap": row.best_gap,
        "median_gap": row.median_gap,
        "success": _proportion(row.success),
        "within_one_percent": _proportion(row.near),
        "best_rank": row.best_rank,
        "coverage": row.coverage,
        "pooled_coverage": row.pooled_coverage,
        "seconds": row.median_seconds,
        "timing": asdict(row.timing) if row.timing else None,
        "tts": asdict(row.tts) if row.tts else None,
        "time_to_one_percent": asdict(row.time_to_epsilon) if row.time_to_epsilon else None,
    }


def _proportion(value: Proportion | None) -> dict[str, Any] | None:
    if value is None:
        return None
    low, high = value.interval()
    return {**asdict(value), "rate": value.value, "low": low, "high": high}
