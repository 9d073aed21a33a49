"""Models that are spread over a device and the disk are measured as if they were in one place."""

from pathlib import Path

import numpy as np
import pytest
from tiny_models import save_tiny

from qblock.errors import ModelError
from qblock.llm.blocks import Granularity, residual_stack
from qblock.llm.calibrate import calibrate, checkpointed
from qblock.llm.load import LoadedModel, load_model
from qblock.llm.text import Tokens

TOKENS = Tokens(np.random.default_rng(0).integers(0, 256, (4, 10)), np.ones((4, 10), dtype=bool))


@pytest.fixture(scope="module", params=["llama", "nemotron-h"])
def models(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[LoadedModel, LoadedModel]:
    """A model in one place, and the same in memory and on the disk."""
    folder = tmp_path_factory.mktemp("offload")
    save_tiny(folder / "model", request.param)
    plain = load_model(folder / "model", device="cpu")
    size = 4 * plain.model.num_parameters()
    spread = load_model(
        folder / "model", max_memory={"cpu": f"{size * 0.6e-3:.0f}KB"}, offload=folder / "disk"
    )
    assert {"cpu", "disk"} <= set(spread.model.hf_device_map.values())
    return plain, spread


@pytest.mark.parametrize("granularity", ["block", "sublayer"])
@pytest.mark.parametrize("curvature", ["fisher", "gauss-newton", "ablation"])
def test_the_curvature_is_the_same(
    models: tuple[LoadedModel, LoadedModel], curvature: str, granularity: Granularity
):
    H = [
        calibrate(residual_stack(item.model, granularity), TOKENS, curvature=curvature).H
        for item in models
    ]
    np.testing.assert_allclose(H[1], H[0], rtol=1e-4, atol=1e-6 * np.abs(H[0]).max())


def test_checkpoints_go_with_it(models: tuple[LoadedModel, LoadedModel]):
    A = []
    for item in models:
        stack = residual_stack(item.model)
        with checkpointed(stack.layers):
            A.append(calibrate(stack, TOKENS).A)
    np.testing.assert_allclose(A[1], A[0], rtol=1e-4, atol=1e-7)


def test_one_device_cannot_be_spread(tmp_path: Path):
    save_tiny(tmp_path)
    with pytest.raises(ModelError, match="to spread it, give auto"):
        load_model(tmp_path, device="cpu", max_memory={"cpu": "1MB"})
