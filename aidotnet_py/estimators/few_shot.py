"""Estimators that adapt a meta-trained learner to the examples of one task: `fit` adapts, `predict` asks the result."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Any, Self, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from aidotnet_py.arguments import refusal
from aidotnet_py.data import ImageEncoding, TableEncoding
from aidotnet_py.data.example_pool import check_numbers, read_labels
from aidotnet_py.data.table.columns import Columns
from aidotnet_py.estimators.inputs import (
    all_or_nothing,
    read_arrays,
    read_columns,
    read_targets,
    require_targets,
)
from aidotnet_py.estimators.scikit_learn import (
    BaseEstimator,
    ClassifierMixin,
    RegressorMixin,
    check_classification_targets,
    check_consistent_length,
    check_is_fitted,
    column_or_1d,
)
from aidotnet_py.exceptions import ArgumentException
from aidotnet_py.losses import BinaryCrossEntropyLoss, CrossEntropyLoss
from aidotnet_py.meta_learning import MetaLearnerBase, MetaLearningTask
from aidotnet_py.meta_learning.contract.protocols import missing_members, model_backend
from aidotnet_py.models import NeuralNetworkModel
from aidotnet_py.models.interfaces import INormalizedModel, parameter_dtype
from aidotnet_py.paths import check_path
from aidotnet_py.runs import open_learner
from aidotnet_py.runs.opening import encoding_of_learner
from aidotnet_py.runs.run_data import Encoding

__all__ = ["FewShotClassifier", "FewShotRegressor"]

_Learner: TypeAlias = MetaLearnerBase[Any, Any, Any]


class _FewShot(BaseEstimator):
    """What both have: a learner, the form of its data, and the model that `fit` adapts."""

    def __init__(self, learner: Any) -> None:
        self.learner = learner

    def _open(self) -> tuple[_Learner, Encoding | None]:
        """Return the learner, and how raw data become its inputs, if it knows."""
        given, encoding = self.learner, cast("Encoding | None", None)
        wanted = "a learner, the folder of a run, or a learner's file"
        if isinstance(given, (str, os.PathLike)):
            learner, encoding = open_learner(check_path("learner", cast(object, given), wanted))
        else:
            learner = given
            if isinstance(given, MetaLearnerBase):
                encoding = encoding_of_learner(given)
        if not isinstance(learner, MetaLearnerBase):
            raise ArgumentException(refusal("learner", wanted, cast(Any, given)))
        return cast("_Learner", learner), encoding

    def _adapt(
        self, learner: _Learner, encoding: Encoding | None, inputs: Any, targets: NDArray[Any], **notes: Any
    ) -> None:
        """Adapt the learner to these examples, of a task with these metadata, and keep the result."""
        asarray = model_backend(learner.BaseModel).asarray
        task = MetaLearningTask(SupportSetX=asarray(inputs), SupportSetY=asarray(targets), Metadata=notes)
        self.adapted_ = learner.adapt_with_line_search(task)
        self.encoding_ = encoding

    def _inputs(self, X: Any, model: Any, encoding: Encoding | None, *, reset: bool) -> NDArray[Any]:
        """Return the rows of X as a model takes them, on the host."""
        dtype = parameter_dtype(model, model_backend(model))
        if isinstance(encoding, TableEncoding):
            # An array has the columns of the frame that was fitted, or those of the encoding.
            fitted = None if reset else getattr(self, "feature_names_in_", None)
            names = [column.name for column in encoding.features] if fitted is None else fitted.tolist()
            columns = read_columns(self, X, names, reset=reset, fill=encoding.missing == "fill")
            self._check_group(encoding.require_one_group(columns, "X"), encoding, reset=reset)
            return check_numbers("X", encoding.inputs(columns), dtype.type)
        rows = check_numbers("X", read_arrays(self, X, reset=reset), dtype.type)
        if isinstance(encoding, ImageEncoding):
            _refuse_bytes(rows)
        if not isinstance(model, NeuralNetworkModel) or rows.shape[1:] == model.input_shape:
            return rows
        if rows.shape[1:] != (math.prod(model.input_shape),):
            raise ArgumentException(
                f"X must have rows of shape {model.input_shape}, or these laid out flat, got shape {rows.shape}"
            )
        return rows.reshape(len(rows), *model.input_shape)

    def _check_group(self, group: Any, encoding: TableEncoding, *, reset: bool) -> None:
        """Keep the group that is fitted, or raise ArgumentException for another one; None if X does not tell."""
        if reset:
            self._group = group
        elif None not in (group, self._group) and group != self._group:
            raise ArgumentException(
                f"X must have rows of the group that was fitted, {self._group!r:.80}, got {group!r:.80} in column "
                f"{encoding.group!r:.80}; fit the rows of this group whose targets are known"
            )

    def _outputs(self, X: Any) -> NDArray[np.float64]:
        """Return what the adapted model predicts for the rows of X, on the host."""
        check_is_fitted(self)
        backend = model_backend(self.adapted_)
        inputs = self._inputs(X, self.adapted_, self.encoding_, reset=False)
        outputs = np.asarray(backend.to_numpy(self.adapted_.Predict(backend.asarray(inputs))), np.float64)
        if not np.isfinite(outputs).all():
            row = int(np.argwhere(~np.isfinite(outputs))[0, 0])
            raise ArgumentException(
                f"X must have rows with finite predictions, got {outputs[row]} for row {row}; scale X as for training"
            )
        return outputs


class FewShotClassifier(ClassifierMixin, _FewShot):
    """A classifier that adapts a meta-trained learner: `fit` takes the few labelled examples of a new task.

    Labels may be of any kind that NumPy can sort: strings, integers, booleans. A learner that scores N classes takes up
    to N, and the first of its scores stand for them in sorted order. A learner of a table's classes keeps all of these,
    whether y has them or not.

    Parameters
    ----------
    learner : MetaLearnerBase, str or path
        A learner whose loss is a `CrossEntropyLoss`, or a `BinaryCrossEntropyLoss` for two classes; the folder of a
        run, which stands for its best checkpoint; or the file of a learner. It is not changed.

    Attributes
    ----------
    classes_ : array, (classes,)
        The labels, sorted.
    adapted_ : IFullModel
        The model that `fit` adapted.
    encoding_ : TableEncoding, ImageEncoding or None
        How raw data become inputs, where the learner knows it: from the tasks of a `TableLoader` or an
        `ImageFolderLoader` that it learned from, also if it was saved since, or else from its DataLoader. For a table,
        X has the table's columns, by name or in the order of ``encoding_.features``, in its units. Otherwise X is what
        the model takes: an array (n, …), or its rows laid out flat, (n, features); for images what
        ``encoding_.inputs`` gives.
    n_features_in_ : int
        Numbers, or columns, in a row of X.
    feature_names_in_ : array of str
        The columns of X, if it was a frame.

    Examples
    --------
    >>> from aidotnet_py import CrossEntropyLoss, MAMLAlgorithm, MAMLOptions, NeuralNetworkModel
    >>> from aidotnet_py.data import DigitsLoader
    >>> from aidotnet_py.estimators import FewShotClassifier
    >>> from aidotnet_py.nn import conv4
    >>> model = NeuralNetworkModel(conv4(5, filters=8), input_shape=(8, 8, 1), loss=CrossEntropyLoss(), seed=0)
    >>> learner = MAMLAlgorithm(MAMLOptions(model, DataLoader=DigitsLoader(seed=0), InnerLearningRate=0.1))
    >>> for _ in range(10):
    ...     _ = learner.MetaTrainStep(4)
    >>> task = DigitsLoader(NWay=3, split="test", seed=1).GetNextTask()
    >>> labels = [task.Metadata["Classes"][label] for label in task.SupportOutput]
    >>> classifier = FewShotClassifier(learner).fit(task.SupportInput, labels)
    >>> classifier.predict(task.QueryInput).shape, classifier.predict_proba(task.QueryInput).shape
    ((45,), (45, 3))
    """

    def fit(self, X: Any, y: Any) -> Self:
        """Adapt to the labelled examples of a task.

        Parameters
        ----------
        X : array_like, (n, …), or frame
            The inputs.
        y : array_like, (n,)
            Their labels.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            When X or y do not fit the learner, or the learner is none of classes.
        InvalidOperationException
            When the adapted parameters are not finite.
        """
        with all_or_nothing(self):
            self._fit(X, y)
        return self

    def _fit(self, X: Any, y: Any) -> None:
        learner, encoding = self._open()
        loss: Any = learner.DefaultLossFunction
        if not isinstance(loss, (CrossEntropyLoss, BinaryCrossEntropyLoss)):
            raise ArgumentException(
                f"learner must have a CrossEntropyLoss or BinaryCrossEntropyLoss, got {type(loss).__name__}; "
                "use FewShotRegressor"
            )
        inputs = self._inputs(X, learner.BaseModel, encoding, reset=True)
        outputs, is_binary = _outputs_of(learner, inputs), isinstance(loss, BinaryCrossEntropyLoss)
        if is_binary and math.prod(outputs) != 1:
            raise ArgumentException(
                f"learner must have one output for a BinaryCrossEntropyLoss, got {math.prod(outputs)}; give it a "
                "CrossEntropyLoss"
            )
        y = _labels(X, y)
        if isinstance(encoding, TableEncoding):
            classes, labels = np.array(encoding.classes), encoding.outcomes({encoding.target_names[0]: y})
        else:
            classes, labels = np.unique(y, return_inverse=True)
        most = 2 if is_binary else outputs[-1]
        if len(classes) > most and not learner.scores_any_classes:
            raise ArgumentException(
                f"y must have at most {most} classes, as many as the learner scores, got {len(classes)}"
            )
        targets = labels.astype(np.int64)
        if is_binary:
            targets = targets.reshape(len(targets), *outputs)
        self._adapt(learner, encoding, inputs, targets, Classes=classes.tolist())
        self.classes_, self._is_binary = classes, is_binary

    def predict(self, X: Any) -> NDArray[Any]:
        """Return the likeliest label of each row.

        Parameters
        ----------
        X : array_like, (n, …), or frame
            The inputs, as for `fit`.

        Returns
        -------
        array, (n,)
            Labels of ``classes_``.

        Raises
        ------
        NotFittedError
            Before `fit`.
        ValueError
            When X does not fit the learner.
        """
        # Before classes_ is read, since it says whether there was a fit.
        chosen = self.predict_proba(X).argmax(axis=1)
        labels: NDArray[Any] = self.classes_[chosen]
        return labels

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Return the probability of each label of ``classes_``.

        It is the softmax of the scores of these labels, p_i = exp(z_i) / Σ_j exp(z_j). A single score z of a
        `BinaryCrossEntropyLoss` gives the second label the probability 1 / (1 + exp(−z)).

        Parameters
        ----------
        X : array_like, (n, …), or frame
            The inputs, as for `fit`.

        Returns
        -------
        array of float64, (n, classes)

        Raises
        ------
        NotFittedError, ValueError
            As for `predict`.
        """
        scores = self._outputs(X)
        if self._is_binary:
            # The sigmoid of z is the second softmax of 0 and z.
            scores = np.column_stack([np.zeros(len(scores)), scores.reshape(len(scores))])
        scores = scores[:, : len(self.classes_)]
        shares: NDArray[np.float64] = np.exp(scores - scores.max(axis=1, keepdims=True))
        shares /= shares.sum(axis=1, keepdims=True)
        return shares


class FewShotRegressor(RegressorMixin, _FewShot):
    """A regressor that adapts a meta-trained learner: `fit` takes the few known examples of a new task.

    Parameters
    ----------
    learner : MetaLearnerBase, str or path
        A learner of a regression; the folder of a run, which stands for its best checkpoint; or the file of a learner.
        It is not changed.

    Attributes
    ----------
    adapted_ : IFullModel
        The model that `fit` adapted.
    encoding_ : TableEncoding, ImageEncoding or None
        As for `FewShotClassifier`; y and predictions are in the units of the table's target, and a frame y has its
        columns by name. Without a table, they are as the learner knows them: scale them as for training. Durations are
        in seconds, and times in seconds since 1970, in y of any unit and in predictions.
    n_features_in_, feature_names_in_
        As for `FewShotClassifier`.

    Examples
    --------
    >>> import numpy as np
    >>> from aidotnet_py import MAMLAlgorithm, MAMLOptions, NeuralNetworkModel
    >>> from aidotnet_py.data import SinusoidLoader
    >>> from aidotnet_py.estimators import FewShotRegressor
    >>> from aidotnet_py.nn import mlp
    >>> model = NeuralNetworkModel(mlp(40, 40, 1), input_shape=(1,), seed=0)
    >>> learner = MAMLAlgorithm(MAMLOptions(model, DataLoader=SinusoidLoader(seed=0), NumMetaIterations=20))
    >>> _ = learner.Train()
    >>> x = np.linspace(-5, 5, 10)[:, np.newaxis]
    >>> FewShotRegressor(learner).fit(x, np.sin(x[:, 0])).predict(x).shape
    (10,)
    """

    def fit(self, X: Any, y: Any) -> Self:
        """Adapt to the known examples of a task.

        Parameters
        ----------
        X : array_like, (n, …), or frame
            The inputs.
        y : array_like, (n,) or (n, targets), or frame
            What to predict.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            When X or y do not fit the learner, or the learner is one of classes.
        InvalidOperationException
            When the adapted parameters are not finite.
        """
        with all_or_nothing(self):
            self._fit(X, y)
        return self

    def _fit(self, X: Any, y: Any) -> None:
        learner, encoding = self._open()
        loss: Any = learner.DefaultLossFunction
        if isinstance(loss, (CrossEntropyLoss, BinaryCrossEntropyLoss)):
            raise ArgumentException(
                f"learner must have a loss of regression, got {type(cast(Any, loss)).__name__}; use FewShotClassifier"
            )
        inputs = self._inputs(X, learner.BaseModel, encoding, reset=True)
        outputs = _outputs_of(learner, inputs)
        columns = _targets(X, y, encoding, math.prod(outputs))
        if isinstance(encoding, TableEncoding):
            targets = encoding.outcomes(columns)
        else:
            targets = _numbers(columns, columns.names)
        targets = check_numbers("y", targets, inputs.dtype.type).reshape(columns.rows, *outputs)
        self._adapt(learner, encoding, inputs, targets)
        self._target_names, self._targets_shape = columns.names, np.asarray(y).shape[1:]

    def predict(self, X: Any) -> NDArray[np.float64]:
        """Return predictions in the shape of y, with the columns in the order of y.

        Parameters
        ----------
        X : array_like, (n, …), or frame
            The inputs, as for `fit`.

        Returns
        -------
        array of float64, (n,) or (n, targets)

        Raises
        ------
        NotFittedError
            Before `fit`.
        ValueError
            When X does not fit the learner.
        """
        outputs = self._outputs(X)
        if isinstance(self.encoding_, TableEncoding):
            names = self.encoding_.target_names
            decoded = self.encoding_.decode(outputs).reshape(len(outputs), len(names))
            outputs = decoded[:, [names.index(name) for name in self._target_names]]
        return outputs.reshape(len(outputs), *self._targets_shape)

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return the coefficient of determination R² of the predictions, with y read as in `fit`.

        Parameters
        ----------
        X, y
            As for `fit`.
        sample_weight : array_like, (n,), optional
            Weights of the rows.

        Returns
        -------
        float

        Raises
        ------
        NotFittedError
            Before `fit`.
        ValueError
            When X or y do not fit the learner.
        """
        check_is_fitted(self)
        columns = _targets(X, y, self.encoding_, len(self._target_names))
        if isinstance(self.encoding_, TableEncoding):
            # Refuses what fit does, such as times for a target of durations.
            self.encoding_.outcomes(columns)
        targets = _numbers(columns, self._target_names).reshape(columns.rows, *self._targets_shape)
        return super().score(X, targets, sample_weight)

    def __sklearn_tags__(self) -> Any:
        tags: Any = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags


def _refuse_bytes(images: NDArray[Any]) -> None:
    """Raise ArgumentException for pixels from 0 to 255. Not for other numbers: a loader's transforms may give them."""
    most = float(images.max())
    if most > 1 and (images == np.rint(images)).all():
        raise ArgumentException(
            f"X must have pixels from 0 for black to 1 for white, as the images that the learner learned from, got "
            f"whole numbers up to {most:g}; divide bytes by 255, or read files with encoding.inputs, see open_learner"
        )


def _labels(X: Any, y: Any) -> NDArray[Any]:
    """Return labels of classes, (n,)."""
    require_targets(y)
    # A series of pandas or Polars has one type already.
    given: Any = np.asarray(y) if hasattr(y, "to_numpy") else y
    labels: NDArray[Any] = column_or_1d(read_labels("y", given), warn=True)
    check_consistent_length(X, labels)
    check_classification_targets(labels)
    return labels


def _targets(X: Any, y: Any, encoding: Encoding | None, count: int) -> Columns:
    """Return the columns of y in its order, with the names of the encoding, if there is one."""
    found, columns = read_targets(X, y)
    if len(columns.names) != count:
        targets = "1 target" if count == 1 else f"{count} targets"
        raise ArgumentException(
            f"y must have {targets} a row, as the learner predicts, got shape {np.asarray(y).shape}"
        )
    if not isinstance(encoding, TableEncoding):
        return columns
    # One column is the target, whatever it is called, in a frame as in a series.
    names = encoding.target_names if found is None or count == 1 else found
    if set(names) != set(encoding.target_names):
        raise ArgumentException(
            f"y must have the columns {', '.join(encoding.target_names)}, as the learner's table has, got "
            f"{', '.join(names)}; rename them"
        )
    return columns.with_names(names)


def _numbers(columns: Columns, names: Sequence[str]) -> NDArray[np.float64]:
    """Return columns as numbers, (rows, columns)."""
    return np.column_stack([columns.numbers(name) for name in names])


def _outputs_of(learner: _Learner, inputs: NDArray[Any]) -> tuple[int, ...]:
    """Return the shape of what the learner predicts for one example."""
    model, on_device = learner.BaseModel, model_backend(learner.BaseModel).asarray(inputs)
    if not missing_members(model, INormalizedModel):
        # As for the adapted model; otherwise BatchNorm warns that it normalises by what it is asked about together.
        model = cast(Any, model).with_statistics_of(on_device)
    return tuple(model.Predict(on_device).shape[1:])
