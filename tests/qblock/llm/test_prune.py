"""Smaller models on disk, loaded by plain transformers."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from tiny_models import CONFIGS, save_tiny, tiny_ids, tiny_model, tiny_tokenizer
from transformers import AutoModelForCausalLM

from qblock.errors import ModelError
from qblock.llm import prune as module
from qblock.llm.blocks import residual_stack
from qblock.llm.load import LoadedModel, load_model
from qblock.llm.prune import prune

FRESH = """
import json, sys, torch
sys.modules["qblock"] = None  # importing it would fail
from transformers import AutoModelForCausalLM, AutoTokenizer
ids = torch.tensor(json.loads(sys.stdin.read()))
answers = {}
for name in sys.argv[1:]:
    model = AutoModelForCausalLM.from_pretrained(name).eval()
    tokenizer = AutoTokenizer.from_pretrained(name)
    options = dict(max_new_tokens=16, do_sample=False, eos_token_id=None, pad_token_id=258)
    with torch.inference_mode():
        answers[name] = {
            "logits": model(input_ids=ids, use_cache=False).logits.tolist(),
            "cached": model.generate(ids, use_cache=True, **options).tolist(),
            "uncached": model.generate(ids, use_cache=False, **options).tolist(),
            "tokens": tokenizer("ab")["input_ids"],
            "layers": model.config.num_hidden_layers,
        }
print(json.dumps(answers))
"""


def loaded(name: str = "llama") -> LoadedModel:
    return LoadedModel(tiny_model(name), tiny_tokenizer(), f"tiny/{name}")


def test_a_fresh_process_without_qblock_runs_the_pruned_models(tmp_path: Path):
    ids = tiny_ids()
    expected = {}
    for name in CONFIGS:
        original = loaded(name)
        stack = residual_stack(original.model)
        alpha = torch.ones(len(stack))
        alpha[[1, 2]] = 0
        with torch.inference_mode(), stack.couplings(alpha):
            masked = original.model(input_ids=ids, use_cache=False).logits
        pruned = prune(original, ["1", "2"], tmp_path / name)
        expected[str(pruned.path)] = (masked, len(stack) - 2)
    run = subprocess.run(
        [sys.executable, "-c", FRESH, *expected],
        input=json.dumps(ids.tolist()),
        capture_output=True,
        text=True,
        check=True,
    )
    answers = json.loads(run.stdout)
    for name, (masked, layers) in expected.items():
        answer = answers[name]
        got = torch.tensor(answer["logits"])
        torch.testing.assert_close(got, masked, rtol=1e-5, atol=1e-5, msg=name)
        assert answer["cached"] == answer["uncached"], name
        assert answer["tokens"] == tiny_tokenizer()("ab")["input_ids"]
        assert answer["layers"] == layers


def test_code_in_the_original_s_repository_is_not_needed(tmp_path: Path):
    folder = save_tiny(tmp_path / "model", "nemotron-h")
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {
        "AutoConfig": "configuration_nemotron_h.NemotronHConfig",
        "AutoModelForCausalLM": "modeling_nemotron_h.NemotronHForCausalLM",
    }
    (folder / "config.json").write_text(json.dumps(config))
    small = prune(load_model(folder), ["1"], tmp_path / "small").path
    model = AutoModelForCausalLM.from_pretrained(small, trust_remote_code=True)
    assert type(model).__module__.startswith("transformers.")


def test_parts_of_layers_are_silenced_and_layers_without_parts_deleted(tmp_path: Path):
    for name in CONFIGS:
        original = loaded(name)
        stack = residual_stack(original.model, "sublayer")
        parts = [block for block in stack.names if block.startswith(("1.", "3."))]
        first = next(block for block in stack.names if block.startswith("2."))
        gone = [stack.names.index(block) for block in (first, *parts)]
        before = original.model.num_parameters()
        with torch.inference_mode(), stack.skipping(gone):
            expected = original.model(input_ids=tiny_ids(), use_cache=False).logits
        pruned = prune(original, [first, *parts], tmp_path / name)
        single = len(stack) == len(stack.layers)  # each layer is one part
        assert pruned.removed == ((1, 2, 3) if single else (1, 3)), name
        assert pruned.silenced == (() if single else (first,)), name
        assert pruned.parameters < before
        small = load_model(pruned.path).model
        with torch.inference_mode():
            logits = small(input_ids=tiny_ids(), use_cache=False).logits
        torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4, msg=name)
        card = (pruned.path / "README.md").read_text()
        assert ("neither smaller nor faster" in card) == (not single)


def test_a_part_alone_changes_no_size_and_says_so(tmp_path: Path):
    pruned = prune(loaded(), ["2.mlp"], tmp_path / "same")
    assert pruned.removed == ()
    assert pruned.parameters == pruned.parameters_before
    assert "**2.mlp**" in (tmp_path / "same" / "README.md").read_text()
    assert not (tmp_path / "same" / "mergekit.yaml").exists()
    mine = tmp_path / "mine.toml"
    mine.write_text(
        '[[architecture]]\nmodel_types = ["llama"]\nlayers = "model.layers"\n'
        'adds = { attention = "self_attn", mlp = "mlp" }\n'
    )
    with pytest.raises(ModelError, match="has no `outputs`"):
        prune(loaded(), ["2.mlp"], tmp_path / "other", architecture=mine)


def test_what_is_written_and_reported(tmp_path: Path):
    pruned = prune(loaded("llama-tied"), ["3", "1"], tmp_path / "small", reason="Because of G.")
    assert pruned.removed == (1, 3)
    assert pruned.layers == 5
    assert pruned.parameters == loaded_parameters(tmp_path / "small") < pruned.parameters_before
    assert list(tmp_path.iterdir()) == [tmp_path / "small"]  # no temporary directory is left
    card = (tmp_path / "small" / "README.md").read_text()
    front = yaml.safe_load(card.split("---")[1])
    assert front["base_model"] == "tiny/llama-tied"
    assert "**1, 3**" in card
    assert "Because of G." in card
    recipe = yaml.safe_load((tmp_path / "small" / "mergekit.yaml").read_text())
    assert recipe["merge_method"] == "passthrough"
    ranges = [slice_["sources"][0]["layer_range"] for slice_ in recipe["slices"]]
    assert ranges == [[0, 1], [2, 3], [4, 5]]
    assert [n for low, high in ranges for n in range(low, high)] == [0, 2, 4]
    command = module.llama_quantize_command(pruned, "big.gguf")
    assert command == "llama-quantize --prune-layers 1,3 big.gguf small.gguf COPY"


def loaded_parameters(folder: Path) -> int:
    return load_model(folder).model.num_parameters()


def test_the_dtype_of_the_file_is_kept(tmp_path: Path):
    tiny_model().to(torch.bfloat16).save_pretrained(tmp_path / "big")
    tiny_tokenizer().save_pretrained(tmp_path / "big")
    prune(load_model(tmp_path / "big", dtype="stored"), ["2"], tmp_path / "small")
    assert json.loads((tmp_path / "small" / "config.json").read_text())["dtype"] == "bfloat16"
    assert load_model(tmp_path / "small", dtype="stored").model.dtype == torch.bfloat16
    assert load_model(tmp_path / "small").model.dtype == torch.float32  # on a CPU


@pytest.mark.parametrize(
    ("removed", "message"),
    [
        ([], "0 of 5 layers"),
        (["0", "1", "2", "3", "4"], "5 of 5 layers"),
        (["5"], "'5' is no layer"),
        (["1.norm"], "nor a part of one"),
    ],
)
def test_removals_that_leave_no_model_are_refused(tmp_path: Path, removed: list[str], message: str):
    with pytest.raises(ModelError, match=message):
        prune(loaded(), removed, tmp_path / "small")
    assert not list(tmp_path.iterdir())


def test_a_model_is_replaced_only_by_force_and_other_things_never(tmp_path: Path):
    prune(loaded(), ["1"], tmp_path / "small")
    with pytest.raises(ModelError, match="--force"):
        prune(loaded(), ["1", "2"], tmp_path / "small")
    assert load_model(tmp_path / "small").model.config.num_hidden_layers == 4
    prune(loaded(), ["1", "2"], tmp_path / "small", force=True)
    assert load_model(tmp_path / "small").model.config.num_hidden_layers == 3
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter").write_text("long")
    with pytest.raises(ModelError, match="is not a model"):
        prune(loaded(), ["1"], tmp_path / "thesis", force=True)
    with pytest.raises(ModelError, match="there is no directory"):
        prune(loaded(), ["1"], tmp_path / "no" / "small")
    assert (tmp_path / "thesis" / "chapter").read_text() == "long"


def test_too_little_space_is_told_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)  # a full disk cannot be had
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(ModelError, match="free in"):
        prune(loaded(), ["1"], tmp_path / "small")
    assert not list(tmp_path.iterdir())


def test_a_model_that_fails_verification_leaves_nothing(tmp_path: Path):
    """A per-layer field that the description misses changes the fresh model, not the one in
    memory."""
    broken = loaded("gemma3")
    stack_file = tmp_path / "mine.toml"
    stack_file.write_text(
        '[[architecture]]\nmodel_types = ["gemma3_text"]\nlayers = "model.layers"\n'
        'adds = { attention = "post_attention_layernorm", mlp = "post_feedforward_layernorm" }\n'
        "per_layer = []\n"
    )
    with pytest.raises(ModelError, match="written model"):
        prune(broken, ["2"], tmp_path / "small", architecture=stack_file)
    assert list(tmp_path.iterdir()) == [stack_file]


def test_an_interrupt_keeps_the_old_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    prune(loaded(), ["1"], tmp_path / "small")

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "verify", interrupted)
    with pytest.raises(KeyboardInterrupt):
        prune(loaded(), ["1", "2"], tmp_path / "small", force=True)
    assert list(tmp_path.iterdir()) == [tmp_path / "small"]
    assert load_model(tmp_path / "small").model.config.num_hidden_layers == 4


def test_a_stack_without_attention_is_refused_where_it_cannot_generate(tmp_path: Path):
    with pytest.raises(ModelError, match="at least one layer of each kind"):
        prune(loaded("nemotron-h"), ["3", "6"], tmp_path / "small")


def test_a_pruned_model_can_be_pruned_again(tmp_path: Path):
    save_tiny(tmp_path / "big", "qwen3-moe")
    prune(load_model(tmp_path / "big", dtype="stored"), ["1"], tmp_path / "small")
    prune(load_model(tmp_path / "small", dtype="stored"), ["0"], tmp_path / "smaller")
    assert load_model(tmp_path / "smaller").model.config.num_hidden_layers == 3
