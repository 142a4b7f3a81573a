"""An interrupt while lanes are at work: what comes after it finds none of them writing any more."""

from __future__ import annotations

import os
import signal
import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest

from aidotnet_py.backends import NumPyBackend
from aidotnet_py.meta_learning.learner.parallel import _Lanes


class Part:
    """Some tasks, by number."""

    def __init__(self, number: int) -> None:
        self._number = number

    def in_lane(self, lane: int) -> Any:
        return SimpleNamespace(number=self._number)


def test_the_end_waits_for_all_work() -> None:
    """Python up to 3.12 takes a living thread for one that has ended, if its `join` was interrupted."""
    at_work, go_on = threading.Barrier(3, timeout=60), threading.Event()
    begun, done = list[int](), list[int]()

    def work(part: Any) -> None:
        begun.append(part.number)
        if part.number < 2:
            at_work.wait()
        assert go_on.wait(60)
        time.sleep(0.05)
        done.append(part.number)

    def interrupt() -> None:
        at_work.wait()
        # The calling thread waits for the first lane by now.
        time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.1)
        go_on.set()

    thread = threading.Thread(target=interrupt)
    parts: Any = [Part(number) for number in range(5)]
    # A process in the background of a shell ignores the signal.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            _Lanes(NumPyBackend(), work, parts).run(2)
    finally:
        signal.signal(signal.SIGINT, before)
    assert sorted(done) == sorted(begun) == [0, 1]
    thread.join()
