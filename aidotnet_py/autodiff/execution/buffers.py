"""The arrays of a plan: slots are allocated, cells are views of them or of what the caller gave."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aidotnet_py.autodiff.execution.memory import Slot
from aidotnet_py.autodiff.execution.planner import Cell, Operand, Plan
from aidotnet_py.backends import Array, Backend

__all__ = ["CellArrays"]


class CellArrays:
    """The array of each cell, made when first asked for."""

    def __init__(self, backend: Backend, planned: Plan, inputs: Sequence[Array], constants: Sequence[Array]) -> None:
        self._backend = backend
        self._slots: dict[Slot, Array] = {s: backend.empty((s.size,), s.dtype) for s in planned.slots}
        self._cells: dict[Cell, Array] = dict(zip(planned.inputs, inputs, strict=True))
        self._cells.update(zip(planned.constants, constants, strict=True))

    def region_of(self, cell: Cell) -> Array:
        """The slot of a cell's storage, or the array that the caller gave for it."""
        if cell.storage.slot is not None:
            return self._slots[cell.storage.slot]
        while cell.parent is not None:
            cell = cell.parent
        return self.of(cell)

    def kept(self) -> list[Array]:
        """All that were given, and those of slots that are not internal to units."""
        given = [a for cell, a in self._cells.items() if cell.storage.external]
        return [*given, *(a for slot, a in self._slots.items() if not slot.internal)]

    def place_output(self, cell: Cell, array: Array) -> None:
        """The caller's array, in the shape in which it is computed."""
        self._cells[cell] = self._backend.reshape(array, cell.type.shape)

    def of(self, operand: Operand) -> Any:
        """The array of a cell; the number of a literal."""
        if not isinstance(operand, Cell):
            return operand.value
        array = self._cells.get(operand)
        if array is None:
            array = self._cells[operand] = self._make(operand)
        return array

    def _make(self, cell: Cell) -> Array:
        if cell.parent is not None and cell.primitive is not None:
            return cell.primitive.run(self._backend, self.of(cell.parent), **cell.parameters)
        slot = cell.storage.slot
        assert slot is not None
        part = self._backend.index(self._slots[slot], (slice(0, cell.type.size),))
        return self._backend.reshape(part, cell.type.shape)
