"""Re-ranking low states by the loss that is measured: an excited state is often the best model.

`refine` closes the loop once more. The measured losses of low states tell where the quadratic
model errs; the smallest change of H (in the Frobenius norm) that explains them,

    H <- H + sum_s c_s x_s x_s',   c = (K + ridge I)^-1 (measured - E),   K_st = (x_s . x_t)^2,

is kernel ridge regression with the quadratic kernel, and the corrected form is solved again:
optimisation of a costly function by a quadratic surrogate, as in BOCS (Baptista and Poloczek,
arXiv:1806.08838), started from the curvature in place of nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from qblock.errors import BackendUnavailable, ParameterError, ProblemError
from qblock.llm.blocks import ResidualStack, residual_stack
from qblock.llm.losses import Report, removal_losses, silent
from qblock.llm.text import Tokens
from qblock.problem import BlockRemovalProblem, FloatArray, Sensitivity, States
from qblock.registry import backends
from qblock.spectrum import RankedState, Spectrum

EXACT_BACKENDS = ("exact", "brute-force")


@dataclass(frozen=True)
class MeasuredState:
    """A state with the loss (nats per token) and its standard error over the rows of text."""

    state: RankedState
    loss: float
    error: float

    @property
    def perplexity(self) -> float:
        return float(np.exp(self.loss))


def matching_stack(
    model: Any, problem: BlockRemovalProblem, architecture: str | Path | None = None
) -> ResidualStack:
    """The stack of the model whose blocks, whole layers or sublayers, are those of the problem.

    Raises:
        ModelError: the architecture is not described.
        ProblemError: the problem was calibrated on another model.
    """
    stack = residual_stack(model, "block", architecture=architecture)
    if stack.names != problem.blocks:
        sublayers = residual_stack(model, "sublayer", architecture=architecture)
        if sublayers.names != problem.blocks:
            raise ProblemError(
                f"the instance {problem.sensitivity.name!r} has {len(problem)} blocks, "
                f"{problem.blocks[0]!r} to {problem.blocks[-1]!r}, and the model {len(stack)}, "
                f"{stack.names[0]!r} to {stack.names[-1]!r}: give the model it was calibrated on"
            )
        return sublayers
    return stack


def lowest(problem: BlockRemovalProblem, count: int) -> Spectrum:
    """The `count` lowest states, proved, from the first exact backend that is available.

    Raises:
        BackendUnavailable: none is.
        CapacityError: the problem is too large for it.
    """
    for name in EXACT_BACKENDS:
        entry = backends().get(name)
        if entry is not None and entry.backend is not None and entry.availability.ok:
            spectrum = Spectrum.of(problem, entry.backend.sample(problem, seed=0, k=count))
            return truncated(spectrum, count)
    raise BackendUnavailable(f"no exact backend is available ({', '.join(EXACT_BACKENDS)})")


def truncated(spectrum: Spectrum, count: int) -> Spectrum:
    """The `count` lowest states of a spectrum."""
    return replace(
        spectrum,
        states=spectrum.states[:count],
        energies=spectrum.energies[:count],
        occurrences=spectrum.occurrences[:count],
    )


def measure(
    stack: ResidualStack,
    spectrum: Spectrum,
    tokens: Tokens,
    *,
    batch_size: int = 8,
    report: Report = silent,
) -> tuple[MeasuredState, ...]:
    """The states of a spectrum, by ascending measured loss on the tokens.

    Raises:
        MeasurementError: a loss is NaN or infinite.
    """
    losses = removal_losses(stack, spectrum.states, tokens, batch_size=batch_size, report=report)
    measured = [
        MeasuredState(state, float(rows.mean()), _standard_error(rows))
        for state, rows in zip(spectrum, losses, strict=True)
    ]
    return tuple(sorted(measured, key=lambda m: (m.loss, m.state.rank)))


def _standard_error(values: FloatArray) -> float:
    return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 0.0


def select(
    stack: ResidualStack,
    problem: BlockRemovalProblem,
    tokens: Tokens,
    *,
    candidates: int = 20,
    rounds: int = 1,
    batch_size: int = 8,
    report: Report = silent,
) -> tuple[MeasuredState, ...]:
    """The states measured, best first; energies and ranks are those of the original problem.

    Args:
        stack: the model's blocks, those of the problem.
        problem: sensitivity and budget.
        tokens: calibration text.
        candidates: low states measured in each round.
        rounds: with more than one, H is corrected by what was measured (`refine`), and the
            lowest states of the corrected problem that are new are measured in turn.
        batch_size: rows that go through the model together.
        report: receives the share of work done.

    Raises:
        ParameterError: no candidates or no rounds.
        MeasurementError: a loss is NaN or infinite.
    """
    if candidates < 1 or rounds < 1:
        raise ParameterError(
            f"{candidates} candidates in {rounds} rounds: expected at least one of each"
        )
    intact = np.zeros((1, len(problem)), dtype=np.int8)
    base = float(removal_losses(stack, intact, tokens, batch_size=batch_size).mean())
    current = problem
    measured: dict[bytes, MeasuredState] = {}
    tried: list[States] = []
    for number in range(rounds):

        def inner(share: float, number: int = number) -> None:
            report((number + share) / rounds)

        low = lowest(current, candidates + len(tried))
        fresh = np.array([s for s in low.states if s.tobytes() not in measured][:candidates])
        if not len(fresh):
            break
        spectrum = Spectrum.of_states(problem, fresh)
        for item in measure(stack, spectrum, tokens, batch_size=batch_size, report=inner):
            measured[problem.state_of(item.state.removed).tobytes()] = item
        tried = [np.frombuffer(key, dtype=np.int8) for key in measured]
        changes = np.array([item.loss - base for item in measured.values()])
        current = replace(
            problem, sensitivity=refine(problem, np.array(tried), changes), linear=False
        )
    return _ranked(problem, tuple(measured.values()))


def _ranked(
    problem: BlockRemovalProblem, measured: Sequence[MeasuredState]
) -> tuple[MeasuredState, ...]:
    """By ascending loss; the rank of each is its place by energy among those measured."""
    states = np.array([problem.state_of(item.state.removed) for item in measured])
    spectrum = Spectrum.of_states(problem, states)
    by_name = {item.state.removed: item for item in measured}
    ranked = [replace(by_name[state.removed], state=state) for state in spectrum]
    return tuple(sorted(ranked, key=lambda m: (m.loss, m.state.rank)))


def refine(
    problem: BlockRemovalProblem,
    states: States,
    changes: FloatArray,
    *,
    ridge: float = 1e-2,
) -> Sensitivity:
    """The sensitivity corrected by measured loss changes, as the module describes.

    Args:
        problem: whose energy E is to be corrected.
        states: 0/1 (S, N).
        changes: float64 (S,), measured loss minus that of the intact model.
        ridge: relative to the largest K_ss; measured losses carry the noise of a short text.
    """
    X = np.asarray(states, dtype=np.float64)
    K = (X @ X.T) ** 2
    damped = K + ridge * K.diagonal().max() * np.eye(len(K))
    weights = np.linalg.solve(damped, changes - problem.energy(states))
    return replace(problem.sensitivity, H=problem.Q + (X.T * weights) @ X, g=None, A=None)
