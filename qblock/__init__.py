"""qblock: which blocks of a language model to remove, as an Ising problem for any solver.

>>> from qblock import BlockRemovalProblem, Spectrum, get_backend, load_sensitivity
>>> problem = BlockRemovalProblem(load_sensitivity("smollm2-135m-fisher"), remove=8)
>>> result = get_backend("fixed-weight-tabu").sample(problem, seed=1)
>>> Spectrum.of(problem, result)[0].removed
"""

from qblock.backend import Backend, Certificate, SolveResult
from qblock.errors import QblockError
from qblock.files import load_sensitivity, save_sensitivity
from qblock.problem import BlockRemovalProblem, Sensitivity
from qblock.registry import backends, get_backend
from qblock.spectrum import RankedState, Spectrum

__all__ = [
    "Backend",
    "BlockRemovalProblem",
    "Certificate",
    "QblockError",
    "RankedState",
    "Sensitivity",
    "SolveResult",
    "Spectrum",
    "backends",
    "get_backend",
    "load_sensitivity",
    "save_sensitivity",
]
