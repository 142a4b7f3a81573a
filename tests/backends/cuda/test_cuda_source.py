"""CUDA C++ made from kernels computes what they say: run on the CPU, and compiled by nvcc where it is installed."""

from __future__ import annotations

import math
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cuda_on_host import HostToolkit, needs_gxx

from aidotnet_py.backends import NumPyBackend
from aidotnet_py.backends.cuda.compiler import COMPILE_OPTIONS, CudaCompiler
from aidotnet_py.backends.cuda.launch import Launch
from aidotnet_py.backends.cuda.source import launches_of, module_text
from aidotnet_py.backends.cuda.steps import CUDA_OPERATIONS
from aidotnet_py.backends.kernel import (
    LOOP_OPERATIONS,
    Factor,
    Kernel,
    LoopNest,
    Number,
    Operand,
    Product,
    Step,
)

# Each compiles C++ with the machine's compiler.
pytestmark = pytest.mark.slow

FLOATS = ["float32", "float64"]
BITS = {4: np.uint32, 8: np.uint64}
ONE = {"float32": np.float32(1), "float64": np.float64(1)}


def functions_of(*nests: LoopNest | Product) -> list[Launch]:
    found = launches_of(Kernel(nests, 9), lambda product: False)
    return [launch for launch in found if isinstance(launch, Launch)]


def run_all(work: Sequence[tuple[Sequence[LoopNest | Product], Sequence[Any]]]) -> None:
    """Run kernels, each on arrays of its own; compiled together, for that takes the time."""
    compiler = CudaCompiler(HostToolkit())
    compiled = compiler.submit([Kernel(tuple(nests), len(arrays)) for nests, arrays in work]).result()
    for bind, (_, arrays) in zip(compiled, work, strict=True):
        bind([compiler.address_of(array) for array in arrays])()


def operand(argument: int, array: Any, *, axes: Sequence[int] | None = None, rank: int | None = None) -> Operand:
    """A whole array, its axes being these of the nest; along the others it repeats."""
    strides = [s // array.itemsize for s in array.strides]
    placed = [0] * (array.ndim if rank is None else rank)
    for axis, stride in zip(range(array.ndim) if axes is None else axes, strides, strict=True):
        placed[axis] = stride
    return Operand(argument, array.dtype.name, tuple(placed))


def assert_same_bits(found: Any, expected: Any) -> None:
    if found.dtype.kind == "f":
        # Of NaN, any is as good as another.
        np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))
        found, expected = (np.where(np.isnan(x), 0, x).view(BITS[x.itemsize]) for x in (found, expected))
    np.testing.assert_array_equal(found, expected)


def difficult_numbers(dtype: str) -> tuple[Any, Any]:
    """Pairs of zeros of both signs, denormals, extremes, infinities, NaN and ordinary numbers."""
    info, rng = np.finfo(dtype), np.random.default_rng(0)
    special = [0.0, -0.0, 1.0, -1.0, 0.1, math.inf, -math.inf, math.nan, info.tiny, info.tiny / 8, -info.tiny / 2]
    numbers = np.array([*special, info.max, info.smallest_subnormal, *rng.uniform(-3, 3, 20)], dtype)
    x, y = np.meshgrid(numbers, numbers)
    return x.ravel().copy(), y.ravel().copy()


EXACT = [
    *(
        "abs",
        "add",
        "ceil",
        "divide",
        "equal",
        "floor",
        "greater",
        "greater_equal",
        "isfinite",
        "less",
        "less_equal",
        "maximum",
    ),
    *("minimum", "multiply", "negative", "not_equal", "relu", "sign", "sqrt", "subtract"),
]
ROUNDED = ["atan", "atan2", "cos", "cosh", "erf", "exp", "expm1", "log", "log1p", "pow", "sigmoid", "sin", "sinh"]
ROUNDED += ["softplus", "tan", "tanh"]
TWO = {
    *("add", "divide", "equal", "greater", "greater_equal", "less", "less_equal", "maximum", "minimum", "multiply"),
    *("atan2", "not_equal", "subtract", "pow"),
}


@needs_gxx
@pytest.mark.parametrize("dtype", FLOATS)
def test_elementwise_operations(dtype: str) -> None:
    x, y = difficult_numbers(dtype)
    numpy = NumPyBackend()
    work, expected = [], []
    for name in (*EXACT, *ROUNDED):
        inputs = [x, y] if name in TWO else [x]
        with np.errstate(all="ignore"):
            expected.append(np.asarray(numpy.elementwise(name)(*inputs)))
        out = np.empty_like(expected[-1])
        step = Step(name, tuple(operand(i, a) for i, a in enumerate(inputs)), out.dtype.name)
        nest = LoopNest(x.shape, (step,), ((operand(len(inputs), out), 0),))
        work.append(((nest,), [*inputs, out]))
    run_all(work)
    for name, (_, arrays), right in zip((*EXACT, *ROUNDED), work, expected, strict=True):
        found = arrays[-1]
        if name in ("maximum", "minimum"):
            # Of zeros of both signs NumPy takes either.
            found, right = found + ONE[dtype] * 0, right + ONE[dtype] * 0
        if name in EXACT:
            assert_same_bits(found, right)
        else:
            # Two libraries, each within a few units in the last place.
            with np.errstate(all="ignore"):
                np.testing.assert_allclose(found, right, rtol=8 * np.finfo(dtype).eps, atol=np.finfo(dtype).tiny)


@needs_gxx
def test_operations_of_booleans_and_conversions() -> None:
    a, b = np.array([True, True, False, False]), np.array([True, False, True, False])
    x, y = np.array([1.5, np.nan, 0.0, -2.0]), np.array([1e300, 1.0 + 2**-30, -0.0, np.inf])
    cases = [
        ("logical_and", [a, b], a & b),
        ("logical_or", [a, b], a | b),
        ("logical_not", [a], ~a),
        ("equal", [a, b], a == b),
        ("where", [a, x, y], np.where(a, x, y)),
        ("identity", [x], x),
        ("identity", [a], a),
        ("convert", [a], a.astype(np.float32)),
        ("convert", [x], x.astype(bool)),
        ("convert", [x.astype(np.float32)], x),
        ("convert", [y], np.array([np.inf, 1 + 2**-30, -0.0, np.inf], np.float32)),
    ]
    work = []
    for name, inputs, right in cases:
        out = np.empty_like(right)
        step = Step(name, tuple(operand(i, array) for i, array in enumerate(inputs)), out.dtype.name)
        work.append(((LoopNest((4,), (step,), ((operand(len(inputs), out), 0),)),), [*inputs, out]))
    run_all(work)
    for (_, arrays), (_, _, right) in zip(work, cases, strict=True):
        assert_same_bits(arrays[-1], right)


def test_every_operation_is_known() -> None:
    assert {*EXACT, *ROUNDED, "logical_and", "logical_or", "logical_not", "where", "identity", "convert"} == (
        CUDA_OPERATIONS
    )
    assert LOOP_OPERATIONS < CUDA_OPERATIONS


@needs_gxx
def test_numbers_are_written_exactly() -> None:
    values = [0.1, -0.1, math.inf, -math.inf, math.nan, 5e-324, 1e-42, -0.0, 3.0]
    work: list[Any] = []
    for value in values:
        for dtype in FLOATS:
            out = np.empty(1, dtype)
            step = Step("identity", (Number(value, dtype),), dtype)
            work.append(((LoopNest((1,), (step,), ((operand(0, out), 0),)),), [out]))
    run_all(work)
    for i, (_, (out,)) in enumerate(work):
        assert_same_bits(out, np.array([values[i // 2]]).astype(out.dtype))


@needs_gxx
def test_any_strides() -> None:
    rng = np.random.default_rng(0)
    work, expected = [], []
    for turn in ([0, 1, 2], [2, 0, 1], [1, 2, 0]):
        x = rng.standard_normal((3, 4, 5)).transpose(turn)
        y = rng.standard_normal(x.shape[1:])
        whole = np.zeros((9, 11, 13))
        out = whole[8 : 8 - 2 * x.shape[0] if x.shape[0] < 5 else None : -2][: x.shape[0], : x.shape[1], 1:]
        out = out[:, :, : 2 * x.shape[2] : 2]
        offset = (out.__array_interface__["data"][0] - whole.__array_interface__["data"][0]) // 8
        place = Operand(2, "float64", operand(2, out).strides, offset)
        step = Step("subtract", (operand(0, x), operand(1, y, axes=(1, 2), rank=3)), "float64")
        work.append(((LoopNest(x.shape, (step,), ((place, 0),)),), [x, y, whole]))
        expected.append((out, x - y))
    run_all(work)
    for out, right in expected:
        np.testing.assert_array_equal(out, right)
        assert np.count_nonzero(out.base) == out.size


@needs_gxx
def test_large_nests_have_several_elements_a_thread() -> None:
    x, out = np.arange(2**20, dtype=np.float32).reshape(2**10, 2**10), np.empty((2**10, 2**10), np.float32)
    nest = LoopNest(x.shape, (Step("negative", (operand(0, x.T),), "float32"),), ((operand(1, out), 0),))
    (launch,) = functions_of(nest)
    assert launch.blocks * launch.threads * 4 == x.size
    run_all([((nest,), [x, out])])
    np.testing.assert_array_equal(out, -x.T)


REDUCTIONS = [
    # shape, axes: rows that are added up, few and many; neighbours that are; all; one of two passes; and in between.
    *[((6, 5), (0,)), ((6, 5), (1,)), ((6, 5), (0, 1)), ((3, 40, 7), (1,)), ((3, 7, 40), (2,)), ((3, 7, 40), (0, 2))],
    *[((2000, 3), (0,)), ((3, 2000), (1,)), ((40000, 2), (0,)), ((2, 40000), (1,)), ((50000,), (0,))],
    *[((4, 5, 6, 7), (1, 3)), ((300, 9), (1,)), ((2, 1, 3), (1,)), ((5000, 2), (1,)), ((7, 1), (0,))],
]


@needs_gxx
@pytest.mark.parametrize("dtype", FLOATS)
def test_sums_and_maxima(dtype: str) -> None:
    """Sums of whole numbers are exact in any order."""
    rng = np.random.default_rng(0)
    work, expected = [], []
    for shape, axes in REDUCTIONS:
        x = rng.integers(-50, 50, shape).astype(dtype)
        y = np.where(rng.random(shape) < 0.1 / x.size, np.nan, x).astype(dtype)
        kept = [i for i in range(len(shape)) if i not in axes]
        sums, maxima = np.full([shape[i] for i in kept], 1000, dtype), np.full([shape[i] for i in kept], -7, dtype)
        place, other = (operand(i, a, axes=kept, rank=len(shape)) for i, a in ((2, sums), (3, maxima)))
        step = Step("add", (operand(0, x), Number(1.0, dtype)), dtype)
        nest = LoopNest(shape, (step,), (), ((place, 0),), ((other, operand(1, y)),))
        work.append(((nest,), [x, y, sums, maxima]))
        expected.append((1000 + (x + 1).sum(axes), np.maximum(y.max(axes), -7)))
    run_all(work)
    for (_, (_, _, sums, maxima)), (right_sums, right_maxima) in zip(work, expected, strict=True):
        np.testing.assert_array_equal(sums, right_sums)
        np.testing.assert_array_equal(maxima, right_maxima)


@pytest.mark.parametrize(("shape", "axes"), REDUCTIONS)
def test_sums_have_the_same_order_at_each_run(shape: tuple[int, ...], axes: tuple[int, ...]) -> None:
    x = np.zeros(shape)
    out = np.zeros([n for i, n in enumerate(shape) if i not in axes])
    kept = [i for i in range(len(shape)) if i not in axes]
    nest = LoopNest(shape, sums=((operand(1, out, axes=kept, rank=len(shape)), operand(0, x)),))
    text = module_text(functions_of(nest))
    assert "atomic" not in text
    assert "__shfl" not in text


def test_few_long_sums_take_two_passes_and_many_short_ones_a_thread_each() -> None:
    def functions(rows: int, columns: int) -> list[Launch]:
        x, out = np.broadcast_to(0.0, (rows, columns)), np.zeros(columns)
        nest = LoopNest(x.shape, sums=((operand(1, out, axes=[1], rank=2), Operand(0, "float64", (columns, 1))),))
        return functions_of(nest)

    assert [launch.suffix for launch in functions(100_000, 4)] == ["", "_end"]
    (short,) = functions(20, 200_000)
    assert "__syncthreads" not in short.code
    assert short.blocks * short.threads >= 200_000
    (middle,) = functions(1000, 2000)
    assert 64 <= middle.blocks <= 1000
    assert middle.threads >= 256


@needs_gxx
def test_sums_over_different_axes_and_stores_over_what_is_read() -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(-9, 9, (6, 50, 4)).astype(float)
    before = x.copy()
    y, rows, columns, largest = np.empty_like(x), np.zeros((6, 4)), np.zeros(50), np.full((50,), -np.inf)
    steps = (Step("multiply", (operand(0, x), Number(2.0, "float64")), "float64"), Step("negative", (0,), "float64"))
    nest = LoopNest(
        x.shape,
        steps,
        ((operand(0, x), 0), (operand(1, y), 1)),
        ((operand(2, rows, axes=[0, 2], rank=3), 0), (operand(3, columns, axes=[1], rank=3), 1)),
        ((operand(4, largest, axes=[1], rank=3), operand(0, x)),),
    )
    run_all([((nest,), [x, y, rows, columns, largest])])
    np.testing.assert_array_equal(x, 2 * before)
    np.testing.assert_array_equal(y, -2 * before)
    np.testing.assert_array_equal(rows, 2 * before.sum(1))
    np.testing.assert_array_equal(columns, -2 * before.sum((0, 2)))
    np.testing.assert_array_equal(largest, before.max((0, 2)))


def test_many_sums_fit_into_shared_memory() -> None:
    x, place = Operand(0, "float64", (4, 1)), Operand(1, "float64", (0, 1))
    (launch, _) = functions_of(LoopNest((100_000, 4), sums=tuple((replace(place, offset=4 * i), x) for i in range(9))))
    assert launch.threads * 9 * 8 <= 48 * 1024
    assert launch.threads >= 256


@needs_gxx
def test_what_clears_a_sum_is_part_of_it() -> None:
    x, out, other = np.arange(60.0).reshape(3, 4, 5), np.full((4, 5), np.nan), np.full(3, np.nan)
    zero = (Step("identity", (Number(0.0, "float64"),), "float64"),)
    fills = [LoopNest(a.shape, zero, ((operand(i, a), 0),)) for i, a in ((1, out), (2, other))]
    place = operand(1, out, axes=[1, 2], rank=3)
    total = LoopNest(x.shape, sums=((place, operand(0, x)),))
    assert len(functions_of(*fills, total)) == 2  # the sum, and what clears the other array
    run_all([((*fills, total), [x, out, other])])
    np.testing.assert_array_equal(out, x.sum(0))
    np.testing.assert_array_equal(other, np.zeros(3))
    one = (Step("identity", (Number(1.0, "float64"),), "float64"),)
    for fill, expected in (
        (LoopNest((4, 5), one, ((Operand(1, "float64", (5, 1)), 0),)), [1.0] * 20 + [9.0] * 5),  # another number
        (LoopNest((5, 5), zero, ((Operand(1, "float64", (5, 1)), 0),)), [0.0] * 25),  # more than the sum covers
        (LoopNest((4, 5), zero, ((Operand(1, "float64", (5, 1), 3), 0),)), [9.0] * 3 + [0.0] * 20 + [9.0] * 2),
    ):
        array = np.full(25, 9.0)
        run_all([((fill, total), [x, array])])
        np.testing.assert_array_equal(array, expected + np.append(x.sum(0), np.zeros(5)))


def window_nests(shape: tuple[int, int, int, int], window: tuple[int, int], stride: tuple[int, int]) -> Any:
    """The transpose of taking windows of images, as the engine says it: windows from last to first."""
    n, height, width, c = shape
    rows, columns = (height - window[0]) // stride[0] + 1, (width - window[1]) // stride[1] + 1
    patches = (n, rows, columns, *window, c)
    sn, sh, sw, sc = height * width * c, width * c, c, 1
    *_, source_rows, source_columns, a, b, one = (math.prod(patches[i + 1 :]) for i in range(6))
    last = (rows - 1) * sh * stride[0] + (columns - 1) * sw * stride[1]
    place = Operand(1, "float32", (sn, -sh * stride[0], -sw * stride[1], sh, sw, sc), last)
    backwards = (rows - 1) * source_rows + (columns - 1) * source_columns
    strides = (math.prod(patches[1:]), -source_rows, -source_columns, a, b, one)
    terms = Operand(0, "float32", strides, backwards)
    zero = (Step("identity", (Number(0.0, "float32"),), "float32"),)
    fill = LoopNest(shape, zero, ((Operand(1, "float32", (sn, sh, sw, sc)), 0),))
    return patches, [fill, LoopNest(patches, sums=((place, terms),))]


WINDOWS = [
    *[((2, 7, 7, 3), (3, 3), (1, 1)), ((2, 8, 9, 2), (3, 3), (2, 2)), ((1, 9, 6, 1), (2, 4), (3, 1))],
    *[((3, 6, 6, 4), (2, 2), (2, 2)), ((1, 5, 5, 2), (5, 5), (1, 1)), ((1, 8, 8, 1), (1, 3), (1, 2))],
    *[((2, 9, 3, 2), (3, 1), (1, 1)), ((2, 4, 4, 3), (1, 1), (1, 1)), ((1, 10, 10, 1), (2, 2), (4, 3))],
]


@needs_gxx
def test_overlapping_windows_are_gathered_in_the_order_of_the_backend() -> None:
    rng = np.random.default_rng(0)
    numpy, work, expected = NumPyBackend(), [], []
    for shape, window, stride in WINDOWS:
        patches, nests = window_nests(shape, window, stride)
        x, out = rng.standard_normal(patches).astype(np.float32), np.full(shape, np.nan, np.float32)
        expected.append(numpy.fold(x, stride, np.empty_like(out)))
        work.append((nests, [x, out]))
    run_all(work)
    for (_, (_, out)), right in zip(work, expected, strict=True):
        assert_same_bits(out, right)


def test_windows_that_cover_the_image_need_no_clearing() -> None:
    _, nests = window_nests((2, 7, 7, 3), (3, 3), (1, 1))
    assert len(functions_of(*nests)) == 1
    _, nests = window_nests((2, 8, 8, 3), (3, 3), (2, 2))
    assert len(functions_of(*nests)) == 2


def test_large_arrays_are_counted_in_64_bits() -> None:
    def text(n: int, stride: int) -> str:
        out = Operand(0, "float32", (stride,))
        return module_text(functions_of(LoopNest((n,), (Step("negative", (out,), "float32"),), ((out, 0),))))

    assert "typedef int I;" in text(1000, 1)
    assert "typedef long long I;" in text(1000, 2**28)
    assert "typedef long long I;" in text(2**31, 1)


def test_nothing_is_done_for_no_elements() -> None:
    out = Operand(0, "float32", (3, 1))
    assert functions_of(LoopNest((0, 3), (Step("negative", (out,), "float32"),), ((out, 0),))) == []
    factor = Factor(Operand(0, "float32", (0,)), 4, 1)
    assert functions_of(Product((1,), (0, 3, 4), factor, factor, factor)) == []


def random_product(rng: Any, dtype: str) -> tuple[Product, list[Any]]:
    """Matrices in rows or columns, or views of larger ones; some of them the same for all tasks."""
    m, k, n = (int(v) for v in rng.choice([1, 2, 3, 5, 8, 10, 17, 40, 64, 70, 130], 3))
    lead = tuple(int(v) for v in rng.choice([1, 2, 3], int(rng.integers(0, 3)))) or (1,)

    def matrix(rows: int, columns: int, shared: bool) -> Any:
        shape = (1,) * len(lead) if shared else lead
        x = rng.integers(-8, 8, (*shape, rows + 2, columns + 1)).astype(dtype)
        if rng.random() < 0.5:
            x = np.swapaxes(rng.integers(-8, 8, (*shape, columns + 2, rows + 1)).astype(dtype), -1, -2)
        return np.broadcast_to(x[..., :rows, :columns], (*lead, rows, columns))

    x, y, out = matrix(m, k, rng.random() < 0.2), matrix(k, n, rng.random() < 0.2), matrix(m, n, False)
    factors = []
    for i, array in enumerate((x, y, out)):
        *steps, rows, columns = (s // array.itemsize for s in array.strides)
        factors.append(Factor(Operand(i, dtype, tuple(steps)), rows, columns))
    return Product(lead, (m, k, n), *factors), [x, y, out]


@needs_gxx
@pytest.mark.parametrize("dtype", FLOATS)
def test_products(dtype: str) -> None:
    """Products of small whole numbers are exact."""
    work = [random_product(np.random.default_rng(seed), dtype) for seed in range(40)]
    run_all([((product,), arrays) for product, arrays in work])
    for product, (x, y, out) in work:
        np.testing.assert_array_equal(out, x @ y, err_msg=str(product))


@needs_gxx
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(
    "sizes",
    [(9, 300, 64), (64, 515, 9), (5, 256, 5), (40, 1001, 70), (17, 33, 20)],
)
def test_groups_of_threads_share_out_long_sums(sizes: tuple[int, int, int], dtype: str) -> None:
    m, k, n = sizes
    rng = np.random.default_rng(k)
    x, y = (rng.integers(-8, 8, (2, *shape)).astype(dtype) for shape in ((m, k), (k, n)))
    out = np.full((2, m, n), np.nan, dtype)
    factors = [Factor(Operand(i, dtype, (a[0].size,)), a.shape[2], 1) for i, a in enumerate((x, y, out))]
    product = Product((2,), sizes, *factors)
    (launch,) = functions_of(product)
    assert re.search(r"all_xs\[([2-4])\]", launch.code)
    run_all([((product,), [x, y, out])])
    np.testing.assert_array_equal(out, x @ y)


@needs_gxx
def test_sums_of_no_terms_are_zero() -> None:
    x, y, out = np.empty((2, 3, 0)), np.empty((2, 0, 4)), np.full((2, 3, 4), np.nan)
    factors = [Factor(Operand(0, "float64", (0,)), 0, 1), Factor(Operand(1, "float64", (0,)), 4, 1)]
    run_all([((Product((2,), (3, 0, 4), *factors, Factor(Operand(2, "float64", (12,)), 4, 1)),), [x, y, out])])
    np.testing.assert_array_equal(out, np.zeros_like(out))


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="nvcc is not installed")
@pytest.mark.parametrize("architecture", ["sm_75", "sm_90"])
def test_nvcc_compiles_it_all_without_spills(architecture: str, tmp_path: Path) -> None:
    launches: list[Launch] = []
    for dtype in FLOATS:
        x, out = Operand(0, dtype, (5, 1)), Operand(2, dtype, (5, 1))
        for name in sorted(CUDA_OPERATIONS - {"logical_and", "logical_or", "logical_not", "where", "convert"}):
            step = Step(name, (x, Operand(1, dtype, (5, 1)))[: 1 + (name in TWO)], dtype)
            launches += functions_of(LoopNest((4, 5), (step,), ((out, 0),)))
        for shape, _ in REDUCTIONS:
            strides = tuple(math.prod(shape[i + 1 :]) for i in range(len(shape)))
            target = Operand(1, dtype, (*strides[:-1], 0))
            launches += functions_of(LoopNest(shape, sums=((target, Operand(0, dtype, strides)),)))
        launches += [
            one for seed in range(4) for one in functions_of(random_product(np.random.default_rng(seed), dtype)[0])
        ]
    for window in WINDOWS[:2]:
        launches += functions_of(*window_nests(*window)[1])
    (tmp_path / "module.cu").write_text(module_text(launches))
    command = ["nvcc", f"-arch={architecture}", "-cubin", "-Xptxas", "-v", *COMPILE_OPTIONS]
    command += ["-Werror", "all-warnings", "-diag-suppress", "177"]  # names that a function has no use for
    done = subprocess.run([*command, "module.cu"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[:2000]
    registers = [int(n) for n in re.findall(r"Used (\d+) registers", done.stderr)]
    assert len(registers) == len({launch.name for launch in launches})
    assert max(registers) <= 128
    assert set(re.findall(r"(\d+) bytes spill", done.stderr)) == {"0"}


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="nvcc is not installed")
def test_elementwise_work_is_rounded_as_ieee_754_says(tmp_path: Path) -> None:
    x, y = (Operand(i, "float32", (1,)) for i in range(2))
    names = ["multiply", "add", "divide", "sqrt"]
    steps = [Step(name, (i - 1 if i else x, y)[: 1 + (name in TWO)], "float32") for i, name in enumerate(names)]
    nest = LoopNest((64,), tuple(steps), ((Operand(2, "float32", (1,)), 3),))
    (tmp_path / "module.cu").write_text(module_text(functions_of(nest)))
    command = ["nvcc", "-arch=sm_75", "-ptx", *COMPILE_OPTIONS, "module.cu"]
    subprocess.run(command, cwd=tmp_path, check=True)
    text = (tmp_path / "module.ptx").read_text()
    # Neither contracted nor with denormals made zero.
    assert all(f"{name}.rn.f32" in text for name in ("mul", "add", "div", "sqrt"))
    assert "fma" not in text
    assert "ftz" not in text
