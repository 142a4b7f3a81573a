"""Programs: how they print, what they count, what simplification leaves, and that replays give the same bits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from aidotnet_py import autodiff as ad
from aidotnet_py.autodiff.execution import run_program
from aidotnet_py.autodiff.primitive import Primitive
from aidotnet_py.autodiff.primitives.elementwise import add, multiply, sin
from aidotnet_py.autodiff.primitives.shape import full
from aidotnet_py.autodiff.program import Program
from aidotnet_py.autodiff.tracing.emission import emit, inline
from aidotnet_py.autodiff.tracing.recording import new_trace
from aidotnet_py.autodiff.transforms.batching import vmap_program
from aidotnet_py.autodiff.transforms.differentiation import grad_program, jvp_program, vjp_program
from aidotnet_py.autodiff.transforms.simplification import simplify
from aidotnet_py.autodiff.types import ArrayType
from aidotnet_py.backends import Backend

SCALAR = ArrayType((), np.dtype(np.float64))


def test_a_program_prints_one_equation_a_line() -> None:
    held = np.arange(2.0)
    program = ad.trace(
        lambda w, x: {"y": np.sum(np.tanh(x @ w) * held, axis=0), "x": x}, np.ones((3, 2)), np.ones((4, 3))
    )
    assert str(program) == (
        "program(a:float64[3,2], b:float64[4,3])\n"
        "  with c:float64[2]\n"
        "  d:float64[4,2] = matmul b a\n"
        "  e:float64[4,2] = tanh d\n"
        "  f:float64[1,2] = reshape shape=(1,2) c\n"
        "  g:float64[4,2] = broadcast_to shape=(4,2) f\n"
        "  h:float64[4,2] = multiply e g\n"
        "  i:float64[2] = sum axes=(0,) h\n"
        "  return i, b"
    )


def test_a_gradient_prints_with_its_numbers() -> None:
    program = ad.trace(ad.grad(lambda x: np.sum(0.5 * x**2 + 3)), np.ones(2, np.float32))
    assert str(program) == (
        "program(a:float32[2])\n"
        "  b:float32[] = full type=float32[] value=1.0\n"
        "  c:float32[1] = reshape shape=(1,) b\n"
        "  d:float32[2] = broadcast_to shape=(2,) c\n"
        "  e:float32[2] = multiply 0.5 d\n"
        "  f:float32[2] = add e e\n"
        "  g:float32[2] = multiply f a\n"
        "  return g"
    )


def test_names_go_on_after_z() -> None:
    def f(x: Any) -> Any:
        for k in range(30):
            x = x + float(k)
        return x

    lines = str(ad.trace(f, 1.0)).splitlines()
    assert lines[26].startswith("  aa:float64[] = add z 25.0")
    assert lines[-1] == "  return ae"


def test_counts_of_operations_bytes_and_equations() -> None:
    program = ad.trace(lambda w, x: np.sum(np.tanh(x @ w).T), np.ones((3, 2)), np.ones((4, 3)))
    # Two for each multiply-add of the product, one for each tanh, one for each element summed.
    assert program.flops == 2 * 4 * 3 * 2 + 8 + 8
    # The product reads 12 + 6 and writes 8 numbers, tanh 8 and 8, the transpose is a view, the sum 8 and 1.
    assert program.bytes == 8 * (12 + 6 + 8 + 8 + 8 + 8 + 1)
    assert program.count("matmul") == 1
    assert program.count("sum") == 1
    assert program.count("nothing") == 0
    # tanh goes over the product; the sum has a slot of its own, or none where one is free.
    assert program.peak_memory == 8 * (8 + 1)
    assert program.input_types[0] == ArrayType((3, 2), np.dtype(np.float64))
    assert [str(t) for t in program.output_types] == ["float64[]"]


def test_integers_and_moves_cost_no_floating_point_operations() -> None:
    program = ad.trace(lambda i, x: np.concatenate([np.flip(x), x]).astype(np.float32), np.arange(3), np.ones(4))
    assert program.flops == 0
    assert ad.trace(lambda i: i * i + 1, np.arange(3)).flops == 0


def test_one_set_of_windows_serves_forward_gradient_and_hessian_product() -> None:
    x = np.ones((2, 6, 6, 3))

    def loss(w: Any) -> Any:
        return np.sum(np.tanh(ad.conv2d(x, w)))

    w = np.ones((3, 3, 3, 4))
    assert ad.trace(ad.value_and_grad(loss), w).count("patches") == 1
    assert ad.trace(lambda a, v: ad.hvp(loss, a, v), w, w).count("patches") == 1
    assert ad.trace(ad.grad(loss), w).count("fold") == 0


def two_sines() -> Program:
    with new_trace() as trace:
        x = trace.new_input(SCALAR)
        y = add(sin(x), x)
        add(x, sin(x))
        multiply(y, 3.0)
        return trace.finish([add(y, add(x, sin(x))), sin(x)])


def test_what_is_computed_twice_is_computed_once_and_what_nobody_uses_never() -> None:
    program = two_sines()
    assert program.count("sin") == 4
    simple = simplify(program)
    assert simple.count("sin") == 1
    assert simple.count("multiply") == 0
    assert simple.count("add") == 2
    assert len(simple.outputs) == 2
    assert simple.inputs == program.inputs


def test_numbers_that_differ_only_in_sign_or_dtype_are_not_the_same() -> None:
    def f(x: Any) -> Any:
        return x * 0.0, x * -0.0, x * 0, full(ArrayType((), np.dtype(np.float32)), 0.0), full(SCALAR, 0.0)

    program = ad.trace(f, 1.0)
    assert program.count("multiply") == 2
    assert program.count("full") == 2
    assert [np.signbit(y) for y in program(1.0)[:3]] == [False, True, False]


def _added_up(backend: Backend, out: Any, x: Any, to: Any) -> None:
    addend = to if isinstance(to, np.ndarray) else run_program(to, [x])[0]
    backend.elementwise("add")(x, addend, out=out)


_adding = Primitive(
    name="added_up", shape=lambda x, to: x, run=_added_up, jvp=None, transpose=None, batch=lambda inputs, *_, to: None
)
# Each pair has one text, that of large arrays with an ellipsis.
_ZEROS = np.zeros(2000)
_PEAK = np.where(np.arange(2000) == 1000, 1.0, _ZEROS)
_EXCHANGED = [ad.trace(lambda x, f=f: f(3.0 * x, 1.0 + x), _ZEROS) for f in (lambda a, b: a - b, lambda a, b: b - a)]


@pytest.mark.parametrize("pair", [(_ZEROS, _PEAK), _EXCHANGED], ids=["arrays", "programs"])
def test_parameters_of_one_text_are_not_the_same(pair: Any) -> None:
    one, other = ad.trace(lambda x: tuple(emit(_adding, x, to=to) for to in (*pair, pair[0])), _ZEROS)(_PEAK)[:2]
    assert repr(pair[0]) == repr(pair[1])
    assert (one != other).any()


def test_unused_constants_are_dropped() -> None:
    held = np.ones(1000)
    program = ad.trace(lambda x: (x * held, x)[1], 1.0)
    assert program.constants == ()
    assert program.equations == ()


def test_a_call_gives_the_same_bits_every_time(backend: Backend) -> None:
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(6, 5)), rng.normal(size=(5, 4))
    f = ad.value_and_grad(lambda p, q: np.sum(ad.softmax(np.tanh(q @ p)) ** 3))
    arrays = [backend.asarray(a) for a in (w, x)]
    program = ad.trace(f, *arrays)
    first = [np.array(backend.to_numpy(y)) for y in program(*arrays)]
    program(backend.asarray(w * 2), backend.asarray(x * 3))
    for y, z in zip(program(*arrays), first, strict=True):
        assert_array_equal(backend.to_numpy(y), z)
    # What runs once is not compiled, and CUDA's compiled loops add up in an order of their own.
    eps = 1e-14 if backend.name == "cupy" else 0
    for y, z in zip(f(*arrays), first, strict=True):
        assert_allclose(backend.to_numpy(y), z, rtol=eps, atol=eps)


def test_programs_transform_directly() -> None:
    program = ad.trace(lambda x, y: np.sum(x * y), np.ones(3), np.ones(3))
    x, y, t = np.arange(3.0), np.array([2.0, 3.0, 5.0]), np.ones(3)

    def run(p: Program, *args: Any) -> list[Any]:
        return ad.trace(lambda *a: inline(p, a), *args)(*args)

    assert [float(v) for v in run(jvp_program(program, [True, False]), x, y, t)] == [13.0, 10.0]
    value, cotangent = run(vjp_program(program, [False, True]), x, y, np.float64(2.0))
    assert (float(value), cotangent.tolist()) == (13.0, [0.0, 2.0, 4.0])
    value, *both = run(grad_program(program, [True, True]), x, y)
    assert [g.tolist() for g in both] == [y.tolist(), x.tolist()]
    (batched,) = run(vmap_program(program, [True, False], 2), np.stack([x, 2 * x]), y)
    assert batched.tolist() == [13.0, 26.0]


def test_a_gradient_costs_a_small_multiple_of_its_function() -> None:
    """Reverse mode: at most about three products for one, and a Hessian product at most three times that."""
    w = [np.ones((20, 20)) for _ in range(3)]
    x = np.ones((10, 20))

    def loss(ws: Any) -> Any:
        y = x
        for a in ws:
            y = np.tanh(y @ a)
        return np.sum(y)

    forward = ad.trace(loss, w).count("matmul")
    gradient = ad.trace(ad.grad(loss), w).count("matmul")
    product = ad.trace(lambda a, v: ad.hvp(loss, a, v), w, w).count("matmul")
    assert (forward, gradient) == (3, 3 + 3 + 2)
    assert product <= 3 * gradient


@pytest.mark.parametrize("length", [100])
def test_the_cost_of_transforming_grows_with_the_length_of_a_program(length: int) -> None:
    """Twice the equations take about twice, not four times, as many: the gradient of a chain stays a chain."""

    def chain(n: int) -> Any:
        def f(x: Any) -> Any:
            for _ in range(n):
                x = np.sin(x)
            return np.sum(x)

        return f

    short, long = (len(ad.trace(lambda x, n=n: ad.hvp(chain(n), x, x), 1.0).equations) for n in (length, 2 * length))
    assert long < 2.1 * short
