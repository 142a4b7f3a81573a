"""Prototypes of classes: tasks with both sets in one, the loss of these, and models of the distances to prototypes."""

from __future__ import annotations

from collections.abc import Mapping
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
from aidotnet_py.meta_learning.contract.tasks import IMetaLearningTask, MetaLearningTask, all_examples
from aidotnet_py.meta_learning.learner.core import Batch
from aidotnet_py.models import FunctionModel, NeuralNetworkModel
from aidotnet_py.nn import Dense, Sequential
from aidotnet_py.type_parameters import T_co

__all__ = ["PrototypicalLoss", "Scores", "joint_tasks", "scoring_model", "scoring_parameters", "support_marks"]

_Model: TypeAlias = FunctionModel[Any, Any, Any]

# Names of what scores have beside an embedding's parameters.
_WEIGHT, _BIAS = "prototypes.weight", "prototypes.bias"


class PrototypicalLoss(LossFunctionBase[T_co]):
    """The cross-entropy of the scores −‖e − p_c‖², of embeddings e (n, d) of support and query examples together.

    Targets are marks (n, 2C): in the first C columns the class of a support example, in the others that of an example
    which is scored. A prototype p_c is the mean of the support examples of a class; a class without any has no score.
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
    counts = members.sum(axis=0)
    prototypes = (members.T @ embedded) / np.maximum(counts, 1.0)[:, np.newaxis]
    # Differences and not ‖e‖² − 2 e·p + ‖p‖², which cancels.
    apart = embedded[:, np.newaxis, :] - prototypes[np.newaxis, :, :]
    # Finite, since a mark of 0 times −inf is NaN.
    none = float(np.finfo(embedded.dtype).min) / 4
    return np.where(counts > 0.0, -(apart * apart).sum(axis=2), none), marks[:, classes:]


def support_marks(marks: NDArray[Any]) -> NDArray[Any]:
    """Return the marks of the support examples, (n, C), among the targets of `PrototypicalLoss`."""
    return marks[:, : marks.shape[1] // 2]


def joint_tasks(
    model: _Model, tasks: Batch[Any, Any, Any], first: int, *, queries: bool
) -> list[MetaLearningTask[Any, Any, Any]]:
    """Return tasks with the targets of `PrototypicalLoss`; query sets, if wanted, have the support sets in front.

    Raises
    ------
    ArgumentException
        When labels are no class indices, or a class of a query set has no support example; the message names the task.
    """
    backend = model.backend
    labels = [_labels(backend, task, "Support", first + place) for place, task in enumerate(tasks)]
    eye = np.eye(1 + max(int(of.max()) for of in labels), dtype=model.dtype)
    joint: list[MetaLearningTask[Any, Any, Any]] = []
    for place, (task, own) in enumerate(zip(tasks, labels, strict=True)):
        inputs, query = all_examples(backend, task.SupportInput), dict[str, Any]()
        if queries:
            asked = _labels(backend, task, "Query", first + place)
            lacking = np.setdiff1d(asked, own)
            if len(lacking):
                raise ArgumentException(
                    f"SupportOutput of task {first + place} must have an example of each class of QueryOutput, got "
                    f"none of {int(lacking[0])}"
                )
            query["QuerySetX"] = backend.concat([inputs, task.QueryInput], 0)
            query["QuerySetY"] = backend.asarray(np.block([[eye[own], 0 * eye[own]], [0 * eye[asked], eye[asked]]]))
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


def _labels(backend: Backend, task: IMetaLearningTask[Any, Any, Any], role: str, place: int) -> NDArray[np.intp]:
    """Return the class indices of a set, (n,), on the host."""
    name = f"{role}Output"
    given = getattr(task, name)
    if given is None:
        raise ArgumentException(f"{name} of task {place} must be labels, got None")
    labels: NDArray[Any] = np.asarray(backend.to_numpy(all_examples(backend, given)))
    if labels.ndim == 2 and labels.shape[1] > 1 and bool(((labels == 0) | (labels == 1)).all()):
        labels = labels.argmax(axis=1)
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or labels.min() < 0:
        raise ArgumentException(
            f"{name} of task {place} must be class indices from 0 on, (n,), or one-hot rows, got {labels.dtype} of "
            f"shape {labels.shape}"
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


def scoring_parameters(embedding: NDArray[Any], prototypes: NDArray[np.float64]) -> NDArray[Any]:
    """Return parameters for scores linear in f(x), whose softmax is that of −‖f(x) − p_c‖².

    With m the mean of the prototypes, 2 (p_c − m) · f(x) − (p_c − m) · (p_c + m).
    """
    # Less m, as what all classes have in common would cancel.
    mean = prototypes.mean(axis=0)
    apart = prototypes - mean
    bias = -(apart * (prototypes + mean)).sum(axis=1)
    return np.concatenate([embedding, 2.0 * apart.T.ravel(), bias]).astype(embedding.dtype)


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
