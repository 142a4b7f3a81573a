"""The programs of the tasks of a batch, with the buffers that they run in."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from aidotnet_py.autodiff.extend import Atom, Executable, Program, Queue, Run, run_to_compile_at
from aidotnet_py.backends import Array, Backend
from aidotnet_py.meta_learning.objective.interface import PATIENCE, CurvatureKind
from aidotnet_py.meta_learning.objective.ownership import BufferOwners
from aidotnet_py.meta_learning.objective.task_programs import COEFFICIENTS, TaskPrograms
from aidotnet_py.solvers.iteration import Iteration

__all__ = ["DIRECTION", "BatchedPrograms", "CurvatureProgram", "leaf_views"]

C = TypeVar("C")

# Stages: work on the examples runs once a batch, work at φ once a point, the rest once a product.
_EXAMPLES, _POINT, DIRECTION = 0, 1, 2
# A batch has one rule of inner steps; one more is kept, for a rule of an earlier batch that comes again.
_MOST_COMPANIONS = 2


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
            + [_POINT if once else DIRECTION] * count
            + [_POINT] * COEFFICIENTS,
            inputs=[
                *self._leaves(self.points),
                *(self.inputs, self.targets, *self.noise),
                *self._leaves(vectors),
                *[None] * COEFFICIENTS,
            ],
            outputs=[*self._leaves(self.gradients), *[None if once else a for a in self._leaves(products)]],
            carried={count + i: count + 2 + len(self.noise) + i for i in range(count)} if once else None,
            compile_at=run_to_compile_at(program, PATIENCE),
        )
        executable.run(_EXAMPLES)
        return CurvatureProgram(executable, vectors, products, executable.inputs[-COEFFICIENTS:])

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
        return Run(self.executable, DIRECTION)

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
