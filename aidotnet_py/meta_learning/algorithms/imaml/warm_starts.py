"""State of iMAML's solves between steps: the tasks' last solutions, and the signs of preconditioners."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import Any

import numpy as np

from aidotnet_py.backends import Array, Backend, backend_of
from aidotnet_py.exceptions import ArgumentException
from aidotnet_py.generator_state import unsigned_seed
from aidotnet_py.meta_learning.algorithms.imaml.options import iMAMLOptions
from aidotnet_py.meta_learning.objective.stacking import row_views, stack_rows

__all__ = ["SolveMemory", "WarmStarts", "name_of_task"]

# The most bytes of solutions that are kept for the next solves; beyond them, the oldest go.
_MOST_BYTES = 2**28


def name_of_task(one: object, place: int = 0) -> str:
    """Return a TaskId as a name for files, different for a number and a string; ArgumentException for other ids."""
    if isinstance(one, str) and one.isprintable():
        return f"str:{one}"
    if not isinstance(one, bool) and isinstance(one, Integral) and abs(int(one)) < 2**63:
        return f"int:{int(one)}"
    raise ArgumentException(
        f"TaskId of task {place} must be a whole number or a printable string with WarmStartSolves, got {one!r:.80}"
    )


class WarmStarts:
    """The last solution of each task, by its TaskId, for the next solve of the same task."""

    def __init__(self) -> None:
        self._solutions: OrderedDict[str, Array] = OrderedDict()

    def rows(self, backend: Backend, ids: Sequence[int | str], like: Array) -> Array:
        """Return the starts for these tasks, an array like the right-hand side, with zeros for a new task."""
        nothing = backend.empty((like.shape[1],), backend.dtype_of(like))
        backend.copyto(nothing, 0)
        known = [self._solutions.get(name_of_task(one), nothing) for one in ids]
        return stack_rows(backend, [row if _alike(backend, row, nothing) else nothing for row in known])

    def keep(self, backend: Backend, ids: Sequence[int | str], solutions: Array) -> None:
        """Keep the solutions of these tasks."""
        for one, row in zip(ids, row_views(backend, solutions), strict=True):
            name = name_of_task(one)
            self._solutions[name] = backend.asarray(row)
            self._solutions.move_to_end(name)
        row_bytes = solutions.shape[1] * backend.dtype_of(solutions).itemsize
        while len(self._solutions) * row_bytes > max(_MOST_BYTES, row_bytes):
            self._solutions.popitem(last=False)

    def state(self) -> dict[str, Array]:
        """Return the solutions by the names of their tasks."""
        return dict(self._solutions)

    def set_state(self, state: Mapping[str, Array], like: Array, backend: Backend) -> None:
        """Restore a result of `state`, whose solutions must be like the vector ``like``."""
        solutions = OrderedDict((name, backend.asarray(row)) for name, row in state.items())
        for name, row in solutions.items():
            if not _alike(backend, row, like):
                came, wanted = (f"{backend.dtype_of(a)}{tuple(a.shape)}" for a in (row, like))
                raise ArgumentException(f"the solution {name} must be {wanted}, got {came}")
        self._solutions = solutions


def _alike(backend: Backend, one: Array, other: Array) -> bool:
    return tuple(one.shape) == tuple(other.shape) and backend.dtype_of(one) == backend.dtype_of(other)


class SolveMemory:
    """The last solutions, and random signs that estimate diagonals, drawn once for all chunks and steps."""

    def __init__(self, options: iMAMLOptions[Any, Any, Any]) -> None:
        self._options = options
        self.warm_starts = WarmStarts()
        # The settings that the signs were drawn for, and the signs.
        self._probes: tuple[Any, Array | None] = (None, None)

    def probes_like(self, rows: Array) -> Array | None:
        """Return signs (probes, P) for rows (tasks, P); None without a preconditioner."""
        options = self._options
        if not options.PreconditionerProbes:
            return None
        backend = backend_of(rows)
        assert backend is not None
        key = options.PreconditionerProbes, options.RandomSeed, backend.name, backend.dtype_of(rows), rows.shape[1]
        last_key, signs = self._probes
        if last_key != key:
            signs = _probes_for(options, rows, backend)
            self._probes = key, signs
        return signs

    def keep(self, details: Sequence[Any], backend: Backend) -> None:
        """Keep the solutions of a step, if the next solves start from them."""
        for part in details:
            if part.solutions is not None:
                self.warm_starts.keep(backend, part.ids, part.solutions)


def _probes_for(options: iMAMLOptions[Any, Any, Any], rows: Array, backend: Backend) -> Array:
    generator = np.random.Generator(np.random.PCG64(unsigned_seed(options.RandomSeed or 0)))
    signs = generator.integers(0, 2, (options.PreconditionerProbes, rows.shape[1])) * 2 - 1
    return backend.asarray(signs, backend.dtype_of(rows))
