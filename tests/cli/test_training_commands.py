"""train, resume, evaluate and info: what they print and write, and how they refuse."""

from __future__ import annotations

import json
import runpy
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import run_command
from omniglot_files import alphabets, write

import aidotnet_py
from aidotnet_py import NeuralNetworkModel, ReptileAlgorithm, RunFolder, iMAMLAlgorithm
from aidotnet_py.comparison import ALGORITHMS
from aidotnet_py.runs.data_sources import open_data
from aidotnet_py.runs.learners import make_learner
from aidotnet_py.runs.settings import RunSettings, changed

SHORT = [
    *("--iterations", "6", "--shots", "3", "--set", "options.MetaBatchSize=2", "--set", "options.AdaptationSteps=1"),
    *("--set", "options.EvaluationFrequency=2", "--set", "options.EvaluationTasks=4"),
    # There is half as much to trace.
    *("--set", "options.UseFirstOrder=true"),
]

# Little work on images.
OF_IMAGES = [word for name in ("MetaBatchSize", "AdaptationSteps") for word in ("--set", f"options.{name}=1")]


@pytest.fixture(autouse=True)
def _without_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aidotnet_py.runs.folder.draw_training", lambda *_: (_ for _ in ()).throw(ImportError()))


def run(*arguments: Any) -> Any:
    return run_command([str(argument) for argument in arguments])


def train(folder: Path, *arguments: Any) -> Any:
    return run("train", "sinusoid", "--run", folder, *SHORT, *arguments)


def learner_of(settings: RunSettings) -> Any:
    return make_learner(settings, open_data(settings))


class TestTrain:
    def test_and_resume_and_evaluate(self, tmp_path: Path) -> None:
        done = train(tmp_path / "run")
        assert done.exit_code == 0, done.output
        assert done.stdout.startswith("6 steps, the last with loss ")
        assert done.stderr == ""
        again = run("resume", tmp_path / "run", "--set", "options.NumMetaIterations=8", "--json")
        assert again.exit_code == 0, again.output
        told = json.loads(again.stdout)
        assert told["TotalIterations"] == 8
        assert told["FinalAccuracy"] is None
        assert told["checkpoints"][-1] == "checkpoint_MAML_8.safetensors"
        assert (tmp_path / "run" / "metrics.jsonl").read_bytes().count(b"MetaLoss") == 8

        result = run("evaluate", tmp_path / "run", "--tasks", "20", "--json")
        assert result.exit_code == 0, result.output
        numbers = json.loads(result.stdout)
        assert numbers["NumTasks"] == 20
        assert numbers["LossHalfWidth"] > 0
        learner: Any = aidotnet_py.load(tmp_path / "run" / "best.safetensors")
        assert numbers["Iteration"] == learner.CurrentIteration
        learner.Options.DataLoader = open_data(RunSettings(data="sinusoid", shots=3)).test
        assert float(learner.Evaluate(20).LossStats.Mean) == numbers["Loss"]
        for checkpoint in ("last", "checkpoint_MAML_8.safetensors", tmp_path / "run" / "checkpoint_MAML_8.safetensors"):
            result = run("evaluate", tmp_path / "run", "--tasks", "5", "--checkpoint", checkpoint)
            assert result.stdout.startswith(
                "checkpoint_MAML_8.safetensors after 8 steps, on 5 new tasks, with 95 % int"
            )

    @pytest.mark.slow
    def test_a_checkpoint_is_the_one_of_the_run_from_wherever(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for seed in (1, 2):
            assert train(tmp_path / f"of seed {seed}", "--seed", seed).exit_code == 0

        def evaluated(checkpoint: str) -> Any:
            done = run("evaluate", tmp_path / "of seed 1", "--tasks", 5, "--checkpoint", checkpoint, "--json")
            assert done.exit_code == 0, done.output
            return json.loads(done.stdout)["Loss"]

        name = "checkpoint_MAML_6.safetensors"
        monkeypatch.chdir(tmp_path / "of seed 2")
        assert evaluated(name) == evaluated("last")
        assert evaluated(f"./{name}") == evaluated(str(Path(name).absolute())) != evaluated("last")
        Path(name).rename("another.safetensors")
        assert evaluated("another.safetensors") != evaluated("last")

    def test_settings_of_a_file_are_overridden(self, tmp_path: Path) -> None:
        # Editors of Windows write the mark at the beginning.
        (tmp_path / "run.toml").write_text(
            '\ufeffdata = "sinusoid"\nalgorithm = "iMAML"\nseed = 4\nkeep = 1\n'
            "[options]\nNumMetaIterations = 50\nAdaptationSteps = 2\nMetaBatchSize = 2\nEvaluationFrequency = 0\n"
            'OuterLearningRateSchedule = {type = "CosineSchedule", steps = 3}\n',
            encoding="utf-8",
        )
        arguments = ["--config", tmp_path / "run.toml", "--run", tmp_path / "run", "--iterations", "3"]
        done = run("train", *arguments, "--set", "options.Lambda=0.5", "--seed", "5")
        assert done.exit_code == 0, done.output
        held = RunFolder(tmp_path / "run").read()
        assert held["algorithm"] == "iMAML"
        assert held["seed"] == 5
        assert held["options"]["LambdaRegularization"] == 2.0
        assert held["options"]["AdaptationSteps"] == 2
        assert held["options"]["NumMetaIterations"] == 3
        assert held["options"]["OuterLearningRateSchedule"]["type"] == "CosineSchedule"
        assert len(RunFolder(tmp_path / "run").checkpoints) == 1

    @pytest.mark.slow
    def test_workers_give_the_bits_of_one_process(self, tmp_path: Path) -> None:
        for name, more in (("one", ()), ("two", ("--workers", 2))):
            done = train(tmp_path / name, "--set", "options.MetaBatchSize=5", *more)
            assert done.exit_code == 0, done.output
        again = run("resume", tmp_path / "two", "--workers", 3, "--set", "options.NumMetaIterations=8")
        assert again.exit_code == 0, again.output
        assert run("resume", tmp_path / "one", "--set", "options.NumMetaIterations=8").exit_code == 0
        one, two = ((tmp_path / name / "metrics.jsonl").read_text().splitlines() for name in ("one", "two"))
        assert len(one) == len(two) > 8
        times = ("TimeMs", "EvaluationTime")
        for of_one, of_two in zip(map(json.loads, one), map(json.loads, two), strict=True):
            assert {k: v for k, v in of_one.items() if k not in times} == {
                k: v for k, v in of_two.items() if k not in times
            }

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            (("--workers", "0"), "--workers must be"),
            (("--workers", "2", "--scheduler", "tcp://127.0.0.1:1"), "--workers must be left out with --scheduler"),
            (("--scheduler", "nonsense://127.0.0.1:1"), "--scheduler must be the address of a Dask scheduler"),
        ],
    )
    def test_no_workers(self, given: tuple[str, ...], message: str, tmp_path: Path) -> None:
        if "address" in message:
            pytest.importorskip("distributed")
        done = train(tmp_path / "run", *given)
        assert done.exit_code == 2
        assert message in done.stderr

    @pytest.mark.slow
    def test_patience(self, tmp_path: Path) -> None:
        done = train(tmp_path / "run", "--patience", "1", "--set", "options.OuterLearningRate=1e-30", "--json")
        assert json.loads(done.stdout)["TotalIterations"] == 4

    @pytest.mark.slow
    def test_classes(self, tmp_path: Path) -> None:
        done = run("train", "digits", "--run", tmp_path, *SHORT, "--iterations", "2", "--algorithm", "FOMAML")
        assert done.exit_code == 0, done.output
        assert "accuracy" in done.stdout
        assert "accuracy " in run("evaluate", tmp_path, "--tasks", "4").stdout

    @pytest.mark.costly
    @pytest.mark.parametrize("name", ["run", "my  run's"])
    def test_ctrl_c_says_how_to_go_on(self, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        original = RunFolder.on_step

        def interrupted(self: Any, run: Any, step: Any) -> None:
            original(self, run, step)
            if step.Iteration == 3:
                raise KeyboardInterrupt

        monkeypatch.setattr(RunFolder, "on_step", interrupted)
        done = train(tmp_path / name)
        assert done.exit_code == 130
        told, command = done.stderr.rstrip("\n").split(", run: ")
        assert told == "aidotnet-py: Train was stopped after 3 of 6 steps, all of them whole. To go on"
        assert shlex.split(command) == ["aidotnet-py", "resume", str(tmp_path / name)]
        monkeypatch.undo()
        assert run("resume", tmp_path / name).exit_code == 0

    def test_a_failure_says_how_to_go_on(self, tmp_path: Path) -> None:
        done = train(tmp_path / "my  run", "--set", "options.InnerLearningRate=1e30")
        assert f"run: aidotnet-py resume '{tmp_path / 'my  run'}'" in done.stderr

    @pytest.mark.parametrize(("steps", "code"), [(0, 2), (3, 1), (6, 1)])
    def test_a_full_disk_is_a_failure_once_there_are_steps(
        self, steps: int, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It was told as a wrong argument, status 2."""

        def save(self: Any, run: Any) -> None:
            if run.learner.CurrentIteration >= steps:
                raise OSError(28, "No space left on device", str(self.path))

        monkeypatch.setattr(RunFolder, "_save", save)
        done = train(tmp_path / "run", "--set", "options.CheckpointFrequency=4")
        assert done.exit_code == code
        assert "[Errno 28] No space left on device" in done.stderr
        assert ("aidotnet-py resume" in done.stderr) == (steps == 3)

    @pytest.mark.slow
    def test_an_archive_is_found_from_another_folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        members = alphabets("One", "Two", "Three", characters=5, images=17)
        write(tmp_path / "here.zip", members)
        (tmp_path / "other").mkdir()
        monkeypatch.chdir(tmp_path)
        done = run("train", "omniglot", "--archive", "here.zip", "--run", "run", *SHORT[:2], *OF_IMAGES)
        assert done.exit_code == 0, done.output
        monkeypatch.chdir(tmp_path / "other")
        done = run("evaluate", "../run", "--tasks", "2")
        assert done.exit_code == 0, done.output
        (tmp_path / "here.zip").rename("moved.zip")
        done = run("resume", "../run", "--set", "archive=moved.zip", "--json")
        assert done.exit_code == 0, done.output
        assert RunFolder(tmp_path / "run").read()["settings"]["archive"] == str(tmp_path / "other" / "moved.zip")

    def test_data_that_are_set_are_found_from_another_folder(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        rows = [f"{group},{x},{x * group}" for group in range(8) for x in range(8)]
        (tmp_path / "table.csv").write_text("\n".join(["g,x,y", *rows]) + "\n")
        monkeypatch.chdir(tmp_path)
        columns = ["--task", "g", "--target", "y"]
        done = run("train", "--set", "data=table.csv", *columns, "--run", "run", "--iterations", "2")
        assert done.exit_code == 0, done.output
        (tmp_path / "other").mkdir()
        monkeypatch.chdir(tmp_path / "other")
        done = run("evaluate", "../run", "--tasks", "2")
        assert done.exit_code == 0, done.output

    def test_a_training_that_diverges(self, tmp_path: Path) -> None:
        done = train(tmp_path / "run", "--set", "options.InnerLearningRate=1e30")
        assert done.exit_code == 1
        assert done.stderr.count("\n") == 1
        assert "of task 0" in done.stderr
        assert str(tmp_path / "run" / "failed_batch.npz") in done.stderr

    @pytest.mark.slow
    def test_logs_if_asked(self, tmp_path: Path) -> None:
        command = [
            sys.executable,
            "-m",
            "aidotnet_py",
            "train",
            "sinusoid",
            "--run",
            str(tmp_path),
            *SHORT,
            "--verbose",
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert "step 2: evaluation loss" in done.stderr


class TestRefusals:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["train", "sinusoid"], "train: --run must be the path of a new or empty folder, got None"),
            (["train", "--run", "r"], "train: data must be the name or the path of data, such as"),
            (
                ["train", "cifar", "--run", "r"],
                "train: data must be one of sinusoid, digits, omniglot, a folder of class folders, or",
            ),
            (["train", "omniglot", "--run", "r"], "train: archive must be the path of a published archive"),
            (["train", "sinusoid", "--run", "r", "--archive", "x"], "train: archive must be left out for sinusoid"),
            (["train", "sinusoid", "--run", "r", "--algorithm", "Newton"], "train: algorithm must be 'iMAML', 'MAML'"),
            (["train", "sinusoid", "--run", "r", "--keep", "0"], "train: keep must be a whole number of at least 1"),
            (["train", "sinusoid", "--run", "r", "--patience", "0"], "train: EarlyStoppingPatience must be"),
            (["train", "sinusoid", "--run", "r", "--iterations", "0"], "train: NumMetaIterations must be"),
            (["train", "sinusoid", "--run", "r", "--set", "seed"], "train: --set must be NAME=VALUE, such as seed=1"),
            (
                ["train", "sinusoid", "--run", "r", "--set", "sed=1"],
                "train: settings must have known names, got 'sed'; did you mean",
            ),
            (
                ["train", "sinusoid", "--run", "r", "--set", "options.InnerRate=1"],
                "train: options must be those of MAML, got another: MAMLOptions has no option 'InnerRate'; did",
            ),
            (
                ["train", "sinusoid", "--run", "r", "--set", "options.RandomSeed=1"],
                "train: options must be without RandomSeed",
            ),
            (["train", "sinusoid", "--run", "r", "--config", "no.toml"], "train: No such file or directory"),
            (["train", "sinusoid", "--run", "/proc/r"], "train: path must be a folder that can be made"),
            (["train", "sinusoid", "--run", "taken"], "train: path must be a folder or a new one, got a file at"),
            (["train", "", "--run", "r"], "train: data must be a name or a path, got ''"),
            (["train", "omniglot", "--run", "r", "--archive", ""], "train: archive must be a name or a path, got ''"),
            (["train", "sinusoid", "--run", "r", "--set", "data="], "train: data must be a name or a path, got ''"),
            (["train", "sinusoid", "--run", ""], ": Invalid value for '--run': must be a path, got ''"),
            (
                ["train", "sinusoid", "--run", "r", "--config="],
                ": Invalid value for '--config': must be a path, got ''",
            ),
            (["resume", ""], ": Invalid value for 'run': must be a path, got ''"),
            (["evaluate", "r", "--data", ""], ": Invalid value for '--data': must be a path, got ''"),
            (
                ["adapt", "r", "--support", "", "--query", "q", "--out", "o"],
                ": Invalid value for '--support': must be a path, got ''",
            ),
            (["merge", "a.json", ""], ": Invalid value for 'files': must be a path, got ''"),
            (["resume", "nowhere"], "resume: path must be the folder of a run, got one without run.json"),
            (["evaluate", "nowhere"], "evaluate: path must be the folder of a run, got one without run.json"),
            (["evaluate", "nowhere", "--tasks", "0"], "evaluate: --tasks must be a whole number of at least 1, got 0"),
        ],
    )
    def test_in_one_line_before_any_work(
        self, arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        Path("taken").write_text("kept")
        done = run(*arguments)
        assert done.exit_code == 2
        # What typer refuses has no command.
        assert done.stderr.startswith(f"aidotnet-py{message}" if message[0] == ":" else f"aidotnet-py {message}")
        assert done.stderr.count("\n") == 1
        assert done.stdout == ""
        assert [path.name for path in tmp_path.iterdir()] == ["taken"]

    def test_a_traceback_only_with_debug(self, tmp_path: Path) -> None:
        done = run("train", "cifar", "--run", tmp_path / "r", "--debug")
        assert done.exit_code == 1
        assert isinstance(done.exception, aidotnet_py.ArgumentException)

    @pytest.mark.parametrize("text", ["data = sinusoid", f"seed = {'9' * 5000}", f"seed = {'[' * 5000}"])
    def test_files_that_are_no_toml(self, text: str, tmp_path: Path) -> None:
        (tmp_path / "run.toml").write_text(text)
        done = run("train", "--config", tmp_path / "run.toml", "--run", tmp_path / "r")
        assert done.exit_code == 2
        assert "config must be a file in TOML" in done.stderr

    @pytest.mark.parametrize(
        ("text", "more", "message"),
        [
            ('data = ["sinusoid"]', (), "data must be a string, got ['sinusoid']"),
            ("data = {name = 'sinusoid'}", (), "data must be a string, got {'name': 'sinusoid'}"),
            ("data = 'sinusoid'\noptions = [3]", (), "options must be a table of options, got [3]"),
            (
                "data = 'sinusoid'\noptions = [3]",
                ("--set", "options.AdaptationSteps=3"),
                "options must be a table of options, got [3]",
            ),
        ],
    )
    def test_values_of_another_kind_in_the_toml(
        self, text: str, more: tuple[str, ...], message: str, tmp_path: Path
    ) -> None:
        """Some ended in the traceback of a TypeError."""
        (tmp_path / "run.toml").write_text(text)
        done = run("train", "--config", tmp_path / "run.toml", "--run", tmp_path / "r", *more)
        assert (done.exit_code, done.stderr) == (2, f"aidotnet-py train: {message}\n")

    def test_a_run_that_is_there(self, tmp_path: Path) -> None:
        assert train(tmp_path / "run").exit_code == 0
        before = (tmp_path / "run" / "metrics.jsonl").read_bytes()
        done = train(tmp_path / "run")
        assert done.exit_code == 2
        assert "which holds a run; resume continues it" in done.stderr
        assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == before

    def test_a_run_of_python_is_not_the_commands(self, tmp_path: Path) -> None:
        learner = learner_of(RunSettings(data="sinusoid", options={"NumMetaIterations": 1}))
        learner.Train(run=RunFolder(tmp_path / "run"))
        done = run("resume", tmp_path / "run")
        assert done.exit_code == 2
        assert "must be a run of this command" in done.stderr

    def test_checkpoints_that_are_not_there(self, tmp_path: Path) -> None:
        assert train(tmp_path / "run").exit_code == 0
        for name in ("checkpoint_MAML_5.safetensors", ""):
            done = run("evaluate", tmp_path / "run", "--checkpoint", name)
            assert done.exit_code == 2
            assert "--checkpoint must be 'best' or 'last', or a file, such as" in done.stderr


class TestSettings:
    def test_no_data_are_not_the_working_folder(self) -> None:
        with pytest.raises(aidotnet_py.ArgumentException, match=r"^data must be one of sinusoid, .*, got ''"):
            open_data(RunSettings(data=""))

    @pytest.mark.parametrize(
        ("values", "message"),
        [
            ({"data": 3}, "data must be a string, got 3"),
            ({"data": "sinusoid", "archive": 3}, "archive must be a string, got 3"),
            ({"data": "sinusoid", "options": [1]}, "options must be a table of options"),
            ({"data": "sinusoid", "seed": -1}, "seed must be"),
            ({"data": "sinusoid", "shots": 0}, "shots must be"),
            ({"data": "photographs", "ways": 1}, "ways must be a whole number of at least 2 or None, got 1"),
            ({"data": "t.csv", "target": 3}, "target must be the name of a column, got 3"),
            ({"nothing": 1}, "settings must have known names, got 'nothing'; settings are data, algorithm"),
        ],
    )
    def test_that_are_none(self, values: dict[str, Any], message: str) -> None:
        with pytest.raises(aidotnet_py.ArgumentException, match=message):
            RunSettings.of(values)

    def test_are_set_by_name(self) -> None:
        values = {"data": "sinusoid"}
        assert changed(values, "algorithm", "ANIL") == {**values, "algorithm": "ANIL"}
        assert changed(values, "options.Curvature", "hessian") == {**values, "options": {"Curvature": "hessian"}}
        for name in ("more.seed", "options.a.b"):
            with pytest.raises(
                aidotnet_py.ArgumentException, match=r"set must be the name of a setting, or options\.NAME"
            ):
                changed(values, name, "1")

    @pytest.mark.parametrize("more", ["seed = 99", "[options]\nseed = 99"])
    def test_are_set_one_at_a_time(self, more: str) -> None:
        with pytest.raises(aidotnet_py.ArgumentException, match="set must be one setting and its value, got '"):
            changed({"data": "sinusoid"}, "options.AdaptationSteps", f"3\n{more}")
        assert changed({}, "log", '[\n"csv",\n]') == {"log": ["csv"]}

    def test_leave_the_paper_s_terms_to_the_options(self) -> None:
        options = {"LambdaRegularization": 3.0, "InnerObjective": "proximal"}
        learner: Any = learner_of(RunSettings(data="sinusoid", algorithm="iMAML", options=options))
        assert learner.Options.LambdaRegularization == 3.0

    @pytest.mark.parametrize("algorithm", [name for name, one in ALGORITHMS.items() if not one.needs_classes])
    def test_make_each_algorithm(self, algorithm: str) -> None:
        learner: Any = learner_of(RunSettings(data="sinusoid", algorithm=algorithm, seed=3))
        assert learner.Options.RandomSeed == 3
        assert learner.Options.NumMetaIterations == 2000
        assert isinstance(learner.BaseModel, NeuralNetworkModel)
        if isinstance(learner, ReptileAlgorithm):
            assert learner.OuterLearningRate == 1.0
        if isinstance(learner, iMAMLAlgorithm):
            assert learner.Options.LambdaRegularization == 0.064

    def test_make_one_that_needs_classes(self) -> None:
        settings = RunSettings(data="digits", algorithm="ProtoNets", options={"MetaBatchSize": 2})
        learner: Any = learner_of(settings)
        # The network without its last layer.
        assert learner.BaseModel.ParameterCount == open_data(settings).model(0).ParameterCount - 5 * 32 - 5
        assert np.isfinite(learner.MetaTrainStep(2).MetaLoss)
        with pytest.raises(aidotnet_py.ArgumentException, match="algorithm must be an algorithm of regression"):
            learner_of(RunSettings(data="sinusoid", algorithm="ProtoNets"))

    def test_validation_and_test_are_other_tasks(self) -> None:
        data = open_data(RunSettings(data="sinusoid"))
        tasks = [loader.GetNextTask().SupportInput for loader in (data.training, data.validation, data.test)]
        assert not any(np.array_equal(tasks[i], tasks[j]) for i, j in ((0, 1), (0, 2), (1, 2)))


def test_info() -> None:
    done = run("info", "--json")
    assert done.exit_code == 0
    assert json.loads(done.stdout)["aidotnet_py"] == aidotnet_py.__version__
    assert "blas" in run("info").stdout


def test_version() -> None:
    done = run("--version")
    assert (done.exit_code, done.stdout) == (0, f"aidotnet-py {aidotnet_py.__version__}\n")


def test_the_package_is_a_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["aidotnet-py", "--version"])
    with pytest.raises(SystemExit) as done:
        runpy.run_module("aidotnet_py", run_name="__main__", alter_sys=False)
    assert done.value.code == 0
    assert capsys.readouterr().out.startswith("aidotnet-py ")
