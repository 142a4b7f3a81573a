"""Gradient-based optimizers on flat parameter vectors, and minimisers.

May import: the solvers and everything under them. A new optimizer is one file here.
"""

from aidotnet_py.optimizers.adam import AdamOptimizer
from aidotnet_py.optimizers.interface import ElementwiseOptimizer, IGradientBasedOptimizer
from aidotnet_py.optimizers.minimizer import InnerSolver, RowMinimizer, RowObjective, VectorObjective
from aidotnet_py.optimizers.sgd import SGDOptimizer

__all__ = [
    "AdamOptimizer",
    "ElementwiseOptimizer",
    "IGradientBasedOptimizer",
    "InnerSolver",
    "RowMinimizer",
    "RowObjective",
    "SGDOptimizer",
    "VectorObjective",
]
