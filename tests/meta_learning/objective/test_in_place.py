"""Work in the programs' own buffers: the bits and reports of the same work done array by array."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from eager_solver import eager_conjugate_gradient
from hypothesis import given, settings
from hypothesis import strategies as st

from aidotnet_py import (
    AdamOptimizer,
    InvalidOperationException,
    MAMLAlgorithm,
    MAMLOptions,
    MetaLearningTask,
    MetaSGDAlgorithm,
    MetaSGDOptions,
    NeuralNetworkModel,
    ReptileAlgorithm,
    ReptileOptions,
    SGDOptimizer,
    TaskBatch,
    iMAMLAlgorithm,
    iMAMLOptions,
)
from aidotnet_py.autodiff import trace
from aidotnet_py.autodiff.execution import Executable, Queue
from aidotnet_py.backends import NumPyBackend
from aidotnet_py.meta_learning.inner.steps import InnerLoop
from aidotnet_py.nn import Dense, Sequential, Tanh
from aidotnet_py.solvers import StopReason, conjugate_gradient
from aidotnet_py.solvers.bounds import Bounds
from aidotnet_py.solvers.conjugate_gradient import QueuedSolve
from aidotnet_py.solvers.iteration import BufferedOperator
from aidotnet_py.solvers.progress import Progress

Rng = np.random.Generator

SPECTRA: dict[str, Callable[[Rng, int], Any]] = {
    "well conditioned": lambda rng, n: rng.uniform(1, 3, n),
    "identity": lambda rng, n: np.ones(n),
    "ill conditioned": lambda rng, n: 10 ** rng.uniform(-8, 2, n),
    "indefinite": lambda rng, n: rng.uniform(-0.3, 3, n),
    "negative": lambda rng, n: -rng.uniform(0.1, 1, n),
    "low rank": lambda rng, n: np.ones(n) * (np.arange(n) < 3),
    "zero": lambda rng, n: np.zeros(n),
    "large": lambda rng, n: 1e15 * rng.uniform(1, 2, n),
    "small": lambda rng, n: 1e-20 * rng.uniform(1, 2, n),
    "no numbers": lambda rng, n: np.where(rng.random(n) < 1.5 / n, rng.choice([np.nan, np.inf, -np.inf]), 1.0),
}


class _Matrices:
    """Products with a symmetric matrix for each task, in buffers: dense, or a diagonal of many elements."""

    def __init__(self, backend: NumPyBackend, tasks: int, n: int, dtype: Any, *, dense: bool) -> None:
        vectors, products = np.zeros((tasks, n), dtype), np.zeros((tasks, n), dtype)
        self._dense = dense
        matrices = np.zeros((tasks, n, n) if dense else (tasks, n), dtype)
        executable = Executable(
            trace(self._product, matrices, vectors),
            backend,
            stages=[0, 1],
            inputs=[matrices, vectors],
            outputs=[products],
            compile_at=1,
        )
        self._matrices, self._executable = matrices, executable
        self.operator = BufferedOperator(backend, executable, 1, vectors, products, lambda: None, {}, Queue(backend))

    def _product(self, matrices: Any, v: Any) -> Any:
        return (matrices @ v.reshape((*v.shape, 1))).reshape(v.shape) if self._dense else matrices * v

    def compile(self) -> None:
        self._executable.compile()
        self.operator.iteration.compile()

    def draw(self, rng: Rng, spectra: Callable[[Rng, int], Any] | None = None) -> None:
        for task in self._matrices:
            n = len(task)
            spectrum = (spectra or list(SPECTRA.values())[rng.integers(len(SPECTRA))])(rng, n)
            with np.errstate(all="ignore"):
                if self._dense:
                    basis = np.linalg.qr(rng.standard_normal((n, n)))[0]
                    matrix = (basis * spectrum) @ basis.T
                    task[...] = (matrix + matrix.T) / 2
                else:
                    task[...] = spectrum


def _right_hand_sides(rng: Rng, shape: tuple[int, int], dtype: Any) -> Any:
    rhs = rng.standard_normal(shape)
    for row in rhs:
        kind = rng.random()
        if kind < 0.1:
            row[...] = 0
        elif kind < 0.15:
            row[rng.integers(len(row))] = rng.choice([np.nan, np.inf])
        elif kind < 0.25:
            # To where squares leave the dtype.
            row *= 10 ** (rng.uniform(-25, 18) * (8 if dtype is np.float64 else 1))
    with np.errstate(all="ignore"):
        return rhs.astype(dtype)


def _assert_same_solve(operator: BufferedOperator, rhs: Any, **how: Any) -> None:
    found, report = conjugate_gradient(operator, rhs, **how)
    right, wanted = eager_conjugate_gradient(lambda v: operator(v), rhs, **how)
    assert found.tobytes() == right.tobytes()
    assert report.stop_reasons == wanted.stop_reasons
    np.testing.assert_array_equal(report.iterations, wanted.iterations)
    np.testing.assert_array_equal(report.initial_residual_norms, wanted.initial_residual_norms)
    np.testing.assert_array_equal(report.residual_norms, wanted.residual_norms)


def _solves(rng: Rng, matrices: _Matrices, dtype: Any) -> None:
    shape = matrices.operator.vectors.shape
    for _ in range(4):
        matrices.draw(rng)
        how: dict[str, Any] = {
            "max_iterations": int(rng.integers(1, 80)),
            "atol": float(rng.choice([0, 1e-14, 1e-10, 1e-6, 1e-3, 0.1, 1e30])),
            # From zero with an rtol of 0, a solve begins in the operator's queue.
            "rtol": (None, 0.0, 0.0, 0.0, 1e-14, 1e-6, 0.1)[rng.integers(7)],
        }
        if rng.random() < 0.3:
            how["initial"] = (rng.standard_normal(shape) * rng.choice([1e-3, 1, 100])).astype(dtype)
        _assert_same_solve(matrices.operator, _right_hand_sides(rng, shape, dtype), **how)


@pytest.mark.slow
@given(
    seed=st.integers(0, 2**32 - 1),
    tasks=st.integers(1, 4),
    n=st.sampled_from([1, 2, 7, 8, 20, 40]),
    dtype=st.sampled_from([np.float16, np.float32, np.float64]),
    compiled=st.booleans(),
)
@settings(max_examples=25, deadline=None)
def test_solves_on_the_same_buffers(seed: int, tasks: int, n: int, dtype: Any, compiled: bool) -> None:
    matrices = _Matrices(NumPyBackend(compiled=compiled), tasks, n, dtype, dense=True)
    if compiled:
        matrices.compile()
    _solves(np.random.default_rng(seed), matrices, dtype)


@pytest.mark.parametrize("rtol", [None, 0.0])
@pytest.mark.parametrize("compiled", [False, True])
def test_a_solution_beyond_the_dtype(rtol: float | None, compiled: bool) -> None:
    matrices = _Matrices(NumPyBackend(compiled=compiled), 2, 2, np.float32, dense=False)
    matrices.draw(np.random.default_rng(0), lambda rng, n: np.array([1e-30, 2e-30]))
    rhs = np.array([[1e9, 1e9], [1e-9, 1e-9]], np.float32)
    _assert_same_solve(matrices.operator, rhs, rtol=rtol, atol=1e-12, max_iterations=20)
    found, report = conjugate_gradient(matrices.operator, rhs, rtol=rtol, atol=1e-12, max_iterations=20)
    assert report.stop_reasons[0] is StopReason.NOT_FINITE
    np.testing.assert_array_equal(found[0], 0)
    np.testing.assert_allclose(report.residual_norms[0], np.sqrt(2) * 1e9)


@pytest.mark.parametrize("n", [8191, 8192, 8193, 20_000])
@pytest.mark.parametrize("compiled", [False, True])
def test_long_vectors(n: int, compiled: bool) -> None:
    matrices = _Matrices(NumPyBackend(compiled=compiled), 3, n, np.float32, dense=False)
    if compiled:
        matrices.compile()
    _solves(np.random.default_rng(n), matrices, np.float32)


@pytest.mark.parametrize("rtol", [None, 0.0])
def test_a_solve_after_one_that_broke_off(rtol: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    matrices = _Matrices(NumPyBackend(), 2, 10, np.float64, dense=True)
    for _ in range(3):
        matrices.draw(rng)
        rhs = _right_hand_sides(rng, (2, 10), np.float64)

        def broken(times: int) -> Any:
            raise MemoryError

        with monkeypatch.context() as patch:
            patch.setattr(matrices.operator.iteration, "latest", broken)
            with pytest.raises(MemoryError):
                conjugate_gradient(matrices.operator, np.full((2, 10), 1.0), rtol=rtol)
        _assert_same_solve(matrices.operator, rhs, rtol=rtol, max_iterations=31)


@pytest.mark.slow
def test_refined_solves_whose_tasks_reach_the_limit_one_after_another(monkeypatch: pytest.MonkeyPatch) -> None:
    judge, limited = Progress.judge, 0

    def counting(self: Progress, *numbers: Any) -> Any:
        nonlocal limited
        sound = judge(self, *numbers)
        limited += self.limited and bool(self.running.any())
        return sound

    monkeypatch.setattr(Progress, "judge", counting)
    for seed in range(100):
        rng, dtype = np.random.default_rng(seed), (np.float32, np.float64)[seed % 2]
        n = int(rng.integers(6, 25))
        matrices = _Matrices(NumPyBackend(compiled=False), 3, n, dtype, dense=True)
        matrices.draw(rng, lambda rng, n: np.logspace(0, rng.uniform(0, 4), n))
        rhs = rng.standard_normal((3, n)).astype(dtype)
        rounding = float(np.linalg.norm(rhs, axis=1).max() * np.finfo(dtype).eps)
        how = {"max_iterations": int(rng.integers(n, 6 * n)), "rtol": 0.0, "atol": rounding * rng.uniform(1, 4)}
        _assert_same_solve(matrices.operator, rhs, **how)
    assert limited > 4


def test_operators_that_take_turns_in_the_same_buffers() -> None:
    rng = np.random.default_rng(0)
    model = NeuralNetworkModel(Sequential(Dense(5), Tanh(), Dense(2)), input_shape=(3,), dtype=np.float64, seed=0)
    learner = iMAMLAlgorithm(iMAMLOptions(model))
    tasks = [_a_task(rng, i) for i in range(3)]

    def vectors() -> Any:
        return rng.standard_normal((3, model.ParameterCount))

    support = learner._open(tasks, "Support")[0].part(0, 3, 0).support
    operators: list[Any] = []
    for kind, weight in (("hessian", 0.1), ("gauss-newton", 0.5), ("hessian", 1.0)):
        operators.append(support.curvature(vectors(), kind, identity=1.5, weight=weight)[1])
    for turn in range(12):
        operator, rhs = operators[rng.integers(3)], vectors()
        # What else the buffers may have been used for in the meantime.
        if turn % 3 == 1:
            support.evaluate(vectors())
        elif turn % 3 == 2:
            np.copyto(support.gradient_work(vectors()).points, vectors())
            work = support.product_work("hessian", 1.0, -0.1)
            np.copyto(work.vectors, vectors())
            work.step(0).rehearse()
        found = conjugate_gradient(operator, rhs)[0]
        support.evaluate(vectors())
        np.testing.assert_array_equal(found, conjugate_gradient(lambda v, to=operator: to(v), rhs)[0])  # type: ignore[misc]


@pytest.mark.slow
def test_solves_that_are_judged_when_they_are_over() -> None:
    for seed in range(60):
        rng, dtype = np.random.default_rng(seed), (np.float32, np.float64)[seed % 2]
        shape = int(rng.integers(1, 4)), int(rng.choice([1, 2, 7, 20]))
        matrices = _Matrices(NumPyBackend(), *shape, dtype, dense=True)
        matrices.draw(rng)
        rhs = _right_hand_sides(rng, shape, dtype)
        how = {"max_iterations": int(rng.integers(1, 33)), "atol": float(rng.choice([1e-14, 1e-6, 0.1]))}
        begun: dict[str, Any] = {"iterations": how["max_iterations"], "bounds": Bounds(0.0, how["atol"])}
        found, report = QueuedSolve(matrices.operator, rhs, **begun).result()
        right, wanted = eager_conjugate_gradient(lambda v, to=matrices.operator: to(v), rhs, rtol=0.0, **how)
        assert found.tobytes() == right.tobytes()
        assert report.stop_reasons == wanted.stop_reasons
        np.testing.assert_array_equal(report.iterations, wanted.iterations)
        np.testing.assert_array_equal(report.residual_norms, wanted.residual_norms)


OPTIMIZERS: list[Callable[[], Any]] = [
    lambda: None,
    lambda: SGDOptimizer(0.05),
    lambda: SGDOptimizer(0.05, momentum=0.9),
    lambda: AdamOptimizer(0.05),
]


def _a_task(rng: Rng, name: int, *, broken: bool = False) -> MetaLearningTask[Any, Any, Any]:
    x, y, qx, qy = (rng.standard_normal((rows, width)) for rows, width in ((4, 3), (4, 2), (6, 3), (6, 2)))
    if broken:
        x[0, 0] = np.nan
    return MetaLearningTask(SupportSetX=x, SupportSetY=y, QuerySetX=qx, QuerySetY=qy, NumWays=1, TaskId=name)


def _learner(rng: Rng, model: Any) -> Any:
    def one_of(*values: Any) -> Any:
        return values[rng.integers(len(values))]

    steps: dict[str, Any] = {"AdaptationSteps": int(rng.integers(1, 8)), "InnerLearningRate": 0.1}
    kind = one_of("iMAML", "iMAML", "iMAML", "MAML", "Reptile", "Meta-SGD")
    if kind == "Meta-SGD":
        return MetaSGDAlgorithm(MetaSGDOptions(model, **steps))
    steps["InnerOptimizer"] = one_of(*OPTIMIZERS)()
    if kind == "MAML":
        return MAMLAlgorithm(MAMLOptions(model, UseFirstOrder=one_of(False, True), **steps))
    if kind == "Reptile":
        return ReptileAlgorithm(ReptileOptions(model, **steps))
    learned = one_of(None, None, "scalar", "per-parameter")
    options = iMAMLOptions(
        model,
        InnerObjective=one_of("support", "proximal") if learned is None else "proximal",
        LambdaRegularization=one_of(0.1, 5.0),
        Curvature=one_of("hessian", "gauss-newton"),
        LearnedLambda=learned,
        WarmStartSolves=one_of(False, True),
        **steps,
    )
    return iMAMLAlgorithm(options)


def _change_options(rng: Rng, learner: Any) -> None:
    options = learner.Options
    options.AdaptationSteps = int(rng.integers(1, 8))
    options.InnerLearningRate = float(rng.choice([0.02, 0.1]))
    iterations, tolerance = int(rng.integers(1, 40)), float(rng.choice([1e-10, 1e-4, 0.3]))
    strength, optimizer = float(rng.choice([0.2, 1.0])), OPTIMIZERS[rng.integers(len(OPTIMIZERS))]()
    if isinstance(options, iMAMLOptions):
        options.ConjugateGradientIterations, options.ConjugateGradientTolerance = iterations, tolerance
        options.LambdaRegularization = strength
    if not isinstance(options, MetaSGDOptions):
        options.InnerOptimizer = optimizer


def _run_of_learners(seed: int) -> list[Any]:
    """What two learners of one model say while they train, adapt, fail, are copied and have their options changed."""
    rng = np.random.default_rng(seed)
    model = NeuralNetworkModel(Sequential(Dense(5), Tanh(), Dense(2)), input_shape=(3,), dtype=np.float64, seed=seed)
    learners = [_learner(rng, model) for _ in range(2)]
    said: list[Any] = []
    for _ in range(10):
        place, deed = int(rng.integers(2)), rng.choice(["train", "train", "train", "adapt", "change", "copy", "fail"])
        learner = learners[place]
        tasks = [_a_task(rng, i, broken=deed == "fail" and i == 0) for i in range(int(rng.choice([1, 3])))]
        if deed in ("train", "fail"):
            try:
                said.append(float(learner.MetaTrain(TaskBatch(tasks))))
            except InvalidOperationException as error:
                said.append(str(error))
            said.append(learner.BaseModel.GetParameters().tobytes())
        elif deed == "adapt":
            said.append(learner.Adapt(tasks[0]).GetParameters().tobytes())
        elif deed == "copy":
            learners[place] = copy.deepcopy(learner)
        else:
            _change_options(rng, learner)
    return said


def _one_by_one(loop: InnerLoop, watch: Any = None) -> None:
    while loop.taken < loop.steps:
        loop.step(watch)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [*range(4), *(pytest.param(s, marks=pytest.mark.slow) for s in range(4, 12))])
def test_runs_of_learners(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # Every other run in chunks, so that there are lanes.
    monkeypatch.setattr(NumPyBackend, "flops_at_once", (30_000_000, 3000)[seed % 2])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = _run_of_learners(seed)
        monkeypatch.setattr(InnerLoop, "run", _one_by_one)
        monkeypatch.setattr(BufferedOperator, "fits", lambda self, rhs: False)
        assert found == _run_of_learners(seed)
