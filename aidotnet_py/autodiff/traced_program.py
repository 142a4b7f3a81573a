"""Functions as Programs: `trace` records one, and a `TracedProgram` is called like it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from aidotnet_py.autodiff.execution import Executable, Idle, backend_for, plan
from aidotnet_py.autodiff.profiling import Profile, profile
from aidotnet_py.autodiff.program import Program
from aidotnet_py.autodiff.tracing.emission import inline
from aidotnet_py.autodiff.tracing.purity import require_alike
from aidotnet_py.autodiff.tracing.recording import active_trace, frozen, is_on_host, new_trace, require_alive
from aidotnet_py.autodiff.tracing.value_types import type_of, types_of
from aidotnet_py.autodiff.transforms.simplification import simplify
from aidotnet_py.autodiff.tree import Structure, flatten
from aidotnet_py.autodiff.types import ArrayType
from aidotnet_py.backends import Backend, backend_of
from aidotnet_py.exceptions import ArgumentException

__all__ = [
    "Function",
    "TracedProgram",
    "call_nested",
    "flatten_call",
    "name_of_leaf",
    "record",
    "require_function",
    "require_like",
    "trace",
    "trace_once",
    "trace_pure",
]

Function = Callable[..., Any]


@dataclass(frozen=True, eq=False)
class TracedProgram(Program):
    """A `Program` to call like the function that it was traced from, on arrays of the same shapes and dtypes.

    Calls replay the equations over buffers that were planned once; the function's Python does not run again. Threads
    may call it at the same time, and calls may be nested: each call has its own buffers.

    Attributes
    ----------
    arguments, results : Structure
        The nesting of the function's arguments and of its result.

    Examples
    --------
    >>> import numpy as np
    >>> from aidotnet_py.autodiff import trace
    >>> program = trace(lambda p, x: {"y": p["w"] * x}, {"w": 2.0}, np.ones(3))
    >>> program({"w": 3.0}, np.arange(3.0))
    {'y': array([0., 3., 6.])}
    """

    arguments: Structure = field(default_factory=lambda: Structure(tuple))
    results: Structure = field(default_factory=lambda: Structure(None))
    _idle: Idle = field(default_factory=Idle, repr=False)

    @property
    def peak_memory(self) -> int:
        """Bytes of all buffers of a run: intermediate values and results, after sharing."""
        return plan(self).nbytes

    def profile(self, backend: str | Backend = "numpy", *, repeats: int = 5) -> Profile:
        """Measure the time of each equation on random numbers; see `aidotnet_py.autodiff.profile`."""
        return profile(self, backend, repeats=repeats)

    def __call__(self, /, *args: Any, **named: Any) -> Any:
        """Run on these arguments, by place or name like the examples; results are new arrays, nested as traced."""
        leaves, structure = flatten_call(args, named)
        if structure != self.arguments:
            raise ArgumentException(
                "arguments must be nested like the examples that the program was traced on, and given by place or by "
                "name like these"
            )
        require_like(leaves, self.input_types, structure, "arguments", "the example that the program was traced on")
        if active_trace() is not None:
            return self.results.unflatten(inline(self, leaves))
        require_alive(*leaves)
        backend = backend_for(self, leaves)
        executable = self._idle.take(backend) or Executable(self, backend)
        for array, leaf in zip(executable.inputs, leaves, strict=True):
            backend.copyto(array, leaf)
        executable.run()
        results = [backend.asarray(array) for array in executable.outputs]
        self._idle.give_back(backend, executable)
        return self.results.unflatten(results)


def flatten_call(args: tuple[Any, ...], named: Mapping[str, Any]) -> tuple[list[Any], Structure]:
    """Flatten the arguments of a call: a tuple, or a mapping by place and name if some are given by name."""
    return flatten({**dict(enumerate(args)), **dict(sorted(named.items()))} if named else args)


def call_nested(function: Function, structure: Structure, leaves: Sequence[Any]) -> Any:
    """Call a function on arguments that `flatten_call` flattened."""
    arguments = structure.unflatten(leaves)
    if isinstance(arguments, tuple):
        return function(*arguments)
    by_place = [value for key, value in arguments.items() if isinstance(key, int)]
    return function(*by_place, **{key: value for key, value in arguments.items() if isinstance(key, str)})


def require_function(f: object, name: str = "f") -> None:
    """Raise ArgumentException unless the first argument of a transform can be called."""
    if not callable(f):
        raise ArgumentException(f"{name} must be a function, got {type(f).__name__}; it comes first")


def name_of_leaf(structure: Structure, root: str, place: int) -> str:
    """Return the name of a leaf in a tree called ``root``."""
    return list(structure.names(root))[place]


def require_like(leaves: Sequence[Any], types: Sequence[ArrayType], structure: Structure, root: str, like: str) -> None:
    """Refuse a leaf of another type; errors call the tree ``root`` and the origin of the types ``like``."""
    for place, (leaf, wanted) in enumerate(zip(leaves, types, strict=True)):
        if not _fits(leaf, wanted):
            name = name_of_leaf(structure, root, place)
            raise ArgumentException(f"{name} must be {wanted} like {like}, got {type_of(leaf, name)}")


def record(function: Function, leaves: Sequence[Any], structure: Structure) -> tuple[Program, Structure]:
    """Return the Program of a function on arguments like these, and the structure of its results."""
    types = types_of(leaves, structure, "arguments")
    with new_trace() as trace_:
        inputs = [trace_.new_input(of) for of in types]
        outputs, results = flatten(call_nested(function, structure, inputs), "the function's result")
        return simplify(trace_.finish(outputs)), results


def trace(function: Function, /, *examples: Any, **named: Any) -> TracedProgram:
    """Record a function as a `Program`, on arguments with the shapes and dtypes of the examples.

    Parameters
    ----------
    function : callable
        Array code: operators, NumPy functions, and those of `aidotnet_py.autodiff`. It runs twice, on traced values.
    *examples, **named : array, number, or mappings and sequences of them
        Only their shapes and dtypes are used. The Program takes those by name by the same names.

    Returns
    -------
    TracedProgram
        Prints readably, knows its ``flops``, ``bytes`` and ``peak_memory``, and is called like the function.

    Raises
    ------
    InvalidOperationException
        When the function asks for a value (``if x > 0``, ``float(x)``); when its second trace differs, as with random
        numbers, which would be drawn only while it is traced.
    NotSupportedException
        When it uses a NumPy function that cannot be traced, or writes a traced value into an array.
    ArgumentException
        When ``function`` is not callable, or an example is no array.

    Examples
    --------
    >>> import numpy as np
    >>> program = trace(lambda w, x: np.tanh(x @ w), np.ones((3, 2)), np.ones((4, 3)))
    >>> print(program)
    program(a:float64[3,2], b:float64[4,3])
      c:float64[4,2] = matmul b a
      d:float64[4,2] = tanh c
      return d
    >>> program(np.zeros((3, 2)), np.ones((4, 3))).sum()
    np.float64(0.0)
    """
    require_function(function, "function")
    return _trace_twice(getattr(function, "__name__", "the function"), function, *flatten_call(examples, named))


def trace_pure(name: str, function: Function, *examples: Any) -> TracedProgram:
    """Trace a function like `trace`, with a name for errors.

    Parameters
    ----------
    name : str
        The name of the function in errors.
    function : callable
        A pure function of the examples.
    *examples : array, number, or mappings and sequences of them
        Arguments whose shapes and dtypes count.

    Returns
    -------
    TracedProgram

    Raises
    ------
    InvalidOperationException
        When two traces of the function differ.

    Examples
    --------
    >>> import numpy as np
    >>> from aidotnet_py.autodiff.extend import trace_pure
    >>> trace_pure("the loss", lambda x: np.sum(x**2), np.ones(3)).count("sum")
    1
    """
    return _trace_twice(name, function, *flatten(examples))


def _trace_twice(name: str, function: Function, leaves: list[Any], structure: Structure) -> TracedProgram:
    program, results = record(function, leaves, structure)
    require_alike(program, record(function, leaves, structure)[0], name)
    return _freeze(program, structure, results)


def trace_once(function: Function, *examples: Any) -> TracedProgram:
    """Trace a function once: for our own code, or a Program that is dropped when its function changes.

    Parameters
    ----------
    function : callable
        A function of the examples; nothing checks that it is pure.
    *examples : array, number, or mappings and sequences of them
        Arguments whose shapes and dtypes count.

    Returns
    -------
    TracedProgram

    Examples
    --------
    >>> import numpy as np
    >>> from aidotnet_py.autodiff.extend import trace_once
    >>> trace_once(np.sin, np.zeros(2))(np.zeros(2))
    array([0., 0.])
    """
    leaves, structure = flatten(examples)
    program, results = record(function, leaves, structure)
    return _freeze(program, structure, results)


def _freeze(program: Program, arguments: Structure, results: Structure) -> TracedProgram:
    # Copies, so that later changes of the function's arrays do not change the Program.
    constants = tuple((v, _snapshot(value)) for v, value in program.constants)
    return TracedProgram(program.inputs, constants, program.equations, program.outputs, arguments, results)


def _snapshot(value: Any) -> Any:
    backend = backend_of(value)
    return frozen(value) if backend is None or is_on_host(value) else backend.asarray(value)


def _fits(value: Any, wanted: ArrayType) -> bool:
    """Whether a value has that type; a plain number has every dtype that NumPy would give it there."""
    if isinstance(value, (bool, int, float)) and not isinstance(value, np.generic):
        return wanted.shape == () and _holds(wanted.dtype, value)
    try:
        return type_of(value) == wanted
    except ArgumentException:
        return False


def _holds(dtype: np.dtype[Any], number: float) -> bool:
    if np.result_type(number, dtype) != dtype:
        return False
    return dtype.kind not in "iu" or np.iinfo(dtype).min <= number <= np.iinfo(dtype).max
