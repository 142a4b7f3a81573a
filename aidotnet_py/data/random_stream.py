"""One seeded stream of random numbers whose position can be saved as plain JSON values and restored."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any, SupportsIndex, cast

import numpy as np

from aidotnet_py.exceptions import ArgumentException, ArgumentNullException, ArgumentOutOfRangeException
from aidotnet_py.locks import free_after_fork

__all__ = ["RandomStream"]

# What PCG64 keeps: each number with the bits it may fill.
_OUTER_BITS = {"has_uint32": 1, "uinteger": 32}
_INNER_BITS = {"state": 128, "inc": 128}


class RandomStream:
    """A PCG64 stream behind a NumPy ``Generator``.

    Parameters
    ----------
    seed : int or None
        Not negative. None seeds from the operating system.

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
            ``state`` is not such a position; the stream stays where it was.
        """
        checked = _checked(state)
        self.generator.bit_generator.state = checked


def _generator(seed: int | None) -> np.random.Generator:
    if seed is not None:
        if isinstance(seed, bool) or not isinstance(seed, SupportsIndex):  # pyright: ignore[reportUnnecessaryIsInstance] -- callers may be untyped
            raise ArgumentException(f"seed is {seed!r}; wanted an integer or None")
        seed = operator.index(seed)
        if seed < 0:
            raise ArgumentOutOfRangeException(f"seed is {seed}; wanted an integer ≥ 0")
    # PCG64 by name, because default_rng may change its choice and a saved state must not.
    bits = np.random.PCG64(seed)
    free_after_fork(bits.lock)
    return np.random.Generator(bits)


def _checked(state: object) -> dict[str, Any]:
    outer = _mapping("state", state, {"bit_generator", "state", *_OUTER_BITS})
    inner = _mapping("state['state']", outer["state"], set(_INNER_BITS))
    if outer["bit_generator"] != "PCG64":
        raise ArgumentException(f"state['bit_generator'] is {outer['bit_generator']!r:.80}; wanted 'PCG64'")
    for where, values, bits in (("state", outer, _OUTER_BITS), ("state['state']", inner, _INNER_BITS)):
        for key, width in bits.items():
            value = values[key]
            if type(value) is not int or not 0 <= value < 1 << width:
                raise ArgumentException(f"{where}[{key!r}] is not an integer of at most {width} bits")
    # An even increment would break the generator: its period collapses.
    if inner["inc"] % 2 == 0:
        raise ArgumentException("state['state']['inc'] is even; the increment of PCG64 is odd")
    return {**outer, "state": inner}


def _mapping(name: str, value: object, keys: set[str]) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise ArgumentException(f"{name} is a {type(value).__name__}; wanted a mapping with {', '.join(sorted(keys))}")
    mapping = dict(cast(Mapping[str, Any], value))
    if set(mapping) != keys:
        raise ArgumentException(f"{name} has the keys {list(mapping)!r:.200}; wanted {', '.join(sorted(keys))}")
    return mapping
