"""Times of NumPy as labels: Python has none of finer units or other years, and makes integers of them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from aidotnet_py.exceptions import ArgumentException

__all__ = ["is_finer_than_python", "times_of_python"]


def is_finer_than_python(array: NDArray[Any]) -> bool:
    """Whether times or durations are in a finer unit than microseconds."""
    return np.datetime_data(array.dtype)[0] in ("ns", "ps", "fs", "as")


def times_of_python(where: str, array: NDArray[Any]) -> NDArray[Any]:
    """Return times and durations in no finer unit than microseconds; other arrays as they are.

    Raises
    ------
    ArgumentException
        When one is between two microseconds, or a time is beyond the years 1 to 9999.
    """
    kind = array.dtype.kind
    if kind not in "mM":
        return array
    times = array.astype(f"{kind}8[us]") if is_finer_than_python(array) else array
    wrong = times != array
    if kind == "M":
        wrong |= np.array([isinstance(time, int) for time in times.ravel().tolist()], bool).reshape(array.shape)
    wrong &= ~np.isnat(array)
    if wrong.any():
        raise ArgumentException(
            f"{where} must have whole microseconds of the years 1 to 9999 as groups or classes, got {array[wrong][0]}; "
            "round the times, or convert them to numbers or strings"
        )
    return times
