"""Primitives: one operation each, declared with all its rules in one place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from aidotnet_py.autodiff.types import ArrayType
from aidotnet_py.exceptions import InvalidOperationException

__all__ = ["Guarded", "Primitive", "no_flops", "one_flop_per_element", "primitive_named"]


def one_flop_per_element(*types: ArrayType, output: ArrayType) -> int:
    """Return the cost of elementwise operations and reductions: the size of the largest array."""
    return max(output.size, *(t.size for t in types)) if output.dtype.kind == "f" else 0


def no_flops(*types: ArrayType, output: ArrayType) -> int:
    """Return the cost of operations that only move data: zero."""
    return 0


@dataclass(frozen=True, eq=False)
class Guarded:
    """A cotangent that is 0 wherever the mask of a guard differs from its flag; ``value`` is ignored there."""

    value: Any
    guards: tuple[tuple[Any, bool], ...] = ()


@dataclass(frozen=True, eq=False)
class Primitive:
    """An operation with one output and its rules; every derivative of any order comes from them.

    Attributes
    ----------
    name : str
        The name that a printed Program shows.
    shape : callable
        ``shape(*types, **parameters)`` gives the output's type; raises ArgumentException where there is none.
    run : callable
        ``run(backend, out, *arrays, **parameters)`` writes into ``out``; for a view,
        ``run(backend, array, **parameters)`` returns one.
    jvp : callable or None
        ``jvp(tangents, *primals, output, **parameters)`` gives the output's tangent, linear in the tangents; None
        among them is zero. None: the output has no tangent (comparisons, integers).
    transpose : callable or None
        ``transpose(cotangent, *inputs, **parameters)``, where the linear inputs are given as their ArrayType, gives
        one cotangent an input (None for those that are not linear), which may be `Guarded`. None: not linear in any
        input.
    batch : callable
        ``batch(inputs, batched, size, **parameters)`` applies the operation to inputs whose batched ones have an added
        leading axis of that size, and gives an output with that axis.
    view : callable or None
        For an output that shares the memory of the input: ``view(type, strides, **parameters)`` gives the output's
        strides, counted in elements, or None if the input must be copied first.
    commutative : bool
        Whether the two inputs may change places.
    in_place : bool
        Whether the output may overwrite an input of the same layout.
    loop : str or None
        The operation's name in loop nests (`aidotnet_py.backends.kernel`), "sum" or "max"; None: no loop.
    flops : callable
        ``flops(*types, output=type)``.
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
