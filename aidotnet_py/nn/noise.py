"""The random numbers that a training step hands to layers beside their parameters."""

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

    A layer that takes noise asks for it here, so that a training step can tell whether every layer was given its own.
    """
    noise = parameters.get("noise")
    unmet = _unmet.get()
    if noise is None and unmet is not None:
        unmet.append(tuple(x.shape))
    return noise


@contextmanager
def unmet_requests() -> Generator[list[Shape]]:
    """Collect the shapes of the inputs for which a layer asked for noise and there was none."""
    found: list[Shape] = []
    token = _unmet.set(found)
    try:
        yield found
    finally:
        _unmet.reset(token)
