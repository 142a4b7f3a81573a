"""A seeded stream of random numbers; its position is saved as plain JSON values and restored."""

from __future__ import annotations

from typing import Any, cast

import numpy as np

from aidotnet_py.arguments import SEED, check_given
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
        check_given("seed", seed, str(SEED))
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
    return new_generator(None if seed is None else SEED.check("seed", seed))
