"""Arrays that stay read-only in copies of the object that holds them."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["HoldsReadOnlyArrays"]


class HoldsReadOnlyArrays:
    """An object whose arrays are read-only, also after pickle and copy, where NumPy makes writeable ones."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take up the attributes of a copy."""
        for value in state.values():
            if isinstance(value, np.ndarray):
                value.flags.writeable = False
        self.__dict__.update(state)
