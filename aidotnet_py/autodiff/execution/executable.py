"""A planned Program on a backend: its arrays, and the calls that write into them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import partial
from itertools import groupby, islice
from typing import Any, TypeAlias

from aidotnet_py.autodiff.array_type import ArrayType
from aidotnet_py.autodiff.execution.lowering import KernelBuilder
from aidotnet_py.autodiff.execution.planning import Cell, Operand, Plan, Slot, Work, plan
from aidotnet_py.autodiff.program import Program
from aidotnet_py.autodiff.tracing import HostData, Tracer, require_alive, type_of
from aidotnet_py.backends import Array, Backend, Compilation, KernelCompiler, backend_of, get_backend
from aidotnet_py.backends.loops import Kernel
from aidotnet_py.exceptions import ArgumentException, ArgumentOutOfRangeException, InvalidOperationException

__all__ = ["Executable", "backend_for", "run_program"]


Call: TypeAlias = Callable[[], Any]

# A Program that has run that often will run again, and is worth compiling.
_RUNS_BEFORE_COMPILING = 3


class Executable:
    """A Program bound to arrays: write into `inputs`, call `run`, read `outputs`. A run allocates nothing.

    The first runs go through the backend's operations one by one. A Program that is run again and again has its
    elementwise work compiled in the meantime, where the backend can; from then on runs are faster, and give the same
    bits.

    Parameters
    ----------
    program : Program
        What to run.
    backend : Backend
        Where its arrays live.
    stages : sequence of int, optional
        A number for each input; ``run(s)`` does again only what depends on inputs of stage s and on none above.
    inputs : sequence of array or None, optional
        Arrays to read inputs from at each run, of any strides; None: an array is made.
    outputs : sequence of array or None, optional
        Arrays to write outputs into, of any strides; None: an array is made, or, for an output that is a view of an
        input or of another value, that view is given. They must not overlap with inputs or with each other: a run
        writes some of them before it has read all it needs.
    fuse : bool
        Whether it may be compiled; a Program that runs once need not be prepared for that.

    Attributes
    ----------
    inputs, outputs : tuple of array
        The arrays read and written. Outputs hold their values until the next run.
    nbytes : int
        Bytes of all buffers made for intermediate values and outputs.
    """

    def __init__(
        self,
        program: Program,
        backend: Backend,
        *,
        stages: Sequence[int] | None = None,
        inputs: Sequence[Array | None] | None = None,
        outputs: Sequence[Array | None] | None = None,
        fuse: bool = True,
    ) -> None:
        given = inputs or [None] * len(program.inputs)
        wanted = outputs or [None] * len(program.outputs)
        _require_home(backend, program)
        _require_fitting(backend, given, program.input_types, "inputs")
        _require_fitting(backend, wanted, program.output_types, "outputs")
        self.inputs: tuple[Array, ...] = tuple(
            backend.empty(t.shape, t.dtype) if array is None else array
            for array, t in zip(given, program.input_types, strict=True)
        )
        planned = plan(
            program,
            stages,
            [backend.strides_of(array) for array in self.inputs],
            [None if array is None else backend.strides_of(array) for array in wanted],
            fuse=fuse,
        )
        self._backend = backend
        self.nbytes = planned.nbytes
        arrays = _Arrays(
            backend, planned, self.inputs, [_constant(backend, value) for _, value in planned.program.constants]
        )
        for place, cell in planned.bound.items():
            arrays.place_output(cell, wanted[place])
        count = 1 + max((w.stage for w in planned.work), default=0)
        self._calls: list[list[Call]] = [[] for _ in range(max(count, 1 + max(stages or [0])))]
        for work in planned.work:
            self._calls[work.stage].append(_call(backend, work, arrays))
        self.outputs: tuple[Array, ...] = tuple(
            arrays.of(cell) if array is None else array for cell, array in zip(planned.outputs, wanted, strict=True)
        )
        self._runs = 0
        self._kept: list[Array] = []
        self._compiling = _Compiling(backend, planned, arrays) if fuse and backend.compiler is not None else None

    def run(self, *stages: int) -> None:
        """Run these stages in the order given, or all of them.

        Raises
        ------
        ArgumentOutOfRangeException
            When there is no stage of that number.
        """
        if any(not 0 <= stage < len(self._calls) for stage in stages):
            raise ArgumentOutOfRangeException(f"stages are {stages}; they go from 0 to {len(self._calls) - 1}")
        if self._compiling is not None:
            self._prepare(self._compiling)
        with self._backend.errors_ignored():
            for stage in stages or range(len(self._calls)):
                for call in self._calls[stage]:
                    call()

    def compile(self) -> None:
        """Compile now, and wait for it; nothing happens where there is nothing to compile with.

        Raises
        ------
        InvalidOperationException
            When compiling fails.
        """
        if self._compiling is not None:
            self._compiling.begin()
            self._take_over(self._compiling, wait=True)

    def _prepare(self, compiling: _Compiling) -> None:
        """Have it compiled once it has run a few times; take over what is compiled."""
        self._runs += 1
        if self._runs == _RUNS_BEFORE_COMPILING:
            compiling.begin()
        try:
            self._take_over(compiling)
        except InvalidOperationException as error:
            self._compiling = None
            warnings.warn(f"{error}; all works on without, at a lower speed", RuntimeWarning, stacklevel=3)

    def _take_over(self, compiling: _Compiling, *, wait: bool = False) -> None:
        calls = compiling.finished(self._calls, wait=wait)
        if calls is not None:
            self._calls, self._compiling = calls, None
            self.nbytes -= compiling.saved
            # Compiled calls know addresses alone.
            self._kept = compiling.kept


def backend_for(program: Program, arguments: Sequence[Any] = ()) -> Backend:
    """The backend that owns all arguments and constants; NumPy's where all are numbers."""
    return backend_of(*arguments, *(value for _, value in program.constants)) or get_backend("numpy")


def _constant(backend: Backend, value: Any) -> Array:
    if isinstance(value, Tracer):
        raise InvalidOperationException(
            "a program that uses a value still being traced cannot run; call it inside that trace"
        )
    return backend.asarray(value.array if isinstance(value, HostData) else value)


def _require_home(backend: Backend, program: Program) -> None:
    home = backend_for(program)
    if home is not backend and any(backend_of(value) and not backend.owns(value) for _, value in program.constants):
        raise ArgumentException(
            f"the program's constants lie on backend {home.name!r}; it was to run on {backend.name!r}"
        )


def _require_fitting(backend: Backend, arrays: Sequence[Any], types: Sequence[ArrayType], name: str) -> None:
    for place, (array, wanted) in enumerate(zip(arrays, types, strict=True)):
        if array is None:
            continue
        if not backend.owns(array):
            raise ArgumentException(f"{name}[{place}] is no array of backend {backend.name!r}")
        if type_of(array) != wanted:
            raise ArgumentException(f"{name}[{place}] is {type_of(array)}; {wanted} is wanted")


class _Arrays:
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


class _Compiling:
    """The way of a plan's calls to compiled ones."""

    def __init__(self, backend: Backend, planned: Plan, arrays: _Arrays) -> None:
        self._backend = backend
        self._planned = planned
        self._arrays = arrays
        # For each stage: how many calls each part of it stands for, and the place and addresses of its kernel.
        self._parts: list[list[tuple[int, tuple[int, list[int]] | None]]] = []
        self._compilation: Compilation | None = None

    @property
    def saved(self) -> int:
        """Bytes that only calls one by one need."""
        return sum(s.size * s.dtype.itemsize for s in self._planned.slots if s.internal)

    @property
    def kept(self) -> list[Array]:
        """The arrays that compiled calls need."""
        return self._arrays.kept()

    def begin(self) -> None:
        """Find the loops among the calls, and submit them."""
        compiler = self._backend.compiler
        if compiler is None or self._compilation is not None:
            return
        kernels: list[Kernel] = []
        for stage, calls in groupby(self._planned.work, lambda work: work.stage):
            self._parts += [[] for _ in range(stage + 1 - len(self._parts))]
            self._parts[stage] = self._split(compiler, list(calls), kernels)
        self._compilation = compiler.submit(kernels)

    def _split(
        self, compiler: KernelCompiler, work: list[Work], kernels: list[Kernel]
    ) -> list[tuple[int, tuple[int, list[int]] | None]]:
        parts: list[tuple[int, tuple[int, list[int]] | None]] = []
        builder, covered = KernelBuilder(self._backend, compiler, self._arrays), 0

        def close() -> None:
            nonlocal builder, covered
            found = builder.kernel()
            if found is not None:
                kernels.append(found[0])
                parts.append((covered, (len(kernels) - 1, found[1])))
            builder, covered = KernelBuilder(self._backend, compiler, self._arrays), 0

        for _, unit in groupby(work, lambda call: call.unit):
            calls = list(unit)
            if builder.add(calls):
                covered += len(calls)
            else:
                close()
                parts += [(1, None)] * len(calls)
        close()
        return parts

    def finished(self, before: list[list[Call]], *, wait: bool) -> list[list[Call]] | None:
        """The calls of each stage, with kernels in the place of those that they stand for; None until all are ready."""
        functions = None if self._compilation is None else self._compilation.result(wait=wait)
        if functions is None:
            return None
        found: list[list[Call]] = [[] for _ in before]
        for stage, parts in enumerate(self._parts):
            calls = iter(before[stage])
            for count, kernel in parts:
                replaced = list(islice(calls, count))
                found[stage] += replaced if kernel is None else [functions[kernel[0]](kernel[1])]
        return found


def _call(backend: Backend, work: Work, arrays: _Arrays) -> Callable[[], Any]:
    out, operands = arrays.of(work.out), [arrays.of(o) for o in work.operands]
    if work.primitive is None:
        return partial(backend.copyto, out, operands[0])
    return partial(work.primitive.run, backend, out, *operands, **work.parameters)


def run_program(program: Program, arguments: Sequence[Any]) -> list[Array]:
    """Run a Program once on arrays and numbers; the results share no memory with them, or with each other."""
    require_alive(*arguments)
    backend = backend_for(program, arguments)
    arrays = [
        a if backend.owns(a) else backend.asarray(a, t.dtype)
        for a, t in zip(arguments, program.input_types, strict=True)
    ]
    # Results go into arrays of their own, in C order, so that none is a view of an argument.
    outputs = [backend.empty(t.shape, t.dtype) for t in program.output_types]
    Executable(program, backend, inputs=arrays, outputs=outputs, fuse=False).run()
    return outputs
