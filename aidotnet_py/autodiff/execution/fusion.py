"""Fusion of equations into loops: elementwise work over one index space, and the reductions at its end.

Fusion changes the order of equations, never their values.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from aidotnet_py.autodiff.program import Atom, Equation, Program, Variable
from aidotnet_py.autodiff.strides import common_refinement
from aidotnet_py.backends.kernel import LoopRules

__all__ = ["REDUCTIONS", "SAME_ORDER", "Unit", "loop_shape", "units_of"]

Shape = tuple[int, ...]

# Views that keep every element at its place in C order.
SAME_ORDER = ("reshape", "stop_gradient")
REDUCTIONS = ("sum", "max")
# Values of at least so many elements are computed again by each reader, if their sources take little memory.
_LARGE = 4096


@dataclass(eq=False)
class Unit:
    """Equations that run together, in order.

    Attributes
    ----------
    shape : tuple of int or None
        The index space of the loop; None if the unit is a single equation that is not a loop.
    internal : set of Variable
        Values that only the unit reads: a compiled loop never writes them to memory.
    """

    stage: int
    equations: list[Equation]
    shape: Shape | None
    internal: set[Variable] = field(default_factory=set[Variable])


def loop_shape(equation: Equation) -> Shape:
    """Return the index space of an elementwise equation or a reduction."""
    (first, *_) = equation.variables
    return first.type.shape if equation.primitive.loop in REDUCTIONS else equation.output.type.shape


def units_of(program: Program, stage_of: Mapping[Atom, int], rules: LoopRules | None) -> list[Unit]:
    """Group the equations that do work into units, in the order to run them, stage by stage.

    Views do no work and belong to no unit. Without rules for loops, each equation is a unit of its own.
    """
    grouping = _Grouping(program, stage_of, rules)
    for equation in sorted(program.equations, key=lambda e: stage_of[e.output]):
        if not equation.primitive.is_view:
            grouping.place(equation)
    grouping.find_internal(program.outputs)
    return grouping.units


class _Grouping:
    """Units under construction.

    An equation joins a unit that reads or computes one of its operands, at a place where all operands are available.

    An equation whose value is larger than its sources waits: each equation that reads the value gets a copy of the
    waiting equation, so that the value is never written to memory.
    """

    def __init__(self, program: Program, stage_of: Mapping[Atom, int], rules: LoopRules | None) -> None:
        self.units: list[Unit] = []
        self._stage_of = stage_of
        self._rules = rules
        self._made_by = {e.output: e for e in program.equations}
        self._readers: defaultdict[Variable, list[Equation]] = defaultdict(list)
        for equation in program.equations:
            for variable in equation.variables:
                self._readers[variable].append(equation)
        self._outputs = set(program.outputs)
        self._loops: dict[Variable, bool] = {}
        # The value under each view, and whether the view keeps the order of its elements.
        self._roots: dict[Variable, tuple[Variable, bool]] = {}
        for equation in program.equations:
            if equation.primitive.is_view:
                root, same_order = self._root(equation.variables[0])
                self._roots[equation.output] = root, same_order and equation.primitive.name in SAME_ORDER
        self._waiting: dict[Variable, Equation] = {}
        self._place: dict[Variable, int] = {}
        self._touching: defaultdict[Variable, list[int]] = defaultdict(list)

    def place(self, equation: Equation) -> None:
        """Put an equation into a unit, after copies of the waiting equations that it reads; or let it wait."""
        stage, is_loop = self._stage_of[equation.output], self._is_loop(equation)
        if is_loop and self._may_wait(equation):
            self._waiting[equation.output] = equation
            return
        equations = [*self._copies(equation)]
        place = self._join(equations, stage) if is_loop else None
        if place is None:
            place = len(self.units)
            self.units.append(Unit(stage, equations, loop_shape(equation) if is_loop else None))
        for one in equations:
            self._place[one.output] = place
            for variable in (one.output, *(self._root(v)[0] for v in one.variables)):
                self._touching[variable].append(place)

    def _may_wait(self, equation: Equation) -> bool:
        """Return whether the value is large, only loops read it, and its sources take hardly more memory than it."""
        value = equation.output
        if value.type.size < _LARGE or equation.primitive.loop in REDUCTIONS:
            return False
        roots = self._sources(equation)
        cost = sum(root.type.nbytes for root in roots)
        # A source that another loop computes would be written to memory only to be read here.
        in_memory = all(self._is_in_memory(root) or 16 * root.type.nbytes <= value.type.nbytes for root in roots)
        if 2 * cost > value.type.nbytes and not (in_memory and 16 * cost <= 17 * value.type.nbytes):
            return False
        return value not in self._outputs and all(
            self._is_loop(reader) and loop_shape(reader) == value.type.shape for reader in self._readers[value]
        )

    def _sources(self, equation: Equation) -> set[Variable]:
        """Return the values in memory that an equation and the waiting equations that it reads are computed from."""
        sources: set[Variable] = set()
        for variable in equation.variables:
            waiting = self._waiting.get(variable)
            sources |= {self._root(variable)[0]} if waiting is None else self._sources(waiting)
        return sources

    def _is_in_memory(self, root: Variable) -> bool:
        maker = self._made_by.get(root)
        return maker is None or maker.primitive.loop in REDUCTIONS or not self._is_loop(maker)

    def _copies(self, equation: Equation) -> Iterator[Equation]:
        """Yield copies of the waiting equations that an equation reads, then the equation, reading the copies."""
        if self._waiting.keys().isdisjoint(equation.variables):
            yield equation
            return
        renamed: dict[Atom, Variable] = {}
        for variable in dict.fromkeys(v for v in equation.variables if v in self._waiting):
            *before, last = self._copies(self._waiting[variable])
            yield from before
            copy = Equation(last.primitive, last.inputs, Variable(variable.type), last.parameters)
            self._made_by[copy.output] = copy
            renamed[variable] = copy.output
            yield copy
        inputs = tuple(renamed.get(atom, atom) for atom in equation.inputs)
        yield Equation(equation.primitive, inputs, equation.output, equation.parameters)

    def _join(self, equations: list[Equation], stage: int) -> int | None:
        """Add equations to an existing unit, and return its place; None if no unit can take them."""
        shape = loop_shape(equations[-1])
        made = {e.output for e in equations}
        read = [v for e in equations for v in e.variables if v not in made]
        first, made_there = self._earliest(read, stage, shape)
        roots = [self._root(v)[0] for v in read]
        near = sorted({u for root in roots for u in self._touching[root] if u >= first})
        # The unit that computes an operand need not read it from memory.
        for place in [first, *near] if made_there else near:
            unit = self.units[place]
            refined = None if unit.shape is None or unit.stage != stage else common_refinement(unit.shape, shape)
            if refined is not None:
                unit.shape = refined
                unit.equations += equations
                return place
        return None

    def _earliest(self, read: list[Variable], stage: int, shape: Shape) -> tuple[int, bool]:
        """Return the place of the first unit that may read these values, and whether it computes one of them."""
        first, made_there = 0, False
        for variable in read:
            root, same_order = self._root(variable)
            place = self._place.get(root)
            if place is None or self.units[place].stage < stage:
                continue
            unit = self.units[place]
            within = (
                same_order
                and unit.shape is not None
                and self._made_by[root].primitive.loop not in REDUCTIONS
                and common_refinement(unit.shape, shape) is not None
            )
            bound = place if within else place + 1
            if bound > first or (bound == first and within):
                first, made_there = bound, within
        return first, made_there

    def _root(self, variable: Variable) -> tuple[Variable, bool]:
        """Return the value under a chain of views, and whether the views keep the order of its elements."""
        return self._roots.get(variable, (variable, True))

    def _is_loop(self, equation: Equation) -> bool:
        known = self._loops.get(equation.output)
        if known is None:
            known = self._loops[equation.output] = self._can_loop(equation)
        return known

    def _can_loop(self, equation: Equation) -> bool:
        loop, rules = equation.primitive.loop, self._rules
        if loop is None or rules is None:
            return False
        types = [a.type for a in equation.inputs] + [equation.output.type]
        if not all(t.dtype_name in ("float32", "float64", "bool") for t in types):
            return False
        if loop not in REDUCTIONS:
            return loop in rules.operations
        (source,) = equation.variables
        if source.type.dtype.kind != "f" or source.type.size == 0:
            return False
        return rules.any_sums or self._is_by_rows(equation)

    def _is_by_rows(self, equation: Equation) -> bool:
        """Return whether a sum adds whole rows one after another: a loop and a library then give the same bits."""
        (source,) = equation.variables
        last = len(source.type.shape) - 1
        in_c_order = self._is_computed_in_c_order(source)
        return in_c_order and last not in equation.parameters["axes"] and source.type.shape[last] > 1

    def _is_computed_in_c_order(self, variable: Variable) -> bool:
        """Return whether a value, or what it is a view of, is computed, and its elements lie in C order in memory."""
        maker = self._made_by.get(variable)
        while maker is not None and maker.primitive.is_view:
            if maker.primitive.name not in (*SAME_ORDER, "slice"):
                return False
            maker = self._made_by.get(maker.variables[0])
        return maker is not None

    def find_internal(self, outputs: Iterable[Atom]) -> None:
        """Set the internal values of each unit."""
        readers: defaultdict[Variable, set[int]] = defaultdict(set)
        for place, unit in enumerate(self.units):
            for equation in unit.equations:
                for variable in equation.variables:
                    readers[self._root(variable)[0]].add(place)
        kept = {self._root(a)[0] for a in outputs if isinstance(a, Variable)}
        for place, unit in enumerate(self.units):
            if len(unit.equations) > 1:
                unit.internal = {
                    e.output
                    for e in unit.equations
                    if e.primitive.loop not in REDUCTIONS and e.output not in kept and readers[e.output] == {place}
                }
