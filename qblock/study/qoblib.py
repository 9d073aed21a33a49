"""The submission table of QOBLIB, the Quantum Optimization Benchmarking Library.

Columns follow its submission template (arXiv:2504.03832), with one more for the paradigm: one row
for each problem and contender, at the contender's best time limit. Submitter and reference are
left for the submitter to fill in.
"""

import csv
import io
from datetime import UTC, datetime

import numpy as np

from qblock.problem import BlockRemovalProblem
from qblock.study.analysis import Analysis
from qblock.study.judge import Comparison, ComparisonRow
from qblock.study.plan import REFERENCE_BACKENDS

MISSING = "N/A"

PARADIGMS = {
    "classical": "classical",
    "simulated": "quantum simulator",
    "emulated": "quantum simulator",
    "hardware": "quantum hardware",
}


def qoblib_table(analysis: Analysis) -> str:
    """The table as CSV."""
    rows = [
        _row(analysis, comparison, row)
        for comparison in analysis.comparisons
        for contender in analysis.contenders
        if (row := analysis.best_row(comparison, contender)) is not None
    ]
    stream = io.StringIO()
    writer = csv.DictWriter(stream, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def _row(analysis: Analysis, comparison: Comparison, row: ComparisonRow) -> dict[str, object]:
    problem, reference = comparison.problem, comparison.reference
    found = [energy for energy in row.energies if energy is not None]
    low, high = _coefficient_range(problem)
    seconds = f"{sum(row.seconds):.6g}"
    tts = row.tts.value if row.tts else None
    return {
        "Problem": comparison.title,
        "Submitter": "",
        "Date": datetime.now(UTC).date().isoformat(),
        "Reference": "",
        "Best Objective Value": min(found) if found else MISSING,
        "Optimality Bound": MISSING if reference.lower_bound is None else reference.lower_bound,
        "Modeling Approach": "binary quadratic with cardinality constraint"
        if row.penalty_weight is None
        else f"QUBO, penalty {row.penalty_weight:g}",
        "# Decision Variables": len(problem.reduced),
        "# Binary Variables": len(problem.reduced),
        "# Integer Variables": 0,
        "# Continuous Variables": 0,
        "# Non-Zero Coefficients": int(np.count_nonzero(np.triu(problem.reduced.Q))),
        "Coefficients Type": "continuous",
        "Coefficients Range": f"{low:.6g} - {high:.6g}",
        "Workflow": row.contender,
        "Algorithm Type": "Deterministic" if row.backend in REFERENCE_BACKENDS else "Stochastic",
        "Paradigm": PARADIGMS[row.execution],
        "# Runs": row.runs,
        "# Feasible Runs": len(found),
        "# Successful Runs": row.success.successes if row.success else 0,
        "Success Threshold": "equal to the reference within rounding",
        "Hardware Specifications": "; ".join(
            sorted({str(e.get("machine", {}).get("processor", "")) for e in analysis.environments})
        ),
        "Total Runtime": seconds,
        "CPU Runtime": MISSING if row.execution == "hardware" else seconds,
        "GPU Runtime": MISSING,
        "QPU Runtime": MISSING if row.qpu_seconds is None else f"{row.qpu_seconds:.6g}",
        "Other HW Runtime": MISSING,
        "Remarks": f"reference {'proved' if reference.proved else 'best known'}"
        + ("" if tts is None else f"; TTS 99 % {tts:.6g} s"),
    }


def _coefficient_range(problem: BlockRemovalProblem) -> tuple[float, float]:
    Q = problem.reduced.Q
    return (float(Q.min()), float(Q.max())) if Q.size else (0.0, 0.0)
