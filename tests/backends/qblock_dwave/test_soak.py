"""Many submissions with faults at random: none lost, none paid twice."""

import dataclasses
import time

import numpy as np
import pytest
from qblock_dwave.cloud import Patience
from qblock_dwave.leap import LeapBackend, LeapQPU
from sapi_emulator import Fault, SapiEmulator

from qblock.errors import QblockError
from qblock.problem import BlockRemovalProblem
from qblock.testing import random_sensitivity

FAULTS = [
    Fault("solvers", "error", code=500),
    Fault("solvers", "refuse"),
    Fault("submit", "error", code=429),
    Fault("submit", "error", code=500),
    Fault("submit", "refuse"),
    Fault("submit", "cut"),
    Fault("submit", "garbage"),
    Fault("list", "error", code=500),
    Fault("status", "error", code=500),
    Fault("status", "refuse"),
    Fault("answer", "error", code=500),
    Fault("answer", "error", code=429),
    Fault("answer", "cut"),
    Fault("answer", "garbage"),
    Fault("answer", "short"),
]


@pytest.mark.parametrize(
    "submissions",
    [15, pytest.param(500, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])],
)
def test_none_is_lost_and_none_is_paid_twice(
    submissions: int, sapi: SapiEmulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    patience = Patience(attempts=3, first_pause=0.01, longest_pause=0.05, request_seconds=2.0)
    monkeypatch.setattr(LeapBackend, "patience", patience)
    qpu = LeapQPU()
    problem = BlockRemovalProblem(random_sensitivity(4), remove=2)
    rng = np.random.default_rng(submissions)
    errors = struck = 0
    for seed in range(submissions):
        sapi.faults = []
        if rng.random() < 0.2:
            struck += 1
            # Some faults outlast the patience, so that the run fails and is started again.
            chosen = rng.choice(len(FAULTS), size=2, replace=False)
            sapi.faults = [
                dataclasses.replace(FAULTS[i], times=int(rng.integers(1, 6))) for i in chosen
            ]
        deadline = time.monotonic() + 60
        while True:
            try:
                result = qpu.sample(problem, seed=seed, num_reads=5)
                break
            except QblockError:
                errors += 1
                assert time.monotonic() < deadline
        assert result.samples.record.num_occurrences.sum() == 5
        assert result.details["job"] in sapi.jobs
    assert struck > 0
    print(f"{submissions} submissions, {struck} struck, {errors} runs failed and were repeated")
    assert len(sapi.jobs) == submissions
    assert set(sapi.paid_labels().values()) == {1}
