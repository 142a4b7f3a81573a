"""From a folder of images or a table to predictions, by the command line alone."""

from __future__ import annotations

import csv
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from command_line import run_command
from PIL import Image

from aidotnet_py import RunFolder, TaskBatch
from aidotnet_py.cli.training import settings_of
from aidotnet_py.comparison.settings import SEEDS
from aidotnet_py.data import ImageEncoding, ImageFolderLoader, TableEncoding, TableLoader
from aidotnet_py.runs import open_learner
from aidotnet_py.runs.data_sources import open_data
from aidotnet_py.runs.learners import make_learner
from aidotnet_py.runs.run_data import encoding_of

SHORT = [
    *("--set", "options.MetaBatchSize=2", "--set", "options.EvaluationFrequency=2"),
    *("--set", "options.EvaluationTasks=4", "--set", "options.AdaptationSteps=2"),
    # There is half as much to trace.
    *("--set", "options.UseFirstOrder=true"),
]


@pytest.fixture(autouse=True)
def _without_figures(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("aidotnet_py.runs.folder.draw_training", lambda *_: (_ for _ in ()).throw(ImportError()))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def run(*arguments: Any) -> Any:
    return run_command([str(argument) for argument in arguments])


def rows_of(file: Path) -> list[list[str]]:
    with file.open(newline="") as lines:
        return [*csv.reader(lines)]


def train_one_step(table: Path, folder: Path) -> None:
    columns = ("--task", "child", "--target", "height", "--order", "age")
    settings = ("MetaBatchSize=1", "EvaluationFrequency=0", "UseFirstOrder=true")
    short = [word for setting in settings for word in ("--set", f"options.{setting}")]
    done = run("train", table, "--run", folder, "--iterations", 1, *columns, *short)
    assert done.exit_code == 0, done.output


def shade(label: int, seed: int) -> Image.Image:
    """A photograph of a size of its own; its class is how light it is."""
    rng = np.random.default_rng(seed)
    height, width = rng.integers(20, 40, 2)
    values = rng.integers(0, 30, (height, width, 3)) + 25 * label
    return Image.fromarray(values.astype(np.uint8))


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    folder = tmp_path / "photographs"
    for label in range(8):
        (folder / f"kind {label}").mkdir(parents=True)
        for place in range(4):
            shade(label, 10 * label + place).save(folder / f"kind {label}" / f"{place}.{'png' if place else 'jpg'}")
    return folder


@pytest.fixture
def heights(tmp_path: Path) -> Path:
    """Fifty children, each measured 3 to 30 times."""
    rng = np.random.default_rng(0)
    lines = ["child,age,sex,height"]
    for child in range(50):
        start, rate = rng.normal(75, 4), rng.normal(6, 0.6)
        ages = np.sort(rng.uniform(1, 10, int(rng.integers(3, 31))))
        tall = start + rate * ages + rng.normal(0, 0.5, len(ages))
        lines += [f"c{child},{age:.2f},{'fm'[child % 2]},{cm:.2f}" for age, cm in zip(ages, tall, strict=True)]
    file = tmp_path / "heights.csv"
    file.write_text("\n".join(lines))
    return file


class TestPhotographs:
    @pytest.mark.slow
    def test_from_train_to_predictions(self, photographs: Path, tmp_path: Path, monkeypatch: Any) -> None:
        monkeypatch.chdir(tmp_path)
        done = run("train", "photographs", "--run", "run", "--size", 16, "--iterations", 4, *SHORT)
        assert done.exit_code == 0, done.output
        settings = json.loads((tmp_path / "run" / "run.json").read_text())["settings"]
        # Found from anywhere, and with the ways that eight classes allow.
        assert (settings["data"], settings["ways"]) == (str(photographs), 2)
        encoding = encoding_of(settings["encoding"])
        assert isinstance(encoding, ImageEncoding)
        assert encoding.input_shape == (16, 16, 3)
        monkeypatch.chdir("/")
        again = run("resume", tmp_path / "run", "--set", "options.NumMetaIterations=6", "--json")
        assert json.loads(again.stdout)["TotalIterations"] == 6
        resumed = json.loads((tmp_path / "run" / "run.json").read_text())["settings"]
        assert resumed == {**settings, "options": resumed["options"]}
        assert run("evaluate", tmp_path / "run", "--tasks", "5").exit_code == 0

        support, query, out = tmp_path / "support", tmp_path / "query", tmp_path / "predictions.csv"
        query.mkdir()
        for place, (name, label) in enumerate({"dusk": 0, "dawn": 9}.items()):
            (support / name).mkdir(parents=True)
            for seed in range(3):
                shade(label, 100 * place + seed).save(support / name / f"{seed}.png")
            for seed in range(3, 6):
                shade(label, 100 * place + seed).save(query / f"{name}, {seed}.png")
        model = tmp_path / "adapted.safetensors"
        done = run("adapt", tmp_path / "run", "--support", support, "--query", query, "--out", out, "--model", model)
        assert done.exit_code == 0, done.output
        head, *rows = rows_of(out)
        assert head == ["file", "class", "dawn", "dusk"]
        assert [row[0] for row in rows] == sorted(path.name for path in query.iterdir())
        shares = np.array([row[2:] for row in rows], float)
        np.testing.assert_allclose(shares.sum(1), 1, atol=2e-6)
        assert [row[1] for row in rows] == [["dawn", "dusk"][place] for place in shares.argmax(1)]
        loaded, known = open_learner(model)
        assert known == encoding
        assert loaded.GetModelMetadata().Properties["classes"] == ["dawn", "dusk"]
        scores = loaded.Predict(encoding.inputs([query / row[0] for row in rows]))
        assert [["dawn", "dusk"][place] for place in scores.argmax(1)] == [row[1] for row in rows]

    @pytest.mark.slow
    def test_what_does_not_fit(self, photographs: Path, tmp_path: Path) -> None:
        folder = tmp_path / "run"
        for arguments, message in (
            (("--ways", 5), "data must have at least 10 classes for tasks of 5"),
            (("--task", "x"), "task must be left out for a folder, got 'x'"),
            (("--archive", "x"), "archive must be left out for "),
        ):
            refused = run("train", photographs, "--run", folder, *arguments)
            assert refused.exit_code == 2
            assert message in refused.stderr
            assert not folder.exists()
        assert run("train", photographs, "--run", folder, "--size", 16, "--iterations", 2, *SHORT).exit_code == 0
        out = tmp_path / "out.csv"
        for support, query, message in (
            (photographs, photographs / "kind 0", "support must have at most 2 classes, as many as a task of the run"),
            (tmp_path / "nothing", photographs / "kind 0", "support must be an existing folder, got nothing"),
            (photographs, tmp_path, "support must have at most 2"),
        ):
            refused = run("adapt", folder, "--support", support, "--query", query, "--out", out)
            assert (refused.exit_code, message in refused.stderr) == (2, True), refused.stderr
        assert not out.exists()


def write_shades(folder: Path, *names: str | bytes, label: int = 0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for seed, name in enumerate(names):
        shade(label, seed).save(folder / os.fsdecode(name), "png")


@pytest.fixture(scope="module")
def run_on_shades(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One step on tasks of three classes."""
    place = tmp_path_factory.mktemp("shades")
    for label in range(6):
        write_shades(place / "shades" / f"kind {label}", "0.png", "1.png", "2.png", label=label)
    sizes = ("--ways", 3, "--shots", 1, "--size", 8, "--iterations", 1, "--algorithm", "FOMAML")
    short = [f"options.{name}" for name in ("MetaBatchSize=1", "AdaptationSteps=1", "EvaluationFrequency=0")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("aidotnet_py.runs.folder.draw_training", lambda *_: (_ for _ in ()).throw(ImportError()))
        patch.setenv("XDG_CACHE_HOME", str(place / "cache"))
        sets = [part for setting in short for part in ("--set", setting)]
        done = run("train", place / "shades", "--run", place / "run", *sizes, *sets)
    assert done.exit_code == 0, done.output
    return place / "run"


@pytest.fixture
def new_shades(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two new classes and a folder of others, in the working folder."""
    monkeypatch.chdir(tmp_path)
    for label, name in enumerate(("dusk", "dawn")):
        write_shades(Path("support", name), "0.png", "1.png", label=9 * label)
    write_shades(Path("query"), "a.png", "b.png")


def everything_in(*folders: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for folder in folders for path in folder.rglob("*") if path.is_file()}


@pytest.mark.usefixtures("new_shades")
class TestAdaptingToPhotographs:
    def adapt(self, folder: Path, out: str = "out.csv", *more: str) -> Any:
        return run("adapt", folder, "--support", "support", "--query", "query", "--out", out, *more)

    @pytest.mark.slow
    def test_leaves_out_what_systems_add_to_folders(self, run_on_shades: Path) -> None:
        for folder in ("query", "support", "support/dusk"):
            for name in (".DS_Store", "Thumbs.db", "desktop.ini"):
                Path(folder, name).write_bytes(b"")
        done = self.adapt(run_on_shades)
        assert done.exit_code == 0, done.output
        assert [row[0] for row in rows_of(Path("out.csv"))] == ["file", "a.png", "b.png"]

    @pytest.mark.slow
    def test_names_each_column_once(self, run_on_shades: Path) -> None:
        Path("support", "dusk").rename(Path("support", "class"))
        assert self.adapt(run_on_shades).exit_code == 0
        assert rows_of(Path("out.csv"))[0] == ["file", "class_", "class", "dawn"]
        Path("support", "dawn").rename(Path("support", "file"))
        assert self.adapt(run_on_shades).exit_code == 0
        assert rows_of(Path("out.csv"))[0] == ["file_", "class_", "class", "file"]

    @pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="names of files are Unicode on this system")
    def test_keeps_the_bytes_of_names_that_are_no_utf_8(self, run_on_shades: Path) -> None:
        write_shades(Path("query"), b"\xff.png")
        done = self.adapt(run_on_shades)
        assert done.exit_code == 0, done.output
        assert Path("out.csv").read_bytes().splitlines()[-1].startswith(b"\xff.png,")

    @pytest.mark.parametrize(
        ("out", "model", "message"),
        [
            ("out", "./out", "--model must be a file of its own, got 'out', the file of --out"),
            ("out.csv", "missing/a", "filePath must lie in an existing folder; make"),
            ("missing/out.csv", "a", "filePath must lie in an existing folder; make"),
            ("query", "a", "filePath must be a regular file or a new one, got a folder at 'query'"),
            ("query/a.png", "a", "--out must be a file of its own, got 'query/a.png', one of the inputs"),
            ("out.csv", "support/dusk/0.png", "--model must be a file of its own, got 'support/dusk/0.png', one of"),
            ("run/run.json", "a", "--out must be a file of its own, got 'run/run.json', a file of the run"),
            ("run/mlflow_run_id", "a", "--out must be a file of its own, got 'run/mlflow_run_id', a file of the run"),
            ("out.csv", "run/best.safetensors", "--model must be a file of its own, got 'run/best.safetensors', a"),
            ("out.csv", "kept.safetensors", "--model must be a file of its own, got 'kept.safetensors', one of the"),
            (
                "out.json",
                "a",
                "--out must be the name of a file of CSV, got 'out.json', which is one of JSON; use 'out.csv'",
            ),
            ("loop", "a", "filePath must lead to a file, got a circle of links at 'loop'"),
        ],
    )
    def test_writes_no_file_that_is_another_one(
        self, run_on_shades: Path, out: str, model: str, message: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("aidotnet_py.cli.adapting.learner_of", lambda _: pytest.fail("the work has begun"))
        Path("run").symlink_to(run_on_shades)
        Path("loop").symlink_to("loop")
        shutil.copy(RunFolder(run_on_shades).checkpoints[-1], "kept.safetensors")
        before = everything_in(Path(), run_on_shades)
        refused = self.adapt(Path("run"), out, "--model", model, "--checkpoint", "kept.safetensors")
        assert refused.exit_code == 2
        assert message in refused.stderr
        assert refused.stderr.count("\n") == 1
        assert everything_in(Path(), run_on_shades) == before

    def test_writes_its_file_into_the_folder_of_the_run_again(self, run_on_shades: Path) -> None:
        for _ in range(2):
            assert self.adapt(run_on_shades, str(run_on_shades / "predictions.csv")).exit_code == 0

    def test_refuses_an_adapted_model_as_its_checkpoint(self, run_on_shades: Path) -> None:
        assert self.adapt(run_on_shades, "out.csv", "--model", "pets.safetensors").exit_code == 0
        refused = self.adapt(run_on_shades, "other.csv", "--checkpoint", "pets.safetensors")
        assert refused.exit_code == 2
        assert "--checkpoint must be the file of a learner, got 'NeuralNetworkModel'" in refused.stderr


class TestEvaluatingOnOtherData:
    def evaluate(self, folder: Path, data: Path, *more: Any) -> Any:
        return run("evaluate", folder, "--data", data, "--tasks", 3, *more)

    def test_photographs(self, run_on_shades: Path, tmp_path: Path) -> None:
        for label in range(3):
            write_shades(tmp_path / "new" / f"shade {label}", "0.png", "1.png", label=4 * label)
        done = self.evaluate(run_on_shades, tmp_path / "new", "--json")
        assert done.exit_code == 0, done.output
        result = json.loads(done.stdout)
        assert (result["data"], result["NumTasks"]) == (str(tmp_path / "new"), 3)
        # In the encoding of the run, with its ways and shots, and as many query images as there are.
        learner, encoding = open_learner(run_on_shades)
        loader = ImageFolderLoader(tmp_path / "new", 3, 1, 1, size=8, seed=SEEDS, cache=tmp_path / "decoded")
        assert loader.encoding == encoding
        learner.Options.DataLoader = loader
        assert result["Loss"] == float(learner.Evaluate(3).LossStats.Mean)
        # Of a published layout, the test classes.
        for part, names in {"train": "01", "test": "012"}.items():
            for name in names:
                shutil.copytree(tmp_path / "new" / f"shade {name}", tmp_path / "divided" / part / name)
        divided = json.loads(self.evaluate(run_on_shades, tmp_path / "divided", "--json").stdout)
        assert divided["Loss"] == result["Loss"]

    def test_rows(self, heights: Path, tmp_path: Path) -> None:
        train_one_step(heights, tmp_path / "run")
        head, *rows = heights.read_text().splitlines()
        new = tmp_path / "new.csv"
        new.write_text("\n".join([head, *(f"n{row}" for row in rows[:60])]))
        before = everything_in(tmp_path / "run")
        # The data of the run need not be there.
        heights.rename(tmp_path / "elsewhere.csv")
        done = self.evaluate(tmp_path / "run", new)
        assert done.exit_code == 0, done.output
        assert f"on 3 new tasks of {new}, with 95 % intervals" in done.stdout
        assert everything_in(tmp_path / "run") == before
        # In the scale of the run.
        learner, encoding = open_learner(tmp_path / "run")
        assert isinstance(encoding, TableEncoding)
        learner.Options.DataLoader = TableLoader(
            new,
            task="child",
            target="height",
            order="age",
            small="skip",
            weighting="balanced",
            encoding=encoding,
            seed=SEEDS,
        )
        assert f"loss      {learner.Evaluate(3).LossStats.Mean:.4f} " in done.stdout

    def test_groups_in_order_come_once_each(self, heights: Path, tmp_path: Path) -> None:
        train_one_step(heights, tmp_path / "run")
        shutil.copy(heights, tmp_path / "new.csv")
        learner, encoding = open_learner(tmp_path / "run")
        parts = json.loads((tmp_path / "run" / "run.json").read_text())["settings"]["division"]
        loader: Any = TableLoader(heights, task="child", target="height", order="age", encoding=cast(Any, encoding))
        for more, groups in (((), loader.split(*parts.values())[1]), (("--data", tmp_path / "new.csv"), loader)):
            # As many tasks are asked for as would count each group several times.
            found = json.loads(run("evaluate", tmp_path / "run", *more, "--json").stdout)
            task_of = {task.Metadata["Group"]: task for task in groups.GetTaskBatch(600)}
            losses = [float(learner.Evaluate(TaskBatch([task]))) for task in task_of.values()]
            assert found["NumTasks"] == len(losses) == groups.AvailableClasses
            assert found["Loss"] == pytest.approx(np.mean(losses), rel=1e-5)
            assert found["LossHalfWidth"] == pytest.approx(1.96 * np.std(losses, ddof=1) / len(losses) ** 0.5, rel=1e-5)
        # So are the evaluations during a run.
        settings, facts = settings_of(RunFolder(tmp_path / "run"), ["options.EvaluationFrequency=1"])
        data = open_data(settings, facts)
        options = make_learner(settings, data).Options
        names = [task.Metadata["Group"] for task in data.validation.GetTaskBatch(options.EvaluationTasks)]
        assert sorted(names) == sorted(data.test.labels)

    def test_that_do_not_fit(self, run_on_shades: Path, heights: Path, tmp_path: Path) -> None:
        train_one_step(heights, tmp_path / "run")
        (tmp_path / "few.csv").write_text("child,age,height\na,1,70\na,2,80\n")
        write_shades(tmp_path / "few" / "a", "0.png", "1.png")
        write_shades(tmp_path / "few" / "b", "0.png", "1.png")
        for folder, data, message in (
            (run_on_shades, heights, "data must be a folder of class folders, as the run's, got "),
            (run_on_shades, tmp_path / "few", "data must have at least 3 classes, as many as a task of the run, got 2"),
            (run_on_shades, run_on_shades.parent / "shades", "data must be other data than those of the run, got "),
            (tmp_path / "run", heights, "leave it out for the classes or groups that the run held out"),
            (tmp_path / "run", tmp_path, "data must be a table (.csv, .tsv, .parquet), as the run's, got "),
            (tmp_path / "run", tmp_path / "few.csv", "table must have the column 'sex', got 'child', 'age', 'height'"),
            (tmp_path / "run", tmp_path / "none.csv", "data must be an existing folder or table, got nothing: "),
        ):
            refused = self.evaluate(folder, data)
            assert refused.exit_code == 2, refused.output
            assert message in refused.stderr
            assert refused.stderr.count("\n") == 1


class TestAdaptingToRows:
    @pytest.mark.slow
    def test_names_each_column_once(self, heights: Path, tmp_path: Path) -> None:
        heights.write_text(heights.read_text().replace("height", "row", 1))
        columns = ("--task", "child", "--target", "row")
        done = run("train", heights, "--run", tmp_path / "run", *columns, "--iterations", 1, *SHORT)
        assert done.exit_code == 0, done.output
        examples, out = tmp_path / "examples.csv", tmp_path / "out.csv"
        examples.write_text("age,sex,row\n1.5,f,80\n2.5,f,90\n")
        given = ("--support", examples, "--query", examples)
        assert run("adapt", tmp_path / "run", *given, "--out", out).exit_code == 0
        head, *rows = rows_of(out)
        assert head == ["row_", "row"]
        assert [row[0] for row in rows] == ["1", "2"]
        # The table that the run was trained on is not read, but resume needs it.
        for file in (examples, heights):
            before = file.read_bytes()
            refused = run("adapt", tmp_path / "run", *given, "--out", file)
            assert refused.exit_code == 2
            assert "--out must be a file of its own" in refused.stderr
            assert file.read_bytes() == before


class TestTable:
    def test_from_train_to_predictions(self, heights: Path, tmp_path: Path) -> None:
        folder, out = tmp_path / "run", tmp_path / "predictions.csv"
        columns = ("--task", "child", "--target", "height", "--order", "age")
        settings = ("--iterations", 40, "--set", "options.EvaluationFrequency=20", *SHORT[4:])
        done = run("train", heights, "--run", folder, *columns, *settings)
        assert done.exit_code == 0, done.output
        support, query = tmp_path / "support.csv", tmp_path / "query.csv"
        ages = np.arange(1.0, 10.0)
        support.write_text("age,sex,height\n" + "".join(f"{a},f,{76 + 6.2 * a}\n" for a in ages[::2]))
        query.write_text("age,sex\n" + "".join(f"{a},f\n" for a in ages[1::2]))
        done = run("adapt", folder, "--support", support, "--query", query, "--out", out)
        assert done.exit_code == 0, done.output
        head, *rows = rows_of(out)
        assert head == ["row", "height"]
        assert [int(row[0]) for row in rows] == [1, 2, 3, 4]
        found, truth = np.array([float(row[1]) for row in rows]), 76 + 6.2 * ages[1::2]
        # The mean of the support set is off by 14 on average.
        assert np.abs(found - truth).mean() < 7

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ((), "task must be a column of 'heights.csv', got None"),
            (("--task", "child"), "target must be a column of 'heights.csv', got None"),
            (("--task", "child", "--target", "heigth"), "target must be a column of the table"),
            (("--task", "child", "--target", "height", "--size", 3), "size must be left out for a table, got 3"),
        ],
    )
    def test_what_does_not_fit(self, heights: Path, tmp_path: Path, arguments: Any, message: str) -> None:
        refused = run("train", heights, "--run", tmp_path / "run", *arguments)
        assert refused.exit_code == 2
        assert message in refused.stderr
        assert refused.stderr.count("\n") == 1


class TestGroupsOfATable:
    @pytest.fixture
    def folder(self, heights: Path, tmp_path: Path) -> Path:
        train_one_step(heights, tmp_path / "run")
        return tmp_path / "run"

    def test_are_adapted_to_one_by_one(self, folder: Path, tmp_path: Path) -> None:
        known = ["x,1,f,80", "y,2,m,130", "x,3,f,90", "y,4,m,160", "z,5,m,99"]
        asked = ["y,6,m", "x,7,f", "x,8,f", "y,9,m"]
        support, query, out = (tmp_path / name for name in ("support.csv", "query.csv", "out.csv"))
        support.write_text("\n".join(["child,age,sex,height", *known]))
        query.write_text("\n".join(["child,age,sex", *asked]))
        done = run("adapt", folder, "--support", support, "--query", query, "--out", out)
        assert done.exit_code == 0, done.output
        head, *rows = rows_of(out)
        assert head == ["row", "height"]
        assert [row[0] for row in rows] == ["1", "2", "3", "4"]
        for child, places in (("x", [1, 2]), ("y", [0, 3])):
            support.write_text("\n".join(["age,sex,height", *(row[2:] for row in known if row[0] == child)]))
            query.write_text("\n".join(["age,sex", *(row[2:] for row in asked if row[0] == child)]))
            assert run("adapt", folder, "--support", support, "--query", query, "--out", out).exit_code == 0
            assert [row[1] for row in rows_of(out)[1:]] == [rows[place][1] for place in places]

    @pytest.mark.parametrize(
        ("known", "asked", "message"),
        [
            ("xy", "--", "--query must have the column 'child', in which --support has 2 groups, got none; add it"),
            ("--", "xy", "--support must have the column 'child', in which --query has 2 groups, got none; add it"),
            ("xx", "xy", "--query must have groups of --support in column 'child', got 'y'; add rows of it with"),
            ("xx", "yy", "--query must have groups of --support in column 'child', got 'y'; add rows of it with"),
            ("xy", "xy", "--model must be left out where --query has several groups, one model for each, got 2"),
        ],
    )
    def test_that_do_not_fit(self, folder: Path, tmp_path: Path, known: str, asked: str, message: str) -> None:
        for name, children in (("support", known), ("query", asked)):
            rows = [f"{child},{age},f,{80 + age}" for age, child in enumerate(children)]
            text = "\n".join(["child,age,sex,height", *rows])
            (tmp_path / name).with_suffix(".csv").write_text(text if "-" not in children else text.replace("-,", ","))
        given = ("--support", tmp_path / "support.csv", "--query", tmp_path / "query.csv")
        refused = run("adapt", folder, *given, "--out", tmp_path / "out.csv", "--model", tmp_path / "model.safetensors")
        assert refused.exit_code == 2
        assert message in refused.stderr
        assert not (tmp_path / "out.csv").exists()

    def test_strings_that_look_like_numbers(self, folder: Path, tmp_path: Path) -> None:
        """The children of training are strings; those of a file by itself would be read as numbers."""
        (tmp_path / "support.csv").write_text("child,age,sex,height\n01,1,f,80\n1,2,f,90\nx,2,f,90\n")
        (tmp_path / "query.csv").write_text("child,age,sex\n01,3,f\n1,3,f\n")
        given = ("--support", tmp_path / "support.csv", "--query", tmp_path / "query.csv")
        done = run("adapt", folder, *given, "--out", tmp_path / "out.csv")
        assert done.exit_code == 0, done.output
        _, (_, one), (_, other) = rows_of(tmp_path / "out.csv")
        assert one != other

    def test_a_file_of_another_format(self, folder: Path, tmp_path: Path) -> None:
        (tmp_path / "support.csv").write_text("child,age,sex,height\nx,1,f,80\nx,2,f,90\n")
        (tmp_path / "query.csv").write_text("age,sex\n3,f\n")
        given = ("--support", tmp_path / "support.csv", "--query", tmp_path / "query.csv")
        refused = run("adapt", folder, *given, "--out", tmp_path / "out.csv", "--model", tmp_path / "model.pt")
        assert refused.exit_code == 2
        assert "--model must be the name of a file of safetensors, got 'model.pt'" in refused.stderr
        assert not (tmp_path / "out.csv").exists()

    def test_one_needs_no_name_in_the_query(self, folder: Path, tmp_path: Path) -> None:
        (tmp_path / "support.csv").write_text("child,age,sex,height\nx,1,f,80\nx,2,f,90\n")
        (tmp_path / "query.csv").write_text("age,sex\n3,f\n")
        given = ("--support", tmp_path / "support.csv", "--query", tmp_path / "query.csv")
        done = run("adapt", folder, *given, "--out", tmp_path / "out.csv", "--model", tmp_path / "model.safetensors")
        assert done.exit_code == 0, done.output
        _, (_, predicted) = rows_of(tmp_path / "out.csv")
        adapted, encoding = open_learner(tmp_path / "model.safetensors")
        assert isinstance(encoding, TableEncoding)
        assert encoding.decode(adapted.Predict(encoding.inputs(tmp_path / "query.csv"))).tolist() == [float(predicted)]


class TestRunsOnChangedData:
    def test_go_on_where_the_data_have_moved(
        self, heights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        train_one_step(heights, tmp_path / "run")
        heights.rename(tmp_path / "moved.csv")
        monkeypatch.chdir(tmp_path)
        done = run("resume", "run", "--set", "data=moved.csv", "--set", "options.NumMetaIterations=2")
        assert done.exit_code == 0, done.output
        monkeypatch.chdir("/")
        assert run("evaluate", tmp_path / "run", "--tasks", 2).exit_code == 0

    def test_refuse_settings_of_another_run(self, heights: Path, tmp_path: Path) -> None:
        train_one_step(heights, tmp_path / "run")
        before = (tmp_path / "run" / "run.json").read_bytes()
        for changes, message in (
            (("target=age",), "target as the run began, got target='age' for 'height'; train a new run with it"),
            (("task=sex", "seed=3"), "seed, task as the run began, got seed=3 for 0 and task='sex' for 'child'; train"),
            (("order=height",), "order as the run began, got order='height' for 'age'"),
            (("shots=2",), "shots as the run began, got shots=2 for None"),
            (("algorithm=iMAML",), "algorithm as the run began, got algorithm='iMAML' for 'MAML'"),
            (("data=sinusoid",), "data as the run began, got data='sinusoid' for "),
        ):
            given = [part for change in changes for part in ("--set", change)]
            refused = run("resume", tmp_path / "run", *given, "--set", "options.NumMetaIterations=2")
            assert refused.exit_code == 2
            assert f"--set must leave {message}" in refused.stderr
        assert (tmp_path / "run" / "run.json").read_bytes() == before

    def test_refuse_other_groups(self, heights: Path, tmp_path: Path) -> None:
        train_one_step(heights, tmp_path / "run")
        before = (tmp_path / "run" / "run.json").read_bytes()
        heights.write_text(heights.read_text().replace("c0,", "d0,"))
        for command in ("evaluate", "resume"):
            refused = run(command, tmp_path / "run")
            assert refused.exit_code == 2
            assert "without 'c0' to train on and with 'd0' to hold out; restore the data of the run" in refused.stderr
        assert (tmp_path / "run" / "run.json").read_bytes() == before


def test_built_in_data_have_nothing_to_adapt_to(tmp_path: Path) -> None:
    assert run("train", "sinusoid", "--run", tmp_path / "run", "--iterations", 1, *SHORT).exit_code == 0
    refused = run("adapt", tmp_path / "run", "--support", "a", "--query", "b", "--out", tmp_path / "c")
    assert refused.exit_code == 2
    assert "must be a run on a folder or a table, got a run on built-in data" in refused.stderr
    refused = run("evaluate", tmp_path / "run", "--data", tmp_path)
    assert refused.exit_code == 2
    assert "got a run on built-in data; evaluate its learner in Python" in refused.stderr
    refused = run("train", "sinusoid", "--run", tmp_path / "other", "--ways", 3)
    assert "ways must be left out for sinusoid, got 3" in refused.stderr
