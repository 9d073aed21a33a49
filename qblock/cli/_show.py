"""`qblock show`: the Hamiltonian that a solver gets to see."""

from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import typer

from qblock.backend import parse_parameters
from qblock.cli import _common as common
from qblock.encoding import Encoding
from qblock.errors import ParameterError
from qblock.penalty import penalty_weight
from qblock.pictures import check_picture, save_picture
from qblock.registry import get_backend

PICTURES = {"landscape": "qaoa", "embedding": "dwave-local"}
"""Forms that are pictures, and the backend that draws each unless another is named."""


def show(
    problem: common.ProblemArgument,
    remove: common.RemoveOption,
    form: Annotated[
        Literal["qubo", "ising", "circuit", "landscape", "embedding"],
        typer.Option(
            "--form",
            help="In bits, in spins, the circuit of a small problem; or as a picture: QAOA's "
            "landscape over the angles of one layer, the chains on an annealer's graph.",
        ),
    ] = "qubo",
    backend: Annotated[
        str,
        typer.Option(
            "--backend",
            "-b",
            help="Whose circuit, landscape or embedding; by default that of qaoa or dwave-local.",
        ),
    ] = "",
    parameters: Annotated[
        list[str] | None,
        typer.Option("-p", "--parameter", metavar="KEY=VALUE", help="A backend parameter."),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option("--plot", metavar="FILE", help="Where a picture is saved."),
    ] = None,
    penalty: Annotated[
        str, typer.Option("--penalty", help="'tight', 'safe' or a number: the penalty weight.")
    ] = "tight",
    keep: common.KeepOption = "",
    drop: common.DropOption = "",
    linear: common.LinearOption = False,
    as_json: common.JsonOption = False,
) -> None:
    """Show the form in which a solver gets a problem: a matrix, a circuit, or a picture."""
    if plot is None and form in PICTURES:
        raise ParameterError(f"--form {form} is a picture: say where to save it by --plot FILE")
    if plot is not None and form not in PICTURES:
        raise ParameterError(f"--form {form} is text: leave out --plot")
    if plot is not None:
        check_picture(plot)
    task = common.load_problem(problem, remove, keep, drop, linear)
    if plot is not None:
        solver = get_backend(backend or PICTURES[form])
        solver.require_available()
        settings = solver.parse(parse_parameters(parameters or []))
        save_picture(solver.figure(form, task.reduced, settings), plot)
        common.messages.print(f"the {form} is in {plot}")
        return
    if form == "circuit":
        backend = backend or "qaoa"
        drawing = get_backend(backend).draw_circuit(task.reduced)
        if as_json:
            common.print_json({"form": form, "backend": backend, "circuit": drawing})
        else:
            common.console.print(drawing, soft_wrap=True, highlight=False, markup=False)
        return
    weight = penalty_weight(task.reduced, parse_penalty(penalty))
    encoding = Encoding(task.reduced)
    if form == "qubo":
        bqm = encoding.bqm(weight)
        linear_terms, couplings, offset = bqm.linear, bqm.quadratic, bqm.offset
    else:
        linear_terms, couplings, offset = encoding.ising(weight)
    offset = float(offset) + task.reduced.offset
    if as_json:
        common.print_json(
            {
                "form": form,
                "variables": list(task.reduced.blocks),
                "penalty_weight": weight,
                "linear": {str(key): float(value) for key, value in linear_terms.items()},
                "quadratic": [[str(a), str(b), float(v)] for (a, b), v in couplings.items()],
                "offset": offset,
            }
        )
        return
    symbols = ("x", "Q") if form == "qubo" else ("s", "J")
    common.console.print(
        f"{task.sensitivity.name}: {len(task)} blocks, {len(task.reduced)} undecided, "
        f"{task.reduced.num_feasible:,} feasible states"
    )
    common.console.print(
        f"E({symbols[0]}) = offset + sum_i h_i {symbols[0]}_i + "
        f"sum_i<j {symbols[1]}_ij {symbols[0]}_i {symbols[0]}_j,   "
        f"{'x in {0, 1}, 1 = removed' if form == 'qubo' else 's = 2x - 1 in {-1, +1}'}"
    )
    common.console.print(f"penalty weight {weight:.6g} ({penalty}), offset {offset:.6g}\n")
    common.console.print(_matrix(task.reduced.blocks, linear_terms, couplings), soft_wrap=True)
    values = np.abs([float(v) for v in [*linear_terms.values(), *couplings.values()]])
    nonzero = values[values > 0]
    if len(nonzero):
        objective = np.abs(task.reduced.Q[task.reduced.Q != 0])
        common.console.print(
            f"\ncoefficients from {nonzero.min():.3g} to {nonzero.max():.3g}: a range of "
            f"{nonzero.max() / nonzero.min():.3g}; the objective alone spans {objective.min():.3g} "
            f"to {objective.max():.3g}"
        )


def parse_penalty(text: str) -> Any:
    """A penalty weight from the command line."""
    if text in ("tight", "safe"):
        return text
    try:
        return float(text)
    except ValueError:
        raise ParameterError(f"--penalty {text!r}: expected 'tight', 'safe' or a number") from None


def _matrix(blocks: tuple[str, ...], linear: Any, quadratic: Any) -> str:
    """Fields on the diagonal, couplings above it, three significant digits."""
    if not blocks:
        return "(pins and budgets decide every block)"
    index = {block: i for i, block in enumerate(blocks)}
    cells = [["" for _ in blocks] for _ in blocks]
    for block, value in linear.items():
        cells[index[block]][index[block]] = f"{value:.2g}"
    for (a, b), value in quadratic.items():
        i, j = sorted((index[a], index[b]))
        cells[i][j] = f"{value:.2g}"
    width = max(len(cell) for row in [*cells, list(blocks)] for cell in row) + 1
    rows = ["".join(name.rjust(width) for name in ("", *blocks))]
    rows += [
        "".join(cell.rjust(width) for cell in (name, *row))
        for name, row in zip(blocks, cells, strict=True)
    ]
    return "\n".join(rows)
