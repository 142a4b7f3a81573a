"""Where the solve of a system stands: the solution under way and its residual."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from aidotnet_py.backends import Array
from aidotnet_py.solvers.bounds import Bounds
from aidotnet_py.solvers.progress import Callback, Progress
from aidotnet_py.solvers.report import SolverReport
from aidotnet_py.solvers.rows import Operator, Rows
from aidotnet_py.solvers.scaling import all_in_range, in_range, powers_for, scales_for

__all__ = ["Iterate"]


class Iterate:
    """x and r = b − Ax, both (tasks, n) and where the backend keeps them.

    A row whose norms are so large or so small that their squares would not be normal numbers is solved in other units:
    b, x and r are multiplied by a power of two, which changes no digit. Other rows keep their bits.

    Parameters
    ----------
    rows : Rows
        b.
    operator : callable
        v ↦ Av, on rows.
    x, r : array, shape (tasks, n)
        Where to keep them.
    """

    def __init__(self, rows: Rows, operator: Operator, x: Array, r: Array) -> None:
        self.rows, self.operator, self.backend = rows, operator, rows.backend
        self.x, self.r = x, r
        self._b: Array = rows.array
        # What rows were multiplied by; None as long as none was.
        self.scales: NDArray[Any] | None = None

    def start(self, initial: Array | None, limit: int, bounds: Bounds, callback: Callback | None = None) -> Progress:
        """Begin at x, (tasks, n); None stands for zeros, and saves a product. Return the host's side of the solve."""
        if initial is None:
            self.backend.copyto(self.x, 0.0)
            self.backend.copyto(self.r, self.rows.array)
            norms = rhs_norms = self.norms(self.r)
        else:
            rhs_norms = self._start_from(initial)
            norms = self.norms(self.r)
        scales = scales_for(np.maximum(norms, rhs_norms))
        if scales is not None:
            self.scales = self._scale(scales)
            with np.errstate(all="ignore"):
                norms, rhs_norms = self.norms(self.r), rhs_norms * self.scales
        return Progress(norms, rhs_norms, limit, bounds, self.scales, callback)

    def _start_from(self, initial: Array) -> NDArray[Any]:
        """Set x and r; return ‖b‖."""
        # −0 becomes 0 here once for all: adding the step of a frozen row, 0, would do it at some later time.
        self.backend.elementwise("add")(initial, 0.0, out=self.x)
        rhs_norms = self.norms(self.rows.array)
        if (rhs_norms == 0).any():
            # Known without a step, and to iterate towards it would never end: no residual is small next to zero.
            mask = self.rows.column(self.backend.asarray(rhs_norms != 0))
            self.backend.copyto(self.x, self.backend.elementwise("where")(mask, self.x, 0.0))
        self._update_residual()
        return rhs_norms

    def _scale(self, by: NDArray[Any]) -> NDArray[Any]:
        """Multiply b, x and r by a number for each row; return the numbers taken."""
        with self.backend.errors_ignored(), np.errstate(all="ignore"):
            # A start far larger than b can overflow in b's new units: it keeps the old ones.
            by = np.where(np.isfinite(self._largest(self.x) * by), by, np.ones_like(by))
            multiply, scales = self.backend.elementwise("multiply"), self.rows.column(self.backend.asarray(by))
            self._b = multiply(self.rows.array, scales)
            for array in (self.x, self.r):
                multiply(array, scales, out=array)
            # Numbers that the scale rounds to −0, see `_start_from`.
            self.backend.elementwise("add")(self.x, 0.0, out=self.x)
        return by

    def norms(self, vectors: Array) -> NDArray[Any]:
        """Return the Euclidean norm of each row, on the host."""
        with self.backend.errors_ignored():
            squares = self.backend.to_numpy(self.backend.vecdot(vectors, vectors))
        norms: NDArray[Any] = np.sqrt(squares)
        return norms if all_in_range(norms) else self._norms_of_any_size(vectors, norms)

    def _norms_of_any_size(self, vectors: Array, norms: NDArray[Any]) -> NDArray[Any]:
        """Return the norms; rows whose squares may not be normal numbers are scaled close to 1 first."""
        backend, largest = self.backend, self._largest(vectors)
        usable = np.isfinite(largest) & (largest > 0) & ~in_range(norms)
        if not usable.any():
            return norms
        powers = powers_for(np.where(usable, largest, np.ones_like(largest)))
        with backend.errors_ignored(), np.errstate(all="ignore"):
            scaled = backend.elementwise("multiply")(vectors, self.rows.column(backend.asarray(powers)))
            return np.where(usable, np.sqrt(backend.to_numpy(backend.vecdot(scaled, scaled))) / powers, norms)

    def measure(self, progress: Progress, looked_at: NDArray[np.bool_] | None = None) -> None:
        """Set r to b − Ax, by one product, and judge tasks by it: those looked at; None: all."""
        progress.measure(self.residual_norms(), looked_at)

    def residual_norms(self) -> NDArray[Any]:
        """Return ‖b − Ax‖ at x, by one product, which sets r."""
        self._update_residual()
        return self.norms(self.r)

    def _update_residual(self) -> None:
        product = self.operator(self.x)
        with self.backend.errors_ignored():
            self.backend.elementwise("subtract")(self._b, product, out=self.r)

    def finished(self, progress: Progress) -> tuple[Array, SolverReport]:
        """Return the solution in the caller's shape, and the report."""
        self._drop_overflow(progress)
        solution, changed, overflowed = self.solution()
        if changed.any():
            # No task is measured on account of another.
            progress.withdraw(np.where(changed, self.residual_norms(), progress.norms), overflowed)
        return self.rows.as_given(solution), progress.report()

    def _drop_overflow(self, progress: Progress) -> None:
        """Set rows of x that overflowed to zeros."""
        # No finite residual belongs to such a row.
        overflowed = (progress.iterations > 0) & ~np.isfinite(progress.norms)
        if overflowed.any():
            overflowed &= ~self._finite(self.x)
            kept = self.rows.column(self.backend.asarray(~overflowed))
            self.backend.copyto(self.x, self.backend.elementwise("where")(kept, self.x, 0.0))
            progress.withdraw(np.where(overflowed, progress.rhs_norms, progress.norms), overflowed)

    def solution(self) -> tuple[Array, NDArray[np.bool_], NDArray[np.bool_]]:
        """Return the rows of x in b's units, for the caller to keep; which lost digits, and which overflowed.

        Rows that overflow are zeros. x is set to the rows returned.
        """
        backend = self.backend
        if self.scales is None:
            none = np.zeros(self.rows.tasks, np.bool_)
            return self.x, none, none
        where, differ = backend.elementwise("where"), backend.elementwise("not_equal")
        scales = self.rows.column(backend.asarray(self.scales))
        with backend.errors_ignored():
            given = backend.elementwise("divide")(self.x, scales)
            overflowed = self._finite(self.x) & ~self._finite(given)
            given = where(self.rows.column(backend.asarray(~overflowed)), given, 0.0)
            again = backend.elementwise("multiply")(given, scales)
            changed = backend.to_numpy(
                backend.max(backend.astype(differ(again, self.x), self.rows.dtype), (1,))
            ).astype(np.bool_)
        backend.copyto(self.x, again)
        return given, changed, overflowed

    def _finite(self, vectors: Array) -> NDArray[np.bool_]:
        finite: NDArray[np.bool_] = np.isfinite(self._largest(vectors))
        return finite

    def _largest(self, vectors: Array) -> NDArray[Any]:
        """Return the largest magnitude in each row, on the host."""
        return self.backend.to_numpy(self.backend.max(self.backend.elementwise("abs")(vectors), (1,)))
