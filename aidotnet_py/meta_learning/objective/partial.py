"""An objective of some of a model's parameters, the others staying what they are: those are worked through once."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from aidotnet_py.autodiff import vjp
from aidotnet_py.autodiff.execution import Executable
from aidotnet_py.autodiff.program import Program
from aidotnet_py.autodiff.tracing.tracer import inline, new_trace
from aidotnet_py.autodiff.transforms.batching import vmap_program
from aidotnet_py.autodiff.transforms.simplification import simplify
from aidotnet_py.autodiff.transforms.splitting import Split
from aidotnet_py.autodiff.types import ArrayType
from aidotnet_py.backends import Array, Backend
from aidotnet_py.meta_learning.objective.following import Following
from aidotnet_py.meta_learning.objective.interface import CurvatureKind, Evaluation, TaskObjective
from aidotnet_py.meta_learning.objective.traced import BatchedPrograms, Shapes, TracedObjective, leaf_views
from aidotnet_py.optimizers import ElementwiseOptimizer

__all__ = ["PartialObjective"]

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
        self._asked: Array | None = None
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
        part._rest, part._hand, part._asked = self._rest.part(start, stop, lane), None, None
        if self._staying is not None:
            part.begin(self._backend.index(self._staying, (slice(start, stop), slice(None))))
        return part

    def begin(self, staying: Array) -> None:
        """Take these (tasks, those that stay) for the parameters that stay."""
        self._staying = staying
        programs = self._rest.bound()
        if _EARLY not in programs.companions:
            programs.companions[_EARLY] = self._compiled(programs)
        early = programs.companions[_EARLY]
        for array, value in zip(early.inputs, self._leaves(staying), strict=False):
            self._backend.copyto(array, value)
        early.run(_EXAMPLES, _POINT)
        self._asked = None

    def end(self) -> Array | None:
        """What the products since `begin` ask of the parameters that stay, (tasks, those); None if there were none."""
        if self._asked is None:
            return None
        early = self._rest.bound().companions[_EARLY]
        self._backend.copyto(early.inputs[-1], self._asked)
        early.run(_DIRECTION)
        tasks = self._asked.shape[0]
        flat = [self._backend.reshape(array, (tasks, math.prod(array.shape[1:]))) for array in early.outputs[1:]]
        return self._backend.concat(flat, 1)

    def at_hand(self, points: Array) -> Array:
        """The programs' own points, without the features, filled with these."""
        self._hand = self._adapted(self._rest.bound().points)
        self._backend.copyto(self._hand, points)
        return self._hand

    def evaluate(self, points: Array) -> Evaluation:
        """Losses and gradients at these parameters."""
        losses, gradients = self._rest.evaluate(self._placed(points))
        return Evaluation(losses, self._adapted(gradients))

    def descend(
        self, points: Array, start: Array, optimizer: ElementwiseOptimizer, following: Following, steps: int
    ) -> bool:
        """Left to the caller: the features among the points stay what they are."""
        return False

    def accuracies(self) -> list[float]:
        """Of each task, at the parameters last evaluated."""
        return self._rest.accuracies()

    def curvature(
        self, points: Array, kind: CurvatureKind, *, identity: float = 0.0, weight: float = 1.0
    ) -> tuple[Array, Callable[[Array], Array]]:
        """The gradients at these parameters, and v ↦ identity · v + weight · Hv, along the adapted parameters."""
        slopes, product_of_all = self._rest.curvature(self._placed(points), kind, identity=identity, weight=weight)
        return self._adapted(slopes), lambda v: self._noted(product_of_all(self._beside_no_features(v)))

    def product(
        self, points: Array, vectors: Array, kind: CurvatureKind, *, identity: float = 0.0, weight: float = 1.0
    ) -> Array:
        """One product: identity · v + weight · Hv, along the adapted parameters."""
        whole = self._beside_no_features(vectors)
        return self._noted(self._rest.product(self._placed(points), whole, kind, identity=identity, weight=weight))

    def _beside_no_features(self, vectors: Array) -> Array:
        like = self._rest.bound().points
        whole = self._backend.empty(tuple(like.shape), self._backend.dtype_of(like))
        self._backend.copyto(whole, 0)
        self._backend.copyto(self._adapted(whole), vectors)
        return whole

    def _noted(self, product: Array) -> Array:
        """What a product says of the adapted parameters, once what it asks of the features is added up."""
        asked = self._features(product)
        self._asked = self._backend.asarray(asked) if self._asked is None else self._asked + asked
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
            often=True,
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
