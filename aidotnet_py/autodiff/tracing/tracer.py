"""Tracing: a `Trace` records the equations of a running function, a `Tracer` represents each of its values.

NumPy's functions and operators act on a `Tracer` as registered in `numpy_functions`.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from types import FrameType
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin
from numpy.typing import NDArray

from aidotnet_py.arguments import refusal
from aidotnet_py.autodiff.primitive import Primitive
from aidotnet_py.autodiff.program import Atom, Equation, Literal, Program, Variable
from aidotnet_py.autodiff.tree import Structure
from aidotnet_py.autodiff.types import ArrayType
from aidotnet_py.backends import backend_of
from aidotnet_py.exceptions import ArgumentException, InvalidOperationException, NotSupportedException

__all__ = [
    "HostData",
    "Trace",
    "Tracer",
    "active_trace",
    "as_traced",
    "emit",
    "emit_again",
    "host_array",
    "inline",
    "is_array",
    "new_trace",
    "numpy_functions",
    "require_alive",
    "type_of",
    "types_of",
]

# NumPy's functions and ufuncs, by name, as they act on traced values; filled by `functions.numpy_dispatch`.
numpy_functions: dict[str, Callable[..., Any]] = {}


def _function(name: str) -> Callable[..., Tracer]:
    """Return the traced form of NumPy's function of that name, for functions that return an array."""
    return numpy_functions[name]


@dataclass(frozen=True, eq=False)
class HostData:
    """A constant of the Program itself, such as a list of indices; the backend that runs the Program copies it."""

    array: NDArray[Any]

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of the axes."""
        return self.array.shape


def host_array(constant: Any) -> NDArray[Any]:
    """Return a constant of a Program as a NumPy array.

    Examples
    --------
    >>> import numpy as np
    >>> from aidotnet_py.autodiff import trace
    >>> from aidotnet_py.autodiff.extend import host_array
    >>> program = trace(lambda x: x[[2, 0]], np.zeros(3))
    >>> [host_array(value) for _, value in program.constants]
    [array([2, 0])]
    """
    if isinstance(constant, HostData):
        return constant.array
    owner = backend_of(constant)
    return np.asarray(constant) if owner is None else owner.to_numpy(constant)


# The remedy for assignments to elements.
_BUILD_ANEW = (
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


def frozen(value: Any) -> Any:
    """Return a NumPy array that somebody may write into as an array that nobody can; anything else as it is."""
    if not is_on_host(value) or not (value.flags.writeable or value.base is not None):
        return value
    copy = np.array(value, dtype=type_of(value).dtype, order="C")
    copy.flags.writeable = False
    return copy


def is_on_host(value: Any) -> bool:
    """Whether a value is a NumPy array."""
    return isinstance(value, np.ndarray)


class _Captured(NamedTuple):
    """An outer value, with the content that it had as it was used."""

    variable: Variable
    value: Any
    content: Any

    def is_overwritten(self) -> bool:
        """Whether the function has written into the array since then, such as into a buffer of a loop."""
        return self.content is not self.value and frozen(self.value).tobytes() != self.content.tobytes()


class _Active(threading.local):
    def __init__(self) -> None:
        self.traces: list[Trace] = []


_active = _Active()


class Trace:
    """The equations recorded so far, the outer values that they use, and the frame of the function that records.

    Parameters
    ----------
    frame : frame
        The frame of the function that records; `new_trace` sets it.

    Attributes
    ----------
    inputs : list of Variable
        The inputs so far.
    equations : list of Equation
        The equations so far.

    Examples
    --------
    >>> import numpy as np
    >>> from aidotnet_py.autodiff.extend import ArrayType, new_trace
    >>> with new_trace() as trace:
    ...     x = trace.new_input(ArrayType((3,), np.dtype(float)))
    ...     print(trace.finish([np.exp(x)]))
    program(a:float64[3])
      b:float64[3] = exp a
      return b
    """

    def __init__(self, frame: FrameType) -> None:
        self.frame: FrameType | None = frame
        self.inputs: list[Variable] = []
        self.equations: list[Equation] = []
        self._captured: dict[int, _Captured] = {}
        self._constants: list[tuple[Variable, Any]] = []

    def new_input(self, array_type: ArrayType) -> Tracer:
        """Add an input and return its traced value."""
        variable = Variable(array_type)
        self.inputs.append(variable)
        return Tracer(self, variable)

    def atom(self, value: Any) -> Atom:
        """Return the variable or literal of a value; arrays and outer traced values become constants of this trace."""
        if isinstance(value, Literal):
            return value
        if isinstance(value, Tracer):
            if value.home is self:
                return value.variable
            require_alive(value)
        known = self._captured.get(id(value))
        if known is None or known.is_overwritten():
            # The reference keeps the value alive, so that no other object gets its id while the trace lives.
            known = self._captured[id(value)] = _Captured(Variable(type_of(value)), value, frozen(value))
            self._constants.append((known.variable, known.content))
        return known.variable

    def finish(self, outputs: Sequence[Any]) -> Program:
        """Return the Program that computes these values."""
        atoms = tuple(self.atom(value) for value in outputs)
        return Program(tuple(self.inputs), tuple(self._constants), tuple(self.equations), atoms)


@contextmanager
def new_trace() -> Generator[Trace]:
    """Record the equations of the ``with`` block on a new trace.

    Yields
    ------
    Trace
        The innermost trace of this thread until the block ends.

    Raises
    ------
    NotSupportedException
        When the block assigns a traced value to an element of an array.

    Examples
    --------
    See `Trace`.
    """
    # The frame of the function that has the block: above this generator and contextlib.
    trace = Trace(sys._getframe(2))  # pyright: ignore[reportPrivateUsage] -- there is no other way to it
    traces = _active.traces
    _forget_interrupted(traces)
    traces.append(trace)
    try:
        yield trace
    except ValueError as error:
        # NumPy replaces the error of a traced value that is assigned to an element by its own.
        if isinstance(error.__cause__, InvalidOperationException) and "array element" in str(error):
            raise NotSupportedException(
                f"a traced value cannot be assigned to an element of an array; {_BUILD_ANEW}"
            ) from error
        raise
    finally:
        trace.frame = None
        # After an interrupt this may run late, when other traces have been added.
        if trace in traces:
            traces.remove(trace)


def _forget_interrupted(traces: list[Trace]) -> None:
    """Drop traces whose blocks have ended: an interrupt at the end of a block skips its cleanup."""
    while traces:
        frame: FrameType | None = sys._getframe(1)  # pyright: ignore[reportPrivateUsage] -- as above
        while frame is not None and frame is not traces[-1].frame:
            frame = frame.f_back
        if frame is not None:
            return
        traces.pop()


def active_trace() -> Trace | None:
    """Return the innermost trace that this thread records.

    Returns
    -------
    Trace or None
        None if nothing is traced.

    Examples
    --------
    >>> from aidotnet_py.autodiff.extend import active_trace, new_trace
    >>> with new_trace() as trace:
    ...     active_trace() is trace
    True
    >>> active_trace() is None
    True
    """
    traces = _active.traces
    if traces:
        _forget_interrupted(traces)
    return traces[-1] if traces else None


def require_alive(*values: Any) -> None:
    """Refuse traced values whose trace has ended."""
    for value in values:
        if isinstance(value, Tracer) and value.home not in _active.traces:
            raise InvalidOperationException(
                f"a traced value of type {value.type} was used after its trace had ended; return it from the "
                "traced function instead of storing it elsewhere"
            )


def _innermost(operands: Sequence[Any] = ()) -> Trace:
    if not _active.traces:
        require_alive(*operands)
        raise InvalidOperationException(
            "a traced value, or a primitive of your own, must be used inside a trace, got it outside of any; pass a "
            "value as an argument to the code that runs there, such as a solver; call a function of arrays by "
            "trace(f, x)(x)"
        )
    return _active.traces[-1]


def emit(primitive: Primitive, *operands: Any, **parameters: Any) -> Tracer:
    """Add an equation to the innermost trace and return its value.

    Parameters
    ----------
    primitive : Primitive
        The operation.
    *operands : Tracer, array or number
        The inputs.
    **parameters
        Settings of the operation.

    Returns
    -------
    Tracer

    Raises
    ------
    InvalidOperationException
        When nothing is traced, or an operand is of a trace that has ended.
    ArgumentException
        When the primitive does not take operands of these types.

    Examples
    --------
    See `Primitive`.
    """
    trace = _innermost(operands)
    inputs = tuple([trace.atom(x) for x in operands])
    output = Variable(_output_type(primitive, [a.type for a in inputs], parameters))
    trace.equations.append(Equation(primitive, inputs, output, parameters))
    return Tracer(trace, output)


def _output_type(primitive: Primitive, types: Sequence[ArrayType], parameters: Mapping[str, Any]) -> ArrayType:
    result: Any = primitive.shape(*types, **parameters)
    if not isinstance(result, ArrayType):
        raise ArgumentException(refusal(f"the result of {primitive.name}'s shape rule", "an ArrayType", result))
    return result


def emit_again(equation: Equation, operands: Sequence[Any]) -> Tracer:
    """Add an equation on other operands; only operands of other types need the shape rule."""
    trace = _innermost(operands)
    inputs = tuple([trace.atom(x) for x in operands])
    if [a.type for a in inputs] == [a.type for a in equation.inputs]:
        output = Variable(equation.output.type)
    else:
        output = Variable(_output_type(equation.primitive, [a.type for a in inputs], equation.parameters))
    trace.equations.append(Equation(equation.primitive, inputs, output, equation.parameters))
    return Tracer(trace, output)


def as_traced(value: Any) -> Tracer:
    """Return the value in the innermost trace; an array from outside becomes a constant of it.

    Rules and functions get only traced values, so that an array library's own operators never take part.

    Parameters
    ----------
    value : Tracer, array or number
        The value.

    Returns
    -------
    Tracer

    Raises
    ------
    InvalidOperationException
        When nothing is traced, or the value is of a trace that has ended.

    Examples
    --------
    >>> import numpy as np
    >>> from aidotnet_py.autodiff.extend import as_traced, new_trace
    >>> with new_trace():
    ...     as_traced(np.ones(3))
    Tracer(float64[3])
    """
    trace = _innermost()
    atom = trace.atom(value)
    assert isinstance(atom, Variable)
    return Tracer(trace, atom)


def inline(program: Program, arguments: Sequence[Any]) -> list[Any]:
    """Add the equations of a Program to the innermost trace, on other values, and return its results.

    Parameters
    ----------
    program : Program
        The equations.
    arguments : sequence of Tracer, array or number
        One value for each input of the Program.

    Returns
    -------
    list of Tracer or Literal
        One value for each output.

    Raises
    ------
    InvalidOperationException
        When nothing is traced.

    Examples
    --------
    >>> import numpy as np
    >>> from aidotnet_py.autodiff import trace
    >>> from aidotnet_py.autodiff.extend import as_traced, inline, new_trace
    >>> program = trace(np.sin, np.ones(3))
    >>> with new_trace():
    ...     inline(program, [as_traced(np.zeros(3))])
    [Tracer(float64[3])]
    """
    values: dict[Variable, Any] = dict(zip(program.inputs, arguments, strict=True))
    values.update(program.constants)

    def read(atom: Atom) -> Any:
        return atom if isinstance(atom, Literal) else values[atom]

    for equation in program.equations:
        values[equation.output] = emit_again(equation, [read(a) for a in equation.inputs])
    return [read(atom) for atom in program.outputs]


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
    if result.dtype.kind not in "biuf":
        raise ArgumentException(f"{name} must hold booleans, integers or floats, got dtype {result.dtype}")
    return result


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

    def __init__(self, trace: Trace, variable: Variable) -> None:
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
        raise AttributeError(f"a traced value has no attribute {name!r}")

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
    tolist = _no_value("tolist()", "return the value from the traced function and read it there")

    def __format__(self, format_spec: str) -> str:
        # Error messages format it without a specification; a specification needs the value.
        return repr(self) if not format_spec else self._formatted()

    _formatted = _no_value("formatting", "format what the traced function returns, outside it")

    def __setitem__(self, key: Any, value: Any) -> None:
        raise NotSupportedException(f"a traced array cannot be assigned to in place; {_BUILD_ANEW}")


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
        raise NotSupportedException(f"np.{name} writes into an array, which cannot be traced; {_BUILD_ANEW}")
    function = numpy_functions.get(name)
    if function is None:
        near = get_close_matches(name, numpy_functions, n=3)
        hint = f"; near to it are {', '.join(near)}" if near else ""
        raise NotSupportedException(
            f"np.{name} is not among the functions that can be traced{hint}; docs/engine.md lists them all; "
            "aidotnet_py.autodiff has more"
        )
    if options.get("out") is not None:
        raise NotSupportedException(
            f"np.{name} into an array that exists (out=, or an operator like +=) cannot be traced; write x = x + y; "
            f"for a part of x, {_BUILD_ANEW}"
        )
    options.pop("out", None)
    try:
        return function(*args, **options)
    except TypeError as error:
        raise NotSupportedException(f"np.{name} cannot be traced as it was called here: {error}") from error
