"""Gradient-based optimizers on flat parameter vectors.

May import: the backends. A new optimizer is one file here.
"""

from aidotnet_py.optimizers.adam import AdamOptimizer
from aidotnet_py.optimizers.interface import ElementwiseOptimizer, IGradientBasedOptimizer
from aidotnet_py.optimizers.sgd import SGDOptimizer

__all__ = ["AdamOptimizer", "ElementwiseOptimizer", "IGradientBasedOptimizer", "SGDOptimizer"]
