import json

import numpy as np
from typer.testing import CliRunner

from qblock.cli import app

H = (lambda A: A.T @ A)(np.random.default_rng(0).standard_normal((30, 12)) * np.arange(1, 13))


def invoke(*arguments):
    return CliRunner().invoke(app, [*map(str, arguments)], catch_exceptions=False)


def test_the_pins_it_prints_keep_the_optimum(tmp_path):
    file = tmp_path / "toy.npz"
    np.savez(file, H=H)
    found = json.loads(invoke("reduce", file, "--remove", 4, "--undecided", 6, "--json").stdout)
    assert len(found["undecided"]) <= 6
    assert found["states"] >= 1
    pins = ["--keep", ",".join(found["keep"]), "--drop", ",".join(found["drop"])]
    solve = ["--remove", 4, "--backend", "brute-force", "--top", 1, "--json"]
    whole = json.loads(invoke("solve", file, *solve).stdout)["states"]
    small = json.loads(invoke("solve", file, *solve, *pins).stdout)["states"]
    assert small[0]["removed"] == whole[0]["removed"]
    text = invoke("reduce", file, "--remove", 4, "--undecided", 6).stdout
    assert f"--keep {','.join(found['keep'])}" in text
