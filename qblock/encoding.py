"""The problem as a PyQUBO model, and its views as BQM, Ising, CQM and QuadraticProgram.

PyQUBO is used in this module alone. The model is built from the upper triangle of Q, about
twice as fast as the sum over all pairs (`benchmarks/encoding.py`), and carries the penalty
weight as a placeholder, so it is compiled once and reweighted for free.
"""

from functools import cached_property
from typing import Any

import dimod
import numpy as np
import pyqubo
from pydantic import Field

from qblock.backend import Parameters
from qblock.errors import BackendUnavailable
from qblock.penalty import Penalty, penalty_weight
from qblock.problem import ReducedProblem, States

PLACEHOLDER = "lambda"


class PenaltyParameters(Parameters):
    """Parameters shared by every backend that solves the penalty form."""

    penalty: Penalty = Field(
        "tight",
        description="penalty weight: 'tight' and 'safe' are proved sufficient, or a number",
        json_schema_extra={"unit": "energy"},
    )


class Encoding:
    """A reduced problem, encoded with PyQUBO.

    Every view has the n variables of `problem`, by name and in its order, and leaves out
    `problem.offset`.
    """

    def __init__(self, problem: ReducedProblem) -> None:
        self.problem = problem

    @cached_property
    def expression(self) -> Any:
        """The PyQUBO Hamiltonian y'Qy + Placeholder("lambda") * sum_k (sum y - m_k)^2."""
        Q = self.problem.Q
        y = [pyqubo.Binary(block) for block in self.problem.blocks]
        # The zero makes an expression of n = 1 and keeps variables that occur in no term.
        energy = sum((Q[i, i] * y[i] for i in range(len(y))), start=0.0 * y[0])
        for i in range(len(y)):
            row = [2 * Q[i, j] * y[j] for j in range(i + 1, len(y)) if Q[i, j] != 0]
            if row:
                energy += y[i] * sum(row[1:], start=row[0])
        weight = pyqubo.Placeholder(PLACEHOLDER)
        for k, budget in enumerate(self.problem.budgets):
            members = np.flatnonzero(self.problem.group_of == k)
            total = sum((y[i] for i in members[1:]), start=y[members[0]])
            energy += weight * pyqubo.Constraint((total - int(budget)) ** 2, label=f"budget {k}")
        return energy

    @cached_property
    def model(self) -> Any:
        """The compiled PyQUBO model."""
        return self.expression.compile()

    def bqm(self, penalty: Penalty = "tight") -> dimod.BinaryQuadraticModel:
        """The penalty form as a binary quadratic model (offset lambda * sum_k m_k^2 included)."""
        weight = penalty_weight(self.problem, penalty)
        compiled = self.model.to_bqm(feed_dict={PLACEHOLDER: weight})
        ordered = dimod.BinaryQuadraticModel("BINARY")
        for block in self.problem.blocks:  # PyQUBO's order is arbitrary
            ordered.add_variable(block)
        ordered.update(compiled)
        return ordered

    def ising(
        self, penalty: Penalty = "tight"
    ) -> tuple[dict[str, float], dict[tuple[str, str], float], float]:
        """Fields h, couplings J and offset of the penalty form in spins s = 2y - 1."""
        h, J, offset = self.bqm(penalty).to_ising()
        return h, J, offset

    def cqm(self) -> dimod.ConstrainedQuadraticModel:
        """The constrained quadratic model: the energy, and one equality per budget."""
        problem = self.problem
        energy = dimod.BinaryQuadraticModel("BINARY")
        for block in problem.blocks:
            energy.add_variable(block)
        energy.add_linear_from(zip(problem.blocks, np.diag(problem.Q), strict=True))
        rows, columns = np.triu_indices(len(problem), 1)
        energy.add_quadratic_from(
            (problem.blocks[i], problem.blocks[j], 2 * problem.Q[i, j])
            for i, j in zip(rows, columns, strict=True)
            if problem.Q[i, j] != 0
        )
        cqm = dimod.ConstrainedQuadraticModel.from_bqm(energy)
        for k, budget in enumerate(problem.budgets):
            terms = [(problem.blocks[i], 1) for i in np.flatnonzero(problem.group_of == k)]
            cqm.add_constraint_from_iterable(terms, "==", rhs=int(budget), label=f"budget {k}")
        return cqm

    def quadratic_program(self) -> Any:
        """A `qiskit_optimization.QuadraticProgram` with one linear equality per budget.

        Raises:
            BackendUnavailable: qiskit-optimization is not installed.
        """
        try:
            from qiskit_optimization import QuadraticProgram
        except ImportError:
            raise BackendUnavailable(
                'qiskit-optimization is not installed: pip install "qblock[qiskit]"'
            ) from None
        problem = self.problem
        program = QuadraticProgram("block removal")
        for block in problem.blocks:
            program.binary_var(block)
        upper = np.triu(problem.Q, 1) * 2 + np.diag(np.diag(problem.Q))
        program.minimize(quadratic=upper)
        for k, budget in enumerate(problem.budgets):
            members = (problem.group_of == k).astype(int)
            program.linear_constraint(members, "==", int(budget), name=f"budget {k}")
        return program

    def decode(self, samples: dimod.SampleSet) -> States:
        """States (S, n), int8, of a sample set over this problem's variables, one per row."""
        order = [samples.variables.index(block) for block in self.problem.blocks]
        values = samples.record.sample[:, order]
        return np.asarray(values > 0, dtype=np.int8)  # right for spins and for bits
