"""Loss functions: what an error costs, its traced form, and how right answers are counted.

A new loss is one file here.
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
