"""A check that a function is pure: two traces must give one Program."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from aidotnet_py.autodiff.program import Atom, Literal, Program, Variable
from aidotnet_py.autodiff.tracing.host_data import HostData
from aidotnet_py.autodiff.tracing.tracer import Tracer
from aidotnet_py.backends import backend_of
from aidotnet_py.exceptions import InvalidOperationException

__all__ = ["difference", "require_alike", "same_value"]


def require_alike(first: Program, second: Program, name: str) -> None:
    """Raise an error if two traces of a function differ.

    Parameters
    ----------
    first, second : Program
        The traces.
    name : str
        The name of the function in errors.

    Raises
    ------
    InvalidOperationException
        When they differ; the message names the first difference.

    Examples
    --------
    >>> import numpy as np
    >>> from aidotnet_py.autodiff.extend import require_alike, trace_once
    >>> require_alike(trace_once(np.sin, np.ones(3)), trace_once(np.sin, np.ones(3)), "f")
    """
    change = difference(first, second)
    if change is not None:
        raise InvalidOperationException(
            f"{name} must be a pure function of its arguments, got another Program when it was traced a second time: "
            f"{change}. Random numbers, counters and clocks run only while a function is traced; use "
            "aidotnet_py.nn.Dropout for dropout, and pass other numbers that change as arguments"
        )


def difference(first: Program, second: Program) -> str | None:
    """Describe where two Programs differ; None if they are the same computation of the same constants."""
    lengths = [(len(p.inputs), len(p.constants), len(p.equations), len(p.outputs)) for p in (first, second)]
    if lengths[0] != lengths[1] or first.input_types != second.input_types:
        return f"{lengths[0][2]} equations with {lengths[0][1]} constants, then {lengths[1][2]} with {lengths[1][1]}"
    places: dict[Variable, Variable] = dict(zip(first.inputs, second.inputs, strict=True))
    for (variable, value), (other, now) in zip(first.constants, second.constants, strict=True):
        if not same_value(value, now):
            return f"a constant of type {variable.type} has other values"
        places[variable] = other
    for place, (one, again) in enumerate(zip(first.equations, second.equations, strict=True)):
        same = one.primitive.name == again.primitive.name and same_value(one.parameters, again.parameters)
        if not (same and _same_atoms(one.inputs, again.inputs, places)):
            return f"equation {place}, {one.primitive.name}, {_change(one.inputs, again.inputs)}"
        places[one.output] = again.output
    return None if _same_atoms(first.outputs, second.outputs, places) else "other results are returned"


def _change(before: Sequence[Atom], now: Sequence[Atom]) -> str:
    for one, other in zip(before, now, strict=False):
        if isinstance(one, Literal) and isinstance(other, Literal) and str(one) != str(other):
            return f"has {one}, then {other}"
    return "is another one"


def _same_atoms(one: Sequence[Atom], other: Sequence[Atom], places: Mapping[Variable, Variable]) -> bool:
    if len(one) != len(other):
        return False
    for a, b in zip(one, other, strict=True):
        if isinstance(a, Variable):
            if places.get(a) is not b:
                return False
        # Numbers by their text: NaN is NaN, and 0.0 is not −0.0.
        elif not isinstance(b, Literal) or (str(a), a.type) != (str(b), b.type):
            return False
    return True


def same_value(one: Any, other: Any) -> bool:
    """Return whether constants or parameters of equations are equal; objects that cannot be compared count as equal.

    Arrays are compared by their bits: NaN is equal to itself, and 0.0 is not −0.0.

    Examples
    --------
    >>> import numpy as np
    >>> from aidotnet_py.autodiff.extend import same_value
    >>> same_value(np.array([np.nan]), np.array([np.nan])), same_value({"axis": 0}, {"axis": 1})
    (True, False)
    """
    if one is other:
        return True
    if isinstance(one, HostData) and isinstance(other, HostData):
        one, other = one.array, other.array
    if isinstance(one, Tracer) or isinstance(other, Tracer) or type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same_value(v, other[k]) for k, v in one.items())  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType] -- of anything
    if isinstance(one, (tuple, list)):
        return len(one) == len(other) and all(map(same_value, one, other))  # pyright: ignore[reportUnknownArgumentType] -- as above
    if isinstance(one, Program):
        return difference(one, other) is None
    backend = backend_of(one)
    if backend is not None:
        return _bits(backend.to_numpy(one)) == _bits(backend.to_numpy(other))
    plain = issubclass(type(one), (int, float, str, bytes, np.generic, np.dtype))
    return not plain or repr(one) == repr(other)


def _bits(array: np.ndarray[Any, Any]) -> tuple[Any, ...]:
    return array.shape, array.dtype, array.tobytes()
