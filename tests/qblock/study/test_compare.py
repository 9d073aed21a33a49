import numpy as np
import pytest

import qblock.study.compare as module
from qblock.errors import ParameterError, UnknownBackend
from qblock.problem import BlockRemovalProblem, Sensitivity
from qblock.registry import get_backend
from qblock.study.compare import Contender, compare, comparison_table, find_reference
from qblock.study.store import RunStore

A = np.random.default_rng(0).standard_normal((40, 12))
PROBLEM = BlockRemovalProblem(Sensitivity.from_samples(A, name="toy"), remove=4)


def _row(comparison, name):
    return next(row for row in comparison.rows if str(row.contender) == name)


def test_judges_every_contender_against_the_proved_optimum(tmp_path):
    contenders = [Contender.parse(t) for t in ("fixed-weight-tabu", "random:num_reads=3")]
    comparison = compare(PROBLEM, contenders, repeats=4)
    truth = find_reference(PROBLEM)
    assert comparison.reference.proved
    assert comparison.reference.energy == pytest.approx(truth.samples.first.energy)
    tabu = _row(comparison, "fixed-weight-tabu")
    assert (tabu.success.successes, tabu.runs, tabu.best_gap) == (4, 4, pytest.approx(0))
    weak = _row(comparison, "random:num_reads=3")
    assert weak.median_gap > 0.1
    assert weak.success.successes < 4


def test_gap_is_one_at_the_random_mean():
    reference = compare(PROBLEM, [Contender("random")], repeats=1).reference
    assert reference.gap(reference.energy) == 0
    assert reference.gap(reference.random_mean) == pytest.approx(1)


def test_penalty_samples_count_as_infeasible_where_they_are():
    comparison = compare(PROBLEM, [Contender.parse("descent:penalty=1e-6")], repeats=2)
    row = comparison.rows[0]
    assert row.feasible_rate < 0.5
    assert row.success.successes == 0
    assert row.tts.value is None
    assert row.tts.low > 0


def test_failing_backend_is_a_row_with_its_reason():
    contenders = [Contender("brute-force", {"max_states": 10}), Contender("random")]
    comparison = compare(PROBLEM, contenders, repeats=2)
    assert "max_states" in comparison.rows[0].error
    assert comparison.rows[0].runs == 0
    assert comparison.rows[1].runs == 2
    comparison_table(comparison)


def test_typos_are_refused_before_anything_runs(monkeypatch):
    monkeypatch.setattr(module, "find_reference", lambda problem: pytest.fail("it ran"))
    with pytest.raises(UnknownBackend):
        compare(PROBLEM, [Contender("random"), Contender("rnadom")])
    with pytest.raises(ParameterError, match="num_read"):
        compare(PROBLEM, [Contender("random", {"num_read": 1})])


def test_finished_runs_are_found_again(tmp_path):
    store = RunStore(tmp_path / "study.db")
    first = compare(PROBLEM, [Contender("random")], repeats=2, store=store)
    assert (first.reused, len(store)) == (0, 2)
    again = compare(PROBLEM, [Contender("random")], repeats=3, store=RunStore(store.path))
    assert (again.reused, len(store)) == (2, 3)
    assert _row(again, "random").runs == 3
    other = compare(PROBLEM, [Contender("random", {"num_reads": 9})], repeats=2, store=store)
    assert other.reused == 0


def test_interruption_keeps_finished_runs(tmp_path, monkeypatch):
    solver = get_backend("random")
    calls = []

    def sample(problem, **options):
        calls.append(options["seed"])
        if len(calls) == 3:
            raise KeyboardInterrupt
        return type(solver).sample(solver, problem, **options)

    monkeypatch.setattr(solver, "sample", sample)
    store = RunStore(tmp_path / "study.db")
    comparison = compare(PROBLEM, [Contender("random")], repeats=5, store=store)
    assert comparison.interrupted
    assert comparison.rows[0].runs == 2
    assert len(store) == 2


@pytest.mark.parametrize("text", ["random:x", "random:=3"])
def test_bad_contenders_are_refused(text):
    with pytest.raises(ParameterError, match="expected NAME"):
        Contender.parse(text)
