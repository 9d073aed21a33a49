from functools import partial
from typing import NamedTuple

import numpy as np
from numba import njit

from qblock.exact.kernel import kernel


class Rows(NamedTuple):
    values: np.ndarray


def first_column(rows):
    total = 0.0
    for at in range(len(rows.values)):
        row = rows.values[at]
        total += row[0]
    return total


def test_kernels_count_no_references():
    """The option that says so is a private one of numba, whose meaning may change."""
    counts = {}
    for name, compile_it in {"usual": njit, "kernel": partial(kernel, cache=False)}.items():
        function = compile_it(first_column)
        assert function(Rows(np.ones((3, 2)))) == 3
        (code,) = function.inspect_llvm().values()
        counts[name] = code.count("NRT_decref")
    assert counts["usual"] > 0
    assert counts["kernel"] == 0
