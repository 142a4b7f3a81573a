"""Nests that treat rows apart run as one call, with the values that they have one by one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from cuda_on_host import HostBackend, HostToolkit, needs_gxx
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from aidotnet_py.autodiff import hvp, trace, value_and_grad, vmap
from aidotnet_py.autodiff.execution import Executable
from aidotnet_py.backends import get_backend
from aidotnet_py.backends.cuda.compiler import CudaCompiler
from aidotnet_py.backends.cuda.launch import Launch
from aidotnet_py.backends.cuda.source import launches_of
from aidotnet_py.backends.kernel import Factor, Kernel, LoopNest, Number, Operand, Product, Step

pytestmark = needs_gxx

ROWS = 7


def calls_of(*nests: LoopNest | Product) -> list[Launch | Product]:
    return launches_of(Kernel(nests, 9), lambda product: False)


def run(nests: Sequence[LoopNest | Product], arrays: Sequence[Any]) -> None:
    compiler = CudaCompiler(HostToolkit())
    (bind,) = compiler.submit([Kernel(tuple(nests), len(arrays))]).result()
    bind([compiler.address_of(array) for array in arrays])()


def operand(argument: int, *strides: int, offset: int = 0, dtype: str = "float64") -> Operand:
    return Operand(argument, dtype, strides, offset)


def scale(shape: tuple[int, ...], source: Operand, target: Operand, factor: float = 2.0) -> LoopNest:
    step = Step("multiply", (source, Number(factor, source.dtype)), source.dtype)
    return LoopNest(shape, (step,), ((target, 0),))


def product(n: tuple[int, int, int], *, transposed: bool, dtype: str = "float64") -> Product:
    """Argument 2 (rows, m, k) = argument 0 (rows, m, n) @ argument 1, shared by all rows and (n, k) or transposed."""
    m, k, columns = n
    y = Factor(operand(1, 0, dtype=dtype), *((1, k) if transposed else (columns, 1)))
    x = Factor(operand(0, m * k, dtype=dtype), k, 1)
    out = Factor(operand(2, m * columns, dtype=dtype), columns, 1)
    return Product((ROWS,), n, x, y, out)


@pytest.mark.slow
@settings(max_examples=15)
@given(
    sizes=st.tuples(st.integers(1, 40), st.integers(1, 70), st.integers(1, 40)),
    transposed=st.booleans(),
    dtype=st.sampled_from(["float32", "float64"]),
)
def test_a_product_with_what_follows(sizes: tuple[int, int, int], transposed: bool, dtype: str) -> None:
    """The product of each row, then its sums over rows, columns and both, and its maxima."""
    m, k, n = sizes
    rng = np.random.default_rng(m * k * n)
    x, y = rng.standard_normal((ROWS, m, k)).astype(dtype), rng.standard_normal((k, n)).astype(dtype)
    out = np.full((ROWS, m, n), np.nan, dtype)
    down, right, whole, most = (np.zeros(shape, dtype) for shape in ((ROWS, n), (ROWS, m), (ROWS,), (ROWS, n)))
    value = operand(2, m * n, n, 1, dtype=dtype)
    sums = (
        (operand(3, n, 0, 1, dtype=dtype), value),
        (operand(4, m, 1, 0, dtype=dtype), value),
        (operand(5, 1, 0, 0, dtype=dtype), value),
    )
    nest = LoopNest((ROWS, m, n), sums=sums, maxima=((operand(6, n, 0, 1, dtype=dtype), value),))
    nests = [product(sizes, transposed=transposed, dtype=dtype), nest]
    assert len(calls_of(*nests)) == 1
    given_y = np.ascontiguousarray(y.T) if transposed else y
    run(nests, [x, given_y, out, down, right, whole, most])
    expected = x.astype(np.float64) @ y.astype(np.float64)
    eps = 8 * k * n * m * float(np.finfo(dtype).eps)
    assert_allclose(out, expected, rtol=0, atol=eps)
    assert_allclose(down, expected.sum(1), rtol=0, atol=eps)
    assert_allclose(right, expected.sum(2), rtol=0, atol=eps)
    assert_allclose(whole, expected.sum((1, 2)), rtol=0, atol=eps)
    assert_allclose(most, np.maximum(out.max(1), 0))


class TestRowsThatMeet:
    """Rows that meet in memory wait for each other: the work is several calls, with the values of one by one."""

    def test_memory_of_two_sizes_a_row(self) -> None:
        """Row 1 of the short values lies where row 0 of the long ones does."""
        x, scratch, out = np.arange(ROWS * 4.0).reshape(ROWS, 4), np.zeros((ROWS, 4)), np.zeros(ROWS)
        nests = [
            scale((ROWS, 4), operand(0, 4, 1), operand(1, 4, 1)),
            scale((ROWS,), operand(1, 4, offset=3), operand(2, 1)),
            scale((ROWS,), operand(2, 1), operand(1, 1)),
        ]
        assert len(calls_of(*nests)) == 2
        run(nests, [x, scratch, out])
        assert_allclose(out, 4 * x[:, 3])
        assert_allclose(scratch.ravel()[:ROWS], 8 * x[:, 3])

    def test_a_row_that_reads_another(self) -> None:
        x, y, out = np.arange(ROWS * 3.0).reshape(ROWS, 3), np.zeros((ROWS, 3)), np.zeros((ROWS, 3))
        nests = [
            scale((ROWS, 3), operand(0, 3, 1), operand(1, 3, 1)),
            scale((ROWS, 3), operand(1, -3, 1, offset=3 * (ROWS - 1)), operand(2, 3, 1)),
        ]
        assert len(calls_of(*nests)) == 2
        run(nests, [x, y, out])
        assert_allclose(out, 4 * x[::-1])

    def test_a_sum_over_rows(self) -> None:
        x, y, total = np.arange(ROWS * 3.0).reshape(ROWS, 3), np.zeros((ROWS, 3)), np.zeros(3)
        nests = [
            scale((ROWS, 3), operand(0, 3, 1), operand(1, 3, 1)),
            LoopNest((ROWS, 3), sums=((operand(2, 0, 1), operand(1, 3, 1)),)),
        ]
        assert len(calls_of(*nests)) == 2
        run(nests, [x, y, total])
        assert_allclose(total, 2 * x.sum(0))

    def test_a_value_that_all_rows_read(self) -> None:
        """It is a row's own as long as it is written: what the first row writes, others would read too soon."""
        x, y, out = np.arange(ROWS * 1.0), np.zeros(ROWS), np.zeros(ROWS)
        nests = [scale((ROWS,), operand(0, 1), operand(1, 1)), scale((ROWS,), operand(1, 0), operand(2, 1))]
        assert len(calls_of(*nests)) == 2
        run(nests, [x, y, out])
        assert_allclose(out, 4 * x[0])


class TestRowsApart:
    def test_interlaced_rows(self) -> None:
        """Records of several numbers a row, one kind after another, each with all rows side by side."""
        x, records, out = np.arange(ROWS * 1.0), np.zeros((3, ROWS)), np.zeros((ROWS, 3))
        nests = [
            scale((1, ROWS), operand(0, 0, 1), operand(1, ROWS, 1, offset=i * ROWS), 1.0 + i) for i in range(3)
        ] + [scale((ROWS, 3), operand(1, 1, ROWS), operand(2, 3, 1))]
        assert len(calls_of(*nests)) == 1
        run(nests, [x, records, out])
        assert_allclose(out, 2 * x[:, None] * [1.0, 2.0, 3.0])

    def test_more_results_than_threads(self) -> None:
        x = np.random.default_rng(0).standard_normal((ROWS, 3, 1500))
        y, total = np.zeros_like(x), np.full((ROWS, 1500), 5.0)
        nests = [
            scale(x.shape, operand(0, 4500, 1500, 1), operand(1, 4500, 1500, 1)),
            LoopNest(x.shape, sums=((operand(2, 1500, 0, 1), operand(1, 4500, 1500, 1)),)),
        ]
        assert len(calls_of(*nests)) == 1
        run(nests, [x, y, total])
        assert_allclose(total, 5 + 2 * x.sum(1))

    def test_much_work_on_a_row_is_for_many_blocks(self) -> None:
        nests = [scale((ROWS, 10_000), operand(i, 10_000, 1), operand(i + 1, 10_000, 1)) for i in range(2)]
        assert [call.blocks > ROWS for call in calls_of(*nests) if isinstance(call, Launch)] == [True, True]


def mlp_loss(w: Any, x: Any, y: Any) -> Any:
    hidden = np.tanh(x @ np.reshape(w[:30], (3, 10)) + w[30:40])
    return np.mean((hidden @ np.reshape(w[40:50], (10, 1)) - y) ** 2)


@pytest.mark.slow
def test_gradients_and_curvature_of_many_tasks_are_one_call() -> None:
    rng = np.random.default_rng(0)
    w, v = rng.standard_normal((2, ROWS, 50))
    x, y = rng.standard_normal((ROWS, 8, 3)), rng.standard_normal((ROWS, 8, 1))

    def of_task(w: Any, v: Any, x: Any, y: Any) -> Any:
        return value_and_grad(lambda u: mlp_loss(u, x, y))(w), hvp(lambda u: mlp_loss(u, x, y), w, v)

    program = trace(vmap(of_task), w, v, x, y)
    wanted = Executable(program, get_backend("numpy"), inputs=[w, v, x, y])
    wanted.run()
    found = Executable(program, HostBackend(), inputs=[w, v, x, y])
    found.compile()
    found.run()
    for a, b in zip(found.outputs, wanted.outputs, strict=True):
        assert_allclose(a, b, rtol=1e-12, atol=1e-13)
    blocks = [call.args[0] for part in found.parts(0) for call in part.call.args[0]]  # type: ignore[attr-defined]
    # Beside scalars that all tasks share.
    assert [count for count in blocks if count > 1] == [ROWS]


def test_rows_without_elements_read_nothing() -> None:
    """A sum over no terms read one, beyond the end of its operand."""

    def work(x: Any, y: Any) -> Any:
        return np.sum(np.tanh(x @ y), (1, 2)) + 1.0, np.sum(np.exp(x), 2) + np.sum(np.sin(x), 2)

    for n, k in ((0, 3), (3, 0), (0, 0)):
        inputs = [np.ones((ROWS, n, k)), np.ones((ROWS, k, 4))]
        found = Executable(trace(work, *inputs), HostBackend(), inputs=inputs)
        found.compile()
        found.run()
        for a, b in zip(found.outputs, work(*inputs), strict=True):
            assert_allclose(a, b)
