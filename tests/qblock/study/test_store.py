import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qblock import BlockRemovalProblem, SolveResult, get_backend
from qblock.errors import BackendError, StudyError
from qblock.study import schema
from qblock.study.contender import Contender, RunRequest
from qblock.study.records import pack_samples, samples_of, unpack_samples
from qblock.study.store import Store, open_study
from qblock.testing import random_sensitivity

PROBLEM = BlockRemovalProblem(
    random_sensitivity(11, groups=("a", "b") * 5 + ("a",)), remove={"a": 2, "b": 1}, keep=[]
)
OTHER = BlockRemovalProblem(random_sensitivity(5), remove=2)
MACHINE = {"host": "here"}


def requests(count: int = 3, problem: BlockRemovalProblem = PROBLEM) -> list[RunRequest]:
    contender = Contender("random", {"num_reads": 50})
    return [RunRequest(problem, contender, seed, None) for seed in range(count)]


def solve(request: RunRequest) -> SolveResult:
    return get_backend(request.contender.backend).sample(
        request.problem, seed=request.seed, **request.contender.parameters
    )


def do(store: Store, request: RunRequest) -> SolveResult:
    assert store.claim(request.key)
    result = solve(request)
    assert store.finish(request.key, result, MACHINE)
    return result


def assert_same_samples(one: SolveResult, other: SolveResult) -> None:
    problem = PROBLEM if one.problem_id == PROBLEM.id else OTHER
    for mine, theirs in zip(samples_of(one, problem), samples_of(other, problem), strict=True):
        np.testing.assert_array_equal(mine, theirs)


@given(st.data())
def test_packing_loses_nothing(data: st.DataObject) -> None:
    rows, n = data.draw(st.integers(0, 5)), data.draw(st.integers(1, 20))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    states = rng.integers(0, 2, (rows, n), dtype=np.int8)
    top = data.draw(st.sampled_from([2, 255, 256, 65536, 2**40]))
    occurrences = rng.integers(1, top, rows, endpoint=True)
    back = unpack_samples(*pack_samples(states, occurrences), n)
    np.testing.assert_array_equal(back[0], states)
    np.testing.assert_array_equal(back[1], occurrences)


def test_a_result_comes_back_as_it_was(tmp_path: Path) -> None:
    request = requests(1)[0]
    with Store(tmp_path / "s.db") as store:
        store.add_plan({"name": "x"}, [request])
        result = do(store, request)
    with open_study(tmp_path / "s.db") as store:
        (run,) = store.runs()
        back = store.result(run)
        assert store.problem(PROBLEM.id) == PROBLEM
        assert store.problem(PROBLEM.id).sensitivity.groups == PROBLEM.sensitivity.groups
        assert store.plans() == [{"name": "x"}]
    assert_same_samples(back, result)
    np.testing.assert_allclose(back.samples.record.energy, result.samples.record.energy)
    for name in ("timing", "status", "seed", "versions", "created", "certificate", "warnings"):
        assert getattr(back, name) == getattr(result, name), name
    assert back.parameters == {"num_reads": 50}
    assert run.samples == run.feasible == 50
    assert run.best == pytest.approx(result.samples.record.energy.min())


def test_runs_are_planned_once_and_claimed_once(tmp_path: Path) -> None:
    with Store(tmp_path / "s.db") as one, Store(tmp_path / "s.db") as two:
        one.beat()
        assert one.add_plan({}, requests(3)) == 3
        assert two.add_plan({}, requests(4)) == 1
        key = requests(1)[0].key
        assert one.claim(key)
        assert not two.claim(key)
        assert key not in two.open_keys()
        one.release(key)
        assert two.claim(key)
        assert not one.finish(key, solve(requests(1)[0]), MACHINE)


def test_runs_of_a_killed_process_are_open_again(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    with Store(path) as store:
        store.add_plan({}, requests(2))
    script = (
        "import os, sys; from qblock.study.store import Store; s = Store(sys.argv[1]); s.beat();"
        "assert s.claim(sys.argv[2]); os.kill(os.getpid(), 9)"
    )
    key = requests(1)[0].key
    subprocess.run([sys.executable, "-c", script, str(path), key], check=False)
    with Store(path) as store:
        assert store.counts() == {"open": 1, "running": 1}
        assert key in store.open_keys()


def test_runs_of_a_silent_process_elsewhere_are_open_again(tmp_path: Path) -> None:
    with Store(tmp_path / "s.db") as store:
        store.add_plan({}, requests(2))
        live, dead = (request.key for request in requests(2))
        with sqlite3.connect(store.path) as connection:
            for owner, key, age in (("live", live, 5), ("dead", dead, 500)):
                connection.execute(
                    "INSERT INTO coordinators VALUES (?, 'elsewhere', 1, ?)",
                    (owner, time.time() - age),
                )
                connection.execute(
                    "UPDATE runs SET state = 'running', owner = ? WHERE key = ?", (owner, key)
                )
        assert store.open_keys() == {dead}


def test_failures_are_kept_and_can_be_tried_again(tmp_path: Path) -> None:
    request = requests(1)[0]
    with Store(tmp_path / "s.db") as store:
        store.add_plan({}, [request])
        store.claim(request.key)
        store.fail(request.key, BackendError("the device is on fire"))
        (run,) = store.runs()
        assert (run.state, run.error_kind) == ("failed", "BackendError")
        assert run.error == "the device is on fire"
        assert not store.open_keys()
        assert store.reopen_failed() == 1
        assert store.open_keys() == {request.key}


def test_merge_takes_what_is_missing_and_nothing_twice(tmp_path: Path) -> None:
    ours, theirs = requests(3), [*requests(5), *requests(2, OTHER)]
    with Store(tmp_path / "a.db") as a, Store(tmp_path / "b.db") as b:
        a.add_plan({"name": "a"}, ours)
        b.add_plan({"name": "b"}, theirs)
        do(a, ours[0])
        kept = a.runs()[0]
        results = {request.key: do(b, request) for request in theirs[:1] + theirs[2:]}
        assert a.merge(b.path) == 5
        assert a.merge(b.path) == 0
        assert a.counts() == {"done": 6, "open": 1}
        assert a.runs()[0] == kept
        assert len(a.plans()) == 2
        for run in a.runs():
            if run.key in results and run != kept:
                assert_same_samples(a.result(run), results[run.key])
        assert b.counts() == {"done": 6, "open": 1}
        assert a._read("PRAGMA foreign_key_check") == []


def test_an_older_schema_is_brought_up_to_date(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "s.db"
    with monkeypatch.context() as patch:
        patch.setattr(schema, "MIGRATIONS", schema.MIGRATIONS[:1])
        with Store(path) as store:
            store.add_plan({}, requests(2))
            do(store, requests(1)[0])
    with Store(path) as store:
        assert store._read("PRAGMA user_version") == [(len(schema.MIGRATIONS),)]
        assert store.counts() == {"done": 1, "open": 1}
        assert len(store.samples(requests(1)[0].key)[0]) > 0


def test_files_that_are_no_study_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="no study file"):
        open_study(tmp_path / "nothing.db")
    text = tmp_path / "text.db"
    text.write_text("not a database, " * 100)
    with pytest.raises(StudyError, match="cannot be used"):
        Store(text)
    foreign = tmp_path / "foreign.db"
    with sqlite3.connect(foreign) as connection:
        connection.execute("CREATE TABLE runs (x)")
    with pytest.raises(StudyError, match="another program"):
        Store(foreign)
    newer = tmp_path / "newer.db"
    Store(newer).close()
    with sqlite3.connect(newer) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(StudyError, match="schema version 99"):
        Store(newer)
    with pytest.raises(StudyError, match="cannot be used"):
        Store(tmp_path / "no" / "such" / "folder.db")
    with Store(tmp_path / "good.db") as store:
        for bad in (text, newer, tmp_path / "nothing.db"):
            with pytest.raises(StudyError):
                store.merge(bad)


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a directory closed to root too")
def test_a_directory_that_cannot_be_written() -> None:
    with pytest.raises(StudyError, match="cannot be used"):
        Store("/proc/self/s.db")


def test_a_full_disk_is_one_line_and_loses_nothing(tmp_path: Path) -> None:
    request, other = requests(2)
    with Store(tmp_path / "s.db") as store:
        store.add_plan({}, [request, other])
        do(store, request)
        before = store.runs()[0]
        pages = store._read("PRAGMA page_count")[0][0]
        store._read(f"PRAGMA max_page_count = {pages}")  # SQLite then reports a full disk
        store.claim(other.key)
        big = get_backend("random").sample(PROBLEM, seed=1, num_reads=100_000)
        wide = SolveResult(**{**big.__dict__, "details": {"padding": "x" * 10**6}})
        with pytest.raises(StudyError, match="full"):
            store.finish(other.key, wide, MACHINE)
        store._read("PRAGMA max_page_count = 1000000")
        assert store.runs()[0] == before
        assert store.counts() == {"done": 1, "running": 1}
        assert store.finish(other.key, big, MACHINE)


def test_a_new_file_can_be_opened_by_many_at_once(tmp_path):
    """Switching to the write-ahead log needs the file alone."""

    def open_and_close(_):
        with Store(tmp_path / "new.db"):
            pass

    with ThreadPoolExecutor(8) as executor:
        list(executor.map(open_and_close, range(24)))
