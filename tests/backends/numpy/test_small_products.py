"""Products by a small matrix: each element is the sum that the function promises, whatever is around it."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from waiting import until

from aidotnet_py import autodiff as ad
from aidotnet_py.autodiff.extend import Executable
from aidotnet_py.backends import NumPyBackend, get_backend
from aidotnet_py.backends.kernel import is_small_product
from aidotnet_py.backends.numpy import multiplication
from aidotnet_py.backends.numpy.assembly import SMALL_PRODUCTS, SmallDtype, small_product_text
from aidotnet_py.backends.numpy.llvm import LlvmCompiler, shared_compiler
from aidotnet_py.backends.numpy.machine_code import Machine

Rng = np.random.Generator

COMPILER = shared_compiler()
pytestmark = pytest.mark.skipif(COMPILER is None, reason="llvmlite is not installed")
ours = pytest.mark.skipif(
    COMPILER is None or not COMPILER.rules.small_products, reason="BLAS computes all products of this processor"
)


@cache
def machine() -> Machine:
    return Machine()


@cache
def multiply(dtype: SmallDtype) -> Callable[..., Any]:
    """The function for a dtype; it takes the addresses and strides of arrays."""
    name = f"product_{dtype}"
    address = machine().load(machine().compile(small_product_text(name, dtype), optimize=True), name)
    function = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 3, *[ctypes.c_int64] * 8)(address)

    def call(x: Any, y: Any, out: Any) -> None:
        size = x.itemsize
        strides = [step // size for step in (*x.strides, *y.strides, out.strides[0])]
        function(*(a.ctypes.data for a in (x, y, out)), *out.shape, x.shape[1], *strides)

    return call


def laid_out(rng: Rng, array: Any) -> Any:
    """The array's values in memory between other elements, by rows or by columns."""
    rows, columns = array.shape
    gap = int(rng.integers(3))
    if rng.integers(2):
        memory = np.full((rows, columns + gap), np.nan, array.dtype)
        place = memory[:, :columns]
    else:
        memory = np.full((columns, rows + gap), np.nan, array.dtype)
        place = memory[:, :rows].T
    place[...] = array
    return place


@given(st.sampled_from(SMALL_PRODUCTS), st.integers(1, 20), st.integers(1, 300), st.integers(1, 50), st.integers(0, 99))
def test_every_size_and_layout(dtype: SmallDtype, m: int, k: int, n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = (rng.integers(-9, 10, shape) for shape in ((m, k), (k, n)))
    memory = np.full((m, n + 3), np.nan, dtype)
    multiply(dtype)(laid_out(rng, x.astype(dtype)), laid_out(rng, y.astype(dtype)), memory[:, 1 : n + 1])
    # Sums of small whole numbers are exact.
    np.testing.assert_array_equal(memory[:, 1 : n + 1], x @ y)
    assert np.isnan(memory[:, [0, n + 1, n + 2]]).all()


@pytest.mark.parametrize("m", [240, 241, 485])
def test_many_rows(m: int) -> None:
    x, y = (np.arange(m * 140).reshape(m, 140) % 7).astype(np.float32), np.eye(140, 11, dtype=np.float32)
    out = np.empty((m, 11), np.float32)
    multiply("float32")(x, y, out)
    np.testing.assert_array_equal(out, x[:, :11])


@pytest.mark.parametrize("k", [1, 7, 128, 129, 300])
def test_terms_are_added_in_order_with_one_rounding_each(k: int) -> None:
    rng = np.random.default_rng(k)
    x, y, out = rng.standard_normal((3, k)), rng.standard_normal((k, 5)), np.empty((3, 5))
    multiply("float64")(x, y, out)

    def element(i: int, j: int) -> float:
        total: float | None = None
        for start in range(0, k, 128):
            some = 0.0
            for p in range(start, min(start + 128, k)):
                some = float(Fraction(x[i, p]) * Fraction(y[p, j]) + Fraction(some))
            total = some if total is None else total + some
        return total or 0.0

    np.testing.assert_array_equal(out, [[element(i, j) for j in range(5)] for i in range(3)])


@pytest.mark.parametrize("dtype", SMALL_PRODUCTS)
def test_rows_and_columns_do_not_matter_to_each_other(dtype: SmallDtype) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((23, 200)).astype(dtype), rng.standard_normal((200, 45)).astype(dtype)
    whole = np.empty((23, 45), dtype)
    multiply(dtype)(x, y, whole)
    for rows, columns in [((0, 1), (0, 45)), ((5, 23), (3, 4)), ((1, 9), (9, 26)), ((22, 23), (44, 45))]:
        part = np.empty((rows[1] - rows[0], columns[1] - columns[0]), dtype)
        multiply(dtype)(x[slice(*rows)], y[:, slice(*columns)], part)
        np.testing.assert_array_equal(part, whole[slice(*rows), slice(*columns)])


@pytest.mark.parametrize("dtype", SMALL_PRODUCTS)
def test_what_is_not_finite_stays_in_its_row_and_column(dtype: SmallDtype) -> None:
    x, y, out = np.ones((9, 20), dtype), np.ones((20, 13), dtype), np.empty((9, 13), dtype)
    x[4, 3], y[7, 12] = np.inf, np.nan
    multiply(dtype)(x, y, out)
    expected = np.full((9, 13), 20.0)
    expected[4], expected[:, 12] = np.inf, np.nan
    np.testing.assert_array_equal(out, expected)


@ours
@pytest.mark.parametrize("transposed", [(False, False), (True, False), (False, True), (True, True)])
def test_kernels_and_single_operations_give_the_same_bits(transposed: tuple[bool, bool]) -> None:
    rng = np.random.default_rng(1)
    shapes = [(4, k, m) if t else (4, m, k) for t, (m, k) in zip(transposed, [(10, 300), (300, 33)], strict=True)]
    arrays = [rng.standard_normal(shape).astype(np.float32) for shape in shapes]

    def product(x: Any, y: Any) -> Any:
        x, y = (np.swapaxes(a, 1, 2) if t else a for a, t in zip((x, y), transposed, strict=True))
        return 2.0 * (x @ y)

    executable = Executable(ad.trace(product, *arrays), get_backend("numpy"), inputs=arrays)
    executable.run()
    first = executable.outputs[0].copy()
    executable.compile()
    assert executable.kernels(0) is not None
    executable.run()
    np.testing.assert_array_equal(executable.outputs[0], first)
    x, y = (np.swapaxes(a, 1, 2)[2] if t else a[2] for a, t in zip(arrays, transposed, strict=True))
    np.testing.assert_array_equal(first[2], 2.0 * NumPyBackend().matmul(x, y))


class TestOfTheBackend:
    """`NumPyBackend.matmul` computes NumPy's product of any arrays, small or not."""

    @pytest.mark.parametrize(
        ("x", "y"),
        [
            ((3, 5), (5, 4)),
            ((2, 1, 3, 5), (7, 5, 4)),
            ((3, 5), (2, 5, 4)),
            ((0, 3, 5), (5, 4)),
            ((3, 0), (0, 4)),
            ((0, 5), (5, 4)),
            ((3, 500), (500, 400)),
            ((5,), (5, 4)),
            ((3, 5), (5,)),
        ],
    )
    def test_shapes(self, x: tuple[int, ...], y: tuple[int, ...]) -> None:
        a, b = (np.arange(np.prod(shape), dtype=np.float32).reshape(shape) % 7 for shape in (x, y))
        found = NumPyBackend().matmul(a, b)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, a @ b)

    @pytest.mark.parametrize(
        "of",
        [
            pytest.param(lambda a: a[::2, ::-1], id="backwards"),
            pytest.param(lambda a: a.astype(">f8"), id="other byte order"),
            pytest.param(lambda a: np.broadcast_to(a[:1, :1], a.shape), id="one element"),
            pytest.param(lambda a: np.rec.fromarrays([a, a])["f1"], id="in records"),
            pytest.param(lambda a: np.frombuffer(b"." + a.tobytes(), "f8", -1, 1).reshape(a.shape), id="not aligned"),
            pytest.param(lambda a: a.astype(np.float32), id="another dtype"),
            pytest.param(lambda a: a.astype(int), id="whole numbers"),
            pytest.param(lambda a: a.view(np.matrix), id="matrix"),
        ],
    )
    def test_arrays_of_any_kind(self, of: Callable[[Any], Any]) -> None:
        a = of(np.arange(64.0).reshape(8, 8) % 5)
        for x, y in ((a, np.ones((8, 6))), (np.ones((6, a.shape[0])), a), (a[: a.shape[1]], a.T[:, :3])):
            if x.shape[1] == y.shape[0]:
                found = NumPyBackend().matmul(x, y)
                np.testing.assert_array_equal(found, x @ y)
                assert type(found) is type(x @ y)
                assert found.dtype == (x @ y).dtype

    @ours
    def test_byte_orders_do_not_matter(self) -> None:
        rng = np.random.default_rng(3)
        x, y = rng.standard_normal((5, 90)), rng.standard_normal((90, 7))
        expected = NumPyBackend().matmul(x, y)
        for dtypes in [(">f8", "<f8"), ("<f8", ">f8"), (">f8", ">f8")]:
            a, b = (array.astype(dtype) for array, dtype in zip((x, y), dtypes, strict=True))
            np.testing.assert_array_equal(NumPyBackend().matmul(a, b), expected)

    def test_an_array_to_write_into(self) -> None:
        x, y = np.arange(12.0).reshape(3, 4), np.arange(16.0).reshape(4, 4)
        expected = x @ y
        for out in (np.empty((3, 4)), np.empty((4, 3)).T, np.empty((3, 8))[:, ::2], np.empty((3, 4), ">f8"), x):
            assert NumPyBackend().matmul(x, y, out=out) is out
            np.testing.assert_array_equal(out, expected)

    def test_what_numpy_refuses_is_refused(self) -> None:
        x = np.ones((3, 4))
        out = np.zeros((3, 3))
        out.flags.writeable = False
        for arguments in [(x, x), (np.ones((2, 3, 4)), np.ones((3, 4, 3))), (x, x.T, out), (x, x.T, np.ones((2, 3)))]:
            with pytest.raises(ValueError, match=r"matmul|shape|read-only|broadcast"):
                NumPyBackend().matmul(*arguments)
        assert not out.any()

    @ours
    def test_a_product_does_not_depend_on_rows_beside_it(self) -> None:
        rng = np.random.default_rng(0)
        x, y = rng.standard_normal((50, 300), np.float32), rng.standard_normal((300, 40), np.float32)
        whole = NumPyBackend().matmul(x, y)
        for start, stop in ((0, 1), (7, 9), (3, 50)):
            np.testing.assert_array_equal(NumPyBackend().matmul(x[start:stop], y), whole[start:stop])


class TestOfTheCompiler:
    """The compiler's function for small products."""

    @pytest.fixture(autouse=True)
    def folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.setattr("platformdirs.user_cache_path", lambda name: tmp_path / name)
        return tmp_path / "aidotnet_py" / "kernels"

    @ours
    def test_the_first_call_waits_for_the_function(self) -> None:
        compiler = LlvmCompiler()
        found: list[int | None] = []
        threads = [threading.Thread(target=lambda: found.append(compiler.small_product("float64"))) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(set(found)) == 1
        assert found[0]

    @ours
    def test_blas_multiplies_if_the_function_cannot_be_compiled(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(*_: Any, **__: Any) -> None:
            raise RuntimeError("no room")

        compiler = LlvmCompiler()
        monkeypatch.setattr("aidotnet_py.backends.numpy.library.Library.compile", fail)
        assert compiler.small_product("float32") is None
        until(lambda: not compiler._working)
        monkeypatch.setattr("aidotnet_py.backends.numpy.backend._compiler", lambda: compiler)
        x = np.random.default_rng(0).standard_normal((5, 40), np.float32)
        np.testing.assert_array_equal(NumPyBackend().matmul(x, x.T), x @ x.T)

    @ours
    def test_at_the_end_of_the_interpreter_blas_multiplies(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """No thread is started then, nor is the function waited for at each product."""

        def refuse(self: threading.Thread) -> None:
            raise RuntimeError("can't create new thread at interpreter shutdown")

        compiler, begun = LlvmCompiler(), []
        begin = LlvmCompiler._begin
        monkeypatch.setattr(LlvmCompiler, "_begin", lambda *given: begun.append(given) or begin(*given))
        with monkeypatch.context() as patches:
            patches.setattr(threading.Thread, "start", refuse)
            patches.setattr(threading, "main_thread", threading.Thread)
            assert [compiler.small_product("float64") for _ in range(3)] == [None] * 3
        assert compiler.small_product("float64") is None
        assert len(begun) == 1

    @pytest.mark.parametrize("architecture", ["SkylakeX", "Haswell"])
    def test_other_kernels_of_blas_compute_all_products(
        self, architecture: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(multiplication, "_openblas", lambda: {"filepath": "", "architecture": architecture})
        monkeypatch.setattr(multiplication, "blas_addresses", lambda: (1,))
        multiplication.multiplies_small.cache_clear()
        try:
            assert LlvmCompiler().rules.small_products is (architecture == "Haswell")
            assert architecture == "Haswell" or LlvmCompiler().small_product("float32") is None
        finally:
            multiplication.multiplies_small.cache_clear()


@pytest.mark.parametrize(
    ("k", "n", "small"),
    [
        (2, 2, True),
        (1, 40, False),
        (40, 1, False),
        (7056, 48, True),
        (7056, 49, False),
        (64, 64, True),
        (65, 64, False),
    ],
)
def test_which_products_are_small(k: int, n: int, small: bool) -> None:
    assert is_small_product(k, n) is small
