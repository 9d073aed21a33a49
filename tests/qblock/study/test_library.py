import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from qblock.cli import app
from qblock.files import bundled_instances
from qblock.registry import get_backend
from qblock.spectrum import Spectrum
from qblock.study.contender import Contender
from qblock.study.execute import execute, local_workers
from qblock.study.plan import Plan
from qblock.study.plan_file import load_plan
from qblock.study.store import Store


def listed(*arguments: str) -> list[dict[str, object]]:
    done = CliRunner().invoke(app, ["instances", *arguments, "--json"])
    assert done.exit_code == 0, done.output
    rows: list[dict[str, object]] = json.loads(done.stdout)
    return rows


def test_the_library_holds_easy_and_hard_instances() -> None:
    rows = listed()
    assert {row["name"] for row in rows} >= set(bundled_instances())
    kinds = {str(row["name"]).partition("-")[0] for row in rows}
    assert kinds >= {"smollm2", "heavy", "homog", "flat", "midrank", "lowrank"}
    assert len(load_plan("library").problems) >= 10


def test_a_study_says_how_hard_for_whom(tmp_path: Path) -> None:
    problem = load_plan("library").problems[0]
    plan = Plan((problem,), (Contender("exact"), Contender("random", {"num_reads": 1})), (0, 1))
    with Store(tmp_path / "s.db") as store, local_workers(1) as crew:
        execute(plan, store, crew)
        reference = store.runs()[0]
    first, second, *_ = listed("--study", str(tmp_path / "s.db"))
    assert first["proved_optimum"] == pytest.approx(reference.best)
    assert str(first["fastest"]).startswith("exact")
    assert first["never_found_by"] == "random:num_reads=1"
    assert second["proved_optimum"] is None


def test_the_released_findings_are_of_these_problems() -> None:
    """A changed instance or generator has another id, and needs a new study of the library."""
    rows = [row for row in listed() if row["remove"] is not None]
    assert all(row["fastest"] for row in rows)
    small = [row for row in rows if row["states"] and int(str(row["states"])) < 10**7]
    for row in small:
        problem = next(p for p in load_plan("library").problems if p.id == row["problem"])
        result = get_backend("exact").sample(problem, k=1)
        assert row["proved_optimum"] == pytest.approx(Spectrum.of(problem, result).energies[0])
