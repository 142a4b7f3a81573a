"""Statistics that a learner's model normalises by: wherever the learner goes, they go along, and no others stay."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from plain_models import BareModel
from saved_learners import opened
from tanh_network import TanhNetwork

import aidotnet_py
from aidotnet_py import ArgumentException, MAMLAlgorithm, MAMLOptions, NeuralNetworkModel, RunFolder
from aidotnet_py.archives import pack
from aidotnet_py.backends import Backend, get_backend
from aidotnet_py.data import SinusoidLoader
from aidotnet_py.meta_learning.learner.model_statistics import set_statistics
from aidotnet_py.nn import BatchNorm, Dense, Sequential
from aidotnet_py.testing.learner_state import state_of, untouched

Learner = MAMLAlgorithm[Any, Any, Any]

MEAN, VARIANCE = "1_batchnorm.mean", "1_batchnorm.variance"
X = np.linspace(-1.0, 1.0, 6)[:, None]


def learner_of(seed: int, mean: float | None, backend: Backend | str = "numpy", **options: Any) -> Learner:
    """Return a learner of a model that normalises by these statistics, or by each batch."""
    network = Sequential(Dense(3), BatchNorm(), Dense(1))
    model = NeuralNetworkModel(network, input_shape=(1,), dtype=np.float64, backend=backend, seed=seed)
    if mean is not None:
        values = {MEAN: np.full(3, mean), VARIANCE: np.array([1.0, 2.0, 3.0])}
        model.set_statistics({name: model.backend.asarray(value) for name, value in values.items()})
    loader = SinusoidLoader(5, 5, seed=0, dtype=np.float64, backend=backend)
    return MAMLAlgorithm(MAMLOptions(model, DataLoader=loader, MetaBatchSize=2, RandomSeed=0, **options))


def predicted(learner: Learner) -> bytes:
    backend = learner.BaseModel.backend
    return backend.to_numpy(learner.Predict(backend.asarray(X))).tobytes()


@pytest.mark.parametrize("there", [None, 0.5])
@pytest.mark.parametrize("here", [None, 2.0])
def test_load_sets_or_clears_them(there: float | None, here: float | None, backend: Backend, tmp_path: Path) -> None:
    saved, other = learner_of(0, there, backend), learner_of(1, here, backend)
    saved.Save(tmp_path / "file")
    other.Load(tmp_path / "file")
    made = aidotnet_py.load(tmp_path / "file", backend=backend, DataLoader=saved.Options.DataLoader)
    for learner in (other, made):
        assert state_of(learner)["statistics"] == state_of(saved)["statistics"]
        assert predicted(learner) == predicted(saved)


COPIES: dict[str, Callable[[Learner], Learner]] = {
    "Clone": lambda learner: learner.Clone(),
    "DeepCopy": lambda learner: learner.DeepCopy(),
    "deepcopy": copy.deepcopy,
    "WithParameters": lambda learner: learner.WithParameters(learner.GetParameters()),
    "pickle": lambda learner: pickle.loads(pickle.dumps(learner)),
}


@pytest.mark.parametrize("name", COPIES)
def test_copies_have_their_own(name: str) -> None:
    learner = learner_of(0, 0.5)
    before = predicted(learner)
    other = COPIES[name](learner)
    assert predicted(other) == before
    other.BaseModel.set_statistics({})
    assert predicted(learner) == before != predicted(other)


def test_reset_keeps_them_with_the_parameters() -> None:
    learner = learner_of(0, 0.5)
    before = predicted(learner)
    learner.Reset()
    assert predicted(learner) == before


@pytest.mark.slow
def test_a_run_goes_on_with_them(tmp_path: Path) -> None:
    options = {"EvaluationFrequency": 0, "CheckpointFrequency": 1}
    whole = learner_of(0, 0.5, NumMetaIterations=4, **options)
    whole.Train()
    learner_of(0, 0.5, NumMetaIterations=2, **options).Train(run=RunFolder(tmp_path / "run"))
    resumed = learner_of(0, None, NumMetaIterations=4, **options)
    resumed.Train(resume=RunFolder(tmp_path / "run"))
    assert state_of(resumed) == state_of(whole)
    assert predicted(resumed) == predicted(whole)


def test_a_file_from_before_they_were_saved_leaves_them(tmp_path: Path) -> None:
    learner_of(0, None).Save(tmp_path / "file")
    arrays, description = opened(tmp_path / "file")
    assert description.pop("statistics") == []
    (tmp_path / "file").write_bytes(pack("meta-learner", arrays, description))
    learner = learner_of(1, 0.5)
    before = state_of(learner)["statistics"]
    learner.Load(tmp_path / "file")
    assert state_of(learner)["statistics"] == before


@pytest.mark.parametrize(
    ("arrays", "names", "message"),
    [
        ({MEAN: np.zeros(3)}, [MEAN], "means and variances of the model's layers in pairs"),
        ({MEAN: np.zeros(3), VARIANCE: -np.ones(3)}, [MEAN, VARIANCE], "variances of at least 0"),
        ({MEAN: np.zeros(3)}, [MEAN, VARIANCE], "one without the statistics that it lists"),
        ({MEAN: np.zeros(3), VARIANCE: np.ones(3)}, None, "one without the statistics that it lists"),
    ],
)
def test_others_are_refused_and_change_nothing(
    arrays: dict[str, Any], names: Any, message: str, tmp_path: Path
) -> None:
    learner_of(0, None).Save(tmp_path / "file")
    held, description = opened(tmp_path / "file")
    held |= {f"statistics: {name}": value for name, value in arrays.items()}
    (tmp_path / "file").write_bytes(pack("meta-learner", held, description | {"statistics": names}))
    learner = learner_of(1, 0.5)
    learner.MetaTrainStep(2)
    with untouched(learner), pytest.raises(ArgumentException, match=message):
        learner.Load(tmp_path / "file")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("there", [None, 2.0])
def test_a_load_that_fails_at_last_puts_them_back(there: float | None, tmp_path: Path) -> None:
    """The warning comes after all was taken up."""
    learner_of(0, there, InnerLearningRate=0.5).Save(tmp_path / "file")
    learner = learner_of(1, 0.5)
    with untouched(learner), pytest.raises(UserWarning, match="InnerLearningRate"):
        learner.Load(tmp_path / "file")


def test_a_model_that_can_hold_none_refuses_them() -> None:
    model = BareModel(network := TanhNetwork(1, 2), network.start(), get_backend("numpy"))
    set_statistics(model, {})
    with pytest.raises(ArgumentException, match=f"model must be a FunctionModel to hold {MEAN}, got a BareModel"):
        set_statistics(model, {MEAN: np.zeros(3)})
