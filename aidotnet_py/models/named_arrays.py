"""Named arrays of one floating dtype, and the vector of them one after another."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aidotnet_py.arguments import refusal
from aidotnet_py.backends import Array, described, to_host
from aidotnet_py.exceptions import ArgumentException
from aidotnet_py.suggestions import suggestion_hint

__all__ = ["FLOATING", "convert_arrays", "ravel_arrays", "unravel_arrays"]

# The floating dtypes of every backend and of safetensors.
FLOATING = tuple(np.dtype(name) for name in ("float16", "float32", "float64"))


def ravel_arrays(arrays: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
    """Return arrays as one vector, each in C order."""
    return np.concatenate([value.ravel() for value in arrays.values()])


def unravel_arrays(vector: Any, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """Return the named arrays of a vector, which may be traced, as views where the backend has views.

    Examples
    --------
    >>> import numpy as np
    >>> from aidotnet_py.models.named_arrays import unravel_arrays
    >>> unravel_arrays(np.arange(3.0), {"w": (2, 1), "b": ()})
    {'w': array([[0.],
           [1.]]), 'b': array(2.)}
    """
    arrays: dict[str, Any] = {}
    start = 0
    for name, shape in shapes.items():
        stop = start + math.prod(shape)
        arrays[name] = vector[start:stop].reshape(shape)
        start = stop
    return arrays


def convert_arrays(parameters: Mapping[str, Array], dtype: Any) -> tuple[dict[str, NDArray[Any]], np.dtype[Any]]:
    """Return a model's parameters on the host in one dtype, and the dtype; None stands for their own.

    Raises
    ------
    ArgumentException
        When they are no mapping, without a number, or not named arrays of one floating dtype.
    """
    if not isinstance(parameters, Mapping) or not parameters:  # pyright: ignore[reportUnnecessaryIsInstance] -- callers may be untyped
        raise ArgumentException(refusal("parameters", "a mapping from names to arrays, not empty", parameters))
    host = {name: to_host(value, f"parameters[{name!r}]") for name, value in parameters.items()}
    for name, value in host.items():
        if not isinstance(name, str):  # pyright: ignore[reportUnnecessaryIsInstance] -- as above
            raise ArgumentException(refusal("the name of a parameter", "a str", name))
        if value.dtype.kind not in "biuf":
            raise ArgumentException(f"parameter {name!r} must hold real numbers, got {described(parameters[name])}")
    if not any(value.size for value in host.values()):
        raise ArgumentException(
            f"parameters must have at least one number, got arrays without elements alone: {', '.join(host)}"
        )
    common = _common_dtype({name: value.dtype.newbyteorder("=") for name, value in host.items()}, dtype)
    return {name: value.astype(common) for name, value in host.items()}, common


def _common_dtype(dtypes: Mapping[str, np.dtype[Any]], dtype: Any) -> np.dtype[Any]:
    """Return the dtype that arrays of these dtypes are converted to."""
    floating = ", ".join(map(str, FLOATING))
    try:
        common = next(iter(dtypes.values())) if dtype is None else np.dtype(dtype).newbyteorder("=")
    except TypeError:
        hint = suggestion_hint(dtype, [kind.name for kind in FLOATING])
        raise ArgumentException(f"dtype must be one of {floating}, got {dtype!r}{hint}") from None
    if dtype is not None and common not in FLOATING:
        raise ArgumentException(f"dtype must be one of {floating}, got {common}")
    if common not in FLOATING or (dtype is None and len(set(dtypes.values())) > 1):
        kinds = ", ".join(f"{name}: {kind}" for name, kind in dtypes.items())
        raise ArgumentException(
            f"parameters must have one dtype of {floating}, got {kinds}; give a dtype to convert them"
        )
    return common
