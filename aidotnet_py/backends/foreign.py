"""Arrays of libraries that have no backend, such as PyTorch's and JAX's, through DLPack."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aidotnet_py.backends.protocol import Array
from aidotnet_py.backends.registry import backend_of, get_backend
from aidotnet_py.exceptions import ArgumentException

__all__ = ["adopt", "to_host"]

# Device types of DLPack's header: the CPU, CUDA's host memory; CUDA, CUDA's managed memory.
_ON_HOST, _ON_CUDA = (1, 3), (2, 13)


def adopt(value: Any, name: str) -> Any:
    """Return an array of another library as one of NumPy's or CuPy's, over the same memory; anything else unchanged.

    Raises
    ------
    ArgumentException
        When it is a tensor that requires gradients, on a device that no backend has, of a dtype that NumPy lacks, or a
        view whose numbers are not those in its memory, or when values are masked.

    Examples
    --------
    >>> from aidotnet_py.backends import adopt
    >>> adopt([1.0], "x")
    [1.0]
    """
    if type(value) is np.ma.MaskedArray and (masked := int(np.ma.getmaskarray(value).sum())):
        raise ArgumentException(
            f"{name} must have no masked values, whose numbers would be taken for data, got "
            f"{masked}; drop them, or use {name}.filled(value)"
        )
    # The commonest case first; NumPy's arrays have a __dlpack__ too.
    if isinstance(value, np.ndarray) or not hasattr(value, "__dlpack__") or backend_of(value) is not None:
        return value  # pyright: ignore[reportUnknownVariableType] -- of anything
    if getattr(value, "requires_grad", False) is True:
        raise ArgumentException(
            f"{name} must not require gradients, which would be lost here, got a {type(value).__name__} that does; use "
            f"{name}.detach()"
        )
    try:
        _require_resolved(value, name)
        device, _ = value.__dlpack_device__()
        if device in _ON_HOST:
            return np.from_dlpack(value)
        if device in _ON_CUDA:
            return _on_cuda(value, name)
    # Libraries raise what they like for dtypes and layouts that they cannot hand over.
    except ArgumentException:
        raise
    except Exception as error:
        raise ArgumentException(
            f"{name} must be an array that DLPack can hand over, got a {type(value).__name__} of dtype "
            f"{getattr(value, 'dtype', None)}: {error!s:.200}; convert it to float32 first"
        ) from error
    raise ArgumentException(
        f"{name} must be on the CPU or a CUDA device, got a {type(value).__name__} on DLPack's device {device}; copy "
        "it to the CPU"
    )


def _require_resolved(value: Any, name: str) -> None:
    """Refuse PyTorch's lazy views, such as ``z.conj().imag``: DLPack hands over their memory without the sign."""
    for bit, remedy in (("is_neg", "resolve_neg"), ("is_conj", "resolve_conj")):
        if hasattr(value, remedy) and getattr(value, bit)():
            raise ArgumentException(
                f"{name} must hold its numbers in memory, got a {type(value).__name__} that is a lazy view "
                f"({bit}() is True); use {name}.{remedy}()"
            )


def _on_cuda(value: Any, name: str) -> Any:
    try:
        get_backend("cupy")
    except ArgumentException as error:
        raise ArgumentException(
            f"{name} must be on the CPU if CuPy cannot be used, got a {type(value).__name__} on a CUDA device; copy it "
            f"to the CPU: {error}"
        ) from error
    return import_module("cupy").from_dlpack(value)


def to_host(value: Any, name: str) -> NDArray[Any]:
    """Return anything that NumPy, a backend or DLPack can read as an array of NumPy's.

    Raises
    ------
    ArgumentException
        As for `adopt`.

    Examples
    --------
    >>> from aidotnet_py.backends import to_host
    >>> to_host([1.0], "x")
    array([1.])
    """
    array: Array = adopt(value, name)
    owner = backend_of(array)
    return np.asarray(array) if owner is None else owner.to_numpy(array)
