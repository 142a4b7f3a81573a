"""The objective of a model that the engine traces: exact, all tasks in one Program, nothing recomputed in a solve."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeVar

import numpy as np

from aidotnet_py.autodiff.extend import ArrayType, Copy, Queue
from aidotnet_py.backends import Array, Backend
from aidotnet_py.exceptions import InvalidOperationException
from aidotnet_py.losses import LossFunctionBase
from aidotnet_py.losses.interface import checked_accuracy
from aidotnet_py.meta_learning.objective.batched_programs import DIRECTION, BatchedPrograms
from aidotnet_py.meta_learning.objective.interface import (
    CurvatureKind,
    CurvatureWork,
    Evaluation,
    GradientWork,
    ProductWork,
    TaskObjective,
)
from aidotnet_py.meta_learning.objective.task_programs import ModelFunction, Shapes, Signature, TaskPrograms
from aidotnet_py.models.noise import draw_noise
from aidotnet_py.solvers.iteration import BufferedOperator

__all__ = ["Place", "TracedObjective"]

C = TypeVar("C")


@dataclass(frozen=True)
class Place:
    """The key of shared buffers: objectives of one role, in one lane, for one number of tasks, share them."""

    role: str
    lane: int
    tasks: int
    signature: Signature


class ProgramSource(Protocol):
    """A store of programs for the next batch of the same shapes."""

    @property
    def run(self) -> int:
        """The number of this run; buffers from a run of another number are not valid any more."""
        ...

    def programs(self, signature: Signature) -> TaskPrograms:
        """Return the programs of one task."""
        ...

    def ready(self, place: Place, programs: TaskPrograms, backend: Backend) -> BatchedPrograms:
        """Return the programs of a place, with its buffers."""
        ...


class TracedObjective:
    """The sets of a batch of tasks bound to compiled programs."""

    def __init__(
        self,
        role: str,
        backend: Backend,
        signature: Signature,
        inputs: Sequence[Array],
        targets: Sequence[Array],
        source: ProgramSource,
        noise_key: Sequence[int] = (),
    ) -> None:
        self._role = role
        self._backend = backend
        self._signature = signature
        self._inputs = inputs
        self._targets = targets
        self._source = source
        # The noise of a task depends on this key and on the task's place in the batch alone.
        self._noise_key = noise_key
        self._first = 0
        self._lane = 0
        self._of_task: TaskPrograms | None = None
        self._programs: BatchedPrograms | None = None
        self._run = source.run

    @property
    def queue(self) -> Queue:
        """The queue that runs the work."""
        return self.bind().queue

    @property
    def input_type(self) -> ArrayType:
        """The type of one task's inputs."""
        return self._signature.input

    @property
    def tasks_at_once(self) -> int:
        """The number of tasks that keep the backend busy."""
        return max(1, self._backend.flops_at_once // max(1, self._task_programs().flops))

    def _task_programs(self) -> TaskPrograms:
        """Return the programs of one task, looked up once."""
        if self._of_task is None:
            self._of_task = self._source.programs(self._signature)
        return self._of_task

    @property
    def noise_shapes(self) -> Shapes:
        """Names and shapes of the noise that the model takes for one task."""
        return dict(self._signature.noise)

    @property
    def batches(self) -> list[TaskObjective]:
        """The objective itself."""
        return [self]

    def of_step(self, step: int) -> TracedObjective:
        """Return the objective itself."""
        return self

    def of_function(self, role: str, function: ModelFunction, shapes: Shapes) -> TracedObjective:
        """Return the objective of another function of other parameters on the same sets, with buffers of a role."""
        signature = self._signature.of_function(function, shapes)
        other = TracedObjective(
            role, self._backend, signature, self._inputs, self._targets, self._source, self._noise_key
        )
        other._first = self._first
        return other

    @property
    def noise_key(self) -> Sequence[int]:
        """The key of the tasks' noise; empty without noise."""
        return self._noise_key

    def with_noise(self, key: Sequence[int], first: int) -> TracedObjective:
        """Return the objective with the noise of another key, and of tasks from another place on."""
        other = copy.copy(self)
        other._noise_key, other._first, other._programs = key, first, None
        return other

    def part(self, start: int, stop: int, lane: int) -> TracedObjective:
        """See `TaskObjective`."""
        part = copy.copy(self)
        part._inputs, part._targets = self._inputs[start:stop], self._targets[start:stop]
        part._first, part._lane, part._programs = self._first + start, lane, None
        return part

    def bind(self) -> BatchedPrograms:
        """Return the programs, with the examples of this batch in their buffers."""
        programs = self._programs
        if programs is None or self._run != self._source.run:
            place = Place(self._role, self._lane, len(self._inputs), self._signature)
            self._run = self._source.run
            programs = self._programs = self._source.ready(place, self._task_programs(), self._backend)
        programs.owners.load_examples(self, partial(self._load_examples, programs))
        return programs

    def _load_examples(self, programs: BatchedPrograms) -> None:
        self._fill(programs.inputs, self._inputs)
        self._fill(programs.targets, self._targets)
        self._draw(programs.noise)
        programs.run_examples()

    def _fill(self, buffer: Array, arrays: Sequence[Array]) -> None:
        """Copy the arrays to the buffer's entries, at once if they lie in one piece, as loaders make them."""
        stacked = self._backend.stacked(arrays)
        if stacked is not None:
            self._backend.copyto(buffer, stacked)
        else:
            tasks, examples, *shape = buffer.shape
            self._backend.concat(arrays, 0, out=self._backend.reshape(buffer, (tasks * examples, *shape)))

    def _draw(self, buffers: Sequence[Array]) -> None:
        """Fill the buffers with the noise of the tasks, which is the same at each call."""
        if not buffers:
            return
        shapes, dtype = self.noise_shapes, self._signature.parameters.dtype
        places = range(self._first, self._first + len(self._inputs))
        drawn = [draw_noise(self._noise_key, place, shapes, dtype) for place in places]
        for name, buffer in zip(shapes, buffers, strict=True):
            self._backend.copyto(buffer, self._backend.asarray(np.stack([of_task[name] for of_task in drawn])))

    def place(self, points: Array) -> None:
        """Copy parameters to the buffer that the programs read."""
        programs = self.bind()
        if points is not programs.points:
            programs.queue.run(Copy(self._backend, points, programs.points))

    def evaluate(self, points: Array) -> Evaluation:
        """See `TaskObjective`."""
        programs = self.bind()
        self.place(points)
        programs.queue.run(programs.at_point)
        programs.owners.set_evaluation(self)
        # The caller may write over the gradients: return a copy if the next evaluation does not write them again.
        anew = programs.rewrites_gradients
        return Evaluation(programs.losses, programs.gradients if anew else self._backend.asarray(programs.gradients))

    def gradient_work(self, like: Array) -> GradientWork:
        """Return evaluations in the programs' buffers."""
        programs = self.bind()
        programs.owners.set_evaluation(None)
        return GradientWork(
            programs.points,
            programs.losses,
            programs.gradients,
            lambda _: programs.at_point,
            programs,
            programs.queue,
        )

    def product_work(self, kind: CurvatureKind, identity: float, weight: float) -> ProductWork:
        """Return products by the program that has all work in one stage."""
        program = self.bind().curvature(kind, once=True)
        program.set_coefficients(self._backend, identity, weight)
        return ProductWork(program.vectors, lambda _: program.at_point)

    def curvature_work(self, kind: CurvatureKind) -> CurvatureWork:
        """Return gradients in the programs' buffers, and products in those of the curvature program."""
        programs = self.bind()
        program = programs.curvature(kind)
        program.set_coefficients(self._backend, 0.0, 1.0)
        return CurvatureWork(
            programs.gradients, program.vectors, program.products, lambda _: program.at_point, lambda _: program.product
        )

    def companion(self, serves: Callable[[C], bool], make: Callable[[], C]) -> C:
        """See `TaskObjective`."""
        return self.bind().companion(serves, make)

    def accuracies(self) -> list[float]:
        """See `TaskObjective`."""
        programs = self._programs
        if programs is None or self._run != self._source.run or not programs.owners.has_evaluation(self):
            raise InvalidOperationException(
                "accuracies() must follow an evaluation of the same objective, got other work on its buffers in "
                "between; evaluate again"
            )
        loss = self._signature.loss
        if type(loss).accuracy is LossFunctionBase.accuracy:
            return [math.nan] * len(self._inputs)
        # One transfer each, since the host waits for each transfer.
        predictions, targets = (self._backend.to_numpy(a) for a in (programs.predictions, programs.targets))
        return [checked_accuracy(loss, p, y) for p, y in zip(predictions, targets, strict=True)]

    def curvature(
        self, points: Array, kind: CurvatureKind, *, identity: float = 0.0, weight: float = 1.0
    ) -> tuple[Array, Callable[[Array], Array]]:
        """See `TaskObjective`; the work at φ is done here, once."""
        programs = self.bind()
        program = programs.curvature(kind)

        def load() -> None:
            program.set_coefficients(self._backend, identity, weight)
            self.place(points)
            self.queue.run(program.at_point)

        def at_point() -> None:
            self.bind().owners.load_curvature(load)

        at_point()
        buffers = program.vectors, program.products
        operator = BufferedOperator(
            self._backend, program.executable, DIRECTION, *buffers, at_point, program.companions, programs.queue
        )
        return programs.gradients, operator
