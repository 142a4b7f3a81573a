"""The primitive `solution`: a root φ of F(φ, θ), computed by a function that is never traced."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from aidotnet_py.autodiff.extend import (
    ArrayType,
    Atom,
    Primitive,
    Program,
    emit,
    inline,
    jvp_program,
    no_flops,
    vmap_program,
)
from aidotnet_py.backends import Array, Backend
from aidotnet_py.implicit.linear_system import LinearSystem, Settings, linear_solve, only_output

__all__ = ["Finder", "Root", "solution"]

# Computes φ and writes it to ``out``: ``find(backend, out, initial, operands)``.
Finder: TypeAlias = Callable[[Backend, Array, Array, Sequence[Array]], None]


class Root:
    """F and the function that computes its root φ; in a batch, one root per row.

    Equations are equal only if they share the object: its ``repr`` distinguishes roots.

    Parameters
    ----------
    condition : Program
        Inputs: the operands, then φ of shape (…, n). Output: F, like φ, row by row.
    find : callable
        The function that computes φ.
    settings : Settings
        The solver for the linear systems of its derivatives.

    Attributes
    ----------
    matters : tuple of bool
        For each operand, whether F has a derivative with respect to it.
    determined : bool
        Whether F has a derivative with respect to φ.
    """

    def __init__(self, condition: Program, find: Finder, settings: Settings) -> None:
        self.condition = condition
        self.find = find
        self.settings = settings
        self._pushforwards: dict[tuple[bool, ...], Program] = {}
        self._batched: dict[tuple[tuple[bool, ...], int], Root] = {}
        self._system: LinearSystem | None = None
        floating = [t.is_floating for t in condition.input_types]
        derivative = jvp_program(condition, floating)
        sources = _sources(derivative, derivative.outputs[1])
        seeds = iter(derivative.inputs[len(floating) :])
        *self.matters, self.determined = [f and next(seeds) in sources for f in floating]

    def __str__(self) -> str:
        return self.settings.name

    @property
    def system(self) -> LinearSystem:
        """The system of ∂F/∂φ; its point is the operands and φ."""
        if self._system is None:
            count = len(self.condition.inputs) - 1
            program = only_output(jvp_program(self.condition, [False] * count + [True]), 1)
            self._system = LinearSystem(program, self.settings)
        return self._system

    def pushforward(self, moved: tuple[bool, ...]) -> Program:
        """Return the Program from the operands, φ, and tangents of the moved operands, to the change of F."""
        if moved not in self._pushforwards:
            self._pushforwards[moved] = only_output(jvp_program(self.condition, [*moved, False]), 1)
        return self._pushforwards[moved]

    def batch(self, flags: tuple[bool, ...], size: int) -> Root:
        """Return the root with one more axis in front of φ and of the flagged among initial and operands."""
        key = flags, size
        if key not in self._batched:
            condition = vmap_program(self.condition, [*flags[1:], True], size)
            self._batched[key] = Root(condition, _by_rows(self.find, flags, size), self.settings)
        return self._batched[key]


def _sources(program: Program, output: Atom) -> set[Atom]:
    """Return an output and all values that it is computed from."""
    sources: set[Atom] = {output}
    for equation in reversed(program.equations):
        if equation.output in sources:
            sources.update(equation.variables)
    return sources


def _by_rows(find: Finder, flags: tuple[bool, ...], size: int) -> Finder:
    """Return a finder that calls ``find`` once per row."""

    def find_rows(backend: Backend, out: Array, initial: Array, operands: Sequence[Array]) -> None:
        for k in range(size):
            first, *others = [_row(backend, a, k) if f else a for a, f in zip((initial, *operands), flags, strict=True)]
            find(backend, _row(backend, out, k), first, others)

    return find_rows


def _row(backend: Backend, array: Array, k: int) -> Array:
    shape = tuple(array.shape)
    part = backend.index(array, (slice(k, k + 1), *(slice(None) for _ in shape[1:])))
    return backend.reshape(part, shape[1:])


def _shape(initial: ArrayType, *operands: ArrayType, root: Root) -> ArrayType:
    return root.condition.output_types[0]


def _run(backend: Backend, out: Array, initial: Array, *operands: Array, root: Root) -> None:
    root.find(backend, out, initial, operands)


def _jvp(tangents: Sequence[Any], initial: Any, *operands: Any, output: Any, root: Root) -> Any:
    """Solve for the tangent: F(φ, θ) = 0 gives (∂F/∂φ) dφ = −(∂F/∂θ) dθ, for any initial."""
    moved = [t if matters else None for t, matters in zip(tangents[1:], root.matters, strict=True)]
    given = [t for t in moved if t is not None]
    if not given:
        return None
    program = root.pushforward(tuple(t is not None for t in moved))
    (change,) = inline(program, [*operands, output, *given])
    return linear_solve(root.system, -change, [*operands, output])


def _batch(inputs: Sequence[Any], batched: Sequence[bool], size: int, root: Root) -> Any:
    return solution(root.batch(tuple(batched), size), inputs[0], inputs[1:])


_solution = Primitive(name="solution", shape=_shape, run=_run, jvp=_jvp, transpose=None, batch=_batch, flops=no_flops)


def solution(root: Root, initial: Any, operands: Sequence[Any]) -> Any:
    """Return the traced φ."""
    return emit(_solution, initial, *operands, root=root)
