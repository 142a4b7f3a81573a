"""What turns the columns of a table into inputs and targets, fitted on some of its rows, and turns predictions back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeAlias, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from aidotnet_py.arguments import FINITE, POSITIVE, SWITCH, Choice, OrNone, check_given, refusal
from aidotnet_py.backends import backend_of
from aidotnet_py.data.example_pool import check_labels
from aidotnet_py.data.table.columns import ColumnKind, Columns
from aidotnet_py.data.table.reading import TableLike, read_table
from aidotnet_py.exceptions import ArgumentException
from aidotnet_py.meta_learning.contract.tasks import MetaLearningTask

__all__ = ["MISSING", "CategoryColumn", "NumberColumn", "TableEncoding", "name_of_group"]

MISSING = Choice("refuse", "fill")
# More are names, notes or numbers of rows, and would make as many inputs.
_MOST_CATEGORIES = 256
_PLURALS: dict[str | None, str] = {
    "number": "numbers",
    "time": "times",
    "duration": "durations",
    "category": "categories",
    None: "numbers",
}
_KIND = Choice("number", "time", "duration", None)
_ZONED = OrNone(SWITCH)
_CATEGORIES: dict[type, str] = {str: "strings", datetime: "times"}
# Loaders, estimators and the command line show these messages: a remedy names no argument of one of them alone.
_FILL = "drop or fill such rows, as TableLoader does with missing='fill'"
_LEAVE_OUT = "leave it out of the features"


@dataclass(frozen=True)
class NumberColumn:
    """A column of numbers, times or durations: (x − mean) / deviation, both taken over the rows that it is fitted on.

    Times are seconds since 1970, and durations seconds.

    Attributes
    ----------
    name : str
        The column.
    mean, deviation : float
        Mean and population standard deviation; 1 for a column that does not vary.
    kind : {"number", "time", "duration"} or None
        What the values are; None where it is not known, in settings of older versions.
    zoned : bool or None
        Whether times had a time zone; None for other values, and where it is not known.
    rest : float
        What the mean has beyond the digits of ``mean``, which matters for numbers that are far from 0 but close to each
        other; 0 in settings of older versions.
    """

    name: str
    mean: float
    deviation: float
    kind: ColumnKind | None = None
    zoned: bool | None = None
    rest: float = 0.0

    width = 1

    @classmethod
    def fit(cls, columns: Columns, name: str) -> NumberColumn:
        """Return the scale of a column."""
        values = columns.numbers(name)
        present = ~np.isnan(values)
        _check_finite(values[present], name)
        if not present.any():
            raise ArgumentException(f"column {name!r:.80} must hold numbers, got none; {_LEAVE_OUT}")
        # Differences from their middle, which are exact where numbers are close, and representable up to 1e308.
        middle = float(values[present].min() / 2 + values[present].max() / 2)
        spans = columns.numbers(name, middle)[present]
        # Squares and sums are not representable.
        largest = float(abs(spans).max()) or 1.0
        beyond, deviation = largest * float((spans / largest).mean()), largest * float((spans / largest).std())
        mean = middle + beyond
        rest = beyond - (mean - middle)
        return cls(name, mean, deviation or 1.0, columns.kind(name), _zoned(columns, name), rest)

    def check_kind(self, columns: Columns, *others: ColumnKind) -> None:
        """Raise ArgumentException for values of a kind that is neither the column's nor among others."""
        _check_zone(columns, self.name, self.zoned)
        found = columns.kind(self.name)
        if found in (self.kind, *others) or (self.kind is None and found != "category"):
            return
        # A column without values has no kind of its own.
        if not columns.missing(self.name).all():
            raise ArgumentException(
                f"column {self.name!r:.80} must hold {_PLURALS[self.kind]}, got {_PLURALS[found]}; convert it"
            )

    def encode(self, columns: Columns, out: NDArray[Any]) -> None:
        """Write the scaled column to ``out``, (rows, 1), with 0, the mean, for missing values."""
        values = columns.numbers(self.name)
        missing = np.isnan(values)
        _check_finite(values[~missing], self.name)
        with np.errstate(over="ignore"):
            scaled = (columns.numbers(self.name, self.mean) - self.rest) / self.deviation
            out[:, 0] = np.where(missing, 0.0, scaled)
        beyond = ~np.isfinite(out[:, 0])
        if beyond.any():
            raise ArgumentException(
                f"column {self.name!r:.80} must hold numbers near those of the training groups, got "
                f"{values[beyond][0]!r}, which scaled is inf in {out.dtype}; correct it, or drop such rows"
            )


@dataclass(frozen=True)
class CategoryColumn:
    """A column of categories: one input for each of them, 1 where the row has it; zeros for any other value.

    Attributes
    ----------
    name : str
        The column.
    categories : tuple
        The values, sorted, of the rows that it is fitted on.
    zoned : bool or None
        Whether times, which are in UTC then, had a time zone; None for other values, and where it is not known.
    """

    name: str
    categories: tuple[Any, ...]
    zoned: bool | None = None

    @property
    def width(self) -> int:
        """The number of inputs."""
        return len(self.categories)

    @classmethod
    def fit(cls, columns: Columns, name: str) -> CategoryColumn:
        """Return the categories of a column."""
        present = {value for value in columns.labels(name).tolist() if value is not None and value == value}
        if not present:
            raise ArgumentException(f"column {name!r:.80} must hold values, got none; {_LEAVE_OUT}")
        if len(present) > _MOST_CATEGORIES:
            raise ArgumentException(
                f"column {name!r:.80} must have at most {_MOST_CATEGORIES} categories, got {len(present)}; {_LEAVE_OUT}"
            )
        if "others" in _kinds(present):
            raise ArgumentException(
                f"column {name!r:.80} must have categories that are strings, numbers or times, got "
                f"{min(present, key=repr)!r:.80}; convert it, or {_LEAVE_OUT}"
            )
        try:
            return cls(name, tuple(sorted(present)), _zoned(columns, name))
        except TypeError as error:
            raise ArgumentException(
                f"column {name!r:.80} must have categories of one kind, such as strings: {error}"
            ) from error

    def check_kind(self, columns: Columns, *_: ColumnKind) -> None:
        """Raise ArgumentException for values of another kind than the categories, which none of them would be."""
        _check_zone(columns, self.name, self.zoned)
        found, wanted = _kinds(columns.labels(self.name).tolist()), _kinds(self.categories)
        if not found <= wanted:
            raise ArgumentException(
                f"column {self.name!r:.80} must hold {' or '.join(wanted)}, as its categories are, got "
                f"{' and '.join(sorted(found - wanted))}; convert it"
            )

    def numbers_of(self, columns: Columns) -> NDArray[np.int64]:
        """Return the index of each row's category, −1 for values that are not among them."""
        places = {value: place for place, value in enumerate(self.categories)}
        return np.array([places.get(value, -1) for value in columns.labels(self.name).tolist()], np.int64)

    def encode(self, columns: Columns, out: NDArray[Any]) -> None:
        """Write the indicators to ``out``, (rows, categories)."""
        np.equal(self.numbers_of(columns)[:, np.newaxis], np.arange(self.width), out=out, casting="unsafe")


_Column: TypeAlias = NumberColumn | CategoryColumn


@dataclass(frozen=True)
class TableEncoding:
    """The encoding of a table: inputs of scaled numbers and indicators of categories; targets, scaled or as labels.

    A `TableLoader` fits one on its groups, or on those of the first part of a split, and keeps it as ``encoding``.

    Attributes
    ----------
    features : tuple of NumberColumn or CategoryColumn
        The columns of the inputs, in order.
    targets : tuple of NumberColumn, or CategoryColumn
        The columns of a regression, or the column of classes.
    missing : {"refuse", "fill"}
        Whether a missing feature is an error, or the mean of its numbers, and no category.
    dtype : numpy dtype
        The floating type of the arrays.
    group : str or None
        The column that says which group a row belongs to; None where it is not known.
    string_groups : bool
        Whether the groups are strings.

    Examples
    --------
    >>> import numpy as np
    >>> from aidotnet_py.data import TableLoader
    >>> table = {"plant": [1, 1, 2, 2], "soil": ["clay", "sand"] * 2, "day": [0, 4, 2, 6], "height": [1, 3, 5, 7]}
    >>> encoding = TableLoader(table, task="plant", target="height", support=1, seed=0).encoding
    >>> encoding.inputs({"soil": ["sand", "peat"], "day": [3, 3]}).tolist()
    [[0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]
    >>> encoding.decode(np.array([[0.0]])).tolist()
    [4.0]
    """

    features: tuple[_Column, ...]
    targets: tuple[NumberColumn, ...] | CategoryColumn
    missing: str
    dtype: np.dtype[Any]
    group: str | None = None
    string_groups: bool = False

    @classmethod
    def fit(
        cls,
        columns: Columns,
        features: Sequence[str],
        targets: Sequence[str],
        *,
        classes: bool,
        missing: str,
        dtype: np.dtype[Any],
        group: str,
    ) -> TableEncoding:
        """Return the encoding of columns whose means, deviations and categories are those of these rows."""
        inputs = tuple(_column(columns, name) for name in features)
        rest = (missing, dtype, group, "strings" in _kinds(columns.labels(group)))
        if classes:
            return cls(inputs, CategoryColumn.fit(columns, targets[0]), *rest)
        return cls(inputs, tuple(NumberColumn.fit(columns, name) for name in targets), *rest)

    @property
    def input_shape(self) -> tuple[int]:
        """The shape of one input, for a model's ``input_shape``."""
        return (sum(column.width for column in self.features),)

    @property
    def outputs(self) -> int:
        """The numbers that a model predicts for a row: one a target, or one a class."""
        return self.targets.width if isinstance(self.targets, CategoryColumn) else len(self.targets)

    @property
    def classes(self) -> tuple[Any, ...] | None:
        """The values of the target in the order of their labels; None for a regression."""
        return self.targets.categories if isinstance(self.targets, CategoryColumn) else None

    @property
    def target_names(self) -> tuple[str, ...]:
        """The columns that are predicted."""
        return tuple(column.name for column in self._target_columns)

    @property
    def string_names(self) -> tuple[str, ...]:
        """The columns whose values are strings, also where all of a file's values look like numbers."""
        columns = (*self.features, *self._target_columns)
        names = [c.name for c in columns if isinstance(c, CategoryColumn) and "strings" in _kinds(c.categories)]
        return (*names, self.group) if self.group is not None and self.string_groups else tuple(names)

    @property
    def _target_columns(self) -> tuple[_Column, ...]:
        return (self.targets,) if isinstance(self.targets, CategoryColumn) else self.targets

    def inputs(self, table: TableLike) -> NDArray[Any]:
        """Return the inputs of a table's rows, (rows, inputs).

        Raises
        ------
        ArgumentException
            A column is missing or of another kind, or a value is missing or infinite.
        """
        columns = self._read(table, self.features)
        for column in self.features:
            column.check_kind(columns)
            missing = columns.missing(column.name)
            if self.missing == "refuse" and missing.any():
                raise ArgumentException(
                    f"column {column.name!r:.80} must have a value in each row, got none in {int(missing.sum())} of "
                    f"{columns.rows} rows; {_FILL}"
                )
        return self._encoded(columns, self.features)

    def outcomes(self, table: TableLike) -> NDArray[Any]:
        """Return the targets of a table's rows: (rows, targets), or class labels (rows,) of int64.

        Raises
        ------
        ArgumentException
            A column is missing or of another kind, a value is missing or infinite, or a class is unknown.
        """
        columns = self._read(table, self._target_columns)
        for column in self._target_columns:
            # Numbers are in the units of `decode`, which are seconds for times.
            column.check_kind(columns, "number")
            missing = columns.missing(column.name)
            if missing.any():
                raise ArgumentException(
                    f"column {column.name!r:.80} must have a value in each row, got none in {int(missing.sum())} of "
                    f"{columns.rows} rows; drop such rows"
                )
        if not isinstance(self.targets, CategoryColumn):
            return self._encoded(columns, self.targets)
        labels = self.targets.numbers_of(columns)
        if (labels < 0).any():
            value = columns.labels(self.targets.name).tolist()[int(np.argmin(labels))]
            raise ArgumentException(
                f"column {self.targets.name!r:.80} must hold classes of the training groups, got {value!r:.80}; split "
                "so that the training groups have all classes"
            )
        return labels

    def decode(self, predictions: ArrayLike) -> NDArray[Any]:
        """Return a model's predictions in the units of the target, or as its classes.

        Parameters
        ----------
        predictions : array, (rows, outputs)
            Scaled numbers, or a score for each class; of any backend.

        Returns
        -------
        array, (rows,) or (rows, targets)
            Numbers of float64, one column for each of several targets; or the class with the highest score.

        Raises
        ------
        ArgumentException
            ``predictions`` has another shape.
        """
        backend = backend_of(predictions)
        values = np.asarray(predictions if backend is None else backend.to_numpy(predictions))
        if values.ndim != 2 or values.shape[1] != self.outputs:
            raise ArgumentException(f"predictions must have shape (rows, {self.outputs}), got {values.shape}")
        if isinstance(self.targets, CategoryColumn):
            names: NDArray[Any] = np.array(self.targets.categories)
            best: NDArray[Any] = names[values.argmax(axis=1)]
            return best
        scale, rest, mean = (
            np.array([getattr(c, name) for c in self.targets]) for name in ("deviation", "rest", "mean")
        )
        numbers: NDArray[Any] = values.astype(np.float64) * scale + rest + mean
        return numbers[:, 0] if len(self.targets) == 1 else numbers

    def groups(self, table: TableLike, argument: str = "table") -> dict[Any, NDArray[np.intp]]:
        """Return the rows of each group in a table, in order; of a table without the column of groups, nothing.

        Parameters
        ----------
        table : frame, mapping or path
            As for `inputs`. A column of groups that is empty counts as none.
        argument : str
            What messages call it.

        Raises
        ------
        ArgumentException
            Some rows have a group and some have none, or the groups are of no single kind.
        """
        columns = read_table(table, argument, self.string_names)
        if self.group not in columns.names or columns.missing(self.group).all():
            return {}
        labels, places = check_labels(self.group, columns.labels(self.group), columns.rows)
        return {label: np.flatnonzero(places == place) for place, label in enumerate(labels)}

    def require_one_group(self, table: TableLike, argument: str) -> Any:
        """Return the one group of a table, or None if it does not tell; ArgumentException if it has several."""
        groups = [*self.groups(table, argument)]
        if len(groups) > 1:
            named = ", ".join(f"{group!r:.80}" for group in groups[:5]) + (", …" if len(groups) > 5 else "")
            raise ArgumentException(
                f"{argument} must have rows of one group, got {len(groups)} groups in column {self.group!r:.80}, "
                f"{named}; give the rows of each group by themselves"
            )
        return groups[0] if groups else None

    def task(self, support: TableLike, query: TableLike | None = None) -> MetaLearningTask[Any, Any, Any]:
        """Return the task of a new group: rows with known targets to adapt to, and perhaps others to evaluate on.

        For rows whose targets are not known, ``adapted.Predict(encoding.inputs(rows))`` predicts them.

        Raises
        ------
        ArgumentException
            As for `inputs` and `outcomes`, and when a column of groups has several, see `groups`.
        """
        given = read_table(support, "support", self.string_names)
        asked = None if query is None else read_table(query, "query", self.string_names)
        own = self.require_one_group(given, "support")
        other = None if asked is None else self.require_one_group(asked, "query")
        if None not in (own, other) and own != other:
            raise ArgumentException(f"query must have rows of the support's group, {own!r:.80}, got {other!r:.80}")
        return MetaLearningTask(
            SupportSetX=self.inputs(given),
            SupportSetY=self.outcomes(given),
            QuerySetX=None if asked is None else self.inputs(asked),
            QuerySetY=None if asked is None else self.outcomes(asked),
            NumWays=1 if self.classes is None else len(self.classes),
            NumShots=given.rows,
            NumQueryPerClass=1 if asked is None else asked.rows,
            Name=None if own is None else name_of_group(self.group, own),
            Metadata={"Encoding": self},
        )

    def settings(self) -> dict[str, Any]:
        """Return all of it as plain JSON values, for `from_settings`."""
        return {
            "kind": "table",
            "features": [_settings(column) for column in self.features],
            "targets": [_settings(column) for column in self._target_columns],
            "classes": isinstance(self.targets, CategoryColumn),
            "missing": self.missing,
            "dtype": self.dtype.name,
            "group": self.group,
            "string_groups": self.string_groups,
        }

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> TableEncoding:
        """Return the encoding that `settings` described.

        Raises
        ------
        ArgumentException
            ``settings`` is no such description.
        """
        check_given("settings", settings, "a mapping of TableEncoding.settings")
        try:
            features = tuple(_from_settings(column) for column in settings["features"])
            targets = tuple(_from_settings(column) for column in settings["targets"])
            missing, dtype = MISSING.check("missing", settings["missing"]), np.dtype(str(settings["dtype"]))
            classes, group = bool(settings["classes"]), settings.get("group")
            strings = bool(settings.get("string_groups"))
        except (KeyError, TypeError, ValueError) as error:
            raise ArgumentException(f"settings must be those of a TableEncoding, got {settings!r:.80}") from error
        wanted: Any = CategoryColumn if classes else NumberColumn
        named = group is None or isinstance(group, str)
        if not (
            named
            and features
            and targets
            and all(isinstance(column, wanted) for column in targets)
            and dtype.kind == "f"
        ):
            raise ArgumentException(refusal("settings", "those of a TableEncoding", settings))
        return cls(features, cast(Any, targets[0] if classes else targets), missing, dtype, group, strings)

    def _encoded(self, columns: Columns, chosen: Sequence[_Column]) -> NDArray[Any]:
        encoded: NDArray[Any] = np.empty((columns.rows, sum(column.width for column in chosen)), self.dtype)
        place = 0
        for column in chosen:
            column.encode(columns, encoded[:, place : place + column.width])
            place += column.width
        return encoded

    def _read(self, table: TableLike, chosen: Sequence[_Column]) -> Columns:
        columns = read_table(table, strings=self.string_names)
        for column in chosen:
            columns.require(column.name)
        return columns


def name_of_group(column: str | None, group: Any) -> str:
    """Return the name of a group's task."""
    return f"{column} {group!r:.80}"


def _kinds(values: Iterable[Any]) -> set[str]:
    """Return what values are, without missing ones. Booleans are numbers, since True equals 1."""
    kinds: set[type[Any]] = {type(value) for value in values if value is not None and value == value}
    return {"numbers" if issubclass(kind, (int, float)) else _CATEGORIES.get(kind, "others") for kind in kinds}


def _column(columns: Columns, name: str) -> _Column:
    return (CategoryColumn if columns.kind(name) == "category" else NumberColumn).fit(columns, name)


def _zoned(columns: Columns, name: str) -> bool | None:
    return columns.is_zoned(name) if columns.kind(name) == "time" else None


def _check_zone(columns: Columns, name: str, zoned: bool | None) -> None:
    """Raise ArgumentException for times without a zone where those fitted had one, or the reverse: clocks differ."""
    found = _zoned(columns, name)
    if None in (zoned, found) or found == zoned or columns.missing(name).all():
        return
    wanted, got = ("with", "without") if zoned else ("without", "with")
    remedy = "say their zone with" if zoned else "convert them to the zone of the others, and drop it with"
    raise ArgumentException(
        f"column {name!r:.80} must hold times {wanted} a time zone, as those that it was fitted on, got times {got} "
        f"one; {remedy} dt.tz_localize of pandas or dt.replace_time_zone of Polars"
    )


def _check_finite(values: NDArray[np.float64], name: str) -> None:
    infinite = values[~np.isfinite(values)]
    if len(infinite):
        raise ArgumentException(f"column {name!r:.80} must be finite, got {infinite[0]}; drop or replace such rows")


def _settings(column: _Column) -> dict[str, Any]:
    if isinstance(column, NumberColumn):
        scale = {"mean": column.mean, "rest": column.rest, "deviation": column.deviation}
        return {"name": column.name, **scale, "kind": column.kind, "zoned": column.zoned}
    if _kinds(column.categories) == {"times"}:
        times = [time.isoformat() for time in column.categories]
        return {"name": column.name, "categories": times, "kind": "time", "zoned": column.zoned}
    return {"name": column.name, "categories": list(column.categories)}


def _from_settings(settings: Mapping[str, Any]) -> _Column:
    name = str(settings["name"])
    kind, zoned = _KIND.check("kind", settings.get("kind")), _ZONED.check("zoned", settings.get("zoned"))
    if "categories" in settings:
        categories = settings["categories"]
        read = map(datetime.fromisoformat, categories) if kind == "time" else categories
        return CategoryColumn(name, tuple(read), zoned)
    mean, deviation = FINITE.check("mean", settings["mean"]), POSITIVE.check("deviation", settings["deviation"])
    return NumberColumn(name, mean, deviation, kind, zoned, FINITE.check("rest", settings.get("rest", 0.0)))
