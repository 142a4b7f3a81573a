"""Where the solve of a system stands: the solution under way and its residual."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from aidotnet_py.backends import Array
from aidotnet_py.solvers.progress import Progress
from aidotnet_py.solvers.row_updates import RowUpdates
from aidotnet_py.solvers.rows import Operator, Rows

__all__ = ["Iterate"]


class Iterate:
    """x and r = b − Ax, both (tasks, n) and where the backend keeps them.

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
        self._updates: RowUpdates | None = None
        # rᵀr of each task, as it was last measured.
        self.squares = self.backend.empty((rows.tasks,), rows.dtype)

    def start(self, initial: Array | None) -> None:
        """Begin at x, (tasks, n); None stands for zeros, and saves a product."""
        if initial is None:
            self.backend.copyto(self.x, 0.0)
            self.backend.copyto(self.r, self.rows.array)
        else:
            # −0 becomes 0 here once for all: adding the step of a frozen row, 0, would do it at some later time.
            self.backend.elementwise("add")(initial, 0.0, out=self.x)
            self._update_residual()

    @property
    def updates(self) -> RowUpdates:
        """What moves rows by multiples of others."""
        if self._updates is None:
            self._updates = RowUpdates(self.backend, self.rows.tasks, self.rows.n, self.rows.dtype)
        return self._updates

    def residual_norms(self) -> NDArray[Any]:
        """‖r‖ of each task, on the host; sets ``squares``."""
        return self.norms(self.r, out=self.squares)

    def norms(self, vectors: Array, out: Array | None = None) -> NDArray[Any]:
        """The Euclidean norm of each row, on the host; its square in ``out``, shape (tasks,)."""
        with self.backend.errors_ignored():
            squares = self.backend.to_numpy(self.backend.vecdot(vectors, vectors, out=out))
        norms: NDArray[Any] = np.sqrt(squares)
        return norms

    def measure(self, progress: Progress) -> None:
        """Set r to what b − Ax is at x, by one product, and judge all tasks by it."""
        self._update_residual()
        # About the least residual that b − Ax can be measured to have.
        rounding = self.norms(self.rows.array) * np.finfo(self.rows.dtype).eps
        progress.measure(self.residual_norms(), rounding)

    def _update_residual(self) -> None:
        product = self.operator(self.x)
        with self.backend.errors_ignored():
            self.backend.elementwise("subtract")(self.rows.array, product, out=self.r)
