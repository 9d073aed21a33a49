"""A calibration cut into independent shards, and the sensitivity that they make together.

Every curvature is a mean over the rows of text, so shard i of n is the i-th of n consecutive
parts of the rows, measured on its own by whatever machine, and H of all rows is the mean of the
shards' H weighted by their rows. g is merged alike; the rows of A are put in their order.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from qblock.errors import ParameterError, ProblemError
from qblock.problem import FloatArray, Sensitivity

SAME = (
    "model",
    "revision",
    "dtype",
    "text",
    "granularity",
    "row_length",
    "of",
    "all_rows",
    "all_tokens_sha256",
)
"""Facts in which the shards of one calibration agree."""
SUMMED = ("rows", "tokens_predicted", "seconds")
PER_SHARD = ("shard", "of", "first_row", "all_rows", "tokens_sha256", "all_tokens_sha256")


@dataclass(frozen=True)
class Shard:
    """Part `index`, counted from 1, of `count` consecutive parts of equal size, up to one row."""

    index: int
    count: int

    def __post_init__(self) -> None:
        if not 1 <= self.index <= self.count:
            raise ParameterError(f"shard {self}: expected I/N with 1 <= I <= N, such as 2/4")

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """The shard that "2/4" names.

        Raises:
            ParameterError: another form, or out of range.
        """
        index, slash, count = text.partition("/")
        if not (slash and index.isdecimal() and count.isdecimal()):
            raise ParameterError(f"shard {text!r}: expected I/N with 1 <= I <= N, such as 2/4")
        return cls(int(index), int(count))

    def rows(self, total: int) -> slice:
        """Which of `total` rows are this shard's.

        Raises:
            ParameterError: there are fewer rows than shards.
        """
        if total < self.count:
            raise ParameterError(f"{total} rows of text cannot be cut into {self.count} shards")
        return slice(total * (self.index - 1) // self.count, total * self.index // self.count)


def merge(shards: Sequence[Sensitivity], *, name: str = "unnamed") -> Sensitivity:
    """The sensitivity of all rows from those of the shards, in any order.

    The shards' provenance becomes one: rows, tokens and seconds are added up.

    Raises:
        ProblemError: no shards, one that is no shard, shards of different calibrations, one
            given twice, or one that is missing.
    """
    ordered = _complete(shards)
    first = ordered[0]
    rows = np.array([shard.provenance["rows"] for shard in ordered], dtype=np.float64)
    fields: dict[str, Any] = {
        "blocks": first.blocks,
        "groups": first.groups,
        "curvature": first.curvature,
        "name": name,
        "provenance": _merged_provenance(ordered),
    }
    samples = [shard.A for shard in ordered if shard.A is not None]
    if len(samples) == len(ordered):
        return Sensitivity.from_samples(np.concatenate(samples), **fields)
    g = [shard.g for shard in ordered if shard.g is not None]
    return Sensitivity(
        H=_mean([shard.H for shard in ordered], rows), g=_mean(g, rows) if g else None, **fields
    )


def _mean(values: Sequence[FloatArray], rows: FloatArray) -> FloatArray:
    return np.asarray(np.average(np.stack(values), axis=0, weights=rows))


def _complete(shards: Sequence[Sensitivity]) -> list[Sensitivity]:
    """The shards in their order, checked to be all of one calibration, each once."""
    for shard in shards:
        if not {"shard", *SAME} <= set(shard.provenance):
            raise ProblemError(
                f"{shard.name!r} is no shard: expected files made by `qblock calibrate --shard I/N`"
            )
    if not shards:
        raise ProblemError("there are no shards to merge")
    first = shards[0]
    for shard in shards[1:]:
        differing = [f for f, value in _identity(shard).items() if value != _identity(first)[f]]
        if differing:
            raise ProblemError(
                f"{first.name!r} and {shard.name!r} are shards of different calibrations: they "
                f"differ in {', '.join(differing)}"
            )
    by_number: dict[int, Sensitivity] = {}
    for shard in shards:
        number = shard.provenance["shard"]
        if number in by_number:
            raise ProblemError(
                f"{by_number[number].name!r} and {shard.name!r} are the same shard, {number} of "
                f"{first.provenance['of']}: give each once"
            )
        by_number[number] = shard
    missing = sorted(set(range(1, first.provenance["of"] + 1)) - set(by_number))
    if missing:
        raise ProblemError(
            f"shards are missing: {', '.join(map(str, missing))} of {first.provenance['of']}"
        )
    return [by_number[number] for number in sorted(by_number)]


def _identity(shard: Sensitivity) -> dict[str, Any]:
    return {
        "curvature": shard.curvature,
        "blocks": shard.blocks,
        "groups": shard.groups,
        **{fact: shard.provenance[fact] for fact in SAME},
    }


def _merged_provenance(ordered: Sequence[Sensitivity]) -> Mapping[str, Any]:
    facts = [shard.provenance for shard in ordered]
    merged = {key: value for key, value in facts[0].items() if key not in PER_SHARD}
    merged |= {key: sum(f[key] for f in facts) for key in SUMMED}
    return {
        **merged,
        "tokens_sha256": facts[0]["all_tokens_sha256"],
        "split_half_spearman": None,  # the shards hold means, and halves of rows need the rows
        "shards": len(facts),
        "versions": [f["versions"] for f in facts],
        "created": max(f["created"] for f in facts),
    }
