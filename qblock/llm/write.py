"""Model directories that appear under their name only when they are whole and were tried.

What is written is loaded by plain transformers, compared with the model in memory, and made to
generate, before it takes its name.
"""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor

from qblock.errors import ModelError
from qblock.llm.load import LoadedModel, input_device

CARD = "README.md"
PROBE_TOKENS = 24
"""Length of the row on which the written model must agree with the original without blocks."""
AGREEMENT = {torch.float64: 1e-9, torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}
"""Largest difference of logits, relative to the largest logit: devices may round differently."""


def check_target(out: Path, force: bool) -> None:
    """Refuse a directory that cannot be made, or that is there and must not be replaced.

    Raises:
        ModelError: no parent directory; there already, without `force`; or no model.
    """
    if not out.parent.is_dir():
        raise ModelError(f"cannot write {out}: there is no directory {out.parent}")
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not force:
        raise ModelError(f"{out} is there already; name another, or replace it with --force")
    if not (out / "config.json").is_file():
        raise ModelError(f"{out} is not a model, so --force does not replace it")


def check_space(out: Path, model: Any, beside: int = 0) -> None:
    """Refuse to begin where there is less space than the model takes and `beside` more bytes.

    Raises:
        ModelError: too little space on the disk.
    """
    needed = beside + sum(p.numel() * p.element_size() for p in model.parameters())
    free = shutil.disk_usage(out.parent).free
    if free < needed:
        raise ModelError(
            f"the work takes up to {needed / 1e9:.3g} GB of disk; free in {out.parent.absolute()} "
            f"are {free / 1e9:.3g} GB"
        )


def probe(model: Any) -> Tensor:
    """Token ids, int64 (1, PROBE_TOKENS), the same for the same vocabulary."""
    size = model.get_input_embeddings().num_embeddings
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, size, (1, PROBE_TOKENS), generator=generator)
    return ids.to(input_device(model))


@contextmanager
def appearing(out: Path) -> Iterator[Path]:
    """A directory that takes its name `out` when the block ends well, and vanishes if not."""
    try:
        folder = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
    except OSError as error:
        raise ModelError(f"cannot write {out}: {error.strerror}") from None
    old = folder / "replaced"
    try:
        new = folder / "new"
        new.mkdir()
        yield new
        if out.exists():
            out.rename(old)
        new.rename(out)
    except OSError as error:
        if old.exists() and not out.exists():
            old.rename(out)
        raise ModelError(f"cannot write {out}: {error.strerror or error}") from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def save(loaded: LoadedModel, folder: Path) -> None:
    """Write a model of transformers' own class, and its tokenizer.

    The configuration of a repository with code of its own goes on without that code, which would
    read the written configuration in another way, if it is found at all.
    """
    if hasattr(loaded.model.config, "auto_map"):
        del loaded.model.config.auto_map
    try:
        loaded.model.save_pretrained(folder)
        loaded.tokenizer.save_pretrained(folder)
    except OSError:
        raise
    except Exception as error:  # configurations are validated in as many ways as there are models
        raise ModelError(f"the written model cannot be saved: {error}") from error


def verify(folder: Path, model: Any, ids: Tensor, expected: Tensor, source: str) -> float:
    """Load the written model afresh, compare its logits, and make it generate.

    Args:
        folder: where it was written.
        model: what was written, in memory.
        ids: int64 (1, L).
        expected: logits on `ids` of what it must agree with.
        source: what that is.

    Returns:
        The largest difference of logits, relative to the largest logit.

    Raises:
        ModelError: it does not load without remarks, differs, or cannot generate.
    """
    try:
        fresh, remarks = transformers.AutoModelForCausalLM.from_pretrained(
            folder, dtype=model.dtype, output_loading_info=True
        )
    except OSError:
        raise
    except Exception as error:  # a wrong configuration fails in as many ways as there are models
        raise ModelError(f"the written model cannot be loaded: {error}") from error
    wrong = {what: names for what, names in remarks.items() if names}
    if wrong:
        raise ModelError(f"the written model's weights do not fit its configuration: {wrong}")
    with torch.inference_mode():
        logits = fresh(input_ids=ids.to(fresh.device), use_cache=False).logits.cpu()
        difference = float((logits - expected).abs().max() / expected.abs().max())
        if not difference <= AGREEMENT.get(model.dtype, max(AGREEMENT.values())):
            raise ModelError(
                f"the written model, loaded afresh, gives other logits than {source} (relative "
                f"difference {difference:.2g}): the description of the architecture "
                f"{model.config.model_type!r} misses something that counts layers"
            )
        try:
            start = ids.to(fresh.device)
            fresh.generate(
                start,
                attention_mask=torch.ones_like(start),
                pad_token_id=0,
                max_new_tokens=2,
                do_sample=False,
            )
        except Exception as error:
            raise ModelError(
                "the written model cannot generate text with a cache; keep at least one layer of "
                f"each kind: {error}"
            ) from error
    return difference
