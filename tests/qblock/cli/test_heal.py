"""heal on a tiny model, as a user runs it."""

import json

import numpy as np
import pytest
from tiny_models import save_tiny
from typer.testing import CliRunner

from qblock.cli import app
from qblock.errors import ModelError, QblockError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a model, what was pruned of it, and a text."""
    folder = tmp_path_factory.mktemp("healing")
    save_tiny(folder / "model")
    words = np.random.default_rng(0).choice(["alpha", "beta", "gamma", "delta", "\n"], 2000)
    (folder / "text.txt").write_text(" ".join(words))
    run("prune", folder / "model", "--blocks", "1,3", "-o", folder / "small")
    return folder


def run(*arguments):
    done = CliRunner().invoke(app, [*map(str, arguments)], catch_exceptions=False)
    assert done.exit_code == 0, done.stderr
    return done


def heal(folder, out, *options):
    text = ("--text", folder / "text.txt", "--samples", 32, "--heldout-samples", 4, "--seq-len", 12)
    rate = ("--learning-rate", 2e-3, "--evaluate-every", 4)
    return run("heal", folder / "model", folder / "small", *text, *rate, "-o", out, *options)


def test_heal_writes_a_model_and_tells_what_it_did(folder, tmp_path):
    done = heal(folder, tmp_path / "healed", "--json")
    found = json.loads(done.stdout)
    assert found["best"]["loss"] < found["heldout"][0]["loss"]
    assert len(found["losses"]) == 8
    assert found["recipe"]["learning_rate"] == 2e-3
    assert "step 4: held-out loss" in done.stderr
    card = (tmp_path / "healed" / "README.md").read_text()
    assert "text.txt" in card
    assert "**1, 3**" in card  # what the pruned model's card tells
    assert str(folder) not in card
    with pytest.raises(ModelError, match="--force"):
        heal(folder, tmp_path / "healed")
    shown = heal(folder, tmp_path / "healed", "--force", "--lora", 2).stdout
    assert "cross entropy" in shown


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--samples", 4000), "too short"),
        (("--temperature", 0), "temperature is 0"),
        (("--text", "builtin:nothing"), "built-in"),
        (("-o", "no/such/folder"), "there is no directory"),
    ],
)
def test_bad_input_is_refused_and_nothing_is_written(
    folder, tmp_path, monkeypatch, options, message
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(QblockError, match=message):
        heal(folder, "healed", *options)
    assert not list(tmp_path.iterdir())
