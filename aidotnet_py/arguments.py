"""Checks of arguments: constraints as data, and one grammar for their messages, ``X must be …, got …``."""

from __future__ import annotations

import math
import reprlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, Generic, cast

import numpy as np
from typing_extensions import TypeVar

from aidotnet_py.exceptions import ArgumentException, ArgumentNullException, ArgumentOutOfRangeException
from aidotnet_py.suggestions import suggestion_hint

__all__ = [
    "ANY_WHOLE",
    "COUNT",
    "COUNT_OR_ZERO",
    "FINITE",
    "NON_NEGATIVE",
    "POSITIVE",
    "SEED",
    "SWITCH",
    "Choice",
    "Constraint",
    "Number",
    "OrNone",
    "Switch",
    "Whole",
    "argument_in",
    "array_hint",
    "check_given",
    "conversion_hint",
    "entries_of",
    "is_pair",
    "numbers_of",
    "pair_of",
    "real_of",
    "refusal",
    "shown",
]

E = TypeVar("E")
V = TypeVar("V")

# Characters of a value in a message; longer representations lose their middle.
_LONGEST = 80
_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = _LONGEST
# Longer integers are told by their length: Python refuses to write those of thousands of digits.
_MOST_BITS = 192
_LARGEST = 2**63 - 1
_WRONG_TYPE: Any = object()


def shown(value: Any) -> str:
    """Return a representation of any value: one line, of bounded length, even if the value has none of its own."""
    if isinstance(value, np.generic):
        value = cast(object, value.item())
    if isinstance(value, int) and value.bit_length() > _MOST_BITS:
        return f"an integer of {value.bit_length()} bits"
    try:
        shape = None if isinstance(cast(Any, value), (type, np.dtype)) else getattr(value, "shape", None)
        text = f"{type(value).__name__} of shape {shape}" if isinstance(shape, tuple) else _REPR.repr(value)
    except Exception:  # code of others, which may fail in any way
        text = f"<{type(value).__name__}>"
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST // 2]}…{text[1 - _LONGEST // 2 :]}"


def refusal(name: str, wanted: object, value: object) -> str:
    """Return the message for an argument that is not as wanted."""
    return f"{name} must be {wanted}, got {shown(value)}"


def check_given(name: str, value: object, wanted: str) -> None:
    """Raise ArgumentNullException if the value is None."""
    if value is None:
        raise ArgumentNullException(refusal(name, wanted, value))


def entries_of(name: str, wanted: str, value: Iterable[E]) -> list[E]:
    """Return the entries of an argument that is a sequence; a generator too, which has them only once.

    Raises
    ------
    ArgumentException
        When it has no entries, as a number has none, or is one text; None is refused too (ArgumentNullException).

    Examples
    --------
    >>> from aidotnet_py.arguments import entries_of
    >>> entries_of("names", "a sequence of names", (name for name in ("a", "b")))
    ['a', 'b']
    """
    check_given(name, value, wanted)
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):  # pyright: ignore[reportUnnecessaryIsInstance] -- callers may be untyped
        raise ArgumentException(refusal(name, wanted, value))
    return list(value)


def is_pair(value: object) -> bool:
    """Return whether a value is a tuple or list of two."""
    return len(_entries(value)) == 2


def pair_of(name: str, wanted: str, value: object) -> tuple[Any, Any]:
    """Return the entries of a tuple or list of two, such as the result of a function of the caller's own.

    Raises
    ------
    ArgumentException
        When it is anything else.

    Examples
    --------
    >>> from aidotnet_py.arguments import pair_of
    >>> pair_of("the result of objective", "a value and a gradient", [1.0, 2.0])
    (1.0, 2.0)
    """
    if not is_pair(value):
        raise ArgumentException(refusal(name, wanted, value))
    first, second = cast("Sequence[Any]", value)
    return first, second


def real_of(name: str, wanted: str, value: Any) -> float:
    """Return a real number as a float: Python's, NumPy's or an array's without axes; NaN too, but no boolean.

    Raises
    ------
    ArgumentException
        When it is anything else.

    Examples
    --------
    >>> import numpy as np
    >>> from aidotnet_py.arguments import real_of
    >>> real_of("the result of accuracy", "one number", np.array(0.5))
    0.5
    """
    number = _real_in(value)
    if number is None:
        raise ArgumentException(refusal(name, wanted, value))
    return number


def _real_in(value: Any) -> float | None:
    """Return a real number as a float; None for anything else."""
    plain = value.item() if getattr(value, "shape", None) == () else value
    return None if isinstance(plain, bool) or not isinstance(plain, Real) else _as_float(plain)


def _as_float(number: Any) -> float:
    """Return the nearest float: of whole numbers beyond all floats, an infinity."""
    try:
        return float(number)
    except OverflowError:
        return math.inf if number > 0 else -math.inf


def numbers_of(name: str, wanted: str, value: object) -> tuple[float, ...]:
    """Return the real numbers in a tuple or list, each as `real_of` takes it.

    Raises
    ------
    ArgumentException
        When it is anything else.

    Examples
    --------
    >>> from aidotnet_py.arguments import numbers_of
    >>> numbers_of("the result of coefficients", "a tuple of numbers", [1, 0.5])
    (1.0, 0.5)
    """
    entries = _entries(value)
    numbers = tuple(number for entry in entries if (number := _real_in(entry)) is not None)
    if not isinstance(value, (list, tuple)) or len(numbers) < len(entries):
        raise ArgumentException(refusal(name, wanted, cast(Any, value)))
    return numbers


def conversion_hint(name: str, value: object) -> str:
    """Return the end of a message for a table, such as a pandas DataFrame, given instead of an array; else nothing.

    Examples
    --------
    >>> from aidotnet_py.arguments import conversion_hint
    >>> conversion_hint("x", [1.0])
    ''
    """
    return f"; use {name}.to_numpy()" if hasattr(type(value), "to_numpy") else ""


def argument_in(name: str) -> str:
    """Return the argument in what messages call a value, such as ``SupportSetX`` of ``SupportSetX of task 0``."""
    return name.split(" ")[0]


def _entries(value: object) -> Sequence[object]:
    return cast("Sequence[object]", value) if isinstance(value, (list, tuple)) else ()


def array_hint(name: str, value: object) -> str:
    """Return the end of a message for numbers in a sequence, a table or a matrix instead of an array; else nothing.

    ``name`` may have words after it, such as ``SupportSetX of task 0``.

    Examples
    --------
    >>> from aidotnet_py.arguments import array_hint
    >>> array_hint("x of task 0", [1.0])
    '; use np.asarray(x)'
    """
    plain = argument_in(name)
    if isinstance(value, Mapping) or len({str(getattr(entry, "shape", None)) for entry in _entries(value)}) > 1:
        return "; put its arrays side by side in one array"
    # No backend takes NumPy's matrices and masked arrays, which compute otherwise.
    is_convertible = isinstance(value, (list, tuple, np.ndarray))
    return f"; use np.asarray({plain})" if is_convertible else conversion_hint(plain, value)


class Constraint(ABC, Generic[V]):
    """The values that an argument may take; ``str`` describes them, as in ``a whole number of at least 1``.

    Examples
    --------
    >>> from aidotnet_py.arguments import COUNT
    >>> COUNT.check("shots", 5)
    5
    >>> COUNT.problem("shots", 2.5)
    'shots must be a whole number of at least 1, got 2.5'
    """

    @abstractmethod
    def _convert(self, value: Any) -> Any:
        """Return a value of the right type as a plain one, _WRONG_TYPE for a value of another type."""

    def _admits(self, value: V) -> bool:
        """Whether a converted value is in range."""
        return True

    def _hint(self, value: object) -> str:
        """Return the end of the message for a value that is not admitted."""
        return ""

    def problem(self, name: str, value: object) -> str | None:
        """Return what is wrong with a value, None if nothing is."""
        plain = self._convert(value)
        fits = plain is not _WRONG_TYPE and self._admits(plain)
        return None if fits else refusal(name, self, value) + self._hint(value)

    def check(self, name: str, value: object, *, type_error: type[ArgumentException] = ArgumentException) -> V:
        """Return a value as a plain one.

        Raises
        ------
        ArgumentException
            When it is of another type; or another error, ``type_error``.
        ArgumentOutOfRangeException
            When it is out of range.
        """
        plain: V = self._convert(value)
        if plain is _WRONG_TYPE:
            raise type_error(refusal(name, self, value) + self._hint(value))
        if not self._admits(plain):
            raise ArgumentOutOfRangeException(refusal(name, self, value))
        return plain


@dataclass(frozen=True)
class Whole(Constraint[int]):
    """Whole numbers, NumPy's included and booleans not, from ``least`` to ``most``; None for no bound."""

    least: int | None = 1
    most: int | None = None

    def __str__(self) -> str:
        if self.least is None:
            return "a whole number"
        within = f"of at least {self.least}" if self.most in (None, _LARGEST) else f"from {self.least} to {self.most}"
        return f"a whole number {within}"

    def _convert(self, value: Any) -> Any:
        return _WRONG_TYPE if isinstance(value, bool) or not isinstance(value, Integral) else int(value)

    def _admits(self, value: int) -> bool:
        return (self.least is None or self.least <= value) and (self.most is None or value <= self.most)


@dataclass(frozen=True)
class Number(Constraint[float]):
    """Finite real numbers, NumPy's included and booleans not: ≥ ``least``, > ``above``, ≤ ``most`` and < ``below``."""

    least: float = -math.inf
    above: float = -math.inf
    most: float = math.inf
    below: float = math.inf

    def __str__(self) -> str:
        low, high = max(self.least, self.above), min(self.most, self.below)
        if math.isfinite(low) and math.isfinite(high):
            return f"a number in {'(' if low == self.above else '['}{low}, {high}{')' if high == self.below else ']'}"
        bounds = {"of at least": self.least, "above": self.above, "of at most": self.most, "below": self.below}
        return " ".join(["a finite number", *(f"{words} {n}" for words, n in bounds.items() if math.isfinite(n))])

    def _convert(self, value: Any) -> Any:
        return _WRONG_TYPE if isinstance(value, bool) or not isinstance(value, Real) else _as_float(value)

    def _admits(self, value: float) -> bool:
        return math.isfinite(value) and self.least <= value <= self.most and self.above < value < self.below


class Switch(Constraint[bool]):
    """True and False, NumPy's included."""

    def __str__(self) -> str:
        return "True or False"

    def _convert(self, value: Any) -> Any:
        return bool(cast(Any, value)) if isinstance(value, (bool, np.bool_)) else _WRONG_TYPE


class Choice(Constraint[Any]):
    """One of several words, or None if that is among them."""

    def __init__(self, *words: str | None) -> None:
        self._words = words

    def __str__(self) -> str:
        *others, last = map(repr, self._words)
        return f"{', '.join(others)} or {last}" if others else last

    def _convert(self, value: Any) -> Any:
        known = (value is None or isinstance(value, str)) and value in self._words
        return self._words[self._words.index(value)] if known else _WRONG_TYPE

    def _hint(self, value: object) -> str:
        return suggestion_hint(value, [word for word in self._words if word is not None])


@dataclass(frozen=True)
class OrNone(Constraint[Any]):
    """None, or a value that another constraint takes."""

    constraint: Constraint[Any]

    def __str__(self) -> str:
        return f"{self.constraint} or None"

    def _convert(self, value: Any) -> Any:
        return None if value is None else self.constraint._convert(value)

    def _admits(self, value: Any) -> bool:
        return value is None or self.constraint._admits(value)


ANY_WHOLE = Whole(None)
COUNT = Whole(1, _LARGEST)
COUNT_OR_ZERO = Whole(0, _LARGEST)
SEED = Whole(0)
FINITE = Number()
POSITIVE = Number(above=0)
NON_NEGATIVE = Number(least=0)
SWITCH = Switch()
