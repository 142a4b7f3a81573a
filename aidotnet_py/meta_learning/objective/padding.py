"""Sets of unequal size in one program: examples are added, and a loss that leaves them out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import numpy as np

from aidotnet_py.autodiff import vmap
from aidotnet_py.autodiff.extend import ArrayType, Program, is_mean_over_rows, new_trace, treats_rows_alike
from aidotnet_py.backends import Array, Backend
from aidotnet_py.losses import ILossFunction, LossFunctionBase
from aidotnet_py.models import IDifferentiableModel
from aidotnet_py.models.interfaces import parameter_dtype

__all__ = ["MaskedLoss", "can_mark", "flops_of_example", "pad_set", "padded_size"]

# The few examples of a trace: more than one, so that they can be seen to mix.
_ROWS = 3


def padded_size(count: int) -> int:
    """Return the next of the sizes 1, 2, 3, 4, 6, 8, 12, 16, … that holds so many examples."""
    power = 1 << max(0, math.ceil(math.log2(count)))
    return power * 3 // 4 if power > 2 and count <= power * 3 // 4 else power


def can_mark(backend: Backend, targets: Sequence[Array]) -> bool:
    """Return whether targets leave room for a mark: signed integers do, and real numbers that are all numbers."""
    kinds = {backend.dtype_of(y).kind for y in targets}
    if kinds == {"i"}:
        return all(bool(backend.to_numpy(y).min() >= 0) for y in targets)
    return kinds == {"f"} and not any(bool(np.isnan(backend.to_numpy(y)).any()) for y in targets)


def pad_set(backend: Backend, x: Array, y: Array, size: int) -> tuple[Array, Array]:
    """Return a set of ``size`` examples: those given, and copies of the first whose targets are marked."""
    added = size - int(x.shape[0])
    if not added:
        return x, y
    first = backend.index(x, (slice(0, 1), *[slice(None)] * (len(x.shape) - 1)))
    copies = backend.broadcast_to(first, (added, *x.shape[1:]))
    marks = backend.empty((added, *y.shape[1:]), backend.dtype_of(y))
    backend.copyto(marks, math.nan if backend.dtype_of(y).kind == "f" else -1)
    return backend.concat([x, copies], 0), backend.concat([y, marks], 0)


class MaskedLoss(LossFunctionBase[Any]):
    r"""The mean of a loss over the examples whose targets are not marked.

    .. math:: L = \frac{1}{|M|} \sum_{i \in M} \ell(\{i\}), \quad M = \{i : y_i \text{ is not marked}\}

    Parameters
    ----------
    loss : ILossFunction
        ℓ, of which the value for a set is the mean of its values for the examples one by one.
    """

    def __init__(self, loss: ILossFunction[Any]) -> None:
        self.loss = loss

    def formula(self, predicted: Any, actual: Any) -> Any:
        """Return the mean, a scalar; a marked example has the weight 0 whatever is predicted for it."""
        held = _is_unmarked(actual)
        column = held.reshape((len(held), *[1] * (len(actual.shape) - 1)))
        wanted = cast("Any", np.where(column, actual, actual.dtype.type(0)))
        losses = vmap(self.loss.formula)(predicted[:, None], wanted[:, None])
        count = held.astype(predicted.dtype).sum()
        return np.where(held, losses, 0.0).sum() / count

    def accuracy(self, predicted: Array, actual: Array) -> float:
        """Return the accuracy for the examples that are not marked."""
        count = int(_is_unmarked(actual).sum())
        return self.loss.accuracy(predicted[:count], actual[:count])


def _is_unmarked(actual: Any) -> Any:
    """Return which targets are not marked, (n,)."""
    rest = tuple(range(1, len(actual.shape)))
    held = actual == actual if actual.dtype.kind == "f" else actual >= 0
    return held.max(axis=rest) if rest else held


def flops_of_example(
    model: IDifferentiableModel[Any, Any, Any],
    loss: ILossFunction[Any],
    example: ArrayType,
    target: ArrayType,
    size: int,
) -> int:
    """Return the operations of the model for an example, if sets of a size may be padded; 0 if not.

    They may if the model treats each example by itself, and the loss is the mean over examples, whatever the examples
    and their number. Both are proved, by Programs of a few examples, of one and of this size; a trial with some targets
    would not hold for others, such as those with a mark of the user's own.

    Parameters
    ----------
    model, loss
        The model and the loss.
    example, target : ArrayType
        Of the input and the target of one example.
    size : int
        The number of examples.
    """
    few = _ROWS if size != _ROWS else _ROWS + 1
    try:
        of_model = {count: _trace_model(model, example, count) for count in {few, size}}
        place, output = len(of_model[few].inputs) - 1, of_model[few].outputs[0].type
        prediction = output.with_shape(output.shape[1:])
        of_loss = {count: _trace_loss(loss, prediction, target, count) for count in {1, few, size}}
    # A function may refuse a number of examples that no set has; the check of the sets says what else is wrong.
    except Exception:
        return 0
    if not treats_rows_alike(of_model[few], of_model[size], place):
        return 0
    if not all(is_mean_over_rows(of_loss[few], of_loss[count], 0, 1) for count in {1, size}):
        return 0
    return max(1, of_model[few].flops // few)


def _trace_model(model: IDifferentiableModel[Any, Any, Any], example: ArrayType, count: int) -> Program:
    """Trace (parameters, examples) ↦ predictions."""
    kind = parameter_dtype(model, model.backend)
    with new_trace() as trace:
        parameters = {name: trace.new_input(ArrayType(tuple(of), kind)) for name, of in model.parameter_shapes.items()}
        examples = trace.new_input(example.with_shape((count, *example.shape)))
        return trace.finish([model.apply(parameters, examples)])


def _trace_loss(loss: ILossFunction[Any], prediction: ArrayType, target: ArrayType, count: int) -> Program:
    """Trace (predictions, targets) ↦ loss."""
    with new_trace() as trace:
        inputs = [trace.new_input(of.with_shape((count, *of.shape))) for of in (prediction, target)]
        return trace.finish([loss.formula(*inputs)])
