"""Which array each value of a Program lives in: a view where possible, or a slot that values take turns in."""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, TypeAlias

import numpy as np

from aidotnet_py.autodiff.array_type import ArrayType
from aidotnet_py.autodiff.layout import c_strides, fits_matrix_product, is_contiguous
from aidotnet_py.autodiff.primitive import Primitive
from aidotnet_py.autodiff.program import Atom, Equation, Literal, Program, Variable

__all__ = ["Cell", "Operand", "Plan", "Slot", "Storage", "Work", "plan"]

_FOREVER = math.inf


@dataclass(eq=False)
class Slot:
    """Memory that storages take turns in, from a stage on."""

    dtype: np.dtype[Any]
    size: int
    stage: int


@dataclass(eq=False)
class Storage:
    """Memory of one computed value and its views, from the call that writes it to the last that reads it.

    A slot is given to it unless its memory is the caller's: an input, a constant, or an output bound to an array.
    """

    type: ArrayType
    stage: int
    external: bool
    last: float = -1
    slot: Slot | None = None


@dataclass(eq=False)
class Cell:
    """One array: a whole storage, or a view of another cell."""

    type: ArrayType
    strides: tuple[int, ...]
    storage: Storage
    parent: Cell | None = None
    primitive: Primitive | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict[str, Any])


Operand: TypeAlias = Cell | Literal


@dataclass(eq=False)
class Work:
    """One call of a run: ``primitive(*operands)`` into ``out``; without a primitive, a copy."""

    stage: int
    primitive: Primitive | None
    operands: tuple[Operand, ...]
    out: Cell
    parameters: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(eq=False)
class Plan:
    """All calls in order, and the cells of inputs, constants, bound outputs and results.

    Attributes
    ----------
    inputs, constants : list of Cell
        Whole storages of the caller.
    bound : dict
        For an output that is written where the caller wants it: its place among the outputs, and the cell.
    outputs : list of Operand
        Where each output is after a run.
    work : list of Work
        Sorted by stage.
    slots : list of Slot
        The memory to allocate.
    """

    inputs: list[Cell] = field(default_factory=list["Cell"])
    constants: list[Cell] = field(default_factory=list["Cell"])
    bound: dict[int, Cell] = field(default_factory=dict[int, "Cell"])
    outputs: list[Operand] = field(default_factory=list["Operand"])
    work: list[Work] = field(default_factory=list["Work"])
    slots: list[Slot] = field(default_factory=list["Slot"])

    @property
    def nbytes(self) -> int:
        """Bytes of the slots: what a run needs beside the caller's arrays."""
        return sum(s.size * s.dtype.itemsize for s in self.slots)


Strides = tuple[int, ...]


def plan(
    program: Program,
    stages: Sequence[int] | None = None,
    input_strides: Sequence[Strides] | None = None,
    output_strides: Sequence[Strides | None] | None = None,
) -> Plan:
    """Plan a Program's run.

    Parameters
    ----------
    program : Program
        What to run.
    stages : sequence of int, optional
        A number for each input. An equation belongs to the highest stage of the inputs that it depends on, so that
        stages can be run again without those under them: values that a later stage reads are kept.
    input_strides : sequence of tuple, optional
        How the arrays of the inputs will lie; C order by default.
    output_strides : sequence of tuple or None, optional
        How the arrays that outputs are to be written into lie; None for those that may lie anywhere.
    """
    return _Planner(program, stages or [0] * len(program.inputs), input_strides, output_strides).run()


def _size(slot: Slot) -> int:
    return slot.size


class _Planner:
    def __init__(
        self,
        program: Program,
        stages: Sequence[int],
        input_strides: Sequence[Strides] | None,
        output_strides: Sequence[Strides | None] | None,
    ) -> None:
        self.program = program
        self.stages = stages
        self.input_strides = input_strides or [c_strides(t.shape) for t in program.input_types]
        self.output_strides = output_strides or [None] * len(program.outputs)
        self.result = Plan()
        self.cells: dict[Atom, Cell] = {}
        self.stage_of: dict[Atom, int] = {}
        self.bound: dict[Variable, tuple[int, Strides]] = {}
        self.copies: dict[Cell, Cell] = {}

    def run(self) -> Plan:
        for variable, stage, strides in zip(self.program.inputs, self.stages, self.input_strides, strict=True):
            self.result.inputs.append(self._external(variable, stage, strides))
        for variable, _ in self.program.constants:
            self.result.constants.append(self._external(variable, 0, c_strides(variable.type.shape)))
        for equation in self.program.equations:
            self.stage_of[equation.output] = max((self.stage_of[v] for v in equation.variables), default=0)
        self._bind_outputs()
        for equation in sorted(self.program.equations, key=lambda e: self.stage_of[e.output]):
            self._lower(equation)
        self._finish_outputs()
        self.result.work.sort(key=lambda w: w.stage)
        self._measure_lives()
        self._share_slots()
        return self.result

    def _external(self, variable: Variable, stage: int, strides: Strides) -> Cell:
        cell = Cell(variable.type, strides, Storage(variable.type, stage, external=True))
        self.cells[variable] = cell
        self.stage_of[variable] = stage
        return cell

    def _bind_outputs(self) -> None:
        """Let what computes an output write into the caller's array at once, also through reshapes of its result."""
        made = {e.output: e for e in self.program.equations}
        for place, (atom, strides) in enumerate(zip(self.program.outputs, self.output_strides, strict=True)):
            equation = made.get(atom) if isinstance(atom, Variable) else None
            while equation is not None and strides is not None and equation.primitive.name == "reshape":
                # The reshape is undone on the caller's array: its strides as the source's shape.
                (source,) = equation.variables
                undo = equation.primitive.view
                assert undo is not None
                strides = undo(equation.output.type, strides, shape=source.type.shape)
                equation = made.get(source)
            if equation is not None and strides is not None and not equation.primitive.is_view:
                self.bound.setdefault(equation.output, (place, strides))

    def _lower(self, equation: Equation) -> None:
        stage = self.stage_of[equation.output]
        if equation.primitive.is_view:
            (source,) = equation.variables
            cell = self._view(equation, self.cells[source], stage)
        else:
            operands = tuple(a if isinstance(a, Literal) else self.cells[a] for a in equation.inputs)
            if equation.primitive.name == "matmul":
                operands = tuple(map(self._for_product, operands))
            cell = self._owner(equation.output, stage)
            self.result.work.append(Work(stage, equation.primitive, operands, cell, equation.parameters))
        self.cells[equation.output] = cell

    def _owner(self, variable: Variable, stage: int) -> Cell:
        if variable not in self.bound:
            return self._fresh(variable.type, stage)
        place, strides = self.bound[variable]
        cell = Cell(variable.type, strides, Storage(variable.type, stage, external=True))
        self.result.bound[place] = cell
        return cell

    def _fresh(self, of: ArrayType, stage: int) -> Cell:
        return Cell(of, c_strides(of.shape), Storage(of, stage, external=False))

    def _view(self, equation: Equation, source: Cell, stage: int) -> Cell:
        view: Callable[..., Strides | None] | None = equation.primitive.view
        assert view is not None
        strides = view(source.type, source.strides, **equation.parameters)
        if strides is None:
            source = self._in_c_order(source)
            strides = view(source.type, source.strides, **equation.parameters)
            assert strides is not None
        return Cell(equation.output.type, strides, source.storage, source, equation.primitive, equation.parameters)

    def _copy(self, source: Operand, stage: int, out: Cell | None = None) -> Cell:
        out = out or self._fresh(source.type, stage)
        self.result.work.append(Work(stage, None, (source,), out))
        return out

    def _in_c_order(self, source: Cell) -> Cell:
        """A copy in C order, made once, in the stage that the values come from."""
        if source not in self.copies:
            self.copies[source] = self._copy(source, source.storage.stage)
        return self.copies[source]

    def _for_product(self, operand: Operand) -> Operand:
        """BLAS wants one unit stride; anything else would fall back to a slow loop, and is copied."""
        if isinstance(operand, Cell) and not fits_matrix_product(operand.type.shape, operand.strides):
            return self._in_c_order(operand)
        return operand

    def _finish_outputs(self) -> None:
        for place, (atom, strides) in enumerate(zip(self.program.outputs, self.output_strides, strict=True)):
            value: Operand = atom if isinstance(atom, Literal) else self.cells[atom]
            stage = self.stage_of.get(atom, 0)
            if strides is not None and place not in self.result.bound:
                cell = Cell(atom.type, strides, Storage(atom.type, stage, external=True))
                self.result.bound[place] = cell
                value = self._copy(value, stage, cell)
            elif isinstance(value, Literal):
                value = self._copy(value, stage)
            self.result.outputs.append(value)

    def _measure_lives(self) -> None:
        for index, work in enumerate(self.result.work):
            for cell in (work.out, *work.operands):
                if isinstance(cell, Cell):
                    storage = cell.storage
                    # What a later stage reads must outlive it: that stage will be run again.
                    storage.last = max(storage.last, index if storage.stage == work.stage else _FOREVER)
        for cell in self.result.outputs:
            if isinstance(cell, Cell):
                cell.storage.last = _FOREVER

    def _share_slots(self) -> None:
        free: defaultdict[np.dtype[Any], list[Slot]] = defaultdict(list)
        for index, work in enumerate(self.result.work):
            storage = work.out.storage
            if not storage.external and storage.slot is None:
                storage.slot = self._taken_over(work, index) or self._from(free[storage.type.dtype], storage)
            ending = (c.storage for c in (work.out, *work.operands) if isinstance(c, Cell) and c.storage.last == index)
            for slot in dict.fromkeys(ended.slot for ended in ending):
                # A slot that the output has taken over goes on.
                if slot is not None and (slot is not storage.slot or storage.last == index):
                    insort(free[slot.dtype], slot, key=_size)

    def _taken_over(self, work: Work, index: int) -> Slot | None:
        """The slot of an operand that ends here, where the output can be written over it element by element."""
        if work.primitive is None or not work.primitive.in_place:
            return None
        cells = [c for c in work.operands if isinstance(c, Cell)]
        for cell in cells:
            storage = cell.storage
            whole = all(
                is_contiguous(c.type.shape, c.strides) and c.type == work.out.type and c.type.size == storage.type.size
                for c in cells
                if c.storage is storage
            )
            ends = storage.last == index and whole
            if storage.slot is not None and ends and self._may_hold(storage.slot, work.out.storage):
                return storage.slot
        return None

    def _may_hold(self, slot: Slot, storage: Storage) -> bool:
        # What outlives its stage must not lie where an earlier stage, run again, would write over it.
        return storage.last != _FOREVER or slot.stage == storage.stage

    def _from(self, free: list[Slot], storage: Storage) -> Slot:
        """The smallest free slot that is large enough, else the largest, made larger, else a new one."""
        of = storage.type
        middle = bisect_left(free, of.size, key=_size)
        for place in chain(range(middle, len(free)), reversed(range(middle))):
            if self._may_hold(free[place], storage):
                slot = free.pop(place)
                slot.size = max(slot.size, of.size)
                return slot
        slot = Slot(of.dtype, of.size, storage.stage)
        self.result.slots.append(slot)
        return slot
