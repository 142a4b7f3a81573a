"""Class labels and targets: those that a loss cannot take are named, with their set and task; nothing changes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose

from aidotnet_py import (
    ArgumentException,
    BinaryCrossEntropyLoss,
    CrossEntropyLoss,
    FunctionModel,
    MAMLAlgorithm,
    MAMLOptions,
    MetaLearningTask,
    ReptileAlgorithm,
    ReptileOptions,
    TaskBatch,
    iMAMLAlgorithm,
    iMAMLOptions,
)
from aidotnet_py.backends import Backend
from aidotnet_py.testing.learner_state import untouched

CLASSES = 3
X = np.random.default_rng(0).standard_normal((4, 2))
LABELS = np.array([0, 2, 1, 1])
ROWS = np.eye(CLASSES)[LABELS]


def changed(values: Any, place: Any, value: Any, kind: Any = None) -> Any:
    out = np.array(values, kind)
    out[place] = value
    return out


# Targets of the cross-entropy over three classes, and what is said of them.
WRONG: dict[str, tuple[Any, str]] = {
    "below": (changed(LABELS, 2, -1), "must hold labels from 0 to 2 for .*, got -1 to 2"),
    "beyond": (changed(LABELS, 0, 3), "must hold labels from 0 to 2 for .*, got 1 to 3"),
    "far": (changed(LABELS, 3, 2**40), "must hold labels from 0 to 2 for .*, got 0 to 1099511627776"),
    "uint8": (changed(LABELS, 1, 255, np.uint8), "must hold labels from 0 to 2 for .*, got 0 to 255"),
    "uint64": (
        changed(LABELS, 1, 2**64 - 1, np.uint64),
        "must hold labels from 0 to 2 for .*, got 0 to 18446744073709551615",
    ),
    "NaN": (changed(LABELS, 1, np.nan, float), "must be class indices, integers from 0 to 2, got dtype float64"),
    "halves": (LABELS + 0.5, "must be class indices, integers from 0 to 2, got dtype float64"),
    "whole floats": (LABELS * 1.0, "must be class indices, integers from 0 to 2, got dtype float64"),
    "booleans": (LABELS > 0, "must be class indices, integers from 0 to 2, got dtype bool"),
    "a column": (LABELS[:, None], r"must be class indices \(4,\) or rows \(4, 3\) for .*, got shape \(4, 1\)"),
    "negative rows": (changed(ROWS, (0, 1), -0.5), "must hold values from 0 to 1, got -0.5 to 1.0"),
    "infinite rows": (changed(ROWS, (0, 1), np.inf), "must hold values from 0 to 1, got 0.0 to inf"),
    "large rows beside NaN": (
        changed(ROWS, ([0, 1], [1, 1]), [2, np.nan]),
        "must hold values from 0 to 1, got 0.0 to 2.0",
    ),
    "halved rows": (ROWS / 2, "must hold one-hot rows .*, got sums from 0.5 to 0.5"),
    "halved rows beside NaN": (
        changed(ROWS / 2, (1, 1), np.nan),
        "must hold one-hot rows .*, got sums from 0.5 to 0.5",
    ),
}
WRONG_OF_TWO: dict[str, tuple[Any, str]] = {
    "below": (changed(ROWS, (0, 0), -1), "must hold values from 0 to 1, got -1.0 to 1.0"),
    "beyond": (changed(ROWS, (3, 2), 2), "must hold values from 0 to 1, got 0.0 to 2.0"),
    "counts": (changed(ROWS, (3, 2), 255, np.uint8), "must hold values from 0 to 1, got 0 to 255"),
    "infinite": (changed(ROWS, (3, 2), np.inf), "must hold values from 0 to 1, got 0.0 to inf"),
    "beside NaN": (changed(ROWS, ([0, 1], [1, 1]), [-2, np.nan]), "must hold values from 0 to 1, got -2.0 to 1.0"),
    "indices": (LABELS, r"must have the predictions' shape \(4, 3\), got \(4,\)"),
}
BOTH = [(CrossEntropyLoss, *case) for case in WRONG.values()]
BOTH += [(BinaryCrossEntropyLoss, *case) for case in WRONG_OF_TWO.values()]
ALGORITHMS = [(MAMLAlgorithm, MAMLOptions), (ReptileAlgorithm, ReptileOptions), (iMAMLAlgorithm, iMAMLOptions)]


def model_for(backend: Backend, loss: Any) -> Any:
    weights = np.random.default_rng(1).standard_normal((2, CLASSES))
    return FunctionModel(lambda p, x: x @ p["w"], {"w": weights}, loss=loss(), backend=backend)


def batch_of(backend: Backend, support: Any, query: Any) -> TaskBatch[Any, Any, Any]:
    to = backend.asarray
    return TaskBatch(
        [
            MetaLearningTask(SupportSetX=to(X), SupportSetY=to(s), QuerySetX=to(X), QuerySetY=to(q))
            for s, q in zip(support, query, strict=True)
        ]
    )


def right_for(wrong: Any) -> Any:
    """Targets of the same shape and dtype that are right."""
    return np.zeros_like(wrong) if wrong.ndim == 1 else np.eye(wrong.shape[1], dtype=wrong.dtype)[[0] * len(wrong)]


@pytest.mark.parametrize(("loss", "wrong", "message"), BOTH)
class TestWrongOnes:
    def test_by_loss_and_model(self, backend: Backend, loss: Any, wrong: Any, message: str) -> None:
        model, to = model_for(backend, loss), backend.asarray
        before = backend.to_numpy(model.GetParameters()).copy()
        calls: dict[str, Callable[[], Any]] = {
            "actual": lambda: loss().CalculateLoss(model.Predict(to(X)), to(wrong)),
            "target": lambda: model.ComputeGradients(to(X), to(wrong)),
            "expectedOutput": lambda: model.Train(to(X), to(wrong)),
        }
        for name, call in calls.items():
            with pytest.raises(ArgumentException, match=f"^{name} {message}"):
                call()
        assert (backend.to_numpy(model.GetParameters()) == before).all()

    @pytest.mark.parametrize(("algorithm", "options"), ALGORITHMS)
    def test_by_learners_in_any_task(
        self, backend: Backend, algorithm: Any, options: Any, loss: Any, wrong: Any, message: str
    ) -> None:
        learner = algorithm(options(model_for(backend, loss), AdaptationSteps=1))
        right = [right_for(wrong)] * 3
        # Of a dtype or shape that is wrong, all of them are.
        of_a_kind = "dtype" in message or "shape" in message
        for place in (0, 2):
            targets = [wrong if task == place else right[0] for task in range(3)]
            of = f" of task {0 if of_a_kind else place}"
            for support, query, role in ((targets, right, "Support"), (right, targets, "Query")):
                name = f"{'Support' if of_a_kind else role}SetY"
                batch = batch_of(backend, support, query)
                calls = [learner.AdaptAndEvaluate, *([learner.Adapt] if role == "Support" else [])]
                with untouched(learner):
                    for call in (learner.MetaTrain, learner.Evaluate):
                        with pytest.raises(ArgumentException, match=f"^(Query|{name}){of} {message}"):
                            call(batch)
                    for call in calls:
                        with pytest.raises(ArgumentException, match=f"^{name} {message}"):
                            call(batch[place])


@pytest.mark.parametrize("kind", [np.int8, np.uint8, np.int32, np.uint64, ">i4", ">i8", ">u2"])
def test_labels_of_any_integer_type_are_read_right(kind: Any) -> None:
    logits = np.random.default_rng(0).standard_normal((4, CLASSES))
    own = np.log(np.exp(logits).sum(1)) - logits[range(4), LABELS]
    assert_allclose(CrossEntropyLoss().CalculateLoss(logits, LABELS.astype(kind)), own.mean(), rtol=1e-14)


@pytest.mark.parametrize("beyond", [CLASSES, -CLASSES - 1])
def test_a_loss_of_ones_own_that_indexes_by_labels(backend: Backend, beyond: int) -> None:
    """The engine refuses what its `validate` let through, and the message says in which task."""
    if backend.name not in ("numpy", "strict"):
        pytest.skip("indices count modulo the length there")

    class Chosen(CrossEntropyLoss[Any]):
        def formula(self, predicted: Any, actual: Any) -> Any:
            return -np.mean(np.take_along_axis(predicted, np.expand_dims(actual, 1), 1))

        def validate(self, predicted_shape: Any, actual: Any, name: str = "actual") -> None:
            pass

    learner = MAMLAlgorithm(MAMLOptions(model_for(backend, Chosen), AdaptationSteps=1))
    batch = batch_of(backend, [LABELS, changed(LABELS, 3, beyond), LABELS], [LABELS] * 3)
    at = r" \(at \(1, 3, 0\) in indices" if backend.name == "numpy" else ""
    for call, data in ((learner.MetaTrain, batch), (learner.Evaluate, batch), (learner.Adapt, batch[1])):
        where = at.replace("(1, 3, 0", "(0, 3, 0") if data is batch[1] else at
        with untouched(learner), pytest.raises(IndexError, match=f"{beyond}.* an axis of length 3{where}"):
            call(data)
