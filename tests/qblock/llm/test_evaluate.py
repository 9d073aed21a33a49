"""Perplexity against its definition, and what the command line prints."""

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_models import save_tiny, tiny_model

from qblock.errors import MeasurementError, ModelError, TextError
from qblock.llm import evaluate as module
from qblock.llm.evaluate import evaluate, harness_scores, strided_losses
from qblock.llm.load import load_model

IDS = np.random.default_rng(5).integers(0, 256, 41)


def by_definition(model, context: int, stride: int) -> list[float]:
    """One pass for each token, over the window that scores it."""
    values = []
    for t in range(1, len(IDS)):
        start = 0
        while start + context <= t:
            start += stride
        logits = model(input_ids=torch.from_numpy(IDS[None, start:t]), use_cache=False).logits
        values.append(-torch.log_softmax(logits[0, -1].double(), -1)[IDS[t]].item())
    return values


@pytest.mark.parametrize(
    ("context", "stride"), [(8, 4), (8, 7), (8, 1), (16, 5), (41, 20), (64, 32), (40, 39)]
)
def test_each_token_is_scored_once_in_the_first_window_that_reaches_it(context: int, stride: int):
    model = tiny_model()
    with torch.inference_mode():
        expected = by_definition(model, context, stride)
    losses = strided_losses(model, IDS, context=context, stride=stride)
    np.testing.assert_allclose(losses, expected, rtol=1e-4)


def test_perplexity_and_bits_per_byte_are_of_the_same_total(tmp_path: Path):
    loaded = load_model(save_tiny(tmp_path / "tiny"))
    ids = np.array(loaded.tokenizer("Grüße an alle, die das lesen.")["input_ids"])
    found = evaluate(loaded, ids, context=16, new_tokens=4)
    assert found.tokens == len(ids) - 1
    assert found.perplexity == pytest.approx(math.exp(found.loss))
    # A token is a byte here, so the two differ by the logarithm's base alone.
    assert found.bits_per_byte == pytest.approx(found.loss / math.log(2))
    assert found.bytes == 4 * found.parameters == 4 * loaded.model.num_parameters()
    assert found.read_speed > 0
    assert found.write_speed > 0


def test_bad_windows_texts_and_losses_are_refused(tmp_path: Path):
    model = tiny_model()
    for context, stride in ((1, 1), (8, 8), (8, 0)):
        with pytest.raises(TextError, match="expected 1 <= stride < context"):
            strided_losses(model, IDS, context=context, stride=stride)
    with pytest.raises(TextError, match="at least two"):
        strided_losses(model, IDS[:1], context=8, stride=4)
    with pytest.raises(TextError, match="128 tokens only"):
        evaluate(load_model(save_tiny(tmp_path / "tiny")), IDS, context=200)
    model.lm_head.weight.fill_(float("nan"))
    with pytest.raises(MeasurementError, match="NaN"):
        strided_losses(model, IDS, context=8, stride=4)


def test_the_harness_is_asked_for_when_it_is_missing(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ModelError, match="pip install lm-eval"):
        module.require_harness()


HARNESS_TASK = """\
task: colours
dataset_path: json
dataset_kwargs:
  data_files: {{test: {data}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: [" red", " blue"]
doc_to_target: label
metric_list:
  - metric: acc
"""


@pytest.mark.slow
def test_the_harness_scores_a_task_of_the_users_own(tmp_path: Path):
    pytest.importorskip("lm_eval")
    data, task = tmp_path / "data.json", tmp_path / "colours.yaml"
    questions = ["The sky is", "Blood is", "The sea is"]
    data.write_text(json.dumps([{"question": q, "label": i % 2} for i, q in enumerate(questions)]))
    task.write_text(HARNESS_TASK.format(data=data))
    loaded = load_model(save_tiny(tmp_path / "tiny"))
    scores = harness_scores(loaded, [str(task)])

    def log_likelihood(text: str, choice: str) -> float:
        ids = torch.tensor([loaded.tokenizer(text + choice)["input_ids"]])
        logs = torch.log_softmax(loaded.model(input_ids=ids).logits[0, :-1].double(), -1)
        each = logs.gather(1, ids[0, 1:, None])[:, 0]
        return float(each[-len(choice) :].sum())  # a token is a byte here

    right = [
        (log_likelihood(text, " blue") > log_likelihood(text, " red")) == (number % 2)
        for number, text in enumerate(questions)
    ]
    assert scores["colours"]["acc,none"] == pytest.approx(np.mean(right))
    with pytest.raises(ModelError, match="no-such-task"):
        harness_scores(loaded, ["no-such-task"])


def qblock(*arguments: object) -> subprocess.CompletedProcess[str]:
    code = "from qblock.cli import main; main()"
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_prune_and_evaluate_on_the_command_line(tmp_path: Path):
    big = save_tiny(tmp_path / "big")
    text = tmp_path / "text.txt"
    text.write_text("Some words to measure a model on. " * 20)
    instance = tmp_path / "H.npz"
    np.savez(instance, H=np.diag([5.0, 1.0, 4.0, 2.0, 3.0]))
    small = tmp_path / "small"
    run = qblock("prune", big, instance, "--remove", 2, "--state", 1, "-o", small, "--json")
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout)["removed"] == [1, 4]  # energies 1+2 and then 1+3
    assert run.stderr == ""
    again = qblock("prune", big, "--blocks", "1,4", "-o", small)
    assert again.returncode == 2
    assert "--force" in again.stderr
    assert "Traceback" not in again.stderr
    run = qblock("evaluate", big, small, "--text", text, "--part", "all", "--json")
    assert run.returncode == 0, run.stderr
    first, second = json.loads(run.stdout)
    assert second["parameters"] < first["parameters"]
    assert first["tokens"] == second["tokens"] == len(text.read_text()) - 1
