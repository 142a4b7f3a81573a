"""Losses against closed forms and SciPy, on every backend, and every refusal with its message."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit, log_expit, log_softmax

from aidotnet_py import (
    ArgumentException,
    BinaryCrossEntropyLoss,
    CrossEntropyLoss,
    FunctionModel,
    ILossFunction,
    MAMLAlgorithm,
    MAMLOptions,
    MeanSquaredErrorLoss,
    MetaLearningTask,
    TaskBatch,
)
from aidotnet_py.autodiff import grad
from aidotnet_py.backends import get_backend
from aidotnet_py.losses import LossFunctionBase, validate_alike

LOSSES = [MeanSquaredErrorLoss(), CrossEntropyLoss(), BinaryCrossEntropyLoss()]
DTYPES = [np.float32, np.float64]


def rng():
    return np.random.default_rng(20240501)


def put(backend, array, dtype=None):
    return backend.asarray(np.asarray(array), dtype)


def tolerance(dtype):
    # A mean of N ≤ 100 numbers near 1 by pairwise sums, and a handful of roundings in each: well below 30 eps.
    return 30 * float(np.finfo(dtype).eps)


@pytest.mark.parametrize("loss", LOSSES, ids=lambda x: type(x).__name__)
def test_each_is_a_loss_function(loss):
    assert isinstance(loss, ILossFunction)


class TestMeanSquaredError:
    def test_of_an_outlier_whose_square_half_precision_lacks(self):
        z = np.array([[300.0], *([0.0],) * 99], np.float16)
        loss = MeanSquaredErrorLoss().CalculateLoss(z, np.zeros_like(z))
        assert (type(loss), loss) == (np.float16, 900.0)
        slope = grad(lambda predicted: MeanSquaredErrorLoss().formula(predicted, np.zeros_like(z)))(z)
        assert slope.dtype == np.float16
        np.testing.assert_array_equal(slope, z / 50)

    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("shape", [(1,), (7,), (6, 3), (2, 3, 4)])
    def test_is_the_mean_over_all_elements(self, backend, dtype, shape):
        z, y = rng().standard_normal((2, *shape)).astype(dtype)
        loss = MeanSquaredErrorLoss().CalculateLoss(put(backend, z), put(backend, y))
        assert isinstance(loss, dtype)
        assert loss == pytest.approx(np.mean((z.astype(np.float64) - y.astype(np.float64)) ** 2), rel=tolerance(dtype))

    def test_gradient_is_twice_the_error_over_the_count(self, backend):
        z, y = rng().standard_normal((2, 4, 3))
        g = grad(MeanSquaredErrorLoss().formula)(put(backend, z), put(backend, y))
        np.testing.assert_allclose(backend.to_numpy(g), 2 * (z - y) / 12, rtol=1e-14)

    @pytest.mark.parametrize("kind", [np.int64, np.uint8, np.bool_, np.float32])
    def test_targets_of_other_types_count_as_numbers(self, backend, kind):
        z, y = rng().standard_normal(5), np.array([0, 1, 1, 0, 1], dtype=kind)
        loss = MeanSquaredErrorLoss().CalculateLoss(put(backend, z), put(backend, y))
        assert loss == pytest.approx(np.mean((z - y.astype(np.float64)) ** 2), rel=1e-14)

    def test_accuracy_is_nan(self, backend):
        z = put(backend, np.ones(3))
        assert math.isnan(MeanSquaredErrorLoss().accuracy(z, z))

    def test_refuses_another_shape(self, backend):
        with pytest.raises(ArgumentException, match=r"actual must have the predictions' shape \(3, 1\), got \(3,\)"):
            MeanSquaredErrorLoss().CalculateLoss(put(backend, np.ones((3, 1))), put(backend, np.ones(3)))

    def test_refuses_complex_targets(self):
        with pytest.raises(ArgumentException, match="actual must hold real numbers, got dtype complex128"):
            MeanSquaredErrorLoss().CalculateLoss(np.ones(3), np.ones(3, dtype=complex))


class TestCrossEntropy:
    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("shape", [(6, 4), (2, 5, 3)])
    def test_is_the_mean_negative_log_probability_of_the_class(self, backend, dtype, shape):
        z = (3 * rng().standard_normal(shape)).astype(dtype)
        y = rng().integers(0, shape[-1], shape[:-1])
        wanted = -np.mean(np.take_along_axis(log_softmax(z.astype(np.float64), axis=-1), y[..., None], -1))
        loss = CrossEntropyLoss().CalculateLoss(put(backend, z), put(backend, y))
        assert isinstance(loss, dtype)
        assert loss == pytest.approx(wanted, rel=tolerance(dtype))

    @pytest.mark.parametrize("kind", [np.int8, np.int32, np.int64, np.uint8, np.uint64])
    def test_every_integer_type_can_index(self, backend, kind):
        z, y = rng().standard_normal((5, 3)), np.array([2, 0, 1, 1, 2])
        losses = [CrossEntropyLoss().CalculateLoss(put(backend, z), put(backend, y, k)) for k in (kind, np.int64)]
        assert losses[0] == losses[1]

    @pytest.mark.parametrize("kind", [np.int64, np.float32, np.float64, np.bool_])
    def test_one_hot_rows_and_indices_are_the_same(self, backend, kind):
        z, y = rng().standard_normal((5, 3)), np.array([2, 0, 1, 1, 2])
        by_index = CrossEntropyLoss().CalculateLoss(put(backend, z), put(backend, y))
        assert CrossEntropyLoss().CalculateLoss(put(backend, z), put(backend, np.eye(3)[y], kind)) == by_index

    def test_probabilities_weigh_the_classes(self, backend):
        z = rng().standard_normal((5, 3))
        p = rng().dirichlet(np.ones(3), 5)
        wanted = -np.mean(np.sum(p * log_softmax(z, axis=-1), axis=-1))
        assert CrossEntropyLoss().CalculateLoss(put(backend, z), put(backend, p)) == pytest.approx(wanted, rel=1e-14)

    def test_large_logits_do_not_overflow(self, backend):
        z = put(backend, np.array([[1000.0, 0.0], [0.0, -1000.0]]))
        assert CrossEntropyLoss().CalculateLoss(z, put(backend, np.array([1, 0]))) == 500.0

    def test_gradient_is_softmax_minus_target_over_examples(self, backend):
        z, y = rng().standard_normal((5, 3)), np.array([2, 0, 1, 1, 2])
        g = grad(CrossEntropyLoss().formula)(put(backend, z), put(backend, y))
        np.testing.assert_allclose(
            backend.to_numpy(g), (np.exp(log_softmax(z, axis=-1)) - np.eye(3)[y]) / 5, atol=1e-15
        )

    def test_accuracy_counts_examples(self, backend):
        z = put(backend, np.array([[0.0, 2.0], [3.0, 1.0], [0.0, 1.0], [5.0, 4.0]]))
        labels = np.array([1, 0, 0, 1])
        assert CrossEntropyLoss().accuracy(z, put(backend, labels)) == 0.5
        assert CrossEntropyLoss().accuracy(z, put(backend, np.eye(2)[labels])) == 0.5
        assert CrossEntropyLoss().accuracy(z, put(backend, np.array([1, 0, 1, 0]))) == 1.0

    @pytest.mark.parametrize(
        ("labels", "message"),
        [
            ([0, 4], r"actual must hold labels from 0 to 3 for predictions of shape \(2, 4\), got 0 to 4"),
            ([-1, 2], r"actual must hold labels from 0 to 3 for predictions of shape \(2, 4\), got -1 to 2"),
            ([0.0, 1.0], "actual must be class indices, integers from 0 to 3, got dtype float64"),
            ([True, False], "actual must be class indices, integers from 0 to 3, got dtype bool"),
            (
                [0, 1, 2],
                r"actual must be class indices \(2,\) or rows \(2, 4\) for predictions \(2, 4\), got shape \(3,\)",
            ),
            (
                [[0], [1]],
                r"actual must be class indices \(2,\) or rows \(2, 4\) for predictions \(2, 4\), got shape \(2, 1\)",
            ),
            (
                np.full((2, 4), 0.5),
                r"actual must hold one-hot rows or probabilities, which sum to 1, got sums from 2\.0 to 2\.0",
            ),
            (
                np.zeros((2, 4)),
                r"actual must hold one-hot rows or probabilities, which sum to 1, got sums from 0\.0 to 0\.0",
            ),
            ([[2.0, -1.0, 0.0, 0.0]] * 2, r"actual must hold values from 0 to 1, got -1\.0 to 2\.0"),
        ],
    )
    def test_refuses_what_are_no_classes(self, backend, labels, message):
        with pytest.raises(ArgumentException, match=message):
            CrossEntropyLoss().CalculateLoss(put(backend, np.zeros((2, 4))), put(backend, labels))

    def test_refuses_predictions_without_a_class_axis(self, backend):
        with pytest.raises(ArgumentException, match=r"predictions must be logits \(n, classes\), got shape \(3,\)"):
            CrossEntropyLoss().CalculateLoss(put(backend, np.zeros(3)), put(backend, np.zeros(3, int)))

    @given(st.integers(1, 6), st.integers(2, 5), st.data())
    def test_shifting_logits_changes_nothing(self, n, classes, data):
        z = np.array(data.draw(st.lists(st.floats(-50, 50), min_size=n * classes, max_size=n * classes)))
        z = z.reshape(n, classes)
        y = np.array(data.draw(st.lists(st.integers(0, classes - 1), min_size=n, max_size=n)))
        loss = CrossEntropyLoss().CalculateLoss(z, y)
        assert 0 <= loss <= 100 + math.log(classes)
        # The shift itself rounds each logit, of up to 350, by half an ulp; and so do log and exp's few operations.
        assert CrossEntropyLoss().CalculateLoss(z + 300.0, y) == pytest.approx(loss, abs=1e-12)


class TestBinaryCrossEntropy:
    @pytest.mark.parametrize("dtype", DTYPES)
    def test_is_the_mean_over_elements(self, backend, dtype):
        z = (3 * rng().standard_normal((6, 2))).astype(dtype)
        y = rng().uniform(0, 1, (6, 2)).astype(dtype)
        z64, y64 = z.astype(np.float64), y.astype(np.float64)
        loss = BinaryCrossEntropyLoss().CalculateLoss(put(backend, z), put(backend, y))
        assert isinstance(loss, dtype)
        assert loss == pytest.approx(-np.mean(y64 * log_expit(z64) + (1 - y64) * log_expit(-z64)), rel=tolerance(dtype))

    def test_gradient_is_sigmoid_minus_target_over_the_count(self, backend):
        z, y = rng().standard_normal((5, 1)), rng().integers(0, 2, (5, 1))
        g = grad(BinaryCrossEntropyLoss().formula)(put(backend, z), put(backend, y))
        np.testing.assert_allclose(backend.to_numpy(g), (expit(z) - y) / 5, rtol=1e-13)

    def test_large_logits_do_not_overflow(self, backend):
        z, y = put(backend, np.array([1000.0, -1000.0])), put(backend, np.array([0, 0]))
        assert BinaryCrossEntropyLoss().CalculateLoss(z, y) == 500.0

    @pytest.mark.parametrize("target", [0.0, 1.0])
    def test_keeps_a_small_loss_at_large_logits(self, target):
        z, y = np.array([20.0, 40.0, 400.0]) * (2 * target - 1), np.full(3, target)
        loss = BinaryCrossEntropyLoss()
        for i in range(3):
            tail = math.exp(-abs(z[i]))
            assert loss.CalculateLoss(z[i : i + 1], y[i : i + 1]) == pytest.approx(math.log1p(tail), rel=1e-15)
        slopes = grad(loss.formula)(z, y)
        np.testing.assert_allclose(slopes, (1 - 2 * target) / (1 + np.exp(abs(z))) / 3, rtol=1e-14)

    def test_accuracy_counts_elements_on_the_right_side(self, backend):
        z = put(backend, np.array([[1.0], [-1.0], [2.0], [-3.0]]))
        assert BinaryCrossEntropyLoss().accuracy(z, put(backend, np.array([[1], [1], [0], [0]]))) == 0.5

    @pytest.mark.parametrize(
        ("targets", "message"),
        [
            ([0.0, 1.5, 1.0], r"actual must hold values from 0 to 1, got 0\.0 to 1\.5"),
            ([-1, 1, 1], "actual must hold values from 0 to 1, got -1 to 1"),
            ([[0, 1, 1]], r"actual must have the predictions' shape \(3,\), got \(1, 3\)"),
        ],
    )
    def test_refuses_targets_outside_the_unit_interval(self, backend, targets, message):
        with pytest.raises(ArgumentException, match=message):
            BinaryCrossEntropyLoss().CalculateLoss(put(backend, np.zeros(3)), put(backend, targets))


@pytest.mark.parametrize("loss", LOSSES, ids=lambda x: type(x).__name__)
class TestRefusals:
    @pytest.mark.parametrize("wrong", [None, [1.0], 1.0, "x"])
    def test_of_what_is_no_array(self, loss, wrong):
        kind = "None" if wrong is None else type(wrong).__name__
        with pytest.raises(ArgumentException, match=f"predicted must be an array, got {kind}"):
            loss.CalculateLoss(wrong, np.ones((1, 1)))
        with pytest.raises(ArgumentException, match=f"actual must be an array, got {kind}"):
            loss.CalculateLoss(np.ones((1, 1)), wrong)
        with pytest.raises(ArgumentException, match=f"QueryOutput must be an array, got {kind}"):
            loss.validate((1, 1), wrong, "QueryOutput")

    def test_of_integer_predictions(self, loss, backend):
        # Targets would be rounded to the predictions' dtype.
        z = put(backend, np.zeros((2, 2), int))
        with pytest.raises(ArgumentException, match="predicted must have a floating dtype, got int64"):
            loss.CalculateLoss(z, z)

    def test_of_no_examples(self, loss, backend):
        z = put(backend, np.zeros((0, 2)))
        with pytest.raises(ArgumentException, match=r"predictions must have at least one example, got shape \(0, 2\)"):
            loss.CalculateLoss(z, z)

    def test_of_two_backends(self, loss):
        z = get_backend("strict").asarray(np.zeros((2, 2)))
        with pytest.raises(
            ArgumentException,
            match="actual must be on backend 'numpy' like predicted, got 'strict'; move them to one first",
        ):
            loss.CalculateLoss(np.zeros((2, 2)), z)

    def test_names_the_argument_that_the_caller_names(self, loss):
        with pytest.raises(ArgumentException, match=r"SupportOutput must .*, got (shape )?\(3, 7\)"):
            loss.validate((2, 2), np.zeros((3, 7)), "SupportOutput")

    def test_but_not_of_nan_which_is_told_with_its_task(self, loss):
        loss.validate((2, 2), np.full((2, 2), np.nan))
        assert np.isnan(loss.CalculateLoss(np.zeros((2, 2)), np.full((2, 2), np.nan)))


@pytest.mark.parametrize(
    ("loss", "predicted", "actual", "message"),
    [
        (BinaryCrossEntropyLoss(), (3, 1), (3,), r"actual must have the predictions' shape \(3, 1\), got \(3,\)"),
        (CrossEntropyLoss(), (2, 3, 2), (3,), r"actual must be class indices \(2, 3\) or rows \(2, 3, 2\) .*"),
        (CrossEntropyLoss(), (0, 2), (0,), r"predictions must have at least one example, got shape \(0, 2\)"),
    ],
)
def test_an_accuracy_is_of_targets_that_fit(backend, loss, predicted, actual, message):
    """Others were broadcast: each prediction was compared with every target."""
    with pytest.raises(ArgumentException, match=message):
        loss.accuracy(put(backend, np.zeros(predicted)), put(backend, np.zeros(actual, int)))


@pytest.mark.parametrize("loss", [CrossEntropyLoss(), BinaryCrossEntropyLoss()], ids=lambda x: type(x).__name__)
def test_nan_is_never_right(loss):
    """It was, where it stood for the class of the target."""
    z = np.array([[np.nan, 1.0], [1.0, np.nan], [1.0, -1.0], [-1.0, 1.0]])
    one_hot = np.eye(2)[[0, 1, 0, 0]]
    expected = {CrossEntropyLoss: 1 / 4, BinaryCrossEntropyLoss: 2 / 8}
    assert loss.accuracy(z, one_hot) == expected[type(loss)]


class TestOwnLoss:
    def test_needs_a_formula_alone(self, backend):
        class MeanAbsoluteError(LossFunctionBase):
            def formula(self, predicted, actual):
                return np.mean(np.abs(predicted - actual))

        loss = MeanAbsoluteError()
        assert loss.CalculateLoss(put(backend, np.array([1.0, 2.0])), put(backend, np.array([0.0, 4.0]))) == 1.5
        assert isinstance(loss, ILossFunction)

    def test_half_precision_stays_half(self):
        assert CrossEntropyLoss().CalculateLoss(np.array([[0, 1000]] * 100, np.float16), np.zeros(100, int)) == 1000.0
        assert isinstance(MeanSquaredErrorLoss().CalculateLoss(np.ones(3, np.float16), np.zeros(3)), np.float16)


class _UnitSum(CrossEntropyLoss):
    """Targets that are valid one by one alone: together they would sum to something else."""

    def validate(self, predicted_shape, actual, name="actual"):
        if float(actual.sum()) != 1.0:
            raise ArgumentException(f"{name} sums to {actual.sum()}")


class TestManyTargetsAtOnce:
    LABELS, ROWS = np.array([0, 2]), np.array([[0.5, 0.25, 0.25], [0.0, 0.0, 1.0]])

    @pytest.mark.parametrize(
        ("loss", "good", "bad", "message"),
        [
            (
                CrossEntropyLoss(),
                LABELS,
                LABELS + 1,
                r"third must hold labels from 0 to 2 for predictions of shape \(2, 3\), got 1 to 3",
            ),
            (
                CrossEntropyLoss(),
                ROWS,
                ROWS[:, :2],
                r"first must be class indices \(2,\) or rows \(2, 3\) for predictions \(2, 3\), got shape \(2, 2\)",
            ),
            (
                CrossEntropyLoss(),
                ROWS,
                ROWS / 2,
                r"third must hold one-hot rows or probabilities, which sum to 1, got sums from 0\.5 to 0\.5",
            ),
            (BinaryCrossEntropyLoss(), ROWS, ROWS * 4, r"third must hold values from 0 to 1, got 0\.0 to 4\.0"),
            (MeanSquaredErrorLoss(), ROWS, LABELS, r"first must have the predictions' shape \(2, 3\), got \(2,\)"),
        ],
        ids=["labels", "shape", "rows", "binary", "squares"],
    )
    def test_the_first_bad_one_is_named(self, backend, loss, good, bad, message):
        good, bad = put(backend, good), put(backend, bad)
        validate_alike(loss, (2, 3), [good] * 4, iter(["first", "second", "third", "fourth"]))
        wrong = [bad] * 4 if message.startswith("first") else [good, good, bad, bad]
        with pytest.raises(ArgumentException, match=message):
            validate_alike(loss, (2, 3), wrong, iter(["first", "second", "third", "fourth"]))

    def test_a_subclass_judges_each_by_its_own_rule(self):
        good = np.array([0.25, 0.75])
        validate_alike(_UnitSum(), (2,), [good, good], ["first", "second"])
        with pytest.raises(ArgumentException, match="second sums to 2"):
            validate_alike(_UnitSum(), (2,), [good, good + 0.5], ["first", "second"])

    def test_values_are_brought_to_the_host_once(self, backend, monkeypatch):
        looks, fetch = [], type(backend).to_numpy
        monkeypatch.setattr(type(backend), "to_numpy", lambda self, a: looks.append(a) or fetch(self, a))
        validate_alike(CrossEntropyLoss(), (2, 3), [put(backend, self.LABELS)] * 5, ["labels"] * 5)
        assert len(looks) == 1


class _Own(LossFunctionBase[Any]):
    def formula(self, predicted: Any, actual: Any) -> Any:
        return np.mean((predicted - actual) ** 2)


@pytest.mark.parametrize(
    ("value", "got"),
    [
        (lambda p, a: (p - a) ** 2, r"float64\[3,1\]"),
        (lambda p, a: np.mean((p - a) ** 2, keepdims=True), r"float64\[1,1\]"),
        (lambda p, a: np.sum(p > a), r"int64\[\]"),
        (lambda p, a: None, "None"),
    ],
)
def test_a_formula_must_return_one_floating_scalar(value: Callable[[Any, Any], Any], got: str) -> None:
    class Wrong(_Own):
        def formula(self, predicted: Any, actual: Any) -> Any:
            return value(predicted, actual)

    message = f"Wrong.formula must return one floating scalar, .* got {got}"
    x, y = np.ones((3, 1)), np.zeros((3, 1))
    with pytest.raises(ArgumentException, match=message):
        Wrong().CalculateLoss(x, y)
    model = FunctionModel(lambda p, x: x * p["w"], {"w": np.ones(1)}, Wrong())
    with pytest.raises(ArgumentException, match=message):
        model.ComputeGradients(x, y)
    with pytest.raises(ArgumentException, match=message):
        MAMLAlgorithm(MAMLOptions(model)).MetaTrain(
            TaskBatch([MetaLearningTask(SupportSetX=x, SupportSetY=y, QuerySetX=x, QuerySetY=y, NumWays=1)])
        )


@pytest.mark.parametrize("value", [2, 2.0, np.float16(2.0), np.float32(2.0), np.float64(2.0)])
def test_a_formula_may_return_a_number(value: Any) -> None:
    """NumPy's of another precision than double were refused as no floating scalar."""

    class Constant(_Own):
        def formula(self, predicted: Any, actual: Any) -> Any:
            return value

    x = np.ones((3, 1), np.float32)
    loss = Constant().CalculateLoss(x, x)
    assert (loss, loss.dtype) == (2.0, np.float32)


@pytest.mark.parametrize("value", [None, np.array([True, False]), "all", True])
def test_an_accuracy_must_be_one_number(value: Any) -> None:
    class Wrong(_Own):
        def accuracy(self, predicted: Any, actual: Any) -> Any:
            return value

    x, y = np.ones((3, 1)), np.zeros((3, 1))
    model = FunctionModel(lambda p, x: x * p["w"], {"w": np.ones(1)}, Wrong())
    task = MetaLearningTask(SupportSetX=x, SupportSetY=y, QuerySetX=x, QuerySetY=y, NumWays=1)
    with pytest.raises(ArgumentException, match=r"the result of Wrong.accuracy must be one number"):
        MAMLAlgorithm(MAMLOptions(model)).AdaptAndEvaluate(task)


def test_methods_of_a_loss_are_checked_as_its_class_is_defined() -> None:
    with pytest.raises(
        TypeError, match=r"Short.validate must take \(self, predicted_shape, actual, name\), got \(self, s, a\)"
    ):

        class Short(_Own):
            def validate(self, s: Any, a: Any) -> None: ...  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
