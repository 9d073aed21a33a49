"""Judging a reader's answer: the lesson computes the truth, this says whether it was met."""

from dataclasses import dataclass
from typing import Any, Literal

import marimo as mo


@dataclass(frozen=True)
class Verdict:
    """What an answer is worth; marimo shows it as a coloured box."""

    status: Literal["open", "right", "wrong"]
    text: str

    def _display_(self) -> Any:
        kind = {"open": "neutral", "right": "success", "wrong": "warn"}[self.status]
        return mo.callout(mo.md(self.text), kind=kind)


def number(answer: str, truth: float, *, right: str, hint: str, tolerance: float = 0.01) -> Verdict:
    """Judge a number typed by the reader; `tolerance` is relative to the truth."""
    text = answer.strip().replace(",", "")
    if not text:
        return Verdict("open", "Type a number and press Enter.")
    try:
        given = float(text)
    except ValueError:
        return Verdict("wrong", f"`{answer}` is not a number; write it like `2.5`.")
    if abs(given - truth) <= tolerance * max(abs(truth), 1e-12):
        return Verdict("right", f"**Right.** {right}")
    return Verdict("wrong", f"Not {given:g}. {hint}")


def choice(answer: str | None, truth: str, *, right: str, hint: str) -> Verdict:
    """Judge one of several offered answers."""
    if answer is None:
        return Verdict("open", "Choose an answer.")
    if answer == truth:
        return Verdict("right", f"**Right.** {right}")
    return Verdict("wrong", f"Not this one. {hint}")


def goal(reached: bool, *, right: str, hint: str) -> Verdict:
    """Judge where the reader has put the sliders."""
    if reached:
        return Verdict("right", f"**Reached.** {right}")
    return Verdict("open", f"Not yet. {hint}")
