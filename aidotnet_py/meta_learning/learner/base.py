"""What every meta-learner can do: adapt, evaluate, train, start anew, save and load.

An algorithm is a subclass that writes `meta_gradient`; `core` has options, optimizers and learned vectors.
"""

from __future__ import annotations

import math
import os
import time
import warnings
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from numbers import Integral
from typing import Any, NamedTuple, cast, overload

import numpy as np
from numpy.typing import NDArray

from aidotnet_py.arguments import COUNT, check_given
from aidotnet_py.backends import Array
from aidotnet_py.caller import level_outside
from aidotnet_py.descriptions import describe
from aidotnet_py.exceptions import (
    ArgumentException,
    ArgumentOutOfRangeException,
    InvalidOperationException,
)
from aidotnet_py.meta_learning.contract.enums import MetaLearningAlgorithmType
from aidotnet_py.meta_learning.contract.options import MetaLearnerOptions
from aidotnet_py.meta_learning.contract.protocols import is_inner_solver, missing_members, model_backend
from aidotnet_py.meta_learning.contract.results import (
    MetaAdaptationResult,
    MetaEvaluationResult,
    MetaTrainingResult,
    MetaTrainingStepResult,
)
from aidotnet_py.meta_learning.contract.sources import IEpisode, IEpisodicDataLoader, IResumable, ITaskSampler
from aidotnet_py.meta_learning.contract.task_batch import TaskBatch
from aidotnet_py.meta_learning.contract.tasks import IMetaLearningTask, all_examples
from aidotnet_py.meta_learning.learner.as_model import LearnerAsModel
from aidotnet_py.meta_learning.learner.checkpoint import Checkpoint
from aidotnet_py.meta_learning.learner.core import Batch
from aidotnet_py.meta_learning.learner.journal import whole
from aidotnet_py.meta_learning.learner.own_optimizer import as_given
from aidotnet_py.meta_learning.learner.parallel import in_order, over_chunks
from aidotnet_py.meta_learning.learner.tasks import Measured, Tasks
from aidotnet_py.meta_learning.learner.training import TrainingHistory, train
from aidotnet_py.meta_learning.learner.turns import takes_turns
from aidotnet_py.meta_learning.objective.checks import check_task, check_tasks
from aidotnet_py.meta_learning.objective.chunk import Chunk
from aidotnet_py.meta_learning.objective.stacking import split_rows
from aidotnet_py.models import IFullModel, INormalizedModel
from aidotnet_py.models.comparison import compare_models, describe_model
from aidotnet_py.nn.statistics import Statistics
from aidotnet_py.representations import concise_repr
from aidotnet_py.type_parameters import T, TInput, TOutput

__all__ = ["AdaptationCurve", "MetaLearnerBase", "StepRecord"]

# An argument that was left out, where None would be one given.
_LEFT_OUT: Any = object()


@dataclass
class StepRecord:
    """Losses, accuracies and metrics of the last `MetaTrain`, for the result of the step."""

    losses: NDArray[Any]
    accuracies: list[float]
    metrics: dict[str, float] = field(default_factory=dict[str, float])


class _Contribution(NamedTuple):
    """Losses and accuracies of some tasks, their meta-gradients with those of learned vectors, and their details."""

    measured: Measured
    meta_gradients: Array
    details: Any


class AdaptationCurve(NamedTuple):
    """Losses and accuracies of tasks' query sets before the first and after each inner step.

    Attributes
    ----------
    losses : array, shape (tasks, steps + 1)
        Of the model's number type, on the host.
    accuracies : array of float64, shape (tasks, steps + 1)
        NaN for regression.
    """

    losses: NDArray[Any]
    accuracies: NDArray[np.float64]


class MetaLearnerBase(LearnerAsModel[T, TInput, TOutput]):
    """The base of all algorithms; docs/algorithms.md writes one with it, docs/contract.md lists its members.

    A subclass writes `AlgorithmType` and `meta_gradient`, and where its inner steps, learned vectors, adapted
    parameters or reports differ, `inner_rule`, `learned`, `adapted_names` and `report`.

    Parameters
    ----------
    options : MetaLearnerOptions
        Read when used, so it can be changed between steps.

    Raises
    ------
    ArgumentNullException
        When options is None.
    InvalidOperationException
        When options has no model.
    ArgumentException
        When an option is invalid; the message names the first.
    """

    __repr__ = concise_repr

    def __init__(self, options: MetaLearnerOptions[T, TInput, TOutput]) -> None:
        super().__init__(options)
        self._record: StepRecord | None = None
        self._history: TrainingHistory[T] = TrainingHistory()

    def __init_subclass__(cls, **options: Any) -> None:
        """See to it that steps take turns and are whole, whoever wrote them."""
        super().__init_subclass__(**options)
        if "MetaTrain" in vars(cls):
            cls.MetaTrain = takes_turns(whole(cls.MetaTrain))  # type: ignore[method-assign]  # as if the class had written it

    @property
    @abstractmethod
    def AlgorithmType(self) -> MetaLearningAlgorithmType:
        """Which algorithm this is."""

    @takes_turns
    @whole
    def MetaTrain(self, taskBatch: TaskBatch[Any, TInput, TOutput]) -> T:
        """Take one meta-training step: the clipped mean of the tasks' meta-gradients goes to the meta-optimizer.

        Parameters
        ----------
        taskBatch : TaskBatch
            Tasks with support and query sets, alike but in their numbers of examples.

        Returns
        -------
        T
            The mean query loss over the batch, at the adapted parameters, before the meta-update.

        Raises
        ------
        ArgumentNullException
            When the batch is None.
        ArgumentException
            When the batch does not fit the model; nothing was computed then.
        InvalidOperationException
            When a loss, a gradient or a solve is not finite; the message names the task and the quantity, and
            parameters, optimizer and iteration are as they were.
        """
        record = self._step(self._open(check_tasks(taskBatch), "Support", "Query"))
        self._record = record
        return self._mean_loss(record)

    def _step(self, groups: Sequence[Chunk]) -> StepRecord:
        """Take one step on some tasks."""
        parts = over_chunks(groups, self._contribute)
        details = [part.details for part in parts]
        losses, accuracies = _measured([part.measured for part in parts], groups)
        record = StepRecord(losses, accuracies, dict(self.report(details)))
        meta_gradients = self._backend.concat([part.meta_gradients for part in parts], 0)
        # What it changes has been put aside with all that this step may change.
        self._journal.hand_on()
        record.metrics["MetaGradientNorm"] = self._meta_update(meta_gradients)
        self._end_step(details)
        return record

    def _contribute(self, chunk: Chunk) -> _Contribution:
        """Return what some of the tasks contribute to a step."""
        tasks = Tasks(chunk, self)
        result = self.meta_gradient(tasks)
        gradient, learned = cast(
            "tuple[Array, Mapping[str, Array]]", result if isinstance(result, tuple) else (result, {})
        )
        parts: list[Array] = [gradient, *(learned[name] for name in tasks.learned)]
        # One part alone is copied if it is a buffer of the query sets.
        vector = gradient if len(parts) == 1 and not tasks.owns(gradient) else self._backend.concat(parts, 1)
        chunk.require_finite("meta-gradient", vector)
        return _Contribution(tasks.measured, vector, tasks.details)

    def _mean_loss(self, record: StepRecord) -> T:
        return self._scalar()(float(np.mean(record.losses, dtype=np.float64)))

    def _end_step(self, details: Sequence[Any]) -> None:
        """Keep what the next step is to have of this one, now that nothing can fail any more."""

    # Adapting and evaluating.

    def Adapt(self, task: IMetaLearningTask[Any, TInput, TOutput]) -> IFullModel[T, TInput, TOutput]:
        """Adapt the meta-model to a task: AdaptationSteps inner steps on its support set, from θ.

        The meta-model is not changed; query data is not read and may be absent. Where the model has
        `aidotnet_py.nn.BatchNorm` layers, the adapted one normalises by the statistics of the support set at its
        adapted parameters: what it says of an example does not hang on what it is asked about together with.

        Raises
        ------
        ArgumentNullException
            When the task is None.
        ArgumentException
            When its support set does not fit the model.
        InvalidOperationException
            When the adapted parameters are not finite.
        """
        groups = self._open([check_task(task)], "Support", training=False)
        backend = groups[0].backend
        (adapted,) = over_chunks(groups, lambda chunk: backend.asarray(Tasks(chunk, self).adapt()))
        return _model_for(groups[0].model, task, backend.reshape(adapted, (adapted.shape[1],)))

    def AdaptAndEvaluate(self, task: IMetaLearningTask[Any, TInput, TOutput]) -> MetaAdaptationResult[T]:
        """Adapt to a task, and measure losses and accuracies on both its sets.

        ``PerStepLosses`` are the support losses before the first and after each inner step; of a support set in
        batches, each that of the batch which the step looks at, and last the mean over all. A solver in the place of
        steps has two, before and after.

        Raises
        ------
        ArgumentNullException
            When the task is None.
        ArgumentException
            When its support or query set does not fit the model.
        InvalidOperationException
            When the adapted parameters, or a loss at them, are not finite.
        """
        groups = self._open([check_task(task)], "Support", "Query", training=False)
        ((history, elapsed, support, query),) = over_chunks(groups, self._adapt_and_measure)
        (support_loss, support_accuracy), (query_loss, query_accuracy) = support, query
        scalar = self._scalar()
        return MetaAdaptationResult(
            queryAccuracy=scalar(query_accuracy[0]),
            queryLoss=scalar(query_loss[0]),
            supportAccuracy=scalar(support_accuracy[0]),
            supportLoss=scalar(support_loss[0]),
            adaptationSteps=self._options.inner_steps,
            adaptationTimeMs=elapsed,
            perStepLosses=np.array([*history, *support_loss]),
        )

    def _adapt_and_measure(self, chunk: Chunk) -> tuple[list[Any], float, Measured, Measured]:
        """Return the support loss before each step, the time of the steps in ms, and both sets measured after them."""
        tasks, history = Tasks(chunk, self), list[Any]()
        began = time.perf_counter()
        adapted = tasks.adapt(lambda losses: history.append(chunk.on_host(losses)[0]))
        elapsed = 1000 * (time.perf_counter() - began)
        return history, elapsed, tasks.measure("Support", adapted), tasks.measure("Query", adapted)

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
            For a batch, the mean query loss; for a number, losses and accuracies of every task.

        Raises
        ------
        ArgumentNullException
            When the batch is None.
        ArgumentException
            When the batch does not fit the model, or the DataLoader gives no batch; the message names the loader.
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
        return self._scalar()(float(np.mean(losses, dtype=np.float64)))

    def _evaluate_new_tasks(self, count: int) -> MetaEvaluationResult[T]:
        loader = self._loader()
        began = time.perf_counter()
        losses: list[Any] = []
        accuracies: list[float] = []
        singles: list[float] = []
        normalization: Statistics | None = None
        while len(losses) < count:
            # As many at once as in a step of training, whose programs and buffers then serve again.
            some = min(self._options.MetaBatchSize, count - len(losses))
            tasks = check_tasks(self._batch_from(loader, some))
            some_losses, some_accuracies, model, adapted = self._query_results(tasks)
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
        self, tasks: Batch[T, TInput, TOutput]
    ) -> tuple[NDArray[Any], list[float], IFullModel[T, TInput, TOutput], list[Array]]:
        """Return losses and accuracies of the query sets, the model, and its adapted parameters for each task."""
        groups = self._open(tasks, "Support", "Query", training=False)

        def work(chunk: Chunk) -> tuple[Measured, list[Array]]:
            tasks = Tasks(chunk, self)
            rows = split_rows(chunk.backend, tasks.adapt())
            return tasks.measured, rows

        parts = over_chunks(groups, work)
        losses, accuracies = _measured([measured for measured, _ in parts], groups)
        rows = in_order(groups, [row for _, rows in parts for row in rows])
        return losses, accuracies, groups[0].model, rows

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
            accuracies.append(self._loss().accuracy(outputs, host(cast(Array, task.QueryOutput))))
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
        groups = self._open(check_tasks(taskBatch), "Support", "Query", training=False)
        parts = over_chunks(groups, lambda chunk: self._curve_of(chunk, count))
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
        if self._options.DataLoader is None:
            raise InvalidOperationException("DataLoader of the options must be set to draw tasks from it, got None")
        return self._options.DataLoader

    def _batch_from(self, loader: IEpisodicDataLoader[T, TInput, TOutput], count: int) -> TaskBatch[T, TInput, TOutput]:
        """Draw the next tasks from this learner's place in the loader."""
        tasks = self._random.place.draw(loader, lambda: loader.GetTaskBatch(count))
        if isinstance(tasks, TaskBatch):
            return tasks
        try:
            return TaskBatch(tasks)
        except ArgumentException as error:
            raise ArgumentException(
                f"GetTaskBatch of {type(loader).__name__} must return a TaskBatch or a list of tasks: {error}"
            ) from error

    # Training.

    @overload
    def MetaTrainStep(self, batchSize: int, /) -> MetaTrainingStepResult[T]: ...

    @overload
    def MetaTrainStep(self, *, batchSize: int) -> MetaTrainingStepResult[T]: ...

    @overload
    def MetaTrainStep(
        self, sampler: ITaskSampler[Any, TInput, TOutput], batchSize: int
    ) -> MetaTrainingStepResult[T]: ...

    @takes_turns
    @whole
    def MetaTrainStep(
        self, sampler: ITaskSampler[Any, TInput, TOutput] | int = _LEFT_OUT, batchSize: int | None = None
    ) -> MetaTrainingStepResult[T]:
        """Draw a batch, take one `MetaTrain` step on it, count the iteration: all of it or nothing.

        Whatever stops it, an error or Ctrl-C, leaves parameters, optimizer, iteration and draws as they were before it;
        the same tasks are drawn again. A loader or sampler without ``GetState`` and ``SetState`` (`IResumable`) cannot
        be put back: its next draw follows the one that was lost. To pass over tasks on which a step fails, draw them.

        Parameters
        ----------
        sampler : ITaskSampler, optional
            The source of the tasks instead of the DataLoader. UpdateWithFeedback is left to the caller; `Train` calls
            it.
        batchSize : int
            How many tasks.

        Raises
        ------
        InvalidOperationException
            When neither a sampler nor a DataLoader is there, or the step fails; see `MetaTrain`.
        ArgumentNullException
            When the sampler is None.
        ArgumentException
            When the sampler is none, with the members that it lacks; or the DataLoader gives no batch.
        ArgumentOutOfRangeException
            When batchSize is below 1.
        """
        size = sampler if batchSize is None else batchSize
        source: Any = _LEFT_OUT if batchSize is None else sampler
        COUNT.check("batchSize", None if size is _LEFT_OUT else size, type_error=ArgumentOutOfRangeException)
        count = int(cast(int, size))
        if source is _LEFT_OUT:
            return self._step_on(self._batch_from(self._loader(), count))
        _check_sampler(source)
        self._put_back_on_failure(source)
        return self._step_on(cast("ITaskSampler[T, TInput, TOutput]", source).SampleBatch(count))

    def _step_on(self, batch: TaskBatch[T, TInput, TOutput]) -> MetaTrainingStepResult[T]:
        """Take a `MetaTrain` step and count it."""
        began = time.perf_counter()
        self._record = None
        self._journal.hand_on()
        loss = self.MetaTrain(batch)
        elapsed = 1000 * (time.perf_counter() - began)
        self._iteration += 1
        # MetaTrain of a class of one's own may make no record.
        record = self._record = self._record or StepRecord(np.full(len(batch), loss), [math.nan])
        scalar = self._scalar()
        return MetaTrainingStepResult(
            metaLoss=loss,
            taskLoss=scalar(float(np.mean(record.losses, dtype=np.float64))),
            accuracy=scalar(float(np.mean(record.accuracies))),
            numTasks=len(batch),
            iteration=self._iteration,
            timeMs=elapsed,
            additionalMetrics={name: scalar(value) for name, value in record.metrics.items()},
        )

    def _put_back_on_failure(self, sampler: object) -> None:
        """Have a sampler put back, if it can be, when the present change is undone."""
        if isinstance(sampler, IResumable):
            place = sampler.GetState()
            self._journal.also(lambda: sampler.SetState(place))

    @overload
    def Train(self) -> MetaTrainingResult[T]: ...

    @overload
    def Train(self, sampler: ITaskSampler[Any, TInput, TOutput], /) -> MetaTrainingResult[T]: ...

    @overload
    def Train(self, *, sampler: ITaskSampler[Any, TInput, TOutput]) -> MetaTrainingResult[T]: ...

    @overload
    def Train(self, input: TInput, expectedOutput: TOutput) -> None: ...

    def Train(
        self, input: Any = _LEFT_OUT, expectedOutput: Any = _LEFT_OUT, *, sampler: Any = _LEFT_OUT
    ) -> MetaTrainingResult[T] | None:
        """Take NumMetaIterations steps of MetaBatchSize tasks, with a progress bar on a terminal.

        The tasks come from the DataLoader, or from a sampler: ``Train(sampler)`` draws the episodes of a step with
        `SampleOne`, and tells the sampler their losses with `UpdateWithFeedback` after it. ``Train(input,
        expectedOutput)`` is another method of the name, every model's: it trains the meta-model on one set of examples.

        Every EvaluationFrequency steps, EvaluationTasks tasks of the DataLoader, if there is one, are evaluated; if it
        can put its draws aside (`IResumable`), how often that happens does not change what is trained on. With
        EnableCheckpointing, every CheckpointFrequency steps the learner is saved as
        ``checkpoint_{algorithm}_{iteration}.safetensors``, such as ``checkpoint_iMAML_500.safetensors``, in the folder
        that is the current one when the run begins.

        Whatever stops it, Ctrl-C too, stops it between two steps, and is raised with a note of what is left to do;
        `training_result` has the histories up to there. To finish the run, set NumMetaIterations to what is left, the
        wanted total less CurrentIteration, and call it again; in another process, load the last checkpoint first. It
        ends with the bits of a run that was not stopped.

        Parameters
        ----------
        sampler : ITaskSampler, optional
            The source of the tasks instead of the DataLoader. RandomSeed does not seed it.
        input, expectedOutput : array
            As for `IModel.Train`.

        Returns
        -------
        MetaTrainingResult, or None for a set of examples
            ``AdditionalMetrics`` holds the mean loss and accuracy of each evaluation, as ``EvaluationLoss@{iteration}``
            and ``EvaluationAccuracy@{iteration}``.

        Raises
        ------
        InvalidOperationException
            When neither a sampler nor a DataLoader is there, or a step fails; the steps before it stay done.
        ArgumentNullException
            When the sampler, the input or the expected output is None.
        ArgumentException
            When the sampler is none, with the members that it lacks.
        OSError
            When no checkpoint can be written into the folder, before the first step.
        """
        if expectedOutput is not _LEFT_OUT:
            return self._train_model(input, expectedOutput)
        source = sampler if input is _LEFT_OUT else input
        if source is _LEFT_OUT:
            self._loader()
        else:
            _check_sampler(source)
        self._require_valid()
        history = self._history = TrainingHistory[T]()
        return train(self, history, lambda: self._step_of_run(history, source), self._random.aside)

    @property
    def training_result(self) -> MetaTrainingResult[T] | None:
        """What the last `Train` has come to, or came to before it was stopped; None before its first step."""
        return self._history.result()

    @takes_turns
    @whole
    def _step_of_run(self, history: TrainingHistory[T], sampler: Any) -> MetaTrainingStepResult[T]:
        """Take a step of a run, tell the sampler, if there is one, and note it in the history: all or nothing."""
        self._journal.also(history.from_here())
        if sampler is _LEFT_OUT:
            self._journal.hand_on()
            step = self.MetaTrainStep(self._options.MetaBatchSize)
        else:
            step = self._step_with_feedback(sampler)
        history.note(step)
        return step

    def _step_with_feedback(self, sampler: ITaskSampler[Any, TInput, TOutput]) -> MetaTrainingStepResult[T]:
        """Take a step on episodes of a sampler, and tell it their losses."""
        self._put_back_on_failure(sampler)
        episodes = [sampler.SampleOne() for _ in range(self._options.MetaBatchSize)]
        step = self._step_on(TaskBatch([_task_of(episode, sampler) for episode in episodes]))
        assert self._record is not None
        sampler.UpdateWithFeedback(episodes, [float(loss) for loss in self._record.losses])
        return step

    @takes_turns
    def Reset(self) -> None:
        """Return to iteration 0, empty optimizers and the first random state; the model keeps its parameters."""
        self._iteration = 0
        self._record = None
        self._history = TrainingHistory()
        self._begin_with_model()
        self._random.rewind()

    # Checkpoints.

    @takes_turns
    def Save(self, filePath: str | os.PathLike[str]) -> None:
        """Write everything needed to go on bit for bit, in one safetensors file, whole or not at all.

        Parameters, optimizer state, iteration, and the random state of the learner and, where it has `GetState`, of the
        DataLoader. Model and options are described, for `Load` to compare: a learner that takes the file up brings its
        own. See docs/files.md.

        Warns
        -----
        UserWarning
            When the DataLoader lacks `GetState` and `SetState`, so that a resumed run draws other tasks.

        Raises
        ------
        ArgumentException
            When something is there that is no regular file, or an optimizer or loader has a state that no file can
            hold.
        InvalidOperationException
            When parameters or optimizer state are not finite.
        OSError
            When the file cannot be written, such as into a missing folder; an older one of that name is still whole.
        """
        loader = self._options.DataLoader
        if loader is not None and not isinstance(loader, IResumable):
            warnings.warn(
                f"{type(loader).__name__} lacks GetState and SetState (IResumable); its place is not saved, and a "
                "resumed run draws other tasks",
                UserWarning,
                stacklevel=level_outside(),
            )
        optimizer = self._meta_optimizer()
        Checkpoint(
            algorithm=self.AlgorithmType.name,
            parameters=self._host(self._meta_parameters()),
            optimizer=type(as_given(optimizer)).__name__,
            optimizer_state=dict(optimizer.GetState()),
            iteration=self._iteration,
            random_state=self._random.get(),
            extra_state={name: self._host(array) for name, array in self._extra_state().items()},
            model=describe_model(self.BaseModel),
            options=describe(self._options),
        ).save(filePath)

    @takes_turns
    @whole
    def Load(self, filePath: str | os.PathLike[str]) -> None:
        """Take up what `Save` wrote; it continues as the saved learner would have, bit for bit.

        Raises
        ------
        FileNotFoundError
            When there is no such file.
        ArgumentException
            When the file is damaged, or it was not saved by such a learner of such a model; the message tells each
            difference, and nothing is changed then.

        Warns
        -----
        UserWarning
            When options that steps depend on, or settings that the model may have otherwise, are not those of the saved
            learner; when one of the two, the saved learner and this one, has a DataLoader with a place and the
            other has none; when the file was written by version 0.1.0, which wrote no checksums.
        """
        checkpoint = Checkpoint.load(filePath)
        backend, optimizer = self._backend, self._meta_optimizer()
        parameters = self._host(self._meta_parameters())
        compared = compare_models(checkpoint.model, self.BaseModel)
        checkpoint.require_fit(str(filePath), self.AlgorithmType.name, as_given(optimizer), parameters, compared)
        cautions = [checkpoint.caution(str(filePath), compared, self._options)]
        try:
            optimizer.SetState(checkpoint.optimizer_state_on(backend))
            self._set_extra_state(checkpoint.extra_state)
            self._random.set(checkpoint.random_state)
            self._set_meta_parameters(backend.asarray(checkpoint.parameters))
        except Exception as error:
            raise ArgumentException(f"{filePath} must hold a state that this learner can take: {error!r}") from error
        self._iteration = checkpoint.iteration
        cautions.append(self._random.place_warning(checkpoint.random_state))
        # Where warnings are errors, they undo what was taken up.
        for told in cautions:
            if told is not None:
                warnings.warn(told, UserWarning, stacklevel=level_outside())


def _measured(parts: Sequence[Measured], groups: Sequence[Chunk]) -> Measured:
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
    adapted_model = model.WithParameters(adapted)
    if missing_members(adapted_model, INormalizedModel):
        return adapted_model
    normalized: IFullModel[T, TInput, TOutput] = cast(Any, adapted_model).with_statistics_of(
        all_examples(model_backend(model), task.SupportInput)
    )
    return normalized


def _check_sampler(sampler: object) -> None:
    """Raise ArgumentException unless this is a sampler."""
    check_given("sampler", sampler, "an ITaskSampler")
    missing = missing_members(sampler, ITaskSampler)
    if missing:
        raise ArgumentException(
            f"sampler must be an ITaskSampler, got a {type(sampler).__name__}, which lacks {', '.join(missing)}"
        )


def _task_of(episode: IEpisode[T, TInput, TOutput], sampler: object) -> IMetaLearningTask[T, TInput, TOutput]:
    """Return the task of an episode, once it is one."""
    missing = missing_members(episode, IEpisode)
    if missing:
        raise ArgumentException(
            f"SampleOne of {type(sampler).__name__} must return an IEpisode, got a {type(episode).__name__}, which "
            f"lacks {', '.join(missing)}"
        )
    return episode.Task
