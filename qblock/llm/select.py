"""Choosing by the loss that is measured: an excited state is often the best model.

`select` measures low states, and may go on: in each further round H is corrected by what was
measured (`refine`), the corrected problem is solved, and its lowest states that are new are
measured in turn. That is done on a part of the rows of text; the best states are then measured
on all of them, so that text is spent where it decides. Choices made in other ways, such as those
of the cheap baselines, may enter the contest there.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from qblock.errors import ParameterError, ProblemError
from qblock.llm.blocks import ResidualStack, residual_stack
from qblock.llm.losses import Report, removal_losses, silent
from qblock.llm.refine import refine
from qblock.llm.states import lowest, spread_states
from qblock.llm.text import Tokens
from qblock.problem import BlockRemovalProblem, FloatArray, Sensitivity, States
from qblock.spectrum import RankedState, Spectrum


@dataclass(frozen=True)
class MeasuredState:
    """A state with the loss (nats per token), its standard error over the rows, and their number.

    The standard error is that of the loss itself. Two states are compared on the same rows, and
    their difference is known far better.
    """

    state: RankedState
    loss: float
    error: float
    rows: int

    @property
    def perplexity(self) -> float:
        return float(np.exp(self.loss))


@dataclass(frozen=True, eq=False)
class Selection:
    """What was measured, and the quadratic model that it leads to.

    Attributes:
        measured: those measured on most rows first, and by ascending loss among them; energies
            are of the original problem, and ranks are places by energy among those measured.
        refined: the sensitivity corrected by all that was measured.
        interrupted: stopped by Ctrl-C; what was measured before is there.
    """

    measured: tuple[MeasuredState, ...]
    refined: Sensitivity
    interrupted: bool = False

    @property
    def best(self) -> RankedState:
        """The state to choose."""
        return self.measured[0].state


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
    return _by_loss(spectrum, losses)


def _by_loss(spectrum: Spectrum, losses: FloatArray) -> tuple[MeasuredState, ...]:
    """The S states of a spectrum with their losses (S, m), ascending."""
    measured = [
        MeasuredState(state, float(rows.mean()), _standard_error(rows), len(rows))
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
    random: int = 0,
    search_rows: int | None = None,
    finalists: int = 8,
    challengers: States | None = None,
    seed: int = 0,
    batch_size: int = 8,
    report: Report = silent,
) -> Selection:
    """Measure low states in one round or more, and the best of them on all the text.

    Ctrl-C keeps the rounds that are finished.

    Args:
        stack: the model's blocks, those of the problem.
        problem: sensitivity and budget.
        tokens: calibration text, m rows.
        candidates: low states measured in each round.
        rounds: how often to solve and measure, each time after the first with a corrected H.
        random: random states spread over the energies that are measured in the first round, from
            which the correction learns what is not low.
        search_rows: rows, spread over the m, on which the rounds measure; all m if None.
        finalists: states measured on all m rows, if the rounds have not done so.
        challengers: 0/1 (C, N), feasible states chosen in another way, measured on all m rows.
        seed: of the random states.
        batch_size: rows that go through the model together.
        report: receives the share of work done.

    Raises:
        ParameterError: a number out of range.
        MeasurementError: a loss is NaN or infinite.
    """
    part = len(tokens) if search_rows is None else search_rows
    if min(candidates, rounds, finalists) < 1 or random < 0:
        raise ParameterError(
            f"{candidates} candidates in {rounds} rounds, {finalists} finalists, {random} random "
            "states: expected at least one of each, and no less than no random states"
        )
    if not 1 <= part <= len(tokens):
        raise ParameterError(f"{part} of {len(tokens)} rows cannot be searched on")
    search = tokens[:: len(tokens) // part][:part]
    none = np.zeros((0, len(problem)), dtype=np.int8)
    others = none if challengers is None else challengers
    promoted = finalists if part < len(tokens) else 0
    last = (promoted + len(others)) * len(tokens)
    work = _Work(report, part * (1 + random + rounds * candidates) + last)

    def losses_of(states: States, rows: Tokens) -> FloatArray:
        share = work.next(len(states) * len(rows))
        return removal_losses(stack, states, rows, batch_size=batch_size, report=share)

    base = float(losses_of(np.zeros((1, len(problem)), dtype=np.int8), search).mean())
    states, losses = none, np.zeros((0, part))
    refined, interrupted, current = problem.sensitivity, False, problem
    finals: tuple[MeasuredState, ...] = ()
    try:
        for number in range(rounds):
            fresh = _unknown(current, states, candidates)
            if number == 0 and random:
                spread = spread_states(problem, random, exclude=fresh, seed=seed)
                fresh = np.concatenate([fresh, spread])
            if not len(fresh):
                break
            found = losses_of(fresh, search)
            states, losses = np.concatenate([states, fresh]), np.concatenate([losses, found])
            refined = refine(problem, states, losses.mean(axis=1) - base)
            current = replace(problem, sensitivity=refined, linear=False)
        best = states[losses.mean(axis=1).argsort(kind="stable")[:promoted]]
        entrants = np.concatenate([best, others])
        if len(entrants):
            finals = _by_loss(*_spectrum(problem, entrants, losses_of(entrants, tokens)))
    except KeyboardInterrupt:
        if not len(states):
            raise
        interrupted = True
    return Selection(_ranked(problem, states, losses, finals), refined, interrupted)


class _Work:
    """Reports the share of all work done, from the shares of its parts."""

    def __init__(self, report: Report, total: int) -> None:
        self.report, self.total, self.done = report, total, 0

    def next(self, size: int) -> Report:
        """The `Report` of the next part."""
        before = self.done
        self.done += size
        return lambda share: self.report((before + share * size) / self.total)


def _unknown(problem: BlockRemovalProblem, known: States, count: int) -> States:
    """The `count` lowest states (S, N) that are not among the known ones."""
    tried = {state.tobytes() for state in known}
    low = lowest(problem, count + len(known)).states
    fresh = [state for state in low if state.tobytes() not in tried]
    return np.array(fresh[:count], dtype=np.int8).reshape(-1, len(problem))


def _spectrum(
    problem: BlockRemovalProblem, states: States, losses: FloatArray
) -> tuple[Spectrum, FloatArray]:
    """Distinct states (S, N) ranked by energy, and their losses (S, m) in that order."""
    spectrum = Spectrum.of_states(problem, states)
    place = {state.tobytes(): index for index, state in enumerate(states)}
    return spectrum, losses[[place[state.tobytes()] for state in spectrum.states]]


def _ranked(
    problem: BlockRemovalProblem,
    states: States,
    losses: FloatArray,
    finals: tuple[MeasuredState, ...],
) -> tuple[MeasuredState, ...]:
    """All that was measured, those on most rows first, then by loss; each with its rank among all.

    Of a state measured twice, what the finals say.
    """
    found = _by_loss(*_spectrum(problem, states, losses))
    last = {item.state.removed: item for item in (*found, *finals)}
    everything = np.array([problem.state_of(removed) for removed in last])
    measured = [
        replace(last[state.removed], state=state)
        for state in Spectrum.of_states(problem, everything)
    ]
    return tuple(sorted(measured, key=lambda m: (-m.rows, m.loss, m.state.rank)))
