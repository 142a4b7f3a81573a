"""From a folder of images or a table to predictions, by the command line alone."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import aidotnet_py
from aidotnet_py.cli.app import app
from aidotnet_py.data import ImageEncoding
from aidotnet_py.runs.run_data import encoding_of

SHORT = [
    *("--set", "options.MetaBatchSize=2", "--set", "options.EvaluationFrequency=2"),
    *("--set", "options.EvaluationTasks=4", "--set", "options.AdaptationSteps=2"),
]


@pytest.fixture(autouse=True)
def _without_figures(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("aidotnet_py.runs.folder.draw_training", lambda *_: (_ for _ in ()).throw(ImportError()))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def run(*arguments: Any) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def rows_of(file: Path) -> list[list[str]]:
    with file.open(newline="") as lines:
        return [*csv.reader(lines)]


def train_one_step(table: Path, folder: Path) -> None:
    columns = ("--task", "child", "--target", "height", "--order", "age")
    short = ("--iterations", 1, "--set", "options.MetaBatchSize=1", "--set", "options.EvaluationFrequency=0")
    done = run("train", table, "--run", folder, *columns, *short)
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
        loaded = aidotnet_py.load(model)
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


class TestTable:
    def test_from_train_to_predictions(self, heights: Path, tmp_path: Path) -> None:
        folder, out = tmp_path / "run", tmp_path / "predictions.csv"
        columns = ("--task", "child", "--target", "height", "--order", "age")
        done = run("train", heights, "--run", folder, "--iterations", 150, *columns, *SHORT[2:])
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
    refused = run("train", "sinusoid", "--run", tmp_path / "other", "--ways", 3)
    assert "ways must be left out for sinusoid, got 3" in refused.stderr
