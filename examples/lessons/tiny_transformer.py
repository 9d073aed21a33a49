"""A small transformer, trained in seconds on text that is on every machine.

It reads bytes, so it needs no tokenizer from elsewhere, and it is an ordinary Llama model of
`transformers`: everything that qblock does to a large model works on it.
"""

import functools
from dataclasses import dataclass
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from qblock.llm.blocks import ResidualStack, residual_stack
from qblock.llm.text import PYTHON_DOCS, Text, load_text

SEQ_LEN = 64
"""Bytes in a row of text."""


@dataclass(frozen=True, eq=False)
class TinyTransformer:
    """A trained model, its blocks, and the text it was trained on.

    Attributes:
        stack: the residual stack of the model, whose weights are frozen.
        tokenizer: bytes to numbers and back.
        text: the training part of the text; `heldout` was never seen.
        losses: of each training step, in nats per byte.
    """

    stack: ResidualStack
    tokenizer: Any
    text: Text
    heldout: Text
    losses: list[float]


def byte_tokenizer() -> Any:
    """256 bytes as tokens, and an end of text."""
    vocabulary = {byte: i for i, byte in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocab={**vocabulary, "</s>": 256}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>")


@functools.cache
def train(*, layers: int, steps: int, width: int = 48, batch: int = 16) -> TinyTransformer:
    """Train a new model; the same arguments give the same model on the same machine, once."""
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=257,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        max_position_embeddings=256,
        bos_token_id=256,
        eos_token_id=256,
        tie_word_embeddings=True,
    )
    model = LlamaForCausalLM(config)
    tokenizer = byte_tokenizer()
    text = load_text(PYTHON_DOCS, tokenizer)
    ids = torch.from_numpy(text.calibration.ids)
    optimiser = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=steps)
    losses = []
    for _ in range(steps):
        starts = torch.randint(len(ids) - SEQ_LEN, (batch,))
        rows = ids[starts[:, None] + torch.arange(SEQ_LEN)]
        loss = model(input_ids=rows, labels=rows).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        schedule.step()
        losses.append(loss.item())
    model.eval().requires_grad_(False)
    return TinyTransformer(residual_stack(model), tokenizer, text.calibration, text.heldout, losses)
