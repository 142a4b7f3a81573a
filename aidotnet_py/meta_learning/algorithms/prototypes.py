"""Prototypes of classes: tasks with both sets in one, the loss of these, and models of the distances to prototypes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from aidotnet_py.autodiff import log_softmax
from aidotnet_py.backends import Array, Backend
from aidotnet_py.descriptions import Described
from aidotnet_py.exceptions import ArgumentException
from aidotnet_py.losses import CrossEntropyLoss, LossFunctionBase
from aidotnet_py.meta_learning.contract.tasks import IMetaLearningTask, MetaLearningTask, all_examples, set_names
from aidotnet_py.meta_learning.learner.core import Batch
from aidotnet_py.models import FunctionModel, NeuralNetworkModel
from aidotnet_py.nn import Dense, Sequential
from aidotnet_py.type_parameters import T_co

__all__ = [
    "SCORE_NAMES",
    "PrototypicalLoss",
    "Scores",
    "classes_of",
    "joint_tasks",
    "labels_of",
    "scoring_model",
    "scoring_parameters",
]

_Model: TypeAlias = FunctionModel[Any, Any, Any]

# Names of what scores have beside an embedding's parameters.
_WEIGHT, _BIAS = SCORE_NAMES = "prototypes.weight", "prototypes.bias"

# Labels beyond are names of classes, and not their numbers; each number up to the largest has a score.
_MOST_CLASSES = 2**16


class PrototypicalLoss(LossFunctionBase[T_co]):
    """The cross-entropy of the scores −‖e − p_c‖², of embeddings e (n, d) of support and query examples together.

    Targets are marks (n, 2C): in the first C columns the class of a support example, in the others that of an example
    which is scored. A prototype p_c is the mean of the support examples of a class; each class has some.
    """

    @override
    def formula(self, predicted: Array, actual: Array) -> Array:
        scores, asked = _scores(predicted, actual.astype(predicted.dtype))
        return (log_softmax(scores) * asked).sum() * -1.0 / asked.sum()

    @override
    def validate(self, predicted_shape: tuple[int, ...], actual: Array, name: str = "actual") -> None:
        if len(predicted_shape) != 2:
            raise ArgumentException(
                f"MetaModel must predict a vector for each example, (n, d), got shape {predicted_shape}; add Flatten()"
            )

    @override
    def accuracy(self, predicted: Array, actual: Array) -> float:
        scores, asked = _scores(np.asarray(predicted), np.asarray(actual))
        correct = (scores.argmax(axis=1) == asked.argmax(axis=1))[asked.any(axis=1)]
        return float(correct.mean())


def _scores(embedded: Any, marks: Any) -> tuple[Any, Any]:
    """Return the scores of all examples, and the marks of those that are scored, (n, C) each."""
    classes = marks.shape[1] // 2
    members = marks[:, :classes]
    prototypes = (members.T @ embedded) / members.sum(axis=0)[:, np.newaxis]
    # Differences and not ‖e‖² − 2 e·p + ‖p‖², which cancels.
    apart = embedded[:, np.newaxis, :] - prototypes[np.newaxis, :, :]
    return -(apart * apart).sum(axis=2), marks[:, classes:]


def joint_tasks(
    backend: Backend, dtype: np.dtype[Any], tasks: Batch[Any, Any, Any], wheres: Sequence[str], *, queries: bool
) -> list[MetaLearningTask[Any, Any, Any]]:
    """Return tasks with the targets of `PrototypicalLoss`; query sets, if wanted, follow the support sets.

    Their sets must fit the model. The classes of a task are those of its own support set, so that nothing depends on
    what other tasks have.

    Raises
    ------
    ArgumentException
        When targets are no labels, a class of a query set has no support example, or query examples are none like the
        support examples.
    """
    joint: list[MetaLearningTask[Any, Any, Any]] = []
    for task, where in zip(tasks, wheres, strict=True):
        classes, own = np.unique(labels_of(backend, task, "Support", where), return_inverse=True)
        eye = np.eye(len(classes), dtype=dtype)
        inputs, query = all_examples(backend, task.SupportInput), dict[str, Any]()
        if queries:
            asked = labels_of(backend, task, "Query", where)
            _require_known(classes, asked, task, where)
            _require_alike(backend, inputs, task, where)
            chosen = eye[np.searchsorted(classes, asked)]
            query["QuerySetX"] = backend.concat([inputs, task.QueryInput], 0)
            query["QuerySetY"] = backend.asarray(np.block([[eye[own], 0 * eye[own]], [0 * chosen, chosen]]))
        marks = backend.asarray(np.hstack([eye[own], eye[own]]))
        joint.append(
            MetaLearningTask(
                SupportSetX=inputs,
                SupportSetY=marks,
                NumWays=task.NumWays,
                Name=task.Name,
                TaskId=task.TaskId,
                **query,
            )
        )
    return joint


def classes_of(joint: IMetaLearningTask[Any, Any, Any]) -> int:
    """Return the number of classes of a joint task."""
    return int(joint.SupportOutput.shape[1]) // 2


def _require_known(
    classes: NDArray[np.intp], asked: NDArray[np.intp], task: IMetaLearningTask[Any, Any, Any], where: str
) -> None:
    lacking = np.setdiff1d(asked, classes)
    if len(lacking):
        support, query = (set_names(task, role)[1] for role in ("Support", "Query"))
        raise ArgumentException(
            f"{support}{where} must have an example of each class of {query}, got none of {int(lacking[0])}"
        )


def _require_alike(backend: Backend, support: Array, task: IMetaLearningTask[Any, Any, Any], where: str) -> None:
    kinds = [f"{backend.dtype_of(x)}{tuple(x.shape[1:])}" for x in (support, task.QueryInput)]
    if kinds[0] != kinds[1]:
        names = [set_names(task, role)[0] for role in ("Support", "Query")]
        raise ArgumentException(
            f"{names[1]}{where} must have examples {kinds[0]}, like {names[0]}, with which they are embedded together, "
            f"got {kinds[1]}"
        )


def labels_of(backend: Backend, task: IMetaLearningTask[Any, Any, Any], role: str, where: str = "") -> NDArray[np.intp]:
    """Return the class indices of a set, (n,), on the host, after the check that they are those or one-hot rows."""
    given, name = task.SupportOutput if role == "Support" else task.QueryOutput, set_names(task, role)[1] + where
    labels: NDArray[Any] = np.asarray(backend.to_numpy(all_examples(backend, given)))
    if labels.ndim == 2 and labels.shape[1] > 1:
        CrossEntropyLoss[Any]().validate(labels.shape, labels, name)
        if bool(((labels == 0) | (labels == 1)).all()):
            labels = labels.argmax(axis=1)
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or labels.min() < 0:
        raise ArgumentException(
            f"{name} must be class indices from 0 on, (n,), or one-hot rows, got {labels.dtype} of shape {labels.shape}"
        )
    if labels.max() >= _MOST_CLASSES:
        raise ArgumentException(
            f"{name} must hold labels from 0 to {_MOST_CLASSES - 1}, got {labels.max()}; labels are numbered from 0, "
            "as by np.unique(labels, return_inverse=True)[1]"
        )
    return labels.astype(np.intp)


def scoring_model(model: _Model, classes: int, width: int) -> _Model:
    """Return a model of the scores of classes, from embeddings (n, width); `scoring_parameters` has its parameters."""
    if isinstance(model, NeuralNetworkModel):
        network: Any = model.settings()["network"]
        layers = network.layers.values() if type(network) is Sequential else [network]
        return NeuralNetworkModel(
            Sequential(*layers, Dense(classes)),
            input_shape=model.input_shape,
            loss=CrossEntropyLoss(),
            dtype=model.dtype.type,
            backend=model.backend,
        )
    shapes = {**model.parameter_shapes, _WEIGHT: (width, classes), _BIAS: (classes,)}
    parameters = {name: np.zeros(shape, model.dtype) for name, shape in shapes.items()}
    function: Any = model.settings()["function"]
    return FunctionModel(Scores(function), parameters, CrossEntropyLoss(), backend=model.backend)


def scoring_parameters(
    embedding: NDArray[Any], prototypes: NDArray[np.float64], classes: NDArray[np.intp], count: int
) -> NDArray[Any]:
    """Return parameters for scores linear in f(x), whose softmax is that of −‖f(x) − p_c‖².

    With m the mean of the prototypes, 2 (p_c − m) · f(x) − (p_c − m) · (p_c + m). Of ``count`` classes, those without
    a prototype have the least score that there is.
    """
    # Less m, as what all classes have in common would cancel.
    mean = prototypes.mean(axis=0)
    apart = prototypes - mean
    weight = np.zeros((prototypes.shape[1], count))
    bias = np.full(count, float(np.finfo(embedding.dtype).min))
    weight[:, classes] = 2.0 * apart.T
    bias[classes] = -(apart * (prototypes + mean)).sum(axis=1)
    return np.concatenate([embedding, weight.ravel(), bias]).astype(embedding.dtype)


@dataclass(frozen=True)
class Scores(Described):
    """The scores of classes, from the embedding of an example.

    Parameters
    ----------
    embedding : callable
        The function of parameters and input.
    """

    embedding: Any

    def __call__(self, parameters: Mapping[str, Any], x: Any) -> Any:
        """Return the scores, (n, C)."""
        own = {name: value for name, value in parameters.items() if name not in (_WEIGHT, _BIAS)}
        return self.embedding(own, x) @ parameters[_WEIGHT] + parameters[_BIAS]
