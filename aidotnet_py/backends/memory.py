"""Whether compiled work can read an array's memory."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from aidotnet_py.backends.protocol import Array

__all__ = ["is_plain"]


def is_plain(array: Array) -> bool:
    """Whether an array's memory is native in byte order, aligned, and strided by whole elements.

    Compiled work knows an address, a dtype's name and strides in elements, and nothing of byte orders, fields or
    alignment. Arrays of other libraries than NumPy are always plain.
    """
    if not isinstance(array, np.ndarray):
        return True
    host = cast("NDArray[Any]", array)
    whole = host.flags.c_contiguous or all(step % host.itemsize == 0 for step in host.strides)
    return host.dtype.isnative and host.flags.aligned and whole
