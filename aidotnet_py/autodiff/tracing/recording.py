"""Recording: a `Trace` holds the equations of a running function, and knows the outer values that they use."""

from __future__ import annotations

import sys
import threading
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any, NamedTuple

import numpy as np

from aidotnet_py.autodiff.program import Atom, Equation, Literal, Program, Variable
from aidotnet_py.autodiff.tracing.tracer import BUILD_ANEW, Tracer
from aidotnet_py.autodiff.tracing.value_types import type_of
from aidotnet_py.autodiff.types import ArrayType
from aidotnet_py.exceptions import InvalidOperationException, NotSupportedException

__all__ = ["Trace", "active_trace", "frozen", "innermost_trace", "is_on_host", "new_trace", "require_alive"]


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
                f"a traced value cannot be assigned to an element of an array; {BUILD_ANEW}"
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
    """Refuse traced values whose trace has ended, or is another thread's."""
    for value in values:
        if isinstance(value, Tracer) and value.home not in _active.traces:
            if isinstance(value.home, Trace) and value.home.frame is not None:
                raise InvalidOperationException(
                    f"a traced value of type {value.type} was used in another thread than its trace; compute with it "
                    "in the thread that called the traced function"
                )
            raise InvalidOperationException(
                f"a traced value of type {value.type} was used after its trace had ended; return it from the "
                "traced function instead of storing it elsewhere"
            )


def innermost_trace(operands: Sequence[Any] = ()) -> Trace:
    """Return the trace that equations are added to; without one, an error looks at the operands for the reason."""
    if not _active.traces:
        require_alive(*operands)
        raise InvalidOperationException(
            "a traced value, or a primitive of your own, must be used inside a trace, got it outside of any; pass a "
            "value as an argument to the code that runs there, such as a solver; call a function of arrays by "
            "trace(f, x)(x)"
        )
    return _active.traces[-1]
