"""A bounded cache for objects that take long to make; the least recently used goes first."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, Generic

from typing_extensions import TypeVar

from aidotnet_py.locks import Lock

__all__ = ["BoundedCache"]

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

_MISSING: Any = object()


class BoundedCache(Generic[K, V]):
    """Values by their keys, at most so many; threads may share it. A copy or pickle of it is empty.

    Parameters
    ----------
    most : int
        The largest total size of all values; the last one used stays, whatever its size.
    size : callable, optional
        The size of a value, such as its bytes; None: each counts 1. Pickles hold it.

    Examples
    --------
    >>> from aidotnet_py.caching import BoundedCache
    >>> squares = BoundedCache(2)
    >>> [squares.get_or_make(n, lambda: n * n) for n in (1, 2, 1, 3)]
    [1, 4, 1, 9]
    >>> 1 in squares, 2 in squares
    (True, False)
    """

    def __init__(self, most: int, size: Callable[[V], int] | None = None) -> None:
        self._most, self._size = most, size
        self._lock = Lock()
        # The last one used is at the end. No OrderedDict: interrupted inside, it raises KeyError.
        self._values: dict[K, V] = {}

    def __reduce__(self) -> tuple[type[BoundedCache[K, V]], tuple[int, Callable[[V], int] | None]]:
        return type(self), (self._most, self._size)

    def get_or_make(self, key: K, make: Callable[[], V]) -> V:
        """Return the value of a key; ``make`` it if there is none.

        It is made without the lock, so that a thread does not wait for another one's value. If several make a value
        for one key at the same time, all return the first.
        """
        with self._lock:
            value = self._use(key)
        if value is not _MISSING:
            return value
        made = make()
        with self._lock:
            value = self._use(key)
            if value is _MISSING:
                self._values[key] = value = made
                self._shrink()
            return value

    def get(self, key: K) -> V | None:
        """Return the value of a key, None if there is none."""
        with self._lock:
            value = self._use(key)
        return None if value is _MISSING else value

    def put(self, key: K, value: V) -> None:
        """Keep a value, in place of one that the key has."""
        with self._lock:
            self._values.pop(key, None)
            self._values[key] = value
            self._shrink()

    def _use(self, key: K) -> V:
        """Return a value, which from now on is the last one used."""
        value: V = self._values.pop(key, _MISSING)
        if value is not _MISSING:
            self._values[key] = value
        return value

    def _shrink(self) -> None:
        while len(self._values) > 1 and self._total() > self._most:
            del self._values[next(iter(self._values))]

    def _total(self) -> int:
        return len(self._values) if self._size is None else sum(map(self._size, self._values.values()))

    def values(self) -> list[V]:
        """Return all values, the last one used at the end."""
        with self._lock:
            return list(self._values.values())

    def clear(self) -> None:
        """Forget all values."""
        with self._lock:
            self._values.clear()

    def __contains__(self, key: object) -> bool:
        return key in self._values

    def __len__(self) -> int:
        return len(self._values)
