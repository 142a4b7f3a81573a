"""Processes that a test forks: their start, and a wait for their verdict that tells a hang from a busy machine."""

from __future__ import annotations

import os
import signal
import time
import traceback
from collections.abc import Callable
from pathlib import Path

__all__ = ["forked", "found_by"]

LONGEST = 60.0
"""Seconds without any work, or of work, after which a process hangs."""


def forked(work: Callable[[], bool]) -> int:
    """The number of a process that does the work beside this one, and ends with the verdict of the work."""
    child = os.fork()
    if not child:
        code = 1
        try:
            code = 0 if work() else 1
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return child


def found_by(child: int) -> bool | None:
    """The verdict of a forked process; None where the process waits for ever."""
    end, worked = time.monotonic() + LONGEST, 0.0
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status) == 0
        if time.monotonic() > end:
            before, worked = worked, work_of(child)
            if worked == before or worked > LONGEST:
                break
            end = time.monotonic() + LONGEST
        time.sleep(0.002)
    # Pytest, or the script itself, has Python's handler for it print the place where the child waits.
    os.kill(child, signal.SIGABRT)
    os.waitpid(child, 0)
    return None


def work_of(child: int) -> float:
    """The seconds of a processor that a process has had; 0 on a system that counts none in a file."""
    try:
        fields = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
