"""What a solver must beat: the usual ways to pick blocks without a Hamiltonian.

All take the same problem (its budgets and pins; its energy plays no part) and the same text,
and give a state like a solver's. Blocks always carry the numbers of the intact model, also in
the iterative methods, which measure the model without the blocks already chosen.
"""

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial

import numpy as np
import torch

from qblock.errors import ParameterError, ProblemError
from qblock.llm.blocks import ResidualStack
from qblock.llm.load import input_device
from qblock.llm.losses import removal_losses
from qblock.llm.text import Tokens
from qblock.problem import BlockRemovalProblem, FloatArray, States

Baseline = Callable[[ResidualStack, BlockRemovalProblem, Tokens], States]
"""Takes blocks, budgets and text; gives a feasible state, int8 (N,)."""

BATCH = 8
"""Rows that go through the model together."""


def block_influence(stack: ResidualStack, problem: BlockRemovalProblem, tokens: Tokens) -> States:
    """Blocks that turn the residual stream least: mean 1 - cos(input, output).

    Source: ShortGPT (Men et al., arXiv:2403.03853).
    """
    return cheapest(problem, _influences(stack, tokens, []))


def iterative_block_influence(
    stack: ResidualStack, problem: BlockRemovalProblem, tokens: Tokens
) -> States:
    """Block influence, measured anew after each removal."""

    def scores(state: States) -> FloatArray:
        return _influences(stack, tokens, np.flatnonzero(state).tolist())

    return one_by_one(problem, scores)


def norm_ratio(stack: ResidualStack, problem: BlockRemovalProblem, tokens: Tokens) -> States:
    """Blocks that add least to the residual stream: mean `|output - input| / |input|`."""

    def ratio(before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
        return (after - before).norm(dim=-1) / before.norm(dim=-1)

    return cheapest(problem, _layer_scores(stack, tokens, ratio, []))


def sliding_window(stack: ResidualStack, problem: BlockRemovalProblem, tokens: Tokens) -> States:
    """The run of consecutive blocks with the smallest angle between its input and output.

    Source: Gromov et al., arXiv:2403.17887.

    Raises:
        ProblemError: no run of consecutive blocks meets the budgets and pins.
    """
    _whole_layers(stack)
    n = len(problem)
    count = sum(budget.count for budget in problem.budgets)
    windows = np.zeros((n - count + 1, n), dtype=np.int8)
    for first in range(len(windows)):
        windows[first, first : first + count] = 1
    feasible = problem.is_feasible(windows)
    if not feasible.any():
        raise ProblemError(f"no {count} consecutive blocks meet the budgets and pins")
    angles = np.zeros(len(windows))
    for batch in tokens.batches(BATCH):
        streams = _streams(stack, batch, [])
        for start in np.flatnonzero(feasible).tolist():
            cosine = _cosine(streams[start], streams[start + count])
            angles[start] += float(torch.arccos(cosine.clamp(-1, 1)).sum())
    angles[~feasible] = np.inf
    return np.asarray(windows[angles.argmin()])


def single_loss(stack: ResidualStack, problem: BlockRemovalProblem, tokens: Tokens) -> States:
    """Blocks whose removal alone raises the loss least."""
    singles = np.eye(len(problem), dtype=np.int8)
    return cheapest(problem, removal_losses(stack, singles, tokens, batch_size=BATCH).mean(axis=1))


def greedy_loss(stack: ResidualStack, problem: BlockRemovalProblem, tokens: Tokens) -> States:
    """One block after another, each time the one whose removal raises the loss least.

    Source: SLEB (Song et al., arXiv:2402.09025).
    """

    def scores(state: States) -> FloatArray:
        open_blocks = np.flatnonzero(state == 0)
        trials = np.tile(state, (len(open_blocks), 1))
        trials[np.arange(len(open_blocks)), open_blocks] = 1
        losses = np.full(len(state), np.inf)
        losses[open_blocks] = removal_losses(stack, trials, tokens, batch_size=BATCH).mean(axis=1)
        return losses

    return one_by_one(problem, scores)


def random_blocks(
    stack: ResidualStack, problem: BlockRemovalProblem, tokens: Tokens, seed: int = 0
) -> States:
    """A uniformly random feasible state."""
    return cheapest(problem, np.random.default_rng(seed).random(len(problem)))


BASELINES: Mapping[str, Baseline] = {
    "block-influence": block_influence,
    "iterative-block-influence": iterative_block_influence,
    "norm-ratio": norm_ratio,
    "sliding-window": sliding_window,
    "single-loss": single_loss,
    "greedy-loss": greedy_loss,
    "random": partial(random_blocks, seed=0),
}


CHEAP = ("block-influence", "iterative-block-influence", "norm-ratio", "sliding-window")
"""Baselines that take a few passes over the text: hidden states are compared, not losses."""


def cheap_choices(stack: ResidualStack, problem: BlockRemovalProblem, tokens: Tokens) -> States:
    """What the cheap baselines pick, int8 (C, N), distinct; those that cannot are left out."""
    picked = []
    for name in CHEAP:
        with suppress(ParameterError, ProblemError):  # of sublayers, or pins without a window
            picked.append(choose(name, stack, problem, tokens))
    if not picked:
        return np.zeros((0, len(problem)), dtype=np.int8)
    return np.asarray(np.unique(picked, axis=0), dtype=np.int8)


def choose(name: str, stack: ResidualStack, problem: BlockRemovalProblem, tokens: Tokens) -> States:
    """The state (N,) that the named baseline picks.

    Raises:
        ParameterError: no such baseline, or one that needs whole layers as blocks.
        ProblemError: the budgets cannot be met in this way.
    """
    check_names([name])
    return BASELINES[name](stack, problem, tokens)


def check_names(names: Iterable[str]) -> None:
    """Raise `ParameterError` if one of the names is no baseline."""
    unknown = [name for name in names if name not in BASELINES]
    if unknown:
        raise ParameterError(f"no baseline {unknown[0]!r}; there are {', '.join(BASELINES)}")


def cheapest(problem: BlockRemovalProblem, scores: FloatArray) -> States:
    """The feasible state (N,) with the smallest sum of scores (N,); ties by the block's number."""
    reduced = problem.reduced
    free = np.zeros((1, len(reduced)), dtype=np.int8)
    for k, budget in enumerate(reduced.budgets):
        members = np.flatnonzero(reduced.group_of == k)
        order = np.argsort(scores[reduced.free[members]], kind="stable")
        free[0, members[order[: int(budget)]]] = 1
    return np.asarray(reduced.lift(free)[0])


def one_by_one(problem: BlockRemovalProblem, scores: Callable[[States], FloatArray]) -> States:
    """Removes the free block of lowest score, asks for the scores again, until budgets are met.

    `scores` takes the state so far (N,) and gives a score for each block (N,); the scores of
    blocks already removed do not matter.
    """
    reduced = problem.reduced
    state = reduced.fixed.copy()
    left = reduced.budgets.copy()
    while left.any():
        open_group = left[reduced.group_of] > 0
        candidates = reduced.free[open_group & (state[reduced.free] == 0)]
        best = candidates[scores(state)[candidates].argmin()]
        state[best] = 1
        left[reduced.group_of[reduced.free == best]] -= 1
    return state


def _influences(stack: ResidualStack, tokens: Tokens, removed: list[int]) -> FloatArray:
    def influence(before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
        return 1 - _cosine(before, after)

    return _layer_scores(stack, tokens, influence, removed)


def _cosine(before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
    return torch.cosine_similarity(before.double(), after.double(), dim=-1)


def _layer_scores(
    stack: ResidualStack,
    tokens: Tokens,
    score: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    removed: list[int],
) -> FloatArray:
    """Mean over the tokens of a score of each block's input and output, float64 (N,)."""
    _whole_layers(stack)
    total = np.zeros(len(stack))
    for batch in tokens.batches(BATCH):
        streams = _streams(stack, batch, removed)
        for block in range(len(stack)):
            total[block] += float(score(streams[block], streams[block + 1]).double().sum())
    return total / int(tokens.mask.sum())


def _streams(stack: ResidualStack, tokens: Tokens, removed: list[int]) -> list[torch.Tensor]:
    """The residual stream before each layer and after the last, each (tokens, D), no padding."""
    device = input_device(stack.model)
    ids = torch.from_numpy(tokens.ids).to(device)
    with torch.inference_mode(), stack.skipping(removed), stack.capturing() as streams:
        stack.model(input_ids=ids, use_cache=False)
    mask = torch.from_numpy(tokens.mask)
    return [stream.cpu()[mask].float() for stream in streams]


def _whole_layers(stack: ResidualStack) -> None:
    if len(stack) != len(stack.layers):
        raise ParameterError(
            "this baseline compares the residual stream before and after a layer, so its blocks "
            "must be whole layers; the loss-based baselines also work on sublayers"
        )
