"""An objective of some of a model's parameters; work on the others, which stay fixed, is done once."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar

import numpy as np

from aidotnet_py.autodiff import vjp
from aidotnet_py.autodiff.extend import (
    ArrayType,
    Executable,
    Program,
    Queue,
    Run,
    Schedule,
    Split,
    inline,
    new_trace,
    run_to_compile_at,
    simplify,
    trace_once,
    vmap_program,
)
from aidotnet_py.backends import Array, Backend
from aidotnet_py.meta_learning.objective.batched_programs import BatchedPrograms, leaf_views
from aidotnet_py.meta_learning.objective.interface import (
    PATIENCE,
    CurvatureKind,
    CurvatureWork,
    Evaluation,
    GradientWork,
    ProductWork,
    TaskObjective,
)
from aidotnet_py.meta_learning.objective.stacking import bytes_of
from aidotnet_py.meta_learning.objective.task_programs import Shapes
from aidotnet_py.meta_learning.objective.traced import TracedObjective

__all__ = ["PartialObjective"]

C = TypeVar("C")

# Stages: work on the examples, on the parameters that stay, and on the cotangent of the features.
_EXAMPLES, _POINT, _DIRECTION = 0, 1, 2
_EARLY = "early"


class _Early(NamedTuple):
    """The part of the model that stays, for all tasks: its runs, and two of their inputs.

    These are the cotangent of the features, (tasks, features), and a sum that cotangents of the parameters are added
    to, (tasks, parameters).
    """

    run: Executable
    cotangent: Array
    total: Array
    sums_nbytes: int

    @property
    def nbytes(self) -> int:
        """Bytes of all buffers; the run's are fewer once it is compiled."""
        return self.run.nbytes + self.sums_nbytes


class PartialObjective:
    """The loss of one set of each task as a function of its adapted parameters, stacked (tasks, A).

    `begin` sets the parameters that stay, and runs their part of the model once; its results are the features. Inner
    steps and products run only the rest of the model, on the features. Each product also has a part for the features:
    the sum of these parts since `begin` is the features' cotangent, which `end` pulls back to the parameters that stay
    in one pass.

    Parameters
    ----------
    whole : TracedObjective
        The objective of all parameters.
    role : str
        The role of the buffers.
    split : Split
        The model's function, cut in two.
    staying : mapping
        Names and shapes of the parameters that stay.
    backend : Backend
        The backend of all arrays.
    """

    def __init__(self, whole: TracedObjective, role: str, split: Split, staying: Shapes, backend: Backend) -> None:
        self._rest = whole.of_function(role, split.apply, split.shapes)
        self._split = split
        self.staying = staying
        self._backend = backend
        self._staying: Array | None = None
        self._has_cotangent = False
        self._points: Array | None = None

    @property
    def tasks_at_once(self) -> int:
        """The number of tasks for the rest of the model."""
        return self._rest.tasks_at_once

    @property
    def batches(self) -> list[TaskObjective]:
        """The objective itself."""
        return [self]

    def of_step(self, step: int) -> PartialObjective:
        """Return the objective itself."""
        return self

    def part(self, start: int, stop: int, lane: int) -> PartialObjective:
        """See `TaskObjective`."""
        part = copy.copy(self)
        part._rest, part._points, part._has_cotangent = self._rest.part(start, stop, lane), None, False
        if self._staying is not None:
            part.begin(self._backend.index(self._staying, (slice(start, stop), slice(None))))
        return part

    def begin(self, staying: Array) -> None:
        """Set the parameters that stay, one row for each task, and compute the features."""
        self._staying = staying
        early = self._early()
        for array, value in zip(early.run.inputs, self._leaves(staying), strict=False):
            self._backend.copyto(array, value)
        early.run.run(_EXAMPLES, _POINT)
        self._backend.copyto(early.cotangent, 0)
        self._has_cotangent = False

    def _early(self) -> _Early:
        programs = self._rest.bind()
        if _EARLY not in programs.companions:
            programs.companions[_EARLY] = self._make_early(programs)
        early: _Early = programs.companions[_EARLY]
        return early

    def end(self, left: Array) -> Array:
        """Return ``left`` plus the cotangent of the parameters that stay, a row a task, of all products since `begin`.

        The sum is a buffer that the next call writes over.
        """
        if not self._has_cotangent:
            return left
        early = self._early()
        self._backend.copyto(early.total, left)
        early.run.run(_DIRECTION)
        return early.total

    def evaluate(self, points: Array) -> Evaluation:
        """See `TaskObjective`."""
        losses, gradients = self._rest.evaluate(self._place(points))
        return Evaluation(losses, self._adapted(gradients))

    def gradient_work(self, like: Array) -> GradientWork:
        """Return evaluations at points that share a buffer with the features from `begin`."""
        work = self._rest.gradient_work(like)
        self._points = self._adapted(work.points)
        return replace(work, points=self._points, gradients=self._adapted(work.gradients))

    def product_work(self, kind: CurvatureKind, identity: float, weight: float) -> ProductWork:
        """Return products along the adapted parameters; each step moves the features' part to their cotangent."""
        work = self._rest.product_work(kind, identity, weight)
        features = self._features(work.vectors)
        self._backend.copyto(features, 0)
        take = self._add_to_cotangent(f"{kind} once", features, clear=True)
        return ProductWork(self._adapted(work.vectors), lambda step: Schedule(self._backend, work.step(step), take))

    def curvature_work(self, kind: CurvatureKind) -> CurvatureWork:
        """Return products along the adapted parameters; each step adds the features' part to their cotangent."""
        work = self._rest.curvature_work(kind)
        self._backend.copyto(self._features(work.vectors), 0)
        take = self._add_to_cotangent(kind, self._features(work.products), clear=False)
        gradients, vectors, products = map(self._adapted, (work.gradients, work.vectors, work.products))
        return CurvatureWork(
            gradients,
            vectors,
            products,
            work.at_point,
            lambda step: Schedule(self._backend, work.product(step), take),
        )

    def _add_to_cotangent(self, name: str, features: Array, *, clear: bool) -> Run:
        """Return a step that adds the features' part of products to their cotangent, and can set the part to 0."""
        companions = self._rest.bind().companions
        if name not in companions:
            program = trace_once(_sum_and_zero if clear else _sum, features, features)
            companions[name] = Executable(
                program,
                self._backend,
                inputs=[self._early().cotangent, features],
                carried={0: 0, 1: 1} if clear else {0: 0},
                compile_at=run_to_compile_at(program, PATIENCE),
            )
        self._has_cotangent = True
        return Run(companions[name], 0)

    @property
    def queue(self) -> Queue:
        """The queue of the rest of the model."""
        return self._rest.queue

    def companion(self, serves: Callable[[C], bool], make: Callable[[], C]) -> C:
        """See `TaskObjective`."""
        return self._rest.companion(serves, make)

    def accuracies(self) -> list[float]:
        """See `TaskObjective`."""
        return self._rest.accuracies()

    def curvature(
        self, points: Array, kind: CurvatureKind, *, identity: float = 0.0, weight: float = 1.0
    ) -> tuple[Array, Callable[[Array], Array]]:
        """Return the gradients at these parameters, and v ↦ identity · v + weight · Hv, of the adapted parameters."""
        slopes, product_of_all = self._rest.curvature(self._place(points), kind, identity=identity, weight=weight)
        return self._adapted(slopes), lambda v: self._split_product(kind, product_of_all(self._append_zeros(v)))

    def _append_zeros(self, vectors: Array) -> Array:
        """Return vectors of adapted parameters and features, whose features are 0."""
        like = self._rest.bind().points
        whole = self._backend.empty(tuple(like.shape), self._backend.dtype_of(like))
        self._backend.copyto(whole, 0)
        self._backend.copyto(self._adapted(whole), vectors)
        return whole

    def _split_product(self, kind: CurvatureKind, product: Array) -> Array:
        """Return the adapted parameters' part of a product; add the features' part to their cotangent."""
        self._add_to_cotangent(kind, self._features(product), clear=False).run()
        return self._adapted(product)

    def _place(self, points: Array) -> Array:
        """Copy points to the programs' own buffer, and return it; it has the features from `begin` too."""
        whole = self._rest.bind().points
        if points is not self._points:
            self._backend.copyto(self._adapted(whole), points)
        return whole

    def _adapted(self, vectors: Array) -> Array:
        return self._backend.index(vectors, (slice(None), slice(0, vectors.shape[1] - self._split.features)))

    def _features(self, vectors: Array) -> Array:
        return self._backend.index(vectors, (slice(None), slice(vectors.shape[1] - self._split.features, None)))

    def _leaves(self, staying: Array) -> list[Array]:
        return leaf_views(self._backend, staying, self.staying.items())

    def _make_early(self, programs: BatchedPrograms) -> _Early:
        """Make (parameters that stay, x, noise, features' cotangent, sums) ↦ features, sums + cotangents."""
        tasks, backend = programs.points.shape[0], self._backend
        examples = [programs.inputs, *programs.noise]
        of_task = self._early_program([ArrayType(tuple(a.shape[1:]), self._dtype(a)) for a in examples])
        program, count = vmap_program(of_task, [True] * len(of_task.inputs), tasks), len(self.staying)
        dtype = of_task.output_types[0].dtype
        cotangent = backend.empty((tasks, self._split.features), dtype)
        total = backend.empty((tasks, sum(map(math.prod, self.staying.values()))), dtype)
        run = Executable(
            program,
            backend,
            stages=[_POINT] * count + [_EXAMPLES] * len(examples) + [_DIRECTION] * (1 + count),
            inputs=[*[None] * count, *examples, cotangent, *self._leaves(total)],
            outputs=[self._features(programs.points), *[None] * count],
            carried={1 + leaf: len(program.inputs) - count + leaf for leaf in range(count)},
            compile_at=run_to_compile_at(program, PATIENCE),
        )
        return _Early(run, cotangent, total, bytes_of(backend, [cotangent, total]))

    def _early_program(self, types: Sequence[ArrayType]) -> Program:
        dtype = self._split.early.output_types[0].dtype
        with new_trace() as trace:
            leaves = {name: trace.new_input(ArrayType(shape, dtype)) for name, shape in self.staying.items()}
            examples = [trace.new_input(of_one) for of_one in types]
            cotangent = trace.new_input(ArrayType((self._split.features,), dtype))
            sums = {name: trace.new_input(ArrayType(shape, dtype)) for name, shape in self.staying.items()}

            def features(parameters: Mapping[str, Any]) -> Any:
                return inline(self._split.early, [*parameters.values(), *examples])[0]

            values, pullback = vjp(features, leaves)
            pulled = pullback(cotangent)[0]
            return simplify(trace.finish([values, *[sums[name] + pulled[name] for name in self.staying]]))

    def _dtype(self, array: Array) -> Any:
        return self._backend.dtype_of(array)


def _sum(cotangent: Any, part: Any) -> Any:
    return cotangent + part


def _sum_and_zero(cotangent: Any, part: Any) -> Any:
    return cotangent + part, np.zeros_like(part)
