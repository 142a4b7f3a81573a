"""Arrays and series, of whatever library, as lists."""

from __future__ import annotations

from typing import Any

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
    return value.tolist() if hasattr(value, "tolist") else list(value)
