from pathlib import Path

import numpy as np
import pytest

import qblock.study.compare as module
from qblock.backend import Certificate
from qblock.errors import ParameterError, UnknownBackend
from qblock.problem import BlockRemovalProblem, Sensitivity
from qblock.registry import get_backend
from qblock.spectrum import Spectrum
from qblock.study.compare import compare, comparison_table
from qblock.study.contender import Contender
from qblock.study.judge import Comparison, ComparisonRow, proved_count
from qblock.study.store import Store

A = np.random.default_rng(0).standard_normal((40, 12))
PROBLEM = BlockRemovalProblem(Sensitivity.from_samples(A, name="toy"), remove=4)


def _row(comparison: Comparison, contender: str) -> ComparisonRow:
    return next(row for row in comparison.rows if row.contender == contender)


def test_judges_every_contender_against_the_proved_optimum() -> None:
    contenders = [Contender.parse(t) for t in ("fixed-weight-tabu", "random:num_reads=3")]
    comparison = compare(PROBLEM, contenders, repeats=4).comparison
    truth = get_backend("brute-force").sample(PROBLEM, seed=0)
    assert comparison.reference.proved
    assert comparison.reference.energy == pytest.approx(truth.samples.first.energy)
    tabu = _row(comparison, "fixed-weight-tabu")
    assert tabu.success is not None
    assert (tabu.success.successes, tabu.runs, tabu.best_gap) == (4, 4, 0)
    assert tabu.best_rank == 0
    weak = _row(comparison, "random:num_reads=3")
    assert weak.median_gap is not None
    assert weak.median_gap > 0.1
    assert weak.success is not None
    assert weak.success.successes < 4


def test_coverage_of_the_lowest_states() -> None:
    contenders = [Contender("brute-force", {"k": 25}), Contender("random", {"num_reads": 100_000})]
    comparison = compare(PROBLEM, contenders, repeats=1).comparison
    assert len(comparison.reference.states) == 100
    assert comparison.rows[0].coverage == 0.25
    assert comparison.rows[1].coverage == 1.0  # 495 states, each drawn about 200 times


def test_gap_is_one_at_the_random_mean_and_rank_counts_lower_states() -> None:
    reference = compare(PROBLEM, [Contender("random")], repeats=1).comparison.reference
    assert reference.gap(reference.energy) == 0
    assert reference.gap(reference.random_mean) == pytest.approx(1)
    assert reference.rank(float(reference.energies[7])) == 7
    assert reference.rank(reference.random_mean) is None


def test_penalty_samples_count_as_infeasible_where_they_are() -> None:
    contender = Contender.parse("descent:penalty=1e-6")
    row = compare(PROBLEM, [contender], repeats=2).comparison.rows[0]
    assert row.feasible_rate is not None
    assert row.feasible_rate < 0.5
    assert row.penalty_weight == 1e-6
    assert row.success is not None
    assert row.success.successes == 0
    assert row.tts is not None
    assert row.tts.value is None
    assert row.tts.low > 0


def test_failing_backend_is_a_row_with_its_reason() -> None:
    contenders = [Contender("brute-force", {"max_states": 10}), Contender("random")]
    comparison = compare(PROBLEM, contenders, repeats=2).comparison
    (message, times), *_ = comparison.rows[0].errors.items()
    assert "max_states" in message
    assert times == 2
    assert comparison.rows[0].runs == 0
    assert comparison.rows[1].runs == 2
    comparison_table(comparison)


def test_typos_are_refused_before_anything_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "execute", lambda *_: pytest.fail("it ran"))
    with pytest.raises(UnknownBackend):
        compare(PROBLEM, [Contender("random"), Contender("rnadom")])
    with pytest.raises(ParameterError, match="num_read"):
        compare(PROBLEM, [Contender("random", {"num_read": 1})])
    with pytest.raises(ParameterError, match="repeats"):
        compare(PROBLEM, [Contender("random")], repeats=0)


def test_other_runs_of_the_same_file_stay_out_of_the_table(tmp_path: Path) -> None:
    with Store(tmp_path / "study.db") as store:
        compare(PROBLEM, [Contender("random")], repeats=2, store=store)
        again = compare(PROBLEM, [Contender("random")], repeats=3, store=store)
        assert again.execution.reused == 2
        assert _row(again.comparison, "random").runs == 3
        other = compare(PROBLEM, [Contender("random", {"num_reads": 9})], repeats=2, store=store)
        assert len(other.comparison.rows) == 1
        assert other.comparison.rows[0].runs == 2


@pytest.mark.parametrize("text", ["random:x", "random:=3"])
def test_bad_contenders_are_refused(text: str) -> None:
    with pytest.raises(ParameterError, match="expected KEY=VALUE"):
        Contender.parse(text)


@pytest.mark.parametrize(
    ("proved", "complete_below", "ties", "expected"),
    [
        (True, np.inf, False, 4),
        (True, 3.0, True, 2),  # others may be as low as the last two
        (False, 2.5, False, 2),
        (False, 0.5, False, None),
    ],
)
def test_what_a_certificate_proves(
    proved: bool, complete_below: float, ties: bool, expected: int | None
) -> None:
    problem = BlockRemovalProblem(Sensitivity(H=np.diag([1.0, 2.0, 3.0, 3.0])), remove=1)
    certificate = Certificate(proved, 1.0, complete_below, ties, 1e-12, 4)
    spectrum = Spectrum.of_states(problem, np.eye(4, dtype=np.int8), certificate=certificate)
    assert proved_count(spectrum) == expected
