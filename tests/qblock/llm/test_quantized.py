"""Quantized weights are measured right or refused, never silently read without their scales."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import save_tiny, tiny_ids, tiny_model, tiny_tokenizer

from qblock.errors import ModelError
from qblock.llm.blocks import residual_stack
from qblock.llm.calibrate import calibrate
from qblock.llm.estimate import estimate
from qblock.llm.heal import heal
from qblock.llm.load import LoadedModel, load_model
from qblock.llm.prune import prune
from qblock.llm.text import Tokens

FP8 = {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [128, 128]}
MODELOPT = {"quant_method": "modelopt", "quant_algo": "FP8", "ignore": ["lm_head"]}
TOKENS = Tokens(np.random.default_rng(0).integers(0, 256, (2, 8)), np.ones((2, 8), dtype=bool))


def save_in_8_bits(folder: Path, name: str, suffix: str, declared: dict[str, Any] | None) -> Path:
    """A tiny model with the matrices of its layers in 8 bits and a scale for each."""
    save_tiny(folder, name)
    weights = load_file(folder / "model.safetensors")
    for key, weight in list(weights.items()):
        if "layers" in key and key.endswith("proj.weight"):
            scale = weight.abs().max() / 448
            weights[key] = (weight / scale).to(torch.float8_e4m3fn)
            weights[f"{key}{suffix}"] = scale.reshape(1, 1)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    if declared:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "quantization_config": declared}))
    return folder


def test_a_format_of_transformers_is_read_with_its_scales(tmp_path: Path):
    """On a CPU transformers makes plain weights of it, so that it can be pruned as well."""
    loaded = load_model(save_in_8_bits(tmp_path / "model", "llama", "_scale_inv", FP8))
    ids = tiny_ids()
    with torch.inference_mode():
        expected = tiny_model()(input_ids=ids).logits
        found = loaded.model(input_ids=ids).logits
    assert (found - expected).abs().max() < 0.2 * expected.abs().max()
    prune(loaded, ["1"], tmp_path / "small")
    written = load_file(tmp_path / "small" / "model.safetensors")
    assert {weight.dtype for weight in written.values()} == {torch.float32}


@pytest.mark.parametrize("name", ["llama", "nemotron-h"])
def test_a_format_of_others_is_refused_but_estimated(tmp_path: Path, name: str):
    folder = save_in_8_bits(tmp_path / name, name, "_scale", MODELOPT)
    with pytest.raises(ModelError, match=r"'modelopt', which transformers cannot read.*bfloat16"):
        load_model(folder)
    found = estimate(folder, curvature="fisher", batch_size=1, seq_len=8)
    assert found.weights_fp8 < found.weights


def test_scales_that_nobody_declares_are_noticed(tmp_path: Path):
    folder = save_in_8_bits(tmp_path / "model", "llama", "_scale", None)
    with pytest.raises(ModelError, match=r"down_proj\.weight_scale would be left out"):
        load_model(folder)


def test_what_can_only_be_run_is_not_differentiated_pruned_or_trained(tmp_path: Path):
    model = tiny_model()
    model.hf_quantizer = SimpleNamespace(is_trainable=False)  # kernels need a GPU
    loaded = LoadedModel(model, tiny_tokenizer(), "tiny")
    stack = residual_stack(model)
    for curvature in ("fisher", "gauss-newton"):
        with pytest.raises(ModelError, match="not differentiated"):
            calibrate(stack, TOKENS, curvature=curvature)
    assert calibrate(stack, TOKENS, curvature="ablation").H.shape == (5, 5)
    with pytest.raises(ModelError, match=r"quantized, and pruning needs plain ones.*bfloat16"):
        prune(loaded, ["1"], tmp_path / "small")
    with pytest.raises(ModelError, match=r"quantized, and healing needs plain ones.*bfloat16"):
        heal(loaded, loaded, TOKENS, TOKENS, tmp_path / "healed")
    assert not list(tmp_path.iterdir())
