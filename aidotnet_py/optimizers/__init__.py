"""Optimizers on flat parameter vectors: step by step from gradients, or minimisers of whole functions.

A new optimizer is one file here, and so is a new minimiser.
"""

from aidotnet_py.optimizers.adam import AdamOptimizer
from aidotnet_py.optimizers.elementwise import ElementwiseOptimizer
from aidotnet_py.optimizers.lbfgs import LBFGSMinimizer
from aidotnet_py.optimizers.minimizer import InnerSolver, RowMinimizer, RowObjective, VectorObjective
from aidotnet_py.optimizers.newton_cg import NewtonCGMinimizer
from aidotnet_py.optimizers.protocol import IGradientBasedOptimizer, parameters_after
from aidotnet_py.optimizers.schedules import (
    ConstantSchedule,
    CosineSchedule,
    LearningRateSchedule,
    StepSchedule,
    WarmUpSchedule,
)
from aidotnet_py.optimizers.sgd import SGDOptimizer

__all__ = [
    "AdamOptimizer",
    "ConstantSchedule",
    "CosineSchedule",
    "ElementwiseOptimizer",
    "IGradientBasedOptimizer",
    "InnerSolver",
    "LBFGSMinimizer",
    "LearningRateSchedule",
    "NewtonCGMinimizer",
    "RowMinimizer",
    "RowObjective",
    "SGDOptimizer",
    "StepSchedule",
    "VectorObjective",
    "WarmUpSchedule",
    "parameters_after",
]
