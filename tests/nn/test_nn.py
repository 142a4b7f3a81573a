"""Layers against explicit formulas, on every backend: shapes, names, initial values and every refusal."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from layer_calls import applied, rng, started
from numpy.lib.stride_tricks import sliding_window_view

from aidotnet_py import ArgumentException, ArgumentOutOfRangeException, NeuralNetworkModel
from aidotnet_py.autodiff import grad
from aidotnet_py.nn import (
    AveragePool2D,
    BatchNorm,
    Conv2D,
    Dense,
    Flatten,
    GlobalAveragePool2D,
    GroupNorm,
    Layer,
    LayerNorm,
    LeakyReLU,
    MaxPool2D,
    ReLU,
    Residual,
    Sequential,
    Sigmoid,
    Tanh,
    conv4,
    mlp,
    resnet12,
    resnet18,
)
from aidotnet_py.nn.layer import he_normal, parts, shape_of_examples
from aidotnet_py.testing import check_derivatives

# Explicit formulas, written with loops and NumPy alone.


def convolved(x, weight, bias, stride, margins, groups):
    (top, bottom), (left, right) = margins
    x = np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)))
    inner, filters = weight.shape[2], weight.shape[3]
    images = []
    for image in x:
        maps = []
        for f in range(filters):
            first = f // (filters // groups) * inner
            windows = sliding_window_view(image[:, :, first : first + inner], weight.shape[:2], (0, 1))
            total = np.einsum("ijckl,klc->ij", windows, weight[:, :, :, f])
            maps.append(total[:: stride[0], :: stride[1]] + bias[f])
        images.append(np.stack(maps, axis=-1))
    return np.stack(images)


def pooled(x, size, reduce):
    n, height, width, channels = x.shape
    rows, columns = height // size, width // size
    y = np.empty((n, rows, columns, channels))
    for i, j in itertools.product(range(rows), range(columns)):
        y[:, i, j] = reduce(x[:, i * size : (i + 1) * size, j * size : (j + 1) * size], axis=(1, 2))
    return y


def normalised(x, parameters, axes):
    mean, variance = x.mean(axis=axes, keepdims=True), x.var(axis=axes, keepdims=True)
    return (x - mean) / np.sqrt(variance + 1e-5) * parameters["scale"] + parameters["shift"]


class TestDense:
    def test_is_x_w_plus_b(self, backend):
        layer, x = Dense(3), rng().standard_normal((5, 4))
        parameters, output = started(layer, (4,))
        assert output == (3,)
        assert {k: v.shape for k, v in parameters.items()} == {"weight": (4, 3), "bias": (3,)}
        expected = x @ parameters["weight"] + parameters["bias"]
        np.testing.assert_allclose(applied(backend, layer, parameters, x), expected, rtol=1e-13)

    def test_without_bias(self, backend):
        layer = Dense(3, bias=False)
        parameters, _ = layer.initialize(rng(), (4,))
        assert list(parameters) == ["weight"]
        x = rng().standard_normal((5, 4))
        np.testing.assert_allclose(applied(backend, layer, parameters, x), x @ parameters["weight"], rtol=1e-13)

    @pytest.mark.parametrize(
        ("shape", "shown"), [((28, 28, 1), r"\(n, 28, 28, 1\)"), ((), r"\(n,\)"), ((2, 3), r"\(n, 2, 3\)")]
    )
    def test_refuses_what_are_no_rows(self, shape, shown):
        with pytest.raises(
            ArgumentException, match=rf"inputs of Dense must be \(n, features\), got {shown}; put Flatten"
        ):
            Dense(3).initialize(rng(), shape)

    @pytest.mark.parametrize("units", [0, -1, 2.5])
    def test_refuses_no_units(self, units):
        with pytest.raises(
            ArgumentOutOfRangeException, match=f"units must be a whole number of at least 1, got {units}"
        ):
            Dense(units)


class TestConv2D:
    @pytest.mark.parametrize(
        ("options", "margins", "output"),
        [
            ({}, ((1, 1), (1, 1)), (7, 6, 4)),
            ({"padding": "valid"}, ((0, 0), (0, 0)), (5, 4, 4)),
            # TensorFlow's "same": ceil(n / stride) outputs, an odd margin below and to the right.
            ({"stride": 2}, ((1, 1), (0, 1)), (4, 3, 4)),
            ({"stride": 2, "padding": 1}, ((1, 1), (1, 1)), (4, 3, 4)),
            ({"stride": (2, 1), "padding": ((0, 2), (1, 0))}, ((0, 2), (1, 0)), (4, 5, 4)),
            ({"groups": 2}, ((1, 1), (1, 1)), (7, 6, 4)),
            ({"kernel": (2, 1), "padding": "valid"}, ((0, 0), (0, 0)), (6, 6, 4)),
            ({"kernel": [2, 1], "padding": "valid"}, ((0, 0), (0, 0)), (6, 6, 4)),
            ({"bias": False}, ((1, 1), (1, 1)), (7, 6, 4)),
        ],
    )
    def test_is_a_correlation(self, backend, options, margins, output):
        layer, x = Conv2D(4, **options), rng().standard_normal((2, 7, 6, 2))
        parameters, shape = started(layer, (7, 6, 2))
        assert shape == output
        kernel = options.get("kernel", (3, 3))
        assert parameters["weight"].shape == (*kernel, 2 // options.get("groups", 1), 4)
        assert ("bias" in parameters) == options.get("bias", True)
        stride = options.get("stride", 1)
        stride = stride if isinstance(stride, tuple) else (stride, stride)
        bias = parameters.get("bias", np.zeros(4))
        expected = convolved(x, parameters["weight"], bias, stride, margins, options.get("groups", 1))
        np.testing.assert_allclose(applied(backend, layer, parameters, x), expected, atol=1e-13)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"filters": 0}, "filters must be a whole number of at least 1, got 0"),
            ({"filters": 2, "kernel": 0}, "kernel must be a whole number of at least 1, got 0"),
            ({"filters": 2, "kernel": (3, 0)}, "kernel must be a whole number of at least 1, got 0"),
            ({"filters": 2, "kernel": (3,)}, r"kernel must be a whole number of at least 1, got \(3,\)"),
            ({"filters": 2, "kernel": 3.0}, r"kernel must be a whole number of at least 1, got 3\.0"),
            ({"filters": 2, "groups": 0}, "groups must be a whole number of at least 1, got 0"),
        ],
    )
    def test_refuses_counts_below_one(self, options, message):
        with pytest.raises(ArgumentOutOfRangeException, match=message):
            Conv2D(**options)

    @pytest.mark.parametrize("groups", [2, 3])
    def test_refuses_groups_that_do_not_divide(self, groups):
        with pytest.raises(ArgumentException, match=f"groups must divide 3 channels and 4 filters, got {groups}"):
            Conv2D(4, groups=groups).initialize(rng(), (5, 5, 3))

    @pytest.mark.parametrize("layer", [Conv2D, Dense])
    def test_refuses_a_bias_that_is_neither_there_nor_not(self, layer):
        with pytest.raises(ArgumentException, match="bias must be True or False, got 'no'"):
            layer(4, bias="no")

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"padding": (1, 1)}, r"padding must be .*, got \(1, 1\)"),
            ({"stride": 0}, "stride must be an int or a pair of ints of at least 1, got 0"),
            (
                {"padding": "full"},
                r"padding must be 'same', 'valid', an int or \(\(top, bottom\), \(left, right\)\), got 'full'",
            ),
            ({"padding": -1}, r"padding must be at least 0, got \(\(-1, -1\), \(-1, -1\)\)"),
            (
                {"kernel": 9, "padding": "valid"},
                r"window must be no larger than the \(padded\) image of \(5, 5\), got \(9, 9\)",
            ),
        ],
    )
    def test_refuses_geometry_when_it_meets_its_images(self, options, message):
        with pytest.raises(ArgumentException, match=message):
            Conv2D(4, **options).initialize(rng(), (5, 5, 3))


@pytest.mark.parametrize(("layer", "shape"), [(Dense(2), (0,)), (Conv2D(2), (4, 4, 0))])
def test_weights_need_something_to_multiply(layer, shape):
    with pytest.raises(
        ArgumentException, match=r"inputs must have at least one number for weights to multiply, got .*0"
    ):
        layer.initialize(rng(), shape)


IMAGE_LAYERS = [Conv2D(2), MaxPool2D(), AveragePool2D(), GlobalAveragePool2D()]


@pytest.mark.parametrize("layer", IMAGE_LAYERS, ids=lambda x: type(x).__name__)
@pytest.mark.parametrize("shape", [(784,), (28, 28), (1, 28, 28, 1)])
def test_layers_of_images_refuse_what_are_none(layer, shape):
    shown = shape_of_examples(shape).replace("(", r"\(").replace(")", r"\)")
    with pytest.raises(
        ArgumentException,
        match=rf"inputs of {type(layer).__name__} must be images \(n, height, width, channels\), got {shown}",
    ):
        layer.initialize(rng(), shape)


class TestPooling:
    @pytest.mark.parametrize(("layer", "reduce"), [(MaxPool2D, np.max), (AveragePool2D, np.mean)])
    @pytest.mark.parametrize("size", [1, 2, 3])
    def test_reduces_windows(self, backend, layer, reduce, size):
        x = rng().standard_normal((2, 7, 6, 3))
        expected = pooled(x, size, reduce)
        assert layer(size).initialize(rng(), (7, 6, 3)) == ({}, expected.shape[1:])
        np.testing.assert_allclose(applied(backend, layer(size), {}, x), expected, rtol=1e-13)

    def test_can_step_and_pad_otherwise(self, backend):
        x = rng().standard_normal((1, 4, 4, 1))
        layer = MaxPool2D(3, stride=2, padding="same")
        (shape,) = (layer.initialize(rng(), (4, 4, 1))[1],)
        y = applied(backend, layer, {}, x)
        assert shape == (2, 2, 1) == y.shape[1:]
        assert y[0, 1, 1, 0] == x[0, 2:, 2:, 0].max()

    def test_globally_is_the_mean_of_each_channel(self, backend):
        x = rng().standard_normal((2, 7, 6, 3))
        assert GlobalAveragePool2D().initialize(rng(), (7, 6, 3)) == ({}, (3,))
        np.testing.assert_allclose(applied(backend, GlobalAveragePool2D(), {}, x), x.mean(axis=(1, 2)), rtol=1e-12)


class TestNormalization:
    @pytest.mark.parametrize("shape", [(5,), (4, 3, 2)])
    def test_of_a_batch_is_by_channel(self, backend, shape):
        x = 3 + 2 * rng().standard_normal((6, *shape))
        parameters, output = started(BatchNorm(), shape)
        assert output == shape
        expected = normalised(x, parameters, tuple(range(x.ndim - 1)))
        np.testing.assert_allclose(applied(backend, BatchNorm(), parameters, x), expected, rtol=1e-10, atol=1e-12)

    @pytest.mark.parametrize("shape", [(5,), (4, 3, 2)])
    def test_of_a_layer_is_by_example(self, backend, shape):
        x = 3 + 2 * rng().standard_normal((6, *shape))
        parameters, output = started(LayerNorm(), shape)
        assert output == shape
        expected = normalised(x, parameters, (-1,))
        np.testing.assert_allclose(applied(backend, LayerNorm(), parameters, x), expected, rtol=1e-10, atol=1e-12)

    @pytest.mark.parametrize("layer", [BatchNorm, LayerNorm])
    def test_starts_at_scale_one_and_shift_zero(self, layer):
        parameters, _ = layer().initialize(rng(), (4, 3))
        assert {k: v.tolist() for k, v in parameters.items()} == {"scale": [1.0] * 3, "shift": [0.0] * 3}

    @pytest.mark.parametrize("layer", [BatchNorm, LayerNorm])
    def test_refuses_numbers_and_bad_epsilons(self, layer):
        with pytest.raises(
            ArgumentException, match=rf"inputs of {layer.__name__} must be \(n, …, channels\), got \(n,\)"
        ):
            layer().initialize(rng(), ())
        for epsilon in (0.0, -1e-5, float("nan")):
            with pytest.raises(
                ArgumentOutOfRangeException, match=f"epsilon must be a finite number above 0, got {epsilon}"
            ):
                layer(epsilon=epsilon)

    @pytest.mark.parametrize("layer", [BatchNorm, LayerNorm, partial(GroupNorm, 1)])
    def test_squares_beyond_half_precision(self, layer):
        """Those of GroupNorm were infinite, and its outputs 0."""
        x = np.array([[600.0, -600.0], [-600.0, 600.0]], np.float16)
        parameters = {"scale": np.ones(2, np.float16), "shift": np.zeros(2, np.float16)}
        found = layer(epsilon=1e-9).apply(parameters, x)
        assert found.dtype == np.float16
        np.testing.assert_array_equal(found, np.sign(x))
        # An epsilon below its least number too.
        np.testing.assert_array_equal(layer(epsilon=1e-9).apply(parameters, np.ones((2, 2), np.float16)), 0.0)

    @pytest.mark.parametrize("layer", [BatchNorm, LayerNorm, partial(GroupNorm, 1)])
    def test_epsilon_is_kept_as_a_plain_number(self, layer):
        """NumPy's float64 made the outputs of float32 inputs float64, and a fraction failed in the first pass."""
        x, plain = rng().standard_normal((4, 2)).astype(np.float32), layer(epsilon=0.125)
        parameters = {name: value.astype(np.float32) for name, value in started(plain, (2,))[0].items()}
        for statistics in ({}, {"mean": x[0], "variance": x[1] ** 2}):
            expected = plain.apply(parameters | statistics, x)
            for epsilon in (np.float64(0.125), np.float32(0.125), Fraction(1, 8)):
                found = layer(epsilon=epsilon).apply(parameters | statistics, x)
                assert found.dtype == np.float32
                np.testing.assert_array_equal(found, expected)


class TestActivations:
    @pytest.mark.parametrize(
        ("layer", "formula"),
        [
            (ReLU(), lambda x: np.maximum(x, 0)),
            (LeakyReLU(0.1), lambda x: np.where(x > 0, x, 0.1 * x)),
            (LeakyReLU(), lambda x: np.maximum(x, 0.01 * x)),
            (Tanh(), np.tanh),
            (Sigmoid(), lambda x: 1 / (1 + np.exp(-x))),
        ],
        ids=["ReLU", "LeakyReLU", "LeakyReLU-default", "Tanh", "Sigmoid"],
    )
    def test_apply_to_each_element(self, backend, layer, formula):
        x = 3 * rng().standard_normal((4, 2, 3))
        assert layer.initialize(rng(), (2, 3)) == ({}, (2, 3))
        np.testing.assert_allclose(applied(backend, layer, {}, x), formula(x), rtol=1e-14)

    def test_leaky_relu_has_the_slopes_of_pytorch(self):
        torch = pytest.importorskip("torch")
        x = np.array([-2.0, -1e-300, -0.0, 0.0, 1e-300, 3.0])
        leaf = torch.tensor(x, requires_grad=True)
        (torch.nn.functional.leaky_relu(leaf, 0.25) * torch.arange(1.0, 7.0)).sum().backward()
        slopes = grad(lambda x: np.sum(LeakyReLU(0.25).apply({}, x) * np.arange(1.0, 7.0)))(x)
        assert (slopes == leaf.grad.numpy()).all()
        check_derivatives(
            lambda x: LeakyReLU(0.25).apply({}, x), rng().standard_normal(5) + np.array([3, 3, -3, -3, -3])
        )

    @pytest.mark.parametrize("slope", [math.inf, "0.1", None])
    def test_leaky_relu_refuses_what_is_no_slope(self, slope):
        with pytest.raises(ArgumentOutOfRangeException, match="slope must be a finite number, got"):
            LeakyReLU(slope)


class TestFlatten:
    @pytest.mark.parametrize("shape", [(), (3,), (4, 3, 2)])
    def test_gives_rows_in_c_order(self, backend, shape):
        x = rng().standard_normal((5, *shape))
        assert Flatten().initialize(rng(), shape) == ({}, (x.reshape(5, -1).shape[1],))
        np.testing.assert_array_equal(applied(backend, Flatten(), {}, x), x.reshape(5, -1))


class TestNoExamples:
    @pytest.mark.parametrize(
        ("layer", "shape"),
        [
            (Flatten(), (4, 3, 2)),
            (GroupNorm(2), (4, 3, 2)),
            (GroupNorm(2), (4,)),
            (LayerNorm(), (4, 3, 2)),
            (Conv2D(4, 3, stride=2, groups=2), (4, 3, 2)),
            (MaxPool2D(2), (4, 3, 2)),
            (AveragePool2D(2, padding=1), (4, 3, 2)),
            (GlobalAveragePool2D(), (4, 3, 2)),
            (Residual(Dense(4)), (4,)),
            (LeakyReLU(), (4,)),
        ],
    )
    def test_have_no_outputs(self, backend, layer, shape):
        parameters, output = started(layer, shape)
        assert applied(backend, layer, parameters, np.zeros((0, *shape))).shape == (0, *output)

    def test_are_predicted_with_the_statistics_of_others(self):
        model = NeuralNetworkModel(conv4(3, filters=2), input_shape=(16, 16, 1), seed=0)
        held = model.with_statistics_of(rng().standard_normal((4, 16, 16, 1), np.float32))
        assert held.Predict(np.zeros((0, 16, 16, 1), np.float32)).shape == (0, 3)


class TestSequential:
    def test_names_parameters_by_place_and_layer(self):
        network = Sequential(Conv2D(2), BatchNorm(), ReLU(), Flatten(), Sequential(Dense(3), Tanh(), Dense(2)))
        parameters, shape = network.initialize(rng(), (4, 4, 1))
        assert shape == (2,)
        assert list(parameters) == [
            "0_conv2d.weight",
            "0_conv2d.bias",
            "1_batchnorm.scale",
            "1_batchnorm.shift",
            "4_sequential.0_dense.weight",
            "4_sequential.0_dense.bias",
            "4_sequential.2_dense.weight",
            "4_sequential.2_dense.bias",
        ]

    def test_keeps_its_tenth_layer_from_its_first(self, backend):
        # "1_dense" must not be taken for a prefix of "11_dense".
        network = Sequential(*(Dense(2) for _ in range(12)))
        parameters, _ = started(network, (2,))
        x = expected = rng().standard_normal((3, 2))
        for i in range(12):
            expected = expected @ parameters[f"{i}_dense.weight"] + parameters[f"{i}_dense.bias"]
        np.testing.assert_allclose(applied(backend, network, parameters, x), expected, rtol=1e-9)

    def test_gives_one_layer_used_twice_parameters_of_its_own_twice(self):
        layer = Dense(2)
        parameters, _ = Sequential(layer, layer).initialize(rng(), (2,))
        assert not np.array_equal(parameters["0_dense.weight"], parameters["1_dense.weight"])

    def test_refuses_nothing(self):
        with pytest.raises(ArgumentException, match="layers must hold at least one layer, got none"):
            Sequential()

    @pytest.mark.parametrize("wrong", [ReLU, None, np.tanh, [Dense(2)]])
    def test_refuses_what_is_no_layer(self, wrong):
        with pytest.raises(ArgumentException, match=r"layers\[1\] must be a Layer, such as ReLU\(\), got .+"):
            Sequential(Dense(2), wrong)

    def test_says_which_shape_a_layer_cannot_take(self):
        with pytest.raises(ArgumentException, match=r"inputs of Dense must be .*, got \(n, 4, 4, 2\)"):
            Sequential(Conv2D(2), Dense(3)).initialize(rng(), (4, 4, 1))


class TestResidual:
    def test_adds_its_input(self, backend):
        layer, x = Residual(Sequential(Dense(4), Tanh())), rng().standard_normal((3, 4))
        parameters, shape = started(layer, (4,))
        assert shape == (4,)
        assert list(parameters) == ["body.0_dense.weight", "body.0_dense.bias"]
        expected = x + np.tanh(x @ parameters["body.0_dense.weight"] + parameters["body.0_dense.bias"])
        np.testing.assert_allclose(applied(backend, layer, parameters, x), expected, rtol=1e-12)

    def test_adds_its_shortcut(self, backend):
        layer = Residual(Conv2D(4, 3, stride=2, bias=False), shortcut=Conv2D(4, 1, stride=2, bias=False))
        x = rng().standard_normal((2, 6, 6, 3))
        parameters, shape = started(layer, (6, 6, 3))
        assert shape == (3, 3, 4)
        assert list(parameters) == ["body.weight", "shortcut.weight"]
        body = applied(backend, layer.body, {"weight": parameters["body.weight"]}, x)
        around = np.einsum("nhwc,cf->nhwf", x[:, ::2, ::2], parameters["shortcut.weight"][0, 0])
        np.testing.assert_allclose(applied(backend, layer, parameters, x), body + around, atol=1e-13)

    @pytest.mark.parametrize(
        ("layer", "message"),
        [
            (Residual(Conv2D(4)), r"body and shortcut must have one output shape, got \(6, 6, 4\) and \(6, 6, 3\)"),
            (
                Residual(Conv2D(4, stride=2), Conv2D(4, 1)),
                r"body and shortcut must have one output shape, got \(3, 3, 4\) and \(6, 6, 4\)",
            ),
        ],
    )
    def test_refuses_paths_that_do_not_meet(self, layer, message):
        with pytest.raises(ArgumentException, match=message):
            layer.initialize(rng(), (6, 6, 3))

    @pytest.mark.parametrize("wrong", [3, ReLU, None])
    def test_refuses_what_is_no_layer(self, wrong):
        with pytest.raises(ArgumentException, match=r"body must be a Layer, such as Dense\(8\), got .+"):
            Residual(wrong)
        if wrong is not None:
            with pytest.raises(ArgumentException, match=r"shortcut must be a Layer, such as Dense\(8\), got .+"):
                Residual(ReLU(), wrong)


@pytest.mark.parametrize(
    "layer", [AveragePool2D(2), MaxPool2D(2), BatchNorm(), LayerNorm(), GlobalAveragePool2D(), ReLU()]
)
def test_images_of_bytes_have_their_values(layer):
    images = rng().integers(0, 256, (5, 4, 4, 2)).astype(np.uint8)
    model = NeuralNetworkModel(Sequential(layer, Flatten(), Dense(1)), input_shape=(4, 4, 2), dtype=np.float32, seed=0)
    found, expected = model.Predict(images), model.Predict(images.astype(np.float32))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


class TestNetworks:
    @pytest.mark.parametrize(
        ("reduction", "shape", "features"),
        [
            ("stride", (28, 28, 1), 2 * 2 * 64),
            ("pool", (28, 28, 1), 1 * 1 * 64),
            ("pool", (84, 84, 3), 5 * 5 * 64),
            ("stride", (84, 84, 3), 6 * 6 * 64),
        ],
    )
    def test_conv4_has_the_sizes_of_the_literature(self, reduction, shape, features):
        parameters, output = conv4(5, reduction=reduction).initialize(rng(), shape)
        assert output == (5,)
        head = [v for k, v in parameters.items() if k.endswith("dense.weight")]
        assert [v.shape for v in head] == [(features, 5)]
        count = 9 * 64 * (shape[2] + 3 * 64) + 4 * 2 * 64 + features * 5 + 5
        assert sum(v.size for v in parameters.values()) == count
        assert not any("conv2d.bias" in name for name in parameters)

    @pytest.mark.parametrize("reduction", ["stride", "pool"])
    def test_conv4_runs(self, backend, reduction):
        network = conv4(3, filters=2, reduction=reduction)
        parameters, _ = network.initialize(rng(), (16, 16, 1))
        assert applied(backend, network, parameters, rng().standard_normal((4, 16, 16, 1))).shape == (4, 3)

    def test_conv4_refuses_other_reductions(self):
        with pytest.raises(ArgumentException, match="reduction must be 'stride' or 'pool', got 'average'"):
            conv4(5, reduction="average")

    def test_conv4_refuses_images_that_its_pooling_uses_up(self):
        with pytest.raises(
            ArgumentException,
            match=r"15_maxpool2d cannot take \(n, 1, 1, 64\), which inputs \(n, 8, 8, 1\) have become there: "
            r"window must be no larger than the \(padded\) image of \(1, 1\), got \(2, 2\)",
        ):
            conv4(5, reduction="pool").initialize(rng(), (8, 8, 1))

    def test_mlp_is_dense_layers_with_relus_between(self, backend):
        network = mlp(4, 3, 1)
        parameters, output = started(network, (2,))
        assert output == (1,)
        assert [type(layer) for layer in network.layers.values()] == [Dense, ReLU, Dense, ReLU, Dense]
        x = hidden = rng().standard_normal((6, 2))
        for i in (0, 2, 4):
            hidden = hidden @ parameters[f"{i}_dense.weight"] + parameters[f"{i}_dense.bias"]
            hidden = hidden if i == 4 else np.maximum(hidden, 0)
        np.testing.assert_allclose(applied(backend, network, parameters, x), hidden, rtol=1e-12)

    def test_mlp_refuses_no_sizes(self):
        with pytest.raises(
            ArgumentException, match="units must hold the sizes of the layers, the outputs last, got none"
        ):
            mlp()


def cross_entropy(logits, labels):
    shifted = logits - np.max(logits, axis=-1, keepdims=True)
    chosen = np.take_along_axis(shifted, labels[:, None], axis=-1)[:, 0]
    return np.mean(np.log(np.sum(np.exp(shifted), axis=-1)) - chosen)


class TestResNet12:
    @pytest.mark.slow
    def test_has_the_sizes_of_the_paper(self):
        parameters, output = resnet12(64).initialize(rng(), (84, 84, 3))
        assert output == (64,)
        # Lee et al.'s embedding, by its modules in PyTorch, and the linear layer.
        assert sum(v.size for v in parameters.values()) == 12_424_320 + 640 * 64 + 64
        assert [v.shape[-1] for v in parameters.values() if v.ndim == 4] == [64] * 4 + [160] * 4 + [320] * 4 + [640] * 4

    def test_pools_images_after_each_block(self):
        shape, rows = (84, 84, 3), []
        for layer in resnet12(5, filters=(1, 1, 1, 1)).layers.values():
            _, shape = layer.initialize(rng(), shape)
            rows.append(shape[0])
        assert rows == [84, 84, 42, 42, 42, 21, 21, 21, 10, 10, 10, 5, 1, 5]

    @pytest.mark.numpy_first
    def test_runs(self, backend):
        network = resnet12(3, filters=(2, 3, 2, 3), norm="layer")
        parameters, _ = network.initialize(rng(), (16, 18, 3))
        assert applied(backend, network, parameters, rng().standard_normal((2, 16, 18, 3))).shape == (2, 3)

    @pytest.mark.parametrize("filters", [(64, 160, 320), 64, "wide", None])
    def test_refuses_other_numbers_of_blocks(self, filters):
        with pytest.raises(ArgumentException, match="filters must be the channels of four blocks, such as"):
            resnet12(5, filters=filters)


class TestResNet18:
    @pytest.mark.slow
    def test_has_the_sizes_of_the_paper(self):
        parameters, output = resnet18(1000).initialize(rng(), (224, 224, 3))
        assert output == (1000,)
        assert sum(v.size for v in parameters.values()) == 11_689_512
        widths = [v.shape[-1] for v in parameters.values() if v.ndim == 4]
        assert widths == [64] * 5 + [128] * 5 + [256] * 5 + [512] * 5
        assert [v.shape[:2] for v in parameters.values() if v.ndim == 4].count((1, 1)) == 3
        assert not any("conv2d.bias" in name for name in parameters)

    def test_halves_images_as_the_paper_does(self):
        shape, rows = (224, 224, 3), []
        for layer in resnet18(10, filters=1).layers.values():
            _, shape = layer.initialize(rng(), shape)
            rows.append(shape[0])
        assert rows == [112] * 3 + [56] * 5 + [28] * 4 + [14] * 4 + [7] * 4 + [8, 10]

    @pytest.mark.parametrize("options", [{"classes": 0}, {"classes": 5, "filters": 0}])
    def test_refuses_counts_below_one(self, options):
        with pytest.raises(ArgumentOutOfRangeException, match="must be a whole number of at least 1, got 0"):
            resnet18(**options)

    def test_filters_of_a_small_type_do_not_overflow(self):
        """Eight times 64 is 0 in uint8."""
        assert repr(resnet18(5, filters=np.uint8(64))) == repr(resnet18(5))

    @pytest.mark.numpy_first
    def test_runs(self, backend):
        network = resnet18(3, filters=2)
        parameters, _ = network.initialize(rng(), (32, 32, 3))
        assert applied(backend, network, parameters, rng().standard_normal((2, 32, 32, 3))).shape == (2, 3)

    def small(self):
        network = resnet18(3, filters=2)
        parameters, _ = started(network, (32, 32, 3))
        x, labels = rng(1).standard_normal((4, 32, 32, 3)), np.array([0, 2, 1, 1])
        return network, parameters, x, labels

    @pytest.mark.slow
    def test_gradient_is_the_slope_along_a_direction(self):
        network, parameters, x, labels = self.small()
        direction = {name: rng(2).standard_normal(value.shape) for name, value in parameters.items()}

        def loss(parameters):
            return cross_entropy(network.apply(parameters, x), labels)

        def along(step):
            return loss({name: value + step * direction[name] for name, value in parameters.items()})

        gradient = grad(loss)(parameters)
        slope = sum(np.vdot(gradient[name], direction[name]) for name in parameters)
        # Steps so short that no maximum moves to another element, as exact as their differences are then.
        assert (along(1e-7) - along(-1e-7)) / 2e-7 == pytest.approx(slope, rel=1e-5)

    @pytest.mark.slow
    def test_agrees_with_pytorch(self):
        torch = pytest.importorskip("torch")
        network, parameters, x, labels = self.small()
        leaves = {name: torch.tensor(value, requires_grad=True) for name, value in parameters.items()}
        logits = torch_resnet18(torch, leaves, torch.tensor(x).permute(0, 3, 1, 2))
        torch.nn.functional.cross_entropy(logits, torch.tensor(labels)).backward()
        np.testing.assert_allclose(network.apply(parameters, x), logits.detach().numpy(), rtol=1e-9, atol=1e-11)
        gradient = grad(lambda p: cross_entropy(network.apply(p, x), labels))(parameters)
        for name, leaf in leaves.items():
            np.testing.assert_allclose(gradient[name], leaf.grad.numpy(), rtol=1e-7, atol=1e-9, err_msg=name)


def torch_resnet18(torch, parameters, x):
    """The network in PyTorch's own operations, from parameters taken in their order."""
    functional, left = torch.nn.functional, iter(parameters.values())

    def convolved_and_normalised(x, stride):
        weight = next(left).permute(3, 2, 0, 1)
        x = functional.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)
        return functional.batch_norm(x, None, None, next(left), next(left), training=True)

    x = functional.max_pool2d(torch.relu(convolved_and_normalised(x, 2)), 3, 2, padding=1)
    for block in range(8):
        stride = 2 if block in (2, 4, 6) else 1
        y = convolved_and_normalised(torch.relu(convolved_and_normalised(x, stride)), 1)
        x = torch.relu(y + (x if stride == 1 else convolved_and_normalised(x, 2)))
    return x.mean(dim=(2, 3)) @ next(left) + next(left)


class TestInitialValues:
    @given(st.integers(0, 2**32))
    def test_of_a_seed_are_the_same_on_every_backend(self, seed):
        vectors = [
            model.backend.to_numpy(model.GetParameters())
            for model in (
                NeuralNetworkModel(mlp(3, 2), input_shape=(4,), seed=seed, backend=name) for name in ("numpy", "strict")
            )
        ]
        assert vectors[0].tobytes() == vectors[1].tobytes()

    def test_of_float32_are_those_of_float64_rounded(self):
        single, double = (
            NeuralNetworkModel(mlp(3, 2), input_shape=(4,), seed=1, dtype=dtype).GetParameters()
            for dtype in (np.float32, np.float64)
        )
        assert (single == double.astype(np.float32)).all()

    def test_of_other_seeds_differ(self):
        one, two = (NeuralNetworkModel(mlp(2), input_shape=(4,), seed=s).GetParameters() for s in (1, 2))
        assert not np.array_equal(one[:8], two[:8])

    @pytest.mark.parametrize(
        ("layer", "shape", "fan_in"),
        [
            (Dense(300), (400,), 400),
            (Conv2D(128, 3), (8, 8, 64), 9 * 64),
            (Conv2D(128, (1, 5), groups=4), (8, 8, 64), 5 * 16),
        ],
    )
    def test_have_he_scale(self, layer, shape, fan_in):
        parameters, _ = layer.initialize(rng(), shape)
        weight = parameters["weight"]
        # The variance of N normal numbers is off by √(2/N) of itself, one standard deviation; four are allowed.
        assert weight.var() == pytest.approx(2 / fan_in, rel=4 * np.sqrt(2 / weight.size))
        assert abs(weight.mean()) < 4 * np.sqrt(2 / fan_in / weight.size)
        assert not parameters["bias"].any()
        assert weight.dtype == np.float64

    def test_of_relu_networks_keep_the_scale_of_signals(self):
        network = mlp(*[512] * 8)
        parameters, _ = network.initialize(rng(), (512,))
        x = rng(1).standard_normal((64, 512))
        for i in range(0, 14, 2):
            x = np.maximum(x @ parameters[f"{i}_dense.weight"], 0)
        # E[relu(z)²] = var(z)/2, so each layer keeps the mean square; widths of 512 make it fluctuate by about 5 %.
        assert 0.5 < (x**2).mean() < 2.0

    def test_come_from_the_generator_alone(self):
        assert (he_normal(rng(), (2, 3), 8) == rng().standard_normal((2, 3)) * 0.5).all()


class TestHelpers:
    def test_parts_are_found_by_whole_names(self):
        parameters = {"a.b.w": 1, "a.w": 2, "ab.w": 3, "b.w": 4}
        assert parts(parameters, "a") == {"b.w": 1, "w": 2}

    def test_shapes_are_shown_with_the_axis_of_examples(self):
        assert [shape_of_examples(s) for s in ((), (3,), (28, 28, 1))] == ["(n,)", "(n, 3)", "(n, 28, 28, 1)"]


class TestOwnLayer:
    def test_needs_two_methods(self, backend):
        class Embedding(Layer):
            def __init__(self, words, width):
                self.words, self.width = words, width

            def initialize(self, generator, shape):
                return {"table": generator.standard_normal((self.words, self.width))}, (*shape, self.width)

            def apply(self, parameters, x):
                return np.take(parameters["table"], x, axis=0)

        network = Sequential(Embedding(10, 3), Flatten(), Dense(2))
        model = NeuralNetworkModel(network, input_shape=(4,), dtype=np.float64, seed=0, backend=backend)
        words = np.array([[1, 2, 3, 9], [0, 0, 5, 5]])
        raw, _ = network.initialize(np.random.default_rng(0), (4,))
        rows = raw["0_embedding.table"][words].reshape(2, -1)
        expected = rows @ raw["2_dense.weight"] + raw["2_dense.bias"]
        prediction = backend.to_numpy(model.Predict(backend.asarray(words)))
        np.testing.assert_allclose(prediction, expected, rtol=1e-12)
        gradient = backend.to_numpy(model.ComputeGradients(backend.asarray(words), backend.asarray(np.zeros((2, 2)))))
        unused = gradient[:30].reshape(10, 3)[[4, 6, 7, 8]]
        assert not unused.any()
        assert gradient[:30].reshape(10, 3)[[0, 1, 2, 3, 5, 9]].all()


@pytest.mark.parametrize(
    ("result", "message"),
    [
        ({"w": np.ones(3)}, r"the result of Mine.initialize must be \(parameters by name, shape of an output"),
        (None, "the result of Mine.initialize must be"),
        (((3,), {}), "the result of Mine.initialize must be"),
        (({}, 3), "the result of Mine.initialize must be"),
        (({}, (None, 3)), "the output shape of Mine.initialize must be a whole number"),
        (({}, ("3",)), "the output shape of Mine.initialize must be a whole number"),
    ],
)
def test_what_a_layer_initializes_is_checked(result: Any, message: str) -> None:
    methods = {"initialize": lambda self, generator, shape: result, "apply": lambda self, parameters, x: x}
    mine = type("Mine", (Layer,), methods)()
    for network in (mine, Sequential(mine, Dense(1)), Residual(mine), Residual(Dense(3), mine)):
        with pytest.raises(ArgumentException, match=message):
            NeuralNetworkModel(network, input_shape=(3,))


def test_methods_of_a_layer_are_checked_as_its_class_is_defined() -> None:
    with pytest.raises(TypeError, match=r"Mine.apply must take \(self, parameters, x\), got \(self, x\)"):
        type("Mine", (Layer,), {"initialize": lambda self, g, shape: ({}, shape), "apply": lambda self, x: x})
