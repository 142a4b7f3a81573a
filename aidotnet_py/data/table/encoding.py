"""What turns the columns of a table into inputs and targets, fitted on some of its rows, and turns predictions back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from aidotnet_py.arguments import Choice, check_given, refusal
from aidotnet_py.backends import backend_of
from aidotnet_py.data.episodic import DTYPE_NAME
from aidotnet_py.data.example_pool import check_labels
from aidotnet_py.data.table.columns import Columns
from aidotnet_py.data.table.encoded_columns import (
    CategoryColumn,
    EncodedColumn,
    NumberColumn,
    column_of_settings,
    fit_column,
    kinds_of,
    settings_of_column,
)
from aidotnet_py.data.table.reading import TableLike, read_table
from aidotnet_py.exceptions import ArgumentException
from aidotnet_py.meta_learning.contract.tasks import MetaLearningTask

__all__ = ["MISSING", "TableEncoding", "name_of_group"]

MISSING = Choice("refuse", "fill")
# Loaders, estimators and the command line show it: it names no argument of one of them alone.
_FILL = "drop or fill such rows, as TableLoader does with missing='fill'"


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

    features: tuple[EncodedColumn, ...]
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
        inputs = tuple(fit_column(columns, name) for name in features)
        rest = (missing, dtype, group, "strings" in kinds_of(columns.labels(group)))
        if classes:
            target = CategoryColumn.fit(columns, targets[0])
            # All scores of a single class are right.
            if target.width < 2:
                raise ArgumentException(
                    f"column {target.name!r:.80} must have at least two classes, got {target.categories[0]!r:.80} "
                    "alone; split so that the training groups have all classes, or predict another column"
                )
            return cls(inputs, target, *rest)
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
        names = [c.name for c in columns if isinstance(c, CategoryColumn) and "strings" in kinds_of(c.categories)]
        return (*names, self.group) if self.group is not None and self.string_groups else tuple(names)

    @property
    def _target_columns(self) -> tuple[EncodedColumn, ...]:
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
            row = int(np.argmin(labels))
            value = columns.labels(self.targets.name).tolist()[row]
            known = ", ".join(f"{label!r:.80}" for label in self.targets.categories)
            group = ""
            if self.group is not None and self.group in columns.names:
                group = f" in group {columns.labels(self.group).tolist()[row]!r:.80}"
            raise ArgumentException(
                f"column {self.targets.name!r:.80} must hold classes of the training groups, {known:.200}, got "
                f"{value!r:.80}{group}; train on groups that have it, or drop such rows"
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
            "features": [settings_of_column(column) for column in self.features],
            "targets": [settings_of_column(column) for column in self._target_columns],
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
            features = tuple(column_of_settings(column) for column in settings["features"])
            targets = tuple(column_of_settings(column) for column in settings["targets"])
            missing = MISSING.check("missing", settings["missing"])
            dtype: np.dtype[Any] = np.dtype(DTYPE_NAME.check("dtype", settings["dtype"]))
            classes, group = bool(settings["classes"]), settings.get("group")
            strings = bool(settings.get("string_groups"))
        except (KeyError, TypeError, ValueError) as error:
            raise ArgumentException(f"settings must be those of a TableEncoding, got {settings!r:.80}") from error
        wanted: Any = CategoryColumn if classes else NumberColumn
        named = group is None or isinstance(group, str)
        if not (named and features and targets and all(isinstance(column, wanted) for column in targets)):
            raise ArgumentException(refusal("settings", "those of a TableEncoding", settings))
        return cls(features, cast(Any, targets[0] if classes else targets), missing, dtype, group, strings)

    def _encoded(self, columns: Columns, chosen: Sequence[EncodedColumn]) -> NDArray[Any]:
        encoded: NDArray[Any] = np.empty((columns.rows, sum(column.width for column in chosen)), self.dtype)
        place = 0
        for column in chosen:
            column.encode(columns, encoded[:, place : place + column.width])
            place += column.width
        return encoded

    def _read(self, table: TableLike, chosen: Sequence[EncodedColumn]) -> Columns:
        columns = read_table(table, strings=self.string_names)
        for column in chosen:
            columns.require(column.name)
        return columns


def name_of_group(column: str | None, group: Any) -> str:
    """Return the name of a group's task."""
    return f"{column} {group!r:.80}"
