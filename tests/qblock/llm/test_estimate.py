"""Memory is told from the configuration alone, and agrees with what really is kept."""

import json
from pathlib import Path

import pytest
import torch
from tiny_models import save_tiny, tiny_ids
from torch.autograd.graph import saved_tensors_hooks

from qblock.errors import ModelError
from qblock.llm.blocks import residual_stack
from qblock.llm.estimate import estimate
from qblock.llm.load import load_model

NANO_30B = {
    "model_type": "nemotron_h",
    "architectures": ["NemotronHForCausalLM"],
    "auto_map": {"AutoConfig": "configuration_nemotron_h.NemotronHConfig"},  # not there: not run
    "dtype": "bfloat16",
    "vocab_size": 131072,
    "hidden_size": 2688,
    "hybrid_override_pattern": "MEMEM*EMEMEM*EMEMEM*EMEMEM*EMEMEM*EMEMEMEM*EMEMEMEME",
    "num_attention_heads": 32,
    "num_key_value_heads": 2,
    "head_dim": 128,
    "mamba_num_heads": 64,
    "mamba_head_dim": 64,
    "ssm_state_size": 128,
    "n_groups": 8,
    "n_routed_experts": 128,
    "num_experts_per_tok": 6,
    "moe_intermediate_size": 1856,
    "moe_shared_expert_intermediate_size": 3712,
    "tie_word_embeddings": False,
}
"""The published shape of nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B."""


PUBLISHED_FP8 = {
    "quant_method": "modelopt",
    "ignore": [
        f"backbone.layers.{n}.mixer*" for n in (4, 5, 11, 12, 18, 19, 25, 26, 32, 33, 41, 42)
    ],
}
"""What stays in 16 bits of NVIDIA's FP8 checkpoint: attention and the Mamba layers before it."""


def test_a_30b_hybrid_is_estimated_from_its_configuration(tmp_path: Path):
    (tmp_path / "config.json").write_text(json.dumps(NANO_30B))
    found = estimate(tmp_path, curvature="fisher", batch_size=1, seq_len=64)
    assert found.parameters == pytest.approx(31.6e9, rel=0.01)  # as published
    assert found.groups == {"mamba": 23, "moe": 23, "attention": 6}
    assert found.weights == 2 * found.parameters
    assert 0.5 * found.weights < found.weights_fp8 < 0.52 * found.weights
    assert 0 < found.working < found.weights
    excluding = {**NANO_30B, "quantization_config": PUBLISHED_FP8}
    (tmp_path / "config.json").write_text(json.dumps(excluding))
    less = estimate(tmp_path, curvature="ablation", batch_size=1, seq_len=8)
    assert less.weights_fp8 - found.weights_fp8 == 6 * (38_707_200 + 23_396_352)


@pytest.mark.parametrize("name", ["llama", "gpt2", "mamba2"])
def test_what_is_kept_is_what_a_real_run_keeps(tmp_path: Path, name: str):
    model = load_model(save_tiny(tmp_path / name, name)).model
    stack = residual_stack(model)
    kept = {p.untyped_storage().data_ptr(): 0 for p in model.parameters()}
    alive = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        alive.append(tensor)
        kept.setdefault(tensor.untyped_storage().data_ptr(), tensor.untyped_storage().nbytes())
        return tensor

    ids = tiny_ids(2, 24)
    alpha = torch.ones(2, len(stack), requires_grad=True)
    with stack.couplings(alpha), saved_tensors_hooks(pack, lambda tensor: tensor):
        logits = model(input_ids=ids, use_cache=False).logits
        loss = torch.nn.functional.cross_entropy(
            logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten(), reduction="none"
        ).sum()
    gradient = logits.numel() * 4
    found = estimate(tmp_path / name, curvature="fisher", batch_size=2, seq_len=24, dtype="float32")
    assert found.parameters == model.num_parameters()
    assert found.working == pytest.approx(sum(kept.values()) + gradient, rel=0.15)
    del loss


def test_less_is_needed_with_checkpoints_and_more_with_more_rows(tmp_path: Path):
    save_tiny(tmp_path, "llama", num_hidden_layers=12)

    def working(curvature: str, rows: int = 4, **options: bool) -> int:
        return estimate(
            tmp_path, curvature=curvature, batch_size=rows, seq_len=16, **options
        ).working

    assert working("fisher", checkpointing=True) < working("fisher") < working("fisher", 8)
    assert 0 < working("ablation") < working("fisher")
    assert working("gauss-newton", 1) == pytest.approx(working("gauss-newton", 4), rel=0.1)


@pytest.mark.parametrize("name", ["mixtral", "nemotron-h"])
def test_experts_are_estimated_in_any_dtype(tmp_path: Path, name: str):
    save_tiny(tmp_path, name)
    half, full = (
        estimate(tmp_path, curvature="fisher", batch_size=2, seq_len=16, dtype=dtype)
        for dtype in ("bfloat16", "float32")
    )
    assert full.weights == 2 * half.weights
    assert half.working < full.working < 2 * half.working


def test_unknown_models_and_dtypes_are_told(tmp_path: Path):
    with pytest.raises(ModelError, match=r"no config\.json"):
        estimate(tmp_path, curvature="fisher", batch_size=1, seq_len=8)
    with pytest.raises(ModelError, match="'int4': expected one of auto"):
        estimate(tmp_path, curvature="fisher", batch_size=1, seq_len=8, dtype="int4")
