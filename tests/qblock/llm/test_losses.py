"""Measured losses of removals, against running the model without the blocks, one by one."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from llm_support import plain_losses, ragged_tokens
from tiny_models import tiny_model

from qblock.errors import MeasurementError
from qblock.llm.baselines import choose
from qblock.llm.blocks import residual_stack
from qblock.llm.calibrate import calibrate
from qblock.llm.losses import Replay, removal_losses
from qblock.problem import BlockRemovalProblem, Sensitivity


@pytest.mark.parametrize(
    "name", ["llama", "gemma2", "gpt2", "gpt-neox", "opt", "mamba2", "mixtral"]
)
@pytest.mark.parametrize("granularity", ["block", "sublayer"])
def test_losses_equal_those_of_the_model_run_without_the_blocks(name, granularity):
    if name == "mamba2" and granularity == "sublayer":
        pytest.skip("a Mamba layer has one part")
    stack = residual_stack(tiny_model(name), granularity)
    tokens = ragged_tokens()
    states = np.random.default_rng(1).integers(0, 2, (6, len(stack)))
    states[0], states[1] = 0, 1
    losses = removal_losses(stack, states, tokens, batch_size=2)
    for state, measured in zip(states, losses, strict=True):
        np.testing.assert_allclose(measured, plain_losses(stack, state, tokens), rtol=2e-4)


@settings(max_examples=8)
@given(seed=st.integers(0, 1000), batch_size=st.integers(1, 4))
def test_batches_and_the_order_of_states_do_not_matter(seed, batch_size):
    stack = residual_stack(tiny_model())
    tokens = ragged_tokens()
    rng = np.random.default_rng(seed)
    states = rng.integers(0, 2, (5, len(stack)))
    order = rng.permutation(5)
    losses = removal_losses(stack, states, tokens, batch_size=3)
    shuffled = removal_losses(stack, states[order], tokens, batch_size=batch_size)
    np.testing.assert_allclose(shuffled, losses[order], rtol=1e-4)


def test_shared_prefixes_are_run_once():
    stack = residual_stack(tiny_model())
    runs = [0] * len(stack)

    def count(number):
        def hook(*_):
            runs[number] += 1

        return hook

    handles = [
        layer.mlp.register_forward_hook(count(number)) for number, layer in enumerate(stack.layers)
    ]
    removal_losses(stack, np.eye(5, dtype=np.int8), ragged_tokens(), batch_size=3)
    for handle in handles:
        handle.remove()
    intact = 1  # one run to see what else each layer is given
    # Layer k is needed by the states that remove an earlier block, and once by all the others.
    assert [n - intact for n in runs] == [1, 2, 3, 4, 4]


def test_a_broken_model_is_named_as_such():
    model = tiny_model()
    with torch.no_grad():
        model.model.norm.weight.fill_(torch.nan)
    with pytest.raises(MeasurementError, match="NaN or infinite with these blocks removed: none"):
        removal_losses(residual_stack(model), np.zeros((1, 5)), ragged_tokens())


def test_progress_reaches_one():
    reports = []
    stack = residual_stack(tiny_model())
    states = np.eye(5, dtype=np.int8)
    removal_losses(stack, states, ragged_tokens(), batch_size=2, report=reports.append)
    assert reports == sorted(reports)
    assert reports[-1] == 1


@pytest.mark.parametrize(("name", "fused"), [("llama", True), ("gemma2", False)])
def test_logits_are_held_whole_only_where_something_follows_the_output_embedding(name, fused):
    assert Replay(residual_stack(tiny_model(name)), ragged_tokens()).fused == fused


@pytest.mark.parametrize("where", ["cpu", "disk"])
def test_weights_that_are_fetched_when_they_are_needed_give_the_same(where, tmp_path):
    accelerate = pytest.importorskip("accelerate")
    tokens, states = ragged_tokens(), np.eye(5, dtype=np.int8)
    stack = residual_stack(tiny_model())
    expected = removal_losses(stack, states, tokens), calibrate(stack, tokens).H
    model, device = tiny_model(), torch.device("cpu")
    if where == "cpu":
        accelerate.cpu_offload(model, execution_device=device)
    else:
        accelerate.disk_offload(model, tmp_path, execution_device=device)
    assert model.lm_head.weight.device.type == "meta"
    offloaded = residual_stack(model)
    found = removal_losses(offloaded, states, tokens), calibrate(offloaded, tokens).H
    for ours, whole in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, whole, rtol=1e-5)
    problem = BlockRemovalProblem(Sensitivity(H=np.eye(5)), remove=2)
    for name in ("block-influence", "greedy-loss"):
        state = choose(name, offloaded, problem, tokens)
        np.testing.assert_array_equal(state, choose(name, stack, problem, tokens))
