"""Blocks and couplings of every described architecture."""

from pathlib import Path

import pytest
import torch
from tiny_models import CONFIGS, tiny_ids, tiny_model
from torch.autograd import forward_ad

from qblock.errors import ModelError
from qblock.llm.architecture import known_architectures
from qblock.llm.blocks import residual_stack
from qblock.llm.delete import delete_layers

every_architecture = pytest.mark.parametrize("name", CONFIGS)
IDS = tiny_ids()


def logits(model):
    return model(input_ids=IDS, use_cache=False).logits


def precise(model):
    """In float64, with kernels for experts that know it, and forward mode."""
    if hasattr(model, "set_experts_implementation"):
        model.set_experts_implementation("eager")
    return model.double()


def loss(model):
    values = logits(model)[:, :-1].flatten(0, 1).double()
    return torch.nn.functional.cross_entropy(values, IDS[:, 1:].flatten())


def test_every_described_architecture_of_the_issue_has_a_tiny_model():
    tested = {model_type for model_type, _ in CONFIGS.values()}
    groups = {id(known_architectures()[model_type]) for model_type in tested}
    assert groups == {id(a) for a in known_architectures().values()}


@every_architecture
@pytest.mark.parametrize("granularity", ["block", "sublayer"])
def test_couplings_of_one_leave_the_logits_bit_for_bit(name, granularity):
    model = tiny_model(name)
    stack = residual_stack(model, granularity)
    with torch.inference_mode():
        intact = logits(model)
        for alpha in (torch.ones(len(stack)), torch.ones(len(IDS), len(stack))):
            with stack.couplings(alpha):
                assert torch.equal(logits(model), intact)
        assert torch.equal(logits(model), intact)


@every_architecture
def test_a_coupling_of_zero_is_deletion(name):
    model = tiny_model(name)
    stack = residual_stack(model)
    with torch.inference_mode():
        intact = logits(model)
        for block in range(len(stack)):
            alpha = torch.ones(len(stack))
            alpha[block] = 0
            with stack.couplings(alpha):
                masked = logits(model)
            with stack.skipping([block]):
                skipped = logits(model)
            smaller = tiny_model(name)
            delete_layers(residual_stack(smaller), [block])
            torch.testing.assert_close(logits(smaller), masked, rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(skipped, masked, rtol=1e-5, atol=1e-5)
            assert (masked - intact).abs().max() > 1e-2  # every block does something


@every_architecture
def test_gradients_in_the_couplings_are_finite_differences(name):
    model = precise(tiny_model(name))
    stack = residual_stack(model)
    alpha = torch.linspace(0.6, 1.2, len(stack), dtype=torch.float64, requires_grad=True)
    with stack.couplings(alpha):
        (gradient,) = torch.autograd.grad(loss(model), alpha)

    def central(block, step):
        ends = []
        for sign in (1, -1):
            moved = alpha.detach().clone()
            moved[block] += sign * step
            with stack.couplings(moved), torch.no_grad():
                ends.append(loss(model).item())
        return (ends[0] - ends[1]) / (2 * step)

    for block in range(len(stack)):
        # Norms and scans compute in float32 whatever they are given, so steps must not be tiny;
        # a longer one can cross a point where the router picks another expert.
        difference = central(block, 0.0005)
        assert gradient[block].item() == pytest.approx(difference, rel=1e-2, abs=2e-3)


def test_each_row_has_its_own_couplings_and_gradient():
    model = tiny_model().double()
    stack = residual_stack(model)
    alpha = torch.ones(2, len(stack), dtype=torch.float64, requires_grad=True)
    with stack.couplings(alpha):
        values = logits(model)[:, :-1]
        rows = torch.nn.functional.cross_entropy(
            values.transpose(1, 2), IDS[:, 1:], reduction="none"
        ).mean(1)
        (together,) = torch.autograd.grad(rows.sum(), alpha)
    for row in range(2):
        single = torch.ones(len(stack), dtype=torch.float64, requires_grad=True)
        with stack.couplings(single):
            ids = IDS[row : row + 1]
            out = model(input_ids=ids, use_cache=False).logits[0, :-1]
            value = torch.nn.functional.cross_entropy(out, ids[0, 1:])
            (alone,) = torch.autograd.grad(value, single)
        torch.testing.assert_close(together[row], alone, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["llama", "gemma3", "gpt2", "opt", "falcon", "nemotron-h"])
def test_forward_mode_agrees_with_reverse_mode(name):
    model = precise(tiny_model(name, attention="eager"))
    stack = residual_stack(model)
    direction = torch.linspace(-1, 1, len(stack), dtype=torch.float64)
    alpha = torch.ones(len(stack), dtype=torch.float64, requires_grad=True)
    with stack.couplings(alpha):
        (gradient,) = torch.autograd.grad(loss(model), alpha)
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(alpha.detach(), direction)
        with stack.couplings(dual):
            tangent = forward_ad.unpack_dual(loss(model)).tangent
    assert tangent.item() == pytest.approx((gradient @ direction).item(), rel=1e-4)


def test_gradient_checkpointing_gives_the_same_gradient():
    gradients = []
    for checkpointing in (False, True):
        model = tiny_model().double()
        stack = residual_stack(model)
        if checkpointing:
            model.train()
            model.gradient_checkpointing_enable({"use_reentrant": False})
        alpha = torch.ones(2, len(stack), dtype=torch.float64, requires_grad=True)
        with stack.couplings(alpha):
            gradients += torch.autograd.grad(loss(model), alpha)
    torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-12)


@every_architecture
def test_a_model_resumes_where_its_stream_was_captured(name):
    model = tiny_model(name)
    stack = residual_stack(model)
    with torch.inference_mode():
        intact = logits(model)
        with stack.capturing() as streams:
            logits(model)
        assert len(streams) == len(stack) + 1
        for layer, stream in enumerate(streams):
            with stack.resuming(layer, stream):
                assert torch.equal(logits(model), intact)
        with stack.skipping([2, 3]):
            skipped = logits(model)
        with stack.resuming(2, streams[2]), stack.skipping([2, 3]):
            assert torch.equal(logits(model), skipped)
        assert torch.equal(logits(model), intact)


def test_names_and_groups():
    stack = residual_stack(tiny_model())
    assert stack.names == ("0", "1", "2", "3", "4")
    assert set(stack.groups) == {"block"}
    assert stack.path == "model.layers"
    parts = residual_stack(tiny_model(), "sublayer")
    assert parts.names[:3] == ("0.attention", "0.mlp", "1.attention")
    assert parts.groups[:3] == ("attention", "mlp", "attention")
    assert parts.layer_of[:3] == (0, 0, 1)
    mixed = residual_stack(tiny_model("nemotron-h"))
    assert mixed.groups == (
        *("mamba", "moe", "mamba", "attention"),
        *("mlp", "mamba", "attention", "moe"),
    )


def test_removing_both_parts_of_a_layer_is_removing_the_layer():
    model = tiny_model("gemma2")
    with torch.inference_mode():
        with residual_stack(model, "sublayer").skipping([2, 3]):
            parts = logits(model)
        with residual_stack(model).skipping([1]):
            whole = logits(model)
        with residual_stack(model, "sublayer").skipping([2]):
            one = logits(model)
    assert torch.equal(parts, whole)
    assert not torch.equal(one, whole)


def test_an_error_inside_leaves_the_model_intact():
    model = tiny_model()
    stack = residual_stack(model)
    with torch.inference_mode():
        intact = logits(model)
        alpha = torch.zeros(len(stack))
        with pytest.raises(KeyboardInterrupt):  # noqa: SIM117
            with stack.couplings(alpha), stack.skipping([0]):
                raise KeyboardInterrupt
        assert torch.equal(logits(model), intact)


def test_an_unknown_architecture_is_told_how_to_be_described(tmp_path: Path):
    model = tiny_model()
    model.config.model_type = "novel"
    with pytest.raises(ModelError, match=r"(?s)'novel'.*model_types = \[\"novel\"\]") as caught:
        residual_stack(model)
    assert "llama" in str(caught.value)
    file = tmp_path / "mine.toml"
    file.write_text(
        '[[architecture]]\nmodel_types = ["novel"]\nlayers = "model.layers"\n'
        'adds = { attention = "self_attn", mlp = "mlp" }\n'
    )
    assert len(residual_stack(model, architecture=file)) == 5


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('layers = "model.blocks"', "LlamaModel has no 'blocks', but embed_tokens, layers"),
        ('layers = "model.norm"', "is a LlamaRMSNorm, not a list"),
        ('layers = "model.layers"\nadds = { mlp = "ffn" }', "no module 'ffn'"),
        ('layers = "model.layers"\nkind = "self_attn"', "is of kind"),
        ('layer = "model.layers"', "layer"),
        ("layers = [", "not TOML"),
    ],
)
def test_a_description_that_does_not_fit_is_refused(tmp_path: Path, line: str, message: str):
    file = tmp_path / "mine.toml"
    adds = "" if "adds" in line else 'adds = { mlp = "mlp" }\n'
    file.write_text(f'[[architecture]]\nmodel_types = ["llama"]\n{adds}{line}\n')
    with pytest.raises(ModelError, match=message):
        residual_stack(tiny_model(), architecture=file)


def test_models_whose_layers_cannot_be_removed_cleanly_are_refused():
    with pytest.raises(ModelError, match="do_layer_norm_before=False"):
        residual_stack(tiny_model("opt", do_layer_norm_before=False))
    with pytest.raises(ModelError, match="scale_attn_by_inverse_layer_idx"):
        residual_stack(tiny_model("gpt2", scale_attn_by_inverse_layer_idx=True))
    with pytest.raises(ModelError, match="nothing to choose"):
        residual_stack(tiny_model("llama", num_hidden_layers=1))
