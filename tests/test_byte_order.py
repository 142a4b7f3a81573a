"""Arrays in the other byte order, as files give them, and in packed records: read as their values, or refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from aidotnet_py import (
    CrossEntropyLoss,
    FunctionModel,
    MAMLAlgorithm,
    MAMLOptions,
    MeanSquaredErrorLoss,
    MetaLearningTask,
    SGDOptimizer,
    TaskBatch,
    iMAMLAlgorithm,
    iMAMLOptions,
)
from aidotnet_py import autodiff as ad
from aidotnet_py.autodiff.execution import Executable
from aidotnet_py.backends import Backend, get_backend
from aidotnet_py.exceptions import ArgumentException

NUMPY = get_backend("numpy")
RNG = np.random.default_rng(0)
X, V = RNG.standard_normal((2, 6, 4))


def swapped(a: Any) -> Any:
    return a.astype(a.dtype.newbyteorder(">"))


def packed(a: Any) -> Any:
    """In records of nine bytes, so that neither addresses nor strides are whole numbers of elements."""
    records = np.zeros(a.shape, [("flag", "u1"), ("value", a.dtype)])
    records["value"] = a
    return records["value"]


STRANGE = [swapped, packed]


def value(a: Any) -> Any:
    return np.sum(np.tanh(a) ** 2)


def row(a: Any) -> Any:
    return np.tanh(a) * a


TRANSFORMS: dict[str, Callable[[Any, Any], Any]] = {
    "grad": lambda x, v: ad.grad(value)(x),
    "value": lambda x, v: ad.value_and_grad(value)(x)[0],
    "jvp": lambda x, v: ad.jvp(row, (x,), (v,)),
    "vjp": lambda x, v: (ad.vjp(row, x)[0], *ad.vjp(row, x)[1](v)),
    "hvp": lambda x, v: ad.hvp(value, x, v),
    "linearize": lambda x, v: ad.linearize(row, x)[1](v),
    "vmap": lambda x, v: ad.vmap(np.dot)(x, v),
    "vmap of columns": lambda x, v: ad.vmap(np.dot, (1, 1))(x, v),
    "nothing done": lambda x, v: ad.vmap(lambda a: a)(x),
    "trace": lambda x, v: ad.trace(np.multiply, x, v)(x, v),
    "in a closure": lambda x, v: ad.grad(lambda a: np.sum(a * v))(np.ones(v.shape, v.dtype.newbyteorder("="))),
    "by index": lambda x, v: ad.vmap(np.take)(x, v.argsort(1).astype(">i8")),
}


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("strange", STRANGE)
@pytest.mark.parametrize("name", TRANSFORMS)
def test_transforms(name: str, strange: Callable[[Any], Any], dtype: Any) -> None:
    x, v = X.astype(dtype), V.astype(dtype)
    found, wanted = (TRANSFORMS[name](a, b) for a, b in ((strange(x), strange(v)), (x, v)))
    for one, other in zip(*(r if isinstance(r, tuple) else (r,) for r in (found, wanted)), strict=True):
        assert one.dtype == other.dtype
        assert one.dtype.isnative
        assert_array_equal(one, other)


@pytest.mark.parametrize("strange", STRANGE)
def test_constants_of_compiled_programs(strange: Callable[[Any], Any]) -> None:
    """Compiled work reads memory as it lies."""
    constant = strange(V)
    program = ad.trace(lambda a: np.maximum(a * constant, 0.25) + constant, X)
    executable = Executable(program, NUMPY, compile_at=1)
    executable.compile()
    executable.inputs[0][...] = X
    executable.run()
    assert_array_equal(executable.outputs[0], np.maximum(X * V, 0.25) + V)


@pytest.mark.parametrize(
    "conversion",
    [
        lambda a: a.astype(">f4") * 2.0,
        lambda a: np.zeros_like(a, ">f8") + a,
        lambda a: np.ones_like(a, dtype=">f8") * a,
        lambda a: np.full_like(a, 2.5, ">f8") * a,
        lambda a: ad.one_hot(np.arange(4), 4, ">f4") * a[:4],
    ],
    ids=["astype", "zeros_like", "ones_like", "full_like", "one_hot"],
)
def test_conversions_in_a_function(conversion: Callable[[Any], Any]) -> None:
    wanted = conversion(X)
    wanted = wanted.astype(wanted.dtype.newbyteorder("="))
    executable = Executable(ad.trace(conversion, X), NUMPY, compile_at=1)
    executable.compile()
    executable.inputs[0][...] = X
    executable.run()
    for found in (executable.outputs[0], ad.jvp(conversion, (X,), (V,))[0]):
        assert found.dtype == wanted.dtype
        assert_array_equal(found, wanted)


@pytest.mark.parametrize("strange", STRANGE)
def test_an_executable_refuses_them(strange: Callable[[Any], Any]) -> None:
    program = ad.trace(lambda a: a * 2.0, X)
    for given, name in (({"inputs": [strange(X)]}, "inputs"), ({"outputs": [strange(X)]}, "outputs")):
        with pytest.raises(ArgumentException, match=rf"{name}\[0\] must be in native byte order"):
            Executable(program, NUMPY, **given)
    assert Executable(program, NUMPY, inputs=[X[::2, ::-1].repeat(2, 0)]).outputs[0].shape == X.shape


def test_a_backend_makes_native_arrays(backend: Backend) -> None:
    for a in (swapped(X), packed(X), swapped(np.arange(3)), swapped(np.float32([1.5]))):
        made = backend.asarray(a)
        assert backend.dtype_of(made) == a.dtype.newbyteorder("=")
        assert backend.to_numpy(made).dtype.isnative
        assert_array_equal(backend.to_numpy(made), a)


def run(strange: Callable[[Any], Any], algorithm: Any, options: Any, loss: Any) -> list[Any]:
    """A training that is compiled on its way, everything in it given in a strange form."""
    w, shift = RNG_FREE["w"], strange(RNG_FREE["shift"])
    model = FunctionModel(lambda p, x: np.tanh(x @ p["w"]) * shift, {"w": strange(w)}, loss=loss())
    model.SetParameters(strange(0.5 * w.ravel()))
    learner = algorithm(options(model, MetaOptimizer=SGDOptimizer(0.1), AdaptationSteps=2))
    labels = np.arange(6) % 3
    y = labels if loss is CrossEntropyLoss else np.eye(3)[labels]
    tasks = [
        MetaLearningTask(
            SupportSetX=strange(X + k), SupportSetY=strange(y), QuerySetX=strange(V - k), QuerySetY=strange(y)
        )
        for k in range(2)
    ]
    losses = [learner.MetaTrain(TaskBatch(tasks)) for _ in range(5)]
    adapted = learner.Adapt(tasks[0])
    return [*losses, learner.Evaluate(TaskBatch(tasks)), adapted.GetParameters(), adapted.Predict(strange(X))]


RNG_FREE = {"w": RNG.standard_normal((4, 3)), "shift": RNG.standard_normal(3)}


@pytest.mark.costly
@pytest.mark.parametrize("strange", STRANGE)
@pytest.mark.parametrize("loss", [CrossEntropyLoss, MeanSquaredErrorLoss])
@pytest.mark.parametrize(("algorithm", "options"), [(MAMLAlgorithm, MAMLOptions), (iMAMLAlgorithm, iMAMLOptions)])
def test_training(strange: Callable[[Any], Any], algorithm: Any, options: Any, loss: Any) -> None:
    for found, wanted in zip(
        run(strange, algorithm, options, loss), run(np.asarray, algorithm, options, loss), strict=True
    ):
        assert np.asarray(found).dtype.isnative
        assert_array_equal(found, wanted)
