"""Small randomly initialised models of every described architecture, and a tokenizer."""

import os
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

# Tests run side by side, and threads that wait for one another on shared cores crawl.
torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")  # for processes that tests start

VOCABULARY = 272
"""256 bytes and a few special tokens."""

_COMMON = {"vocab_size": VOCABULARY, "bos_token_id": 256, "eos_token_id": 257, "pad_token_id": 258}
_LLAMA = {
    **_COMMON,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 5,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 128,
}
_FALCON = {
    **_COMMON,
    "hidden_size": 32,
    "ffn_hidden_size": 48,
    "num_hidden_layers": 5,
    "num_attention_heads": 4,
}
_MOE = {"moe_intermediate_size": 24, "num_experts": 4, "num_experts_per_tok": 2}
_MAMBA = {**_COMMON, "hidden_size": 32, "num_hidden_layers": 4, "state_size": 8}

CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", _LLAMA),
    "llama-tied": ("llama", {**_LLAMA, "tie_word_embeddings": True, "num_key_value_heads": 4}),
    "mistral": ("mistral", {**_LLAMA, "sliding_window": 6}),
    "qwen2": (
        "qwen2",
        {**_LLAMA, "use_sliding_window": True, "sliding_window": 5, "max_window_layers": 2},
    ),
    "qwen3": ("qwen3", _LLAMA),
    "gemma2": ("gemma2", {**_LLAMA, "sliding_window": 4, "query_pre_attn_scalar": 8}),
    "gemma3": (
        "gemma3_text",
        {
            **_LLAMA,
            "sliding_window": 4,
            "query_pre_attn_scalar": 8,
            "layer_types": [
                f"{kind}_attention" for kind in ["sliding", "sliding", "full", "sliding", "full"]
            ],
        },
    ),
    "phi3": ("phi3", _LLAMA),
    "gpt2": ("gpt2", {**_COMMON, "n_embd": 32, "n_layer": 5, "n_head": 4, "n_positions": 128}),
    "gpt-neox": ("gpt_neox", {**_LLAMA, "use_parallel_residual": True}),
    "gpt-neox-sequential": ("gpt_neox", {**_LLAMA, "use_parallel_residual": False}),
    "opt": (  # a smooth activation, so that differences are derivatives
        "opt",
        {**_LLAMA, "ffn_dim": 48, "word_embed_proj_dim": 32, "activation_function": "gelu"},
    ),
    "falcon": ("falcon", _FALCON),
    "falcon-new": ("falcon", {**_FALCON, "new_decoder_architecture": True, "num_kv_heads": 2}),
    "falcon-alibi": ("falcon", {**_FALCON, "alibi": True, "parallel_attn": False}),
    "mixtral": ("mixtral", {**_LLAMA, "num_local_experts": 4, "num_experts_per_tok": 2}),
    "qwen2-moe": (
        "qwen2_moe",
        {**_LLAMA, **_MOE, "shared_expert_intermediate_size": 24, "mlp_only_layers": [0]},
    ),
    "qwen3-moe": ("qwen3_moe", {**_LLAMA, **_MOE, "decoder_sparse_step": 2}),
    "mamba": ("mamba", _MAMBA),
    "mamba2": (
        "mamba2",
        {**_MAMBA, "num_heads": 8, "head_dim": 8, "n_groups": 2, "chunk_size": 8},
    ),
    "nemotron-h": (
        "nemotron_h",
        {
            **{name: value for name, value in _LLAMA.items() if name != "num_hidden_layers"},
            "hybrid_override_pattern": "MEM*-M*E",
            "mamba_num_heads": 8,
            "mamba_head_dim": 8,
            "ssm_state_size": 8,
            "n_groups": 2,
            "chunk_size": 8,
            "n_routed_experts": 4,
            "moe_intermediate_size": 24,
            "moe_shared_expert_intermediate_size": 24,
        },
    ),
}


def tiny_model(name: str = "llama", *, attention: str | None = None, **changes: Any) -> Any:
    """A model of `CONFIGS`, in evaluation mode, weights frozen, always the same."""
    model_type, fields = CONFIGS[name]
    config = AutoConfig.for_model(model_type, **{**fields, **changes})
    torch.manual_seed(7)
    options = {} if attention is None else {"attn_implementation": attention}
    model = AutoModelForCausalLM.from_config(config, **options).eval().requires_grad_(False)
    with torch.no_grad():
        for parameter in model.parameters():  # at the usual scale no layer would do anything
            if parameter.ndim > 1:
                parameter.mul_(5)
    return model


def tiny_tokenizer() -> Any:
    """Bytes as tokens, with <s>, </s> and <pad>."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    specials = ["<s>", "</s>", "<pad>"]
    vocabulary = {token: index for index, token in enumerate([*alphabet, *specials])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )


def save_tiny(folder: Path, name: str = "llama", **changes: Any) -> Path:
    """A model directory, as `save_pretrained` writes it."""
    tiny_model(name, **changes).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def tiny_ids(rows: int = 2, tokens: int = 12) -> torch.Tensor:
    """Random token ids, int64 (rows, tokens)."""
    return torch.randint(0, 256, (rows, tokens), generator=torch.Generator().manual_seed(3))
