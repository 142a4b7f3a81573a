"""A seeded stream of random numbers; its position is saved as plain JSON values and restored."""

from __future__ import annotations

import operator
from typing import Any, SupportsIndex, cast

import numpy as np

from aidotnet_py.exceptions import ArgumentException, ArgumentNullException, ArgumentOutOfRangeException
from aidotnet_py.generator_state import HasGenerator, check_state, new_generator

__all__ = ["RandomStream"]


class RandomStream(HasGenerator):
    """A PCG64 stream behind a NumPy ``Generator``.

    Parameters
    ----------
    seed : int or None
        Not negative. None takes a seed from the operating system.

    Raises
    ------
    ArgumentException
        ``seed`` is not an integer.
    ArgumentOutOfRangeException
        ``seed`` is negative.

    Examples
    --------
    >>> from aidotnet_py.data.random_stream import RandomStream
    >>> stream = RandomStream(1)
    >>> state = stream.state()
    >>> first = stream.generator.random()
    >>> stream.restore(state)
    >>> stream.generator.random() == first
    True
    """

    def __init__(self, seed: int | None) -> None:
        self.generator = _generator(seed)

    def reseed(self, seed: int) -> None:
        """Start again from ``seed``.

        Raises
        ------
        ArgumentException
            As for the constructor; None is refused too (ArgumentNullException).
        """
        if seed is None:  # pyright: ignore[reportUnnecessaryComparison] -- callers may be untyped
            raise ArgumentNullException("seed is None; wanted an integer ≥ 0")
        self.generator = _generator(seed)

    def state(self) -> dict[str, Any]:
        """Return the position as nested dicts of str and int."""
        return cast(dict[str, Any], self.generator.bit_generator.state)

    def restore(self, state: object) -> None:
        """Continue from a position that `state` returned.

        Raises
        ------
        ArgumentException
            ``state`` is not such a position; the stream keeps its own.
        """
        self.generator.bit_generator.state = check_state(state)


def _generator(seed: int | None) -> np.random.Generator:
    if seed is not None:
        if isinstance(seed, bool) or not isinstance(seed, SupportsIndex):  # pyright: ignore[reportUnnecessaryIsInstance] -- callers may be untyped
            raise ArgumentException(f"seed is {seed!r}; wanted an integer or None")
        seed = operator.index(seed)
        if seed < 0:
            raise ArgumentOutOfRangeException(f"seed is {seed}; wanted an integer ≥ 0")
    return new_generator(seed)
