"""The programs of one task, of a traced model and loss, and the same programs for several tasks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

from aidotnet_py.autodiff import grad, hvp, jvp, value_and_grad, vjp
from aidotnet_py.autodiff.extend import ArrayType, Program, Trace, new_trace, require_alike, simplify, vmap_program
from aidotnet_py.backends import Array
from aidotnet_py.locks import Lock
from aidotnet_py.losses import ILossFunction
from aidotnet_py.losses.interface import checked_loss
from aidotnet_py.models import IDifferentiableModel
from aidotnet_py.models.interfaces import parameter_dtype

__all__ = ["COEFFICIENTS", "ModelFunction", "ProgramName", "Shapes", "Signature", "TaskPrograms"]

Values: TypeAlias = Iterable[Any]
ModelFunction: TypeAlias = Callable[[Mapping[str, Any], Any], Any]
Shapes: TypeAlias = Mapping[str, tuple[int, ...]]
Step: TypeAlias = Callable[[Any], Any]
ProgramName: TypeAlias = Literal["evaluation", "hessian", "gauss-newton"]
# Coefficients of a product: of the identity, and of the curvature.
COEFFICIENTS = 2


@dataclass(frozen=True)
class Signature:
    """Everything that the programs of one task depend on; equal signatures share programs.

    Losses are compared by identity, since a loss that defines ``==`` may have no hash.
    """

    apply: ModelFunction
    loss: ILossFunction[Any] = field(compare=False)
    loss_id: int
    shapes: tuple[tuple[str, tuple[int, ...]], ...]
    parameters: ArrayType
    input: ArrayType
    target: ArrayType
    # Names and shapes of the noise that the model takes in training.
    noise: tuple[tuple[str, tuple[int, ...]], ...] = ()
    # Computed once, since a step looks up a signature many times.
    _hash: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        compared = self.apply, self.loss_id, self.shapes, self.parameters, self.input, self.target, self.noise
        object.__setattr__(self, "_hash", hash(compared))

    def __hash__(self) -> int:
        return self._hash

    @classmethod
    def of(cls, model: IDifferentiableModel[Any, Any, Any], loss: ILossFunction[Any], x: Array, y: Array) -> Signature:
        """Return the signature for tasks with sets like x and y, without noise."""
        shapes = tuple(zip(model.parameter_shapes, map(tuple, model.parameter_shapes.values()), strict=True))
        dtype = parameter_dtype(model, model.backend)
        of_x, of_y = (ArrayType(tuple(a.shape), model.backend.dtype_of(a)) for a in (x, y))
        return cls(model.apply, loss, id(loss), shapes, ArrayType((model.ParameterCount,), dtype), of_x, of_y)

    def of_function(self, function: ModelFunction, shapes: Shapes) -> Signature:
        """Return the signature of another function of other parameters, for the same sets and loss."""
        size = sum(math.prod(shape) for shape in shapes.values())
        parameters = ArrayType((size,), self.parameters.dtype)
        return replace(self, apply=function, shapes=tuple(shapes.items()), parameters=parameters)


class TaskPrograms:
    """The programs of one task, traced at their first use, and the same programs for several tasks.

    Parameters
    ----------
    signature : Signature
        Everything that the programs depend on.
    after_trace : callable
        Called after each trace of the model's function and the loss.
    """

    def __init__(self, signature: Signature, after_trace: Callable[[], None] = lambda: None) -> None:
        self.signature = signature
        self._after_trace = after_trace
        self._lock = Lock()
        self._single: dict[str, Program] = {}
        self._batched: dict[tuple[str, int], Program] = {}
        self._flops: int | None = None

    @property
    def flops(self) -> int:
        """Floating-point operations of one gradient."""
        if self._flops is None:
            self._flops = self.single("evaluation").flops
        return self._flops

    def single(self, name: ProgramName) -> Program:
        """Return a program of one task: the evaluation or a curvature product.

        The evaluation is (parameters, x, y, noise) ↦ loss, predictions, gradients. A product is
        (parameters, x, y, noise, v, identity, weight) ↦ gradients, identity · v + weight · Hv.
        """
        with self._lock:
            if name not in self._single:
                self._single[name] = self._trace(name)
                self._after_trace()
            return self._single[name]

    def for_tasks(self, name: ProgramName, tasks: int) -> Program:
        """Return the program for several tasks, whose values have an axis in front."""
        with self._lock:
            program = self._batched.get((name, tasks))
            if program is None:
                single = self.single(name)
                # The coefficients of a product are the same for all tasks.
                shared = 0 if name == "evaluation" else COEFFICIENTS
                batched = [True] * (len(single.inputs) - shared) + [False] * shared
                program = self._batched[name, tasks] = vmap_program(single, batched, tasks)
            return program

    def _trace(self, name: ProgramName) -> Program:
        dtype = self.signature.parameters.dtype
        with new_trace() as trace:
            point, predict, judge = self._task(trace)
            if name == "evaluation":
                outputs = self._evaluate(point, predict, judge)
            else:
                product = self._hessian if name == "hessian" else self._gauss_newton
                v = self._named_inputs(trace, self.signature.shapes)
                identity, weight = (trace.new_input(ArrayType((), dtype)) for _ in range(COEFFICIENTS))
                gradient, curved = product(point, predict, judge, v)
                outputs = [*gradient, *(identity * a + weight * b for a, b in zip(v.values(), curved, strict=True))]
            return simplify(trace.finish(outputs))

    def _task(self, trace: Trace) -> tuple[dict[str, Any], Step, Step]:
        """Add a task's inputs to a trace: return the parameters, and functions that hold examples and noise."""
        point = self._named_inputs(trace, self.signature.shapes)
        x, y = trace.new_input(self.signature.input), trace.new_input(self.signature.target)
        return point, self._predictor(x, self._named_inputs(trace, self.signature.noise)), self._judge(y)

    def _named_inputs(self, trace: Trace, shapes: Sequence[tuple[str, tuple[int, ...]]]) -> dict[str, Any]:
        dtype = self.signature.parameters.dtype
        return {name: trace.new_input(ArrayType(shape, dtype)) for name, shape in shapes}

    def _evaluate(self, point: Mapping[str, Any], predict: Step, judge: Step) -> Sequence[Any]:
        predictions, pullback = vjp(predict, point)
        loss, cotangent = value_and_grad(judge)(predictions)
        return [loss, predictions, *pullback(cotangent)[0].values()]

    def _hessian(
        self, point: Mapping[str, Any], predict: Step, judge: Step, v: Mapping[str, Any]
    ) -> tuple[Values, Values]:
        gradient, product = jvp(grad(_compose(predict, judge)), (point,), (v,))
        return gradient.values(), product.values()

    def _gauss_newton(
        self, point: Mapping[str, Any], predict: Step, judge: Step, v: Mapping[str, Any]
    ) -> tuple[Values, Values]:
        gradient = value_and_grad(_compose(predict, judge))(point)[1]
        predictions, moved = jvp(predict, (point,), (v,))
        curved = hvp(judge, predictions, moved)
        product = vjp(predict, point)[1](curved)[0]
        return gradient.values(), product.values()

    def _predictor(self, x: Any, noise: Mapping[str, Any]) -> Step:
        """Return the function from parameters to predictions."""

        def predict(parameters: Any) -> Any:
            return self.signature.apply({**parameters, **noise}, x)

        return predict

    def _judge(self, y: Any) -> Step:
        """Return the function from predictions to the loss."""

        def judge(predictions: Any) -> Any:
            return checked_loss(self.signature.loss, predictions, y)

        return judge

    def require_pure(self) -> None:
        """Raise InvalidOperationException if a second trace of model and loss gives another program."""
        require_alike(self._loss(), self._loss(), "the model's function, with the loss's formula,")
        self._after_trace()

    def _loss(self) -> Program:
        """Trace (parameters, x, y, noise) ↦ loss."""
        with new_trace() as trace:
            point, predict, judge = self._task(trace)
            return simplify(trace.finish([judge(predict(point))]))


def _compose(predict: Step, judge: Step) -> Step:
    """Return the function from parameters to the loss."""

    def loss(parameters: Any) -> Any:
        return judge(predict(parameters))

    return loss
