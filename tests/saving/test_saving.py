"""save and load: another process needs no code of the training, and no file runs code."""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
import tracemalloc
import warnings
from collections.abc import Iterator
from contextlib import suppress
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import aidotnet_py
from aidotnet_py import (
    AdamOptimizer,
    ANILAlgorithm,
    ANILOptions,
    ArgumentException,
    BOILAlgorithm,
    BOILOptions,
    CosineSchedule,
    CrossEntropyLoss,
    FunctionModel,
    InvalidOperationException,
    LBFGSMinimizer,
    MAMLAlgorithm,
    MAMLOptions,
    MeanSquaredErrorLoss,
    MetaSGDAlgorithm,
    MetaSGDOptions,
    NeuralNetworkModel,
    ProblemConstants,
    ReptileAlgorithm,
    ReptileOptions,
    SGDOptimizer,
    WarmUpSchedule,
    iMAMLAlgorithm,
    iMAMLOptions,
)
from aidotnet_py.archives import pack, unpack
from aidotnet_py.backends import Backend
from aidotnet_py.data import SinusoidLoader
from aidotnet_py.descriptions import describe
from aidotnet_py.nn import (
    BatchNorm,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    GroupNorm,
    Layer,
    Residual,
    Sequential,
    Tanh,
    conv4,
    mlp,
    resnet18,
)
from aidotnet_py.saving import Rebuilder

LEARNERS: list[tuple[Any, Any, dict[str, Any]]] = [
    (MAMLAlgorithm, MAMLOptions, {"OuterLearningRateSchedule": WarmUpSchedule(2, then=CosineSchedule(9))}),
    (MAMLAlgorithm, MAMLOptions, {"InnerOptimizer": AdamOptimizer(0.01, beta1=0.5), "MicroBatchSize": 1}),
    (iMAMLAlgorithm, iMAMLOptions, {"InnerObjective": "proximal", "LearnedLambda": "scalar"}),
    (iMAMLAlgorithm, iMAMLOptions, {"InnerOptimizer": LBFGSMinimizer(), "InnerObjective": "proximal"}),
    (
        iMAMLAlgorithm,
        iMAMLOptions,
        {"InnerObjective": "proximal", "ErrorConstants": ProblemConstants(1.0, 1.0, 1.0)},
    ),
    (ReptileAlgorithm, ReptileOptions, {"MetaOptimizer": SGDOptimizer(0.1, momentum=0.5)}),
    (MetaSGDAlgorithm, MetaSGDOptions, {}),
    (ANILAlgorithm, ANILOptions, {}),
    (BOILAlgorithm, BOILOptions, {}),
]


def line(p: Any, x: Any) -> Any:
    """The function of a FunctionModel, importable from this module."""
    return x @ p["w"]


class Scale(Layer):
    """A layer that only this module has."""

    def initialize(self, generator: Any, shape: Any) -> Any:
        return {"scale": np.ones(shape[-1])}, shape

    def apply(self, parameters: Any, x: Any) -> Any:
        return x * parameters["scale"]


WAY = Enum("WAY", ["there", "back"])


class Moded(Layer):
    """A layer with a setting of any type."""

    def __init__(self, mode: Any) -> None:
        self.mode = mode

    def initialize(self, generator: Any, shape: Any) -> Any:
        return {}, shape

    def apply(self, parameters: Any, x: Any) -> Any:
        return -x if self.mode is WAY.back else x


def student_description(student: Any, folder: Path) -> Any:
    """The arrays and the description of a learner's file."""
    student.Save(folder / "sound.safetensors")
    return unpack("meta-learner", (folder / "sound.safetensors").read_bytes())


def places_in(value: Any) -> Iterator[tuple[Any, Any]]:
    """All places in a value of JSON, as containers and keys."""
    for key, part in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield value, key
        yield from places_in(part)


def model(dtype: Any = np.float32) -> Any:
    return NeuralNetworkModel(mlp(6, 1), input_shape=(1,), dtype=dtype, seed=0)


@pytest.mark.costly
@pytest.mark.filterwarnings("ignore::aidotnet_py.LooseToleranceWarning")
@pytest.mark.parametrize(("algorithm", "options", "given"), LEARNERS)
def test_a_learner_goes_on_with_its_bits(algorithm: Any, options: Any, given: dict[str, Any], tmp_path: Path) -> None:
    student = algorithm(options(model(), DataLoader=SinusoidLoader(4, 4, seed=0), RandomSeed=1, **given))
    for _ in range(2):
        student.MetaTrainStep(2)
    path = tmp_path / "learner.safetensors"
    aidotnet_py.save(student, path)
    again = aidotnet_py.load(path, DataLoader=SinusoidLoader(4, 4, seed=7))
    assert type(again) is algorithm
    assert describe(again.Options) == describe(student.Options)
    assert again.CurrentIteration == 2
    steps = [(float(student.MetaTrainStep(2).MetaLoss), float(again.MetaTrainStep(2).MetaLoss)) for _ in range(2)]
    assert all(one == other for one, other in steps)
    np.testing.assert_array_equal(student.GetParameters(), again.GetParameters())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("network", "shape"),
    [
        (conv4(5, filters=4, norm="support"), (16, 16, 1)),
        (conv4(3, filters=4, reduction="pool", norm="group"), (16, 16, 3)),
        (resnet18(4, filters=4), (32, 32, 3)),
        (
            Sequential(Residual(Conv2D(3, (3, 1)), Conv2D(3, 1)), GroupNorm(3), Dropout(0.5), Flatten(), Dense(2)),
            (4, 4, 3),
        ),
    ],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_network_by_its_layers(network: Any, shape: Any, dtype: Any, tmp_path: Path) -> None:
    first = NeuralNetworkModel(network, input_shape=shape, loss=CrossEntropyLoss(), dtype=dtype, seed=3)
    first.GetModelMetadata().SetProperty("classes", ["cat", "dog"])
    aidotnet_py.save(first, tmp_path / "model.safetensors")
    second = aidotnet_py.load(tmp_path / "model.safetensors")
    x = np.random.default_rng(0).standard_normal((6, *shape)).astype(dtype)
    np.testing.assert_array_equal(first.Predict(x), second.Predict(x))
    assert second.GetModelMetadata().Properties == {"classes": ["cat", "dog"]}
    assert describe(second) == describe(first)


def test_a_network_is_initialised_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = Sequential(Dense(3), Dropout(0.5), Dense(1))
    first = NeuralNetworkModel(network, input_shape=(2,), seed=0)
    aidotnet_py.save(first, tmp_path / "file")
    initialize, shapes = Dense.initialize, []
    monkeypatch.setattr(Dense, "initialize", lambda layer, *to: (shapes.append(to[1]), initialize(layer, *to))[1])
    second = aidotnet_py.load(tmp_path / "file")
    assert shapes == [(2,), (3,)]
    x, y = np.ones((4, 2), np.float32), np.ones((4, 1), np.float32)
    for model in (first, second):
        model.Train(x, y)
    # With the noise of the same seed.
    np.testing.assert_array_equal(first.GetParameters(), second.GetParameters())


def test_properties_with_names_that_are_no_strings_are_left_out(tmp_path: Path) -> None:
    """As other values that JSON cannot hold: a file with one name twice could not be read."""
    model = NeuralNetworkModel(mlp(2, 1), input_shape=(1,), seed=0)
    properties: dict[Any, Any] = {"classes": {1: "cat", "1": "dog"}, "deep": [{"er": {0: "a"}}], 2: "b"}
    for name, value in {**properties, "kept": {"0": 1}}.items():
        model.GetModelMetadata().SetProperty(name, value)
    for item in (model, MAMLAlgorithm(MAMLOptions(model))):
        with pytest.warns(UserWarning, match="got others in 'classes', 'deep', 2, which the file leaves out"):
            aidotnet_py.save(item, tmp_path / "file")
        assert aidotnet_py.load(tmp_path / "file").GetModelMetadata().Properties == {"kept": {"0": 1}}


def test_on_another_backend(backend: Backend, tmp_path: Path) -> None:
    student = MAMLAlgorithm(MAMLOptions(model(np.float64)))
    aidotnet_py.save(student, tmp_path / "learner.safetensors")
    aidotnet_py.save(FunctionModel(line, {"w": np.array([[2.0]])}), tmp_path / "line.safetensors")
    for name in ("learner", "line"):
        again = aidotnet_py.load(tmp_path / f"{name}.safetensors", backend=backend, trust=[__name__])
        x = backend.asarray(np.array([[3.0]]))
        wanted = student.Predict(np.array([[3.0]])) if name == "learner" else [[6.0]]
        np.testing.assert_allclose(backend.to_numpy(again.Predict(x)), wanted, rtol=1e-12)


def test_an_adapted_model_keeps_its_statistics(tmp_path: Path) -> None:
    network = conv4(2, filters=4)
    student = MAMLAlgorithm(
        MAMLOptions(NeuralNetworkModel(network, input_shape=(16, 16, 1), loss=CrossEntropyLoss(), seed=0))
    )
    generator = np.random.default_rng(0)
    x = generator.standard_normal((6, 16, 16, 1)).astype(np.float32)
    task = aidotnet_py.MetaLearningTask(SupportSetX=x, SupportSetY=np.arange(6) % 2, NumWays=2)
    adapted: Any = student.Adapt(task)
    aidotnet_py.save(adapted, tmp_path / "adapted.safetensors")
    again = aidotnet_py.load(tmp_path / "adapted.safetensors")
    np.testing.assert_array_equal(adapted.Predict(x[:1]), again.Predict(x[:1]))


@pytest.mark.slow
def test_another_process_needs_no_code(tmp_path: Path) -> None:
    student = MAMLAlgorithm(MAMLOptions(model(), DataLoader=SinusoidLoader(4, 4, seed=0), RandomSeed=1))
    student.GetModelMetadata().SetProperty("unit", "mV")
    student.MetaTrainStep(2)
    aidotnet_py.save(student, tmp_path / "learner.safetensors")
    code = (
        "import sys, numpy as np, aidotnet_py; learner = aidotnet_py.load(sys.argv[1]); "
        "y = float(learner.Predict(np.ones((1, 1), np.float32))[0, 0]); "
        "print(learner.GetModelMetadata().Properties['unit'], y)"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, str(tmp_path / "learner.safetensors")],
        capture_output=True,
        text=True,
        check=True,
    )
    unit, value = done.stdout.split()
    assert unit == "mV"
    assert float(value) == float(student.Predict(np.ones((1, 1), np.float32))[0, 0])


class TestCodeOfOnesOwn:
    def test_a_function_is_found_in_a_trusted_module_alone(self, tmp_path: Path) -> None:
        first = FunctionModel(line, {"w": np.array([[2.0]])})
        path = tmp_path / "model.safetensors"
        aidotnet_py.save(first, path)
        with pytest.raises(
            ArgumentException, match=r"function must be .* module \(none\), got the function line; if .* trust=\[…\]"
        ):
            aidotnet_py.load(path)
        with pytest.raises(ArgumentException, match=r"module \('json'\)"):
            aidotnet_py.load(path, trust=["json"])
        again = aidotnet_py.load(path, trust=[__name__])
        np.testing.assert_array_equal(again.Predict(np.array([[3.0]])), [[6.0]])

    def test_what_a_trusted_module_imports_is_not_its_own(self) -> None:
        for name in ("subprocess.run", "Path", "sys.exit", "__builtins__", "line.__globals__", "np.load"):
            with pytest.raises(ArgumentException, match="got the function"):
                Rebuilder([__name__]).function(name, "function")
        assert Rebuilder([__name__]).function("line", "function") is line

    def test_layers(self, tmp_path: Path) -> None:
        first = NeuralNetworkModel(Sequential(Dense(3), Scale(), Tanh()), input_shape=(2,), seed=0)
        aidotnet_py.save(first, tmp_path / "model.safetensors")
        with pytest.raises(
            ArgumentException, match=r"network.layers\[1\] must be of this package or .*, got the class Scale"
        ):
            aidotnet_py.load(tmp_path / "model.safetensors")
        again = aidotnet_py.load(tmp_path / "model.safetensors", trust=[__name__])
        x = np.ones((2, 2), np.float32)
        np.testing.assert_array_equal(first.Predict(x), again.Predict(x))

    def test_a_solver_may_be_given_instead(self, tmp_path: Path) -> None:
        def solver(objective: Any, start: Any) -> Any:
            return start

        student = iMAMLAlgorithm(iMAMLOptions(model(), InnerOptimizer=solver))
        aidotnet_py.save(student, tmp_path / "learner.safetensors")
        with pytest.raises(ArgumentException, match=r"give InnerOptimizer itself: load\(path, InnerOptimizer=…\)"):
            aidotnet_py.load(tmp_path / "learner.safetensors", trust=[__name__])
        again = aidotnet_py.load(tmp_path / "learner.safetensors", InnerOptimizer=solver)
        assert again.Options.InnerOptimizer is solver

    @pytest.mark.parametrize("trust", ["json", [3], [None]])
    def test_trust_is_a_list_of_names(self, trust: Any) -> None:
        with pytest.raises(ArgumentException, match="trust must be a list of names of modules"):
            Rebuilder(trust)


class TestRefusals:
    def test_other_options_are_told(self, tmp_path: Path) -> None:
        aidotnet_py.save(MAMLAlgorithm(MAMLOptions(model())), tmp_path / "learner.safetensors")
        with pytest.warns(UserWarning, match="AdaptationSteps is 5 there and 9 here"):
            again = aidotnet_py.load(tmp_path / "learner.safetensors", AdaptationSteps=9)
        assert again.AdaptationSteps == 9
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            aidotnet_py.load(tmp_path / "learner.safetensors", NumMetaIterations=9)
        with pytest.raises(TypeError, match="did you mean 'AdaptationSteps'"):
            aidotnet_py.load(tmp_path / "learner.safetensors", AdaptionSteps=9)

    def test_models_that_cannot_be_made_again(self, tmp_path: Path) -> None:
        class Own(NeuralNetworkModel[Any, Any, Any]):
            pass

        with pytest.raises(
            ArgumentException, match="item must be a NeuralNetworkModel or FunctionModel, or a learner of one"
        ):
            aidotnet_py.save(Own(mlp(1), input_shape=(1,)), tmp_path / "model.safetensors")
        assert list(tmp_path.iterdir()) == []

    def test_functions_and_layers_that_no_module_has(self, tmp_path: Path) -> None:
        class Local(Scale):
            pass

        for item in (
            FunctionModel(lambda p, x: x @ p["w"], {"w": np.ones((1, 1))}),
            NeuralNetworkModel(Sequential(Dense(1), Local()), input_shape=(1,)),
        ):
            with pytest.raises(ArgumentException, match="item must have a function at the top of a module, or layers"):
                aidotnet_py.save(item, tmp_path / "model.safetensors")
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(
        ("make", "place"),
        [
            (lambda own: NeuralNetworkModel(Sequential(own(Dense)(1)), input_shape=(1,)), "network.layers[0]"),
            (lambda own: NeuralNetworkModel(Dense(1), input_shape=(1,), loss=own(MeanSquaredErrorLoss)()), "loss"),
            (lambda own: MAMLAlgorithm(MAMLOptions(model(), MetaOptimizer=own(SGDOptimizer)(0.1))), "MetaOptimizer"),
            (
                lambda own: MAMLAlgorithm(
                    MAMLOptions(model(), OuterLearningRateSchedule=WarmUpSchedule(2, own(CosineSchedule)(9)))
                ),
                "OuterLearningRateSchedule.then",
            ),
        ],
    )
    def test_a_class_of_ones_own_under_a_name_of_this_package(self, make: Any, place: str, tmp_path: Path) -> None:
        """`load` made this package's of it, without a word."""

        def own(kind: Any) -> Any:
            return type(kind.__name__, (kind,), {"__module__": __name__})

        with pytest.raises(ArgumentException, match=rf"{re.escape(place)} must be .*; give the class another name"):
            aidotnet_py.save(make(own), tmp_path / "file")
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("derived", [NeuralNetworkModel, MAMLAlgorithm])
    def test_what_is_derived_under_any_name(self, derived: Any, tmp_path: Path) -> None:
        """`load` made a NeuralNetworkModel and a MAMLAlgorithm of these."""
        own = type(derived.__name__, (derived,), {})
        item = own(MAMLOptions(model())) if derived is MAMLAlgorithm else own(mlp(1), input_shape=(1,))
        with pytest.raises(ArgumentException, match=r"item must be .*; use its own Save or SaveModel"):
            aidotnet_py.save(item, tmp_path / "file")
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("setting", [WAY.there, b"ab", 2 + 1j, np.dtype(np.float32), line])
    def test_settings_that_a_description_has_as_text(self, setting: Any, tmp_path: Path) -> None:
        """`load` gave the layer the text: a layer of another mode, or of a function that cannot be called."""
        first = NeuralNetworkModel(Sequential(Moded(setting), Dense(1)), input_shape=(1,))
        with pytest.raises(ArgumentException, match=r"layers\[0\].mode must be .*, builtins.str, got .*numbers"):
            aidotnet_py.save(first, tmp_path / "file")
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("seed", [0, *(pytest.param(s, marks=pytest.mark.slow) for s in (1, 2))])
    def test_any_description_is_refused_or_taken(self, seed: int, tmp_path: Path) -> None:
        """Files with a right checksum, and something else in a random place of their description."""
        student = iMAMLAlgorithm(iMAMLOptions(model(), MetaOptimizer=SGDOptimizer(0.1)))
        checkpoint, path = student_description(student, tmp_path), tmp_path / "forged.safetensors"
        generator = random.Random(seed)
        for _ in range(150):
            arrays, description = checkpoint
            forged = json.loads(json.dumps(description))
            place, key = generator.choice(list(places_in(forged)))
            place[key] = generator.choice(
                [None, [], {}, "x", -1, 3.5, True, [1], {"type": "Dense"}, {"type": "ReLU"}, 10**30]
            )
            path.write_bytes(pack("meta-learner", arrays, forged))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                with suppress(ArgumentException, InvalidOperationException):
                    aidotnet_py.load(path)

    @pytest.mark.parametrize(
        ("network", "shape"), [(Sequential(Dense(2)), (3 * 10**7,)), (Sequential(Flatten(), BatchNorm()), (10**8, 1))]
    )
    @pytest.mark.parametrize("kind", ["model", "meta-learner"])
    def test_a_description_of_a_huge_network_takes_no_memory(
        self, kind: str, network: Layer, shape: tuple[int, ...], tmp_path: Path
    ) -> None:
        small = NeuralNetworkModel(network, input_shape=(3, *shape[1:]), seed=0)
        (MAMLAlgorithm(MAMLOptions(small)).Save if kind == "meta-learner" else small.SaveModel)(tmp_path / "file")
        arrays, description = unpack(kind, (tmp_path / "file").read_bytes())
        description["model"]["input_shape"] = [*shape]
        (tmp_path / "file").write_bytes(pack(kind, arrays, description))
        tracemalloc.start()
        try:
            with pytest.raises(ArgumentException, match="must describe a model that can be made"):
                aidotnet_py.load(tmp_path / "file")
            # Beside what is reserved, and never touched; a thread may compile kernels meanwhile.
            assert tracemalloc.get_traced_memory()[1] < 2**24 + 8 * shape[0] * (len(shape) - 1)
        finally:
            tracemalloc.stop()

    @pytest.mark.parametrize("length", [1e400, 1.5, True, "8", -1, 10**30, [8]])
    @pytest.mark.parametrize("kind", ["model", "meta-learner"])
    def test_lengths_that_are_none(self, kind: str, length: Any, tmp_path: Path) -> None:
        own: Any = MAMLAlgorithm(MAMLOptions(model())) if kind == "meta-learner" else model()
        aidotnet_py.save(own, tmp_path / "file")
        arrays, description = unpack(kind, (tmp_path / "file").read_bytes())
        description["model"]["parameters"][0][1][0] = length
        (tmp_path / "file").write_bytes(pack(kind, arrays, description))
        with pytest.raises(ArgumentException, match="must describe its model, got no such description"):
            aidotnet_py.load(tmp_path / "file")
        if kind == "meta-learner":
            with pytest.raises(ArgumentException, match="parameters are malformed there"):
                own.Load(tmp_path / "file")
        else:
            # By the names of the arrays.
            own.LoadModel(tmp_path / "file")

    def test_an_empty_parameter_of_no_possible_shape(self, tmp_path: Path) -> None:
        own = MAMLAlgorithm(MAMLOptions(model()))
        aidotnet_py.save(own, tmp_path / "file")
        arrays, description = unpack("meta-learner", (tmp_path / "file").read_bytes())
        description["model"]["parameters"][0][1] = [0, 2**62, 2**62]
        (tmp_path / "file").write_bytes(pack("meta-learner", arrays, description))
        with pytest.raises(ArgumentException, match="must hold the parameters that it describes"):
            aidotnet_py.load(tmp_path / "file")

    def test_files_that_are_none(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError):
            aidotnet_py.load(tmp_path / "nothing")
        (tmp_path / "text").write_text("no learner")
        with pytest.raises(ArgumentException, match="must be a safetensors file"):
            aidotnet_py.load(tmp_path / "text")
        with pytest.raises(ArgumentException, match="got a folder"):
            aidotnet_py.load(tmp_path)

    def test_options_of_a_model_alone(self, tmp_path: Path) -> None:
        aidotnet_py.save(model(), tmp_path / "model.safetensors")
        with pytest.raises(ArgumentException, match="AdaptationSteps must be left out"):
            aidotnet_py.load(tmp_path / "model.safetensors", AdaptationSteps=3)

    @pytest.mark.parametrize(
        "description",
        [
            None,
            {"type": "Scores"},
            {"type": "Scores", "embedding": 3},
            {"type": "Scores", "embedding": "line", "more": 1},
            {"type": "Dense", "units": 3},
            {"type": ["Scores"], "embedding": "line"},
        ],
    )
    def test_descriptions_of_no_function(self, description: Any) -> None:
        with pytest.raises(ArgumentException, match="function must be the name of a function, got"):
            Rebuilder([__name__]).function(description, "function")

    @pytest.mark.parametrize(
        "description",
        [
            {"type": "Nothing"},
            {"type": "mlp", "units": [1]},
            {"type": "ILossFunction"},
            {"type": "Dense"},
            {"type": "Dense", "units": 0, "bias": True},
            {"type": "Dense", "units": 3, "bias": True, "more": 1},
            {"array": "float32(3,)", "sha256": "00"},
            {"type": 3},
        ],
    )
    def test_descriptions_of_nothing(self, description: Any) -> None:
        with pytest.raises(ArgumentException, match="network"):
            Rebuilder().object(description, "network")
