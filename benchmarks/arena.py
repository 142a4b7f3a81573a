"""Contestants side by side: their processes, the check that they agree, and rounds in which each has its turn."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from benchmarks.settings import environment_of

__all__ = ["Child", "Measured", "agreement", "fastest_setting", "race", "ratio"]

# Threads that spin while they wait for work would take time from whoever is next.
_PAUSE = 0.3
_ROOT = Path(__file__).parent.parent


class Child:
    """A contestant's process; it does nothing unless asked."""

    def __init__(
        self, contestant: str, setting: str, workload: str, dtype: str = "float32", device: str = "cpu"
    ) -> None:
        details = [contestant, setting, workload, dtype, device]
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
            raise RuntimeError(f"{' '.join(map(str, self._process.args))} ended with {self._process.wait()}")
        return json.loads(line)

    def ask(self, do: str, **details: Any) -> Any:
        """Have something done; returns what the child says of it."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": do, **details}) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def gradient(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        """The meta-gradient of the last step."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "gradient.npy"
            self.ask("gradient", path=str(path))
            return np.load(path, allow_pickle=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
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


def agreement(entries: Iterable[tuple[str, str]], workload: str, device: str) -> dict[str, float]:
    """Relative distances of everyone's meta-gradient from the first one's, in float64, where rounding hides nothing."""
    found: dict[str, Any] = {}
    for contestant, setting in entries:
        with Child(contestant, setting, workload, "float64", device) as child:
            child.ask("step", count=1)
            found[f"{contestant} {setting}"] = child.gradient()
    reference = next(iter(found.values()))
    return {name: _relative(gradient, reference) for name, gradient in found.items()}


def race(
    entries: Iterable[tuple[str, str]],
    workload: str,
    *,
    rounds: int,
    seconds: float,
    device: str = "cpu",
    count_launches: bool = False,
) -> list[Measured]:
    """Rounds in which each contestant, alone at work, takes steps for about that long, at least one.

    First each takes a few until all is compiled, which would otherwise go on in the others' turns. The differences are
    those of the first float32 meta-gradients, from the first contestant's.
    """
    with ExitStack() as stack:
        rows: list[tuple[Child, Measured, int]] = []
        reference: Any = None
        for contestant, setting in entries:
            child = stack.enter_context(Child(contestant, setting, workload, device=device))
            first = child.ask("step", count=1)
            gradient = child.gradient()
            reference = gradient if reference is None else reference
            warm = child.ask("settle")
            count = max(1, round(seconds / warm["seconds"][-1]))
            measured = Measured(
                contestant,
                setting,
                workload,
                child.start["import_seconds"],
                first["seconds"][0],
                _relative(gradient, reference),
                [first["losses"][0], *warm["losses"]],
                child.start["kernels"],
            )
            rows.append((child, measured, count))
        for _ in range(rounds):
            for child, measured, count in rows:
                time.sleep(_PAUSE)
                turn = child.ask("step", count=count)
                measured.rounds.append(turn["seconds"])
                measured.losses += turn["losses"]
        for child, measured, _ in rows:
            measured.memory = child.ask("memory")
            if count_launches:
                measured.launches = child.ask("launches")
            # Not every contestant says when its numbers are none.
            if not np.isfinite(measured.losses).all():
                raise RuntimeError(f"{workload}: a loss of {measured.contestant} is not finite; its times mean nothing")
        return [measured for _, measured, _ in rows]


def fastest_setting(
    contestant: str, settings: Iterable[str], workload: str, device: str
) -> tuple[str, dict[str, float]]:
    """The setting with the fastest third step, and the times of all; each in a fresh process."""
    times: dict[str, float] = {}
    for setting in settings:
        with Child(contestant, setting, workload, device=device) as child:
            times[setting] = min(child.ask("step", count=3)["seconds"][1:])
    return min(times, key=times.__getitem__), times
