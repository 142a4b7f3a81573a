"""An inner loop that keeps its states, and its vjp: the way back through all steps, as schedules."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, TypeAlias, cast

from aidotnet_py.arguments import COUNT, Choice, Whole, refusal
from aidotnet_py.autodiff.extend import Executable, Run, Schedule, Step, copying, run_to_compile_at
from aidotnet_py.backends import Array, Backend
from aidotnet_py.meta_learning.inner.steps import InnerLoop, TracedSteps
from aidotnet_py.meta_learning.objective.interface import PATIENCE, CurvatureWork
from aidotnet_py.meta_learning.objective.stacking import bytes_of

__all__ = ["InnerPath", "Segments", "invalid_segments", "segment_starts"]

Segments: TypeAlias = int | Literal["sqrt"] | None


def invalid_segments(segments: object, steps: object, name: str = "CheckpointSegments") -> Iterator[str]:
    """Yield a message if a number of segments, CheckpointSegments, is invalid for this number of AdaptationSteps."""
    # A wrong number of steps has a message of its own, and allows any number of segments.
    counts = COUNT if COUNT.problem("", steps) else Whole(1, int(cast(Any, steps)))
    if Choice(None, "sqrt").problem("", segments) and counts.problem("", segments):
        wanted = f"None, 'sqrt' or a whole number from 1 to AdaptationSteps, {steps!r}"
        yield refusal(name, wanted, segments)


def segment_starts(steps: int, segments: Segments) -> list[int]:
    """Return the first step of each segment: one segment for None, ⌈√steps⌉ for "sqrt", of almost equal lengths."""
    count = math.isqrt(steps - 1) + 1 if segments == "sqrt" else 1 if segments is None else segments
    return [steps * i // count for i in range(count)]


class _States:
    """Copies of the points and of the optimizer's memory, and the steps that save and restore them."""

    def __init__(self, steps: TracedSteps, count: int) -> None:
        self._backend, self.count = (backend := steps.backend), count
        self._places = [steps.points, *steps.memory]
        self.arrays = [backend.empty((count, *a.shape), backend.dtype_of(a)) for a in self._places]
        self._copies: dict[tuple[int, bool], list[Run]] = {}

    def copies(self, place: int, *, save: bool) -> list[Run]:
        """Return the steps that save state number ``place`` of the loop, or restore it."""
        if (place, save) not in self._copies:
            runs: list[Run] = []
            for array, at_work in zip(self.arrays, self._places, strict=True):
                whole = (slice(None),) * (len(array.shape) - 1)
                state = self._backend.index(array, (slice(place, place + 1), *whole))
                state = self._backend.reshape(state, tuple(at_work.shape))
                source, target = (at_work, state) if save else (state, at_work)
                runs.append(copying(self._backend, source, target))
            self._copies[place, save] = runs
        return self._copies[place, save]


class _PullBack:
    """The vjp of a traced rule, between the gradients and the products of a curvature."""

    def __init__(self, steps: TracedSteps, curvature: CurvatureWork) -> None:
        self._backend = backend = steps.backend
        traced, memory = steps.traced, steps.traced.memory
        program, sums = traced.pull_back(), memory + 1 + traced.learned
        before = 3 + memory + traced.values + 1
        self.executable = Executable(
            program,
            backend,
            inputs=[
                *(steps.points, steps.start, curvature.gradients, *steps.memory, *steps.values, steps.coefficients),
                *(None, curvature.products),
                *[None] * sums,
            ],
            outputs=[None, curvature.vectors, *[None] * sums],
            carried={0: before, **{2 + i: before + 2 + i for i in range(sums)}},
            compile_at=run_to_compile_at(program, PATIENCE),
        )
        self.a, self.b, *self._sums = self.executable.inputs[before:]
        self.of_start, self.of_learned = self._sums[memory], self._sums[memory + 1 :]

    def begin(self, v: Array) -> None:
        """Begin with the cotangent of the last φ; the cotangent of the last memory is 0."""
        copyto = self._backend.copyto
        copyto(self.a, v)
        for array in (self.b, *self._sums):
            copyto(array, 0)

    @property
    def nbytes(self) -> int:
        """Bytes of its own buffers."""
        return self.executable.nbytes + bytes_of(self._backend, [self.a, *self._sums])


class _PathWork:
    """States and the rule's vjp for the way back; they live as long as the steps."""

    def __init__(self, steps: TracedSteps) -> None:
        self._backend = steps.backend
        self.segments = self.inside = _States(steps, 0)
        self.pull: _PullBack | None = None

    def make_room(self, steps: TracedSteps, segments: int, inside: int) -> None:
        """Make room for exactly so many states at the starts of segments, and so many inside one segment."""
        if (self.segments.count, self.inside.count) != (segments, inside):
            self.segments, self.inside = _States(steps, segments), _States(steps, inside)
            steps.schedules.clear()

    @property
    def nbytes(self) -> int:
        """Bytes of all buffers."""
        arrays = [*self.segments.arrays, *self.inside.arrays]
        return bytes_of(self._backend, arrays) + (0 if self.pull is None else self.pull.nbytes)


class InnerPath:
    """An inner loop, run to its end, and the way back.

    The path keeps the states at the starts of the segments, and the states inside one segment at a time, which it
    computes again from the segment's start (Griewank & Walther 2000): with S segments S + K/S states instead of K, for
    at most one more pass through the loop. A state that is computed again has the same bits.

    Parameters
    ----------
    loop : InnerLoop
        A loop before its first step, with a differentiable rule.
    segments : int, "sqrt" or None
        S; None for 1.

    Attributes
    ----------
    loop : InnerLoop
        The same loop, at its end.

    Examples
    --------
    An algorithm gets it from `Tasks.adapt_with_path`; see `AdaptedPath`.
    """

    def __init__(self, loop: InnerLoop, segments: Segments = None) -> None:
        assert loop.traced is not None
        self.loop, self._steps = loop, loop.traced
        self._backend: Backend = loop.chunk.backend
        self._starts = segment_starts(loop.steps, segments)
        self._ends = [*self._starts[1:], loop.steps]
        if self._steps.path is None:
            self._steps.path = _PathWork(self._steps)
        self._work: _PathWork = self._steps.path
        longest = max(end - start for start, end in zip(self._starts, self._ends, strict=True))
        self._work.make_room(self._steps, len(self._starts) - 1, longest)
        for segment, (start, end) in enumerate(zip(self._starts, self._ends, strict=True)):
            last = segment == len(self._starts) - 1
            if not last:
                _run(self._work.segments.copies(segment, save=True))
            self._forward(start, end, keep=last, to_end=True)
        loop.taken = loop.steps

    def _forward(self, start: int, end: int, *, keep: bool, to_end: bool) -> None:
        """Take the steps from ``start`` to ``end``, the last one if ``to_end``; keep the state before each."""
        steps, work = self._steps, self.loop.work

        def parts() -> Iterator[Step]:
            for step in range(start, end):
                if keep:
                    yield from self._work.inside.copies(step - start, save=True)
                if to_end or step < end - 1:
                    yield from steps.one(step, work.step(step))

        self._schedule(("forward", start, end, keep, to_end), parts())

    def pull_back(self, v: Array) -> tuple[Array, Sequence[Array]]:
        """Return the cotangents of θ, and of the learned values, from the cotangent of the last φ.

        v ← φ̄ + H(φ_k)∇̄ for k = K−1 … 0, φ̄ and ∇̄ from the vjp of a step; v ← v − αH(φ_k)v for plain gradient descent.

        Parameters
        ----------
        v : array, shape (tasks, P)
            ∇L_q(φ_K).

        Returns
        -------
        array, shape (tasks, P)
            The cotangent of θ.
        list of array
            For each learned value, a row for each task.
        """
        rate = self.loop.rule.plain_rate
        return (self._through_descent(v, rate), []) if rate is not None else self._through_rule(v)

    def _through_descent(self, v: Array, rate: float) -> Array:
        work = self.loop.chunk.support.product_work("hessian", 1.0, -rate)
        self._backend.copyto(work.vectors, v)
        self._walk_back("descent", lambda step: [work.step(step)])
        return self._backend.asarray(work.vectors)

    def _through_rule(self, v: Array) -> tuple[Array, Sequence[Array]]:
        curvature = self.loop.chunk.support.curvature_work("hessian")
        if self._work.pull is None:
            self._work.pull = _PullBack(self._steps, curvature)
        pull = self._work.pull
        pull.begin(v)

        def parts(step: int) -> list[Step]:
            fetches = self._steps.fetch(step)
            return [*fetches, curvature.at_point(step), Run(pull.executable, 0), curvature.product(step)]

        self._walk_back("rule", parts)
        total = pull.a + pull.b
        if self._steps.traced.reads_start:
            total = total + pull.of_start
        return total, [self._backend.asarray(array) for array in pull.of_learned]

    def _walk_back(self, name: str, parts: Callable[[int], Sequence[Step]]) -> None:
        """Run ``parts(step)`` at the state before each step, from the last step to the first."""

        def walk(start: int, end: int) -> Iterator[Step]:
            for step in reversed(range(start, end)):
                yield from self._work.inside.copies(step - start, save=False)
                yield from parts(step)

        for segment, (start, end) in reversed(list(enumerate(zip(self._starts, self._ends, strict=True)))):
            if segment < len(self._starts) - 1:
                _run(self._work.segments.copies(segment, save=False))
                self._forward(start, end, keep=True, to_end=False)
            self._schedule((name, start, end), walk(start, end))

    def _schedule(self, key: Any, parts: Iterator[Step]) -> None:
        """Run a schedule; keep it if the sets come in one batch, since its parts are then the same each time."""
        if len(self.loop.chunk.support.batches) == 1:
            self._steps.schedule(key, lambda: parts).run()
        else:
            Schedule(self._backend, *parts).run()


def _run(steps: Sequence[Step]) -> None:
    for step in steps:
        step.run()
