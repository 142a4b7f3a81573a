"""The formula of an optimizer on stacked vectors: at once if it treats rows alike, else mapped over them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from aidotnet_py.autodiff import vmap
from aidotnet_py.autodiff.extend import Program, new_trace, treats_rows_alike, type_of
from aidotnet_py.backends import Array

__all__ = ["formula_of_rows"]


def formula_of_rows(
    formula: Callable[..., tuple[Array, list[Array]]],
    parameters: Array,
    gradient: Array,
    memory: Sequence[Array],
    coefficients: Sequence[Any],
) -> tuple[Array, list[Array]]:
    """Return the step of a formula for one vector (P,), or for each row of (tasks, P) as if it were alone.

    Parameters
    ----------
    formula : callable
        See `ElementwiseOptimizer.formula`.
    parameters, gradient : array, shape (P,) or (tasks, P)
        Also traced.
    memory : sequence of array
        Shaped like the parameters.
    coefficients : sequence of float or array, shape ()
        The same numbers for all rows.
    """
    if len(parameters.shape) == 1 or _treats_rows_alike(formula, parameters, len(memory), len(coefficients)):
        return formula(parameters, gradient, memory, coefficients)

    def of_row(parameters: Array, gradient: Array, memory: Sequence[Array]) -> Any:
        return formula(parameters, gradient, memory, coefficients)

    new, remembered = vmap(of_row)(parameters, gradient, list(memory))
    return new, list(remembered)


def _treats_rows_alike(formula: Callable[..., Any], like: Array, memory: int, coefficients: int) -> bool:
    """Return whether a formula provably does the same to each row, whatever their number."""
    of, vectors = type_of(like), 2 + memory

    def traced(rows: int) -> Program:
        with new_trace() as trace:
            kinds = [of.with_shape((rows, *of.shape[1:]))] * vectors + [of.with_shape(())] * coefficients
            parameters, gradient, *others = map(trace.new_input, kinds)
            new, remembered = formula(parameters, gradient, others[:memory], others[memory:])
            return trace.finish([new, *remembered])

    try:
        return treats_rows_alike(traced(2), traced(3), *range(vectors))
    # A formula of one vector alone may refuse rows; what else is wrong shows where it is traced for use.
    except Exception:
        return False
