"""What a step costs: each piece of work once, memory that knows neither inner steps nor steps done."""

from __future__ import annotations

import gc
import itertools
import threading
import tracemalloc
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from memory import bytes_of_arrays, bytes_of_objects
from numpy_doubles import COUNTED, CountingBackend
from tanh_network import TanhNetwork, batch_of
from waiting import until_all_is_compiled

from aidotnet_py import CrossEntropyLoss, NeuralNetworkModel, TaskBatch, iMAMLAlgorithm, iMAMLOptions
from aidotnet_py.autodiff.extend import Run
from aidotnet_py.backends import NumPyBackend
from aidotnet_py.meta_learning.inner import path
from aidotnet_py.meta_learning.inner import steps as steps_of
from aidotnet_py.meta_learning.objective import batched_programs, partial
from aidotnet_py.nn import Conv2D, Dense, Flatten, Sequential, Tanh
from aidotnet_py.solvers.iteration import BufferedOperator, Iteration


@pytest.fixture(autouse=True)
def uncounted_solvers(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is counted is the model's work: a solver's own steps run on a backend that counts nothing."""

    def iteration(operator: BufferedOperator) -> Iteration:
        product = Run(operator.executable, operator.stage)
        return Iteration(NumPyBackend(compiled=False), operator.vectors, operator.products, product)

    monkeypatch.setattr(BufferedOperator, "iteration", property(iteration))


LAYERS = 3


def dense_network(backend: CountingBackend) -> tuple[Any, TaskBatch[Any, Any, Any]]:
    network = Sequential(Dense(4), Tanh(), Dense(4), Tanh(), Dense(3))
    model = NeuralNetworkModel(
        network, input_shape=(2,), loss=CrossEntropyLoss(), dtype=np.float64, backend=backend, seed=0
    )
    return model, batch_of(backend, TanhNetwork(outputs=3, classify=True).sets(2))


def image_sets(count: int, side: int) -> Any:
    generator = np.random.default_rng(0)
    return [
        (
            generator.standard_normal((4, side, side, 1)),
            np.array([0, 1, 0, 1]),
            generator.standard_normal((6, side, side, 1)),
            np.array([0, 1, 0, 1, 1, 0]),
        )
        for _ in range(count)
    ]


def image_network(backend: NumPyBackend, side: int = 6, filters: int = 3) -> tuple[Any, TaskBatch[Any, Any, Any]]:
    network = Sequential(Conv2D(filters, 3), Tanh(), Conv2D(filters, 3, stride=2), Tanh(), Flatten(), Dense(2))
    model = NeuralNetworkModel(
        network, input_shape=(side, side, 1), loss=CrossEntropyLoss(), dtype=np.float64, backend=backend, seed=0
    )
    return model, batch_of(backend, image_sets(2, side))


NETWORKS = pytest.mark.parametrize("build", [dense_network, pytest.param(image_network, marks=pytest.mark.slow)])


def calls_of_a_step(build: Callable[..., Any], **options: Any) -> Counter[str]:
    """Calls of one step, in which nothing is compiled any more."""
    backend = CountingBackend()
    model, batch = build(backend)
    settings = {"ConjugateGradientTolerance": 1e-300, "InnerLearningRate": 0.1, "LambdaRegularization": 0.05}
    learner = iMAMLAlgorithm(iMAMLOptions(model, **(settings | options)))
    learner.MetaTrain(batch)
    backend.calls.clear()
    learner.MetaTrain(batch)
    return backend.calls


def difference(more: Counter[str], fewer: Counter[str]) -> dict[str, int]:
    return {name: more[name] - fewer[name] for name in more if more[name] != fewer[name]}


@pytest.mark.slow
@NETWORKS
def test_an_iteration_of_a_solve_runs_the_linear_stage_alone(build: Callable[..., Any]) -> None:
    steps = [calls_of_a_step(build, ConjugateGradientIterations=i) for i in (2, 3, 4, 6)]
    one, other, two = (difference(b, a) for a, b in itertools.pairwise(steps))
    assert one == other
    assert two == {name: 2 * count for name, count in one.items()}
    assert one["matmul"] > 0
    assert not {"tanh", "exp", "log", "max", "greater", "equal", "divide"} & one.keys()


def test_and_the_linear_stage_has_no_product_too_many() -> None:
    """Forward tangents, 2L − 1 (the input has none), their way back, 2(L − 1), and the weights', 2L − 1."""
    steps = [calls_of_a_step(dense_network, ConjugateGradientIterations=i) for i in (2, 3)]
    assert difference(steps[1], steps[0])["matmul"] <= 6 * LAYERS - 4


@pytest.mark.slow
@NETWORKS
def test_a_term_of_a_series_costs_the_same(build: Callable[..., Any]) -> None:
    series = [calls_of_a_step(build, UseNeumannApproximation=True, NeumannSeriesTerms=j) for j in (3, 4)]
    solve = [calls_of_a_step(build, ConjugateGradientIterations=i) for i in (3, 4)]
    operations = {*COUNTED, "tanh", "multiply"} - {"sum"}
    found, expected = (difference(b, a) for a, b in (series, solve))
    assert {n: c for n, c in found.items() if n in operations} == {n: c for n, c in expected.items() if n in operations}


@NETWORKS
def test_a_solve_runs_the_forward_pass_once(build: Callable[..., Any]) -> None:
    """Activations are computed once for the solve, whatever its iterations: as in a first-order step's gradient."""
    for iterations in (1, 5):
        solve = calls_of_a_step(build, ConjugateGradientIterations=iterations)
        assert solve["tanh"] == calls_of_a_step(build, UseFirstOrder=True)["tanh"]


@NETWORKS
def test_an_inner_step_is_one_forward_and_one_backward_pass(build: Callable[..., Any]) -> None:
    steps = [calls_of_a_step(build, AdaptationSteps=k) for k in (1, 2, 4)]
    one, two = (difference(b, a) for a, b in itertools.pairwise(steps))
    assert two == {name: 2 * count for name, count in one.items()}
    assert one["tanh"] == 2


def test_patches_of_the_images_are_taken_once_a_step() -> None:
    """They depend on the examples alone: what is taken anew at each inner step is the second layer's."""
    steps = [calls_of_a_step(image_network, AdaptationSteps=k) for k in (1, 2)]
    assert difference(steps[1], steps[0])["patches"] == 1


def test_tasks_are_stacked_not_looped_over() -> None:
    def calls(count: int) -> Counter[str]:
        backend = CountingBackend()
        model, _ = dense_network(backend)
        batch = batch_of(backend, TanhNetwork(outputs=3, classify=True).sets(count))
        learner = iMAMLAlgorithm(iMAMLOptions(model, LambdaRegularization=0.05, ConjugateGradientTolerance=1e-300))
        learner.MetaTrain(batch)
        backend.calls.clear()
        learner.MetaTrain(batch)
        return backend.calls

    few, many = calls(2), calls(16)
    assert few["matmul"] == many["matmul"]
    assert few["tanh"] == many["tanh"]


def compile_all(step: Callable[[], Any]) -> None:
    """Take steps until all that they run is compiled, where it can be."""
    for _ in range(20):
        for _ in range(12):
            step()
        if not any(thread.name == "aidotnet_py compiler" for thread in threading.enumerate()):
            # What was ready during the last of them is taken up at the next.
            step()
            return
        until_all_is_compiled()
    pytest.fail("there was always something left to compile")


def peak_of_a_step(learner: iMAMLAlgorithm[Any, Any, Any], batch: TaskBatch[Any, Any, Any]) -> int:
    """Bytes of the arrays that are there between steps, and of all that comes on top of them during a step."""
    compile_all(lambda: learner.MetaTrain(batch))

    def on_top() -> int:
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        learner.MetaTrain(batch)
        return tracemalloc.get_traced_memory()[1] - before

    return bytes_of_arrays() + min(on_top() for _ in range(3))


def wide_network(backend: NumPyBackend) -> tuple[Any, TaskBatch[Any, Any, Any]]:
    model = NeuralNetworkModel(
        Sequential(Dense(64), Tanh(), Dense(64), Tanh(), Dense(1)), input_shape=(2,), dtype=np.float64, seed=0
    )
    return model, batch_of(backend, TanhNetwork().sets(8))


def larger_images(backend: NumPyBackend) -> tuple[Any, TaskBatch[Any, Any, Any]]:
    return image_network(backend, 12, 8)


@pytest.mark.slow
@pytest.mark.parametrize("build", [wide_network, larger_images])
def test_memory_does_not_grow_with_the_inner_steps(build: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    # Compiled programs need fewer buffers, and one step would not be enough to have them compiled.
    for module in (partial, batched_programs, path, steps_of):
        monkeypatch.setattr(module, "PATIENCE", 1)
    peaks = []
    # Once for what is loaded and kept by the process, such as the compiler, then to measure.
    for steps in (1, 1, 200):
        gc.collect()
        tracemalloc.start()
        try:
            model, batch = build(NumPyBackend())
            learner = iMAMLAlgorithm(
                iMAMLOptions.FromPaper(model, AdaptationSteps=steps, ConjugateGradientIterations=3)
            )
            peaks.append(peak_of_a_step(learner, batch))
        finally:
            tracemalloc.stop()
    _, short, long = peaks
    assert short > 1e6
    assert abs(long - short) <= 0.02 * short


@pytest.mark.slow
@pytest.mark.parametrize("build", [wide_network, larger_images])
def test_memory_does_not_grow_with_the_steps_done(build: Callable[..., Any]) -> None:
    model, batch = build(NumPyBackend())
    learner = iMAMLAlgorithm(iMAMLOptions.FromPaper(model, AdaptationSteps=2, ConjugateGradientIterations=3))
    gc.collect()
    tracemalloc.start()
    try:

        def use() -> None:
            learner.MetaTrain(batch)
            learner.Evaluate(batch)
            learner.Adapt(batch[0])

        compile_all(use)
        early, arrays = bytes_of_objects(), bytes_of_arrays()
        for _ in range(20):
            use()
        late, arrays_late = bytes_of_objects(), bytes_of_arrays()
    finally:
        tracemalloc.stop()
    assert arrays_late <= arrays
    # Python keeps some small objects that are not in use for later: about 10,000 bytes were seen.
    assert late - early < 32_000
