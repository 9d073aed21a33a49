"""Healing small models: what is lost comes back, and a run survives whatever stops it."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from tiny_models import tiny_ids, tiny_model, tiny_tokenizer
from torch import nn

from qblock.errors import MeasurementError, ModelError, ParameterError
from qblock.llm import heal as module
from qblock.llm import write
from qblock.llm.blocks import residual_stack
from qblock.llm.checkpoints import PROGRESS
from qblock.llm.distill import Distillation, kept_layers, summed_kl
from qblock.llm.heal import HealedModel, heal
from qblock.llm.load import LoadedModel, load_model
from qblock.llm.prune import prune
from qblock.llm.recipe import Recipe
from qblock.llm.text import Tokens

RECIPE = Recipe(learning_rate=2e-3, evaluate_every=4)


def loaded(name: str = "llama") -> LoadedModel:
    return LoadedModel(tiny_model(name), tiny_tokenizer(), f"tiny/{name}")


def rows(count: int, seed: int = 0) -> Tokens:
    """Random rows of 12 tokens, the second half of every third one padding."""
    ids = np.random.default_rng(seed).integers(0, 256, (count, 12))
    mask = np.ones(ids.shape, dtype=np.bool_)
    mask[::3, 6:] = False
    return Tokens(ids, mask)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pruned models."""
    folder = tmp_path_factory.mktemp("pruned")
    for name in ("llama", "llama-tied", "nemotron-h", "gpt2", "mixtral"):
        prune(loaded(name), ["1", "2"], folder / name)
    return folder


def healed(folder: Path, out: Path, name: str = "llama", **options: Any) -> HealedModel:
    options.setdefault("recipe", RECIPE)
    return heal(loaded(name), load_model(folder / name), rows(64), rows(9, 1), out, **options)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_the_divergence_and_its_gradient_are_torch_s(temperature: float):
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, 3, 70, 11, generator=generator) * 3
    student = student.double().requires_grad_()
    mask = torch.rand(3, 70, generator=generator) < 0.7
    ours = summed_kl(student, teacher.double().clone(), mask, temperature)
    (gradient,) = torch.autograd.grad(2 * ours, student)
    plain = temperature**2 * nn.functional.kl_div(
        (student[mask] / temperature).log_softmax(-1),
        (teacher.double()[mask] / temperature).log_softmax(-1),
        log_target=True,
        reduction="sum",
    )
    (expected,) = torch.autograd.grad(2 * plain, student)
    torch.testing.assert_close(ours.double(), plain, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(gradient, expected, rtol=1e-5, atol=1e-5)


def test_kept_layers_are_told_by_their_weights(folder: Path):
    original = residual_stack(tiny_model("llama"))
    assert kept_layers(original, residual_stack(load_model(folder / "llama").model)) == (0, 3, 4)
    with pytest.raises(ModelError, match="give the model that it was pruned from"):
        kept_layers(original, residual_stack(load_model(folder / "llama-tied").model))
    wide = residual_stack(tiny_model("llama", hidden_size=16, num_hidden_layers=3))
    with pytest.raises(ModelError, match="16 and 32 wide"):
        kept_layers(wide, residual_stack(load_model(folder / "llama").model))


def test_a_model_that_lost_nothing_has_no_loss():
    """With both layers' maps right, the hidden states agree too."""
    teacher, student = residual_stack(tiny_model()), residual_stack(tiny_model())
    ids, mask = tiny_ids(), torch.ones(2, 12, dtype=torch.bool)
    same = Distillation(teacher, student, hidden=1.0, kept=tuple(range(5)))
    assert abs(float(same(student.model, ids, mask)[0])) < 1e-6
    shifted = replace(same, kept=(1, 2, 3, 4, 4))
    assert float(shifted(student.model, ids, mask)[0]) > 0.1


def test_the_loss_falls_and_a_fresh_process_without_peft_loads_the_results(
    folder: Path, tmp_path: Path
):
    low_rank = replace(RECIPE, lora=4, learning_rate=1e-2)
    runs = {
        "plain": ("llama", RECIPE),
        "hidden": ("llama-tied", replace(RECIPE, hidden=0.3, checkpointing=True)),
        "hybrid": ("nemotron-h", replace(RECIPE, temperature=2.0, epochs=2)),
        "mixed": ("mixtral", replace(RECIPE, mixed_precision="bf16")),
        "low-rank": ("llama", low_rank),
        "low-rank, transposed": ("gpt2", low_rank),
    }
    sizes = {}
    for key, (name, recipe) in runs.items():
        done = healed(folder, tmp_path / key, name, recipe=recipe, text="noise")
        assert done.best.loss < 0.95 * done.heldout[0].loss, key
        assert done.tokens == recipe.epochs * rows(64).mask.sum()
        card = (tmp_path / key / "README.md").read_text()
        assert "noise" in card
        assert f"{done.best.cross_entropy:.4f} after" in card
        sizes[str(tmp_path / key)] = load_model(folder / name).model.num_parameters()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(runs)  # nothing is left
    script = """
import json, sys
sys.modules["peft"] = sys.modules["qblock"] = None  # importing them would fail
from transformers import AutoModelForCausalLM
sizes = {}
for name in sys.argv[1:]:
    model, remarks = AutoModelForCausalLM.from_pretrained(name, output_loading_info=True)
    assert not any(remarks.values()), remarks
    sizes[name] = model.num_parameters()
print(json.dumps(sizes))
"""
    run = subprocess.run(
        [sys.executable, "-c", script, *sizes], capture_output=True, text=True, check=True
    )
    assert json.loads(run.stdout) == sizes


def test_the_card_goes_on_with_that_of_the_pruned_model(folder: Path, tmp_path: Path):
    history = (folder / "llama" / "README.md").read_text()
    healed(folder, tmp_path / "healed", history=history)
    card = (tmp_path / "healed" / "README.md").read_text()
    front = yaml.safe_load(card.split("---")[1])
    assert front["base_model"] == "tiny/llama"
    assert front["tags"] == ["qblock", "pruned", "healed"]
    assert "**1, 2**" in card


def test_how_a_step_is_cut_up_does_not_matter(folder: Path, tmp_path: Path):
    whole = healed(folder, tmp_path / "a", recipe=replace(RECIPE, batch_size=8))
    cut = healed(folder, tmp_path / "b", recipe=replace(RECIPE, batch_size=2, accumulate=4))
    np.testing.assert_allclose(whole.losses, cut.losses, rtol=1e-4)


def test_every_epoch_sees_each_row_once_in_another_order():
    recipe = Recipe(epochs=2)
    seen = np.concatenate([recipe.rows_of(step, 5, 10) for step in range(4)])
    assert sorted(seen[:10]) == sorted(seen[10:]) == list(range(10))
    assert list(seen[:10]) != list(seen[10:])
    assert len(recipe.rows_of(0, 25, 10)) == 25  # a step may be longer than an epoch


def test_it_stops_when_nothing_gets_better_and_keeps_the_best(folder: Path, tmp_path: Path):
    recipe = Recipe(learning_rate=0.1, evaluate_every=1, patience=2, warmup=0, epochs=3)
    with pytest.raises(MeasurementError, match="healing did not help"):
        healed(folder, tmp_path / "healed", recipe=recipe)
    assert not list(tmp_path.iterdir())
    spoilt = replace(RECIPE, learning_rate=6e-3, epochs=20, patience=1, evaluate_every=8)
    done = healed(folder, tmp_path / "healed", recipe=spoilt)
    assert done.best == min(done.heldout, key=lambda item: item.loss)
    assert done.heldout[-1].step < 320
    assert done.heldout[-1].loss > done.best.loss
    model = residual_stack(load_model(tmp_path / "healed").model)
    distillation = Distillation(residual_stack(tiny_model()), model)
    held = rows(9, 1)
    with torch.no_grad():
        loss, _ = distillation(model.model, torch.from_numpy(held.ids), torch.from_numpy(held.mask))
    assert float(loss) / held.mask.sum() == pytest.approx(done.best.loss, rel=1e-4)


KILLED = """
import signal, sys
from pathlib import Path
import test_heal
from qblock.llm import heal
heal.SAVE_EVERY = 0.0
def watch(found):
    if found.step == int(sys.argv[3]):
        print("there", flush=True)
        signal.pause()
folder, out = Path(sys.argv[1]), Path(sys.argv[2])
test_heal.healed(folder, out, sys.argv[4], recipe=eval(sys.argv[5], vars(heal)), watch=watch)
"""


def test_a_killed_run_goes_on_as_if_it_had_not_been(folder: Path, tmp_path: Path):
    """gpt2 has dropout, so that the random numbers matter."""
    name, recipe = "gpt2", replace(RECIPE, accumulate=2, batch_size=2)
    whole = healed(folder, tmp_path / "whole", name, recipe=recipe)
    arguments = [folder, tmp_path / "healed", "8", name, repr(recipe)]
    tests = Path(__file__)
    path = os.pathsep.join([str(tests.parent), str(tests.parents[2])])
    run = subprocess.Popen(
        [sys.executable, "-c", KILLED, *map(str, arguments)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert run.stdout is not None
    assert run.stdout.readline() == b"there\n"
    run.send_signal(signal.SIGKILL)
    run.communicate()
    assert not (tmp_path / "healed").exists()
    with pytest.raises(ModelError, match="--resume"):
        healed(folder, tmp_path / "healed", name, recipe=recipe)
    other = replace(recipe, learning_rate=1e-5)
    with pytest.raises(ModelError, match=r"another run: it differs in learning_rate \(0.002"):
        healed(folder, tmp_path / "healed", name, recipe=other, resume=True)
    done = healed(folder, tmp_path / "healed", name, recipe=recipe, resume=True)
    np.testing.assert_allclose(done.losses, whole.losses, rtol=1e-6)
    assert [e.step for e in done.heldout] == [e.step for e in whole.heldout]
    np.testing.assert_allclose(done.best.loss, whole.best.loss, rtol=1e-6)
    assert not (tmp_path / "healed.partial").exists()


def test_ctrl_c_keeps_the_steps_that_are_done(folder: Path, tmp_path: Path):
    reports = []

    def interrupt(share: float) -> None:
        reports.append(share)
        if len(reports) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        healed(folder, tmp_path / "healed", report=interrupt)
    (state,) = (tmp_path / "healed.partial").glob("step-*")
    assert json.loads((state / PROGRESS).read_text())["step"] == 3
    done = healed(folder, tmp_path / "healed", resume=True)
    whole = healed(folder, tmp_path / "whole")
    np.testing.assert_allclose(done.losses, whole.losses, rtol=1e-6)


@pytest.mark.parametrize("file", ["progress.json", "optimizer.pt", "weights.safetensors"])
def test_a_damaged_state_is_told(folder: Path, tmp_path: Path, file: str):
    def interrupt(share: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        healed(folder, tmp_path / "healed", report=interrupt)
    (state,) = (tmp_path / "healed.partial").glob("step-*")
    (state / file).write_bytes(b"not what it was")
    with pytest.raises(ModelError, match=r"healed.partial is damaged: delete it"):
        healed(folder, tmp_path / "healed", resume=True)


def test_a_full_disk_is_told_and_the_state_before_goes_on(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    plain, calls = torch.save, []

    def full(*arguments: Any) -> None:
        calls.append(arguments)
        if len(calls) == 2:
            raise RuntimeError("unexpected pos 225600 vs 225492")  # as torch says it
        plain(*arguments)

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(ModelError, match=r"healed.partial \(is the disk full\?\): unexpected pos"):
        healed(folder, tmp_path / "healed")
    assert not list((tmp_path / "healed.partial").glob(".*"))
    done = healed(folder, tmp_path / "healed", resume=True)
    assert len(done.losses) == 16


def test_the_space_of_checkpoints_is_looked_for_before_any_work(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    size = 4 * load_model(folder / "llama").model.num_parameters()
    usage = SimpleNamespace(free=8 * size)  # two states and two best weights need as much
    monkeypatch.setattr(write.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(ModelError, match="GB of disk; free in"):
        healed(folder, tmp_path / "healed")
    assert not list(tmp_path.iterdir())
    usage.free = 9 * size
    healed(folder, tmp_path / "healed")


def test_what_cannot_be_healed_is_refused_before_any_work(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with pytest.raises(ModelError, match="have other tokens"):
        heal(
            LoadedModel(tiny_model(vocab_size=300), tiny_tokenizer(), "other"),
            load_model(folder / "llama"),
            rows(4),
            rows(4),
            tmp_path / "healed",
        )
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "config.json").write_text("{}")
    with pytest.raises(ModelError, match="--force"):
        healed(folder, tmp_path / "there")
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ModelError, match=r'pip install "qblock\[heal\]"'):
        healed(folder, tmp_path / "healed", recipe=replace(RECIPE, lora=2))


@pytest.mark.parametrize(
    ("field", "value"), [("temperature", 0), ("epochs", -1), ("warmup", 1), ("hidden", -0.1)]
)
def test_senseless_recipes_are_refused(field: str, value: float):
    with pytest.raises(ParameterError, match=field):
        replace(RECIPE, **{field: value})
