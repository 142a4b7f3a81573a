"""Models on every backend: parameter vectors, predictions, gradients, training, files, threads, and every refusal."""

from __future__ import annotations

import copy
import gc
import json
import pickle
import re
import struct
import threading
import weakref
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from aidotnet_py import (
    AdamOptimizer,
    ArgumentException,
    ArgumentNullException,
    CrossEntropyLoss,
    FunctionModel,
    IDifferentiableModel,
    IFullModel,
    IGradientComputable,
    IModel,
    IModelSerializer,
    InvalidOperationException,
    IParameterizable,
    MeanSquaredErrorLoss,
    ModelMetadata,
    NeuralNetworkModel,
    NotSupportedException,
)
from aidotnet_py.archives import pack
from aidotnet_py.backends import get_backend
from aidotnet_py.losses import LossFunctionBase
from aidotnet_py.nn import BatchNorm, Conv2D, Dense, Flatten, Sequential, Tanh, mlp


def rng(seed=11):
    return np.random.default_rng(seed)


def affine(p, x):
    return x @ p["w"] + p["b"]


def parameters(dtype=np.float64):
    return {"w": rng().standard_normal((3, 2)).astype(dtype), "b": np.array([0.5, -0.5], dtype)}


def model_on(backend, dtype=np.float64, function=affine):
    return FunctionModel(function, parameters(dtype), backend=backend)


def host(model, array=None):
    return np.array(model.backend.to_numpy(model.GetParameters() if array is None else array))


class TestInterfaces:
    @pytest.mark.parametrize(
        "interface",
        [IModel, IParameterizable, IModelSerializer, IFullModel, IGradientComputable, IDifferentiableModel],
    )
    def test_are_met(self, interface):
        assert isinstance(model_on("numpy"), interface)
        assert isinstance(NeuralNetworkModel(mlp(1), input_shape=(1,)), interface)
        assert not isinstance(object(), interface)

    def test_are_told_apart(self):
        class Plain:
            def Train(self, input, expectedOutput): ...
            def Predict(self, input): ...
            def GetModelMetadata(self): ...

        assert isinstance(Plain(), IModel)
        assert not isinstance(Plain(), IFullModel)


class TestParameterVector:
    def test_is_the_c_order_ravel_in_the_mappings_order(self, backend):
        given_ = {
            "z": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
            "a": np.float64(7.0),
            "m": np.arange(8.0, 16.0).reshape(2, 2, 2).transpose(2, 0, 1),
            "none": np.zeros((0, 3)),
            "b": np.array(16.0),
        }
        model = FunctionModel(lambda p, x: x, given_, backend=backend)
        wanted = np.concatenate([np.asarray(v).ravel() for v in given_.values()])
        assert host(model).tolist() == wanted.tolist()
        assert dict(model.parameter_shapes) == {"z": (2, 3), "a": (), "m": (2, 2, 2), "none": (0, 3), "b": ()}
        assert model.ParameterCount == 16

    @given(st.lists(hnp.array_shapes(min_dims=0, max_dims=3, max_side=4), min_size=1, max_size=5))
    def test_reaches_the_function_as_the_arrays_that_were_given(self, shapes):
        arrays = {f"p{i}": rng(i).standard_normal(shape) for i, shape in enumerate(shapes)}
        model = FunctionModel(lambda p, x: np.concatenate([p[n].reshape(-1) for n in arrays]) + 0 * x, arrays)
        assert (model.Predict(np.zeros(1)) == model.GetParameters()).all()

    def test_is_a_copy_both_ways(self, backend):
        source = parameters()
        model = FunctionModel(affine, source, backend=backend)
        before = host(model)
        source["w"][...] = 99.0
        assert (host(model) == before).all()
        taken = model.GetParameters()
        taken[...] = 99.0
        assert (host(model) == before).all()
        mine = backend.asarray(np.arange(8.0))
        model.SetParameters(mine)
        mine[...] = 99.0
        assert host(model).tolist() == list(range(8))

    def test_of_a_file_come_by_the_subclass_own_way(self):
        """With statistics too, which are replaced with them."""

        class Counted(NeuralNetworkModel):
            count = 0

            def SetParameters(self, parameters):
                self.count += 1
                super().SetParameters(parameters)

        def make():
            return Counted(Sequential(Dense(2), BatchNorm()), input_shape=(3,), seed=0)

        saved = make().with_statistics_of(np.random.default_rng(0).random((5, 3), np.float32))
        taker = make()
        taker.Deserialize(saved.Serialize())
        assert taker.count == 1
        taker.set_statistics(saved.statistics, saved.GetParameters())
        assert taker.count == 2
        assert taker.statistics.keys() == saved.statistics.keys() != set()
        x = np.ones((1, 3), np.float32)
        assert (taker.Predict(x) == saved.Predict(x)).all()

    def test_may_be_a_view(self):
        model = model_on("numpy")
        model.SetParameters(np.arange(16.0)[::-2])
        assert host(model).tolist() == [15, 13, 11, 9, 7, 5, 3, 1]

    def test_may_be_of_half_precision_where_the_backend_has_it(self):
        model = model_on("numpy", np.float16)
        x = np.ones((2, 3), np.float16)
        assert model.Predict(x).dtype == model.ComputeGradients(x, model.Predict(x)).dtype == np.float16
        other = model_on("numpy", np.float16)
        other.Deserialize(model.Serialize())
        assert (other.Predict(x) == model.Predict(x)).all()

    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_has_the_parameters_dtype_or_the_one_asked_for(self, backend, dtype):
        assert host(FunctionModel(affine, parameters(dtype), backend=backend)).dtype == dtype
        assert host(FunctionModel(affine, parameters(), dtype=dtype, backend=backend)).dtype == dtype
        assert host(FunctionModel(affine, {"w": [[1, 2]], "b": 0.5}, dtype=dtype, backend=backend)).dtype == dtype

    def test_is_in_native_byte_order(self):
        swapped = {k: v.astype(v.dtype.newbyteorder()) for k, v in parameters().items()}
        model = FunctionModel(affine, swapped)
        assert model.GetParameters().dtype.isnative
        assert (model.GetParameters() == model_on("numpy").GetParameters()).all()

    @pytest.mark.parametrize(
        ("vector", "message"),
        [
            (np.zeros(7), r"parameters must be float64\(8,\) like the model's, got float64\(7,\)"),
            (np.zeros((1, 8)), r"parameters must be float64\(8,\) .*, got float64\(1, 8\)"),
            (np.zeros(8, np.float32), "parameters must have the model's dtype float64, got float32"),
            (np.zeros(8, int), r"parameters must be float64\(8,\) .*, got int64\(8,\)"),
            ([0.0] * 8, "parameters must be an array on the model's backend 'numpy', got a list"),
            (None, r"parameters must be an array, got None"),
        ],
    )
    def test_of_another_kind_is_refused_and_changes_nothing(self, vector, message):
        model = model_on("numpy")
        before = host(model)
        for take in (model.SetParameters, model.WithParameters):
            with pytest.raises(ArgumentException, match=message):
                take(vector)
        assert (host(model) == before).all()

    def test_of_another_backend_is_refused(self, backend):
        other = get_backend("strict" if backend.name == "numpy" else "numpy")
        message = (
            f"parameters must be an array on the model's backend '{backend.name}', got one on backend '{other.name}'"
        )
        with pytest.raises(ArgumentException, match=message):
            model_on(backend).SetParameters(other.asarray(np.zeros(8)))


class TestConstruction:
    @pytest.mark.parametrize(
        ("arguments", "error", "message"),
        [
            (
                (None, {"w": np.zeros(1)}),
                ArgumentNullException,
                "function must be a function of parameters and input, got None",
            ),
            ((affine, None), ArgumentNullException, "parameters must be a mapping from names to arrays, got None"),
            ((affine, {}), ArgumentException, r"parameters must be a mapping .*, not empty, got \{\}"),
            # A step of iMAML failed on its right-hand side.
            ((affine, {"w": np.zeros((0, 3))}), ArgumentException, "parameters must have at least one number, got .*w"),
            ((affine, [np.zeros(1)]), ArgumentException, r"parameters must be a mapping .*, got \["),
            ((affine, {"w": np.zeros(1, int)}), ArgumentException, "must have one dtype of float16, .*, got w: int64"),
            (
                (affine, {"w": np.zeros(1), "b": np.zeros(1, "f4")}),
                ArgumentException,
                "got w: float64, b: float32; give",
            ),
            (
                (affine, {"w": np.zeros(1, complex)}),
                ArgumentException,
                "parameter 'w' must hold real numbers, got complex128",
            ),
            ((affine, {"w": np.zeros(1, np.longdouble)}), ArgumentException, "longdouble|float128"),
            (
                (affine, {"layer": {"w": np.zeros(1)}}),
                ArgumentException,
                "parameter 'layer' must hold real numbers, got a dict",
            ),
            ((affine, {"w": None}), ArgumentException, "parameter 'w' must hold real numbers, got a NoneType"),
            ((affine, {3: np.zeros(1)}), ArgumentException, "the name of a parameter must be a str, got 3"),
            (
                (affine, {"w": np.zeros(1)}, None, np.int32),
                ArgumentException,
                "dtype must be one of float16, float32, float64, got int32",
            ),
            ((affine, {"w": np.zeros(1)}, None, None, "gpu"), ArgumentException, "backend must be .*, got 'gpu'"),
        ],
    )
    def test_refuses(self, arguments, error, message):
        with pytest.raises(error, match=message):
            FunctionModel(*arguments)

    def test_takes_parameters_of_any_backend(self, backend):
        arrays = {name: get_backend("strict").asarray(value) for name, value in parameters().items()}
        assert (host(FunctionModel(affine, arrays, backend=backend)) == host(model_on(backend))).all()

    def test_defaults(self):
        model = model_on("numpy")
        assert isinstance(model.DefaultLossFunction, MeanSquaredErrorLoss)
        assert model.backend.name == "numpy"
        loss = CrossEntropyLoss()
        assert FunctionModel(affine, parameters(), loss).DefaultLossFunction is loss


class TestPredict:
    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_is_the_function(self, backend, dtype):
        model, x = model_on(backend, dtype), rng().standard_normal((5, 3)).astype(dtype)
        p = parameters(dtype)
        y = model.Predict(backend.asarray(x))
        assert backend.owns(y)
        assert backend.to_numpy(y).dtype == dtype
        np.testing.assert_allclose(backend.to_numpy(y), x @ p["w"] + p["b"], rtol=20 * np.finfo(dtype).eps)

    def test_takes_any_number_of_examples_and_none(self, backend):
        model, p = model_on(backend), parameters()
        for n in (3, 1, 0, 3, 7):
            x = rng(n).standard_normal((n, 3))
            y = backend.to_numpy(model.Predict(backend.asarray(x)))
            assert y.shape == (n, 2)
            np.testing.assert_allclose(y, x @ p["w"] + p["b"], rtol=1e-13)

    @pytest.mark.parametrize(
        "view",
        [
            lambda x: np.asfortranarray(x),
            lambda x: np.repeat(x, 2, axis=0)[::2],
            lambda x: x[::-1][::-1],
            lambda x: np.broadcast_to(x[:1], x.shape),
            lambda x: x.astype(">f8"),
        ],
    )
    def test_does_not_depend_on_the_inputs_layout(self, view):
        model, x = model_on("numpy"), view(rng().standard_normal((5, 3)))
        x.flags.writeable = False
        assert (model.Predict(x) == model.Predict(np.array(x, dtype=np.float64, order="C"))).all()

    def test_results_are_each_their_own(self, backend):
        model = model_on(backend)
        one = model.Predict(backend.asarray(np.ones((2, 3))))
        before = np.array(backend.to_numpy(one))
        model.Predict(backend.asarray(np.zeros((2, 3))))
        assert (backend.to_numpy(one) == before).all()

    def test_follows_new_parameters(self, backend):
        model, x = model_on(backend), backend.asarray(np.ones((1, 3)))
        model.Predict(x)
        model.SetParameters(backend.asarray(np.zeros(8)))
        assert backend.to_numpy(model.Predict(x)).tolist() == [[0.0, 0.0]]

    @pytest.mark.parametrize("kind", [np.int64, np.uint8, np.bool_])
    def test_takes_integers_and_answers_in_its_dtype(self, backend, kind):
        model, x = model_on(backend, np.float32), np.array([[1, 0, 1]], kind)
        p = parameters(np.float32)
        y = backend.to_numpy(model.Predict(backend.asarray(x)))
        assert y.dtype == np.float32
        np.testing.assert_allclose(y, [p["w"][0] + p["w"][2] + p["b"]], rtol=1e-6)

    def test_takes_indices(self, backend):
        table = rng().standard_normal((5, 2))
        model = FunctionModel(lambda p, x: np.take(p["table"], x, axis=0), {"table": table}, backend=backend)
        y = backend.to_numpy(model.Predict(backend.asarray(np.array([[4, 0], [1, 1]]))))
        assert (y == table[[[4, 0], [1, 1]]]).all()

    @pytest.mark.parametrize(
        ("wrong", "message"),
        [
            (np.zeros((5, 3), np.float32), "input must have the model's dtype float64, got float32"),
            (np.zeros((5, 3), complex), "input must have the model's dtype float64, got complex128"),
            (np.full((5, 3), "a"), "input must hold numbers, got dtype <U1"),
            (
                np.zeros((5, 4)),
                r"the model must take an input of shape \(5, 4\), got an error in its function: .*\(5, 4\).*\(3, 2\)",
            ),
            ([[1.0, 2.0, 3.0]], "input must be an array on the model's backend 'numpy', got a list"),
            (None, r"input must be an array, got None"),
        ],
    )
    def test_refuses(self, wrong, message):
        with pytest.raises(ArgumentException, match=message):
            model_on("numpy").Predict(wrong)

    def test_refuses_arrays_of_another_backend(self):
        with pytest.raises(ArgumentException, match=r"input must be .* backend 'numpy', got one on backend 'strict'"):
            model_on("numpy").Predict(get_backend("strict").asarray(np.zeros((1, 3))))

    @pytest.mark.parametrize(
        ("function", "message"),
        [
            (lambda p, x: None, "the model's function must return one array, got a NoneType"),
            (lambda p, x: (x, x), "the model's function must return one array, got a tuple"),
            (lambda p, x: [x], "the model's function must return one array, got a list"),
            (lambda p, x: 1.0, "the model's function must return one array, got a float"),
            (lambda p, x: (x @ p["w"]) > 0, r"the model's function must return a floating array, got bool\[1,2\]"),
            (
                lambda p, x: (x @ p["w"]).astype(np.int64),
                r"the model's function must return a floating array, got int64\[1,2\]",
            ),
        ],
    )
    def test_refuses_functions_that_return_no_floating_array(self, backend, function, message):
        with pytest.raises(ArgumentException, match=message):
            model_on(backend, function=function).Predict(backend.asarray(np.zeros((1, 3))))

    def test_lets_the_functions_own_errors_out(self):
        with pytest.raises(KeyError, match="v"):
            model_on("numpy", function=lambda p, x: x @ p["v"]).Predict(np.zeros((1, 3)))
        with pytest.raises(InvalidOperationException, match=r"np\.where"):
            model_on("numpy", function=lambda p, x: x if x.sum() > 0 else -x).Predict(np.zeros((1, 3)))
        with pytest.raises(NotSupportedException, match=r"np\.median"):
            model_on("numpy", function=lambda p, x: np.median(x @ p["w"])).Predict(np.zeros((1, 3)))


class TestGradients:
    @pytest.mark.numpy_first
    @pytest.mark.parametrize("loss", [None, MeanSquaredErrorLoss(), CrossEntropyLoss()])
    def test_are_those_of_finite_differences(self, backend, loss):
        model = FunctionModel(lambda p, x: np.tanh(affine(p, x)), parameters(), backend=backend)
        x, y = rng().standard_normal((4, 3)), rng().integers(0, 2, 4)
        y = y if isinstance(loss, CrossEntropyLoss) else np.eye(2)[y]
        inputs, targets = backend.asarray(x), backend.asarray(y)
        gradient = host(model, model.ComputeGradients(inputs, targets, loss))

        def at(vector):
            moved = model.WithParameters(backend.asarray(vector)).Predict(inputs)
            return float((loss or MeanSquaredErrorLoss()).CalculateLoss(moved, targets))

        center, step = host(model), 1e-5
        differences = [(at(center + step * e) - at(center - step * e)) / (2 * step) for e in np.eye(8)]
        # Central differences: step² of a third derivative near 1, and eps / step of rounding.
        np.testing.assert_allclose(gradient, differences, atol=1e-9)

    def test_of_a_linear_model_are_the_closed_form(self, backend):
        model = model_on(backend)
        x, y = rng().standard_normal((4, 3)), rng().standard_normal((4, 2))
        error = x @ parameters()["w"] + parameters()["b"] - y
        wanted = np.concatenate([(2 / 8 * x.T @ error).ravel(), 2 / 8 * error.sum(axis=0)])
        gradient = model.ComputeGradients(backend.asarray(x), backend.asarray(y))
        assert backend.owns(gradient)
        np.testing.assert_allclose(host(model, gradient), wanted, rtol=1e-12)

    def test_take_the_loss_that_is_given_and_else_the_default(self, backend):
        x, y = backend.asarray(rng().standard_normal((4, 3))), backend.asarray(np.array([0, 1, 1, 0]))
        default = FunctionModel(affine, parameters(), CrossEntropyLoss(), backend=backend)
        named = model_on(backend).ComputeGradients(x, y, CrossEntropyLoss())
        assert (host(default, default.ComputeGradients(x, y)) == host(default, named)).all()

    @pytest.mark.parametrize(
        ("target", "message"),
        [
            (np.zeros((4, 3)), r"target must have the predictions' shape \(4, 2\), got \(4, 3\)"),
            (np.zeros((3, 2)), r"target must have the predictions' shape \(4, 2\), got \(3, 2\)"),
            (np.zeros((4, 2), np.float32), "target must have the model's dtype float64, got float32"),
            (None, r"target must be an array, got None"),
        ],
    )
    def test_refuse(self, target, message):
        with pytest.raises(ArgumentException, match=message):
            model_on("numpy").ComputeGradients(np.zeros((4, 3)), target)

    def test_refuse_inputs_as_predict_does(self):
        with pytest.raises(ArgumentException, match=r"the model must take an input of shape \(4, 9\), got an error"):
            model_on("numpy").ComputeGradients(np.zeros((4, 9)), np.zeros((4, 2)))

    def test_refuse_labels_out_of_range_before_any_work(self):
        with pytest.raises(
            ArgumentException,
            match=r"target must hold labels from 0 to 1 for predictions of shape \(2, 2\), got 0 to 2",
        ):
            model_on("numpy").ComputeGradients(np.zeros((2, 3)), np.array([0, 2]), CrossEntropyLoss())


class TestTrain:
    @pytest.mark.numpy_first
    def test_lowers_the_loss_and_dates_the_model(self, backend):
        model = NeuralNetworkModel(mlp(8, 1), input_shape=(1,), seed=0, backend=backend)
        x = backend.asarray(np.linspace(-1, 1, 20, dtype=np.float32)[:, None])
        loss = model.DefaultLossFunction
        before = loss.CalculateLoss(model.Predict(x), x)
        assert model.GetModelMetadata().TrainingDate is None
        for _ in range(30):
            model.Train(x, x)
        assert loss.CalculateLoss(model.Predict(x), x) < 0.9 * before
        dated = model.GetModelMetadata().TrainingDate
        assert dated is not None
        assert abs((datetime.now(UTC) - dated).total_seconds()) < 60

    def test_steps_as_adam_does(self):
        model, x, y = model_on("numpy"), rng().standard_normal((4, 3)), rng().standard_normal((4, 2))
        before, gradient = host(model), model.ComputeGradients(x, y)
        model.Train(x, y)
        np.testing.assert_allclose(host(model), before - 0.001 * np.sign(gradient), atol=1e-9)

    def test_names_its_own_argument(self):
        with pytest.raises(
            ArgumentException, match=r"expectedOutput must have the predictions' shape \(4, 2\), got \(1, 1\)"
        ):
            model_on("numpy").Train(np.zeros((4, 3)), np.zeros((1, 1)))

    @pytest.mark.parametrize("poison", [np.nan, np.inf])
    def test_that_meets_what_is_not_finite_changes_nothing(self, backend, poison):
        model, y = model_on(backend), backend.asarray(np.ones((1, 2)))
        good, bad = (backend.asarray(np.array([[1.0, 2.0, v]])) for v in (3.0, poison))
        twin = model.Clone()
        model.Train(good, y)
        twin.Train(good, y)
        with pytest.raises(InvalidOperationException, match="the loss is not finite; nothing was changed"):
            model.Train(bad, y)
        model.Train(good, y)
        twin.Train(good, y)
        assert (host(model) == host(twin)).all()

    def test_notices_a_gradient_that_is_not_finite_beside_a_loss_that_is(self):
        model = FunctionModel(lambda p, x: np.sqrt(p["w"]) * x, {"w": np.zeros(1)})
        with pytest.raises(InvalidOperationException, match="the gradient of the loss is not finite"):
            model.Train(np.ones(1), np.ones(1))

    def test_that_leads_to_what_is_not_finite_changes_nothing(self):
        """Whose parameter lies at the end of its range."""
        most = float(np.finfo(np.float16).max)
        model = FunctionModel(lambda p, x: x - p["w"] / most, {"w": np.full(1, most, np.float16)})
        model._optimizer = AdamOptimizer(most)
        x = np.zeros(1, np.float16)
        with pytest.raises(InvalidOperationException, match="the new parameters are not finite; nothing was changed"):
            model.Train(x, x + np.float16(-2.0))
        assert model.GetParameters() == most
        assert model._optimizer.GetState() == {"steps": 0}

    @pytest.mark.parametrize(("slope", "is_taken"), [(300.0, True), (3000.0, True), (30000.0, False)])
    def test_squares_beyond_half_precision(self, slope, is_taken):
        """Their moment was infinite, and no step moved the parameter again."""
        model = FunctionModel(lambda p, x: (p["w"] - 1.0) * x, {"w": np.ones(1, np.float16)})
        x, y = np.full(1, slope, np.float16), np.full(1, -0.5, np.float16)
        assert model.ComputeGradients(x, y) == x
        if is_taken:
            model.Train(x, y)
            assert model.GetParameters() == np.float16(0.999)
            return
        with pytest.raises(
            InvalidOperationException, match="the second_moment of the optimizer is not finite; nothing"
        ):
            model.Train(x, y)
        assert model.GetParameters() == 1.0
        assert model._optimizer.GetState() == {"steps": 0}

    def test_in_half_precision_leaves_what_has_no_gradient(self):
        model = FunctionModel(lambda p, x: x @ p["w"], {"w": np.ones((2, 1), np.float16)})
        model.Train(np.array([[1, 0]], np.float16), np.zeros((1, 1), np.float16))
        assert model.GetParameters().tolist() == [np.float16(0.999), 1.0]


class TestCopies:
    def test_a_clone_is_equal_and_independent(self, backend):
        model = model_on(backend)
        model.GetModelMetadata().SetProperty("a", 1)
        clone = model.Clone()
        assert type(clone) is type(model)
        assert (host(clone) == host(model)).all()
        clone.SetParameters(backend.asarray(np.zeros(8)))
        clone.GetModelMetadata().SetProperty("a", 2)
        clone.GetModelMetadata().FeatureImportance["x"] = np.float64(1.0)
        clone.GetModelMetadata().Name = "clone"
        assert host(model).any()
        assert model.GetModelMetadata().Properties == {"a": 1}
        assert model.GetModelMetadata().FeatureImportance == {}
        assert model.GetModelMetadata().Name == "affine"

    def test_a_deep_copy_is_a_clone(self, backend):
        model = model_on(backend)
        model.Predict(backend.asarray(np.ones((1, 3))))
        other = copy.deepcopy(model)
        assert (host(other) == host(model)).all()
        other.SetParameters(backend.asarray(np.zeros(8)))
        assert host(model).any()

    @pytest.mark.parametrize("function", [affine, None])
    def test_a_pickle_is_another_model_with_the_same_past(self, function):
        if function is None:
            model = NeuralNetworkModel(mlp(4, 2), input_shape=(3,), dtype=np.float64, seed=0)
        else:
            model = model_on("numpy")
        x, y = np.ones((2, 3)), np.zeros((2, 2))
        model.Train(x, y)
        model.Predict(x)
        other = pickle.loads(pickle.dumps(model))
        before = model.GetParameters()
        other.Train(x, y)
        assert (model.GetParameters() == before).all()
        model.Train(x, y)
        assert (other.Predict(x) == model.Predict(x)).all()

    def test_a_clone_trains_on_as_the_model_would(self, backend):
        model, x, y = model_on(backend), backend.asarray(np.ones((1, 3))), backend.asarray(np.zeros((1, 2)))
        model.Train(x, y)
        clone = model.Clone()
        for one in (model, clone):
            one.Train(x, y)
        assert (host(model) == host(clone)).all()

    def test_with_parameters_leaves_the_model_alone(self, backend):
        model = model_on(backend)
        before = host(model)
        other = model.WithParameters(backend.asarray(np.arange(8.0)))
        assert type(other) is type(model)
        assert host(other).tolist() == list(range(8))
        assert (host(model) == before).all()
        assert other.DefaultLossFunction is model.DefaultLossFunction

    def test_of_a_network_keep_its_checks(self):
        model = NeuralNetworkModel(mlp(2), input_shape=(3,), seed=0)
        for other in (model.Clone(), model.WithParameters(model.GetParameters())):
            assert isinstance(other, NeuralNetworkModel)
            with pytest.raises(ArgumentException, match=r"must have shape \(n, 3\)"):
                other.Predict(np.zeros((1, 4), np.float32))

    def test_move_to_another_backend(self):
        model, x = model_on("numpy", np.float32), np.ones((2, 3), np.float32)
        expected = model.Predict(x)
        moved = model.To("strict")
        assert moved.backend.name == "strict"
        assert (host(moved) == host(model)).all()
        y = moved.Predict(moved.backend.asarray(x))
        np.testing.assert_allclose(host(moved, y), expected, rtol=1e-6)
        assert (moved.To("numpy").Predict(x) == expected).all()
        with pytest.raises(
            ArgumentException,
            match="input must be an array on the model's backend 'strict', got one on backend 'numpy'",
        ):
            moved.Predict(x)
        with pytest.raises(ArgumentException, match=r"backend must be a Backend or one of 'numpy', .*got 'tpu'"):
            model.To("tpu")


# Files.


def text_of(changes):
    """The bytes of a model's file with some arrays changed, or taken away where None."""
    arrays = {**parameters(), **changes}
    return pack("model", {k: v for k, v in arrays.items() if v is not None}, {})


class TestFiles:
    def test_round_trip_bit_for_bit(self, backend, tmp_path):
        model = model_on(backend)
        vector = np.array([1.5, -0.0, 5e-324, 1e308, -1e308, 1 / 3, -1.0, 0.0])
        model.SetParameters(backend.asarray(vector))
        other = model_on(backend)
        other.Deserialize(model.Serialize())
        assert host(other).tobytes() == vector.tobytes()
        third = model_on(backend)
        model.SaveModel(tmp_path / "m.safetensors")
        third.LoadModel(str(tmp_path / "m.safetensors"))
        assert host(third).tobytes() == vector.tobytes()

    def test_of_scalars_networks_and_other_backends(self, tmp_path):
        scalar = FunctionModel(lambda p, x: x * p["a"], {"a": np.array(2.0), "none": np.zeros((0, 2))})
        twin = FunctionModel(lambda p, x: x * p["a"], {"a": np.array(0.0), "none": np.zeros((0, 2))})
        twin.Deserialize(scalar.Serialize())
        assert twin.GetParameters().tolist() == [2.0]
        one, two = (
            NeuralNetworkModel(Sequential(Conv2D(2), BatchNorm(), Flatten(), Dense(2)), input_shape=(4, 4, 1), seed=s)
            for s in (1, 2)
        )
        one.SaveModel(tmp_path / "n.safetensors")
        strict = two.To("strict")
        strict.LoadModel(tmp_path / "n.safetensors")
        assert (host(strict) == host(one)).all()

    @pytest.mark.parametrize("name", ["statistics: w", "__metadata__"])
    def test_are_not_written_with_names_that_no_file_has(self, name):
        """A file with the first could be written, and not be read."""
        model = FunctionModel(lambda p, x: x * p[name], {name: np.ones(1)})
        with pytest.raises(ArgumentException, match=r"names of .* must not"):
            model.Serialize()

    def test_are_safetensors_with_named_arrays(self):
        data = model_on("numpy").Serialize()
        (length,) = struct.unpack("<Q", data[:8])
        header = json.loads(data[8 : 8 + length])
        assert {k: (v["dtype"], v["shape"]) for k, v in header.items() if k != "__metadata__"} == {
            "w": ("F64", [3, 2]),
            "b": ("F64", [2]),
        }

    @pytest.mark.parametrize(
        ("data", "message"),
        [
            (b"", "data must be a safetensors file"),
            (text_of({})[:-4], "data is damaged: its SHA-256 differs from the one that it holds"),
            (b"\xff" * 16, "data must be a safetensors file"),
            (pack("meta-learner", parameters(), {}), "data must hold 'model', got 'meta-learner'"),
            (
                text_of({"b": None}),
                "data must be of this model, got another's: parameter 'b' is missing there and float64(2,) here",
            ),
            (text_of({"c": np.ones(1)}), "parameter 'c' is float64(1,) there and missing here"),
            (
                text_of({"w": np.ones((2, 3))}),
                "parameter 'w' is float64(2, 3) there and float64(3, 2) here",
            ),
            (
                text_of({"w": np.ones((3, 2), "f4")}),
                "parameter 'w' is float32(3, 2) there and float64(3, 2) here",
            ),
            (text_of({"w": np.ones((3, 2), int)}), "parameter 'w' is int64(3, 2) there and float64(3, 2) here"),
        ],
    )
    def test_that_do_not_fit_are_refused_and_change_nothing(self, data, message, tmp_path):
        model = model_on("numpy")
        before = host(model)
        with pytest.raises(ArgumentException, match=re.escape(message)):
            model.Deserialize(data)
        path = tmp_path / "evil.safetensors"
        path.write_bytes(data)
        with pytest.raises(ArgumentException, match=re.escape(message.replace("data", str(path), 1))):
            model.LoadModel(path)
        assert (host(model) == before).all()

    def test_that_are_not_there_are_refused(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"filePath must be an existing file, got nothing: '.*none'"):
            model_on("numpy").LoadModel(tmp_path / "none")
        with pytest.raises(FileNotFoundError, match=r"filePath must lie in an existing folder"):
            model_on("numpy").SaveModel(tmp_path / "none" / "m")


class TestNeuralNetwork:
    def test_is_its_network_on_its_parameters(self, backend):
        network = Sequential(Dense(4), Tanh(), Dense(2))
        model = NeuralNetworkModel(network, input_shape=(3,), dtype=np.float64, seed=3, backend=backend)
        raw, _ = network.initialize(np.random.default_rng(3), (3,))
        assert (host(model) == np.concatenate([v.ravel() for v in raw.values()])).all()
        x = rng().standard_normal((5, 3))
        wanted = np.tanh(x @ raw["0_dense.weight"] + raw["0_dense.bias"]) @ raw["2_dense.weight"] + raw["2_dense.bias"]
        np.testing.assert_allclose(host(model, model.Predict(backend.asarray(x))), wanted, rtol=1e-12)

    @pytest.mark.parametrize(
        ("shape", "input_shape", "shown"),
        [
            ((5, 784), (28, 28, 1), r"\(n, 28, 28, 1\)"),
            ((28, 28, 1), (28, 28, 1), r"\(n, 28, 28, 1\)"),
            ((5, 1, 28, 28), (28, 28, 1), r"\(n, 28, 28, 1\)"),
            ((), (28, 28, 1), r"\(n, 28, 28, 1\)"),
        ],
    )
    def test_names_the_shape_that_it_takes(self, shape, input_shape, shown):
        model = NeuralNetworkModel(Sequential(Flatten(), Dense(1)), input_shape=input_shape, seed=0)
        message = rf"{{}} must have shape {shown}, got {re.escape(str(shape))}"
        with pytest.raises(ArgumentException, match=message.format("input")):
            model.Predict(np.zeros(shape, np.float32))
        with pytest.raises(ArgumentException, match=message.format("SupportInput")):
            model.check_input(np.zeros(shape, np.float32), "SupportInput")

    @pytest.mark.parametrize(
        ("network", "input_shape", "error", "message"),
        [
            (None, (1,), ArgumentNullException, "network must be a layer, got None"),
            (
                mlp(1),
                (0,),
                ArgumentException,
                r"input_shape must be a sequence of whole numbers of at least 1, got \(0,\)",
            ),
            (mlp(1), (28, 28), ArgumentException, r"inputs of Dense must be \(n, features\), got \(n, 28, 28\)"),
        ],
    )
    def test_refuses(self, network, input_shape, error, message):
        with pytest.raises(error, match=message):
            NeuralNetworkModel(network, input_shape=input_shape)

    def test_knows_itself(self):
        metadata = NeuralNetworkModel(mlp(4, 1), input_shape=(3,)).GetModelMetadata()
        assert isinstance(metadata, ModelMetadata)
        assert (metadata.Name, metadata.FeatureCount, metadata.Complexity) == ("Sequential", 3, 3 * 4 + 4 + 4 + 1)

    @pytest.mark.numpy_first
    def test_classifies(self, backend):
        model = NeuralNetworkModel(mlp(8, 3), input_shape=(2,), loss=CrossEntropyLoss(), seed=0, backend=backend)
        x = rng().standard_normal((30, 2)).astype(np.float32)
        y = (x[:, 0] > 0).astype(np.int64) + (x[:, 1] > 0)
        inputs, labels = backend.asarray(x), backend.asarray(y)
        first = model.DefaultLossFunction.CalculateLoss(model.Predict(inputs), labels)
        for _ in range(50):
            model.Train(inputs, labels)
        assert model.DefaultLossFunction.CalculateLoss(model.Predict(inputs), labels) < first


class TestPrograms:
    """What is traced is kept, boundedly, and safely."""

    def traced(self):
        runs = []

        def function(p, x):
            runs.append(x.shape)
            return affine(p, x)

        return FunctionModel(function, parameters()), runs

    def test_are_traced_once_for_each_type(self):
        model, runs = self.traced()
        for n in (2, 2, 3, 2, 3):
            model.Predict(np.zeros((n, 3)))
        # Each time twice, to see that the function is pure.
        assert runs == [(2, 3), (2, 3), (3, 3), (3, 3)]
        model.Predict(np.zeros((2, 3), np.float64).astype(int))
        assert len(runs) == 6

    def test_are_shared_by_copies(self):
        model, runs = self.traced()
        model.Predict(np.zeros((2, 3)))
        model.Clone().Predict(np.zeros((2, 3)))
        model.WithParameters(np.zeros(8)).Predict(np.zeros((2, 3)))
        assert len(runs) == 2

    def test_of_an_apply_of_ones_own_follow_what_it_reads(self):
        """A change of an attribute, or of a copy's, left the predictions as they were."""

        class Scaled(FunctionModel):
            scale, traces = 1.0, 0

            def apply(self, parameters, x):
                Scaled.traces += 1
                return super().apply(parameters, x) * self.scale

        model, x, y = Scaled(affine, parameters()), rng().standard_normal((2, 3)), np.zeros((2, 2))
        plain, slope = model.Predict(x), model.ComputeGradients(x, y)
        copied, twin = model.Clone(), copy.copy(model)
        model.scale, copied.scale, twin.scale = 2.0, 3.0, 4.0
        for other in (model, copied, twin, model):
            np.testing.assert_allclose(other.Predict(x), other.scale * plain)
            np.testing.assert_allclose(other.ComputeGradients(x, y), other.scale**2 * slope)
        traces = Scaled.traces
        for _ in range(3):
            model.Train(x, y)
            model.Predict(x)
        # For the noise of a training step, of which this was the first.
        assert Scaled.traces == traces + 1

    def test_are_kept_in_bounded_number_the_longest_unused_going_first(self):
        model, runs = self.traced()
        for n in range(1, 40):
            model.Predict(np.zeros((1, 3)))
            model.Predict(np.zeros((n, 3)))
            assert len(model._programs) <= 8
        assert runs.count((1, 3)) == 2

    def test_of_a_loss_that_is_gone_are_not_taken_for_anothers(self):
        class Scaled(LossFunctionBase):
            def __init__(self, factor):
                self.factor = factor

            def formula(self, predicted, actual):
                return self.factor * np.mean(predicted - actual)

        model, x, y = model_on("numpy"), np.ones((1, 3)), np.zeros((1, 2))
        for factor in range(1, 30):
            gradient = model.ComputeGradients(x, y, Scaled(float(factor)))
            assert gradient[-1] == factor / 2

    def test_let_go_of_their_losses_in_the_end(self):
        model, x, y = model_on("numpy"), np.ones((1, 3)), np.zeros((1, 2))
        loss = MeanSquaredErrorLoss()
        gone = weakref.ref(loss)
        model.ComputeGradients(x, y, loss)
        del loss
        for n in range(2, 20):
            model.Predict(np.zeros((n, 3)))
        gc.collect()
        assert gone() is None

    def test_take_losses_that_cannot_be_hashed(self):
        @dataclass
        class Weighted(LossFunctionBase):
            weight: float

            def formula(self, predicted, actual):
                return self.weight * np.mean(predicted - actual)

        assert Weighted.__hash__ is None
        assert model_on("numpy").ComputeGradients(np.ones((1, 3)), np.zeros((1, 2)), Weighted(2.0))[-1] == 1.0

    @pytest.mark.slow
    def test_serve_threads_at_once(self):
        model, p = model_on("numpy"), parameters()
        wrong, done = [], []
        barrier = threading.Barrier(4)

        def ask(seed):
            barrier.wait()
            for i in range(60):
                x = rng(seed * 1000 + i).standard_normal((1 + i % 12, 3))
                y = model.Predict(x)
                gradient = model.ComputeGradients(x, y)
                if not np.allclose(y, x @ p["w"] + p["b"], rtol=1e-12) or gradient.any():
                    wrong.append(x)
            done.append(seed)

        threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(done) == [0, 1, 2, 3]
        assert not wrong


class TestMetadata:
    def test_properties(self):
        metadata = ModelMetadata(Name="m")
        metadata.SetProperty("k", None)
        assert metadata.Properties == {"k": None}
        assert metadata.RemoveProperty("k") is True
        assert metadata.RemoveProperty("k") is False

    def test_of_two_models_are_apart(self):
        one, two = ModelMetadata(), ModelMetadata()
        one.SetProperty("k", 1)
        one.AdditionalInfo["k"] = 1
        one.FeatureImportance["k"] = np.float64(1)
        assert (two.Properties, two.AdditionalInfo, two.FeatureImportance) == ({}, {}, {})
        assert (two.Name, two.Version, two.TrainingDate, two.FeatureCount) == ("", "1.0", None, 0)
