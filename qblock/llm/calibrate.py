"""From a model and a text to a `Sensitivity`, batch by batch, in a way that can be resumed.

Every curvature method measures one array per row of tokens, and the sensitivity is a mean over
the rows; so finished batches are kept in a partial file next to the output, an interrupted run
goes on where it stopped, and the two halves of the rows tell how stable the result is.

Cost over m rows, in forward passes F over all of them (a backward pass costs about 2 F):
`fisher` 3 F; `gauss-newton` about 3 N F / 2; `ablation` about N^2 / 6 F, plus N^2 / 2 products
with the output embedding. Ablation needs few rows, so on up to a few dozen blocks it is the
best use of minutes; beyond, `fisher` is the one that stays affordable.
"""

import json
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import nn
from torch.utils.checkpoint import checkpoint

from qblock.backend import versions
from qblock.errors import MeasurementError, ParameterError, ProblemError
from qblock.files import atomic_write, differing_facts
from qblock.llm import ablation, fisher, gauss_newton
from qblock.llm.blocks import ResidualStack
from qblock.llm.losses import Report, silent
from qblock.llm.quantized import refuse_derivatives
from qblock.llm.text import Tokens
from qblock.problem import FloatArray, Sensitivity

CURVATURES: Mapping[str, ModuleType] = {
    "fisher": fisher,
    "gauss-newton": gauss_newton,
    "ablation": ablation,
}
"""Modules with `measure(stack, tokens, report) -> (b, ...)` and `combine(rows, **fields)`."""

SAVE_EVERY = 5.0
"""Seconds between two writes of the partial file, at least."""


def calibrate(
    stack: ResidualStack,
    tokens: Tokens,
    *,
    curvature: str = "fisher",
    batch_size: int = 8,
    partial: Path | None = None,
    resume: bool = False,
    name: str = "unnamed",
    provenance: Mapping[str, Any] | None = None,
    report: Report = silent,
) -> Sensitivity:
    """Measure how the loss on the tokens reacts to each block and pair of blocks.

    Args:
        stack: N blocks of a model with frozen weights.
        tokens: m rows of calibration text.
        curvature: a key of `CURVATURES`.
        batch_size: rows that go through the model together.
        partial: where finished batches are kept; nowhere if None. The caller deletes it once the
            sensitivity is safe.
        resume: go on from `partial` if it is there, rather than refuse to overwrite it.
        name: of the instance.
        provenance: facts on the model and text to keep in it, JSON-like.
        report: receives the share of work done.

    Raises:
        ParameterError: an unknown curvature or a batch without rows.
        ProblemError: fewer than two blocks, or a partial file of another run.
        ModelError: a quantized model that has no derivatives, where those are needed.
        MeasurementError: NaN or infinite losses or derivatives.
    """
    if curvature not in CURVATURES:
        raise ParameterError(f"no curvature {curvature!r}; there are {', '.join(CURVATURES)}")
    if batch_size < 1:
        raise ParameterError(f"a batch needs at least 1 row, not {batch_size}")
    if curvature != "ablation":
        refuse_derivatives(stack.model)
    if len(stack) < 2:
        raise ProblemError(f"the model has {len(stack)} block: there is nothing to choose from")
    facts = {**(provenance or {}), **_facts(stack, tokens, curvature, batch_size)}
    method = CURVATURES[curvature]
    kept = _PartialFile(partial, facts, resume)
    rows = kept.rows
    total = len(tokens)
    started = time.perf_counter() - kept.seconds
    try:
        for start in range(len(rows), total, batch_size):
            batch = tokens[start : start + batch_size]

            def inner(share: float, start: int = start, size: int = len(batch)) -> None:
                report((start + share * size) / total)

            measured = method.measure(stack, batch, inner)
            if not np.isfinite(measured).all():
                raise MeasurementError(
                    f"rows {start} to {start + len(batch) - 1} of the text gave NaN or infinite "
                    "derivatives of the loss; use float32 or bfloat16, and check the model"
                )
            rows = measured if not len(rows) else np.concatenate([rows, measured])
            kept.save(rows, time.perf_counter() - started)
            report((start + len(batch)) / total)
    finally:  # after Ctrl-C and crashes too: what is finished must not be lost
        kept.save(rows, time.perf_counter() - started, now=True)
    sensitivity: Sensitivity = method.combine(
        rows,
        blocks=stack.names,
        groups=stack.groups,
        name=name,
        provenance={
            **facts,
            "split_half_spearman": split_half(rows, method.combine),
            "seconds": round(time.perf_counter() - started, 1),
            "versions": versions("qblock", "torch", "transformers"),
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
        },
    )
    return sensitivity


def _facts(stack: ResidualStack, tokens: Tokens, curvature: str, batch_size: int) -> dict[str, Any]:
    """What must be the same for a partial file to be gone on with."""
    return {
        "curvature": curvature,
        "blocks": len(stack),
        "dtype": str(stack.model.dtype).removeprefix("torch."),
        "rows": len(tokens),
        "row_length": tokens.ids.shape[1],
        "tokens_predicted": tokens.predicted,
        "tokens_sha256": tokens.sha256,
        "batch_size": batch_size,
    }


def split_half(
    rows: FloatArray, combine: Callable[..., Sensitivity], *, states: int = 2000, seed: int = 0
) -> float | None:
    """Spearman correlation of the energies that even and odd rows give to random states.

    The states remove a quarter of the blocks. None with fewer than two rows.
    """
    if len(rows) < 2:
        return None
    halves = [combine(rows[0::2]).H, combine(rows[1::2]).H]
    n = len(halves[0])
    rng = np.random.default_rng(seed)
    X = np.zeros((states, n))
    np.put_along_axis(X, rng.random(X.shape).argsort(axis=1)[:, : max(1, n // 4)], 1, axis=1)
    energies = [np.einsum("si,ij,sj->s", X, H, X) for H in halves]
    return round(float(spearmanr(*energies).statistic), 4)


class _PartialFile:
    """The rows measured so far, on disk; the facts of the run guard against mixing two."""

    def __init__(self, path: Path | None, facts: Mapping[str, Any], resume: bool) -> None:
        self.path = path
        self.facts = json.dumps(facts, sort_keys=True)
        self.rows: FloatArray = np.zeros(0)
        self.seconds = 0.0  # spent on these rows, by all the runs
        self.saved_rows = 0
        self.saved_at = time.monotonic()
        if path is None or not path.exists():
            return
        if not resume:
            raise ProblemError(
                f"{path} holds the finished batches of an interrupted run: go on with --resume, "
                "or delete it"
            )
        try:
            with np.load(path, allow_pickle=False) as archive:
                facts_there, self.rows = str(archive["facts"]), archive["rows"]
                self.seconds = float(archive["seconds"])
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            raise ProblemError(f"{path} is damaged: delete it and start again") from None
        if facts_there != self.facts:
            differing = differing_facts(json.loads(facts_there), json.loads(self.facts))
            raise ProblemError(f"{path} belongs to another run: it differs in {differing}")
        self.saved_rows = len(self.rows)

    def save(self, rows: FloatArray, seconds: float, *, now: bool = False) -> None:
        """Write, unless there is nothing new or (without `now`) the last write is recent."""
        recent = time.monotonic() - self.saved_at < SAVE_EVERY
        if self.path is None or len(rows) == self.saved_rows or (recent and not now):
            return
        with atomic_write(self.path) as stream:
            np.savez(stream, facts=np.array(self.facts), rows=rows, seconds=seconds)
        self.saved_rows, self.saved_at = len(rows), time.monotonic()


@contextmanager
def checkpointed(layers: Iterable[nn.Module]) -> Iterator[None]:
    """Within, a backward pass recomputes each layer: a third more time, far less memory.

    Independent of the model's training mode, so that no dropout is switched on.
    """

    def recomputing(forward: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            if not torch.is_grad_enabled():
                return forward(*args, **kwargs)
            return checkpoint(forward, *args, use_reentrant=False, **kwargs)

        return run

    layers = list(layers)
    own = [layer.__dict__.get("forward") for layer in layers]
    try:
        for layer in layers:
            layer.forward = recomputing(layer.forward)
        yield
    finally:
        for layer, forward in zip(layers, own, strict=True):
            del layer.forward
            if forward is not None:  # of a model that is spread over devices
                layer.forward = forward
