"""The random numbers that layers get beside their parameters in a training step."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

from aidotnet_py.backends import Array

__all__ = ["noise_for", "unmet_requests"]

Shape = tuple[int, ...]

_unmet: ContextVar[list[Shape] | None] = ContextVar("_unmet", default=None)


def noise_for(parameters: Mapping[str, Array], x: Array) -> Array | None:
    """Return the entry ``noise`` of a layer's parameters; None in a pass without noise, such as a prediction.

    Layers read their noise with this function, so that a training step can check that each of them has some.
    """
    noise = parameters.get("noise")
    unmet = _unmet.get()
    if noise is None and unmet is not None:
        unmet.append(tuple(x.shape))
    return noise


@contextmanager
def unmet_requests() -> Generator[list[Shape]]:
    """Collect the input shapes of layers that asked for noise and got none."""
    shapes: list[Shape] = []
    token = _unmet.set(shapes)
    try:
        yield shapes
    finally:
        _unmet.reset(token)
