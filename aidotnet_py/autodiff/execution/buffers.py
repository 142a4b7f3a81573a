"""The arrays of a plan: allocated slots, and cells, which are views of slots or of the caller's arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aidotnet_py.autodiff.execution.memory import Slot
from aidotnet_py.autodiff.execution.planner import Cell, Operand, Plan
from aidotnet_py.backends import Array, Backend

__all__ = ["CellArrays"]


class CellArrays:
    """The arrays of a plan's cells, each made at its first use."""

    def __init__(self, backend: Backend, planned: Plan, inputs: Sequence[Array], constants: Sequence[Array]) -> None:
        self._backend = backend
        self._slots: dict[Slot, Array] = {s: backend.empty((s.size,), s.dtype) for s in planned.slots}
        self._cells: dict[Cell, Array] = dict(zip(planned.inputs, inputs, strict=True))
        self._cells.update(zip(planned.constants, constants, strict=True))

    def region_of(self, cell: Cell) -> Array:
        """Return the array of the slot that holds a cell, or the caller's array that holds it."""
        if cell.storage.slot is not None:
            return self._slots[cell.storage.slot]
        while cell.parent is not None:
            cell = cell.parent
        return self.of(cell)

    def kernel_arrays(self) -> list[Array]:
        """Return the arrays that kernels read and write: the caller's, and all slots except internal ones."""
        given = [a for cell, a in self._cells.items() if cell.storage.external]
        return [*given, *(a for slot, a in self._slots.items() if not slot.internal)]

    def place_output(self, cell: Cell, array: Array) -> None:
        """Use the caller's array for the cell of an output, in the cell's shape."""
        self._cells[cell] = self._backend.reshape(array, cell.type.shape)

    def of(self, operand: Operand) -> Any:
        """Return the array of a cell, or the number of a literal."""
        if not isinstance(operand, Cell):
            return operand.value
        missing: list[Cell] = []
        below: Cell | None = operand
        while below is not None and below not in self._cells:
            missing.append(below)
            below = below.parent
        for cell in reversed(missing):
            self._cells[cell] = self._make(cell)
        return self._cells[operand]

    def _make(self, cell: Cell) -> Array:
        if cell.parent is not None and cell.primitive is not None:
            return cell.primitive.run(self._backend, self._cells[cell.parent], **cell.parameters)
        slot = cell.storage.slot
        assert slot is not None
        part = self._backend.index(self._slots[slot], (slice(0, cell.type.size),))
        return self._backend.reshape(part, cell.type.shape)
