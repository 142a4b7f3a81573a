"""The primitive `linear_solve`: the differentiable solution of a linear system whose matrix is a Program."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aidotnet_py.autodiff.extend import (
    ArrayType,
    Executable,
    Idle,
    Primitive,
    Program,
    Variable,
    batch_of,
    emit,
    inline,
    jvp_program,
    no_flops,
    simplify,
    vjp_program,
    vmap_program,
)
from aidotnet_py.backends import Array, Backend
from aidotnet_py.exceptions import ArgumentException
from aidotnet_py.implicit.checked_solve import checked_solve
from aidotnet_py.solvers import Operator, SolverReport, conjugate_gradient, gmres

__all__ = ["LinearSystem", "Settings", "linear_solve", "only_output"]


@dataclass(frozen=True)
class Settings:
    """How the linear systems of a solution are solved.

    Attributes
    ----------
    name : str
        The name of the solver, for messages.
    symmetric : bool
        Whether the matrix is symmetric positive definite, so that conjugate gradient applies.
    max_iterations : int or None
        The bound for each system; None: ten times its number of unknowns.
    rtol : float or None
        The bound on ‖b − Ax‖/‖b‖; None: the default of the solvers.
    atol : float
        The bound on ‖b − Ax‖.
    """

    name: str
    symmetric: bool
    max_iterations: int | None
    rtol: float | None
    atol: float

    def solver(self, n: int) -> Callable[[Operator, Array], tuple[Array, SolverReport]]:
        """Return the solver of systems of n unknowns."""
        return partial(
            conjugate_gradient if self.symmetric else gmres,
            max_iterations=10 * n if self.max_iterations is None else self.max_iterations,
            rtol=self.rtol,
            atol=self.atol,
        )


def only_output(program: Program, place: int, without: Variable | None = None) -> Program:
    """Return the Program of one output alone, without an input that it does not need."""
    inputs = tuple(v for v in program.inputs if v is not without)
    alone = simplify(Program(inputs, program.constants, program.equations, (program.outputs[place],)))
    assert not any(v is without for equation in alone.equations for v in equation.variables)
    return alone


class LinearSystem:
    """A matrix A that depends on the arrays of a point; in a batch, one matrix per row.

    Equations are equal only if they share the object: its ``repr`` distinguishes systems.

    Parameters
    ----------
    program : Program
        Inputs: the point, then v of shape (…, n). Output: Av, linear in v, row by row.
    settings : Settings
        The solver and its bounds.
    """

    def __init__(self, program: Program, settings: Settings) -> None:
        self.program = program
        self.settings = settings
        self._changes: dict[tuple[bool, ...], Program] = {}
        self._batched: dict[tuple[tuple[bool, ...], int], LinearSystem] = {}
        self._idle = Idle()
        self._transposed: LinearSystem | None = None

    def __str__(self) -> str:
        return self.settings.name

    @property
    def transposed(self) -> LinearSystem:
        """The system of Aᵀ."""
        if self._transposed is None:
            self._transposed = self if self.settings.symmetric else self._transpose()
        return self._transposed

    def _transpose(self) -> LinearSystem:
        count = len(self.program.inputs) - 1
        both = vjp_program(self.program, [False] * count + [True])
        # Av is linear in v, so its pullback does not depend on v.
        system = LinearSystem(only_output(both, 1, without=both.inputs[count]), self.settings)
        system._transposed = self
        return system

    def change(self, moved: tuple[bool, ...]) -> Program:
        """Return the Program from the point, v, and tangents of the moved arrays of the point, to (dA) v."""
        if moved not in self._changes:
            self._changes[moved] = only_output(jvp_program(self.program, [*moved, False]), 1)
        return self._changes[moved]

    def batch(self, flags: tuple[bool, ...], size: int) -> LinearSystem:
        """Return the system with one more axis in front of v and of the flagged arrays of the point."""
        key = flags, size
        if key not in self._batched:
            self._batched[key] = LinearSystem(vmap_program(self.program, [*flags, True], size), self.settings)
        return self._batched[key]

    def solve(self, backend: Backend, out: Array, rhs: Array, point: Sequence[Array]) -> None:
        """Write the solutions into ``out``."""
        shape = tuple(rhs.shape)
        if 0 in shape:
            return
        rows = backend.empty((math.prod(shape[:-1]), shape[-1]), backend.dtype_of(rhs))
        backend.copyto(backend.reshape(rows, shape), rhs)
        with self._operator(backend, point) as operator:
            u: tuple[Array, Array] | None = None
            if self.settings.symmetric:
                u, w = ((v, backend.asarray(operator(v))) for v in _draws(backend, rows))
                self._require_symmetric(backend, u, w, "another w", 0.0)
            what = f"the linear solve for a derivative of {self}"
            x, report = checked_solve(self.settings.solver(shape[-1]), operator, rows, what=what)
            if u is not None:
                # After convergence, b approximates Ax well enough.
                image = rows if report.converged.all() else operator(x)
                slack = np.where(report.converged, report.residual_norms, 0.0) * _norms(backend, u[0])
                self._require_symmetric(backend, u, (x, image), "the solution w", slack)
        backend.copyto(out, backend.reshape(x, shape))

    def _require_symmetric(
        self,
        backend: Backend,
        u: tuple[Array, Array],
        w: tuple[Array, Array],
        name: str,
        slack: NDArray[Any] | float,
    ) -> None:
        """Refuse an A that is not symmetric: for a random u, uᵀ(Aw) and (Au)ᵀw differ almost surely unless Aw = Aᵀw.

        Each pair is a vector and its image. Without this check, the system of A would be solved in place of that of Aᵀ,
        and no residual would show it. A second random vector shows this whatever the solution is; the solution shows
        what is small beside the rest of A.
        """
        absolute = backend.elementwise("abs")
        pairs = (u[0], w[1]), (u[1], w[0])
        left, right = (backend.to_numpy(backend.vecdot(*pair)) for pair in pairs)
        sizes = sum(backend.to_numpy(backend.vecdot(absolute(a), absolute(b))) for a, b in pairs)
        # Rounding may lose half of the digits of the products.
        gaps = np.abs(left - right) > slack + np.sqrt(np.finfo(left.dtype).eps) * sizes
        if gaps.any():
            row = int(np.argmax(gaps))
            raise ArgumentException(
                f"symmetric must be False for {self}, got True: ∂F/∂φ is not symmetric, since for a random vector u "
                f"and {name}, in row {row}, uᵀ(∂F/∂φ)w is {left[row]:.6g} and wᵀ(∂F/∂φ)u is {right[row]:.6g}"
            )

    @contextmanager
    def _operator(self, backend: Backend, point: Sequence[Array]) -> Generator[Operator]:
        """Yield the function v ↦ Av on rows; the work that depends on the point alone is done once."""
        executable = self._idle.take(backend) or self._executable(backend)
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

    def _executable(self, backend: Backend) -> Executable:
        of = self.program.output_types[0]
        stages = [0] * (len(self.program.inputs) - 1) + [1]
        # A separate output array, in C order and never a view of v.
        return Executable(self.program, backend, stages=stages, outputs=[backend.empty(of.shape, of.dtype)])


def _draws(backend: Backend, like: Array) -> list[Array]:
    """Return two random vectors, each equal in all rows and at each call.

    Their numbers are continuous: signs would be all ones for some n, and then show nothing about averages.
    """
    draws = np.random.Generator(np.random.PCG64(int(like.shape[1]))).standard_normal((2, int(like.shape[1])))
    return [backend.asarray(np.broadcast_to(row, tuple(like.shape)), backend.dtype_of(like)) for row in draws]


def _norms(backend: Backend, rows: Array) -> NDArray[Any]:
    squares = backend.to_numpy(backend.vecdot(rows, rows))
    return squares**0.5


def _shape(rhs: ArrayType, *point: ArrayType, system: LinearSystem) -> ArrayType:
    return rhs


def _run(backend: Backend, out: Array, rhs: Array, *point: Array, system: LinearSystem) -> None:
    system.solve(backend, out, rhs, point)


def _jvp(tangents: Sequence[Any], rhs: Any, *point: Any, output: Any, system: LinearSystem) -> Any:
    """Solve for the tangent: A x = b gives A dx = db − (dA) x."""
    moved = [t for t in tangents[1:] if t is not None]
    change = tangents[0]
    if moved:
        program = system.change(tuple(t is not None for t in tangents[1:]))
        (by_point,) = inline(program, [*point, output, *moved])
        change = -by_point if change is None else change - by_point
    return linear_solve(system, change, point)


def _transpose(ct: Any, rhs: Any, *point: Any, system: LinearSystem) -> list[Any]:
    return [linear_solve(system.transposed, ct, point), *(None for _ in point)]


def _batch(inputs: Sequence[Any], batched: Sequence[bool], size: int, system: LinearSystem) -> Any:
    rhs, *point = inputs
    return linear_solve(system.batch(tuple(batched[1:]), size), batch_of(rhs, batched[0], size), point)


_linear_solve = Primitive(
    name="linear_solve", shape=_shape, run=_run, jvp=_jvp, transpose=_transpose, batch=_batch, flops=no_flops
)


def linear_solve(system: LinearSystem, rhs: Any, point: Sequence[Any]) -> Any:
    """Return the traced x of A(point) x = rhs."""
    return emit(_linear_solve, rhs, *point, system=system)
