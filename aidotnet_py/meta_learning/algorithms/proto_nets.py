"""ProtoNets: classes are the means of their embedded support examples, and the embedding is what is learned."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from aidotnet_py.arguments import refusal
from aidotnet_py.backends import Array
from aidotnet_py.caching import BoundedCache
from aidotnet_py.exceptions import InvalidOperationException
from aidotnet_py.losses import CrossEntropyLoss, ILossFunction
from aidotnet_py.meta_learning.algorithms.prototypes import (
    SCORE_NAMES,
    PrototypicalLoss,
    classes_of,
    joint_tasks,
    labels_of,
    scoring_model,
    scoring_parameters,
)
from aidotnet_py.meta_learning.contract.enums import MetaLearningAlgorithmType
from aidotnet_py.meta_learning.contract.options import MetaLearnerOptions, with_suggestions
from aidotnet_py.meta_learning.contract.protocols import model_backend
from aidotnet_py.meta_learning.contract.task_checks import check_task
from aidotnet_py.meta_learning.contract.tasks import IMetaLearningTask, all_examples
from aidotnet_py.meta_learning.learner.base import MetaLearnerBase
from aidotnet_py.meta_learning.learner.core import Batch
from aidotnet_py.meta_learning.learner.encodings import keep_task, warn_of_other_encodings
from aidotnet_py.meta_learning.learner.tasks import Tasks
from aidotnet_py.meta_learning.objective.chunk import Chunk
from aidotnet_py.meta_learning.objective.sets import Sets, names_of_places
from aidotnet_py.models import FunctionModel, IFullModel
from aidotnet_py.models.interfaces import TModel_co
from aidotnet_py.type_parameters import T, TInput, TOutput

__all__ = ["ProtoNetsAlgorithm", "ProtoNetsOptions"]

# Models of scores that are kept for the next task of as many classes.
_MOST_SCORING = 4


@with_suggestions
@dataclass(eq=False, kw_only=True)
class ProtoNetsOptions(MetaLearnerOptions[T, TInput, TOutput, TModel_co]):
    """Options of `ProtoNetsAlgorithm`: those of every learner; nothing takes inner steps.

    Parameters
    ----------
    MetaModel : FunctionModel or NeuralNetworkModel
        The embedding, from an example to a vector, with a `CrossEntropyLoss`. Required; all others are keywords. See
        `MetaLearnerOptions`. InnerLearningRate and AdaptationSteps are not used.
    LossFunction : CrossEntropyLoss, optional
        The loss of the class scores, without a formula of its own.

    Examples
    --------
    >>> from aidotnet_py import CrossEntropyLoss, NeuralNetworkModel, ProtoNetsOptions
    >>> from aidotnet_py.nn import mlp
    >>> ProtoNetsOptions(NeuralNetworkModel(mlp(32, 16), input_shape=(20,), loss=CrossEntropyLoss())).IsValid()
    True
    """

    def invalid(self) -> Iterator[str]:
        """Yield a message for each problem."""
        yield from super().invalid()
        model: Any = self.MetaModel
        if not isinstance(model, FunctionModel):
            yield f"MetaModel must be a FunctionModel or a NeuralNetworkModel, got a {type(model).__name__}"
            return
        loss: ILossFunction[Any] = self.loss_of(cast(Any, model))
        if not isinstance(loss, CrossEntropyLoss):
            yield (
                "LossFunction must be a CrossEntropyLoss, that of the scores of classes, got a "
                f"{type(loss).__name__}; make the model with loss=CrossEntropyLoss()"
            )
        else:
            # The distances have their own, so that others would not be heeded.
            for name in ("formula", "accuracy"):
                if not _is_inherited(loss, name):
                    yield (
                        f"LossFunction must have CrossEntropyLoss's own {name}, that of the scores of classes, got a "
                        f"{type(loss).__name__} with another; make it a CrossEntropyLoss()"
                    )
        for name in SCORE_NAMES:
            if name in model.parameter_shapes:
                yield (
                    f"MetaModel must have no parameters named {name!r}, as models that Adapt returns have, got one "
                    "with them; give the embedding that it was made of"
                )
        if self.InnerOptimizer is not None:
            yield refusal("InnerOptimizer", "None, as there are no inner steps", cast(Any, self.InnerOptimizer))

    @property
    def inner_steps(self) -> int:
        """0."""
        return 0


def _is_inherited(loss: CrossEntropyLoss[Any], name: str) -> bool:
    """Whether a method of a loss is that of CrossEntropyLoss."""
    return getattr(getattr(loss, name), "__func__", None) is getattr(CrossEntropyLoss, name)


class ProtoNetsAlgorithm(MetaLearnerBase[T, TInput, TOutput, TModel_co]):
    r"""Prototypical networks (Snell, Swersky & Zemel 2017), with squared Euclidean distances.

    With f_θ the model's embedding and S_c the support examples of class c, the class scores of x are

    .. math::
        z_c(x) = -\|f_\theta(x) - p_c\|^2, \quad p_c = \frac{1}{|S_c|} \sum_{x_i \in S_c} f_\theta(x_i),

    and L_q(θ) is the cross-entropy of the query examples' scores. The meta-gradient is the exact gradient of L_q, also
    through the prototypes. Support and query examples are embedded together, as in the authors' code: `BatchNorm`
    normalises by both. Classes may differ in their numbers of support examples, and tasks in their numbers of examples;
    each class of the query set must have a support example. Labels may have gaps; `Adapt` gives a class without support
    examples the least number as its score. Without training, and with f the identity, this is the
    nearest class mean.

    `Adapt` returns a model of the class scores. They are linear in f (section 2.4 there): with m the mean of the
    prototypes, 2 (p_c − m) · f(x) − (p_c − m) · (p_c + m) differs from z_c by the same number for all classes; without
    m, what all p_c have in common would cancel. So the adapted model is the embedding with a layer `Dense` after it,
    or, of a `FunctionModel`, with ``prototypes`` among its parameters; there, BatchNorm normalises by the support set.

    Parameters
    ----------
    options : ProtoNetsOptions
        Read when used, so it can be changed between steps.

    Raises
    ------
    ArgumentNullException
        When options is None.
    InvalidOperationException
        When options has no model.
    ArgumentException
        When an option is invalid; the message names the first.

    References
    ----------
    Snell, J., Swersky, K. & Zemel, R. (2017). Prototypical networks for few-shot learning. NeurIPS.

    Examples
    --------
    >>> from aidotnet_py import CrossEntropyLoss, NeuralNetworkModel, ProtoNetsAlgorithm, ProtoNetsOptions
    >>> from aidotnet_py.data import DigitsLoader
    >>> from aidotnet_py.nn import mlp, Flatten, Sequential
    >>> embedding = Sequential(Flatten(), *mlp(64, 32).layers.values())
    >>> model = NeuralNetworkModel(embedding, input_shape=(8, 8, 1), loss=CrossEntropyLoss(), seed=0)
    >>> learner = ProtoNetsAlgorithm(ProtoNetsOptions(model, DataLoader=DigitsLoader(seed=0)))
    >>> for _ in range(5):
    ...     step = learner.MetaTrainStep(8)
    >>> task = DigitsLoader(NWay=3, split="test", seed=1).GetNextTask()
    >>> learner.Adapt(task).Predict(task.QueryInput).shape
    (45, 3)
    """

    scores_any_classes = True
    _options_type = ProtoNetsOptions

    def __init__(self, options: ProtoNetsOptions[T, TInput, TOutput, TModel_co]) -> None:
        self._joint_loss = PrototypicalLoss[T]()
        # By the embedding's function and the number of classes.
        self._scoring: BoundedCache[Any, FunctionModel[Any, Any, Any]] = BoundedCache(_MOST_SCORING)
        super().__init__(options)

    @property
    def AlgorithmType(self) -> MetaLearningAlgorithmType:
        """``MetaLearningAlgorithmType.ProtoNets``."""
        return MetaLearningAlgorithmType.ProtoNets

    def meta_gradient(self, tasks: Tasks) -> Array:
        """Return ∇L_q."""
        return tasks.query_gradient(tasks.adapt())

    def Adapt(self, task: IMetaLearningTask[Any, TInput, TOutput]) -> TModel_co:
        """Return the model of the class scores for the classes of a task's support set; see the class.

        Raises
        ------
        ArgumentNullException
            When the task is None.
        ArgumentException
            When its support set does not fit the model.
        InvalidOperationException
            When a prototype is not finite.
        """
        (group,) = self._open([check_task(task)], "Support", training=False)
        warn_of_other_encodings(group.model, [task], learned=self._has_learned)
        adapted = self._scores_of(group, task)
        keep_task(adapted, group.model, task)
        return cast("TModel_co", adapted)

    def _scores_of(self, group: Chunk, task: IMetaLearningTask[Any, TInput, TOutput]) -> FunctionModel[Any, Any, Any]:
        """Return the model of the class scores for the classes of a task that is open."""
        base: Any = self.BaseModel
        model = cast("FunctionModel[Any, Any, Any]", base.WithParameters(group.parameters))
        inputs = all_examples(group.backend, task.SupportInput)
        labels = labels_of(group.backend, task, "Support")
        classes, count = np.unique(labels), int(labels.max()) + 1
        embedded = group.backend.to_numpy(model.with_statistics_of(inputs).Predict(inputs)).astype(np.float64)
        with np.errstate(over="ignore", invalid="ignore"):
            prototypes = np.array([embedded[labels == c].mean(axis=0) for c in classes])
            parameters = scoring_parameters(group.backend.to_numpy(group.parameters), prototypes, classes, count)
        if not np.isfinite(parameters).all():
            raise InvalidOperationException("the prototypes of the support set must be finite, got NaN or infinities")
        # One for all tasks of as many classes, since its programs are traced once.
        scoring = self._scoring.get_or_make(
            (base.apply, count), lambda: scoring_model(model, count, prototypes.shape[1])
        )
        scores = scoring.WithParameters(group.backend.asarray(parameters))
        return scores.with_statistics_of(inputs)

    def _loss(self) -> ILossFunction[T]:
        return self._joint_loss

    def _open(
        self, tasks: Batch[T, TInput, TOutput], *roles: str, training: bool = True, first: int | None = None
    ) -> list[Chunk]:
        """Open tasks whose query sets have the support sets in front, and whose targets say which is which."""
        self._require_valid()
        model, loss, wheres = cast(Any, self.BaseModel), self._joint_loss, names_of_places(len(tasks), first)
        # Its caches are those of the model as it is now.
        self._objectives.lease(model, loss)
        given = Sets(tasks, wheres)
        for role in roles:
            self._objectives.check(role, given, model, loss, beside="Support" if role == "Query" else None)
        joint = joint_tasks(model.backend, model.dtype, tasks, wheres, queries="Query" in roles)
        places: dict[int, list[int]] = {}
        for place, task in enumerate(joint):
            places.setdefault(classes_of(task), []).append(place)
        sets = Sets(joint, wheres)
        groups = [
            replace(group, places=[own[i] for i in group.places])
            for own in places.values()
            for group in self._objectives.groups(sets.part(own), roles, model, loss, training=training)
        ]
        return self._open_groups(joint, roles, training, first, groups)

    def _curve_of(self, chunk: Chunk, steps: int) -> tuple[NDArray[Any], NDArray[np.float64]]:
        """Return the same losses and accuracies for every step, since none moves anything."""
        losses, accuracies = Tasks(chunk, self).measure("Query", Tasks(chunk, self).start)
        return np.tile(losses, (steps + 1, 1)), np.tile(accuracies, (steps + 1, 1))

    def _single_accuracies(
        self, tasks: Batch[T, TInput, TOutput], model: IFullModel[T, TInput, TOutput], adapted: Sequence[Array]
    ) -> list[float]:
        """Return the accuracies of the models that `Adapt` gives."""
        loss, host = CrossEntropyLoss[T](), model_backend(model).to_numpy
        accuracies: list[float] = []
        for task in tasks:
            (group,) = self._open([task], "Support", training=False)
            scoring: Any = self._scores_of(group, task)
            accuracies.append(
                loss.accuracy(host(scoring.Predict(task.QueryInput)), host(cast(Array, task.QueryOutput)))
            )
        return accuracies
