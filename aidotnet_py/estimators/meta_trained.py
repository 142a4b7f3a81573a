"""The estimator that meta-trains on the groups of a table, and predicts for each group with a model of its own."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from aidotnet_py.arguments import Whole, refusal, shown
from aidotnet_py.data import TableLoader
from aidotnet_py.data.example_pool import check_labels
from aidotnet_py.data.table.columns import Columns
from aidotnet_py.data.table.encoding import name_of_group
from aidotnet_py.estimators.inputs import (
    all_or_nothing,
    check_strings,
    is_frame,
    is_numbered_frame,
    read_columns,
    read_targets,
    require_targets,
)
from aidotnet_py.estimators.scikit_learn import (
    BaseEstimator,
    RegressorMixin,
    check_is_fitted,
    check_random_state,
    column_or_1d,
)
from aidotnet_py.exceptions import ArgumentException
from aidotnet_py.meta_learning import MetaLearningTask
from aidotnet_py.runs.learners import make_learner
from aidotnet_py.runs.own_data import tasks_of_tables
from aidotnet_py.runs.settings import RunSettings

__all__ = ["MetaTrainedRegressor"]


class MetaTrainedRegressor(RegressorMixin, BaseEstimator):
    """A regressor for grouped rows: one network's start, meta-trained on all groups, and a model adapted to each group.

    `fit` learns a start from which a network adapts to a group from a part of its rows, and then adapts it to all the
    rows of each. `predict` asks the model of each row's group. A new group becomes known by `partial_fit` on its rows:
    the start stays, and the group has a model of its own. A group with a single row is not meta-trained on.

    Parameters
    ----------
    task_column : str or int
        The column of X that says which group a row belongs to: its name in a frame, also if that is a number, or its
        place in an array.
    order_column : str or int, optional
        A column of times or numbers, which is a feature too: in meta-training, a group's earliest rows are adapted to
        and its others are predicted. By default the rows are divided at random, anew for each task.
    support : float or int
        The share of a group's rows that meta-training adapts to, or their number.
    algorithm : str
        A name in `aidotnet_py.comparison.ALGORITHMS`, such as ``"MAML"`` or ``"iMAML"``.
    options : mapping, optional
        Options of the algorithm, over the defaults for tables, such as ``{"NumMetaIterations": 300}``.
    random_state : int, RandomState or None
        The seed of weights and tasks.

    Attributes
    ----------
    learner_ : MetaLearnerBase
        The meta-trained learner, of float64, without the data.
    encoding_ : TableEncoding
        How rows become inputs, as in a `TableLoader`.
    adapted_ : dict
        The adapted model of each group.
    loss_curve_ : list of float
        The loss of each step of meta-training, in units of the target's variance.
    n_features_in_, feature_names_in_
        Number and names of the columns of X, ``task_column`` among them.

    Examples
    --------
    >>> import numpy as np
    >>> from aidotnet_py.estimators import MetaTrainedRegressor
    >>> rng = np.random.default_rng(0)
    >>> child, age = np.repeat(np.arange(20), 6), rng.uniform(1, 11, 120)
    >>> X, y = np.column_stack([child, age]), 75 + rng.normal(6, 1, 20)[child] * age
    >>> model = MetaTrainedRegressor(task_column=0, options={"NumMetaIterations": 100}, random_state=0)
    >>> known = child < 18
    >>> model = model.fit(X[known], y[known])
    >>> new = np.flatnonzero(~known)
    >>> model.partial_fit(X[new[::2]], y[new[::2]]).predict(X[new[1::2]]).shape
    (6,)
    """

    def __init__(
        self,
        task_column: str | int,
        *,
        order_column: str | int | None = None,
        support: float = 0.5,
        algorithm: str = "MAML",
        options: Mapping[str, Any] | None = None,
        random_state: Any = None,
    ) -> None:
        self.task_column = task_column
        self.order_column = order_column
        self.support = support
        self.algorithm = algorithm
        self.options = options
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> Self:
        """Meta-train on the groups of X, and adapt to each of them.

        Parameters
        ----------
        X : frame, or array_like, (rows, columns)
            The features and ``task_column``. Columns of a frame may hold numbers, times and categories.
        y : array_like, (rows,)
            What to predict. Durations, of any unit, are predicted in seconds, and times in seconds since 1970.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            When X or y is no such table, an argument has no such value, or no group has enough rows.
        InvalidOperationException
            When a step of meta-training is not finite.
        """
        with all_or_nothing(self):
            columns = self._read_with_targets(X, y, reset=True)
            self._meta_train(columns)
            self._known: dict[Any, tuple[NDArray[Any], NDArray[Any]]] = {}
            self.adapted_: dict[Any, Any] = {}
            self._adapt(columns)
        return self

    def partial_fit(self, X: Any, y: Any) -> Self:
        """Add rows to their groups, known ones or new ones, and adapt to these; the start stays as it is.

        Before `fit`, it is `fit`.

        Parameters
        ----------
        X, y
            As for `fit`.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            When X or y is no such table.
        InvalidOperationException
            When the adapted parameters of a group are not finite.
        """
        if not hasattr(self, "learner_"):
            return self.fit(X, y)
        self._adapt(self._read_with_targets(X, y, reset=False))
        return self

    def predict(self, X: Any) -> NDArray[np.float64]:
        """Return the predictions of each row's group.

        Parameters
        ----------
        X : frame, or array_like, (rows, columns)
            The columns of `fit`.

        Returns
        -------
        array of float64, (rows,)

        Raises
        ------
        NotFittedError
            Before `fit`.
        ValueError
            When X is no such table, or has a row of an unknown group.
        """
        check_is_fitted(self)
        columns = self._read(X, reset=False)
        inputs, groups = self.encoding_.inputs(columns), self._rows_of_groups(columns)
        unknown = [group for group in groups if group not in self.adapted_]
        if unknown:
            raise ArgumentException(
                f"X must have rows of known groups, got {shown(unknown[0])} in {self.task_column!r}; call partial_fit "
                "with rows of this group whose targets are known"
            )
        outputs = np.empty((len(inputs), 1), np.float64)
        for group, rows in groups.items():
            outputs[rows] = self.adapted_[group].Predict(inputs[rows])
        return self.encoding_.decode(outputs)

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return the coefficient of determination R² of the predictions, with y read as in `fit`.

        Parameters
        ----------
        X, y
            As for `fit`.
        sample_weight : array_like, (rows,), optional
            Weights of the rows.

        Returns
        -------
        float

        Raises
        ------
        NotFittedError
            Before `fit`.
        ValueError
            When X or y is no such table, or has a row of an unknown group.
        """
        check_is_fitted(self)
        targets = self._targets(X, y)
        # Refuses what partial_fit does, such as durations after numbers.
        self.encoding_.outcomes(targets)
        return super().score(X, targets.numbers(self._target), sample_weight)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = tags.input_tags.categorical = True
        return tags

    def _read(self, X: Any, *, reset: bool) -> Columns:
        """Return the columns of X, and find those with a role where these are new."""
        names = None if reset else getattr(self, "feature_names_in_", None)
        # To fit, a support and a query row; the task column, and one to predict from.
        least = 2 if reset else 1
        columns = read_columns(self, X, names, reset=reset, ensure_min_samples=least, ensure_min_features=least)
        if reset:
            self._task = _name_of(columns, X, "task_column", self.task_column)
            order = self.order_column
            self._order = None if order is None else _name_of(columns, X, "order_column", order)
            check_strings(X, columns, self._task)
            if self._order is not None and columns.kind(self._order) == "category":
                raise ArgumentException(
                    f"order_column must be a column of times or numbers, got the categories of {shown(order)}"
                )
            self._target = "y"
            while self._target in columns.names:
                self._target += "_"
        else:
            columns.check_name("task_column", self._task)
        return columns

    def _read_with_targets(self, X: Any, y: Any, *, reset: bool) -> Columns:
        columns = self._read(X, reset=reset)
        return columns.with_columns(self._targets(X, y))

    def _targets(self, X: Any, y: Any) -> Columns:
        """Return the one column of y."""
        require_targets(y)
        # Refuses several, and warns of one in two axes.
        column_or_1d(y, warn=True)
        return read_targets(X, y)[1].with_names([self._target])

    def _meta_train(self, columns: Columns) -> None:
        large = self._rows_of_large_groups(columns)
        seed = int(check_random_state(self.random_state).randint(2**31))
        # In scikit-learn's dtype: in float32 a row's prediction differs by 1e-7 with its place among the rows.
        loader: TableLoader[np.float64] = TableLoader(
            columns.take(large),
            task=self._task,
            target=self._target,
            order=self._order,
            support=self.support,
            seed=seed,
            dtype=np.float64,
        )
        # An evaluation would be of groups that are trained on.
        own: Any = {} if self.options is None else self.options
        if not isinstance(own, Mapping):
            raise ArgumentException(refusal("options", "a mapping of options, or None", own))
        options: dict[str, Any] = {"EvaluationFrequency": 0, **own}
        settings = RunSettings(data="X", algorithm=self.algorithm, seed=seed, options=options)
        learner = make_learner(settings, tasks_of_tables(loader))
        self.loss_curve_ = [float(loss) for loss in learner.Train().LossHistory]
        learner.Options.DataLoader = None
        self.learner_, self.encoding_ = learner, loader.encoding

    def _rows_of_large_groups(self, columns: Columns) -> NDArray[np.intp]:
        """Return the rows of the groups that can be divided."""
        least = int(self.support) + 1 if isinstance(self.support, Integral) else 2
        groups = list(self._rows_of_groups(columns).values())
        large = [rows for rows in groups if len(rows) >= least]
        if not large:
            remedy = "more rows of a group" if least == 2 else "a smaller support, or more rows of a group"
            raise ArgumentException(
                f"X must have a group of {least} or more rows, for support and query rows, got at most "
                f"{max(map(len, groups))} in a group; pass {remedy}"
            )
        return np.sort(np.concatenate(large))

    def _rows_of_groups(self, columns: Columns) -> dict[Any, NDArray[np.intp]]:
        """Return the places of each group's rows."""
        groups, places = check_labels("task_column", columns.labels(self._task), columns.rows)
        ends = np.cumsum(np.bincount(places, minlength=len(groups)))
        return dict(zip(groups, np.split(np.argsort(places, kind="stable"), ends[:-1]), strict=True))

    def _adapt(self, columns: Columns) -> None:
        """Add rows to what is known of their groups, and adapt to these groups: all of them or none."""
        inputs, outcomes = self.encoding_.inputs(columns), self.encoding_.outcomes(columns)
        known, adapted = dict[Any, Any](), dict[Any, Any]()
        for group, rows in self._rows_of_groups(columns).items():
            x, y = inputs[rows], outcomes[rows]
            if group in self._known:
                x, y = (np.concatenate(both) for both in zip(self._known[group], (x, y), strict=True))
            known[group] = x, y
            task = MetaLearningTask(SupportSetX=x, SupportSetY=y, NumWays=1, Name=name_of_group(self._task, group))
            adapted[group] = self.learner_.adapt_with_line_search(task)
        self._known.update(known)
        self.adapted_.update(adapted)


def _name_of(columns: Columns, X: Any, argument: str, column: Any) -> str:
    """Return the name of a column that is given by its name in a frame, or by its place in an array."""
    if is_frame(X):
        return columns.check_name(argument, column)
    if not is_numbered_frame(X):
        return columns.names[Whole(0, len(columns.names) - 1).check(argument, column)]
    numbers: list[Any] = X.columns.tolist()
    if column not in numbers:
        known = ", ".join(map(repr, numbers[:20])) + (", …" if len(numbers) > 20 else "")
        raise ArgumentException(refusal(argument, f"a column of X, {known}", column))
    return columns.names[numbers.index(column)]
