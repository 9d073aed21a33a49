"""Healing: a short retraining of a pruned model by distillation from the original.

The loop runs through `accelerate`, so that one process on a CPU and `accelerate launch` on many
devices are the same code: data parallel, the original whole on each device. What a step does
follows from the recipe and the step's number alone, see `qblock.llm.recipe`.
"""

import importlib.util
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState
from torch import Tensor

from qblock.backend import versions
from qblock.errors import MeasurementError, ModelError
from qblock.llm.blocks import residual_stack
from qblock.llm.calibrate import checkpointed
from qblock.llm.checkpoints import Checkpoints, Evaluation, Progress, disk_space
from qblock.llm.distill import Distillation, kept_layers
from qblock.llm.load import LoadedModel
from qblock.llm.losses import Report, silent, token_losses
from qblock.llm.quantized import refuse_quantized
from qblock.llm.recipe import Recipe
from qblock.llm.text import Tokens
from qblock.llm.write import CARD, appearing, check_space, check_target, probe, save, verify
from qblock.problem import IntArray

SAVE_EVERY = 120.0
"""Seconds between two checkpoints, at least."""

Watch = Callable[[Evaluation], None]
"""Takes each held-out evaluation."""


@dataclass(frozen=True)
class HealedModel:
    """A model that was healed and written.

    Attributes:
        path: its directory.
        source, original: the pruned model and the one it was distilled from.
        losses: distillation loss per token of each step.
        heldout: evaluations, the first before any step.
        best: the one whose weights were written.
        tokens: tokens seen, those seen twice twice.
        seconds: wall clock of this run's training.
    """

    path: Path
    source: str
    original: str
    losses: tuple[float, ...]
    heldout: tuple[Evaluation, ...]
    best: Evaluation
    tokens: int
    seconds: float


def heal(
    original: LoadedModel,
    pruned: LoadedModel,
    train: Tokens,
    heldout: Tokens,
    out: str | Path,
    *,
    recipe: Recipe | None = None,
    text: str = "",
    history: str = "",
    resume: bool = False,
    force: bool = False,
    architecture: str | Path | None = None,
    report: Report = silent,
    watch: Watch | None = None,
) -> HealedModel:
    """Train a pruned model to predict as the original does, and write the best state of it.

    The state of the run is kept in the folder `out` with ".partial" added, and deleted at the
    end. `pruned.model` is changed.

    Args:
        original: the teacher.
        pruned: the student, in the dtype that is to be written.
        train: rows to train on.
        heldout: rows whose loss decides when to stop and which state is best.
        out: the directory to make.
        recipe: how; `Recipe()` if None.
        text: what to call the text in the model card.
        history: model card of the pruned model, to go on with.
        resume: go on with an interrupted run, rather than refuse to overwrite it.
        force: replace a model that is there already.
        architecture: see `residual_stack`.
        report: receives the share of steps done.
        watch: receives each evaluation.

    Raises:
        ModelError: before any work: the directory is there, models that do not fit together,
            quantized weights, peft is not installed, too little space on the disk, or another
            run's state; after it: the written model does not load and give the logits of the one
            in memory.
        MeasurementError: a loss is NaN or infinite, or no step gave a better held-out loss.
        KeyboardInterrupt: after the last whole step was kept.
    """
    recipe = recipe or Recipe()
    out = Path(out)
    check_target(out, force)
    _check_pair(original, pruned)
    dtypes = {name: tensor.dtype for name, tensor in _tensors(pruned.model)}
    if not recipe.lora:
        pruned.model.float()  # steps are too small to be seen in 16 bits
    accelerator = _accelerator(recipe, on_cpu=pruned.model.device.type == "cpu")
    run = _Run(original, pruned, recipe, accelerator, architecture)
    check_space(out, pruned.model, 0 if resume else disk_space(run.trained.values()))
    facts = {
        "original": original.source,
        "pruned": pruned.source,
        "train_sha256": train.sha256,
        "heldout_sha256": heldout.sha256,
        "processes": accelerator.num_processes,
        **asdict(recipe),
    }
    checkpoints = Checkpoints(out.with_name(f"{out.name}.partial"), facts, resume)
    started = time.perf_counter()
    layers = checkpointed(run.stack.layers) if recipe.checkpointing else nullcontext()
    with layers:
        progress = run.train(train, heldout, checkpoints, report, watch)
    best = progress.best
    if best.step == 0:
        checkpoints.delete()
        raise MeasurementError(
            f"healing did not help: the held-out distillation loss was {best.loss:.4f} before and "
            f"{min(e.loss for e in progress.heldout[1:]):.4f} at best after; nothing is written; "
            "try another learning rate or more text"
        )
    healed = HealedModel(
        path=out,
        source=pruned.source,
        original=original.source,
        losses=tuple(progress.losses),
        heldout=tuple(progress.heldout),
        best=best,
        tokens=run.tokens_of(train, len(progress.losses)),
        seconds=time.perf_counter() - started,
    )
    model = run.finished(checkpoints.load_best(best.step))
    for name, tensor in _tensors(model):
        tensor.data = tensor.data.to(dtypes[name])
    if accelerator.is_main_process:
        _write(replace(pruned, model=model), healed, recipe, text, history)
        checkpoints.delete()
    accelerator.wait_for_everyone()
    return healed


def own_device() -> str:
    """The device of this process, as `accelerate` would choose it."""
    return str(PartialState().device)


def _accelerator(recipe: Recipe, *, on_cpu: bool) -> Accelerator:
    options = {"mixed_precision": recipe.mixed_precision, "cpu": on_cpu}
    try:
        return Accelerator(**options)
    except ValueError:  # a run before this one in the same process had another precision
        AcceleratorState._reset_state()
        return Accelerator(**options)


class _Run:
    """The two models and the optimizer, prepared for the devices there are."""

    def __init__(
        self,
        original: LoadedModel,
        pruned: LoadedModel,
        recipe: Recipe,
        accelerator: Accelerator,
        architecture: str | Path | None,
    ) -> None:
        self.recipe, self.accelerator = recipe, accelerator
        self.stack = residual_stack(pruned.model, architecture=architecture)
        teacher = residual_stack(original.model, architecture=architecture)
        self.distillation = Distillation(
            teacher=teacher,
            student=self.stack,
            temperature=recipe.temperature,
            hidden=recipe.hidden,
            kept=kept_layers(teacher, self.stack) if recipe.hidden else (),
        )
        torch.manual_seed(recipe.seed)
        self.model = _with_lora(pruned.model, recipe.lora) if recipe.lora else pruned.model
        if not recipe.lora:
            for parameter in self.model.parameters():
                parameter.requires_grad_(parameter.is_floating_point())
        self.trained = {n: p for n, p in self.model.named_parameters() if p.requires_grad}
        optimizer = torch.optim.AdamW(
            self.trained.values(),
            lr=recipe.learning_rate,
            betas=(0.9, 0.95),
            weight_decay=0.0,
            fused=True,  # a third of the time on a CPU
        )
        self.prepared, self.optimizer = accelerator.prepare(self.model, optimizer)

    def train(
        self,
        train: Tokens,
        heldout: Tokens,
        checkpoints: Checkpoints,
        report: Report,
        watch: Watch | None,
    ) -> Progress:
        """Run all steps that are left, or as many as help."""
        recipe = self.recipe
        steps = recipe.steps(len(train), self.accelerator.num_processes)
        per_step = recipe.per_step(self.accelerator.num_processes)
        progress = self._restored(checkpoints)
        stepping = False
        saved_at = time.monotonic()
        try:
            while True:
                last = progress.heldout[-1].step if progress.heldout else -1
                due = progress.step % recipe.evaluate_every == 0 or progress.step == steps
                if due and last != progress.step:
                    self._evaluate(heldout, progress, checkpoints, watch)
                if progress.step == steps or self._exhausted(progress):
                    break
                if progress.step and (due or time.monotonic() - saved_at > SAVE_EVERY):
                    self._save(checkpoints, progress)
                    saved_at = time.monotonic()
                rows = recipe.rows_of(progress.step, per_step, len(train))
                self._set(recipe.learning_rate_at(progress.step, steps), progress.step)
                loss = self._gradients(train, rows)
                stepping = True
                self.accelerator.clip_grad_norm_(self.trained.values(), 1.0)
                self.optimizer.step()
                self.optimizer.zero_grad()
                progress.step += 1
                progress.losses.append(loss)
                stepping = False
                report(progress.step / steps)
        except KeyboardInterrupt:
            if not stepping and progress.step:  # else the weights may be between two steps
                self._save(checkpoints, progress)
            raise
        self._save(checkpoints, progress)
        return progress

    def tokens_of(self, train: Tokens, steps: int) -> int:
        """Tokens that the first `steps` steps see, those seen twice twice."""
        per_step = self.recipe.per_step(self.accelerator.num_processes)
        seen = (self.recipe.rows_of(step, per_step, len(train)) for step in range(steps))
        return sum(int(train.mask[rows].sum()) for rows in seen)

    def finished(self, weights: Mapping[str, Tensor]) -> Any:
        """The student with these weights, as an ordinary model of transformers."""
        self._load(weights)
        model = self.accelerator.unwrap_model(self.prepared, keep_fp32_wrapper=False)
        if self.recipe.lora:
            model = model.merge_and_unload()
        return model.eval().requires_grad_(False)

    def _gradients(self, train: Tokens, rows: IntArray) -> float:
        """Add this process's part of a step's gradients; the step's loss per token."""
        recipe, device = self.recipe, self.accelerator.device
        total = int(train.mask[rows].sum())
        processes = self.accelerator.num_processes
        mine = rows[self.accelerator.process_index :: processes]
        summed = torch.zeros((), device=device)
        self.prepared.train()
        for number in range(recipe.accumulate):
            batch = mine[number * recipe.batch_size : (number + 1) * recipe.batch_size]
            ids = torch.from_numpy(train.ids[batch]).to(device)
            mask = torch.from_numpy(train.mask[batch]).to(device)
            last = number + 1 == recipe.accumulate
            with nullcontext() if last else self.accelerator.no_sync(self.prepared):
                loss, _ = self.distillation(self.prepared, ids, mask)
                # Gradients are averaged over the processes, and the loss is one of all tokens.
                self.accelerator.backward(loss * (processes / total))
            summed += loss.detach()
        mean = float(self.accelerator.reduce(summed, "sum")) / total
        if not math.isfinite(mean):
            raise MeasurementError(
                "the distillation loss is NaN or infinite: lower the learning rate, or use "
                "mixed precision bf16 or none"
            )
        return mean

    def _set(self, learning_rate: float, step: int) -> None:
        """Everything a step depends on beside weights and optimizer."""
        torch.manual_seed(hash((self.recipe.seed, step, self.accelerator.process_index)))
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate

    def _evaluate(
        self, heldout: Tokens, progress: Progress, checkpoints: Checkpoints, watch: Watch | None
    ) -> None:
        found = self._heldout(heldout, progress.step)
        progress.heldout.append(found)
        if watch is not None:
            watch(found)
        improved = progress.best.step == progress.step > 0
        if improved and self.accelerator.is_main_process:
            checkpoints.save_best(progress.step, self.trained)

    def _heldout(self, heldout: Tokens, step: int) -> Evaluation:
        self.prepared.eval()
        device = self.accelerator.device
        loss = cross_entropy = 0.0
        with torch.no_grad():
            for batch in heldout.batches(self.recipe.batch_size):
                ids = torch.from_numpy(batch.ids).to(device)
                mask = torch.from_numpy(batch.mask).to(device)
                summed, logits = self.distillation(self.model, ids, mask)
                loss += float(summed)
                cross_entropy += float(token_losses(logits, ids, mask[:, 1:]).double().sum())
        return Evaluation(step, loss / int(heldout.mask.sum()), cross_entropy / heldout.predicted)

    def _exhausted(self, progress: Progress) -> bool:
        later = [item for item in progress.heldout if item.step > progress.best.step]
        return len(later) >= self.recipe.patience

    def _save(self, checkpoints: Checkpoints, progress: Progress) -> None:
        if not self.accelerator.is_main_process:
            return
        scaler = self.accelerator.scaler
        state = {
            "optimizer": self.optimizer.optimizer.state_dict(),
            "scaler": scaler.state_dict() if scaler is not None else {},
        }
        checkpoints.save(progress, self.trained, state)

    def _restored(self, checkpoints: Checkpoints) -> Progress:
        state = checkpoints.load()
        if state is None:
            return Progress()
        progress, weights, optimizer = state
        self._load(weights)
        self.optimizer.optimizer.load_state_dict(optimizer["optimizer"])
        if self.accelerator.scaler is not None and optimizer["scaler"]:
            self.accelerator.scaler.load_state_dict(optimizer["scaler"])
        return progress

    def _load(self, weights: Mapping[str, Tensor]) -> None:
        with torch.no_grad():
            for name, parameter in self.trained.items():
                parameter.copy_(weights[name])


def model_card(healed: HealedModel, recipe: Recipe, text: str, history: str = "") -> str:
    """The README.md of a healed model; `history` is the pruned model's, to go on with."""
    _, front, body = history.split("---\n", 2) if history.startswith("---\n") else ("", "", history)
    front = front or "library_name: transformers\npipeline_tag: text-generation\n"
    first, best = healed.heldout[0], healed.best
    how = (
        f"low-rank updates of rank {recipe.lora} of all linear layers, merged into the weights"
        if recipe.lora
        else "all weights"
    )
    hidden = (
        f" plus {recipe.hidden:g} times the relative squared distance of the residual streams that "
        "enter the kept layers"
        if recipe.hidden
        else ""
    )
    used = ", ".join(f"{name} {version}" for name, version in versions("torch", "peft").items())
    return "\n".join(
        [
            "---",
            front.replace("tags: [qblock, pruned]", "tags: [qblock, pruned, healed]").strip(),
            "---",
            f"# {healed.source}, healed",
            "",
            f"Trained after pruning to predict as `{healed.original}` does: {how}, "
            f"{healed.tokens:,} tokens of {text or 'a text'}, {len(healed.losses)} steps; the "
            f"weights are those after step {best.step}, the best on held-out rows.",
            "",
            f"Held-out loss: {first.loss:.4f} before, {best.loss:.4f} after; cross entropy, nats "
            f"per token: {first.cross_entropy:.4f} before, {best.cross_entropy:.4f} after.",
            "",
            f"Loss: KL divergence from the original's predictions at temperature "
            f"{recipe.temperature:g}{hidden}. AdamW, highest learning rate "
            f"{recipe.learning_rate:g}, {recipe.batch_size} x {recipe.accumulate} rows per step "
            f"and device, mixed precision: {recipe.mixed_precision}, seed {recipe.seed}.",
            "",
            f"Made with {used}.",
            "",
            *(["## How it was pruned", "", body.strip(), ""] if body.strip() else []),
        ]
    )


def _write(
    student: LoadedModel, healed: HealedModel, recipe: Recipe, text: str, history: str
) -> None:
    ids = probe(student.model)
    with torch.inference_mode():
        expected = student.model(input_ids=ids, use_cache=False).logits.cpu()
    with appearing(healed.path) as folder:
        save(student, folder)
        verify(folder, student.model, ids, expected, "the model in memory")
        card = model_card(healed, recipe, text, history)
        (folder / CARD).write_text(card, encoding="utf-8")


def _tensors(model: Any) -> Iterator[tuple[str, Tensor]]:
    yield from model.named_parameters()
    yield from model.named_buffers()


def _with_lora(model: Any, rank: int) -> Any:
    """The model with low-rank updates to train; its own weights stay frozen."""
    if importlib.util.find_spec("peft") is None:
        raise ModelError('low-rank updates need peft: pip install "qblock[heal]"')
    import peft

    config = peft.LoraConfig(
        r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    return peft.get_peft_model(model, config)


def _check_pair(original: LoadedModel, pruned: LoadedModel) -> None:
    sizes = [m.model.get_input_embeddings().num_embeddings for m in (original, pruned)]
    sample = "The quick brown fox: 0123, (äöü)!"
    ids = [m.tokenizer(sample)["input_ids"] for m in (original, pruned)]
    if sizes[0] != sizes[1] or ids[0] != ids[1]:
        raise ModelError(
            f"{original.source} and {pruned.source} have other tokens ({sizes[0]} and {sizes[1]} "
            "embeddings): give the model that the pruned one was made from"
        )
    refuse_quantized(pruned.model, pruned.source, "healing")
