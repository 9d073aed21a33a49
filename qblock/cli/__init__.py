"""The command line. One file per subcommand; each command is a thin call into the library.

Exit codes: 0 done, 1 the work failed, 2 the user's mistake, 130 interrupted (finished work is
kept). Results go to stdout; progress and messages go to stderr, progress only to a terminal.
"""

import sys

import typer

from qblock.cli import _backends, _compare, _demo, _fetch, _instances, _show, _solve
from qblock.errors import QblockError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Which blocks of a language model to remove: one Ising problem, every solver.",
)
app.command("demo")(_demo.demo)
app.command("instances")(_instances.instances)
app.command("backends")(_backends.backends)
app.command("show")(_show.show)
app.command("solve")(_solve.solve)
app.command("compare")(_compare.compare)
app.command("fetch")(_fetch.fetch)


def main() -> None:
    """Run the command line and leave with its exit code."""
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
