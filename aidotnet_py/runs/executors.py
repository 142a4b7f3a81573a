"""The workers of a run by the command line: processes of this machine, or those of a Dask scheduler."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor
from functools import partial
from typing import Any, cast

from aidotnet_py.arguments import COUNT
from aidotnet_py.exceptions import ArgumentException

__all__ = ["executor_of"]


def executor_of(workers: int | None, scheduler: str | None) -> Callable[[], Executor] | None:
    """Return what makes the executor of a run; None without workers.

    Parameters
    ----------
    workers : int, optional
        How many processes of this machine, which are begun when the first step needs them.
    scheduler : str, optional
        The address of a Dask scheduler, such as ``tcp://127.0.0.1:8786``; it is connected to at once.

    Raises
    ------
    ArgumentException
        When both are given, there are fewer than one worker, or nothing answers at the address.
    ImportError
        When Dask's distributed is not installed.
    """
    if workers is not None and scheduler is not None:
        raise ArgumentException("--workers must be left out with --scheduler, got both")
    if workers is not None:
        return partial(_processes, COUNT.check("--workers", workers))
    return None if scheduler is None else _of_scheduler(scheduler)


def _processes(count: int) -> Executor:
    # Begun anew: a fork would copy threads' locks as they happen to be.
    return ProcessPoolExecutor(count, multiprocessing.get_context("spawn"), initializer=_begin)


def _begin() -> None:
    """Leave it to the run to end its workers: by its word, or by its own end, if that leaves it no time for a word."""
    # A terminal sends Ctrl-C to all processes.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_the_run, daemon=True).start()


def _end_with_the_run() -> None:
    run = multiprocessing.parent_process()
    assert run is not None
    run.join()
    os._exit(1)


def _of_scheduler(address: str) -> Callable[[], Executor]:
    try:
        import distributed
    except ImportError as error:
        raise ImportError('--scheduler needs distributed: pip install "aidotnet-py[dask]"') from error
    connect: Any = distributed.Client
    try:
        client = connect(address)
    except (OSError, ValueError) as error:
        raise ArgumentException(
            f"--scheduler must be the address of a Dask scheduler, such as tcp://127.0.0.1:8786, got {address!r}: "
            f"{error}"
        ) from error
    return cast("Callable[[], Executor]", client.get_executor)
