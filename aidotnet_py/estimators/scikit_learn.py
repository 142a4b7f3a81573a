"""What the estimators use of scikit-learn, which has no type hints, with types."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__all__ = [
    "BaseEstimator",
    "ClassifierMixin",
    "RegressorMixin",
    "check_array",
    "check_classification_targets",
    "check_consistent_length",
    "check_is_fitted",
    "check_random_state",
    "column_or_1d",
    "validate_data",
]

if TYPE_CHECKING:
    from typing import Self

    class BaseEstimator:
        def get_params(self, deep: bool = True) -> dict[str, Any]: ...
        def set_params(self, **params: Any) -> Self: ...
        def __sklearn_tags__(self) -> Any: ...

    class ClassifierMixin:
        def score(self, X: Any, y: Any, sample_weight: Any = None) -> float: ...

    class RegressorMixin:
        def score(self, X: Any, y: Any, sample_weight: Any = None) -> float: ...

else:
    try:
        from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
    except ImportError as error:
        raise ImportError('aidotnet_py.estimators needs scikit-learn: pip install "aidotnet-py[sklearn]"') from error

_validation: Any = import_module("sklearn.utils.validation")
check_array: Any = _validation.check_array
check_classification_targets: Any = import_module("sklearn.utils.multiclass").check_classification_targets
check_consistent_length: Any = _validation.check_consistent_length
check_is_fitted: Any = _validation.check_is_fitted
check_random_state: Any = _validation.check_random_state
column_or_1d: Any = _validation.column_or_1d
validate_data: Any = _validation.validate_data
