"""A mixed stack of Mamba, attention, MLP and expert layers, from training to a pruned model."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_models import tiny_ids, tiny_model, tiny_tokenizer
from typer.testing import CliRunner

from qblock import BlockRemovalProblem, Spectrum, get_backend, load_sensitivity
from qblock.cli import app
from qblock.llm.blocks import residual_stack
from qblock.llm.load import LoadedModel, load_model
from qblock.llm.losses import removal_losses
from qblock.llm.text import load_text

PATTERN = "MEM*-MEM*E-M"
KINDS = {"M": "mamba", "E": "moe", "*": "attention", "-": "mlp"}
BUDGET = "mamba=2,attention=1,moe=1"
HEURISTICS = ("fixed-weight-tabu", "fixed-weight-annealing", "tabu", "annealing", "descent")
WORDS = ("alpha", "beta", "gamma", "delta", "epsilon", "\n")


def run(*arguments: object) -> str:
    done = CliRunner().invoke(app, [*map(str, arguments)], catch_exceptions=False)
    assert done.exit_code == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a text, a model that was trained on it, and its measured curvature."""
    folder = tmp_path_factory.mktemp("hybrid")
    words = np.random.default_rng(0).choice(WORDS, 6000)
    (folder / "text.txt").write_text(" ".join(words))
    model = tiny_model("nemotron-h", hybrid_override_pattern=PATTERN)
    model.apply(model._init_weights)  # at the usual scale, from which it can learn
    text = load_text(str(folder / "text.txt"), tiny_tokenizer())
    first, last = train(model, text.calibration.ids, steps=60)
    assert last < 0.2 * first  # it has learnt to spell
    model.save_pretrained(folder / "model")
    tiny_tokenizer().save_pretrained(folder / "model")
    source = ("--text", folder / "text.txt", "--samples", 8, "--seq-len", 32)
    output = ("--curvature", "ablation", "-o", folder / "h.npz")
    run("calibrate", folder / "model", *source, *output)
    return folder


def train(model: torch.nn.Module, ids: np.ndarray, *, steps: int) -> tuple[float, float]:
    """The first and the last loss."""
    torch.manual_seed(0)
    model.train().requires_grad_(True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    losses = []
    for step in range(steps):
        starts = torch.randint(0, len(ids) - 32, (16,)).tolist()
        rows = torch.from_numpy(np.stack([ids[start : start + 32] for start in starts]))
        loss = model(input_ids=rows, labels=rows, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.param_groups[0]["lr"] = 5e-3 * (1 - step / steps)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss))
    return losses[0], losses[-1]


def test_blocks_are_grouped_by_kind(folder: Path):
    sensitivity = load_sensitivity(folder / "h.npz")
    assert sensitivity.groups == tuple(KINDS[letter] for letter in PATTERN)


def test_every_solver_keeps_the_budget_of_each_kind(folder: Path):
    budget = {"mamba": 2, "attention": 1, "moe": 1}
    problem = BlockRemovalProblem(load_sensitivity(folder / "h.npz"), remove=budget)
    exact = get_backend("exact").sample(problem, seed=0, k=5)
    best = Spectrum.of(problem, exact)[0]
    enumerated = get_backend("brute-force").sample(problem, seed=0, k=5)
    assert best.energy == pytest.approx(Spectrum.of(problem, enumerated)[0].energy)
    for name in HEURISTICS:
        found = Spectrum.of(problem, get_backend(name).sample(problem, seed=0))
        assert found[0].energy >= best.energy - 1e-12, name
        for state in found:
            groups = [problem.sensitivity.groups[int(block)] for block in state.removed]
            assert {kind: groups.count(kind) for kind in set(groups)} == budget, name


def test_the_lowest_state_beats_random_ones_of_the_same_budget(folder: Path):
    problem = BlockRemovalProblem(
        load_sensitivity(folder / "h.npz"), remove={"mamba": 2, "attention": 1, "moe": 1}
    )
    best = Spectrum.of(problem, get_backend("exact").sample(problem, seed=0, k=1))
    others = Spectrum.of(problem, get_backend("random").sample(problem, seed=0)).states[:20]
    loaded = load_model(folder / "model")
    rows = load_text(str(folder / "text.txt"), loaded.tokenizer).heldout.rows(8, 32)
    states = np.concatenate([best.states[:1], others])
    losses = removal_losses(residual_stack(loaded.model), states, rows).mean(axis=1)
    assert losses[0] < np.median(losses[1:])


FRESH = """
import json, sys, torch
sys.modules["qblock"] = None  # importing it would fail
from transformers import AutoModelForCausalLM
ids = torch.tensor(json.loads(sys.stdin.read()))
model = AutoModelForCausalLM.from_pretrained(sys.argv[1]).eval()
options = dict(max_new_tokens=24, do_sample=False, eos_token_id=None, pad_token_id=258)
with torch.inference_mode():
    print(json.dumps({
        "class": type(model).__name__,
        "pattern": model.config.hybrid_override_pattern,
        "logits": model(input_ids=ids, use_cache=False).logits.tolist(),
        "cached": model.generate(ids, use_cache=True, **options).tolist(),
        "uncached": model.generate(ids, use_cache=False, **options).tolist(),
    }))
"""


def test_the_pruned_model_is_one_of_transformers_own(folder: Path, tmp_path: Path):
    options = ("--remove", BUDGET, "-o", tmp_path / "small", "--json")
    pruned = json.loads(run("prune", folder / "model", folder / "h.npz", *options))
    gone = set(pruned["removed"])
    assert sorted(PATTERN[n] for n in gone) == sorted("MM*E")
    ids = tiny_ids()
    original = LoadedModel(load_model(folder / "model").model, tiny_tokenizer(), "original")
    with torch.inference_mode(), residual_stack(original.model).skipping(gone):
        expected = original.model(input_ids=ids, use_cache=False).logits
    fresh = subprocess.run(
        [sys.executable, "-c", FRESH, tmp_path / "small"],
        input=json.dumps(ids.tolist()),
        capture_output=True,
        text=True,
        check=True,
    )
    answer = json.loads(fresh.stdout)
    assert answer["class"] == "NemotronHForCausalLM"
    assert answer["pattern"] == "".join(c for n, c in enumerate(PATTERN) if n not in gone)
    torch.testing.assert_close(torch.tensor(answer["logits"]), expected, rtol=1e-4, atol=1e-4)
    assert answer["cached"] == answer["uncached"]


def test_the_pruned_model_heals(folder: Path, tmp_path: Path):
    run("prune", folder / "model", folder / "h.npz", "--remove", BUDGET, "-o", tmp_path / "small")
    source = ("--text", folder / "text.txt", "--samples", 96, "--seq-len", 32)
    more = ("--learning-rate", 3e-3, "--hidden", 0.1, "--evaluate-every", 12, "--json")
    out = ("-o", tmp_path / "healed")
    found = json.loads(run("heal", folder / "model", tmp_path / "small", *source, *out, *more))
    before, after = found["heldout"][0], found["best"]
    assert after["loss"] < 0.7 * before["loss"]
    assert after["cross_entropy"] < before["cross_entropy"]
