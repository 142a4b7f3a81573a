"""The public transforms, functions to functions: each traces its function, transforms the Program, and runs it.

Inside another trace, the transformed equations join that trace instead of running, so transforms nest to any depth.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, cast

import numpy as np

from aidotnet_py.autodiff.execution import run_program
from aidotnet_py.autodiff.execution.linear_map import LinearMap
from aidotnet_py.autodiff.functions.indexing import is_integer
from aidotnet_py.autodiff.program import Program
from aidotnet_py.autodiff.traced_program import (
    Function,
    call_nested,
    flatten_call,
    name_of_leaf,
    record,
    require_function,
    require_like,
)
from aidotnet_py.autodiff.tracing.emission import as_traced, inline
from aidotnet_py.autodiff.tracing.recording import active_trace, new_trace
from aidotnet_py.autodiff.tracing.value_types import is_array, type_of, types_of
from aidotnet_py.autodiff.transforms.batching import vmap_program
from aidotnet_py.autodiff.transforms.differentiation import grad_program, jvp_program, vjp_program
from aidotnet_py.autodiff.transforms.jacobians import hessian_program, jacobian_program
from aidotnet_py.autodiff.transforms.simplification import simplify
from aidotnet_py.autodiff.tree import Structure, flatten
from aidotnet_py.autodiff.types import ArrayType
from aidotnet_py.exceptions import ArgumentException, ArgumentOutOfRangeException

__all__ = [
    "grad",
    "hessian",
    "hvp",
    "jacobian",
    "jvp",
    "linearize",
    "value_and_grad",
    "vjp",
    "vmap",
]


def _with_fixed(f: Function, named: Mapping[str, Any]) -> Function:
    """Return f, for a trace, with arguments by name held fixed."""
    if not named:
        return f
    return lambda *args: f(*args, **{name: _as_constant(value) for name, value in named.items()})


def _as_constant(value: Any) -> Any:
    """Return a value with its arrays as constants of the trace; what holds no arrays, such as a text, stays."""
    try:
        leaves, structure = flatten(value)
    except ArgumentException:
        return value
    return structure.unflatten([as_traced(leaf) if is_array(leaf) else leaf for leaf in leaves])


def _apply(program: Program, leaves: Sequence[Any]) -> list[Any]:
    if active_trace() is not None:
        return inline(program, leaves)
    return run_program(program, leaves)


@dataclass(frozen=True, eq=False)
class _Arguments:
    """The arguments of a call, flattened, with those to differentiate.

    ``spans`` has, for each of these, in the order asked for, its leaves' places and its structure; ``alone`` is whether
    one was asked for, not a tuple.
    """

    leaves: list[Any]
    structure: Structure
    spans: list[tuple[range, Structure]]
    alone: bool

    @property
    def wrt(self) -> list[bool]:
        """Whether each leaf is to be differentiated."""
        chosen = {place for span, _ in self.spans for place in span}
        return [place in chosen for place in range(len(self.leaves))]

    def nested(self, results: Sequence[Any]) -> Any:
        """Nest results, one for each leaf to differentiate in the order of leaves, like the arguments."""
        places = [place for place, chosen in enumerate(self.wrt) if chosen]
        by_place = dict(zip(places, results, strict=True))
        trees = tuple(structure.unflatten([by_place[place] for place in span]) for span, structure in self.spans)
        return trees[0] if self.alone else trees


Argument = int | Sequence[int]


def _checked_argument(argument: Any) -> Argument:
    several = cast("Sequence[Any]", argument if isinstance(argument, (tuple, list)) else (argument,))
    if not several or not all(map(is_integer, several)):
        raise ArgumentException(
            f"argument must be an int, or a tuple of ints for the derivatives in several arguments, got {argument!r}"
        )
    return cast(Argument, argument)


def _select(args: tuple[Any, ...], argument: Argument) -> _Arguments:
    """Flatten the arguments of a call, and find those to differentiate."""
    count = len(args)
    alone = not isinstance(argument, (tuple, list))
    asked = cast("list[int]", [argument] if alone else argument)
    outside = [place for place in asked if not -count <= place < count]
    if outside:
        raise ArgumentOutOfRangeException(f"argument must be the place of one of {count} arguments, got {outside[0]}")
    places = [int(place) % count for place in asked]
    if len(set(places)) < len(places):
        raise ArgumentException(f"argument must have each place once, got {argument} of {count} arguments")
    leaves, structure = flatten(args)
    starts = list(accumulate((c.leaves for c in structure.children), initial=0))
    spans = [(range(starts[i], starts[i + 1]), structure.children[i]) for i in places]
    for i, (span, child) in zip(places, spans, strict=True):
        _require_floating([leaves[k] for k in span], child, f"arguments[{i}]")
    return _Arguments(leaves, structure, spans, alone)


def _require_floating(leaves: Sequence[Any], structure: Structure, root: str) -> None:
    """Refuse a leaf without derivatives; errors call the tree ``root``."""
    for place, of in enumerate(types_of(leaves, structure, root)):
        if not of.is_floating:
            name = name_of_leaf(structure, root, place)
            raise ArgumentException(f"{name} must have a floating dtype to be differentiated, got {of.dtype}")


def _require_scalar(program: Program, results: Structure) -> None:
    if results != Structure(None) or program.output_types[0].shape or not program.output_types[0].is_floating:
        types = ", ".join(map(str, program.output_types))
        raise ArgumentException(
            f"the function must return one floating scalar to have a gradient, got {types or 'nothing'}"
        )


def value_and_grad(f: Function, argument: Argument = 0) -> Function:
    """Return f with its gradient ∇f with respect to one argument, or several, by reverse mode.

    Parameters
    ----------
    f : callable
        Returns a floating scalar.
    argument : int or tuple of int
        The positional argument to differentiate; it may be a mapping or sequence of arrays. A tuple asks for the
        gradients in several arguments.

    Returns
    -------
    callable
        With f's arguments; returns ``(value, gradient)``, the gradient nested like the argument, or a tuple of
        gradients for a tuple. Arguments by name are held fixed.

    Raises
    ------
    ArgumentException
        When f is not callable, or ``argument`` is neither an int nor a tuple of distinct ints; when f does not return a
        floating scalar, or an argument to differentiate is not floating.
    ArgumentOutOfRangeException
        When f is called with too few arguments.

    Examples
    --------
    >>> import numpy as np
    >>> value_and_grad(lambda x: np.sum(x**2))(np.array([1.0, 2.0]))
    (array(5.), array([2., 4.]))
    """
    require_function(f)
    places = _checked_argument(argument)

    def with_gradient(*args: Any, **named: Any) -> tuple[Any, Any]:
        arguments = _select(args, places)
        program, results = record(_with_fixed(f, named), arguments.leaves, arguments.structure)
        _require_scalar(program, results)
        value, *gradient = _apply(grad_program(program, arguments.wrt), arguments.leaves)
        return value, arguments.nested(gradient)

    return with_gradient


def grad(f: Function, argument: Argument = 0) -> Function:
    """Return the gradient function ∇f of a scalar function in one argument, or several; see `value_and_grad`.

    Examples
    --------
    >>> import numpy as np
    >>> grad(np.tanh)(0.0)
    array(1.)
    >>> grad(grad(lambda x: x**3))(2.0)
    array(12.)
    >>> grad(lambda x, y, *, scale: scale * x * y, argument=(0, 1))(2.0, 3.0, scale=10.0)
    (array(30.), array(20.))
    """
    with_value = value_and_grad(f, argument)

    def gradient(*args: Any, **named: Any) -> Any:
        return with_value(*args, **named)[1]

    return gradient


def jacobian(f: Function, argument: Argument = 0) -> Function:
    """Return the function of f's Jacobian ∂f/∂x with respect to one argument, or several, all rows in one batch.

    Parameters
    ----------
    f : callable
        Returns floating arrays, or mappings and sequences of them.
    argument : int or tuple of int
        The positional argument to differentiate, as for `grad`.

    Returns
    -------
    callable
        With f's arguments; returns, nested like f's result, derivatives nested like the argument, each of shape
        ``(*result.shape, *argument.shape)``. Arguments by name are held fixed.

    Raises
    ------
    ArgumentException
        When f is not callable or does not return floating arrays; as for `value_and_grad` otherwise.

    Notes
    -----
    Forward mode if the argument has no more elements than the result, else reverse mode. The memory is that of f times
    the smaller of the two numbers.

    Examples
    --------
    >>> import numpy as np
    >>> jacobian(lambda x: x[:2] * x[2])(np.array([1.0, 2.0, 3.0]))
    array([[3., 0., 1.],
           [0., 3., 2.]])
    """
    require_function(f)
    places = _checked_argument(argument)

    def derivatives(*args: Any, **named: Any) -> Any:
        arguments = _select(args, places)
        program, results = record(_with_fixed(f, named), arguments.leaves, arguments.structure)
        if not all(of.is_floating for of in program.output_types):
            types = ", ".join(map(str, program.output_types))
            raise ArgumentException(f"the function must return floating values to have a Jacobian, got {types}")
        blocks = _apply(jacobian_program(program, arguments.wrt), arguments.leaves)
        return results.unflatten(_nested_rows(blocks, arguments, results.leaves))

    return derivatives


def hessian(f: Function, argument: Argument = 0) -> Function:
    """Return the function of the Hessian ∇²f of a scalar function in one argument, or several; see `jacobian`.

    Forward over reverse mode, all columns in one batch. For products with vectors alone, `hvp` takes less.

    Parameters
    ----------
    f : callable
        Returns a floating scalar.
    argument : int or tuple of int
        The positional argument to differentiate, as for `grad`.

    Returns
    -------
    callable
        With f's arguments; returns, nested like the gradient, derivatives nested like the argument, each of shape
        ``(*gradient.shape, *argument.shape)``. Arguments by name are held fixed.

    Raises
    ------
    ArgumentException
        As for `value_and_grad`.

    Examples
    --------
    >>> import numpy as np
    >>> hessian(lambda x: x[0] * x[1] ** 2)(np.array([1.0, 2.0]))
    array([[0., 4.],
           [4., 2.]])
    """
    require_function(f)
    places = _checked_argument(argument)

    def derivatives(*args: Any, **named: Any) -> Any:
        arguments = _select(args, places)
        program, results = record(_with_fixed(f, named), arguments.leaves, arguments.structure)
        _require_scalar(program, results)
        second = hessian_program(grad_program(program, arguments.wrt), arguments.wrt)
        rows = _nested_rows(_apply(second, arguments.leaves), arguments, sum(arguments.wrt))
        return arguments.nested(rows)

    return derivatives


def _nested_rows(blocks: Sequence[Any], arguments: _Arguments, rows: int) -> list[Any]:
    """Nest the derivatives of so many outputs, one after the other, like the arguments."""
    count = sum(arguments.wrt)
    return [arguments.nested(blocks[row * count : (row + 1) * count]) for row in range(rows)]


def _flatten_like(tree: Any, structure: Structure, types: Sequence[ArrayType], name: str, like: str) -> list[Any]:
    """Flatten a tree that must be nested and typed like another; errors call them ``name`` and ``like``."""
    leaves, own = flatten(tree, name)
    if own != structure:
        raise ArgumentException(f"{name} must be nested like {like}, with as many entries")
    require_like(leaves, types, structure, name, like)
    return leaves


def _push_forward(f: Function, leaves: list[Any], structure: Structure, directions: list[Any]) -> tuple[Any, Any]:
    """Return the value of f at its arguments, and its tangent along directions."""
    program, results = record(f, leaves, structure)
    out = _apply(jvp_program(program, [True] * len(leaves)), [*leaves, *directions])
    half = len(program.outputs)
    return results.unflatten(out[:half]), results.unflatten(out[half:])


def jvp(f: Function, primals: Sequence[Any], tangents: Sequence[Any], /, **named: Any) -> tuple[Any, Any]:
    """Return f(x) and the directional derivative J(x) t, by forward mode.

    Parameters
    ----------
    f : callable
        Any array function.
    primals, tangents : sequence
        One entry for each positional argument of f, of equal shapes and floating dtypes.
    **named
        Arguments of f by name, held fixed.

    Returns
    -------
    (value, tangent)

    Raises
    ------
    ArgumentException
        When f is not callable, primals or tangents are not tuples, or tangents do not match primals.

    Examples
    --------
    >>> import numpy as np
    >>> jvp(np.sin, (0.0,), (2.0,))
    (array(0.), array(2.))
    """
    require_function(f)
    for name, arguments in (("primals", primals), ("tangents", tangents)):
        if not isinstance(arguments, (tuple, list)):  # pyright: ignore[reportUnnecessaryIsInstance] -- callers may be untyped
            raise ArgumentException(
                f"{name} must be a tuple with one entry for each argument, got {type(arguments).__name__}"
            )
    leaves, structure = flatten(tuple(primals), "primals")
    _require_floating(leaves, structure, "primals")
    directions = _flatten_like(tuple(tangents), structure, list(map(type_of, leaves)), "tangents", "primals")
    return _push_forward(_with_fixed(f, named), leaves, structure, directions)


def vjp(f: Function, /, *primals: Any, **named: Any) -> tuple[Any, Function]:
    """Return f(x) and the function c ↦ J(x)ᵀ c, by reverse mode; all that depends on x alone is computed once.

    Parameters
    ----------
    f : callable
        Any array function.
    *primals : array, or mappings and sequences of them
        Floating arguments of f.
    **named
        Arguments of f by name, held fixed.

    Returns
    -------
    (value, pullback)
        ``pullback(cotangent)`` takes a tree nested like the value and returns a tuple of one cotangent per primal.

    Raises
    ------
    ArgumentException
        When f is not callable; a primal is not floating; the cotangent is not like the value.

    Examples
    --------
    >>> import numpy as np
    >>> value, pullback = vjp(lambda x: np.array([[1.0, 2.0], [3.0, 4.0]]) @ x, np.array([1.0, 1.0]))
    >>> pullback(np.array([1.0, 0.0]))
    (array([1., 2.]),)
    """
    require_function(f)
    leaves, structure = flatten(primals, "primals")
    _require_floating(leaves, structure, "primals")
    program, results = record(_with_fixed(f, named), leaves, structure)
    at_point = LinearMap(vjp_program(program, [True] * len(leaves)), leaves, len(program.outputs))

    def pullback(cotangent: Any) -> Any:
        seeds = _flatten_like(cotangent, results, program.output_types, "cotangent", "the function's value")
        return structure.unflatten(at_point(seeds))

    return results.unflatten(at_point.values), pullback


def hvp(f: Function, x: Any, v: Any, /, **named: Any) -> Any:
    """Return the Hessian-vector product ∇²f(x) v of a scalar function: the exact derivative of the gradient along v.

    Forward over reverse (Pearlmutter 1994); the Hessian is never formed.

    Parameters
    ----------
    f : callable
        Takes x, returns a floating scalar.
    x, v : array, or mappings and sequences of them
        The point and the vector, nested alike.
    **named
        Arguments of f by name, held fixed.

    Returns
    -------
    Like x.

    Raises
    ------
    ArgumentException
        When f is not a function of x to a floating scalar, x is not floating, or v is not like x.

    Examples
    --------
    >>> import numpy as np
    >>> hvp(lambda x: np.sum(x**3), np.array([1.0, 2.0]), np.array([1.0, 0.0]))
    array([6., 0.])
    """
    require_function(f)
    leaves, structure = flatten(x, "x")
    _require_floating(leaves, structure, "x")
    directions = _flatten_like(v, structure, list(map(type_of, leaves)), "v", "x")
    return _push_forward(grad(_with_fixed(f, named)), leaves, Structure(tuple, (structure,)), directions)[1]


def linearize(f: Function, x: Any, /, **named: Any) -> tuple[Any, Function]:
    """Return f(x) and the linear function t ↦ J(x) t; all that depends on x alone is computed once.

    Parameters
    ----------
    f : callable
        Takes x.
    x : array, or mappings and sequences of them
        The point.
    **named
        Arguments of f by name, held fixed.

    Returns
    -------
    (value, linear)

    Raises
    ------
    ArgumentException
        When f is not callable, or x is not floating; when t is not like x.

    Examples
    --------
    >>> import numpy as np
    >>> value, linear = linearize(np.exp, np.array([0.0]))
    >>> linear(np.array([3.0]))
    array([3.])
    """
    require_function(f)
    leaves, structure = flatten(x, "x")
    _require_floating(leaves, structure, "x")
    types = list(map(type_of, leaves))
    program, results = record(_with_fixed(f, named), leaves, Structure(tuple, (structure,)))
    at_point = LinearMap(jvp_program(program, [True] * len(leaves)), leaves, len(program.outputs))

    def linear(t: Any) -> Any:
        return results.unflatten(at_point(_flatten_like(t, structure, types, "t", "x")))

    return results.unflatten(at_point.values), linear


def vmap(f: Function, in_axes: int | Sequence[int | None] | None = 0) -> Function:
    """Apply f along an axis of its arguments, in one Program; every result has the axis in front.

    Parameters
    ----------
    f : callable
        A function of one element.
    in_axes : int, or one int or None for each positional argument
        The axis to map; None: all elements share the argument. Arguments by name are mapped along their first axis.

    Returns
    -------
    callable

    Raises
    ------
    ArgumentException
        When f is not callable, or in_axes is not an int, None or one of these for each argument; when the mapped axes
        differ in length, or none is mapped.

    Examples
    --------
    >>> import numpy as np
    >>> vmap(np.dot)(np.ones((4, 3)), np.ones((4, 3)))
    array([3., 3., 3., 3.])
    """
    require_function(f)
    alike = not isinstance(in_axes, (tuple, list))
    given = cast("list[int | None]", list(in_axes) if isinstance(in_axes, (tuple, list)) else [in_axes])
    if not all(axis is None or is_integer(axis) for axis in given):
        raise ArgumentException(f"in_axes must be an int or None, or one of these for each argument, got {in_axes!r}")

    def call(*args: Any, **named: Any) -> Any:
        axes = given * len(args) if alike else given
        if len(axes) != len(args):
            raise ArgumentException(f"in_axes must have one entry for each of {len(args)} arguments, got {len(axes)}")
        leaves, structure = flatten_call(args, named)
        axes = [*axes, *([0] * len(named))]
        of_leaf = [axis for axis, child in zip(axes, structure.children, strict=True) for _ in range(child.leaves)]
        size = _common_length(leaves, of_leaf, structure)

        def over_axis(*flat: Any) -> Any:
            ordered = [v if a in (None, 0) else np.moveaxis(v, a, 0) for v, a in zip(flat, of_leaf, strict=True)]
            element_types = [
                type_of(v) if a is None else type_of(v).with_shape(type_of(v).shape[1:])
                for v, a in zip(ordered, of_leaf, strict=True)
            ]
            with new_trace() as inner:
                inputs = [inner.new_input(t) for t in element_types]
                outputs, results[0] = flatten(call_nested(f, structure, inputs), "the function's result")
                element = simplify(inner.finish(outputs))
            return inline(vmap_program(element, [a is not None for a in of_leaf], size), ordered)

        results: list[Structure] = [Structure(None)]
        program, _ = record(over_axis, leaves, Structure(tuple, (Structure(None),) * len(leaves)))
        return results[0].unflatten(_apply(program, leaves))

    return call


def _common_length(leaves: Sequence[Any], axes: Sequence[int | None], structure: Structure) -> int:
    lengths: set[int] = set()
    for place, (of, axis) in enumerate(zip(types_of(leaves, structure, "arguments"), axes, strict=True)):
        if axis is None:
            continue
        shape = of.shape
        if not -len(shape) <= axis < len(shape):
            name = name_of_leaf(structure, "arguments", place)
            raise ArgumentException(f"in_axes must be axes of the arguments, got {axis} for {name} of shape {shape}")
        lengths.add(shape[axis])
    if not lengths:
        raise ArgumentException("in_axes must map at least one argument, got None for all of them")
    if len(lengths) > 1:
        raise ArgumentException(f"mapped axes must have one length, got {sorted(lengths)}")
    return lengths.pop()
