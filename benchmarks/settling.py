"""Steps until everything that they run is compiled."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

__all__ = ["settle"]

# More rounds than any workload takes: each set of buffers is compiled for in the step after that in which it was made.
_MOST = 20


def settle(step: Callable[[], Any], steps: int = 2) -> None:
    """Take some steps, wait for the threads of aidotnet_py that compile, and so on until there are none.

    Of a library that compiles before it computes, or does not compile, these are just some steps.
    """
    compiling: list[threading.Thread] = []
    for _ in range(_MOST):
        for thread in compiling:
            thread.join()
        for _ in range(steps):
            step()
        compiling = [thread for thread in threading.enumerate() if thread.name.startswith("aidotnet_py compiler")]
        if not compiling:
            return
