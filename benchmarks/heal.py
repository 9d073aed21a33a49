"""What healing costs, beside the Trainer of transformers on the same model and batches.

    python benchmarks/heal.py MODEL [--results benchmarks/RESULTS.md]

Time and peak memory of a training step of the model without some of its blocks, all weights
trained: by `qblock.llm.heal`; by a Trainer whose loss is the same distillation written the
ordinary way; and by a plain Trainer on cross entropy, which has no teacher to run and to hold.
Optimizer, batches, precision and clipping are the same; evaluations and the writing of states
and models are left out on all sides.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from record import write_section
from torch.nn import functional

from qblock.errors import MeasurementError
from qblock.llm.heal import heal
from qblock.llm.load import LoadedModel, load_model
from qblock.llm.prune import prune
from qblock.llm.recipe import Recipe
from qblock.llm.text import Tokens, load_text

REMOVED = ["12", "13", "14", "17", "25", "26"]
ROWS, SEQ_LEN, STEPS, REPEATS = 4, 128, 3, 3
RATE = 1e-5
GOAL = 1.1


class Clock:
    """Called after each step: processor seconds, and the peak memory of the process so far."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.peak = 0

    def __call__(self, *_: Any) -> None:
        self.seconds.append(time.process_time())
        self.peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    @property
    def per_step(self) -> float:
        """Of the steps but the first, which makes the optimizer's state."""
        return (self.seconds[-1] - self.seconds[0]) / (len(self.seconds) - 1)


def by_heal(original: LoadedModel, pruned: LoadedModel, tokens: Tokens, clock: Clock) -> None:
    recipe = Recipe(batch_size=ROWS, learning_rate=RATE, evaluate_every=10**6)
    # Where so few steps do not help, it says so after them.
    with tempfile.TemporaryDirectory() as folder, suppress(MeasurementError):
        out = Path(folder) / "healed"
        heal(original, pruned, tokens, tokens[:1], out, recipe=recipe, report=clock)


class DistillingTrainer(transformers.Trainer):  # type: ignore[misc]
    """The same loss, as one writes it."""

    teacher: Any

    def compute_loss(self, model: Any, inputs: Any, *_: Any, **__: Any) -> Any:
        ids = inputs["input_ids"]
        with torch.no_grad():
            wanted = self.teacher(input_ids=ids, use_cache=False).logits
        given = model(input_ids=ids, use_cache=False).logits
        return functional.kl_div(
            given.log_softmax(-1).flatten(0, 1),
            wanted.log_softmax(-1).flatten(0, 1),
            log_target=True,
            reduction="batchmean",
        )


class Ticking(transformers.TrainerCallback):  # type: ignore[misc]
    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.clock()


def by_trainer(
    kind: type[transformers.Trainer], model: Any, tokens: Tokens, clock: Clock, **attributes: Any
) -> None:
    model.requires_grad_(True)
    rows = [{"input_ids": row, "labels": row} for row in torch.from_numpy(tokens.ids)]
    with tempfile.TemporaryDirectory() as folder:
        arguments = transformers.TrainingArguments(
            folder,
            max_steps=STEPS,
            per_device_train_batch_size=ROWS,
            learning_rate=RATE,
            adam_beta2=0.95,
            use_cpu=True,
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        trainer = kind(model, arguments, train_dataset=rows, callbacks=[Ticking(clock)])
        for name, value in attributes.items():
            setattr(trainer, name, value)
        trainer.train()


def distilling(original: LoadedModel, pruned: LoadedModel, tokens: Tokens, clock: Clock) -> None:
    by_trainer(DistillingTrainer, pruned.model, tokens, clock, teacher=original.model)


def plain(_: LoadedModel | None, pruned: LoadedModel, tokens: Tokens, clock: Clock) -> None:
    by_trainer(transformers.Trainer, pruned.model, tokens, clock)


WAYS: dict[str, Callable[..., None]] = {
    "`qblock.llm.heal`": by_heal,
    "Trainer, the same distillation": distilling,
    "Trainer, cross entropy, no teacher": plain,
}


def rows_of(loaded: LoadedModel) -> Tokens:
    text = load_text("builtin:python-docs", loaded.tokenizer)
    return text.calibration.rows(ROWS * STEPS, SEQ_LEN)


def peak_memory(folder: Path, way: str) -> int:
    """Bytes at the peak of a run in a fresh process."""
    done = subprocess.run(
        [sys.executable, __file__, str(folder), "--memory-of", way],
        check=True,
        capture_output=True,
        text=True,
    )
    return int(done.stdout.split()[-1])


def memory_of(folder: Path, way: str) -> int:
    """Bytes at the peak of this process after a run."""
    original = None if WAYS[way] is plain else load_model(folder / "original")
    pruned = load_model(folder / "pruned")
    clock = Clock()
    WAYS[way](original, pruned, rows_of(pruned), clock)
    return clock.peak


def step_seconds(folder: Path) -> dict[str, float]:
    """Median processor seconds of a step, the ways in turn, so that a slow minute hits all."""
    original, pruned = load_model(folder / "original"), load_model(folder / "pruned")
    tokens = rows_of(pruned)
    found: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(REPEATS):
        for way, run in WAYS.items():
            clock = Clock()
            run(original, pruned, tokens, clock)
            found[way].append(clock.per_step)
            print(f"{way}: {clock.per_step:.2f} s", file=sys.stderr, flush=True)
    return {way: float(np.median(values)) for way, values in found.items()}


def report(seconds: dict[str, float], memory: dict[str, int]) -> str:
    """The section as markdown."""
    ours, *others = WAYS

    def verdict(way: str) -> str:
        largest = max(seconds[ours] / seconds[way], memory[ours] / memory[way])
        return "reached" if largest <= GOAL else f"missed, {largest:.2f} times"

    rows = [
        f"| {way} | {1000 * seconds[way] / (ROWS * SEQ_LEN):.1f} "
        f"| {seconds[ours] / seconds[way]:.2f} | {memory[way] / 1e6:.0f} "
        f"| {memory[ours] / memory[way]:.2f} |"
        for way in WAYS
    ]
    return "\n".join(
        [
            "## healing cost",
            "",
            f"`python benchmarks/heal.py MODEL`: SmolLM2-135M-Instruct without {len(REMOVED)} of "
            f"its 30 blocks, all weights trained in float32, AdamW, {ROWS} x {SEQ_LEN} tokens a "
            f"step, one thread. Processor seconds, median of {REPEATS} alternating runs of "
            f"{STEPS - 1} steps; peak memory of fresh processes.",
            "",
            "| what | CPU s per 1000 tokens | heal's time / this | peak memory, MB "
            "| heal's memory / this |",
            "|---|---|---|---|---|",
            *rows,
            "",
            f"The goal is at most {GOAL} times a Trainer. "
            + "; ".join(f"{way}: {verdict(way)}" for way in others)
            + ".",
            "",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--memory-of", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--results", type=Path, default=Path("benchmarks/RESULTS.md"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.memory_of:
        print(memory_of(Path(options.model), options.memory_of))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # Both from files of the same kind: reading GGUF takes more memory than training.
        loaded = load_model(options.model)
        loaded.model.save_pretrained(folder / "original")
        loaded.tokenizer.save_pretrained(folder / "original")
        prune(loaded, REMOVED, folder / "pruned")
        del loaded
        memory = {way: peak_memory(folder, way) for way in WAYS}
        section = report(step_seconds(folder), memory)
    write_section(options.results, section)
    print(section)


if __name__ == "__main__":
    main()
