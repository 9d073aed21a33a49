"""The certified exact engine: branch and bound that proves the k lowest states.

In the core, because the penalty weight rests on its lower bounds; the backend `exact` is a thin
front to it.
"""

from qblock.exact.engine import Proof, compile_kernels, prove

__all__ = ["Proof", "compile_kernels", "prove"]
