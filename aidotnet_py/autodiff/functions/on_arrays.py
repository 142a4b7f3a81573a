"""Functions of traced values that accept arrays too."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from inspect import signature
from typing import Any, TypeVar

from aidotnet_py.autodiff.execution import run_program
from aidotnet_py.autodiff.primitives.shape import full
from aidotnet_py.autodiff.tracing.emission import as_traced
from aidotnet_py.autodiff.tracing.recording import active_trace, new_trace
from aidotnet_py.autodiff.tracing.value_types import is_array, type_of

__all__ = ["on_arrays"]

F = TypeVar("F", bound=Callable[..., Any])


def on_arrays(*array_arguments: str) -> Callable[[F], F]:
    """Let a function of traced values accept arrays and numbers: outside a trace, it is traced and run at once."""

    def decorate(function: F) -> F:
        form = signature(function)

        @wraps(function)
        def call(*args: Any, **options: Any) -> Any:
            values = form.bind(*args, **options).arguments
            arrays = {k: values.pop(k) for k in array_arguments if values.get(k) is not None}
            types = {k: type_of(v, k) for k, v in arrays.items()}
            if active_trace() is not None:
                traced = {k: as_traced(v) if is_array(v) else full(types[k], v) for k, v in arrays.items()}
                return function(**traced, **values)
            with new_trace() as trace:
                program = trace.finish([function(**{k: trace.new_input(t) for k, t in types.items()}, **values)])
            return run_program(program, list(arrays.values()))[0]

        return call  # type: ignore[return-value]  # the wrapper takes what the function takes

    return decorate
