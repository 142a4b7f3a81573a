"""Learners, models, tasks and Programs in other processes, however these are started."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
from typing import Any

import joblib
import numpy as np
import pytest
from process_cases import KINDS, answer, learner_of, line, line_learner

from aidotnet_py import FunctionModel, InvalidOperationException, MAMLAlgorithm, MAMLOptions
from aidotnet_py.autodiff import trace
from aidotnet_py.autodiff.extend import Primitive
from aidotnet_py.data import SinusoidLoader


@pytest.mark.costly
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("steps", [0, 2])
def test_a_pickle_goes_on_with_the_bits_of_the_original(kind: str, steps: int) -> None:
    learner = learner_of(kind, steps=steps)
    wanted = answer(learner)
    assert answer(pickle.loads(pickle.dumps(learner))) == wanted
    assert answer(copy.copy(pickle.loads(pickle.dumps(learner)))) == wanted


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_in_processes_of_multiprocessing(method: str) -> None:
    learners = [learner_of(kind, steps=2) for kind in KINDS] + [line_learner()]
    with multiprocessing.get_context(method).Pool(1) as pool:
        assert pool.map(answer, learners) == [answer(learner) for learner in learners]


@pytest.mark.slow
def test_in_processes_of_joblib() -> None:
    learners: list[Any] = [learner_of(kind, steps=2) for kind in ("iMAML", "MAML")]
    model = FunctionModel(lambda p, x: x @ p["w"], {"w": np.ones((1, 1))})
    learners.append(MAMLAlgorithm(MAMLOptions(model, DataLoader=SinusoidLoader(seed=0, dtype=np.float64))))
    given = joblib.Parallel(n_jobs=2)(joblib.delayed(answer)(learner) for learner in learners)
    assert given == [answer(learner) for learner in learners]


def test_a_lambda_has_no_name_to_be_pickled_by() -> None:
    model = FunctionModel(lambda p, x: x @ p["w"], {"w": np.ones((1, 1))})
    for holder in (model, MAMLOptions(model), MAMLAlgorithm(MAMLOptions(model))):
        with pytest.raises(InvalidOperationException, match=r"function must be .* imported by its name .*<lambda>"):
            pickle.dumps(holder)
        copy.deepcopy(holder)
    by_name = pickle.loads(pickle.dumps(FunctionModel(line, {"w": np.ones((1, 1))})))
    np.testing.assert_array_equal(by_name.Predict(np.array([[3.0]])), [[3.0]])


def test_a_program_is_pickled_with_the_names_of_its_primitives() -> None:
    x = np.random.default_rng(0).normal(size=(3, 2))
    program = trace(lambda x: np.sin(x @ x.T).sum(axis=0) + np.arange(3.0), x)
    program(x)
    for other in (pickle.loads(pickle.dumps(program)), copy.deepcopy(program)):
        assert str(other) == str(program)
        np.testing.assert_array_equal(other(x), program(x))


def test_a_primitive_whose_name_is_taken_is_not_pickled() -> None:
    _, twin = (Primitive("named_twice", *[lambda *_: None] * 5) for _ in range(2))  # type: ignore[arg-type]
    with pytest.raises(InvalidOperationException, match="must be its own"):
        pickle.dumps(twin)
