"""The base of all algorithms: training runs, checkpoints, and all that the rooms beside give a learner.

An algorithm is a subclass that writes `meta_gradient`; `core` has options, optimizers and learned vectors, `evaluating`
adapts and evaluates, `stepping` takes steps.
"""

from __future__ import annotations

import os
import warnings
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, cast, overload

from aidotnet_py.archives import check_file_name
from aidotnet_py.arguments import entries_of
from aidotnet_py.caller import level_outside
from aidotnet_py.descriptions import describe
from aidotnet_py.exceptions import ArgumentException, InvalidOperationException
from aidotnet_py.locks import Lock
from aidotnet_py.meta_learning.contract.enums import MetaLearningAlgorithmType
from aidotnet_py.meta_learning.contract.options import MetaLearnerOptions
from aidotnet_py.meta_learning.contract.protocols import missing_members, require_members
from aidotnet_py.meta_learning.contract.results import MetaTrainingResult, MetaTrainingStepResult
from aidotnet_py.meta_learning.contract.sources import IEpisode, IResumable, ITaskSampler
from aidotnet_py.meta_learning.contract.task_batch import TaskBatch
from aidotnet_py.meta_learning.contract.tasks import IMetaLearningTask
from aidotnet_py.meta_learning.contract.training_run import IRunFolder, ITrainingCallback, TrainingHistory, TrainingRun
from aidotnet_py.meta_learning.learner.checkpoint import Checkpoint
from aidotnet_py.meta_learning.learner.encodings import property_of_loader
from aidotnet_py.meta_learning.learner.journal import whole
from aidotnet_py.meta_learning.learner.model_statistics import statistics_of
from aidotnet_py.meta_learning.learner.own_optimizer import as_given
from aidotnet_py.meta_learning.learner.states import place_of, set_place
from aidotnet_py.meta_learning.learner.stepping import LEFT_OUT, SteppingLearner, check_sampler
from aidotnet_py.meta_learning.learner.training import train
from aidotnet_py.meta_learning.learner.turns import takes_turns
from aidotnet_py.models.comparison import compare_models, describe_model, properties_of
from aidotnet_py.models.interfaces import TModel_co
from aidotnet_py.models.raw_data import take_raw_data
from aidotnet_py.representations import concise_repr
from aidotnet_py.type_parameters import T, TInput, TOutput

__all__ = ["MetaLearnerBase"]


class MetaLearnerBase(SteppingLearner[T, TInput, TOutput, TModel_co]):
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

    Examples
    --------
    >>> import numpy as np
    >>> from aidotnet_py import NeuralNetworkModel
    >>> from aidotnet_py.data import SinusoidLoader
    >>> from aidotnet_py.meta_learning import MetaLearningAlgorithmType
    >>> from aidotnet_py.meta_learning.extend import MetaLearnerBase, MetaLearnerOptions
    >>> from aidotnet_py.nn import mlp
    >>> class FirstOrder(MetaLearnerBase):
    ...     AlgorithmType = MetaLearningAlgorithmType.MAML
    ...     def meta_gradient(self, tasks):
    ...         return tasks.query_gradient(tasks.adapt()), {}
    >>> model = NeuralNetworkModel(mlp(8, 1), input_shape=(1,), seed=0)
    >>> learner = FirstOrder(MetaLearnerOptions(model, DataLoader=SinusoidLoader(seed=0)))
    >>> learner.MetaTrainStep(4).NumTasks
    4
    """

    __repr__ = concise_repr

    def __init__(self, options: MetaLearnerOptions[T, TInput, TOutput, TModel_co]) -> None:
        super().__init__(options)
        self._history: TrainingHistory[T] = TrainingHistory()
        # Of the run of `Train` at hand, to be saved with the learner.
        self._sampler: ITaskSampler[Any, TInput, TOutput] | None = None
        # Where the sampler was when the file was saved that was loaded, at which iteration; for the next run.
        self._sampler_of_file: tuple[int, Any] | None = None
        # Of the last run, held by its thread until it ends: let go of without a line of Python, whatever stops the run.
        self._running = Lock()

    @property
    @abstractmethod
    def AlgorithmType(self) -> MetaLearningAlgorithmType:
        """Which algorithm this is."""

    @overload
    def Train(
        self,
        sampler: ITaskSampler[Any, TInput, TOutput] = ...,
        /,
        *,
        run: IRunFolder | None = None,
        resume: IRunFolder | None = None,
        callbacks: Sequence[ITrainingCallback] = (),
    ) -> MetaTrainingResult[T]: ...

    @overload
    def Train(
        self,
        *,
        sampler: ITaskSampler[Any, TInput, TOutput],
        run: IRunFolder | None = None,
        resume: IRunFolder | None = None,
        callbacks: Sequence[ITrainingCallback] = (),
    ) -> MetaTrainingResult[T]: ...

    @overload
    def Train(self, input: TInput, expectedOutput: TOutput) -> None: ...

    def Train(
        self,
        input: Any = LEFT_OUT,
        expectedOutput: Any = LEFT_OUT,
        *,
        sampler: Any = LEFT_OUT,
        run: IRunFolder | None = None,
        resume: IRunFolder | None = None,
        callbacks: Sequence[ITrainingCallback] = (),
    ) -> MetaTrainingResult[T] | None:
        """Take NumMetaIterations steps of MetaBatchSize tasks, with a progress bar on a terminal.

        The tasks come from the DataLoader, or from a sampler: ``Train(sampler)`` draws the episodes of a step with
        `SampleOne`, and tells the sampler their losses with `UpdateWithFeedback` after it. ``Train(input,
        expectedOutput)`` is another method of the name, every model's: it trains the meta-model on one set of examples.

        Every EvaluationFrequency steps, EvaluationTasks tasks of the ValidationLoader, or else of the DataLoader, are
        evaluated; if a loader can put its draws aside (`IResumable`), how often that happens does not change what is
        trained on. With EarlyStoppingPatience, evaluations may end the run. With EnableCheckpointing, every
        CheckpointFrequency steps the learner is saved as ``checkpoint_{algorithm}_{iteration}.safetensors``, such as
        ``checkpoint_iMAML_500.safetensors``, in the folder that is the current one when the run begins; with a run
        folder, in that instead, whatever EnableCheckpointing says. Callbacks may set options, EnableCheckpointing too.

        Whatever stops it, Ctrl-C too, stops it between two steps, and is raised with a note of what is left to do;
        `training_result` has the histories up to there. With a run folder, ``Train(resume=RunFolder(path))`` goes on,
        in this or another process. Without one, set NumMetaIterations to what is left, the wanted total less
        CurrentIteration, and call it again; in another process, load the last checkpoint first. Either ends with the
        bits of a run that was not stopped; but only a run folder keeps the evaluations, and without one,
        EarlyStoppingPatience counts anew. The batch of a step that failed is kept as `failed_batch`.

        Parameters
        ----------
        sampler : ITaskSampler, optional
            The source of the tasks instead of the DataLoader. RandomSeed does not seed it.
        run : IRunFolder, optional
            Where to keep the run: a `RunFolder`, new or empty.
        resume : IRunFolder, optional
            A folder with a run to go on with, up to NumMetaIterations steps in all, instead of ``run``. The learner,
            and the sampler of a run with one, must be made as for the run; parameters, optimizer and random states come
            from the folder.
        callbacks : sequence of ITrainingCallback
            Called in their order, after the folder; but after a step before it, so that its checkpoint holds what
            they changed.
        input, expectedOutput : array
            As for `IModel.Train`.

        Returns
        -------
        MetaTrainingResult, or None for a set of examples
            ``AdditionalMetrics`` holds the mean loss and accuracy of each evaluation, as ``EvaluationLoss@{iteration}``
            and ``EvaluationAccuracy@{iteration}``. Of a resumed run, the histories begin with its first step,
            and ``TrainingTime`` has the time of the earlier steps too.

        Raises
        ------
        InvalidOperationException
            When neither a sampler nor a DataLoader is there, or a step fails; the steps before it stay done. When
            called within a run of the learner, a callback moves CurrentIteration in a run with a folder, or that folder
            is moved away meanwhile.
        ArgumentNullException
            When the sampler, the input, the expected output or the callbacks are None.
        ArgumentException
            When there is a sampler twice, or anything beside the examples of the second form;
            when the sampler is none, with the members that it lacks; when callbacks are no sequence, or one is none;
            when a run folder holds what it should not, or not what it should; when an option is invalid, as set by a
            callback too; when there is EarlyStoppingPatience and nothing to evaluate.
        OSError
            When no checkpoint can be written into the folder, before the first step.
        """
        if expectedOutput is not LEFT_OUT:
            _require_left_out("expectedOutput is given", sampler=sampler, run=run, resume=resume, callbacks=callbacks)
            return self._train_model(input, expectedOutput)
        self._require_no_run("Train")
        if input is not LEFT_OUT:
            _require_left_out("one is given by position", sampler=sampler)
        source = sampler if input is LEFT_OUT else input
        if source is LEFT_OUT:
            self._loader()
        else:
            check_sampler(source)
        self._require_valid()
        folder = _folder_of(run, resume)
        called: list[Any] = entries_of("callbacks", "a sequence of ITrainingCallback", callbacks)
        for callback in called:
            # A method that a callback inherits from ITrainingCallback does nothing, and that is enough.
            if isinstance(callback, type) or not isinstance(callback, ITrainingCallback):
                require_members("callbacks", callback, ITrainingCallback)
        history, running = TrainingHistory[T](), Lock()
        step, resumes = lambda: self._step_of_run(history, source), resume is not None
        with running:
            self._running, self._history = running, history
            try:
                self._sampler = None if source is LEFT_OUT else source
                self._random.begin_run()
                if not resumes:
                    self._move_sampler()
                going = TrainingRun(self, history, self._sampler, running)
                return train(going, step, self._validate, folder, called, resume=resumes)
            finally:
                self._sampler = None
                self._random.end_run()

    @property
    def training_result(self) -> MetaTrainingResult[T] | None:
        """What the last `Train` has come to, or came to before it was stopped; None before its first step."""
        return self._history.result()

    @property
    def failed_batch(self) -> TaskBatch[Any, TInput, TOutput] | None:
        """The batch of the last `MetaTrainStep` or step of `Train` if that failed, for inspection; None otherwise."""
        return self._failed_batch

    @takes_turns
    @whole
    def _step_of_run(self, history: TrainingHistory[T], sampler: Any) -> MetaTrainingStepResult[T]:
        """Take a step of a run, tell the sampler, if there is one, and note it in the history: all or nothing."""
        self._journal.also(history.from_here())
        if sampler is LEFT_OUT:
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

    def _require_no_run(self, name: str) -> None:
        """Raise InvalidOperationException if this thread is in a run of `Train` of this learner."""
        if self._running.is_owned():
            raise InvalidOperationException(
                f"{name} must be called outside of a run of the learner, got a call within one, such as from a "
                "callback; end the run by run.stop first"
            )

    @takes_turns
    def Reset(self) -> None:
        """Return to iteration 0, empty optimizers and the first random state; the model keeps its parameters.

        Raises
        ------
        InvalidOperationException
            When called within a run of `Train`, such as from a callback.
        """
        self._require_no_run("Reset")
        self._iteration = 0
        self._record = self._sampler_of_file = None
        self._history = TrainingHistory()
        self._begin_with_model()
        self._random.rewind()

    # Checkpoints.

    @takes_turns
    def Save(self, filePath: str | os.PathLike[str]) -> None:
        """Write everything needed to go on bit for bit, in one safetensors file, whole or not at all.

        Parameters, statistics that the model normalises by, optimizer state, iteration, and the random state of the
        learner and, where it has `GetState`, of the DataLoader. Model and options are described, for `Load` to compare:
        a learner that takes the file up brings its own. How raw data were encoded, as by a TableLoader, is the property
        ``"encoding"`` of the model, and in the file. See docs/files.md.

        Warns
        -----
        UserWarning
            When the DataLoader, or the sampler of the run, lacks `GetState` and `SetState`, so that a resumed run draws
            other tasks.

        Raises
        ------
        ArgumentException
            When something is there that is no regular file, or the name ends as those of another format do, such as
            ``.pkl``; when an optimizer or loader has a state that no file can
            hold.
        InvalidOperationException
            When parameters or optimizer state are not finite.
        OSError
            When the file cannot be written, such as into a missing folder; an older one of that name is still whole.
        """
        check_file_name("filePath", filePath)
        for source in (self._options.DataLoader, self._sampler):
            if source is not None and not isinstance(source, IResumable):
                warnings.warn(
                    f"{type(source).__name__} lacks GetState and SetState (IResumable); its place is not saved, and a "
                    "resumed run draws other tasks",
                    UserWarning,
                    stacklevel=level_outside(),
                )
        self._heed_model()
        optimizer, statistics = self._meta_optimizer(), statistics_of(self.BaseModel)
        Checkpoint(
            algorithm=self.AlgorithmType.name,
            parameters=self._host(self._meta_parameters()),
            optimizer=type(as_given(optimizer)).__name__,
            optimizer_state=dict(optimizer.GetState()),
            iteration=self._iteration,
            random_state={**self._random.saved(), **self._sampler_state()},
            extra_state={name: self._host(array) for name, array in self._extra_state().items()},
            model=describe_model(self.BaseModel),
            options=describe(self._options),
            # The loader's where nothing was learned from it yet.
            properties={**property_of_loader(self._options.DataLoader), **properties_of(self.BaseModel)},
            statistics=None if statistics is None else {name: self._host(value) for name, value in statistics.items()},
        ).save(filePath)

    def Load(self, filePath: str | os.PathLike[str]) -> None:
        """Take up what `Save` wrote; it continues as the saved learner would have, bit for bit.

        If the file was saved in a run with a sampler, the sampler of the next `Train` goes on from its place there.

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
            other has none; when another DataLoader or ValidationLoader cannot go on from its place in the file, and
            stays where it is; when the file was written by version 0.1.0, which wrote no checksums.
        """
        self._load(Checkpoint.load(filePath), str(filePath))

    def _sampler_state(self) -> dict[str, Any]:
        """Return the state of the run's sampler, or else of that of the loaded file, if there is one."""
        if self._sampler is None:
            place = self._loaded_place()
            return {} if place is None else {"sampler": place}
        return {"sampler": place_of(self._sampler)} if isinstance(self._sampler, IResumable) else {}

    def _loaded_place(self) -> Any:
        """Return the place of a sampler in the file that was loaded, if no step was taken since; None without one."""
        known = self._sampler_of_file
        return None if known is None or known[0] != self._iteration else known[1]

    def _move_sampler(self) -> None:
        """Have the sampler of a run that begins go on from its place in the file that was loaded."""
        sampler, place = self._sampler, self._loaded_place()
        if place is None or not isinstance(sampler, IResumable):
            return
        before = place_of(sampler)
        try:
            set_place(sampler, place)
        except Exception as error:
            set_place(sampler, before)
            warnings.warn(
                f"the saved place does not fit {type(sampler).__name__}, the sampler of this run, which stays where it "
                f"is and will give other tasks than the saved learner's: {error}",
                UserWarning,
                stacklevel=level_outside(),
            )

    @takes_turns
    @whole
    def _load(self, checkpoint: Checkpoint, source: str) -> None:
        """Take up a checkpoint, whose source messages name."""
        backend, optimizer = self._backend, self._meta_optimizer()
        parameters = self._host(self._meta_parameters())
        compared = compare_models(checkpoint.model, self.BaseModel)
        checkpoint.require_fit(source, self.AlgorithmType.name, as_given(optimizer), parameters, compared)
        place = checkpoint.random_state.get("sampler")
        try:
            optimizer.SetState(checkpoint.optimizer_state_on(backend))
            self._set_extra_state(checkpoint.extra_state)
            self._put_back_on_failure(self._options.ValidationLoader)
            unlike = not checkpoint.has_loader_like(self._options)
            told = self._random.take_up(checkpoint.random_state, any_loader=unlike)
            if self._sampler is not None and place is not None:
                self._put_back_on_failure(self._sampler)
                set_place(cast(Any, self._sampler), place)
            with self._state:
                self._set_meta_parameters(backend.asarray(checkpoint.parameters), checkpoint.statistics)
                take_raw_data(self.BaseModel, checkpoint.properties)
        except Exception as error:
            raise ArgumentException(f"{source} must hold a state that this learner can take: {error!r}") from error
        self._iteration = checkpoint.iteration
        # Now, as the sizes of a loader may belong to its state.
        caution = checkpoint.caution(source, compared, self._options)
        # Where warnings are errors, they undo what was taken up.
        for warning in (*(() if caution is None else (caution,)), *told):
            warnings.warn(warning, UserWarning, stacklevel=level_outside())
        self._sampler_of_file = None if place is None else (checkpoint.iteration, place)
        if self._running.is_owned():
            # Its evaluations follow those of the file.
            self._random.begin_run()


def _require_left_out(where: str, **arguments: Any) -> None:
    """Raise ArgumentException if one of these arguments was given, where another one would be used instead of it."""
    for name, value in arguments.items():
        is_empty = isinstance(value, tuple) and not value
        if value is not LEFT_OUT and value is not None and not is_empty:
            raise ArgumentException(f"{name} must be left out if {where}, got both")


def _folder_of(run: IRunFolder | None, resume: IRunFolder | None) -> IRunFolder | None:
    """Return the folder of a run after the check that it is one."""
    if run is not None and resume is not None:
        raise ArgumentException("run must be left out if resume is given, got both")
    folder = resume if run is None else run
    if isinstance(folder, (str, os.PathLike)):
        name = "resume" if run is None else "run"
        raise ArgumentException(f"{name} must be an IRunFolder, got {folder!r:.80}; use RunFolder({folder!r:.80})")
    if folder is not None:
        require_members("resume" if run is None else "run", folder, IRunFolder)
    return folder


def _task_of(episode: IEpisode[T, TInput, TOutput], sampler: object) -> IMetaLearningTask[T, TInput, TOutput]:
    """Return the task of an episode, once it is one."""
    missing = missing_members(episode, IEpisode)
    if missing:
        raise ArgumentException(
            f"SampleOne of {type(sampler).__name__} must return an IEpisode, got a {type(episode).__name__}, which "
            f"lacks {', '.join(missing)}"
        )
    return episode.Task
