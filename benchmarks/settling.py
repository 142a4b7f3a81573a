"""Steps until everything that they run is compiled."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

__all__ = ["settle"]

# More rounds than any workload takes: each set of buffers is compiled for in the step after that in which it was made.
_MOST = 20
# A program of little work is compiled at its twelfth run, which comes in the first few steps, or in as many.
_FEWEST, _MOST_SECONDS = 13, 5.0


def settle(step: Callable[[], Any], steps: int = 2) -> None:
    """Take some steps, wait for the threads of aidotnet_py that compile, and so on until there are none.

    Of a library that compiles before it computes, or does not compile, these are just some steps.
    """
    compiling: list[threading.Thread] = []
    began = time.perf_counter()
    for _ in range(_FEWEST):
        step()
        if time.perf_counter() - began > _MOST_SECONDS:
            break
    for _ in range(_MOST):
        for thread in compiling:
            thread.join()
        for _ in range(steps):
            step()
        compiling = [thread for thread in threading.enumerate() if thread.name.startswith("aidotnet_py compiler")]
        if not compiling:
            return
