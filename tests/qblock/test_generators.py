"""Instances from a seed are the same everywhere, and of the kind they say."""

import os
import subprocess
import sys

import numpy as np
import pytest

from qblock.errors import ProblemError
from qblock.generators import KINDS, random_instance
from qblock.problem import BlockRemovalProblem

IDS = """
from qblock.generators import KINDS, random_instance
from qblock.problem import BlockRemovalProblem
for kind in KINDS:
    print(BlockRemovalProblem(random_instance(kind, 30, seed=0), remove=5).id)
"""


def ids_with(**environment: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", IDS],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split()


def test_another_processor_makes_the_same_problem() -> None:
    """Older kernels of the linear algebra and of numpy stand in for an older processor."""
    older = ids_with(
        OPENBLAS_CORETYPE="Prescott", NPY_DISABLE_CPU_FEATURES="AVX2 FMA3 AVX512F AVX512_SKX"
    )
    here = [BlockRemovalProblem(random_instance(k, 30, seed=0), remove=5).id for k in KINDS]
    assert older == here


@pytest.mark.parametrize("kind", KINDS)
def test_an_instance_is_a_normalised_curvature(kind: str) -> None:
    sensitivity = random_instance(kind, 40, seed=1)
    assert np.trace(sensitivity.H) / 40 == pytest.approx(1, abs=1e-6)
    assert np.linalg.eigvalsh(sensitivity.H)[0] > -1e-5
    assert sensitivity.H.tobytes() != random_instance(kind, 40, seed=2).H.tobytes()


def test_low_rank_kinds_have_a_low_effective_rank() -> None:
    low, flat = (random_instance(k, 60, seed=0).effective_rank for k in ("lowrank", "flat"))
    assert low < 12 < flat


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ProblemError, match="heavy"):
        random_instance("huge", 8, seed=0)  # type: ignore[arg-type]
