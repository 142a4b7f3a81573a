"""Learners of models that take rows of any width, as scikit-learn's checks of estimators give them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from aidotnet_py import CrossEntropyLoss, FunctionModel, MAMLAlgorithm, MAMLOptions
from aidotnet_py.data.table.columns import Columns
from aidotnet_py.estimators import MetaTrainedRegressor

__all__ = ["OneGroup", "classifying", "regressing"]

# Random features of up to 64 columns; float64, since the checks compare predictions to 1e-7.
_DIRECTIONS = np.random.default_rng(0).normal(size=(64, 24)) / 3


def _of_any_width(parameters: Any, x: Any) -> Any:
    return np.tanh(x @ _DIRECTIONS[: x.shape[-1]]) @ parameters["w"] + parameters["b"]


def _learner(outputs: int, loss: Any, rate: float) -> MAMLAlgorithm[Any, NDArray[Any], NDArray[Any]]:
    model = FunctionModel(_of_any_width, {"w": np.zeros((24, outputs)), "b": np.zeros(outputs)}, loss)
    return MAMLAlgorithm(MAMLOptions(model, InnerLearningRate=rate, AdaptationSteps=100))


def classifying(most: int = 12) -> MAMLAlgorithm[Any, NDArray[Any], NDArray[Any]]:
    return _learner(most, CrossEntropyLoss(), 0.5)


def regressing(targets: int = 1) -> MAMLAlgorithm[Any, NDArray[Any], NDArray[Any]]:
    return _learner(targets, None, 0.05 * targets)


class OneGroup(MetaTrainedRegressor):
    """The estimator, for X whose first column is no column of groups: all rows are of one."""

    def _read(self, X: Any, *, reset: bool) -> Columns:
        columns = super()._read(X, reset=reset)
        return columns.with_columns(Columns({self._task: np.zeros(columns.rows)}))
