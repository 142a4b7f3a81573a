"""The primitive `linear_solve`: the solution of a linear system whose matrix is a Program, itself differentiable."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aidotnet_py.autodiff.array_type import ArrayType
from aidotnet_py.autodiff.execution import Executable, Idle
from aidotnet_py.autodiff.primitive import Primitive, no_flops
from aidotnet_py.autodiff.primitives.broadcasting import batch_of
from aidotnet_py.autodiff.primitives.elementwise import negative, subtract
from aidotnet_py.autodiff.program import Program, Variable
from aidotnet_py.autodiff.tracing import emit, inline
from aidotnet_py.autodiff.transforms.batching import vmap_program
from aidotnet_py.autodiff.transforms.differentiation import jvp_program, vjp_program
from aidotnet_py.autodiff.transforms.simplification import simplify
from aidotnet_py.backends import Array, Backend
from aidotnet_py.implicit.checked_solve import checked_solve
from aidotnet_py.solvers import Operator, SolverReport, conjugate_gradient, gmres

__all__ = ["LinearSystem", "Settings", "linear_solve", "only_output"]


@dataclass(frozen=True)
class Settings:
    """How the linear systems of a solution are solved.

    Attributes
    ----------
    name : str
        Whose solution, for messages.
    symmetric : bool
        Whether the matrix is symmetric positive definite, and conjugate gradient does.
    max_iterations : int or None
        For each system; None: ten times as many as it has unknowns.
    tolerance : float or None
        For ‖b − Ax‖/‖b‖; None: 1e-10, or a hundred roundings where the precision is less than that.
    """

    name: str
    symmetric: bool
    max_iterations: int | None
    tolerance: float | None

    def solver(self, n: int, dtype: np.dtype[Any]) -> Callable[[Operator, Array], tuple[Array, SolverReport]]:
        """What solves systems of n unknowns, whose right-hand sides have length 1: the tolerance is absolute there."""
        roundings = 100 * float(np.finfo(dtype).eps)
        return partial(
            conjugate_gradient if self.symmetric else gmres,
            max_iterations=10 * n if self.max_iterations is None else self.max_iterations,
            tolerance=max(1e-10, roundings) if self.tolerance is None else self.tolerance,
        )


def only_output(program: Program, place: int, without: Variable | None = None) -> Program:
    """The Program that computes one of the outputs alone, and lacks an input that it does not need."""
    inputs = tuple(v for v in program.inputs if v is not without)
    found = simplify(Program(inputs, program.constants, program.equations, (program.outputs[place],)))
    assert not any(v is without for equation in found.equations for v in equation.variables)
    return found


class LinearSystem:
    """A matrix A that hangs on some arrays, its point; or one in each row of a batch.

    Two equations are the same only if they share the object: its ``repr`` tells systems apart.

    Parameters
    ----------
    program : Program
        Inputs: the point, then v of shape (…, n). Output: Av, linear in v, row by row.
    settings : Settings
        How to solve.
    """

    def __init__(self, program: Program, settings: Settings) -> None:
        self.program = program
        self.settings = settings
        self._changes: dict[tuple[bool, ...], Program] = {}
        self._batched: dict[tuple[tuple[bool, ...], int], LinearSystem] = {}
        self._idle = Idle()

    def __str__(self) -> str:
        return self.settings.name

    @cached_property
    def transposed(self) -> LinearSystem:
        """The system of Aᵀ."""
        if self.settings.symmetric:
            return self
        count = len(self.program.inputs) - 1
        both = vjp_program(self.program, [False] * count + [True])
        # What is linear in v has a derivative that does not depend on it.
        found = LinearSystem(only_output(both, 1, without=both.inputs[count]), self.settings)
        found.__dict__["transposed"] = self
        return found

    def change(self, moved: tuple[bool, ...]) -> Program:
        """From the point, v, and tangents of what is moved of the point, to (dA) v."""
        if moved not in self._changes:
            self._changes[moved] = only_output(jvp_program(self.program, [*moved, False]), 1)
        return self._changes[moved]

    def batched(self, flags: tuple[bool, ...], size: int) -> LinearSystem:
        """The system with one more axis in front of v, and of what is flagged of the point."""
        key = flags, size
        if key not in self._batched:
            self._batched[key] = LinearSystem(vmap_program(self.program, [*flags, True], size), self.settings)
        return self._batched[key]

    def solve(self, backend: Backend, out: Array, rhs: Array, point: Sequence[Array]) -> None:
        """Write the solutions into ``out``."""
        shape = tuple(rhs.shape)
        rows = backend.empty((math.prod(shape[:-1]), shape[-1]), backend.dtype_of(rhs))
        backend.copyto(backend.reshape(rows, shape), rhs)
        # Each system by the length of its right-hand side: a derivative is linear, however small the numbers are.
        lengths = _divide_by_lengths(backend, rows)
        with self._operator(backend, point) as operator:
            what = f"the linear solve for a derivative of {self}, by the length of its right-hand side,"
            x, _ = checked_solve(self.settings.solver(shape[-1], backend.dtype_of(rows)), operator, rows, what=what)
        with backend.errors_ignored():
            backend.elementwise("multiply")(x, _column(backend, lengths, rows), out=rows)
        backend.copyto(out, backend.reshape(rows, shape))

    @contextmanager
    def _operator(self, backend: Backend, point: Sequence[Array]) -> Generator[Operator]:
        """The function v ↦ Av on rows, with all that hangs on the point alone computed once."""
        executable = self._idle.take(backend) or self._planned(backend)
        *places, v = executable.inputs
        shape = tuple(v.shape)
        for place, value in zip(places, point, strict=True):
            backend.copyto(place, value)
        executable.run(0)

        def operator(rows: Array) -> Array:
            backend.copyto(v, backend.reshape(rows, shape))
            executable.run(1)
            return backend.reshape(executable.outputs[0], tuple(rows.shape))

        yield operator
        self._idle.give_back(backend, executable)

    def _planned(self, backend: Backend) -> Executable:
        of = self.program.output_types[0]
        stages = [0] * (len(self.program.inputs) - 1) + [1]
        # An output of its own, so that it lies in C order and is no view of v.
        return Executable(self.program, backend, stages=stages, outputs=[backend.empty(of.shape, of.dtype)])


def _column(backend: Backend, values: NDArray[Any], rows: Array) -> Array:
    return backend.broadcast_to(backend.asarray(values[:, None]), tuple(rows.shape))


def _divide_by_lengths(backend: Backend, rows: Array) -> NDArray[Any]:
    """Make each row one of length 1, and return the lengths; rows that have none stay, with 1 in its place."""
    # First by the largest number, whose square may be beyond the dtype.
    lengths = np.ones(rows.shape[0], backend.dtype_of(rows))
    with backend.errors_ignored():
        for squared in (False, True):
            found = backend.to_numpy(
                backend.vecdot(rows, rows) if squared else backend.max(backend.elementwise("abs")(rows), (1,))
            )
            usable = np.isfinite(found) & (found > 0)
            by = np.where(usable, np.sqrt(found) if squared else found, np.ones_like(found))
            backend.elementwise("divide")(rows, _column(backend, by, rows), out=rows)
            lengths = lengths * by
    return lengths


def _shape(rhs: ArrayType, *point: ArrayType, system: LinearSystem) -> ArrayType:
    return rhs


def _run(backend: Backend, out: Array, rhs: Array, *point: Array, system: LinearSystem) -> None:
    system.solve(backend, out, rhs, point)


def _jvp(tangents: Sequence[Any], rhs: Any, *point: Any, output: Any, system: LinearSystem) -> Any:
    """From A x = b: A dx = db − (dA) x."""
    moved = [t for t in tangents[1:] if t is not None]
    change = tangents[0]
    if moved:
        program = system.change(tuple(t is not None for t in tangents[1:]))
        (by_point,) = inline(program, [*point, output, *moved])
        change = negative(by_point) if change is None else subtract(change, by_point)
    return linear_solve(system, change, point)


def _transpose(ct: Any, rhs: Any, *point: Any, system: LinearSystem) -> list[Any]:
    return [linear_solve(system.transposed, ct, point), *(None for _ in point)]


def _batch(inputs: Sequence[Any], batched: Sequence[bool], size: int, system: LinearSystem) -> Any:
    rhs, *point = inputs
    return linear_solve(system.batched(tuple(batched[1:]), size), batch_of(rhs, batched[0], size), point)


_linear_solve = Primitive(
    name="linear_solve", shape=_shape, run=_run, jvp=_jvp, transpose=_transpose, batch=_batch, flops=no_flops
)


def linear_solve(system: LinearSystem, rhs: Any, point: Sequence[Any]) -> Any:
    """The traced x of A(point) x = rhs."""
    return emit(_linear_solve, rhs, *point, system=system)
