"""A check of derivatives against central differences, for functions, layers and primitives of one's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aidotnet_py.arguments import COUNT, POSITIVE
from aidotnet_py.autodiff import jvp, vjp
from aidotnet_py.autodiff.extend import flatten, trace_once, types_of
from aidotnet_py.backends import Backend, backend_of, get_backend
from aidotnet_py.exceptions import ArgumentException

__all__ = ["check_derivatives"]

Function = Callable[..., list[Any]]
Host = NDArray[Any]
# From a direction, or slopes along it, to what is compared.
Along = Callable[[Sequence[Host]], list[Host]]

# Central differences of order 4: the error is h⁴ f⁽⁵⁾/30, and rounding of about eps |f|/h.
_STENCIL = {1: 2 / 3, 2: -1 / 12}


def check_derivatives(f: Callable[..., Any], *args: Any, order: int = 3, tolerance: float | None = None) -> None:
    """Compare derivatives of f, in forward and reverse mode, with central differences along a fixed random direction.

    Each order is compared with differences of the one before it, in every combination of modes: 2 for the first order,
    4 for the second, 8 for the third.

    Parameters
    ----------
    f : callable
        Returns floating arrays, or mappings and sequences of them; smooth near the arguments.
    *args : array, number, or mappings and sequences of them
        Floating, of about the order of 1.
    order : int
        The highest order of derivatives.
    tolerance : float or None
        Differences up to ``tolerance * (1 + |value| + |derivative|)``, in largest elements, pass. None: the root of the
        arguments' rounding error, 1.5e-8 for float64.

    Raises
    ------
    AssertionError
        When a derivative differs more; the message names its order, its modes, the largest difference, and the
        arguments along which it is wrong.
    ArgumentException
        When an argument is not floating, or f returns other values.

    Examples
    --------
    >>> import numpy as np
    >>> from aidotnet_py.autodiff import stop_gradient
    >>> from aidotnet_py.testing import check_derivatives
    >>> check_derivatives(lambda x, y: np.sin(x) * np.exp(y), np.ones(3), 0.5)
    >>> check_derivatives(lambda x: x * stop_gradient(x), 2.0)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    AssertionError: the derivative of order 1 (forward mode) must agree with central differences to ...
    """
    COUNT.check("order", order)
    leaves, structure = flatten(args)
    if tolerance is not None:
        POSITIVE.check("tolerance", tolerance)
    types = types_of(leaves, structure, "arguments")
    names = list(structure.names("arguments"))
    for of, name in zip(types, names, strict=True):
        if not of.is_floating:
            raise ArgumentException(f"{name} must have a floating dtype to be differentiated, got {of.dtype}")

    def flat(*xs: Any) -> list[Any]:
        return flatten(f(*structure.unflatten(xs)), "the function's result")[0]

    eps = max((float(np.finfo(of.dtype).eps) for of in types), default=1.0)
    backend = backend_of(*leaves) or get_backend("numpy")
    arrays = (backend.to_numpy(x) if backend.owns(x) else x for x in leaves)
    point = [np.asarray(x, of.dtype) for x, of in zip(arrays, types, strict=True)]
    check = _Check(backend, point, names, eps**0.2, eps**0.5 if tolerance is None else tolerance)
    check.run(flat, [], order)


@dataclass(frozen=True, eq=False)
class _Check:
    """A point, the names of its arguments, the step of differences, and the difference that passes."""

    backend: Backend
    point: list[Host]
    names: Sequence[str]
    step: float
    tolerance: float

    def run(self, f: Function, modes: Sequence[str], orders: int) -> None:
        """Check the derivative of a function, and those of its derivatives; ``modes`` are what it is one of."""
        rng = np.random.default_rng(len(modes))
        direction = [rng.uniform(-1, 1, x.shape).astype(x.dtype) for x in self.point]
        values, slopes = self._differences(f, direction)
        weights = [rng.uniform(-1, 1, y.shape).astype(y.dtype) for y in values]
        v, w = (list(map(self.backend.asarray, arrays)) for arrays in (direction, weights))

        def forward(*xs: Any) -> list[Any]:
            return list(jvp(f, xs, v)[1])

        def backward(*xs: Any) -> list[Any]:
            return list(vjp(f, *xs)[1](w))

        def pushed(some: Sequence[Host]) -> list[Host]:
            return self._values(lambda *xs: list(jvp(f, xs, list(map(self.backend.asarray, some)))[1]))

        pulled = self._values(backward)
        ways: dict[str, tuple[Along, Along]] = {
            "forward": (pushed, list),
            # ⟨w, J v⟩ = ⟨Jᵀ w, v⟩
            "reverse": (lambda some: [_dot(pulled, some)], lambda slopes: [_dot(weights, slopes)]),
        }
        for mode, (derivative, project) in ways.items():
            wrong = self._wrong(derivative(direction), project(slopes), values)
            if wrong is not None:
                culprits = self._culprits(f, direction, derivative, project)
                names = f"; wrong in {', '.join(culprits)}" if culprits and len(self.names) > 1 else ""
                ways_there = " over ".join(reversed([*modes, mode]))
                raise AssertionError(f"the derivative of order {len(modes) + 1} ({ways_there} mode) {wrong}{names}")
        if orders > 1:
            self.run(forward, [*modes, "forward"], orders - 1)
            self.run(backward, [*modes, "reverse"], orders - 1)

    def _culprits(self, f: Function, direction: Sequence[Host], derivative: Along, project: Along) -> list[str]:
        """Return the names of the arguments along which a derivative is wrong."""
        names: list[str] = []
        for place, name in enumerate(self.names):
            some = [v if i == place else np.zeros_like(v) for i, v in enumerate(direction)]
            values, slopes = self._differences(f, some)
            if self._wrong(derivative(some), project(slopes), values) is not None:
                names.append(name)
        return names

    def _values(self, f: Function) -> list[Host]:
        arrays = [self.backend.asarray(x) for x in self.point]
        return list(map(self.backend.to_numpy, trace_once(f, *arrays)(*arrays)))

    def _differences(self, f: Function, direction: Sequence[Host]) -> tuple[list[Host], list[Host]]:
        """Return the values of a function, and its derivatives along a direction by differences."""
        program = trace_once(f, *map(self.backend.asarray, self.point))
        if not program.outputs or not all(of.is_floating for of in program.output_types):
            types = ", ".join(map(str, program.output_types)) or "nothing"
            raise ArgumentException(f"the function must return floating values to be differentiated, got {types}")

        def at(k: int) -> list[Host]:
            moved = [(x + k * self.step * v).astype(x.dtype) for x, v in zip(self.point, direction, strict=True)]
            results = program(*map(self.backend.asarray, moved))
            return [self.backend.to_numpy(y).astype(np.float64) for y in results]

        sides = {k: (at(k), at(-k)) for k in _STENCIL}
        slopes = [
            np.asarray(sum(c * (sides[k][0][i] - sides[k][1][i]) for k, c in _STENCIL.items()) / self.step)
            for i in range(len(program.outputs))
        ]
        return [y.astype(of.dtype) for y, of in zip(at(0), program.output_types, strict=True)], slopes

    def _wrong(self, found: Sequence[Host], wanted: Sequence[Host], values: Sequence[Host]) -> str | None:
        """Return how a derivative differs from the one wanted; None where it agrees."""
        largest = max(_largest(np.asarray(x, np.float64) - y) for x, y in zip(found, wanted, strict=True))
        allowed = 1.0 + max(map(_largest, values), default=0.0) + max(map(_largest, wanted), default=0.0)
        allowed *= self.tolerance
        # Written so that NaN is wrong.
        if largest <= allowed:
            return None
        return f"must agree with central differences to {allowed:.2g}, got a largest difference of {largest:.2g}"


def _largest(x: Host) -> float:
    return float(np.max(np.abs(x), initial=0.0))


def _dot(xs: Sequence[Host], ys: Sequence[Host]) -> Host:
    return np.asarray(sum(float(np.sum(x * y, dtype=np.float64)) for x, y in zip(xs, ys, strict=True)))
