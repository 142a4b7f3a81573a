"""The decorator `implicit_diff`: derivatives from a solver and the condition that its solution satisfies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from itertools import pairwise
from typing import Any

import numpy as np

from aidotnet_py.arguments import COUNT
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
    types_of,
)
from aidotnet_py.backends import Array, Backend
from aidotnet_py.exceptions import ArgumentException, ArgumentNullException, InvalidOperationException
from aidotnet_py.implicit.linear_system import Settings
from aidotnet_py.implicit.root import Finder, Root, solution
from aidotnet_py.keywords import suggests_keywords
from aidotnet_py.solvers.bounds import Bounds, renames_tolerance

__all__ = ["implicit_diff"]

Function = Callable[..., Any]


@renames_tolerance("rtol")
@suggests_keywords(tol="rtol", maxiter="max_iterations")
def implicit_diff(
    condition: Function,
    *,
    symmetric: bool = False,
    max_iterations: int | None = None,
    rtol: float | None = None,
    atol: float = 0.0,
) -> Callable[[Function], Function]:
    r"""Differentiate a solver through the condition that its solution satisfies, never through its iterations.

    .. math::
        F(\phi(\theta), \theta) = 0 \quad\Rightarrow\quad
        \frac{\partial F}{\partial \phi}\, d\phi = -\frac{\partial F}{\partial \theta}\, d\theta, \qquad
        c^T \frac{d\phi}{d\theta} = -w^T \frac{\partial F}{\partial \theta}
        \;\text{ with }\; \Bigl(\frac{\partial F}{\partial \phi}\Bigr)^{\!T} w = c

    The decorated solver takes part in every transform of `aidotnet_py.autodiff`: ``grad``, ``jvp``, ``vjp``, ``hvp``,
    ``vmap``, ``trace``, to any order and depth. It runs on arrays and is never traced, so it may use SciPy, ``if``,
    ``float`` or files. A derivative costs one linear solve.

    Parameters
    ----------
    condition : callable
        F: ``condition(phi, *theta)`` in traceable array code, nested and shaped like φ. For a minimiser it is
        the gradient of the objective, ``lambda phi, theta: grad(objective)(phi, theta)``; for a fixed point,
        ``phi - step(phi, theta)``.
    symmetric : bool
        Whether ∂F/∂φ is symmetric positive definite, as the Hessian at a minimum: then `conjugate_gradient` solves,
        else `gmres`. Each solve spends two more products to check the symmetry.
    max_iterations : int, optional
        The most iterations of a linear solve, at least 1; None: ten times the size of φ.
    rtol : float, optional
        A linear solve ends when ‖b − Ax‖ ≤ max(rtol ‖b‖, atol). At least 0; None: 1e-10, or a hundred
        roundings for a dtype with fewer digits (1.2e-5 in float32).
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
        When condition or the solver is not callable; when symmetric is not a bool. When the solver is called, before
        it runs: an argument is given by name; initial is not floating, or has several dtypes; condition's result is
        not nested and shaped like it; condition does not depend on φ, or depends on none of theta, so that every
        derivative would be zero (integers alone have none anyway). After it ran: its result is not like ``initial``.
        In a derivative: symmetric is True, and ∂F/∂φ is not symmetric.
    ArgumentOutOfRangeException
        When max_iterations, rtol or atol lies outside its range.
    InvalidOperationException
        When the solver's result, or a linear solve, is not finite.

    Warns
    -----
    UnconvergedSolveWarning
        When a linear solve ends above its bound, for example because ∂F/∂φ is singular.

    Notes
    -----
    The derivative is the derivative of the exact φ, taken at the solver's result: its error shrinks with F(φ, θ).
    Arrays that condition captures are differentiated too, but do not reach the solver.

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
        COUNT.check("max_iterations", max_iterations)
    Bounds(rtol, atol)
    if not isinstance(symmetric, (bool, np.bool_)):  # pyright: ignore[reportUnnecessaryIsInstance] -- callers may be untyped
        raise ArgumentException(f"symmetric must be True or False, got {symmetric!r:.80}")

    def decorate(solver: Function, *others: Any) -> Function:
        if others:
            raise ArgumentException(
                "implicit_diff must get the condition first, then the solver, as in @implicit_diff(condition), got "
                f"a call of {getattr(condition, '__name__', 'its argument')} like a solver"
            )
        _require_function(solver, "the solver")
        name = getattr(solver, "__name__", type(solver).__name__)
        settings = Settings(name, bool(symmetric), max_iterations, rtol, atol)

        @wraps(solver)
        def call(initial: Any, *theta: Any, **named: Any) -> Any:
            if named:
                raise ArgumentException(
                    f"arguments of {name} must be given by their places, got {', '.join(named)} by name; its condition "
                    "is called with the same arguments"
                )
            for place, value in enumerate((initial, *theta)):
                _flatten(value, "initial" if place == 0 else f"argument {place} of {name}")
            if active_trace() is None:
                return trace_once(call, initial, *theta)(initial, *theta)
            return _emit(condition, solver, settings, initial, theta)

        return call

    return decorate


def _require_function(value: Any, name: str) -> None:
    if value is None:
        raise ArgumentNullException(f"{name} must be a function of φ and its arguments, got None")
    if not callable(value):
        raise ArgumentException(f"{name} must be a function of φ and its arguments, got {type(value).__name__}")


def _flatten(value: Any, name: str) -> tuple[list[Any], _Layout]:
    """Return the arrays of a value and their layout; errors call the value ``name``."""
    leaves, structure = flatten(value, name)
    return leaves, _Layout(structure, tuple(types_of(leaves, structure, name)))


def _emit(condition: Function, solver: Function, settings: Settings, initial: Any, theta: tuple[Any, ...]) -> Any:
    """Emit the solution into the innermost trace."""
    starts, phi = _flatten(initial, "initial")
    phi.require_vector()
    leaves, arguments = flatten(theta)
    program = _condition_program(condition, phi, [type_of(leaf) for leaf in leaves], arguments)
    captured = [value for _, value in program.constants]
    # Captured arrays become operands, so that those of an outer trace have derivatives there.
    *given, vector = program.inputs
    inputs = (*given, *(v for v, _ in program.constants), vector)
    root = Root(
        Program(inputs, (), program.equations, program.outputs),
        _finder(solver, settings.name, phi, arguments),
        settings,
    )
    _require_dependence(root, len(leaves), captured)
    return phi.split(solution(root, phi.join(starts), [*map(as_traced, leaves), *captured]))


@dataclass(frozen=True)
class _Layout:
    """The nesting and types of arrays that are stored in one vector."""

    structure: Structure
    types: tuple[ArrayType, ...]

    @property
    def vector(self) -> ArrayType:
        """The vector's type."""
        return ArrayType((self.spans[-1][1],), self.types[0].dtype)

    @property
    def spans(self) -> list[tuple[int, int]]:
        """The first and last place of each array in the vector."""
        return list(pairwise(int(n) for n in np.cumsum([0, *(t.size for t in self.types)])))

    def require_vector(self) -> None:
        """Refuse arrays without elements, or without one floating dtype."""
        if not any(t.size for t in self.types):
            raise ArgumentException("initial must have at least one element, got none")
        dtypes = sorted({str(t.dtype) for t in self.types})
        if not self.types[0].is_floating or len(dtypes) > 1:
            raise ArgumentException(f"initial must have one floating dtype for all of φ, got {', '.join(dtypes)}")

    def join(self, leaves: Sequence[Any]) -> Any:
        """Return the traced vector of these arrays."""
        return concatenate([reshape(as_traced(x), (type_of(x).size,)) for x in leaves], 0)

    def split(self, vector: Any) -> Any:
        """Return the traced arrays of a vector, nested."""
        parts = [slice_(vector, ((start, stop, 1),)) for start, stop in self.spans]
        return self.structure.unflatten([reshape(x, t.shape) for x, t in zip(parts, self.types, strict=True)])


def _condition_program(condition: Function, phi: _Layout, types: Sequence[ArrayType], arguments: Structure) -> Program:
    """Trace F as a Program of the arguments and the vector φ."""
    with new_trace() as inner:
        theta = [inner.new_input(t) for t in types]
        vector = inner.new_input(phi.vector)
        result = condition(phi.split(vector), *arguments.unflatten(theta))
        leaves, layout = _flatten(result, "the result of condition")
        if layout != phi:
            raise ArgumentException(f"condition must return {_show(phi)} like initial, got {_show(layout)}")
        return simplify(inner.finish([phi.join(leaves)]))


def _show(layout: _Layout) -> str:
    return repr(layout.structure.unflatten([_Name(str(t)) for t in layout.types]))


class _Name(str):
    """A string whose repr has no quotes."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def _require_dependence(root: Root, count: int, captured: Sequence[Any]) -> None:
    """Refuse a condition whose derivatives would be zero or undefined everywhere."""
    if not root.determined:
        raise ArgumentException(
            "condition must depend on its first argument, φ, got one that does not; it determines no solution"
        )
    outer = [m for m, value in zip(root.matters[count:], captured, strict=True) if isinstance(value, Tracer)]
    # Integers have no derivative, and transforms refuse them themselves.
    asked = count == 0 or outer or any(t.is_floating for t in root.condition.input_types[:count])
    if asked and not any(root.matters[:count]) and not any(outer):
        raise ArgumentException(
            f"condition must have a derivative with respect to one of the {count} arrays that {root} was called with "
            "after initial, got none; every derivative of the solution would be zero. Pass the arrays that it uses "
            "as arguments"
        )


def _finder(solver: Function, name: str, phi: _Layout, arguments: Structure) -> Finder:
    """Return the solver as a function of vectors that checks its result."""

    def find(backend: Backend, out: Array, initial: Array, operands: Sequence[Array]) -> None:
        # Copies, because a solver may keep them or write to them.
        start = backend.asarray(initial)
        parts = [
            backend.reshape(backend.index(start, (slice(*span),)), t.shape)
            for span, t in zip(phi.spans, phi.types, strict=True)
        ]
        theta = [backend.asarray(a) for a in operands[: arguments.leaves]]
        leaves = _require_like(backend, solver(phi.structure.unflatten(parts), *arguments.unflatten(theta)), name, phi)
        for span, leaf, t in zip(phi.spans, leaves, phi.types, strict=True):
            backend.copyto(backend.index(out, (slice(*span),)), backend.reshape(leaf, (t.size,)))
        finite = backend.to_numpy(backend.elementwise("isfinite")(out))
        if not finite.all():
            raise InvalidOperationException(
                f"{name} must return finite numbers, got {np.sum(~finite)} of {finite.size} that are not"
            )

    return find


def _require_like(backend: Backend, result: Any, name: str, phi: _Layout) -> list[Array]:
    """Return the arrays of a solver's result in C order; refuse results that are not like φ."""
    leaves, layout = _flatten(result, f"the result of {name}")
    # A plain number is enough for a φ without axes, as in NumPy.
    types = tuple(
        ArrayType((), phi.types[0].dtype) if isinstance(x, (int, float)) and not isinstance(x, np.generic) else t
        for x, t in zip(leaves, layout.types, strict=True)
    )
    layout = _Layout(layout.structure, types)
    if layout != phi:
        raise ArgumentException(f"{name} must return {_show(phi)} like initial, got {_show(layout)}")
    for leaf in leaves:
        if not isinstance(leaf, (int, float, np.generic)) and not backend.owns(leaf):
            raise ArgumentException(f"{name} must return arrays of backend {backend.name!r} like initial, got others")
    return [backend.asarray(x, phi.types[0].dtype) for x in leaves]
