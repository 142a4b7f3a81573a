"""A planned Program on a backend: its arrays, and the calls that write into them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from aidotnet_py.autodiff.array_type import ArrayType
from aidotnet_py.autodiff.execution.planning import Cell, Operand, Plan, Slot, Work, plan
from aidotnet_py.autodiff.program import Program
from aidotnet_py.autodiff.tracing import HostData, Tracer, require_alive, type_of
from aidotnet_py.backends import Array, Backend, backend_of, get_backend
from aidotnet_py.exceptions import ArgumentException, ArgumentOutOfRangeException, InvalidOperationException

__all__ = ["Executable", "backend_for", "run_program"]


class Executable:
    """A Program bound to arrays: write into `inputs`, call `run`, read `outputs`. A run allocates nothing.

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
        )
        self._backend = backend
        self.nbytes = planned.nbytes
        arrays = _Arrays(backend, planned, self.inputs, [_constant(backend, value) for _, value in program.constants])
        for place, cell in planned.bound.items():
            arrays.place_output(cell, wanted[place])
        count = 1 + max((w.stage for w in planned.work), default=0)
        self._calls: list[list[Callable[[], Any]]] = [[] for _ in range(max(count, 1 + max(stages or [0])))]
        for work in planned.work:
            self._calls[work.stage].append(_call(backend, work, arrays))
        self.outputs: tuple[Array, ...] = tuple(
            arrays.of(cell) if array is None else array for cell, array in zip(planned.outputs, wanted, strict=True)
        )

    def run(self, *stages: int) -> None:
        """Run these stages in the order given, or all of them.

        Raises
        ------
        ArgumentOutOfRangeException
            When there is no stage of that number.
        """
        if any(not 0 <= stage < len(self._calls) for stage in stages):
            raise ArgumentOutOfRangeException(f"stages are {stages}; they go from 0 to {len(self._calls) - 1}")
        with self._backend.errors_ignored():
            for stage in stages or range(len(self._calls)):
                for call in self._calls[stage]:
                    call()


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
    if home is not backend and any(backend_of(value) for _, value in program.constants):
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
    Executable(program, backend, inputs=arrays, outputs=outputs).run()
    return outputs
