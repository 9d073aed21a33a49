"""Compare solvers on your own QUBO: minimise x'Qx with exactly M ones.

    python compare_your_qubo.py my.qubo --remove 12

Reads `.qubo` and `.coo` files, and `.npy` with the matrix. Runs are kept beside the file, so a
second call only adds what is new, and `qblock report my.db` draws them.
"""

import argparse
from pathlib import Path

from rich.console import Console

from qblock import BlockRemovalProblem, QblockError, load_sensitivity
from qblock.study.compare import compare, comparison_table
from qblock.study.contender import Contender
from qblock.study.store import Store

CONTENDERS = (
    "fixed-weight-tabu",  # moves inside sum(x) = M
    "annealing",  # sees it as a penalty, of the smallest weight that is proved to do
    "annealing:penalty=safe",  # the same with the usual large weight
    "random",  # the floor
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--remove", type=int, required=True, help="M, the number of ones")
    parser.add_argument("--repeats", type=int, default=10, help="seeds per solver")
    parser.add_argument("--time-limit", type=float, default=1.0, help="seconds per run")
    arguments = parser.parse_args()
    try:
        problem = BlockRemovalProblem(load_sensitivity(arguments.file), remove=arguments.remove)
        with Store(arguments.file.with_suffix(".db")) as store:
            compared = compare(
                problem,
                [Contender.parse(text) for text in CONTENDERS],
                repeats=arguments.repeats,
                time_limit=arguments.time_limit,
                store=store,
            )
    except QblockError as error:
        raise SystemExit(str(error)) from None
    Console(width=120).print(comparison_table(compared.comparison))


if __name__ == "__main__":
    main()
