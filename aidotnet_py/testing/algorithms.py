"""The suite that a meta-learning algorithm of one's own must pass."""

from __future__ import annotations

import math
import tempfile
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import Enum
from functools import cached_property, partial
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from aidotnet_py.arguments import POSITIVE, SWITCH, refusal
from aidotnet_py.backends import Backend, get_backend
from aidotnet_py.exceptions import ArgumentException, InvalidOperationException
from aidotnet_py.meta_learning import MetaLearnerBase, MetaLearningTask, TaskBatch
from aidotnet_py.models import NeuralNetworkModel
from aidotnet_py.nn import Dense, Sequential, Tanh
from aidotnet_py.optimizers import SGDOptimizer
from aidotnet_py.testing.learner_state import bits, untouched
from aidotnet_py.testing.running import run_checks

__all__ = ["check_algorithm"]

Host = NDArray[Any]
Learner = Callable[..., Any]
# Small, so that learned values stay within their bounds; a power of two, so that it divides without rounding.
_RATE = 2.0**-10
_STENCIL = {1: 2 / 3, 2: -1 / 12}
_STEP = 1e-4


def check_algorithm(
    algorithm: type[Any] | Callable[..., Any],
    *,
    exact: bool = True,
    tolerance: float = 1e-6,
    backend: Backend | str = "numpy",
) -> None:
    r"""Hold a subclass of `MetaLearnerBase` to what every algorithm promises.

    On a small network and three waves of unequal numbers of points: the meta-gradient is the derivative of the query
    loss after adaptation; `MetaTrain` follows it, and it is the mean over the tasks, in any order and in
    micro-batches; `Adapt`, `Evaluate` and `AdaptAndEvaluate` change neither learner nor data and give the same bits
    again, on several threads too; `Adapt` reads support sets alone, and the other two measure its models; equal
    learners take equal steps; `Save`, `Load` and `Reset` leave out nothing that steps depend on; a step that fails
    changes nothing; float32 stays float32. It takes about a second.

    Parameters
    ----------
    algorithm : subclass of MetaLearnerBase, or callable
        A class is made with its options class and that one's defaults. A callable ``make(model, **options)`` returns a
        learner with options of its own beside those given: MetaOptimizer, GradientClipThreshold, MicroBatchSize.
    exact : bool
        Whether the meta-gradient is exactly the derivative of `Evaluate` in all meta-parameters. If not, as for first
        order and for Reptile, it must have a positive inner product with it.
    tolerance : float
        How much an exact one may differ, relative to its norm. iMAML needs inner problems and systems that are
        solved to the end.
    backend : Backend or str
        Where it learns.

    Raises
    ------
    ArgumentException
        When it is neither, or makes no such learner.
    AssertionError
        When checks fail; the message has a line for each.

    Examples
    --------
    >>> from aidotnet_py import MAMLAlgorithm
    >>> from aidotnet_py.meta_learning.extend import MetaLearnerBase
    >>> from aidotnet_py.testing import check_algorithm
    >>> check_algorithm(MAMLAlgorithm)
    >>> class Doubled(MAMLAlgorithm):
    ...     def meta_gradient(self, tasks):
    ...         gradient, learned = super().meta_gradient(tasks)
    ...         return 2.0 * gradient, learned
    >>> check_algorithm(Doubled)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    AssertionError: Doubled fails 1 of 13 checks:
    - the meta-gradient: it must be the derivative of Evaluate ...; it is 2 times the derivative
    """
    SWITCH.check("exact", exact)
    POSITIVE.check("tolerance", tolerance)
    on = get_backend(backend)
    suite = _Suite(on, _maker(algorithm), exact, tolerance)
    # Refused before any check, each of which would fail for the same reason.
    name = type(suite.learner()).__name__
    checks = {what: partial(check, suite) for what, check in _CHECKS.items()}
    with warnings.catch_warnings():
        # What an algorithm warns of on so small a problem is beside the point.
        warnings.simplefilter("ignore")
        run_checks(name, checks)


def _maker(algorithm: Any) -> Learner:
    if isinstance(algorithm, type) and issubclass(algorithm, MetaLearnerBase):
        kind = cast("Any", algorithm)

        def make(model: Any, **options: Any) -> Any:
            return kind(kind._options_type(model, **options))

        return make
    made = cast("Any", algorithm)
    if not callable(made):
        raise ArgumentException(refusal("algorithm", "a subclass of MetaLearnerBase or a callable", made))
    return cast("Learner", made)


@dataclass(frozen=True)
class _Suite:
    """How to make a learner, and what to hold it to."""

    backend: Backend
    make: Learner
    exact: bool
    tolerance: float

    def learner(self, dtype: Any = np.float64, **options: Any) -> Any:
        """Return a new learner of a new model; all are alike."""
        network = Sequential(Dense(3), Tanh(), Dense(1))
        model = NeuralNetworkModel(network, input_shape=(2,), dtype=dtype, seed=1, backend=self.backend)
        settings: dict[str, Any] = {"MetaOptimizer": SGDOptimizer(_RATE), "GradientClipThreshold": None}
        made = self.make(model, **(settings | options))
        if not isinstance(made, MetaLearnerBase):
            raise ArgumentException(f"algorithm must make a MetaLearnerBase, got a {type(made).__name__}")
        return made  # pyright: ignore[reportUnknownVariableType] -- of any types

    def tasks(self, dtype: Any = np.float64) -> list[MetaLearningTask[Any, Any, Any]]:
        """Return three waves, one of which has fewer points."""
        rng = np.random.default_rng(7)

        def points(count: int, phase: float) -> tuple[Any, Any]:
            x = rng.uniform(-1.5, 1.5, (count, 2))
            y = np.sin(x.sum(axis=1, keepdims=True) + phase)
            return self.backend.asarray(x, dtype), self.backend.asarray(y, dtype)

        sets = [(*points(size, 0.4 * k), *points(size + 1, 0.4 * k)) for k, size in enumerate((5, 5, 4))]
        return [
            MetaLearningTask(SupportSetX=x, SupportSetY=y, QuerySetX=u, QuerySetY=v, NumWays=1, TaskId=f"wave {k}")
            for k, (x, y, u, v) in enumerate(sets)
        ]

    def gradient(self, learner: Any, tasks: Sequence[Any]) -> Host:
        """Return the mean meta-gradient of some tasks, in all meta-parameters."""
        result = learner.mean_meta_gradient(TaskBatch(tasks))
        return np.concatenate([self.host(part) for part in (result.parameters, *result.learned.values())])

    def parameters(self, learner: Any) -> Host:
        """Return all meta-parameters, copied to the host."""
        return self.host(learner._meta_parameters())

    def host(self, array: Any) -> Host:
        return np.array(self.backend.to_numpy(array))

    @cached_property
    def ends(self) -> list[Host]:
        """The meta-parameters of one learner at its start and after each of two steps: what others are held to."""
        learner, ends = self.learner(), list[Host]()
        for _ in range(2):
            ends.append(self.parameters(learner))
            learner.MetaTrain(TaskBatch(self.tasks()))
        return [*ends, self.parameters(learner)]

    @cached_property
    def mean(self) -> Host:
        """The meta-gradient of the tasks."""
        return self.gradient(self.learner(), self.tasks())

    def step(self, learner: Any) -> Host:
        """Return the meta-parameters after a step."""
        learner.MetaTrain(TaskBatch(self.tasks()))
        return self.parameters(learner)


def _require_close(what: str, found: Host, wanted: Host, than: str, rtol: float = 1e-9) -> None:
    allowed = rtol * (float(np.linalg.norm(wanted)) + rtol)
    difference = float(np.abs(found - wanted).max())
    # Written so that NaN fails.
    if not difference <= allowed:
        raise AssertionError(f"{what} must be {than} to {allowed:.2g}, got a largest difference of {difference:.2g}")


def _require_bits(what: str, found: Any, wanted: Any, than: str) -> None:
    if bits(found) != bits(wanted):
        raise AssertionError(f"{what} must have the bits of {than}, got others")


def _derivative(suite: _Suite, learner: Any, batch: TaskBatch[Any, Any, Any]) -> Host:
    """Return the derivative of `Evaluate` in all meta-parameters, by central differences of order 4."""
    start = suite.parameters(learner)

    def loss_at(vector: Host) -> float:
        learner._set_meta_parameters(suite.backend.asarray(vector))
        return float(learner.Evaluate(batch))

    slopes = [
        sum(c * (loss_at(start + k * _STEP * e) - loss_at(start - k * _STEP * e)) for k, c in _STENCIL.items()) / _STEP
        for e in np.eye(start.size)
    ]
    learner._set_meta_parameters(suite.backend.asarray(start))
    return np.array(slopes)


def _gradient(suite: _Suite) -> None:
    learner, tasks = suite.learner(), suite.tasks()
    found, wanted = suite.gradient(learner, tasks), _derivative(suite, learner, TaskBatch(tasks))
    product = float(found @ wanted)
    if not suite.exact:
        if not product > 0:
            raise AssertionError(
                "it must have a positive inner product with the derivative of Evaluate, so that a step lowers the "
                f"loss, got {product:.2g}"
            )
        return
    allowed = suite.tolerance * float(np.linalg.norm(wanted))
    largest = float(np.abs(found - wanted).max())
    if not largest <= allowed:
        raise AssertionError(
            f"it must be the derivative of Evaluate to {allowed:.2g}, got a largest difference of {largest:.2g} in "
            f"{_name_of(learner, int(np.argmax(np.abs(found - wanted))))}{_hint(found, wanted)}"
        )


def _name_of(learner: Any, place: int) -> str:
    """Return the name of a meta-parameter by its place in the vector of all."""
    sizes = {name: math.prod(shape) for name, shape in learner.BaseModel.parameter_shapes.items()}
    sizes |= {name: int(vector.shape[0]) for name, vector in learner._learned_vectors().items()}
    for name, size in sizes.items():
        if place < size:
            return repr(name)
        place -= size
    return "an unknown parameter"


def _hint(found: Host, wanted: Host) -> str:
    """Say what the wrong gradient is, where that is plain."""
    times = float(found @ wanted / (wanted @ wanted))
    if np.linalg.norm(found - times * wanted) <= 1e-6 * np.linalg.norm(found):
        return f"; it is {times:.3g} times the derivative"
    return "; exact=False if it approximates the derivative by design"


def _steps(suite: _Suite) -> None:
    learner, batch = suite.learner(), TaskBatch(suite.tasks())
    losses = float(learner.Evaluate(batch)), float(learner.MetaTrain(batch))
    moved = (suite.ends[0] - suite.parameters(learner)) / _RATE
    _require_close("the step of gradient descent", moved, suite.mean, "mean_meta_gradient", rtol=1e-8)
    _require_close("the loss that MetaTrain returns", np.array(losses[1]), np.array(losses[0]), "that of Evaluate")


def _alone(suite: _Suite) -> None:
    learner = suite.learner()
    alone = np.mean([suite.gradient(learner, [task]) for task in suite.tasks()], axis=0)
    _require_close("the meta-gradient of a batch", suite.mean, alone, "the mean of its tasks'")


def _order(suite: _Suite) -> None:
    learner = suite.learner()
    learner.MetaTrain(TaskBatch(suite.tasks()[::-1]))
    turned, wanted = ((end - suite.ends[0]) / _RATE for end in (suite.parameters(learner), suite.ends[1]))
    _require_close("a step on the tasks in reverse order", turned, wanted, "the step in their order", rtol=1e-8)


def _micro_batches(suite: _Suite) -> None:
    parts = suite.gradient(suite.learner(MicroBatchSize=2), suite.tasks())
    _require_close("the meta-gradient with MicroBatchSize=2", parts, suite.mean, "that of the whole batch")


def _adaptation(suite: _Suite) -> None:
    learner, tasks = suite.learner(), suite.tasks()
    calls: dict[str, Callable[[], Any]] = {
        "Adapt": lambda: learner.Adapt(tasks[0]).GetParameters(),
        "Evaluate": lambda: learner.Evaluate(TaskBatch(tasks)),
        "AdaptAndEvaluate": lambda: learner.AdaptAndEvaluate(tasks[1]).QueryLoss,
        "mean_meta_gradient": lambda: suite.gradient(learner, tasks),
    }
    data = _data(tasks)
    for name, call in calls.items():
        try:
            with untouched(learner):
                first = bits(call())
        except AssertionError as error:
            raise AssertionError(f"{name}: {error}") from error
        if _data(tasks) != data:
            raise AssertionError(f"{name} must leave the tasks' arrays alone, got other bits of them")
        if bits(call()) != first:
            raise AssertionError(f"{name} must give the same bits when called again, got others")
    adapted = learner.Adapt(tasks[0])
    if adapted is learner.BaseModel or type(adapted) is not type(learner.BaseModel):
        raise AssertionError(f"Adapt must return a new model of the model's class, got a {type(adapted).__name__}")
    if not np.isfinite(suite.host(adapted.GetParameters())).all():
        raise AssertionError("Adapt must return finite parameters, got others")
    of_first = bits(adapted.GetParameters())
    learner.Adapt(tasks[1])
    if bits(adapted.GetParameters()) != of_first:
        raise AssertionError("Adapt must return a model of its own each time, got one that the next call changed")
    _require_support_alone(learner, tasks[0], of_first)
    _require_query_losses(learner, tasks)
    # Whatever the calls left somewhere must not matter to the next step.
    _require_bits("a step after adaptations", suite.step(learner), suite.ends[1], "one without them")


def _require_support_alone(learner: Any, task: Any, wanted: Any) -> None:
    """Require the same adapted model where a task has no query set."""
    x, y = task.SupportInput, task.SupportOutput
    try:
        found = bits(learner.Adapt(MetaLearningTask(SupportSetX=x, SupportSetY=y, NumWays=1)).GetParameters())
    except Exception as error:
        got = f"{type(error).__name__}: {error}"
        raise AssertionError(f"Adapt must not read the query set, which may be absent, got {got}") from error
    if found != wanted:
        raise AssertionError("Adapt must not read the query set, got another model without one")


def _require_query_losses(learner: Any, tasks: Sequence[Any]) -> None:
    """Require that Evaluate and AdaptAndEvaluate measure the models that Adapt returns."""
    for task in tasks:
        loss = learner.DefaultLossFunction.CalculateLoss(learner.Adapt(task).Predict(task.QueryInput), task.QueryOutput)
        for name, found in {
            "Evaluate": learner.Evaluate(TaskBatch([task])),
            "AdaptAndEvaluate": learner.AdaptAndEvaluate(task).QueryLoss,
        }.items():
            than = "that of the model that Adapt returns"
            _require_close(f"the query loss of {name}", np.array(float(found)), np.array(float(loss)), than)


def _data(tasks: Sequence[Any]) -> Any:
    return [bits(a) for t in tasks for a in (t.SupportInput, t.SupportOutput, t.QueryInput, t.QueryOutput)]


def _threads(suite: _Suite) -> None:
    learner, tasks = suite.learner(), suite.tasks()

    def adapted(task: Any) -> Any:
        return bits(learner.Adapt(task).GetParameters())

    one_by_one = [adapted(task) for task in tasks]
    with ThreadPoolExecutor(len(tasks)) as pool:
        for _ in range(3):
            if list(pool.map(adapted, tasks)) != one_by_one:
                raise AssertionError("Adapt on several threads must give the bits of one, got others")


def _twins(suite: _Suite) -> None:
    learner = suite.learner()
    steps = [suite.step(learner) for _ in range(2)]
    _require_bits("two steps of one learner", steps, suite.ends[1:], "those of another made alike")


def _saving(suite: _Suite) -> None:
    learner, taken_up = suite.learner(), suite.learner()
    suite.step(learner)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "learner.safetensors")
        learner.Save(path)
        taken_up.Load(path)
    _require_bits("a step after Save and Load", suite.step(taken_up), suite.ends[2], "one that goes on")


def _reset(suite: _Suite) -> None:
    learner = suite.learner()
    start = suite.backend.asarray(learner.BaseModel.GetParameters())
    suite.step(learner)
    learner.BaseModel.SetParameters(start)
    learner.Reset()
    what = "a step after Reset, from the first parameters,"
    _require_bits(what, suite.step(learner), suite.ends[1], "a new learner's first")


def _failure(suite: _Suite) -> None:
    learner, tasks = suite.learner(), suite.tasks()
    learner.MetaTrain(TaskBatch(tasks))
    spoilt = suite.host(tasks[1].QueryOutput)
    spoilt[0] = np.nan
    tasks[1] = MetaLearningTask(
        SupportSetX=tasks[1].SupportInput,
        SupportSetY=tasks[1].SupportOutput,
        QuerySetX=tasks[1].QueryInput,
        QuerySetY=suite.backend.asarray(spoilt),
        NumWays=1,
        TaskId="spoilt",
    )
    with untouched(learner):
        try:
            learner.MetaTrain(TaskBatch(tasks))
        except InvalidOperationException:
            return
    raise AssertionError("a step on targets with a NaN must raise InvalidOperationException, got a step")


def _report(suite: _Suite) -> None:
    learner = suite.learner()
    if not isinstance(learner.AlgorithmType, Enum):
        raise AssertionError(f"AlgorithmType must be a member of an Enum, got {learner.AlgorithmType!r:.80}")
    metrics = learner.mean_meta_gradient(TaskBatch(suite.tasks())).metrics
    for name, value in metrics.items():
        if not isinstance(name, str) or not math.isfinite(float(value)):
            raise AssertionError(f"report must return finite numbers by name, got {name!r}: {value!r:.80}")


def _float32(suite: _Suite) -> None:
    learner, tasks = suite.learner(np.float32), suite.tasks(np.float32)
    found = suite.gradient(learner, tasks)
    _require_close("the meta-gradient in float32", found, suite.mean, "that in float64", rtol=1e-2)
    learner.MetaTrain(TaskBatch(tasks))
    for what, array in {
        "mean_meta_gradient": learner.mean_meta_gradient(TaskBatch(tasks)).parameters,
        "the parameters after a step": learner.BaseModel.GetParameters(),
        "the parameters that Adapt returns": learner.Adapt(tasks[0]).GetParameters(),
    }.items():
        if suite.backend.dtype_of(array) != np.float32:
            raise AssertionError(f"{what} must be float32 for a model of float32, got {suite.backend.dtype_of(array)}")


_CHECKS: dict[str, Callable[[_Suite], None]] = {
    "the meta-gradient": _gradient,
    "steps": _steps,
    "tasks alone": _alone,
    "the order of tasks": _order,
    "micro-batches": _micro_batches,
    "adaptation": _adaptation,
    "threads": _threads,
    "equal learners": _twins,
    "Save and Load": _saving,
    "Reset": _reset,
    "a step that fails": _failure,
    "reports": _report,
    "float32": _float32,
}
