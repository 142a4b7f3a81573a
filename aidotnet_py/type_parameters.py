"""The type parameters of the contract: the number type T and the array types of inputs and outputs.

Each comes in three variances: invariant for what is read and written, covariant (``_co``) for what is only returned,
contravariant (``_contra``) for what is only taken.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import TypeVar

__all__ = [
    "T",
    "TInput",
    "TInput_co",
    "TInput_contra",
    "TOutput",
    "TOutput_co",
    "TOutput_contra",
    "T_co",
]

# A NumPy floating scalar type.
T = TypeVar("T", bound=np.floating[Any], default=np.float64)
T_co = TypeVar("T_co", bound=np.floating[Any], covariant=True, default=np.float64)

TInput = TypeVar("TInput", default=NDArray[Any])
TInput_co = TypeVar("TInput_co", covariant=True, default=NDArray[Any])
TInput_contra = TypeVar("TInput_contra", contravariant=True, default=NDArray[Any])

TOutput = TypeVar("TOutput", default=NDArray[Any])
TOutput_co = TypeVar("TOutput_co", covariant=True, default=NDArray[Any])
TOutput_contra = TypeVar("TOutput_contra", contravariant=True, default=NDArray[Any])
