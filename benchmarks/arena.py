"""Contestants side by side: their processes, the check that they agree, and rounds in which each has its turn."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from benchmarks.settings import environment_of

__all__ = ["Child", "ContestantFailed", "Measured", "agreement", "race", "ratio", "setting_times"]

# Threads that spin while they wait for work would take time from whoever is next.
_PAUSE = 0.3
_ROOT = Path(__file__).parent.parent


class ContestantFailed(RuntimeError):
    """A contestant's process ended before its time; what it said is on stderr."""


class Child:
    """A contestant's process; it does nothing unless asked."""

    def __init__(
        self, contestant: str, setting: str, workload: str, dtype: str = "float32", device: str = "cpu"
    ) -> None:
        details = [contestant, setting, workload, dtype, device]
        self._what = " ".join(details)
        command = [sys.executable, "-W", "ignore", "-m", "benchmarks.child", *details]
        self._process = subprocess.Popen(
            command,
            cwd=_ROOT,
            env=os.environ | environment_of(contestant, device),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        self.start = self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise ContestantFailed(f"{self._what} ended with {self._process.wait()}")
        return json.loads(line)

    def ask(self, do: str, **details: Any) -> Any:
        """Have something done; returns what the child says of it."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps({"do": do, **details}) + "\n")
            self._process.stdin.flush()
        return self._answer()

    def outcome(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        """The outcome of the last step."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "outcome.npy"
            self.ask("outcome", path=str(path))
            return np.load(path, allow_pickle=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


@dataclass
class Measured:
    """What was seen of one contestant on one workload: seconds of the steps of each round, bytes of memory."""

    contestant: str
    setting: str
    workload: str
    import_seconds: float
    first_seconds: float
    difference: float
    losses: list[float]
    kernels: dict[str, str | None]
    rounds: list[list[float]] = field(default_factory=list)
    memory: dict[str, int] = field(default_factory=dict)
    launches: dict[str, float] = field(default_factory=dict)

    def quantile(self, q: float) -> float:
        """Of the seconds a step."""
        return float(np.quantile(np.concatenate(self.rounds), q))


def ratio(one: Measured, other: Measured) -> float:
    """The median over rounds of the ratio of their times: what slows a whole round down leaves it as it is."""
    rounds = zip(one.rounds, other.rounds, strict=True)
    return float(np.median([np.median(mine) / np.median(theirs) for mine, theirs in rounds]))


def _relative(a: Any, b: Any) -> float:
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


def agreement(
    entries: Iterable[tuple[str, str]], workload: str, device: str, failed: dict[str, str]
) -> dict[str, float]:
    """Relative distances of everyone's outcome from the first one's, in float64, where rounding hides nothing.

    Who fails is put among those that failed, with the reason.
    """
    found: dict[str, Any] = {}
    for contestant, setting in entries:
        try:
            with Child(contestant, setting, workload, "float64", device) as child:
                child.ask("step", count=1)
                found[f"{contestant} {setting}"] = child.outcome()
        except ContestantFailed as error:
            failed[contestant] = str(error)
    reference = next(iter(found.values()), None)
    return {name: _relative(outcome, reference) for name, outcome in found.items()}


def race(
    entries: Iterable[tuple[str, str]],
    workload: str,
    *,
    rounds: int,
    seconds: float,
    device: str = "cpu",
    count_launches: bool = False,
    failed: dict[str, str] | None = None,
) -> list[Measured]:
    """Rounds in which each contestant, alone at work, takes steps for about that long, at least one.

    First each takes a few until all is compiled, which would otherwise go on in the others' turns. The differences are
    those of the first float32 outcomes, from the first contestant's. Who fails is left out and put among those
    that ``failed``, with the reason; without a place for that, it is an error.
    """
    with ExitStack() as stack:
        runners = [
            _Runner(stack, contestant, setting, workload, device, count_launches) for contestant, setting in entries
        ]
        stages: list[Callable[[_Runner], None]] = [
            lambda runner: runner.begin(seconds),
            *[_Runner.turn] * rounds,
            _Runner.end,
        ]
        for stage in stages:
            for runner in list(runners):
                try:
                    stage(runner)
                except ContestantFailed as error:
                    if failed is None:
                        raise
                    failed[runner.contestant] = str(error)
                    runners.remove(runner)
        for runner in runners:
            runner.measured.difference = _relative(runner.outcome, runners[0].outcome)
        return [runner.measured for runner in runners]


class _Runner:
    """A contestant in a race, from its start to its end."""

    def __init__(
        self, stack: ExitStack, contestant: str, setting: str, workload: str, device: str, count_launches: bool
    ) -> None:
        self.contestant = contestant
        self._stack, self._of, self._device = stack, (contestant, setting, workload), device
        self._count_launches = count_launches
        self.outcome: Any = None
        self.measured: Measured

    def begin(self, seconds: float) -> None:
        """Start, and take steps until all is compiled."""
        self._child = child = self._stack.enter_context(Child(*self._of, device=self._device))
        first = child.ask("step", count=1)
        self.outcome = child.outcome()
        warm = child.ask("settle")
        self._count = max(1, round(seconds / warm["seconds"][-1]))
        self.measured = Measured(
            *self._of,
            child.start["import_seconds"],
            first["seconds"][0],
            0.0,
            [first["losses"][0], *warm["losses"]],
            child.start["kernels"],
        )

    def turn(self) -> None:
        """A round."""
        time.sleep(_PAUSE)
        turn = self._child.ask("step", count=self._count)
        self.measured.rounds.append(turn["seconds"])
        self.measured.losses += turn["losses"]

    def end(self) -> None:
        """What is asked only when all have run."""
        self.measured.memory = self._child.ask("memory")
        # Not every contestant says when its numbers are none.
        if not np.isfinite(self.measured.losses).all():
            raise ContestantFailed("a loss is not finite; its times mean nothing")
        if self._count_launches:
            self.measured.launches = self._child.ask("launches")


def setting_times(contestant: str, settings: Iterable[str], workload: str, device: str) -> dict[str, float]:
    """Seconds of the third step with each setting that works, in a fresh process each."""
    times: dict[str, float] = {}
    for setting in settings:
        with suppress(ContestantFailed), Child(contestant, setting, workload, device=device) as child:
            times[setting] = min(child.ask("step", count=3)["seconds"][1:])
    return times
