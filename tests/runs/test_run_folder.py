"""RunFolder: what it writes, and that a run goes on with its bits whatever stopped it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import warnings
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

import aidotnet_py
from aidotnet_py import (
    ArgumentException,
    ArgumentNullException,
    ArgumentOutOfRangeException,
    BalancedTaskSampler,
    CosineSchedule,
    CrossEntropyLoss,
    FunctionModel,
    InvalidOperationException,
    ITrainingCallback,
    MAMLAlgorithm,
    MAMLOptions,
    NeuralNetworkModel,
    ReptileAlgorithm,
    ReptileOptions,
    RunFolder,
)
from aidotnet_py.backends import Backend
from aidotnet_py.data import ArrayLoader, CurriculumEpisodicDataLoader, SineWaveMetaDataset, SinusoidLoader
from aidotnet_py.meta_learning.learner.checkpoint import Checkpoint
from aidotnet_py.nn import mlp
from aidotnet_py.runs import environment, open_learner

OPTIONS = {
    "EvaluationFrequency": 3,
    "EvaluationTasks": 4,
    "CheckpointFrequency": 4,
    "NumMetaIterations": 10,
    "MetaBatchSize": 2,
    "AdaptationSteps": 1,
    "RandomSeed": 3,
}


@pytest.fixture(autouse=True)
def _without_figures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures take longer than all else."""
    if "curves" not in request.node.name:
        monkeypatch.setattr("aidotnet_py.runs.folder.draw_training", lambda *_: (_ for _ in ()).throw(ImportError()))


def learner(algorithm: Any = MAMLAlgorithm, options: Any = MAMLOptions, units: int = 4, **given: Any) -> Any:
    model = NeuralNetworkModel(mlp(units, 1), input_shape=(1,), seed=0)
    loaders = {"DataLoader": SinusoidLoader(4, 4, seed=0), "ValidationLoader": SinusoidLoader(4, 4, seed=1)}
    # Of first order, for which there is half as much to trace; a folder does not depend on it.
    order = {"UseFirstOrder": True} if options is MAMLOptions else {}
    return algorithm(options(model, **{**loaders, **OPTIONS, **order, **given}))


def sampler() -> Any:
    return BalancedTaskSampler(SineWaveMetaDataset(seed=1), numWays=1, numShots=4, numQueryPerClass=4, seed=2)


def lines(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def lines_of_whole(run: Path) -> list[dict[str, Any]]:
    """All lines but one that is still being written."""
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").split("\n")[:-1]]


def bits(run: Path) -> list[bytes]:
    names = ("metrics.jsonl", "best.safetensors", "checkpoint_MAML_10.safetensors")
    return [(run / name).read_bytes() for name in names]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nothing stopped; tests change copies of it alone."""
    run = tmp_path_factory.mktemp("runs") / "alone"
    learner().Train(run=RunFolder(run))
    return run


@pytest.fixture(scope="module")
def alone(finished: Path) -> list[bytes]:
    return bits(finished)


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


class TestCurves:
    def test_the_curves_of_a_folder_are_the_histories(self, tmp_path: Path) -> None:
        trainee = learner()
        run = RunFolder(tmp_path)
        result = trainee.Train(run=run)
        # A line that another process is writing.
        with open(tmp_path / "metrics.jsonl", "a", encoding="utf-8") as file:
            file.write('{"Iteration": 11, "Meta')
        (axes,) = run.draw("A run").axes
        np.testing.assert_array_equal(axes.lines[0].get_ydata(), result.LossHistory)
        np.testing.assert_array_equal(axes.lines[0].get_xdata(), range(1, 11))
        evaluations = [line["EvaluationLoss"] for line in lines_of_whole(tmp_path) if "EvaluationLoss" in line]
        (drawn,) = [line for line in axes.lines if line.get_marker() == "o"]
        np.testing.assert_allclose(np.array(drawn.get_ydata(), float), evaluations)
        assert list(drawn.get_xdata()) == [3, 6, 9]

    def test_the_curves_of_what_is_no_run(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match="path must be the folder of a run"):
            RunFolder(tmp_path).draw()

    @pytest.mark.slow
    def test_the_curves_of_a_damaged_run(self, tmp_path: Path) -> None:
        learner(NumMetaIterations=2).Train(run=RunFolder(tmp_path))
        (tmp_path / "metrics.jsonl").write_text('{"Iteration": 1}\n', encoding="utf-8")
        with pytest.raises(ArgumentException, match="must hold losses and accuracies"):
            RunFolder(tmp_path).draw()
        (tmp_path / "metrics.jsonl").write_text("", encoding="utf-8")
        with pytest.raises(InvalidOperationException, match="run must have a step to draw, got none in "):
            RunFolder(tmp_path).draw()


class TestContents:
    @pytest.mark.slow
    def test_two_runs_of_one_seed_are_alike_but_for_times(self, tmp_path: Path, alone: list[bytes]) -> None:
        learner().Train(run=RunFolder(tmp_path / "again"))
        assert bits(tmp_path / "again") == alone
        times = [json.loads(line) for line in (tmp_path / "again" / "times.jsonl").read_text().splitlines()]
        assert [line["Iteration"] for line in times] == [*range(1, 11)]
        assert all(line["TimeMs"] > 0 for line in times)

    def test_the_lines_are_the_histories(self, tmp_path: Path) -> None:
        result = learner().Train(run=RunFolder(tmp_path))
        steps = [line for line in lines(tmp_path) if "MetaLoss" in line]
        assert [line["MetaLoss"] for line in steps] == [float(loss) for loss in result.LossHistory]
        assert {line["Accuracy"] for line in steps} == {None}, "of regression"
        evaluations = {line["Iteration"]: line for line in lines(tmp_path) if "EvaluationLoss" in line}
        assert list(evaluations) == [3, 6, 9]
        for iteration, line in evaluations.items():
            assert line["EvaluationLoss"] == float(result.AdditionalMetrics[f"EvaluationLoss@{iteration}"])
            assert line["EvaluationLossHalfWidth"] > 0
            assert line["EvaluationTasks"] == 4

    def test_what_the_run_is(self, tmp_path: Path) -> None:
        learner(NumMetaIterations=2).Train(run=RunFolder(tmp_path, settings={"mine": [1, "two"]}))
        learner(NumMetaIterations=3).Train(resume=RunFolder(tmp_path))
        run = RunFolder(tmp_path).read()
        assert run["algorithm"] == "MAML"
        assert run["seed"] == 3
        assert run["backend"] == "numpy"
        assert run["options"]["NumMetaIterations"] == 3
        assert run["settings"] == {"mine": [1, "two"]}
        assert [session["iteration"] for session in run["sessions"]] == [0, 2]
        assert run["sessions"][0]["environment"] == json.loads(json.dumps(environment()))

    @pytest.mark.parametrize("keep", [1, 2, 9])
    def test_the_last_checkpoints_and_the_best(self, keep: int, tmp_path: Path) -> None:
        folder = RunFolder(tmp_path, keep=keep)
        learner().Train(run=folder)
        wanted = [f"checkpoint_MAML_{i}.safetensors" for i in (0, 4, 8, 10)]
        assert [path.name for path in folder.checkpoints] == wanted[-keep:]
        best = min((line for line in lines(tmp_path) if "EvaluationLoss" in line), key=lambda x: x["EvaluationLoss"])
        assert aidotnet_py.load(folder.best).CurrentIteration == best["Iteration"]

    def test_curves(self, tmp_path: Path) -> None:
        learner().Train(run=RunFolder(tmp_path))
        assert (tmp_path / "curves.png").read_bytes()[:4] == b"\x89PNG"


class TestGoingOn:
    @pytest.mark.parametrize("steps", [0, 4, *(pytest.param(s, marks=pytest.mark.slow) for s in (1, 3, 9))])
    def test_after_a_callback_fails(self, steps: int, tmp_path: Path, alone: list[bytes]) -> None:
        class Fail(ITrainingCallback):
            def on_step(self, run: Any, step: Any) -> None:
                if step.Iteration == steps:
                    raise KeyboardInterrupt

            def on_start(self, run: Any) -> None:
                if steps == 0:
                    raise ZeroDivisionError

        with pytest.raises((KeyboardInterrupt, ZeroDivisionError)) as error:
            learner().Train(run=RunFolder(tmp_path), callbacks=[Fail()])
        if steps:
            (note,) = error.value.__notes__
            assert note.startswith(
                f"Train was stopped after {steps} of 10 steps, all of them whole. To go on, make the"
            )
            assert f"Train(resume=RunFolder({str(tmp_path)!r}))" in note
        again = learner()
        result = again.Train(resume=RunFolder(tmp_path))
        assert result.TotalIterations == 10
        assert bits(tmp_path) == alone

    # Of files that an interrupt left open as they were opened; they are closed as they are collected.
    @pytest.mark.slow
    @pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
    @pytest.mark.parametrize("begun", [False, True])
    def test_interrupts_at_any_line(self, begun: bool, tmp_path: Path, alone: list[bytes]) -> None:
        """The lines of the run folder and of the loop, every 97th of some thousands."""
        here = str(Path(aidotnet_py.__file__).parent)
        learning = f"{here}/meta_learning"
        loop = (f"{learning}/learner/{name}.py" for name in ("callbacks", "periodic_checkpoints", "training"))
        watched = (f"{here}/runs/", *loop, f"{learning}/contract/training_run.py")
        if begun:
            learner(NumMetaIterations=6).Train(run=RunFolder(tmp_path / "begun"))

        learner().Train(run=RunFolder(tmp_path / "alone"))
        best = aidotnet_py.load(tmp_path / "alone" / "best.safetensors").GetParameters()

        def go_on(run: Path) -> None:
            student, folder = learner(), RunFolder(run)
            # Killed before run.json was there, it begins anew.
            student.Train(**{"resume" if (run / "run.json").exists() else "run": folder})

        def is_interrupted(count: int, run: Path) -> bool:
            left = [count]

            def trace(frame: FrameType, event: str, _: Any) -> Any:
                if not frame.f_code.co_filename.startswith(watched) or frame.f_code.co_name == "__del__":
                    return None
                if event == "line":
                    left[0] -= 1
                    if left[0] == 0:
                        raise KeyboardInterrupt
                return trace

            # That of coverage.py comes back.
            before = sys.gettrace()
            sys.settrace(trace)
            try:
                go_on(run)
            except KeyboardInterrupt:
                return True
            finally:
                sys.settrace(before)
            # Python drops an interrupt in what the garbage collector calls; the run was whole then.
            return left[0] <= 0

        for count in range(1, 100_000, 97):
            run = tmp_path / str(count)
            if begun:
                shutil.copytree(tmp_path / "begun", run)
            if not is_interrupted(count, run):
                break
            go_on(run)
            # The best learner's file tells of NumMetaIterations too, which a run that was begun had otherwise.
            assert bits(run)[::2] == alone[::2], f"after an interrupt at line {count}"
            np.testing.assert_array_equal(aidotnet_py.load(run / "best.safetensors").GetParameters(), best)
        assert count > 1000

    def test_a_second_ctrl_c_while_it_saves(
        self, tmp_path: Path, alone: list[bytes], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Interrupt(ITrainingCallback):
            def on_step(self, run: Any, step: Any) -> None:
                if step.Iteration == 7:
                    monkeypatch.setattr(MAMLAlgorithm, "Save", interrupt)
                    raise KeyboardInterrupt

        def interrupt(*_: Any) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            learner().Train(run=RunFolder(tmp_path), callbacks=[Interrupt()])
        monkeypatch.undo()
        monkeypatch.setattr("aidotnet_py.runs.folder.draw_training", lambda *_: (_ for _ in ()).throw(ImportError()))
        assert RunFolder(tmp_path).checkpoints[-1].name == "checkpoint_MAML_4.safetensors"
        learner().Train(resume=RunFolder(tmp_path))
        assert bits(tmp_path) == alone

    @pytest.mark.costly
    @pytest.mark.parametrize(("steps", "killed"), [(4, False), (5, False), (6, False), (6, True), (8, False)])
    def test_with_callbacks_that_change_the_parameters(self, steps: int, killed: bool, tmp_path: Path) -> None:
        class Shrink(ITrainingCallback):
            def on_step(self, run: Any, step: Any) -> None:
                run.learner.SetParameters(run.learner.GetParameters() * np.float32(0.9))

            on_evaluation = on_step

        learner().Train(run=RunFolder(tmp_path / "whole"), callbacks=[Shrink()])
        learner(NumMetaIterations=steps).Train(run=RunFolder(tmp_path / "parts"), callbacks=[Shrink()])
        if killed:
            RunFolder(tmp_path / "parts").checkpoints[-1].unlink()
        learner().Train(resume=RunFolder(tmp_path / "parts"), callbacks=[Shrink()])
        assert bits(tmp_path / "parts") == bits(tmp_path / "whole")

    @pytest.mark.costly
    @pytest.mark.parametrize("event", ["on_start", "on_step", "on_evaluation"])
    @pytest.mark.parametrize("how", ["steps", "goes back"])
    def test_a_callback_that_moves_the_learner_is_refused(
        self, event: str, how: str, tmp_path: Path, alone: list[bytes]
    ) -> None:
        class Moving(ITrainingCallback):
            pass

        def move(run: Any, _: Any = None) -> None:
            if run.learner.CurrentIteration in (0, 6):
                if how == "steps":
                    run.learner.MetaTrainStep(2)
                else:
                    run.learner.Load(tmp_path / "earlier")

        before = learner()
        for _ in range(2):
            before.MetaTrainStep(2)
        before.Save(tmp_path / "earlier")
        moving = Moving()
        setattr(moving, event, move)
        message = r"^CurrentIteration must be [06] after a call of Moving, got [127]: the folder of a run holds"
        with pytest.raises(InvalidOperationException, match=message):
            learner().Train(run=RunFolder(tmp_path / "run"), callbacks=[moving])
        learner().Train(resume=RunFolder(tmp_path / "run"))
        assert bits(tmp_path / "run") == alone

    def test_beyond_the_first_end(self, tmp_path: Path, alone: list[bytes]) -> None:
        learner(NumMetaIterations=7).Train(run=RunFolder(tmp_path))
        result = learner().Train(resume=RunFolder(tmp_path))
        assert bits(tmp_path)[0] == alone[0]
        assert len(result.LossHistory) == 10

    def test_a_run_that_is_done_stays_so(self, copied: Path, alone: list[bytes]) -> None:
        assert learner().Train(resume=RunFolder(copied)).TotalIterations == 10
        assert bits(copied) == alone

    def test_the_pace_is_that_of_all_steps(self, copied: Path) -> None:
        path = copied / "times.jsonl"
        path.write_text(re.sub(r'"TimeMs": [^,]+', '"TimeMs": 4000.0', path.read_text()))
        result = learner(NumMetaIterations=11).Train(resume=RunFolder(copied))
        assert 40 < result.TrainingTime.total_seconds() < 44
        # 11 steps in about 41 s; the time of this call alone would give hundreds a second.
        assert "0.3 iterations/s" in result.GenerateReport()

    def test_times_that_are_none(self, copied: Path) -> None:
        path, student = copied / "times.jsonl", learner()
        path.write_text('{"Iteration": 1}\n')
        with pytest.raises(ArgumentException, match=r"times\.jsonl must hold times in milliseconds, got KeyError"):
            student.Train(resume=RunFolder(copied))
        assert student.CurrentIteration == 0

    def test_lines_after_the_checkpoint_are_taken_again(self, copied: Path, alone: list[bytes]) -> None:
        (copied / "checkpoint_MAML_10.safetensors").unlink()
        with open(copied / "metrics.jsonl", "ab") as file:
            file.write(b'{"Iteration": 11, "MetaL')
        learner().Train(resume=RunFolder(copied))
        assert bits(copied) == alone

    @pytest.mark.parametrize("name", ["metrics.jsonl", "times.jsonl"])
    def test_what_a_loss_of_power_leaves_after_the_checkpoint(
        self, name: str, copied: Path, alone: list[bytes]
    ) -> None:
        """Zeros in place of lines that were written and not flushed, with whole lines after them."""
        (copied / "checkpoint_MAML_10.safetensors").unlink()
        held = (copied / name).read_bytes().splitlines(keepends=True)
        first = next(i for i, line in enumerate(held) if json.loads(line)["Iteration"] > 8)
        (copied / name).write_bytes(b"".join([*held[:first], b"\0" * 50, b"\n", *held[first + 1 :]]))
        learner().Train(resume=RunFolder(copied))
        assert bits(copied) == alone
        assert len((copied / "times.jsonl").read_bytes().splitlines()) == 10

    def test_zeros_before_the_checkpoint_are_refused(self, copied: Path) -> None:
        held = (copied / "metrics.jsonl").read_bytes().splitlines(keepends=True)
        (copied / "metrics.jsonl").write_bytes(b"".join([*held[:-2], b"\0\n", held[-1]]))
        with pytest.raises(ArgumentException, match="must hold a JSON object with an Iteration"):
            learner().Train(resume=RunFolder(copied))
        assert (copied / "metrics.jsonl").read_bytes().endswith(held[-1])

    def test_all_lines_are_on_the_disk_before_a_checkpoint(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        done: list[Any] = []
        fsync, replace = os.fsync, os.replace

        def flushed(file: int) -> None:
            done.append(os.fstat(file).st_ino)
            fsync(file)

        def replaced(part: Any, target: Any, **beside: Any) -> None:
            done.append(Path(target).name)
            replace(part, target, **beside)

        monkeypatch.setattr(os, "fsync", flushed)
        monkeypatch.setattr(os, "replace", replaced)
        learner().Train(run=RunFolder(tmp_path / "run"))
        place = done.index("checkpoint_MAML_8.safetensors")
        last = done.index("checkpoint_MAML_4.safetensors")
        assert {(tmp_path / "run" / name).stat().st_ino for name in ("metrics.jsonl", "times.jsonl")} <= {
            *done[last:place]
        }

    def test_with_a_sampler(self, tmp_path: Path) -> None:
        def train(steps: int, **how: Any) -> Any:
            return learner(NumMetaIterations=steps).Train(sampler(), **how)

        train(8, run=RunFolder(tmp_path / "alone"))
        train(5, run=RunFolder(tmp_path / "parts"))
        train(8, resume=RunFolder(tmp_path / "parts"))
        assert (tmp_path / "alone" / "metrics.jsonl").read_bytes() == (
            tmp_path / "parts" / "metrics.jsonl"
        ).read_bytes()

    def test_under_a_schedule_with_micro_batches(self, tmp_path: Path) -> None:
        given = {"OuterLearningRateSchedule": CosineSchedule(8), "MicroBatchSize": 1}
        learner(**given).Train(run=RunFolder(tmp_path / "alone"))
        learner(**given, NumMetaIterations=5).Train(run=RunFolder(tmp_path / "parts"))
        learner(**given).Train(resume=RunFolder(tmp_path / "parts"))
        assert bits(tmp_path / "alone")[0] == bits(tmp_path / "parts")[0]
        rates = [line["OuterLearningRate"] for line in lines(tmp_path / "parts") if "MetaLoss" in line]
        np.testing.assert_allclose(rates, [0.001 * CosineSchedule(8)(step) for step in range(10)], rtol=1e-6)

    @pytest.mark.numpy_first
    def test_on_every_backend(self, backend: Backend, tmp_path: Path) -> None:
        def train(steps: int, **how: Any) -> Any:
            function = FunctionModel(lambda p, x: x * p["w"], {"w": np.zeros(1)}, backend=backend)
            source = SinusoidLoader(4, 4, seed=0, dtype=np.float64, backend=backend)
            given = {**OPTIONS, "NumMetaIterations": steps, "MicroBatchSize": 1}
            return MAMLAlgorithm(MAMLOptions(function, DataLoader=source, **given)).Train(**how)  # type: ignore[arg-type]

        train(6, run=RunFolder(tmp_path / "alone"))
        train(4, run=RunFolder(tmp_path / "parts"))
        train(6, resume=RunFolder(tmp_path / "parts"))
        alone, parts = (tmp_path / name / "metrics.jsonl" for name in ("alone", "parts"))
        assert alone.read_bytes() == parts.read_bytes()
        assert RunFolder(tmp_path / "parts").read()["backend"] == backend.name

    def test_early_stopping_stays(self, tmp_path: Path) -> None:
        given = {"EarlyStoppingPatience": 1, "OuterLearningRate": 1e-30, "NumMetaIterations": 50}
        first = learner(**given).Train(run=RunFolder(tmp_path))
        assert first.TotalIterations == 6
        assert learner(**given).Train(resume=RunFolder(tmp_path)).TotalIterations == 6

    @pytest.mark.parametrize("drawn", ["nothing", "on_start", "on_step", "on_evaluation"])
    @pytest.mark.parametrize("loaders", ["two", "one", "not seeded"])
    def test_evaluations_keep_their_tasks(self, loaders: str, drawn: str, tmp_path: Path) -> None:
        """Nothing is learned, so that equal tasks have equal losses; nor does it matter that others draw."""

        class Drawing(ITrainingCallback):
            pass

        def draw(run: Any, _: Any = None) -> None:
            run.learner.Options.ValidationLoader.GetNextTask()

        drawing = Drawing()
        setattr(drawing, drawn, draw)

        def still(steps: int) -> Any:
            loader = SinusoidLoader(4, 4, seed=0)
            validation = {"one": loader, "two": SinusoidLoader(4, 4, seed=1), "not seeded": SinusoidLoader(4, 4)}
            options = {"OuterLearningRate": 1e-300, "NumMetaIterations": steps, "CheckpointFrequency": 1}
            return learner(**{**options, "DataLoader": loader, "ValidationLoader": validation[loaders]})

        still(5).Train(run=RunFolder(tmp_path / "run"), callbacks=[drawing])
        still(7).Train(resume=RunFolder(tmp_path / "run"), callbacks=[drawing])
        still(10).Train(resume=RunFolder(tmp_path / "run"), callbacks=[drawing])
        found = [line["EvaluationLoss"] for line in lines(tmp_path / "run") if "EvaluationLoss" in line]
        assert len(found) == 3
        assert len(set(found)) == 1

    @pytest.mark.parametrize("evaluated", [True, False])
    @pytest.mark.parametrize(
        ("changed", "message"),
        [
            ({"EvaluationTasks": 5}, "EvaluationTasks is 4 there and 5 here"),
            ({"ValidationLoader": SinusoidLoader(3, 4, seed=1)}, "ValidationLoader.KShot is 4 there and 3 here"),
        ],
    )
    def test_evaluations_on_other_tasks_are_warned_of(
        self, changed: dict[str, Any], message: str, evaluated: bool, tmp_path: Path
    ) -> None:
        learner(NumMetaIterations=4 if evaluated else 2).Train(run=RunFolder(tmp_path))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            learner(**changed).Train(resume=RunFolder(tmp_path))
        assert [message in str(warning.message) for warning in caught] == ([True] if evaluated else [])

    @pytest.mark.parametrize("role", ["DataLoader", "ValidationLoader"])
    def test_a_loader_whose_sizes_are_its_state(self, role: str, tmp_path: Path) -> None:
        """It has the sizes of the beginning before its state is taken up, which is no other loader."""
        labels = np.repeat(range(3), 30)
        inputs = np.random.default_rng(0).normal(size=(90, 2)).astype(np.float32)

        class Advance(ITrainingCallback):
            def on_start(self, run: Any) -> None:
                getattr(run.learner.Options, role).SetProgress(1.0)

        def student(steps: int) -> Any:
            model = NeuralNetworkModel(mlp(4, 3), input_shape=(2,), loss=CrossEntropyLoss(), seed=0)
            loaders = {name: ArrayLoader(inputs, labels, 2, seed=0) for name in ("DataLoader", "ValidationLoader")}
            curriculum = {role: CurriculumEpisodicDataLoader(inputs, labels, 3, queryShots=5, seed=0)}
            settings = {**OPTIONS, "UseFirstOrder": True, "NumMetaIterations": steps}
            return MAMLAlgorithm(MAMLOptions(model, **{**settings, **loaders, **curriculum}))

        student(4).Train(run=RunFolder(tmp_path), callbacks=[Advance()])
        assert student(5).Train(resume=RunFolder(tmp_path), callbacks=[Advance()]).TotalIterations == 5

    def test_the_best_of_steps_that_are_taken_anew_goes(self, tmp_path: Path) -> None:
        class Killed(ITrainingCallback):
            def on_evaluation(self, run: Any, evaluation: Any) -> None:
                if run.history.best_evaluation.iteration == run.learner.CurrentIteration > 0:
                    shutil.rmtree(tmp_path / "killed", ignore_errors=True)
                    shutil.copytree(tmp_path / "whole", tmp_path / "killed")

        settings: dict[str, Any] = {"EvaluationFrequency": 2, "CheckpointFrequency": 100}
        learner(**settings).Train(run=RunFolder(tmp_path / "whole"), callbacks=[Killed()])
        run = RunFolder(tmp_path / "killed")
        assert Checkpoint.load(run.best).iteration > 0
        with pytest.warns(UserWarning, match="OuterLearningRate is 0.001 there and 10.0 here"):
            learner(**settings | {"NumMetaIterations": 1, "OuterLearningRate": 10.0}).Train(resume=run)
        # It goes on from the first checkpoint, and has no evaluation yet.
        assert not run.best.exists()

    def test_a_damaged_best_learner_keeps_no_run_from_going_on(self, copied: Path, alone: list[bytes]) -> None:
        (copied / "checkpoint_MAML_10.safetensors").unlink()
        (copied / "best.safetensors").write_bytes(b"x")
        learner().Train(resume=RunFolder(copied))
        assert bits(copied)[::2] == alone[::2]

    def test_an_older_best_learner_is_told(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        """A copy that was made while the run went on may have it."""

        class Copied(ITrainingCallback):
            def on_evaluation(self, run: Any, evaluation: Any) -> None:
                best = tmp_path / "run" / "best.safetensors"
                if not (tmp_path / "old").exists():
                    shutil.copy(best, tmp_path / "old")

        learner(OuterLearningRate=0.01).Train(run=RunFolder(tmp_path / "run"), callbacks=[Copied()])
        run = RunFolder(tmp_path / "run")
        newer, older = Checkpoint.load(run.best).iteration, Checkpoint.load(tmp_path / "old").iteration
        assert older < newer
        learner(OuterLearningRate=0.01).Train(resume=run)
        assert "best.safetensors" not in caplog.text
        open_learner(run.path)
        shutil.copy(tmp_path / "old", run.best)
        told = f"should be of step {newer}, which has the best evaluation, got step {older}"
        with pytest.warns(UserWarning, match=told):
            open_learner(run.path)
        learner(OuterLearningRate=0.01).Train(resume=run)
        assert told in caplog.text

    def test_the_best_learner_is_read_once(self, copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """It may have millions of parameters."""
        read, parse = [], Checkpoint.of
        monkeypatch.setattr(Checkpoint, "of", lambda data, path: read.append(path) or parse(data, path))
        open_learner(copied)
        assert read == [str(copied / "best.safetensors")]


class TestFailures:
    @pytest.mark.parametrize("name", ["price_$5_to_$9", "cost_$a_b_c$", "a\udcff"])
    def test_curves_have_any_name(self, name: str, tmp_path: Path) -> None:
        learner(NumMetaIterations=2).Train(run=RunFolder(tmp_path / name))
        assert (tmp_path / name / "curves.png").stat().st_size

    def test_a_run_does_not_fail_for_want_of_a_figure(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("aidotnet_py.runs.folder.draw_training", lambda *_: (_ for _ in ()).throw(OSError("full")))
        assert learner(NumMetaIterations=2).Train(run=RunFolder(tmp_path / "run")) is not None

    def test_the_batch_of_a_step_that_diverges_is_kept(self, tmp_path: Path) -> None:
        class Broken(SinusoidLoader[Any]):
            def GetTaskBatch(self, numTasks: int) -> Any:
                batch = super().GetTaskBatch(numTasks)
                if self.GetState()["state"]["state"] and count.append(1) is None and len(count) == 5:
                    batch[1].QueryOutput[2] = np.nan
                return batch

        count: list[int] = []
        student = learner(DataLoader=Broken(4, 4, seed=0))
        with pytest.raises(InvalidOperationException, match=r"query loss of task 1 .* is not finite") as error:
            student.Train(run=RunFolder(tmp_path))
        assert any("failed_batch.npz" in note for note in error.value.__notes__)
        with np.load(tmp_path / "failed_batch.npz", allow_pickle=False) as arrays:
            assert np.isnan(arrays["task1.QueryOutput"][2]).all()
            assert len(arrays.files) == 8
        assert student.failed_batch is not None
        assert student.CurrentIteration == 4
        assert [path.name for path in RunFolder(tmp_path).checkpoints][-1] == "checkpoint_MAML_4.safetensors"
        student.MetaTrainStep(2)
        assert student.failed_batch is None

    @pytest.mark.slow
    def test_each_byte_of_a_checkpoint(self, tmp_path: Path) -> None:
        learner(units=1, CheckpointFrequency=5).Train(run=RunFolder(tmp_path))
        path = tmp_path / "checkpoint_MAML_10.safetensors"
        data, student = path.read_bytes(), learner(units=1)
        for place in range(len(data)):
            damaged = bytearray(data)
            damaged[place] ^= 1 << place % 8
            path.write_bytes(damaged)
            with pytest.raises(ArgumentException) as error:
                student.Load(path)
            assert str(path) in str(error.value)
            with pytest.raises(ArgumentException):
                aidotnet_py.load(path)
        assert student.CurrentIteration == 0

    @pytest.mark.parametrize("length", [100, *(pytest.param(n, marks=pytest.mark.slow) for n in (0, 1, -1))])
    def test_a_truncated_checkpoint(self, length: int, copied: Path, alone: list[bytes]) -> None:
        path = copied / "checkpoint_MAML_10.safetensors"
        path.write_bytes(path.read_bytes()[:length])
        before = bits(copied)
        with pytest.raises(ArgumentException, match=r"if you remove that file, Train continues from checkpoint_MAML_8"):
            learner().Train(resume=RunFolder(copied))
        assert bits(copied) == before, "nothing is changed"
        path.unlink()
        learner().Train(resume=RunFolder(copied))
        assert bits(copied) == alone

    @pytest.mark.parametrize("gone", [slice(0, 3), slice(4, 5), slice(0, 99)])
    def test_metrics_with_steps_missing(self, gone: slice, copied: Path) -> None:
        lines = (copied / "metrics.jsonl").read_text().splitlines(keepends=True)
        del lines[gone]
        (copied / "metrics.jsonl").write_text("".join(lines))
        with pytest.raises(
            ArgumentException, match=r"metrics.jsonl must hold each step from 1 to 10, the step of checkpoint"
        ):
            learner().Train(resume=RunFolder(copied))

    def test_metrics_that_are_none(self, copied: Path) -> None:
        for text in ("[]\n", "no\n", '{"Iteration": "1"}\n', '{"Iteration": 1}\n' * 10):
            (copied / "metrics.jsonl").write_text(text)
            with pytest.raises(ArgumentException, match=r"metrics.jsonl must hold"):
                learner().Train(resume=RunFolder(copied))

    @pytest.mark.parametrize("damage", ['{"Iteration": 1}\n', "no\n"])
    def test_a_refused_folder_leaves_the_learner_as_it_was(self, damage: str, copied: Path) -> None:
        path, student = copied / "metrics.jsonl", learner()
        path.write_text(damage + path.read_text())
        before, text = student.BaseModel.GetParameters().copy(), path.read_text()
        with pytest.raises(ArgumentException, match=r"metrics.jsonl must hold"):
            student.Train(resume=RunFolder(copied))
        np.testing.assert_array_equal(student.BaseModel.GetParameters(), before)
        assert student.CurrentIteration == 0
        assert path.read_text() == text

    def test_a_refused_learner_leaves_the_metrics_as_they_were(self, copied: Path) -> None:
        for path in RunFolder(copied).checkpoints[1:]:
            path.unlink()
        before = (copied / "metrics.jsonl").read_bytes()
        with pytest.raises(ArgumentException, match="units is 4 there and 5 here"):
            learner(units=5).Train(resume=RunFolder(copied))
        assert (copied / "metrics.jsonl").read_bytes() == before

    def test_from_another_working_folder(
        self, tmp_path: Path, alone: list[bytes], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Move(ITrainingCallback):
            def on_step(self, run: Any, step: Any) -> None:
                monkeypatch.chdir(tmp_path / "elsewhere")

        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path)
        learner().Train(run=RunFolder("run"), callbacks=[Move()])
        assert bits(tmp_path / "run") == alone

    def test_of_another_learner(self, copied: Path) -> None:
        with pytest.raises(ArgumentException, match="algorithm is MAML there and Reptile here"):
            learner(ReptileAlgorithm, ReptileOptions).Train(resume=RunFolder(copied))
        # The checkpoint is good: nothing advises to remove it.
        with pytest.raises(ArgumentException, match=r"units is 4 there and 5 here$"):
            learner(units=5).Train(resume=RunFolder(copied))
        with pytest.warns(UserWarning, match="InnerLearningRate is 0.01 there and 0.02 here"):
            learner(InnerLearningRate=0.02).Train(resume=RunFolder(copied))

    def test_of_a_later_version(self, copied: Path) -> None:
        text = (copied / "run.json").read_text()
        (copied / "run.json").write_text(text.replace('"format": 1', '"format": 2'))
        with pytest.raises(ArgumentException, match=r"run.json must have format 1, got 2; install"):
            learner().Train(resume=RunFolder(copied))

    @pytest.mark.parametrize(
        "names", [["checkpoint_MAML_2.safetensors"], ["checkpoint_MAML_2.safetensors", "checkpoint_MAML_4.safetensors"]]
    )
    @pytest.mark.parametrize("lines", [None, "", '{"Iteration": 1}\n'])
    def test_files_of_the_user(self, names: list[str], lines: str | None, tmp_path: Path) -> None:
        """Only one checkpoint beside empty lines is a beginning that a killed process left behind."""
        for name in names:
            (tmp_path / name).write_text("kept")
        for name in ("metrics.jsonl", "times.jsonl"):
            if lines is not None:
                (tmp_path / name).write_text(lines)
        if lines == "" and len(names) == 1:
            assert learner(NumMetaIterations=1).Train(run=RunFolder(tmp_path)).TotalIterations == 1
            assert not (tmp_path / names[0]).exists()
            return
        with pytest.raises(ArgumentException, match=r"run must be a new or empty folder, got .* with '\w+\.\w+' in it"):
            learner().Train(run=RunFolder(tmp_path))
        assert all((tmp_path / name).read_text() == "kept" for name in names)
        assert lines is None or (tmp_path / "metrics.jsonl").read_text() == lines

    def test_folders_that_are_none(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("kept")
        (tmp_path / "other").mkdir()
        (tmp_path / "other" / "thesis.tex").write_text("kept")
        learner(NumMetaIterations=1).Train(run=RunFolder(tmp_path / "run"))
        for path, message in (
            (tmp_path / "file", "path must be a folder or a new one, got a file"),
            (tmp_path / "other", r"run must be a new or empty folder, got .* with 'thesis.tex'"),
            (tmp_path / "run", "which holds a run"),
            (Path("/dev/null"), "path must be a folder or a new one, got a file"),
        ):
            student = learner()
            with pytest.raises(ArgumentException, match=message):
                student.Train(run=RunFolder(path))
            assert student.CurrentIteration == 0
        for path in (tmp_path / "other", tmp_path / "nowhere"):
            with pytest.raises(FileNotFoundError, match="must be the folder of a run"):
                learner().Train(resume=RunFolder(path))
        assert (tmp_path / "file").read_text() == (tmp_path / "other" / "thesis.tex").read_text() == "kept"
        with pytest.raises(OSError, match="path must be a folder that can be made"):
            learner().Train(run=RunFolder("/proc/nowhere/run"))

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("no", "must hold a run in JSON"),
            ("[]", "must hold a run with its sessions"),
            ('{"format": 1}', "must hold a run with its sessions"),
            ('{"format": 1, "sessions": []}', "must hold where the run began"),
            ('{"format": 1, "sessions": [{"iteration": "first"}]}', "must hold where the run began"),
            ('{"format": 1, "sessions": [{"iteration": 1e400}]}', "must hold where the run began"),
            ('{"format": 1, "sessions": [{"iteration": 0.5}]}', "must hold where the run began"),
        ],
    )
    def test_a_damaged_description(self, text: str, message: str, copied: Path) -> None:
        (copied / "run.json").write_text(text)
        with pytest.raises(ArgumentException, match=message):
            learner().Train(resume=RunFolder(copied))

    @pytest.mark.parametrize("name", ["checkpoint_MAML_12", "checkpoint_MAML_9", "checkpoint_iMAML_10"])
    def test_a_checkpoint_under_the_name_of_another(self, name: str, copied: Path) -> None:
        """The next one would count as older, and be removed."""
        (copied / "checkpoint_MAML_10.safetensors").rename(copied / f"{name}.safetensors")
        with pytest.raises(ArgumentException, match="name of its algorithm and step, got MAML after 10 steps; if"):
            learner().Train(resume=RunFolder(copied))

    def test_without_a_checkpoint(self, tmp_path: Path) -> None:
        assert RunFolder(tmp_path / "nowhere").checkpoints == []
        learner().Train(run=RunFolder(tmp_path))
        for path in RunFolder(tmp_path).checkpoints:
            path.unlink()
        with pytest.raises(FileNotFoundError, match="must be the folder of a run with a checkpoint, got none"):
            learner().Train(resume=RunFolder(tmp_path))

    @pytest.mark.parametrize(
        "rest", ["", ', "MetaLoss": [], "Accuracy": null', f', "MetaLoss": {10**400}, "Accuracy": 0']
    )
    def test_lines_without_losses(self, rest: str, copied: Path) -> None:
        (copied / "metrics.jsonl").write_text("".join(f'{{"Iteration": {i}{rest}}}\n' for i in range(1, 11)))
        with pytest.raises(ArgumentException, match="must hold losses and accuracies"):
            learner().Train(resume=RunFolder(copied))

    def test_an_interval_of_negative_width(self, copied: Path) -> None:
        lines = (copied / "metrics.jsonl").read_text().replace('LossHalfWidth": ', 'LossHalfWidth": -')
        (copied / "metrics.jsonl").write_text(lines)
        for use in (RunFolder(copied).draw, lambda: learner().Train(resume=RunFolder(copied))):
            with pytest.raises(ArgumentException, match=r"must hold losses .*HalfWidth must be at least 0, .*got -"):
                use()

    def test_lines_of_no_step(self, copied: Path) -> None:
        lines = (copied / "metrics.jsonl").read_text().replace('{"Iteration": 3, "E', '{"Iteration": "x", "E')
        (copied / "metrics.jsonl").write_text(lines)
        for use in (RunFolder(copied).draw, lambda: learner().Train(resume=RunFolder(copied))):
            with pytest.raises(ArgumentException, match="with an Iteration in line 4, got"):
                use()

    @pytest.mark.parametrize("same", [False, True])
    def test_of_a_run_within_the_run(self, same: bool, tmp_path: Path, alone: list[bytes]) -> None:
        folder = RunFolder(tmp_path)

        class Second(ITrainingCallback):
            def on_start(self, run: Any) -> None:
                with pytest.raises(InvalidOperationException, match="must be in use by no other run"):
                    learner().Train(resume=folder if same else RunFolder(tmp_path))

        learner().Train(run=folder, callbacks=[Second()])
        assert bits(tmp_path) == alone

    @pytest.mark.parametrize("how", ["moved", "removed", "gone"])
    def test_that_leaves_its_place(self, how: str, tmp_path: Path) -> None:
        class Leave(ITrainingCallback):
            def on_step(self, run: Any, step: Any) -> None:
                if step.Iteration == 5:
                    (tmp_path / "run").rename(tmp_path / "elsewhere")
                    if how == "removed":
                        shutil.rmtree(tmp_path / "elsewhere")
                    if how != "gone":
                        (tmp_path / "run").mkdir()

        student = learner(EvaluationFrequency=0)
        with pytest.raises(InvalidOperationException, match="folder must stay in its place until the run ends"):
            student.Train(run=RunFolder(tmp_path / "run"), callbacks=[Leave()])
        assert student.CurrentIteration == 8, "the next checkpoint's"
        assert [*tmp_path.glob("run/*")] == []
        if how != "removed":
            assert learner(EvaluationFrequency=0).Train(resume=RunFolder(tmp_path / "elsewhere")).TotalIterations == 10

    @pytest.mark.parametrize("began", [True, False])
    def test_with_a_sampler_on_one_side_alone(self, began: bool, tmp_path: Path) -> None:
        class Fail(ITrainingCallback):
            def on_step(self, run: Any, step: Any) -> None:
                raise ZeroDivisionError

        remedy = (
            r"make learner and sampler .* Train\(sampler, resume" if began else r"make the learner .* Train\(resume"
        )
        with pytest.raises(ZeroDivisionError) as error:
            learner().Train(*([sampler()] if began else []), run=RunFolder(tmp_path), callbacks=[Fail()])
        assert re.search(remedy, error.value.__notes__[0])
        wanted = "given, a BalancedTaskSampler" if began else "left out"
        student = learner()
        with pytest.raises(ArgumentException, match=f"sampler must be {wanted}, as in the run in "):
            student.Train(*([] if began else [sampler()]), resume=RunFolder(tmp_path))
        assert student.CurrentIteration == 0

    def test_of_another_thread(self, tmp_path: Path) -> None:
        folder, refused = RunFolder(tmp_path), list[BaseException]()

        def train_beside() -> None:
            try:
                learner(ReptileAlgorithm, ReptileOptions).Train(run=folder)
            except InvalidOperationException as error:
                refused.append(error)

        class Second(ITrainingCallback):
            def on_step(self, run: Any, step: Any) -> None:
                if step.Iteration == 2:
                    thread = threading.Thread(target=train_beside)
                    thread.start()
                    thread.join()

        assert learner().Train(run=folder, callbacks=[Second()]).TotalIterations == 10
        assert "must be in use by no other run" in str(refused[0])
        assert not list(tmp_path.glob("*Reptile*"))

    def test_with_the_folder_of_a_run_whose_end_was_interrupted(
        self, tmp_path: Path, alone: list[bytes], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder = RunFolder(tmp_path)

        def interrupt(*_: Any) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr(RunFolder, "on_stop", interrupt)
            with pytest.raises(KeyboardInterrupt):
                learner(NumMetaIterations=7).Train(run=folder)
        learner().Train(resume=folder)
        assert bits(tmp_path) == alone

    @pytest.mark.slow
    def test_of_another_process(self, tmp_path: Path) -> None:
        class Second(ITrainingCallback):
            def on_step(self, run: Any, step: Any) -> None:
                if step.Iteration == 2:
                    code = f"import aidotnet_py; aidotnet_py.RunFolder({str(tmp_path)!r})._hold(None)"
                    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
                    assert "must be in use by no other run, got one that trains in it" in done.stderr
                    run.stop("seen")

        assert learner().Train(run=RunFolder(tmp_path), callbacks=[Second()]).TotalIterations == 2

    def test_arguments(self, tmp_path: Path) -> None:
        with pytest.raises(ArgumentOutOfRangeException, match="keep must be"):
            RunFolder(tmp_path, keep=0)
        with pytest.raises(ArgumentException, match="settings must be a mapping of values that JSON can hold"):
            RunFolder(tmp_path, settings={"a": object()})
        with pytest.raises(ArgumentException, match=r"settings must be .*: names in a mapping must be strings, got 0"):
            RunFolder(tmp_path, settings={"classes": {0: "cat"}})
        # An empty text, such as a shell's variable that is not set, was the working folder.
        for path in (3, "", b"a", "a\0"):
            with pytest.raises(ArgumentException, match="path must be the path of a folder"):
                RunFolder(path)  # type: ignore[arg-type]
            with pytest.raises(ArgumentException, match="path must be the folder of a run, or a file"):
                open_learner(path)  # type: ignore[arg-type]
        with pytest.raises(ArgumentNullException, match="path must be the folder of a run, or a file, got None"):
            open_learner(None)  # type: ignore[arg-type]
        with pytest.raises(ArgumentException, match=r"run must be an IRunFolder, got 'runs'; use RunFolder\('runs'\)"):
            learner().Train(run="runs")
        with pytest.raises(ArgumentException, match="run must be left out if resume is given"):
            learner().Train(run=RunFolder(tmp_path), resume=RunFolder(tmp_path))


FULL = """
import resource, sys
sys.path[:0] = {paths!r}
from test_run_folder import learner
from aidotnet_py import RunFolder
sys.modules["matplotlib"] = None
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, resource.RLIM_INFINITY))
student = learner(NumMetaIterations=40, CheckpointFrequency=6)
try:
    student.Train(run=RunFolder({run!r}))
except OSError as error:
    print(error.errno, student.CurrentIteration, error.filename)
"""


class TestFullDisk:
    """A limit on the size of files, beyond which writes fail as they do on a full disk."""

    def train(self, run: Path, limit: int) -> list[str]:
        code = FULL.format(paths=[*sys.path], limit=limit, run=str(run))
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        return done.stdout.split()

    @pytest.mark.slow
    def test_is_found_before_the_first_step(self, tmp_path: Path) -> None:
        assert self.train(tmp_path / "run", 1000)[:2] == ["27", "0"]

    @pytest.mark.slow
    def test_leaves_the_last_checkpoint_whole(self, tmp_path: Path) -> None:
        student = learner(NumMetaIterations=40, CheckpointFrequency=6)
        student.Train(run=RunFolder(tmp_path / "alone"))
        whole = ("checkpoint_MAML_40.safetensors", "run.json")
        limit = 1000 + max((tmp_path / "alone" / name).stat().st_size for name in whole)
        assert (tmp_path / "alone" / "metrics.jsonl").stat().st_size > limit
        number, steps, name = self.train(tmp_path / "run", limit)
        assert number == "27", "EFBIG"
        assert 12 < int(steps) < 40
        assert name == str(tmp_path / "run" / "metrics.jsonl")
        last = RunFolder(tmp_path / "run").checkpoints[-1]
        assert aidotnet_py.load(last).CurrentIteration >= 6
        learner(NumMetaIterations=40, CheckpointFrequency=6).Train(resume=RunFolder(tmp_path / "run"))
        for file in ("metrics.jsonl", "best.safetensors", "checkpoint_MAML_40.safetensors"):
            assert (tmp_path / "run" / file).read_bytes() == (tmp_path / "alone" / file).read_bytes()


class TestEnvironment:
    def test_libraries_are_those_of_the_metadata(self, monkeypatch: pytest.MonkeyPatch) -> None:
        required = ["numpy>=2.1", 'pytest>=8; extra == "data"', 'ruff; extra == "dev"', 'no-such-library; extra == "x"']
        module: Any = sys.modules["aidotnet_py.runs.environment"]
        monkeypatch.setattr(module, "requires", lambda name: required)
        # Without its cache.
        monkeypatch.setattr(module, "_libraries", module._libraries.__wrapped__)
        assert environment()["libraries"] == {"numpy": np.__version__, "pytest": pytest.__version__}

    def test_gpus_are_asked_of_cupy(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def properties(device: int) -> dict[str, Any]:
            return {"name": f"GPU {device}".encode()}

        runtime = SimpleNamespace(getDeviceCount=lambda: 2, getDeviceProperties=properties)
        monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
        monkeypatch.setitem(sys.modules, "cupy", SimpleNamespace(cuda=SimpleNamespace(runtime=runtime)))
        assert environment()["gpus"] == ["GPU 0", "GPU 1"]

        def broken() -> int:
            raise RuntimeError("no driver")

        runtime.getDeviceCount = broken
        assert environment()["gpus"] == []
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        assert environment()["gpus"] == []
        monkeypatch.setitem(sys.modules, "platformdirs", None)
        assert environment()["cache"] is None
