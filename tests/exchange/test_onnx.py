"""Exported graphs give our numbers to rounding, for any number of examples; what cannot be exported is named."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from aidotnet_py import (
    ArgumentException,
    CrossEntropyLoss,
    FunctionModel,
    MAMLAlgorithm,
    MAMLOptions,
    NeuralNetworkModel,
    losses,
    nn,
)
from aidotnet_py import autodiff as ad
from aidotnet_py.data import DigitsLoader
from aidotnet_py.exceptions import NotSupportedException
from aidotnet_py.exchange import export_onnx
from aidotnet_py.nn import (
    Dense,
    Layer,
    Sequential,
    conv4,
    mlp,
)

onnx = pytest.importorskip("onnx")
from exported_cases import CASES, FUNCTIONS, LAYERS, arrays, inputs, model_of  # noqa: E402
from onnx_sessions import exported, run_file, run_in_numpy  # noqa: E402

LOSSES = ["BinaryCrossEntropyLoss", "CrossEntropyLoss", "MeanSquaredErrorLoss"]
DTYPES = [pytest.param(np.float32, id="float32"), pytest.param(np.float64, id="float64")]


def test_every_public_layer_and_network_is_here():
    assert set(LAYERS) == {name for name in nn.__all__ if name != "Layer"}
    for name, own in LAYERS.items():
        assert all(name in repr(layer) for layer, _ in own if isinstance(getattr(nn, name), type)), name


def tolerance(dtype):
    return {"rtol": 2e-5, "atol": 2e-5} if dtype is np.float32 else {"rtol": 1e-11, "atol": 1e-12}


@pytest.mark.filterwarnings("ignore:model refuses a number of examples, 1,")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("layer", "shape"), CASES)
def test_layers_give_our_numbers_for_any_number_of_examples(layer, shape, dtype, tmp_path):
    model = model_of(layer, shape, dtype)
    path, graph = exported(model, tmp_path, inputs(shape, dtype, 1))
    for count in (2, 6, 11):
        x = inputs(shape, dtype, count)
        output, ours = run_file(path, x), model.apply(arrays(model), x)
        assert output.dtype == dtype
        exact = model.apply({k: v.astype(np.float64) for k, v in arrays(model).items()}, x.astype(np.float64))
        # No worse than we are, up to a factor for other orders of sums; and a few roundings where we are exact.
        scale = np.finfo(dtype).eps * max(1.0, abs(exact).max())
        assert abs(output - exact).max() <= 8 * abs(ours - exact).max() + 100 * scale
    assert {node.domain for node in graph.graph.node} == {""}


def test_every_public_loss_is_here():
    assert set(LOSSES) == {name for name in losses.__all__ if name.endswith("Loss")}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", LOSSES)
def test_losses_give_our_numbers(name, dtype, tmp_path):
    loss = getattr(losses, name)()

    def formula(p, x):
        return loss.formula(x[:, :3] * p["scale"], x[:, 3:] > 0) if name.startswith("B") else own(p, x)

    def own(p, x):
        targets = ad.softmax(x[:, 3:]) if name.startswith("C") else x[:, 3:]
        return loss.formula(x[:, :3] * p["scale"], targets)

    model = FunctionModel(formula, {"scale": np.ones(3, dtype)})
    path, _ = exported(model, tmp_path, inputs((6,), dtype))
    for count in (1, 6, 11):
        x = 3 * inputs((6,), dtype, count)
        output = run_file(path, x)
        assert output.shape == ()
        np.testing.assert_allclose(output, model.Predict(x), **tolerance(dtype))


@pytest.mark.filterwarnings("ignore:model refuses a number of examples, 1,")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_give_our_numbers(name, dtype, tmp_path):
    model = FunctionModel(lambda p, x: FUNCTIONS[name](x * p["one"]), {"one": np.ones(1, dtype)})
    path, _ = exported(model, tmp_path, inputs((4, 3), dtype))
    for count in (3, 7):
        x = inputs((4, 3), dtype, count)
        expected, output = model.Predict(x), run_file(path, x)
        assert output.shape == expected.shape
        np.testing.assert_allclose(output, expected, **tolerance(dtype))


OF_FLOAT32 = {
    "arctan": np.arctan,
    "cosh": np.cosh,
    "erf": ad.erf,
    "sinh": np.sinh,
    "tan": lambda x: np.tan(x / 4),
}


@pytest.mark.parametrize("name", OF_FLOAT32)
def test_functions_that_onnxruntime_has_in_float32_alone(name, tmp_path):
    model = FunctionModel(lambda p, x: OF_FLOAT32[name](x * p["one"]), {"one": np.ones(1, np.float32)})
    x = inputs((4, 3), np.float32)
    path, _ = exported(model, tmp_path, x)
    np.testing.assert_allclose(run_file(path, x), model.Predict(x), **tolerance(np.float32))
    double = FunctionModel(model.settings()["function"], {"one": np.ones(1)})
    with pytest.raises(NotSupportedException, match=f"must be of float32 to export {name}, got float64"):
        export_onnx(double, tmp_path / "double.onnx", x.astype(np.float64))


def test_log1p_and_expm1_keep_small_numbers(tmp_path):
    model = FunctionModel(lambda p, x: np.log1p(x * p["one"]) + np.expm1(x), {"one": np.ones(1)})
    path, _ = exported(model, tmp_path, np.ones((1, 3)))
    x = np.array([[1e-12, -1e-9, 1e-300], [0.0, 1e-17, -0.5], [30.0, 1.0, -1e-3]])
    np.testing.assert_allclose(run_file(path, x), model.Predict(x), rtol=1e-14)


def test_log1p_has_its_limits(tmp_path):
    model = FunctionModel(lambda p, x: np.log1p(x * p["one"]), {"one": np.ones(1)})
    path, _ = exported(model, tmp_path, np.ones((1, 6)))
    x = np.array([[np.inf, -np.inf, -1.0, -2.0, np.nan, 1e308]])
    with np.errstate(all="ignore"):
        np.testing.assert_allclose(run_file(path, x), model.Predict(x))


def test_expm1_has_its_limits(tmp_path):
    model = FunctionModel(lambda p, x: np.expm1(x * p["one"]), {"one": np.ones(1)})
    path, _ = exported(model, tmp_path, np.ones((1, 3)))
    assert run_file(path, np.array([[-800.0, np.inf, -np.inf]])).tolist() == [[-1.0, np.inf, -1.0]]


class TestTheGraph:
    def test_keeps_the_names_of_parameters(self, tmp_path):
        model = NeuralNetworkModel(mlp(3, 2), input_shape=(4,), seed=0)
        model.GetModelMetadata().SetProperty("classes", ["cat", "dog"])
        model.GetModelMetadata().SetProperty("mean", np.float32(0.5))
        _, graph = exported(model, tmp_path)
        held = {i.name: onnx.numpy_helper.to_array(i) for i in graph.graph.initializer if not i.name.startswith("/")}
        assert list(held) == list(model.parameter_shapes)
        for name, value in arrays(model).items():
            assert (held[name] == value).all()
        (taken,), (given,) = graph.graph.input, graph.graph.output
        assert (taken.name, given.name) == ("input", "output")
        assert [d.dim_param or d.dim_value for d in taken.type.tensor_type.shape.dim] == ["batch", 4]
        assert [d.dim_param or d.dim_value for d in given.type.tensor_type.shape.dim] == ["batch", 2]
        assert {p.key: p.value for p in graph.metadata_props} == {"properties": '{"classes": ["cat", "dog"]}'}
        assert graph.producer_name == "aidotnet_py"

    def test_repeats_nothing_that_operators_repeat(self, tmp_path):
        _, graph = exported(NeuralNetworkModel(conv4(5, filters=4, norm="layer"), input_shape=(8, 8, 1)), tmp_path)
        assert "Expand" not in [node.op_type for node in graph.graph.node]

    def test_takes_integers(self, tmp_path):
        table = np.random.default_rng(0).standard_normal((10, 3))
        model = FunctionModel(lambda p, x: np.take(p["table"], x, axis=0).sum(axis=1), {"table": table})
        words = np.array([[1, 2], [3, -1], [9, 0]], np.int32)
        path, _ = exported(model, tmp_path, words[:1])
        np.testing.assert_allclose(run_file(path, words), model.Predict(words), rtol=1e-14)

    @pytest.mark.numpy_first
    def test_of_another_backend_is_the_same(self, backend, tmp_path):
        model = NeuralNetworkModel(conv4(5, filters=4, norm="layer"), input_shape=(8, 8, 1), seed=0)
        assert exported(model.To(backend), tmp_path)[1] == exported(model, tmp_path)[1]


class TestAdaptedModels:
    def adapted(self):
        model = NeuralNetworkModel(conv4(5, filters=4), input_shape=(8, 8, 1), loss=CrossEntropyLoss(), seed=0)
        learner = MAMLAlgorithm(MAMLOptions(model, DataLoader=DigitsLoader(seed=0), AdaptationSteps=3))
        task = DigitsLoader(split="test", seed=1).GetNextTask()
        return learner, learner.Adapt(task), task.QueryInput

    def test_predict_as_ours_one_at_a_time_too(self, tmp_path):
        _, adapted, x = self.adapted()
        path, _ = exported(adapted, tmp_path)
        expected = adapted.Predict(x)
        np.testing.assert_allclose(run_file(path, x), expected, rtol=2e-4, atol=2e-5)
        np.testing.assert_allclose(run_file(path, x[:1]), expected[:1], rtol=2e-4, atol=2e-5)

    def test_predict_with_numpy_alone(self, tmp_path):
        _, adapted, x = self.adapted()
        path, _ = exported(adapted, tmp_path)
        np.testing.assert_allclose(run_in_numpy(path, x), adapted.Predict(x), rtol=2e-4, atol=2e-5)

    @pytest.mark.slow
    def test_predict_in_a_process_without_this_package(self, tmp_path):
        _, adapted, x = self.adapted()
        path, _ = exported(adapted, tmp_path)
        np.save(tmp_path / "x.npy", x)
        script = (
            "import sys, numpy as np, onnxruntime as rt\n"
            f"session = rt.InferenceSession({str(path)!r}, providers=['CPUExecutionProvider'])\n"
            "np.save('y.npy', session.run(None, {'input': np.load('x.npy')})[0])\n"
            "assert not [name for name in sys.modules if name.startswith(('aidotnet_py', 'torch', 'jax'))]\n"
        )
        subprocess.run([sys.executable, "-c", script], check=True, cwd=tmp_path)
        np.testing.assert_allclose(np.load(tmp_path / "y.npy"), adapted.Predict(x), rtol=2e-4, atol=2e-5)

    def test_learners_say_where_their_model_is(self, tmp_path):
        learner, _, _ = self.adapted()
        with pytest.raises(ArgumentException, match=r"model must be a FunctionModel .*use its BaseModel"):
            export_onnx(learner, tmp_path / "model.onnx")


class TestRefusals:
    def refuse(self, function, match, tmp_path, error=ArgumentException, **options):
        model = FunctionModel(function, options.get("parameters", {"one": np.ones(1)}))
        with pytest.raises(error, match=match):
            export_onnx(model, tmp_path / "model.onnx", options.get("example", np.ones((2, 3))))
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize(
        ("function", "name"),
        [
            (lambda p, x: np.arctan2(x, p["one"]), "arctan2"),
            (lambda p, x: np.linalg.solve(np.eye(3), x.T * p["one"]), "solve"),
        ],
    )
    def test_operations_without_an_operator_are_named(self, function, name, tmp_path):
        message = f"must consist of operations that ONNX has to be exported, got {name}; use export_numpy"
        self.refuse(function, message, tmp_path, NotSupportedException)

    @pytest.mark.parametrize(
        "function",
        [
            lambda p, x: x * p["one"] if x.shape[0] < 500 else x * p["one"] + 1.0,
            # All sizes of the trace have the same operations, but others have not.
            lambda p, x: (x - np.mean(x, axis=0) if len(x) > 1 else x) * p["one"],
            lambda p, x: (x if len(x) < 4 else x - 1.0) * p["one"],
            lambda p, x: x * p["one"] * (1.0 if len(x) < 20 else 2.0),
            lambda p, x: x * p["one"] * min(len(x), 7),
            lambda p, x: x * p["one"] * (len(x) % 2),
            lambda p, x: x * p["one"] * (2.0 if len(x) == 6 else 1.0),
            lambda p, x: x[:2000] * p["one"],
        ],
    )
    def test_other_work_for_other_sizes_is_refused(self, function, tmp_path):
        self.refuse(function, "must run the same operations for every number of examples", tmp_path)

    def test_the_size_of_the_example_is_tried_too(self, tmp_path):
        def function(p, x):
            return x * p["one"] * (3.0 if len(x) == 5 else 2.0)

        self.refuse(function, "got others for 5", tmp_path, example=np.ones((5, 3)))

    def test_a_size_that_the_function_refuses_needs_no_graph(self, tmp_path):
        def function(p, x):
            if len(x) < 3:
                raise ValueError("few examples")
            return (x - np.mean(x, axis=0)) * p["one"]

        model = FunctionModel(function, {"one": np.ones(1)})
        with pytest.warns(UserWarning, match="model refuses a number of examples, 1, 2, for which"):
            export_onnx(model, tmp_path / "model.onnx", example=np.ones((3, 3)))

    def test_a_batch_norm_of_one_example_is_told(self, tmp_path):
        model = NeuralNetworkModel(nn.Sequential(nn.Dense(4), nn.BatchNorm()), input_shape=(3,))
        with pytest.warns(UserWarning, match=r"model refuses a number of examples, 1, .*with_statistics_of"):
            export_onnx(model, tmp_path / "model.onnx")
        export_onnx(model.with_statistics_of(inputs((3,), np.float32, 5)), tmp_path / "model.onnx")

    @pytest.mark.parametrize(
        ("function", "what"),
        [
            (
                lambda p, x: x * p["one"] * float(x.shape[0] ** 2),
                "a number in multiply must be linear in the number of examples",
            ),
            (
                lambda p, x: (x * p["one"])[: x.shape[0] // 2],
                "the shape of slice must be linear in the number of examples",
            ),
            (
                lambda p, x: x * p["one"] + np.arange(float(x.shape[0]))[:, None],
                "arrays .* must not depend on",
            ),
            (
                lambda p, x: np.sort(x * p["one"], axis=1),
                "arrays .* must not depend on .* np.sort, np.take_along_axis and selections by computed indices make",
            ),
        ],
    )
    def test_sizes_off_a_line_are_refused(self, function, what, tmp_path):
        self.refuse(function, what, tmp_path)

    @pytest.mark.parametrize("name", ["", "input", "output", "/add"])
    def test_reserved_names_are_refused(self, name, tmp_path):
        self.refuse(lambda p, x: x * p[name], f"got '{name}'", tmp_path, parameters={name: np.ones(1)})

    def test_half_precision_is_refused(self, tmp_path):
        self.refuse(
            lambda p, x: x * p["one"], "of float32 or float64", tmp_path, parameters={"one": np.ones(1, np.float16)}
        )

    def test_a_missing_example_is_refused(self, tmp_path):
        self.refuse(lambda p, x: x * p["one"], "example must be given for a FunctionModel", tmp_path, example=None)

    def test_a_scalar_example_is_refused(self, tmp_path):
        self.refuse(lambda p, x: x * p["one"], "example must have an axis of examples", tmp_path, example=np.array(1.0))

    def test_an_example_of_another_shape_is_refused(self, tmp_path):
        model = NeuralNetworkModel(mlp(2), input_shape=(3,))
        with pytest.raises(ArgumentException, match=r"example must have shape \(n, 3\), got \(2, 4\)"):
            export_onnx(model, tmp_path / "model.onnx", np.ones((2, 4), np.float32))

    def test_a_missing_package_names_the_remedy(self, tmp_path, monkeypatch):
        monkeypatch.setitem(sys.modules, "onnx", None)
        with pytest.raises(ImportError, match=r'export_onnx needs onnx: pip install "aidotnet-py\[onnx\]"'):
            export_onnx(NeuralNetworkModel(mlp(2), input_shape=(3,)), tmp_path / "model.onnx")


class Doubling(Layer):
    def initialize(self, generator, shape):
        return {"factor": np.full(1, 2.0)}, shape

    def apply(self, parameters, x):
        return x * parameters["factor"]


def test_layers_of_ones_own_are_exported(tmp_path):
    model = NeuralNetworkModel(Sequential(Doubling(), Dense(1)), input_shape=(3,), seed=0)
    path, _ = exported(model, tmp_path)
    x = inputs((3,), np.float32)
    np.testing.assert_allclose(run_file(path, x), model.Predict(x), rtol=1e-5, atol=1e-6)


def test_an_opset_without_an_ir_version_is_not_used(tmp_path, monkeypatch):
    """As in onnx 1.22.0, whose table lacks its own opset."""
    table = [row for row in onnx.helper.VERSION_TABLE if row[2] <= 23]
    monkeypatch.setattr(onnx.helper, "VERSION_TABLE", table)
    _, graph = exported(NeuralNetworkModel(mlp(2), input_shape=(3,)), tmp_path)
    assert (graph.opset_import[0].version, graph.ir_version) == (23, 11)
