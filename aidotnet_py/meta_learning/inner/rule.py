"""One step of an inner optimizer, differentiated: what a change of its result asks of what went into it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Generator, Hashable, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

from aidotnet_py.autodiff import trace, vjp
from aidotnet_py.autodiff.execution import Executable
from aidotnet_py.autodiff.program import Program
from aidotnet_py.autodiff.tracing.captured_state import CapturedState
from aidotnet_py.backends import Array, Backend
from aidotnet_py.locks import Lock
from aidotnet_py.meta_learning.inner.steps import InnerState
from aidotnet_py.optimizers import ElementwiseOptimizer, SGDOptimizer

__all__ = ["UpdateRule", "UpdateRules", "plain_rate"]

# For each optimizer, the chunks of a batch and the last, smaller one, in training; the oldest go first.
_MOST_KINDS = 8


def plain_rate(optimizer: ElementwiseOptimizer) -> float | None:
    """α where a step of the optimizer is φ − α∇, and nothing else."""
    plain = type(optimizer) is SGDOptimizer and not optimizer.memory
    return optimizer.GetCurrentLearningRate() if plain else None


class UpdateRule(Protocol):
    """(φ, m), ∇ ↦ (φ′, m′), one step of an optimizer with memory m, pulled back."""

    def pull(self, state: InnerState, gradients: Array, v: Array) -> tuple[Array, Array]:
        """The cotangents of φ and of ∇, from that of φ′; those of m and m′ are kept from one call to the next.

        Calls go from the last step to the first; ``state`` is the one before the step. The arrays are valid until the
        next call.
        """
        ...


class _PlainRule:
    """Of φ − α∇."""

    def __init__(self, rate: float) -> None:
        self._rate = rate

    def pull(self, state: InnerState, gradients: Array, v: Array) -> tuple[Array, Array]:
        """Cotangents v and −αv."""
        return v, v * -self._rate


class _TracedRule:
    """By the engine's vjp of the optimizer's formula."""

    def __init__(self, optimizer: ElementwiseOptimizer, backend: Backend, program: Program) -> None:
        self._optimizer = optimizer
        self._backend = backend
        self._executable = Executable(
            program, backend, outputs=[backend.empty(t.shape, t.dtype) for t in program.output_types]
        )
        self._after = self._executable.inputs[len(program.inputs) - len(optimizer.memory) :]

    def begin(self) -> None:
        """Forget the cotangents of the memory: nothing is asked of the one after the last step."""
        for array in self._after:
            self._backend.copyto(array, 0)

    def pull(self, state: InnerState, gradients: Array, v: Array) -> tuple[Array, Array]:
        """See `UpdateRule`."""
        backend, names = self._backend, self._optimizer.memory
        coefficients = self._optimizer.coefficients(int(state.memory["steps"]) + 1)
        # Before the first step the memory is not there yet, and zero.
        values = [state.points, gradients, *(state.memory.get(name, 0) for name in names), *coefficients, v]
        for array, value in zip(self._executable.inputs, values, strict=False):
            backend.copyto(array, value)
        self._executable.run()
        points, slopes, *memory = self._executable.outputs
        for array, value in zip(self._after, memory, strict=True):
            backend.copyto(array, value)
        return points, slopes


class _Kept(NamedTuple):
    """An optimizer, the settings that its formula read, the program of its rules, and the rules that are not lent."""

    optimizer: ElementwiseOptimizer
    settings: CapturedState
    program: Program
    free: list[_TracedRule]


class UpdateRules:
    """The rules of a learner's optimizers: traced once for arrays of a shape, and lent to one chunk at a time."""

    def __init__(self) -> None:
        self._lock = Lock()
        # The optimizer is kept beside its rules, so that its id stays its own.
        self._kept: OrderedDict[Hashable, _Kept] = OrderedDict()

    def __reduce__(self) -> tuple[type[UpdateRules], tuple[()]]:
        """Copied and pickled with nothing kept."""
        return type(self), ()

    @contextmanager
    def lent(self, optimizer: ElementwiseOptimizer, backend: Backend, like: Array) -> Generator[UpdateRule]:
        """The rule of an optimizer with a formula, for arrays like this one."""
        rate = plain_rate(optimizer)
        if rate is not None:
            yield _PlainRule(rate)
            return
        key = (id(optimizer), optimizer.memory, backend.name, tuple(like.shape), backend.dtype_of(like))
        with self._lock:
            if key not in self._kept or self._kept[key].settings.changed():
                program = _traced(optimizer, backend, like)
                self._kept[key] = _Kept(optimizer, CapturedState(optimizer.formula), program, [])
            self._kept.move_to_end(key)
            while len(self._kept) > _MOST_KINDS:
                self._kept.popitem(last=False)
            _, _, program, free = self._kept[key]
            rule = free.pop() if free else None
        rule = rule or _TracedRule(optimizer, backend, program)
        rule.begin()
        yield rule
        # Not after an error: it may be in the middle of something.
        with self._lock:
            free.append(rule)


def _traced(optimizer: ElementwiseOptimizer, backend: Backend, like: Array) -> Program:
    def pulled(points: Any, gradients: Any, before: Any, numbers: Sequence[Any], v: Any, after: Any) -> Any:
        def step(points: Any, gradients: Any, before: Any) -> Any:
            return optimizer.formula(points, gradients, before, numbers)

        return vjp(step, points, gradients, before)[1]((v, after))

    memory = [like] * len(optimizer.memory)
    number = backend.empty((), backend.dtype_of(like))
    return trace(pulled, like, like, memory, [number] * len(optimizer.coefficients(1)), like, memory)
