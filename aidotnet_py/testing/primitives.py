"""A check of primitives of one's own: what they write, under vmap, and their derivatives."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aidotnet_py.autodiff import trace, vjp, vmap
from aidotnet_py.autodiff.extend import Equation, Literal, Program, Variable, host_array, trace_once
from aidotnet_py.backends import Array, Backend, backend_of, get_backend
from aidotnet_py.exceptions import ArgumentException
from aidotnet_py.testing.derivatives import check_derivatives
from aidotnet_py.testing.layouts import LAYOUTS
from aidotnet_py.testing.running import run_checks

__all__ = ["check_primitive"]

# What `out` may hold before a run.
_BEFORE = (-7.0, 11.0)
_ROWS = 3


def check_primitive(function: Callable[..., Any], *args: Any, order: int = 3, tolerance: float | None = None) -> None:
    """Hold primitives to what the engine relies on: what ``run`` writes, ``batch``, and derivatives of all orders.

    A ``run`` must write every element of ``out``, of a strided one too, from inputs of every layout, and change no
    input; what is ``commutative`` or ``in_place`` must be so. A ``batch`` must give the rows that single calls give,
    for one row too, whichever inputs have the new axis, and twice over. Where value and arguments are floating,
    `check_derivatives` compares derivatives with central differences, also of a composition with other functions, of
    the rows, and in each argument while the others are constants. All of it is for the arguments' dtypes: other dtypes
    need calls of their own.

    Parameters
    ----------
    function : callable
        A function of arrays that uses the primitives; returns one array.
    *args : array
        Arguments of the function, smooth points of about the order of 1.
    order : int
        The highest order of derivatives.
    tolerance : float or None
        As for `check_derivatives`.

    Raises
    ------
    AssertionError
        When checks fail; the message has a line for each.
    ArgumentException
        When there are no arguments.

    Examples
    --------
    >>> import numpy as np
    >>> from aidotnet_py.autodiff.extend import Primitive, emit
    >>> from aidotnet_py.testing import check_primitive
    >>> double = Primitive(
    ...     name="double",
    ...     shape=lambda x: x,
    ...     run=lambda backend, out, x: x + x,
    ...     jvp=lambda tangents, x, output: emit(double, tangents[0]),
    ...     transpose=lambda cotangent, x: [emit(double, cotangent)],
    ...     batch=lambda inputs, batched, size: emit(double, inputs[0]),
    ... )
    >>> check_primitive(lambda x: emit(double, x), np.ones(3))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    AssertionError: the primitive double fails ... of 5 checks:
    - runs: double.run must write into out and return None, got an array of shape (3,)...
    """
    if not args:
        raise ArgumentException("args must hold at least one array, got none")
    backend = backend_of(*args) or get_backend("numpy")
    arrays = [backend.asarray(a) for a in args]
    program = trace_once(function, *arrays)
    names = sorted({e.primitive.name for e in program.equations})
    floating = all(t.is_floating for t in (*program.input_types, *program.output_types))
    checks: dict[str, Callable[[], None]] = {
        "runs": lambda: _check_runs(program, backend, arrays),
        "vmap": lambda: _check_rows(function, backend, arrays),
    }
    if floating:
        composed = partial(_composed, function, arrays, program(*arrays))
        checks["derivatives"] = lambda: check_derivatives(composed, *arrays, order=order, tolerance=tolerance)
        checks["derivatives of vmap"] = lambda: _check_slopes_of_rows(function, backend, arrays, tolerance)
        checks["vmap of derivatives"] = lambda: _check_rows_of_slopes(function, backend, arrays)
        for place in range(len(arrays)) if len(arrays) > 1 else ():
            alone = partial(_check_alone, function, arrays, place, tolerance)
            checks[f"derivatives in argument {place} alone"] = alone
    run_checks(f"the primitive{'s' * (len(names) > 1)} {', '.join(names)}", checks)


def _check_runs(program: Program, backend: Backend, arrays: Sequence[Array]) -> None:
    """Run the equations one by one, each into arrays that hold something else before."""
    values: dict[Variable, Array] = dict(zip(program.inputs, arrays, strict=True))
    values |= {variable: backend.asarray(host_array(constant)) for variable, constant in program.constants}
    for equation in program.equations:
        operands = [a.value if isinstance(a, Literal) else values[a] for a in equation.inputs]
        values[equation.output] = _Run(backend, equation, operands).check()


def _composed(function: Callable[..., Any], arrays: Sequence[Array], value: Any, *xs: Any) -> Any:
    """Compute a function between others, whose own values and slopes at the point are 0 and 1.

    So its tangents and cotangents depend on the point too, as they do in use.
    """
    return _bent(function(*(_bent(x, at) for x, at in zip(xs, arrays, strict=True))), value)


def _bent(x: Any, at: Any) -> Any:
    return x + 0.125 * np.square(x - at)


def _check_alone(function: Callable[..., Any], arrays: Sequence[Array], place: int, tolerance: float | None) -> None:
    """Check the derivatives in one argument: the tangents of the others, which are constants, are None."""

    def of_one(x: Any) -> Any:
        return function(*arrays[:place], x, *arrays[place + 1 :])

    check_derivatives(of_one, arrays[place], order=1, tolerance=tolerance)


@dataclass(frozen=True)
class _Run:
    """An equation and its operands."""

    backend: Backend
    equation: Equation
    operands: Sequence[Any]

    def check(self) -> Array:
        """Return the value, after comparing runs into and from arrays of several layouts."""
        name, before = self.equation.primitive.name, [self._host(x) for x in self.operands]
        if self.equation.primitive.is_view:
            return self.backend.asarray(self.equation.primitive.run(self.backend, *self.operands, **self._parameters))
        result = self._into(self._new(_BEFORE[0]), self.operands)
        wanted = self._host(result)
        for place, (now, was) in enumerate(zip(map(self._host, self.operands), before, strict=True)):
            assert np.array_equal(now, was, equal_nan=True), (
                f"{name}.run must not change its inputs, got a change of input {place}"
            )
        again = self._host(self._into(self._new(_BEFORE[1]), self.operands))
        kept = np.argwhere(~_same(again, wanted))
        assert not len(kept), f"{name}.run must write every element of out, got none at {tuple(map(int, kept[0]))}"
        for layout in ("spaced", "turned") if wanted.ndim else ():
            into = LAYOUTS[layout](self.backend, np.full_like(wanted, _BEFORE[0]))
            _require_near(f"a {layout} out of {name}.run", self._host(self._into(into, self.operands)), wanted)
        for layout, lay_out in LAYOUTS.items():
            self._check_layout(layout, lay_out)
        self._check_flags(wanted)
        return result

    def _check_layout(self, layout: str, lay_out: Callable[[Backend, NDArray[Any]], Array]) -> None:
        """Compare a run of inputs that lie otherwise in memory with one of copies in C order."""
        # Numbers and arrays of no axes have one layout.
        operands = [lay_out(self.backend, self._host(x)) if getattr(x, "shape", ()) else x for x in self.operands]
        copies = [self.backend.asarray(self._host(x)) if getattr(x, "shape", ()) else x for x in operands]
        try:
            wanted = self._host(self._into(self._new(_BEFORE[0]), copies))
        except Exception:
            # One entry repeated may have no value, such as a matrix that has no inverse then.
            return
        found = self._host(self._into(self._new(_BEFORE[0]), operands))
        _require_near(f"{self.equation.primitive.name}.run of {layout} inputs", found, wanted)

    def _check_flags(self, wanted: NDArray[Any]) -> None:
        primitive, kind, inputs = self.equation.primitive, self.equation.output.type, self.operands
        name = f"{primitive.name}.run"
        if primitive.commutative:
            turned = self._host(self._into(self._new(_BEFORE[0]), inputs[::-1]))
            _require_same(f"{name} of inputs in reverse order, as it is commutative,", turned, wanted)
        for place, x in enumerate(inputs if primitive.in_place else ()):
            if self.backend.owns(x) and (tuple(x.shape), self.backend.dtype_of(x)) == (kind.shape, kind.dtype):
                over = self.backend.asarray(self._host(x))
                self._into(over, [*inputs[:place], over, *inputs[place + 1 :]])
                _require_same(f"{name} over its input {place}, as it is in_place,", self._host(over), wanted)

    @property
    def _parameters(self) -> dict[str, Any]:
        return dict(self.equation.parameters)

    def _into(self, out: Array, operands: Sequence[Any]) -> Array:
        name = self.equation.primitive.name
        with self.backend.errors_ignored():
            result = self.equation.primitive.run(self.backend, out, *operands, **self._parameters)
        got = "" if result is None else f"an array of shape {tuple(getattr(result, 'shape', ()))}"
        # Writing into out by a method that returns it is as good.
        assert result is None or result is out, f"{name}.run must write into out and return None, got {got}"
        return out

    def _new(self, value: float) -> Array:
        kind = self.equation.output.type
        return self.backend.asarray(np.full(kind.shape, value).astype(kind.dtype))

    def _host(self, x: Any) -> NDArray[Any]:
        return np.array(self.backend.to_numpy(x) if self.backend.owns(x) else x)


def _check_rows(function: Callable[..., Any], backend: Backend, arrays: Sequence[Array]) -> None:
    """Compare vmap over each argument, over all of them, over one row, and twice over, with single calls."""
    single = trace_once(function, *arrays)
    for rows in _all_rows(backend, arrays):
        wanted = rows.each(single)
        mapped = vmap(function, in_axes=rows.axes)
        found = trace(mapped, *rows.given)(*rows.given)
        _require_near(f"vmap over {rows.where}", backend.to_numpy(found), wanted)
        one = rows.first()
        found = trace(mapped, *one)(*one)
        _require_near(f"vmap of one row over {rows.where}", backend.to_numpy(found), wanted[:1])
        twice = rows.twice()
        nested = trace(vmap(mapped, in_axes=rows.axes), *twice)(*twice)
        _require_near(f"vmap twice over {rows.where}", backend.to_numpy(nested), np.stack([wanted, wanted[::-1]]))


def _check_slopes_of_rows(
    function: Callable[..., Any], backend: Backend, arrays: Sequence[Array], tolerance: float | None
) -> None:
    """Check the derivatives of vmap over each argument and over all of them: those of what ``batch`` returns."""
    for rows in _all_rows(backend, arrays):
        # At the point itself: whether a function is smooth elsewhere is not known.
        given = rows.alike()
        try:
            check_derivatives(vmap(function, in_axes=rows.axes), *given, order=1, tolerance=tolerance)
        except AssertionError as error:
            raise AssertionError(f"over {rows.where}, {error}") from error


def _check_rows_of_slopes(function: Callable[..., Any], backend: Backend, arrays: Sequence[Array]) -> None:
    """Check runs and rows of the derivatives, which may be other primitives."""
    value = backend.to_numpy(trace_once(function, *arrays)(*arrays))
    weights = backend.asarray(np.cos(np.arange(value.size)).reshape(value.shape).astype(value.dtype))

    def slopes(weights: Any, *xs: Any) -> Any:
        return np.concatenate([np.ravel(slope) for slope in vjp(function, *xs)[1](weights)])

    given = [weights, *arrays]
    single = trace_once(slopes, *given)
    _check_runs(single, backend, given)
    for chosen in ((True,) * len(given), (True, *[False] * len(arrays))):
        rows = _Rows(backend, given, chosen)
        found = trace(vmap(slopes, in_axes=rows.axes), *rows.given)(*rows.given)
        _require_near(f"vmap of the derivatives over {rows.where}", backend.to_numpy(found), rows.each(single))


@dataclass(frozen=True)
class _Rows:
    """Arguments of which some have a new leading axis."""

    backend: Backend
    arrays: Sequence[Array]
    chosen: Sequence[bool]

    @property
    def axes(self) -> tuple[int | None, ...]:
        return tuple(0 if c else None for c in self.chosen)

    @property
    def where(self) -> str:
        return "arguments " + ", ".join(str(i) for i, c in enumerate(self.chosen) if c)

    @cached_property
    def _hosts(self) -> list[NDArray[Any]]:
        hosts = [self.backend.to_numpy(a) for a in self.arrays]
        return [
            np.stack([_moved(h, k) for k in range(_ROWS)]) if c else h for h, c in zip(hosts, self.chosen, strict=True)
        ]

    @cached_property
    def given(self) -> list[Array]:
        """The arguments."""
        return list(map(self.backend.asarray, self._hosts))

    def each(self, single: Callable[..., Any]) -> NDArray[Any]:
        """Return the values of single calls."""
        rows = [
            single(*(self.backend.asarray(h[k] if c else h) for h, c in zip(self._hosts, self.chosen, strict=True)))
            for k in range(_ROWS)
        ]
        return np.stack(list(map(self.backend.to_numpy, rows)))

    def alike(self) -> list[Array]:
        """Return the arguments with rows that are all as the first."""
        return [
            self.backend.asarray(np.stack([h[0]] * _ROWS) if c else h)
            for h, c in zip(self._hosts, self.chosen, strict=True)
        ]

    def first(self) -> list[Array]:
        """Return the arguments of one row."""
        return [self.backend.asarray(h[:1] if c else h) for h, c in zip(self._hosts, self.chosen, strict=True)]

    def twice(self) -> list[Array]:
        """Return arguments with one more axis, of the rows and of the rows in reverse order."""
        return [
            self.backend.asarray(np.stack([h, h[::-1]]) if c else h)
            for h, c in zip(self._hosts, self.chosen, strict=True)
        ]


def _all_rows(backend: Backend, arrays: Sequence[Array]) -> list[_Rows]:
    chosen = sorted(itertools.product((False, True), repeat=len(arrays)))[1:]
    return [_Rows(backend, arrays, some) for some in chosen]


def _moved(x: NDArray[Any], k: int) -> NDArray[Any]:
    """Return a point near another, in another direction too, or integers in another order."""
    scales = 1 + 0.05 * k * np.cos(np.arange(x.size)).reshape(x.shape)
    return (x * scales).astype(x.dtype) if x.dtype.kind == "f" else np.roll(x, k)


def _same(got: NDArray[Any], wanted: NDArray[Any]) -> NDArray[np.bool_]:
    return np.asarray((got == wanted) | ((got != got) & (wanted != wanted)))


def _require_same(name: str, got: NDArray[Any], wanted: NDArray[Any]) -> None:
    _require(name, got, wanted, _same(got, wanted))


def _require_near(name: str, got: NDArray[Any], wanted: NDArray[Any]) -> None:
    near = 100 * float(np.finfo(wanted.dtype).eps) if wanted.dtype.kind == "f" else 0.0
    assert got.shape == wanted.shape, f"{name} must have shape {wanted.shape}, got {got.shape}"
    _require(name, got, wanted, np.isclose(got, wanted, rtol=near, atol=near, equal_nan=True))


def _require(name: str, got: NDArray[Any], wanted: NDArray[Any], holds: NDArray[np.bool_]) -> None:
    if not holds.all():
        place = tuple(map(int, np.argwhere(~holds)[0]))
        raise AssertionError(f"{name} must be {wanted[place]} at {place}, got {got[place]}")
