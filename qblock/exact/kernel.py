"""How the functions of the search are compiled."""

from functools import partial

from numba import njit
from numba.core.options import DefaultOptions

UNCOUNTED = {"_nrt": False} if hasattr(DefaultOptions, "_nrt") else {}
"""Private option of numba, without which the search is slower and as correct."""

kernel = partial(njit, cache=True, nogil=True, **UNCOUNTED)
"""For functions that allocate nothing: they need not count references to their arrays.

Counting is a locked instruction for every array read from a tuple, and took two fifths of the
time. Assigning one array row to another allocates, so rows are copied in loops.
"""
