"""The objective of a model that the engine traces: exact, all tasks in one Program, nothing recomputed in a solve."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from aidotnet_py.autodiff import hvp, jvp, value_and_grad, vjp
from aidotnet_py.autodiff.array_type import ArrayType
from aidotnet_py.autodiff.execution import Executable
from aidotnet_py.autodiff.program import Program
from aidotnet_py.autodiff.tracing import new_trace
from aidotnet_py.autodiff.transforms.batching import vmap_program
from aidotnet_py.autodiff.transforms.simplification import simplify
from aidotnet_py.backends import Array, Backend
from aidotnet_py.exceptions import InvalidOperationException
from aidotnet_py.losses import ILossFunction
from aidotnet_py.meta_learning.objectives.interface import CurvatureKind, Evaluation
from aidotnet_py.meta_learning.stacking import row_views
from aidotnet_py.models import IDifferentiableModel

__all__ = ["BatchedPrograms", "Signature", "TracedObjective"]

# What depends on the examples alone is computed once a batch, what depends on φ once a point, the rest once a product.
_EXAMPLES, _POINT, _DIRECTION = 0, 1, 2


@dataclass(frozen=True)
class Signature:
    """All that compiled programs depend on; equal signatures share them, and their buffers.

    ``role`` keeps apart the sets that an algorithm works on at the same time. Losses are told apart by identity: a
    loss with an `==` of its own need not have a hash.
    """

    role: str
    apply: Callable[..., Any]
    loss: ILossFunction[Any] = field(compare=False)
    loss_id: int
    shapes: tuple[tuple[str, tuple[int, ...]], ...]
    parameters: ArrayType
    tasks: int
    input: ArrayType
    target: ArrayType

    @classmethod
    def of(
        cls,
        role: str,
        model: IDifferentiableModel[Any, Any, Any],
        loss: ILossFunction[Any],
        tasks: int,
        x: Array,
        y: Array,
    ) -> Signature:
        """The signature for tasks whose sets look like x and y."""
        shapes = tuple((name, tuple(shape)) for name, shape in model.parameter_shapes.items())
        dtype = model.backend.dtype_of(model.GetParameters())
        types = (ArrayType(tuple(a.shape), model.backend.dtype_of(a)) for a in (x, y))
        return cls(role, model.apply, loss, id(loss), shapes, ArrayType((model.ParameterCount,), dtype), tasks, *types)


class BatchedPrograms:
    """The compiled programs of one signature, and the buffers that they share."""

    def __init__(self, signature: Signature, backend: Backend) -> None:
        self._signature = signature
        self._backend = backend
        tasks, dtype = signature.tasks, signature.parameters.dtype
        flat = (tasks, signature.parameters.size)
        self.points, self.gradients = backend.empty(flat, dtype), backend.empty(flat, dtype)
        self.evaluation = Executable(
            self._batched(self._evaluate),
            backend,
            stages=[_POINT] * len(signature.shapes) + [_EXAMPLES] * 2,
            inputs=[*self._leaves(self.points), None, None],
            outputs=[None, None, *self._leaves(self.gradients)],
        )
        self.inputs, self.targets = self.evaluation.inputs[-2:]
        self.losses, self.predictions = self.evaluation.outputs[:2]
        self._curvatures: dict[CurvatureKind, CurvatureProgram] = {}
        # Objectives of one signature share these buffers: whose examples are in them, whose evaluation, and which
        # call's curvature.
        self.examples_of: object = None
        self.evaluation_of: object = None
        self.curvature_of: object = None

    @property
    def nbytes(self) -> int:
        """Bytes of all buffers."""
        flat = self._signature.tasks * self._signature.parameters.nbytes
        examples = self._signature.tasks * (self._signature.input.nbytes + self._signature.target.nbytes)
        curvatures = sum(program.executable.nbytes + 2 * flat for program in self._curvatures.values())
        return 2 * flat + examples + self.evaluation.nbytes + curvatures

    def run_examples(self) -> None:
        """Do the work that depends on the examples alone, after they have changed."""
        self.evaluation.run(_EXAMPLES)
        for program in self._curvatures.values():
            program.executable.run(_EXAMPLES)

    def curvature(self, kind: CurvatureKind) -> CurvatureProgram:
        """The program of curvature products, compiled when first asked for."""
        if kind not in self._curvatures:
            product = self._hessian if kind == "hessian" else self._gauss_newton
            self._curvatures[kind] = self._compile_curvature(product)
        return self._curvatures[kind]

    def _compile_curvature(self, product: Callable[..., Any]) -> CurvatureProgram:
        """One program: gradients at φ in the point's stage, products in the direction's."""
        count, flat = len(self._signature.shapes), self.points.shape
        dtype = self._signature.parameters.dtype
        vectors, products = self._backend.empty(flat, dtype), self._backend.empty(flat, dtype)
        executable = Executable(
            self._batched(product, with_direction=True),
            self._backend,
            stages=[_POINT] * count + [_EXAMPLES] * 2 + [_DIRECTION] * count,
            inputs=[*self._leaves(self.points), self.inputs, self.targets, *self._leaves(vectors)],
            outputs=[*self._leaves(self.gradients), *self._leaves(products)],
        )
        executable.run(_EXAMPLES)
        return CurvatureProgram(executable, vectors, products)

    def _leaves(self, flat: Array) -> list[Array]:
        """Each named parameter as a view of the flat (tasks, P) array."""
        views: list[Array] = []
        start = 0
        for _, shape in self._signature.shapes:
            stop = start + math.prod(shape)
            part = self._backend.index(flat, (slice(None), slice(start, stop)))
            views.append(self._backend.reshape(part, (self._signature.tasks, *shape)))
            start = stop
        return views

    def _batched(self, function: Callable[..., Any], *, with_direction: bool = False) -> Program:
        """The function of one task's (parameters, x, y[, v]) traced, and then over all tasks."""
        dtype = self._signature.parameters.dtype
        with new_trace() as trace:

            def parameters() -> dict[str, Any]:
                return {name: trace.new_input(ArrayType(shape, dtype)) for name, shape in self._signature.shapes}

            point = parameters()
            x, y = trace.new_input(self._signature.input), trace.new_input(self._signature.target)
            outputs = function(point, x, y, parameters()) if with_direction else function(point, x, y)
            program = simplify(trace.finish(outputs))
        return vmap_program(program, [True] * len(program.inputs), self._signature.tasks)

    def _evaluate(self, point: Mapping[str, Any], x: Any, y: Any) -> Sequence[Any]:
        predictions, pullback = vjp(self._predictor(x), point)
        loss, cotangent = value_and_grad(self._judge(y))(predictions)
        return [loss, predictions, *pullback(cotangent)[0].values()]

    def _hessian(self, point: Mapping[str, Any], x: Any, y: Any, v: Mapping[str, Any]) -> Sequence[Any]:
        loss = self._loss_of(x, y)
        gradient = value_and_grad(loss)(point)[1]
        return [*gradient.values(), *hvp(loss, point, v).values()]

    def _gauss_newton(self, point: Mapping[str, Any], x: Any, y: Any, v: Mapping[str, Any]) -> Sequence[Any]:
        gradient = value_and_grad(self._loss_of(x, y))(point)[1]
        predictions, moved = jvp(self._predictor(x), (point,), (v,))
        curved = hvp(self._judge(y), predictions, moved)
        product = vjp(self._predictor(x), point)[1](curved)[0]
        return [*gradient.values(), *product.values()]

    def _predictor(self, x: Any) -> Callable[[Any], Any]:
        """Parameters to predictions."""

        def predict(parameters: Any) -> Any:
            return self._signature.apply(parameters, x)

        return predict

    def _judge(self, y: Any) -> Callable[[Any], Any]:
        """Predictions to loss."""

        def judge(predictions: Any) -> Any:
            return self._signature.loss.formula(predictions, y)

        return judge

    def _loss_of(self, x: Any, y: Any) -> Callable[[Any], Any]:
        """Parameters to loss."""
        predict, judge = self._predictor(x), self._judge(y)

        def loss(parameters: Any) -> Any:
            return judge(predict(parameters))

        return loss


@dataclass(frozen=True)
class CurvatureProgram:
    """A program of curvature products, the vectors that it reads and the products that it writes."""

    executable: Executable
    vectors: Array
    products: Array


class TracedObjective:
    """The sets of a batch of tasks bound to compiled programs."""

    def __init__(
        self,
        role: str,
        model: IDifferentiableModel[Any, Any, Any],
        loss: ILossFunction[Any],
        inputs: Sequence[Array],
        targets: Sequence[Array],
        programs: Callable[[Signature, Backend], BatchedPrograms],
    ) -> None:
        self._backend = model.backend
        self._loss = loss
        self._inputs = inputs
        self._targets = targets
        self._signature = Signature.of(role, model, loss, len(inputs), inputs[0], targets[0])
        self._find = programs
        self._programs: BatchedPrograms | None = None

    def _bound(self) -> BatchedPrograms:
        """The programs, with the examples of this batch in their buffers."""
        programs = self._programs = self._programs or self._find(self._signature, self._backend)
        if programs.examples_of is not self:
            programs.examples_of = programs.evaluation_of = programs.curvature_of = None
            self._fill(programs.inputs, self._inputs)
            self._fill(programs.targets, self._targets)
            programs.run_examples()
            programs.examples_of = self
        return programs

    def _fill(self, stacked: Array, arrays: Sequence[Array]) -> None:
        for row, array in zip(row_views(self._backend, stacked), arrays, strict=True):
            self._backend.copyto(row, array)

    def evaluate(self, points: Array) -> Evaluation:
        """Losses and gradients at these parameters."""
        programs = self._bound()
        programs.curvature_of = None
        self._backend.copyto(programs.points, points)
        programs.evaluation.run(_POINT)
        programs.evaluation_of = self
        return Evaluation(programs.losses, programs.gradients)

    def accuracies(self) -> list[float]:
        """Of each task, at the parameters last evaluated."""
        programs = self._programs
        if programs is None or programs.evaluation_of is not self:
            raise InvalidOperationException(
                "accuracies are of the last evaluation, and another objective's came after it"
            )
        predictions = row_views(self._backend, programs.predictions)
        return [self._loss.accuracy(p, y) for p, y in zip(predictions, self._targets, strict=True)]

    def curvature(self, points: Array, kind: CurvatureKind) -> tuple[Array, Callable[[Array], Array]]:
        """The gradients at these parameters, and v ↦ Hv there; the work at φ alone is done here, once."""
        call = object()

        def at_points() -> tuple[BatchedPrograms, CurvatureProgram]:
            programs = self._bound()
            program = programs.curvature(kind)
            if programs.curvature_of is not call:
                self._backend.copyto(programs.points, points)
                program.executable.run(_POINT)
                programs.curvature_of = call
            return programs, program

        def product(v: Array) -> Array:
            _, program = at_points()
            self._backend.copyto(program.vectors, v)
            program.executable.run(_DIRECTION)
            return program.products

        return at_points()[0].gradients, product
