"""Loss functions: formulas for the engine to trace, checks of targets, and accuracies.

Each loss has a file of its own.
"""

from aidotnet_py.losses.cross_entropy import BinaryCrossEntropyLoss, CrossEntropyLoss
from aidotnet_py.losses.interface import ILossFunction, LossFunctionBase
from aidotnet_py.losses.mean_squared_error import MeanSquaredErrorLoss
from aidotnet_py.losses.validation import validate_alike

__all__ = [
    "BinaryCrossEntropyLoss",
    "CrossEntropyLoss",
    "ILossFunction",
    "LossFunctionBase",
    "MeanSquaredErrorLoss",
    "validate_alike",
]
