"""The certified exact engine: branch and bound that proves the k lowest states."""

from qblock_classical.exact.backend import Exact, ExactParameters
from qblock_classical.exact.engine import Proof, prove

__all__ = ["Exact", "ExactParameters", "Proof", "prove"]
