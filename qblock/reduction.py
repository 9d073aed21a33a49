"""Exact variable fixing: a smaller problem with the same low spectrum.

If a proved list holds every feasible state with an energy below some limit, then a block that
all of these states remove, or that none of them removes, can be pinned without losing any of
them. The result is an ordinary problem with more pins: it needs fewer qubits, and its states
are states over the original blocks, so there is nothing to translate back.
"""

from dataclasses import dataclass

import numpy as np

from qblock.errors import ProblemError
from qblock.problem import BlockRemovalProblem
from qblock.spectrum import Spectrum


@dataclass(frozen=True, eq=False)
class Reduction:
    """A problem with more pins, and what they are proved not to lose.

    Attributes:
        problem: the pinned problem.
        below: every feasible state of the original with an energy below this is feasible here.
        num_states: how many such states there are.
    """

    problem: BlockRemovalProblem
    below: float
    num_states: int

    @property
    def undecided(self) -> int:
        """Blocks left to decide: variables or qubits of a solver."""
        return len(self.problem.reduced)


def reduce_below(spectrum: Spectrum, below: float) -> Reduction:
    """Pin all blocks on which every feasible state with an energy below `below` agrees.

    Args:
        spectrum: with a certificate that it is complete below `below`.

    Raises:
        ProblemError: the spectrum is not certified that far, or no state lies below.
    """
    complete = _complete_below(spectrum)
    if below > complete:
        raise ProblemError(
            f"the spectrum is proved complete below {complete:.9g} only, not below {below:.9g}; "
            "prove more states, or take a lower limit"
        )
    states = spectrum.states[spectrum.energies < below]
    if not len(states):
        raise ProblemError(
            f"no state has an energy below {below:.9g}; the lowest is {spectrum.energies[0]:.9g}"
        )
    problem = spectrum.problem
    always, sometimes = states.all(axis=0), states.any(axis=0)
    return Reduction(
        BlockRemovalProblem(
            problem.sensitivity,
            remove=problem.remove,
            keep=[problem.blocks[i] for i in np.flatnonzero(~sometimes)],
            drop=[problem.blocks[i] for i in np.flatnonzero(always)],
            linear=problem.linear,
        ),
        float(below),
        len(states),
    )


def reduce_to(spectrum: Spectrum, undecided: int) -> Reduction:
    """The reduction that keeps most of the low spectrum with at most so many undecided blocks.

    Raises:
        ProblemError: the spectrum is not certified to hold every state of lowest energy.
    """
    if undecided < 0:
        raise ProblemError(f"undecided must be 0 or more, not {undecided}")
    complete = _complete_below(spectrum)
    levels = np.unique(spectrum.energies)
    limits = [*levels[(levels > levels[0]) & (levels < complete)], complete]
    low, high = 0, len(limits)  # limits[:low] fit; more states never decide more blocks
    while low < high:
        middle = (low + high) // 2
        if reduce_below(spectrum, limits[middle]).undecided <= undecided:
            low = middle + 1
        else:
            high = middle
    if low == 0:
        raise ProblemError(
            f"the {spectrum.degeneracy} states of lowest energy already differ in more than "
            f"{undecided} blocks"
        )
    return reduce_below(spectrum, limits[low - 1])


def _complete_below(spectrum: Spectrum) -> float:
    if spectrum.certificate is None:
        raise ProblemError("only a certified spectrum proves which blocks may be pinned")
    complete = spectrum.certificate.complete_below
    if not len(spectrum) or not spectrum.energies[0] < complete:
        raise ProblemError(
            f"the spectrum is proved complete below {complete:.9g} only, which excludes its lowest "
            "state (other states may share that energy); prove more states"
        )
    return complete
