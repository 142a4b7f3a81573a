"""Compiled work on CuPy's backend: the kernels for CUDA, played on the host, over arrays that stand for CuPy's."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import simulated_cupy
from cuda_on_host import FakeCublas, HostToolkit, needs_gxx
from cupy_learners import learner_on, outcome
from numpy.testing import assert_allclose
from simulated_cupy import hand_over

from aidotnet_py import AdamOptimizer, InvalidOperationException, SGDOptimizer
from aidotnet_py.autodiff import grad, hvp, trace
from aidotnet_py.autodiff.execution import Executable, Schedule
from aidotnet_py.backends import Backend, get_backend, registry
from aidotnet_py.backends.cuda.compiler import CudaCompiler

pytestmark = needs_gxx


class _Cublas(FakeCublas):
    def _gemm(self, *arguments: Any) -> int:
        hand_over(lambda: super(_Cublas, self)._gemm(*arguments))
        return 0


class SimulatedToolkit(HostToolkit):
    """CUDA on the host, with the streams of the simulated CuPy."""

    def __init__(self) -> None:
        super().__init__()
        self.fake = _Cublas()

    def load(self, text: str) -> Callable[[str], Callable[[int, int, Sequence[int]], Any]]:
        found = super().load(text)

        def function(name: str) -> Callable[[int, int, Sequence[int]], Any]:
            run = found(name)
            return lambda blocks, threads, addresses: hand_over(lambda: run(blocks, threads, addresses))

        return function

    def stream(self) -> int:
        return int(simulated_cupy.cupy.cuda.get_current_stream().ptr)

    def address_of(self, array: Any) -> int:
        return int(array.data.ptr)


@pytest.fixture
def toolkit() -> SimulatedToolkit:
    return SimulatedToolkit()


@pytest.fixture
def backend(toolkit: SimulatedToolkit, monkeypatch: pytest.MonkeyPatch) -> Backend:
    """The simulated backend under CuPy's name, with a compiler."""
    backend = get_backend("simulated")
    monkeypatch.setattr(simulated_cupy, "compiler", CudaCompiler(toolkit))
    monkeypatch.setitem(registry._backends, "cupy", backend)
    return backend


def f(w: Any, x: Any) -> Any:
    return np.sum(np.tanh(x @ np.reshape(w, (3, 2))) ** 2) + 0.1 * np.sum(w * w)


def test_a_compiled_program_is_captured_products_and_all(backend: Backend) -> None:
    rng = np.random.default_rng(0)
    w, v, x = rng.standard_normal(6), rng.standard_normal(6), rng.standard_normal((5, 3))
    program = trace(lambda w, v, x: (grad(f)(w, x), hvp(lambda u: f(u, x), w, v)), w, v, x)
    run = Executable(program, backend, inputs=[backend.asarray(a) for a in (w, v, x)])
    run.run()
    wanted = [backend.to_numpy(a).copy() for a in run.outputs]
    run.compile()
    replay = backend.capture(run.run)
    assert replay is not None
    for a in run.outputs:
        backend.copyto(a, 0.0)
    replay()
    for a, values in zip(run.outputs, wanted, strict=True):
        assert_allclose(backend.to_numpy(a), values, rtol=1e-12)
    backend.copyto(run.inputs[0], backend.asarray(2 * w))
    replay()
    plain = Executable(program, get_backend("numpy"), inputs=[2 * w, v, x])
    plain.run()
    for a, b in zip(run.outputs, plain.outputs, strict=True):
        assert_allclose(backend.to_numpy(a), b, rtol=1e-12)


def test_sums_over_the_same_axes_may_lie_otherwise(backend: Backend) -> None:
    x = np.arange(30.0).reshape(3, 5, 2)
    program = trace(lambda x: [(x * 2).sum(axis=1), (x * 3).sum(axis=1), (x * x).max(axis=1)], x)
    buffer = backend.asarray(np.full((3, 40), np.nan))
    part = backend.index(buffer, (slice(None), slice(37, 39)))
    run = Executable(program, backend, outputs=[None, part, None])
    run.compile()
    backend.copyto(run.inputs[0], backend.asarray(x))
    run.run()
    for found, wanted in zip(run.outputs, [(x * 2).sum(1), (x * 3).sum(1), (x * x).max(1)], strict=True):
        assert_allclose(backend.to_numpy(found), wanted, rtol=1e-14)


def test_products_of_cublas_are_captured(backend: Backend, toolkit: SimulatedToolkit) -> None:
    x = np.random.default_rng(0).standard_normal((2, 90, 80))
    program = trace(lambda a: a @ np.swapaxes(a, 1, 2) + 1.0, x)
    run = Executable(program, backend, inputs=[backend.asarray(x)])
    run.compile()
    replay = backend.capture(run.run)
    assert replay is not None
    assert toolkit.fake.calls == []
    replay()
    assert toolkit.fake.calls == ["float64"]
    assert_allclose(backend.to_numpy(run.outputs[0]), x @ np.swapaxes(x, 1, 2) + 1.0, rtol=1e-12, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["iMAML", "Meta-SGD"])
@pytest.mark.usefixtures("backend")
def test_a_compiled_run_gives_the_numbers_of_numpy(name: str) -> None:
    found, wanted = outcome(learner_on("cupy", name)), outcome(learner_on("numpy", name))
    for quantity in wanted:
        assert_allclose(found[quantity], wanted[quantity], rtol=1e-10, atol=1e-13, err_msg=quantity)


VARIANTS: dict[str, dict[str, Any]] = {
    "proximal": {"InnerObjective": "proximal", "LambdaRegularization": 0.5},
    "learned": {"InnerObjective": "proximal", "LambdaRegularization": 0.5, "LearnedLambda": "scalar"},
    "momentum": {"InnerOptimizer": SGDOptimizer(0.05, momentum=0.9)},
    "adam": {"InnerOptimizer": AdamOptimizer(0.02)},
    "gauss-newton": {"Curvature": "gauss-newton", "ConjugateGradientDamping": 0.1},
    "stops early": {"Curvature": "gauss-newton", "ConjugateGradientTolerance": 1e-2, "LambdaRegularization": 0.1},
    "many iterations": {"Curvature": "gauss-newton", "ConjugateGradientIterations": 40},
    "curved": {"LambdaRegularization": 50.0},
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "variant", [v if v == "stops early" else pytest.param(v, marks=pytest.mark.slow) for v in VARIANTS]
)
@pytest.mark.filterwarnings("ignore::aidotnet_py.NonPositiveCurvatureWarning")
@pytest.mark.usefixtures("backend")
def test_steps_in_one_go_give_the_numbers_of_numpy(variant: str) -> None:
    learners = [learner_on(name, "iMAML", **VARIANTS[variant]) for name in ("cupy", "numpy")]
    for turn in range(6):
        for learner in learners:
            if turn == 4:
                learner.Options.AdaptationSteps, learner.Options.InnerLearningRate = 5, 0.02
            if turn == 5 and variant != "learned":
                learner.Options.LambdaRegularization = 0.3
        found, wanted = (learner.MetaTrainStep(3) for learner in learners)
        assert_allclose(found.MetaLoss, wanted.MetaLoss, rtol=1e-10)
        for name, value in wanted.AdditionalMetrics.items():
            assert_allclose(found.AdditionalMetrics[name], value, rtol=1e-8, atol=1e-12, err_msg=f"{turn} {name}")
    found, wanted = (parameters_of(learner) for learner in learners)
    assert_allclose(found, wanted, rtol=1e-9, atol=1e-12)


def parameters_of(learner: Any) -> Any:
    return learner.BaseModel.backend.to_numpy(learner.BaseModel.GetParameters())


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["Reptile", *(pytest.param(name, marks=pytest.mark.slow) for name in ("iMAML", "MAML", "FOMAML", "Meta-SGD"))],
)
def test_a_step_is_replayed_whole(name: str, backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    learner = learner_on("cupy", name, **({"Curvature": "gauss-newton"} if name == "iMAML" else {}))
    for _ in range(3):
        learner.MetaTrainStep(3)

    def refused(*_: Any) -> None:
        raise AssertionError("a call from Python for what was captured")

    for name in ("call", "rehearse", "_prepare"):
        monkeypatch.setattr(Executable, name, refused)
    monkeypatch.setattr(type(backend), "capture", refused)
    for name in ("call", "rehearse"):
        monkeypatch.setattr(Schedule, name, refused)
    assert np.isfinite(learner.MetaTrainStep(3).MetaLoss)


@pytest.mark.slow
@pytest.mark.usefixtures("backend")
def test_a_copy_of_a_learner_captures_for_itself() -> None:
    learner, alone = (learner_on("cupy", "iMAML", Curvature="gauss-newton") for _ in range(2))
    for _ in range(2):
        learner.MetaTrainStep(3)
        alone.MetaTrainStep(3)
    twin = copy.deepcopy(learner)
    assert twin.BaseModel.backend is learner.BaseModel.backend
    for _ in range(3):
        losses = [one.MetaTrainStep(3).MetaLoss for one in (learner, twin, alone)]
        assert losses[0] == losses[2]
        assert np.isfinite(losses[1])
    assert (parameters_of(learner) == parameters_of(alone)).all()


@pytest.mark.slow
def test_what_is_not_finite_is_told_as_on_numpy(backend: Backend) -> None:
    messages: list[str] = []
    for name in ("cupy", "numpy"):
        learner = learner_on(name, "iMAML")
        learner.MetaTrainStep(3)
        learner.MetaTrainStep(3)
        before = parameters_of(learner).copy()
        learner.Options.InnerLearningRate = 1e200
        with pytest.raises(InvalidOperationException) as caught:
            learner.MetaTrainStep(3)
        messages.append(str(caught.value))
        assert (parameters_of(learner) == before).all()
    assert messages[0] == messages[1]
