"""What all meta-learners share: options, model, optimizers, checks, training, evaluation and checkpoints.

An algorithm is a subclass that writes `MetaTrain` and, where its inner loop differs, `_inner_gradient`; the base gives
it the tasks' objectives, the inner loop and the meta-update.
"""

from __future__ import annotations

import math
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Generic, cast, overload

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from aidotnet_py.backends import Array, Backend, backend_of, get_backend
from aidotnet_py.exceptions import (
    ArgumentException,
    ArgumentNullException,
    ArgumentOutOfRangeException,
    InvalidOperationException,
)
from aidotnet_py.losses import ILossFunction
from aidotnet_py.meta_learning.adaptation import inner_steps, repeat_rows
from aidotnet_py.meta_learning.checkpoint import Checkpoint
from aidotnet_py.meta_learning.enums import MetaLearningAlgorithmType
from aidotnet_py.meta_learning.objectives import ObjectiveFactory, TaskObjective
from aidotnet_py.meta_learning.options import MetaLearnerOptions
from aidotnet_py.meta_learning.results import (
    MetaAdaptationResult,
    MetaEvaluationResult,
    MetaTrainingResult,
    MetaTrainingStepResult,
)
from aidotnet_py.meta_learning.sampling import IEpisodicDataLoader, IResumable, ITaskSampler
from aidotnet_py.meta_learning.task_batch import TaskBatch
from aidotnet_py.meta_learning.tasks import IMetaLearningTask
from aidotnet_py.meta_learning.validation import checked_sets
from aidotnet_py.models import IFullModel, IModel, ModelMetadata
from aidotnet_py.optimizers import AdamOptimizer, IGradientBasedOptimizer, SGDOptimizer
from aidotnet_py.type_parameters import T, TInput, TOutput

__all__ = ["MetaLearnerBase", "StepRecord", "batch_tasks"]

# Tasks adapted together in an evaluation: enough to fill the machine, few enough to fit its caches.
_EVALUATION_CHUNK = 25


@dataclass
class StepRecord:
    """What the last `MetaTrain` saw, for the result of the step."""

    losses: NDArray[Any]
    accuracies: list[float]
    metrics: dict[str, float] = field(default_factory=dict[str, float])


class MetaLearnerBase(ABC, Generic[T, TInput, TOutput]):
    """The base of all algorithms.

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

    def __init__(self, options: MetaLearnerOptions[T, TInput, TOutput]) -> None:
        if options is None:  # pyright: ignore[reportUnnecessaryComparison] -- callers may be untyped
            raise ArgumentNullException("options is None; the algorithm's options are wanted")
        if options.MetaModel is None:  # pyright: ignore[reportUnnecessaryComparison] -- as above
            raise InvalidOperationException("MetaModel of the options is None; a model is wanted")
        self._options = options
        self._require_valid()
        self._iteration = 0
        self._default_optimizer: AdamOptimizer | None = None
        self._generator = np.random.default_rng(options.RandomSeed)
        self._objectives = ObjectiveFactory(self._generator)
        self._record: StepRecord | None = None
        if options.RandomSeed is not None and options.DataLoader is not None:
            options.DataLoader.SetSeed(options.RandomSeed)
        self._first_random_state = self._random_state()

    def _require_valid(self) -> None:
        wrong = next(self._options.invalid(), None)
        if wrong is not None:
            raise ArgumentException(wrong)

    # What it is.

    @property
    @abstractmethod
    def AlgorithmType(self) -> MetaLearningAlgorithmType:
        """Which algorithm this is."""

    @property
    def BaseModel(self) -> IFullModel[T, TInput, TOutput]:
        """The model whose parameters are learned."""
        return self._options.MetaModel

    @property
    def Options(self) -> MetaLearnerOptions[T, TInput, TOutput]:
        """The options, as given."""
        return self._options

    @property
    def CurrentIteration(self) -> int:
        """Steps taken by `MetaTrainStep` and `Train`."""
        return self._iteration

    @property
    def AdaptationSteps(self) -> int:
        """K, the number of inner steps."""
        return self._options.AdaptationSteps

    @property
    def InnerLearningRate(self) -> float:
        """The rate of the inner steps: the option's, or that of the InnerOptimizer given."""
        return self._inner_optimizer().GetCurrentLearningRate()

    @property
    def OuterLearningRate(self) -> float:
        """The rate of the meta-updates: the option's, or that of the MetaOptimizer given."""
        return self._meta_optimizer().GetCurrentLearningRate()

    def GetMetaModel(self) -> IFullModel[T, TInput, TOutput]:
        """The model whose parameters are learned."""
        return self._options.MetaModel

    def SetMetaModel(self, model: IFullModel[T, TInput, TOutput]) -> None:
        """Learn another model's parameters from now on; the optimizers forget the old one's gradients.

        Raises
        ------
        ArgumentNullException
            When the model is None.
        """
        if model is None:  # pyright: ignore[reportUnnecessaryComparison] -- callers may be untyped
            raise ArgumentNullException("model is None; a model is wanted")
        self._options.MetaModel = model
        self._reset_optimizers()

    # What an algorithm writes.

    @abstractmethod
    def MetaTrain(self, taskBatch: TaskBatch[T, TInput, TOutput]) -> T:
        """One meta-training step; returns the mean query loss before it."""

    def _inner_gradient(self, points: Array, start: Array, gradients: Array) -> Array:
        """The gradient that the inner steps follow at ``points``, from that of the support loss."""
        return gradients

    # What the base gives an algorithm.

    @property
    def _backend(self) -> Backend:
        return backend_of(self.BaseModel.GetParameters()) or get_backend("numpy")

    def _loss(self) -> ILossFunction[T]:
        return self._options.LossFunction or self.BaseModel.DefaultLossFunction

    def _inner_optimizer(self) -> IGradientBasedOptimizer:
        return self._options.InnerOptimizer or SGDOptimizer(self._options.InnerLearningRate)

    def _meta_optimizer(self) -> IGradientBasedOptimizer:
        if self._options.MetaOptimizer is not None:
            return self._options.MetaOptimizer
        rate = self._options.OuterLearningRate
        if self._default_optimizer is None:
            self._default_optimizer = AdamOptimizer(rate)
        elif self._default_optimizer.GetCurrentLearningRate() != rate:
            state = self._default_optimizer.GetState()
            self._default_optimizer = AdamOptimizer(rate)
            self._default_optimizer.SetState(state)
        return self._default_optimizer

    def _reset_optimizers(self) -> None:
        self._default_optimizer = None
        for optimizer in (self._options.MetaOptimizer, self._options.InnerOptimizer):
            if optimizer is not None:
                optimizer.Reset()

    def _opened(self, tasks: Sequence[IMetaLearningTask[T, TInput, TOutput]], *roles: str) -> tuple[TaskObjective, ...]:
        """The objectives of the tasks' sets, after everything about them has been checked."""
        self._require_valid()
        model, loss = self.BaseModel, self._loss()
        sets = [checked_sets(role, tasks, model, loss) for role in roles]
        return tuple(self._objectives.make(role, model, loss, *pair) for role, pair in zip(roles, sets, strict=True))

    def _adapted(
        self,
        support: TaskObjective,
        tasks: Sequence[IMetaLearningTask[Any, Any, Any]],
        watch: Callable[[Array], None] | None = None,
    ) -> tuple[Array, Array]:
        """The start θ and the adapted parameters φ of every task, stacked; ``watch`` sees the losses of each step.

        Raises InvalidOperationException when a task's parameters do not stay finite.
        """
        backend = self._backend
        start = repeat_rows(backend, self.BaseModel.GetParameters(), len(tasks))

        def gradient(points: Array) -> Array:
            losses, gradients = support.evaluate(points)
            if watch is not None:
                watch(losses)
            return self._inner_gradient(points, start, gradients)

        steps, optimizer = self._options.AdaptationSteps, self._inner_optimizer()
        with backend.errors_ignored():
            adapted = inner_steps(backend, start, steps, gradient, optimizer)
        if not self._finite_rows(adapted).all():
            # Which of the two it was is worth one more evaluation: bad data, or steps that are too long.
            self._require_finite("support loss", support.evaluate(start).losses, tasks)
            self._require_finite("adapted parameters", adapted, tasks)
        return start, adapted

    def _require_finite(self, quantity: str, stacked: Array, tasks: Sequence[IMetaLearningTask[Any, Any, Any]]) -> None:
        """Raise InvalidOperationException, naming task and quantity, where a row is not finite."""
        finite = self._finite_rows(stacked)
        if not finite.all():
            place = int(np.argmin(finite))
            name = tasks[place].Name or tasks[place].TaskId
            raise InvalidOperationException(
                f"the {quantity} of task {place} ({name}) is not finite; nothing was changed"
            )

    def _finite_rows(self, stacked: Array) -> NDArray[np.bool_]:
        finite = self._backend.to_numpy(self._backend.elementwise("isfinite")(stacked))
        return np.asarray(finite.reshape(finite.shape[0], -1).all(axis=1))

    def _meta_update(self, meta_gradients: Array) -> float:
        """Clip the mean of the tasks' meta-gradients, hand it to the meta-optimizer; returns its norm before that."""
        backend, model, optimizer = self._backend, self.BaseModel, self._meta_optimizer()
        mean = backend.sum(meta_gradients, (0,)) / float(meta_gradients.shape[0])
        norm = math.sqrt(float(backend.to_numpy(backend.vecdot(mean, mean))))
        limit = self._options.GradientClipThreshold
        if limit is not None and 0 < limit < norm:
            mean = mean * (limit / norm)
        before = optimizer.GetState()
        updated = optimizer.UpdateParameters(model.GetParameters(), mean)
        if not bool(backend.to_numpy(backend.elementwise("isfinite")(updated)).all()):
            optimizer.SetState(before)
            raise InvalidOperationException("the meta-update is not finite; nothing was changed")
        model.SetParameters(updated)
        return norm

    def _number(self, value: float) -> T:
        """A float as a number of the model's type."""
        dtype = self._backend.dtype_of(self.BaseModel.GetParameters())
        return cast(T, dtype.type(value))

    # Adapting and evaluating.

    def Adapt(self, task: IMetaLearningTask[T, TInput, TOutput]) -> IModel[TInput, TOutput, ModelMetadata[T]]:
        """Adapt the meta-model to a task: AdaptationSteps inner steps on its support set, from θ.

        The meta-model is not changed; query data is not read and may be absent.

        Raises
        ------
        ArgumentNullException
            When the task is None.
        ArgumentException
            When its support set does not fit the model.
        InvalidOperationException
            When the adapted parameters are not finite.
        """
        _require_task(task)
        (support,) = self._opened([task], "Support")
        _, adapted = self._adapted(support, [task])
        return self._with_parameters(adapted)

    def _with_parameters(self, adapted: Array) -> IFullModel[T, TInput, TOutput]:
        return self.BaseModel.WithParameters(self._backend.reshape(adapted, (adapted.shape[1],)))

    def AdaptAndEvaluate(self, task: IMetaLearningTask[T, TInput, TOutput]) -> MetaAdaptationResult[T]:
        """Adapt to a task, and measure losses and accuracies on both its sets.

        ``PerStepLosses`` are the support losses before the first and after each inner step.

        Raises
        ------
        ArgumentNullException
            When the task is None.
        ArgumentException
            When its support or query set does not fit the model.
        """
        _require_task(task)
        support, query = self._opened([task], "Support", "Query")
        history: list[Any] = []
        began = time.perf_counter()
        _, adapted = self._adapted(support, [task], lambda losses: history.append(self._host(losses)[0]))
        elapsed = 1000 * (time.perf_counter() - began)
        support_loss = self._host(support.evaluate(adapted).losses)[0]
        query_loss = self._host(query.evaluate(adapted).losses)[0]
        return MetaAdaptationResult(
            QueryAccuracy=self._number(query.accuracies()[0]),
            QueryLoss=query_loss,
            SupportAccuracy=self._number(support.accuracies()[0]),
            SupportLoss=support_loss,
            AdaptationSteps=self._options.AdaptationSteps,
            AdaptationTimeMs=elapsed,
            PerStepLosses=np.array([*history, support_loss]),
        )

    def _host(self, array: Array) -> NDArray[Any]:
        """A copy of an array's values on the host."""
        return np.array(self._backend.to_numpy(array))

    @overload
    def Evaluate(self, tasks: TaskBatch[T, TInput, TOutput], /) -> T: ...

    @overload
    def Evaluate(self, tasks: int, /) -> MetaEvaluationResult[T]: ...

    def Evaluate(self, tasks: TaskBatch[T, TInput, TOutput] | int, /) -> T | MetaEvaluationResult[T]:
        """Adapt to tasks and measure their query losses; the meta-model is not changed.

        Parameters
        ----------
        tasks : TaskBatch or int
            A batch, or how many tasks to draw from the DataLoader.

        Returns
        -------
        T or MetaEvaluationResult
            For a batch, the mean query loss; for a number, losses and accuracies of every task.

        Raises
        ------
        ArgumentException
            When the batch is None, or does not fit the model.
        ArgumentOutOfRangeException
            When the number is below 1.
        InvalidOperationException
            When tasks are to be drawn and the options have no DataLoader.
        """
        if isinstance(tasks, int):
            return self._evaluate_drawn(tasks)
        losses, _ = self._query_results(batch_tasks(tasks))
        return self._number(float(np.mean(losses, dtype=np.float64)))

    def _evaluate_drawn(self, count: int) -> MetaEvaluationResult[T]:
        loader = self._loader()
        if count < 1:
            raise ArgumentOutOfRangeException(f"numTasks is {count}; at least 1 is wanted")
        began = time.perf_counter()
        losses: list[Any] = []
        accuracies: list[float] = []
        while len(losses) < count:
            chunk = list(loader.GetTaskBatch(min(_EVALUATION_CHUNK, count - len(losses))))
            some_losses, some_accuracies = self._query_results(chunk)
            losses += list(some_losses)
            accuracies += some_accuracies
        elapsed = timedelta(seconds=time.perf_counter() - began)
        return MetaEvaluationResult(np.array([self._number(a) for a in accuracies]), np.array(losses), elapsed)

    def _query_results(
        self, tasks: Sequence[IMetaLearningTask[T, TInput, TOutput]]
    ) -> tuple[NDArray[Any], list[float]]:
        support, query = self._opened(tasks, "Support", "Query")
        _, adapted = self._adapted(support, tasks)
        losses = self._host(query.evaluate(adapted).losses)
        return losses, query.accuracies()

    def _loader(self) -> IEpisodicDataLoader[T, TInput, TOutput]:
        if self._options.DataLoader is None:
            raise InvalidOperationException("DataLoader of the options is None; one is wanted to draw tasks from")
        return self._options.DataLoader

    # Training.

    @overload
    def MetaTrainStep(self, batchSize: int, /) -> MetaTrainingStepResult[T]: ...

    @overload
    def MetaTrainStep(
        self, sampler: ITaskSampler[T, TInput, TOutput], batchSize: int, /
    ) -> MetaTrainingStepResult[T]: ...

    def MetaTrainStep(
        self, first: ITaskSampler[T, TInput, TOutput] | int, second: int | None = None, /
    ) -> MetaTrainingStepResult[T]:
        """Draw a batch, take one `MetaTrain` step on it, count the iteration.

        Parameters
        ----------
        sampler : ITaskSampler, optional
            Where the tasks come from, and where their losses are told; without one, the DataLoader.
        batchSize : int
            How many tasks.

        Raises
        ------
        InvalidOperationException
            When neither a sampler nor a DataLoader is there, or the step fails; see `MetaTrain`.
        ArgumentOutOfRangeException
            When batchSize is below 1.
        """
        sampler, size = (None, first) if second is None else (first, second)
        if not isinstance(size, int) or size < 1:
            raise ArgumentOutOfRangeException(f"batchSize is {size}; at least 1 is wanted")
        source = cast("ITaskSampler[T, TInput, TOutput] | None", sampler)
        batch = self._loader().GetTaskBatch(size) if source is None else source.SampleBatch(size)
        began = time.perf_counter()
        loss = self.MetaTrain(batch)
        elapsed = 1000 * (time.perf_counter() - began)
        self._iteration += 1
        record = self._record or StepRecord(np.array([loss]), [math.nan])
        if source is not None:
            source.UpdateWithFeedback(list(batch), list(record.losses))
        return MetaTrainingStepResult(
            MetaLoss=loss,
            TaskLoss=self._number(float(np.mean(record.losses, dtype=np.float64))),
            Accuracy=self._number(float(np.mean(record.accuracies))),
            NumTasks=len(batch),
            Iteration=self._iteration,
            TimeMs=elapsed,
            AdditionalMetrics={name: self._number(value) for name, value in record.metrics.items()},
        )

    def Train(self) -> MetaTrainingResult[T]:
        """NumMetaIterations steps of MetaBatchSize tasks from the DataLoader, with a progress bar on a terminal.

        Every EvaluationFrequency steps, EvaluationTasks tasks are evaluated; with EnableCheckpointing, every
        CheckpointFrequency steps the learner is saved as ``checkpoint_{iteration}.safetensors`` in the current folder.

        Returns
        -------
        MetaTrainingResult
            ``AdditionalMetrics`` holds the mean loss and accuracy of each evaluation, as ``EvaluationLoss@{iteration}``
            and ``EvaluationAccuracy@{iteration}``.

        Raises
        ------
        InvalidOperationException
            When the options have no DataLoader, or a step fails; the steps before it stay done.
        """
        self._loader()
        self._require_valid()
        losses: list[T] = []
        accuracies: list[T] = []
        metrics: dict[str, T] = {}
        began = time.perf_counter()
        with tqdm(total=self._options.NumMetaIterations, desc=self.AlgorithmType.name, disable=None) as progress:
            for _ in range(self._options.NumMetaIterations):
                step = self.MetaTrainStep(self._options.MetaBatchSize)
                losses.append(step.MetaLoss)
                accuracies.append(step.Accuracy)
                progress.set_postfix_str(f"loss={float(step.MetaLoss):.4f}", refresh=False)
                progress.update()
                self._evaluate_when_due(metrics)
                self._save_when_due()
        elapsed = timedelta(seconds=time.perf_counter() - began)
        return MetaTrainingResult(np.array(losses), np.array(accuracies), elapsed, metrics)

    def _evaluate_when_due(self, metrics: dict[str, T]) -> None:
        if self._iteration % self._options.EvaluationFrequency == 0:
            found = self._evaluate_drawn(self._options.EvaluationTasks)
            metrics[f"EvaluationLoss@{self._iteration}"] = found.LossStats.Mean
            metrics[f"EvaluationAccuracy@{self._iteration}"] = found.AccuracyStats.Mean

    def _save_when_due(self) -> None:
        if self._options.EnableCheckpointing and self._iteration % self._options.CheckpointFrequency == 0:
            self.Save(Path(f"checkpoint_{self._iteration}.safetensors"))

    def Reset(self) -> None:
        """Iteration 0, optimizer and random state as at construction; the model keeps its parameters."""
        self._iteration = 0
        self._record = None
        self._reset_optimizers()
        self._restore_random_state(self._first_random_state)

    # Checkpoints.

    def _random_state(self) -> dict[str, Any]:
        loader = self._options.DataLoader
        return {
            "generator": self._generator.bit_generator.state,
            "loader": loader.GetState() if isinstance(loader, IResumable) else None,
        }

    def _restore_random_state(self, state: Mapping[str, Any]) -> None:
        loader = self._options.DataLoader
        if isinstance(loader, IResumable) and state["loader"] is not None:
            loader.SetState(state["loader"])
        self._generator.bit_generator.state = state["generator"]

    def Save(self, filePath: str | os.PathLike[str]) -> None:
        """Write everything needed to go on bit for bit, in one safetensors file, whole or not at all.

        Parameters, optimizer state, iteration, and the random state of the learner and, where it has `GetState`, of the
        DataLoader.

        Raises
        ------
        ArgumentException
            When the folder does not exist.
        OSError
            When the file cannot be written; an older one of that name is then still whole.
        """
        optimizer = self._meta_optimizer()
        Checkpoint(
            algorithm=self.AlgorithmType.name,
            parameters=self._host(self.BaseModel.GetParameters()),
            optimizer=type(optimizer).__name__,
            optimizer_state=dict(optimizer.GetState()),
            iteration=self._iteration,
            random_state=self._random_state(),
        ).save(filePath)

    def Load(self, filePath: str | os.PathLike[str]) -> None:
        """Take up what `Save` wrote; it continues as the saved learner would have, bit for bit.

        Raises
        ------
        ArgumentException
            When there is no such file, or it was not saved by such a learner of such a model; nothing is changed then.
        """
        found = Checkpoint.load(filePath)
        backend, model, optimizer = self._backend, self.BaseModel, self._meta_optimizer()
        parameters = model.GetParameters()
        wanted = {
            "algorithm": (found.algorithm, self.AlgorithmType.name),
            "optimizer": (found.optimizer, type(optimizer).__name__),
            "parameters": (
                f"{found.parameters.dtype}{found.parameters.shape}",
                f"{backend.dtype_of(parameters)}{tuple(parameters.shape)}",
            ),
        }
        for name, (came, needed) in wanted.items():
            if came != needed:
                raise ArgumentException(f"{filePath} holds {name} {came}; this learner has {needed}")
        before = (optimizer.GetState(), self._random_state())
        try:
            optimizer.SetState(
                {
                    name: value if backend_of(value) is None else backend.asarray(value)
                    for name, value in found.optimizer_state.items()
                }
            )
            self._restore_random_state(found.random_state)
        except (KeyError, TypeError, ValueError) as error:
            optimizer.SetState(before[0])
            with suppress(KeyError, TypeError, ValueError):
                self._restore_random_state(before[1])
            raise ArgumentException(f"{filePath} holds a state that this learner cannot take: {error}") from error
        model.SetParameters(backend.asarray(found.parameters))
        self._iteration = found.iteration


def _require_task(task: IMetaLearningTask[Any, Any, Any] | None) -> None:
    if task is None:
        raise ArgumentNullException("task is None; a task is wanted")


def batch_tasks(
    batch: TaskBatch[T, TInput, TOutput] | None,
) -> list[IMetaLearningTask[T, TInput, TOutput]]:
    """The tasks of a batch; ArgumentException where there are none."""
    if batch is None or len(batch) == 0:
        raise ArgumentException(f"taskBatch is {'None' if batch is None else 'empty'}; at least one task is wanted")
    return list(batch)
