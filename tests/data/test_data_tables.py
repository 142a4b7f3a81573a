"""Tables as tasks: groups of any size, rows split by count, share or time, an encoding of training groups alone."""

from __future__ import annotations

import datetime
import enum
import io
import json
import os
import pickle
import re
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aidotnet_py import (
    ANILAlgorithm,
    ANILOptions,
    BOILAlgorithm,
    BOILOptions,
    CrossEntropyLoss,
    MAMLAlgorithm,
    MAMLOptions,
    MetaSGDAlgorithm,
    MetaSGDOptions,
    NeuralNetworkModel,
    ReptileAlgorithm,
    ReptileOptions,
    SeriesGrowthWarning,
    TaskBatch,
    iMAMLAlgorithm,
    iMAMLOptions,
)
from aidotnet_py.backends import Backend, get_backend
from aidotnet_py.data import TableEncoding, TableLoader
from aidotnet_py.data.table.reading import read_table
from aidotnet_py.exceptions import ArgumentException, ArgumentNullException, InvalidOperationException
from aidotnet_py.meta_learning.contract.sources import IEpisodicDataLoader, IResumable
from aidotnet_py.nn import mlp

SETS = ("SupportInput", "SupportOutput", "QueryInput", "QueryOutput")


def growth(sizes: list[int], seed: int = 0) -> dict[str, list[Any]]:
    """A table of children who grow at paces of their own; rows of different children are mixed."""
    rng = np.random.default_rng(seed)
    rows: list[tuple[Any, ...]] = []
    for child, size in enumerate(sizes):
        start, pace = rng.normal(120, 10), rng.normal(6, 1)
        rows.extend(
            (f"child {child:02d}", age, "fm"[child % 2], start + pace * age / 4 + rng.normal(0, 0.5))
            for age in sorted(rng.choice(400, size, replace=False) / 10)
        )
    order = rng.permutation(len(rows))
    names = ("child", "age", "sex", "height")
    return {name: [rows[i][place] for i in order] for place, name in enumerate(names)}


def make(table: Any = None, **options: Any) -> TableLoader[Any]:
    table = growth([3, 5, 8, 4, 6]) if table is None else table
    return TableLoader(table, **({"task": "child", "target": "height", "seed": 0} | options))


def bits(tasks: Any, backend: str = "numpy") -> list[bytes]:
    to_numpy = get_backend(backend).to_numpy
    return [to_numpy(getattr(task, which)).tobytes() for task in tasks for which in SETS]


def frames(table: dict[str, list[Any]], folder: Path) -> dict[str, Any]:
    """A table in every form that a loader takes."""
    pandas, polars = pytest.importorskip("pandas"), pytest.importorskip("polars")
    frame = polars.DataFrame(table)
    frame.write_csv(folder / "table.csv")
    frame.write_csv(folder / "table.tsv", separator="\t")
    frame.write_parquet(folder / "table.parquet")
    return {
        "mapping": table,
        "arrays": {name: np.array(values) for name, values in table.items()},
        "pandas": pandas.DataFrame(table),
        "pandas categories": pandas.DataFrame(table).astype({"sex": "category", "child": "category"}),
        "polars": frame,
        "lazy": frame.lazy(),
        "arrow": frame.to_arrow(),
        "csv": folder / "table.csv",
        "tsv": str(folder / "table.tsv"),
        "parquet": folder / "table.parquet",
    }


@pytest.mark.slow
def test_fifty_groups_from_a_csv_file_in_five_lines(tmp_path: Path) -> None:
    pytest.importorskip("polars").DataFrame(growth(np.random.default_rng(1).integers(3, 31, 50).tolist())).write_csv(
        tmp_path / "growth.csv"
    )
    train, test = TableLoader(tmp_path / "growth.csv", task="child", target="height", seed=0).split(0.8, 0.2)
    model = NeuralNetworkModel(mlp(32, 1), input_shape=train.encoding.input_shape, seed=0)
    learner = MAMLAlgorithm(MAMLOptions(model, DataLoader=train, NumMetaIterations=300, EvaluationFrequency=0))
    learner.Train()
    predict = lambda task: train.encoding.decode(learner.Adapt(task).Predict(task.QueryInput))  # noqa: E731

    errors, spreads = [], []
    for task in test.GetTaskBatch(20):
        heights, known = (train.encoding.decode(targets) for targets in (task.QueryOutput, task.SupportOutput))
        errors.append(np.mean((predict(task) - heights) ** 2))
        spreads.append(np.mean((known.mean() - heights) ** 2))
    # Centimetres: noise has 0.5, and the mean of a child's known heights is off by more than ten.
    assert np.sqrt(np.mean(errors)) < 4.0
    assert np.sqrt(np.mean(spreads)) > 10.0


def test_it_is_the_contracts_loader() -> None:
    loader = make()
    assert isinstance(loader, IEpisodicDataLoader)
    assert isinstance(loader, IResumable)
    assert (loader.NWay, loader.KShot, loader.QueryShots, loader.AvailableClasses) == (1, 2, 1, 5)
    frame = pytest.importorskip("pandas").DataFrame(growth([3, 4]))
    assert repr(make(frame, order="age")) == (
        "TableLoader(DataFrame of shape (7, 4), task='child', target='height', order='age')"
    )


class TestForms:
    def test_every_form_of_a_table_gives_the_same_bits(self, tmp_path: Path) -> None:
        table = growth([3, 5, 8, 4, 6])
        wanted = bits(make(table).GetTaskBatch(6))
        for name, form in frames(table, tmp_path).items():
            assert bits(make(form).GetTaskBatch(6)) == wanted, name

    def test_kinds_of_columns(self) -> None:
        pandas, polars = pytest.importorskip("pandas"), pytest.importorskip("polars")
        stamps = [datetime.datetime(2020, 1, 1), None, datetime.datetime(2020, 1, 3)]
        wanted: dict[str, tuple[str, list[Any]]] = {
            "whole": ("number", [1, 2, 3]),
            "gaps": ("number", [1.0, np.nan, 3.0]),
            "real": ("number", [0.5, np.nan, 1.5]),
            "switch": ("number", [1.0, np.nan, 0.0]),
            "text": ("category", ["a", None, "b"]),
            "kind": ("category", ["x", None, "y"]),
            "time": ("time", [1577836800.0, np.nan, 1578009600.0]),
            "span": ("duration", [1.5, np.nan, 2.0]),
            "empty": ("number", [np.nan] * 3),
        }
        spans = [datetime.timedelta(seconds=1.5), None, datetime.timedelta(seconds=2)]
        tables = [
            pandas.DataFrame(
                {
                    "whole": [1, 2, 3],
                    "gaps": pandas.array([1, None, 3], dtype="Int64"),
                    "real": [0.5, None, 1.5],
                    "switch": pandas.array([True, None, False], dtype="boolean"),
                    "text": ["a", None, "b"],
                    "kind": pandas.Categorical(["x", None, "y"]),
                    "time": pandas.to_datetime(stamps).tz_localize("UTC"),
                    "span": pandas.to_timedelta(spans),
                    "empty": [np.nan] * 3,
                }
            ),
            polars.DataFrame(
                {
                    "whole": [1, 2, 3],
                    "gaps": [1, None, 3],
                    "real": [0.5, None, 1.5],
                    "switch": [True, None, False],
                    "text": ["a", None, "b"],
                    "kind": polars.Series(["x", None, "y"], dtype=polars.Categorical),
                    "time": stamps,
                    "span": spans,
                    "empty": polars.Series([None] * 3),
                }
            ),
            {
                "whole": [1, 2, 3],
                "gaps": [1, None, 3],
                "real": [0.5, None, 1.5],
                "switch": [True, None, False],
                "text": ["a", None, "b"],
                "kind": np.array(["x", None, "y"], object),
                "time": np.array(["2020-01-01", "NaT", "2020-01-03"], "datetime64[D]"),
                "span": np.array([1500, "NaT", 2000], "timedelta64[ms]"),
                "empty": [np.nan] * 3,
            },
        ]
        for table in tables:
            columns = read_table(table)
            for name, (kind, values) in wanted.items():
                assert columns.kind(name) == kind, (type(table), name)
                found = columns.values(name).tolist() if kind == "category" else columns.numbers(name)
                np.testing.assert_array_equal(np.array(found), np.array(values))
                assert columns.missing(name).tolist() == [value is None or value != value for value in values]

    @given(
        rows=st.integers(1, 8),
        kinds=st.lists(st.sampled_from(["whole", "real", "switch", "text", "time"]), min_size=1, max_size=4),
        data=st.data(),
    )
    def test_the_same_values_are_the_same_columns_in_every_form(self, rows: int, kinds: list[str], data: Any) -> None:
        pandas, polars = pytest.importorskip("pandas"), pytest.importorskip("polars")
        values = {
            "whole": st.integers(-(2**53), 2**53),
            "real": st.floats(allow_nan=False, allow_infinity=False),
            "switch": st.booleans(),
            "text": st.text(max_size=4).filter(lambda text: "\0" not in text and text.isprintable()),
            "time": st.datetimes(datetime.datetime(1700, 1, 1), datetime.datetime(2200, 1, 1)),
        }
        table = {
            f"{kind} {i}": data.draw(st.lists(st.none() | values[kind], min_size=rows, max_size=rows))
            for i, kind in enumerate(kinds)
        }
        # A column of nothing has no kind of its own.
        table = {name: column for name, column in table.items() if any(value is not None for value in column)}
        if not table:
            return
        stamps = {n: np.array(c, "datetime64[us]") if n.startswith("time") else c for n, c in table.items()}
        forms = [read_table(form) for form in (stamps, pandas.DataFrame(table), polars.DataFrame(table))]
        for name in table:
            assert len({form.kind(name) for form in forms}) == 1
            for form in forms:
                assert form.missing(name).tolist() == [value is None for value in table[name]]
                if form.kind(name) == "category":
                    assert form.values(name).tolist() == table[name]
                else:
                    np.testing.assert_array_equal(form.numbers(name), forms[0].numbers(name))

    @pytest.mark.parametrize("kind", [np.int64, np.uint64, np.int8])
    @pytest.mark.parametrize("origin", [0.0, -1 / 3, 1e6 + 0.5, 2.0**60, -(2.0**63), 2.0**63, 2.0**64, 1e300])
    def test_integers_less_an_origin_are_as_exact_as_float64_can_be(self, kind: type[Any], origin: float) -> None:
        least, most = int(np.iinfo(kind).min), int(np.iinfo(kind).max)
        edges = (0, 10**6, 2**53, 2**60, least, most, most // 2)
        whole = [edge + step for edge in edges for step in (-3, -1, 0, 1, 5) if least <= edge + step <= most]
        found = read_table({"x": np.array(whole, kind)}).numbers("x", origin)
        wanted = [float(Fraction(number) - Fraction(origin)) for number in whole]
        np.testing.assert_allclose(found, wanted, rtol=3e-16, atol=0)

    @pytest.mark.parametrize("day", ["2020-01-02", "+2020-01-02", " 2020-01-02"])
    def test_missing_values_and_dates_of_csv_files(self, day: str, tmp_path: Path) -> None:
        pytest.importorskip("polars")
        (tmp_path / "a.csv").write_text(f"who,day,x\nada,{day},NA\nada,2020-01-01,\nbea,2020-02-01,1.5\n")
        columns = read_table(tmp_path / "a.csv")
        assert [columns.kind(name) for name in columns.names] == ["category", "time", "number"]
        assert columns.missing("x").tolist() == [True, True, False]

    @pytest.mark.parametrize(
        "days",
        [
            ["01/02/2024", "02/01/2024"],
            ["1.2.2024", "1.1.2024"],
            ["01-02-2024 10:30", "05-02-2024 10:30"],
            ["", "01/02/2024"],
            ["25/01/24", "26/01/24"],
            # The month first, which Polars leaves strings: each date would be a category.
            ["01/13/2024", "1/2/2024"],
            ["12-31-2024 10:30", "12-30-2024 10:30"],
            ["", "01/13/24"],
            # No day of the calendar, and days beside times, which Polars leaves strings too.
            ["2024-01-31", "2024-02-30"],
            ["2024-01-01", "2024-01-02 10:00:00"],
            ["2024-01-01T10:00:00Z", "2024-01-02T10:00:00"],
            ["2024-01-01 10:00 PM", "2024-01-02 09:00 AM"],
            # Which ended the reading of the whole file.
            ["20240101T100000", "20240102T100000"],
            ["03.05.1925", "1982-11-01"],
        ],
        ids=str,
    )
    def test_dates_of_csv_files_that_can_be_read_in_several_ways_are_refused_where_they_are_used(
        self, days: list[str], tmp_path: Path
    ) -> None:
        pytest.importorskip("polars")
        rows = "".join(f"{group},{day},{y}\n" for group in "ab" for y, day in enumerate(days))
        (tmp_path / "a.csv").write_text("g,day,y\n" + rows)
        kinds: dict[str, Any] = {"task": "g", "target": "y", "support": 1}
        for roles in ({"order": "day"}, {"features": ["day"]}):
            with pytest.raises(
                ArgumentException,
                match=r"^table\['day'\] must have dates that can be read in one way, got .*YYYY-MM-DD",
            ):
                TableLoader(tmp_path / "a.csv", **kinds, **roles)
        (tmp_path / "b.csv").write_text("day\n01/02/2024\n")
        with pytest.raises(ArgumentException, match=r"^table\['day'\] must have dates that can"):
            read_table(tmp_path / "b.csv")

    def test_strings_of_numbers_that_are_no_dates_are_categories(self, tmp_path: Path) -> None:
        pytest.importorskip("polars")
        (tmp_path / "a.csv").write_text("version,part,text\n1.13.24,12-34-5678,01/13/2024\n1.2.10,01-02-2024,later\n")
        columns = read_table(tmp_path / "a.csv")
        assert [columns.kind(name) for name in columns.names] == ["category"] * 3

    @pytest.mark.parametrize(
        ("values", "wanted"),
        [
            ([" 2.5", " -3"], [2.5, -3.0]),
            (["3 ", "4"], [3.0, 4.0]),
            (["+1", "-1"], [1.0, -1.0]),
            (["+.5", " +7.5e1 "], [0.5, 75.0]),
            ([" NA", "7"], [np.nan, 7.0]),
            (["  ", "7"], [np.nan, 7.0]),
        ],
        ids=str,
    )
    def test_numbers_of_csv_files_may_have_blanks_around_them_and_a_plus(
        self, values: list[str], wanted: list[float], tmp_path: Path
    ) -> None:
        pytest.importorskip("polars")
        (tmp_path / "a.csv").write_text("x,g\n" + "".join(f"{value},a\n" for value in values))
        columns = read_table(tmp_path / "a.csv")
        assert columns.kind("x") == "number"
        np.testing.assert_array_equal(columns.numbers("x"), wanted)
        # Where an encoding has them as strings, they stay what they are.
        assert read_table(tmp_path / "a.csv", strings=["x"]).kind("x") == "category"

    def test_long_numbers_of_csv_files_with_blanks_stay_apart(self, tmp_path: Path) -> None:
        pytest.importorskip("polars")
        (tmp_path / "a.csv").write_text("x,y\n 9007199254740993, 9007199254740993\n1,0.5\n")
        columns = read_table(tmp_path / "a.csv")
        assert columns.values("x").tolist() == [9007199254740993, 1]
        with pytest.raises(ArgumentException, match=r"^table\['y'\] must have numbers such as 1234.5, or strings, got"):
            columns.values("y")

    @pytest.mark.parametrize(
        ("values", "shown"),
        [
            (["2,5", "3"], "2,5"),
            ([" 2,5", " 3,25"], " 2,5"),
            (["12", "1,234,567.5"], "1,234,567.5"),
            (["1.234,5", ""], "1.234,5"),
            (["10%", "7.5 %"], "10%"),
            (["$5", "$1,200"], "$5"),
            (["5", "\u2212 5"], "\u2212 5"),
            (["999", "1 000"], "1 000"),
            (["1\u202f234,5", "2"], "1\u202f234,5"),
            (["1'234'567.5", "7"], "1'234'567.5"),
            # Missing values that are marked otherwise than in CSV files that are read.
            (["7", "?"], "?"),
            (["-", "2.5"], "-"),
            (["7", "#N/A"], "#N/A"),
        ],
        ids=str,
    )
    def test_numbers_of_csv_files_that_are_written_otherwise_are_refused_where_they_are_used(
        self, values: list[str], shown: str, tmp_path: Path
    ) -> None:
        pytest.importorskip("polars")
        rows = "".join(f'{group},"{value}",{y}\n' for group in "ab" for y, value in enumerate(values))
        (tmp_path / "a.csv").write_text("g,x,y\n" + rows, encoding="utf-8")
        message = rf"^table\['x'\] must have numbers such as 1234.5, or strings, got {re.escape(repr(shown))}; "
        for roles in ({"features": ["x"], "target": "y"}, {"features": ["y"], "target": "x"}):
            with pytest.raises(ArgumentException, match=message):
                TableLoader(tmp_path / "a.csv", task="g", support=1, **roles)

    def test_strings_that_are_no_numbers_are_categories(self, tmp_path: Path) -> None:
        pytest.importorskip("polars")
        lines = [
            "house,answers,host,range,mark,month,call,stay",
            '12,"1,2",10.0.0.1,10-20,-,2024-01,555 1234,2 days',
            '12a,"1,2,3",10.0.0.2,30-40,?,,555 123,a week',
        ]
        (tmp_path / "a.csv").write_text("\n".join(lines))
        columns = read_table(tmp_path / "a.csv")
        assert [columns.kind(name) for name in columns.names] == ["category"] * 8

    @pytest.mark.parametrize(
        "values", [["1 days 00:00:30", "0 days"], ["-1 days +23:59:59.5", ""], ["PT1.5S", "P1DT2H3M"], ["P1D", "P30D"]]
    )
    def test_durations_of_csv_files_are_no_categories(self, values: list[str], tmp_path: Path) -> None:
        pytest.importorskip("polars")
        (tmp_path / "a.csv").write_text("x,y\n" + "".join(f"{value},1\n" for value in values))
        columns = read_table(tmp_path / "a.csv")
        with pytest.raises(
            ArgumentException, match=rf"^table\['x'\] must have durations.*{re.escape(values[0])}.*seconds"
        ):
            columns.kind("x")

    @pytest.mark.parametrize(
        ("times", "wanted"),
        [
            (["2024-01-01T00:00:00.123456789", "2024-01-01T00:00:00.1234567"], [123456789, 123456700]),
            (["2024-01-01 00:00:00.000000001", "2024-01-01 00:00:00", ""], [1, 0, None]),
            (["2024-01-01T00:00:00.123456789Z", "2024-01-01T01:00:00.5+01:00"], [123456789, 500000000]),
        ],
        ids=str,
    )
    @pytest.mark.parametrize("name", ["t", "^t$"])
    def test_times_of_csv_files_keep_their_nanoseconds(
        self, times: list[str], wanted: list[int | None], name: str, tmp_path: Path
    ) -> None:
        pytest.importorskip("polars")
        (tmp_path / "a.csv").write_text(f"{name},x\n" + "".join(f"{time},1\n" for time in times))
        columns = read_table(tmp_path / "a.csv")
        found = columns.values(name) - np.datetime64("2024-01-01", "ns")
        assert found.tolist() == [None if nanoseconds is None else nanoseconds for nanoseconds in wanted]
        assert columns.is_zoned(name) == times[0].endswith("Z")

    @pytest.mark.parametrize("other", ["2500-01-01T00:00:00", "2024-01-01T00:00:00.1234567891"])
    def test_times_beyond_nanoseconds_of_64_bits_are_refused_where_they_are_used(
        self, other: str, tmp_path: Path
    ) -> None:
        pytest.importorskip("polars")
        (tmp_path / "a.csv").write_text(f"t,x\n2024-01-01T00:00:00.123456789,1\n{other},2\n")
        columns = read_table(tmp_path / "a.csv")
        assert columns.kind("x") == "number"
        with pytest.raises(
            ArgumentException, match=rf"^table\['t'\] must have times of at most nanosec.*{other}'; round"
        ):
            columns.values("t")

    @pytest.mark.parametrize("end", ["", "\n", "\n\n\n", "\r\n\r\n\r\n"], ids=repr)
    @pytest.mark.parametrize("last", [",2", ",", "NA,NA"])
    def test_blank_lines_at_the_end_of_csv_files_are_no_rows(self, last: str, end: str, tmp_path: Path) -> None:
        """A last row of missing values is one."""
        pytest.importorskip("polars")
        (tmp_path / "a.csv").write_text(f"t,x\n2024-01-01T00:00:00.123456789,1\n{last}{end}", newline="")
        columns = read_table(tmp_path / "a.csv")
        assert (columns.rows, columns.missing("t").tolist()) == (2, [False, True])

    def test_a_file_whose_name_is_no_utf_8_is_read(self, tmp_path: Path) -> None:
        polars = pytest.importorskip("polars")
        polars.DataFrame({"x": [1]}).write_parquet(tmp_path / "a.parquet")
        (tmp_path / "a.csv").write_text("x,y\n1,2\n")
        for suffix in (".csv", ".parquet"):
            odd = tmp_path / os.fsdecode(b"\xe9" + suffix.encode())
            try:
                (tmp_path / f"a{suffix}").rename(odd)
            except OSError:
                pytest.skip("this file system takes names in UTF-8 alone")
            assert read_table(odd).values("x").tolist() == [1]

    @pytest.mark.parametrize("values", [[" 1", "2"], ['"2,5"', '"3,5"'], ["01/13/2024", "01/14/2024"]], ids=str)
    def test_a_name_of_a_column_of_strings_is_no_pattern(self, values: list[str], tmp_path: Path) -> None:
        pytest.importorskip("polars")
        (tmp_path / "a.csv").write_text("^x$,y\n" + "".join(f"{value},1\n" for value in values))
        columns = read_table(tmp_path / "a.csv")
        assert (columns.names, columns.kind("y")) == (("^x$", "y"), "number")

    @pytest.mark.parametrize(
        ("day", "other"),
        [("2024-02-01", "2024-01-02"), ("2024/02/01", "2024/01/02"), ("01/02/2024", "31/01/2024"), ("02.02.2024", "")],
    )
    def test_dates_of_csv_files_that_can_be_read_in_one_way_are_times(
        self, day: str, other: str, tmp_path: Path
    ) -> None:
        pytest.importorskip("polars")
        (tmp_path / "a.csv").write_text(f"day,x\n{day},1\n{other},2\n")
        columns = read_table(tmp_path / "a.csv")
        wanted = datetime.datetime(2024, 2, 2 if day == "02.02.2024" else 1)
        assert (columns.kind("day"), columns.labels("day").tolist()[0]) == ("time", wanted)

    @pytest.mark.parametrize(
        ("table", "error", "message"),
        [
            (None, ArgumentNullException, "table must be a frame, a mapping of columns or a path, got None"),
            (3, ArgumentException, "table must be a frame, a mapping of columns or a path, got 3"),
            ({}, ArgumentException, "table must have rows, got none"),
            ({"a": []}, ArgumentException, "table must have rows, got none"),
            (
                {"a": [1], "b": [1, 2]},
                ArgumentException,
                r"table\['b'\] must have 1 values like the other",
            ),
            ({"a": [[1]]}, ArgumentException, r"table\['a'\] must be 1-D, got shape \(1, 1\)"),
            ({"a": [[1], [1, 2]]}, ArgumentException, r"table\['a'\] must be a sequence of values, got \[\[1\]"),
            ({1: [1]}, ArgumentException, "table's names must be strings, got 1"),
            ("missing.csv", FileNotFoundError, "table must be an existing file, got nothing"),
            ("", ArgumentException, "table must be a path, got ''"),
            (".", ArgumentException, r"table must be a .csv, .tsv or .parquet file, got '.'"),
        ],
    )
    def test_tables_that_are_none(self, table: Any, error: type[Exception], message: str | None) -> None:
        with pytest.raises(error, match=message):
            read_table(table)

    @pytest.mark.parametrize(
        ("name", "content"), [("a.parquet", b"PAR1 no"), ("a.csv", b""), ("a.csv", b"a,b\n1,2,3\n")]
    )
    def test_broken_files_are_named(self, name: str, content: bytes, tmp_path: Path) -> None:
        pytest.importorskip("polars")
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ArgumentException, match=rf"^table must be a readable .{name[2:]} file, got '.*{name}': "):
            read_table(tmp_path / name)

    @pytest.mark.parametrize("row", ["1;2,5;80,1", "1;2;80"])
    def test_columns_that_semicolons_separate(self, row: str, tmp_path: Path) -> None:
        pytest.importorskip("polars")
        (tmp_path / "semicolons.csv").write_text(f"child;age;height\n{row}\n{row}\n")
        message = r"semicolons.csv': .*; its columns are separated by ';': read it with pandas, or save it with commas$"
        with pytest.raises(ArgumentException, match=message):
            TableLoader(tmp_path / "semicolons.csv", task="child", target="height")

    @pytest.mark.parametrize(("name", "row"), [("a.csv", "1\t2"), ("a.csv", "ada\tb"), ("a.tsv", "1,2")])
    def test_columns_of_a_file_with_the_other_ending(self, name: str, row: str, tmp_path: Path) -> None:
        pytest.importorskip("polars")
        mark, ending = ("\t", "tsv") if "\t" in row else (",", "csv")
        (tmp_path / name).write_text(f"child{mark}age\n{row}\n")
        message = rf"separated by {re.escape(repr(mark))}: give the file the ending .{ending}$"
        with pytest.raises(ArgumentException, match=message):
            TableLoader(tmp_path / name, task="child", target="age")

    def test_a_frame_that_was_read_with_another_separator(self) -> None:
        pandas = pytest.importorskip("pandas")
        frame = pandas.DataFrame({"child;age;height": ["1;2;80", "1;3;90"]})
        message = r"^task must be a column .*, got 'child'; its columns are separated by ';': read it with pandas"
        with pytest.raises(ArgumentException, match=message):
            TableLoader(frame, task="child", target="height")

    def test_columns_of_several_kinds_are_refused_where_they_are_used(self) -> None:
        pandas, polars, pyarrow = (pytest.importorskip(name) for name in ("pandas", "polars", "pyarrow"))
        rest = {"g": [1, 1, 2, 2], "x": [1.0, 2.0, 3.0, 4.0], "y": [1.0, 2.0, 3.0, 4.0]}
        tables = [
            pandas.DataFrame(rest | {"a": ["x", 1, "x", 2]}),
            polars.DataFrame(rest | {"a": [[1], [2], [3], [4]]}),
            rest | {"a": np.array(["x", 1, None, 2.5], object)},
            rest | {"a": [1j] * 4},
            rest | {"a": [b"x"] * 4},
            pyarrow.table(rest | {"a": pyarrow.array([pyarrow.MonthDayNano([1, 2, 3])] * 4)}),
        ]
        for table in tables:
            with pytest.raises(ArgumentException, match=r"^table\['a'\] must hold numbers, times or strings, got .*"):
                TableLoader(table, task="g", target="y")
            loader = TableLoader(table, task="g", target="y", features=["x"], seed=0)
            assert all(part.encoding.input_shape == (1,) for part in loader.split(1, 1))
        with pytest.raises(
            ArgumentException, match=r"^table\['a'\] must hold numbers, times or strings, got complex128"
        ):
            read_table({"a": [1j]})

    @pytest.mark.parametrize("missing", [float("nan"), np.float64("nan"), None])
    def test_missing_values_of_lists_of_strings_are_missing(self, missing: Any) -> None:
        table = {"g": list("aabb"), "c": list("uvuv"), "x": [1.0, 2.0, 3.0, 4.0]}
        columns = read_table({"c": ["a", missing, "b"]})
        assert (columns.values("c").tolist(), columns.missing("c").tolist()) == (["a", None, "b"], [False, True, False])
        for name, message in (("g", "g must hold a label"), ("c", "column 'c' must have a value")):
            values = ["u", missing, "v", "u"]
            with pytest.raises(ArgumentException, match=rf"^{message}"):
                TableLoader(table | {name: values}, task="g", target="x")
        with pytest.raises(ArgumentException, match=r"^column 'c' must have a value"):
            TableLoader(table | {"c": ["u", missing, "v", "u"]}, task="g", target="c")

    @pytest.mark.parametrize(
        "values",
        [[1, "1"], ["True", True], ["1.5", 1.5, None], [b"a", "a"], (2**60, 0.5), [2**63, -1], [2**53 + 1, np.nan]],
        ids=repr,
    )
    def test_lists_of_several_types_are_refused(self, values: Any) -> None:
        with pytest.raises(ArgumentException, match=r"^table\['c'\] must hold numbers, times or strings, got "):
            read_table({"c": values, "x": [1.0] * len(values)}).values("c")

    def test_other_lists_are_as_numpy_has_them(self) -> None:
        class Soil(enum.StrEnum):
            CLAY = "clay"

        for values in (
            [1, 2],
            [True, False],
            [1, 0.5],
            [True, 2],
            [np.float32(1), 2],
            [np.nan] * 2,
            [2**63, 2**63 + 1],
        ):
            wanted, found = np.array(values), read_table({"c": values}).values("c")
            np.testing.assert_array_equal(found, wanted)
            assert found.dtype == wanted.dtype
        strings = ["a", "a\0", np.str_("b"), Soil.CLAY]
        found = read_table({"c": strings}).values("c").tolist()
        assert found == ["a", "a\0", "b", "clay"]
        assert {type(value) for value in found} == {str}

    def test_objects_and_series_are_of_the_kind_of_their_values(self) -> None:
        pandas, polars = pytest.importorskip("pandas"), pytest.importorskip("polars")
        day, span = datetime.datetime(2020, 1, 2), datetime.timedelta(seconds=1)
        stamp = pandas.Timestamp("2020-01-02 00:00:00.000000001")
        codes = pandas.Series([3, 1], dtype="category")
        seconds = 1577923200.0
        nan = np.nan
        cases: list[tuple[Any, str, list[Any]]] = [
            ([day, None], "time", [seconds, nan]),
            ([day.date(), day], "time", [seconds, seconds]),
            ([np.datetime64("2020-01-02"), None], "time", [seconds, nan]),
            ([pandas.Timestamp(day), pandas.NaT], "time", [seconds, nan]),
            ([span, None], "duration", [1.0, nan]),
            ([np.timedelta64(5, "ns"), span], "duration", [5e-9, 1.0]),
            ([np.float32(0.5), None], "number", [0.5, nan]),
            ([np.int64(2), 0.5], "number", [2.0, 0.5]),
            ([np.str_("b"), "a"], "category", ["b", "a"]),
            (codes, "category", [3, 1]),
            (codes.array, "category", [3, 1]),
            (pandas.Index(codes), "category", [3, 1]),
            (polars.Series(["b", "a"], dtype=polars.Categorical), "category", ["b", "a"]),
        ]
        for values, kind, wanted in cases:
            forms = [{"c": values}, {"c": pandas.Series(values)}]
            if isinstance(values, list):
                objects = np.empty(2, object)
                objects[:] = values
                forms += [{"c": objects}, pandas.DataFrame({"c": pandas.Series(values, dtype=object)})]
            for form in forms:
                columns = read_table(form)
                found = columns.values("c").tolist() if kind == "category" else columns.numbers("c")
                assert columns.kind("c") == kind, (values, form)
                np.testing.assert_array_equal(np.array(found), np.array(wanted))
        assert read_table({"c": [stamp, day]}).values("c").tolist()[0] == 1577923200000000001

    def test_arrays_of_pyarrow_are_as_their_frame_is(self) -> None:
        pyarrow = pytest.importorskip("pyarrow")
        pytest.importorskip("narwhals")
        noon = datetime.datetime(2024, 1, 1, 12)
        zoned = pyarrow.array([noon, None], pyarrow.timestamp("ns", "America/New_York"))
        for array in (zoned, pyarrow.array([noon, None]), pyarrow.array([2, 1]).dictionary_encode()):
            found, wanted = read_table({"c": array}), read_table(pyarrow.table({"c": array}))
            assert (found.kind("c"), found.is_zoned("c")) == (wanted.kind("c"), wanted.is_zoned("c"))
            np.testing.assert_array_equal(found.values("c"), wanted.values("c"))
        assert read_table({"c": zoned}).is_zoned("c")

    def test_types_of_pandas_that_narwhals_does_not_know_are_what_their_values_are(self) -> None:
        pandas = pytest.importorskip("pandas")
        sparse = pandas.arrays.SparseArray
        long = np.array([1.5, np.nan, 0.0], np.longdouble)
        cases: list[tuple[Any, str, list[Any]]] = [
            (pandas.Series(sparse([1.5, np.nan, 0.0])), "number", [1.5, np.nan, 0.0]),
            (sparse([True, False, True]), "number", [1.0, 0.0, 1.0]),
            (pandas.Series(sparse(["a", "b", "a"])), "category", ["a", "b", "a"]),
            (pandas.Series(sparse(np.array([1, 2, 1], "datetime64[s]"))), "time", [1.0, 2.0, 1.0]),
            (pandas.Series(long), "number", [1.5, np.nan, 0.0]),
            (pandas.Index(long), "number", [1.5, np.nan, 0.0]),
        ]
        for values, kind, wanted in cases:
            for form in ({"c": values}, pandas.DataFrame({"c": values})):
                columns = read_table(form)
                found = columns.values("c").tolist() if kind == "category" else columns.numbers("c")
                assert columns.kind("c") == kind
                np.testing.assert_array_equal(found, wanted)
        for odd in (pandas.period_range("2024", periods=2, freq="M"), pandas.MultiIndex.from_tuples([(1, 2), (3, 4)])):
            with pytest.raises(ArgumentException, match=r"^table\['c'\] must hold .*, got (Period|tuple) objects"):
                read_table({"c": odd})

    @pytest.mark.parametrize(
        ("values", "message"),
        [
            ([datetime.time(1), None], "numbers, times or strings, got time objects"),
            ([datetime.date(2020, 1, 1), "2020-01-02"], "numbers, times or strings, got date and str objects"),
            ([datetime.date(2020, 1, 1), datetime.timedelta(1)], "times or durations, got both"),
            ([np.datetime64("9999-01-01"), np.datetime64(1, "ns")], r"times within the range of datetime64\[ns\], got"),
        ],
        ids=str,
    )
    def test_objects_of_no_single_kind_are_named(self, values: list[Any], message: str) -> None:
        with pytest.raises(ArgumentException, match=rf"^table\['c'\] must hold {message}"):
            read_table({"c": values})

    def test_what_is_written_into_arrays_later_does_not_count(self) -> None:
        y = np.arange(8.0)
        stamps = np.datetime64("2020-01-01", "ns") + np.arange(8)
        loader = TableLoader(
            {"g": np.repeat([1, 2], 4), "x": y, "t": stamps, "y": y}, task="g", target="y", order="t", seed=0
        )
        wanted = [part.encoding for part in loader.split(1, 1)]
        y *= 1000
        stamps[:] = stamps[::-1].copy()
        assert [part.encoding for part in loader.split(1, 1)] == wanted

    @pytest.mark.parametrize("values", [[1.5, -9.0, 2.5], [1, -9, 2], ["a", "-9", "b"]])
    def test_masked_values_are_missing(self, values: list[Any]) -> None:
        masked = np.ma.array(values, mask=[False, True, False])
        columns = read_table({"a": masked, "b": np.ma.array(values), "c": values})
        assert columns.missing("a").tolist() == [False, True, False]
        assert columns.values("a")[0] == values[0]
        np.testing.assert_array_equal(columns.values("b"), columns.values("c"))
        times = np.array(["2020-01-01", "1900-01-01"], "datetime64[D]")
        assert np.isnat(read_table({"t": np.ma.array(times, mask=[False, True])}).values("t")).tolist() == [False, True]
        table = {"g": [1, 1, 2, 2], "x": np.ma.masked_equal([1.0, -9.0, 2.0, 3.0], -9.0), "y": [0.0, 1.0, 2.0, 3.0]}
        with pytest.raises(ArgumentException, match="column 'x' must have a value in each row, got none in 1 of 4"):
            TableLoader(table, task="g", target="y")

    def test_missing_strings_of_numpy_are_missing(self) -> None:
        strings = np.array(["a", None, "b"], np.dtypes.StringDType(na_object=None))
        nans = np.array(["a", np.nan, "b"], np.dtypes.StringDType(na_object=np.nan))
        for values in (strings, nans):
            columns = read_table({"x": values})
            assert (columns.values("x").tolist(), columns.missing("x").tolist()) == (
                ["a", None, "b"],
                [False, True, False],
            )

    def test_tensors_are_columns(self) -> None:
        torch = pytest.importorskip("torch")
        assert read_table({"x": torch.tensor([1.5, 2.5])}).values("x").tolist() == [1.5, 2.5]
        with pytest.raises(ArgumentException, match=r"^table\['x'\] must not require gradients"):
            read_table({"x": torch.tensor([1.5], requires_grad=True)})

    def test_long_numbers_of_groups_stay_apart(self) -> None:
        pandas, polars = pytest.importorskip("pandas"), pytest.importorskip("polars")
        ids = [900719925474099267 + i // 4 for i in range(12)]
        rest = {"x": np.arange(12.0), "y": np.arange(12.0)}
        forms: list[Any] = [
            rest | {"g": np.array(ids)},
            rest | {"g": np.array(ids, object)},
            pandas.DataFrame(rest | {"g": pandas.Series(ids, dtype=object)}),
            polars.DataFrame(rest | {"g": ids}, schema_overrides={"g": polars.Int128}),
        ]
        for table in forms:
            assert TableLoader(table, task="g", target="y").labels == tuple(sorted(set(ids)))
        decimals = polars.DataFrame(rest | {"g": ids}, schema_overrides={"g": polars.Decimal(20, 0)})
        with pytest.raises(ArgumentException, match=r"must hold .*, got integers beyond 2\*\*53"):
            TableLoader(decimals, task="g", target="y")
        for some in ([None, *ids[1:]], [1.5, *ids[1:]]):
            with pytest.raises(
                ArgumentException, match=r"table\['g'\] must hold .*, got integers beyond 2\*\*53 beside"
            ):
                TableLoader(rest | {"g": np.array(some, object)}, task="g", target="y")
        with pytest.raises(ArgumentException, match="integers of more than 64 bits"):
            TableLoader(rest | {"g": np.array([2**70, *ids[1:]], object)}, task="g", target="y")

    @pytest.mark.parametrize("digits", [25, 40, 5000])
    def test_integers_beyond_all_types_are_refused_where_they_are_used(self, digits: int, tmp_path: Path) -> None:
        pytest.importorskip("polars")
        long = "9" * digits
        rows = [f"{g},{day},{long if day == 2 else day},{2**60 + day},2024-01-0{day}" for g in "ab" for day in (1, 2)]
        (tmp_path / "a.csv").write_text("\n".join(["g,y,^i.*$,big,day", *rows, ""]))
        kinds: dict[str, Any] = {"task": "g", "target": "y", "support": 1}
        loader = TableLoader(tmp_path / "a.csv", **kinds, features=["day", "big"], order="big")
        assert [column.kind for column in loader.encoding.features] == ["time", "number"]  # type: ignore[union-attr]
        assert read_table(tmp_path / "a.csv").values("big").tolist() == [2**60 + 1, 2**60 + 2] * 2
        with pytest.raises(ArgumentException, match=r"^table\['\^i\.\*\$'\] must .*integers of .* 64 bits"):
            TableLoader(tmp_path / "a.csv", **kinds)
        # An encoding of strings has them as they are.
        assert read_table(tmp_path / "a.csv", strings=["^i.*$"]).values("^i.*$").tolist() == ["1", long] * 2

    @pytest.mark.parametrize(
        ("name", "header"),
        [
            ("a.csv", "g,x,y,y"),
            ("a.csv", '\ufeff"y",x,y,g'),
            ("a.csv", "\n\r\ng,x,y,y"),
            ("a.csv", 'g,"y",x,y'),
            ("a.csv", "g,x,,"),
            ("a.tsv", "g\tx\ty\ty"),
        ],
    )
    def test_files_with_two_columns_of_one_name_are_refused(self, name: str, header: str, tmp_path: Path) -> None:
        pytest.importorskip("polars")
        (tmp_path / name).write_text(header + "\n1,2,3,4\n".replace(",", "\t" if name == "a.tsv" else ","))
        with pytest.raises(ArgumentException, match=r"^table must have columns of different names"):
            read_table(tmp_path / name)

    def test_names_of_files_are_as_written(self, tmp_path: Path) -> None:
        pytest.importorskip("polars")
        (tmp_path / "a.csv").write_text('\ufeff\n"y, z",y,y_duplicated_0, y\n1,2,3,4\n')
        assert read_table(tmp_path / "a.csv").names == ("y, z", "y", "y_duplicated_0", " y")

    def test_names_are_no_regular_expressions(self, tmp_path: Path) -> None:
        polars = pytest.importorskip("polars")
        (tmp_path / "a.csv").write_text("^a.*$,ab,^.*$\n2024-01-02,2024-01-03,1\n2024-01-04,,2\n")
        columns = read_table(tmp_path / "a.csv")
        assert [columns.kind(name) for name in columns.names] == ["time", "time", "number"]
        assert [time.day for time in columns.values("^a.*$").tolist()] == [2, 4]
        for values in ([1, None], [True, None], ["a", None], [datetime.date(2024, 1, 1), None]):
            series = polars.Series("x", values).alias("^a.*$")
            for form in ({"^a.*$": series}, polars.DataFrame([series])):
                assert read_table(form).missing("^a.*$").tolist() == [False, True]

    def test_names_of_files_are_no_patterns(self, tmp_path: Path) -> None:
        polars = pytest.importorskip("polars")
        for name, day in (("a1", datetime.date(2024, 1, 2)), ("a[1]", datetime.date(2024, 1, 3))):
            frame, file = polars.DataFrame({"day": [day]}), io.BytesIO()
            frame.write_parquet(file)
            (tmp_path / f"{name}.csv").write_text(frame.write_csv())
            (tmp_path / f"{name}.parquet").write_bytes(file.getvalue())
        for suffix in ("csv", "parquet"):
            assert read_table(tmp_path / f"a[1].{suffix}").labels("day").tolist()[0].day == 3

    @pytest.mark.parametrize(
        "times",
        [
            np.array([0, 1000000, "NaT"], "datetime64[Y]"),
            np.array([0, -(2**62), "NaT"], "datetime64[h]"),
            np.array([1, 2 * 10**9, "NaT"], "timedelta64[D]"),
            np.array([1, 2**62, "NaT"], "timedelta64[ms]"),
        ],
    )
    def test_times_that_would_overflow_are_refused_where_they_are_used(self, times: Any) -> None:
        columns = read_table({"t": times, "x": [1, 2, 3]})
        for use in (columns.numbers, columns.values, columns.kind):
            with pytest.raises(
                ArgumentException, match=r"^table\['t'\] must have times, or durations, of at most 292,000 years"
            ):
                use("t")
        assert columns.numbers("x").tolist() == [1.0, 2.0, 3.0]

    def test_nanoseconds_of_frames_are_kept(self) -> None:
        pandas, polars = pytest.importorskip("pandas"), pytest.importorskip("polars")
        stamps = np.array([1704067200000000300, "NaT", 1704067200000000100], "datetime64[ns]")
        frame = pandas.DataFrame({"t": stamps, "d": stamps - stamps[2]})
        zoned = frame.assign(t=frame.t.dt.tz_localize("UTC").dt.tz_convert("Europe/Paris"))
        for form in (frame, zoned, polars.from_pandas(zoned), polars.from_pandas(zoned).to_arrow()):
            columns = read_table(form)
            np.testing.assert_array_equal(columns.values("t"), stamps)
            np.testing.assert_array_equal(columns.numbers("d"), [2e-7, np.nan, 0.0])

    @pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "America/New_York", "Etc/GMT+3", "UTC-03:30"])
    def test_times_of_every_zone_are_read(self, zone: str) -> None:
        pandas, polars = pytest.importorskip("pandas"), pytest.importorskip("polars")
        stamps = pandas.Series(pandas.to_datetime(["2024-01-01 12:00", None], utc=True))
        zoned = stamps.dt.tz_convert(zone)
        forms = [{"t": zoned}, {"t": zoned.array}, {"t": list(zoned)}, pandas.DataFrame({"t": zoned})]
        if zone != "UTC-03:30":
            forms.append(polars.DataFrame({"t": stamps}).with_columns(polars.col("t").dt.convert_time_zone(zone)))
        for form in forms:
            np.testing.assert_array_equal(read_table(form).numbers("t"), [1704110400.0, np.nan])

    def test_frames_with_odd_names(self) -> None:
        pandas = pytest.importorskip("pandas")
        with pytest.raises(ArgumentException, match=r"^table must"):
            read_table(pandas.DataFrame([[1, 2]], columns=["a", "a"]))
        with pytest.raises(ArgumentException, match="names must be strings, got 0"):
            read_table(pandas.DataFrame([[1, 2]]))

    @pytest.mark.parametrize(("library", "table"), [("polars", "csv"), ("narwhals", "pandas")])
    def test_missing_libraries_are_named_with_their_remedy(
        self, library: str, table: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        given = frames(growth([3, 3]), tmp_path)[table]
        for name in [name for name in sys.modules if name.split(".")[0] == library]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, library, None)
        with pytest.raises(ImportError, match=r'pip install "aidotnet-py\[table\]"'):
            make(given)
        assert make(growth([3, 3])).AvailableClasses == 2


class TestTasks:
    @given(
        sizes=st.lists(st.integers(2, 12), min_size=1, max_size=6),
        support=st.one_of(st.just(1), st.floats(0.01, 0.99)),
        ordered=st.booleans(),
        seed=st.integers(0, 2**64),
    )
    def test_every_row_of_a_group_is_in_one_of_its_sets(
        self, sizes: list[int], support: float, ordered: bool, seed: int
    ) -> None:
        groups = np.repeat(np.arange(len(sizes)), sizes)
        rows = np.random.default_rng(0).permutation(len(groups))
        table = {"g": groups[rows], "row": rows.astype(float), "y": 2.0 * rows}
        loader = TableLoader(
            table, task="g", target="y", support=support, order="row" if ordered else None, seed=seed, dtype=np.float64
        )
        scale = loader.encoding.features[0]
        for task in loader.GetTaskBatch(4):
            numbers = [
                np.round(x[:, 0] * scale.deviation + scale.mean)
                for x in (task.SupportInput, task.QueryInput)  # type: ignore[union-attr]
            ]
            own = np.flatnonzero(groups == task.Metadata["Group"])
            assert sorted(np.concatenate(numbers).tolist()) == own.tolist()
            assert all(len(part) for part in numbers)
            wanted = support if support == 1 else min(max(np.floor(support * len(own) + 0.5), 1), len(own) - 1)
            assert len(numbers[0]) == wanted
            if ordered:
                assert np.concatenate(numbers).tolist() == own.tolist()
            targets = np.concatenate([loader.encoding.decode(y) for y in (task.SupportOutput, task.QueryOutput)])
            np.testing.assert_allclose(targets, 2.0 * np.concatenate(numbers), atol=1e-9)

    def test_equal_times_keep_the_order_of_the_table(self) -> None:
        table = {"g": [1] * 4, "t": [2, 1, 1, 1], "x": [0.0, 1.0, 2.0, 3.0], "y": [0.0, 1.0, 2.0, 3.0]}
        task = TableLoader(table, task="g", target="y", features=["x"], support=2, order="t", seed=0)
        assert task.encoding.decode(task.GetNextTask().SupportOutput).round(6).tolist() == [1.0, 2.0]

    @pytest.mark.parametrize(
        "times",
        [
            2**60 + 10 * np.arange(8),
            np.datetime64("2024-01-01", "ns") + 100 * np.arange(8),
            (100 * np.arange(8)).astype("timedelta64[ns]"),
            np.datetime64("200000-01-01", "s") + np.arange(8),
        ],
        ids=lambda times: str(times.dtype),
    )
    def test_order_is_exact(self, times: Any) -> None:
        pandas = pytest.importorskip("pandas")
        table = {"g": [1] * 8, "t": times[::-1], "x": np.arange(8.0), "y": np.arange(8.0)}
        for form in (table, pandas.DataFrame(table)):
            loader = TableLoader(form, task="g", target="y", features=["x"], support=3, order="t", seed=0)
            earliest = loader.encoding.decode(loader.GetNextTask().SupportOutput)
            assert earliest.round(6).tolist() == [7.0, 6.0, 5.0]

    def test_rows_are_divided_anew_for_each_task_and_as_ordered_by_time(self) -> None:
        table = growth([9])
        assert len(set(bits(task for task in make(table).GetTaskBatch(5)))) == 20
        assert len(set(bits(task for task in make(table, order="age").GetTaskBatch(5)))) == 4

    def test_weightings(self) -> None:
        table = growth([2, 2, 2, 30])
        names = lambda loader, n: [task.Metadata["Group"] for task in loader.GetTaskBatch(n)]  # noqa: E731
        assert sorted(names(make(table, weighting="balanced"), 8)) == [f"child 0{i}" for i in (0, 0, 1, 1, 2, 2, 3, 3)]
        share = names(make(table, weighting="proportional"), 2000).count("child 03") / 2000
        assert abs(share - 30 / 36) < 5 * np.sqrt(30 * 6 / 36**2 / 2000)

    def test_the_same_seed_gives_the_same_bits_on_every_backend(self, backend: Backend) -> None:
        host, device = make(seed=5), make(seed=5, backend=backend)
        for count in (3, 3, 3, 2):
            tasks = device.GetTaskBatch(count)
            assert all(backend.owns(getattr(task, which)) for task in tasks for which in SETS)
            assert bits(tasks, backend.name) == bits(host.GetTaskBatch(count))
            assert device.GetState() == host.GetState()
        train, other = (loader.split(0.6, 0.4)[1] for loader in (host, device))
        assert bits(other.GetTaskBatch(4), backend.name) == bits(train.GetTaskBatch(4))

    @pytest.mark.parametrize("weighting", ["uniform", "balanced"])
    def test_a_saved_position_goes_through_json_and_resumes(self, weighting: Any) -> None:
        loader = make(weighting=weighting)
        loader.GetTaskBatch(3)
        state, copy = json.loads(json.dumps(loader.GetState())), pickle.loads(pickle.dumps(loader))
        wanted = bits(loader.GetTaskBatch(5))
        again = make(weighting=weighting, seed=9)
        again.SetState(state)
        assert bits([again.GetNextTask() for _ in range(5)]) == bits(copy.GetTaskBatch(5)) == wanted

    def test_a_step_over_groups_of_unequal_size_is_the_mean_of_theirs(self) -> None:
        loader = make(dtype=np.float64)
        model: NeuralNetworkModel[Any] = NeuralNetworkModel(mlp(4, 1), input_shape=(3,), dtype=np.float64, seed=0)
        learner = MAMLAlgorithm(MAMLOptions(model))
        batch = loader.GetTaskBatch(6)
        assert len({task.SupportInput.shape for task in batch}) > 1
        alone = [learner.Evaluate(TaskBatch([task])) for task in batch]
        np.testing.assert_allclose(learner.Evaluate(batch), np.mean(alone), rtol=1e-12)

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("algorithm", "options"),
        [
            (iMAMLAlgorithm, iMAMLOptions),
            pytest.param(MAMLAlgorithm, MAMLOptions, marks=pytest.mark.slow),
            pytest.param(ReptileAlgorithm, ReptileOptions, marks=pytest.mark.slow),
            pytest.param(MetaSGDAlgorithm, MetaSGDOptions, marks=pytest.mark.slow),
            pytest.param(ANILAlgorithm, ANILOptions, marks=pytest.mark.slow),
            pytest.param(BOILAlgorithm, BOILOptions, marks=pytest.mark.slow),
        ],
    )
    def test_every_algorithm_learns_from_groups_of_unequal_size(self, algorithm: Any, options: Any) -> None:
        train, test = make(growth(list(range(3, 15)))).split(0.75, 0.25)
        model: NeuralNetworkModel[Any] = NeuralNetworkModel(mlp(8, 1), input_shape=(3,), seed=0)
        arguments = {"NumMetaIterations": 60, "OuterLearningRate": 0.01, "EvaluationFrequency": 0, "RandomSeed": 0}
        learner = algorithm(options(model, DataLoader=train, **arguments))
        held_out = test.GetTaskBatch(10)
        before = learner.Evaluate(held_out)
        learner.Train()
        assert learner.Evaluate(held_out) < before


class TestEncoding:
    def test_is_fitted_on_the_training_groups_alone(self) -> None:
        table = growth([6] * 10)
        train, test = make(table).split(0.6, 0.4, seed=3)
        inside = np.isin(table["child"], train.labels)
        age, _ = train.encoding.features
        own = np.array(table["age"])[inside]
        np.testing.assert_allclose([age.mean, age.deviation], [own.mean(), own.std()])  # type: ignore[union-attr]
        assert test.encoding is train.encoding
        # Whatever held-out rows hold, training does not see it.
        changed = table | {
            "age": [a if i else 1e6 * a for a, i in zip(table["age"], inside, strict=True)],
            "height": [h if i else -h for h, i in zip(table["height"], inside, strict=True)],
            "sex": [s if i else "?" for s, i in zip(table["sex"], inside, strict=True)],
        }
        blind, _ = make(changed).split(0.6, 0.4, seed=3)
        assert blind.encoding == train.encoding
        assert bits(blind.GetTaskBatch(9)) == bits(train.GetTaskBatch(9))
        assert make(changed).encoding != make(table).encoding

    def test_a_split_of_held_out_groups_keeps_it_and_one_of_training_groups_fits_anew(self) -> None:
        train, rest = make(growth([6] * 10)).split(0.6, 0.4)
        assert all(part.encoding is train.encoding for part in rest.split(0.5, 0.5))
        first, second = train.split(0.5, 0.5)
        assert first.encoding == second.encoding != train.encoding

    def test_serves_groups_of_another_table(self) -> None:
        train = make(growth([6] * 5))
        later = make(growth([7] * 3, seed=8), encoding=train.encoding)
        assert later.encoding is train.encoding
        assert all(part.encoding is train.encoding for part in later.split(1, 2))
        table = growth([21], seed=8)
        task = train.encoding.task(
            {name: values[:4] for name, values in table.items()},
            {name: values[4:] for name, values in table.items()},
        )
        assert [getattr(task, name).shape for name in SETS] == [(4, 3), (4, 1), (17, 3), (17, 1)]
        assert train.encoding.task({name: values[:4] for name, values in table.items()}).QueryInput is None

    @given(
        values=st.lists(st.floats(-1e300, 1e300), min_size=4, max_size=12),
        scale=st.sampled_from([1.0, 1e-300, 1e-9]),
    )
    def test_what_is_decoded_is_what_was_encoded(self, values: list[float], scale: float) -> None:
        y = np.array(values) * scale
        loader = TableLoader(
            {"g": np.arange(len(y)) // 2 % 2, "x": y, "y": y}, task="g", target="y", seed=0, dtype=np.float64
        )
        coded = loader.encoding.outcomes({"y": y})
        assert np.isfinite(coded).all()
        np.testing.assert_allclose(loader.encoding.decode(coded), y, rtol=1e-9, atol=1e-12 * float(abs(y).max()))

    @pytest.mark.parametrize(
        ("first", "step"),
        [
            (2.0**52, 1.0),
            (2**52, 1),
            (2**60, 1),
            (-(2**63), 1),
            (np.int64(2**63 - 4), 1),
            (np.uint64(2**64 - 4), np.uint64(1)),
            (np.uint64(2**63 - 1), np.uint64(1)),
            (np.timedelta64(10**18, "ns"), np.timedelta64(1, "ns")),
            (np.timedelta64(10**18, "ps"), np.timedelta64(1, "ps")),
            (np.timedelta64(10**18, "as"), np.timedelta64(1000, "as")),
            (1e15, 0.25),
            (np.datetime64("2024-01-01", "ns"), np.timedelta64(20, "ns")),
            (np.datetime64("2024-01-01T00:00:00.7", "us"), np.timedelta64(1, "us")),
            (np.datetime64("1677-09-21T00:12:43.145224193", "ns"), np.timedelta64(1, "s")),
        ],
        ids=str,
    )
    def test_numbers_that_are_far_from_0_and_close_to_each_other_are_scaled_exactly(
        self, first: Any, step: Any
    ) -> None:
        steps = np.array([0, 1, 1, 3, 0, 2])
        x = np.array([first + count * step for count in steps.tolist()])
        encoding = TableLoader(
            {"g": [1, 1, 1, 2, 2, 2], "x": x, "y": x}, task="g", target="y", seed=0, dtype=np.float64
        ).encoding
        wanted = (steps - steps.mean()) / steps.std()
        again = TableEncoding.from_settings(json.loads(json.dumps(encoding.settings())))
        for of in (encoding, again):
            np.testing.assert_allclose(of.inputs({"x": x})[:, 0], wanted, atol=1e-9)
            np.testing.assert_allclose(of.outcomes({"y": x})[:, 0], wanted, atol=1e-9)

    def test_numbers_far_from_the_training_groups_are_refused(self) -> None:
        encoding = make(growth([5] * 4), features=["age"]).encoding
        for read, table in ((encoding.inputs, {"age": [1.0, 1e300]}), (encoding.outcomes, {"height": [1e300]})):
            with pytest.raises(
                ArgumentException, match=r"must hold numbers near .*, got .*1e\+300.*, which scaled is inf"
            ):
                read(table)

    def test_several_targets(self) -> None:
        table = growth([5] * 4)
        loader = make(table, target=["height", "age"])
        task = loader.GetNextTask()
        assert task.SupportOutput.shape[1] == loader.encoding.outputs == 2
        found = loader.encoding.decode(loader.encoding.outcomes(table))
        np.testing.assert_allclose(found, np.transpose([table["height"], table["age"]]), rtol=1e-5)

    def test_constant_columns_and_unknown_categories(self) -> None:
        encoding = make(growth([3, 4]) | {"one": [0.1] * 7}).encoding
        rows = encoding.inputs({"age": [1.0], "sex": ["?"], "one": [0.1]})
        assert rows[0, 1:].tolist() == [0.0, 0.0, 0.0]

    @pytest.mark.parametrize("kind", ["number", "time", "duration"])
    def test_columns_of_another_kind_are_refused(self, kind: str) -> None:
        pandas = pytest.importorskip("pandas")
        numbers = np.arange(4.0)
        kinds = {
            "number": numbers,
            "time": np.datetime64("2020-01-01") + np.arange(4),
            "duration": np.arange(4).astype("timedelta64[h]"),
            "category": np.array(["a", "b"] * 2),
        }
        encoding = TableLoader({"g": [1, 1, 2, 2], "x": kinds[kind], "y": kinds[kind]}, task="g", target="y").encoding
        again = TableEncoding.from_settings(json.loads(json.dumps(encoding.settings())))
        assert again == encoding
        for name, values in kinds.items():
            for table in ({"x": values, "y": values}, pandas.DataFrame({"x": values, "y": values})):
                if name == kind:
                    assert again.inputs(table).shape == again.outcomes(table).shape == (4, 1)
                    continue
                plural = "categories" if name == "category" else f"{name}s"
                with pytest.raises(
                    ArgumentException, match=rf"^column 'x' must hold {kind}s, got {plural}; convert it"
                ):
                    again.inputs(table)
                # Targets may be in the units of decode.
                if name != "number":
                    with pytest.raises(ArgumentException, match=rf"^column 'y' must hold {kind}s, got {plural}"):
                        again.outcomes(table)
        np.testing.assert_allclose(
            again.outcomes({"y": again.decode(again.outcomes({"y": kinds[kind]}))})[3], 1.34164, 1e-4
        )

    def test_settings_without_kinds_take_numbers_times_and_durations(self) -> None:
        settings = make().encoding.settings()
        for column in settings["features"] + settings["targets"]:
            for key in ("kind", "zoned", "rest"):
                column.pop(key, None)
        encoding = TableEncoding.from_settings(settings)
        times = np.array(["2020-01-01"], "datetime64[s]")
        for values in ([3.0], times, times - times):
            assert encoding.inputs({"age": values, "sex": ["f"]}).shape == (1, 3)
        with pytest.raises(ArgumentException, match=r"^column 'age' must hold numbers, got categories"):
            encoding.inputs({"age": ["old"], "sex": ["f"]})

    @pytest.mark.parametrize("method", ["inputs", "outcomes"])
    @pytest.mark.parametrize("classes", [False, True])
    @pytest.mark.parametrize("zoned", [False, True])
    def test_times_with_a_zone_and_times_without_one_are_not_the_same(
        self, method: str, classes: bool, zoned: bool
    ) -> None:
        pandas, polars = pytest.importorskip("pandas"), pytest.importorskip("polars")
        naive = pandas.Series(pandas.to_datetime(["2024-06-01 10:00", "2024-06-02 11:00"] * 2))
        berlin = naive.dt.tz_localize("Europe/Berlin")
        fitted, same, other = (berlin, berlin.dt.tz_convert("UTC"), naive) if zoned else (naive, naive, berlin)
        table = {"g": [1, 1, 2, 2], "x": np.arange(4.0), "t": fitted, "y": fitted}
        encoding = TableLoader(table, task="g", target="y", features=["t"], classes=classes).encoding
        settings = encoding.settings()
        again = TableEncoding.from_settings(json.loads(json.dumps(settings)))
        assert again == encoding
        for column in settings["features"] + settings["targets"]:
            del column["zoned"]
        # Settings of older versions do not say.
        older = TableEncoding.from_settings(settings)
        wanted = getattr(encoding, method)(table).tolist()
        message = "with a time zone, .* got times without one" if zoned else "without a time zone, .* got times with"
        for times, is_same in ((same, True), (other, False)):
            frame = pandas.DataFrame({"t": times, "y": times})
            for form in (
                dict(frame),
                {name: list(times) for name in "ty"},
                frame.astype(object),
                polars.DataFrame(frame),
            ):
                if is_same:
                    assert all(getattr(of, method)(form).tolist() == wanted for of in (encoding, again, older))
                    continue
                with pytest.raises(ArgumentException, match=rf"^column '[ty]' must hold times {message}.*tz_localize"):
                    getattr(again, method)(form)

    def test_a_column_of_times_with_a_zone_and_others_without_is_refused(self) -> None:
        times = [datetime.datetime(2024, 6, 1), datetime.datetime(2024, 6, 2, tzinfo=datetime.UTC), None]
        with pytest.raises(
            ArgumentException, match=r"^table\['t'\] must hold times with a time zone or without one, got"
        ):
            read_table({"t": times})

    def test_a_column_without_values_is_of_every_kind(self) -> None:
        table = growth([3, 4]) | {"day": np.datetime64("2020-01-01") + np.arange(7)}
        encoding = make(table, missing="fill").encoding
        for empty in ([np.nan], [None], np.array(["NaT"], "datetime64[D]")):
            assert encoding.inputs({"age": empty, "sex": empty, "day": empty}).tolist() == [[0.0] * 4]

    @pytest.mark.parametrize(
        ("values", "wanted", "got"),
        [([1, 2], "strings", "numbers"), ([True, False], "strings", "numbers"), (["NaT", "2020"], "strings", "times")],
    )
    def test_values_of_another_kind_than_the_categories_are_refused(
        self, values: list[Any], wanted: str, got: str
    ) -> None:
        table = {"g": [1, 1, 2, 2], "ward": ["1", "2", "A", "B"], "y": ["1", "2", "1", "2"]}
        encoding = TableLoader(table, task="g", target="y", missing="fill", seed=0).encoding
        array = np.array(values, "datetime64[D]") if got == "times" else np.array(values)
        with pytest.raises(
            ArgumentException, match=rf"^column 'ward' must hold {wanted}, as its .*, got {got}; convert"
        ):
            encoding.inputs({"ward": array})
        with pytest.raises(ArgumentException, match=r"^column 'y' must "):
            encoding.outcomes({"y": array})

    def test_files_are_read_with_the_kinds_of_the_encoding(self, tmp_path: Path) -> None:
        pytest.importorskip("polars")
        (tmp_path / "train.csv").write_text("g,ward,ok,sold,x\n1,1,yes,1,1\n1,2,no,A,2\n2,A,true,1,3\n2,01,false,A,4\n")
        (tmp_path / "new.csv").write_text("g,ward,ok,sold,x\n3,1,true,1,1\n3,2,false,1,2\n3,7,NA,1,2\n")
        kinds = {"task": "g", "target": "sold", "missing": "fill", "support": 1, "seed": 0}
        train = TableLoader(tmp_path / "train.csv", **kinds)
        encoding = train.encoding
        assert [column.categories for column in encoding.features[:2]] == [  # type: ignore[union-attr]
            ("01", "1", "2", "A"),
            ("false", "no", "true", "yes"),
        ]
        wanted = [[0, 1, 0, 0, 0, 0, 1, 0], [0, 0, 1, 0, 1, 0, 0, 0], [0] * 8]
        assert encoding.inputs(tmp_path / "new.csv")[:, :8].tolist() == wanted
        assert encoding.task(tmp_path / "new.csv").SupportInput[:, :8].tolist() == wanted
        assert encoding.outcomes(tmp_path / "new.csv").tolist() == [0, 0, 0]
        later = TableLoader(tmp_path / "new.csv", **(kinds | {"features": None}), encoding=encoding)
        assert later.labels == (3,)
        assert later.GetNextTask().QueryInput.shape == (2, 9)

    def test_categories_are_strings_numbers_or_times(self) -> None:
        pandas = pytest.importorskip("pandas")
        table = {"g": [1, 1, 2, 2], "y": [1.0, 2.0, 3.0, 4.0]}
        codes = pandas.Series([3, 1, 3, 1], dtype="category")
        encoding = TableLoader(pandas.DataFrame(table | {"c": codes}), task="g", target="y").encoding
        assert encoding.inputs({"c": [1, 3, 7]}).tolist() == [[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]
        with pytest.raises(
            ArgumentException, match=r"^column 'c' must hold numbers, as its categories are, got strings"
        ):
            encoding.inputs({"c": ["1", "3"]})
        days = pandas.Series(pandas.to_datetime(["2020-01-01", "2020-01-02"] * 2)).astype("category")
        with pytest.raises(
            ArgumentException, match=r"^column 'c' must have categories that are strings, numbers or tim"
        ):
            TableLoader(pandas.DataFrame(table | {"c": days}), task="g", target="y")

    def test_missing_features_are_refused_or_filled(self) -> None:
        table = growth([3, 4])
        table["age"][2] = np.nan
        table["sex"][1] = None
        with pytest.raises(
            ArgumentException,
            match=r"^column 'age' must have a value in each row, got none in 1 of 7 rows; drop or fill .* missing",
        ):
            make(table)
        loader = make(table, missing="fill")
        rows = loader.encoding.inputs(table)
        assert rows[2, 0] == 0.0
        assert rows[1, 1:].tolist() == [0.0, 0.0]
        age = loader.encoding.features[0]
        np.testing.assert_allclose(age.mean, np.nanmean(table["age"]))  # type: ignore[union-attr]

    def test_goes_through_json(self) -> None:
        for loader in (make(), make(target="sex"), make(missing="fill", dtype=np.float64)):
            again = TableEncoding.from_settings(json.loads(json.dumps(loader.encoding.settings())))
            assert again == loader.encoding

    @pytest.mark.parametrize(
        "change",
        [
            {"features": []},
            {"targets": []},
            {"classes": True},
            {"dtype": "int8"},
            {"dtype": "no type"},
            {"missing": "ignore"},
            {"features": [{"name": "age", "mean": float("nan"), "deviation": 1.0}]},
            {"features": [{"name": "age", "mean": 0.0, "deviation": 0.0}]},
            {"features": [{"mean": 0.0}]},
            {"features": [{"name": "age", "mean": 0.0, "deviation": 1.0, "kind": "category"}]},
            {"features": [{"name": "age", "categories": ["first"], "kind": "time"}]},
            {"features": 3},
            {"group": 3},
        ],
    )
    def test_settings_that_are_none(self, change: dict[str, Any]) -> None:
        with pytest.raises(ArgumentException):
            TableEncoding.from_settings(make().encoding.settings() | change)
        with pytest.raises(ArgumentException):
            TableEncoding.from_settings({})


class TestNamesOfTasks:
    """Messages call a task by its group."""

    @staticmethod
    def learner(*, InnerLearningRate: float = 1e30, **options: Any) -> Any:
        model = NeuralNetworkModel(mlp(8, 1), input_shape=(3,), seed=0)
        return iMAMLAlgorithm(iMAMLOptions(model, InnerLearningRate=InnerLearningRate, AdaptationSteps=20, **options))

    @pytest.mark.parametrize("transformed", [False, True])
    def test_of_a_step_that_fails(self, transformed: bool) -> None:
        loader = make().with_transform(lambda x, _: x) if transformed else make()
        batch = loader.GetTaskBatch(3)
        assert [task.Name for task in batch] == [f"child {task.Metadata['Group']!r}" for task in batch]
        with pytest.raises(InvalidOperationException, match=rf"of task 0 \({batch[0].Name}\) is not finite"):
            self.learner().MetaTrain(batch)

    def test_of_an_adaptation_that_fails(self) -> None:
        table = growth([4])
        with pytest.raises(InvalidOperationException, match=r"of task 0 \(child 'child 00'\) is not finite"):
            self.learner().Adapt(make().encoding.task(table))

    def test_of_a_series_that_grows(self) -> None:
        # The tasks of one size are worked on together, so that their order is not that of the batch.
        batch = make(growth([3, 9, 4, 9, 5])).GetTaskBatch(8)
        options: dict[str, Any] = {"UseNeumannApproximation": True, "LambdaRegularization": 1e3}
        learner = self.learner(InnerLearningRate=1e-3, **options)
        with pytest.warns(SeriesGrowthWarning) as told:
            learner.MetaTrain(batch)
        found = re.search(r"series of task (\d+) \((.+)\) grows", str(told[0].message))
        assert found is not None
        assert found[2] == batch[int(found[1])].Name


class TestGroupsOfLaterRows:
    def test_several_are_no_task(self) -> None:
        encoding = make(growth([5] * 4)).encoding
        again = TableEncoding.from_settings(json.loads(json.dumps(encoding.settings())))
        assert again == encoding
        later = growth([4, 3, 5])
        column = encoding.group
        assert column is not None
        groups = again.groups(later)
        assert [len(rows) for rows in groups.values()] == [4, 3, 5]
        with pytest.raises(
            ArgumentException, match=f"support must have rows of one group, got 3 groups in column '{column}'"
        ):
            again.task(later)
        first, second = (
            {name: np.asarray(values)[rows] for name, values in later.items()} for rows in [*groups.values()][:2]
        )
        with pytest.raises(ArgumentException, match="query must have rows of one group, got 3 groups"):
            again.task(first, later)
        with pytest.raises(ArgumentException, match=r"query must have rows of the support's group, .*, got "):
            again.task(first, second)
        assert len(again.task(first, first).SupportInput) == 4
        # Of one group, nothing more need be said.
        del second[column]
        assert again.groups(second) == {}
        assert len(again.task(first, second).QueryInput) == 3
        assert len(again.task({**first, column: [None] * 4}).SupportInput) == 4


class TestSmallGroups:
    def test_are_refused_or_left_out_of_tasks_and_encoding(self) -> None:
        table = growth([1, 6, 2, 5, 1, 7])
        with pytest.raises(ArgumentException, match=r"^support .* fewer than 4 rows are 'child 00', 'child 02', 'c"):
            make(table, support=3)
        with pytest.warns(UserWarning, match=r"^3 groups with fewer than 4 rows are left out: 'child 00', 'c"):
            loader = make(table, support=3, small="skip")
        assert loader.left_out == ("child 00", "child 02", "child 04")
        kept = np.isin(table["child"], ["child 01", "child 03", "child 05"])
        same = make(
            {name: [v for v, k in zip(values, kept, strict=True) if k] for name, values in table.items()}, support=3
        )
        assert loader.encoding == same.encoding
        assert bits(loader.GetTaskBatch(5)) == bits(same.GetTaskBatch(5))
        # What the small groups lack is no matter.
        table["height"] = [h if k else np.nan for h, k in zip(table["height"], kept, strict=True)]
        with pytest.warns(UserWarning, match="left out"):
            assert make(table, support=3, small="skip").encoding == same.encoding
        with pytest.raises(
            ArgumentException, match=r"^support .*, got 9, and the largest .* has 7; take at most 6 support rows$"
        ):
            make(table, support=9, small="skip")


class TestClasses:
    @pytest.mark.slow
    def test_targets_of_strings_are_classes(self) -> None:
        rng = np.random.default_rng(0)
        shop = np.repeat(np.arange(12), 10)
        price = rng.normal(size=120)
        sold = np.where(price < 0.3 * (shop % 3 - 1), "yes", "no")
        loader = TableLoader(
            {"shop": shop, "price": price, "sold": sold}, task="shop", target="sold", support=0.5, seed=0
        )
        task = loader.GetNextTask()
        assert (loader.NWay, task.NumWays, loader.encoding.classes) == (2, 2, ("no", "yes"))
        assert task.SupportOutput.dtype == np.int64
        model: NeuralNetworkModel[Any] = NeuralNetworkModel(
            mlp(16, 2), input_shape=(1,), loss=CrossEntropyLoss(), seed=0
        )
        train, test = loader.split(0.75, 0.25)
        learner = MAMLAlgorithm(
            MAMLOptions(model, DataLoader=train, NumMetaIterations=150, InnerLearningRate=0.1, OuterLearningRate=0.01)
        )
        learner.Train()
        right = [
            np.mean(
                train.encoding.decode(learner.Adapt(task).Predict(task.QueryInput))
                == np.array(train.encoding.classes)[task.QueryOutput]
            )
            for task in test.GetTaskBatch(20)
        ]
        assert np.mean(right) > 0.8

    def test_a_single_class_is_none(self) -> None:
        table = {"g": [1, 1, 2, 2, 3, 3], "x": range(6), "y": ["same"] * 6}
        message = r"^column 'y' must have at least two classes, got 'same' alone"
        with pytest.raises(ArgumentException, match=message):
            TableLoader(table, task="g", target="y")
        whole = TableLoader({**table, "y": ["same"] * 4 + ["same", "other"]}, task="g", target="y")
        with pytest.raises(ArgumentException, match=rf"{message}; split so that the training groups have all"):
            whole.split([1, 2], [3])

    @pytest.mark.parametrize("values", [[True, False] * 4, [3, 7] * 4])
    def test_other_targets_are_classes_if_asked(self, values: list[Any]) -> None:
        table = {"g": [0] * 4 + [1] * 4, "x": np.arange(8.0), "y": values}
        loader = TableLoader(table, task="g", target="y", classes=True, seed=0)
        assert loader.encoding.classes == tuple(sorted(set(values)))
        scores = np.eye(2)[[1, 0]]
        assert loader.encoding.decode(scores).tolist() == [loader.encoding.classes[1], loader.encoding.classes[0]]
        assert (TableLoader(table, task="g", target="y", seed=0).encoding.classes is None) == (values[0] is not True)

    def test_booleans_in_objects_are_classes(self) -> None:
        pandas = pytest.importorskip("pandas")
        table = {"g": [0] * 4 + [1] * 4, "x": np.arange(8.0)}
        values = [True, False] * 4
        frame = pandas.DataFrame({"g": [*table["g"], 1], "x": np.arange(9.0), "y": [*values, None]}).dropna()
        for form in (table | {"y": np.array(values, object)}, table | {"y": list(map(np.bool_, values))}, frame):
            assert TableLoader(form, task="g", target="y", seed=0).encoding.classes == (False, True)

    def test_classes_that_training_lacks_are_named(self) -> None:
        table = {"g": [0, 0, 1, 1], "x": [1.0, 2.0, 3.0, 4.0], "y": ["a", "b", "a", "c"]}
        message = r"^column 'y' must hold classes of the training groups, 'a', 'b', got 'c' in group 1; train on groups"
        with pytest.raises(ArgumentException, match=message):
            TableLoader(table, task="g", target="y", seed=0).split([0], [1])


class TestTimes:
    @pytest.mark.parametrize("form", ["%Y-%m-%d", "%Y/%m/%dT%H:%M", "%d.%m.%Y %H:%M", "%m/%d/%Y"])
    def test_dates_as_strings_are_told_of(self, form: str) -> None:
        days = [(datetime.date(2024, 1, 1) + datetime.timedelta(day)).strftime(form) for day in range(300)]
        table = {"g": [1, 1, 2, 2], "day": days[:4], "x": np.arange(4.0), "y": np.arange(4.0)}
        message = "column 'day' has dates as strings, each of which is an input of its own; convert it to times, as pan"
        with pytest.warns(UserWarning, match=message):
            loader = TableLoader(table, task="g", target="y", seed=0)
        # Once, and not of strings that are groups, or read by an encoding.
        loader.split(1, 1)
        TableLoader(table, task="g", target="y", encoding=loader.encoding)
        TableLoader(table | {"day": days[:2] * 2}, task="day", target="y", features=["x"], seed=0)
        many = {"g": np.repeat([1, 2], 150), "day": days, "y": np.arange(300.0)}
        with pytest.raises(ArgumentException, match="got 300; convert its dates to times, or leave it out of the feat"):
            TableLoader(many, task="g", target="y", seed=0)

    @pytest.mark.parametrize("unit", ["D", "s", "us", "ns"])
    def test_groups_and_classes_are_pythons_times(self, unit: str) -> None:
        days = [datetime.datetime(2020, 1, day) for day in (1, 2, 3)]
        stamps = np.repeat(np.array(days, f"datetime64[{unit}]"), 2)
        table = {"g": stamps, "x": np.arange(6.0), "y": stamps}
        assert TableLoader(table, task="g", target="x", features=["y"], seed=0).labels == tuple(days)
        assert TableLoader({**table, "g": [1, 2] * 3}, task="g", target="y", classes=True).encoding.classes == tuple(
            days
        )

    @pytest.mark.parametrize(
        "stamp", [np.datetime64("2020-01-01", "ns") + np.timedelta64(100, "ns"), np.datetime64("12000-01-01", "us")]
    )
    @pytest.mark.parametrize(
        "roles", [{"task": "t", "target": "x"}, {"task": "g", "target": "t", "classes": True}], ids=["group", "class"]
    )
    def test_groups_and_classes_that_are_none_are_refused(self, stamp: Any, roles: dict[str, Any]) -> None:
        table = {"g": [1, 1, 2, 2], "x": np.arange(4.0), "t": np.array([stamp] * 4)}
        with pytest.raises(
            ArgumentException, match=r"^column 't' must have whole microseconds of the years 1 to 9999 .* got"
        ):
            TableLoader(table, **roles)

    @pytest.mark.parametrize("step", [np.timedelta64(1, "D"), np.timedelta64(1, "us"), np.timedelta64(1000, "ns")])
    def test_classes_go_through_json(self, step: Any) -> None:
        pandas = pytest.importorskip("pandas")
        stamps = np.datetime64("2020-01-01") + step * np.array([0, 1, 0, 1])
        table = {"g": [1, 1, 2, 2], "x": np.arange(4.0), "t": stamps}
        encoding = TableLoader(table, task="g", target="t", classes=True).encoding
        again = TableEncoding.from_settings(json.loads(json.dumps(encoding.settings())))
        assert again == encoding
        for form in (table, pandas.DataFrame(table)):
            assert again.outcomes(form).tolist() == [0, 1, 0, 1]
        assert again.decode(np.eye(2)).tolist() == stamps[:2].astype("datetime64[us]").tolist()
        with pytest.raises(ArgumentException, match=r"^column 't' must hold times, as its categories are, got strings"):
            again.outcomes({"t": ["2020-01-01"]})

    def test_durations_as_groups_are_seconds(self) -> None:
        spans = np.array([1500, 1500, 2000, 2000], "timedelta64[ms]")
        table = {"g": spans, "x": np.arange(4.0), "y": np.arange(4.0)}
        assert TableLoader(table, task="g", target="y", seed=0).labels == (1.5, 2.0)


TABLE = growth([3, 5, 4])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"task": "kid"}, "task must be a column of the table, 'child', 'age', 'sex', 'height', got 'kid'"),
        ({"task": "Child"}, r"task must be .*, got 'Child'; did you mean 'child'\?$"),
        ({"target": "weight"}, "target must be a column of the table, .*, got 'weight'"),
        ({"target": []}, r"target must be the names of one or more columns, got \[\]"),
        ({"target": "child"}, "target must be another column than task, got 'child' for both"),
        ({"target": ["height", "height"]}, "target must be different columns, got"),
        ({"target": ["height", "sex"]}, "target must be one column where it is a class, got height, sex"),
        ({"features": ["age", "height"]}, "features must be other columns than target, got 'height' for both"),
        ({"features": ["age", 3]}, r"features\[1\] must be a column of the table, .*, got 3"),
        (
            {"features": "age", "order": "sex"},
            "order must be a column of times or numbers, got the categories",
        ),
        ({"order": "day"}, "order must be a column of the table, .*, got 'day'"),
        (
            {"support": 3},
            r"support must leave each group .*, got 3; groups with fewer than 4 .* are 'child 00'",
        ),
        ({"support": 0}, "support must be a whole number of at least 1, got 0"),
        ({"support": 1.0}, r"support must be a number in \(0, 1\), got 1.0"),
        ({"support": True}, "support must be a whole number of at least 1, got True"),
        ({"missing": "ignore"}, "missing must be 'refuse' or 'fill', got 'ignore'"),
        ({"classes": "yes"}, "classes must be True or False or None, got 'yes'"),
        ({"target": "sex", "classes": False}, "classes must be True or None for a target of categories, got False"),
        ({"weighting": "equal"}, "weighting must be 'uniform', 'balanced' or 'proportional', got 'equal'"),
        ({"small": "drop"}, "small must be 'refuse' or 'skip', got 'drop'"),
        ({"encoding": make().encoding, "features": ["age"]}, "features must be None where encoding is given"),
        ({"encoding": make().encoding, "target": "age"}, "target must be that of the encoding, height, got age"),
        ({"encoding": "mine"}, "encoding must be the encoding of a TableLoader, or None, got 'mine'"),
        ({"seed": -1}, "seed must be a whole number of at least 0, got -1"),
        ({"dtype": int}, "dtype must be a NumPy floating type"),
        ({"table": TABLE | {"age": [np.inf] * 12}}, "column 'age' must be finite, got inf; drop or replace such rows"),
        ({"table": TABLE | {"height": [np.nan] + [1.0] * 11}}, "column 'height' must have a value .* in 1 of 12 rows"),
        ({"table": TABLE | {"child": ["a", None] * 6}}, "child must hold a label for each example, got None at 1"),
        (
            {"table": TABLE | {"child": list("abcdefghijkl")}},
            "support must leave .*, got 0.5, .* of 'child' has 1; task must be a column of larger groups$",
        ),
        (
            {"table": TABLE | {"age": [np.nan] * 12}, "missing": "fill"},
            "column 'age' must hold numbers, got none",
        ),
        ({"table": TABLE | {"sex": [None] * 12}, "missing": "fill"}, "column 'sex' must hold"),
        ({"table": {n: TABLE[n] for n in ("child", "height")}}, "table must have a column to predict from, got child"),
        (
            {"table": growth([300]) | {"note": [f"row {i}" for i in range(300)]}},
            "column 'note' must have at most 256 categories, got 300; leave it out of the features",
        ),
    ],
)
def test_arguments_that_do_not_fit(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentException, match=rf"^{message}"):
        make(**({"table": TABLE} | arguments))


def test_names_and_labels_may_be_in_arrays_and_series() -> None:
    pandas, polars = pytest.importorskip("pandas"), pytest.importorskip("polars")
    table = growth([3, 4, 5]) | {"mass": list(range(12))}
    frame = pandas.DataFrame(table)
    forms: list[Any] = [frame.columns[[1, 2]], np.array(["age", "sex"]), pandas.Series(["age", "sex"])]
    for features in (*forms, polars.Series(["age", "sex"])):
        loader = TableLoader(frame, task="child", target=np.array(["height", "mass"]), features=features, seed=0)  # type: ignore[arg-type]
        assert [column.name for column in loader.encoding.features] == ["age", "sex"]
        assert loader.encoding.target_names == ("height", "mass")
    with pytest.raises(ArgumentException, match="features must be the names of one or more columns, got ndarray"):
        make(table, features=np.array([["age", "sex"]]))
    children = frame.child
    for labels in (children.unique(), children.astype("category").unique(), polars.Series(table["child"]).unique()):
        first, second = make(frame).split(labels[:2], labels[2:])
        assert (set(first.labels), set(second.labels)) == (set(labels[:2]), set(labels[2:]))


class Unread:
    """A table that must not be looked at."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(name)


@pytest.mark.parametrize(
    "arguments", [{"support": 0}, {"weighting": "no"}, {"seed": -1}, {"missing": 3}, {"classes": 1}]
)
def test_settings_are_refused_before_the_table_is_read(arguments: dict[str, Any]) -> None:
    with pytest.raises(ArgumentException):
        make(Unread(), **arguments)


def test_predictions_that_do_not_fit(backend: Backend) -> None:
    encoding = make().encoding
    assert encoding.decode(backend.asarray(np.zeros((3, 1)))).shape == (3,)
    with pytest.raises(ArgumentException, match=r"predictions must have shape \(rows, 1\), got \(3, 2\)"):
        encoding.decode(backend.asarray(np.zeros((3, 2))))
    with pytest.raises(ArgumentException, match="column 'age' must hold numbers, got categories"):
        encoding.inputs({"age": ["old"], "sex": ["f"]})
