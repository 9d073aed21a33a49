"""The three curvatures against plain derivatives and plain differences; running and resuming."""

import numpy as np
import pytest
import torch
from llm_support import ragged_tokens
from tiny_models import tiny_model

from qblock.errors import MeasurementError, ParameterError, ProblemError
from qblock.llm import ablation, fisher, gauss_newton
from qblock.llm.blocks import residual_stack
from qblock.llm.calibrate import CURVATURES, calibrate, checkpointed
from qblock.llm.losses import removal_losses
from qblock.llm.text import Tokens
from qblock.problem import BlockRemovalProblem


def row_gradient(stack, tokens, row):
    """Gradient (N,) of the loss of one row alone, by transformers' own loss."""
    ids = torch.from_numpy(tokens.ids[row][tokens.mask[row]])[None]
    alpha = torch.ones(len(stack), requires_grad=True)
    with stack.couplings(alpha):
        loss = stack.model(input_ids=ids, labels=ids, use_cache=False).loss
    return torch.autograd.grad(loss, alpha)[0].numpy()


@pytest.mark.parametrize("name", ["llama", "gemma2", "gpt-neox", "mamba"])
def test_fisher_rows_are_the_gradients_of_each_row(name):
    stack, tokens = residual_stack(tiny_model(name)), ragged_tokens()
    A = fisher.measure(stack, tokens)
    for row in range(len(tokens)):
        np.testing.assert_allclose(A[row], row_gradient(stack, tokens, row), rtol=1e-3, atol=1e-5)


def test_checkpointing_changes_nothing_but_memory():
    stack, tokens = residual_stack(tiny_model()), ragged_tokens()
    plain = fisher.measure(stack, tokens)
    with checkpointed(stack.layers):
        again = fisher.measure(stack, tokens)
    np.testing.assert_allclose(again, plain, rtol=1e-6)
    assert all("forward" not in layer.__dict__ for layer in stack.layers)


@pytest.mark.parametrize(
    ("name", "granularity"), [("llama", "sublayer"), ("gpt2", "block"), ("mixtral", "block")]
)
def test_gauss_newton_equals_the_fisher_information_of_the_models_predictions(name, granularity):
    stack, tokens = residual_stack(tiny_model(name), granularity), ragged_tokens()
    measured = gauss_newton.measure(stack, tokens)
    for row in range(len(tokens)):
        ids = torch.from_numpy(tokens.ids[row][tokens.mask[row]])[None]

        def log_p(alpha, ids=ids):
            with stack.couplings(alpha):
                logits = stack.model(input_ids=ids, use_cache=False).logits
            return logits[0, :-1].log_softmax(-1)

        ones = torch.ones(len(stack))
        p = log_p(ones).exp().numpy()
        score = torch.autograd.functional.jacobian(log_p, ones).numpy()  # (T, V, N)
        expected = np.einsum("tv,tvi,tvj->ij", p, score, score) / len(p)
        np.testing.assert_allclose(measured[row, :-1], expected, rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(measured[:, -1], fisher.measure(stack, tokens), atol=1e-5)


def test_ablation_energy_is_the_loss_change_of_singles_and_pairs():
    stack, tokens = residual_stack(tiny_model()), ragged_tokens()
    sensitivity = calibrate(stack, tokens, curvature="ablation", batch_size=2)
    corners = ablation.corners(len(stack))
    losses = removal_losses(stack, corners, tokens).mean(axis=1)
    energies = BlockRemovalProblem(sensitivity, remove=2).energy(corners)
    np.testing.assert_allclose(energies, losses - losses[0], atol=1e-5)


@pytest.mark.parametrize("curvature", CURVATURES)
def test_a_calibration_that_is_interrupted_goes_on(tmp_path, monkeypatch, curvature):
    stack, tokens = residual_stack(tiny_model()), ragged_tokens()
    partial = tmp_path / "h.partial.npz"
    whole = calibrate(stack, tokens, curvature=curvature, batch_size=1)

    def run(**options):
        return calibrate(
            stack, tokens, curvature=curvature, batch_size=1, partial=partial, **options
        )

    module, measure = CURVATURES[curvature], CURVATURES[curvature].measure
    calls = []

    def stop_at_the_third(*arguments):
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return measure(*arguments)

    monkeypatch.setattr(module, "measure", stop_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        run()
    with pytest.raises(ProblemError, match="--resume"):
        run()
    resumed = run(resume=True)
    assert len(calls) == 4
    np.testing.assert_array_equal(resumed.H, whole.H)


def test_a_partial_file_of_another_run_is_refused(tmp_path):
    stack, tokens = residual_stack(tiny_model()), ragged_tokens()
    partial = tmp_path / "h.partial.npz"
    calibrate(stack, tokens, partial=partial)
    with pytest.raises(ProblemError, match="rows \\(3, now 2\\)"):
        calibrate(stack, tokens[:2], partial=partial, resume=True)
    partial.write_bytes(b"nothing")
    with pytest.raises(ProblemError, match="damaged"):
        calibrate(stack, tokens, partial=partial, resume=True)


def test_provenance_tells_how_it_was_made():
    stack, tokens = residual_stack(tiny_model()), ragged_tokens()
    facts = calibrate(stack, tokens, provenance={"model": "tiny"}).provenance
    assert facts["model"] == "tiny"
    assert facts["tokens_predicted"] == tokens.predicted
    assert -1 <= facts["split_half_spearman"] <= 1
    assert {"torch", "transformers"} <= set(facts["versions"])


def test_nan_losses_are_refused():
    model = tiny_model()
    with torch.no_grad():
        model.model.norm.weight.fill_(torch.nan)
    with pytest.raises(MeasurementError, match="NaN"):
        calibrate(residual_stack(model), ragged_tokens())


@pytest.mark.parametrize(("option", "value"), [("curvature", "hessian"), ("batch_size", 0)])
def test_bad_options_are_refused_before_any_work(option, value):
    nothing = Tokens(np.zeros((0, 2), dtype=np.int64), np.zeros((0, 2), dtype=np.bool_))
    with pytest.raises(ParameterError, match=str(value)):
        calibrate(residual_stack(tiny_model()), nothing, **{option: value})
