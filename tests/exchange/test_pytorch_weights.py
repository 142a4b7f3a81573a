"""Weights of PyTorch's modules in our models and back: outputs and gradients are PyTorch's own."""

from __future__ import annotations

import copy

import numpy as np
import pytest

from aidotnet_py import ArgumentException, CrossEntropyLoss, FunctionModel, NeuralNetworkModel
from aidotnet_py.exchange import (
    METAOPTNET_RESNET12,
    TORCHVISION_RESNET18,
    load_state_dict,
    save_state_dict,
    state_dict,
)
from aidotnet_py.nn import (
    BatchNorm,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    GroupNorm,
    Layer,
    LayerNorm,
    LeakyReLU,
    MaxPool2D,
    ReLU,
    Residual,
    Sequential,
    Tanh,
    conv4,
    mlp,
    resnet12,
    resnet18,
)

torch = pytest.importorskip("torch")
from safetensors.torch import load_file, save_file  # noqa: E402
from torch import nn  # noqa: E402
from torch_networks import TorchResNet12, TorchResNet18, torch_conv4, torch_mlp  # noqa: E402

RESNET12 = (*METAOPTNET_RESNET12[:-1], "fc")
WIDTHS = (3, 4, 5, 6)

# Our network, the shape of its inputs, PyTorch's module, the names.
NETWORKS = {
    "mlp": (mlp(7, 6, 3), (5,), lambda: torch_mlp(5, 7, 6, 3), None),
    "conv4": (conv4(3, filters=4), (20, 24, 2), None, None),
    "conv4-pool": (conv4(3, filters=4, reduction="pool"), (32, 32, 3), None, None),
    "resnet12": (resnet12(3, filters=WIDTHS), (34, 32, 3), lambda: TorchResNet12(3, WIDTHS), RESNET12),
    "resnet18": (resnet18(3, filters=2), (64, 64, 3), lambda: TorchResNet18(3, 2), TORCHVISION_RESNET18),
    "flattened": (
        Sequential(Conv2D(4, 3, padding="valid"), Flatten(), BatchNorm(), LeakyReLU(0.2), LayerNorm(), Dense(3)),
        (5, 6, 2),
        lambda: nn.Sequential(
            nn.Conv2d(2, 4, 3), nn.Flatten(), nn.BatchNorm1d(48), nn.LeakyReLU(0.2), nn.LayerNorm(48), nn.Linear(48, 3)
        ),
        None,
    ),
    "groups": (
        Sequential(Conv2D(6, (3, 1), groups=2, padding=1), GroupNorm(3), Tanh(), Dropout(0.5), Flatten(), Dense(3)),
        (4, 5, 4),
        lambda: nn.Sequential(
            nn.Conv2d(4, 6, (3, 1), groups=2, padding=1), nn.GroupNorm(3, 6), nn.Tanh(), nn.Identity(), nn.Flatten(),
            nn.Linear(6 * 4 * 7, 3),
        ),
        None,
    ),
}  # fmt: skip


def torch_module(name):
    _, shape, make, _ = NETWORKS[name]
    if make is None:
        # A side is not a square here; the features are counted from a pass.
        reduction = "pool" if name == "conv4-pool" else "stride"
        module = torch_conv4(3, shape[2], shape[0], 4, reduction)
        with torch.no_grad():
            features = module[:-1](torch.zeros(2, shape[2], *shape[:2])).shape[1]
        module[-1] = nn.Linear(features, 3)
    else:
        module = make()
    module = module.double()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for key, tensor in module.state_dict().items():
            if tensor.is_floating_point():
                drawn = torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype)
                tensor.copy_(drawn.abs() + 0.5 if "running_var" in key else 0.3 * drawn)
    return module


def our_model(name, backend="numpy"):
    network, shape, _, _ = NETWORKS[name]
    return NeuralNetworkModel(
        network, input_shape=shape, dtype=np.float64, loss=CrossEntropyLoss(), seed=0, backend=backend
    )


def batch(name, count=6):
    shape = NETWORKS[name][1]
    x = np.random.default_rng(1).standard_normal((count, *shape))
    channels_first = x.transpose(0, 3, 1, 2) if len(shape) == 3 else x
    return x, torch.tensor(np.ascontiguousarray(channels_first)), np.arange(count) % 3


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n in ("conv4-pool", "resnet18"))) for n in NETWORKS]
)
class TestBothWays:
    def test_outputs_are_those_of_pytorch_in_eval(self, name):
        module, model = torch_module(name).eval(), our_model(name)
        x, tensor, _ = batch(name)
        load_state_dict(model, module.state_dict(), NETWORKS[name][3])
        np.testing.assert_allclose(model.Predict(x), module(tensor).detach().numpy(), rtol=1e-10, atol=1e-12)

    @pytest.mark.costly
    def test_gradients_by_batch_statistics_are_those_of_pytorch(self, name):
        module, model = torch_module(name).train(), our_model(name)
        x, tensor, labels = batch(name)
        held = {key: value for key, value in module.state_dict().items() if "running" not in key}
        load_state_dict(model, held, NETWORKS[name][3])
        nn.functional.cross_entropy(module(tensor), torch.tensor(labels)).backward()
        gradient = model.WithParameters(model.ComputeGradients(x, labels))
        ours = state_dict(gradient, NETWORKS[name][3])
        theirs = {key: value.grad.numpy() for key, value in module.named_parameters()}
        assert set(ours) == set(theirs)
        for key, value in theirs.items():
            np.testing.assert_allclose(ours[key], value, rtol=1e-7, atol=1e-9, err_msg=key)

    @pytest.mark.costly
    def test_goes_to_pytorch(self, name, tmp_path):
        names, model = NETWORKS[name][3], our_model(name)
        x, tensor, _ = batch(name)
        adapted = model.with_statistics_of(x)
        save_state_dict(adapted, tmp_path / "weights.safetensors", names)
        held, module = load_file(tmp_path / "weights.safetensors"), torch_module(name).eval()
        assert module.load_state_dict(held) == ([], [])
        np.testing.assert_allclose(adapted.Predict(x), module(tensor).detach().numpy(), rtol=1e-10, atol=1e-12)

    def test_a_dtype_that_numpy_lacks_is_named(self, name, tmp_path):
        low = {key: value.bfloat16() for key, value in torch_module(name).state_dict().items()}
        save_file(low, tmp_path / "weights.safetensors")
        with pytest.raises(
            ArgumentException, match="dtypes that NumPy has, got 'BF16'; convert them to float32 before"
        ):
            load_state_dict(our_model(name), tmp_path / "weights.safetensors", NETWORKS[name][3])

    def test_back_and_forth_is_exact(self, name, tmp_path):
        module, names = torch_module(name), NETWORKS[name][3]
        save_file(module.state_dict(), tmp_path / "weights.safetensors")
        model = our_model(name)
        load_state_dict(model, tmp_path / "weights.safetensors", names)
        returned = state_dict(model, names)
        held = {key: value for key, value in module.state_dict().items() if "num_batches" not in key}
        assert list(returned) == [key for key in held if key in returned]
        assert set(returned) == set(held)
        for key, value in held.items():
            assert (returned[key] == value.numpy()).all(), key
            assert returned[key].flags.c_contiguous


class TestSources:
    weights = {"0.weight": np.array([[1.0, 2.0]]), "0.bias": np.array([3.0])}  # noqa: RUF012

    def model(self, **options):
        return NeuralNetworkModel(mlp(1), input_shape=(2,), seed=0, **options)

    @pytest.mark.parametrize(
        "convert",
        [
            lambda a: a,
            lambda a: a.tolist(),
            torch.tensor,
            lambda a: torch.tensor(a, dtype=torch.float16),
            # The import takes a second or two.
            pytest.param(lambda a: pytest.importorskip("jax").numpy.asarray(a), marks=pytest.mark.slow),
            lambda a: nn.Parameter(torch.tensor(a)).detach(),
        ],
        ids=["numpy", "lists", "torch", "half", "jax", "detached"],
    )
    def test_of_any_library_are_read(self, convert, backend):
        model = self.model(backend=backend)
        load_state_dict(model, {name: convert(value) for name, value in self.weights.items()})
        x = backend.asarray(np.array([[1.0, 10.0]], np.float32))
        assert backend.to_numpy(model.Predict(x)).tolist() == [[24.0]]

    def test_that_require_gradients_are_refused(self):
        module, model = nn.Sequential(nn.Linear(2, 1)), self.model()
        with pytest.raises(ArgumentException, match=r"must not require gradients.*got a Parameter.*\.detach\(\)"):
            load_state_dict(model, dict(module.named_parameters()))

    def test_of_bfloat16_are_refused(self):
        held = {name: torch.tensor(value, dtype=torch.bfloat16) for name, value in self.weights.items()}
        with pytest.raises(ArgumentException, match=r"got a Tensor of dtype torch\.bfloat16.*convert it to float32"):
            load_state_dict(self.model(), held)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"0.bias": None}, r"got no '0\.bias'$"),
            ({"1.weight": np.zeros(2), "1.bias": np.zeros(1)}, r"got '1\.weight', '1\.bias' left over"),
            ({"0.weight": np.zeros((2, 1))}, r"got '0\.weight' of shape \(2, 1\) and not \(1, 2\)"),
            ({"0.bias": np.array([np.nan])}, r"got NaN or infinity in '0\.bias'"),
            ({"0.bias": np.array([1])}, r"got int64 in '0\.bias', which must be of finite floating numbers"),
            ({"0.bias": None, "0.weight": np.zeros(2)}, r"shape \(2,\) and not \(1, 2\); no '0\.bias'|no '0\.bias'"),
        ],
    )
    def test_that_differ_are_refused_and_nothing_changes(self, change, message):
        model = self.model()
        before = model.GetParameters()
        held = {name: value for name, value in {**self.weights, **change}.items() if value is not None}
        with pytest.raises(ArgumentException, match=message):
            load_state_dict(model, held)
        assert (model.GetParameters() == before).all()

    def test_of_half_of_the_running_statistics_are_refused(self):
        model = NeuralNetworkModel(BatchNorm(), input_shape=(2,))
        held = {"weight": np.ones(2), "bias": np.ones(2), "running_var": np.ones(2)}
        with pytest.raises(ArgumentException, match="got no 'running_mean'"):
            load_state_dict(model, held)

    def test_of_negative_variance_are_refused(self):
        model = NeuralNetworkModel(BatchNorm(), input_shape=(2,))
        held = {**dict.fromkeys(("weight", "bias", "running_mean"), np.ones(2)), "running_var": -np.ones(2)}
        with pytest.raises(ArgumentException, match="variances of at least 0"):
            load_state_dict(model, held)
        assert model.statistics == {}

    def test_without_running_statistics_take_those_of_before_away(self):
        model = NeuralNetworkModel(BatchNorm(), input_shape=(2,)).with_statistics_of(np.eye(2, dtype=np.float32))
        assert set(model.statistics) == {"mean", "variance"}
        load_state_dict(model, {"weight": np.ones(2), "bias": np.ones(2)})
        assert model.statistics == {}

    @pytest.mark.parametrize("source", [3, None, [np.zeros(2)]])
    def test_of_another_kind_are_refused(self, source):
        with pytest.raises(ArgumentException, match="source must be a path or a mapping of tensors"):
            load_state_dict(self.model(), source)

    def test_that_are_no_safetensors_are_refused(self, tmp_path):
        (tmp_path / "weights.pt").write_bytes(b"PK\x03\x04")
        with pytest.raises(ArgumentException, match=r"weights\.pt must be a safetensors file"):
            load_state_dict(self.model(), tmp_path / "weights.pt")
        with pytest.raises(FileNotFoundError):
            load_state_dict(self.model(), tmp_path / "none.safetensors")


class TestNames:
    def test_of_two_layers_are_two_unless_they_are_tied(self):
        model = NeuralNetworkModel(Sequential(Dense(4), Dense(4)), input_shape=(4,), seed=0)
        with pytest.raises(
            ArgumentException, match=r"names must give layers of different weights .*, got 'fc.weight' for"
        ):
            state_dict(model, names=("fc", "fc"))
        tied = state_dict(model, names=("one", "two"))
        load_state_dict(model, {f"fc.{part}": tied[f"one.{part}"] for part in ("weight", "bias")}, names=("fc", "fc"))
        assert set(state_dict(model, names=("fc", "fc"))) == {"fc.weight", "fc.bias"}
        with pytest.raises(ArgumentException, match=r"names\[.*\] must be a module's name or None, got 3"):
            state_dict(model, names=("fc", 3))

    def test_numbers_beyond_the_models_range_are_refused(self):
        model = NeuralNetworkModel(mlp(4, 1), input_shape=(2,), seed=0)
        before, given = model.GetParameters(), {k: v.astype(float) for k, v in state_dict(model).items()}
        given["0.weight"][0, 0] = 1e39
        with pytest.raises(
            ArgumentException, match=r"must hold numbers within .* of float32, got '0\.weight' beyond it"
        ):
            load_state_dict(model, given)
        np.testing.assert_array_equal(model.GetParameters(), before)

    def test_are_those_of_modules_in_sequence(self):
        network = Sequential(Residual(Sequential(Conv2D(2), ReLU())), Flatten(), Sequential(Dense(1, bias=False)))
        model = NeuralNetworkModel(network, input_shape=(2, 2, 2))
        assert list(state_dict(model)) == ["0.body.0.weight", "0.body.0.bias", "2.0.weight"]

    def test_can_be_given_by_layer(self):
        model = NeuralNetworkModel(mlp(3, 2), input_shape=(4,))
        names = {"0_dense": "encoder.hidden", "2_dense": "head"}
        assert list(state_dict(model, names)) == [
            "encoder.hidden.weight",
            "encoder.hidden.bias",
            "head.weight",
            "head.bias",
        ]

    def test_of_none_leave_a_layer_as_it_is(self):
        model = NeuralNetworkModel(resnet12(4, filters=WIDTHS), input_shape=(32, 32, 3), dtype=np.float64, seed=2)
        head = model.GetParameters()[-28:]
        held = TorchResNet12(9, WIDTHS).state_dict()
        load_state_dict(model, {k: v for k, v in held.items() if not k.startswith("fc.")}, METAOPTNET_RESNET12)
        assert (model.GetParameters()[-28:] == head).all()
        assert "layer4.0.downsample.1.running_var" in state_dict(model, METAOPTNET_RESNET12)
        assert len(model.statistics) == 32

    @pytest.mark.parametrize(
        ("names", "message"),
        [
            ("conv1", "names must be a mapping from layers to modules, or a sequence of modules, got 'conv1'"),
            (["a"], "names must have a module for each of the 2 layers with parameters, 0_dense, 2_dense, got 1"),
            ({"0_dense": "a", "3_dense": "b"}, "got no '2_dense'; an unknown '3_dense'"),
        ],
    )
    def test_of_other_layers_are_refused(self, names, message):
        model = NeuralNetworkModel(mlp(3, 2), input_shape=(4,))
        with pytest.raises(ArgumentException, match=message):
            state_dict(model, names)


class Scale(Layer):
    def initialize(self, generator, shape):
        return {"scale": np.ones(shape[-1])}, shape

    def apply(self, parameters, x):
        return x * parameters["scale"]


class TestLayers:
    @pytest.mark.parametrize(
        ("network", "message"),
        [
            (Sequential(Flatten(), Dense(2), Scale()), "layer 2_scale must be one of aidotnet_py.nn .* got a Scale"),
            (
                Sequential(Conv2D(2), Flatten(), GroupNorm(2), Dense(2)),
                "layer 2_groupnorm must not normalise flattened images, got a GroupNorm",
            ),
            (
                Sequential(Residual(Sequential(Flatten(), Dense(18)), shortcut=Flatten())),
                "body and shortcut of 0_residual must have features in one order",
            ),
        ],
    )
    def test_without_a_counterpart_are_named(self, network, message):
        model = NeuralNetworkModel(network, input_shape=(3, 3, 2))
        with pytest.raises(ArgumentException, match=message):
            state_dict(model)

    def test_models_of_functions_have_none(self):
        model = FunctionModel(lambda p, x: x @ p["w"], {"w": np.ones((2, 1))})
        with pytest.raises(ArgumentException, match="model must be a NeuralNetworkModel"):
            state_dict(model)

    def test_pooling_between_keeps_the_order(self):
        network = Sequential(Conv2D(3, 3), MaxPool2D(2), Flatten(), Dense(2))
        model = NeuralNetworkModel(network, input_shape=(6, 4, 1), dtype=np.float64, seed=1)
        module = nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(18, 2)).double()
        before = copy.deepcopy(module.state_dict())
        module.load_state_dict({name: torch.from_numpy(value) for name, value in state_dict(model).items()})
        assert not torch.equal(before["0.weight"], module[0].weight)
        x = np.random.default_rng(0).standard_normal((3, 6, 4, 1))
        ours = model.Predict(x)
        np.testing.assert_allclose(ours, module(torch.tensor(x.transpose(0, 3, 1, 2))).detach().numpy(), atol=1e-12)
