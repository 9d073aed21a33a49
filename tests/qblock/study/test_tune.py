from pathlib import Path

import pytest
from typer.testing import CliRunner

from qblock import BlockRemovalProblem, save_sensitivity
from qblock.cli import app
from qblock.errors import ParameterError, StudyError
from qblock.study.execute import local_workers
from qblock.study.plan_file import load_plan
from qblock.study.store import Store
from qblock.study.tune import Range, tune
from qblock.testing import random_sensitivity

pytest.importorskip("optuna")


def test_ranges_from_text() -> None:
    assert Range.parse("10..1000") == Range(10, 1000)
    assert Range.parse("tight|safe|0.5") == Range(choices=("tight", "safe", 0.5))
    for text in ("5..1", "a..b"):
        with pytest.raises(ParameterError, match=r"LOW\.\.HIGH"):
            Range.parse(text)


def test_tuning_finds_the_better_value_and_is_repeatable(tmp_path: Path) -> None:
    """One read almost never finds the best of 3003 states; 5000 reads do, and cost little."""
    problem = BlockRemovalProblem(random_sensitivity(15), remove=5)
    ranges = {"num_reads": Range(choices=(1, 20_000))}
    with Store(tmp_path / "t.db") as store, local_workers(1) as crew:
        first = tune("random", ranges, [problem], trials=5, store=store, workers=crew)
        runs = len(store.runs())
        again = tune("random", ranges, [problem], trials=5, store=store, workers=crew)
        assert len(store.runs()) == runs
        with pytest.raises(ParameterError, match="no parameter 'reads'"):
            tune("random", {"reads": Range(1, 2)}, [problem], trials=1, store=store, workers=crew)
    assert first.contender.parameters == {"num_reads": 20_000}
    assert again == first
    assert problem.sensitivity.name in first.statement


def test_tuned_parameters_are_compared_on_other_instances(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate(("mine", "other")):
        save_sensitivity(random_sensitivity(9, seed), f"{name}.npz")
    arguments = "study tune -b random --range num_reads=1..50 -i mine.npz --remove 3 --trials 2"
    done = CliRunner().invoke(app, [*arguments.split(), "--seeds", "2", "--workers", "1"])
    assert done.exit_code == 0, done.output
    snippet = done.stdout.partition("other instances:")[2]
    Path("plan.toml").write_text(f'{snippet}\n[[instances]]\nsource = "other.npz"\nremove = 3\n')
    assert "Optuna" in load_plan("plan.toml").tuning
    Path("plan.toml").write_text(f'{snippet}\n[[instances]]\nsource = "mine.npz"\nremove = 3\n')
    with pytest.raises(StudyError, match=r"was tuned on in tune\.db; compare on others"):
        load_plan("plan.toml")
