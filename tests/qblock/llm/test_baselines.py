"""Baselines against plain recomputation on tiny models."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from llm_support import plain_losses, ragged_tokens
from support import problems
from tiny_models import tiny_model

from qblock.errors import ParameterError, ProblemError
from qblock.llm.baselines import BASELINES, CHEAP, cheap_choices, cheapest, choose, one_by_one
from qblock.llm.blocks import residual_stack
from qblock.problem import BlockRemovalProblem, Sensitivity


@pytest.fixture(scope="module")
def stack():
    return residual_stack(tiny_model())


def problem_of(stack, remove, **pins):
    return BlockRemovalProblem(
        Sensitivity(H=np.eye(len(stack)), blocks=stack.names), remove=remove, **pins
    )


def hidden_states(stack, tokens, skipped=()):
    """Inputs of the layers that are left, and the last output, by transformers; no padding."""
    model = stack.model
    left = [layer for number, layer in enumerate(stack.layers) if number not in skipped]
    seen = []
    for ids, mask in zip(tokens.ids, tokens.mask, strict=True):
        hidden = model.model.embed_tokens(torch.from_numpy(ids[mask])[None])
        positions = torch.arange(hidden.shape[1])[None]
        rotary = model.model.rotary_emb(hidden, positions)
        streams = [hidden]
        with torch.no_grad():
            for layer in left:
                hidden = layer(hidden, position_embeddings=rotary)
                streams.append(hidden)
        seen.append(torch.cat(streams).double().numpy())
    return np.concatenate(seen, axis=1)  # (layers + 1, tokens, D)


def cosines(before, after):
    lengths = np.linalg.norm(before, axis=-1) * np.linalg.norm(after, axis=-1)
    return (before * after).sum(-1) / lengths


@pytest.mark.parametrize("name", BASELINES)
@pytest.mark.parametrize("remove", [0, 2, 5])
def test_every_baseline_meets_the_budget(stack, name, remove):
    problem = problem_of(stack, remove)
    state = choose(name, stack, problem, ragged_tokens())
    assert problem.is_feasible(state).all()


def test_block_influence_is_the_angle_between_input_and_output(stack):
    streams = hidden_states(stack, ragged_tokens())
    influence = 1 - cosines(streams[:-1], streams[1:]).mean(axis=1)
    state = choose("block-influence", stack, problem_of(stack, 2), ragged_tokens())
    assert set(np.flatnonzero(state)) == set(np.argsort(influence)[:2])


def test_iterative_block_influence_keeps_the_numbers_of_the_intact_model(stack):
    tokens, gone = ragged_tokens(), []
    for _ in range(3):
        streams = hidden_states(stack, tokens, gone)
        influence = 1 - cosines(streams[:-1], streams[1:]).mean(axis=1)
        left = [number for number in range(5) if number not in gone]
        gone.append(left[influence.argmin()])
    state = choose("iterative-block-influence", stack, problem_of(stack, 3), tokens)
    assert set(np.flatnonzero(state)) == set(gone)


def test_sliding_window_is_the_run_of_smallest_angle(stack):
    streams = hidden_states(stack, ragged_tokens())
    angles = [
        np.arccos(np.clip(cosines(streams[i], streams[i + 2]), -1, 1)).mean() for i in range(4)
    ]
    state = choose("sliding-window", stack, problem_of(stack, 2), ragged_tokens())
    first = int(np.argmin(angles))
    assert np.flatnonzero(state).tolist() == [first, first + 1]


def test_single_and_greedy_loss_follow_the_measured_losses(stack):
    tokens, gone = ragged_tokens(), []

    def loss_without(blocks):
        state = np.isin(np.arange(5), blocks).astype(int)
        return np.mean(plain_losses(stack, state, tokens))

    singles = sorted(range(5), key=lambda block: loss_without([block]))
    for _ in range(3):
        left = [block for block in range(5) if block not in gone]
        gone.append(min(left, key=lambda block: loss_without([*gone, block])))
    problem = problem_of(stack, 3)
    assert set(np.flatnonzero(choose("single-loss", stack, problem, tokens))) == set(singles[:3])
    assert set(np.flatnonzero(choose("greedy-loss", stack, problem, tokens))) == set(gone)


@given(problem=problems(), seed=st.integers(0, 100))
def test_cheapest_and_one_by_one_solve_a_diagonal_problem(problem, seed):
    scores = np.random.default_rng(seed).random(len(problem))
    feasible = [
        x
        for x in itertools.product((0, 1), repeat=len(problem))
        if problem.is_feasible(np.array(x)).all()
    ]
    best = min(scores @ np.array(x) for x in feasible)
    assert scores @ cheapest(problem, scores) == pytest.approx(best)
    assert scores @ one_by_one(problem, lambda state: scores) == pytest.approx(best)


def test_no_window_meets_the_pins(stack):
    problem = problem_of(stack, 2, drop=["0", "4"])
    with pytest.raises(ProblemError, match="consecutive"):
        choose("sliding-window", stack, problem, ragged_tokens())


def test_baselines_on_hidden_states_need_whole_layers():
    sublayers = residual_stack(tiny_model(), "sublayer")
    with pytest.raises(ParameterError, match="whole layers"):
        choose("norm-ratio", sublayers, problem_of(sublayers, 2), ragged_tokens())


def test_an_unknown_baseline_is_answered_with_the_list(stack):
    with pytest.raises(ParameterError, match="greedy-loss"):
        choose("magic", stack, problem_of(stack, 2), ragged_tokens())


def test_cheap_choices_are_those_that_apply(stack):
    tokens = ragged_tokens()

    def picked(problem, names):
        return {tuple(choose(name, stack, problem, tokens)) for name in names}

    every = problem_of(stack, 3)
    assert {tuple(s) for s in cheap_choices(stack, every, tokens)} == picked(every, CHEAP)
    ends = problem_of(stack, 2, drop=["0", "4"])  # no window has both
    others = [name for name in CHEAP if name != "sliding-window"]
    assert {tuple(s) for s in cheap_choices(stack, ends, tokens)} == picked(ends, others)
    sublayers = residual_stack(tiny_model(), "sublayer")
    assert cheap_choices(sublayers, problem_of(sublayers, 2), tokens).shape == (0, 10)
