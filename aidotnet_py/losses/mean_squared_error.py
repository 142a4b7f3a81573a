"""The mean squared error."""

from __future__ import annotations

import numpy as np
from typing_extensions import override

from aidotnet_py.backends import Array
from aidotnet_py.losses.interface import LossFunctionBase
from aidotnet_py.type_parameters import T_co

__all__ = ["MeanSquaredErrorLoss"]


class MeanSquaredErrorLoss(LossFunctionBase[T_co]):
    """(1/N) Σ (predicted − actual)², over all N elements.

    Examples
    --------
    >>> import numpy as np
    >>> MeanSquaredErrorLoss().CalculateLoss(np.array([1.0, 2.0]), np.array([1.0, 4.0]))
    np.float64(2.0)
    """

    @override
    def formula(self, predicted: Array, actual: Array) -> Array:
        error = predicted - actual.astype(predicted.dtype)
        # A square may be beyond half precision where the mean is not.
        wide = error.astype(np.result_type(predicted.dtype, np.float32))
        return (wide * wide).mean().astype(predicted.dtype)
