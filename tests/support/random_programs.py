"""Random Programs over all primitives, and what a run of one means: an array of its own for each value."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from aidotnet_py.autodiff.execution import Executable, run_program
from aidotnet_py.autodiff.primitive import Primitive
from aidotnet_py.autodiff.primitives import elementwise as ew
from aidotnet_py.autodiff.primitives.broadcasting import broadcast_to, sum_
from aidotnet_py.autodiff.primitives.concatenation import concatenate
from aidotnet_py.autodiff.primitives.cumulative import cumulative_sum
from aidotnet_py.autodiff.primitives.gather import gather, scatter_add, wrap_indices
from aidotnet_py.autodiff.primitives.linear_algebra import cholesky, signed_log_determinant, solve
from aidotnet_py.autodiff.primitives.matmul import matmul
from aidotnet_py.autodiff.primitives.reductions import max_
from aidotnet_py.autodiff.primitives.shape import flip, full, pad, permute_dims, reshape, slice_, stop_gradient
from aidotnet_py.autodiff.primitives.sorting import argsort
from aidotnet_py.autodiff.primitives.transformed_windows import transformed_fold, transformed_patches
from aidotnet_py.autodiff.primitives.windows import fold, patches
from aidotnet_py.autodiff.program import Literal, Program, Variable
from aidotnet_py.autodiff.tracing.emission import inline
from aidotnet_py.autodiff.tracing.host_data import HostData
from aidotnet_py.autodiff.tracing.recording import new_trace
from aidotnet_py.autodiff.tracing.tracer import Tracer
from aidotnet_py.autodiff.transforms.simplification import simplify
from aidotnet_py.autodiff.types import ArrayType
from aidotnet_py.backends import Backend, NumPyBackend, get_backend

__all__ = ["a_type", "array_in_a_buffer", "check_random_program", "random_program", "shuffled_reshape"]

Rng = np.random.Generator


def shuffled_reshape(x: Tracer, rng: Rng) -> Any:
    factors = [p for n in x.shape for p in _primes(n)]
    rng.shuffle(factors)
    cuts = sorted(rng.integers(0, len(factors) + 1, int(rng.integers(0, 3))).tolist())
    parts = [factors[a:b] for a, b in zip([0, *cuts], [*cuts, len(factors)], strict=True)]
    return reshape(x, tuple(math.prod(part) for part in parts))


def _primes(n: int) -> list[int]:
    if n < 2:
        return [n]
    p = next(p for p in range(2, n + 1) if n % p == 0)
    return [p] if p == n else [p, *_primes(n // p)]


def _span(n: int, rng: Rng) -> tuple[int, int, int]:
    start = int(rng.integers(0, n + 1))
    return start, int(rng.integers(start, n + 1)), int(rng.integers(1, 3))


def _broadcast(x: Tracer, rng: Rng) -> Any:
    wide = tuple(int(rng.integers(1, 4)) if n == 1 else n for n in x.shape)
    return broadcast_to(x, (int(rng.integers(1, 3)), *wide) if x.ndim < 4 else wide)


def _axes(x: Tracer, rng: Rng) -> tuple[int, ...]:
    return tuple(i for i in range(x.ndim) if rng.random() < 0.5)


def _matmul(x: Tracer, rng: Rng) -> Any:
    matrix = x if x.ndim >= 2 else reshape(x, (x.size, 1))
    other = permute_dims(matrix, (*range(matrix.ndim - 2), matrix.ndim - 1, matrix.ndim - 2))
    return matmul(matrix, other) if rng.random() < 0.5 else matmul(other, matrix)


def _image(x: Tracer) -> Any:
    return reshape(x, (1, x.size, 1, 1)) if x.ndim != 4 else x


def _windows(x: Tracer, rng: Rng) -> Any:
    image = _image(x)
    window = tuple(int(rng.integers(1, n + 1)) for n in image.shape[1:3])
    stride = tuple(int(rng.integers(1, 3)) for _ in range(2))
    y = patches(image, window, stride)
    return fold(y, image.shape[1:3], stride) if rng.random() < 0.5 else sum_(y, (3, 4))


def _transformed_windows(x: Tracer, rng: Rng) -> Any:
    image = _image(x)
    groups = reshape(image, (1, *image.shape))
    window, stride = int(rng.integers(1, min(image.shape[1:3]) + 1)), int(rng.integers(1, 3))
    matrix = rng.choice([-1.0, 0.0, 0.5, 1.0], (int(rng.integers(1, 4)), window))
    # No row and no column of zeros.
    matrix[0], matrix[:, 0] = 1.0, -1.0
    rows = tuple(map(tuple, matrix.tolist()))
    y = transformed_patches(groups, rows, stride)
    if rng.random() < 0.5:
        return sum_(y, (1, 2))[0]
    return reshape(transformed_fold(y, rows, image.shape[1:3], stride), image.shape)


def _rows(x: Tracer, rng: Rng) -> Any:
    rows = x.shape[0]
    shape = tuple(rng.integers(0, 4, int(rng.integers(0, 3))).tolist())
    indices = wrap_indices(HostData(np.asarray(rng.integers(-rows, rows, shape))), rows)
    y = gather(x, indices)
    return y if rng.random() < 0.5 else scatter_add(y, indices, rows + 1)


def _sorted(x: Tracer, rng: Rng) -> Any:
    # The values, not their order, which a rounding may change.
    flat = reshape(x, (x.size,))
    return gather(flat, argsort(flat)) if x.size else x


def _linear_algebra(x: Tracer, rng: Rng) -> Any:
    """Something of the matrix v vᵀ + I, for v of a few numbers in (−1, 1)."""
    if not 0 < x.size <= 12:
        return x
    v = ew.tanh(reshape(x, (x.size, 1)))
    matrix = ew.add(matmul(v, permute_dims(v, (1, 0))), HostData(np.eye(x.size)))
    return (lambda: solve(matrix, v), lambda: cholesky(matrix), lambda: signed_log_determinant(matrix))[
        int(rng.integers(0, 3))
    ]()


def _literal(x: Tracer, rng: Rng) -> Any:
    f = [ew.add, ew.multiply, ew.maximum, ew.subtract][int(rng.integers(0, 4))]
    return f(x, 0.5) if rng.random() < 0.5 else f(0.5, x)


def _tame(f: Callable[[Any], Any]) -> Callable[[Tracer, Rng], Any]:
    """A function kept to arguments for which it gives finite values."""
    return lambda x, rng: f(ew.add(ew.absolute(ew.tanh(x)), 0.5))


def _compared(f: Callable[[Any, Any], Any]) -> Callable[[Tracer, Tracer], Any]:
    return lambda x, y: ew.where(f(x, y), x, y)


def _to_single(x: Tracer, rng: Rng) -> Any:
    return ew.astype(ew.astype(x, np.float32), np.float64)


_UNARY: list[Callable[[Tracer, Rng], Any]] = [
    *(_tame(f) for f in (ew.exp, ew.expm1, ew.log, ew.log1p, ew.sqrt, ew.sinh, ew.cosh, lambda x: ew.divide(1.0, x))),
    *(_tame(lambda x, p=p: ew.power(x, p)) for p in (0.5, 3)),
    _tame(lambda x: ew.root(ew.sqrt(x), x)),
    lambda x, rng: ew.with_value(ew.negative(ew.negative(x)), x),
    *(lambda x, rng, f=f: f(x) for f in (ew.sin, ew.cos, ew.tanh, ew.sigmoid, ew.softplus, ew.relu)),
    *(lambda x, rng, f=f: f(x) for f in (ew.arctan, ew.erf, lambda x: ew.tan(ew.tanh(x)))),
    *(lambda x, rng, f=f: f(ew.multiply(ew.sign(x), 1.5)) for f in (ew.floor, ew.ceil)),
    *(lambda x, rng, f=f: f(x) for f in (ew.negative, ew.absolute, ew.sign, stop_gradient)),
    lambda x, rng: ew.where(ew.logical_not(ew.isfinite(x)), 0.0, x),
    lambda x, rng: ew.where(ew.logical_or(ew.less(x, 0.1), ew.logical_and(ew.greater(x, 0.5), True)), 1.0, 2.0),
    _to_single,
    _literal,
    shuffled_reshape,
    lambda x, rng: permute_dims(x, tuple(rng.permutation(x.ndim).tolist())),
    lambda x, rng: slice_(x, tuple(_span(n, rng) for n in x.shape)),
    lambda x, rng: pad(x, tuple((int(rng.integers(0, 2)), 0, int(rng.integers(0, 2))) for _ in x.shape), 0.5),
    lambda x, rng: flip(x, _axes(x, rng)),
    _broadcast,
    lambda x, rng: sum_(x, _axes(x, rng)),
    lambda x, rng: max_(x, _axes(x, rng)) if x.size else x,
    lambda x, rng: cumulative_sum(x, int(rng.integers(0, x.ndim))) if x.ndim else x,
    _linear_algebra,
    _sorted,
    lambda x, rng: concatenate([x, full(x.type, 0.25), x], int(rng.integers(0, x.ndim))) if x.ndim else x,
    lambda x, rng: _matmul(x, rng) if x.ndim else x,
    lambda x, rng: _windows(x, rng) if x.size else x,
    lambda x, rng: _transformed_windows(x, rng) if x.size else x,
    lambda x, rng: _rows(x, rng) if x.ndim and x.shape[0] else x,
]
_BINARY: list[Callable[[Tracer, Tracer], Any]] = [
    *(ew.add, ew.subtract, ew.multiply, ew.maximum, ew.minimum),
    lambda x, y: ew.arctan2(ew.tanh(x), ew.add(ew.absolute(y), 0.5)),
    *map(_compared, (ew.equal, ew.not_equal, ew.less, ew.less_equal, ew.greater, ew.greater_equal)),
]
_LARGEST = 2000


def random_program(rng: Rng, inputs: list[ArrayType], length: int, *, precise: bool = False) -> Program:
    """A Program of random equations; its outputs are some of its values, inputs and repeats among them.

    A precise one rounds nothing to float32.
    """
    functions = [f for f in _UNARY if not precise or f is not _to_single]
    with new_trace() as trace:
        values: list[Any] = [trace.new_input(t) for t in inputs]
        while len(values) < length:
            x = values[int(rng.integers(0, len(values)))]
            alike = [v for v in values if v.shape == x.shape]
            if rng.random() < 0.35:
                y = _BINARY[int(rng.integers(0, len(_BINARY)))](x, alike[int(rng.integers(0, len(alike)))])
            else:
                y = functions[int(rng.integers(0, len(functions)))](x, rng)
            if y.size <= _LARGEST:
                values.append(y)
        chosen = rng.integers(0, len(values), 4).tolist()
        program = trace.finish([*(values[i] for i in chosen), values[-1], np.float64(3.0)])
    return simplify(program) if rng.random() < 0.5 else program


@dataclass
class Naive:
    """The meaning of running a Program in stages, with an array of its own for each value."""

    program: Program
    stages: list[int]
    inputs: list[Any]
    values: dict[Variable, Any] = field(default_factory=dict)
    numpy: Backend = field(default_factory=lambda: get_backend("numpy"))

    def __post_init__(self) -> None:
        self.stage_of: dict[Variable, int] = dict(zip(self.program.inputs, self.stages, strict=True))
        self.stage_of.update((v, 0) for v, _ in self.program.constants)
        for e in self.program.equations:
            self.stage_of[e.output] = max((self.stage_of[v] for v in e.variables), default=0)
        self.values.update((v, np.array(getattr(x, "array", x))) for v, x in self.program.constants)

    def run(self, stage: int) -> None:
        self.values.update(zip(self.program.inputs, (x.copy() for x in self.inputs), strict=True))
        for e in self.program.equations:
            if self.stage_of[e.output] == stage:
                operands = [a.value if isinstance(a, Literal) else self.values[a] for a in e.inputs]
                self.values[e.output] = self._apply(e.primitive, operands, e.output.type, e.parameters)

    def _apply(self, primitive: Primitive, operands: list[Any], of: ArrayType, parameters: dict[str, Any]) -> Any:
        with np.errstate(all="ignore"):
            if primitive.is_view:
                return np.array(primitive.run(self.numpy, operands[0], **parameters), order="C")
            out = np.full(of.shape, 77, of.dtype)
            primitive.run(self.numpy, out, *operands, **parameters)
            return out

    @property
    def outputs(self) -> list[Any]:
        return [a.value if isinstance(a, Literal) else self.values[a] for a in self.program.outputs]


def array_in_a_buffer(rng: Rng, backend: Backend, of: ArrayType) -> Any:
    """An array of that type with strides of its own, a view of a larger flat buffer."""
    order = tuple(int(i) for i in rng.permutation(len(of.shape)))
    steps = tuple(int(rng.integers(1, 3)) for _ in of.shape)
    lengths = [max(n, 1) * step for n, step in zip(of.shape, steps, strict=True)]
    held = tuple(lengths[i] for i in order)
    offset = int(rng.integers(0, 3))
    buffer = backend.asarray(np.full(offset + math.prod(held), -99.0, of.dtype))
    whole = backend.reshape(backend.index(buffer, (slice(offset, None),)), held)
    turned = backend.permute_dims(whole, tuple(int(i) for i in np.argsort(order)))
    flips = [rng.random() < 0.2 for _ in of.shape]
    key = tuple(
        slice((n - 1) * s if n else 0, None if n else 0, -s) if back else slice(0, n * s, s)
        for n, s, back in zip(of.shape, steps, flips, strict=True)
    )
    array = backend.index(turned, key)
    assert array.shape == of.shape
    return array


def a_type(rng: Rng) -> ArrayType:
    shape = tuple(rng.choice([0, 1, 1, 2, 3, 4, 6], int(rng.integers(0, 5)), p=[0.04, 0.2, 0.1, 0.2, 0.2, 0.16, 0.1]))
    return ArrayType(tuple(map(int, shape)), np.dtype(np.float64))


def check_random_program(rng: Rng, backend: Backend) -> None:
    program = random_program(rng, [a_type(rng) for _ in range(3)], int(rng.integers(6, 30)))
    stages = rng.integers(0, 3, 3).tolist()
    given_ = [array_in_a_buffer(rng, backend, t) if rng.random() < 0.7 else None for t in program.input_types]
    wanted = [array_in_a_buffer(rng, backend, t) if rng.random() < 0.5 else None for t in program.output_types]
    executable = Executable(program, backend, stages=stages, inputs=given_, outputs=wanted)
    for mine, array in zip((*given_, *wanted), (*executable.inputs, *executable.outputs), strict=True):
        assert mine is None or mine is array

    def refill(stage: int) -> None:
        for array, of_stage in zip(executable.inputs, stages, strict=True):
            if of_stage == stage:
                backend.copyto(array, backend.asarray(rng.uniform(-2, 2, array.shape)))

    for stage in range(3):
        refill(stage)
    naive = Naive(program, stages, [backend.to_numpy(a) for a in executable.inputs])
    executable.run()
    for stage in range(3):
        naive.run(stage)
    for _ in range(4):
        for found, right in zip(executable.outputs, naive.outputs, strict=True):
            # One rounding apart where sums or products ran over other strides.
            np.testing.assert_allclose(backend.to_numpy(found), right, rtol=1e-11, atol=1e-11)
        stage = int(rng.integers(0, max(stages) + 1))
        refill(stage)
        naive.inputs = [backend.to_numpy(a) for a in executable.inputs]
        executable.run(stage)
        naive.run(stage)


def check_compiled_bits(rng: Rng) -> None:
    """Compiled, a random Program gives the same bits as before, at every stage, on arrays of any strides."""
    program = random_program(rng, [a_type(rng) for _ in range(3)], int(rng.integers(6, 30)))
    stages = rng.integers(0, 3, 3).tolist()
    inputs = [array_in_a_buffer(rng, NumPyBackend(), t) for t in program.input_types]
    bound = [rng.random() < 0.5 for _ in program.output_types]

    layouts = int(rng.integers(2**32))

    def made(backend: Backend) -> Executable:
        # The same strides for both: NumPy's functions round otherwise where elements do not lie side by side.
        same = np.random.default_rng(layouts)
        outputs = [
            array_in_a_buffer(same, backend, t) if b else None for t, b in zip(program.output_types, bound, strict=True)
        ]
        return Executable(program, backend, stages=stages, inputs=inputs, outputs=outputs)

    plain, compiled = made(NumPyBackend(compiled=False)), made(NumPyBackend())
    compiled.compile()
    for array in inputs:
        array[...] = special_values(rng, array.shape)
    plain.run()
    compiled.run()
    for _ in range(3):
        for found, right in zip(compiled.outputs, plain.outputs, strict=True):
            np.testing.assert_array_equal(found, right)
            np.testing.assert_array_equal(np.signbit(found[found == 0]), np.signbit(right[right == 0]))
        stage = int(rng.integers(0, max(stages) + 1))
        for array, of_stage in zip(inputs, stages, strict=True):
            if of_stage == stage:
                array[...] = special_values(rng, array.shape)
        plain.run(stage)
        compiled.run(stage)


def check_carried(rng: Rng, backend: NumPyBackend) -> None:
    """Written over its inputs, a random Program goes on from what the run before gave."""
    shape = tuple(int(n) for n in rng.integers(1, 5, int(rng.integers(1, 4))))
    types = [ArrayType(shape, np.dtype(float))] * 3
    inner = random_program(rng, types, int(rng.integers(4, 15)))
    cut = int(rng.integers(0, shape[0] + 1))

    def rows_of(x: Any, start: int, stop: int) -> Any:
        return slice_(x, ((start, stop, 1), *((0, n, 1) for n in shape[1:])))

    moves: list[Callable[[Any, Any, Any], Any]] = [
        lambda x, y, s: x * 0.5 + s,
        lambda x, y, s: ew.where(ew.greater(x, y), y + s, x * s),
        lambda x, y, s: y,
        lambda x, y, s: flip(y, (0,)),
        lambda x, y, s: flip(x, (0,)) + y * s,
        lambda x, y, s: ew.tanh(x - y) + x,
        lambda x, y, s: broadcast_to(s, shape),
        lambda x, y, s: concatenate([rows_of(x, cut, shape[0]) * 0.5, rows_of(y, 0, cut) + s], 0),
        lambda x, y, s: concatenate([rows_of(x, 0, cut), ew.tanh(rows_of(x + y * s, cut, shape[0]))], 0),
        lambda x, y, s: concatenate([x[1:] * 0.5, y[:1] + s], 0),
        lambda x, y, s: sum_(reshape(x * y, (*shape, 1)), (len(shape),)),
        lambda x, y, s: y * 0.5 + broadcast_to(reshape(sum_(x * y, (0,)), (1, *shape[1:])), shape),
    ]
    chosen = [moves[int(i)] for i in rng.integers(0, len(moves), 3)]
    others = rng.permutation(3).tolist()
    with new_trace() as trace:
        given = [trace.new_input(t) for t in types]
        values = [v for v in inline(inner, given) if v.dtype.kind == "f"]
        total: Any = sum((ew.tanh(sum_(v, tuple(range(v.ndim)))) for v in values), 0.0)
        after = [move(x, given[other], total) for move, x, other in zip(chosen, given, others, strict=True)]
        places = rng.permutation(3).tolist()
        program = simplify(
            trace.finish([total + 0.0 * sum_(given[0], tuple(range(len(shape)))), *(after[i] for i in places)])
        )
    inputs = [array_in_a_buffer(rng, backend, t) for t in types]
    carried = {1 + at: i for at, i in enumerate(places) if rng.random() < 0.8}
    executable = Executable(program, backend, inputs=inputs, carried=carried)
    executable.compile()
    for array in inputs:
        array[...] = rng.uniform(-2, 2, shape)
    state = [array.copy() for array in inputs]
    for _ in range(3):
        results = run_program(program, state)
        executable.run()
        for found, right in zip(executable.outputs, results, strict=True):
            np.testing.assert_allclose(found, right, rtol=1e-12, atol=1e-12)
        for at, i in carried.items():
            state[i] = results[at]
            assert executable.outputs[at] is inputs[i]


def special_values(rng: Rng, shape: tuple[int, ...]) -> Any:
    """Numbers, zeros of both signs, infinities and NaN."""
    values = rng.uniform(-2, 2, shape)
    chosen = rng.random(shape)
    for bound, value in ((0.02, np.nan), (0.05, np.inf), (0.08, -0.0), (0.1, 0.0)):
        values = np.where((chosen < bound) & (chosen >= bound - 0.02), value, values)
    return values
