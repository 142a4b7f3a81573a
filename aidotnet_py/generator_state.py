"""PCG64 generators that a fork leaves usable, and their state in plain values, checked before one takes it up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import numpy as np

from aidotnet_py.exceptions import ArgumentException
from aidotnet_py.locks import free_after_fork

__all__ = ["HasGenerator", "checked_state", "new_generator"]

# What PCG64 keeps: each number with the bits it may fill.
_OUTER_BITS = {"has_uint32": 1, "uinteger": 32}
_INNER_BITS = {"state": 128, "inc": 128}


def new_generator(seed: int | None) -> np.random.Generator:
    """A generator whose lock a forked process finds free; by name, since a saved state must outlive `default_rng`."""
    return _usable_after_fork(np.random.Generator(np.random.PCG64(seed)))


def _usable_after_fork(generator: np.random.Generator) -> np.random.Generator:
    free_after_fork(generator.bit_generator.lock)
    return generator


class HasGenerator:
    """An object with a ``generator`` of `new_generator`, whose copies and pickles a fork leaves usable too."""

    generator: np.random.Generator

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        # A copied generator has a lock of its own.
        _usable_after_fork(self.generator)


def checked_state(state: object) -> dict[str, Any]:
    """The state, if a PCG64 generator can be in it.

    Raises
    ------
    ArgumentException
        When it is no such mapping, or a number lies outside its range; NumPy itself would take some of these.
    """
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
