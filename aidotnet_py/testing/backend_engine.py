"""Checks of what the package computes on a backend: derivatives, Programs, solves, training, against NumPy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aidotnet_py.autodiff import (
    at,
    conv2d,
    hvp,
    layer_norm,
    log_softmax,
    max_pool2d,
    trace,
    vmap,
)
from aidotnet_py.backends import Backend, get_backend
from aidotnet_py.losses import CrossEntropyLoss
from aidotnet_py.meta_learning import (
    MAMLAlgorithm,
    MAMLOptions,
    MetaLearningTask,
    TaskBatch,
    iMAMLAlgorithm,
    iMAMLOptions,
)
from aidotnet_py.models import NeuralNetworkModel
from aidotnet_py.nn import BatchNorm, Conv2D, Dense, Flatten, MaxPool2D, ReLU, Sequential, mlp
from aidotnet_py.optimizers import SGDOptimizer
from aidotnet_py.solvers import conjugate_gradient, gmres, neumann_series
from aidotnet_py.testing.derivatives import check_derivatives
from aidotnet_py.testing.systems import MatrixOperator, symmetric_matrices

__all__ = ["ENGINE_CHECKS"]

Host = NDArray[Any]
Function = Callable[..., Any]
_REPEATS = 12


def _close(what: str, found: Host, wanted: Host, rtol: float = 1e-9) -> None:
    size = max(1.0, float(np.abs(wanted).max(initial=0.0)))
    difference = float(np.abs(found - wanted).max(initial=0.0))
    # Written so that NaN fails.
    if not difference <= rtol * size:
        raise AssertionError(
            f"{what} must be NumPy's to {rtol * size:.2g}, got a largest difference of {difference:.2g}"
        )


def _dense(p: Any, x: Any) -> Any:
    hidden = layer_norm(np.tanh(x @ p["w"] + p["b"]), p["scale"], p["shift"])
    return log_softmax(hidden[:, ::-1] * np.cumsum(hidden, axis=0))


def _images(p: Any, x: Any) -> Any:
    return max_pool2d(conv2d(x, p["kernel"], padding=1), 2)


def _rows(p: Any, x: Any) -> Any:
    chosen = np.sort(p["rows"], axis=0)[[2, 0, 2]]
    square = p["square"] + 4 * np.diag(np.ones_like(x[0]))
    parts: list[Any] = [at(chosen)[1].add(x[0]), np.linalg.solve(square, chosen)]
    return np.concatenate(parts, axis=1)


def _cases() -> dict[str, tuple[Function, dict[str, Host], Host]]:
    rng = np.random.default_rng(3)

    def uniform(*shape: int) -> Host:
        return np.asarray(rng.uniform(-1, 1, shape))

    dense = {"w": uniform(2, 3), "b": uniform(3), "scale": uniform(3), "shift": uniform(3)}
    # Apart from each other, so that no maximum and no order changes within a difference.
    image = rng.permutation(32).reshape(1, 4, 4, 2) / 8.0
    spread = rng.permutation(9).reshape(3, 3) / 4.0
    return {
        "dense layers": (_dense, dense, uniform(4, 2)),
        "convolutions": (_images, {"kernel": uniform(3, 3, 2, 2)}, image),
        "rows": (_rows, {"rows": spread, "square": uniform(3, 3)}, uniform(1, 3)),
    }


def _derivatives(backend: Backend) -> None:
    for name, (function, parameters, x) in _cases().items():
        own = {key: backend.asarray(value) for key, value in parameters.items()}
        try:
            # Second derivatives are those of `_programs`.
            check_derivatives(function, own, backend.asarray(x), order=1, tolerance=1e-6)
        except AssertionError as error:
            raise AssertionError(f"of {name}, {error}") from error


def _hessian_products(function: Function) -> Function:
    def product(p: Any, x: Any) -> Any:
        def loss(p: Any) -> Any:
            return np.sum(np.square(function(p, x)))

        return hvp(loss, p, p)

    return product


def _programs(backend: Backend) -> None:
    for name, (function, parameters, x) in _cases().items():
        work = _hessian_products(function)
        for dtype, rtol in ((np.float64, 1e-11), (np.float32, 1e-4)):
            wanted = _run(get_backend("numpy"), work, parameters, x, dtype, 1)
            found = _run(backend, work, parameters, x, dtype, _REPEATS)
            for key in parameters:
                _close(f"the Hessian product of {name} in {key!r}, {np.dtype(dtype)},", found[key], wanted[key], rtol)


def _run(on: Backend, work: Function, parameters: dict[str, Host], x: Host, dtype: Any, times: int) -> dict[str, Host]:
    own = {key: on.asarray(value, dtype) for key, value in parameters.items()}
    inputs = on.asarray(x, dtype)
    program = trace(work, own, inputs)
    result = program(own, inputs)
    # Again and again, until what can be compiled is.
    for _ in range(times - 1):
        result = program(own, inputs)
    return {key: on.to_numpy(value) for key, value in result.items()}


def _mapped(backend: Backend) -> None:
    def cubes(row: Any) -> Any:
        return np.sum(row**3) * row

    rows = np.arange(6.0).reshape(3, 2)
    _close("vmap", backend.to_numpy(vmap(cubes)(backend.asarray(rows))), (rows**3).sum(1, keepdims=True) * rows)


def _solves(backend: Backend) -> None:
    rng = np.random.default_rng(4)
    A, b = symmetric_matrices(rng, rng.uniform(0.5, 1.5, (3, 8))), rng.standard_normal((3, 8))
    wanted = np.linalg.solve(A, b[..., None])[..., 0]
    diagonal = np.linspace(0.5, 1.5, 8)
    device = backend.asarray(diagonal[None])

    def on_the_backend(v: Any) -> Any:
        return v * device

    def series(operator: Any, rhs: Any) -> Any:
        return neumann_series(operator, rhs, terms=60)

    for name, solve in {"conjugate_gradient": conjugate_gradient, "gmres": gmres, "neumann_series": series}.items():
        x, report = solve(MatrixOperator(A, backend), backend.asarray(b))
        _close(f"{name} by products of the host", backend.to_numpy(x), wanted)
        for _ in range(_REPEATS):
            x, report = solve(on_the_backend, backend.asarray(b))
        _close(f"{name} by products on the backend", backend.to_numpy(x), b / diagonal)
        if not report.converged.all():
            raise AssertionError(f"{name} must converge, got {report.stop_reasons}")


def _sinusoids(on: Backend, dtype: Any) -> TaskBatch[Any, Any, Any]:
    rng = np.random.default_rng(5)

    def task(place: int) -> MetaLearningTask[Any, Any, Any]:
        x, phase = rng.uniform(-3, 3, (12, 1)), rng.uniform(0, 3)
        x, y = on.asarray(x, dtype), on.asarray(np.sin(x + phase), dtype)
        x, y, query_x, query_y = (
            on.index(values, (part, slice(None))) for part in (slice(0, 5), slice(5, 12)) for values in (x, y)
        )
        names = f"wave {place}"
        return MetaLearningTask(
            SupportSetX=x, SupportSetY=y, QuerySetX=query_x, QuerySetY=query_y, NumWays=1, TaskId=names
        )

    return TaskBatch([task(place) for place in range(3)])


def _pictures(on: Backend, dtype: Any) -> TaskBatch[Any, Any, Any]:
    rng = np.random.default_rng(6)

    def task(place: int) -> MetaLearningTask[Any, Any, Any]:
        images = [on.asarray(rng.standard_normal((4, 4, 4, 1)), dtype) for _ in range(2)]
        labels = on.asarray(np.arange(4) % 2)
        return MetaLearningTask(
            SupportSetX=images[0],
            SupportSetY=labels,
            QuerySetX=images[1],
            QuerySetY=labels,
            NumWays=2,
            TaskId=f"pictures {place}",
        )

    return TaskBatch([task(place) for place in range(2)])


def _trained(on: Backend, dtype: Any, kind: str) -> tuple[Host, Host]:
    """Return the parameters after some steps of training, and predictions of a model adapted from them."""
    seeded: dict[str, Any] = {"dtype": dtype, "backend": on, "seed": 0}
    proximal: dict[str, Any] = {"InnerLearningRate": 0.05, "AdaptationSteps": 3, "MetaOptimizer": SGDOptimizer(0.1)}
    if kind == "iMAML on sinusoids":
        model = NeuralNetworkModel(mlp(8, 1), input_shape=(1,), **seeded)
        batch = _sinusoids(on, dtype)
        learner: Any = iMAMLAlgorithm(iMAMLOptions.FromPaper(model, Lambda=2.0, **proximal))
    else:
        layers = Sequential(Conv2D(2, 3), BatchNorm(), ReLU(), MaxPool2D(2), Flatten(), Dense(2))
        model = NeuralNetworkModel(layers, input_shape=(4, 4, 1), loss=CrossEntropyLoss(), **seeded)
        batch = _pictures(on, dtype)
        learner = MAMLAlgorithm(MAMLOptions(model, **proximal))
    for _ in range(6):
        learner.MetaTrain(batch)
    adapted = learner.Adapt(batch.Tasks[0])
    predictions = adapted.Predict(batch.Tasks[0].QueryInput)
    return on.to_numpy(model.GetParameters()), on.to_numpy(predictions)


def _training(backend: Backend) -> None:
    for kind, dtype, rtol in (("iMAML on sinusoids", np.float64, 1e-8), ("MAML on images", np.float32, 1e-3)):
        wanted, found = (_trained(on, dtype, kind) for on in (get_backend("numpy"), backend))
        names = ("parameters after 6 steps", "adapted predictions")
        for what, ours, theirs in zip(names, wanted, found, strict=True):
            if theirs.dtype != dtype:
                raise AssertionError(f"{kind}, {what}: the dtype must be {np.dtype(dtype)}, got {theirs.dtype}")
            _close(f"{kind}, {np.dtype(dtype)}, {what},", theirs, ours, rtol)


ENGINE_CHECKS: dict[str, Callable[[Backend], None]] = {
    "derivatives": _derivatives,
    "Programs": _programs,
    "vmap": _mapped,
    "solvers": _solves,
    "training": _training,
}
