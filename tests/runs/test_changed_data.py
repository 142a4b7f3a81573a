"""Data that change under a run: it keeps its division and its encoding, and refuses data that no longer fit them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from aidotnet_py import ArgumentException
from aidotnet_py.runs.data_sources import open_data
from aidotnet_py.runs.run_data import DataFacts, RunData
from aidotnet_py.runs.settings import RunSettings


@pytest.fixture(autouse=True)
def _cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Twelve groups of four rows; 1 and 10 are held out."""
    file = tmp_path / "table.csv"
    rows = [f"{group},{row},{row * group % 5}" for group in range(12) for row in range(4)]
    file.write_text("\n".join(["g,x,y", *rows]) + "\n")
    return file


def settings_of(table: Path) -> RunSettings:
    return RunSettings(data=str(table), task="g", target="y")


def facts_of(data: RunData) -> DataFacts:
    """Return what a run on these data finds in its folder again."""
    return DataFacts.take_from(json.loads(json.dumps(data.settings())))


def make_classes(folder: Path, labels: range, images: int) -> None:
    for label in labels:
        (folder / f"kind {label}").mkdir(parents=True)
        for place in range(images):
            Image.new("L", (8, 8), 10 * label + place).save(folder / f"kind {label}" / f"{place}.png")


class TestDivision:
    @pytest.mark.parametrize(
        ("old", "new", "difference"),
        [
            ("\n0,", "\n50,", "without '0' to train on and with '50' to hold out"),
            ("\n10,", "\n50,", "without '10' to hold out and with '50' to hold out"),
            ("g,x,y\n", "g,x,y\n50,1,2\n50,2,3\n", "with '50' to hold out"),
        ],
    )
    def test_another_of_groups_is_refused(self, table: Path, old: str, new: str, difference: str) -> None:
        began = open_data(settings_of(table))
        table.write_text(table.read_text().replace(old, new))
        message = f"data must have the classes or groups that the run began with, got '{table}' {difference}; restore"
        with pytest.raises(ArgumentException, match=message):
            open_data(settings_of(table), facts_of(began))

    def test_of_numbers_stays_where_they_become_text(self, table: Path) -> None:
        """Of texts, '10' comes before '2'."""
        began = open_data(settings_of(table))
        table.write_text(table.read_text() + "of one row,1,2\n")
        with pytest.warns(UserWarning, match="groups with fewer than 2 rows are left out: 'of one row'"):
            went_on = open_data(settings_of(table), facts_of(began))
        assert [*map(str, began.training.labels)] != [*went_on.training.labels]
        assert {*map(str, began.training.labels)} == {*went_on.training.labels}
        assert {*map(str, began.test.labels)} == {*went_on.test.labels} == {*went_on.validation.labels}

    def test_another_of_classes_is_refused(self, tmp_path: Path) -> None:
        make_classes(tmp_path / "kinds", range(6), 2)
        settings = RunSettings(data=str(tmp_path / "kinds"), size=8)
        began = open_data(settings)
        trained = began.training.labels[0]
        (tmp_path / "kinds" / trained).rename(tmp_path / "kinds" / "new")
        with pytest.raises(ArgumentException, match=f"without '{trained}' to train on and with 'new' to hold out"):
            open_data(settings, facts_of(began))

    def test_another_that_is_published_is_refused(self, tmp_path: Path) -> None:
        make_classes(tmp_path / "train", range(3), 16)
        make_classes(tmp_path / "test", range(3, 5), 16)
        settings = RunSettings(data=str(tmp_path), size=8, ways=2)
        began = open_data(settings)
        assert open_data(settings, facts_of(began)).test.labels == began.test.labels
        (tmp_path / "train" / "kind 0").rename(tmp_path / "test" / "kind 0")
        message = "without 'kind 0' to train on and with 'kind 0' to hold out"
        with pytest.raises(ArgumentException, match=message):
            open_data(settings, facts_of(began))

    def test_is_made_anew_for_runs_of_older_versions(self, table: Path) -> None:
        began = open_data(settings_of(table))
        table.write_text(table.read_text().replace("\n0,", "\n50,"))
        assert open_data(settings_of(table), DataFacts(began.encoding)).test.labels != began.test.labels

    def test_that_is_damaged_is_refused(self) -> None:
        with pytest.raises(ArgumentException, match="settings must be those of a Division, got "):
            DataFacts.take_from({"division": {"training": 3}})

    def test_of_tasks_from_a_continuum_is_none(self) -> None:
        assert open_data(RunSettings(data="sinusoid")).settings() == {}


class TestEncoding:
    def test_stays_where_the_units_change(self, table: Path) -> None:
        began = open_data(settings_of(table))
        head, *rows = [line.split(",") for line in table.read_text().splitlines()]
        table.write_text(
            "\n".join(",".join(row) for row in [head, *([g, x, str(100 * int(y) + 7)] for g, x, y in rows)])
        )
        went_on = open_data(settings_of(table), facts_of(began))
        assert went_on.encoding == went_on.test.encoding == began.encoding
        before, after = (data.test.GetNextTask().SupportOutput.astype(float) for data in (began, went_on))
        (column,) = began.encoding.targets
        np.testing.assert_allclose(
            after * column.deviation + column.mean, 100 * (before * column.deviation + column.mean) + 7, rtol=1e-5
        )

    def test_leaves_a_run_its_bits(self, table: Path) -> None:
        began = open_data(settings_of(table))
        went_on = open_data(settings_of(table), facts_of(began))
        for part in ("training", "validation", "test"):
            one, two = (getattr(data, part).GetNextTask() for data in (began, went_on))
            for name in ("SupportInput", "SupportOutput", "QueryInput", "QueryOutput"):
                assert np.array_equal(getattr(one, name), getattr(two, name))

    @pytest.mark.parametrize(
        ("old", "new", "message"),
        [
            ("g,x,y", "g,z,y", "table must have the column"),
            ("\n3,0,", "\n3,few,", "column 'x' must hold numbers, got categories"),
            (",3\n", ",many\n", "column 'y' must hold numbers, got categories"),
        ],
    )
    def test_refuses_columns_of_another_kind(self, table: Path, old: str, new: str, message: str) -> None:
        began = open_data(settings_of(table))
        table.write_text(table.read_text().replace(old, new))
        with pytest.raises(ArgumentException, match=message):
            open_data(settings_of(table), facts_of(began))
