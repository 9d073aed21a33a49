"""The Leap hybrid nonlinear solver: the decision is a set of the size of the budget."""

from typing import Any, ClassVar

import dimod
import numpy as np

from qblock.backend import Capabilities
from qblock.errors import ServiceError
from qblock.problem import ReducedProblem, States
from qblock_dwave.hybrid import HybridBackend, HybridParameters
from qblock_dwave.leap import Prepared


def nonlinear_model(problem: ReducedProblem) -> Any:
    """A `dwave.optimization.Model` with one set decision per budget, of exactly its size.

    With S_k the set of group k, the energy is the sum over pairs of groups of the block of Q
    between them, restricted to rows in S_k and columns in S_l. Every state is feasible.
    """
    from dwave.optimization import Model

    model = Model()
    members = [np.flatnonzero(problem.group_of == k) for k in range(len(problem.budgets))]
    chosen = [
        model.set(len(group), min_size=int(budget), max_size=int(budget))
        for group, budget in zip(members, problem.budgets, strict=True)
    ]
    energy = None
    for k, rows in enumerate(members):
        for m, columns in enumerate(members[k:], start=k):
            block = problem.Q[np.ix_(rows, columns)] * (1 if k == m else 2)
            term = model.constant(block)[chosen[k], :].sum(axis=0)[chosen[m]].sum()
            energy = term if energy is None else energy + term
    model.minimize(energy)
    return model


def model_states(problem: ReducedProblem, model: Any) -> States:
    """The states (S, n), int8, that a locked model of `nonlinear_model` holds."""
    states = np.zeros((model.states.size(), len(problem)), dtype=np.int8)
    for k, chosen in enumerate(model.iter_decisions()):
        members = np.flatnonzero(problem.group_of == k)
        for row, state in enumerate(states):
            state[members[np.asarray(chosen.state(row), dtype=np.int64)]] = 1
    return states


class LeapHybridNL(HybridBackend[HybridParameters]):
    """The hybrid solver for nonlinear models: no penalty, no constraint, sets of the right size."""

    name = "leap-hybrid-nl"
    Parameters = HybridParameters
    capabilities = Capabilities(
        summary="Leap hybrid nonlinear solver, budgets as sizes of sets; billed by the second",
        constraint="native",
        method="heuristic",
        location="cloud",
        reproducible="never",
        time_limit_slack=10.0,
    )
    features: ClassVar[dict[str, Any]] = {"supported_problem_types__contains": "nl"}

    def prepare(
        self, solver: Any, problem: ReducedProblem, parameters: HybridParameters, seed: int
    ) -> Prepared:
        model = nonlinear_model(problem)
        model.lock()
        nodes, size = model.num_nodes(), model.state_size()
        properties = solver.properties
        # The formula of dwave.system's LeapHybridNLSampler.estimated_min_time_limit.
        by_size = (
            properties.get("num_nodes_multiplier", 8.306792043756981e-05) * nodes
            + properties.get("state_size_multiplier", 2.8379674360396316e-10) * size
            + properties.get("num_nodes_state_size_multiplier", 2.1097317822863966e-12)
            * nodes
            * size
            + properties.get("offset", 0.012671678446550175)
        )
        return self.prepared(
            solver,
            problem,
            parameters.solver_seconds,
            float(max(by_size, properties.get("min_time_limit", 5.0))),
            {},
            lambda time_limit, label: solver.sample_nlm(model, time_limit=time_limit, label=label),
        )

    def decode(self, problem: ReducedProblem, answer: Any) -> dimod.SampleSet:
        model = nonlinear_model(problem)
        with model.lock():
            model.states.from_file(answer.answer_data, check_header=False)
            states = model_states(problem, model)
        if not problem.is_feasible(states).all():
            raise ServiceError(f"job {answer.id} was answered with sets of another size")
        samples = dimod.SampleSet.from_samples(
            (states, list(problem.blocks)),
            vartype="BINARY",
            energy=np.einsum("si,ij,sj->s", states, problem.Q, states),
            sort_labels=False,
        )
        samples.info.update(answer.timing)
        return samples
