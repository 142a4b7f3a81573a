"""The objective of a model that the engine traces: exact, all tasks in one Program, nothing recomputed in a solve."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal, Protocol, TypeAlias, TypeVar

import numpy as np

from aidotnet_py.autodiff import grad, hvp, jvp, value_and_grad, vjp
from aidotnet_py.autodiff.extend import (
    ArrayType,
    Atom,
    Copy,
    Executable,
    Program,
    Queue,
    Run,
    Trace,
    new_trace,
    require_alike,
    run_to_compile_at,
    simplify,
    vmap_program,
)
from aidotnet_py.backends import Array, Backend
from aidotnet_py.exceptions import InvalidOperationException
from aidotnet_py.locks import Lock
from aidotnet_py.losses import ILossFunction, LossFunctionBase
from aidotnet_py.losses.interface import checked_accuracy, checked_loss
from aidotnet_py.meta_learning.objective.interface import (
    PATIENCE,
    CurvatureKind,
    CurvatureWork,
    Evaluation,
    GradientWork,
    ProductWork,
    TaskObjective,
)
from aidotnet_py.meta_learning.objective.ownership import BufferOwners
from aidotnet_py.models import IDifferentiableModel
from aidotnet_py.models.interfaces import parameter_dtype
from aidotnet_py.models.noise import draw_noise
from aidotnet_py.solvers.iteration import BufferedOperator, Iteration

__all__ = ["BatchedPrograms", "ModelFunction", "Place", "Signature", "TaskPrograms", "TracedObjective", "leaf_views"]

Values: TypeAlias = Iterable[Any]
ModelFunction: TypeAlias = Callable[[Mapping[str, Any], Any], Any]
Shapes: TypeAlias = Mapping[str, tuple[int, ...]]
Step: TypeAlias = Callable[[Any], Any]
ProgramName: TypeAlias = Literal["evaluation", "hessian", "gauss-newton"]
C = TypeVar("C")

# Stages: work on the examples runs once a batch, work at φ once a point, the rest once a product.
_EXAMPLES, _POINT, _DIRECTION = 0, 1, 2

# Coefficients of a product: of the identity, and of the curvature.
_COEFFICIENTS = 2


# A batch has one rule of inner steps; one more is kept, for a rule of an earlier batch that comes again.
_MOST_COMPANIONS = 2


@dataclass(frozen=True)
class Signature:
    """Everything that the programs of one task depend on; equal signatures share programs.

    Losses are compared by identity, since a loss that defines ``==`` may have no hash.
    """

    apply: ModelFunction
    loss: ILossFunction[Any] = field(compare=False)
    loss_id: int
    shapes: tuple[tuple[str, tuple[int, ...]], ...]
    parameters: ArrayType
    input: ArrayType
    target: ArrayType
    # Names and shapes of the noise that the model takes in training.
    noise: tuple[tuple[str, tuple[int, ...]], ...] = ()
    # Computed once, since a step looks up a signature many times.
    _hash: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        compared = self.apply, self.loss_id, self.shapes, self.parameters, self.input, self.target, self.noise
        object.__setattr__(self, "_hash", hash(compared))

    def __hash__(self) -> int:
        return self._hash

    @classmethod
    def of(cls, model: IDifferentiableModel[Any, Any, Any], loss: ILossFunction[Any], x: Array, y: Array) -> Signature:
        """Return the signature for tasks with sets like x and y, without noise."""
        shapes = tuple(zip(model.parameter_shapes, map(tuple, model.parameter_shapes.values()), strict=True))
        dtype = parameter_dtype(model, model.backend)
        of_x, of_y = (ArrayType(tuple(a.shape), model.backend.dtype_of(a)) for a in (x, y))
        return cls(model.apply, loss, id(loss), shapes, ArrayType((model.ParameterCount,), dtype), of_x, of_y)

    def of_function(self, function: ModelFunction, shapes: Shapes) -> Signature:
        """Return the signature of another function of other parameters, for the same sets and loss."""
        size = sum(math.prod(shape) for shape in shapes.values())
        parameters = ArrayType((size,), self.parameters.dtype)
        return replace(self, apply=function, shapes=tuple(shapes.items()), parameters=parameters)


class TaskPrograms:
    """The programs of one task, traced at their first use, and the same programs for several tasks.

    Parameters
    ----------
    signature : Signature
        Everything that the programs depend on.
    after_trace : callable
        Called after each trace of the model's function and the loss.
    """

    def __init__(self, signature: Signature, after_trace: Callable[[], None] = lambda: None) -> None:
        self.signature = signature
        self._after_trace = after_trace
        self._lock = Lock()
        self._single: dict[str, Program] = {}
        self._batched: dict[tuple[str, int], Program] = {}
        self._flops: int | None = None

    @property
    def flops(self) -> int:
        """Floating-point operations of one gradient."""
        if self._flops is None:
            self._flops = self.single("evaluation").flops
        return self._flops

    def single(self, name: ProgramName) -> Program:
        """Return a program of one task: the evaluation or a curvature product.

        The evaluation is (parameters, x, y, noise) ↦ loss, predictions, gradients. A product is
        (parameters, x, y, noise, v, identity, weight) ↦ gradients, identity · v + weight · Hv.
        """
        with self._lock:
            if name not in self._single:
                self._single[name] = self._trace(name)
                self._after_trace()
            return self._single[name]

    def for_tasks(self, name: ProgramName, tasks: int) -> Program:
        """Return the program for several tasks, whose values have an axis in front."""
        with self._lock:
            program = self._batched.get((name, tasks))
            if program is None:
                single = self.single(name)
                # The coefficients of a product are the same for all tasks.
                shared = 0 if name == "evaluation" else _COEFFICIENTS
                batched = [True] * (len(single.inputs) - shared) + [False] * shared
                program = self._batched[name, tasks] = vmap_program(single, batched, tasks)
            return program

    def _trace(self, name: ProgramName) -> Program:
        dtype = self.signature.parameters.dtype
        with new_trace() as trace:
            point, predict, judge = self._task(trace)
            if name == "evaluation":
                outputs = self._evaluate(point, predict, judge)
            else:
                product = self._hessian if name == "hessian" else self._gauss_newton
                v = self._named_inputs(trace, self.signature.shapes)
                identity, weight = (trace.new_input(ArrayType((), dtype)) for _ in range(_COEFFICIENTS))
                gradient, curved = product(point, predict, judge, v)
                outputs = [*gradient, *(identity * a + weight * b for a, b in zip(v.values(), curved, strict=True))]
            return simplify(trace.finish(outputs))

    def _task(self, trace: Trace) -> tuple[dict[str, Any], Step, Step]:
        """Add a task's inputs to a trace: return the parameters, and functions that hold examples and noise."""
        point = self._named_inputs(trace, self.signature.shapes)
        x, y = trace.new_input(self.signature.input), trace.new_input(self.signature.target)
        return point, self._predictor(x, self._named_inputs(trace, self.signature.noise)), self._judge(y)

    def _named_inputs(self, trace: Trace, shapes: Sequence[tuple[str, tuple[int, ...]]]) -> dict[str, Any]:
        dtype = self.signature.parameters.dtype
        return {name: trace.new_input(ArrayType(shape, dtype)) for name, shape in shapes}

    def _evaluate(self, point: Mapping[str, Any], predict: Step, judge: Step) -> Sequence[Any]:
        predictions, pullback = vjp(predict, point)
        loss, cotangent = value_and_grad(judge)(predictions)
        return [loss, predictions, *pullback(cotangent)[0].values()]

    def _hessian(
        self, point: Mapping[str, Any], predict: Step, judge: Step, v: Mapping[str, Any]
    ) -> tuple[Values, Values]:
        gradient, product = jvp(grad(_compose(predict, judge)), (point,), (v,))
        return gradient.values(), product.values()

    def _gauss_newton(
        self, point: Mapping[str, Any], predict: Step, judge: Step, v: Mapping[str, Any]
    ) -> tuple[Values, Values]:
        gradient = value_and_grad(_compose(predict, judge))(point)[1]
        predictions, moved = jvp(predict, (point,), (v,))
        curved = hvp(judge, predictions, moved)
        product = vjp(predict, point)[1](curved)[0]
        return gradient.values(), product.values()

    def _predictor(self, x: Any, noise: Mapping[str, Any]) -> Step:
        """Return the function from parameters to predictions."""

        def predict(parameters: Any) -> Any:
            return self.signature.apply({**parameters, **noise}, x)

        return predict

    def _judge(self, y: Any) -> Step:
        """Return the function from predictions to the loss."""

        def judge(predictions: Any) -> Any:
            return checked_loss(self.signature.loss, predictions, y)

        return judge

    def require_pure(self) -> None:
        """Raise InvalidOperationException if a second trace of model and loss gives another program."""
        require_alike(self._loss(), self._loss(), "the model's function, with the loss's formula,")
        self._after_trace()

    def _loss(self) -> Program:
        """Trace (parameters, x, y, noise) ↦ loss."""
        with new_trace() as trace:
            point, predict, judge = self._task(trace)
            return simplify(trace.finish([judge(predict(point))]))


def _compose(predict: Step, judge: Step) -> Step:
    """Return the function from parameters to the loss."""

    def loss(parameters: Any) -> Any:
        return judge(predict(parameters))

    return loss


class BatchedPrograms:
    """The programs of several tasks, ready to run, and their shared buffers."""

    def __init__(self, programs: TaskPrograms, tasks: int, backend: Backend, queue: Queue) -> None:
        self.queue = queue
        self._programs = programs
        self._signature = signature = programs.signature
        self._tasks = tasks
        self._backend = backend
        dtype = signature.parameters.dtype
        flat = (tasks, signature.parameters.size)
        self.points, self.gradients = backend.empty(flat, dtype), backend.empty(flat, dtype)
        evaluation = programs.for_tasks("evaluation", tasks)
        self.evaluation = Executable(
            evaluation,
            backend,
            stages=[_POINT] * len(signature.shapes) + [_EXAMPLES] * (2 + len(signature.noise)),
            inputs=[*self._leaves(self.points), None, None, *[None] * len(signature.noise)],
            outputs=[None, None, *self._leaves(self.gradients)],
            compile_at=run_to_compile_at(evaluation, PATIENCE),
        )
        # Whether each evaluation writes all gradients; a gradient that does not depend on the point is written once.
        self.rewrites_gradients = _all_depend(programs.for_tasks("evaluation", tasks), len(signature.shapes))
        self.inputs, self.targets, *self.noise = self.evaluation.inputs[len(signature.shapes) :]
        self.losses, self.predictions = self.evaluation.outputs[:2]
        # By kind, and by whether each product has a point of its own.
        self._curvatures: dict[tuple[CurvatureKind, bool], CurvatureProgram] = {}
        self.at_point = Run(self.evaluation, _POINT)
        # Other programs on these buffers, which live as long: by name, and the last few that `companion` returned.
        self.companions: dict[str, Any] = {}
        self._others: list[Any] = []
        self.owners = BufferOwners()

    @property
    def nbytes(self) -> int:
        """Bytes of all buffers."""
        flat = self._tasks * self._signature.parameters.nbytes
        noise = sum(math.prod(shape) for _, shape in self._signature.noise) * self._signature.parameters.dtype.itemsize
        examples = self._tasks * (self._signature.input.nbytes + self._signature.target.nbytes + noise)
        curvatures = sum(program.nbytes + 2 * flat for program in self._curvatures.values())
        others = sum(int(other.nbytes) for other in [*self.companions.values(), *self._others])
        return 2 * flat + examples + self.evaluation.nbytes + curvatures + others

    def run_examples(self) -> None:
        """Run the stage of the examples, after they have changed."""
        self.evaluation.run(_EXAMPLES)
        for program in self._curvatures.values():
            program.executable.run(_EXAMPLES)

    def companion(self, serves: Callable[[C], bool], make: Callable[[], C]) -> C:
        """Return an object that was made earlier and that ``serves`` accepts, or make one."""
        fitting: C = next((other for other in self._others if serves(other)), None) or make()
        others = [other for other in self._others if other is not fitting]
        self._others = [fitting, *others[: _MOST_COMPANIONS - 1]]
        return fitting

    def curvature(self, kind: CurvatureKind, *, once: bool = False) -> CurvatureProgram:
        """Return the program of curvature products, planned at its first use."""
        if (kind, once) not in self._curvatures:
            self._curvatures[kind, once] = self._plan_curvature(kind, once)
        return self._curvatures[kind, once]

    def _plan_curvature(self, kind: CurvatureKind, once: bool) -> CurvatureProgram:
        """Plan gradients in the point's stage and products in the direction's, or with ``once`` both in the point's."""
        count, flat = len(self._signature.shapes), self.points.shape
        dtype = self._signature.parameters.dtype
        vectors = self._backend.empty(flat, dtype)
        # The only product at a point replaces its vector.
        products = vectors if once else self._backend.empty(flat, dtype)
        program = self._programs.for_tasks(kind, self._tasks)
        executable = Executable(
            program,
            self._backend,
            stages=[_POINT] * count
            + [_EXAMPLES] * (2 + len(self.noise))
            + [_POINT if once else _DIRECTION] * count
            + [_POINT] * _COEFFICIENTS,
            inputs=[
                *self._leaves(self.points),
                *(self.inputs, self.targets, *self.noise),
                *self._leaves(vectors),
                *[None] * _COEFFICIENTS,
            ],
            outputs=[*self._leaves(self.gradients), *[None if once else a for a in self._leaves(products)]],
            carried={count + i: count + 2 + len(self.noise) + i for i in range(count)} if once else None,
            compile_at=run_to_compile_at(program, PATIENCE),
        )
        executable.run(_EXAMPLES)
        return CurvatureProgram(executable, vectors, products, executable.inputs[-_COEFFICIENTS:])

    def _leaves(self, flat: Array) -> list[Array]:
        return leaf_views(self._backend, flat, self._signature.shapes)


def _all_depend(evaluation: Program, points: int) -> bool:
    """Return whether all gradients, the outputs after loss and predictions, depend on the first ``points`` inputs."""
    moving = set[Atom](evaluation.inputs[:points])
    for equation in evaluation.equations:
        if not moving.isdisjoint(equation.variables):
            moving.add(equation.output)
    return moving.issuperset(evaluation.outputs[2:])


def leaf_views(backend: Backend, flat: Array, shapes: Iterable[tuple[str, tuple[int, ...]]]) -> list[Array]:
    """Return each named parameter as a view of a flat array (tasks, P)."""
    views: list[Array] = []
    start = 0
    for _, shape in shapes:
        stop = start + math.prod(shape)
        part = backend.index(flat, (slice(None), slice(start, stop)))
        views.append(backend.reshape(part, (flat.shape[0], *shape)))
        start = stop
    return views


@dataclass(frozen=True)
class CurvatureProgram:
    """A program of curvature products: the vectors and coefficients that it reads, the products that it writes."""

    executable: Executable
    vectors: Array
    products: Array
    coefficients: Sequence[Array]
    companions: dict[str, Iteration] = field(default_factory=dict[str, Iteration])
    _values: list[float] = field(default_factory=list[float])

    @property
    def at_point(self) -> Run:
        """The work once a point."""
        return Run(self.executable, _POINT)

    @property
    def product(self) -> Run:
        """The work once a product."""
        return Run(self.executable, _DIRECTION)

    @property
    def nbytes(self) -> int:
        """Bytes of all buffers beside vectors and products."""
        return self.executable.nbytes + sum(int(iteration.nbytes) for iteration in self.companions.values())

    def set_coefficients(self, backend: Backend, *values: float) -> None:
        """Set the coefficients of the identity and of the curvature, unless the arrays have them already."""
        if list(values) != self._values:
            self._values.clear()
            for array, value in zip(self.coefficients, values, strict=True):
                backend.copyto(array, value)
            self._values.extend(values)


@dataclass(frozen=True)
class Place:
    """The key of shared buffers: objectives of one role, in one lane, for one number of tasks, share them."""

    role: str
    lane: int
    tasks: int
    signature: Signature


class ProgramSource(Protocol):
    """A store of programs for the next batch of the same shapes."""

    @property
    def run(self) -> int:
        """The number of this run; buffers from a run of another number are not valid any more."""
        ...

    def programs(self, signature: Signature) -> TaskPrograms:
        """Return the programs of one task."""
        ...

    def ready(self, place: Place, programs: TaskPrograms, backend: Backend) -> BatchedPrograms:
        """Return the programs of a place, with its buffers."""
        ...


class TracedObjective:
    """The sets of a batch of tasks bound to compiled programs."""

    def __init__(
        self,
        role: str,
        backend: Backend,
        signature: Signature,
        inputs: Sequence[Array],
        targets: Sequence[Array],
        source: ProgramSource,
        noise_key: Sequence[int] = (),
    ) -> None:
        self._role = role
        self._backend = backend
        self._signature = signature
        self._inputs = inputs
        self._targets = targets
        self._source = source
        # The noise of a task depends on this key and on the task's place in the batch alone.
        self._noise_key = noise_key
        self._first = 0
        self._lane = 0
        self._of_task: TaskPrograms | None = None
        self._programs: BatchedPrograms | None = None
        self._run = source.run

    @property
    def queue(self) -> Queue:
        """The queue that runs the work."""
        return self.bind().queue

    @property
    def input_type(self) -> ArrayType:
        """The type of one task's inputs."""
        return self._signature.input

    @property
    def tasks_at_once(self) -> int:
        """The number of tasks that keep the backend busy."""
        return max(1, self._backend.flops_at_once // max(1, self._task_programs().flops))

    def _task_programs(self) -> TaskPrograms:
        """Return the programs of one task, looked up once."""
        if self._of_task is None:
            self._of_task = self._source.programs(self._signature)
        return self._of_task

    @property
    def noise_shapes(self) -> Shapes:
        """Names and shapes of the noise that the model takes for one task."""
        return dict(self._signature.noise)

    @property
    def batches(self) -> list[TaskObjective]:
        """The objective itself."""
        return [self]

    def of_step(self, step: int) -> TracedObjective:
        """Return the objective itself."""
        return self

    def of_function(self, role: str, function: ModelFunction, shapes: Shapes) -> TracedObjective:
        """Return the objective of another function of other parameters on the same sets, with buffers of a role."""
        signature = self._signature.of_function(function, shapes)
        other = TracedObjective(
            role, self._backend, signature, self._inputs, self._targets, self._source, self._noise_key
        )
        other._first = self._first
        return other

    @property
    def noise_key(self) -> Sequence[int]:
        """The key of the tasks' noise; empty without noise."""
        return self._noise_key

    def with_noise(self, key: Sequence[int], first: int) -> TracedObjective:
        """Return the objective with the noise of another key, and of tasks from another place on."""
        other = copy.copy(self)
        other._noise_key, other._first, other._programs = key, first, None
        return other

    def part(self, start: int, stop: int, lane: int) -> TracedObjective:
        """See `TaskObjective`."""
        part = copy.copy(self)
        part._inputs, part._targets = self._inputs[start:stop], self._targets[start:stop]
        part._first, part._lane, part._programs = self._first + start, lane, None
        return part

    def bind(self) -> BatchedPrograms:
        """Return the programs, with the examples of this batch in their buffers."""
        programs = self._programs
        if programs is None or self._run != self._source.run:
            place = Place(self._role, self._lane, len(self._inputs), self._signature)
            self._run = self._source.run
            programs = self._programs = self._source.ready(place, self._task_programs(), self._backend)
        programs.owners.load_examples(self, partial(self._load_examples, programs))
        return programs

    def _load_examples(self, programs: BatchedPrograms) -> None:
        self._fill(programs.inputs, self._inputs)
        self._fill(programs.targets, self._targets)
        self._draw(programs.noise)
        programs.run_examples()

    def _fill(self, buffer: Array, arrays: Sequence[Array]) -> None:
        """Copy the arrays to the buffer's entries, at once if they lie in one piece, as loaders make them."""
        stacked = self._backend.stacked(arrays)
        if stacked is not None:
            self._backend.copyto(buffer, stacked)
        else:
            tasks, examples, *shape = buffer.shape
            self._backend.concat(arrays, 0, out=self._backend.reshape(buffer, (tasks * examples, *shape)))

    def _draw(self, buffers: Sequence[Array]) -> None:
        """Fill the buffers with the noise of the tasks, which is the same at each call."""
        if not buffers:
            return
        shapes, dtype = self.noise_shapes, self._signature.parameters.dtype
        places = range(self._first, self._first + len(self._inputs))
        drawn = [draw_noise(self._noise_key, place, shapes, dtype) for place in places]
        for name, buffer in zip(shapes, buffers, strict=True):
            self._backend.copyto(buffer, self._backend.asarray(np.stack([of_task[name] for of_task in drawn])))

    def place(self, points: Array) -> None:
        """Copy parameters to the buffer that the programs read."""
        programs = self.bind()
        if points is not programs.points:
            programs.queue.run(Copy(self._backend, points, programs.points))

    def evaluate(self, points: Array) -> Evaluation:
        """See `TaskObjective`."""
        programs = self.bind()
        self.place(points)
        programs.queue.run(programs.at_point)
        programs.owners.set_evaluation(self)
        # The caller may write over the gradients: return a copy if the next evaluation does not write them again.
        anew = programs.rewrites_gradients
        return Evaluation(programs.losses, programs.gradients if anew else self._backend.asarray(programs.gradients))

    def gradient_work(self, like: Array) -> GradientWork:
        """Return evaluations in the programs' buffers."""
        programs = self.bind()
        programs.owners.set_evaluation(None)
        return GradientWork(
            programs.points,
            programs.losses,
            programs.gradients,
            lambda _: programs.at_point,
            programs,
            programs.queue,
        )

    def product_work(self, kind: CurvatureKind, identity: float, weight: float) -> ProductWork:
        """Return products by the program that has all work in one stage."""
        program = self.bind().curvature(kind, once=True)
        program.set_coefficients(self._backend, identity, weight)
        return ProductWork(program.vectors, lambda _: program.at_point)

    def curvature_work(self, kind: CurvatureKind) -> CurvatureWork:
        """Return gradients in the programs' buffers, and products in those of the curvature program."""
        programs = self.bind()
        program = programs.curvature(kind)
        program.set_coefficients(self._backend, 0.0, 1.0)
        return CurvatureWork(
            programs.gradients, program.vectors, program.products, lambda _: program.at_point, lambda _: program.product
        )

    def companion(self, serves: Callable[[C], bool], make: Callable[[], C]) -> C:
        """See `TaskObjective`."""
        return self.bind().companion(serves, make)

    def accuracies(self) -> list[float]:
        """See `TaskObjective`."""
        programs = self._programs
        if programs is None or self._run != self._source.run or not programs.owners.has_evaluation(self):
            raise InvalidOperationException(
                "accuracies() must follow an evaluation of the same objective, got other work on its buffers in "
                "between; evaluate again"
            )
        loss = self._signature.loss
        if type(loss).accuracy is LossFunctionBase.accuracy:
            return [math.nan] * len(self._inputs)
        # One transfer each, since the host waits for each transfer.
        predictions, targets = (self._backend.to_numpy(a) for a in (programs.predictions, programs.targets))
        return [checked_accuracy(loss, p, y) for p, y in zip(predictions, targets, strict=True)]

    def curvature(
        self, points: Array, kind: CurvatureKind, *, identity: float = 0.0, weight: float = 1.0
    ) -> tuple[Array, Callable[[Array], Array]]:
        """See `TaskObjective`; the work at φ is done here, once."""
        programs = self.bind()
        program = programs.curvature(kind)

        def load() -> None:
            program.set_coefficients(self._backend, identity, weight)
            self.place(points)
            self.queue.run(program.at_point)

        def at_point() -> None:
            self.bind().owners.load_curvature(load)

        at_point()
        buffers = program.vectors, program.products
        operator = BufferedOperator(
            self._backend, program.executable, _DIRECTION, *buffers, at_point, program.companions, programs.queue
        )
        return programs.gradients, operator
