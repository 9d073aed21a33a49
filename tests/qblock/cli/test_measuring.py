"""calibrate, validate, select and baselines on a tiny model, as a user runs them."""

import json

import numpy as np
import pytest
from tiny_models import save_tiny
from typer.testing import CliRunner

from qblock.cli import app
from qblock.errors import ProblemError, QblockError
from qblock.files import load_sensitivity
from qblock.llm import fisher
from qblock.llm.load import load_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a model of seven layers, a text, and a sensitivity of the two."""
    folder = tmp_path_factory.mktemp("measuring")
    save_tiny(folder / "model", num_hidden_layers=7)
    words = np.random.default_rng(0).choice(["alpha", "beta", "gamma", "delta", "\n"], 2000)
    (folder / "text.txt").write_text(" ".join(words))
    calibrate(folder, folder / "h.npz")
    return folder


def run(*arguments):
    done = CliRunner().invoke(app, [*map(str, arguments)], catch_exceptions=False)
    assert done.exit_code == 0, done.stderr
    return done.stdout


def calibrate(folder, output, *options):
    text = ("--text", folder / "text.txt", "--samples", 4, "--seq-len", 12)
    return run("calibrate", folder / "model", *text, "-o", output, *options)


def measure(command, folder, *options):
    text = ("--text", folder / "text.txt", "--samples", 4, "--seq-len", 12, "--remove", 2)
    arguments = (command, folder / "model", folder / "h.npz", *text, *options, "--json")
    return json.loads(run(*arguments))


@pytest.mark.parametrize("curvature", ["fisher", "gauss-newton", "ablation"])
@pytest.mark.parametrize("granularity", ["block", "sublayer"])
def test_calibrate_writes_a_sensitivity(folder, tmp_path, curvature, granularity):
    output = tmp_path / "h.npz"
    shown = calibrate(folder, output, "--curvature", curvature, "--granularity", granularity)
    assert "split-half Spearman" in shown
    sensitivity = load_sensitivity(output)
    assert sensitivity.curvature == curvature
    assert len(sensitivity) == {"block": 7, "sublayer": 14}[granularity]
    assert str(folder) not in json.dumps(sensitivity.provenance)
    assert not list(tmp_path.glob("*partial*"))


def test_calibrate_keeps_finished_batches_and_resumes(folder, tmp_path, monkeypatch):
    output = tmp_path / "h.npz"
    plain, calls = fisher.measure, []

    def stop_at_the_second(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return plain(*arguments)

    monkeypatch.setattr(fisher, "measure", stop_at_the_second)
    text = ("--text", folder / "text.txt", "--samples", 4, "--seq-len", 12, "--batch-size", 2)
    command = ("calibrate", folder / "model", *text, "-o", output)
    stopped = CliRunner().invoke(app, [*map(str, command)])
    assert "--resume" in stopped.stderr
    assert not output.exists()
    with pytest.raises(ProblemError, match="--resume"):
        run(*command)
    run(*command, "--resume")
    assert len(calls) == 3
    np.testing.assert_allclose(
        load_sensitivity(output).A, load_sensitivity(folder / "h.npz").A, rtol=1e-4, atol=1e-7
    )


@pytest.mark.parametrize("curvature", ["fisher", "gauss-newton", "ablation"])
def test_shards_merge_to_the_whole(folder, tmp_path, curvature):
    whole, parts = tmp_path / "whole.npz", [tmp_path / f"{i}.npz" for i in (1, 2, 3)]
    calibrate(folder, whole, "--curvature", curvature)
    for index, part in enumerate(parts, 1):
        calibrate(folder, part, "--curvature", curvature, "--shard", f"{index}/3")
    run("merge", *reversed(parts), "-o", tmp_path / "merged.npz")
    expected, merged = load_sensitivity(whole), load_sensitivity(tmp_path / "merged.npz")
    assert np.abs(merged.H - expected.H).max() <= 1e-6 * np.abs(expected.H).max()
    for array in ("g", "A"):
        if getattr(expected, array) is not None:
            np.testing.assert_allclose(
                getattr(merged, array), getattr(expected, array), rtol=1e-4, atol=1e-6
            )
    assert merged.provenance["tokens_sha256"] == expected.provenance["tokens_sha256"]
    with pytest.raises(ProblemError, match="missing: 2 of 3"):
        run("merge", parts[0], parts[2], "-o", tmp_path / "merged.npz", "--force")
    with pytest.raises(ProblemError, match="--force"):
        run("merge", *parts, "-o", whole)


def test_weights_on_the_disk_give_the_same(folder, tmp_path, monkeypatch):
    """Half the model stays on the disk, and layers are read when they are needed."""
    seen = []
    plain = fisher.measure

    def spy(stack, *arguments):
        seen.extend(stack.model.hf_device_map.values())
        return plain(stack, *arguments)

    monkeypatch.setattr(fisher, "measure", spy)
    spread = ("--max-memory", "cpu=110KB", "--offload", tmp_path / "offload")
    calibrate(folder, tmp_path / "h.npz", *spread)
    assert set(seen) == {"cpu", "disk"}
    spread, plain = load_sensitivity(tmp_path / "h.npz"), load_sensitivity(folder / "h.npz")
    np.testing.assert_allclose(spread.A, plain.A, rtol=1e-5, atol=1e-8)


def test_parts_of_layers_go_the_same_way(folder, tmp_path):
    calibrate(folder, tmp_path / "h.npz", "--granularity", "sublayer")
    options = ("--remove", "attention=2,mlp=1", "-o", tmp_path / "small", "--json")
    found = json.loads(run("prune", folder / "model", tmp_path / "h.npz", *options))
    kinds = [name.partition(".")[2] for name in found["silenced"]]
    assert len(kinds) + 2 * len(found["removed"]) == 3
    assert kinds.count("attention") + len(found["removed"]) == 2
    shown = json.loads(run("spectrum", tmp_path / "h.npz", *options[:2], "--top", 2, "--json"))
    lowest = shown["spectra"][0]["states"][0]["removed"]
    gone = {f"{layer}.{part}" for layer in found["removed"] for part in ("attention", "mlp")}
    assert {*found["silenced"], *gone} == set(lowest)
    layers = load_model(tmp_path / "small").model.config.num_hidden_layers
    assert layers == 7 - len(found["removed"])


def test_a_sensitivity_of_another_model_prunes_nothing(folder, tmp_path):
    save_tiny(tmp_path / "other", num_hidden_layers=8)
    command = ("prune", tmp_path / "other", folder / "h.npz", "--remove", 2)
    with pytest.raises(ProblemError, match="give the model it was calibrated on"):
        run(*command, "-o", tmp_path / "small")
    assert not (tmp_path / "small").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--samples", 4000), "too short"),
        (("--max-memory", "gpu=1"), "expected such as"),
        (("--max-memory", "cpu=1"), "no size"),
        (("--max-memory", "cpu=1GB", "--device", "cpu"), "to spread it"),
        (("--shard", "5/5"), "cannot be cut"),
        (("--text", "builtin:nothing"), "built-in"),
        (("-o", "h.txt"), "npz"),
        (("-o", "no/such/folder/h.npz"), "does not exist"),
    ],
)
def test_bad_input_is_refused_and_nothing_is_written(
    folder, tmp_path, monkeypatch, options, message
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(QblockError, match=message):
        calibrate(folder, "h.npz", *options)
    assert not list(tmp_path.iterdir())


def test_a_result_is_not_overwritten(folder):
    with pytest.raises(ProblemError, match="--force"):
        calibrate(folder, folder / "h.npz")


def test_validate_reports_agreement_and_a_plot(folder, tmp_path):
    plot = tmp_path / "plot.png"
    found = measure("validate", folder, "--states", 10, "--plot", plot)
    assert set(found["agreement"]) == {"all 10", "5 lowest", "5 random"}
    assert len(found["states"]) == 10
    assert found["verdict"].startswith("Energy")
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_select_shows_states_by_loss(folder):
    found = measure("select", folder, "--candidates", 4, "--rounds", 2)
    cheap = measure("baselines", folder, "--only", "block-influence,norm-ratio,sliding-window")
    removed = [s["removed"] for s in found]
    assert len(removed) >= 8
    assert all(s["removed"] in removed for s in cheap.values())
    assert [s["loss"] for s in found] == sorted(s["loss"] for s in found)
    assert all(len(names) == 2 for names in removed)


def test_select_writes_the_corrected_sensitivity(folder, tmp_path):
    output = tmp_path / "refined.npz"
    options = ("--candidates", 4, "--rounds", 1, "--random", 3, "--search-samples", 1)
    options = (*options, "--finalists", 2, "--refined", output)
    found = measure("select", folder, *options)
    assert {s["rows"] for s in found} == {1, 4}
    refined = load_sensitivity(output)
    assert refined.provenance["refined"] == {"remove": 2, "states": 7, "ridge": 0.03}
    assert json.loads(run("spectrum", output, "--remove", 2, "--json"))
    with pytest.raises(ProblemError, match="--force"):
        measure("select", folder, *options)


def test_baselines_show_their_heldout_loss(folder):
    found = measure("baselines", folder, "--only", "block-influence,greedy-loss")
    assert list(found) == ["block-influence", "greedy-loss"]
    assert all(len(s["removed"]) == 2 for s in found.values())


def test_tables_are_for_people(folder):
    arguments = ("--text", folder / "text.txt", "--samples", 2, "--seq-len", 8, "--remove", 2)
    common = (folder / "model", folder / "h.npz", *arguments)
    assert "Spearman" in run("validate", *common, "--states", 6)
    assert "perplexity" in run("select", *common, "--candidates", 3)
    assert "sliding-window" in run("baselines", *common)
