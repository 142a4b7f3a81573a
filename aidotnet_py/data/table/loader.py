"""Few-shot tasks of a table: one task a group of rows, such as a patient, a shop or a chick."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from numbers import Integral
from typing import Any, Self, cast, overload

import numpy as np
from numpy.typing import NDArray

from aidotnet_py.arguments import COUNT, SWITCH, Choice, Number, OrNone, refusal
from aidotnet_py.backends import Backend
from aidotnet_py.caller import level_outside
from aidotnet_py.data.drawn_tasks import DrawnTasks
from aidotnet_py.data.example_pool import check_labels
from aidotnet_py.data.lists import as_list
from aidotnet_py.data.random_stream import RandomStream
from aidotnet_py.data.splitting import SplitLoader
from aidotnet_py.data.table.columns import Columns
from aidotnet_py.data.table.encoded_columns import CategoryColumn
from aidotnet_py.data.table.encoding import MISSING, TableEncoding, name_of_group
from aidotnet_py.data.table.reading import TableLike, read_table
from aidotnet_py.data.weightings import WEIGHTING, WEIGHTINGS, WeightingName
from aidotnet_py.exceptions import ArgumentException
from aidotnet_py.keywords import suggests_keywords
from aidotnet_py.locks import Lock
from aidotnet_py.type_parameters import T

__all__ = ["TableLoader"]

_SHARE = Number(above=0, below=1)
_CLASSES = OrNone(SWITCH)
_SMALL = Choice("refuse", "skip")


class TableLoader(SplitLoader[T]):
    """Tasks of a table with one task a group of rows: support and query rows of one patient, shop or chick.

    Groups may have any numbers of rows of at least 2, and so may the tasks of a batch. Numbers and times are scaled to
    mean 0 and deviation 1, and a category is one input for each of its values. The target is scaled likewise for a
    regression, with targets (n, 1) or one column for each of several, and is a class label, int64 (n,), otherwise.
    All of this is fitted on the loader's groups, or, by `split`, on the groups of the first part alone; ``encoding``
    keeps it, decodes predictions and encodes new groups. A task's ``Name`` has the task column and the group,
    ``Metadata["Group"]`` the group, and ``Metadata["Encoding"]`` the encoding, which the model of a learner keeps as
    its property ``"encoding"``.

    NWay is 1, or the number of the target's classes. KShot and QueryShots are those of the smallest group.

    Parameters
    ----------
    table : frame, mapping or path
        A pandas, Polars or PyArrow frame; a mapping of column names to sequences; or a CSV, TSV or Parquet file.
    task : str
        The column that says which group a row belongs to.
    target : str or sequence of str
        The column to predict, or several of numbers.
    features : sequence of str, optional
        The columns to predict from. By default all others.
    support : float or int
        The share of a group's rows that is its support set, rounded, with at least one row in either set; or the
        number of support rows.
    order : str, optional
        A column of times or numbers: the support rows are the earliest, and the others are the query rows. By default
        the rows are divided at random, anew for each task.
    classes : bool, optional
        Whether the target is a class. By default strings, categorical values and booleans are.
    missing : {"refuse", "fill"}
        Whether a missing feature is an error, or takes the mean of its numbers, and no category.
    small : {"refuse", "skip"}
        Whether groups with too few rows for ``support`` and one query row are an error, or left out with a warning;
        ``left_out`` has them.
    weighting : {"uniform", "balanced", "proportional"}
        Whether groups are drawn with equal probability, equally often, or in proportion to their rows.
    encoding : TableEncoding, optional
        The encoding of another loader, for groups that are held out in a table of their own; it says which columns are
        features, how missing values are taken and whether the target is a class.
    seed, dtype, backend
        As for all loaders: seed of the random stream, NumPy floating type, backend of the arrays.

    Raises
    ------
    ArgumentNullException
        The table is None.
    FileNotFoundError
        There is no such file.
    ArgumentException
        A column is missing or of the wrong kind, a value is missing or infinite, a group has too few rows, or another
        argument is invalid.
    ImportError
        A library for this kind of table is not installed; the message has the command that installs it.

    Examples
    --------
    >>> import numpy as np
    >>> from aidotnet_py.data import TableLoader
    >>> sizes = np.array([3, 5, 8, 4])
    >>> table = {
    ...     "chick": np.repeat(["ada", "bea", "cleo", "dot"], sizes),
    ...     "day": np.concatenate([np.arange(n) for n in sizes]),
    ...     "diet": np.repeat(["corn", "rye", "corn", "rye"], sizes),
    ...     "weight": np.concatenate([40.0 + 6 * np.arange(n) for n in sizes]),
    ... }
    >>> loader = TableLoader(table, task="chick", target="weight", support=2, order="day", seed=0)
    >>> train, test = loader.split(["ada", "cleo", "dot"], ["bea"])
    >>> task = test.GetNextTask()
    >>> task.Metadata["Group"], task.SupportInput.shape, task.QueryInput.shape
    ('bea', (2, 3), (3, 3))
    >>> test.encoding.decode(task.QueryOutput).round(3).tolist()
    [52.0, 58.0, 64.0]
    """

    _draws_ahead = False

    @overload
    def __init__(
        self: TableLoader[np.float32],
        table: TableLike,
        *,
        task: str,
        target: str | Sequence[str],
        features: Sequence[str] | None = None,
        support: float = 0.5,
        order: str | None = None,
        classes: bool | None = None,
        missing: str = "refuse",
        small: str = "refuse",
        weighting: WeightingName = "uniform",
        encoding: TableEncoding | None = None,
        seed: int | None = None,
        backend: str | Backend = "numpy",
    ) -> None: ...
    @overload
    def __init__(
        self,
        table: TableLike,
        *,
        task: str,
        target: str | Sequence[str],
        features: Sequence[str] | None = None,
        support: float = 0.5,
        order: str | None = None,
        classes: bool | None = None,
        missing: str = "refuse",
        small: str = "refuse",
        weighting: WeightingName = "uniform",
        encoding: TableEncoding | None = None,
        seed: int | None = None,
        dtype: type[T],
        backend: str | Backend = "numpy",
    ) -> None: ...
    @suggests_keywords()
    def __init__(
        self,
        table: TableLike,
        *,
        task: str,
        target: str | Sequence[str],
        features: Sequence[str] | None = None,
        support: float = 0.5,
        order: str | None = None,
        classes: bool | None = None,
        missing: str = "refuse",
        small: str = "refuse",
        weighting: WeightingName = "uniform",
        encoding: TableEncoding | None = None,
        seed: int | None = None,
        dtype: type[Any] = np.float32,
        backend: str | Backend = "numpy",
    ) -> None:
        self._support: float = _check_support(support)
        self._weighting: WeightingName = WEIGHTING.check("weighting", weighting)
        self._missing: str = MISSING.check("missing", missing)
        _CLASSES.check("classes", classes)
        self._small: str = _SMALL.check("small", small)
        _check_encoding(encoding, features)
        # Sizes are known when the groups are.
        super().__init__(1, 1, 1, seed=seed, dtype=dtype, backend=backend)
        columns = read_table(table, strings=() if encoding is None else encoding.string_names)
        self._task = columns.check_name("task", task)
        self._targets = _names(columns, "target", target)
        self._feature_names = _check_features(columns, features, self._task, self._targets)
        if encoding is not None and encoding.target_names != self._targets:
            known, got = ", ".join(encoding.target_names), ", ".join(self._targets)
            raise ArgumentException(f"target must be that of the encoding, {known}, got {got}")
        self._is_class = _check_classes(columns, classes, self._targets)
        self._order = None if order is None else columns.check_name("order", order)
        # For the representation.
        self._table, self._target, self._features, self._classes = table, target, features, classes
        self._encoding = encoding
        self._columns = self._without_small(columns)
        self._take_groups(self._columns)
        # Whether the encoding is of this loader's groups; a split then fits a new one, on its first part.
        self._fitted_here = encoding is None
        self._use(encoding or self._fit())
        if encoding is None:
            self._warn_of_dates()
        self._stream = self._make_stream(seed)

    @property
    def encoding(self) -> TableEncoding:
        """The scales and categories of the columns."""
        return self._fitted

    @property
    def left_out(self) -> tuple[Any, ...]:
        """The groups with too few rows, which are not used."""
        return self._left_out

    @property
    def AvailableClasses(self) -> int:
        """The number of groups."""
        return len(self._labels)

    def with_weighting(self, weighting: WeightingName, *, seed: int | None = None) -> Self:
        """Return a loader of the same groups and encoding that draws them by another weighting.

        The rows are shared, not copied, and this loader stays as it is.

        Parameters
        ----------
        weighting : {"uniform", "balanced", "proportional"}
            As for the constructor. The first draws of ``"balanced"`` are of each group once.
        seed : int or None
            The seed of its random stream; None takes one from the operating system.

        Raises
        ------
        ArgumentException
            ``weighting`` is another value, or the seed is no integer or negative.

        Examples
        --------
        >>> from aidotnet_py.data import TableLoader
        >>> table = {"plant": [1, 1, 2, 2], "day": [0, 4, 2, 6], "height": [1, 3, 5, 7]}
        >>> loader = TableLoader(table, task="plant", target="height", support=1, seed=0)
        >>> sorted(task.Name for task in loader.with_weighting("balanced", seed=0).GetTaskBatch(2))
        ['plant 1', 'plant 2']
        """
        loader = copy.copy(self)
        loader._lock = Lock()
        loader._weighting = WEIGHTING.check("weighting", weighting)
        loader._stream = loader._make_stream(seed)
        return loader

    def _without_small(self, columns: Columns) -> Columns:
        """Return the rows of groups that are large enough, and name the others, as an error or in a warning."""
        labels, groups = check_labels(self._task, columns.labels(self._task), columns.rows)
        counts = np.bincount(groups, minlength=len(labels))
        least = 2 if isinstance(self._support, float) else self._support + 1
        self._left_out = tuple(labels[group] for group in np.flatnonzero(counts < least).tolist())
        if not self._left_out:
            return columns
        if len(self._left_out) == len(labels):
            rows = int(counts.max())
            remedy = f"take at most {rows - 1} support rows" if rows > 1 else "task must be a column of larger groups"
            raise ArgumentException(
                f"support must leave a group a support and a query row, got {self._support}, and the largest group of "
                f"{self._task!r:.80} has {rows}; {remedy}"
            )
        names = ", ".join(f"{label!r:.80}" for label in self._left_out[:5])
        more = f" and {len(self._left_out) - 5} more" if len(self._left_out) > 5 else ""
        if self._small == "refuse":
            raise ArgumentException(
                f"support must leave each group a support and a query row, got {self._support}; groups with fewer than "
                f"{least} rows are {names}{more}; drop them, pass a smaller support, or pass small='skip'"
            )
        message = f"{len(self._left_out)} groups with fewer than {least} rows are left out: {names}{more}"
        warnings.warn(message, UserWarning, stacklevel=level_outside())
        return columns.take(np.flatnonzero(counts[groups] >= least))

    def _warn_of_dates(self) -> None:
        for column in self._fitted.features:
            if isinstance(column, CategoryColumn) and column.has_dates:
                warnings.warn(
                    f"column {column.name!r:.80} has dates as strings, each of which is an input of its own; convert "
                    "it to times, as pandas.to_datetime does, or leave it out of the features",
                    UserWarning,
                    stacklevel=level_outside(),
                )

    def _take_groups(self, columns: Columns) -> None:
        """Find the groups and the order of their rows."""
        self._labels, groups = check_labels(self._task, columns.labels(self._task), columns.rows)
        times: NDArray[Any] = np.zeros(columns.rows) if self._order is None else _times(columns, self._order)
        self._counts = np.bincount(groups, minlength=len(self._labels)).astype(np.int64)
        # Of equal times, the row that comes first in the table is the earlier.
        self._rows = np.lexsort((times, groups))
        self._starts = np.cumsum(self._counts) - self._counts
        self._measure()

    def _measure(self) -> None:
        sizes = [self._sizes(int(n)) for n in self._counts]
        self._shots, self._queries = min(s for s, _ in sizes), min(q for _, q in sizes)

    def _sizes(self, rows: int) -> tuple[int, int]:
        """Return the support and query rows of a group."""
        if isinstance(self._support, float):
            support = min(max(int(self._support * rows + 0.5), 1), rows - 1)
        else:
            support = self._support
        return support, rows - support

    def _fit(self) -> TableEncoding:
        """Return the encoding of the groups that this loader has."""
        rows = np.concatenate([self._rows_of(g) for g in range(len(self._labels))])
        return TableEncoding.fit(
            self._columns.take(np.sort(rows)),
            self._feature_names,
            self._targets,
            classes=self._is_class,
            missing=self._missing,
            dtype=self._dtype,
            group=self._task,
        )

    def _use(self, encoding: TableEncoding) -> None:
        self._fitted = encoding
        self._inputs, self._outcomes = encoding.inputs(self._columns), encoding.outcomes(self._columns)
        self._inputs = self._inputs.astype(self._dtype, copy=False)
        if encoding.classes is None:
            self._outcomes = self._outcomes.astype(self._dtype, copy=False)
        else:
            self._ways = len(encoding.classes)

    def _rows_of(self, group: int) -> NDArray[np.intp]:
        return self._rows[self._starts[group] :][: self._counts[group]]

    @property
    def labels(self) -> tuple[Any, ...]:
        """The groups, sorted."""
        return self._labels

    def _least_classes(self) -> int:
        return 1

    def _keep(self, classes: NDArray[np.intp]) -> None:
        self._labels = tuple(self._labels[group] for group in classes.tolist())
        self._starts, self._counts = self._starts[classes], self._counts[classes]
        self._measure()

    def _parts(self, chosen: Sequence[NDArray[np.intp]], seeds: Sequence[int]) -> tuple[Self, ...]:
        parts = super()._parts(chosen, seeds)
        if self._fitted_here:
            first, *others = parts
            first._use(first._fit())
            for part in others:
                part._fitted_here = False
                part._fitted, part._inputs, part._outcomes, part._ways = (
                    first._fitted,
                    first._inputs,
                    first._outcomes,
                    first._ways,
                )
        return parts

    def _make_stream(self, seed: int | None) -> RandomStream:
        return WEIGHTINGS[self._weighting].stream(seed, self.AvailableClasses)

    def _draw(self, stream: RandomStream, count: int) -> DrawnTasks:
        choose = WEIGHTINGS[self._weighting].choose
        sets: tuple[list[NDArray[np.intp]], list[NDArray[np.intp]]] = ([], [])
        metadata: list[dict[str, Any]] = []
        names: list[str] = []
        for _ in range(count):
            (group,) = choose(stream, self._counts, 1).tolist()
            rows = self._rows_of(group)
            if self._order is None:
                rows = stream.generator.permutation(rows)
            support, _ = self._sizes(len(rows))
            sets[0].append(rows[:support])
            sets[1].append(rows[support:])
            metadata.append({"Group": self._labels[group], "Encoding": self._fitted})
            names.append(name_of_group(self._task, self._labels[group]))
        arrays = [of[np.concatenate(rows)] for rows in sets for of in (self._inputs, self._outcomes)]
        sizes = [(len(support), len(query)) for support, query in zip(*sets, strict=True)]
        return DrawnTasks(arrays, names, metadata, self._ways, self._shots, self._queries, sizes)


def _check_support(support: Any) -> float | int:
    if isinstance(support, (bool, Integral)):
        return COUNT.check("support", support)
    return _SHARE.check("support", support)


def _names(columns: Columns, argument: str, names: Any) -> tuple[str, ...]:
    """Return one or several names of columns, each once."""
    if isinstance(names, str):
        return (columns.check_name(argument, names),)
    given: Any = as_list(names)
    if not isinstance(given, Sequence) or not given:
        raise ArgumentException(refusal(argument, "the names of one or more columns", names))
    checked = tuple(columns.check_name(f"{argument}[{i}]", name) for i, name in enumerate(cast(Any, given)))
    if len(set(checked)) < len(checked):
        raise ArgumentException(refusal(argument, "different columns", checked))
    return checked


def _check_features(columns: Columns, features: Any, task: str, targets: tuple[str, ...]) -> tuple[str, ...]:
    if task in targets:
        raise ArgumentException(f"target must be another column than task, got {task!r:.80} for both")
    if features is None:
        names = tuple(name for name in columns.names if name != task and name not in targets)
        if not names:
            raise ArgumentException(f"table must have a column to predict from, got {', '.join(columns.names)} alone")
        return names
    names = _names(columns, "features", features)
    told = [name for name in names if name in targets]
    if told:
        raise ArgumentException(f"features must be other columns than target, got {told[0]!r:.80} for both")
    return names


def _check_classes(columns: Columns, classes: bool | None, targets: tuple[str, ...]) -> bool:
    natural = any(columns.kind(name) == "category" or columns.is_boolean(name) for name in targets)
    chosen = natural if classes is None else bool(classes)
    if chosen and len(targets) > 1:
        raise ArgumentException(f"target must be one column where it is a class, got {', '.join(targets)}")
    if not chosen and any(columns.kind(name) == "category" for name in targets):
        raise ArgumentException("classes must be True or None for a target of categories, got False")
    return chosen


def _check_encoding(encoding: Any, features: Any) -> None:
    if encoding is not None and not isinstance(encoding, TableEncoding):
        raise ArgumentException(refusal("encoding", "the encoding of a TableLoader, or None", encoding))
    if encoding is not None and features is not None:
        raise ArgumentException(refusal("features", "None where encoding is given, which has its own", features))


def _times(columns: Columns, order: str) -> NDArray[Any]:
    if columns.kind(order) == "category":
        raise ArgumentException(
            f"order must be a column of times or numbers, got the categories of {order!r:.80}; convert it, and write "
            "dates in files as YYYY-MM-DD"
        )
    missing = columns.missing(order)
    if missing.any():
        raise ArgumentException(
            f"column {order!r:.80} must have a value in each row, got none at {int(np.argmax(missing))}; drop such rows"
        )
    # In their own type: as floats, integers beyond 2**53 and times some nanoseconds apart would be equal.
    return columns.values(order)
