"""Steps of meta-training: on a batch, on tasks that are drawn, and the meta-gradient alone."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, cast, overload

import numpy as np
from numpy.typing import NDArray

from aidotnet_py.arguments import COUNT, check_given, shown
from aidotnet_py.backends import Array
from aidotnet_py.exceptions import ArgumentException, ArgumentOutOfRangeException
from aidotnet_py.meta_learning.contract.options import MetaLearnerOptions
from aidotnet_py.meta_learning.contract.protocols import require_members
from aidotnet_py.meta_learning.contract.results import MetaTrainingStepResult
from aidotnet_py.meta_learning.contract.sources import IResumable, ITaskSampler
from aidotnet_py.meta_learning.contract.statistics import mean_of
from aidotnet_py.meta_learning.contract.task_batch import TaskBatch
from aidotnet_py.meta_learning.learner.core import Batch
from aidotnet_py.meta_learning.learner.encodings import keep_encoding, warn_of_other_encodings
from aidotnet_py.meta_learning.learner.evaluating import EvaluatingLearner, in_batch_order, of_size
from aidotnet_py.meta_learning.learner.journal import whole
from aidotnet_py.meta_learning.learner.own_results import checked_gradients, checked_report
from aidotnet_py.meta_learning.learner.parallel import in_order, over_chunks
from aidotnet_py.meta_learning.learner.records import MetaGradient, StepRecord
from aidotnet_py.meta_learning.learner.states import place_of, set_place
from aidotnet_py.meta_learning.learner.sums import Piece, SumOfTasks
from aidotnet_py.meta_learning.learner.tasks import Measured, Tasks
from aidotnet_py.meta_learning.learner.turns import takes_turns
from aidotnet_py.meta_learning.objective.checks import check_tasks
from aidotnet_py.meta_learning.objective.chunk import Chunk
from aidotnet_py.meta_learning.objective.stacking import row_views, stack_rows
from aidotnet_py.models.interfaces import TModel_co
from aidotnet_py.overrides import require_overrides
from aidotnet_py.type_parameters import T, TInput, TOutput

__all__ = ["LEFT_OUT", "SteppingLearner", "check_sampler"]

# An argument that was left out, where None would be one given.
LEFT_OUT: Any = object()


class _Contribution(NamedTuple):
    """What a share of a batch contributes to a step.

    Losses and accuracies of its tasks, their meta-gradients with those of learned vectors, and details.
    """

    measured: Measured
    meta_gradients: Sequence[Piece]
    details: list[Any]


class SteppingLearner(EvaluatingLearner[T, TInput, TOutput, TModel_co]):
    """A learner that takes steps; see `MetaLearnerBase`."""

    def __init__(self, options: MetaLearnerOptions[T, TInput, TOutput, TModel_co]) -> None:
        super().__init__(options)
        self._failed_batch: TaskBatch[Any, TInput, TOutput] | None = None

    def __init_subclass__(cls, **options: Any) -> None:
        """See to it that steps take turns and are whole, whoever wrote them."""
        super().__init_subclass__(**options)
        require_overrides(cls, SteppingLearner, ("meta_gradient", "inner_rule", "learned", "adapted_names", "report"))
        if "MetaTrain" in vars(cls):
            cls.MetaTrain = takes_turns(whole(cls.MetaTrain))  # type: ignore[method-assign]  # as if the class had written it

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

        Warns
        -----
        UserWarning
            When the tasks are encoded otherwise than those that the model learned from; from then on, its property
            ``"encoding"`` is that of these tasks.
        """
        tasks = check_tasks(taskBatch)
        keep_encoding(self.BaseModel, tasks, learned=self._has_learned)
        record = self._step(self._micro_batches(tasks))
        self._record = record
        return self._mean_loss(record)

    def _micro_batches(self, tasks: Batch[T, TInput, TOutput]) -> Iterator[list[Chunk]]:
        """Yield the tasks of a step, opened, MicroBatchSize at a time."""
        self._require_valid()
        size = self._options.MicroBatchSize
        if size is None or size >= len(tasks):
            yield self._open(tasks, "Support", "Query")
            return
        for first in range(0, len(tasks), size):
            yield self._open(tasks[first : first + size], "Support", "Query", first=first)

    def _step(self, opened: Iterable[Sequence[Chunk]]) -> StepRecord:
        """Take one step on tasks that are opened some at a time."""
        record, mean, details = self._contributions(opened)
        # What it changes has been put aside with all that this step may change.
        self._journal.hand_on()
        record.metrics["MetaGradientNorm"] = self._meta_update(mean)
        self._end_step(details)
        return record

    def _contributions(self, opened: Iterable[Sequence[Chunk]]) -> tuple[StepRecord, Array, list[Any]]:
        """Return the record of tasks that are opened some at a time, the mean of their meta-gradients, the details."""
        backend = self._backend
        total, details, measured = SumOfTasks(backend), list[Any](), list[Measured]()
        for groups in opened:
            share: _Contribution
            for share in self._over_shares(groups, "_contribution"):
                details += share.details
                measured.append(share.measured)
                with backend.errors_ignored():
                    total.add(share.meta_gradients)
        losses: NDArray[Any] = np.concatenate([losses for losses, _ in measured])
        with backend.errors_ignored():
            mean = total.total() / float(len(losses))
        record = StepRecord(
            losses, [a for _, accuracies in measured for a in accuracies], checked_report(self.report(details))
        )
        return record, mean, details

    def _contribution(self, groups: Sequence[Chunk]) -> _Contribution:
        """Return what a share of a batch, opened, contributes to a step."""
        backend, parts = self._backend, over_chunks(groups, self._contribute)
        vectors = [rows for _, rows, _ in parts]
        rows = vectors[0] if len(vectors) == 1 else backend.concat(vectors, 0)
        if len(groups) > 1:
            rows = stack_rows(backend, in_order(groups, row_views(backend, rows)))
        total = SumOfTasks(backend)
        with backend.errors_ignored():
            total.add_rows(min(min(group.places) for group in groups), rows)
        measured = in_batch_order([measured for measured, _, _ in parts], groups)
        return _Contribution(measured, total.pieces, [details for _, _, details in parts])

    def _contribute(self, chunk: Chunk) -> tuple[Measured, Array, Any]:
        """Return losses and accuracies of some tasks, their meta-gradients (tasks, …), and details."""
        tasks = Tasks(chunk, self)
        parts = checked_gradients(self.meta_gradient(tasks), tasks.start, tasks.learned, self._backend)
        gradient = parts[0]
        # One part alone is copied if it is a buffer of the query sets.
        vector = gradient if len(parts) == 1 and not tasks.owns(gradient) else self._backend.concat(parts, 1)
        chunk.require_finite("meta-gradient", vector)
        return tasks.measured, vector, tasks.details

    @takes_turns
    def mean_meta_gradient(self, taskBatch: TaskBatch[Any, TInput, TOutput]) -> MetaGradient[T]:
        r"""Return the meta-gradient that `MetaTrain` would step along, and change nothing.

        For n tasks, with v_i the meta-gradient of task i at the meta-parameters θ,

        .. math::
            v = \frac{1}{n} \sum_i v_i.

        For exact MAML, Meta-SGD, ANIL and BOIL, and for iMAML in its proximal form with inner problems and systems
        solved to the end, v is the gradient of the mean query loss in θ. For Reptile it is the mean of θ − φ, also with
        UseSerialUpdate. It is not clipped. Models that take noise get the noise of the next `MetaTrain`, and later
        draws are as without this call.

        Parameters
        ----------
        taskBatch : TaskBatch
            As for `MetaTrain`.

        Returns
        -------
        MetaGradient

        Raises
        ------
        ArgumentNullException
            When the batch is None.
        ArgumentException
            When the batch does not fit the model.
        InvalidOperationException
            When a loss, a gradient or a solve is not finite; the message names the task and the quantity.

        Examples
        --------
        One task, y = 3x, and a model y = wx from w = 0: one inner step leads to w = 0.6, and the query loss is
        5(3 − 0.8w − 0.6)² there.

        >>> import numpy as np
        >>> from aidotnet_py import FunctionModel, MAMLAlgorithm, MAMLOptions, MetaLearningTask, TaskBatch
        >>> x, q = np.array([[1.0], [-1.0]]), np.array([[1.0], [3.0]])
        >>> task = MetaLearningTask(SupportSetX=x, SupportSetY=3 * x, QuerySetX=q, QuerySetY=3 * q, NumWays=1)
        >>> model = FunctionModel(lambda p, x: x @ p["w"], {"w": np.zeros((1, 1))})
        >>> learner = MAMLAlgorithm(MAMLOptions(model, AdaptationSteps=1, InnerLearningRate=0.1))
        >>> result = learner.mean_meta_gradient(TaskBatch([task]))
        >>> round(float(result.loss), 3), result.parameters.round(3), model.GetParameters()
        (28.8, array([-19.2]), array([0.]))
        """
        tasks = check_tasks(taskBatch)
        self._require_valid()
        warn_of_other_encodings(self.BaseModel, tasks, learned=self._has_learned)

        def compute() -> tuple[StepRecord, Array]:
            record, mean, _ = self._contributions(self._micro_batches(tasks))
            self._norm_of(mean)
            return record, mean

        record, mean = self._journal.run_and_undo(self._random.generator_aside, compute)
        parameters, learned = self._split(mean)
        return MetaGradient(self._mean_loss(record), parameters, learned, record.metrics)

    def _mean_loss(self, record: StepRecord) -> T:
        return self._scalar()(float(mean_of(record.losses)))

    def _end_step(self, details: Sequence[Any]) -> None:
        """Keep what the next step is to have of this one, now that nothing can fail any more."""

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
        self, sampler: ITaskSampler[Any, TInput, TOutput] | int = LEFT_OUT, batchSize: int | None = None
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
            When the sampler is none, with the members that it lacks; when the DataLoader or the sampler gives no batch
            of as many tasks as it was asked for.
        ArgumentOutOfRangeException
            When batchSize is below 1.
        """
        size = sampler if batchSize is None else batchSize
        source: Any = LEFT_OUT if batchSize is None else sampler
        COUNT.check("batchSize", None if size is LEFT_OUT else size, type_error=ArgumentOutOfRangeException)
        count = int(cast(int, size))
        if source is LEFT_OUT:
            return self._step_on(self._batch_from(self._loader(), count))
        check_sampler(source)
        self._put_back_on_failure(source)
        batch, origin = source.SampleBatch(count), f"SampleBatch of {type(source).__name__}"
        if not isinstance(batch, TaskBatch):
            raise ArgumentException(f"{origin} must return a TaskBatch, got {shown(batch)}")
        return self._step_on(of_size(cast("TaskBatch[T, TInput, TOutput]", batch), count, origin))

    def _step_on(self, batch: TaskBatch[T, TInput, TOutput]) -> MetaTrainingStepResult[T]:
        """Take a `MetaTrain` step and count it."""
        began = time.perf_counter()
        rate = None if self._options.OuterLearningRateSchedule is None else self.OuterLearningRate
        self._record = None
        self._journal.hand_on()
        # Kept if the step fails, for inspection.
        self._failed_batch = batch
        loss = self.MetaTrain(batch)
        if self._record is None:
            # MetaTrain of a class of one's own may be all its own.
            keep_encoding(self.BaseModel, check_tasks(batch), learned=self._has_learned)
        self._failed_batch = None
        elapsed = 1000 * (time.perf_counter() - began)
        self._iteration += 1
        record = self._record = self._record or StepRecord(np.full(len(batch), loss), [math.nan])
        if rate is not None:
            record.metrics["OuterLearningRate"] = rate
        scalar = self._scalar()
        return MetaTrainingStepResult(
            metaLoss=loss,
            taskLoss=scalar(float(mean_of(record.losses))),
            accuracy=scalar(float(np.mean(record.accuracies))),
            numTasks=len(batch),
            iteration=self._iteration,
            timeMs=elapsed,
            additionalMetrics={name: scalar(value) for name, value in record.metrics.items()},
        )

    def _put_back_on_failure(self, sampler: object) -> None:
        """Have a sampler put back, if it can be, when the present change is undone."""
        if isinstance(sampler, IResumable):
            place = place_of(sampler)
            self._journal.also(lambda: set_place(sampler, place))


def check_sampler(sampler: object) -> None:
    """Raise ArgumentException unless this is a sampler."""
    check_given("sampler", sampler, "an ITaskSampler")
    require_members("sampler", sampler, ITaskSampler)
