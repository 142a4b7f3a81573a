"""The view that an algorithm has of a batch: some of its tasks, all at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from aidotnet_py.arguments import Choice
from aidotnet_py.backends import Array, Backend
from aidotnet_py.exceptions import ArgumentException, InvalidOperationException
from aidotnet_py.meta_learning.contract.protocols import is_inner_solver, missing_members
from aidotnet_py.meta_learning.contract.tasks import name_in_batch
from aidotnet_py.meta_learning.inner.minimizer import minimize
from aidotnet_py.meta_learning.inner.path import InnerPath, Segments, invalid_segments
from aidotnet_py.meta_learning.inner.rule import InnerRule
from aidotnet_py.meta_learning.inner.steps import InnerLoop
from aidotnet_py.meta_learning.learner.own_results import checked_rule, require_rows
from aidotnet_py.meta_learning.objective import CurvatureKind, PartialObjective
from aidotnet_py.meta_learning.objective.chunk import Chunk
from aidotnet_py.meta_learning.objective.finiteness import all_finite
from aidotnet_py.meta_learning.objective.stacking import Columns, repeat_rows
from aidotnet_py.models import ISecondOrderGradientComputable

__all__ = ["AdaptedPath", "Measured", "Tasks"]

_KINDS = Choice("hessian", "gauss-newton")
# What a line search tries, as shares of the length of a step.
_SHARES = tuple(0.5**i for i in range(11))

# Losses and accuracies of tasks.
Measured: TypeAlias = tuple[NDArray[Any], list[float]]


class _Learner(Protocol):
    """What the tasks ask of their learner."""

    @property
    def Options(self) -> Any: ...

    def inner_rule(self, tasks: Tasks) -> InnerRule: ...


class Tasks:
    """Some tasks of a batch, as an algorithm sees them; arrays are stacked, (tasks, …).

    Arrays that a method returns are buffers that the next call may write over: use them before that, and copy what is
    kept. Several threads work on the tasks of a batch, each with its own `Tasks`.

    Attributes
    ----------
    backend : Backend
        Of all arrays.
    learned : mapping
        The learned vectors by name, as they were when the call began.
    columns : Columns or None
        The places of the adapted parameters, where the inner steps do not move all.
    details : object
        Set by an algorithm that has something to report; `MetaLearnerBase.report` gets those of all tasks.

    Examples
    --------
    See `MetaLearnerBase` and `AdaptedPath`.
    """

    # Others, such as misspelt ones, are refused as they are set.
    __slots__ = (
        *("_adapted", "_gradients", "_learner", "_loop", "_measured", "_rule", "_start"),
        *("backend", "chunk", "columns", "details", "learned"),
    )

    def __init__(self, chunk: Chunk, learner: _Learner) -> None:
        self.chunk = chunk
        self.backend: Backend = chunk.backend
        self.learned: Mapping[str, Array] = chunk.learned
        self.details: Any = None
        self._learner = learner
        self._start: Array | None = None
        self._rule: InnerRule | None = None
        self._measured: Measured | None = None
        self._adapted: Array | None = None
        self._loop: InnerLoop | None = None
        self._gradients: Array | None = None
        self.columns = None if chunk.staying is None else _columns_of(chunk)

    def __len__(self) -> int:
        return len(self.chunk.tasks)

    @property
    def ids(self) -> list[int | str]:
        """The TaskIds."""
        return [task.TaskId for task in self.chunk.tasks]

    @property
    def names(self) -> list[str]:
        """What messages call the tasks: their places in the batch, with their names."""
        return list(map(name_in_batch, self.chunk.tasks, self.chunk.places))

    @property
    def start(self) -> Array:
        """θ, a row for each task, (tasks, P)."""
        if self._start is None:
            self._start = repeat_rows(self.backend, self.chunk.parameters, len(self))
        return self._start

    @property
    def rule(self) -> InnerRule:
        """A step of the inner loop."""
        if self._rule is None:
            self._rule = checked_rule(self._learner.inner_rule(self))
        return self._rule

    # The inner loop.

    def adapt(self, watch: Callable[[Array], None] | None = None) -> Array:
        """Return φ (tasks, P), where the inner steps, or the solver in their place, end for each task.

        ``watch`` sees the support losses before each step.

        Raises
        ------
        InvalidOperationException
            When the parameters of a task do not stay finite.
        """
        solver = self._learner.Options.InnerOptimizer
        if is_inner_solver(solver):
            self._adapted = self._minimize(solver, watch)
        else:
            self._loop = loop = self.loop()
            with self.backend.errors_ignored():
                loop.run(watch)
                loop.work.queue.then(lambda: _require_adapted(loop))
            self._adapted = self.whole(loop.points)
        return self._adapted

    def adapt_with_line_search(self) -> Array:
        """Return φ as `adapt` does, or after shorter steps where these ended with more support loss than at θ.

        Each step φ ↦ u(φ) becomes φ ↦ φ + (u(φ) − φ)/2ⁱ, with the first i = 0, 1, …, 10 after whose steps a task has no
        more support loss than at θ. Where there is none, φ is θ. A solver in the place of steps chooses their length
        itself.

        Raises
        ------
        InvalidOperationException
            When a support loss or gradient at θ is not finite; the message names the task.
        """
        if is_inner_solver(self._learner.Options.InnerOptimizer):
            return self.adapt()
        backend, support = self.backend, self.chunk.support
        first = support.evaluate(self.start)
        most = self._finite_losses("support loss", first.losses)
        self.require_finite("support gradient", first.gradients)
        self._adapted, found = self.start, np.zeros(len(self), dtype=np.bool_)
        for share in _SHARES:
            points = backend.asarray(self._after_steps(share))
            # NaN is no loss below another.
            fits = ~found & (self.chunk.on_host(support.evaluate(points).losses) <= most)
            mask = backend.broadcast_to(backend.asarray(fits[:, np.newaxis]), tuple(points.shape))
            self._adapted = backend.elementwise("where")(mask, points, self._adapted)
            found |= fits
            if found.all():
                break
        return self._adapted

    def _after_steps(self, share: float) -> Array:
        """Return the points after the inner steps, each of a share of its length."""
        self._loop = loop = self.loop()
        with self.backend.errors_ignored():
            if share == 1.0:
                # The bits of `adapt`; a share of 1 would round otherwise.
                loop.run()
                return self.whole(loop.points)
            while loop.taken < loop.steps and loop.moving.any():
                before = self.backend.asarray(loop.points)
                loop.step()
                self.backend.copyto(loop.points, before + share * (loop.points - before))
        return self.whole(loop.points)

    def adapt_with_path(self, segments: Segments = None) -> AdaptedPath:
        """Adapt as `adapt` does, and keep what the way back through the steps needs.

        Parameters
        ----------
        segments : int, "sqrt" or None
            How many segments the path is made again in, to save memory; see `InnerPath`.

        Raises
        ------
        ArgumentException
            When the inner problem is solved otherwise than by K steps with a formula: by a solver, by an optimizer
            without one, or up to a tolerance.
        InvalidOperationException
            When the parameters of a task do not stay finite.
        """
        for problem in invalid_segments(segments, self._learner.Options.inner_steps, "segments"):
            raise ArgumentException(problem)
        self._require_way_back()
        path = InnerPath(self.loop(), segments)
        _require_adapted(path.loop)
        self._adapted = self.whole(path.loop.points)
        return AdaptedPath(self, path, self._adapted)

    def _require_way_back(self) -> None:
        """Raise ArgumentException unless the way back can go through the very steps that `adapt` takes."""
        solver, optimizer, tolerance = self._learner.Options.InnerOptimizer, self.rule.optimizer, self.rule.tolerance
        if is_inner_solver(solver):
            raise ArgumentException(
                f"InnerOptimizer must take steps for adapt_with_path, got a {type(solver).__name__}, which solves the "
                "whole inner problem at once"
            )
        if not self.rule.is_differentiable:
            raise ArgumentException(
                "the optimizer of the inner rule must be an ElementwiseOptimizer with a formula for adapt_with_path, "
                f"which differentiates its steps, got a {type(optimizer).__name__}"
            )
        if tolerance is not None:
            raise ArgumentException(
                "the tolerance of the inner rule must be None for adapt_with_path, which goes back through all steps, "
                f"got {tolerance}"
            )

    @property
    def is_second_order_computable(self) -> bool:
        """Whether the model computes MAML's meta-gradient itself, for such steps: plain descent of all parameters."""
        steps = self.rule.tolerance is None and not is_inner_solver(self._learner.Options.InnerOptimizer)
        plain = steps and self.rule.plain_rate is not None and self.columns is None
        return plain and not missing_members(self.chunk.model, ISecondOrderGradientComputable)

    def loop(self, steps: int | None = None) -> InnerLoop:
        """Return the inner loop before its first step."""
        inner, start = self._inner_problem()
        return InnerLoop(inner, start, self.rule, self._learner.Options.inner_steps if steps is None else steps)

    def _minimize(self, solver: Any, watch: Callable[[Array], None] | None) -> Array:
        inner, start = self._inner_problem()
        if watch is not None:
            watch(inner.support.evaluate(start).losses)
        with self.backend.errors_ignored():
            adapted = minimize(inner, start, solver, self.rule.follow, self.rule.strength)
            _require_finite(inner, start, adapted, "parameter vector that InnerOptimizer returned")
            _require_start(inner, start, adapted)
        return self.whole(adapted)

    @property
    def reached(self) -> Array:
        """φ (tasks, P) after the steps that `adapt` has taken so far."""
        return self.whole(self._steps_of_adapt().points)

    @property
    def steps_taken(self) -> int:
        """How many inner steps `adapt` took; a solver in their place counts as one."""
        return 1 if self._loop is None else self._loop.taken

    @property
    def memory(self) -> list[Array]:
        """The memory of the rule after the last step of `adapt`, arrays (tasks, adapted parameters)."""
        traced = self._steps_of_adapt().traced
        if traced is None:
            raise InvalidOperationException("memory must be that of an optimizer with a formula, got one without")
        return traced.memory

    def _steps_of_adapt(self) -> InnerLoop:
        if self._loop is None:
            raise InvalidOperationException(
                "the inner steps must have begun, got no call of adapt() before, or a solver in place of the steps"
            )
        return self._loop

    # Some of the parameters adapted, the others staying.

    def _inner_problem(self) -> tuple[Chunk, Array]:
        """Return the tasks as the inner steps see them, and where these start."""
        if self.columns is None:
            return self.chunk, self.start
        for batch in _parts(self.chunk):
            batch.begin(self.columns.others_of(self.start))
        return self.chunk.with_support("Adapted"), self.columns.of(self.start)

    def whole(self, points: Array) -> Array:
        """Return all parameters (tasks, P), from those that the inner steps move."""
        return points if self.columns is None else self.columns.join(points, self.columns.others_of(self.start))

    # The query sets.

    def query_gradient(self, points: Array) -> Array:
        """Return ∇L_q (tasks, P) at these parameters.

        Parameters
        ----------
        points : array, shape (tasks, P)
            The parameters.

        Returns
        -------
        array, shape (tasks, P)

        Raises
        ------
        InvalidOperationException
            When a loss or a gradient is not finite; the message names the task.
        """
        self._require_rows("points", points)
        query = self.chunk.query
        losses, gradients = query.evaluate(points)
        self._gradients = gradients

        def measure() -> None:
            on_host = self._finite_losses("query loss", losses)
            self.require_finite("query gradient", gradients)
            self._measured = on_host, query.accuracies()

        query.queue.then(measure)
        return gradients

    def owns(self, gradients: Array) -> bool:
        """Whether these are the gradients of `query_gradient`, or φ itself, in their buffer."""
        return gradients is self._gradients or gradients is self._adapted

    def query_losses(self) -> NDArray[Any]:
        """Return the losses of the query sets that `query_gradient` saw, on the host."""
        return self.measured[0]

    @property
    def measured(self) -> Measured:
        """Losses and accuracies of the query sets: those that `query_gradient` saw, or else those at φ."""
        if self._measured is None:
            if self._adapted is None:
                raise InvalidOperationException(
                    "meta_gradient must call tasks.adapt(), tasks.adapt_with_path() or tasks.query_gradient(phi), so "
                    "that the query losses are known, got no such call"
                )
            self._measured = self.measure("Query", self._adapted)
        return self._measured

    def measure(self, role: str, points: Array) -> Measured:
        """Return losses and accuracies of one set of each task; raise where a loss is not finite."""
        objective = self.chunk.objectives[role]
        losses = self._finite_losses(f"{role.lower()} loss", objective.evaluate(points).losses)
        return losses, objective.accuracies()

    def _finite_losses(self, quantity: str, losses: Array) -> NDArray[Any]:
        """Return losses on the host; raise where one is not finite."""
        on_host = self.chunk.on_host(losses)
        self.require_sound(quantity, np.isfinite(on_host))
        return on_host

    # The curvature of the support loss.

    def curvature(
        self, points: Array, kind: CurvatureKind = "hessian", *, identity: float = 0.0, weight: float = 1.0
    ) -> tuple[Array, Callable[[Array], Array]]:
        """Return ∇L_s at these parameters, and v ↦ identity · v + weight · Hv, for v and gradients (tasks, P).

        Parameters
        ----------
        points : array, shape (tasks, P)
            The parameters.
        kind : {"hessian", "gauss-newton"}
            The matrix H of the support loss L_s.
        identity, weight : float
            The coefficients.

        Returns
        -------
        gradients : array, shape (tasks, P)
            ∇L_s.
        product : callable
            From v (tasks, P) to the product, (tasks, P).
        """
        self._require_rows("points", points)
        _KINDS.check("kind", kind)
        return self.chunk.support.curvature(points, kind, identity=identity, weight=weight)

    def support_gradient(self, points: Array) -> Array:
        """Return ∇L_s (tasks, P) at these parameters."""
        self._require_rows("points", points)
        return self.chunk.support.evaluate(points).gradients

    # Checks.

    def _require_rows(self, name: str, array: Array) -> None:
        require_rows(name, self.backend, array, self.start, int(self.start.shape[1]))

    def require_finite(self, quantity: str, stacked: Array) -> None:
        """Raise InvalidOperationException, naming task and quantity, where a row of (tasks, …) is not finite."""
        self.chunk.require_finite(quantity, stacked)

    def require_sound(self, quantity: str, sound: NDArray[np.bool_]) -> None:
        """Raise InvalidOperationException, naming the first task that is not sound."""
        self.chunk.require_sound(quantity, sound)

    def together(self) -> AbstractContextManager[None]:
        """Collect the work of the methods above, for a device to do as one schedule at the end.

        Inside, nothing may look at values of arrays. On a backend that captures no work, this does nothing.
        """
        return self.chunk.together()


class AdaptedPath:
    """The inner steps of some tasks, and the way back through them.

    Attributes
    ----------
    end : array, shape (tasks, P)
        φ.

    Examples
    --------
    MAML in a line: the cotangent of φ, pulled back through the inner steps.

    >>> from aidotnet_py import NeuralNetworkModel
    >>> from aidotnet_py.meta_learning import MetaLearningAlgorithmType
    >>> from aidotnet_py.meta_learning.extend import MetaLearnerBase
    >>> from aidotnet_py.testing import check_algorithm
    >>> class Exact(MetaLearnerBase):
    ...     AlgorithmType = MetaLearningAlgorithmType.MAML
    ...     def meta_gradient(self, tasks):
    ...         path = tasks.adapt_with_path()
    ...         return path.pull_back(tasks.query_gradient(path.end))
    >>> check_algorithm(Exact)
    """

    def __init__(self, tasks: Tasks, path: InnerPath, end: Array) -> None:
        self._tasks, self._path, self.end = tasks, path, end

    def pull_back(self, v: Array) -> tuple[Array, dict[str, Array]]:
        """Return the cotangents of θ (tasks, P), and of the rule's learned values by name, from the one of φ.

        Parameters
        ----------
        v : array, shape (tasks, P)
            The cotangent of φ.

        Returns
        -------
        start : array, shape (tasks, P)
            The cotangent of θ.
        learned : dict of str to array
            The cotangents of the learned values, a row per task.
        """
        columns, chunk = self._tasks.columns, self._tasks.chunk
        require_rows("v", self._tasks.backend, v, self.end, int(self.end.shape[1]))
        names = self._tasks.rule.learned_names
        if columns is None:
            moved, learned = self._path.pull_back(v)
            return moved, dict(zip(names, learned, strict=True))
        moved, learned = self._path.pull_back(columns.of(v))
        left = columns.others_of(v)
        for batch in _parts(chunk):
            left = batch.end(left)
        return columns.join(moved, left), dict(zip(names, learned, strict=True))


def _columns_of(chunk: Chunk) -> Columns:
    """Return the places of the adapted parameters among all."""
    shapes = {name: tuple(shape) for name, shape in cast(Any, chunk.model).parameter_shapes.items()}
    staying = chunk.staying
    assert staying is not None
    return Columns(chunk.backend, shapes, [name for name in shapes if name not in staying])


def _parts(chunk: Chunk) -> Sequence[PartialObjective]:
    """Return the objectives of the support batches as functions of the adapted parameters."""
    return cast("Sequence[PartialObjective]", chunk.objectives["Adapted"].batches)


def _require_adapted(loop: InnerLoop) -> None:
    _require_finite(loop.chunk, loop.start, loop.points, "adapted parameter vector")


def _require_finite(chunk: Chunk, start: Array, points: Array, name: str) -> None:
    """Raise InvalidOperationException when the adapted parameters of a task are not finite."""
    if not all_finite(chunk.backend, points).all():
        # Bad data, or steps that are too long: one more evaluation tells.
        ended = chunk.backend.asarray(points)
        first = chunk.support.evaluate(start)
        chunk.require_finite("support loss", first.losses)
        chunk.require_finite("support gradient", first.gradients)
        chunk.require_finite(name, ended)


def _require_start(chunk: Chunk, start: Array, points: Array) -> None:
    """Raise InvalidOperationException when a task stayed at its start because it has no finite loss or gradient there.

    A minimizer leaves such a task where it is; optimizer steps would make its parameters NaN, which `_require_finite`
    finds.
    """
    backend = chunk.backend
    moved = backend.to_numpy(backend.max(backend.elementwise("abs")(points - start), (1,))) > 0
    if moved.all():
        return
    first = chunk.support.evaluate(start)
    for quantity, values in (("support loss", first.losses), ("support gradient", first.gradients)):
        chunk.require_sound(quantity, moved | all_finite(backend, values))
