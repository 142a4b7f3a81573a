"""Which backends there are, by name, and which of them an array belongs to."""

from __future__ import annotations

from typing import Any

from aidotnet_py.backends.numpy_backend import NumPyBackend
from aidotnet_py.backends.protocol import Array, Backend
from aidotnet_py.exceptions import ArgumentException

__all__ = ["available_backends", "backend_of", "described", "get_backend", "register_backend"]

_backends: dict[str, Backend] = {"numpy": NumPyBackend()}


def register_backend(backend: Backend) -> None:
    """Make a backend known under its ``name``; a later one of the same name takes its place.

    Parameters
    ----------
    backend : Backend
        An object that meets the `Backend` protocol.

    Raises
    ------
    ArgumentException
        When a method of the protocol is missing.

    Examples
    --------
    >>> from aidotnet_py.backends import NumPyBackend, get_backend, register_backend
    >>> class Renamed(NumPyBackend):
    ...     name = "renamed"
    ...     def owns(self, value):
    ...         return False
    >>> register_backend(Renamed())
    >>> get_backend("renamed").name
    'renamed'
    """
    # Protocol checks read properties too, and are the only way to name what is missing before first use.
    if not isinstance(backend, Backend):  # pyright: ignore[reportUnnecessaryIsInstance] -- callers may be untyped
        missing = [n for n in dir(Backend) if not n.startswith("_") and not hasattr(backend, n)]
        raise ArgumentException(f"backend {type(backend).__name__} lacks {', '.join(missing)} of the Backend protocol")
    _backends[backend.name] = backend


def available_backends() -> tuple[str, ...]:
    """Return the names of the backends that can be used here, in the order of registration."""
    return tuple(_backends)


def get_backend(backend: str | Backend) -> Backend:
    """Return the backend of that name; a backend is returned as it is.

    Raises
    ------
    ArgumentException
        When no backend of that name is registered, or it is neither a name nor a backend.
    """
    if isinstance(backend, Backend):
        return backend
    try:
        return _backends[backend]
    except (KeyError, TypeError):
        known = ", ".join(repr(name) for name in _backends)
        raise ArgumentException(f"backend is {backend!r}; the registered ones are {known}") from None


def backend_of(*arrays: Array) -> Backend | None:
    """Return the one backend that owns all the arrays; numbers belong to any, and None is returned for them alone.

    Raises
    ------
    ArgumentException
        When two arrays belong to different backends: data is never moved in silence.
    """
    found: Backend | None = None
    for array in arrays:
        owner = next((b for b in _backends.values() if b.owns(array)), None)
        if owner is None or owner is found:
            continue
        if found is not None:
            raise ArgumentException(
                f"arrays of two backends came together: {found.name!r} and {owner.name!r}; move them to one first"
            )
        found = owner
    return found


def described(value: Any) -> str:
    """Return what a value is, for a message: an array's dtype, shape and backend, or the type of anything else.

    Examples
    --------
    >>> import numpy as np
    >>> from aidotnet_py.backends import described
    >>> described(np.zeros(3)), described([0.0])
    ("float64(3,) on backend 'numpy'", 'a list')
    """
    owner = backend_of(value)
    if owner is None:
        return f"a {type(value).__name__}"
    return f"{owner.dtype_of(value)}{tuple(value.shape)} on backend {owner.name!r}"
