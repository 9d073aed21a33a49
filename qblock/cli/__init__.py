"""The command line. One file per subcommand; each command is a thin call into the library.

Exit codes: 0 done, 1 the work failed, 2 the user's mistake, 130 interrupted (finished work is
kept). Results go to stdout; progress and messages go to stderr, progress only to a terminal.
"""

import os
import sys

import typer

from qblock.cli import (
    _backends,
    _baselines,
    _calibrate,
    _compare,
    _demo,
    _evaluate,
    _fetch,
    _heal,
    _instances,
    _merge,
    _prune,
    _reduce,
    _report,
    _select,
    _show,
    _solve,
    _spectrum,
    _study,
    _validate,
)
from qblock.errors import QblockError

PROBLEMS = "Problems and solvers"
STUDIES = "Comparing"
MODELS = "Language models"

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Which blocks of a language model to remove: one Ising problem, every solver.",
)
app.command("demo")(_demo.demo)
app.command("instances", rich_help_panel=PROBLEMS)(_instances.instances)
app.command("backends", rich_help_panel=PROBLEMS)(_backends.backends)
app.command("show", rich_help_panel=PROBLEMS)(_show.show)
app.command("solve", rich_help_panel=PROBLEMS)(_solve.solve)
app.command("spectrum", rich_help_panel=PROBLEMS)(_spectrum.spectrum)
app.command("reduce", rich_help_panel=PROBLEMS)(_reduce.reduce)
app.command("fetch", rich_help_panel=PROBLEMS)(_fetch.fetch)
app.command("compare", rich_help_panel=STUDIES)(_compare.compare)
app.add_typer(_study.app, name="study", rich_help_panel=STUDIES)
app.command("report", rich_help_panel=STUDIES)(_report.report)
app.command("calibrate", rich_help_panel=MODELS)(_calibrate.calibrate)
app.command("merge", rich_help_panel=MODELS)(_merge.merge)
app.command("validate", rich_help_panel=MODELS)(_validate.validate)
app.command("select", rich_help_panel=MODELS)(_select.select)
app.command("baselines", rich_help_panel=MODELS)(_baselines.baselines)
app.command("prune", rich_help_panel=MODELS)(_prune.prune)
app.command("heal", rich_help_panel=MODELS)(_heal.heal)
app.command("evaluate", rich_help_panel=MODELS)(_evaluate.evaluate)


def main() -> None:
    """Run the command line and leave with its exit code."""
    if not sys.stderr.isatty():  # the libraries' progress bars too; read when tqdm is imported
        os.environ.setdefault("TQDM_DISABLE", "1")
    try:
        app()
    except QblockError as error:
        print(f"qblock: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("qblock: interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # the reader of our output left, as `| head` does
        sys.stderr.close()
        sys.exit(1)
