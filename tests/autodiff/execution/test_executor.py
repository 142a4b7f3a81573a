"""The executor: random Programs against naive evaluation, sharing of memory, stages, steady state, threads."""

from __future__ import annotations

import gc
import math
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from amounts import many
from autodiff_cases import all_primitives
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from random_programs import (
    a_type,
    array_in_a_buffer,
    check_carried,
    check_compiled_bits,
    check_random_program,
    random_program,
    shuffled_reshape,
)
from waiting import until_all_is_compiled

from aidotnet_py import autodiff as ad
from aidotnet_py.autodiff.execution import Executable, plan, run_program
from aidotnet_py.autodiff.program import Program
from aidotnet_py.autodiff.strides import c_strides, is_contiguous, reshaped_strides
from aidotnet_py.autodiff.tracing.recording import new_trace
from aidotnet_py.autodiff.types import ArrayType
from aidotnet_py.backends import Backend, NumPyBackend, available_backends, get_backend
from aidotnet_py.exceptions import ArgumentException, ArgumentOutOfRangeException, InvalidOperationException


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=many(20))
def test_random_programs_agree_with_naive_evaluation_in_any_order_of_stages(seed: int) -> None:
    check_random_program(np.random.default_rng(seed), get_backend("numpy"))


@pytest.mark.skipif("strict" not in available_backends(), reason="array-api-strict is not installed")
@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=many(10))
def test_random_programs_run_on_the_strict_backend(seed: int) -> None:
    check_random_program(np.random.default_rng(seed), get_backend("strict"))


@pytest.mark.slow
@given(seed=st.integers(0, 2**32 - 1), compiled=st.booleans())
@settings(max_examples=4)
def test_carried_outputs_take_the_place_of_inputs(seed: int, compiled: bool) -> None:
    check_carried(np.random.default_rng(seed), NumPyBackend(compiled=compiled))


def test_a_concatenation_is_carried() -> None:
    x = np.arange(5.0)
    program = ad.trace(lambda x: [np.concatenate([x[1:], x[:1] * 2.0])], x)
    executable = Executable(program, get_backend("numpy"), inputs=[x], carried={0: 0})
    executable.run()
    executable.run()
    assert_array_equal(x, [2, 3, 4, 0, 2])


def test_an_update_is_written_over_its_input_at_once() -> None:
    x, g = np.ones(4), np.full(4, 2.0)
    program = ad.trace(lambda x, g: [x - g * 0.5, g * 3], x, g)
    executable = Executable(program, get_backend("numpy"), inputs=[x, g], carried={0: 0, 1: 1})
    assert [work.primitive is None for part in executable.parts(0) for work in part.work] == [False] * 3
    executable.run()
    executable.run()
    assert_array_equal(x, 1 - 1 - 3)
    assert_array_equal(g, 18)


@pytest.mark.slow
@pytest.mark.parametrize("compiled", [False, True])
def test_an_output_whose_array_allows_no_reshape_is_read_as_it_was_computed(compiled: bool) -> None:
    def squared(x: Any) -> list[Any]:
        y = np.absolute(x)
        return [y, y.reshape(9) ** 2]

    x = np.arange(9.0).reshape(3, 3)
    turned = np.full((3, 3), np.nan).T
    executable = Executable(
        ad.trace(squared, x), NumPyBackend(compiled=compiled), inputs=[x], outputs=[turned, None], compile_at=1
    )
    executable.compile()
    executable.run()
    assert_array_equal(turned, x)
    assert_array_equal(executable.outputs[1], x.ravel() ** 2)


@pytest.mark.parametrize("compiled", [False, True])
def test_a_concatenation_is_written_over_its_input_once_that_was_read(compiled: bool) -> None:
    x, y = np.arange(6.0), np.arange(6.0) + 10

    def turned(x: Any, y: Any) -> list[Any]:
        return [np.concatenate([x[4:] * 2.0, x[:4] * 3.0]), np.concatenate([y[:2] - 1.0, y[2:] * 0.5])]

    executable = Executable(
        ad.trace(turned, x, y), NumPyBackend(compiled=compiled), inputs=[x, y], carried={0: 0, 1: 1}
    )
    executable.compile()
    for _ in range(2):
        expected = turned(x, y)
        executable.run()
        assert_array_equal(x, expected[0])
        assert_array_equal(y, expected[1])


def test_what_is_carried_has_the_type_of_its_input() -> None:
    program = ad.trace(lambda x, y: [x * y], np.ones(3), np.ones((2, 3)))
    message = r"output 0 must be float64\[3\] to be written over input 0, got float64\[2,3\]"
    with pytest.raises(ArgumentException, match=message):
        Executable(program, get_backend("numpy"), carried={0: 0})


@pytest.mark.slow
@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=many(400))
def test_many_random_programs(seed: int) -> None:
    check_random_program(np.random.default_rng(seed), get_backend("numpy"))


@pytest.mark.slow
@given(seed=st.integers(0, 2**32 - 1), compiled=st.booleans())
@settings(max_examples=many(4))
def test_many_carried_outputs_take_the_place_of_inputs(seed: int, compiled: bool) -> None:
    check_carried(np.random.default_rng(seed), NumPyBackend(compiled=compiled))


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=8)
def test_compiled_random_programs_give_the_bits_of_plain_ones(seed: int) -> None:
    check_compiled_bits(np.random.default_rng(seed))


@pytest.mark.slow
@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=many(200))
def test_many_compiled_random_programs(seed: int) -> None:
    check_compiled_bits(np.random.default_rng(seed))


@pytest.mark.slow
def test_random_programs_use_every_primitive() -> None:
    used = {
        e.primitive
        for seed in range(200)
        for rng in [np.random.default_rng(seed)]
        for e in random_program(rng, [a_type(rng) for _ in range(3)], 30).equations
    }
    assert {p.name for p in all_primitives() - used} == set()


def storage_of(program: Program) -> dict[str, list[int]]:
    """Which slot each call of a plan writes, by primitive name."""
    planned = plan(program)
    places: dict[str, list[int]] = {}
    for work in planned.work:
        if work.primitive is not None and work.out.storage.slot is not None:
            places.setdefault(work.primitive.name, []).append(planned.slots.index(work.out.storage.slot))
    return places


def test_an_elementwise_output_takes_over_the_slot_of_an_operand_that_ends() -> None:
    program = ad.trace(lambda x: np.sum(np.exp(np.sin(x))), np.ones((4, 3)))
    places = storage_of(program)
    assert places["exp"] == places["sin"]


@pytest.mark.parametrize(
    "moved", [lambda y: y[::-1], lambda y: y.T, lambda y: y[1:], lambda y: np.broadcast_to(y[:1], (3, 3))]
)
def test_an_output_never_lies_over_an_operand_that_lies_otherwise(moved: Callable[[Any], Any]) -> None:
    program = ad.trace(lambda x: np.sum(np.exp(moved(np.sin(x)))), np.ones((3, 3)))
    places = storage_of(program)
    assert places["exp"] != places["sin"]


def test_an_operand_read_in_two_ways_is_not_written_over() -> None:
    def f(x: Any) -> Any:
        y = np.sin(x)
        return np.sum(y * y.T)

    places = storage_of(ad.trace(f, np.ones((3, 3))))
    assert places["multiply"] != places["sin"]


def test_values_that_never_live_together_share_memory() -> None:
    def chain(length: int) -> int:
        def f(x: Any) -> Any:
            for _ in range(length):
                x = np.sin(x.T)
            return np.sum(x)

        return ad.trace(f, np.ones((50, 50))).peak_memory

    assert chain(40) == chain(4) == 2 * 50 * 50 * 8


def test_a_result_is_written_where_the_caller_wants_it_also_through_reshapes() -> None:
    program = ad.trace(lambda x, y: (x @ y).reshape(2, 3, 1), np.ones((6, 2)), np.ones((2, 1)))
    buffer = np.zeros(10)
    out = buffer[2:8].reshape(2, 3, 1)
    executable = Executable(program, get_backend("numpy"), outputs=[out])
    assert executable.nbytes == 0
    for x in executable.inputs:
        x[...] = 2.0
    executable.run()
    assert_array_equal(buffer, [0, 0, 8, 8, 8, 8, 8, 8, 0, 0])


def test_a_stage_runs_only_what_depends_on_its_inputs() -> None:
    program = ad.trace(lambda a, b: (np.exp(a), np.sin(a) * b), 0.0, 0.0)
    executable = Executable(program, get_backend("numpy"), stages=[0, 1])
    a, b = executable.inputs
    a[...], b[...] = 1.0, 2.0
    executable.run()
    before = [float(y) for y in executable.outputs]
    assert before == [math.e, pytest.approx(2 * math.sin(1))]
    a[...], b[...] = 5.0, 3.0
    executable.run(1)
    assert [float(y) for y in executable.outputs] == [math.e, pytest.approx(3 * math.sin(1))]
    executable.run(0)
    assert float(executable.outputs[0]) == pytest.approx(math.exp(5))
    executable.run(1)
    assert float(executable.outputs[1]) == pytest.approx(3 * math.sin(5))


def test_a_copy_for_a_product_is_made_in_the_stage_of_its_values() -> None:
    """The windows of images are laid out once a solve, not in each of its iterations."""
    program = ad.trace(lambda x, v: np.flip(x, 0) @ v, np.ones((4, 3)), np.ones((3, 2)))
    planned = plan(program, stages=[0, 1])
    assert [(w.stage, w.primitive.name if w.primitive else "copy") for w in planned.work] == [
        (0, "copy"),
        (1, "matmul"),
    ]


def test_one_copy_serves_all_products() -> None:
    program = ad.trace(lambda x, v, w: (x[::-1] @ v, x[::-1] @ w), np.ones((4, 3)), np.ones((3, 2)), np.ones((3, 2)))
    assert sum(w.primitive is None for w in plan(program).work) == 1


def _convnet(w: Any, v: Any, x: Any) -> Any:
    y = ad.max_pool2d(ad.relu(ad.batch_norm(ad.conv2d(x, w))), 2)
    labels = np.arange(y.shape[0]) % 3
    logits = y.reshape(y.shape[0], -1) @ v
    return -np.mean(np.take_along_axis(ad.log_softmax(logits), labels[:, None], 1))


@pytest.mark.parametrize("compiled", [False, True])
def test_a_run_allocates_nothing_that_grows_with_the_data(compiled: bool) -> None:
    w, v = np.ones((3, 3, 2, 8)), np.ones((8 * 7 * 7, 3))
    x = np.random.default_rng(0).uniform(size=(20, 14, 14, 2))
    program = ad.trace(ad.value_and_grad(lambda p: _convnet(*p, x)), (w, v))
    executable = Executable(program, NumPyBackend(compiled=compiled))
    for array, value in zip(executable.inputs, (w, v), strict=True):
        array[...] = value
    executable.run()
    assert executable.nbytes > 500_000
    executable.compile()
    # What other tests have left to compile allocates too.
    until_all_is_compiled()

    def grown() -> tuple[int, int]:
        start = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        for _ in range(10):
            executable.run()
        now, peak = tracemalloc.get_traced_memory()
        return peak - start, now - start

    tracemalloc.start()
    try:
        executable.run()
        # The least of three: a table of the interpreter may grow by megabytes meanwhile.
        most, kept = min(grown() for _ in range(3))
    finally:
        tracemalloc.stop()
    # The interpreter's own small objects, and NumPy's buffers for casts and strided sums, of a fixed size.
    assert most < 150_000
    assert kept < 10_000


def engine_objects() -> int:
    gc.collect()
    return sum(str(type(o).__module__).startswith("aidotnet_py") for o in gc.get_objects())


@pytest.mark.slow
def test_calls_and_transforms_leave_nothing_behind() -> None:
    x = np.ones((100, 100))

    def once() -> None:
        ad.value_and_grad(lambda y: np.sum(np.tanh(y @ y)))(x)
        ad.hvp(lambda y: np.sum(np.tanh(y @ y)), x, x)
        ad.vmap(ad.grad(lambda y: np.sum(np.exp(y))))(x)
        ad.linearize(np.exp, x)[1](x)

    once()
    objects = engine_objects()
    tracemalloc.start()
    try:
        for _ in range(20):
            once()
        assert engine_objects() == objects
        # Less than one array of those that each call makes; the interpreter keeps some small objects for later.
        assert tracemalloc.get_traced_memory()[0] < x.nbytes
    finally:
        tracemalloc.stop()


def test_arrays_that_do_not_fit_are_refused_before_the_run(backend: Backend) -> None:
    program = ad.trace(lambda x: x * 2.0, np.ones((2, 3)))
    with pytest.raises(ArgumentException, match=r"inputs\[0\] must be float64\[2,3\], got float64\[3,2\]"):
        Executable(program, backend, inputs=[backend.empty((3, 2), np.float64)])
    with pytest.raises(ArgumentException, match=r"outputs\[0\] must be float64\[2,3\], got float32\[2,3\]"):
        Executable(program, backend, outputs=[backend.empty((2, 3), np.float32)])
    other = get_backend("simulated" if backend.name == "numpy" else "numpy")
    with pytest.raises(ArgumentException, match=rf"inputs\[0\] must be an array of backend '{backend.name}', got "):
        Executable(program, backend, inputs=[other.empty((2, 3), np.float64)])
    executable = Executable(program, backend)
    with pytest.raises(ArgumentOutOfRangeException, match=r"stages must be from 0 to 0, got \(1,\)"):
        executable.run(1)


def test_constants_of_another_backend_are_refused_not_copied(backend: Backend) -> None:
    held = backend.asarray([1.0, 2.0])
    program = ad.trace(lambda x: x * held, backend.asarray([0.0, 0.0]))
    other = get_backend("simulated" if backend.name == "numpy" else "numpy")
    message = f"constants must be on backend '{other.name}', got constants on '{backend.name}'"
    with pytest.raises(ArgumentException, match=message):
        Executable(program, other)
    with pytest.raises(ArgumentException, match="arrays must be on one backend"):
        program(other.asarray([1.0, 1.0]))


def test_a_program_with_a_value_still_being_traced_cannot_run_by_itself() -> None:
    def outer(x: Any) -> Any:
        inner = ad.trace(lambda y: x * y, 1.0)
        with pytest.raises(InvalidOperationException, match="must be arrays, got a value still being traced"):
            Executable(inner, get_backend("numpy"))
        return inner(x)

    assert float(ad.trace(outer, 3.0)(3.0)) == 9.0


def test_results_of_run_program_share_no_memory(backend: Backend) -> None:
    x = backend.asarray(np.arange(6.0).reshape(2, 3))
    program = ad.trace(lambda x: (x, x, x.T, x.reshape(-1), x[:, ::-1]), x)
    results = run_program(program, [x])
    arrays = [x, *results]
    kept = [np.array(backend.to_numpy(a)) for a in arrays]
    for k, array in enumerate(arrays):
        backend.copyto(array, -1.0)
        kept[k][...] = -1.0
        for other, wanted in zip(arrays, kept, strict=True):
            assert_array_equal(backend.to_numpy(other), wanted)


@pytest.mark.parametrize(
    "prepare",
    [
        lambda a: np.asfortranarray(a),
        lambda a: a[::-1, ::-1],
        lambda a: np.repeat(np.repeat(a, 2, 0), 3, 1)[::2, ::3],
        lambda a: np.broadcast_to(a[:1, :1], a.shape),
        lambda a: a.astype(">f8"),
    ],
    ids=["Fortran", "reversed", "strided", "broadcast", "big-endian"],
)
def test_inputs_may_lie_anyhow_and_be_read_only(prepare: Callable[[Any], Any]) -> None:
    x = prepare(np.random.default_rng(0).uniform(size=(4, 6)))
    x.flags.writeable = False
    y = np.ascontiguousarray(x, dtype=np.float64)

    def f(a: Any) -> Any:
        return np.sum(np.tanh(a.T.reshape(2, -1) @ a.reshape(12, 2)) * np.max(a, axis=0)[:2])

    assert_array_equal(ad.grad(f)(x), ad.grad(f)(y))
    program = ad.trace(f, x)
    assert_array_equal(program(x), program(y))
    result = run_program(program, [x])[0]
    assert_allclose(result, program(y), rtol=1e-14)


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=many(100))
def test_reshaped_strides_are_those_numpy_finds(seed: int) -> None:
    rng = np.random.default_rng(seed)
    array = array_in_a_buffer(rng, get_backend("numpy"), a_type(rng))
    if rng.random() < 0.3 and array.ndim:
        array = np.broadcast_to(array[..., None], (*array.shape, 3))
    with new_trace() as trace:
        wanted = shuffled_reshape(trace.new_input(ArrayType(array.shape, array.dtype)), rng).shape
    strides = tuple(s // array.itemsize for s in array.strides)
    found = reshaped_strides(array.shape, strides, wanted)
    try:
        view = np.reshape(array, wanted, copy=False)
    except ValueError:
        assert found is None
        return
    assert found is not None
    if array.size:
        expected = tuple(s // array.itemsize for s in view.strides)
        assert [s for s, n in zip(found, wanted, strict=True) if n > 1] == [
            s for s, n in zip(expected, wanted, strict=True) if n > 1
        ]
    assert is_contiguous(wanted, c_strides(wanted))


@pytest.mark.slow
def test_threads_trace_and_run_at_once() -> None:
    x = np.random.default_rng(0).uniform(size=(8, 8))
    shared = ad.trace(lambda a, s: np.sum(np.tanh(a @ a) * s), x, 0.0)
    _, linear = ad.linearize(lambda a: np.tanh(a @ a), x)

    def work(k: int) -> tuple[Any, Any, Any]:
        gradient = x
        for _ in range(10):
            gradient = ad.grad(lambda a: np.sum(np.sin(a * k) @ a))(x)
        return gradient, shared(x, float(k)), linear(x * k)

    alone = [work(k) for k in range(8)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(work, range(8)))
    for a, b in zip(alone, together, strict=True):
        for y, z in zip(a, b, strict=True):
            assert_array_equal(y, z)
