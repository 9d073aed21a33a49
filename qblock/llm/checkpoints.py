"""States of a training run on disk, each whole or not there, and nothing pickled is trusted.

A run's folder holds the newest state, `step-N/`, and the best weights seen, `best-N.safetensors`.
A state appears by a rename after all of it is written, so that a run killed at any moment goes on
from the last one.
"""

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from qblock.errors import ModelError
from qblock.files import differing_facts

WEIGHTS = "weights.safetensors"
OPTIMIZER = "optimizer.pt"
PROGRESS = "progress.json"
NEW = ".new"
"""What is being written, or was when a run was killed."""


def disk_space(trained: Iterable[Tensor]) -> int:
    """Bytes that a run's folder takes at its largest.

    That is two states, the older until the newer is whole, of weights and the optimizer's two
    moments, and twice the best weights.
    """
    weights = sum(int(tensor.numel() * tensor.element_size()) for tensor in trained)
    return (2 * 3 + 2) * weights


@dataclass(frozen=True)
class Evaluation:
    """The model after `step` steps, on held-out rows.

    Attributes:
        step: optimizer steps done.
        loss: the loss that is trained, per token.
        cross_entropy: of the text, nats per token.
    """

    step: int
    loss: float
    cross_entropy: float


@dataclass
class Progress:
    """Where a run is.

    Attributes:
        step: optimizer steps done.
        losses: distillation loss per token of each step.
        heldout: evaluations, the first before any step.
    """

    step: int = 0
    losses: list[float] = field(default_factory=list)
    heldout: list[Evaluation] = field(default_factory=list)

    @property
    def best(self) -> Evaluation:
        """The evaluation with the lowest loss, the first of equals."""
        return min(self.heldout, key=lambda item: (item.loss, item.step))


class Checkpoints:
    """The folder of one run; the facts of the run guard against mixing two."""

    def __init__(self, folder: Path, facts: Mapping[str, Any], resume: bool) -> None:
        """Find an earlier run's state.

        Raises:
            ModelError: a state is there and `resume` is not asked for, or it is of another run.
        """
        self.folder = folder
        self.facts: dict[str, Any] = json.loads(json.dumps(facts))
        if not self._newest():
            return
        if not resume:
            raise ModelError(
                f"{folder} holds the state of an interrupted run: go on with --resume, or delete it"
            )
        differing = differing_facts(self._read_progress()["facts"], self.facts)
        if differing:
            raise ModelError(f"{folder} belongs to another run: it differs in {differing}")

    def save(
        self, progress: Progress, weights: Mapping[str, Tensor], optimizer: Mapping[str, Any]
    ) -> None:
        """Keep this state in place of the one before it.

        Raises:
            ModelError: the disk is full, or the folder cannot be written.
        """
        document = {**asdict(progress), "facts": self.facts}
        target = self.folder / f"step-{progress.step}"
        with self._writing() as new:
            new.mkdir()
            save_file(_plain(weights), new / WEIGHTS)
            torch.save(optimizer, new / OPTIMIZER)
            (new / PROGRESS).write_text(json.dumps(document), encoding="utf-8")
            for path in new.iterdir():
                _sync(path)
            if not target.exists():  # else the same step is saved again: it is the same state
                new.rename(target)
                _sync(self.folder)
        best = f"best-{progress.best.step}.safetensors" if progress.heldout else ""
        for path in self.folder.iterdir():
            if path.name not in (target.name, best):
                _delete(path)

    def save_best(self, step: int, weights: Mapping[str, Tensor]) -> None:
        """Keep the weights of this step; those before stay until the next `save`.

        Raises:
            ModelError: the disk is full, or the folder cannot be written.
        """
        with self._writing() as new:
            save_file(_plain(weights), new)
            _sync(new)
            new.rename(self.folder / f"best-{step}.safetensors")

    def load(self) -> tuple[Progress, dict[str, Tensor], dict[str, Any]] | None:
        """The newest state: progress, weights and the optimizer's state; None if there is none.

        Raises:
            ModelError: a file is damaged.
        """
        state = self._newest()
        if state is None:
            return None
        document = self._read_progress()
        progress = Progress(
            document["step"],
            document["losses"],
            [Evaluation(**item) for item in document["heldout"]],
        )
        try:
            optimizer = torch.load(state / OPTIMIZER, map_location="cpu", weights_only=True)
            return progress, load_file(state / WEIGHTS), optimizer
        except Exception as error:  # torch raises many kinds for a damaged file
            raise self._damaged() from error

    def load_best(self, step: int) -> dict[str, Tensor]:
        """The weights that `save_best` kept.

        Raises:
            ModelError: the file is missing or damaged.
        """
        try:
            return load_file(self.folder / f"best-{step}.safetensors")
        except (OSError, SafetensorError) as error:
            raise self._damaged() from error

    def delete(self) -> None:
        """Forget the run."""
        shutil.rmtree(self.folder, ignore_errors=True)

    @contextmanager
    def _writing(self) -> Iterator[Path]:
        """A place for what is to be renamed when it is whole; what stays there is deleted."""
        new = self.folder / NEW
        try:
            self.folder.mkdir(exist_ok=True)
            _delete(new)
            yield new
        except (OSError, RuntimeError, SafetensorError) as error:  # torch's is a RuntimeError
            reason = str(error).splitlines()[0]
            raise ModelError(f"cannot write {self.folder} (is the disk full?): {reason}") from None
        finally:
            _delete(new)

    def _newest(self) -> Path | None:
        states = self.folder.glob("step-*")
        return max(states, key=lambda path: int(path.name.removeprefix("step-")), default=None)

    def _read_progress(self) -> dict[str, Any]:
        state = self._newest()
        try:
            text = (state or self.folder).joinpath(PROGRESS).read_text(encoding="utf-8")
            document: dict[str, Any] = json.loads(text)
        except (OSError, ValueError):
            raise self._damaged() from None
        return document

    def _damaged(self) -> ModelError:
        return ModelError(f"{self.folder} is damaged: delete it and start again")


def _plain(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: weight.detach().contiguous().cpu() for name, weight in weights.items()}


def _delete(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
