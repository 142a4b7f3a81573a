"""The inner loop: steps of a rule on the support sets of some tasks, all at once and in place, as a schedule."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import Any
from weakref import ref

import numpy as np
from numpy.typing import NDArray

from aidotnet_py.autodiff.extend import Executable, Repeat, Run, Schedule, Step, copying, run_to_compile_at
from aidotnet_py.backends import Array, Backend
from aidotnet_py.caching import BoundedCache
from aidotnet_py.meta_learning.inner.rule import InnerRule, TracedRule
from aidotnet_py.meta_learning.objective.chunk import Chunk
from aidotnet_py.meta_learning.objective.finiteness import row_norms
from aidotnet_py.meta_learning.objective.interface import PATIENCE, GradientWork
from aidotnet_py.meta_learning.objective.stacking import bytes_of, split_rows, stack_rows
from aidotnet_py.optimizers import ElementwiseOptimizer, IGradientBasedOptimizer, parameters_after
from aidotnet_py.optimizers.copies import copies_without_past

__all__ = ["InnerLoop", "TracedSteps"]

# Schedules of the way forward and back, three a segment, and schedules for the numbers of steps last used.
_MOST_SCHEDULES = 256


class TracedSteps:
    """Steps of a traced rule in the buffers of an objective, which keeps them for the next batch.

    Parameters
    ----------
    backend : Backend
        The backend of all arrays.
    work : GradientWork
        The evaluation of the objective; a step writes over its points.
    rule : InnerRule
        A differentiable rule.

    Attributes
    ----------
    traced : TracedRule
        The Programs.
    start, memory, values : array, and lists of array
        θ (tasks, P), the optimizer's memory, and the values of the direction.
    """

    def __init__(self, backend: Backend, work: GradientWork, rule: InnerRule) -> None:
        self.backend, self.points = backend, work.points
        # The buffers keep these steps, which therefore do not keep the buffers' owner.
        self._buffers = ref(work.buffers)
        self.traced = traced = TracedRule(rule, backend, work.points)
        self.update = Executable(
            traced.step,
            backend,
            inputs=[work.points, None, work.gradients, *[None] * (len(traced.step.inputs) - 3)],
            carried={0: 0, **{1 + i: 3 + i for i in range(traced.memory)}},
            compile_at=run_to_compile_at(traced.step, PATIENCE),
        )
        _, self.start, _, *others = self.update.inputs
        self.memory, others = others[: traced.memory], others[traced.memory :]
        self.values, (self.coefficients,) = others[: traced.values], others[traced.values :]
        # If coefficients differ between steps: a table of them, (steps, coefficients), and copies out of its rows.
        self._data, self._differ = b"", False
        self._table: Array | None = None
        self._fetches: dict[int, Run] = {}
        # By name, and by whether they read the table.
        self.schedules = BoundedCache[Hashable, Schedule](_MOST_SCHEDULES)
        # Buffers of the way back.
        self.path: Any = None

    @property
    def nbytes(self) -> int:
        """Bytes of its own buffers."""
        own = [self.start, *self.memory, *self.values, *([] if self._table is None else [self._table])]
        return self.update.nbytes + bytes_of(self.backend, own) + (0 if self.path is None else self.path.nbytes)

    def serves(self, work: GradientWork, rule: InnerRule) -> bool:
        """Return whether these are the steps of ``rule`` in the buffers of ``work``."""
        return self._buffers() is work.buffers and self.traced.serves(rule)

    def load(self, start: Array, rule: InnerRule, steps: int) -> None:
        """Begin at θ with a fresh optimizer, and copy the values and coefficients of the rule."""
        copyto = self.backend.copyto
        copyto(self.points, start)
        if self.traced.reads_start:
            copyto(self.start, start)
        for place, (array, value) in enumerate(zip(self.values, rule.values, strict=True)):
            if place < rule.learned and len(getattr(value, "shape", ())) < len(array.shape):
                value = self.backend.broadcast_to(value, tuple(array.shape))
            copyto(array, value)
        for array in self.memory:
            copyto(array, 0)
        assert isinstance(rule.optimizer, ElementwiseOptimizer)
        self._set_coefficients(rule.optimizer.first_coefficients(steps))

    def _set_coefficients(self, rows: list[tuple[float, ...]]) -> None:
        host = np.array(rows, dtype=self.backend.dtype_of(self.points))
        # Compare bytes: 0 and −0 are equal, but a formula may give different results for them.
        data = host.tobytes()
        if data == self._data:
            return
        self._data = data
        self._differ = data != data[: host[:1].nbytes] * len(rows)
        if not self._differ:
            if host.size:
                self.backend.copyto(self.coefficients, self.backend.asarray(host[0]))
            return
        if self._table is None or self._table.shape[0] < len(rows):
            self._table = self.backend.empty(host.shape, host.dtype)
            self._fetches.clear()
            self.schedules.clear()
        part = self.backend.index(self._table, (slice(0, len(rows)), slice(None)))
        self.backend.copyto(part, self.backend.asarray(host))

    def fetch(self, step: int) -> list[Step]:
        """Return the copy of the coefficients of step number ``step``, none if they are the same at all steps."""
        if not self._differ:
            return []
        if step not in self._fetches:
            row = self.backend.index(self._table, (slice(step, step + 1), slice(None)))
            row = self.backend.reshape(row, (self.traced.coefficients,))
            self._fetches[step] = copying(self.backend, row, self.coefficients)
        return [self._fetches[step]]

    def one(self, step: int, evaluation: Step) -> list[Step]:
        """Return the parts of step number ``step``."""
        return [*self.fetch(step), evaluation, Run(self.update, 0)]

    def schedule(self, key: Hashable, parts: Callable[[], Iterable[Step]]) -> Schedule:
        """Return the schedule of a name, made of its parts at its first use."""
        return self.schedules.get_or_make((key, self._differ), lambda: Schedule(self.backend, *parts()))

    def all(self, steps: int, work: GradientWork) -> Step:
        """Return the first ``steps`` steps as one step of a schedule."""
        if not self._differ:
            return Repeat(steps, self.schedule("step", lambda: self.one(0, work.step(0))))
        return self.schedule(
            ("steps", steps), lambda: (part for step in range(steps) for part in self.one(step, work.step(step)))
        )


class InnerLoop:
    """Steps of a rule from θ for all tasks of a chunk, with a fresh optimizer.

    Parameters
    ----------
    chunk : Chunk
        The tasks with their support sets.
    start : array, shape (tasks, P)
        θ, a row for each task.
    rule : InnerRule
        The rule of a step.
    steps : int
        The number of steps.

    Attributes
    ----------
    chunk, start, rule, steps
        The arguments.
    points : array, shape (tasks, P)
        φ after the steps so far, in the buffers of the support objective.
    taken : int
        The number of steps so far in which a task moved.
    moving : NDArray, shape (tasks,)
        Whether each task still moves.
    """

    def __init__(self, chunk: Chunk, start: Array, rule: InnerRule, steps: int) -> None:
        self.chunk, self.start, self.rule, self.steps = chunk, start, rule, steps
        self.work = chunk.support.gradient_work(start)
        self.points = self.work.points
        self.taken = 0
        self.moving: NDArray[np.bool_] = np.ones(len(chunk.tasks), dtype=np.bool_)
        self.traced: TracedSteps | None = None
        if rule.is_differentiable:
            self.traced = self._traced_steps()
            self.traced.load(start, rule, steps)
        else:
            chunk.backend.copyto(self.points, start)
            self._update = _opaque_update(chunk.backend, rule.optimizer, len(chunk.tasks))

    def _traced_steps(self) -> TracedSteps:
        def serves(other: TracedSteps) -> bool:
            return other.serves(self.work, self.rule)

        return self.chunk.support.companion(serves, lambda: TracedSteps(self.chunk.backend, self.work, self.rule))

    def run(self, watch: Callable[[Array], None] | None = None) -> None:
        """Take all steps, or stop early if no task moves any more; ``watch`` gets the losses before each step."""
        unseen = watch is None and self.rule.tolerance is None
        if self.traced is not None and unseen and len(self.chunk.support.batches) == 1:
            assert self.taken == 0
            self.work.queue.run(self.traced.all(self.steps, self.work))
            self.taken = self.steps
            return
        while self.taken < self.steps and self.moving.any():
            self.step(watch)

    def step(self, watch: Callable[[Array], None] | None = None) -> None:
        """Take one step."""
        self.work.step(self.taken).run()
        if watch is not None:
            watch(self.work.losses)
        if self.rule.tolerance is None:
            self._move()
        else:
            self._move_unfinished(self.rule.tolerance)
        if self.moving.any():
            self.taken += 1

    def _move_unfinished(self, tolerance: float) -> None:
        backend = self.chunk.backend
        norms = row_norms(backend, self.rule.follow(self.points, self.start, self.work.gradients))
        # A NaN compares as False: the task moves on, and a later check raises an error.
        self.moving &= ~(norms <= tolerance)
        if not self.moving.any():
            return
        before = None if self.moving.all() else backend.asarray(self.points)
        self._move()
        if before is not None:
            mask = backend.broadcast_to(backend.asarray(self.moving[:, None]), tuple(before.shape))
            backend.copyto(self.points, backend.elementwise("where")(mask, self.points, before))

    def _move(self) -> None:
        if self.traced is not None:
            for part in [*self.traced.fetch(self.taken), Run(self.traced.update, 0)]:
                part.run()
        else:
            self._update(self.points, self.rule.follow(self.points, self.start, self.work.gradients))


def _opaque_update(backend: Backend, optimizer: IGradientBasedOptimizer, tasks: int) -> Callable[[Array, Array], None]:
    """Return a step in place for an optimizer without a formula, with a copy for each task."""
    own = copies_without_past(optimizer, tasks)

    def update(points: Array, gradients: Array) -> None:
        rows = zip(own, split_rows(backend, points), split_rows(backend, gradients), strict=True)
        # Copies, since the next task's parameters may come in the same array.
        new = [backend.asarray(parameters_after(one, point, gradient)) for one, point, gradient in rows]
        backend.copyto(points, stack_rows(backend, new))

    return update
