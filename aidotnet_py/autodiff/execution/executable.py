"""A planned Program on a backend: its arrays, and the calls that write into them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from aidotnet_py.autodiff.execution.buffers import CellArrays
from aidotnet_py.autodiff.execution.compiling import Call, Compiling, Part
from aidotnet_py.autodiff.execution.planner import Work, plan, shared_plan
from aidotnet_py.autodiff.execution.schedule import Replay, Run
from aidotnet_py.autodiff.program import Program, Variable
from aidotnet_py.autodiff.tracing.host_data import HostData
from aidotnet_py.autodiff.tracing.recording import require_alive
from aidotnet_py.autodiff.tracing.tracer import Tracer
from aidotnet_py.autodiff.tracing.value_types import type_of
from aidotnet_py.autodiff.types import ArrayType
from aidotnet_py.backends import Array, Backend, backend_of, get_backend, is_plain
from aidotnet_py.backends.kernel import LoopRules
from aidotnet_py.exceptions import ArgumentException, ArgumentOutOfRangeException, InvalidOperationException

__all__ = ["Executable", "backend_for", "copying", "run_program", "run_to_compile_at"]


# Bytes of a result from which uncompiled runs cost more than compiling.
_LARGE = 2**19


class Executable:
    """A Program bound to arrays: write into `inputs`, call `run`, read `outputs`. A run allocates nothing.

    The first runs call the backend's operations one by one. If the Program runs again and the backend has a compiler,
    its elementwise work is compiled; runs are then faster, and give the same bits.

    Parameters
    ----------
    program : Program
        The Program to run.
    backend : Backend
        The backend of all arrays.
    stages : sequence of int, optional
        A stage number for each input; ``run(s)`` repeats only the equations that depend on an input of stage s and
        on no input of a higher stage.
    inputs : sequence of array or None, optional
        Arrays to read inputs from at each run, of any strides; None: an array is made.
    outputs : sequence of array or None, optional
        Arrays to write outputs into, of any strides; None: an array is made, or, if the output is a view of an input
        or of another value, `outputs` has that view. Arrays must not overlap with inputs or with each other: a run
        writes some outputs before it has read all inputs.
    carried : mapping of int to int, optional
        Output index → index of an input of the same type: the output is written over the input, and the next run
        continues from there. `outputs` has no array for such an output.
    fuse : bool
        Whether the Program may be compiled; False saves the preparation for a Program that runs once.
    compile_at : int
        The run of a stage, counted from 1, at which the Program is compiled; see `run_to_compile_at`.
    merge : bool
        Whether compiled work runs in as few calls as possible; False keeps units apart, so that each can be timed.

    Attributes
    ----------
    inputs, outputs : tuple of array
        The arrays read and written. Outputs hold their values until the next run.
    nbytes : int
        Bytes of all buffers allocated for intermediate values and outputs.

    Raises
    ------
    ArgumentException
        When an array is of another backend, shape or dtype than its place, or the Program's constants are on another
        backend.

    Examples
    --------
    >>> import numpy as np
    >>> from aidotnet_py.autodiff import trace
    >>> from aidotnet_py.autodiff.extend import Executable
    >>> from aidotnet_py.backends import get_backend
    >>> executable = Executable(trace(lambda x: np.cumsum(2.0 * x), np.ones(3)), get_backend("numpy"))
    >>> executable.inputs[0][...] = [1.0, 2.0, 3.0]
    >>> executable.run()
    >>> executable.outputs[0]
    array([ 2.,  6., 12.])
    """

    def __init__(
        self,
        program: Program,
        backend: Backend,
        *,
        stages: Sequence[int] | None = None,
        inputs: Sequence[Array | None] | None = None,
        outputs: Sequence[Array | None] | None = None,
        carried: Mapping[int, int] | None = None,
        fuse: bool = True,
        compile_at: int = 2,
        merge: bool = True,
    ) -> None:
        given = inputs or [None] * len(program.inputs)
        wanted = list(outputs or [None] * len(program.outputs))
        _require_home(backend, program)
        _require_fitting(backend, given, program.input_types, "inputs")
        _require_fitting(backend, wanted, program.output_types, "outputs")
        _require_carried(program, carried or {})
        self.inputs: tuple[Array, ...] = tuple(
            backend.empty(t.shape, t.dtype) if array is None else array
            for array, t in zip(given, program.input_types, strict=True)
        )
        input_strides = [backend.strides_of(array) for array in self.inputs]
        output_strides = [None if array is None else backend.strides_of(array) for array in wanted]
        rules = _rules_of(backend)
        planned = (
            shared_plan(program, stages, input_strides, output_strides, carried, rules)
            if fuse
            else plan(program, stages, input_strides, output_strides, carried=carried, rules=rules, fuse=False)
        )
        for output, place in (carried or {}).items():
            wanted[output] = self.inputs[place]
        self._backend = backend
        self.nbytes = planned.nbytes
        arrays = CellArrays(
            backend, planned, self.inputs, [_constant(backend, value) for _, value in planned.program.constants]
        )
        for place, cell in planned.bound.items():
            arrays.place_output(cell, wanted[place])
        count = 1 + max((w.stage for w in planned.work), default=0)
        self._stages: list[list[Part]] = [[] for _ in range(max(count, 1 + max(stages or [0])))]
        for work in planned.work:
            self._stages[work.stage].append(Part((work,), _call(backend, work, arrays)))
        self._calls = _calls_of(self._stages)
        self.outputs: tuple[Array, ...] = tuple(
            arrays.of(cell) if array is None else array for cell, array in zip(planned.outputs, wanted, strict=True)
        )
        at_once = fuse and rules.own_bits
        self._runs = [0] * len(self._calls)
        self._compile_at = 1 if at_once else compile_at
        self._replays = [Replay(backend) for _ in self._calls]
        self._kernel_arrays: list[Array] = []
        self._compiling = (
            Compiling(backend, planned, arrays, merge=merge) if fuse and backend.compiler is not None else None
        )

    def run(self, *stages: int) -> None:
        """Run these stages in the order given, or all stages.

        Raises
        ------
        ArgumentOutOfRangeException
            If a stage does not exist.
        """
        for stage in stages:
            if not 0 <= stage < len(self._calls):
                raise ArgumentOutOfRangeException(f"stages must be from 0 to {len(self._calls) - 1}, got {stages}")
        for stage in stages or range(len(self._calls)):
            self._replays[stage].run(Run(self, stage), 1)

    def rehearse(self, stage: int) -> None:
        """Make the calls of a stage, some run of which starts the compilation of all stages.

        Kernels that get ready meanwhile make the rest of the calls: on large arrays, a run can outlast a compilation.
        """
        if self._compiling is not None:
            self._prepare(self._compiling, stage)
        with self._backend.errors_ignored():
            if self._compiling is None:
                self.call(stage)
            else:
                self._call_meanwhile(self._compiling, stage)

    def call(self, stage: int) -> None:
        """Make the calls of a stage, and compile nothing."""
        for call in self._calls[stage]:
            call()

    def parts(self, stage: int) -> Sequence[Part]:
        """Return the parts of a stage, in the order of their calls."""
        return self._stages[stage]

    def kernels(self, stage: int) -> list[Call] | None:
        """Return the calls of a stage if all of them run compiled kernels, None otherwise."""
        parts = self._stages[stage]
        return [part.call for part in parts] if all(part.compiled for part in parts) else None

    def is_settled(self) -> bool:
        """Return whether the calls stay the same from now on: nothing waits to be compiled."""
        return self._compiling is None

    def compile(self) -> None:
        """Compile now, and wait for the kernels; do nothing on a backend without a compiler.

        Raises
        ------
        InvalidOperationException
            If the compiler fails.
        """
        if self._compiling is not None:
            self._compiling.begin(self._stages)
            self._take_over(self._compiling, wait=True)

    def _prepare(self, compiling: Compiling, stage: int) -> None:
        """Start compiling when a stage has run often enough; take over kernels once they are ready."""
        self._runs[stage] += 1
        if self._runs[stage] >= self._compile_at:
            compiling.begin(self._stages)
        self._try_to_take_over(compiling)

    def _call_meanwhile(self, compiling: Compiling, stage: int) -> None:
        """Make the calls of a stage while kernels are compiled, and once these are ready, theirs."""
        parts = self._stages[stage]
        for done, part in enumerate(parts, 1):
            part.call()
            if self._compiling is not None and self._try_to_take_over(compiling):
                for later in _after(done, parts, self._stages[stage]):
                    later.call()
                return

    def _try_to_take_over(self, compiling: Compiling) -> bool:
        """Take over kernels if they are ready; return whether they are."""
        try:
            return self._take_over(compiling)
        except InvalidOperationException as error:
            self._compiling = None
            warnings.warn(f"{error}; falling back to uncompiled kernels", RuntimeWarning, stacklevel=4)
            return False

    def _take_over(self, compiling: Compiling, *, wait: bool = False) -> bool:
        stages = compiling.collect(wait=wait)
        if stages is not None:
            self._stages, self._compiling = stages, None
            self._calls = _calls_of(stages)
            self.nbytes -= compiling.internal_nbytes
            # Kernels hold addresses only, and do not keep their arrays alive.
            self._kernel_arrays = compiling.kernel_arrays
        return stages is not None


def run_to_compile_at(program: Program, patience: int) -> int:
    """Return the run at which to compile a Program that will run many times, if its shapes come back.

    It is run number ``patience``: shapes that come once are not worth compiling for. With large arrays it is the first
    run, since uncompiled runs cost more than compiling.

    Parameters
    ----------
    program : Program
        The Program.
    patience : int
        The run for Programs of small arrays, at least 1.

    Returns
    -------
    int
        For ``compile_at`` of `Executable`.

    Examples
    --------
    >>> import numpy as np
    >>> from aidotnet_py.autodiff import trace
    >>> from aidotnet_py.autodiff.extend import run_to_compile_at
    >>> [run_to_compile_at(trace(np.sin, np.zeros(n)), 12) for n in (10, 10**6)]
    [12, 1]
    """
    return 1 if any(e.output.type.nbytes >= _LARGE for e in program.equations) else patience


def _rules_of(backend: Backend) -> LoopRules:
    # Its many additions take minimal filtering longer than what it saves, unless they are compiled.
    return LoopRules(minimal_filtering=False) if backend.compiler is None else backend.compiler.rules


def _after(done: int, uncompiled: Sequence[Part], compiled: Sequence[Part]) -> list[Part]:
    """Return the parts to run after so many uncompiled ones: more of these up to where a kernel begins, then kernels.

    An uncompiled part is one planned call.
    """
    begins = 0
    for place, part in enumerate(compiled):
        if begins >= done:
            return [*uncompiled[done:begins], *compiled[place:]]
        begins += len(part.work)
    return list(uncompiled[done:])


def _calls_of(stages: Sequence[Sequence[Part]]) -> list[list[Call]]:
    return [[part.call for part in parts] for parts in stages]


def backend_for(program: Program, arguments: Sequence[Any] = ()) -> Backend:
    """Return the backend that owns all arguments and constants, NumPy's if all are numbers."""
    return backend_of(*arguments, *(value for _, value in program.constants)) or get_backend("numpy")


def _constant(backend: Backend, value: Any) -> Array:
    if isinstance(value, Tracer):
        raise InvalidOperationException(
            "the program's constants must be arrays, got a value still being traced; call the program inside that trace"
        )
    return backend.asarray(value.array if isinstance(value, HostData) else value)


def _require_home(backend: Backend, program: Program) -> None:
    home = backend_for(program)
    if home is not backend and any(backend_of(value) and not backend.owns(value) for _, value in program.constants):
        raise ArgumentException(
            f"the program's constants must be on backend {backend.name!r}, got constants on {home.name!r}; "
            f"run the program there"
        )


def _require_fitting(backend: Backend, arrays: Sequence[Any], types: Sequence[ArrayType], name: str) -> None:
    for place, (array, wanted) in enumerate(zip(arrays, types, strict=True)):
        if array is None:
            continue
        if not backend.owns(array):
            raise ArgumentException(
                f"{name}[{place}] must be an array of backend {backend.name!r}, got {type(array).__name__}; convert it "
                f"with the backend's asarray"
            )
        if type_of(array) != wanted:
            raise ArgumentException(f"{name}[{place}] must be {wanted}, got {type_of(array)}")
        if not is_plain(array):
            raise ArgumentException(
                f"{name}[{place}] must be in native byte order, aligned, its strides whole elements, got dtype "
                f"{array.dtype!r} with strides {array.strides}; copy it with the backend's asarray"
            )


def _require_carried(program: Program, carried: Mapping[int, int]) -> None:
    for output, place in carried.items():
        came, wanted = program.output_types[output], program.input_types[place]
        if came != wanted:
            raise ArgumentException(f"output {output} must be {wanted} to be written over input {place}, got {came}")


def _call(backend: Backend, work: Work, arrays: CellArrays) -> Call:
    out, operands = arrays.of(work.out), [arrays.of(o) for o in work.operands]
    if work.primitive is None:
        return partial(backend.copyto, out, operands[0])
    return partial(work.primitive.run, backend, out, *operands, **work.parameters)


def run_program(program: Program, arguments: Sequence[Any]) -> list[Array]:
    """Run a Program once on arrays and numbers; the results share no memory with arguments or with each other."""
    require_alive(*arguments)
    backend = backend_for(program, arguments)
    arrays = [
        a if backend.owns(a) and is_plain(a) else backend.asarray(a, t.dtype)
        for a, t in zip(arguments, program.input_types, strict=True)
    ]
    # Arrays for the results, so that no result is a view of an argument.
    outputs = [backend.empty(t.shape, t.dtype) for t in program.output_types]
    Executable(program, backend, inputs=arrays, outputs=outputs, fuse=False).run()
    return outputs


def copying(backend: Backend, source: Array, target: Array) -> Run:
    """Return a step that copies an array into another one of its shape and dtype.

    Parameters
    ----------
    backend : Backend
        The backend of both arrays.
    source, target : array
        Of one shape and dtype, any strides.

    Returns
    -------
    Run

    Raises
    ------
    ArgumentException
        When the arrays are of another backend, or of different types.

    Examples
    --------
    >>> import numpy as np
    >>> from aidotnet_py.autodiff.extend import copying
    >>> from aidotnet_py.backends import get_backend
    >>> target = np.zeros(2)
    >>> copying(get_backend("numpy"), np.ones(2), target).run()
    >>> target
    array([1., 1.])
    """
    variable = Variable(type_of(source))
    program = Program((variable,), (), (), (variable,))
    return Run(Executable(program, backend, inputs=[source], outputs=[target], compile_at=1), 0)
