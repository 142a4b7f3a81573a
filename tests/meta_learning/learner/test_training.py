"""Train: callbacks, early stopping, held-out evaluations, schedules and micro-batches."""

from __future__ import annotations

import copy
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from samplers import ListedSampler
from small_learners import image_model, images, meta_gradient, sinusoid_learner

from aidotnet_py import (
    ANILAlgorithm,
    ANILOptions,
    ArgumentException,
    InvalidOperationException,
    ITrainingCallback,
    MAMLAlgorithm,
    MAMLOptions,
    MetaLearningTask,
    MetaSGDAlgorithm,
    MetaSGDOptions,
    ReptileAlgorithm,
    ReptileOptions,
    SGDOptimizer,
    StepSchedule,
    TaskBatch,
    iMAMLAlgorithm,
    iMAMLOptions,
)
from aidotnet_py.backends import Backend
from aidotnet_py.data import SinusoidLoader
from aidotnet_py.testing.learner_state import bits

LEARNERS = [
    (MAMLAlgorithm, MAMLOptions),
    (iMAMLAlgorithm, iMAMLOptions),
    (ReptileAlgorithm, ReptileOptions),
    (MetaSGDAlgorithm, MetaSGDOptions),
    (ANILAlgorithm, ANILOptions),
]


def learner(**given: Any) -> Any:
    defaults = {"NumMetaIterations": 6, "MetaBatchSize": 3, "AdaptationSteps": 1, "EvaluationTasks": 4}
    # Of first order, for which there is half as much to trace.
    defaults |= {"EvaluationFrequency": 2, "RandomSeed": 1, "UseFirstOrder": True}
    return sinusoid_learner(MAMLAlgorithm, MAMLOptions, **{**defaults, **given})


class Diary(ITrainingCallback):
    def __init__(self, stop_at: int | None = None) -> None:
        self.pages: list[Any] = []
        self.stop_at = stop_at

    def on_start(self, run: Any) -> None:
        self.pages.append(("start", run.steps_left))

    def on_step(self, run: Any, step: Any) -> None:
        self.pages.append(("step", step.Iteration))
        if step.Iteration == self.stop_at:
            run.stop("it is enough")

    def on_evaluation(self, run: Any, evaluation: Any) -> None:
        self.pages.append(("evaluation", run.history.evaluations[-1].iteration, evaluation.NumTasks))

    def on_stop(self, run: Any, error: BaseException | None) -> None:
        self.pages.append(("stop", run.stop_reason, error))


class TestCallbacks:
    def test_in_their_order(self) -> None:
        diary = Diary()
        learner(NumMetaIterations=3).Train(callbacks=[diary])
        assert diary.pages == [
            ("start", 3),
            *(("step", 1), ("step", 2), ("evaluation", 2, 4), ("step", 3)),
            ("stop", None, None),
        ]

    def test_may_stop_the_run(self) -> None:
        diary = Diary(stop_at=2)
        assert learner().Train(callbacks=[diary]).TotalIterations == 2
        assert diary.pages[-1] == ("stop", "it is enough", None)
        assert ("evaluation", 2, 4) in diary.pages, "what is due is made before the end"

    def test_that_fail_stop_it_between_steps(self) -> None:
        class Failing(ITrainingCallback):
            def on_step(self, run: Any, step: Any) -> None:
                raise ZeroDivisionError

            def on_stop(self, run: Any, error: BaseException | None) -> None:
                raise KeyError("again")

        diary, student = Diary(), learner()
        with pytest.raises(ZeroDivisionError) as error:
            student.Train(callbacks=[Failing(), diary])
        assert student.CurrentIteration == 1
        assert diary.pages[-1] == ("stop", None, error.value)
        assert "on_stop of Failing failed after it: KeyError: 'again'" in error.value.__notes__

    @pytest.mark.parametrize("patience", [None, 3])
    def test_that_fail_leave_a_note_of_how_to_go_on(self, patience: int | None) -> None:
        class Failing(ITrainingCallback):
            def on_step(self, run: Any, step: Any) -> None:
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError) as error:
            learner(EarlyStoppingPatience=patience).Train(callbacks=[Failing()])
        (note,) = error.value.__notes__
        assert "set NumMetaIterations to 5 and call Train again" in note
        assert note.endswith("EarlyStoppingPatience counts anew then, which a run folder spares") == (patience == 3)

    def test_that_fail_at_the_end_keep_no_other_from_it(self) -> None:
        class Failing(ITrainingCallback):
            def on_stop(self, run: Any, error: BaseException | None) -> None:
                raise KeyError("at the end")

        diary, student = Diary(), learner()
        with pytest.raises(KeyError, match="at the end") as error:
            student.Train(callbacks=[Failing(), diary, Failing()])
        assert diary.pages[-1] == ("stop", None, None)
        assert error.value.__notes__ == ["on_stop of Failing failed after it: KeyError: 'at the end'"]
        assert student.training_result.TotalIterations == 6

    def test_that_stop_the_run_before_it_begins(self) -> None:
        class Early(ITrainingCallback):
            def on_start(self, run: Any) -> None:
                run.stop("the budget is used up")

        diary = Diary()
        with pytest.raises(InvalidOperationException, match="got a stop before the first: the budget is used up; call"):
            learner(EvaluationFrequency=0).Train(callbacks=[Early(), diary])
        assert diary.pages[-1] == ("stop", "the budget is used up", None)

    def test_that_fail_at_the_start_cost_no_step(self) -> None:
        class Failing(ITrainingCallback):
            def on_start(self, run: Any) -> None:
                raise ZeroDivisionError

        diary, student = Diary(), learner()
        with pytest.raises(ZeroDivisionError):
            student.Train(callbacks=[diary, Failing()])
        assert [page[0] for page in diary.pages] == ["start", "stop"]
        assert student.CurrentIteration == 0

    @pytest.mark.parametrize("callback", [print, Diary, object()])
    def test_must_be_callbacks(self, callback: Any) -> None:
        with pytest.raises(ArgumentException, match="callbacks must be an ITrainingCallback, got"):
            learner().Train(callbacks=[callback])

    @pytest.mark.parametrize("callbacks", [None, Diary(), 5, "log"])
    def test_must_be_a_sequence(self, callbacks: Any) -> None:
        student = learner()
        with pytest.raises(ArgumentException, match=r"^callbacks must be a sequence of ITrainingCallback, got "):
            student.Train(callbacks=callbacks)
        assert student.CurrentIteration == 0

    def test_of_a_generator_are_called(self) -> None:
        diaries = [Diary(), Diary()]
        learner(NumMetaIterations=1).Train(callbacks=(diary for diary in diaries))  # type: ignore[arg-type]
        assert [page[0] for diary in diaries for page in diary.pages] == ["start", "step", "stop"] * 2

    def test_change_no_bits(self) -> None:
        plain, watched = learner(), learner()
        plain.Train()
        watched.Train(callbacks=[Diary()])
        assert bits(watched) == bits(plain)

    @pytest.mark.parametrize("reason", [None, "", 5])
    def test_must_give_a_reason_to_stop(self, reason: Any) -> None:
        class Stop(ITrainingCallback):
            def on_step(self, run: Any, step: Any) -> None:
                run.stop(reason)

        with pytest.raises(ArgumentException, match=r"^reason must be a non-empty string, got "):
            learner().Train(callbacks=[Stop()])

    @pytest.mark.parametrize("event", ["on_start", "on_step", "on_evaluation"])
    @pytest.mark.parametrize(
        ("name", "value", "message"),
        [
            ("NumMetaIterations", "6", "NumMetaIterations must be a whole number of at least 1, got '6'"),
            ("NumMetaIterations", None, "NumMetaIterations must be a whole number of at least 1, got None"),
            ("EarlyStoppingPatience", "a", "EarlyStoppingPatience must be a whole number of at least 1 or None, got"),
            ("EvaluationFrequency", None, "EvaluationFrequency must be a whole number of at least 0, got None"),
            ("CheckpointFrequency", 0, "CheckpointFrequency must be at least 1 with EnableCheckpointing, got 0"),
            ("DataLoader", 5, "DataLoader must be an IEpisodicDataLoader, got a int, which lacks"),
            ("ValidationLoader", 5, "ValidationLoader must be an IEpisodicDataLoader, got a int, which lacks"),
        ],
    )
    def test_must_leave_valid_options(
        self, event: str, name: str, value: Any, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def change(run: Any, _: Any = None) -> None:
            setattr(run.learner.Options, name, value)

        monkeypatch.chdir(tmp_path)
        changing, diary = Diary(), Diary()
        setattr(changing, event, change)
        with pytest.raises(ArgumentException, match=f"^{message}") as error:
            learner(EnableCheckpointing=True).Train(callbacks=[diary, changing])
        assert diary.pages[-1] == ("stop", None, error.value)

    @pytest.mark.parametrize("name", ["Train", "Reset"])
    def test_cannot_begin_the_learner_anew(self, name: str) -> None:
        class Again(ITrainingCallback):
            def on_step(self, run: Any, step: Any) -> None:
                getattr(run.learner, name)()

        student = learner()
        message = f"^{name} must be called outside of a run of the learner, got a call within one"
        with pytest.raises(InvalidOperationException, match=message):
            student.Train(callbacks=[Again()])
        assert (student.CurrentIteration, student.training_result.TotalIterations) == (1, 1)
        getattr(student, name)()
        assert student.CurrentIteration == (7 if name == "Train" else 0)

    @pytest.mark.slow
    def test_may_train_copies_of_the_learner(self) -> None:
        class Beside(ITrainingCallback):
            def on_step(self, run: Any, step: Any) -> None:
                twin = copy.deepcopy(run.learner)
                twin.Options.NumMetaIterations = 1
                assert twin.Train().TotalIterations == 1

        plain, watched = learner(), learner()
        plain.Train()
        watched.Train(callbacks=[Beside()])
        assert bits(watched) == bits(plain)

    def test_may_move_the_learner_in_a_run_without_a_folder(self, tmp_path: Path) -> None:
        class BackOnce(ITrainingCallback):
            def on_step(self, run: Any, step: Any) -> None:
                if len(run.history) == 1:
                    run.learner.Save(tmp_path / "first")
                elif len(run.history) == 3:
                    run.learner.Load(tmp_path / "first")

        student = learner()
        result = student.Train(callbacks=[BackOnce()])
        assert (result.TotalIterations, student.CurrentIteration) == (6, 4)
        assert result.LossHistory[1:3].tolist() == result.LossHistory[3:5].tolist()

    def test_may_switch_checkpoints_on(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        class From(ITrainingCallback):
            def on_step(self, run: Any, step: Any) -> None:
                run.learner.Options.EnableCheckpointing = 3 <= step.Iteration <= 4

        monkeypatch.chdir(tmp_path)
        learner(CheckpointFrequency=1).Train(callbacks=[From()])
        assert sorted(path.name for path in tmp_path.iterdir()) == [f"checkpoint_MAML_{k}.safetensors" for k in (3, 4)]

    def test_change_what_checkpoints_hold(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        class Shrink(ITrainingCallback):
            def on_step(self, run: Any, step: Any) -> None:
                run.learner.SetParameters(run.learner.GetParameters() * 0.5)

        monkeypatch.chdir(tmp_path)
        student, other = learner(EnableCheckpointing=True, CheckpointFrequency=6), learner()
        student.Train(callbacks=[Shrink()])
        other.Load("checkpoint_MAML_6.safetensors")
        np.testing.assert_array_equal(other.GetParameters(), student.GetParameters())


class TestEvaluations:
    def test_all_are_on_the_same_held_out_tasks(self) -> None:
        held_out = SinusoidLoader(4, 6, seed=9, dtype=np.float64)
        student = learner(ValidationLoader=held_out, OuterLearningRate=1e-300)
        place = held_out.GetState()
        result = student.Train()
        losses = [result.AdditionalMetrics[f"EvaluationLoss@{i}"] for i in (2, 4, 6)]
        assert losses[0] == losses[1] == losses[2]
        assert held_out.GetState() == place
        tasks = TaskBatch(SinusoidLoader(4, 6, seed=9, dtype=np.float64).GetTaskBatch(4))
        np.testing.assert_allclose(losses[0], student.Evaluate(tasks), rtol=1e-12)

    def test_do_not_change_the_training(self) -> None:
        often, never = learner(ValidationLoader=SinusoidLoader(4, 6, seed=9, dtype=np.float64)), learner()
        never.Options.EvaluationFrequency = 0
        often.Train()
        never.Train()
        np.testing.assert_array_equal(often.GetParameters(), never.GetParameters())

    @pytest.mark.parametrize(("patience", "steps"), [(1, 4), (2, 6), (None, 30)])
    def test_end_a_run_that_does_not_improve(self, patience: int | None, steps: int) -> None:
        held_out = SinusoidLoader(4, 6, seed=9, dtype=np.float64)
        student = learner(
            ValidationLoader=held_out, OuterLearningRate=1e-300, EarlyStoppingPatience=patience, NumMetaIterations=30
        )
        assert student.Train().TotalIterations == steps

    @pytest.mark.parametrize("missing", [{"EvaluationFrequency": 0}, {"DataLoader": None}])
    def test_must_be_there_for_early_stopping(self, missing: dict[str, Any]) -> None:
        student, sampler = learner(EarlyStoppingPatience=1), ListedSampler(SinusoidLoader(seed=0).GetTaskBatch(3))
        for name, value in missing.items():
            setattr(student.Options, name, value)
        with pytest.raises(
            ArgumentException, match=r"^EarlyStoppingPatience must be None where nothing is evaluated, got 1; set Eval"
        ):
            student.Train(sampler)
        assert sampler.place == 0

    def test_are_logged(self, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.INFO, "aidotnet_py.training"):
            learner(NumMetaIterations=2).Train()
        assert [record.message.split(":")[0] for record in caplog.records] == [
            *("MAML begins at step 0 of 2", "step 2", "ended after 2 steps"),
        ]


class TestSchedules:
    def test_set_the_rate_of_each_step(self) -> None:
        student = learner(OuterLearningRateSchedule=StepSchedule(2, factor=0.5), OuterLearningRate=0.01)
        steps = [student.MetaTrainStep(3) for _ in range(5)]
        rates = [float(step.AdditionalMetrics["OuterLearningRate"]) for step in steps]
        assert rates == [0.01, 0.01, 0.005, 0.005, 0.0025]
        assert student.OuterLearningRate == 0.0025

    def test_are_rates_set_by_hand(self) -> None:
        scheduled = learner(OuterLearningRateSchedule=StepSchedule(2, factor=0.5), OuterLearningRate=0.01)
        by_hand = learner(OuterLearningRate=0.01)
        for step in range(5):
            scheduled.MetaTrainStep(3)
            by_hand.Options.OuterLearningRate = 0.01 * 0.5 ** (step // 2)
            by_hand.MetaTrainStep(3)
        np.testing.assert_array_equal(scheduled.GetParameters(), by_hand.GetParameters())

    def test_must_be_functions_with_the_default_optimizer(self) -> None:
        with pytest.raises(ArgumentException, match="OuterLearningRateSchedule must be None with a MetaOptimizer"):
            learner(OuterLearningRateSchedule=StepSchedule(2), MetaOptimizer=SGDOptimizer(0.1))
        for wrong in (0.5, StepSchedule):
            with pytest.raises(ArgumentException, match="OuterLearningRateSchedule must be a function of the step"):
                learner(OuterLearningRateSchedule=wrong)

    @pytest.mark.parametrize("factor", [0.0, -1.0, np.nan])
    def test_must_give_factors_above_0(self, factor: float) -> None:
        student = learner(OuterLearningRateSchedule=lambda step: factor if step == 1 else 1.0)
        student.MetaTrainStep(3)
        before = bits(student)
        with pytest.raises(ArgumentException, match=r"OuterLearningRateSchedule\(1\) must be"):
            student.MetaTrainStep(3)
        assert bits(student) == before


class TestMicroBatches:
    @pytest.mark.costly
    @pytest.mark.parametrize(("algorithm", "options"), LEARNERS)
    @pytest.mark.parametrize("size", [1, 2, 5, 9])
    def test_have_the_bits_of_the_whole(self, algorithm: Any, options: Any, size: int) -> None:
        def trained(**given: Any) -> Any:
            student = sinusoid_learner(algorithm, options, MetaBatchSize=7, AdaptationSteps=2, RandomSeed=1, **given)
            steps = [student.MetaTrainStep(7) for _ in range(2)]
            return student, steps

        (whole, one), (parts, other) = trained(), trained(MicroBatchSize=size)
        np.testing.assert_array_equal(parts.GetParameters(), whole.GetParameters())
        for first, second in zip(one, other, strict=True):
            assert first.MetaLoss == second.MetaLoss
            assert first.NumTasks == second.NumTasks == 7
            assert dict(first.AdditionalMetrics) == dict(second.AdditionalMetrics)

    @pytest.mark.slow
    @pytest.mark.numpy_first
    @pytest.mark.parametrize("size", [1, 2])
    def test_on_every_backend(self, backend: Backend, size: int) -> None:
        batch = images(backend, count=3)
        whole, parts = (
            meta_gradient(image_model(backend), batch, MicroBatchSize=part, AdaptationSteps=2) for part in (None, size)
        )
        np.testing.assert_allclose(parts, whole, rtol=1e-9, atol=1e-12)

    def test_hold_fewer_tasks_at_a_time(self, monkeypatch: pytest.MonkeyPatch) -> None:
        opened: list[int] = []
        original = MAMLAlgorithm._open

        def noting(self: Any, tasks: Any, *rest: Any, **named: Any) -> Any:
            opened.append(len(tasks))
            return original(self, tasks, *rest, **named)

        monkeypatch.setattr(MAMLAlgorithm, "_open", noting)
        learner(MicroBatchSize=2).MetaTrainStep(5)
        assert opened == [2, 2, 1]

    @pytest.mark.parametrize("size", [1, 2])
    def test_name_tasks_by_their_places_in_the_batch(self, size: int) -> None:
        batch = list(SinusoidLoader(4, 6, seed=0, dtype=np.float64).GetTaskBatch(5))
        x, y = batch[3].SupportInput, batch[3].SupportOutput
        broken = MetaLearningTask(
            SupportSetX=x, SupportSetY=y * np.nan, QuerySetX=x, QuerySetY=y, NumWays=1, Name="broken"
        )
        small = [MetaLearningTask(SupportSetX=x, SupportSetY=y, QuerySetX=x, QuerySetY=y, NumWays=1) for _ in range(4)]
        student = learner(MicroBatchSize=size)
        before = bits(student)
        with pytest.raises(InvalidOperationException, match=r"of task 3 \(broken\) is not finite"):
            student.MetaTrain(TaskBatch([*small[:3], broken, small[3]]))
        assert bits(student) == before

    @pytest.mark.parametrize("size", [0, -1, 1.5, "2"])
    def test_are_counts(self, size: Any) -> None:
        with pytest.raises(ArgumentException, match="MicroBatchSize must be"):
            learner(MicroBatchSize=size)
