"""Primitives: one operation each, declared with all its rules in one place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from aidotnet_py.autodiff.types import ArrayType
from aidotnet_py.exceptions import ArgumentException, InvalidOperationException

__all__ = ["Guarded", "Primitive", "no_flops", "one_flop_per_element", "primitive_named", "reserve_names"]


def one_flop_per_element(*types: ArrayType, output: ArrayType) -> int:
    """Return the cost of elementwise operations and reductions: the size of the largest array.

    Parameters
    ----------
    *types : ArrayType
        The inputs.
    output : ArrayType
        The output.

    Returns
    -------
    int
        0 for outputs that are not floating.

    Examples
    --------
    >>> import numpy as np
    >>> from aidotnet_py.autodiff.extend import ArrayType, one_flop_per_element
    >>> row = ArrayType((3,), np.dtype(float))
    >>> one_flop_per_element(row, output=row)
    3
    """
    return max(output.size, *(t.size for t in types)) if output.dtype.kind == "f" else 0


def no_flops(*types: ArrayType, output: ArrayType) -> int:
    """Return the cost of operations that only move data: zero.

    Parameters
    ----------
    *types, output : ArrayType
        As for `one_flop_per_element`.

    Returns
    -------
    int

    Examples
    --------
    >>> import numpy as np
    >>> from aidotnet_py.autodiff.extend import ArrayType, no_flops
    >>> no_flops(output=ArrayType((3,), np.dtype(float)))
    0
    """
    return 0


@dataclass(frozen=True, eq=False)
class Guarded:
    """A cotangent that is 0 wherever the mask of a guard differs from its flag; ``value`` is ignored there."""

    value: Any
    guards: tuple[tuple[Any, bool], ...] = ()


@dataclass(frozen=True, eq=False)
class Primitive:
    """An operation with one output and its rules; every derivative of any order comes from them.

    docs/engine.md writes one step by step.

    Attributes
    ----------
    name : str
        The name that a printed Program shows; none of the engine's own.
    shape : callable
        ``shape(*types, **parameters)`` returns the output's type; it raises ArgumentException if there is none.
    run : callable
        ``run(backend, out, *arrays, **parameters)`` writes into ``out``; for a view,
        ``run(backend, array, **parameters)`` returns one.
    jvp : callable or None
        ``jvp(tangents, *primals, output, **parameters)`` returns the output's tangent, linear in the tangents; None
        among the tangents is zero. None: the output has no tangent (comparisons, integers).
    transpose : callable or None
        ``transpose(cotangent, *inputs, **parameters)``, where the linear inputs are given as their ArrayType, returns
        one cotangent per input (None for inputs that are not linear), which may be `Guarded`. None: not linear in any
        input.
    batch : callable
        ``batch(inputs, batched, size, **parameters)`` applies the operation to inputs, of which the batched ones have a
        leading axis of that size, and returns an output with that axis.
    view : callable or None
        For an output that shares the memory of the input: ``view(type, strides, **parameters)`` returns the output's
        strides, counted in elements, or None if the input must be copied first.
    commutative : bool
        Whether the two inputs may change places.
    in_place : bool
        Whether the output may overwrite an input of the same layout.
    loop : str or None
        The operation's name in loop nests (`aidotnet_py.backends.kernel`), "sum" or "max"; None: no loop.
    flops : callable
        ``flops(*types, output=type)`` returns the cost of a call.

    Examples
    --------
    >>> import numpy as np
    >>> from aidotnet_py.autodiff import grad
    >>> from aidotnet_py.autodiff.extend import Primitive, as_traced, emit
    >>> def double(x):
    ...     return emit(doubling, as_traced(x))
    >>> doubling = Primitive(
    ...     name="doubling",
    ...     shape=lambda x: x,
    ...     run=lambda backend, out, x: backend.elementwise("add")(x, x, out=out),
    ...     jvp=lambda tangents, x, output: double(tangents[0]),
    ...     transpose=lambda cotangent, x: [double(cotangent)],
    ...     batch=lambda inputs, batched, size: double(inputs[0]),
    ... )
    >>> grad(lambda x: np.sum(double(x) ** 2))(np.array([1.0, 2.0]))
    array([ 8., 16.])
    """

    name: str
    shape: Callable[..., ArrayType]
    run: Callable[..., Any]
    jvp: Callable[..., Any] | None
    transpose: Callable[..., Sequence[Any]] | None
    batch: Callable[..., Any]
    view: Callable[..., tuple[int, ...] | None] | None = None
    commutative: bool = False
    in_place: bool = False
    loop: str | None = None
    flops: Callable[..., int] = one_flop_per_element

    def __post_init__(self) -> None:
        if self.name in _RESERVED:
            # Transforms and compiler know these by their names.
            raise ArgumentException(f"name must be none of the engine's own primitives, got {self.name!r}")
        _BY_NAME.setdefault(self.name, self)

    def __reduce__(self) -> tuple[Callable[[str], Primitive], tuple[str]]:
        """Pickle the name: a Program that is loaded has the primitives of its process."""
        if _BY_NAME[self.name] is not self:
            raise InvalidOperationException(
                f"a primitive's name must be its own for its Programs to be pickled, got two of the name {self.name!r}"
            )
        return primitive_named, (self.name,)

    @property
    def is_view(self) -> bool:
        """Whether the output shares the memory of the input."""
        return self.view is not None

    def __repr__(self) -> str:
        return self.name


_BY_NAME: dict[str, Primitive] = {}
_RESERVED: set[str] = set()


def reserve_names() -> None:
    """Keep the names of all primitives so far for the engine."""
    _RESERVED.update(_BY_NAME)


def primitive_named(name: str) -> Primitive:
    """Return the primitive of a name.

    Raises
    ------
    InvalidOperationException
        When this process has none.
    """
    if name not in _BY_NAME:
        raise InvalidOperationException(
            f"a Program that was pickled needs the primitive {name!r}; import the module that declares it first"
        )
    return _BY_NAME[name]
