"""Sources of text, and how they become rows of tokens."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import tiny_tokenizer

from qblock.errors import TextError
from qblock.llm.text import Text, load_text


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_tokenizer()


def stream(length: int) -> Text:
    return Text("a stream", (np.arange(length),))


def test_python_docs_are_always_there(tokenizer):
    text = load_text("builtin:python-docs", tokenizer)
    assert "The standard type hierarchy" in tokenizer.decode(text.ids)


def test_a_file_is_tokenized_without_special_tokens(tmp_path, tokenizer):
    path = tmp_path / "novel.txt"
    path.write_text("It was a dark night. Žluťoučký kůň.", encoding="utf-8")
    text = load_text(str(path), tokenizer)
    assert tokenizer.decode(text.ids) == path.read_text(encoding="utf-8")
    assert text.source == "novel.txt"  # provenance must not tell where a file lies


@pytest.mark.parametrize(
    ("source", "content", "message"),
    [
        ("nothing.txt", None, "cannot read the text"),
        ("empty.txt", b" \n", "is empty"),
        ("picture.txt", b"\xff\xfe\x00", "not UTF-8"),
        ("builtin:latin", None, "builtin:python-docs"),
        ("hf:", None, r"hf:DATASET\[:config\]\[:split\]\[:column\]"),
        ("hf:a:b:c:d:e", None, r"hf:DATASET\[:config\]\[:split\]\[:column\]"),
    ],
)
def test_an_unusable_source_is_a_text_error(tmp_path, tokenizer, source, content, message):
    if content is not None:
        (tmp_path / source).write_bytes(content)
    if ":" not in source:
        source = str(tmp_path / source)
    with pytest.raises(TextError, match=message):
        load_text(source, tokenizer)


@given(length=st.integers(10, 500), count=st.integers(1, 9), seq_len=st.integers(2, 20))
def test_windows_are_full_distinct_and_in_order(length, count, seq_len):
    text = stream(length)
    if length // seq_len < count:
        with pytest.raises(TextError, match="too short"):
            text.rows(count, seq_len)
        return
    rows = text.rows(count, seq_len)
    assert rows.ids.shape == (count, seq_len)
    assert rows.mask.all()
    assert len(np.unique(rows.ids)) == count * seq_len
    assert (np.diff(rows.ids[:, 0]) >= seq_len).all()


@given(length=st.integers(1, 300))
def test_heldout_text_of_a_stream_is_its_end(length):
    text = stream(length)
    parts = np.concatenate([text.calibration.ids, text.heldout.ids])
    np.testing.assert_array_equal(parts, text.ids)
    assert len(text.heldout.ids) == length // 5


@given(count=st.integers(2, 40))
def test_heldout_documents_do_not_depend_on_how_many_were_read(count):
    documents = tuple(np.full(3, i) for i in range(count))
    text = Text("chats", documents, chats=True)
    assert set(text.heldout.ids).isdisjoint(text.calibration.ids)
    assert set(text.heldout.ids) == set(range(4, count, 5))


@pytest.mark.parametrize(("count", "seq_len"), [(0, 8), (1, 1)])
def test_rows_without_a_next_token_are_refused(count, seq_len):
    with pytest.raises(TextError, match="next token"):
        stream(100).rows(count, seq_len)


def write_rows(folder: Path, rows: list[dict]) -> str:
    path = folder / "train.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return f"hf:{folder}"


def test_documents_of_a_dataset_become_one_stream_with_end_tokens(tmp_path, tokenizer):
    source = write_rows(tmp_path, [{"text": t} for t in ("one", "", "two")])
    text = load_text(source, tokenizer)
    assert tokenizer.decode(text.ids) == "one</s>two</s>"
    assert not text.chats


@pytest.mark.parametrize(
    ("row", "enough", "documents"),
    [({"text": "abcd"}, (2, 5), 10), ({"messages": [{"role": "a", "content": "b"}]}, (3, 100), 15)],
)
def test_a_dataset_is_read_only_until_both_parts_suffice(tmp_path, row, enough, documents):
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }}{% endfor %}xx"
    text = load_text(write_rows(tmp_path, [row] * 100), tokenizer, enough=enough)
    assert len(text.documents) == documents
    assert str(tmp_path) not in text.source
    for part in (text.calibration, text.heldout):
        assert len(part.rows(*enough)) == enough[0]


def test_chats_go_through_the_template_and_are_padded(tmp_path):
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = (
        "{% for m in messages %}<s>{{ m.role }}: {{ m.content }}</s>{% endfor %}"
    )
    chats = [
        {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]},
        {"conversations": [{"from": "human", "value": "?"}]},
    ]
    text = load_text(write_rows(tmp_path, chats), tokenizer)
    first = "<s>user: Hi</s><s>assistant: Hello</s>"
    assert tokenizer.decode(text.documents[0]) == first
    rows = text.rows(2, 64)
    assert rows.mask.sum(axis=1).tolist() == [len(d) for d in text.documents]
    assert rows.predicted == rows.mask.sum() - 2


def test_chats_need_a_template(tmp_path, tokenizer):
    source = write_rows(tmp_path, [{"messages": [{"role": "user", "content": "Hi"}]}])
    with pytest.raises(TextError, match="no chat template"):
        load_text(source, tokenizer)


def test_a_dataset_with_several_columns_asks_for_one(tmp_path, tokenizer):
    source = write_rows(tmp_path, [{"question": "a", "answer": "b"}])
    with pytest.raises(TextError, match="answer"):
        load_text(source, tokenizer)
    assert tokenizer.decode(load_text(source + ":::answer", tokenizer).ids) == "b</s>"
    with pytest.raises(TextError, match="question"):
        load_text(source + ":::title", tokenizer)
