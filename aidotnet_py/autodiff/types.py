"""The type of a traced array: its shape and dtype."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

__all__ = ["ArrayType"]


@cache
def _name(dtype: np.dtype[Any]) -> str:
    # NumPy builds the name at each access, and a Program needs it thousands of times.
    return dtype.name


@dataclass(frozen=True)
class ArrayType:
    """The shape and dtype of an array: everything that tracing knows about it.

    Attributes
    ----------
    shape : tuple of int
        Lengths of the axes.
    dtype : numpy.dtype
        The dtype.

    Examples
    --------
    >>> import numpy as np
    >>> from aidotnet_py.autodiff.extend import ArrayType
    >>> of = ArrayType((2, 3), np.dtype(np.float32))
    >>> str(of), of.size, of.nbytes, of.is_floating
    ('float32[2,3]', 6, 24, True)
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes that the elements take."""
        return self.size * self.dtype.itemsize

    @property
    def dtype_name(self) -> str:
        """NumPy's name of the dtype."""
        return _name(self.dtype)

    @property
    def is_floating(self) -> bool:
        """Whether derivatives pass through arrays of this type."""
        return self.dtype.kind == "f"

    def with_shape(self, shape: Sequence[int]) -> ArrayType:
        """Return the type with another shape."""
        return ArrayType(tuple(shape), self.dtype)

    def __str__(self) -> str:
        return f"{self.dtype_name}[{','.join(map(str, self.shape))}]"
