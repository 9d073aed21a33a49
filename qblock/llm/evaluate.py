"""How good, how fast and how large a model is."""

import importlib.util
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from qblock.errors import MeasurementError, ModelError, TextError
from qblock.llm.load import LoadedModel, input_device
from qblock.llm.losses import Report, silent, token_losses
from qblock.problem import FloatArray, IntArray

LONGEST_CONTEXT = 1024
"""Context used unless another is asked for: longer ones need much memory for the logits."""


@dataclass(frozen=True)
class Evaluation:
    """What was measured of one model.

    Attributes:
        source: the model.
        parameters, bytes: number of weights, and their size in memory; tied ones once.
        tokens: tokens predicted.
        loss: mean cross entropy, nats per token.
        bits_per_byte: the same total in bits, per UTF-8 byte of the text predicted; unlike a
            perplexity it can be compared between tokenizers.
        read_speed: tokens per second through the model while measuring.
        write_speed: tokens per second of greedy generation with a cache, one row.
    """

    source: str
    parameters: int
    bytes: int
    tokens: int
    loss: float
    bits_per_byte: float
    read_speed: float
    write_speed: float

    @property
    def perplexity(self) -> float:
        return float(np.exp(self.loss))


def strided_losses(
    model: Any,
    ids: IntArray,
    *,
    context: int,
    stride: int,
    report: Report = silent,
) -> FloatArray:
    """Cross entropy of each token but the first given those before it, float64 (T - 1,).

    The usual strided evaluation: windows of `context` tokens start `stride` apart, and each
    scores the tokens that the one before did not reach, so that every token is scored once,
    with at least context - stride tokens before it after the first window.

    Args:
        model: a causal language model of transformers.
        ids: int64 (T,).
        context: tokens in a window, >= 2.
        stride: tokens between the starts of windows, 1 to context - 1.

    Raises:
        TextError: fewer than two tokens, or a context or stride out of range.
        MeasurementError: a loss is NaN or infinite.
    """
    if not (context >= 2 and 1 <= stride < context):
        raise TextError(f"context {context}, stride {stride}: expected 1 <= stride < context")
    if len(ids) < 2:
        raise TextError(f"{len(ids)} token(s) of text: a loss needs at least two")
    losses: list[FloatArray] = []
    done = 1  # tokens scored, with the first, which nothing predicts
    start = 0
    device = input_device(model)
    while done < len(ids):
        end = min(start + context, len(ids))
        window = torch.from_numpy(ids[None, start:end]).to(device)
        with torch.inference_mode():
            logits = model(input_ids=window, use_cache=False).logits
            everywhere = torch.ones(1, end - start - 1, dtype=torch.bool, device=window.device)
            values = token_losses(logits, window, everywhere)
        losses.append(values[0, done - start - 1 :].double().cpu().numpy())
        done = end
        start += stride
        report((done - 1) / (len(ids) - 1))
    result = np.concatenate(losses)
    if not np.isfinite(result).all():
        raise MeasurementError("the loss is NaN or infinite; measure in float32 or bfloat16")
    return result


def evaluate(
    loaded: LoadedModel,
    ids: IntArray,
    *,
    context: int | None = None,
    stride: int | None = None,
    new_tokens: int = 32,
    report: Report = silent,
) -> Evaluation:
    """Measure a model on a text.

    Args:
        loaded: the model.
        ids: the text as its tokenizer gives it, int64 (T,).
        context: tokens in a window; the model's, at most `LONGEST_CONTEXT`, if None.
        stride: half a window if None.
        new_tokens: how many are generated to time it.

    Raises:
        TextError: see `strided_losses`, or a context longer than the model's.
        MeasurementError: a loss is NaN or infinite.
    """
    longest = getattr(loaded.model.config, "max_position_embeddings", None)
    if context is None:
        context = min(longest or LONGEST_CONTEXT, LONGEST_CONTEXT)
    if longest is not None and context > longest:
        raise TextError(f"context {context}: the model has positions for {longest} tokens only")
    stride = max(1, context // 2) if stride is None else stride
    started = time.perf_counter()
    losses = strided_losses(loaded.model, ids, context=context, stride=stride, report=report)
    seconds = time.perf_counter() - started
    windows = max(0, -(-(len(ids) - context) // stride)) + 1
    read = len(ids) + (windows - 1) * (context - stride)  # overlaps are read twice
    text = loaded.tokenizer.decode(ids[1:], clean_up_tokenization_spaces=False)
    parameters = list(loaded.model.parameters())
    return Evaluation(
        source=loaded.source,
        parameters=sum(p.numel() for p in parameters),
        bytes=sum(p.numel() * p.element_size() for p in parameters),
        tokens=len(losses),
        loss=float(losses.mean()),
        bits_per_byte=float(losses.sum() / np.log(2) / len(text.encode())),
        read_speed=read / seconds,
        write_speed=generation_speed(loaded.model, ids[: min(16, context)], new_tokens),
    )


def generation_speed(model: Any, prompt: IntArray, new_tokens: int) -> float:
    """Tokens per second of greedy generation with a cache, the prompt's own time included."""
    ids = torch.from_numpy(prompt[None]).to(input_device(model))
    started = time.perf_counter()
    with torch.inference_mode():
        model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=new_tokens,
            min_new_tokens=new_tokens,
            do_sample=False,
            pad_token_id=0,
        )
    return new_tokens / (time.perf_counter() - started)


def require_harness() -> None:
    """Raise `ModelError` with the command that installs it unless lm-eval is there."""
    if importlib.util.find_spec("lm_eval") is None:
        raise ModelError("--tasks needs the Evaluation Harness: pip install lm-eval")


def harness_scores(
    loaded: LoadedModel, tasks: list[str], *, limit: int | None = None, batch_size: int = 8
) -> dict[str, dict[str, float]]:
    """Scores of EleutherAI's lm-eval by task and metric.

    Raises:
        ModelError: lm-eval is not installed, or refuses a task.
    """
    require_harness()
    import lm_eval
    from lm_eval.models.huggingface import HFLM

    wrapped = HFLM(pretrained=loaded.model, tokenizer=loaded.tokenizer, batch_size=batch_size)
    try:
        found = lm_eval.simple_evaluate(model=wrapped, tasks=tasks, limit=limit)
    except (KeyError, ValueError, OSError) as error:
        raise ModelError(f"lm-eval cannot run {', '.join(tasks)}: {error}") from error
    return {
        task: {name: value for name, value in scores.items() if isinstance(value, float)}
        for task, scores in found["results"].items()
    }
