"""Work as data: steps, their order, and their repetitions. It runs call by call at first, as one call once compiled."""

from __future__ import annotations

from collections.abc import Callable, Generator, Hashable
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeAlias

from aidotnet_py.backends import Array, Backend
from aidotnet_py.caching import BoundedCache
from aidotnet_py.exceptions import InvalidOperationException

__all__ = ["Call", "Copy", "Kernels", "Queue", "Repeat", "Replay", "Run", "Schedule", "Step"]

# A capture of more rounds takes longer to make and saves next to nothing.
_MOST_CAPTURED = 32
# Schedules that a queue keeps, for the shapes and settings last used.
_MOST_TOGETHER = 4

Kernels: TypeAlias = list[Callable[[], Any]]


class Step(Protocol):
    """Work that can run again and again on the same arrays.

    Examples
    --------
    See `Schedule`.
    """

    def run(self) -> None:
        """Do the work, in as few calls as possible."""
        ...

    def rehearse(self) -> None:
        """Do the work call by call, and compile calls that will run again."""
        ...

    def call(self) -> None:
        """Make the calls of the work, without preparations."""
        ...

    def kernels(self) -> Kernels | None:
        """Return the calls if all of them are compiled kernels."""
        ...

    def is_settled(self) -> bool:
        """Return whether the calls stay the same from now on, and a device can capture them."""
        ...

    @property
    def key(self) -> Hashable:
        """Equal for steps that do the same on the same arrays, as long as one of the two lives."""
        ...


class Stages(Protocol):
    """Work in numbered stages: an Executable."""

    def run(self, *stages: int) -> None:
        """Do the work of stages, in as few calls as possible."""
        ...

    def rehearse(self, stage: int) -> None:
        """Do the work of a stage call by call, and compile calls that will run again."""
        ...

    def call(self, stage: int) -> None:
        """Make the calls of a stage, without preparations."""
        ...

    def kernels(self, stage: int) -> Kernels | None:
        """Return the calls of a stage if all of them are compiled kernels."""
        ...

    def is_settled(self) -> bool:
        """Return whether the calls of all stages stay the same from now on."""
        ...


@dataclass(frozen=True, eq=False)
class Run:
    """Run a stage of an Executable.

    Parameters
    ----------
    executable : Executable
        The calls.
    stage : int
        The stage to run.

    Examples
    --------
    See `Schedule`.
    """

    executable: Stages
    stage: int

    def run(self) -> None:
        """See `Step`."""
        self.executable.run(self.stage)

    def rehearse(self) -> None:
        """See `Step`."""
        self.executable.rehearse(self.stage)

    def call(self) -> None:
        """See `Step`."""
        self.executable.call(self.stage)

    def kernels(self) -> Kernels | None:
        """See `Step`."""
        return self.executable.kernels(self.stage)

    def is_settled(self) -> bool:
        """See `Step`."""
        return self.executable.is_settled()

    @property
    def key(self) -> Hashable:
        """See `Step`."""
        return id(self.executable), self.stage


@dataclass(frozen=True, eq=False)
class Copy:
    """Copy an array into another one; `copying` gives the same as a kernel.

    Parameters
    ----------
    backend : Backend
        The backend of both arrays.
    source, target : array
        Of one shape and dtype.

    Examples
    --------
    >>> import numpy as np
    >>> from aidotnet_py.autodiff.extend import Copy
    >>> from aidotnet_py.backends import get_backend
    >>> target = np.zeros(2)
    >>> Copy(get_backend("numpy"), np.ones(2), target).run()
    >>> target
    array([1., 1.])
    """

    backend: Backend
    source: Array
    target: Array

    def run(self) -> None:
        """See `Step`."""
        self.backend.copyto(self.target, self.source)

    rehearse = call = run

    def kernels(self) -> None:
        """See `Step`."""

    def is_settled(self) -> bool:
        """See `Step`."""
        return True

    @property
    def key(self) -> Hashable:
        """See `Step`."""
        return id(self.source), id(self.target)


@dataclass(frozen=True, eq=False)
class Call:
    """Call a Python function; no device captures it.

    Parameters
    ----------
    function : callable
        Called without arguments; its result is ignored.

    Examples
    --------
    See `Schedule`.
    """

    function: Callable[[], object]

    def run(self) -> None:
        """See `Step`."""
        self.function()

    rehearse = call = run

    def kernels(self) -> None:
        """See `Step`."""

    def is_settled(self) -> bool:
        """See `Step`."""
        return False

    @property
    def key(self) -> Hashable:
        """See `Step`."""
        return id(self)


@dataclass(frozen=True, eq=False)
class Repeat:
    """Run a schedule ``times`` times.

    Parameters
    ----------
    times : int
        At least 0.
    body : Schedule
        The work of one repetition.

    Examples
    --------
    See `Schedule`.
    """

    times: int
    body: Schedule

    def run(self) -> None:
        """See `Step`."""
        self.body.run(self.times)

    rehearse = run

    def call(self) -> None:
        """See `Step`."""
        _repeat(self.body, self.times)

    def kernels(self) -> Kernels | None:
        """See `Step`."""
        calls = self.body.kernels()
        return None if calls is None else calls * self.times

    def is_settled(self) -> bool:
        """See `Step`."""
        return self.body.is_settled()

    @property
    def key(self) -> Hashable:
        """See `Step`."""
        return self.times, self.body.key


class Schedule:
    """Steps in a row.

    Parameters
    ----------
    backend : Backend
        The backend of all arrays.
    *steps : Run, Copy, Call, Repeat or Schedule
        Steps in the order of their run; a schedule among them is replaced by its own steps.

    Examples
    --------
    >>> import numpy as np
    >>> from aidotnet_py.autodiff import trace
    >>> from aidotnet_py.autodiff.extend import Call, Executable, Repeat, Run, Schedule
    >>> from aidotnet_py.backends import get_backend
    >>> numpy = get_backend("numpy")
    >>> doubling = Executable(trace(lambda x: 2.0 * x, np.ones(2)), numpy, carried={0: 0})
    >>> doubling.inputs[0][...] = [1.0, 3.0]
    >>> body = Schedule(numpy, Run(doubling, 0))
    >>> Schedule(numpy, Repeat(3, body), Call(lambda: print("done"))).run()
    done
    >>> doubling.inputs[0]
    array([ 8., 24.])
    """

    def __init__(self, backend: Backend, *steps: Step) -> None:
        self.steps: list[Step] = []
        for step in steps:
            self.steps += step.steps if isinstance(step, Schedule) else [step]
        self._replay = Replay(backend)

    def run(self, times: int = 1) -> None:
        """Run all steps in turn, ``times`` times, in as few calls as possible."""
        self._replay.run(self, times)

    def rehearse(self) -> None:
        """See `Step`."""
        for step in self.steps:
            step.rehearse()

    def call(self) -> None:
        """See `Step`."""
        for step in self.steps:
            step.call()

    def kernels(self) -> Kernels | None:
        """See `Step`."""
        calls: Kernels = []
        for step in self.steps:
            some = step.kernels()
            if some is None:
                return None
            calls += some
        return calls

    def is_settled(self) -> bool:
        """See `Step`."""
        return all(step.is_settled() for step in self.steps)

    @property
    def key(self) -> Hashable:
        """See `Step`."""
        return tuple(step.key for step in self.steps)


class Replay:
    """Rounds of a step: call by call at first, then one compiled call or one captured graph, with the same bits.

    Parameters
    ----------
    backend : Backend
        The backend of the step's arrays.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._rounds: Callable[[int], Any] | None = None
        self._is_capturable = backend.capturing is not None

    def run(self, step: Step, times: int) -> None:
        """Run a step ``times`` times; it must be the same step at each call."""
        if self._backend.capturing:
            _repeat(step, times)
            return
        while times and self._rounds is None:
            step.rehearse()
            times -= 1
            self._rounds = self._chain(step) or self._capture(step)
        if times and self._rounds is not None:
            self._rounds(times)

    def _chain(self, step: Step) -> Callable[[int], Any] | None:
        """Return one call of compiled code for any number of rounds."""
        compiler = self._backend.compiler
        calls = None if compiler is None else step.kernels()
        return compiler.chain(calls) if compiler is not None and calls else None

    def _capture(self, step: Step) -> Callable[[int], Any] | None:
        """Return a function that launches captured rounds; None if nothing can be captured."""
        if not self._is_capturable or not step.is_settled():
            return None
        graphs: dict[int, Callable[[], Any]] = {}
        once = self._graph(step, 1)
        self._is_capturable = once is not None
        if once is None:
            return None
        graphs[1] = once

        def replay(times: int) -> None:
            while times:
                some = min(times, _MOST_CAPTURED)
                if some not in graphs:
                    graphs[some] = self._graph(step, some) or partial(_repeat, step, some)
                graphs[some]()
                times -= some

        return replay

    def _graph(self, step: Step, times: int) -> Callable[[], None] | None:
        """Return ``times`` rounds as one graph; None if the backend has no room for it."""
        try:
            return self._backend.capture(partial(_repeat, step, times))
        except InvalidOperationException:
            return None


def _repeat(step: Step, times: int) -> None:
    for _ in range(times):
        step.call()


class Queue:
    """Steps that run at once; inside `together`, on a device that captures work, as one schedule at its end.

    Parameters
    ----------
    backend : Backend
        The backend of all arrays.

    Examples
    --------
    >>> import numpy as np
    >>> from aidotnet_py.autodiff.extend import Copy, Queue
    >>> from aidotnet_py.backends import get_backend
    >>> numpy, target = get_backend("numpy"), np.zeros(2)
    >>> queue = Queue(numpy)
    >>> with queue.together():
    ...     queue.run(Copy(numpy, np.ones(2), target))
    ...     queue.then(lambda: print(target))
    [1. 1.]
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._waiting: list[Step] | None = None
        self._checks: list[Callable[[], object]] = []
        self._schedules = BoundedCache[Hashable, Schedule](_MOST_TOGETHER)

    @property
    def is_waiting(self) -> bool:
        """Whether steps wait for the end of `together`."""
        return self._waiting is not None

    def run(self, *steps: Step) -> None:
        """Run the steps now, or inside `together` at its end."""
        if self._waiting is not None:
            self._waiting += steps
            return
        for step in steps:
            step.run()

    def then(self, check: Callable[[], object]) -> None:
        """Call a function that waits for the results of the steps so far."""
        if self._waiting is None:
            check()
        else:
            self._checks.append(check)

    @contextmanager
    def together(self) -> Generator[None]:
        """Collect steps and checks; run the steps as one schedule at the end, and then the checks."""
        if self._backend.capturing is None or self._waiting is not None:
            yield
            return
        self._waiting, self._checks = [], []
        try:
            yield
            steps, checks = self._waiting, self._checks
        finally:
            self._waiting, self._checks = None, []
        key = tuple(step.key for step in steps)
        self._schedules.get_or_make(key, lambda: Schedule(self._backend, *steps)).run()
        for check in checks:
            check()
