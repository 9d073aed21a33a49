"""Every lesson runs from top to bottom, and what it teaches is true of what it computed."""

import importlib
from typing import Any

import pytest

pytest.importorskip("marimo")


def run(lesson: str) -> Any:
    """What the cells of a lesson define."""
    _, defined = importlib.import_module(lesson).app.run()
    return defined


def test_a_three_blocks() -> None:
    run("a_spins")


def test_b_from_a_loss_to_an_energy() -> None:
    pytest.importorskip("transformers")
    run("b_loss_to_energy")


def test_c_the_penalty_decides_whether_the_lowest_state_is_feasible() -> None:
    found = run("c_penalty")
    assert found["lowest_is_feasible"] == (found["weight_slider"].value >= found["threshold"])
    assert found["threshold"] <= found["tight"] <= found["safe"]


def test_d_weak_chains_break_and_a_longer_anneal_ends_lower() -> None:
    pytest.importorskip("dwave.system")
    found = run("d_annealing_and_chains")
    weakest, strongest = found["sweep"][0], found["sweep"][-1]
    assert weakest["broken"] > 0.2
    assert strongest["broken"] < 0.01
    assert strongest["scale"] > weakest["scale"]
    assert found["mean_energies"][-1] < found["mean_energies"][0]
