"""Arrays of equal values that lie in memory in other ways than in C order, one after another."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aidotnet_py.backends import Array, Backend

__all__ = ["LAYOUTS"]

Host = NDArray[Any]


def _spaced(backend: Backend, host: Host) -> Array:
    """Return an array of which every second element of a larger one is part."""
    wide = backend.asarray(np.repeat(host, 2, axis=-1))
    start = min(1, host.shape[-1])
    return backend.index(wide, (*[slice(None)] * (host.ndim - 1), slice(start, None, 2)))


def _turned(backend: Backend, host: Host) -> Array:
    """Return an array whose axes lie in memory in reverse order."""
    return backend.permute_dims(backend.asarray(host.T), tuple(range(host.ndim))[::-1])


def _backwards(backend: Backend, host: Host) -> Array:
    return backend.index(backend.asarray(np.flip(host)), (slice(None, None, -1),) * host.ndim)


def _repeated(backend: Backend, host: Host) -> Array:
    """Return the first entry along the first axis, repeated without memory of its own: other values."""
    return backend.broadcast_to(backend.asarray(host[:1]), host.shape)


#: From a name to what lays an array of one axis or more out that way.
LAYOUTS: Mapping[str, Callable[[Backend, Host], Array]] = {
    "spaced": _spaced,
    "turned": _turned,
    "backward": _backwards,
    "repeated": _repeated,
}
