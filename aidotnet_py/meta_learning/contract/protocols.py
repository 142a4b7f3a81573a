"""The members of a protocol that an object has or lacks."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from inspect import getattr_static
from typing import Any, TypeGuard

from typing_extensions import TypeIs, get_protocol_members

from aidotnet_py.backends import Backend, backend_of, described
from aidotnet_py.exceptions import ArgumentException
from aidotnet_py.models import IDifferentiableModel, IFullModel, IGradientComputable
from aidotnet_py.optimizers import IGradientBasedOptimizer, InnerSolver, RowMinimizer

__all__ = [
    "computes_gradients",
    "is_differentiable",
    "is_inner_solver",
    "missing_members",
    "model_backend",
    "require_members",
    "with_parameters",
]


def missing_members(value: object, protocol: type[Any]) -> tuple[str, ...]:
    """Return the names of a protocol's members that a value lacks; a class is no object of itself and lacks all."""
    # The class first: to ask the object would compute its properties, and a task's may load its data.
    lacking = _lacking(type(value), protocol)  # type: ignore[arg-type]  # classes have hashes
    if not lacking or isinstance(value, type):
        return lacking
    own: Mapping[str, object] = getattr(value, "__dict__", {})
    return tuple(name for name in lacking if name not in own and _is_missing(value, name, protocol))


# isinstance with a protocol looks up every member anew, and a step asks a dozen times about objects of a few classes.
@lru_cache(maxsize=64)
def _lacking(kind: type[Any], protocol: type[Any]) -> tuple[str, ...]:
    """Return the names of a protocol's members that a class lacks; a class of classes lacks all."""
    names = get_protocol_members(protocol)
    return tuple(sorted(name for name in names if issubclass(kind, type) or _is_missing(kind, name, protocol)))


def _is_missing(owner: object, name: str, protocol: type[Any]) -> bool:
    """Whether an owner has no such member, or inherits the protocol's own, which has no body and returns None."""
    # First, since looking up declarations takes twenty times as long.
    if not hasattr(owner, name):
        return True
    declared = getattr_static(protocol, name, None)
    return declared is not None and getattr_static(owner, name, None) is declared


def is_differentiable(model: object) -> TypeGuard[IDifferentiableModel[Any, Any, Any]]:
    """Whether the engine can trace the model."""
    return not missing_members(model, IDifferentiableModel)


def computes_gradients(model: object) -> bool:
    """Whether the model knows the gradient of its loss."""
    return not missing_members(model, IGradientComputable)


def is_inner_solver(value: object) -> TypeIs[InnerSolver | RowMinimizer]:
    """Whether an InnerOptimizer solves the whole inner problem instead of taking steps."""
    if isinstance(value, RowMinimizer):
        return True
    return callable(value) and not isinstance(value, type) and missing_members(value, IGradientBasedOptimizer) != ()


def model_backend(model: IFullModel[Any, Any, Any]) -> Backend:
    """Return the backend of the model's parameters."""
    if is_differentiable(model):
        return model.backend
    parameters = model.GetParameters()
    backend = backend_of(parameters)
    if backend is None:
        raise ArgumentException(
            f"GetParameters of {type(model).__name__} must return an array of a registered backend, got a "
            f"{type(parameters).__name__}"
        )
    if backend.dtype_of(parameters).kind != "f" or len(parameters.shape) != 1:
        raise ArgumentException(
            f"GetParameters of {type(model).__name__} must return a vector of floating-point numbers, got "
            f"{described(parameters)}"
        )
    return backend


def with_parameters(model: Any, parameters: Any) -> Any:
    """Return a new model with these parameters.

    Raises
    ------
    ArgumentException
        When the model returns itself, which would change the meta-model, or no model.
    """
    other = model.WithParameters(parameters)
    if other is model or missing_members(other, IFullModel):
        came = "the same one" if other is model else described(other)
        raise ArgumentException(f"WithParameters of {type(model).__name__} must return a new model, got {came}")
    return other


def require_members(name: str, value: object, protocol: type[Any]) -> None:
    """Raise ArgumentException unless a value has the members of a protocol."""
    wanted, missing = protocol.__name__, missing_members(value, protocol)
    if isinstance(value, type):
        raise ArgumentException(f"{name} must be an {wanted}, got the class {value.__name__}; use an object of it")
    if missing:
        raise ArgumentException(
            f"{name} must be an {wanted}, got a {type(value).__name__}, which lacks {', '.join(missing)}"
        )
