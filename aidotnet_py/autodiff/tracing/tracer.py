"""A `Tracer`, the stand-in for a value while tracing: NumPy's functions and operators on it, and what it refuses.

They act on it as registered in `numpy_functions`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from difflib import get_close_matches
from typing import Any

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

from aidotnet_py.autodiff.program import Variable
from aidotnet_py.autodiff.types import ArrayType
from aidotnet_py.exceptions import ArgumentException, InvalidOperationException, NotSupportedException

__all__ = ["BUILD_ANEW", "Tracer", "numpy_functions"]

# NumPy's functions and ufuncs, by name, as they act on traced values; filled by `functions.numpy_dispatch`.
numpy_functions: dict[str, Callable[..., Any]] = {}


def _function(name: str) -> Callable[..., Tracer]:
    """Return the traced form of NumPy's function of that name, for functions that return an array."""
    return numpy_functions[name]


# The remedy for assignments to elements.
BUILD_ANEW = (
    "write x = aidotnet_py.autodiff.at(x)[index].set(value), or build the result with np.where, np.concatenate or "
    "np.stack"
)

# NumPy looks at the table alone for np.take and table[indices].
_INDEXED = (
    "use np.take_along_axis(table, indices, axis), one_hot(indices, len(table)) @ table, or np.take where the table is "
    "traced too"
)

_AS_ARRAY = (
    "keep it an array, or compute it outside the traced function; for an element of an array, write "
    "x = aidotnet_py.autodiff.at(x)[index].set(value), or build the array with np.where, np.concatenate or np.stack"
)

# Of booleans, functions that can be traced have the same result.
_INSTEAD = {
    name: f"use np.{same}(mask), the same for booleans, and in the place of an `if` np.where(np.{same}(mask), a, b)"
    for name, same in (("all", "min"), ("any", "max"))
}


def _no_value(asked: str, instead: str) -> Callable[[Tracer], Any]:
    def refuse(self: Tracer, *args: Any, **options: Any) -> Any:
        """Raise InvalidOperationException: a traced value has no numbers."""
        raise InvalidOperationException(
            f"{asked} asks for the value of a traced {self.type}, which has none while tracing; {instead}"
        )

    return refuse


class Tracer(NDArrayOperatorsMixin):
    """A value while tracing: it has a shape and a dtype, and NumPy's operators and functions accept it.

    It holds no numbers: ``if x > 0`` and ``float(x)`` raise InvalidOperationException and name the replacement.

    Parameters
    ----------
    trace : Trace
        The trace that records it.
    variable : Variable
        Its place in the Program.

    Examples
    --------
    >>> import numpy as np
    >>> from aidotnet_py.autodiff.extend import ArrayType, new_trace
    >>> with new_trace() as trace:
    ...     x = trace.new_input(ArrayType((2, 3), np.dtype(float)))
    ...     np.sum(x.T @ x, axis=0)
    Tracer(float64[3])
    """

    __slots__ = ("home", "variable")
    __hash__ = object.__hash__  # pyright: ignore[reportAssignmentType] -- the mixin takes away the hash with its ==
    # Higher than every array library's own, so that `array + tracer` calls the tracer's operator.
    __array_priority__ = 1000.0

    def __init__(self, trace: object, variable: Variable) -> None:
        self.home = trace
        self.variable = variable

    @property
    def type(self) -> ArrayType:
        """The shape and dtype."""
        return self.variable.type

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of the axes."""
        return self.type.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype."""
        return self.type.dtype

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return self.type.size

    @property
    def T(self) -> Tracer:
        """The axes in reverse order."""
        return _function("transpose")(self)

    @property
    def mT(self) -> Tracer:
        """The last two axes exchanged."""
        return _function("swapaxes")(self, -1, -2)

    @property
    def at(self) -> Any:
        """The elements, for ``x.at[index].set(value)``; see `aidotnet_py.autodiff.at`."""
        return _function("at")(self)

    def __repr__(self) -> str:
        return f"Tracer({self.type})"

    def __len__(self) -> int:
        if not self.shape:
            raise ArgumentException("a value must have an axis to have a length, got a traced value of shape ()")
        return self.shape[0]

    def __iter__(self) -> Iterator[Tracer]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, key: Any) -> Tracer:
        return _function("getitem")(self, key)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        name = ufunc.__name__ if method == "__call__" else f"{ufunc.__name__}.{method}"
        return _call(name, inputs, options)

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        name = function.__name__
        module = getattr(function, "__module__", "")
        if "linalg" in module:
            name = f"linalg.{name}"
        elif module.endswith("scimath"):
            # Complex for negative numbers, unlike the function of the same name.
            name = f"emath.{name}"
        return _call(name, args, kwargs)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        # ndarray's methods are the functions of the same name.
        if name in _METHODS:
            return lambda *args, **kwargs: _call(name, (self, *args), kwargs)
        listed = "docs/engine.md lists the functions that can be traced" if hasattr(np.ndarray, name) else None
        remedy = _INSTEAD.get(name, listed)
        raise AttributeError(f"a traced value has no attribute {name!r}{f'; {remedy}' if remedy else ''}")

    __bool__ = _no_value("bool() (an `if`, `and`, `while` or comparison chain)", "use np.where(condition, a, b)")
    __float__ = _no_value("float()", _AS_ARRAY)
    __int__ = _no_value("int()", _AS_ARRAY)
    __index__ = _no_value("indexing or range() with it", f"{_INDEXED}; a plain int for a length")
    __array__ = _no_value(
        "assignment to elements of an array, np.array() or an untraceable function",
        "use NumPy functions on it directly, aidotnet_py.autodiff.at(x)[index].set(value), np.where, np.concatenate or "
        f"np.stack to put values together; to index with it, {_INDEXED}",
    )
    __complex__ = _no_value("complex()", "complex numbers are not supported")
    item = _no_value("item()", "return the value from the traced function and read it there")
    __reduce__ = _no_value("pickling", "return the value from the traced function and pickle it there")  # pyright: ignore[reportAssignmentType] -- it only raises
    tolist = _no_value("tolist()", "return the value from the traced function and read it there")

    def __copy__(self) -> Tracer:
        return self

    def __deepcopy__(self, memo: object) -> Tracer:
        # Nobody can write into it, so that it is as good as its copy.
        return self

    def __format__(self, format_spec: str) -> str:
        # Error messages format it without a specification; a specification needs the value.
        return repr(self) if not format_spec else self._formatted()

    _formatted = _no_value("formatting", "format what the traced function returns, outside it")

    def __setitem__(self, key: Any, value: Any) -> None:
        raise NotSupportedException(f"a traced array cannot be assigned to in place; {BUILD_ANEW}")


_METHODS = frozenset(
    {
        *("argmax", "argmin", "argsort", "astype", "clip", "copy", "cumsum", "diagonal", "dot", "flatten", "max"),
        *("mean", "min", "prod", "ravel", "repeat", "reshape", "squeeze", "std", "sum", "swapaxes", "take"),
        *("trace", "transpose", "var"),
    }
)


# Functions of NumPy that write into an argument; so does the method `at` of any ufunc.
_WRITERS = frozenset({"copyto", "fill_diagonal", "place", "put", "put_along_axis", "putmask"})


def _call(name: str, args: Sequence[Any], options: dict[str, Any]) -> Any:
    if name in _WRITERS or name.endswith(".at"):
        raise NotSupportedException(f"np.{name} writes into an array, which cannot be traced; {BUILD_ANEW}")
    function = numpy_functions.get(name)
    if function is None:
        near = get_close_matches(name, numpy_functions, n=3)
        remedy = _INSTEAD.get(name, f"near to it are {', '.join(near)}" if near else None)
        hint = f"; {remedy}" if remedy else ""
        raise NotSupportedException(
            f"np.{name} is not among the functions that can be traced{hint}; docs/engine.md lists them all; "
            "aidotnet_py.autodiff has more"
        )
    if options.get("out") is not None:
        raise NotSupportedException(
            f"np.{name} into an array that exists (out=, or an operator like +=) cannot be traced; write x = x + y; "
            f"for a part of x, {BUILD_ANEW}"
        )
    options.pop("out", None)
    try:
        return function(*args, **options)
    except TypeError as error:
        raise NotSupportedException(f"np.{name} cannot be traced as it was called here: {error}") from error
