"""An objective of some of a model's parameters, the others staying what they are: those are worked through once."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

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
    simplify,
    trace_once,
    vmap_program,
)
from aidotnet_py.backends import Array, Backend
from aidotnet_py.meta_learning.objective.interface import (
    RUNS_BEFORE_COMPILING,
    CurvatureKind,
    CurvatureWork,
    Evaluation,
    GradientWork,
    ProductWork,
    TaskObjective,
)
from aidotnet_py.meta_learning.objective.traced import BatchedPrograms, Shapes, TracedObjective, leaf_views

__all__ = ["PartialObjective"]

C = TypeVar("C")

# What depends on the examples alone, then on the parameters that stay, then on what is asked of their features.
_EXAMPLES, _POINT, _DIRECTION = 0, 1, 2
_EARLY = "early"


class PartialObjective:
    """The loss of one set of each task as a function of its adapted parameters, stacked (tasks, A).

    `begin` is told what the others are. Their part of the model then runs once, to the features that the rest is
    computed from, and inner steps and products are of the rest alone. A product also asks something of the features,
    and so of the parameters that stay: it is summed up since `begin`, and `end` pulls the sum back in one pass.

    Parameters
    ----------
    whole : TracedObjective
        Of all parameters.
    role : str
        Whose buffers it works in.
    split : Split
        The model's function, cut in two.
    staying : mapping
        Names and shapes of the parameters that stay.
    backend : Backend
        Where they are.
    """

    def __init__(self, whole: TracedObjective, role: str, split: Split, staying: Shapes, backend: Backend) -> None:
        self._rest = whole.of_function(role, split.apply, split.shapes)
        self._split = split
        self.staying = staying
        self._backend = backend
        self._staying: Array | None = None
        self._is_asked = False
        self._hand: Array | None = None

    @property
    def tasks_at_once(self) -> int:
        """As many as the rest allows."""
        return self._rest.tasks_at_once

    @property
    def batches(self) -> list[TaskObjective]:
        """Itself alone."""
        return [self]

    def of_step(self, step: int) -> PartialObjective:
        """The same at every step."""
        return self

    def part(self, start: int, stop: int, lane: int) -> PartialObjective:
        """The objective of some of the tasks, with the buffers of a lane."""
        part = copy.copy(self)
        part._rest, part._hand, part._is_asked = self._rest.part(start, stop, lane), None, False
        if self._staying is not None:
            part.begin(self._backend.index(self._staying, (slice(start, stop), slice(None))))
        return part

    def begin(self, staying: Array) -> None:
        """Take these (tasks, those that stay) for the parameters that stay."""
        self._staying = staying
        early = self._early()
        for array, value in zip(early.inputs, self._leaves(staying), strict=False):
            self._backend.copyto(array, value)
        early.run(_EXAMPLES, _POINT)
        self._backend.copyto(early.inputs[-1], 0)
        self._is_asked = False

    def _early(self) -> Executable:
        programs = self._rest.bound()
        if _EARLY not in programs.companions:
            programs.companions[_EARLY] = self._compiled(programs)
        return programs.companions[_EARLY]

    def end(self) -> Array | None:
        """What the products since `begin` ask of the parameters that stay, (tasks, those); None if there were none."""
        if not self._is_asked:
            return None
        early = self._early()
        early.run(_DIRECTION)
        tasks = early.inputs[-1].shape[0]
        flat = [self._backend.reshape(array, (tasks, math.prod(array.shape[1:]))) for array in early.outputs[1:]]
        return self._backend.concat(flat, 1)

    def evaluate(self, points: Array) -> Evaluation:
        """Losses and gradients at these parameters."""
        losses, gradients = self._rest.evaluate(self._placed(points))
        return Evaluation(losses, self._adapted(gradients))

    def gradient_work(self, like: Array) -> GradientWork:
        """Evaluations beside the features that `begin` left among the points."""
        work = self._rest.gradient_work(like)
        self._hand = self._adapted(work.points)
        return replace(work, points=self._hand, gradients=self._adapted(work.gradients))

    def product_work(self, kind: CurvatureKind, identity: float, weight: float) -> ProductWork:
        """Products along the adapted parameters; the features' part is added up and taken out of the next vector."""
        work = self._rest.product_work(kind, identity, weight)
        features = self._features(work.vectors)
        self._backend.copyto(features, 0)
        take = self._taking(f"{kind} once", features, clear=True)
        return ProductWork(self._adapted(work.vectors), lambda step: Schedule(self._backend, work.step(step), take))

    def curvature_work(self, kind: CurvatureKind) -> CurvatureWork:
        """Products along the adapted parameters; the features' part is added up."""
        work = self._rest.curvature_work(kind)
        self._backend.copyto(self._features(work.vectors), 0)
        take = self._taking(kind, self._features(work.products), clear=False)
        gradients, vectors, products = map(self._adapted, (work.gradients, work.vectors, work.products))
        return CurvatureWork(
            gradients,
            vectors,
            products,
            work.at_point,
            lambda step: Schedule(self._backend, work.product(step), take),
        )

    def _taking(self, name: str, features: Array, *, clear: bool) -> Run:
        """Add the features' part of products to what is asked of them; the part is 0 afterwards, if so wanted."""
        kept = self._rest.bound().companions
        if name not in kept:
            program = trace_once(_sum_and_zero if clear else _sum, features, features)
            kept[name] = Executable(
                program,
                self._backend,
                inputs=[self._early().inputs[-1], features],
                carried={0: 0, 1: 1} if clear else {0: 0},
                compile_at=RUNS_BEFORE_COMPILING,
            )
        self._is_asked = True
        return Run(kept[name], 0)

    @property
    def queue(self) -> Queue:
        """That of the rest."""
        return self._rest.queue

    def companion(self, serves: Callable[[C], bool], make: Callable[[], C]) -> C:
        """Keep it with the programs of the rest."""
        return self._rest.companion(serves, make)

    def accuracies(self) -> list[float]:
        """Of each task, at the parameters last evaluated."""
        return self._rest.accuracies()

    def curvature(
        self, points: Array, kind: CurvatureKind, *, identity: float = 0.0, weight: float = 1.0
    ) -> tuple[Array, Callable[[Array], Array]]:
        """The gradients at these parameters, and v ↦ identity · v + weight · Hv, along the adapted parameters."""
        slopes, product_of_all = self._rest.curvature(self._placed(points), kind, identity=identity, weight=weight)
        return self._adapted(slopes), lambda v: self._noted(kind, product_of_all(self._beside_no_features(v)))

    def _beside_no_features(self, vectors: Array) -> Array:
        like = self._rest.bound().points
        whole = self._backend.empty(tuple(like.shape), self._backend.dtype_of(like))
        self._backend.copyto(whole, 0)
        self._backend.copyto(self._adapted(whole), vectors)
        return whole

    def _noted(self, kind: CurvatureKind, product: Array) -> Array:
        """What a product says of the adapted parameters, once what it asks of the features is added up."""
        self._taking(kind, self._features(product), clear=False).run()
        return self._adapted(product)

    def _placed(self, points: Array) -> Array:
        """The programs' own points, beside the features that `begin` left there."""
        whole = self._rest.bound().points
        if points is not self._hand:
            self._backend.copyto(self._adapted(whole), points)
        return whole

    def _adapted(self, vectors: Array) -> Array:
        return self._backend.index(vectors, (slice(None), slice(0, vectors.shape[1] - self._split.features)))

    def _features(self, vectors: Array) -> Array:
        return self._backend.index(vectors, (slice(None), slice(vectors.shape[1] - self._split.features, None)))

    def _leaves(self, staying: Array) -> list[Array]:
        return leaf_views(self._backend, staying, self.staying.items())

    def _compiled(self, programs: BatchedPrograms) -> Executable:
        """(Parameters that stay, x, noise, what is asked of the features) ↦ features, what is asked of the former."""
        tasks = programs.points.shape[0]
        examples = [programs.inputs, *programs.noise]
        program = self._early_program([ArrayType(tuple(a.shape[1:]), self._dtype(a)) for a in examples])
        count = len(self.staying)
        return Executable(
            vmap_program(program, [True] * len(program.inputs), tasks),
            self._backend,
            stages=[_POINT] * count + [_EXAMPLES] * len(examples) + [_DIRECTION],
            inputs=[*[None] * count, *examples, None],
            outputs=[self._features(programs.points), *[None] * count],
            compile_at=RUNS_BEFORE_COMPILING,
        )

    def _early_program(self, types: Sequence[ArrayType]) -> Program:
        dtype = self._split.early.output_types[0].dtype
        with new_trace() as trace:
            leaves = {name: trace.new_input(ArrayType(shape, dtype)) for name, shape in self.staying.items()}
            examples = [trace.new_input(of_one) for of_one in types]
            asked = trace.new_input(ArrayType((self._split.features,), dtype))

            def features(parameters: Mapping[str, Any]) -> Any:
                return inline(self._split.early, [*parameters.values(), *examples])[0]

            found, pullback = vjp(features, leaves)
            return simplify(trace.finish([found, *pullback(asked)[0].values()]))

    def _dtype(self, array: Array) -> Any:
        return self._backend.dtype_of(array)


def _sum(asked: Any, features: Any) -> Any:
    return asked + features


def _sum_and_zero(asked: Any, features: Any) -> Any:
    return asked + features, np.zeros_like(features)
