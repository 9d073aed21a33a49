"""Every lesson runs from top to bottom, and what it teaches is true of what it computed."""

import importlib
import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("marimo")


def run(lesson: str, **entered: Any) -> Any:
    """What the cells of a lesson define, with some controls set to what a reader enters."""
    controls = {name: SimpleNamespace(value=value) for name, value in entered.items()}
    _, defined = importlib.import_module(lesson).app.run(defs=controls)
    return defined


def test_a_the_cheapest_blocks_are_not_the_cheapest_pair() -> None:
    found = run(
        "a_spins",
        **{"energy_answer": "4.5", "pair_answer": "A and C", "tie_answer": "0.45"},
        **{"coupling_answer": "the two spins are opposite", "mixed_answer": "0.5"},
    )
    for question in ("energy", "pair", "tie", "coupling", "mixed"):
        assert found[f"{question}_verdict"].status == "right"
    np.testing.assert_allclose(found["ising_energies"], found["energies"], atol=1e-12)
    assert found["label"](found["STATES"][found["ground"]]) == "AC"
    assert found["best_energy"] < found["one_by_one"]


def test_b_the_parabola_holds_for_small_steps_and_energy_ranks_models() -> None:
    pytest.importorskip("transformers")
    found = run("b_loss_to_energy", half_answer="it doubles", single_answer="0")
    t = np.linspace(0, found["walked"].value, len(found["walk_losses"]))
    rise = found["slope"] * t + found["finite_difference"] * t**2 / 2
    wrong = np.abs(found["walk_losses"] - found["walk_losses"][0] - rise)
    assert wrong[1] < 0.1 * wrong[-1]
    assert wrong[1] < 0.05 * np.ptp(found["walk_losses"])
    assert found["times_smaller"] > 10
    assert found["half_verdict"].status == "wrong"
    worst = int(found["single_losses"][1:].argmax())
    assert found["single_verdict"].status == ("right" if worst == 0 else "wrong")
    for validation in found["validations"].values():
        assert len(validation.losses) == 40
        assert validation.agreement("spearman").low > 0


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


def test_e_a_mixer_that_swaps_keeps_the_budget_until_there_is_noise() -> None:
    pytest.importorskip("qiskit_aer")
    found = run(
        "e_qaoa",
        **{"few_gamma": 1.0, "few_beta": 0.8},
        **{"gamma": 1.5, "beta": 1.25, "variant": "XY mixer, all pairs"},
    )
    start, turned, _ = found["arrows"].values()
    np.testing.assert_allclose(abs(turned), abs(start))
    assert np.ptp(np.angle(turned)) > 0.1
    assert found["few_verdict"].status == found["found_verdict"].status == "right"
    x, xy = (found["lowest"][name] for name in ("X mixer, tight penalty", "XY mixer, all pairs"))
    assert x.optimum_probability < x.random_probability
    assert xy.optimum_probability > 10 * xy.random_probability
    trained = found["trained"]["XY mixer, all pairs"]
    assert all(layer["feasible_probability"] == pytest.approx(1) for layer in trained)
    chances = [layer["optimum_probability"] for layer in trained]
    assert chances == sorted(chances)
    assert found["shots_needed"] < found["guesses_needed"] / 10
    lost = [figures["perfect"] - figures["noisy"] for figures in found["noise"].values()]
    assert lost[0] > 0.3 > lost[1]


def test_f_the_error_of_the_prediction_decides_among_the_lowest() -> None:
    pytest.importorskip("transformers")
    found = run("f_spectrum", enough_answer="0")
    assert found["spectrum"].certificate.proved
    assert len(found["losses"]) == math.comb(12, 4)
    assert found["over_low"] < found["over_all"] - 0.1
    assert found["over_all"] > 0.6
    assert found["within"] >= 3
    assert found["ground_wins"] < 0.5
    assert float((found["lottery"](0) == 0).mean()) == 1
    chosen = [pick.loss for pick in found["picks"]]
    assert chosen == sorted(chosen, reverse=True)
    assert chosen[-1] == pytest.approx(found["losses"][: len(chosen)].min())
    assert found["enough_verdict"].status == "wrong"


def test_g_the_same_runs_crown_whom_one_likes() -> None:
    pytest.importorskip("qiskit_aer")
    found = run("g_who_wins", formula_answer="13.3", shift=-0.9)
    runs, judged, winner_of = found["runs"], found["judged"], found["winner_of"]
    qaoa = "qaoa-fixed-weight:p=1,iterations=20"
    assert found["formula_verdict"].status == found["poor_verdict"].status == "right"
    assert found["honest"] == "fixed-weight-tabu"
    assert found["fair"][qaoa][1].low > found["fair"]["annealing"][1].value
    generous = {name: judged(own, 20, "all of it") for name, own in runs.items()}
    assert winner_of(generous) == "random"
    for_free = {
        name: judged(own, 10, "without the search for angles")[1] for name, own in runs.items()
    }
    assert for_free[qaoa].value < for_free["annealing"].value
    unseen, bound = found["fair"]["annealing:penalty=safe"]
    assert unseen.successes == 0
    assert bound.value is bound.high is None
    assert found["never_bound"] == pytest.approx(math.log(0.01) / math.log(0.025 ** (1 / 20)))
    assert found["most_flattered"] == "annealing:num_reads=1"
    for points in found["sweeps"].values():
        known = [tts.value for tts in points if tts.value is not None]
        assert known[-1] > 4 * min(known)
    guess = found["typical"]["random"]
    assert found["ratio_at"](guess, 100) > 0.99 > found["ratio_at"](guess, 0)
