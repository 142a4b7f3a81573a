"""The estimator that meta-trains on groups: scikit-learn's checks, known and new groups, and gains over pooled rows."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pandas as pd
import polars
import pytest
from any_width import OneGroup
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, GroupKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OrdinalEncoder
from sklearn.utils.estimator_checks import parametrize_with_checks

from aidotnet_py import ArgumentException, MetaLearningTask
from aidotnet_py.estimators import MetaTrainedRegressor

# Of first order, for which there is half as much to trace.
SHORT = {"NumMetaIterations": 2, "UseFirstOrder": True}
KINDS = {"age": np.float64, "child": np.str_, "sex": np.str_}


@parametrize_with_checks([OneGroup(0, options={"NumMetaIterations": 10, "AdaptationSteps": 20}, random_state=0)])
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:invalid value encountered in cast:RuntimeWarning")
def test_scikit_learns_checks(estimator: Any, check: Any) -> None:
    check(estimator)


def children(count: int, seed: int = 0, prefix: str = "c") -> tuple[pd.DataFrame, pd.Series]:
    """Children with a start and a pace of their own, each measured 4 to 12 times."""
    rng = np.random.default_rng(seed)
    place = np.repeat(np.arange(count), rng.integers(4, 13, count))
    age = rng.uniform(1, 11, len(place))
    height = rng.normal(75, 5, count)[place] + rng.normal(6, 1, count)[place] * age
    names = np.array([f"{prefix}{number}" for number in range(count)])
    X = pd.DataFrame({"age": age, "child": names[place], "sex": np.array(["f", "m"])[place % 2]})
    return X, pd.Series(height + rng.normal(0, 0.5, len(age)), name="height")


def halves(X: pd.DataFrame) -> tuple[NDArray[Any], NDArray[Any]]:
    """The places of each child's first three rows, and of the others."""
    first = (X.groupby("child").cumcount() < 3).to_numpy()
    return np.flatnonzero(first), np.flatnonzero(~first)


class TestGroups:
    @pytest.mark.slow
    def test_new_ones_are_learned_from_a_few_rows(self) -> None:
        X, y = children(60)
        model = MetaTrainedRegressor("child", options={"NumMetaIterations": 300}, random_state=0).fit(X, y)
        assert len(model.loss_curve_) == 300
        assert np.mean(model.loss_curve_[-20:]) < np.mean(model.loss_curve_[:20]) / 3
        start = model.learner_.GetParameters()
        new, heights = children(20, seed=1, prefix="n")
        support, query = halves(new)
        model.partial_fit(new.iloc[support], heights.iloc[support])
        np.testing.assert_array_equal(model.learner_.GetParameters(), start)
        error = np.abs(model.predict(new.iloc[query]) - heights.iloc[query]).mean()
        # The same rows, pooled: as much is known of the children.
        pooled = make_pipeline(
            make_column_transformer((OrdinalEncoder(), ["child", "sex"]), remainder="passthrough"),
            HistGradientBoostingRegressor(random_state=0),
        )
        known, targets = pd.concat([X, new.iloc[support]]), pd.concat([y, heights.iloc[support]])
        other = np.abs(pooled.fit(known, targets).predict(new.iloc[query]) - heights.iloc[query]).mean()
        assert error < 0.75 * other
        assert error < 4.0

    def test_each_has_a_model_adapted_to_all_its_rows(self) -> None:
        X, y = children(4)
        model = MetaTrainedRegressor("child", options=SHORT, random_state=0).fit(X, y)
        assert set(model.adapted_) == set(X["child"])
        rows = (X["child"] == "c3").to_numpy()
        encoding = model.encoding_
        targets = ((y[rows] - encoding.targets[0].mean) / encoding.targets[0].deviation).to_numpy()
        inputs = encoding.inputs(X[rows])
        assert inputs.shape == (rows.sum(), 3)
        task = MetaLearningTask(SupportSetX=inputs, SupportSetY=targets[:, np.newaxis])
        expected = encoding.decode(model.learner_.Adapt(task).Predict(inputs))
        np.testing.assert_allclose(model.predict(X)[rows], expected, rtol=1e-6)

    def test_one_with_greater_inputs_is_fitted_no_worse_than_by_the_start(self) -> None:
        X, y = children(8)
        model = MetaTrainedRegressor("child", options=SHORT, random_state=0).fit(X, y)
        new, heights = children(1, seed=1, prefix="n")
        new["age"] *= 8
        model.partial_fit(new, heights)
        inputs, learner = model.encoding_.inputs(new), model.learner_
        targets = model.encoding_.targets[0]
        outcomes = ((heights - targets.mean) / targets.deviation).to_numpy()[:, np.newaxis]
        plain = learner.Adapt(MetaLearningTask(SupportSetX=inputs, SupportSetY=outcomes))
        of_start, of_steps, found = (
            float(np.mean((each.Predict(inputs) - outcomes) ** 2))
            for each in (learner.GetMetaModel(), plain, model.adapted_["n0"])
        )
        assert of_steps > 2 * of_start
        assert found < of_start

    @pytest.mark.slow
    def test_rows_that_come_in_parts(self) -> None:
        X, y = children(4)
        new, heights = children(1, seed=1, prefix="n")
        whole = MetaTrainedRegressor("child", options=SHORT, random_state=0).fit(X, y)
        parts = MetaTrainedRegressor("child", options=SHORT, random_state=0).partial_fit(X, y)
        whole.partial_fit(new, heights)
        for some in (slice(0, 2), slice(2, None)):
            parts.partial_fit(new[some], heights[some])
        np.testing.assert_array_equal(whole.predict(new), parts.predict(new))
        np.testing.assert_array_equal(whole.predict(X), parts.predict(X))

    def test_unknown_ones(self) -> None:
        X, y = children(4)
        model = MetaTrainedRegressor("child", options=SHORT, random_state=0).fit(X, y)
        new, _ = children(1, prefix="n")
        with pytest.raises(ArgumentException, match="got 'n0' in 'child'; call partial_fit with rows of this group"):
            model.predict(pd.concat([X, new]))

    @pytest.mark.slow
    def test_one_with_a_single_row(self) -> None:
        X, y = children(4)
        lone = pd.DataFrame({"age": [5.0, 6.0], "child": ["lone", "lone"], "sex": ["f", "f"]})
        model = MetaTrainedRegressor("child", options=SHORT, random_state=0)
        model.fit(pd.concat([X, lone[:1]]), [*y, 110.0])
        without = MetaTrainedRegressor("child", options=SHORT, random_state=0).fit(X, y)
        # It is adapted to, and not trained on.
        np.testing.assert_array_equal(model.learner_.GetParameters(), without.learner_.GetParameters())
        assert np.isfinite(model.predict(lone)).all()
        with pytest.raises(
            ArgumentException, match=r"X must have a group of 2 or more rows, .* got at most 1 in a group; pass"
        ):
            model.fit(X.drop_duplicates("child"), y[X.drop_duplicates("child").index])

    @pytest.mark.slow
    def test_a_failure_leaves_all(self) -> None:
        X, y = children(4)
        model = MetaTrainedRegressor("child", options=SHORT, random_state=0).fit(X, y)
        new, heights = children(2, prefix="n")
        heights.iloc[-1] = np.nan
        with pytest.raises(ValueError, match="NaN"):
            model.partial_fit(new, heights)
        assert set(model.adapted_) == set(X["child"])
        before, start = model.predict(X), model.learner_
        with pytest.raises(ArgumentException, match="column 'weight' must be finite"):
            model.fit(X.assign(weight=np.inf), y)
        assert model.learner_ is start
        assert model.feature_names_in_.tolist() == ["age", "child", "sex"]
        np.testing.assert_array_equal(model.predict(X), before)


class TestTables:
    @pytest.mark.slow
    def test_are_frames_or_arrays(self) -> None:
        X, y = children(4)
        expected = MetaTrainedRegressor("child", options=SHORT, random_state=0).fit(X, y).predict(X)
        for frame in (polars.from_pandas(X), polars.from_pandas(X).to_arrow()):
            model = MetaTrainedRegressor("child", options=SHORT, random_state=0).fit(frame, y)
            np.testing.assert_array_equal(model.predict(frame), expected)
        model = MetaTrainedRegressor(1, options=SHORT, random_state=0).fit(X.to_numpy(object), y.to_numpy())
        np.testing.assert_array_equal(model.predict(X.to_numpy(object)), expected)
        numbered = X.set_axis([0, 1, 2], axis=1)
        np.testing.assert_array_equal(model.predict(numbered), expected)

    def test_are_frames_whose_columns_are_numbered_by_name(self) -> None:
        """Not by place, as those of an array."""
        X, y = children(4)
        settings: dict[str, Any] = {"options": SHORT, "random_state": 0}
        expected = MetaTrainedRegressor("child", order_column="age", **settings).fit(X, y).predict(X)
        numbered = X.set_axis([1, 2, 0], axis=1)
        model = MetaTrainedRegressor(2, order_column=1, **settings).fit(numbered, y)
        assert set(model.adapted_) == set(X["child"])
        np.testing.assert_array_equal(model.predict(numbered), expected)
        with pytest.raises(ArgumentException, match="task_column must be a column of X, 1, 2, 0, got 3"):
            MetaTrainedRegressor(3).fit(numbered, y)
        with pytest.raises(ArgumentException, match="order_column must be a column of X, 1, 2, 0, got 'age'"):
            MetaTrainedRegressor(2, order_column="age").fit(numbered, y)

    def test_are_no_lazy_frames(self) -> None:
        X, y = children(8)
        lazy, targets = polars.from_pandas(X).lazy(), polars.DataFrame({"y": y.to_numpy()}).lazy()
        model = MetaTrainedRegressor("child", options=SHORT, random_state=0)
        for method in (model.fit, model.partial_fit, model.predict, model.score):
            rest = () if method == model.predict else (y,)
            with pytest.raises(ArgumentException, match=r"^X must be a frame or an array, got .*; collect it"):
                method(lazy, *rest)
            if rest:
                with pytest.raises(ArgumentException, match=r"^y must be an array, a series or a frame.*; collect it"):
                    method(X, targets)
            if method == model.fit:
                model.fit(X, y)

    @pytest.mark.parametrize("library", [pd, polars])
    def test_are_frames_after_a_fit_on_an_array(self, library: Any) -> None:
        X, y = children(4)
        array = X.to_numpy(object)
        model = MetaTrainedRegressor(1, options=SHORT, random_state=0).fit(array, y)
        expected = model.predict(array)
        frame = library.DataFrame(X.to_dict("list"))
        with pytest.warns(UserWarning, match="X has feature names, but MetaTrainedRegressor was fitted without"):
            np.testing.assert_array_equal(model.predict(frame), expected)
        with (
            pytest.warns(UserWarning, match="X has feature names"),
            pytest.raises(ValueError, match="X has 2 features, but MetaTrainedRegressor is expecting 3"),
        ):
            model.predict(frame[["age", "child"]])

    def test_are_no_arrays_of_strings_that_were_numbers(self) -> None:
        """As which np.column_stack returns names and numbers."""
        X, y = children(4)
        strings = X[["child", "age", "sex"]].to_numpy(object).astype(np.str_)
        message = "X must have numbers as numbers, got '.*' in column 1 of an array of strings; pass a frame, or a list"
        with pytest.raises(ArgumentException, match=message):
            MetaTrainedRegressor(0).fit(strings, y)
        # Groups may be called by numbers, and strings in lists are meant as strings.
        numbers = X["child"].str[1:].tolist()
        named = np.column_stack([numbers, X["sex"].tolist()])
        for rows, categories in ((named, ("f", "m")), ([[group, "1"] for group in numbers], ("1",))):
            model = MetaTrainedRegressor(0, options=SHORT, random_state=0).fit(rows, y)
            assert set(model.adapted_) == set(numbers)
            assert model.encoding_.features[0].categories == categories

    @pytest.mark.slow
    def test_lists_have_columns_of_several_types(self) -> None:
        X, y = children(4)
        expected = MetaTrainedRegressor("child", options=SHORT, random_state=0).fit(X, y).predict(X)
        plain = X.to_numpy(object).tolist()
        numpys = [list(row) for row in zip(*(X[name].to_numpy(kind) for name, kind in KINDS.items()), strict=True)]
        assert isinstance(numpys[0][0], np.float64)
        assert isinstance(numpys[0][1], np.str_)
        for rows in (plain, numpys):
            model = MetaTrainedRegressor(1, options=SHORT, random_state=0).fit(rows, y)
            np.testing.assert_array_equal(model.predict(rows), expected)

    def test_groups_of_large_numbers_stay_apart(self) -> None:
        y = np.arange(8.0)
        frame = pd.DataFrame({0: np.repeat([2**53, 2**53 + 1], 4), 1: np.linspace(0.1, 1.0, 8)})
        rows = [[group, x] for group, x in zip(frame[0].tolist(), frame[1].tolist(), strict=True)]
        for X in (frame, rows):
            model = MetaTrainedRegressor(0, options=SHORT, random_state=0).fit(X, y)
            assert list(model.adapted_) == [2**53, 2**53 + 1]

    def test_columns_of_one_name(self) -> None:
        X, y = children(4)
        with pytest.raises(ArgumentException, match="X must be a frame that narwhals takes: Expected unique column"):
            MetaTrainedRegressor("child", options=SHORT).fit(pd.concat([X, X[["age"]]], axis=1), y)

    @pytest.mark.slow
    def test_a_feature_named_like_the_target(self) -> None:
        X, y = children(4)
        expected = MetaTrainedRegressor("child", options=SHORT, random_state=0).fit(X, y).predict(X)
        renamed = X.rename(columns={"age": "y", "sex": "y_"})
        model = MetaTrainedRegressor("child", options=SHORT, random_state=0).fit(renamed, y)
        np.testing.assert_array_equal(model.predict(renamed), expected)

    def test_order(self) -> None:
        X, y = children(4)
        models = [
            MetaTrainedRegressor("child", order_column=order, support=2, options=SHORT, random_state=0).fit(X, y)
            for order in (None, "age")
        ]
        assert models[0].loss_curve_ != models[1].loss_curve_

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"task_column": "kid"}, "task_column must be a column of the table, 'age', 'child', 'sex', got 'kid'"),
            ({"task_column": 1}, "task_column must be a column of the table, 'age', 'child', 'sex', got 1"),
            ({"order_column": "day"}, "order_column must be a column of the table"),
            ({"support": 1.5}, "support must be"),
            ({"algorithm": "SGD"}, "algorithm must be"),
            ({"options": "x"}, "options must be a mapping of options, or None, got .x."),
            ({"options": {"InnerLearningRat": 0.1}}, "InnerLearningRat"),
        ],
    )
    def test_arguments_that_are_wrong(self, arguments: dict[str, Any], message: str) -> None:
        X, y = children(4)
        with pytest.raises(ArgumentException, match=message):
            MetaTrainedRegressor(**{"task_column": "child", **arguments}).fit(X, y)

    def test_places_that_are_wrong(self) -> None:
        with pytest.raises(ArgumentException, match="task_column must be a whole number from 0 to 1, got 2"):
            MetaTrainedRegressor(2).fit(np.zeros((4, 2)), np.zeros(4))
        with pytest.raises(ArgumentException, match="task_column must be a whole number from 0 to 1, got 'a'"):
            MetaTrainedRegressor("a").fit(np.zeros((4, 2)), np.zeros(4))

    @pytest.mark.parametrize(
        ("changes", "arguments", "message"),
        [
            (
                {"age": [np.nan, *range(299)]},
                {},
                "column 'age' must have a value in each row, .* rows; drop or fill such rows, as TableLoader does",
            ),
            ({"age": pd.Period("2024-01")}, {}, r"X\['age'\] must hold numbers, .*; convert or drop it$"),
            (
                {"age": [f"day {day}" for day in range(300)]},
                {},
                "at most 256 categories, got 300; leave it out of the features$",
            ),
            ({"age": None}, {"order_column": "sex"}, "order_column must be a column of times .* categories of 'sex'$"),
            (
                {},
                {"support": 50},
                "X must have a group of 51 or more rows, .* got at most 30 in a group; pass a smaller",
            ),
        ],
    )
    def test_remedies_name_no_argument_that_it_lacks(
        self, changes: dict[str, Any], arguments: dict[str, Any], message: str
    ) -> None:
        table = {"child": np.arange(300) // 30, "age": np.arange(300.0), "sex": ["f", "m"] * 150, **changes}
        with pytest.raises(ArgumentException, match=message):
            MetaTrainedRegressor("child", options=SHORT, **arguments).fit(pd.DataFrame(table), np.arange(300.0))


class TestTimes:
    @pytest.mark.slow
    @pytest.mark.parametrize(("unit", "library"), [("ns", pd.Series), ("us", polars.Series), ("ms", np.asarray)])
    def test_durations_are_in_seconds(self, unit: Any, library: Any) -> None:
        X, y = children(4)
        seconds = y.round(2)
        durations = library(pd.to_timedelta(seconds, unit="s").dt.as_unit(unit).to_numpy())
        plain = MetaTrainedRegressor("child", options=SHORT, random_state=0).fit(X, seconds)
        model = MetaTrainedRegressor("child", options=SHORT, random_state=0).fit(X, durations)
        np.testing.assert_allclose(model.predict(X), plain.predict(X), rtol=1e-6)
        expected = plain.score(X, seconds)
        for targets in (durations, seconds):
            assert model.score(X, targets) == pytest.approx(expected, abs=1e-6)

    @pytest.mark.slow
    def test_durations_in_parts_of_several_units(self) -> None:
        X, y = children(4)
        new, later = children(1, seed=1, prefix="n")
        model = MetaTrainedRegressor("child", options=SHORT, random_state=0).fit(
            X, pd.to_timedelta(y.round(), unit="s")
        )
        durations = pd.to_timedelta(later.round(), unit="s")
        expected = pickle.loads(pickle.dumps(model)).partial_fit(new, later.round()).predict(new)
        for unit in ("s", "ns"):
            copy = pickle.loads(pickle.dumps(model)).partial_fit(new, durations.dt.as_unit(unit))
            np.testing.assert_allclose(copy.predict(new), expected, rtol=1e-9)

    @pytest.mark.slow
    @pytest.mark.parametrize("zone", [None, "Europe/Berlin"])
    def test_times_are_in_seconds_since_1970(self, zone: str | None) -> None:
        X, y = children(4)
        times = (pd.Timestamp("2024-01-01") + pd.to_timedelta(y.round(), unit="s")).dt.tz_localize(zone)
        seconds = (times - pd.Timestamp(0, tz=zone and "UTC")).dt.total_seconds()
        model = MetaTrainedRegressor("child", options=SHORT, random_state=0).fit(X, times)
        plain = MetaTrainedRegressor("child", options=SHORT, random_state=0).fit(X, seconds)
        np.testing.assert_allclose(model.predict(X), plain.predict(X), rtol=1e-9)
        assert model.score(X, times) == pytest.approx(plain.score(X, seconds), abs=1e-6)

    def test_durations_after_numbers_are_refused(self) -> None:
        """The numbers may be hours."""
        X, y = children(4)
        model = MetaTrainedRegressor("child", options=SHORT, random_state=0).fit(X, y)
        for method in (model.partial_fit, model.score):
            with pytest.raises(ArgumentException, match="column 'y' must hold numbers, got durations; convert it"):
                method(X, pd.to_timedelta(y, unit="s"))

    @pytest.mark.costly
    @pytest.mark.parametrize("of", [list, lambda y: np.array([*y, None], object)[:-1]])
    def test_durations_as_objects(self, of: Any) -> None:
        X, y = children(4)
        durations = np.array(y.round(), "timedelta64[s]")
        expected = MetaTrainedRegressor("child", options=SHORT, random_state=0).fit(X, durations).predict(X)
        model = MetaTrainedRegressor("child", options=SHORT, random_state=0).fit(X, of(durations))
        np.testing.assert_array_equal(model.predict(X), expected)

    def test_times_without_a_zone_after_times_with_one(self) -> None:
        X, y = children(4)
        times = (pd.Timestamp("2024-01-01") + pd.to_timedelta(y.round(), unit="s")).dt.tz_localize("Europe/Berlin")
        model = MetaTrainedRegressor("child", options=SHORT, random_state=0).fit(X, times)
        for method in (model.partial_fit, model.score):
            with pytest.raises(ArgumentException, match="column 'y' must hold times with a time zone"):
                method(X, times.dt.tz_localize(None))


class TestScikitLearnsTools:
    def test_clones_pickles_and_seeds(self) -> None:
        X, y = children(4)
        model = MetaTrainedRegressor("child", options=SHORT, random_state=3)
        with pytest.raises(NotFittedError):
            model.predict(X)
        expected = model.fit(X, y).predict(X)
        np.testing.assert_array_equal(clone(model).fit(X, y).predict(X), expected)
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(model)).predict(X), expected)
        other = clone(model).set_params(random_state=4).fit(X, y)
        assert (other.predict(X) != expected).any()

    @pytest.mark.slow
    def test_cross_validation_over_groups(self) -> None:
        """The first rows of a test group are known: they belong to what is fitted."""
        X, y = children(40)
        support, _ = halves(X)
        folds = [
            (np.union1d(train, np.intersect1d(test, support)), np.setdiff1d(test, support))
            for train, test in GroupKFold(2).split(X, y, groups=X["child"])
        ]
        model = MetaTrainedRegressor("child", options={"NumMetaIterations": 150}, random_state=0)
        assert cross_val_score(model, X, y, cv=folds).min() > 0.85

    @pytest.mark.slow
    def test_a_search_of_parameters(self) -> None:
        X, y = children(4)
        support, query = halves(X)
        search = GridSearchCV(
            MetaTrainedRegressor("child", options=SHORT, random_state=0),
            {"algorithm": ["FOMAML", "iMAML"], "support": [0.3, 2]},
            cv=[(support, query)],
        )
        assert set(search.fit(X, y).best_params_) == {"algorithm", "support"}
