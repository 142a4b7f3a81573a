"""The errors that the package raises: AiDotNet's .NET names, each also a built-in Python error."""

from __future__ import annotations

__all__ = [
    "ArgumentException",
    "ArgumentNullException",
    "ArgumentOutOfRangeException",
    "InvalidOperationException",
    "NotSupportedException",
]


class ArgumentException(ValueError):
    """An argument was refused; the message names it, what came and what was wanted."""


class ArgumentNullException(ArgumentException):
    """An argument that is required was ``None``."""


class ArgumentOutOfRangeException(ArgumentException):
    """An argument lies outside the values that it may take."""


class InvalidOperationException(RuntimeError):
    """The call does not fit the state of the object it was made on."""


class NotSupportedException(NotImplementedError):
    """The operation is one that this object, by its nature, does not offer."""
