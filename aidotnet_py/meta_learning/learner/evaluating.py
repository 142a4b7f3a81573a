"""What a learner can do with its meta-model as it is: adapt to tasks, and evaluate."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from numbers import Integral
from typing import Any, cast, overload

import numpy as np
from numpy.typing import NDArray

from aidotnet_py.arguments import COUNT, SWITCH
from aidotnet_py.backends import Array
from aidotnet_py.exceptions import ArgumentException, ArgumentOutOfRangeException, InvalidOperationException
from aidotnet_py.losses.interface import checked_accuracy
from aidotnet_py.meta_learning.contract.protocols import (
    is_inner_solver,
    missing_members,
    model_backend,
    with_parameters,
)
from aidotnet_py.meta_learning.contract.results import MetaAdaptationResult, MetaEvaluationResult
from aidotnet_py.meta_learning.contract.sources import IEpisodicDataLoader
from aidotnet_py.meta_learning.contract.statistics import mean_of
from aidotnet_py.meta_learning.contract.task_batch import TaskBatch
from aidotnet_py.meta_learning.contract.task_checks import check_task
from aidotnet_py.meta_learning.contract.tasks import IMetaLearningTask, all_examples
from aidotnet_py.meta_learning.learner.as_model import LearnerAsModel
from aidotnet_py.meta_learning.learner.core import Batch
from aidotnet_py.meta_learning.learner.encodings import keep_task, warn_of_other_encodings
from aidotnet_py.meta_learning.learner.loader_place import LoaderPlace
from aidotnet_py.meta_learning.learner.model_statistics import normalized_by
from aidotnet_py.meta_learning.learner.parallel import in_order, over_chunks
from aidotnet_py.meta_learning.learner.records import AdaptationCurve
from aidotnet_py.meta_learning.learner.tasks import Measured, Tasks
from aidotnet_py.meta_learning.objective.checks import check_tasks
from aidotnet_py.meta_learning.objective.chunk import Chunk
from aidotnet_py.meta_learning.objective.stacking import split_rows
from aidotnet_py.models import IFullModel, INormalizedModel
from aidotnet_py.models.interfaces import TModel_co
from aidotnet_py.nn.statistics import Statistics
from aidotnet_py.type_parameters import T, TInput, TOutput

__all__ = ["EvaluatingLearner", "in_batch_order"]


class EvaluatingLearner(LearnerAsModel[T, TInput, TOutput, TModel_co]):
    """A learner that adapts its meta-model and leaves it as it is; see `MetaLearnerBase`."""

    def Adapt(self, task: IMetaLearningTask[Any, TInput, TOutput]) -> TModel_co:
        """Adapt the meta-model to a task: AdaptationSteps inner steps on its support set, from θ.

        The meta-model is not changed; query data is not read and may be absent. Where the model has
        `aidotnet_py.nn.BatchNorm` layers, the adapted one normalises by the statistics of the support set at its
        adapted parameters: what it says of an example does not hang on what it is asked about together with. Its
        properties ``"encoding"`` and ``"classes"`` say how raw data become its inputs, if the learner or the task
        knows it, and what its first scores stand for, from ``Metadata["Classes"]`` of the task.

        Raises
        ------
        ArgumentNullException
            When the task is None.
        ArgumentException
            When its support set does not fit the model.
        InvalidOperationException
            When the adapted parameters are not finite.
        """
        return self._adapted_model(task, Tasks.adapt)

    def adapt_with_line_search(self, task: IMetaLearningTask[Any, TInput, TOutput]) -> TModel_co:
        r"""Adapt as `Adapt` does, with shorter steps if these lead away from the support set.

        On a task with larger inputs than the tasks of the training, steps of the usual length may increase the support
        loss, and the adapted model is then useless for this task. With u(φ) the point after an inner step from φ, the
        steps here are

        .. math::
            φ ↦ φ + 2^{-i} (u(φ) − φ),

        with the first i = 0, 1, …, 10 after whose K steps the support loss is at most the loss at θ. If there is none,
        the result has the parameters θ. Where the usual steps decrease the loss, the result is that of `Adapt`, bit for
        bit, as it is with an InnerOptimizer that solves the inner problem instead of taking steps.

        A learner with an `Adapt` of its own, such as `ProtoNetsAlgorithm`, returns the result of that method.

        Raises
        ------
        ArgumentNullException
            When the task is None.
        ArgumentException
            When its support set does not fit the model.
        InvalidOperationException
            When the support loss or its gradient at θ is not finite.

        References
        ----------
        Nocedal, J. & Wright, S. J. (2006). Numerical Optimization, section 3.1 (backtracking).

        Examples
        --------
        Two steps from w = 0 that are too long end farther from the target w = 3. Steps of half the length go to 3.6 and
        2.88:

        >>> import numpy as np
        >>> from aidotnet_py import FunctionModel, MAMLAlgorithm, MAMLOptions, MetaLearningTask
        >>> x = np.array([[1.0], [-1.0]])
        >>> task = MetaLearningTask(SupportSetX=x, SupportSetY=3 * x, NumWays=1)
        >>> model = FunctionModel(lambda p, x: x @ p["w"], {"w": np.zeros((1, 1))})
        >>> learner = MAMLAlgorithm(MAMLOptions(model, InnerLearningRate=1.2, AdaptationSteps=2))
        >>> [adapt(task).GetParameters().round(2) for adapt in (learner.Adapt, learner.adapt_with_line_search)]
        [array([-2.88]), array([2.88])]
        """
        if type(self).Adapt is not EvaluatingLearner.Adapt:
            # Its models may have other parameters than those that inner steps move.
            return self.Adapt(task)
        return self._adapted_model(task, Tasks.adapt_with_line_search)

    def _adapted_model(
        self, task: IMetaLearningTask[Any, TInput, TOutput], adapt: Callable[[Tasks], Array]
    ) -> TModel_co:
        """Return the meta-model with the parameters that a method of `Tasks` returns for a task."""
        groups = self._open([check_task(task)], "Support", training=False)
        warn_of_other_encodings(groups[0].model, [task], learned=self._has_learned)
        backend = groups[0].backend
        (adapted,) = over_chunks(groups, lambda chunk: backend.asarray(adapt(Tasks(chunk, self))))
        model = _model_for(groups[0].model, task, backend.reshape(adapted, (adapted.shape[1],)))
        keep_task(model, groups[0].model, task)
        return cast("TModel_co", model)

    def AdaptAndEvaluate(
        self, task: IMetaLearningTask[Any, TInput, TOutput], *, keep_steps: bool = False
    ) -> MetaAdaptationResult[T]:
        """Adapt to a task, and measure losses and accuracies on both its sets.

        ``PerStepLosses`` are the support losses before the first and after each inner step; of a support set in
        batches, each that of the batch which the step looks at, and last the mean over all. ``AdaptationSteps`` is the
        number of steps that were taken, which InnerGradientTolerance may end before K. A solver in the place of steps
        counts as one, and has two losses, before and after.

        Parameters
        ----------
        task : IMetaLearningTask
            A task with both sets.
        keep_steps : bool
            Whether the result has ``step_parameters``, φ₁ … φ_K, (K, P) on the host: a row for each step that was
            taken, or one row from a solver. They take K·P numbers, 4 bytes each in float32: 7.2 MB for 16 steps of a
            `conv4` of 64 filters on Omniglot, 112 965 parameters. θ, before the first step, is
            ``GetMetaModel().GetParameters()``.

        Raises
        ------
        ArgumentNullException
            When the task is None.
        ArgumentException
            When its support or query set does not fit the model, or ``keep_steps`` is neither True nor False.
        InvalidOperationException
            When the adapted parameters, or a loss at them, are not finite.

        Examples
        --------
        The target is y = 3x. Each step halves the distance to it:

        >>> import numpy as np
        >>> from aidotnet_py import FunctionModel, MAMLAlgorithm, MAMLOptions, MetaLearningTask
        >>> x = np.array([[1.0], [-1.0]])
        >>> task = MetaLearningTask(SupportSetX=x, SupportSetY=3 * x, QuerySetX=x, QuerySetY=3 * x, NumWays=1)
        >>> model = FunctionModel(lambda p, x: x @ p["w"], {"w": np.zeros((1, 1))})
        >>> learner = MAMLAlgorithm(MAMLOptions(model, InnerLearningRate=0.25, AdaptationSteps=3))
        >>> learner.AdaptAndEvaluate(task, keep_steps=True).step_parameters
        array([[1.5  ],
               [2.25 ],
               [2.625]])
        """
        SWITCH.check("keep_steps", keep_steps)
        groups = self._open([check_task(task)], "Support", "Query", training=False)
        warn_of_other_encodings(groups[0].model, [task], learned=self._has_learned)
        ((history, points, elapsed, support, query),) = over_chunks(
            groups, lambda chunk: self._adapt_and_measure(chunk, keep_steps)
        )
        (support_loss, support_accuracy), (query_loss, query_accuracy) = support, query
        scalar = self._scalar()
        return MetaAdaptationResult(
            queryAccuracy=scalar(query_accuracy[0]),
            queryLoss=scalar(query_loss[0]),
            supportAccuracy=scalar(support_accuracy[0]),
            supportLoss=scalar(support_loss[0]),
            adaptationSteps=len(history),
            adaptationTimeMs=elapsed,
            perStepLosses=np.array([*history, *support_loss]),
            step_parameters=np.stack(points)[: len(history)] if keep_steps else None,
        )

    def _adapt_and_measure(
        self, chunk: Chunk, keep_steps: bool
    ) -> tuple[list[Any], list[NDArray[Any]], float, Measured, Measured]:
        """Return the support loss before each step, φ after each, their time in ms, and both sets measured at last."""
        tasks, history, points = Tasks(chunk, self), list[Any](), list[NDArray[Any]]()

        def watch(losses: Array) -> None:
            if keep_steps and history:
                points.append(self._host(tasks.reached)[0])
            history.append(chunk.on_host(losses)[0])

        began = time.perf_counter()
        adapted = tasks.adapt(watch)
        if keep_steps:
            points.append(self._host(adapted)[0])
        elapsed = 1000 * (time.perf_counter() - began)
        # Before each step, and not where a small gradient ended them.
        history = history[: tasks.steps_taken]
        return history, points, elapsed, tasks.measure("Support", adapted), tasks.measure("Query", adapted)

    def _host(self, array: Array) -> NDArray[Any]:
        """Return a copy of an array's values on the host."""
        return np.array(self._backend.to_numpy(array))

    @overload
    def Evaluate(self, taskBatch: TaskBatch[Any, TInput, TOutput]) -> T: ...

    @overload
    def Evaluate(self, numTasks: int, /) -> MetaEvaluationResult[T]: ...

    @overload
    def Evaluate(self, *, numTasks: int) -> MetaEvaluationResult[T]: ...

    def Evaluate(
        self, taskBatch: TaskBatch[Any, TInput, TOutput] | int | None = None, numTasks: int | None = None
    ) -> T | MetaEvaluationResult[T]:
        """Adapt to tasks and measure their query losses; the meta-model is not changed.

        Parameters
        ----------
        taskBatch : TaskBatch
            A batch, or instead of it
        numTasks : int
            how many tasks to draw from the DataLoader; MetaBatchSize of them are worked on at a time.

        Query sets are normalised as in training: where the model has `aidotnet_py.nn.BatchNorm` layers, by their own
        statistics, all examples of a query set together (``statistics="batch"``), or by those of the support sets. The
        result of a number of tasks says which, and has the accuracies of the models that `Adapt` gives beside.

        Returns
        -------
        T or MetaEvaluationResult
            For a batch, the mean query loss alone, as in AiDotNet: `adaptation_curve` has losses and accuracies of its
            tasks. For a number, losses and accuracies of every task.

        Raises
        ------
        ArgumentNullException
            When the batch is None.
        ArgumentException
            When the batch does not fit the model, or the DataLoader gives no batch of as many tasks as it was
            asked for; the message names the loader.
        ArgumentOutOfRangeException
            When the number is below 1.
        InvalidOperationException
            When a loss is not finite; when tasks are to be drawn and the options have no DataLoader.
        """
        if taskBatch is not None and numTasks is not None:
            raise ArgumentException("taskBatch must be left out if numTasks is given, got both")
        asked = taskBatch if numTasks is None else numTasks
        if isinstance(asked, Integral):
            COUNT.check("numTasks", asked, type_error=ArgumentOutOfRangeException)
            return self._evaluate_new_tasks(int(cast(int, asked)))
        losses, *_ = self._query_results(check_tasks(cast("TaskBatch[T, TInput, TOutput]", asked)))
        return self._scalar()(float(mean_of(losses)))

    def _validate(self) -> MetaEvaluationResult[T]:
        """Evaluate EvaluationTasks tasks of the ValidationLoader, or of the DataLoader; their draws do not count."""
        validation, count = self._options.ValidationLoader, self._options.EvaluationTasks
        if validation is None:
            return self._random.aside(lambda: self.Evaluate(count))
        return self._random.aside(lambda: self._evaluate_new_tasks(count, validation))

    def _evaluate_new_tasks(
        self, count: int, validation: IEpisodicDataLoader[Any, TInput, TOutput] | None = None
    ) -> MetaEvaluationResult[T]:
        loader = self._loader() if validation is None else validation
        place = self._random.place if validation is None else self._random.validation_place
        began = time.perf_counter()
        losses: list[Any] = []
        accuracies: list[float] = []
        singles: list[float] = []
        normalization: Statistics | None = None
        told = set[str]()
        while len(losses) < count:
            # As many at once as in a step of training, whose programs and buffers then serve again.
            some = min(self._options.MicroBatchSize or count, self._options.MetaBatchSize, count - len(losses))
            tasks = check_tasks(self._batch_from(loader, some, place))
            some_losses, some_accuracies, model, adapted = self._query_results(tasks, told)
            normalization = self._objectives.normalization(tasks, model, self._loss())
            losses += list(some_losses)
            accuracies += some_accuracies
            singles += some_accuracies if normalization != "batch" else self._single_accuracies(tasks, model, adapted)
        elapsed = timedelta(seconds=time.perf_counter() - began)
        scalar = self._scalar()
        return MetaEvaluationResult(
            np.array([scalar(a) for a in accuracies]),
            np.array([scalar(x) for x in losses]),
            elapsed,
            normalization=normalization,
            single_accuracies=np.array([scalar(a) for a in singles]) if len(singles) == count else None,
        )

    def _query_results(
        self, tasks: Batch[T, TInput, TOutput], told: set[str] | None = None
    ) -> tuple[NDArray[Any], list[float], IFullModel[T, TInput, TOutput], list[Array]]:
        """Return losses and accuracies of the query sets, the model, and its adapted parameters for each task.

        ``told`` is as for `warn_of_other_encodings`.
        """
        groups = self._open(tasks, "Support", "Query", training=False)
        warn_of_other_encodings(groups[0].model, tasks, learned=self._has_learned, told=told)
        shares: list[tuple[Measured, list[Array]]] = self._over_shares(groups, "_query_share")
        losses: NDArray[Any] = np.concatenate([losses for (losses, _), _ in shares])
        accuracies = [accuracy for (_, accuracies), _ in shares for accuracy in accuracies]
        return losses, accuracies, groups[0].model, [row for _, rows in shares for row in rows]

    def _query_share(self, groups: Sequence[Chunk]) -> tuple[Measured, list[Array]]:
        """Return losses and accuracies of the query sets of a share of a batch, and its adapted parameters."""

        def work(chunk: Chunk) -> tuple[Measured, list[Array]]:
            tasks = Tasks(chunk, self)
            rows = split_rows(chunk.backend, tasks.adapt())
            return tasks.measured, rows

        parts = over_chunks(groups, work)
        rows = in_order(groups, [row for _, rows in parts for row in rows])
        return in_batch_order([measured for measured, _ in parts], groups), rows

    def _single_accuracies(
        self, tasks: Batch[T, TInput, TOutput], model: IFullModel[T, TInput, TOutput], adapted: Sequence[Array]
    ) -> list[float]:
        """Return the accuracies of the models that `Adapt` gives; none if these cannot hold statistics."""
        accuracies: list[float] = []
        host = model_backend(model).to_numpy
        for task, parameters in zip(tasks, adapted, strict=True):
            single = _model_for(model, task, parameters)
            if missing_members(single, INormalizedModel):
                break
            outputs = host(cast(Array, single.Predict(task.QueryInput)))
            accuracies.append(checked_accuracy(self._loss(), outputs, host(cast(Array, task.QueryOutput))))
        return accuracies

    def adaptation_curve(self, taskBatch: TaskBatch[Any, TInput, TOutput], steps: int | None = None) -> AdaptationCurve:
        """Adapt to tasks by the learner's own rule, and measure their query sets at every step; θ is not changed.

        Parameters
        ----------
        taskBatch : TaskBatch
            Tasks with support and query sets, alike but in their numbers of examples.
        steps : int, optional
            How many inner steps to follow, which may be more than the learner trains with; None: as many as it does.

        Returns
        -------
        AdaptationCurve
            Column k is measured after k steps.

        Raises
        ------
        ArgumentException
            When the batch is None, or does not fit the model.
        ArgumentOutOfRangeException
            When ``steps`` is below 1.
        InvalidOperationException
            When a query loss is not finite; the message names the task. When the InnerOptimizer takes no steps.

        Examples
        --------
        One task, y = 3x, and a model y = wx from w = 0:

        >>> import numpy as np
        >>> from aidotnet_py import FunctionModel, MAMLAlgorithm, MAMLOptions, MetaLearningTask, TaskBatch
        >>> x = np.array([[1.0], [-1.0]])
        >>> task = MetaLearningTask(SupportSetX=x, SupportSetY=3 * x, QuerySetX=x, QuerySetY=3 * x, NumWays=1)
        >>> model = FunctionModel(lambda p, x: x @ p["w"], {"w": np.zeros((1, 1))})
        >>> learner = MAMLAlgorithm(MAMLOptions(model, InnerLearningRate=0.25))
        >>> learner.adaptation_curve(TaskBatch([task]), steps=2).losses
        array([[9.    , 2.25  , 0.5625]])
        """
        if steps is not None:
            COUNT.check("steps", steps, type_error=ArgumentOutOfRangeException)
        solver = self._options.InnerOptimizer
        if is_inner_solver(solver):
            raise InvalidOperationException(
                "InnerOptimizer must take steps for an adaptation curve, got a "
                f"{type(solver).__name__}, which solves the whole inner problem at once"
            )
        count = self._options.inner_steps if steps is None else int(steps)
        tasks = check_tasks(taskBatch)
        groups = self._open(tasks, "Support", "Query", training=False)
        warn_of_other_encodings(groups[0].model, tasks, learned=self._has_learned)
        shares: list[AdaptationCurve] = self._over_shares(groups, "_curves", count)
        losses, accuracies = (np.concatenate(arrays) for arrays in zip(*shares, strict=True))
        return AdaptationCurve(losses, accuracies)

    def _curves(self, groups: Sequence[Chunk], steps: int) -> AdaptationCurve:
        """Return the curves of a share of a batch."""
        parts = over_chunks(groups, lambda chunk: self._curve_of(chunk, steps))
        losses, accuracies = (
            np.array(in_order(groups, [*np.concatenate(arrays, axis=1).T])) for arrays in zip(*parts, strict=True)
        )
        return AdaptationCurve(losses, accuracies)

    def _curve_of(self, chunk: Chunk, steps: int) -> tuple[NDArray[Any], NDArray[np.float64]]:
        """Return losses and accuracies, (steps + 1, tasks) each."""
        tasks = Tasks(chunk, self)
        loop = tasks.loop(steps)
        columns = [tasks.measure("Query", tasks.whole(loop.points))]
        for _ in range(steps):
            loop.step()
            columns.append(tasks.measure("Query", tasks.whole(loop.points)))
        return np.array([losses for losses, _ in columns]), np.array([accuracies for _, accuracies in columns])

    def _loader(self) -> IEpisodicDataLoader[T, TInput, TOutput]:
        self._require_valid()
        if self._options.DataLoader is None:
            raise InvalidOperationException("DataLoader of the options must be set to draw tasks from it, got None")
        return self._options.DataLoader

    def _batch_from(
        self, loader: IEpisodicDataLoader[T, TInput, TOutput], count: int, place: LoaderPlace | None = None
    ) -> TaskBatch[T, TInput, TOutput]:
        """Draw the next tasks from this learner's place in the loader."""
        tasks = (place or self._random.place).draw(loader, lambda: loader.GetTaskBatch(count))
        origin = f"GetTaskBatch of {type(loader).__name__}"
        if isinstance(tasks, TaskBatch):
            return of_size(tasks, count, origin)
        try:
            batch = TaskBatch(tasks)
        except ArgumentException as error:
            raise ArgumentException(f"{origin} must return a TaskBatch or a list of tasks: {error}") from error
        return of_size(batch, count, origin)


def of_size(batch: TaskBatch[T, TInput, TOutput], count: int, origin: str) -> TaskBatch[T, TInput, TOutput]:
    """Return a batch that a method gave, which ``origin`` names, if it has as many tasks as were asked for."""
    if len(batch) != count:
        raise ArgumentException(f"{origin} must return {count} task{'s' if count > 1 else ''}, got {len(batch)}")
    return batch


def in_batch_order(parts: Sequence[Measured], groups: Sequence[Chunk]) -> Measured:
    """Return losses and accuracies in the order of the batch."""
    losses: NDArray[Any] = np.concatenate([losses for losses, _ in parts])
    accuracies = [accuracy for _, accuracies in parts for accuracy in accuracies]
    if len(groups) == 1:
        return losses, accuracies
    return np.array(in_order(groups, [*losses]), losses.dtype), in_order(groups, accuracies)


def _model_for(
    model: IFullModel[T, TInput, TOutput], task: IMetaLearningTask[Any, TInput, TOutput], adapted: Array
) -> IFullModel[T, TInput, TOutput]:
    """Return the model with these parameters; it normalises by the task's support set if it can."""
    adapted_model: IFullModel[T, TInput, TOutput] = with_parameters(model, adapted)
    if missing_members(adapted_model, INormalizedModel):
        return adapted_model
    normalized: IFullModel[T, TInput, TOutput] = normalized_by(
        adapted_model, all_examples(model_backend(model), task.SupportInput)
    )
    return normalized
