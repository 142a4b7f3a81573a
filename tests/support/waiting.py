"""Waits of a test for what other threads bring about."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from aidotnet_py.backends.numpy.llvm import shared_compiler

__all__ = ["until", "until_all_is_compiled"]


def until(condition: Callable[[], bool]) -> None:
    """Return when the condition holds; fail after a minute."""
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


def until_all_is_compiled() -> None:
    """Return when no thread compiles, nor has anything left to compile."""
    compiler = shared_compiler()
    if compiler is not None:
        until(lambda: not compiler._waiting)
        # Its thread would wait two seconds for more.
        compiler.pause()
        compiler.go_on()
    for thread in threading.enumerate():
        if thread.name == "aidotnet_py compiler":
            thread.join()
