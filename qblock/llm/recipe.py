"""How to heal: the settings of a retraining, and what follows from them for each of its steps.

Every number that a step needs follows from the recipe and the step's number, so that an
interrupted run goes on as if it had not been.
"""

import functools
import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from qblock.errors import ParameterError
from qblock.problem import IntArray


@dataclass(frozen=True)
class Recipe:
    """How to heal.

    Attributes:
        epochs: how often each row is seen.
        batch_size: rows that go through a device together.
        accumulate: batches whose gradients make one step.
        learning_rate: its highest value; it rises over `warmup`, a share of the steps, and falls
            along a cosine to zero.
        temperature: of the softened distributions, > 0.
        hidden: weight of the hidden-state loss.
        lora: rank of the low-rank updates that are trained in place of all weights; 0 for all.
        mixed_precision: what the student computes in; its weights stay as they are.
        checkpointing: compute each layer again going back: more time, less memory.
        evaluate_every: steps between held-out evaluations.
        patience: evaluations in a row without a better held-out loss after which it stops.
        seed: of the order of rows, dropout and the low-rank updates' start.

    Raises:
        ParameterError: a value out of range.
    """

    epochs: float = 1.0
    batch_size: int = 4
    accumulate: int = 1
    learning_rate: float = 1e-4
    warmup: float = 0.1
    temperature: float = 1.0
    hidden: float = 0.0
    lora: int = 0
    mixed_precision: Literal["no", "bf16", "fp16"] = "no"
    checkpointing: bool = False
    evaluate_every: int = 50
    patience: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        positive = ("epochs", "batch_size", "accumulate", "learning_rate", "temperature")
        for name in (*positive, "evaluate_every", "patience"):
            if not 0 < getattr(self, name) < math.inf:
                raise ParameterError(f"{name} is {getattr(self, name)}: expected more than 0")
        for name in ("hidden", "lora", "seed"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ParameterError(f"{name} is {getattr(self, name)}: expected at least 0")
        if not 0 <= self.warmup < 1:
            raise ParameterError(f"warmup is {self.warmup}: expected a share of the steps, 0 to 1")

    def learning_rate_at(self, step: int, steps: int) -> float:
        """Learning rate of step 0 ... steps - 1."""
        warm = round(self.warmup * steps)
        if step < warm:
            return self.learning_rate * (step + 1) / (warm + 1)
        return self.learning_rate * (1 + math.cos(math.pi * (step - warm) / (steps - warm))) / 2

    def per_step(self, processes: int) -> int:
        """Rows of text that a step takes in all processes together."""
        return self.batch_size * self.accumulate * processes

    def steps(self, rows: int, processes: int) -> int:
        """Steps that see all rows `epochs` times."""
        return math.ceil(self.epochs * rows / self.per_step(processes))

    def rows_of(self, step: int, per_step: int, rows: int) -> IntArray:
        """The rows of text that a step sees, int64 (per_step,): each epoch in an order of its own.

        Args:
            step: number of the step.
            per_step: see `per_step`.
            rows: rows of text there are.
        """
        places = np.arange(step * per_step, (step + 1) * per_step)
        return np.array(
            [_order(self.seed, place // rows, rows)[place % rows] for place in places.tolist()]
        )


@functools.lru_cache(maxsize=2)  # a step may end one epoch and begin the next
def _order(seed: int, epoch: int, rows: int) -> IntArray:
    """The order of the rows in an epoch, int64 (rows,)."""
    return np.random.default_rng([seed, epoch]).permutation(rows)
