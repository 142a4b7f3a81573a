"""Recording a function as it runs: a `Trace` collects equations, a `Tracer` stands for each value.

What NumPy's functions and operators do on a `Tracer` is registered in `numpy_functions`.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from types import FrameType
from typing import Any

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin
from numpy.typing import NDArray

from aidotnet_py.autodiff.primitive import Primitive
from aidotnet_py.autodiff.program import Atom, Equation, Literal, Program, Variable
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
    "inline",
    "is_array",
    "new_trace",
    "numpy_functions",
    "require_alive",
    "type_of",
]

# NumPy's functions and ufuncs, by name, as they act on traced values; filled by `functions.numpy_dispatch`.
numpy_functions: dict[str, Callable[..., Any]] = {}


def _function(name: str) -> Callable[..., Tracer]:
    """What NumPy's function of that name does on a traced value, where it gives one."""
    return numpy_functions[name]


@dataclass(frozen=True, eq=False)
class HostData:
    """A constant of the program itself, such as a list of indices: put on whichever backend runs it."""

    array: NDArray[Any]

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of the axes."""
        return self.array.shape


# What to do where an array was to be filled in.
_BUILD_ANEW = "build the result with np.where, np.concatenate or np.stack"

_AS_ARRAY = (
    "keep it an array, or compute it outside the traced function; for an element of an array, build the array with "
    "np.where, np.concatenate or np.stack"
)


class _Active(threading.local):
    def __init__(self) -> None:
        self.traces: list[Trace] = []


_active = _Active()


class Trace:
    """The equations recorded so far, the values from outside that they use, and who records them until it is over."""

    def __init__(self, frame: FrameType) -> None:
        self.frame: FrameType | None = frame
        self.inputs: list[Variable] = []
        self.equations: list[Equation] = []
        self._captured: dict[int, tuple[Variable, Any]] = {}

    def new_input(self, array_type: ArrayType) -> Tracer:
        """A traced value for one more input."""
        variable = Variable(array_type)
        self.inputs.append(variable)
        return Tracer(self, variable)

    def atom(self, value: Any) -> Atom:
        """The variable or literal for a value; arrays and outer traced values become constants of this trace."""
        if isinstance(value, Literal):
            return value
        if isinstance(value, Tracer):
            if value.trace is self:
                return value.variable
            require_alive(value)
        found = self._captured.get(id(value))
        if found is None:
            # The value is kept beside its variable, so that its id stays its own while the trace lives.
            found = self._captured[id(value)] = (Variable(type_of(value)), value)
        return found[0]

    def finish(self, outputs: Sequence[Any]) -> Program:
        """The Program that computes these values."""
        atoms = tuple(self.atom(value) for value in outputs)
        return Program(tuple(self.inputs), tuple(self._captured.values()), tuple(self.equations), atoms)


@contextmanager
def new_trace() -> Generator[Trace]:
    """Record everything that runs inside on a new trace."""
    # Of the function whose block this is, beyond this generator and contextlib.
    trace = Trace(sys._getframe(2))  # pyright: ignore[reportPrivateUsage] -- there is no other way to it
    traces = _active.traces
    _forget_interrupted(traces)
    traces.append(trace)
    try:
        yield trace
    except ValueError as error:
        # NumPy hides what a traced value said when it was to become an element of an array.
        if isinstance(error.__cause__, InvalidOperationException) and "array element" in str(error):
            raise NotSupportedException(
                f"a traced value cannot be assigned to an element of an array; {_BUILD_ANEW}"
            ) from error
        raise
    finally:
        trace.frame = None
        # After an interrupt this may come late, and others may be there.
        if trace in traces:
            traces.remove(trace)


def _forget_interrupted(traces: list[Trace]) -> None:
    """Forget traces whose blocks have been left: an interrupt at the end of one keeps it from being closed."""
    while traces:
        frame: FrameType | None = sys._getframe(1)  # pyright: ignore[reportPrivateUsage] -- as above
        while frame is not None and frame is not traces[-1].frame:
            frame = frame.f_back
        if frame is not None:
            return
        traces.pop()


def active_trace() -> Trace | None:
    """The innermost trace being recorded in this thread."""
    traces = _active.traces
    if traces:
        _forget_interrupted(traces)
    return traces[-1] if traces else None


def require_alive(*values: Any) -> None:
    """Refuse traced values whose trace has ended: nothing can tell any more what they were."""
    for value in values:
        if isinstance(value, Tracer) and value.trace not in _active.traces:
            raise InvalidOperationException(
                f"a traced value of type {value.type} was used after its trace had ended; return it from the "
                "traced function instead of storing it elsewhere"
            )


def _innermost(operands: Sequence[Any] = ()) -> Trace:
    if not _active.traces:
        require_alive(*operands)
        raise InvalidOperationException(
            "a traced value was used outside of its trace; what runs there, such as a solver, is to be given it as an "
            "argument"
        )
    return _active.traces[-1]


def emit(primitive: Primitive, *operands: Any, **parameters: Any) -> Tracer:
    """Add an equation to the innermost trace and return its value."""
    trace = _innermost(operands)
    inputs = tuple([trace.atom(x) for x in operands])
    output = Variable(primitive.shape(*[a.type for a in inputs], **parameters))
    trace.equations.append(Equation(primitive, inputs, output, parameters))
    return Tracer(trace, output)


def emit_again(equation: Equation, operands: Sequence[Any]) -> Tracer:
    """Add an equation as it is, on other values; where they are of the same types, so is what it gives."""
    trace = _innermost(operands)
    inputs = tuple([trace.atom(x) for x in operands])
    if [a.type for a in inputs] == [a.type for a in equation.inputs]:
        output = Variable(equation.output.type)
    else:
        output = Variable(equation.primitive.shape(*[a.type for a in inputs], **equation.parameters))
    trace.equations.append(Equation(equation.primitive, inputs, output, equation.parameters))
    return Tracer(trace, output)


def as_traced(value: Any) -> Tracer:
    """A value of the innermost trace; an array from outside becomes a constant of it.

    Rules and functions are given only such values, so that their operators never meet an array library's own.
    """
    trace = _innermost()
    atom = trace.atom(value)
    assert isinstance(atom, Variable)
    return Tracer(trace, atom)


def inline(program: Program, arguments: Sequence[Any]) -> list[Any]:
    """Run a Program's equations again in the innermost trace, on other values."""
    values: dict[Variable, Any] = dict(zip(program.inputs, arguments, strict=True))
    values.update(program.constants)

    def read(atom: Atom) -> Any:
        return atom if isinstance(atom, Literal) else values[atom]

    for equation in program.equations:
        values[equation.output] = emit_again(equation, [read(a) for a in equation.inputs])
    return [read(atom) for atom in program.outputs]


def is_array(value: object) -> bool:
    """Whether a value is traced, an array of a registered backend, or data for one."""
    if isinstance(value, (Tracer, HostData)):
        return True
    return not isinstance(value, (int, float)) and backend_of(value) is not None


def type_of(value: Any) -> ArrayType:
    """The type of a traced value, an array or a number."""
    if isinstance(value, Tracer):
        return value.type
    if isinstance(value, (bool, int, float, np.generic)):
        found = ArrayType((), np.result_type(value))  # pyright: ignore[reportUnknownArgumentType] -- any scalar
    elif isinstance(value, HostData):
        found = ArrayType(value.shape, value.array.dtype)
    else:
        backend = backend_of(value)
        if backend is None:
            raise ArgumentException(f"a value of {type(value).__name__} came where an array or a number was wanted")
        found = ArrayType(tuple(value.shape), backend.dtype_of(value))
    if found.dtype.kind not in "biuf":
        raise ArgumentException(f"an array of dtype {found.dtype} came where booleans, integers or floats were wanted")
    return found


def _no_value(asked: str, instead: str) -> Callable[[Tracer], Any]:
    def refuse(self: Tracer, *args: Any, **options: Any) -> Any:
        raise InvalidOperationException(
            f"{asked} asks for the value of a traced {self.type}, which has none while tracing; {instead}"
        )

    return refuse


class Tracer(NDArrayOperatorsMixin):
    """A value while tracing: it has a shape and a dtype, and takes part in NumPy's operators and functions.

    It has no value yet: ``if x > 0`` and ``float(x)`` raise InvalidOperationException and say what to use instead.
    """

    __slots__ = ("trace", "variable")
    __hash__ = object.__hash__  # pyright: ignore[reportAssignmentType] -- the mixin takes away the hash with its ==
    # Above every array library's own, so that `array + tracer` comes here.
    __array_priority__ = 1000.0

    def __init__(self, trace: Trace, variable: Variable) -> None:
        self.trace = trace
        self.variable = variable

    @property
    def type(self) -> ArrayType:
        """Shape and dtype together."""
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

    def __repr__(self) -> str:
        return f"Tracer({self.type})"

    def __len__(self) -> int:
        if not self.shape:
            raise ArgumentException("a traced value of shape () has no length")
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
        if "linalg" in getattr(function, "__module__", ""):
            name = f"linalg.{name}"
        return _call(name, args, kwargs)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        # ndarray's methods are the functions of the same name.
        if name in _METHODS:
            return lambda *args, **kwargs: numpy_functions[name](self, *args, **kwargs)
        raise AttributeError(f"a traced value has no attribute {name!r}")

    __bool__ = _no_value("bool() (an `if`, `and`, `while` or comparison chain)", "use np.where(condition, a, b)")
    __float__ = _no_value("float()", _AS_ARRAY)
    __int__ = _no_value("int()", _AS_ARRAY)
    __index__ = _no_value("indexing or range() with it", "use np.take for a traced index, a plain int for a length")
    __array__ = _no_value(
        "assignment to elements of an array, np.array() or an untraceable function",
        "use NumPy functions on it directly, np.where, np.concatenate or np.stack to put values together, np.take to "
        "index an array with it",
    )
    __complex__ = _no_value("complex()", "complex numbers are not supported")
    item = _no_value("item()", "return the value from the traced function and read it there")
    tolist = _no_value("tolist()", "return the value from the traced function and read it there")

    def __format__(self, format_spec: str) -> str:
        # Without a specification it is a name for error messages; with one, a value is wanted.
        return repr(self) if not format_spec else self._formatted()

    _formatted = _no_value("formatting", "format what the traced function returns, outside it")

    def __setitem__(self, key: Any, value: Any) -> None:
        raise NotSupportedException(f"a traced array cannot be assigned to in place; {_BUILD_ANEW}")


_METHODS = frozenset(
    {
        *("astype", "clip", "copy", "dot", "flatten", "max", "mean", "min", "ravel", "repeat", "reshape"),
        *("squeeze", "std", "sum", "swapaxes", "take", "transpose", "var"),
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
