"""Constants of a Program: arrays of a backend, and data that the backend which runs it copies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aidotnet_py.backends import backend_of

__all__ = ["HostData", "host_array"]


@dataclass(frozen=True, eq=False)
class HostData:
    """A constant of the Program itself, such as a list of indices; the backend that runs the Program copies it."""

    array: NDArray[Any]

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of the axes."""
        return self.array.shape


def host_array(constant: Any) -> NDArray[Any]:
    """Return a constant of a Program as a NumPy array.

    Examples
    --------
    >>> import numpy as np
    >>> from aidotnet_py.autodiff import trace
    >>> from aidotnet_py.autodiff.extend import host_array
    >>> program = trace(lambda x: x[[2, 0]], np.zeros(3))
    >>> [host_array(value) for _, value in program.constants]
    [array([2, 0])]
    """
    if isinstance(constant, HostData):
        return constant.array
    owner = backend_of(constant)
    return np.asarray(constant) if owner is None else owner.to_numpy(constant)
