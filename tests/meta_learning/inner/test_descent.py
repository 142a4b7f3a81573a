"""Inner steps taken in one go: the bits of steps taken one by one, for every optimizer with a formula."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
import pytest
from plain_optimizers import Halving

from aidotnet_py import (
    AdamOptimizer,
    ArgumentException,
    IGradientBasedOptimizer,
    InvalidOperationException,
    MAMLAlgorithm,
    MAMLOptions,
    MetaLearningTask,
    NeuralNetworkModel,
    SGDOptimizer,
    TaskBatch,
    iMAMLAlgorithm,
    iMAMLOptions,
)
from aidotnet_py.autodiff import trace
from aidotnet_py.autodiff.execution import Executable, Run, Schedule
from aidotnet_py.backends import NumPyBackend
from aidotnet_py.backends.numpy.llvm import shared_compiler
from aidotnet_py.meta_learning.inner.rule import InnerRule, along_proximal_gradient
from aidotnet_py.meta_learning.inner.steps import InnerLoop
from aidotnet_py.meta_learning.learner.tasks import Tasks
from aidotnet_py.meta_learning.objective.chunk import Chunk
from aidotnet_py.nn import Dense, Sequential, Tanh
from aidotnet_py.optimizers import ElementwiseOptimizer

needs_llvm = pytest.mark.skipif(shared_compiler() is None, reason="llvmlite is not installed")


class Decaying(ElementwiseOptimizer):
    """Rates that change every third step, and a memory of the gradient before."""

    memory = ("before",)

    def coefficients(self, step: int) -> tuple[float, ...]:
        return (self._learning_rate / (1 + step // 3),)

    def formula(
        self, parameters: Any, gradient: Any, memory: Sequence[Any], coefficients: Sequence[Any]
    ) -> tuple[Any, list[Any]]:
        (rate,) = coefficients
        return parameters - rate * (gradient + 0.5 * memory[0]), [gradient]


class Counting(ElementwiseOptimizer):
    """Rates by its own counts of steps, and of the questions for them."""

    asked = 0

    def coefficients(self, step: int) -> tuple[float, ...]:
        self.asked += 1
        return (self._learning_rate / (1 + self._steps + self.asked),)

    def formula(
        self, parameters: Any, gradient: Any, memory: Sequence[Any], coefficients: Sequence[Any]
    ) -> tuple[Any, list[Any]]:
        return parameters - coefficients[0] * gradient, []


class Harmonic(SGDOptimizer):
    """Rates that only GetCurrentLearningRate tells."""

    def GetCurrentLearningRate(self) -> float:
        return self._learning_rate / (1 + self._steps)


def with_formula(
    memory: tuple[str, ...],
    formula: Callable[[Any, Any, Sequence[Any], Sequence[Any]], tuple[Any, list[Any]]],
    coefficients: Callable[[int], tuple[float, ...]] = lambda step: (0.1,),
) -> Callable[[], ElementwiseOptimizer]:
    """Optimizers of a class of their own."""
    methods = {
        "memory": memory,
        "formula": lambda self, *arguments: formula(*arguments),
        "coefficients": lambda self, step: coefficients(step),
    }
    return lambda: type("Given", (ElementwiseOptimizer,), methods)(0.1)


OPTIMIZERS: dict[str, Callable[[], IGradientBasedOptimizer]] = {
    "sgd": lambda: SGDOptimizer(0.1),
    "momentum": lambda: SGDOptimizer(0.1, momentum=0.9),
    "adam": lambda: AdamOptimizer(0.05),
    "decaying": lambda: Decaying(0.1),
    "counting": lambda: Counting(0.1),
    "unmoved": with_formula(("a", "b"), lambda p, g, m, c: (p, [m[1], m[0] + g])),
    "swapped": with_formula(("a", "b"), lambda p, g, m, c: (p - c[0] * (g + m[0] - m[1]), [m[1], m[0] + g])),
    "passed on": with_formula(("a", "b", "c"), lambda p, g, m, c: (p - c[0] * (g + m[2]), [g, m[0], m[1]])),
    "shared": with_formula(("a", "b"), lambda p, g, m, c: ((n := p - c[0] * (g + 0.1 * m[0])), [n, n])),
    "before": with_formula(("a",), lambda p, g, m, c: (p - c[0] * (g - 0.1 * m[0]), [p])),
    "constant": with_formula(("a",), lambda p, g, m, c: (p - c[0] * (g + m[0]), [np.zeros_like(p)])),
    "functions": with_formula(("a",), lambda p, g, m, c: (np.tanh(p) - c[0] * np.exp(-g * g), [np.sin(m[0]) + g])),
    "turned": with_formula(("a",), lambda p, g, m, c: (p[:, ::-1] - c[0] * g, [m[0][:, ::-1] + g])),
    "rolled": with_formula(
        (), lambda p, g, m, c: (np.concatenate([p[:, 3:] - c[0] * g[:, 3:], p[:, :3] * 0.5], axis=1), [])
    ),
    "scheduled": with_formula(
        (), lambda p, g, m, c: (p - c[0] * g * c[1], []), lambda step: (0.1 / (1 + step // 2), step % 2)
    ),
    "signed zeros": with_formula(
        (), lambda p, g, m, c: (p - 0.1 * np.tanh(g / c[0]), []), lambda step: ((0.0, -0.0)[step % 2],)
    ),
    "harmonic": lambda: Harmonic(0.1),
    "free": with_formula((), lambda p, g, m, c: (p - 0.1 * g, []), lambda step: ()),
}


def a_task(seed: int, dtype: Any) -> MetaLearningTask[Any, Any, Any]:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((6, 3)).astype(dtype)
    y = rng.standard_normal((6, 2)).astype(dtype)
    return MetaLearningTask(SupportSetX=x, SupportSetY=y, QuerySetX=x, QuerySetY=y, NumWays=1)


def learner_with(optimizer: Any, dtype: Any = np.float64, **options: Any) -> iMAMLAlgorithm[Any, Any, Any]:
    network = Sequential(Dense(8), Tanh(), Dense(2))
    model = NeuralNetworkModel(network, input_shape=(3,), dtype=dtype, seed=0)
    return iMAMLAlgorithm(iMAMLOptions(model, InnerOptimizer=optimizer, AdaptationSteps=7, **options))


def loop_of(learner: Any, dtype: Any, steps: int = 7) -> InnerLoop:
    tasks = [a_task(seed, dtype) for seed in range(3)]
    chunk: Chunk = learner._open(tasks, "Support")[0].part(0, 3, 0)
    return Tasks(chunk, learner).loop(steps)


def one_by_one(loop: InnerLoop, steps: int) -> Any:
    for _ in range(steps):
        loop.step()
    return np.array(loop.points)


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize(("proximal", "dtype"), [(None, np.float64), ("one", np.float32), ("each", np.float64)])
def test_in_one_go_as_one_by_one(name: str, proximal: str | None, dtype: Any) -> None:
    options = {} if proximal is None else {"InnerObjective": "proximal", "LambdaRegularization": 0.5}
    learner = learner_with(OPTIMIZERS[name](), dtype, **options)
    if proximal == "each":
        count = learner.BaseModel.ParameterCount
        strength = np.linspace(0.5, 2.0, count).astype(dtype)
        rule = InnerRule(learner._inner_optimizer(), along_proximal_gradient, (strength,))
        learner.inner_rule = lambda tasks: rule  # type: ignore[method-assign]  # as with a learned λ
    for turn in range(4):
        expected = one_by_one(loop_of(learner, dtype), 7)
        loop = loop_of(learner, dtype)
        programs: Any = loop.chunk.support
        if turn == 2:
            programs.bind().evaluation.compile()
        loop.step = None  # type: ignore[assignment, method-assign]  # not to be called
        loop.run()
        assert loop.taken == 7
        assert np.array(loop.points).tobytes() == expected.tobytes(), (name, turn)


@pytest.mark.parametrize(
    ("memory", "formula", "given"),
    [
        (("a",), lambda p, g, m, c: (p - g, []), r"float32\[3,50\]"),
        ((), lambda p, g, m, c: (p - g, [g]), r"float32\[3,50\], float32\[3,50\]"),
        (("a",), lambda p, g, m, c: (p - g, [g.sum(axis=1)]), r"float32\[3,50\], float32\[3\]"),
        ((), lambda p, g, m, c: ((p - g).astype(np.float64), []), r"float64\[3,50\]"),
    ],
)
def test_a_formula_of_other_results_is_refused(memory: Any, formula: Any, given: str) -> None:
    learner = learner_with(with_formula(memory, formula)(), np.float32)
    wanted = f"new parameters and {len(memory)} arrays of memory, all float32.*"
    with pytest.raises(InvalidOperationException, match=f"formula must return {wanted}, got {given}"):
        loop_of(learner, np.float32).run(7)


def test_new_rates_hold_at_once() -> None:
    learner = learner_with(None)
    for rate in (0.1, 0.2, 0.1):
        learner.Options.InnerLearningRate = rate
        expected = one_by_one(loop_of(learner, np.float64), 7)
        loop = loop_of(learner, np.float64)
        loop.run()
        np.testing.assert_array_equal(loop.points, expected)


def test_an_optimizer_without_a_formula_steps_by_itself() -> None:
    class Signs(ElementwiseOptimizer):
        def UpdateParameters(self, parameters: Any, gradient: Any) -> Any:
            return parameters - 0.1 * np.sign(gradient)

    loop = loop_of(learner_with(Signs(0.1)), np.float64, 2)
    start = np.array(loop.points)
    loop.run()
    steps = np.abs(np.array(loop.points) - start) / 0.1
    np.testing.assert_allclose(steps, np.round(steps), atol=1e-9)


class OfUnitLength(ElementwiseOptimizer):
    """Steps along the gradient's direction, by a formula that mixes the parameters of a vector."""

    def formula(
        self, parameters: Any, gradient: Any, memory: Sequence[Any], coefficients: Sequence[Any]
    ) -> tuple[Any, list[Any]]:
        return parameters - coefficients[0] * gradient / np.sqrt(np.sum(gradient**2)), []


class Clipping(AdamOptimizer):
    """Adam on gradients of a norm of at most 0.1, with a list of them that Reset empties."""

    def __init__(self) -> None:
        self.norms: list[float] = []
        super().__init__(0.05)

    def UpdateParameters(self, parameters: Any, gradient: Any) -> Any:
        self.norms.append(float(np.linalg.norm(gradient)))
        return super().UpdateParameters(parameters, gradient * min(1.0, 0.1 / max(self.norms)))

    def Reset(self) -> None:
        super().Reset()
        self.norms.clear()


class Locked(Clipping):
    """Its lock has no copy; its list of norms has."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        super().__init__()

    def UpdateParameters(self, parameters: Any, gradient: Any) -> Any:
        with self.lock:
            return super().UpdateParameters(parameters, gradient)


class LockedHalving(Halving):
    """An optimizer on no base of ours, with a lock, and with a list of norms that Reset empties."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.norms: list[float] = []

    def UpdateParameters(self, parameters: Any, gradient: Any) -> Any:
        with self.lock:
            self.norms.append(float(np.linalg.norm(gradient)))
            return super().UpdateParameters(parameters, gradient / max(self.norms))

    def Reset(self) -> None:
        self.norms.clear()


class InSlots(Halving):
    """An optimizer with a lock that nothing shows."""

    __slots__ = ("lock",)

    def __init__(self) -> None:
        self.lock = threading.Lock()


class ClippingStep(SGDOptimizer):
    """Descent whose own step over arrays clips the gradient's norm."""

    def _step(self, backend: Any, parameters: Any, gradient: Any) -> Any:
        return super()._step(backend, parameters, gradient * min(1.0, 0.1 / float(np.linalg.norm(gradient))))


@pytest.mark.parametrize(
    "make", [lambda: OfUnitLength(0.05), Clipping, Locked, LockedHalving, lambda: ClippingStep(0.5)]
)
def test_norms_of_an_optimizers_own_are_those_of_one_task(make: Callable[[], IGradientBasedOptimizer]) -> None:
    tasks = [a_task(seed, np.float64) for seed in range(3)]
    learner = learner_with(make(), UseFirstOrder=True)
    together = learner.mean_meta_gradient(TaskBatch(tasks)).parameters
    alone = [learner.mean_meta_gradient(TaskBatch([task])).parameters for task in tasks]
    np.testing.assert_allclose(together, np.mean(alone, axis=0), rtol=1e-10, atol=1e-12)


def test_an_optimizer_without_a_copy_is_refused_in_words() -> None:
    learner = learner_with(InSlots())
    with pytest.raises(ArgumentException, match=r"^an optimizer .* copies.*, got a InSlots: .*; give .* __deepcopy__"):
        learner.mean_meta_gradient(TaskBatch([a_task(0, np.float64)]))


class OneArray(Halving):
    """An optimizer whose results are all in one array, which its copies share."""

    results: ClassVar[dict[Any, Any]] = {}

    def UpdateParameters(self, parameters: Any, gradient: Any) -> Any:
        result = self.results.setdefault(parameters.shape, np.empty_like(parameters))
        result[:] = super().UpdateParameters(parameters, gradient)
        return result


def test_rates_that_an_optimizer_tells_hold_in_inner_steps() -> None:
    tasks = [a_task(seed, np.float64) for seed in range(3)]
    rates = with_formula((), lambda p, g, m, c: (p - c[0] * g, []), lambda step: (0.1 / step,))
    told, written = (learner_with(optimizer).Adapt(tasks[0]).GetParameters() for optimizer in (Harmonic(0.1), rates()))
    np.testing.assert_allclose(told, written, rtol=1e-12)


def test_an_optimizer_may_return_all_its_results_in_one_array() -> None:
    batch = TaskBatch([a_task(seed, np.float64) for seed in range(3)])
    one, new = (learner_with(optimizer).mean_meta_gradient(batch) for optimizer in (OneArray(), Halving()))
    assert (one.parameters == new.parameters).all()


class InDouble(Halving):
    """An optimizer that computes in double precision."""

    def UpdateParameters(self, parameters: Any, gradient: Any) -> Any:
        return super().UpdateParameters(parameters.astype(np.float64), gradient.astype(np.float64))


def test_an_optimizer_may_compute_in_another_precision() -> None:
    """As MetaOptimizer, its result was refused as "parameters" of another dtype."""
    batch = TaskBatch([a_task(seed, np.float32) for seed in range(3)])

    def trained(inner: Any, meta: Any) -> Any:
        model = NeuralNetworkModel(Sequential(Dense(4), Tanh(), Dense(2)), input_shape=(3,), seed=0)
        options = MAMLOptions(model, InnerOptimizer=inner, MetaOptimizer=meta, UseFirstOrder=True, AdaptationSteps=2)
        MAMLAlgorithm(options).MetaTrain(batch)
        return model.GetParameters()

    np.testing.assert_allclose(
        trained(InDouble(), InDouble()), trained(SGDOptimizer(0.05), SGDOptimizer(0.05)), rtol=1e-5, atol=1e-6
    )


def test_maml_differentiates_through_a_formula_that_mixes_the_parameters_of_a_vector() -> None:
    tasks = [a_task(seed, np.float64) for seed in range(3)]
    network = Sequential(Dense(4), Tanh(), Dense(2))
    model = NeuralNetworkModel(network, input_shape=(3,), dtype=np.float64, seed=0)
    learner = MAMLAlgorithm(MAMLOptions(model, InnerOptimizer=OfUnitLength(0.05), AdaptationSteps=3))
    gradient, start = learner.mean_meta_gradient(TaskBatch(tasks)).parameters, model.GetParameters()
    direction = np.random.default_rng(0).standard_normal(start.shape)

    def loss(step: float) -> float:
        model.SetParameters(start + step * direction)
        return float(learner.mean_meta_gradient(TaskBatch(tasks)).loss)

    assert gradient @ direction == pytest.approx((loss(1e-5) - loss(-1e-5)) / 2e-5, rel=1e-6)


@needs_llvm
def test_compiled_rounds_are_one_call_of_the_same_bits() -> None:
    compiler = NumPyBackend().compiler
    assert compiler is not None
    while compiler.chain([]) is None:
        time.sleep(0.01)
    x = np.linspace(-1.0, 1.0, 12)
    program = trace(lambda x, y: [x * 0.75 + y, x * y], x, x)
    found: list[bytes] = []
    for backend in (NumPyBackend(), NumPyBackend(compiled=False)):
        state = x.copy()
        first = Executable(program, backend, inputs=[state, None], carried={0: 0})
        second = Executable(program, backend, inputs=[state, None], carried={1: 0})
        for executable in (first, second):
            executable.inputs[1][...] = 0.5
            executable.compile()
        rounds = Schedule(backend, Run(first, 0), Run(second, 0))
        rounds.run(0)
        assert state.tobytes() == x.tobytes()
        rounds.run(1)
        assert (rounds._replay._rounds is not None) == (backend.compiler is not None)
        rounds.run(9)
        found.append(state.tobytes())
    assert found[0] == found[1]
    expected = x.copy()
    for _ in range(10):
        expected = (expected * 0.75 + 0.5) * 0.5
    np.testing.assert_allclose(np.frombuffer(found[0]), expected, rtol=1e-14)
