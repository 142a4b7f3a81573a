"""Which backends there are, by name, and which of them an array belongs to."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, Self

from aidotnet_py.backends.cuda.backend import CuPyBackend, missing_for_cupy
from aidotnet_py.backends.numpy.backend import NumPyBackend
from aidotnet_py.backends.protocol import Array, Backend
from aidotnet_py.exceptions import ArgumentException

__all__ = ["BackendNames", "available_backends", "backend_of", "described", "get_backend", "register_backend"]

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


class BackendNames(tuple[str, ...]):
    """Names of backends, and which others are known but cannot be used here.

    Attributes
    ----------
    missing : mapping of str to str
        For each backend that cannot be used, what it lacks and what to do about it.
    """

    missing: Mapping[str, str]

    def __new__(cls, names: Iterable[str], missing: Mapping[str, str]) -> Self:
        """Keep the names as a tuple, and what is missing beside them."""
        new = super().__new__(cls, names)
        new.missing = MappingProxyType(dict(missing))
        return new

    def __repr__(self) -> str:
        lines = [super().__repr__(), *(f"{name}: not available: {why}" for name, why in self.missing.items())]
        return "\n".join(lines)

    def __reduce__(self) -> tuple[Any, ...]:
        return BackendNames, (tuple(self), dict(self.missing))


def available_backends() -> BackendNames:
    """Return the names of the backends that can be used here, in the order of registration.

    CuPy is imported to see whether it can be used. What cannot is in ``missing``, and printed with the names.

    Examples
    --------
    >>> from aidotnet_py.backends import available_backends
    >>> names = available_backends()
    >>> "numpy" in names, sorted({"cupy"} - {*names, *names.missing})
    (True, [])
    """
    missing = None if "cupy" in _backends else missing_for_cupy()
    if missing is not None:
        return BackendNames(_backends, {"cupy": missing})
    return BackendNames(dict.fromkeys([*_backends, "cupy"]), {})


def get_backend(backend: str | Backend) -> Backend:
    """Return the backend of that name; a backend is returned as it is. CuPy is imported when first asked for.

    Raises
    ------
    ArgumentException
        When no backend of that name is registered, or it is neither a name nor a backend; when it is ``"cupy"`` and
        CuPy or a device is missing: the message says what to install, or what CUDA said.
    """
    if isinstance(backend, Backend):
        return backend
    if backend == "cupy":
        return _cupy()
    try:
        return _backends[backend]
    except (KeyError, TypeError):
        known = ", ".join(repr(name) for name in dict.fromkeys([*_backends, "cupy"]))
        raise ArgumentException(f"backend is {backend!r}; the registered ones are {known}") from None


def _cupy() -> Backend:
    if "cupy" not in _backends:
        register_backend(CuPyBackend())
    return _backends["cupy"]


def _owner_of(array: Array) -> Backend | None:
    owner = next((b for b in _backends.values() if b.owns(array)), None)
    # Whoever has an array of CuPy's has imported it: that is the time to know the backend too.
    if owner is None and "cupy" not in _backends and "cupy" in sys.modules:
        kind = getattr(sys.modules["cupy"], "ndarray", None)
        if kind is not None and isinstance(array, kind):
            return next((b for b in [_cupy()] if b.owns(array)), None)
    return owner


def backend_of(*arrays: Array) -> Backend | None:
    """Return the one backend that owns all the arrays; numbers belong to any, and None is returned for them alone.

    Raises
    ------
    ArgumentException
        When two arrays belong to different backends: data is never moved in silence.
    """
    found: Backend | None = None
    for array in arrays:
        owner = _owner_of(array)
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
