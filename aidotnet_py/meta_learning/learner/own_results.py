"""Checks of what an algorithm's own methods return, before any of it is used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from aidotnet_py.arguments import entries_of, is_pair, real_of, refusal, shown
from aidotnet_py.backends import Array, Backend, described
from aidotnet_py.exceptions import ArgumentException
from aidotnet_py.meta_learning.inner.rule import InnerRule
from aidotnet_py.meta_learning.learner.learned import Learned
from aidotnet_py.suggestions import suggest_or_list

__all__ = ["checked_gradients", "checked_kinds", "checked_names", "checked_report", "checked_rule", "require_rows"]

# Numbers of the base's own: a run's lines hold them by these names beside those of `report`.
_OF_THE_BASE = (
    "MetaGradientNorm",
    "OuterLearningRate",
    "Iteration",
    "MetaLoss",
    "TaskLoss",
    "Accuracy",
    "NumTasks",
    "EvaluationLoss",
)


def require_rows(name: str, backend: Backend, array: Any, like: Array, columns: int) -> None:
    """Raise ArgumentException unless an array is (tasks, columns), with the tasks and the dtype of another."""
    shape, dtype = (int(like.shape[0]), columns), backend.dtype_of(like)
    if not backend.owns(array) or tuple(array.shape) != shape or backend.dtype_of(array) != dtype:
        raise ArgumentException(
            f"{name} must be {dtype}{shape} on backend {backend.name!r}, a row for each task, got {described(array)}"
        )


def checked_gradients(result: Any, start: Array, learned: Mapping[str, Array], backend: Backend) -> list[Array]:
    """Return the gradients of θ and of each learned vector, in order, that `meta_gradient` returned."""
    gradient, gradients = cast("tuple[Any, Any]", result) if is_pair(result) else (result, dict[str, Array]())
    require_rows("the result of meta_gradient", backend, gradient, start, int(start.shape[1]))
    names = list(cast("Mapping[str, Array]", gradients)) if isinstance(gradients, Mapping) else gradients
    if not isinstance(names, list) or set(cast("list[str]", names)) != set(learned):
        raise ArgumentException(
            f"the gradients of learned vectors in the result of meta_gradient must have the names {list(learned)}, "
            f"got {shown(names)}; return (gradient, {{name: gradient of the vector}})"
        )
    for name, vector in learned.items():
        require_rows(f"the gradient of learned {name!r}", backend, gradients[name], start, int(vector.shape[0]))
    return [gradient, *(gradients[name] for name in learned)]


def checked_kinds(result: Any) -> Sequence[Learned]:
    """Return the kinds of vectors that `learned` returned, if they are such and have different names."""
    kinds = entries_of("the result of learned", "a sequence of Learned", result)
    for kind in kinds:
        if not isinstance(kind, Learned):
            raise ArgumentException(refusal("the result of learned", "a sequence of Learned", kind))
    names = [kind.name for kind in kinds]
    if len(set(names)) < len(names):
        raise ArgumentException(f"the names of learned vectors must differ, got {names}")
    return kinds


def checked_names(result: Any, shapes: Mapping[str, Any] | None) -> frozenset[str]:
    """Return the names that `adapted_names` returned, if they are parameters of a model with these shapes."""
    wanted = "names of the model's parameters, as in its parameter_shapes"
    if shapes is None:
        raise ArgumentException(
            f"the result of adapted_names must be None for a model without parameter_shapes, got {shown(result)}"
        )
    names = entries_of("the result of adapted_names", f"a collection of {wanted}", result)
    for name in names:
        if name not in shapes:
            hint = suggest_or_list(name, list(shapes)) if isinstance(name, str) else f"it has {', '.join(shapes)}"
            raise ArgumentException(refusal("the result of adapted_names", wanted, name) + f"; {hint}")
    if not names:
        raise ArgumentException(f"the result of adapted_names must be {wanted}, at least one, got none")
    return frozenset(names)


def checked_rule(result: Any) -> InnerRule:
    """Return the rule that `inner_rule` returned, if it is one."""
    if not isinstance(result, InnerRule):
        raise ArgumentException(
            refusal("the result of inner_rule", "an InnerRule, such as InnerRule(SGDOptimizer(0.1))", result)
        )
    return result


def checked_report(result: Any) -> dict[str, float]:
    """Return the numbers that `report` returned, if they are such and have names of their own; NaN stands for none."""
    if not isinstance(result, Mapping):
        raise ArgumentException(refusal("the result of report", "a mapping from names to numbers", result))
    reported = cast("Mapping[Any, Any]", cast(object, result))
    numbers: dict[str, float] = {}
    for name, value in reported.items():
        if not isinstance(name, str) or name in _OF_THE_BASE:
            wanted = f"strings other than {', '.join(_OF_THE_BASE)}, which the base reports"
            raise ArgumentException(refusal("the names in the result of report", wanted, name))
        numbers[name] = real_of(f"{name!r} in the result of report", "a number", value)
    return numbers
