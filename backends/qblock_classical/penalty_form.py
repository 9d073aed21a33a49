"""The penalty form of a problem as the dwave-samplers solvers take it."""

import time
from dataclasses import dataclass

import dimod

from qblock.encoding import Encoding
from qblock.penalty import Penalty, penalty_weight
from qblock.problem import ReducedProblem


@dataclass(frozen=True)
class PenaltyForm:
    """An encoded problem: its BQM, the penalty weight in it, and the seconds both took."""

    encoding: Encoding
    bqm: dimod.BinaryQuadraticModel
    weight: float
    seconds: float


def penalty_form(problem: ReducedProblem, penalty: Penalty) -> PenaltyForm:
    """Encode the problem with the penalty weight that is named or given."""
    started = time.perf_counter()
    encoding = Encoding(problem)
    weight = penalty_weight(problem, penalty)
    bqm = encoding.bqm(weight)
    return PenaltyForm(encoding, bqm, weight, time.perf_counter() - started)
