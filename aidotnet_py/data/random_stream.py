"""Seeded streams of random numbers; their positions are saved as plain JSON values and restored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from aidotnet_py.arguments import SEED, Constraint, Whole, check_given, refusal
from aidotnet_py.exceptions import ArgumentException
from aidotnet_py.generator_state import HasGenerator, check_state, new_generator
from aidotnet_py.known_attributes import KnownAttributes
from aidotnet_py.locks import Lock

__all__ = ["CountingStream", "RandomStream", "RememberingStream", "Seeded"]


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
        # The values that draws depend on besides, by name: none here, see `RememberingStream`.
        self.memory: dict[str, NDArray[Any]] = {}

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


class RememberingStream(RandomStream):
    """A random stream and the values that draws depend on besides: counts, losses, a progress.

    Parameters
    ----------
    seed : int or None
        As for `RandomStream`.
    memory : mapping of str to array
        The values by name, of int64 or float64; copied. `reseed` leaves them.
    constraints : mapping of str to Constraint
        What each element of a restored value must satisfy.

    Examples
    --------
    >>> import numpy as np
    >>> from aidotnet_py.arguments import Whole
    >>> from aidotnet_py.data.random_stream import RememberingStream
    >>> stream = RememberingStream(1, {"counts": np.zeros(3, np.int64)}, {"counts": Whole(0)})
    >>> state = stream.state()
    >>> stream.memory["counts"][0] += 1
    >>> stream.restore(state)
    >>> stream.memory["counts"].tolist()
    [0, 0, 0]
    """

    def __init__(
        self, seed: int | None, memory: Mapping[str, NDArray[Any]], constraints: Mapping[str, Constraint[Any]]
    ) -> None:
        super().__init__(seed)
        self.memory = {name: value.copy() for name, value in memory.items()}
        self._constraints = dict(constraints)

    def state(self) -> dict[str, Any]:
        """Return the position and the memory as nested dicts and lists of plain values."""
        return {"stream": super().state()} | {name: value.tolist() for name, value in self.memory.items()}

    def restore(self, state: object) -> None:
        """Continue from a state that `state` returned.

        Raises
        ------
        ArgumentException
            ``state`` is not such a state; stream and memory keep their own.
        """
        keys = ["stream", *self.memory]
        values = cast("Mapping[str, Any]", state)
        if not isinstance(state, Mapping) or set(values) != set(keys):
            raise ArgumentException(refusal("state", f"a mapping with the keys {', '.join(keys)}", values))
        memory = {name: self._check(name, values[name]) for name in self.memory}
        super().restore(values["stream"])
        self.memory = memory

    def _check(self, name: str, value: object) -> NDArray[Any]:
        """Return a restored value as an array like the one in memory."""
        own, constraint = self.memory[name], self._constraints[name]
        if own.ndim == 0:
            return np.array(constraint.check(f"state[{name!r}]", value), own.dtype)
        values = cast("Sequence[Any]", value)
        if not isinstance(value, list) or len(values) != len(own):
            raise ArgumentException(refusal(f"state[{name!r}]", f"a list of {len(own)} numbers", values))
        numbers = [constraint.check(f"state[{name!r}][{i}]", number) for i, number in enumerate(values)]
        return np.array(numbers, own.dtype)


class CountingStream(RememberingStream):
    """A random stream and the uses of each class, ``memory["counts"]``, from zero on after each `reseed`."""

    def __init__(self, seed: int | None, classes: int) -> None:
        super().__init__(seed, {"counts": np.zeros(classes, np.int64)}, {"counts": Whole(0, 2**62)})

    def reseed(self, seed: int) -> None:
        """Start again from ``seed``, with all counts zero.

        Raises
        ------
        ArgumentException
            As for `RandomStream.reseed`.
        """
        super().reseed(seed)
        self.memory["counts"][:] = 0


class Seeded(KnownAttributes):
    """The seed and the state of an object that draws from a stream, for one thread at a time: an `IResumable`.

    Parameters
    ----------
    stream : RandomStream
        The stream.
    """

    def __init__(self, stream: RandomStream) -> None:
        self._stream = stream
        # A draw of a task takes several numbers from the stream, which must not mix with those of other threads.
        self._lock = Lock()

    def SetSeed(self, seed: int) -> None:
        """Restart the random stream, and keep the data; equal seeds, and equal feedback, give equal draws.

        Raises
        ------
        ArgumentException
            ``seed`` is no integer, or negative (ArgumentOutOfRangeException).
        """
        with self._lock:
            self._stream.reseed(seed)

    def GetState(self) -> dict[str, Any]:
        """Return all that the next draws depend on as plain JSON values."""
        with self._lock:
            return self._stream.state()

    def SetState(self, state: Mapping[str, Any]) -> None:
        """Continue from a state that `GetState` returned; over the same data the same draws follow, bit for bit.

        Raises
        ------
        ArgumentException
            ``state`` is not such a state; nothing changes then.
        """
        with self._lock:
            self._stream.restore(state)


def _generator(seed: int | None) -> np.random.Generator:
    return new_generator(None if seed is None else SEED.check("seed", seed))
