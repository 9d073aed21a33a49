from pathlib import Path

import pytest

from qblock import BlockRemovalProblem
from qblock.errors import ParameterError, StudyError, UnknownBackend
from qblock.study.contender import Contender, RunRequest
from qblock.study.plan import Plan, estimate
from qblock.study.plan_file import load_plan
from qblock.testing import random_sensitivity

GOOD = """
name = "two sizes"
seeds = 3
time_limits = [0.1, 1]
memory_gib = 2

[[instances]]
source = "smollm2-135m-fisher"
remove = [2, 4]

[[backends]]
name = "random"

[[backends]]
name = "annealing"
parameters = { beta_range = "objective" }
grid = { num_reads = [5, 10], num_sweeps = [10, 20] }
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "plan.toml"
    path.write_text(text)
    return path


def test_a_plan_is_every_combination(tmp_path: Path) -> None:
    plan = load_plan(write(tmp_path, GOOD))
    runs = [r for r in plan.requests() if r.purpose == "comparison"]
    assert len(runs) == 2 * 5 * 3 * 2
    assert len({run.key for run in runs}) == len(runs)
    assert plan.memory_limit == 2 * 2**30
    assert sum(r.purpose == "reference" for r in plan.requests()) == 2
    assert {run.seed for run in runs} == {0, 1, 2}


def test_an_interrupted_plan_has_treated_all_contenders_alike(tmp_path: Path) -> None:
    runs = [r for r in load_plan(write(tmp_path, GOOD)).requests() if r.purpose == "comparison"]
    first_third = runs[: len(runs) // 3]
    assert len({str(run.contender) for run in first_third}) == 5
    assert {run.seed for run in first_third} == {0}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("seeds = 3", "seed = 3", "unknown key 'seed'; expected one of instances"),
        ("remove = [2, 4]", "remove = [2, 31]", "31 blocks cannot be removed from 30"),
        ("remove = [2, 4]", "remov = 2", "unknown key 'instances.0.remov'"),
        ("remove = [2, 4]", "remove = [2, 2]", "same problem twice"),
        ('"random"', '"randon"', "backends.0: no backend 'randon'. Did you mean 'random'"),
        ("num_sweeps", "num_swoops", "backends.1: backend 'annealing': it has no parameter"),
        ("[5, 10]", '["x"]', "backends.1: backend 'annealing': num_reads='x'"),
        ('"smollm2-135m-fisher"', '"nowhere.npz"', "neither a file nor a bundled instance"),
        ("[0.1, 1]", "[0.1, -1]", "-1.0 is no time limit"),
        ("seeds = 3", "seeds = 0", "no seed"),
        ("seeds = 3", "seeds = 3 3", "not valid TOML"),
        ("seeds = 3", 'seeds = "3"', "seeds"),
    ],
)
def test_a_mistake_is_one_line_that_names_the_place(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    path = write(tmp_path, GOOD.replace(old, new))
    with pytest.raises(StudyError) as caught:
        load_plan(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_plan(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="cannot read the plan"):
        load_plan(tmp_path / "no.toml")


def test_a_plan_made_in_python_is_checked_too() -> None:
    problem = BlockRemovalProblem(random_sensitivity(5), remove=2)
    with pytest.raises(UnknownBackend):
        Plan((problem,), (Contender("nobody"),))
    with pytest.raises(ParameterError):
        Plan((problem,), (Contender("random", {"num_reads": 0}),))
    with pytest.raises(StudyError, match="same backend twice"):
        Plan((problem,), (Contender("random"), Contender("random", {"num_reads": 1000})))


def test_what_a_run_is_known_by() -> None:
    problem = BlockRemovalProblem(random_sensitivity(5), remove=2)
    default, spelled = Contender("random"), Contender("random", {"num_reads": 1000})
    key = RunRequest(problem, default, 0, None).key
    assert key == RunRequest(problem, spelled, 0, None).key
    other = BlockRemovalProblem(random_sensitivity(5), remove=3)
    assert key != RunRequest(other, default, 0, None).key
    assert key != RunRequest(problem, default, 1, None).key
    assert key != RunRequest(problem, default, 0, 1.0).key
    assert key != RunRequest(problem, default, 0, None, "reference").key


def test_the_estimate_adds_up_what_is_known() -> None:
    problem = BlockRemovalProblem(random_sensitivity(12), remove=4)
    runs = [
        RunRequest(problem, Contender("brute-force"), 0, None),
        RunRequest(problem, Contender("random"), 0, 2.0),
        RunRequest(problem, Contender("random"), 1, 2.0),
        RunRequest(problem, Contender("tabu"), 0, None),
    ]
    answer = estimate(runs)
    assert answer.runs == 4
    assert 4.0 <= answer.seconds < 4.1
    assert answer.unknown == ("tabu",)
    assert answer.qpu_seconds == 0


def test_contenders_from_text() -> None:
    assert Contender.parse("tabu:num_reads=5,penalty=safe") == Contender(
        "tabu", {"num_reads": 5, "penalty": "safe"}
    )
    with pytest.raises(ParameterError, match="expected KEY=VALUE"):
        Contender.parse("tabu:num_reads")
