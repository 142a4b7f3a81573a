"""A linear function at a fixed point: values that depend on the point alone are computed once, not at each call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aidotnet_py.autodiff.execution import Executable, backend_for
from aidotnet_py.autodiff.program import Program
from aidotnet_py.autodiff.tracing.emission import inline
from aidotnet_py.autodiff.tracing.recording import active_trace, require_alive
from aidotnet_py.autodiff.transforms.simplification import simplify
from aidotnet_py.backends import Array
from aidotnet_py.locks import Lock

__all__ = ["LinearMap"]


class LinearMap:
    """A Program of a point and directions, at a fixed point.

    Parameters
    ----------
    program : Program
        Inputs: the point, then the directions. Outputs: ``count`` values that depend on the point alone, then
        outputs that are linear in the directions.
    point : sequence of array
        The point.
    count : int
        The number of values.

    Attributes
    ----------
    values : list of array
        The values at the point.
    """

    def __init__(self, program: Program, point: Sequence[Any], count: int) -> None:
        self._program = program
        self._point = point
        self._count = count
        self._lock = Lock()
        self._executable: Executable | None = None
        if active_trace() is not None:
            alone = Program(program.inputs[: len(point)], program.constants, program.equations, program.outputs[:count])
            self.values = inline(simplify(alone), point)
        else:
            self._executable = self._at_point()
            self.values = self._copies(self._executable.outputs[:count])

    def _at_point(self) -> Executable:
        """Return an Executable of the Program, after the run of its point-dependent stage."""
        require_alive(*self._point)
        backend = backend_for(self._program, self._point)
        stages = [0] * len(self._point) + [1] * (len(self._program.inputs) - len(self._point))
        executable = Executable(self._program, backend, stages=stages)
        for array, value in zip(executable.inputs, self._point, strict=False):
            backend.copyto(array, value)
        # Hold the copy, since the caller may change the arrays.
        self._point = executable.inputs[: len(self._point)]
        executable.run(0)
        return executable

    def _copies(self, arrays: Sequence[Array]) -> list[Array]:
        backend = backend_for(self._program, self._point)
        return [backend.asarray(array) for array in arrays]

    def __call__(self, directions: Sequence[Any]) -> list[Any]:
        """Return the linear outputs for these directions."""
        if active_trace() is not None:
            return inline(self._program, [*self._point, *directions])[self._count :]
        require_alive(*directions)
        with self._lock:
            executable = self._executable = self._executable or self._at_point()
            # Raises if the directions are on another backend than the point.
            backend = backend_for(self._program, [*self._point, *directions])
            for array, value in zip(executable.inputs[len(self._point) :], directions, strict=True):
                backend.copyto(array, value)
            executable.run(1)
            return self._copies(executable.outputs[self._count :])
