"""A max-heap of the lowest energies seen, each with a row that says of which state."""

from qblock.exact.kernel import kernel
from qblock.problem import FloatArray, IntArray, States


@kernel
def _copy(row: States | IntArray, into: States | IntArray) -> None:
    for q in range(len(row)):
        into[q] = row[q]


@kernel
def keep_lowest(
    energies: FloatArray,
    rows: States | IntArray,
    used: int,
    energy: float,
    row: States | IntArray,
) -> int:
    """Put an energy and its row into the heap, in place of the highest one if it is full.

    Args:
        energies: float64 (k,); the first `used` are the heap, the highest of them at 0.
        rows: (k, m), one for each energy.
        used: how many there are already.
        energy: lower than the highest, if the heap is full.
        row: (m,).

    Returns:
        How many there are now.
    """
    k = len(energies)
    if used < k:
        at = used
        used += 1
        while at > 0 and energies[(at - 1) // 2] < energy:
            energies[at] = energies[(at - 1) // 2]
            _copy(rows[(at - 1) // 2], rows[at])
            at = (at - 1) // 2
    else:
        at = 0
        while True:
            child = 2 * at + 1
            if child + 1 < k and energies[child + 1] > energies[child]:
                child += 1
            if child >= k or energies[child] <= energy:
                break
            energies[at] = energies[child]
            _copy(rows[child], rows[at])
            at = child
    energies[at] = energy
    _copy(row, rows[at])
    return used
