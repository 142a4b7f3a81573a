"""Exported modules give our numbers with NumPy alone, for any number of examples; what cannot be exported is named."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from itertools import count

import numpy as np
import pytest
from exported_cases import CASES, FUNCTIONS, arrays, inputs, model_of

from aidotnet_py import (
    ArgumentException,
    CrossEntropyLoss,
    FunctionModel,
    MAMLAlgorithm,
    MAMLOptions,
    NeuralNetworkModel,
    ProtoNetsAlgorithm,
    ProtoNetsOptions,
)
from aidotnet_py import autodiff as ad
from aidotnet_py.autodiff import extend
from aidotnet_py.autodiff.primitive import _BY_NAME
from aidotnet_py.data import DigitsLoader
from aidotnet_py.exceptions import NotSupportedException
from aidotnet_py.exchange import export_numpy, module_runtime
from aidotnet_py.nn import BatchNorm, Conv2D, Dense, Flatten, Sequential, conv4, mlp

NUMBERS = count()


def exported(model, folder, example=None):
    """The module of a model, under a name of its own."""
    path = folder / f"module_{next(NUMBERS)}.py"
    export_numpy(model, path, example)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def tolerance(dtype):
    return {"rtol": 1e-5, "atol": 1e-5} if dtype is np.float32 else {"rtol": 1e-12, "atol": 1e-13}


DTYPES = [pytest.param(np.float32, id="float32"), pytest.param(np.float64, id="float64")]


def windows(x):
    """The products of images' windows and a kernel."""
    kernel = np.linspace(-1.0, 1.0, 12).reshape(2, 3, 1, 2).astype(x.dtype)
    return Conv2D(2, (2, 3), stride=(2, 1), bias=False).apply({"weight": kernel}, x[:, :, :, None])


# Beside those that ONNX has too.
MORE = {
    "arctan2": lambda x: np.arctan2(x, 1.0 + x * x),
    "hyperbolic": lambda x: np.sinh(x) + np.cosh(x) + np.tan(x / 4) + np.arctan(x),
    "erf": ad.erf,
    "solve": lambda x: np.linalg.solve(np.eye(4) * 5.0 + x @ np.transpose(x, (0, 2, 1)), x),
    "cholesky": lambda x: np.linalg.cholesky(np.eye(4) + x @ np.transpose(x, (0, 2, 1))),
    "slogdet": lambda x: np.linalg.slogdet(np.eye(4) + x @ np.transpose(x, (0, 2, 1)))[1],
    "argsort": lambda x: np.argsort(x, axis=2) * 1.0,
    "take": lambda x: x[:, np.array([2, -1, 0])],
    "infinities": lambda x: np.where(x > 0, np.inf, np.where(x < -1, -np.inf, np.nan)),
    "gradient": lambda x: ad.grad(lambda y: np.sum(y[:, ::2] ** 3))(x),
    "gradient-of-windows": lambda x: ad.grad(lambda y: np.sum(np.tanh(windows(y)) ** 2))(x),
    "gradient-of-gaps": lambda x: ad.grad(lambda y: np.sum(y[:, ::3] ** 2))(x),
}  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("layer", "shape"), CASES)
def test_layers_give_our_numbers_for_any_number_of_examples(layer, shape, dtype, tmp_path):
    model = model_of(layer, shape, dtype)
    module = exported(model, tmp_path, inputs(shape, dtype, 1))
    for size in (2, 6):
        x = inputs(shape, dtype, size)
        output = module.predict(x)
        assert output.dtype == dtype
        np.testing.assert_allclose(output, model.apply(arrays(model), x), **tolerance(dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", [*FUNCTIONS, *MORE])
def test_functions_give_our_numbers(name, dtype, tmp_path):
    function = {**FUNCTIONS, **MORE}[name]
    model = FunctionModel(lambda p, x: function(x * p["one"]), {"one": np.ones(1, dtype)})
    module = exported(model, tmp_path, inputs((4, 3), dtype))
    for size in (3, 7):
        x = inputs((4, 3), dtype, size)
        expected, output = model.Predict(x), module.predict(x)
        assert output.shape == expected.shape
        assert output.dtype == expected.dtype
        np.testing.assert_allclose(output, expected, **tolerance(dtype))


def test_every_primitive_has_its_function():
    # Tests and `implicit` declare others.
    found = [made for made in _BY_NAME.values() if made.batch.__module__.startswith("aidotnet_py.autodiff.")]
    assert len(found) > 60
    # These are in no Program but that of a plan.
    for primitive in (p for p in found if not p.name.startswith("transformed_")):
        assert hasattr(module_runtime, primitive.name) or hasattr(module_runtime, f"{primitive.name}_"), primitive


def test_integers_and_half_precision(tmp_path):
    table = np.random.default_rng(0).standard_normal((10, 3)).astype(np.float16)
    model = FunctionModel(lambda p, x: np.take(p["table"], x, axis=0).sum(axis=1), {"table": table})
    words = np.array([[1, 2], [3, -1], [9, 0]], np.int32)
    module = exported(model, tmp_path, words[:1])
    np.testing.assert_allclose(module.predict(words), model.Predict(words), rtol=1e-3)
    with pytest.raises(IndexError, match="indices must be from -10 to 9, got 0 to 10"):
        module.predict(np.array([[0, 10]], np.int32))


class TestTheModule:
    def test_holds_parameters_and_properties(self, tmp_path):
        model = NeuralNetworkModel(mlp(3, 2), input_shape=(4,), seed=0)
        model.GetModelMetadata().SetProperty("classes", ["cat", 'a "dog"', None])
        # Left out, as `SaveModel` does.
        model.GetModelMetadata().SetProperty("mean", np.float32(0.5))
        module = exported(model, tmp_path)
        assert module.PROPERTIES == {"classes": ["cat", 'a "dog"', None]}
        assert list(module.PARAMETERS) == list(model.parameter_shapes)
        for name, value in arrays(model).items():
            np.testing.assert_array_equal(module.PARAMETERS[name], value)

    def test_names_are_no_code(self, tmp_path):
        names = ['"', "'] + [__import__('os')", "{0}", "\n", "n", "v0", "x"]
        parameters = {name: np.full(1, float(i)) for i, name in enumerate(names)}
        model = FunctionModel(lambda p, x: x + sum(p[name] for name in names), parameters)
        module = exported(model, tmp_path, np.ones((1, 2)))
        assert list(module.PARAMETERS) == names
        np.testing.assert_array_equal(module.predict(np.ones((2, 2))), np.full((2, 2), 22.0))

    def test_takes_what_predict_takes(self, tmp_path):
        module = exported(NeuralNetworkModel(mlp(3, 2), input_shape=(4,), seed=0), tmp_path)
        wanted = r"x must be an array of float32 and shape \(n, 4\), got "
        for x, got in [
            (np.ones((2, 4)), r"float64 and \(2, 4\)"),
            (np.ones((2, 5), np.float32), r"float32 and \(2, 5\)"),
            (np.float32(1.0), r"float32 and \(\)"),
            ([["a"]], r"<U1 and \(1, 1\)"),
        ]:
            with pytest.raises(ValueError, match=wanted + got):
                module.predict(x)
        assert module.predict(np.ones((0, 4), np.float32)).shape == (0, 2)

    def test_refuses_the_numbers_of_examples_that_predict_refuses(self, tmp_path):
        model = NeuralNetworkModel(Sequential(Dense(4), BatchNorm()), input_shape=(3,))
        predict = exported(model, tmp_path).predict
        for examples in (0, 1):
            x = np.ones((examples, 3), np.float32)
            with pytest.raises(ArgumentException):
                model.Predict(x)
            with pytest.raises(ValueError, match=f"a number of examples that the model takes, got {examples}"):
                predict(x)
        assert predict(np.ones((2, 3), np.float32)).shape == (2, 4)

    @pytest.mark.numpy_first
    def test_is_one_of_any_backend(self, backend, tmp_path):
        model = NeuralNetworkModel(conv4(5, filters=4, norm="layer"), input_shape=(8, 8, 1), seed=0)
        export_numpy(model.To(backend), tmp_path / "one.py")
        export_numpy(model, tmp_path / "other.py")
        assert (tmp_path / "one.py").read_text() == (tmp_path / "other.py").read_text()

    def test_arrays_of_the_function_travel(self, tmp_path):
        steps = np.arange(3.0)
        model = FunctionModel(lambda p, x: x * p["one"] + steps, {"one": np.ones(1)})
        module = exported(model, tmp_path, np.ones((1, 3)))
        np.testing.assert_array_equal(module.predict(np.zeros((2, 3))), [steps, steps])


class TestAdaptedModels:
    def adapted(self):
        model = NeuralNetworkModel(conv4(5, filters=4), input_shape=(8, 8, 1), loss=CrossEntropyLoss(), seed=0)
        learner = MAMLAlgorithm(MAMLOptions(model, DataLoader=DigitsLoader(seed=0), AdaptationSteps=3))
        task = DigitsLoader(split="test", seed=1).GetNextTask()
        return learner.Adapt(task), task.QueryInput

    @pytest.mark.slow
    def test_predict_in_a_process_without_this_package(self, tmp_path):
        adapted, x = self.adapted()
        export_numpy(adapted, tmp_path / "digits.py")
        np.save(tmp_path / "x.npy", x)
        script = (
            "import sys\n"
            "sys.modules['aidotnet_py'] = None\n"
            "import numpy as np\n"
            "before = set(sys.modules)\n"
            "from digits import predict\n"
            "np.save('y.npy', predict(np.load('x.npy')))\n"
            "own = {name.split('.')[0] for name in set(sys.modules) - before}\n"
            "assert own <= {'digits', 'numpy', *sys.stdlib_module_names}, own\n"
        )
        subprocess.run([sys.executable, "-c", script], check=True, cwd=tmp_path)
        np.testing.assert_allclose(np.load(tmp_path / "y.npy"), adapted.Predict(x), rtol=2e-4, atol=2e-5)

    def test_are_commands(self, tmp_path):
        adapted, x = self.adapted()
        export_numpy(adapted, tmp_path / "digits.py")
        np.save(tmp_path / "x.npy", x)
        subprocess.run([sys.executable, "digits.py", "x.npy", "y.npy"], check=True, cwd=tmp_path)
        np.testing.assert_allclose(np.load(tmp_path / "y.npy"), adapted.Predict(x), rtol=2e-4, atol=2e-5)

    def test_of_proto_nets_too(self, tmp_path):
        model = NeuralNetworkModel(
            Sequential(Flatten(), mlp(8, 4)), input_shape=(8, 8, 1), loss=CrossEntropyLoss(), seed=0
        )
        learner = ProtoNetsAlgorithm(ProtoNetsOptions(model, DataLoader=DigitsLoader(seed=0)))
        task = DigitsLoader(split="test", seed=1).GetNextTask()
        adapted = learner.Adapt(task)
        module = exported(adapted, tmp_path, task.QueryInput)
        np.testing.assert_allclose(module.predict(task.QueryInput), adapted.Predict(task.QueryInput), rtol=1e-4)


class TestRefusals:
    def test_primitives_of_ones_own_are_named(self, tmp_path):
        cube = extend.Primitive(
            name="cube",
            shape=lambda x: x,
            run=lambda backend, out, x: np.power(x, 3, out=out),
            jvp=None,
            transpose=None,
            batch=lambda inputs, batched, size: extend.emit(cube, inputs[0]),
        )
        model = FunctionModel(lambda p, x: extend.emit(cube, x * p["one"]), {"one": np.ones(1)})
        with pytest.raises(NotSupportedException, match=r"primitives of this package to be exported, got cube; write"):
            export_numpy(model, tmp_path / "model.py", np.ones((2, 3)))
        assert not list(tmp_path.iterdir())

    def test_a_missing_example_is_refused(self, tmp_path):
        model = FunctionModel(lambda p, x: x * p["one"], {"one": np.ones(1)})
        with pytest.raises(ArgumentException, match="example must be given for a FunctionModel"):
            export_numpy(model, tmp_path / "model.py")

    def test_learners_are_refused(self, tmp_path):
        model = NeuralNetworkModel(mlp(8, 4), input_shape=(3,))
        with pytest.raises(ArgumentException, match="use its BaseModel"):
            export_numpy(MAMLAlgorithm(MAMLOptions(model)), tmp_path / "model.py")
