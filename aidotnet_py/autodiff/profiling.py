"""The time that each equation of a Program takes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np

from aidotnet_py.autodiff.execution import Executable
from aidotnet_py.autodiff.execution.compiling import Part
from aidotnet_py.autodiff.program import Program
from aidotnet_py.autodiff.types import ArrayType
from aidotnet_py.backends import Backend, get_backend
from aidotnet_py.exceptions import ArgumentOutOfRangeException

__all__ = ["Profile", "ProfileRow", "profile"]


@dataclass(frozen=True)
class ProfileRow:
    """Equations that run together, or work of the same kind.

    Attributes
    ----------
    work : str
        The primitives and their shape; for a matrix product, the shapes of its factors.
    calls : int
        The number of such calls in a run.
    seconds : float
        Seconds of all calls together, the median of the repeats.
    flops : int
        Floating-point operations of all calls together, as in `Program.flops`.
    compiled : bool
        Whether it runs as machine code compiled for it instead of the array library's operations.
    """

    work: str
    calls: int
    seconds: float
    flops: int
    compiled: bool


@dataclass(frozen=True)
class Profile:
    """The time of each part of a Program, the longest first; it prints as a table.

    Attributes
    ----------
    rows : tuple of ProfileRow
        Work of one kind each.
    """

    rows: tuple[ProfileRow, ...]

    @property
    def seconds(self) -> float:
        """Seconds of all rows. A run is faster: its calls are merged, and data stay in caches."""
        return sum(row.seconds for row in self.rows)

    def __str__(self) -> str:
        lines = [f"{'ms':>9} {'share':>6} {'calls':>5} {'GFLOP/s':>8}  work"]
        for row in self.rows:
            rate = row.flops / row.seconds / 1e9 if row.seconds else 0.0
            share = row.seconds / self.seconds if self.seconds else 0.0
            mark = "" if row.compiled else "  (not compiled)"
            lines.append(f"{1e3 * row.seconds:9.3f} {share:6.1%} {row.calls:5d} {rate:8.1f}  {row.work}{mark}")
        lines.append(f"{1e3 * self.seconds:9.3f} {1:6.0%}")
        return "\n".join(lines)


def profile(program: Program, backend: str | Backend = "numpy", *, repeats: int = 5) -> Profile:
    """Run a Program on random numbers and time each part, compiled if possible.

    Parameters
    ----------
    program : Program
        The Program to run.
    backend : str or Backend
        The backend to run it on.
    repeats : int
        The number of timed runs, at least 1.

    Returns
    -------
    Profile
        One row for each kind of work.

    Raises
    ------
    ArgumentOutOfRangeException
        When repeats is below 1.

    Examples
    --------
    >>> import numpy as np
    >>> from aidotnet_py.autodiff import grad, trace
    >>> program = trace(grad(lambda w: np.sum(np.tanh(w @ w))), np.ones((8, 8)))
    >>> sorted({row.work for row in program.profile().rows if row.work.startswith("matmul")})
    ['matmul (8, 8) (8, 8)']
    """
    if repeats < 1:
        raise ArgumentOutOfRangeException(f"repeats must be at least 1, got {repeats}")
    home = get_backend(backend)
    executable = Executable(program, home, merge=False)
    generator = np.random.default_rng(0)
    for array, of in zip(executable.inputs, program.input_types, strict=True):
        home.copyto(array, home.asarray(_random(generator, of), of.dtype))
    plain = {id(part) for part in executable.parts(0)}
    executable.compile()
    executable.run()
    parts = executable.parts(0)
    rounds = [_times(home, parts) for _ in range(repeats)]
    rows: dict[tuple[str, bool], list[tuple[float, int]]] = {}
    for part, seconds in zip(parts, zip(*rounds, strict=True), strict=True):
        compiled = id(part) not in plain
        rows.setdefault((_label(part), compiled), []).append((median(seconds), _flops(part)))
    results = [
        ProfileRow(work, len(calls), sum(s for s, _ in calls), sum(f for _, f in calls), compiled)
        for (work, compiled), calls in rows.items()
    ]
    return Profile(tuple(sorted(results, key=lambda row: -row.seconds)))


def _random(generator: np.random.Generator, of: ArrayType) -> Any:
    if of.is_floating:
        return generator.standard_normal(of.shape)
    # 0 is a valid label and index everywhere; ones are a mask that keeps everything.
    return np.ones(of.shape) if of.dtype.kind == "b" else np.zeros(of.shape)


def _times(backend: Backend, parts: Sequence[Part]) -> list[float]:
    seconds: list[float] = []
    with backend.errors_ignored():
        for part in parts:
            began = time.perf_counter()
            part.call()
            backend.synchronize()
            seconds.append(time.perf_counter() - began)
    return seconds


def _label(part: Part) -> str:
    names = ["copy" if work.primitive is None else work.primitive.name for work in part.work]
    if names == ["matmul"]:
        x, y = (operand.type.shape for operand in part.work[0].operands)
        return f"matmul {x} {y}"
    counted = [f"{names.count(name)} {name}" if names.count(name) > 1 else name for name in dict.fromkeys(names)]
    largest = max((o.type for work in part.work for o in (work.out, *work.operands)), key=lambda t: t.size)
    return f"{', '.join(counted)} {largest.shape}"


def _flops(part: Part) -> int:
    return sum(
        work.primitive.flops(*(o.type for o in work.operands), output=work.out.type)
        for work in part.work
        if work.primitive is not None
    )
