"""Text to calibrate and measure on: where it comes from, and how it becomes rows of tokens.

A source is a UTF-8 text file, `builtin:python-docs` (the prose of the Python language
reference in `pydoc_data.topics`, there on every machine), or
`hf:DATASET[:config][:split][:column]` through the `datasets` library. Chats go through the
tokenizer's template, one row each, prompts included; all other text is one stream that is cut
into consecutive windows.
"""

import functools
import hashlib
import importlib.util
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qblock.errors import TextError
from qblock.problem import IntArray

PYTHON_DOCS = "builtin:python-docs"
CHAT_COLUMNS = ("messages", "conversations", "conversation")
ROLES = {"human": "user", "gpt": "assistant"}
"""Speakers in the ShareGPT layout, as chat templates call them."""


@dataclass(frozen=True, eq=False)
class Tokens:
    """Rows of tokens, padded on the right, where a causal model cannot see the padding.

    Attributes:
        ids: int64 (m, L).
        mask: bool (m, L), False on padding.
    """

    ids: IntArray
    mask: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, rows: slice) -> "Tokens":
        return Tokens(self.ids[rows], self.mask[rows])

    @property
    def predicted(self) -> int:
        """Tokens that have a predecessor in their row, so that a loss is defined on them."""
        return int(self.mask[:, 1:].sum())

    @property
    def sha256(self) -> str:
        """Digest of the tokens and the mask."""
        return hashlib.sha256(self.ids.tobytes() + self.mask.tobytes()).hexdigest()

    def batches(self, size: int) -> Iterator["Tokens"]:
        """Consecutive batches of `size` rows; the last may be shorter."""
        return (self[start : start + size] for start in range(0, len(self), size))


@dataclass(frozen=True, eq=False)
class Text:
    """A tokenized text.

    Attributes:
        source: as the user named it, without the folders of a file.
        documents: int64 arrays of token ids.
        chats: each document is a row of its own; otherwise they make one stream.
    """

    source: str
    documents: tuple[IntArray, ...]
    chats: bool = False

    @functools.cached_property
    def ids(self) -> IntArray:
        """All tokens in a row, int64 (T,)."""
        return np.concatenate([np.zeros(0, dtype=np.int64), *self.documents])

    @property
    def calibration(self) -> "Text":
        """What is not `heldout`."""
        if len(self.documents) == 1:
            return replace(self, documents=(self.ids[: -(len(self.ids) // 5) or None],))
        return replace(self, documents=tuple(d for i, d in enumerate(self.documents) if i % 5 != 4))

    @property
    def heldout(self) -> "Text":
        """A fifth to judge on that calibration never sees: the end, or every fifth document."""
        if len(self.documents) == 1:
            return replace(self, documents=(self.ids[len(self.ids) - len(self.ids) // 5 :],))
        return replace(self, documents=self.documents[4::5])

    def rows(self, count: int, seq_len: int) -> Tokens:
        """`count` rows of at most `seq_len` tokens, spread evenly over the text.

        A stream gives full windows; chats give one row each, cut to `seq_len`.

        Raises:
            TextError: rows shorter than two tokens, or too little text.
        """
        if seq_len < 2 or count < 1:
            raise TextError(
                f"{count} rows of {seq_len} tokens: expected at least 1 row of at least 2 tokens "
                "(a loss needs a next token)"
            )
        if self.chats:
            pieces = [ids[:seq_len] for ids in self.documents if len(ids) > 1]
        else:
            full = len(self.ids) // seq_len
            pieces = list(self.ids[: full * seq_len].reshape(full, seq_len))
        if len(pieces) < count:
            raise TextError(
                f"{self.source} is too short: {count} rows of {seq_len} tokens are wanted, and "
                f"this part of it ({len(self.ids)} tokens) gives {len(pieces)}; ask for fewer or "
                "shorter rows, or name a longer text"
            )
        chosen = [pieces[row * len(pieces) // count] for row in range(count)]
        ids = np.zeros((count, max(map(len, chosen))), dtype=np.int64)
        mask = np.zeros(ids.shape, dtype=np.bool_)
        for row, piece in enumerate(chosen):
            ids[row, : len(piece)] = piece
            mask[row, : len(piece)] = True
        return Tokens(ids, mask)


def load_text(source: str, tokenizer: Any, *, enough: tuple[int, int] | None = None) -> Text:
    """Read and tokenize a source, without special tokens except those of a chat template.

    Args:
        source: see the module's description.
        tokenizer: of transformers.
        enough: stop reading a dataset once both its parts, for calibration and held out, give
            this many rows of this many tokens.

    Raises:
        TextError: no such source, an unreadable or empty one, or chats for a tokenizer that
            has no chat template.
    """
    if source == PYTHON_DOCS:
        return _stream(source, _python_docs(), tokenizer)
    if source.startswith("builtin:"):
        raise TextError(f"no built-in text {source!r}; there is {PYTHON_DOCS!r}")
    if source.startswith("hf:"):
        return _dataset_text(source, tokenizer, enough)
    return _stream(Path(source).name, _read(Path(source)), tokenizer)


def _python_docs() -> str:
    from pydoc_data.topics import topics  # half a megabyte: read when asked for

    return "\n\n".join(topics[name] for name in sorted(topics))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise TextError(f"{path} is not UTF-8 text: {error.reason} at byte {error.start}") from None
    except OSError as error:
        raise TextError(
            f"cannot read the text {str(path)!r}: {error.strerror}; expected a text file, "
            f"{PYTHON_DOCS} or hf:DATASET[:config][:split][:column]"
        ) from None


def _encode(text: str, tokenizer: Any) -> IntArray:
    # `verbose` would warn of a text longer than the model's context, which is cut up anyway.
    encoded = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    return np.asarray(encoded, dtype=np.int64)


def _stream(source: str, text: str, tokenizer: Any) -> Text:
    if not text.strip():
        raise TextError(f"{source} is empty")
    return Text(source, (_encode(text, tokenizer),))


def _dataset_text(source: str, tokenizer: Any, enough: tuple[int, int] | None) -> Text:
    rows, column = _open_dataset(source)
    documents: list[IntArray] = []
    found = [0, 0]  # for calibration and held out: tokens of a stream, or chats
    chats = False
    for row in rows:
        value = row[column]
        chats = isinstance(value, list)
        ids = _encode_chat(source, value, tokenizer) if chats else _encode(str(value), tokenizer)
        if not len(ids):
            continue
        if not chats and tokenizer.eos_token_id is not None:
            ids = np.append(ids, tokenizer.eos_token_id)
        documents.append(ids)
        found[len(documents) % 5 == 0] += 1 if chats else len(ids)
        if enough is not None and min(found) >= (enough[0] if chats else math.prod(enough)):
            break
    if not documents:
        raise TextError(f"{source} is empty: no text in column {column!r}")
    return Text(_shown(source), tuple(documents), chats)


def _open_dataset(source: str) -> tuple[Any, str]:
    """The rows of an `hf:` source, and the column that holds the text."""
    if importlib.util.find_spec("datasets") is None:
        raise TextError(f'{source} needs the datasets library: pip install "qblock[llm]"')
    import datasets

    name, config, split, column, *extra = [*source.removeprefix("hf:").split(":"), "", "", ""]
    if not name or any(extra):
        raise TextError(f"{source!r}: expected hf:DATASET[:config][:split][:column]")
    try:
        rows = datasets.load_dataset(name, config or None, split=split or "train", streaming=True)
        columns = list(rows.features or next(iter(rows)))
    except StopIteration:
        raise TextError(f"{source} is empty") from None
    except Exception as error:  # the library and its many file formats raise all kinds
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise TextError(f"the dataset {source} cannot be loaded: {reason}") from None
    usual = [name for name in ("text", *CHAT_COLUMNS) if name in columns]
    column = column or [*usual, *(columns if len(columns) == 1 else []), ""][0]
    if column not in columns:
        raise TextError(f"{source}: name the column to use, one of {', '.join(columns)}")
    return rows, column


def _shown(source: str) -> str:
    """The source without the folders of a dataset that lies on this machine."""
    name, colon, rest = source.removeprefix("hf:").partition(":")
    return f"hf:{Path(name).name if Path(name).exists() else name}{colon}{rest}"


def _encode_chat(source: str, turns: list[dict[str, str]], tokenizer: Any) -> IntArray:
    if not getattr(tokenizer, "chat_template", None):
        raise TextError(f"{source} holds chats, and this model's tokenizer has no chat template")
    messages = [
        {
            "role": ROLES.get(speaker := turn.get("role") or turn.get("from", ""), speaker),
            "content": turn.get("content") or turn.get("value", ""),
        }
        for turn in turns
    ]
    text = tokenizer.apply_chat_template(messages, tokenize=False)
    return _encode(text, tokenizer)
