"""A generator that stands for the initial parameters of a network, and no more of them than a file holds."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

__all__ = ["BoundedGenerator"]


class BoundedGenerator(np.random.Generator):
    """Draws zeros, for a network that a file describes: its sizes may be any, and its layers allocate what they draw.

    Parameters
    ----------
    most : int
        How many numbers it draws, all together.

    Examples
    --------
    >>> from aidotnet_py.nn import Dense
    >>> from aidotnet_py.saving.bounded_generator import BoundedGenerator
    >>> Dense(10**9).initialize(BoundedGenerator(100), (3,))
    Traceback (most recent call last):
    ValueError: a network must draw at most the 100 parameters of its file, got 3000000000 more
    """

    def __init__(self, most: int) -> None:
        super().__init__(np.random.PCG64(0))
        self._most = self._left = most

    def standard_normal(self, size: Any = None, *_: Any, **__: Any) -> Any:
        """Return zeros of a shape.

        Raises
        ------
        ValueError
            When they are more than are left.
        """
        shape = np.broadcast_shapes(() if size is None else size)
        count = math.prod(shape)
        if count > self._left:
            raise ValueError(f"a network must draw at most the {self._most} parameters of its file, got {count} more")
        self._left -= count
        return np.zeros(shape)
