"""The types of values: traced ones, arrays, data for arrays, and numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from aidotnet_py.autodiff.tracing.host_data import HostData
from aidotnet_py.autodiff.tracing.tracer import Tracer
from aidotnet_py.autodiff.tree import Structure
from aidotnet_py.autodiff.types import ArrayType
from aidotnet_py.backends import backend_of
from aidotnet_py.exceptions import ArgumentException

__all__ = ["dtype_of_values", "is_array", "type_of", "types_of"]

# Booleans, integers and floats.
_KINDS = "biuf"


def is_array(value: object) -> bool:
    """Return whether a value is traced, an array of a registered backend, or data for one.

    Parameters
    ----------
    value : object
        Any value.

    Returns
    -------
    bool

    Examples
    --------
    >>> import numpy as np
    >>> from aidotnet_py.autodiff.extend import is_array
    >>> is_array(np.ones(3)), is_array(1.0)
    (True, False)
    """
    if isinstance(value, (Tracer, HostData)):
        return True
    return not isinstance(value, (int, float)) and backend_of(value) is not None


def type_of(value: Any, name: str = "a value") -> ArrayType:
    """Return the type of a traced value, an array or a number.

    Parameters
    ----------
    value : Tracer, array or number
        The value.
    name : str
        Its name in errors.

    Returns
    -------
    ArrayType

    Raises
    ------
    ArgumentException
        When the value is none of these, or does not hold booleans, integers or floats.

    Examples
    --------
    >>> import numpy as np
    >>> from aidotnet_py.autodiff.extend import type_of
    >>> str(type_of(np.ones((2, 3)))), str(type_of(1))
    ('float64[2,3]', 'int64[]')
    """
    if isinstance(value, Tracer):
        return value.type
    if isinstance(value, (bool, int, float, np.generic)):
        result = ArrayType((), np.result_type(value))  # pyright: ignore[reportUnknownArgumentType] -- any scalar
    elif isinstance(value, HostData):
        result = ArrayType(value.shape, value.array.dtype)
    else:
        backend = backend_of(value)
        if backend is None:
            raise ArgumentException(f"{name} must be an array or a number, got {type(value).__name__}")
        result = ArrayType(tuple(value.shape), backend.dtype_of(value))
    if result.dtype.kind not in _KINDS:
        raise ArgumentException(f"{name} must hold booleans, integers or floats, got dtype {result.dtype}")
    return result


def dtype_of_values(dtype: DTypeLike) -> np.dtype[Any]:
    """Return a dtype in native byte order, as traced values have it; refuse others than those of `type_of`."""
    result = np.dtype(dtype)
    if result.kind not in _KINDS:
        raise ArgumentException(f"dtype must be of booleans, integers or floats, got {result}")
    return result if result.isnative else result.newbyteorder("=")


def types_of(leaves: Sequence[Any], structure: Structure, root: str) -> list[ArrayType]:
    """Return the types of the leaves of a tree.

    Parameters
    ----------
    leaves : sequence
        The leaves, as `flatten` returns them.
    structure : Structure
        The nesting.
    root : str
        The name of the tree in errors, which name the leaf by its place.

    Returns
    -------
    list of ArrayType

    Raises
    ------
    ArgumentException
        As for `type_of`.

    Examples
    --------
    >>> import numpy as np
    >>> from aidotnet_py.autodiff.extend import flatten, types_of
    >>> list(map(str, types_of(*flatten({"w": np.ones(3), "b": 1.0}), "parameters")))
    ['float64[3]', 'float64[]']
    """
    try:
        return [type_of(leaf) for leaf in leaves]
    except ArgumentException:
        # Names are built only for the message.
        return [type_of(leaf, name) for leaf, name in zip(leaves, structure.names(root), strict=True)]
