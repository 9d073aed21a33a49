"""The Leap hybrid solvers: the penalty form as BQM, or the budgets as constraints of a CQM."""

from typing import Any, ClassVar

import dimod
import numpy as np
from pydantic import Field

from qblock.backend import Capabilities, Estimate, Samples
from qblock.encoding import Encoding, PenaltyParameters
from qblock.errors import CapacityError, ParameterError, ServiceError
from qblock.penalty import penalty_weight
from qblock.problem import ReducedProblem
from qblock_dwave.leap import LeapBackend, LeapParameters, P, Prepared, numbers
from qblock_dwave.ledger import JobRecord


class HybridParameters(LeapParameters):
    solver_seconds: float | None = Field(
        None,
        gt=0,
        description="how long the solver works, which is what is billed; None: its least",
        json_schema_extra={"unit": "s"},
    )


class HybridBQMParameters(HybridParameters, PenaltyParameters):
    """The penalty form has a weight."""


class HybridBackend(LeapBackend[P]):
    """What the hybrid solvers share: sizes, billed time and answers over the blocks."""

    client = "hybrid"

    @staticmethod
    def prepared(
        solver: Any,
        problem: ReducedProblem,
        asked: float | None,
        least: float,
        programme: dict[str, Any],
        send: Any,
    ) -> Prepared:
        """The job, with its billed time checked against the solver's limits.

        Args:
            asked: seconds that the user wants, or None for `least`.
            send: takes the seconds and the label.
        """
        most = 3600 * float(solver.properties.get("maximum_time_limit_hrs", 24))
        seconds = least if asked is None else asked
        if not least <= seconds <= most:
            raise ParameterError(
                f"solver_seconds={seconds:g}: solver {solver.name} takes {least:g} to {most:g} "
                "for this problem"
            )
        largest = solver.properties.get("maximum_number_of_variables")
        if largest is not None and len(problem) > largest:
            raise CapacityError(
                f"{len(problem)} undecided blocks; solver {solver.name} takes {largest}"
            )
        return Prepared(
            estimate=lambda: Estimate(
                seconds=seconds,
                qpu_seconds=seconds,
                notes=(
                    f"solver {solver.name}; billed for its whole time, not the QPU's share",
                    *(() if largest is None else (f"it holds at most {largest} blocks",)),
                ),
            ),
            programme={"solver_seconds": seconds, **programme},
            send=lambda label: send(seconds, label),
        )

    def check_answer(
        self, problem: ReducedProblem, parameters: P, record: JobRecord, answer: dimod.SampleSet
    ) -> None:
        values = answer.record.sample
        if set(answer.variables) != set(problem.blocks) or not len(answer):
            raise ServiceError(
                f"job {record.job} was answered with {len(answer)} samples of "
                f"{len(answer.variables)} blocks, expected {len(problem)} blocks; "
                f"`qblock fetch {record.job}` asks again"
            )
        if not np.isin(values, (0, 1)).all():
            raise ServiceError(
                f"job {record.job} was answered with values other than 0 and 1; "
                f"`qblock fetch {record.job}` asks again"
            )

    def read(
        self, problem: ReducedProblem, parameters: P, record: JobRecord, answer: dimod.SampleSet
    ) -> Samples:
        billed = ("charge_time", "run_time", "qpu_access_time")
        return Samples(
            states=Encoding(problem).decode(answer),
            occurrences=np.asarray(answer.record.num_occurrences, dtype=np.int64),
            details={
                **record.programme,
                "service_timing_us": numbers(
                    {key: answer.info.get(key) for key in billed},
                ),
            },
        )


class LeapHybridBQM(HybridBackend[HybridBQMParameters]):
    """The hybrid solver for binary quadratic models, on the penalty form."""

    name = "leap-hybrid"
    Parameters = HybridBQMParameters
    capabilities = Capabilities(
        summary="Leap hybrid BQM solver on the penalty form; billed by the second",
        constraint="penalty",
        method="heuristic",
        location="cloud",
        reproducible="never",
        time_limit_slack=10.0,
    )
    features: ClassVar[dict[str, Any]] = {"supported_problem_types__contains": "bqm"}

    def prepare(
        self, solver: Any, problem: ReducedProblem, parameters: HybridBQMParameters, seed: int
    ) -> Prepared:
        weight = penalty_weight(problem, parameters.penalty)
        bqm = Encoding(problem).bqm(weight)
        sizes, seconds = zip(*solver.properties["minimum_time_limit"], strict=True)
        return self.prepared(
            solver,
            problem,
            parameters.solver_seconds,
            float(np.interp(len(problem), sizes, seconds)),
            {"penalty_weight": weight},
            lambda time_limit, label: solver.sample_bqm(bqm, time_limit=time_limit, label=label),
        )


class LeapHybridCQM(HybridBackend[HybridParameters]):
    """The hybrid solver for constrained quadratic models: one equality per budget.

    The solver may return samples that violate a constraint, so the constraint is native to the
    model and not to the samples.
    """

    name = "leap-hybrid-cqm"
    Parameters = HybridParameters
    capabilities = Capabilities(
        summary="Leap hybrid CQM solver, budgets as constraints, no penalty; billed by the second",
        constraint="penalty",
        method="heuristic",
        location="cloud",
        reproducible="never",
        time_limit_slack=10.0,
    )
    features: ClassVar[dict[str, Any]] = {"supported_problem_types__contains": "cqm"}

    def prepare(
        self, solver: Any, problem: ReducedProblem, parameters: HybridParameters, seed: int
    ) -> Prepared:
        cqm = Encoding(problem).cqm()
        properties = solver.properties
        # The formula of dwave.system's LeapHybridCQMSampler.min_time_limit.
        by_size = (
            properties.get("num_variables_multiplier", 1.57e-04) * len(cqm.variables)
            + properties.get("num_biases_multiplier", 4.65e-06) * cqm.num_biases()
            + properties.get("num_constraints_multiplier", 6.44e-09)
            * len(cqm.variables)
            * len(cqm.constraints)
        )
        return self.prepared(
            solver,
            problem,
            parameters.solver_seconds,
            float(max(by_size, properties["minimum_time_limit_s"])),
            {},
            lambda time_limit, label: solver.sample_cqm(cqm, time_limit=time_limit, label=label),
        )
