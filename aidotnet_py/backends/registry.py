"""The registry of backends by name, and the backend of an array."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, Self

from aidotnet_py.arguments import refusal
from aidotnet_py.backends.cuda.backend import CuPyBackend, missing_for_cupy
from aidotnet_py.backends.numpy.backend import NumPyBackend
from aidotnet_py.backends.protocol import Array, Backend
from aidotnet_py.exceptions import ArgumentException
from aidotnet_py.suggestions import suggestion_hint

__all__ = ["BackendNames", "available_backends", "backend_of", "described", "get_backend", "register_backend"]

_backends: dict[str, Backend] = {"numpy": NumPyBackend()}


def register_backend(backend: Backend) -> None:
    """Register a backend under its ``name``, in place of an earlier one of that name.

    Parameters
    ----------
    backend : Backend
        An object that meets the `Backend` protocol.

    Raises
    ------
    ArgumentException
        When a method of the protocol is missing, the backend is a class, or its name no string.

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
    if isinstance(backend, type):
        raise ArgumentException(refusal("backend", "an object", backend) + f"; use {backend.__name__}()")
    # The check of the protocol reads properties too; no other way names the missing members before first use.
    if not isinstance(backend, Backend):  # pyright: ignore[reportUnnecessaryIsInstance] -- callers may be untyped
        missing = [n for n in dir(Backend) if not n.startswith("_") and not hasattr(backend, n)]
        raise ArgumentException(
            f"backend must be a Backend, got a {type(backend).__name__}, which lacks {', '.join(missing)}"
        )
    if not isinstance(backend.name, str) or not backend.name:  # pyright: ignore[reportUnnecessaryIsInstance] -- as above
        raise ArgumentException(refusal(f"name of {type(backend).__name__}", "a string", backend.name))
    _backends[backend.name] = backend


class BackendNames(tuple[str, ...]):
    """Names of usable backends, and the reasons why other known backends cannot be used.

    Attributes
    ----------
    missing : mapping of str to str
        For each backend that cannot be used, the reason and the remedy.
    """

    missing: Mapping[str, str]

    def __new__(cls, names: Iterable[str], missing: Mapping[str, str]) -> Self:
        """Make a tuple of the names, with ``missing`` beside it."""
        new = super().__new__(cls, names)
        new.missing = MappingProxyType(dict(missing))
        return new

    def __repr__(self) -> str:
        lines = [super().__repr__(), *(f"{name}: not available: {why}" for name, why in self.missing.items())]
        return "\n".join(lines)

    def __reduce__(self) -> tuple[Any, ...]:
        return BackendNames, (tuple(self), dict(self.missing))


def available_backends() -> BackendNames:
    """Return the names of the usable backends, in the order of registration.

    CuPy is imported to test whether it can be used. Unusable backends are in ``missing``, and printed with the names.

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
    """Return the backend of a name, or a backend unchanged; CuPy is imported on first use.

    Raises
    ------
    ArgumentException
        When the argument is neither a registered name nor a backend. When it is ``"cupy"`` and CuPy or a device is
        missing: the message names the packages to install, or quotes CUDA.
    """
    # A name first: the check of a protocol looks up each of its members.
    if not isinstance(backend, str) and isinstance(backend, Backend):  # pyright: ignore[reportUnnecessaryIsInstance] -- callers may be untyped
        return backend
    if backend == "cupy":
        return _cupy()
    try:
        return _backends[backend]
    except (KeyError, TypeError):
        known = ", ".join(repr(name) for name in dict.fromkeys([*_backends, "cupy"]))
        hint = _hint(backend)
        raise ArgumentException(refusal("backend", f"a Backend or one of {known}", backend) + hint) from None


def _hint(name: object) -> str:
    """Return the end of the message for an unknown name: the backend that it may stand for."""
    device = name.lower().partition(":")[0] if isinstance(name, str) else ""
    meant = "cupy" if device in ("cuda", "gpu") else "numpy" if device in ("cpu", "np") else None
    return f"; did you mean {meant!r}?" if meant else suggestion_hint(name, [*_backends, "cupy"])


def _cupy() -> Backend:
    if "cupy" not in _backends:
        register_backend(CuPyBackend())
    return _backends["cupy"]


def _owner_of(array: Array) -> Backend | None:
    for backend in _backends.values():
        if backend.owns(array):
            return backend
    # An array of CuPy can only come from a program that has imported CuPy; its backend is then registered.
    if "cupy" not in _backends and "cupy" in sys.modules:
        kind = getattr(sys.modules["cupy"], "ndarray", None)
        if kind is not None and isinstance(array, kind) and _cupy().owns(array):
            return _cupy()
    return None


def backend_of(*arrays: Array) -> Backend | None:
    """Return the backend that owns all the arrays; numbers fit any backend, and only numbers give None.

    Raises
    ------
    ArgumentException
        When two arrays belong to different backends: data is never moved silently.
    """
    common: Backend | None = None
    for array in arrays:
        owner = _owner_of(array)
        if owner is None or owner is common:
            continue
        if common is not None:
            raise ArgumentException(
                f"arrays must be on one backend, got {common.name!r} and {owner.name!r}; move them to one first"
            )
        common = owner
    return common


def described(value: Any) -> str:
    """Describe a value for a message: an array by dtype, shape and backend, anything else by its type.

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
