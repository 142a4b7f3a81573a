"""Arrays and series, of whatever library, as lists."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from aidotnet_py.data.times import times_of_python

__all__ = ["as_list"]


def as_list(value: Any) -> Any:
    """Return a one-dimensional array or series, of whatever library, as a list of Python's values; others as they are.

    Examples
    --------
    >>> import numpy as np
    >>> from aidotnet_py.data.lists import as_list
    >>> as_list(np.array(["a", "b"])), as_list(0.5), as_list(("a",))
    (['a', 'b'], 0.5, ('a',))
    """
    if len(getattr(value, "shape", ())) != 1:
        return value
    if isinstance(value, np.ndarray):
        # As labels are, since NumPy lists times of nanoseconds as integers.
        value = times_of_python("labels", cast("NDArray[Any]", value))
    return value.tolist() if hasattr(value, "tolist") else list(value)
