"""Shards of a calibration give what the whole gives, and nothing else is merged."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qblock.errors import ParameterError, ProblemError
from qblock.problem import FloatArray, Sensitivity
from qblock.shards import Shard, merge


def cut(samples: FloatArray, count: int, *, keep_samples: bool = True) -> list[Sensitivity]:
    """Fisher shards of per-sample gradients, as `qblock calibrate --shard` writes them."""
    shards = []
    for index in range(1, count + 1):
        rows = Shard(index, count).rows(len(samples))
        part = samples[rows]
        facts = {
            "model": "m",
            "revision": "",
            "dtype": "float32",
            "text": "t",
            "granularity": "block",
            "row_length": 8,
            "shard": index,
            "of": count,
            "first_row": rows.start,
            "all_rows": len(samples),
            "all_tokens_sha256": "abc",
            "tokens_sha256": str(index),
            "rows": len(part),
            "tokens_predicted": 7 * len(part),
            "seconds": 1.5,
            "versions": {"torch": "2"},
            "created": f"2026-01-0{index}",
        }
        shard = Sensitivity.from_samples(part, name=f"s{index}", provenance=facts)
        shards.append(shard if keep_samples else replace(shard, A=None))
    return shards


@given(st.integers(1, 9), st.integers(0, 12), st.booleans(), st.randoms())
def test_any_cut_merges_to_the_whole(count, extra, keep_samples, random):
    samples = np.random.default_rng(count).standard_normal((count + extra, 5))
    shards = cut(samples, count, keep_samples=keep_samples)
    random.shuffle(shards)
    merged = merge(shards, name="whole")
    whole = Sensitivity.from_samples(samples)
    np.testing.assert_allclose(merged.H, whole.H, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(merged.g, whole.g, rtol=1e-12, atol=1e-14)
    if keep_samples:
        np.testing.assert_array_equal(merged.A, samples)
    assert merged.provenance["rows"] == len(samples)
    assert merged.provenance["tokens_predicted"] == 7 * len(samples)
    assert merged.provenance["tokens_sha256"] == "abc"
    assert merged.provenance["shards"] == count


def other(shard: Sensitivity, **facts: object) -> Sensitivity:
    return replace(shard, provenance={**shard.provenance, **facts})


def test_what_does_not_fit_together_is_refused():
    a, b, c = cut(np.random.default_rng(0).standard_normal((7, 4)), 3)
    with pytest.raises(ProblemError, match="missing: 2 of 3"):
        merge([a, c])
    with pytest.raises(ProblemError, match="'s2' and 's2' are the same shard, 2 of 3"):
        merge([a, b, b, c])
    with pytest.raises(ProblemError, match="differ in text, all_tokens_sha256"):
        merge([a, b, other(c, text="u", all_tokens_sha256="def")])
    with pytest.raises(ProblemError, match="differ in curvature"):
        merge([a, b, replace(c, curvature="ablation")])
    with pytest.raises(ProblemError, match="differ in of"):
        merge([a, b, other(c, of=4)])
    with pytest.raises(ProblemError, match="'unnamed' is no shard"):
        merge([a, b, Sensitivity(H=np.eye(4))])
    with pytest.raises(ProblemError, match="no shards"):
        merge([])


@pytest.mark.parametrize("text", ["", "3", "0/2", "3/2", "a/b", "-1/2", "1/2/3"])
def test_misspelt_shards_are_refused(text):
    with pytest.raises(ParameterError, match="expected I/N"):
        Shard.parse(text)


def test_more_shards_than_rows_are_refused():
    with pytest.raises(ParameterError, match="3 rows of text cannot be cut into 4 shards"):
        Shard(4, 4).rows(3)
