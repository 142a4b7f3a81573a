"""The public transforms: functions to functions. Each traces its function, transforms the Program, and runs it.

Inside another trace nothing runs: the transformed equations join that trace, so transforms nest to any depth.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np

from aidotnet_py.autodiff.execution import Executable, Idle, backend_for, plan, run_program
from aidotnet_py.autodiff.execution.linear_map import LinearMap
from aidotnet_py.autodiff.functions.indexing import is_integer
from aidotnet_py.autodiff.profiling import Profile, profile
from aidotnet_py.autodiff.program import Program
from aidotnet_py.autodiff.tracing.purity import require_alike
from aidotnet_py.autodiff.tracing.tracer import active_trace, inline, new_trace, require_alive, type_of
from aidotnet_py.autodiff.transforms.batching import vmap_program
from aidotnet_py.autodiff.transforms.differentiation import grad_program, jvp_program, vjp_program
from aidotnet_py.autodiff.transforms.simplification import simplify
from aidotnet_py.autodiff.tree import Structure, flatten
from aidotnet_py.autodiff.types import ArrayType
from aidotnet_py.backends import Backend, backend_of
from aidotnet_py.exceptions import ArgumentException, ArgumentOutOfRangeException

__all__ = [
    "TracedProgram",
    "grad",
    "hvp",
    "jvp",
    "linearize",
    "trace",
    "trace_once",
    "trace_pure",
    "value_and_grad",
    "vjp",
    "vmap",
]

Function = Callable[..., Any]


@dataclass(frozen=True, eq=False)
class TracedProgram(Program):
    """A `Program` that is called like the function it was traced from, on arrays of the same shapes and dtypes.

    Calls replay the equations over buffers that were planned once; the function's Python does not run again. Threads
    may call it at the same time, and calls may be nested: each has buffers of its own.
    """

    arguments: Structure = field(default_factory=lambda: Structure(tuple))
    results: Structure = field(default_factory=lambda: Structure(None))
    _idle: Idle = field(default_factory=Idle, repr=False)

    @property
    def peak_memory(self) -> int:
        """Bytes of all buffers of a run: intermediate values and results, after sharing."""
        return plan(self).nbytes

    def profile(self, backend: str | Backend = "numpy", *, repeats: int = 5) -> Profile:
        """Which equations the time of a run goes to, on random numbers; see `aidotnet_py.autodiff.profile`."""
        return profile(self, backend, repeats=repeats)

    def __call__(self, *args: Any, **named: Any) -> Any:
        """Run on these arguments; results are new arrays, nested as the function returned them."""
        _refuse_named(named)
        leaves, structure = flatten(args)
        if structure != self.arguments:
            raise ArgumentException("the arguments are not nested as the examples that the program was traced on")
        _require_like(leaves, self.input_types, structure, "arguments", "the program was traced on")
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


def _refuse_named(named: Mapping[str, Any]) -> None:
    if named:
        raise ArgumentException(
            f"arguments must be given by their places, got {', '.join(named)} by name; to hold one fixed, wrap the "
            "function in a lambda"
        )


def _require_function(f: object, name: str = "f") -> None:
    if not callable(f):
        raise ArgumentException(f"{name} must be a function, got {type(f).__name__}; it comes first")


def _type(leaf: Any, name: str) -> ArrayType:
    """The type of a leaf, or ArgumentException with its name."""
    try:
        return type_of(leaf)
    except ArgumentException as error:
        raise ArgumentException(f"{name}: {error}") from None


def _name(structure: Structure, root: str, place: int) -> str:
    """The name of a leaf in messages, from that of its tree."""
    return list(structure.names(root))[place]


def _types(leaves: Sequence[Any], structure: Structure, root: str = "arguments") -> list[ArrayType]:
    """The types of the leaves of a tree, or ArgumentException with the name of one that has none."""
    try:
        return [type_of(leaf) for leaf in leaves]
    except ArgumentException:
        return [_type(leaf, name) for leaf, name in zip(leaves, structure.names(root), strict=True)]


def _require_like(
    leaves: Sequence[Any], types: Sequence[ArrayType], structure: Structure, root: str, like: str
) -> None:
    """Refuse a leaf of a tree of that name that has not its type."""
    for place, (leaf, wanted) in enumerate(zip(leaves, types, strict=True)):
        if not _fits(leaf, wanted):
            name = _name(structure, root, place)
            raise ArgumentException(f"{name} is {_type(leaf, name)}; {like} {wanted}")


def _record(function: Function, leaves: Sequence[Any], structure: Structure) -> tuple[Program, Structure]:
    """The Program of a function on arguments like these, and how its results hang together."""
    types = _types(leaves, structure)
    with new_trace() as trace_:
        inputs = [trace_.new_input(of) for of in types]
        outputs, results = flatten(function(*structure.unflatten(inputs)))
        return simplify(trace_.finish(outputs)), results


def _apply(program: Program, leaves: Sequence[Any]) -> list[Any]:
    if active_trace() is not None:
        return inline(program, leaves)
    return run_program(program, leaves)


def trace(function: Function, *examples: Any, **named: Any) -> TracedProgram:
    """Record a function as a `Program`, on arguments with the shapes and dtypes of the examples.

    Parameters
    ----------
    function : callable
        Array code: operators, NumPy functions, and those of `aidotnet_py.autodiff`. It runs twice, on traced values.
    *examples : array, number, or mappings and sequences of them
        Only their shapes and dtypes matter.

    Returns
    -------
    TracedProgram
        Prints readably, knows its ``flops``, ``bytes`` and ``peak_memory``, and is called like the function.

    Raises
    ------
    InvalidOperationException
        When the function asks for a value (``if x > 0``, ``float(x)``); when it does something else the second time,
        as with random numbers, which would be drawn here and never again.
    NotSupportedException
        When it uses a NumPy function that cannot be traced, or writes a traced value into an array.
    ArgumentException
        When it is no function, or an example comes by name.

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
    _require_function(function, "function")
    _refuse_named(named)
    return trace_pure(getattr(function, "__name__", "the function"), function, *examples)


def trace_pure(name: str, function: Function, *examples: Any) -> TracedProgram:
    """`trace` of a function that an error calls by a name."""
    leaves, structure = flatten(examples)
    program, results = _record(function, leaves, structure)
    require_alike(program, _record(function, leaves, structure)[0], name)
    return _traced(program, structure, results)


def trace_once(function: Function, *examples: Any) -> TracedProgram:
    """`trace` without the second run: for a Program that runs while the function is what it is, or of our own code."""
    leaves, structure = flatten(examples)
    program, results = _record(function, leaves, structure)
    return _traced(program, structure, results)


def _traced(program: Program, arguments: Structure, results: Structure) -> TracedProgram:
    # Copied, so that what the program computes does not change with the arrays that the function happened to use.
    constants = tuple((v, _snapshot(value)) for v, value in program.constants)
    return TracedProgram(program.inputs, constants, program.equations, program.outputs, arguments, results)


def _snapshot(value: Any) -> Any:
    backend = backend_of(value)
    return value if backend is None else backend.asarray(value)


def _selected(args: Sequence[Any], argument: int) -> tuple[list[Any], Structure, list[bool], Structure]:
    """The arguments flattened, and which leaves belong to the one differentiated."""
    if not -len(args) <= argument < len(args):
        raise ArgumentOutOfRangeException(f"argument is {argument}; the function was called with {len(args)} arguments")
    leaves, structure = flatten(tuple(args))
    chosen = structure.children[argument]
    before = sum(c.leaves for c in structure.children[: argument % len(args)])
    wrt = [before <= i < before + chosen.leaves for i in range(len(leaves))]
    differentiated = [leaf for leaf, chosen_too in zip(leaves, wrt, strict=True) if chosen_too]
    _require_floating(differentiated, chosen, f"arguments[{argument % len(args)}]")
    return leaves, structure, wrt, chosen


def _require_floating(leaves: Sequence[Any], structure: Structure, root: str) -> None:
    """Refuse a leaf of a tree of that name that has no derivatives."""
    for place, of in enumerate(_types(leaves, structure, root)):
        if not of.is_floating:
            raise ArgumentException(
                f"{_name(structure, root, place)} has dtype {of.dtype}; derivatives want a floating one"
            )


def _require_scalar(program: Program, results: Structure) -> None:
    if results != Structure(None) or program.output_types[0].shape or not program.output_types[0].is_floating:
        types = ", ".join(map(str, program.output_types))
        raise ArgumentException(f"the function returned {types or 'nothing'}; a gradient wants one floating scalar")


def value_and_grad(f: Function, argument: int = 0) -> Function:
    """Return f with its gradient ∇f with respect to one argument, by reverse mode.

    Parameters
    ----------
    f : callable
        Returns a floating scalar.
    argument : int
        Which positional argument to differentiate; it may be a mapping or sequence of arrays.

    Returns
    -------
    callable
        With f's arguments; returns ``(value, gradient)``, the gradient nested like the argument.

    Raises
    ------
    ArgumentException
        When f is no function, argument no int, or an argument comes by name; when f does not return a floating
        scalar, or the argument is not floating.
    ArgumentOutOfRangeException
        When f is called with too few arguments.

    Examples
    --------
    >>> import numpy as np
    >>> value_and_grad(lambda x: np.sum(x**2))(np.array([1.0, 2.0]))
    (array(5.), array([2., 4.]))
    """
    _require_function(f)
    if not is_integer(argument):
        raise ArgumentException(
            f"argument must be an int, got {argument!r}; for the gradient in several arguments, take them as one tuple"
        )

    def with_gradient(*args: Any, **named: Any) -> tuple[Any, Any]:
        _refuse_named(named)
        leaves, structure, wrt, chosen = _selected(args, argument)
        program, results = _record(f, leaves, structure)
        _require_scalar(program, results)
        value, *gradient = _apply(grad_program(program, wrt), leaves)
        return value, chosen.unflatten(gradient)

    return with_gradient


def grad(f: Function, argument: int = 0) -> Function:
    """The gradient ∇f of a scalar function with respect to one argument; see `value_and_grad`.

    Examples
    --------
    >>> import numpy as np
    >>> grad(np.tanh)(0.0)
    array(1.)
    >>> grad(grad(lambda x: x**3))(2.0)
    array(12.)
    """
    both = value_and_grad(f, argument)

    def gradient(*args: Any, **named: Any) -> Any:
        return both(*args, **named)[1]

    return gradient


def _directions(tangents: Any, primals: Sequence[Any], structure: Structure, names: tuple[str, str]) -> list[Any]:
    """The leaves of a tree of tangents, once it fits that of the primals; both by the names that their caller gave."""
    of_tangents, of_primals = names
    _require_floating(primals, structure, of_primals)
    leaves, came = flatten(tangents)
    if came != structure:
        raise ArgumentException(f"{of_tangents} must be nested as {of_primals}, with as many entries")
    _require_like(leaves, [type_of(p) for p in primals], structure, of_tangents, f"{of_primals} has")
    return leaves


def _fits(value: Any, wanted: ArrayType) -> bool:
    """Whether a value is of that type; a plain number takes the dtype wanted where NumPy would give it that."""
    if isinstance(value, (bool, int, float)) and not isinstance(value, np.generic):
        return wanted.shape == () and np.result_type(value, wanted.dtype) == wanted.dtype
    try:
        return type_of(value) == wanted
    except ArgumentException:
        return False


def _pushed(f: Function, leaves: list[Any], structure: Structure, directions: list[Any]) -> tuple[Any, Any]:
    """The value of f at some arguments, and its tangent along directions."""
    program, results = _record(f, leaves, structure)
    out = _apply(jvp_program(program, [True] * len(leaves)), [*leaves, *directions])
    half = len(program.outputs)
    return results.unflatten(out[:half]), results.unflatten(out[half:])


def jvp(f: Function, primals: Sequence[Any], tangents: Sequence[Any]) -> tuple[Any, Any]:
    """f(x) and the directional derivative J(x) t, by forward mode.

    Parameters
    ----------
    f : callable
        Any array function.
    primals, tangents : sequence
        One entry a positional argument of f, of equal shapes and floating dtypes.

    Returns
    -------
    (value, tangent)

    Raises
    ------
    ArgumentException
        When f is no function, primals or tangents are no tuples, or tangents do not match primals.

    Examples
    --------
    >>> import numpy as np
    >>> jvp(np.sin, (0.0,), (2.0,))
    (array(0.), array(2.))
    """
    _require_function(f)
    for name, arguments in (("primals", primals), ("tangents", tangents)):
        if not isinstance(arguments, (tuple, list)):  # pyright: ignore[reportUnnecessaryIsInstance] -- callers may be untyped
            raise ArgumentException(
                f"{name} is a {type(arguments).__name__}; a tuple with one entry an argument is wanted"
            )
    leaves, structure = flatten(tuple(primals))
    directions = _directions(tuple(tangents), leaves, structure, ("tangents", "primals"))
    return _pushed(f, leaves, structure, directions)


def vjp(f: Function, *primals: Any, **named: Any) -> tuple[Any, Function]:
    """f(x), and the function c ↦ J(x)ᵀ c, by reverse mode, with everything that depends on x alone computed once.

    Parameters
    ----------
    f : callable
        Any array function.
    *primals : array, or mappings and sequences of them
        Floating arguments of f.

    Returns
    -------
    (value, pullback)
        ``pullback(cotangent)`` takes what is nested like the value and returns a tuple, one cotangent an argument.

    Raises
    ------
    ArgumentException
        When f is no function; a primal is not floating, or comes by name; the cotangent is not like the value.

    Examples
    --------
    >>> import numpy as np
    >>> value, pullback = vjp(lambda x: np.array([[1.0, 2.0], [3.0, 4.0]]) @ x, np.array([1.0, 1.0]))
    >>> pullback(np.array([1.0, 0.0]))
    (array([1., 2.]),)
    """
    _require_function(f)
    _refuse_named(named)
    leaves, structure = flatten(primals)
    _require_floating(leaves, structure, "primals")
    program, results = _record(f, leaves, structure)
    at_point = LinearMap(vjp_program(program, [True] * len(leaves)), leaves, len(program.outputs))

    def pullback(cotangent: Any) -> Any:
        seeds, seed_structure = flatten(cotangent)
        if seed_structure != results:
            raise ArgumentException("cotangent must be nested as the function's value")
        _require_like(seeds, program.output_types, results, "cotangent", "the function's value has")
        return structure.unflatten(at_point(seeds))

    return results.unflatten(at_point.values), pullback


def hvp(f: Function, x: Any, v: Any) -> Any:
    """The Hessian-vector product ∇²f(x) v of a scalar function: the exact derivative of the gradient along v.

    Forward over reverse (Pearlmutter 1994); the Hessian is never formed.

    Parameters
    ----------
    f : callable
        Takes x, returns a floating scalar.
    x, v : array, or mappings and sequences of them
        The point and the vector, nested alike.

    Returns
    -------
    Like x.

    Raises
    ------
    ArgumentException
        When f is no function of x to a floating scalar, x is not floating, or v is not like x.

    Examples
    --------
    >>> import numpy as np
    >>> hvp(lambda x: np.sum(x**3), np.array([1.0, 2.0]), np.array([1.0, 0.0]))
    array([6., 0.])
    """
    _require_function(f)
    leaves, structure = flatten(x)
    directions = _directions(v, leaves, structure, ("v", "x"))
    return _pushed(grad(f), leaves, Structure(tuple, (structure,)), directions)[1]


def linearize(f: Function, x: Any) -> tuple[Any, Function]:
    """f(x), and the linear function t ↦ J(x) t with everything that depends on x alone computed once.

    Parameters
    ----------
    f : callable
        Takes x.
    x : array, or mappings and sequences of them
        The point.

    Returns
    -------
    (value, linear)

    Raises
    ------
    ArgumentException
        When f is no function, or x is not floating; when a t is not like x.

    Examples
    --------
    >>> import numpy as np
    >>> value, linear = linearize(np.exp, np.array([0.0]))
    >>> linear(np.array([3.0]))
    array([3.])
    """
    _require_function(f)
    leaves, structure = flatten(x)
    _require_floating(leaves, structure, "x")
    program, results = _record(f, leaves, Structure(tuple, (structure,)))
    at_point = LinearMap(jvp_program(program, [True] * len(leaves)), leaves, len(program.outputs))

    def linear(t: Any) -> Any:
        return results.unflatten(at_point(_directions(t, leaves, structure, ("t", "x"))))

    return results.unflatten(at_point.values), linear


def vmap(f: Function, in_axes: int | Sequence[int | None] | None = 0) -> Function:
    """Apply f over an axis of its arguments, in one program: every result gets the axis in front.

    Parameters
    ----------
    f : callable
        Written for one element.
    in_axes : int, or one int or None for each argument
        The axis to map; None for an argument that all elements share.

    Returns
    -------
    callable

    Raises
    ------
    ArgumentException
        When f is no function, or in_axes no int, None or sequence of them, one for each argument; when an argument
        comes by name; when the mapped axes differ in length, or none is mapped.

    Examples
    --------
    >>> import numpy as np
    >>> vmap(np.dot)(np.ones((4, 3)), np.ones((4, 3)))
    array([3., 3., 3., 3.])
    """
    _require_function(f)
    alike = not isinstance(in_axes, (tuple, list))
    given = cast("list[int | None]", list(in_axes) if isinstance(in_axes, (tuple, list)) else [in_axes])
    if not all(axis is None or is_integer(axis) for axis in given):
        raise ArgumentException(f"in_axes must be an int or None, or one of these for each argument, got {in_axes!r}")

    def mapped(*args: Any, **named: Any) -> Any:
        _refuse_named(named)
        axes = given * len(args) if alike else given
        if len(axes) != len(args):
            raise ArgumentException(
                f"in_axes has {len(axes)} entries; the function was called with {len(args)} arguments"
            )
        leaves, structure = flatten(args)
        of_leaf = [axis for axis, child in zip(axes, structure.children, strict=True) for _ in range(child.leaves)]
        size = _mapped_length(leaves, of_leaf, structure)

        def moved(*values: Any) -> Any:
            flat, _ = flatten(values)
            ordered = [v if a in (None, 0) else np.moveaxis(v, a, 0) for v, a in zip(flat, of_leaf, strict=True)]
            element_types = [
                type_of(v) if a is None else type_of(v).with_shape(type_of(v).shape[1:])
                for v, a in zip(ordered, of_leaf, strict=True)
            ]
            with new_trace() as inner:
                inputs = [inner.new_input(t) for t in element_types]
                outputs, results[0] = flatten(f(*structure.unflatten(inputs)))
                element = simplify(inner.finish(outputs))
            return inline(vmap_program(element, [a is not None for a in of_leaf], size), ordered)

        results: list[Structure] = [Structure(None)]
        program, _ = _record(moved, leaves, structure)
        return results[0].unflatten(_apply(program, leaves))

    return mapped


def _mapped_length(leaves: Sequence[Any], axes: Sequence[int | None], structure: Structure) -> int:
    lengths: set[int] = set()
    for place, (of, axis) in enumerate(zip(_types(leaves, structure), axes, strict=True)):
        if axis is None:
            continue
        shape = of.shape
        if not -len(shape) <= axis < len(shape):
            name = _name(structure, "arguments", place)
            raise ArgumentException(f"in_axes asks for axis {axis} of {name}, an array of shape {shape}")
        lengths.add(shape[axis])
    if len(lengths) != 1:
        found = "no argument is mapped" if not lengths else f"the mapped axes have lengths {sorted(lengths)}"
        raise ArgumentException(f"{found}; vmap wants one length")
    return lengths.pop()
