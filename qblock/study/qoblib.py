"""The submission table of QOBLIB, the Quantum Optimization Benchmarking Library.

Columns follow its submission template (arXiv:2504.03832): one row for each problem and
contender, at the contender's best time limit.
"""

import csv
import io

import numpy as np

from qblock.problem import BlockRemovalProblem
from qblock.study.analysis import Analysis
from qblock.study.judge import Comparison, ComparisonRow

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
    success = row.success.successes if row.success else 0
    hardware = row.execution == "hardware"
    total = sum(row.seconds)
    low, high = _coefficient_range(problem)
    return {
        "Problem": comparison.title,
        "Submitter": "",
        "Best Objective Value": min(found) if found else "N/A",
        "Optimality Bound": "N/A" if reference.lower_bound is None else reference.lower_bound,
        "Modeling Approach": "binary quadratic, cardinality constraint"
        if row.penalty_weight is None
        else f"QUBO, penalty {row.penalty_weight:g}",
        "# Decision Variables": len(problem.reduced),
        "# Binary Variables": len(problem.reduced),
        "# Non-Zero Coefficients": int(np.count_nonzero(np.triu(problem.reduced.Q))),
        "Coefficients Type": "continuous",
        "Coefficients Range": f"[{low:.6g}, {high:.6g}]",
        "Workflow": row.contender,
        "Algorithm Type": PARADIGMS[row.execution],
        "# Runs": row.runs,
        "# Feasible Runs": len(found),
        "# Successful Runs": success,
        "Success Threshold": "0 (equal to the reference within rounding)",
        "Hardware Specifications": "; ".join(
            sorted({str(e.get("machine", {}).get("processor", "")) for e in analysis.environments})
        ),
        "Total Runtime": f"{total:.6g}",
        "CPU Runtime": "N/A" if hardware else f"{total:.6g}",
        "GPU Runtime": "N/A",
        "QPU Runtime": f"{sum(row.seconds):.6g}" if hardware else "N/A",
        "Time To Solution": "N/A"
        if row.tts is None or row.tts.value is None
        else f"{row.tts.value:.6g}",
    }


def _coefficient_range(problem: BlockRemovalProblem) -> tuple[float, float]:
    Q = problem.reduced.Q
    return (float(Q.min()), float(Q.max())) if Q.size else (0.0, 0.0)
