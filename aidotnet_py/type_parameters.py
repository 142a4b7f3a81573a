"""The type parameters of the contract: the number type T and the array types of inputs and outputs."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import TypeVar

__all__ = ["T", "T_co", "TInput", "TOutput"]

# A NumPy floating scalar type; the invariant one for what is read and written, the covariant one for what is returned.
T = TypeVar("T", bound=np.floating[Any], default=np.float64)
T_co = TypeVar("T_co", bound=np.floating[Any], covariant=True, default=np.float64)
TInput = TypeVar("TInput", default=NDArray[Any])
TOutput = TypeVar("TOutput", default=NDArray[Any])
