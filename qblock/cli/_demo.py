"""`qblock demo`: the main job on a real instance, in under three minutes."""

from qblock.cli import _common as common
from qblock.cli._compare import show
from qblock.files import load_sensitivity
from qblock.problem import BlockRemovalProblem
from qblock.study.compare import Contender, compare

CONTENDERS = (
    "fixed-weight-tabu",
    "fixed-weight-annealing",
    "tabu",
    "descent",
    "annealing",
    "annealing:beta_range=objective",
    "annealing:beta_range=objective,penalty=safe",
    "path-integral:num_reads=10",
    "path-integral:num_reads=10,beta_range=objective",
    "random",
)
INSTANCE = "smollm2-135m"
REMOVE = 8
REPEATS = 10


def demo(as_json: common.JsonOption = False) -> None:
    """Compare all classical solvers on the bundled instance of a real language model."""
    sensitivity = load_sensitivity(INSTANCE)
    problem = BlockRemovalProblem(sensitivity, remove=REMOVE)
    if not as_json:
        common.console.print(
            f"Which {REMOVE} of the {len(problem)} blocks of {sensitivity.provenance['model']} "
            f"can go? {problem.reduced.num_feasible:,} choices.\n"
        )
    with common.progress_line("demo") as report:
        comparison = compare(
            problem, [Contender.parse(text) for text in CONTENDERS], repeats=REPEATS, report=report
        )
    show(comparison, as_json=as_json)
    if not as_json:
        common.console.print(
            "\nThe first two move by swaps and never leave the budget. The others see the budget "
            "as a penalty, which sets\nthe temperature range of the default annealing schedule; "
            "beta_range=objective takes it from the objective.\n"
            f"Next: qblock solve {INSTANCE} --remove {REMOVE} -b fixed-weight-tabu --top 5, "
            f"or qblock show {INSTANCE} --remove {REMOVE}"
        )
    if comparison.interrupted:
        raise KeyboardInterrupt
