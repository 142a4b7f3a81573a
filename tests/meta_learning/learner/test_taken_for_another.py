"""Files of one learner or model and another that looks like it: what is refused, what is said; files of 0.1.0."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from forged_files import forged
from plain_models import BareModel
from saved_learners import learner_on, opened, refused
from tanh_network import TanhNetwork

from aidotnet_py import (
    AdamOptimizer,
    ANILAlgorithm,
    ANILOptions,
    ArgumentException,
    BOILAlgorithm,
    BOILOptions,
    CrossEntropyLoss,
    FunctionModel,
    InvalidOperationException,
    MAMLAlgorithm,
    MAMLOptions,
    MeanSquaredErrorLoss,
    MetaSGDAlgorithm,
    MetaSGDOptions,
    NeuralNetworkModel,
    ReptileAlgorithm,
    ReptileOptions,
    SGDOptimizer,
    iMAMLAlgorithm,
    iMAMLOptions,
)
from aidotnet_py.archives import pack
from aidotnet_py.backends import get_backend
from aidotnet_py.data import SinusoidLoader
from aidotnet_py.nn import Conv2D, Dense, GlobalAveragePool2D, ReLU, Sequential, Tanh, mlp
from aidotnet_py.testing.learner_state import bits, untouched

OLD = Path(__file__).parent / "files_of_0_1_0"


def network(*layers: Any, shape: tuple[int, ...] = (1,), seed: int = 0, **options: Any) -> NeuralNetworkModel[Any]:
    return NeuralNetworkModel(Sequential(*layers), input_shape=shape, dtype=np.float64, seed=seed, **options)


def learner_of(model: Any, algorithm: Any = MAMLAlgorithm, kind: Any = MAMLOptions, **options: Any) -> Any:
    settings = {"AdaptationSteps": 1, "DataLoader": SinusoidLoader(4, 4, seed=0, dtype=np.float64), "RandomSeed": 1}
    return algorithm(kind(model, **(settings | options)))


def line(p: Any, x: Any) -> Any:
    return x @ p["a"] + x @ p["b"]


def curve(p: Any, x: Any) -> Any:
    return np.tanh(x @ p["a"]) + x @ p["b"]


A, B = np.array([[1.0], [2.0]]), np.array([[3.0], [4.0]])


# What only another network can tell: as many parameters, of the same names and shapes where it says so.
OTHERS: dict[str, tuple[Any, Any, str]] = {
    "sizes that add up to the same": (
        lambda: network(Dense(8), ReLU(), Dense(40), ReLU(), Dense(1)),
        lambda: network(Dense(40), ReLU(), Dense(8), ReLU(), Dense(1)),
        r"'0_dense.weight' is .*\(1, 8\) there and .*\(1, 40\) here; .*layers\[0\].units is 8 there and 40 here",
    ),
    "another activation": (
        lambda: network(Dense(4), ReLU(), Dense(1)),
        lambda: network(Dense(4), Tanh(), Dense(1)),
        r"(of another learner|got another's): network.layers\[1\] is ReLU there and Tanh here$",
    ),
    "another stride": (
        lambda: network(Conv2D(2), GlobalAveragePool2D(), Dense(1), shape=(4, 4, 1)),
        lambda: network(Conv2D(2, stride=2), GlobalAveragePool2D(), Dense(1), shape=(4, 4, 1)),
        r"network.layers\[0\].stride is 1 there and 2 here$",
    ),
    "an activation more": (
        lambda: network(Dense(4), Dense(1)),
        lambda: network(Dense(4), Dense(1), ReLU()),
        r"network.layers has length 2 there and 3 here$",
    ),
}


class TestOtherNetworks:
    @pytest.mark.parametrize("name", OTHERS)
    def test_are_refused_by_learners(self, name: str, tmp_path: Path) -> None:
        there, here, message = OTHERS[name]
        learner_of(there()).Save(tmp_path / "run")
        other = learner_of(here())
        with untouched(other), pytest.raises(ArgumentException, match=message):
            other.Load(tmp_path / "run")

    @pytest.mark.parametrize("name", OTHERS)
    def test_are_refused_by_models(self, name: str, tmp_path: Path) -> None:
        there, here, message = OTHERS[name]
        there().SaveModel(tmp_path / "model")
        other = here()
        before = bits(other.GetParameters())
        with pytest.raises(ArgumentException, match=message):
            other.LoadModel(tmp_path / "model")
        with pytest.raises(ArgumentException, match=message):
            other.Deserialize(there().Serialize())
        assert bits(other.GetParameters()) == before

    def test_of_the_issue_have_as_many_parameters_and_are_told_apart(self) -> None:
        one, other = (NeuralNetworkModel(mlp(*sizes), input_shape=(1,)) for sizes in ((8, 40, 1), (40, 8, 1)))
        assert one.ParameterCount == other.ParameterCount
        with pytest.raises(ArgumentException, match="data must be of this model, got another's"):
            other.Deserialize(one.Serialize())

    def test_on_another_backend_are_no_others(self, tmp_path: Path) -> None:
        network(Dense(4), Tanh(), Dense(1)).SaveModel(tmp_path / "model")
        network(Dense(4), Tanh(), Dense(1), backend="strict", seed=1).LoadModel(tmp_path / "model")

    def test_every_difference_is_told(self, tmp_path: Path) -> None:
        learner_of(network(Dense(4), ReLU(), Dense(1))).Save(tmp_path / "run")
        other = learner_of(
            network(Dense(3), Tanh(), Dense(1)), ReptileAlgorithm, ReptileOptions, MetaOptimizer=AdamOptimizer(0.1)
        )
        told = (
            "algorithm is MAML there and Reptile here",
            "'2_dense.weight' is (4, 1) there and (3, 1) here",
            "network.layers[0].units is 4 there and 3 here",
            "network.layers[1] is ReLU there and Tanh here",
        )
        with pytest.raises(ArgumentException) as raised:
            other.Load(tmp_path / "run")
        assert all(clause in str(raised.value) for clause in told)


class TestOrders:
    """Of the same names in a vector."""

    def test_that_differ_are_refused_by_learners(self, tmp_path: Path) -> None:
        learner_of(FunctionModel(line, {"a": A, "b": B}), DataLoader=None).Save(tmp_path / "run")
        other = learner_of(FunctionModel(line, {"b": B, "a": A}), DataLoader=None)
        with (
            untouched(other),
            pytest.raises(ArgumentException, match="are in the order a, b there and b, a here"),
        ):
            other.Load(tmp_path / "run")

    def test_are_no_matter_to_models_which_go_by_names(self) -> None:
        other = FunctionModel(line, {"b": np.zeros((2, 1)), "a": np.zeros((2, 1))})
        other.Deserialize(FunctionModel(line, {"a": A, "b": B}).Serialize())
        assert other.GetParameters().tolist() == [3.0, 4.0, 1.0, 2.0]

    def test_of_other_names_are_refused(self, tmp_path: Path) -> None:
        learner_of(FunctionModel(lambda p, x: x @ p["a"], {"a": A}), DataLoader=None).Save(tmp_path / "run")
        other = learner_of(FunctionModel(lambda p, x: x @ p["c"], {"c": A}), DataLoader=None)
        message = r"parameter 'c' is missing there and \(2, 1\) here; parameter 'a' is \(2, 1\) there and missing here"
        with pytest.raises(ArgumentException, match=message):
            other.Load(tmp_path / "run")

    @pytest.mark.parametrize("parameters", [3, [3], [["a"]], [["a", ["x"]]], [[["a"], [1]]], {"a": 1}, None])
    def test_that_are_malformed_are_refused(self, parameters: Any, tmp_path: Path) -> None:
        learner = learner_of(FunctionModel(line, {"a": A, "b": B}), DataLoader=None)
        learner.Save(tmp_path / "run")
        arrays, description = opened(tmp_path / "run")
        description["model"]["parameters"] = parameters
        (tmp_path / "run").write_bytes(pack("meta-learner", arrays, description))
        with untouched(learner), pytest.raises(ArgumentException, match="of another learner: parameter"):
            learner.Load(tmp_path / "run")


class TestWhatIsSaidOfModels:
    def test_is_another_functions_name(self, tmp_path: Path) -> None:
        one, other = (FunctionModel(f, {"a": A, "b": B}) for f in (line, curve))
        message = "^data was saved by a model of other settings, .*: function is 'line' there and 'curve' here$"
        with pytest.warns(UserWarning, match=message) as told:
            other.Deserialize(one.Serialize())
        assert [w.filename for w in told] == [__file__]
        learner_of(one, DataLoader=None).Save(tmp_path / "run")
        with pytest.warns(UserWarning, match="function is 'line' there and 'curve' here$") as told:
            learner_of(other, DataLoader=None).Load(tmp_path / "run")
        assert [w.filename for w in told] == [__file__]

    def test_is_another_input_shape_where_the_parameters_fit(self) -> None:
        one, other = (network(Conv2D(2), GlobalAveragePool2D(), Dense(1), shape=(n, n, 1)) for n in (4, 6))
        with pytest.warns(UserWarning, match=r"input_shape\[0\] is 4 there and 6 here; input_shape\[1\] is 4 there"):
            other.Deserialize(one.Serialize())

    def test_is_another_loss(self) -> None:
        one, other = (network(Dense(2), loss=loss) for loss in (CrossEntropyLoss(), MeanSquaredErrorLoss()))
        with pytest.warns(UserWarning, match=r"loss is CrossEntropyLoss there and MeanSquaredErrorLoss here$"):
            other.Deserialize(one.Serialize())

    def test_is_another_type(self) -> None:
        one = network(Dense(2))
        shapes = one.parameter_shapes.items()
        other = FunctionModel(line, {name: np.zeros(shape) for name, shape in shapes})
        with pytest.warns(UserWarning, match=r"type is 'NeuralNetworkModel' there and 'FunctionModel' here$"):
            other.Deserialize(one.Serialize())

    def test_changes_nothing_where_warnings_are_errors(self, tmp_path: Path) -> None:
        one, other = (FunctionModel(f, {"a": a, "b": B}) for f, a in ((line, A), (curve, B)))
        learner_of(one, DataLoader=None).Save(tmp_path / "run")
        learner, before = learner_of(other, DataLoader=None), bits(other.GetParameters())
        with pytest.raises(UserWarning, match="function is"):
            other.Deserialize(one.Serialize())
        with untouched(learner), pytest.raises(UserWarning, match="function is"):
            learner.Load(tmp_path / "run")
        assert bits(other.GetParameters()) == before

    @pytest.mark.filterwarnings("ignore:.*simultaneous perturbation")
    def test_of_users_models_is_their_type(self, tmp_path: Path) -> None:
        class Renamed(BareModel):
            pass

        network_, backend = TanhNetwork(1, 8), get_backend("numpy")
        one, same, other = (kind(network_, network_.start(), backend) for kind in (BareModel, BareModel, Renamed))
        learner_of(one).Save(tmp_path / "run")
        learner_of(same).Load(tmp_path / "run")
        with pytest.warns(UserWarning, match="type is 'BareModel' there and 'Renamed' here$"):
            learner_of(other).Load(tmp_path / "run")


ALGORITHMS: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "MAML": (MAMLAlgorithm, MAMLOptions, {"CheckpointSegments": "sqrt"}),
    "iMAML": (iMAMLAlgorithm, iMAMLOptions, {"InnerObjective": "proximal", "LearnedLambda": "scalar"}),
    "iMAML with probes": (iMAMLAlgorithm, iMAMLOptions, {"PreconditionerProbes": 2, "WarmStartSolves": True}),
    "Reptile": (ReptileAlgorithm, ReptileOptions, {}),
    "Meta-SGD": (MetaSGDAlgorithm, MetaSGDOptions, {}),
    "ANIL": (ANILAlgorithm, ANILOptions, {}),
    "BOIL": (BOILAlgorithm, BOILOptions, {}),
}


class TestOptions:
    @pytest.mark.costly
    @pytest.mark.parametrize("name", ALGORITHMS)
    def test_that_are_alike_are_not_mentioned(self, name: str, tmp_path: Path) -> None:
        """Warnings are errors here."""
        algorithm, kind, more = ALGORITHMS[name]
        one, other = (learner_of(network(Dense(3), Tanh(), Dense(1)), algorithm, kind, **more) for _ in range(2))
        one.MetaTrainStep(2)
        one.Save(tmp_path / "run")
        other.Load(tmp_path / "run")
        assert one.MetaTrainStep(2).MetaLoss == other.MetaTrainStep(2).MetaLoss

    @pytest.mark.parametrize(
        "option",
        [
            {"NumMetaIterations": 7},
            {"EvaluationTasks": 7},
            {"EvaluationFrequency": 7},
            {"EnableCheckpointing": True},
            {"CheckpointFrequency": 7},
            {"RandomSeed": 7},
        ],
        ids=lambda option: next(iter(option)),
    )
    def test_of_the_run_are_not_mentioned(self, option: dict[str, Any], tmp_path: Path) -> None:
        learner_on(RandomSeed=1).Save(tmp_path / "run")
        learner_on(**{"RandomSeed": 1, **option}).Load(tmp_path / "run")

    @pytest.mark.parametrize(
        ("there", "here", "told"),
        [
            ({}, {"InnerLearningRate": 0.5}, "InnerLearningRate is 0.01 there and 0.5 here"),
            ({}, {"OuterLearningRate": 0.5}, "OuterLearningRate is 0.001 there and 0.5 here"),
            ({}, {"MetaBatchSize": 5}, "MetaBatchSize is 3 there and 5 here"),
            ({}, {"AdaptationSteps": 5}, "AdaptationSteps is 2 there and 5 here"),
            ({}, {"GradientClipThreshold": None}, "GradientClipThreshold is 10.0 there and None here"),
            ({}, {"Curvature": "gauss-newton"}, "Curvature is 'hessian' there and 'gauss-newton' here"),
            ({}, {"LossFunction": MeanSquaredErrorLoss()}, "LossFunction is None there and MeanSquaredErrorLoss here"),
            ({}, {"InnerOptimizer": SGDOptimizer(0.1)}, "InnerOptimizer is None there and SGDOptimizer here"),
            (
                {"MetaOptimizer": AdamOptimizer(0.1)},
                {"MetaOptimizer": AdamOptimizer(0.1, beta1=0.8)},
                "MetaOptimizer.beta1 is 0.9 there and 0.8 here",
            ),
            (
                {"PreconditionerProbes": 2, "RandomSeed": 1},
                {"PreconditionerProbes": 2, "RandomSeed": 2},
                "RandomSeed is 1 there and 2 here",
            ),
        ],
    )
    def test_that_steps_depend_on_are_said(
        self, there: dict[str, Any], here: dict[str, Any], told: str, tmp_path: Path
    ) -> None:
        learner_on(**there).Save(tmp_path / "run")
        learner = learner_on(seed=1, **here)
        with pytest.warns(UserWarning, match="saved with other settings, and this learner keeps its own: ") as warned:
            learner.Load(tmp_path / "run")
        (message,) = (str(w.message) for w in warned)
        assert message.endswith(f": {told}")
        assert [w.filename for w in warned] == [__file__]

    def test_so_are_the_loaders_sizes(self, tmp_path: Path) -> None:
        learner_of(network(Dense(1))).Save(tmp_path / "run")
        learner = learner_of(network(Dense(1)), DataLoader=SinusoidLoader(5, 4, dtype=np.float64))
        with pytest.warns(UserWarning, match=r"keeps its own: DataLoader.KShot is 4 there and 5 here$"):
            learner.Load(tmp_path / "run")

    def test_are_said_together_and_are_this_learners(self, tmp_path: Path) -> None:
        learner_on().Save(tmp_path / "run")
        learner = learner_on(InnerLearningRate=0.5, AdaptationSteps=7)
        with pytest.warns(UserWarning, match=r"InnerLearningRate is .*; AdaptationSteps is 2 there and 7 here") as told:
            learner.Load(tmp_path / "run")
        assert len(told) == 1
        assert (learner.Options.InnerLearningRate, learner.Options.AdaptationSteps) == (0.5, 7)

    def test_that_differ_stop_nothing_half_way_where_warnings_are_errors(self, tmp_path: Path) -> None:
        first = learner_on(RandomSeed=3)
        first.MetaTrainStep(2)
        first.Save(tmp_path / "run")
        learner = learner_on(seed=2, RandomSeed=4, InnerLearningRate=0.5)
        with untouched(learner), pytest.raises(UserWarning, match="InnerLearningRate"):
            learner.Load(tmp_path / "run")

    @pytest.mark.parametrize("options", [[], 3, "x"])
    def test_that_are_malformed_are_refused(self, options: Any, tmp_path: Path) -> None:
        learner_on().Save(tmp_path / "run")
        arrays, description = opened(tmp_path / "run")
        description["options"] = options
        (tmp_path / "run").write_bytes(pack("meta-learner", arrays, description))
        refused(tmp_path / "run", "whose options is missing or malformed")


class TestOfVersion010:
    """Files that it wrote, with what its learners did next."""

    def test_models_are_read_with_a_warning(self) -> None:
        model = network(Dense(2), Tanh(), Dense(1))
        with pytest.warns(UserWarning, match=r"model.safetensors was written by aidotnet_py 0\.1\.0, without") as told:
            model.LoadModel(OLD / "model.safetensors")
        assert len(told) == 1
        assert model.GetParameters().tolist() == [
            *(-0.9217718878582433, -0.24708756438821874, 0.0, 0.0),
            *(1.6637239913911968, 0.659147749832255, 0.0),
        ]

    def test_learners_go_on_as_they_did(self) -> None:
        learner = learner_on(seed=8, RandomSeed=5)
        with pytest.warns(UserWarning, match=r"learner.safetensors was written by aidotnet_py 0\.1\.0") as told:
            learner.Load(OLD / "learner.safetensors")
        assert len(told) == 1
        assert learner.CurrentIteration == 2
        losses = [float(learner.MetaTrainStep(3).MetaLoss) for _ in range(2)]
        np.testing.assert_allclose(losses, [7.500497117026138, 7.603081643368679], rtol=1e-9)
        parameters = learner.BaseModel.GetParameters()[:3]
        wanted = [0.17668755498519492, -0.18783985242357007, 0.9084708049855242]
        np.testing.assert_allclose(parameters, wanted, rtol=1e-9)

    def test_learned_rates_and_momentum_too(self) -> None:
        model = NeuralNetworkModel(Sequential(Dense(2), Tanh(), Dense(1)), input_shape=(1,), seed=1)
        options = MetaSGDOptions(model, DataLoader=SinusoidLoader(4, 6), MetaOptimizer=SGDOptimizer(0.01, momentum=0.9))
        learner = MetaSGDAlgorithm(options)
        with pytest.warns(UserWarning, match="without checksum, layers and options"):
            learner.Load(OLD / "metasgd.safetensors")
        assert float(learner.MetaTrainStep(2).MetaLoss) == pytest.approx(4.501781940460205, rel=1e-5)

    def test_are_refused_where_they_always_were(self) -> None:
        learner = learner_on(MetaOptimizer=SGDOptimizer(0.1))
        with (
            untouched(learner),
            pytest.warns(UserWarning, match="0.1.0"),
            pytest.raises(ArgumentException, match="optimizer is AdamOptimizer there and SGDOptimizer here"),
        ):
            learner.Load(OLD / "learner.safetensors")

    def test_saved_anew_are_new(self, tmp_path: Path) -> None:
        shutil.copy(OLD / "model.safetensors", tmp_path / "model")
        model = network(Dense(2), Tanh(), Dense(1))
        with pytest.warns(UserWarning, match="0.1.0"):
            model.LoadModel(tmp_path / "model")
        model.SaveModel(tmp_path / "model")
        model.LoadModel(tmp_path / "model")


class TestDamage:
    def test_of_one_bit_is_refused_200_times_of_200(self, tmp_path: Path) -> None:
        learner = learner_on(RandomSeed=3)
        learner.MetaTrainStep(2)
        learner.Save(tmp_path / "run")
        learner.BaseModel.SaveModel(tmp_path / "model")
        model: Any = learner.BaseModel
        generator = np.random.default_rng(0)
        with untouched(learner):
            for name, load in (("run", learner.Load), ("model", model.LoadModel)):
                good = (tmp_path / name).read_bytes()
                for place in generator.choice(8 * len(good), 200, replace=False):
                    damaged = bytearray(good)
                    damaged[place // 8] ^= 1 << place % 8
                    (tmp_path / name).write_bytes(damaged)
                    with pytest.raises(ArgumentException):
                        load(tmp_path / name)

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_numbers_that_are_not_finite_are_refused(self, value: float, tmp_path: Path) -> None:
        model = FunctionModel(line, {"a": A, "b": B})
        data = forged("model", {"a": np.array([[1.0], [value]]), "b": B}, {})
        (tmp_path / "model").write_bytes(data)
        before = bits(model.GetParameters())
        with pytest.raises(ArgumentException, match=r"data must hold finite numbers, got NaN or infinity in a$"):
            model.Deserialize(data)
        with pytest.raises(ArgumentException, match=r"model must hold finite numbers, got NaN or infinity in a$"):
            model.LoadModel(tmp_path / "model")
        assert bits(model.GetParameters()) == before

    def test_what_could_not_be_loaded_is_not_saved_over_what_can(self, tmp_path: Path) -> None:
        model = FunctionModel(line, {"a": A, "b": B})
        model.SaveModel(tmp_path / "model")
        learner = learner_of(model, DataLoader=None)
        learner.Save(tmp_path / "run")
        files = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
        model.SetParameters(np.array([1.0, np.nan, 1.0, 1.0]))
        with pytest.raises(InvalidOperationException, match="a must be finite to be saved, got NaN or infinity in it"):
            model.SaveModel(tmp_path / "model")
        with pytest.raises(InvalidOperationException, match="parameters must be finite to be saved"):
            learner.Save(tmp_path / "run")
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == files


GENERATORS: dict[str, Any] = {
    "an even increment": lambda g: g["state"].update(inc=g["state"]["inc"] & ~1),
    "no increment": lambda g: g["state"].update(inc=0),
    "a state of 129 bits": lambda g: g["state"].update(state=2**128),
    "a negative state": lambda g: g["state"].update(state=-1),
    "an increment of 129 bits": lambda g: g["state"].update(inc=2**128 + 1),
    "a fractional state": lambda g: g["state"].update(state=1.0),
    "a state that is yes": lambda g: g["state"].update(state=True),
    "a text for a state": lambda g: g["state"].update(state="1"),
    "half a state": lambda g: g["state"].pop("inc"),
    "more than a state": lambda g: g["state"].update(pos=1),
    "another switch": lambda g: g.update(has_uint32=2),
    "a number that is too long": lambda g: g.update(uinteger=2**32),
    "a negative number": lambda g: g.update(uinteger=-1),
    "another bit generator": lambda g: g.update(bit_generator="MT19937"),
    "its sister": lambda g: g.update(bit_generator="PCG64DXSM"),
}


@pytest.mark.parametrize("whose", ["generator", "loader"])
@pytest.mark.parametrize("name", GENERATORS)
def test_a_generators_state_that_cannot_be_is_refused(name: str, whose: str, tmp_path: Path) -> None:
    learner_on(RandomSeed=3).Save(tmp_path / "run")
    arrays, description = opened(tmp_path / "run")
    GENERATORS[name](description["random_state"][whose])
    (tmp_path / "run").write_bytes(pack("meta-learner", arrays, description))
    refused(tmp_path / "run", "a state that this learner can take")
