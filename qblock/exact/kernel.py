"""How the functions of the search are compiled."""

from functools import partial

from numba import njit

kernel = partial(njit, cache=True, nogil=True, _nrt=False)
"""For functions that allocate nothing: they need not count references to their arrays.

Counting is a locked instruction for every array read from a tuple, and took two fifths of the
time. Assigning one array row to another allocates, so rows are copied in loops.
"""
