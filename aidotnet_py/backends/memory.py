"""The test whether compiled code can read an array's memory."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from aidotnet_py.backends.protocol import Array

__all__ = ["is_plain"]


def is_plain(array: Array) -> bool:
    """Return whether an array's memory is native in byte order, aligned, and strided by whole elements.

    Compiled code knows an address, a dtype's name and strides in elements, but no byte orders, fields or alignment.
    Arrays of libraries other than NumPy are always plain.
    """
    if not isinstance(array, np.ndarray):
        return True
    host = cast("NDArray[Any]", array)
    whole = host.flags.c_contiguous or all(step % host.itemsize == 0 for step in host.strides)
    return host.dtype.isnative and host.flags.aligned and whole
