"""PCG64 generators that stay usable after a fork, and checks of their states in plain values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import numpy as np

from aidotnet_py.exceptions import ArgumentException
from aidotnet_py.locks import free_after_fork

__all__ = ["HasGenerator", "check_state", "new_generator", "unsigned_seed"]

# The numbers of a PCG64 state, with their widths in bits.
_OUTER_BITS = {"has_uint32": 1, "uinteger": 32}
_INNER_BITS = {"state": 128, "inc": 128}


def unsigned_seed(seed: int) -> int:
    """Return a seed that generators take: a negative one modulo 2³², as its two's complement."""
    return seed if seed >= 0 else seed % 2**32


def new_generator(seed: int | None) -> np.random.Generator:
    """Return a PCG64 generator whose lock is free in a forked process."""
    # PCG64 by name: a saved state must outlive changes of `default_rng`.
    return _free_after_fork(np.random.Generator(np.random.PCG64(seed)))


def _free_after_fork(generator: np.random.Generator) -> np.random.Generator:
    free_after_fork(generator.bit_generator.lock)
    return generator


class HasGenerator:
    """An object with a ``generator`` of `new_generator`, whose copies stay usable after a fork too."""

    generator: np.random.Generator

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        # A copied generator has a lock of its own.
        _free_after_fork(self.generator)


def check_state(state: object) -> dict[str, Any]:
    """Return a copy of a state that a PCG64 generator can have.

    Raises
    ------
    ArgumentException
        The state is no such mapping, or a number is out of its range; NumPy itself accepts some of these.
    """
    outer = _mapping("state", state, {"bit_generator", "state", *_OUTER_BITS})
    inner = _mapping("state['state']", outer["state"], set(_INNER_BITS))
    if outer["bit_generator"] != "PCG64":
        raise ArgumentException(f"state['bit_generator'] must be 'PCG64', got {outer['bit_generator']!r:.80}")
    for where, values, bits in (("state", outer, _OUTER_BITS), ("state['state']", inner, _INNER_BITS)):
        for key, width in bits.items():
            value = values[key]
            if type(value) is not int or not 0 <= value < 1 << width:
                raise ArgumentException(
                    f"{where}[{key!r}] must be an integer of at most {width} bits, got {value!r:.80}"
                )
    # An even increment shortens the period of the generator.
    if inner["inc"] % 2 == 0:
        raise ArgumentException(f"state['state']['inc'] must be odd, got {inner['inc']}")
    return {**outer, "state": inner}


def _mapping(name: str, value: object, keys: set[str]) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise ArgumentException(
            f"{name} must be a mapping with {', '.join(sorted(keys))}, got a {type(value).__name__}"
        )
    mapping = dict(cast(Mapping[str, Any], value))
    if set(mapping) != keys:
        raise ArgumentException(f"{name} must have the keys {', '.join(sorted(keys))}, got {list(mapping)!r:.200}")
    return mapping
