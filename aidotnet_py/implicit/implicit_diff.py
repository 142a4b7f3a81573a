"""The decorator `implicit_diff`: from a solver and the condition that its solution meets to derivatives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from itertools import pairwise
from typing import Any

import numpy as np

from aidotnet_py.autodiff.extend import (
    ArrayType,
    Program,
    Structure,
    Tracer,
    active_trace,
    as_traced,
    concatenate,
    flatten,
    new_trace,
    reshape,
    simplify,
    slice_,
    trace_once,
    type_of,
)
from aidotnet_py.backends import Array, Backend
from aidotnet_py.exceptions import ArgumentException, ArgumentNullException, InvalidOperationException
from aidotnet_py.implicit.linear_system import Settings
from aidotnet_py.implicit.root import Finder, Root, solution
from aidotnet_py.solvers.bounds import Bounds, renames_tolerance
from aidotnet_py.solvers.rows import check_count

__all__ = ["implicit_diff"]

Function = Callable[..., Any]


@renames_tolerance("rtol")
def implicit_diff(
    condition: Function,
    *,
    symmetric: bool = False,
    max_iterations: int | None = None,
    rtol: float | None = None,
    atol: float = 0.0,
) -> Callable[[Function], Function]:
    r"""Differentiate a solver through the condition that its solution meets, and never through its iterations.

    .. math::
        F(\phi(\theta), \theta) = 0 \quad\Rightarrow\quad
        \frac{\partial F}{\partial \phi}\, d\phi = -\frac{\partial F}{\partial \theta}\, d\theta, \qquad
        c^T \frac{d\phi}{d\theta} = -w^T \frac{\partial F}{\partial \theta}
        \;\text{ with }\; \Bigl(\frac{\partial F}{\partial \phi}\Bigr)^{\!T} w = c

    The decorated solver takes part in every transform of `aidotnet_py.autodiff`: ``grad``, ``jvp``, ``vjp``, ``hvp``,
    ``vmap``, ``trace``, to any order and depth. It runs on arrays, with the arguments of the moment, and is never
    traced: what is in it (SciPy, ``if``, ``float``, files) is its own business. A derivative costs one linear solve.

    Parameters
    ----------
    condition : callable
        F: ``condition(phi, *theta)`` in array code that can be traced, nested and shaped like φ. For a minimiser it is
        the gradient of the objective, ``lambda phi, theta: grad(objective)(phi, theta)``; for a fixed point,
        ``phi - step(phi, theta)``.
    symmetric : bool
        Whether ∂F/∂φ is symmetric positive definite, as the Hessian at a minimum: then `conjugate_gradient` solves,
        else `gmres`. Each solve spends one product more to see that it is symmetric.
    max_iterations : int, optional
        The most iterations of a linear solve, at least 1; None stands for ten times the size of φ.
    rtol : float, optional
        A linear solve ends when ‖b − Ax‖ ≤ max(rtol ‖b‖, atol). At least 0; None stands for 1e-10, or for a hundred
        roundings where a dtype has fewer digits (1.2e-5 in float32).
    atol : float
        See rtol; at least 0. With the default, 0, a derivative is linear in its direction, however small.

    Returns
    -------
    callable
        A decorator for solvers ``solver(initial, *theta)``. ``initial`` is an array, or a mapping or sequence of
        them, of one floating dtype: it has the shapes of φ, and derivative zero. ``theta`` are arrays, numbers, or
        mappings and sequences of them, and reach the solver as arrays. It returns φ, nested like ``initial``.

    Raises
    ------
    ArgumentException
        When condition is no function, or the solver itself; when symmetric is no truth value. When the solver is
        called, before it runs: an argument comes by name; initial is not floating, or of several dtypes; condition's
        result is not nested and shaped like it; condition does not depend on φ, or on none of theta, which would make
        every derivative zero in silence. After it ran: its result is not like ``initial``. In a derivative: symmetric
        is True, and ∂F/∂φ is not symmetric.
    ArgumentOutOfRangeException
        When max_iterations, rtol or atol lies outside its range.
    InvalidOperationException
        When the solver's result, or a linear solve, is not finite.

    Warns
    -----
    UnconvergedSolveWarning
        When a linear solve ends above its bound, as it does where ∂F/∂φ is singular.

    Notes
    -----
    The derivative is that of the exact φ, taken at the one that the solver returned: it is as exact as F(φ, θ) is near
    zero. What condition uses without being given it is differentiated all the same, but does not reach the solver.

    References
    ----------
    Blondel, M. et al. (2022). Efficient and modular implicit differentiation. NeurIPS, equations 2 and 3. For meta-
    gradients: Rajeswaran, A. et al. (2019). Meta-learning with implicit gradients. NeurIPS, lemma 1.

    Examples
    --------
    The root of φ² = θ, with the derivative 1/(2φ).

    >>> import math
    >>> import numpy as np
    >>> from aidotnet_py.autodiff import grad
    >>> from aidotnet_py.implicit import implicit_diff
    >>> @implicit_diff(lambda phi, theta: phi**2 - theta)
    ... def root(initial, theta):
    ...     return np.array(math.sqrt(float(theta)))
    >>> root(1.0, 4.0)
    array(2.)
    >>> grad(lambda theta: root(1.0, theta))(4.0)
    array(0.25)
    >>> grad(grad(lambda theta: root(1.0, theta)))(4.0).round(6)
    np.float64(-0.03125)
    """
    _require_function(condition, "condition")
    if max_iterations is not None:
        check_count("max_iterations", max_iterations)
    Bounds(rtol, atol)
    if not isinstance(symmetric, (bool, np.bool_)):  # pyright: ignore[reportUnnecessaryIsInstance] -- callers may be untyped
        raise ArgumentException(f"symmetric must be True or False, got {symmetric!r:.80}")

    def decorate(solver: Function, *others: Any) -> Function:
        if others:
            raise ArgumentException(
                f"{getattr(condition, '__name__', 'what implicit_diff was given')} was called like a solver; "
                "implicit_diff wants the condition that solutions meet, then the solver: @implicit_diff(condition)"
            )
        _require_function(solver, "the solver")
        name = getattr(solver, "__name__", type(solver).__name__)
        settings = Settings(name, bool(symmetric), max_iterations, rtol, atol)

        @wraps(solver)
        def call(initial: Any, *theta: Any, **named: Any) -> Any:
            if named:
                raise ArgumentException(
                    f"{', '.join(named)} came by name; {name} and its condition are called with the same arguments, by "
                    "their places"
                )
            for place, value in enumerate((initial, *theta)):
                _typed(value, "initial" if place == 0 else f"argument {place} of {name}")
            if active_trace() is None:
                return trace_once(call, initial, *theta)(initial, *theta)
            return _traced(condition, solver, settings, initial, theta)

        return call

    return decorate


def _require_function(value: Any, name: str) -> None:
    if value is None:
        raise ArgumentNullException(f"{name} is None; a function of φ and its arguments is wanted")
    if not callable(value):
        raise ArgumentException(f"{name} is a {type(value).__name__}; a function of φ and its arguments is wanted")


def _typed(value: Any, name: str) -> tuple[list[Any], Structure, tuple[ArrayType, ...]]:
    """The arrays of a value, how they are nested and what they are; a refusal calls the value by its name."""
    try:
        leaves, structure = flatten(value)
        return leaves, structure, tuple(map(type_of, leaves))
    except ArgumentException as error:
        raise ArgumentException(f"{name}: {error}") from error


def _traced(condition: Function, solver: Function, settings: Settings, initial: Any, theta: tuple[Any, ...]) -> Any:
    """Emit the solution into the innermost trace."""
    starts, structure = flatten(initial)
    phi = _Layout(structure, tuple(map(type_of, starts)))
    phi.require_vector()
    leaves, arguments = flatten(theta)
    program = _condition_program(condition, phi, [type_of(leaf) for leaf in leaves], arguments)
    captured = [value for _, value in program.constants]
    # Arrays that condition uses without being given them become operands, so that those of an outer trace have
    # derivatives there.
    *given, vector = program.inputs
    inputs = (*given, *(v for v, _ in program.constants), vector)
    root = Root(
        Program(inputs, (), program.equations, program.outputs),
        _finder(solver, settings.name, phi, arguments),
        settings,
    )
    _require_dependence(root, len(leaves), captured)
    return phi.split(solution(root, phi.joined(starts), [*map(as_traced, leaves), *captured]))


@dataclass(frozen=True)
class _Layout:
    """Arrays that hang together in some way, as one vector."""

    structure: Structure
    types: tuple[ArrayType, ...]

    @property
    def vector(self) -> ArrayType:
        """The vector's type."""
        return ArrayType((self.spans[-1][1],), self.types[0].dtype)

    @property
    def spans(self) -> list[tuple[int, int]]:
        """Where each array is in it."""
        return list(pairwise(int(n) for n in np.cumsum([0, *(t.size for t in self.types)])))

    def require_vector(self) -> None:
        """Refuse what does not make a vector."""
        if not any(t.size for t in self.types):
            raise ArgumentException("initial has no elements; an array, or mappings and sequences of them, is wanted")
        found = ", ".join(sorted({str(t.dtype) for t in self.types}))
        if not self.types[0].is_floating or "," in found:
            raise ArgumentException(f"initial has dtype {found}; one floating dtype is wanted for all of φ")

    def joined(self, leaves: Sequence[Any]) -> Any:
        """The traced vector of these arrays."""
        return concatenate([reshape(as_traced(x), (type_of(x).size,)) for x in leaves], 0)

    def split(self, vector: Any) -> Any:
        """The traced arrays of a vector."""
        parts = [slice_(vector, ((start, stop, 1),)) for start, stop in self.spans]
        return self.structure.unflatten([reshape(x, t.shape) for x, t in zip(parts, self.types, strict=True)])


def _condition_program(condition: Function, phi: _Layout, types: Sequence[ArrayType], arguments: Structure) -> Program:
    """F as a Program of the arguments and the vector φ."""
    with new_trace() as inner:
        theta = [inner.new_input(t) for t in types]
        vector = inner.new_input(phi.vector)
        result = condition(phi.split(vector), *arguments.unflatten(theta))
        leaves, structure, types_found = _typed(result, "the result of condition")
        found = _Layout(structure, types_found)
        if found != phi:
            raise ArgumentException(f"condition returned {_described(found)}; φ, like initial, is {_described(phi)}")
        return simplify(inner.finish([phi.joined(leaves)]))


def _described(layout: _Layout) -> str:
    return repr(layout.structure.unflatten([_Name(str(t)) for t in layout.types]))


class _Name(str):
    """A string that shows itself without quotes."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def _require_dependence(root: Root, count: int, captured: Sequence[Any]) -> None:
    """Refuse a condition whose derivatives would be zero or undefined everywhere."""
    if not root.determined:
        raise ArgumentException("condition does not depend on its first argument, φ; it says nothing about a solution")
    outer = [m for m, value in zip(root.matters[count:], captured, strict=True) if isinstance(value, Tracer)]
    if not any(root.matters[:count]) and not any(outer):
        raise ArgumentException(
            f"condition has no derivative with respect to any of the {count} arrays that {root} was called with after "
            "initial; every derivative of the solution would be zero. Pass what it depends on as arguments"
        )


def _finder(solver: Function, name: str, phi: _Layout, arguments: Structure) -> Finder:
    """The solver on vectors, its result checked."""

    def find(backend: Backend, out: Array, initial: Array, operands: Sequence[Array]) -> None:
        # Copies, so that a solver may keep them or write to them.
        start = backend.asarray(initial)
        parts = [
            backend.reshape(backend.index(start, (slice(*span),)), t.shape)
            for span, t in zip(phi.spans, phi.types, strict=True)
        ]
        theta = [backend.asarray(a) for a in operands[: arguments.leaves]]
        leaves = _fitting(backend, solver(phi.structure.unflatten(parts), *arguments.unflatten(theta)), name, phi)
        for span, leaf, t in zip(phi.spans, leaves, phi.types, strict=True):
            backend.copyto(backend.index(out, (slice(*span),)), backend.reshape(leaf, (t.size,)))
        finite = backend.to_numpy(backend.elementwise("isfinite")(out))
        if not finite.all():
            raise InvalidOperationException(
                f"{name} returned a solution of which {np.sum(~finite)} of {finite.size} numbers are not finite"
            )

    return find


def _fitting(backend: Backend, result: Any, name: str, phi: _Layout) -> list[Array]:
    """The arrays of a solver's result, in C order, once they are like φ."""
    leaves, structure, types = _typed(result, f"the result of {name}")
    # A plain number will do where φ has no axes, as it does for NumPy.
    types = tuple(
        ArrayType((), phi.types[0].dtype) if isinstance(x, (int, float)) and not isinstance(x, np.generic) else t
        for x, t in zip(leaves, types, strict=True)
    )
    found = _Layout(structure, types)
    if found != phi:
        raise ArgumentException(f"{name} returned {_described(found)}; φ, like initial, is {_described(phi)}")
    for leaf in leaves:
        if not isinstance(leaf, (int, float, np.generic)) and not backend.owns(leaf):
            raise ArgumentException(f"{name} returned an array that is not of backend {backend.name!r}, as initial is")
    return [backend.asarray(x, phi.types[0].dtype) for x in leaves]
