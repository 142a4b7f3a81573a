"""Save and Load: a run goes on bit for bit, and a file that is not this learner's changes nothing."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
import textwrap
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from forged_files import forged
from places import ROOT
from plain_models import BareModel
from safetensors.numpy import save
from saved_learners import learner_on, opened, refused
from tanh_network import TanhNetwork

from aidotnet_py import (
    AdamOptimizer,
    ArgumentException,
    BalancedTaskSampler,
    CrossEntropyLoss,
    IGradientBasedOptimizer,
    MAMLAlgorithm,
    MAMLOptions,
    NeuralNetworkModel,
    SGDOptimizer,
    UniformTaskSampler,
    iMAMLAlgorithm,
    iMAMLOptions,
)
from aidotnet_py.archives import pack
from aidotnet_py.backends import Backend, get_backend
from aidotnet_py.data import ArrayLoader, MetaDatasetBase, SinusoidLoader
from aidotnet_py.nn import mlp
from aidotnet_py.testing.learner_state import bits, state_of, untouched

OPTIMIZERS: dict[str, Callable[[], IGradientBasedOptimizer | None]] = {
    "the default": lambda: None,
    "adam": lambda: AdamOptimizer(0.05),
    "momentum": lambda: SGDOptimizer(0.05, momentum=0.9),
    "sgd": lambda: SGDOptimizer(0.05),
}


@pytest.mark.numpy_first
class TestGoingOn:
    @pytest.mark.costly
    @pytest.mark.parametrize("name", OPTIMIZERS)
    def test_bit_for_bit(self, backend: Backend, name: str, tmp_path: Path) -> None:
        """As a run that never stopped, in a learner that had another past."""
        path, make = tmp_path / "run.safetensors", OPTIMIZERS[name]
        learner = learner_on(backend, MetaOptimizer=make(), RandomSeed=3)
        for _ in range(3):
            learner.MetaTrainStep(3)
        learner.Save(path)
        expected = [learner.MetaTrainStep(3).MetaLoss for _ in range(3)]
        resumed = learner_on(backend, seed=8, MetaOptimizer=make(), RandomSeed=5)
        resumed.MetaTrainStep(2)
        resumed.Load(path)
        assert resumed.CurrentIteration == 3
        assert [resumed.MetaTrainStep(3).MetaLoss for _ in range(3)] == expected
        assert state_of(resumed) == state_of(learner)

    def test_before_the_first_step(self, backend: Backend, tmp_path: Path) -> None:
        learner = learner_on(backend, RandomSeed=3)
        learner.Save(tmp_path / "run")
        before = state_of(learner)
        learner.MetaTrainStep(2)
        learner.Load(tmp_path / "run")
        assert state_of(learner) == before

    def test_saving_changes_nothing(self, tmp_path: Path) -> None:
        learner = learner_on(RandomSeed=3)
        learner.MetaTrainStep(2)
        with untouched(learner):
            learner.Save(tmp_path / "run")

    def test_over_an_older_file(self, tmp_path: Path) -> None:
        learner = learner_on()
        for _ in range(2):
            learner.MetaTrainStep(2)
            learner.Save(str(tmp_path / "run"))
        assert [p.name for p in tmp_path.iterdir()] == ["run"]
        other = learner_on(seed=4)
        other.Load(str(tmp_path / "run"))
        assert other.CurrentIteration == 2

    def test_from_numpy_to_another_backend(self, tmp_path: Path) -> None:
        learner, moved = learner_on("numpy", RandomSeed=3), learner_on("strict", RandomSeed=4)
        for _ in range(3):
            learner.MetaTrainStep(3)
        learner.Save(tmp_path / "run")
        moved.Load(tmp_path / "run")
        strict = get_backend("strict")
        assert strict.owns(moved.BaseModel.GetParameters())
        assert bits(moved.BaseModel.GetParameters()) == bits(learner.BaseModel.GetParameters())
        losses = [[one.MetaTrainStep(3).MetaLoss for _ in range(3)] for one in (learner, moved)]
        np.testing.assert_allclose(losses[1], losses[0], rtol=1e-12)

    def test_a_whole_run_in_two_halves(self, tmp_path: Path) -> None:
        options = {"NumMetaIterations": 6, "EvaluationFrequency": 2, "EvaluationTasks": 4, "RandomSeed": 1}
        whole = learner_on(**options).Train()
        first = learner_on(**(options | {"NumMetaIterations": 3}))
        early = first.Train()
        first.Save(tmp_path / "run")
        second = learner_on(seed=9, **(options | {"NumMetaIterations": 3}))
        second.Load(tmp_path / "run")
        late = second.Train()
        np.testing.assert_array_equal([*early.LossHistory, *late.LossHistory], whole.LossHistory)
        assert {**early.AdditionalMetrics, **late.AdditionalMetrics}.keys() == whole.AdditionalMetrics.keys()
        assert late.AdditionalMetrics["EvaluationLoss@6"] == whole.AdditionalMetrics["EvaluationLoss@6"]

    @pytest.mark.slow
    def test_in_another_process(self, tmp_path: Path) -> None:
        learner = learner_on(RandomSeed=3)
        for _ in range(2):
            learner.MetaTrainStep(3)
        learner.Save(tmp_path / "run")
        expected = [float(learner.MetaTrainStep(3).MetaLoss).hex() for _ in range(2)]
        script = """
            import strict_backend, saved_learners
            learner = saved_learners.learner_on(seed=7)
            learner.Load("run")
            print([float(learner.MetaTrainStep(3).MetaLoss).hex() for _ in range(2)])
        """
        paths = os.pathsep.join([str(ROOT / "tests" / "support"), *sys.path])
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(script)],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": paths},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.strip() == str(expected)

    @pytest.mark.filterwarnings("ignore:.*simultaneous perturbation")
    def test_random_directions_go_on_too(self, tmp_path: Path) -> None:
        network, backend = TanhNetwork(1, 8), get_backend("numpy")

        def make(seed: int) -> iMAMLAlgorithm[Any, Any, Any]:
            options = iMAMLOptions(
                BareModel(network, network.start(), backend),
                UseFirstOrder=True,
                AdaptationSteps=1,
                RandomSeed=seed,
                DataLoader=SinusoidLoader(4, 4, dtype=np.float64),
            )
            return iMAMLAlgorithm(options)

        learner, resumed = make(1), make(2)
        learner.MetaTrainStep(1)
        learner.Save(tmp_path / "run")
        resumed.Load(tmp_path / "run")
        assert learner.MetaTrainStep(1).MetaLoss == resumed.MetaTrainStep(1).MetaLoss
        assert bits(learner.BaseModel.GetParameters()) == bits(resumed.BaseModel.GetParameters())

    def test_a_loader_without_state_stays_as_it_is(self, tmp_path: Path) -> None:
        class Forgetful(SinusoidLoader[Any]):
            GetState = None  # type: ignore[assignment]

        learner = learner_on()
        learner.Options.DataLoader = None
        learner.Save(tmp_path / "run")
        other = learner_on(seed=1)
        before = bits(other._random.get()["loader"])
        with pytest.warns(UserWarning, match="holds no place of a loader"):
            other.Load(tmp_path / "run")
        assert bits(other._random.get()["loader"]) == before


class TestPlaces:
    """What a file holds of places in loaders and samplers that are not those it was saved with."""

    inputs = np.random.default_rng(0).normal(size=(120, 2)).astype(np.float32)
    labels = np.repeat(range(6), 20)

    def student(self, **given: Any) -> Any:
        model = NeuralNetworkModel(mlp(4, 2), input_shape=(2,), loss=CrossEntropyLoss(), seed=0)
        given = {"EvaluationFrequency": 0, "MetaBatchSize": 2, "AdaptationSteps": 1, "NumMetaIterations": 2, **given}
        return MAMLAlgorithm(MAMLOptions(model, **given))

    def loader(self, classes: int = 6, weighting: Any = "balanced") -> Any:
        count = 20 * classes
        return ArrayLoader(self.inputs[:count], self.labels[:count], 2, QueryShots=5, weighting=weighting, seed=0)

    @pytest.mark.parametrize(
        ("role", "weighting"),
        [("DataLoader", "balanced"), ("ValidationLoader", "balanced"), ("ValidationLoader", "uniform")],
    )
    def test_that_fit_no_other_loader_leave_it(self, role: str, weighting: str, tmp_path: Path) -> None:
        trained = self.student(DataLoader=self.loader(), ValidationLoader=self.loader())
        trained.MetaTrainStep(2)
        trained.Save(tmp_path / "run")
        loaders = {"DataLoader": self.loader(), "ValidationLoader": self.loader()}
        loaders[role] = other = self.loader(5, weighting)
        student, place = self.student(**loaders), other.GetState()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            student.Load(tmp_path / "run")
        assert f"the saved place does not fit ArrayLoader, the {role} of this learner" in str(caught[-1].message)
        assert other.GetState() == place
        np.testing.assert_array_equal(student.GetParameters(), trained.GetParameters())

    def sampler(self, seed: int) -> Any:
        data = MetaDatasetBase("d", self.inputs, self.labels, seed=seed)
        return BalancedTaskSampler(data, numWays=2, numQueryPerClass=5, seed=seed)

    @pytest.mark.parametrize("saved_again", [False, True])
    def test_in_a_sampler_are_those_of_the_next_run(
        self, saved_again: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        whole = self.student(NumMetaIterations=4, EnableCheckpointing=True, CheckpointFrequency=2)
        whole.Train(self.sampler(1))
        resumed = self.student()
        resumed.Load("checkpoint_MAML_2.safetensors")
        if saved_again:
            resumed.Save("again")
            resumed = self.student()
            resumed.Load("again")
        resumed.Train(self.sampler(8))
        np.testing.assert_array_equal(resumed.GetParameters(), whole.GetParameters())
        # It has its own place again, where a step was taken.
        fresh, stepped = self.sampler(8), self.student()
        stepped.Load("checkpoint_MAML_2.safetensors")
        stepped.MetaTrainStep(fresh, 2)
        place = fresh.GetState()
        stepped.Options.NumMetaIterations = 1
        seen = list[Any]()
        SampleOne = fresh.SampleOne
        monkeypatch.setattr(fresh, "SampleOne", lambda: (seen.append(fresh.GetState()), SampleOne())[1])
        stepped.Train(fresh)
        assert seen[0] == place

    def test_that_do_not_fit_a_sampler_leave_it(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        self.student(EnableCheckpointing=True, CheckpointFrequency=2).Train(self.sampler(1))
        data = MetaDatasetBase("d", self.inputs, self.labels, seed=3)
        other, twin = (UniformTaskSampler(copy.deepcopy(data), numWays=2, numQueryPerClass=5) for _ in range(2))
        resumed, without = self.student(), self.student()
        resumed.Load("checkpoint_MAML_2.safetensors")
        with pytest.warns(UserWarning, match="does not fit UniformTaskSampler, the sampler of this run"):
            resumed.Train(other)
        without.Train(twin)
        assert other.GetState() == twin.GetState()


class Remembering:
    """An optimizer of the user's, with a state of several kinds."""

    def __init__(self) -> None:
        self.state: dict[str, Any] = {"count": 0, "label": "a", "rates": [0.1, 0.2]}

    def UpdateParameters(self, parameters: Any, gradient: Any) -> Any:
        self.state["count"] += 1
        self.state["last"] = get_backend("numpy").asarray(gradient)
        return parameters - 0.1 * gradient

    def Reset(self) -> None:
        self.state = {"count": 0}

    def GetCurrentLearningRate(self) -> float:
        return 0.1

    def GetState(self) -> dict[str, Any]:
        return dict(self.state)

    def SetState(self, state: Mapping[str, Any]) -> None:
        self.state = dict(state)


def test_an_optimizer_of_the_users(tmp_path: Path) -> None:
    learner = learner_on(MetaOptimizer=Remembering())
    learner.MetaTrainStep(2)
    learner.Save(tmp_path / "run")
    other = learner_on(MetaOptimizer=Remembering())
    other.Load(tmp_path / "run")
    assert bits(other._meta_optimizer().GetState()) == bits(learner._meta_optimizer().GetState())


@pytest.mark.parametrize(
    "state",
    [
        {"generator": np.random.default_rng(0)},
        {"counts": {1: "a", "1": "b"}},
        {0: 1.0, "0": 2.0},
        {0: np.zeros(3)},
    ],
    ids=["an object", "names in it", "names", "names of arrays"],
)
def test_a_state_that_no_file_can_hold(state: dict[Any, Any], tmp_path: Path) -> None:
    optimizer = Remembering()
    optimizer.state |= state
    learner = learner_on(MetaOptimizer=optimizer)
    with pytest.raises(
        ArgumentException, match=r"the states of the optimizer Remembering and the DataLoader must consist of"
    ):
        learner.Save(tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="filePath must lie in an existing folder"):
        learner_on().Save(tmp_path / "nowhere" / "run")


def test_a_failed_write_is_no_success(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    learner = learner_on()
    learner.Save(tmp_path / "run")
    before = (tmp_path / "run").read_bytes()
    learner.MetaTrainStep(2)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        learner.Save(tmp_path / "run")
    assert (tmp_path / "run").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


def test_a_name_that_cannot_be_written(tmp_path: Path) -> None:
    """By anybody, whatever rights they have: the system's own error, and nothing left of the attempt."""
    learner = learner_on()
    for save_it in (learner.Save, learner.GetMetaModel().SaveModel):
        with untouched(learner), pytest.raises(OSError, match="File name too long") as found:
            save_it(tmp_path / ("n" * 300))
        assert not isinstance(found.value, ArgumentException)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def after_two_steps(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    learner, path = learner_on(RandomSeed=3), tmp_path_factory.mktemp("saved") / "run"
    for _ in range(2):
        learner.MetaTrainStep(2)
    learner.Save(path)
    return path.read_bytes()


@pytest.fixture
def saved(tmp_path: Path, after_two_steps: bytes) -> Path:
    path = tmp_path / "run"
    path.write_bytes(after_two_steps)
    return path


def deep(levels: int) -> Any:
    value: Any = 0
    for _ in range(levels):
        value = [value]
    return value


TAMPERED: dict[str, tuple[Callable[[dict[str, Any], dict[str, Any]], Any], str]] = {
    "another algorithm": (
        lambda a, d: d.update(algorithm="MAML"),
        r"run is of another learner: algorithm is MAML there and iMAML here$",
    ),
    "algorithm of no name": (lambda a, d: d.update(algorithm=3), "whose algorithm is missing or malformed"),
    "another optimizer": (
        lambda a, d: d.update(optimizer="SGDOptimizer"),
        "run is of another learner: optimizer is SGDOptimizer there and AdamOptimizer here",
    ),
    "no iteration": (
        lambda a, d: d.pop("iteration"),
        "must be a whole checkpoint, got one whose iteration is missing or malformed",
    ),
    "negative iteration": (lambda a, d: d.update(iteration=-1), "must hold an iteration from 0 to .*, got -1"),
    "endless iteration": (lambda a, d: d.update(iteration=10**30), "must hold an iteration from 0 to .*, got 1000"),
    "iteration and a half": (lambda a, d: d.update(iteration=1.5), "whose iteration is missing or malformed"),
    "iteration yes": (lambda a, d: d.update(iteration=True), "whose iteration is missing or malformed"),
    "no parameters": (lambda a, d: a.pop("parameters"), "got one without parameters"),
    "parameters of another length": (
        lambda a, d: a.update(parameters=a["parameters"][:-1]),
        r"the parameter vector is float64\(18,\) there and float64\(19,\) here",
    ),
    "parameters of another dtype": (
        lambda a, d: a.update(parameters=a["parameters"].astype(np.float32)),
        r"the parameter vector is float32\(19,\) there and float64\(19,\) here",
    ),
    "parameters that are not numbers": (
        lambda a, d: a["parameters"].__setitem__(3, np.nan),
        "run must hold finite numbers, got NaN or infinity in parameters",
    ),
    "moments that are not numbers": (
        lambda a, d: a["optimizer.first_moment"].__setitem__(3, np.inf),
        "run must hold finite numbers, got NaN or infinity in optimizer.first_moment",
    ),
    "moments of another shape": (
        lambda a, d: a.update({"optimizer.second_moment": np.zeros(7)}),
        r"optimizer state second_moment is float64\(7,\) there and float64\(19,\) here",
    ),
    "moments of another dtype": (
        lambda a, d: a.update({"optimizer.second_moment": np.zeros(19, np.float32)}),
        r"optimizer state second_moment is float32\(19,\) there and float64\(19,\) here",
    ),
    "half of the moments": (lambda a, d: a.pop("optimizer.second_moment"), "a state that this learner can take"),
    "moments of another optimizer": (
        lambda a, d: a.update({"optimizer.velocity": np.zeros(19)}),
        "a state that this learner can take",
    ),
    "no steps": (lambda a, d: d["optimizer_state"].clear(), "a state that this learner can take"),
    "negative steps": (lambda a, d: d["optimizer_state"].update(steps=-1), "a state that this learner can take"),
    "endless steps": (
        lambda a, d: d["optimizer_state"].update(steps=10**30),
        "optimizer state steps in .* must be from .*, got 1000",
    ),
    "no optimizer state": (lambda a, d: d.pop("optimizer_state"), "whose optimizer_state is missing or malformed"),
    "a list for a state": (lambda a, d: d.update(optimizer_state=[1]), "whose optimizer_state is missing or malformed"),
    "no random state": (lambda a, d: d.pop("random_state"), "whose random_state is missing or malformed"),
    "an empty random state": (lambda a, d: d.update(random_state={}), "a state that this learner can take"),
    "another generator": (
        lambda a, d: d["random_state"]["generator"].update(bit_generator="MT19937"),
        "a state that this learner can take",
    ),
    "a generator out of range": (
        lambda a, d: d["random_state"]["generator"]["state"].update(state=2**200),
        "a state that this learner can take",
    ),
    "a text for a generator": (
        lambda a, d: d["random_state"].update(generator="PCG64"),
        "a state that this learner can take",
    ),
    "a loader out of range": (
        lambda a, d: d["random_state"]["loader"]["state"].update(state=-1),
        "a state that this learner can take",
    ),
    "a number for a loader": (
        lambda a, d: d["random_state"].update(loader=5),
        "a state that this learner can take",
    ),
}


class TestForeignFiles:
    @pytest.mark.parametrize("name", TAMPERED)
    def test_tampered_with(self, saved: Path, name: str) -> None:
        change, message = TAMPERED[name]
        arrays, description = opened(saved)
        arrays = {key: np.array(value) for key, value in arrays.items()}
        change(arrays, description)
        saved.write_bytes(forged("meta-learner", arrays, description))
        refused(saved, message)

    def test_the_file_itself_is_taken(self, saved: Path) -> None:
        arrays, description = opened(saved)
        saved.write_bytes(pack("meta-learner", arrays, description))
        learner = learner_on(seed=5)
        learner.Load(saved)
        assert learner.CurrentIteration == 2

    def test_as_many_steps_as_any_number_can_count(self, saved: Path) -> None:
        arrays, description = opened(saved)
        most = 2**53
        description["iteration"] = description["optimizer_state"]["steps"] = most
        saved.write_bytes(pack("meta-learner", arrays, description))
        learner = learner_on(seed=5)
        learner.Load(saved)
        assert learner.CurrentIteration == learner._meta_optimizer().GetState()["steps"] == most
        assert learner.MetaTrainStep(2).Iteration == most + 1
        for part, name in ((description, "iteration"), (description["optimizer_state"], "steps")):
            part[name] = most + 1
            saved.write_bytes(pack("meta-learner", arrays, description))
            refused(saved, f"got {most + 1}")
            part[name] = most

    @pytest.mark.parametrize("length", [0, 1, 7, 8, 100, -1])
    def test_cut_off(self, saved: Path, length: int) -> None:
        saved.write_bytes(saved.read_bytes()[:length])
        refused(saved, "must be a safetensors file|is damaged")

    def test_no_such_file(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match="filePath must be an existing file"):
            learner_on().Load(tmp_path / "nothing")
        refused(tmp_path, "filePath must be a regular file, got a folder")

    @pytest.mark.parametrize(
        "data",
        [b"", b"\x80\x04K\x01.", b"PK\x03\x04" + bytes(100), np.random.default_rng(0).bytes(64)],
        ids=["empty", "pickle", "zip", "noise"],
    )
    def test_something_else(self, saved: Path, data: bytes) -> None:
        saved.write_bytes(data)
        refused(saved, "must be a safetensors file")

    def test_a_model_is_no_checkpoint(self, tmp_path: Path) -> None:
        learner_on().GetMetaModel().SaveModel(tmp_path / "run")
        refused(tmp_path / "run", "must hold 'meta-learner', got 'model'")

    @pytest.mark.parametrize("description", ["null", "[]", "3", '"x"', "{", "", "[" * 100_000])
    def test_malformed_descriptions(self, saved: Path, description: str) -> None:
        arrays, _ = opened(saved)
        saved.write_bytes(save(arrays, {"kind": "meta-learner", "description": description}))
        refused(saved, "must be a safetensors file|must hold a mapping as its description")

    def test_deep_and_huge_states(self, saved: Path) -> None:
        arrays, description = opened(saved)
        description["random_state"]["generator"] = deep(400)
        saved.write_bytes(pack("meta-learner", arrays, description))
        refused(saved, "a state that this learner can take")
        description["random_state"]["generator"] = {"bit_generator": "x" * 10**6}
        saved.write_bytes(pack("meta-learner", arrays, description))
        refused(saved, "a state that this learner can take")

    def test_of_a_learner_with_another_optimizer(self, saved: Path) -> None:
        refused(saved, "optimizer is AdamOptimizer there and SGDOptimizer here", MetaOptimizer=SGDOptimizer(0.1))

    def test_a_model_that_refuses_at_last(self, saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Optimizer and random state were taken up already; they are put back."""
        learner = learner_on(seed=5, RandomSeed=7)
        learner.MetaTrainStep(2)
        model: Any = learner.BaseModel
        before, set_parameters, calls = state_of(learner), model.SetParameters, []

        def once(parameters: Any) -> None:
            calls.append(parameters)
            if len(calls) == 1:
                raise AttributeError("not today")
            set_parameters(parameters)

        monkeypatch.setattr(model, "SetParameters", once)
        with pytest.raises(ArgumentException, match=r"a state that this learner can take: .*not today"):
            learner.Load(saved)
        assert state_of(learner) == before
