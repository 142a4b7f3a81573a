"""Memory for each value of a Program: a view where possible, otherwise a slot that several values share."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias
from weakref import WeakKeyDictionary

from aidotnet_py.autodiff.execution.fusion import SAME_ORDER, Unit, units_of
from aidotnet_py.autodiff.execution.memory import FOREVER, Life, Slot, share_slots
from aidotnet_py.autodiff.execution.tiling import tile
from aidotnet_py.autodiff.primitive import Primitive
from aidotnet_py.autodiff.primitives.shape import slice_primitive
from aidotnet_py.autodiff.program import Atom, Equation, Literal, Program, Variable
from aidotnet_py.autodiff.strides import c_strides, fits_matrix_product, is_contiguous
from aidotnet_py.autodiff.types import ArrayType
from aidotnet_py.backends.kernel import LoopRules
from aidotnet_py.locks import Lock

__all__ = ["Cell", "Operand", "Plan", "Storage", "Work", "plan", "shared_plan"]


@dataclass(eq=False)
class Storage:
    """Memory of one computed value and its views, from the call that writes it to the last that reads it.

    A storage has a slot unless its memory is the caller's: an input, a constant, or an output bound to an array.
    Values internal to a unit have separate slots, which the unit does not need as a compiled loop.
    """

    type: ArrayType
    stage: int
    external: bool
    internal: bool = False
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
    """One call of a run: ``primitive(*operands)`` into ``out``; without a primitive, a copy.

    Calls of one unit are consecutive, and their ``unit`` is one object.
    """

    unit: Unit
    primitive: Primitive | None
    operands: tuple[Operand, ...]
    out: Cell
    parameters: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def stage(self) -> int:
        """The stage that the call belongs to."""
        return self.unit.stage


@dataclass(eq=False)
class Plan:
    """All calls in order, and the cells of inputs, constants, bound outputs and results.

    Attributes
    ----------
    program : Program
        The Program to run: the original one, with products over many windows taken in tiles.
    inputs, constants : list of Cell
        Cells of the caller's arrays.
    bound : dict
        Index of an output that is written into the caller's array → the cell of that array.
    outputs : list of Operand
        The cell or the literal of each output.
    work : list of Work
        All calls, sorted by stage.
    slots : list of Slot
        The memory to allocate.
    """

    program: Program
    inputs: list[Cell] = field(default_factory=list["Cell"])
    constants: list[Cell] = field(default_factory=list["Cell"])
    bound: dict[int, Cell] = field(default_factory=dict[int, "Cell"])
    outputs: list[Operand] = field(default_factory=list["Operand"])
    work: list[Work] = field(default_factory=list["Work"])
    slots: list[Slot] = field(default_factory=list["Slot"])

    @property
    def nbytes(self) -> int:
        """Bytes of the slots, the memory of a run apart from the caller's arrays."""
        return sum(s.size * s.dtype.itemsize for s in self.slots)


Strides = tuple[int, ...]
Spans = tuple[tuple[int, int, int], ...]

# Rules that assume nothing about the machine.
_RULES = LoopRules()


def plan(
    program: Program,
    stages: Sequence[int] | None = None,
    input_strides: Sequence[Strides] | None = None,
    output_strides: Sequence[Strides | None] | None = None,
    *,
    carried: Mapping[int, int] | None = None,
    rules: LoopRules = _RULES,
    fuse: bool = True,
) -> Plan:
    """Plan a Program's run.

    Parameters
    ----------
    program : Program
        The Program to run.
    stages : sequence of int, optional
        A stage number for each input. An equation belongs to the highest stage of the inputs that it depends on. A
        stage can run again without the stages below it: values that a higher stage reads are kept.
    input_strides : sequence of tuple, optional
        Strides of the inputs' arrays; C order by default.
    output_strides : sequence of tuple or None, optional
        Strides of the caller's arrays that outputs are written into; None for an output without such an array.
    carried : mapping of int to int, optional
        Output index → index of the input that the output is written over, so that the next run continues from there:
        directly if no call reads the input afterwards, otherwise by a copy at the end.
    rules : LoopRules
        Rules of the backend's compiler.
    fuse : bool
        Whether equations may share a compiled unit; not for a Program that runs once.
    """
    stages = stages or [0] * len(program.inputs)
    direct, copied = dict(carried or {}), dict[int, int]()
    tiled, stage_of = tile(program, _stages_of(program, stages), rules)
    units = units_of(tiled, stage_of, rules if fuse else None)
    while True:
        planner = _Planner(tiled, stage_of, units, stages, input_strides, output_strides, direct, copied)
        planned = planner.lower()
        late = [place for place, given in direct.items() if _reads_after_overwrite(planned, place, given)]
        if not late:
            planner.allocate(rules if fuse else _RULES)
            return planned
        copied.update((place, direct.pop(place)) for place in late)


def _reads_after_overwrite(planned: Plan, output: int, given: int) -> bool:
    """Return whether a call reads an input after another wrote over it, as calls one by one or as compiled units."""
    cell, source = planned.bound[output], planned.inputs[given].storage
    # A concatenation has several writers, one for each part.
    writers = [index for index, work in enumerate(planned.work) if work.out.storage is cell.storage]
    first, units = writers[0], {planned.work[index].unit for index in writers}
    writer = planned.work[first]
    # A loop clears the targets of sums before it reads anything, also those of sums over axes of length 1.
    by_element = writer.primitive is not None and writer.primitive.in_place
    for index, work in enumerate(planned.work):
        read = [c for c in work.operands if isinstance(c, Cell) and c.storage is source]
        alike = writer.out is cell and all(c.type == cell.type and c.strides == cell.strides for c in read)
        if read and (index > first or (work.unit in units and not (alike and by_element))):
            return True
    return False


def shared_plan(
    program: Program,
    stages: Sequence[int] | None,
    input_strides: Sequence[Strides],
    output_strides: Sequence[Strides | None],
    carried: Mapping[int, int] | None,
    rules: LoopRules,
) -> Plan:
    """Return the one plan of all Executables that run a Program in the same way; callers must not change it."""
    carrying = tuple((carried or {}).items())
    key = stages and tuple(stages), tuple(input_strides), tuple(output_strides), carrying, rules
    with _LOCK:
        plans = _PLANS.setdefault(program, {})
        if key not in plans:
            plans[key] = shared = plan(program, stages, input_strides, output_strides, carried=carried, rules=rules)
            # A plan that refers to the Program, its weak key, would keep both alive for ever.
            of = shared.program
            shared.program = Program(of.inputs, of.constants, of.equations, of.outputs)
        return plans[key]


_PLANS: WeakKeyDictionary[Program, dict[Hashable, Plan]] = WeakKeyDictionary()
_LOCK = Lock()


def _stages_of(program: Program, stages: Sequence[int]) -> dict[Atom, int]:
    """Return the stage of each value: the highest stage of the inputs that it depends on."""
    stage_of: dict[Atom, int] = dict(zip(program.inputs, stages, strict=True))
    stage_of.update((v, 0) for v, _ in program.constants)
    for equation in program.equations:
        stage_of[equation.output] = max((stage_of[v] for v in equation.variables), default=0)
    return stage_of


def _places_in(equation: Equation) -> Iterator[tuple[Variable, Spans]]:
    """Yield the variables among a concatenation's operands, and their spans in its result."""
    axis: int = equation.parameters["axis"]
    start = 0
    for atom in equation.inputs:
        stop = start + atom.type.shape[axis]
        if isinstance(atom, Variable):
            yield atom, tuple((start, stop, 1) if i == axis else (0, n, 1) for i, n in enumerate(atom.type.shape))
        start = stop


def _part(cell: Cell, spans: Spans, of: ArrayType) -> Cell:
    return Cell(of, cell.strides, cell.storage, cell, slice_primitive, {"spans": spans})


class _Planner:
    def __init__(
        self,
        program: Program,
        stage_of: Mapping[Atom, int],
        units: Sequence[Unit],
        stages: Sequence[int],
        input_strides: Sequence[Strides] | None,
        output_strides: Sequence[Strides | None] | None,
        carried: Mapping[int, int],
        copied: Mapping[int, int],
    ) -> None:
        self.program, self.stage_of, self.units = program, stage_of, units
        self.stages = stages
        self.input_strides = input_strides or [c_strides(t.shape) for t in program.input_types]
        self.output_strides = list(output_strides or [None] * len(program.outputs))
        for output, given in carried.items():
            self.output_strides[output] = self.input_strides[given]
        # Inputs that outputs replace, and the outputs that replace them by a copy at the end.
        self.carried, self.copied = [*carried.values(), *copied.values()], copied
        self.result = Plan(self.program)
        self.cells: dict[Atom, Cell] = {}
        self.bound: dict[Variable, tuple[int, Strides]] = {}
        self.views: dict[Atom, Equation] = {}
        self.copies: dict[Cell, Cell] = {}
        # Values that are computed directly into a concatenation: the concatenation, and their spans in it.
        self.parts: dict[Variable, tuple[Equation, Spans]] = {}
        self.calls_of: defaultdict[Unit, list[Work]] = defaultdict(list)

    def lower(self) -> Plan:
        """Return the plan but for its slots."""
        for variable, stage, strides in zip(self.program.inputs, self.stages, self.input_strides, strict=True):
            self.result.inputs.append(self._external(variable, stage, strides))
        for variable, _ in self.program.constants:
            self.result.constants.append(self._external(variable, 0, c_strides(variable.type.shape)))
        for equation in self.program.equations:
            if equation.primitive.is_view:
                self.views[equation.output] = equation
        self._bind_outputs()
        self._find_parts()
        for unit in self.units:
            self._lower(unit)
        self._finish_outputs()
        self.result.work.sort(key=lambda w: w.stage)
        return self.result

    def allocate(self, rules: LoopRules) -> None:
        """Give each computed value a slot; see `share_slots`."""
        for work in self.result.work:
            self.calls_of[work.unit].append(work)
        self._measure_lives()
        self._share_slots(rules)

    def _external(self, variable: Variable, stage: int, strides: Strides) -> Cell:
        cell = Cell(variable.type, strides, Storage(variable.type, stage, external=True))
        self.cells[variable] = cell
        return cell

    def _bind_outputs(self) -> None:
        """Let equations write outputs directly into the caller's arrays, also through reshapes of their results."""
        made = {e.output: e for e in self.program.equations}
        for place, (atom, strides) in enumerate(zip(self.program.outputs, self.output_strides, strict=True)):
            equation = made.get(atom) if isinstance(atom, Variable) else None
            while equation is not None and strides is not None and equation.primitive.name == "reshape":
                # Undo the reshape on the caller's array: its strides in the shape of the source.
                (source,) = equation.variables
                undo = equation.primitive.view
                assert undo is not None
                strides = undo(equation.output.type, strides, shape=source.type.shape)
                equation = made.get(source)
            if (
                equation is not None
                and strides is not None
                and not equation.primitive.is_view
                and self._is_readable(equation.output, strides)
            ):
                self.bound.setdefault(equation.output, (place, strides))

    def _is_readable(self, variable: Variable, strides: Strides) -> bool:
        """Return whether all reshapes of a value can be views.

        The unit that computes the value may read a reshape of it, and has no room for a copy in between.
        """
        for equation in self.views.values():
            if equation.inputs[0] is variable and equation.primitive.name in SAME_ORDER:
                view = equation.primitive.view
                assert view is not None
                reshaped: Strides | None = view(variable.type, strides, **equation.parameters)
                if reshaped is None or not self._is_readable(equation.output, reshaped):
                    return False
        return True

    def _find_parts(self) -> None:
        """Let equations compute operands of a concatenation directly into its result, if it is their one reader."""
        uses = Counter(v for e in self.program.equations for v in e.variables)
        uses.update(a for a in self.program.outputs if isinstance(a, Variable))
        made = {e.output: e for e in self.program.equations if not e.primitive.is_view}
        for equation in self.program.equations:
            if equation.primitive.name != "concatenate":
                continue
            for variable, spans in _places_in(equation):
                alone = uses[variable] == 1 and variable in made and variable not in self.bound
                if alone and self.stage_of[variable] == self.stage_of[equation.output]:
                    self.parts[variable] = equation, spans

    def _concatenate(self, equation: Equation, unit: Unit) -> list[Work]:
        """Return the copies of operands that are not computed directly into a concatenation."""
        cell = self._whole(equation)
        return [
            Work(unit, None, (self._cell(variable),), _part(cell, spans, variable.type))
            for variable, spans in _places_in(equation)
            if variable not in self.parts
        ]

    def _whole(self, equation: Equation) -> Cell:
        """Return the cell of a concatenation, before all its parts are computed."""
        if equation.output not in self.cells:
            self.cells[equation.output] = self._owner(equation.output, Unit(self.stage_of[equation.output], [], None))
        return self.cells[equation.output]

    def _lower(self, unit: Unit) -> None:
        calls: list[Work] = []
        for equation in unit.equations:
            if equation.primitive.name == "concatenate" and any(v in self.parts for v in equation.variables):
                calls += self._concatenate(equation, unit)
                continue
            operands = tuple(a if isinstance(a, Literal) else self._cell(a) for a in equation.inputs)
            if equation.primitive.name == "matmul":
                operands = tuple(map(self._for_product, operands))
            cell = self.cells[equation.output] = self._owner(equation.output, unit)
            calls.append(Work(unit, equation.primitive, operands, cell, equation.parameters))
        # Copies of operands are already in the plan, so that the unit's calls stay consecutive.
        self.result.work += calls

    def _owner(self, variable: Variable, unit: Unit) -> Cell:
        if variable in self.parts:
            equation, spans = self.parts[variable]
            return _part(self._whole(equation), spans, variable.type)
        if variable not in self.bound:
            return self._fresh(variable.type, unit.stage, internal=variable in unit.internal)
        place, strides = self.bound[variable]
        cell = Cell(variable.type, strides, Storage(variable.type, unit.stage, external=True))
        self.result.bound[place] = cell
        return cell

    def _fresh(self, of: ArrayType, stage: int, *, internal: bool = False) -> Cell:
        return Cell(of, c_strides(of.shape), Storage(of, stage, external=False, internal=internal))

    def _cell(self, variable: Variable) -> Cell:
        """Return the cell of a value; the cell of a view is made at its first use, after those under it."""
        missing: list[Equation] = []
        below = variable
        while below not in self.cells:
            missing.append(self.views[below])
            (below,) = missing[-1].variables
        for equation in reversed(missing):
            self.cells[equation.output] = self._view(equation)
        return self.cells[variable]

    def _view(self, equation: Equation) -> Cell:
        (variable,) = equation.variables
        source = self.cells[variable]
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
        self.result.work.append(Work(Unit(stage, [], source.type.shape), None, (source,), out))
        return out

    def _in_c_order(self, source: Cell) -> Cell:
        """Return a copy in C order, made once, in the stage that computes the value."""
        if source not in self.copies:
            self.copies[source] = self._copy(source, source.storage.stage)
        return self.copies[source]

    def _for_product(self, operand: Operand) -> Operand:
        """Return a factor with a unit stride, a copy if need be: without one, BLAS would fall back to a slow loop."""
        if isinstance(operand, Cell) and not fits_matrix_product(operand.type.shape, operand.strides):
            return self._in_c_order(operand)
        return operand

    def _finish_outputs(self) -> None:
        for place, (atom, strides) in enumerate(zip(self.program.outputs, self.output_strides, strict=True)):
            value: Operand = atom if isinstance(atom, Literal) else self._cell(atom)
            stage = self.stage_of.get(atom, 0)
            if strides is not None and place not in self.result.bound:
                cell = Cell(atom.type, strides, Storage(atom.type, stage, external=True))
                self.result.bound[place] = cell
                value = self._copy(value, stage, cell)
            elif isinstance(value, Literal) or self._needs_copy(place, value):
                value = self._copy(value, stage)
            self.result.outputs.append(value)
        self._copy_over_inputs()

    def _needs_copy(self, place: int, value: Cell) -> bool:
        """Return whether an output needs memory of its own.

        It does if it lies in an input that is written over, or if it replaces an input by a copy at the end and lies
        in the caller's memory.
        """
        written = (self.result.inputs[given].storage for given in self.carried)
        return value.storage in written or (place in self.copied and value.storage.external)

    def _copy_over_inputs(self) -> None:
        """Copy outputs over the inputs that they replace, after all calls that read those inputs."""
        for place, given in self.copied.items():
            cell = self.result.bound[place] = self.result.inputs[given]
            reading = (
                w.stage
                for w in self.result.work
                for c in w.operands
                if isinstance(c, Cell) and c.storage is cell.storage
            )
            stage = max(self.stage_of.get(self.program.outputs[place], 0), *reading, 0)
            self._copy(self.result.outputs[place], stage, cell)

    def _measure_lives(self) -> None:
        for index, work in enumerate(self.result.work):
            for cell in (work.out, *work.operands):
                if isinstance(cell, Cell):
                    storage = cell.storage
                    # A value that a later stage reads outlives the run: the later stage may run again alone.
                    storage.last = max(storage.last, index if storage.stage == work.stage else FOREVER)
        for cell in self.result.outputs:
            if isinstance(cell, Cell):
                cell.storage.last = FOREVER

    def _share_slots(self, rules: LoopRules) -> None:
        lives: dict[Storage, Life] = {}
        # A unit that runs as a loop reads all its operands until its end.
        ends = {work.unit: index for index, work in enumerate(self.result.work)}
        for index, work in enumerate(self.result.work):
            storage = work.out.storage
            if storage.external or storage in lives:
                continue
            last = storage.last
            if last != FOREVER and not storage.internal:
                last = ends[self.result.work[int(last)].unit]
            life = self._reusable_life(work, index, lives)
            if life is None:
                of = storage.type
                life = Life(of.dtype, of.size, storage.stage, storage.internal, index, last)
            life.last = last
            lives[storage] = life
        slots = share_slots(dict.fromkeys(lives.values()), apart=rules.apart, apart_within=rules.apart_within)
        for storage, life in lives.items():
            storage.slot = slots[life]
        self.result.slots = list(dict.fromkeys(slots.values()))

    def _reusable_life(self, work: Work, index: int, lives: Mapping[Storage, Life]) -> Life | None:
        """Return the life of an operand that ends at this call and that the output can replace element by element."""
        if work.primitive is None or not work.primitive.in_place:
            return None
        for cell in (c for c in work.operands if isinstance(c, Cell)):
            storage = cell.storage
            life = lives.get(storage)
            ends = storage.last == index and life is not None and life.internal == work.out.storage.internal
            if ends and self._covers(work, storage):
                return life
        return None

    def _covers(self, work: Work, storage: Storage) -> bool:
        """Return whether a call's unit reads a storage only in the layout of the call's output."""
        calls = self.calls_of[work.unit]
        cells = (c for call in calls for c in (call.out, *call.operands) if isinstance(c, Cell))
        return storage.type.size == work.out.type.size == work.out.storage.type.size and all(
            is_contiguous(c.type.shape, c.strides) and c.type == work.out.type for c in cells if c.storage is storage
        )
