"""The CuPy backend against NumPy's, method by method; graphs, precision, devices; what is said where CuPy is not."""

from __future__ import annotations

import importlib
import inspect
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import simulated_cupy
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from simulated_cupy import CUDARuntimeError, SimulatedBackend

from aidotnet_py import FunctionModel
from aidotnet_py.backends import (
    Backend,
    CuPyBackend,
    available_backends,
    backend_of,
    described,
    get_backend,
    registry,
)
from aidotnet_py.backends.cuda import compiler as cuda_compiler
from aidotnet_py.exceptions import ArgumentException, InvalidOperationException

HOST = get_backend("numpy")


def draw(seed: int, *shape: int) -> Any:
    return np.random.default_rng(seed).standard_normal(shape)


def turned(backend: Backend, x: Any) -> Any:
    """The same values with strides of their own: every second one of a buffer with its axes turned round."""
    buffer = np.zeros((2 * x.shape[-1], *x.shape[-2::-1]), x.dtype)
    buffer[::2] = x.T
    return backend.permute_dims(
        backend.index(backend.asarray(buffer), (slice(None, None, 2),)), tuple(reversed(range(x.ndim)))
    )


class TestMethods:
    @given(st.lists(st.integers(0, 4), min_size=0, max_size=2), *[st.integers(0, 5)] * 3, st.integers(0, 99))
    def test_matrix_products_of_any_strides(
        self, cupy_backend: Backend, lead: list[int], m: int, k: int, n: int, seed: int
    ) -> None:
        x, y = draw(seed, *lead, m, k), draw(seed + 1, *lead, k, n)
        left, right = turned(cupy_backend, x), turned(cupy_backend, y)
        assert_allclose(cupy_backend.to_numpy(cupy_backend.matmul(left, right)), x @ y, rtol=1e-13, atol=1e-13)
        out = turned(cupy_backend, np.full((*lead, m, n), np.nan))
        cupy_backend.matmul(left, right, out=out)
        assert_allclose(cupy_backend.to_numpy(out), x @ y, rtol=1e-13, atol=1e-13)

    def test_a_matrix_for_all_is_not_copied_by_broadcasting_twice(self, cupy_backend: Backend) -> None:
        x, y = draw(0, 3, 2, 4), draw(1, 4, 5)
        wide = cupy_backend.broadcast_to(cupy_backend.asarray(y), (3, 4, 5))
        found = cupy_backend.matmul(cupy_backend.asarray(x), wide)
        assert_allclose(cupy_backend.to_numpy(found), x @ y, rtol=1e-13)

    @pytest.mark.parametrize("length", [0, 1, 4095, 8191, 8192, 8193, 20000])
    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_inner_products_of_any_length(self, cupy_backend: Backend, length: int, dtype: Any) -> None:
        x, y = draw(0, 3, length).astype(dtype), draw(1, 3, length).astype(dtype)
        wanted = np.vecdot(x.astype(float), y.astype(float))
        within = 50 * np.finfo(dtype).eps * np.vecdot(np.abs(x), np.abs(y)) + 1e-300
        out = cupy_backend.empty((3,), dtype)
        for found in (
            cupy_backend.vecdot(cupy_backend.asarray(x), cupy_backend.asarray(y)),
            cupy_backend.vecdot(cupy_backend.asarray(x), turned(cupy_backend, y), out=out),
            out,
        ):
            assert cupy_backend.dtype_of(found) == dtype
            assert (np.abs(cupy_backend.to_numpy(found) - wanted) <= within).all()

    @given(st.integers(1, 5), st.integers(0, 12), st.integers(0, 3), st.sampled_from([np.int32, np.int64, np.uint8]))
    def test_rows_taken_and_added(self, cupy_backend: Backend, rows: int, count: int, width: int, kind: Any) -> None:
        rng = np.random.default_rng(count)
        x, values = rng.standard_normal((rows, width)), rng.standard_normal((count, 1, width))
        indices = rng.integers(0, rows, (count, 1)).astype(kind)
        places = cupy_backend.asarray(indices)
        taken = cupy_backend.take(turned(cupy_backend, x), places)
        assert_array_equal(cupy_backend.to_numpy(taken), x[indices])
        out = turned(cupy_backend, np.full((rows, width), np.nan))
        cupy_backend.scatter_add(turned(cupy_backend, values), places, out)
        wanted = np.zeros((rows, width))
        np.add.at(wanted, indices, values)
        # To the bit: it adds in the order of the indices, as NumPy does.
        assert_array_equal(cupy_backend.to_numpy(out), wanted)

    def test_indices_out_of_range_read_and_write_nothing_else(self, cupy_backend: Backend) -> None:
        x, indices = np.arange(6.0).reshape(3, 2), np.array([-1, -3, 7, 0])
        taken = cupy_backend.take(cupy_backend.asarray(x), cupy_backend.asarray(indices))
        assert_array_equal(cupy_backend.to_numpy(taken), x[indices % 3])
        out = cupy_backend.empty((3,), np.float64)
        cupy_backend.scatter_add(cupy_backend.asarray([1.0, 2.0, 4.0, 8.0]), cupy_backend.asarray(indices), out)
        assert cupy_backend.to_numpy(out).tolist() == [10.0, 0.0, 1.0]

    @given(*[st.integers(1, 3)] * 4, *[st.integers(0, 4)] * 2, st.integers(0, 2), st.integers(0, 3), st.integers(0, 99))
    def test_windows_and_their_sums(
        self,
        cupy_backend: Backend,
        kh: int,
        kw: int,
        sh: int,
        sw: int,
        more_h: int,
        more_w: int,
        n: int,
        c: int,
        seed: int,
    ) -> None:
        x = draw(seed, n, kh + more_h, kw + more_w, c)
        window, stride = (kh, kw), (sh, sw)
        wanted = HOST.patches(x, window, stride)
        assert_array_equal(cupy_backend.to_numpy(cupy_backend.patches(turned(cupy_backend, x), window, stride)), wanted)
        out = turned(cupy_backend, np.full(x.shape, np.nan))
        cupy_backend.fold(turned(cupy_backend, wanted), stride, out)
        assert_array_equal(cupy_backend.to_numpy(out), HOST.fold(wanted, stride, np.empty(x.shape)))

    def test_many_arrays_one_after_another(self, cupy_backend: Backend) -> None:
        parts = [draw(i, 2, i % 3, 2) for i in range(11)]
        arrays = [turned(cupy_backend, part) for part in parts]
        out = turned(cupy_backend, np.full((2, 10, 2), np.nan))
        for found in (cupy_backend.concat(arrays, 1), cupy_backend.concat(arrays, -2, out=out), out):
            assert_array_equal(cupy_backend.to_numpy(found), np.concatenate(parts, 1))

    @pytest.mark.parametrize("value", [0.0, -0.0, 3.0, -2.0, np.nan, np.inf, -np.inf, 800.0, -800.0])
    @pytest.mark.parametrize("name", ["sign", "sigmoid", "softplus", "relu"])
    def test_composed_functions_at_the_edges(self, cupy_backend: Backend, name: str, value: float) -> None:
        for dtype in (np.float32, np.float64):
            x = np.array([value], dtype)
            with HOST.errors_ignored():
                wanted = HOST.elementwise(name)(x)
            found = cupy_backend.elementwise(name)(cupy_backend.asarray(x))
            assert cupy_backend.dtype_of(found) == dtype
            assert_allclose(cupy_backend.to_numpy(found), wanted, rtol=2 * np.finfo(dtype).eps)

    def test_sums_and_maxima_of_nothing(self, cupy_backend: Backend) -> None:
        empty = cupy_backend.empty((0, 3), np.float64)
        assert cupy_backend.to_numpy(cupy_backend.sum(empty, (0,))).tolist() == [0.0, 0.0, 0.0]
        assert cupy_backend.max(empty, (1,)).shape == (0,)

    def test_views_share_memory(self, cupy_backend: Backend) -> None:
        array = cupy_backend.asarray(np.zeros((2, 3)))
        for view in (
            cupy_backend.reshape(array, (3, 2)),
            cupy_backend.permute_dims(array, (1, 0)),
            cupy_backend.index(array, (slice(0, 2), slice(2, None, -1))),
        ):
            cupy_backend.copyto(view, 0.0)
            cupy_backend.copyto(cupy_backend.index(view, (slice(0, 1), slice(0, 1))), 5.0)
            assert np.count_nonzero(cupy_backend.to_numpy(array)) == 1

    def test_data_of_the_other_byte_order(self, cupy_backend: Backend) -> None:
        array = cupy_backend.asarray(np.array([1.5, 2.0], ">f4"))
        assert cupy_backend.dtype_of(array) == np.dtype(np.float32)
        assert cupy_backend.to_numpy(array).tolist() == [1.5, 2.0]

    def test_the_same_work_gives_the_same_bits(self, cupy_backend: Backend) -> None:
        values = cupy_backend.asarray(draw(0, 5000).astype(np.float32))
        places = cupy_backend.asarray(np.random.default_rng(1).integers(0, 7, 5000))
        found = set()
        for _ in range(5):
            out = cupy_backend.empty((7,), np.float32)
            cupy_backend.scatter_add(values, places, out)
            product = cupy_backend.vecdot(values, values)
            found.add(cupy_backend.to_numpy(out).tobytes() + cupy_backend.to_numpy(product).tobytes())
        assert len(found) == 1

    def test_host_data_goes_over_in_one_transfer(self) -> None:
        backend = get_backend("simulated")
        before = simulated_cupy.transfers["to device"]
        backend.asarray([[1.0, 2.0], [3.0, 4.0]], np.float32)
        assert simulated_cupy.transfers["to device"] == before + 1


class TestGraphs:
    def test_replay_the_work_on_the_same_memory(self, cupy_backend: Backend) -> None:
        x, out = cupy_backend.asarray([1.0, 2.0, 3.0]), cupy_backend.asarray([0.0, 0.0, 0.0])
        add, sigmoid = cupy_backend.elementwise("add"), cupy_backend.elementwise("sigmoid")

        def work() -> None:
            doubled = add(x, x)
            add(out, sigmoid(doubled), out=out)

        work()
        once = cupy_backend.to_numpy(out).copy()
        replay = cupy_backend.capture(work)
        assert replay is not None
        assert_array_equal(cupy_backend.to_numpy(out), once)
        replay()
        assert_allclose(cupy_backend.to_numpy(out), 2 * once, rtol=1e-15)
        cupy_backend.copyto(x, 0.0)
        replay()
        assert_allclose(cupy_backend.to_numpy(out), 2 * once + 0.5, rtol=1e-15)

    def test_hold_every_operation_but_products(self, cupy_backend: Backend) -> None:
        x = cupy_backend.asarray(draw(0, 2, 5, 5, 3))
        long, parts = cupy_backend.asarray(draw(1, 2, 9000)), [cupy_backend.asarray(draw(i, 2)) for i in range(12)]
        places, out = cupy_backend.asarray([1, 0, 1]), [cupy_backend.empty((2,), np.float64) for _ in range(5)]
        image, mask = cupy_backend.empty(x.shape, np.float64), cupy_backend.asarray([True, False])

        def work() -> None:
            windows = cupy_backend.patches(x, (3, 3), (1, 2))
            cupy_backend.fold(windows, (1, 2), image)
            cupy_backend.vecdot(long, long, out=out[0])
            rows = cupy_backend.take(cupy_backend.concat(parts, 0), places)
            cupy_backend.scatter_add(rows, places, out[1])
            cupy_backend.sum(cupy_backend.cumulative_sum(cupy_backend.max(x, (3,)), 1), (1, 2), out=out[2])
            cupy_backend.elementwise("where")(mask, out[2], 0.0, out=out[3])
            cupy_backend.copyto(out[4], cupy_backend.astype(cupy_backend.astype(out[0], np.float32), np.float64))

        work()
        wanted = [cupy_backend.to_numpy(a).copy() for a in (*out, image)]
        replay = cupy_backend.capture(work)
        assert replay is not None
        for array in (*out, image):
            cupy_backend.copyto(array, -1.0)
        replay()
        for array, values in zip((*out, image), wanted, strict=True):
            assert_array_equal(cupy_backend.to_numpy(array), values)

    @pytest.mark.parametrize(
        ("what", "message"),
        [
            (lambda b, x: b.to_numpy(x), "a transfer to the host cannot be part of captured work"),
            (lambda b, x: b.asarray([1.0]), "a transfer to the device cannot be part"),
            (lambda b, x: b.synchronize(), "waiting for the device cannot be part"),
            (lambda b, x: b.capture(lambda: None), "another capture cannot be part"),
            (lambda b, x: b.solve(x, x), "a linear solve cannot be part of captured work"),
            (lambda b, x: b.cholesky(x), "a Cholesky factorisation cannot be part"),
            (lambda b, x: b.slogdet(x), "a determinant cannot be part"),
            (lambda b, x: b.argsort(x), "sorting cannot be part"),
            (lambda b, x: b.matmul(x, x), "this work cannot be captured: calling cuBLAS API during stream capture"),
            (lambda b, x: x.get(), "this work cannot be captured: the current stream is capturing"),
        ],
    )
    def test_of_what_cannot_be_captured_say_so_and_leave_nothing_behind(
        self, cupy_backend: Backend, what: Callable[..., Any], message: str
    ) -> None:
        x, out = cupy_backend.asarray(np.eye(2)), cupy_backend.asarray(np.zeros((2, 2)))

        def work() -> None:
            cupy_backend.elementwise("add")(x, 1.0, out=out)
            what(cupy_backend, x)

        with pytest.raises(InvalidOperationException, match=message):
            cupy_backend.capture(work)
        assert not cupy_backend.to_numpy(out).any()
        assert_array_equal(cupy_backend.to_numpy(cupy_backend.matmul(x, x)), np.eye(2))
        replay = cupy_backend.capture(lambda: cupy_backend.copyto(out, x))
        assert replay is not None
        replay()
        assert_array_equal(cupy_backend.to_numpy(out), np.eye(2))

    def test_an_interrupt_ends_the_capture_and_goes_on(self, cupy_backend: Backend) -> None:
        def work() -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            cupy_backend.capture(work)
        cupy_backend.synchronize()

    def test_other_backends_have_none(self) -> None:
        for name in {"numpy", "strict"} & set(available_backends()):
            assert get_backend(name).capture(pytest.fail) is None

    def test_the_simulation_tells_when_a_graph_outlives_its_memory(self) -> None:
        x = simulated_cupy.empty((2,))
        stream = simulated_cupy.Stream(non_blocking=True)
        with stream:
            stream.begin_capture()
            x.fill(1.0)
            graph = stream.end_capture()
        graph.launch()
        del x
        with pytest.raises(AssertionError, match="memory that has been freed"):
            graph.launch()


class TestPrecision:
    @pytest.fixture(autouse=True)
    def settings(self, monkeypatch: pytest.MonkeyPatch) -> None:
        # As with CUPY_TF32=1, and with somebody's own mode of cuBLAS.
        monkeypatch.setitem(simulated_cupy._compute_types, "float32", 7)
        monkeypatch.setitem(simulated_cupy._cublas, "mode", 3)
        monkeypatch.setattr(simulated_cupy, "products", [])

    @pytest.mark.parametrize(("allowed", "wanted"), [(False, (1, 0)), (True, (7, 3))])
    def test_tf32_is_used_where_it_is_asked_for_alone(self, allowed: bool, wanted: tuple[int, int]) -> None:
        backend = SimulatedBackend(allow_tf32=allowed)
        for shape in ((2, 2), (3, 2, 2)):
            x = backend.asarray(np.ones(shape), np.float32)
            backend.matmul(x, x)
        assert [product[2:] for product in simulated_cupy.products] == [wanted, wanted]
        # What was set before is set again.
        assert (simulated_cupy._compute_types["float32"], simulated_cupy._cublas["mode"]) == (7, 3)

    def test_settings_come_back_after_an_error(self) -> None:
        backend = SimulatedBackend()
        x = backend.asarray(np.ones((2, 3)), np.float32)
        with pytest.raises(ValueError, match="matmul"):
            backend.matmul(x, x)
        assert (simulated_cupy._compute_types["float32"], simulated_cupy._cublas["mode"]) == (7, 3)


class TestDevices:
    def test_each_owns_its_arrays_alone(self) -> None:
        first, second = SimulatedBackend(0), SimulatedBackend(1)
        x, y = first.asarray([1.0]), second.asarray([2.0])
        assert first.owns(x)
        assert not first.owns(y)
        assert second.owns(y)
        assert not second.owns(np.ones(1))
        with pytest.raises(AssertionError, match="on another device than its own"):
            first.elementwise("add")(x, y)
        assert second.to_numpy(second.elementwise("add")(y, y)).tolist() == [4.0]

    @pytest.mark.parametrize("device", [2, -1])
    def test_one_that_is_not_there_is_named(self, device: int) -> None:
        with pytest.raises(ArgumentException, match=rf"there is no CUDA device {device}; CUDA finds 2, counted from 0"):
            SimulatedBackend(device)

    def test_arrays_of_numpy_do_not_mix_in(self) -> None:
        backend = get_backend("simulated")
        with pytest.raises(TypeError, match="Unsupported type"):
            backend.elementwise("add")(backend.asarray([1.0]), np.ones(1))
        with pytest.raises(TypeError, match="Implicit conversion"):
            np.asarray(backend.asarray([1.0]))


@pytest.fixture
def nobody_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A registry that has not been asked for CuPy, where none has been imported."""
    monkeypatch.setattr(registry, "_backends", {"numpy": HOST})
    monkeypatch.delitem(sys.modules, "cupy", raising=False)


@pytest.fixture
def importable(nobody_asked: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The simulation in CuPy's place; it has nothing that compiles CUDA."""
    monkeypatch.setattr(cuda_compiler, "shared_cuda_compiler", lambda *, tf32: None)
    with simulated_cupy.installed() as cupy:
        yield cupy


INSTALL = r'pip install "aidotnet_py\[cuda13\]" brings all that is needed \(\[cuda12\] for a driver of CUDA 12\)'


class TestWithoutCuPy:
    @pytest.fixture(autouse=True)
    def not_installed(self, nobody_asked: None, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "cupy", None)

    @pytest.mark.parametrize(
        "ask",
        [
            lambda: get_backend("cupy"),
            CuPyBackend,
            lambda: FunctionModel(lambda p, x: x * p["w"], {"w": np.ones(1)}, backend="cupy"),
            lambda: FunctionModel(lambda p, x: x * p["w"], {"w": np.ones(1)}).To("cupy"),
        ],
    )
    def test_whoever_asks_for_it_reads_what_to_type(self, ask: Callable[[], object]) -> None:
        message = rf"^backend 'cupy' is not available: CuPy cannot be imported \(.*cupy.*\); {INSTALL}$"
        with pytest.raises(ArgumentException, match=message):
            ask()

    def test_the_names_of_backends_say_what_is_missing(self) -> None:
        names = available_backends()
        assert names == ("numpy",)
        assert "cupy" not in names
        assert list(names.missing) == ["cupy"]
        assert "pip install" in names.missing["cupy"]
        shown, missing = repr(names).splitlines()
        assert shown == "('numpy',)"
        assert missing == f"cupy: not available: {names.missing['cupy']}"

    def test_arrays_are_found_their_backend_as_before(self) -> None:
        assert backend_of(np.ones(1)) is HOST
        assert backend_of(1.0, "text") is None

    def test_an_unknown_backend_is_told_of_it(self) -> None:
        with pytest.raises(ArgumentException, match="backend must be a Backend or one of 'numpy', 'cupy', got 'cuppy'"):
            get_backend("cuppy")


class TestWithoutADevice:
    def test_what_cuda_said_is_passed_on(self, importable: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        def none() -> int:
            raise CUDARuntimeError("cudaErrorInsufficientDriver: CUDA driver version is insufficient")

        monkeypatch.setattr(importable.cuda.runtime, "getDeviceCount", none)
        message = r"CuPy 14.2.0 finds no usable CUDA device or driver; CUDA says: cudaErrorInsufficientDriver: CUDA dr"
        with pytest.raises(ArgumentException, match=message):
            get_backend("cupy")
        assert "cudaErrorInsufficientDriver" in available_backends().missing["cupy"]

    def test_no_devices_at_all(self, importable: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(importable.cuda.runtime, "getDeviceCount", lambda: 0)
        with pytest.raises(ArgumentException, match="there is no CUDA device 0; CUDA finds 0"):
            get_backend("cupy")

    def test_no_libraries_of_cuda(self, importable: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        class Cuda(types.ModuleType):
            @property
            def cublas(self) -> Any:
                raise ImportError("Failure finding libcublas.so\n=====\n")

        cuda = Cuda("cupy.cuda")
        vars(cuda).update({k: v for k, v in vars(importable.cuda).items() if k != "cublas"})
        monkeypatch.setattr(importable, "cuda", cuda)
        message = rf"CuPy 14.2.0 does not find CUDA's libraries \(Failure finding libcublas.so\); {INSTALL}"
        with pytest.raises(ArgumentException, match=message):
            get_backend("cupy")


class TestWithCuPy:
    def test_it_is_made_once_when_first_asked_for(self, importable: Any) -> None:
        assert "cupy" not in registry._backends
        assert "cupy" in available_backends()
        assert not available_backends().missing
        assert "cupy" not in registry._backends
        backend = get_backend("cupy")
        assert isinstance(backend, CuPyBackend)
        assert isinstance(backend, Backend)
        assert get_backend("cupy") is backend
        assert available_backends() == ("numpy", "cupy")

    def test_an_array_is_known_before_anybody_asked(self, importable: Any) -> None:
        array = importable.array([1.0, 2.0])
        assert described(array) == "float64(2,) on backend 'cupy'"
        assert backend_of(array, 1.0) is get_backend("cupy")

    def test_parameters_may_be_given_as_its_arrays(self, importable: Any) -> None:
        model = FunctionModel(lambda p, x: x * p["w"], {"w": np.ones(2)})
        with pytest.raises(ArgumentException, match="on backend 'cupy'"):
            model.SetParameters(importable.array([1.0, 2.0]))

    def test_one_of_another_device_may_take_its_place(self, importable: Any) -> None:
        other = CuPyBackend(1)
        registry.register_backend(other)
        assert get_backend("cupy") is other
        assert backend_of(other.asarray([1.0])) is other
        assert repr(other).startswith("CuPyBackend(device=")
        assert repr(CuPyBackend()) == "CuPyBackend()"


def _parameters(function: Any) -> list[str] | None:
    try:
        return list(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        # What is compiled shows no signature, but has it in its first line of documentation.
        return None


def test_the_simulation_has_nothing_that_cupy_has_not() -> None:
    """Where CuPy is installed, with a GPU or without: names and parameters of the simulation are CuPy's."""
    real = pytest.importorskip("cupy", reason="CuPy is not installed", exc_type=ImportError)
    checked = 0
    pairs: list[tuple[Any, Any]] = [(simulated_cupy.cupy, real), (simulated_cupy.cupy.cuda, real.cuda)]
    pairs += [(simulated_cupy.cupy._core, real._core), (simulated_cupy.cupy.cuda.runtime, real.cuda.runtime)]
    pairs.append((simulated_cupy.cupy.linalg, real.linalg))
    pairs += [(getattr(simulated_cupy, name), getattr(real.cuda, name)) for name in ("Stream", "MemoryPool", "Graph")]
    tricks, cupyx = (importlib.import_module(name) for name in ("cupy.lib.stride_tricks", "cupyx"))
    pairs.append((simulated_cupy.cupyx, cupyx))
    pairs += [(simulated_cupy.ndarray, real.ndarray), (simulated_cupy.stride_tricks, tricks)]
    for mine, theirs in pairs:
        for name, member in vars(mine).items():
            if name.startswith("_") or name == "cublas":
                continue
            assert hasattr(theirs, name), f"{theirs} has no {name}"
            wanted = _parameters(getattr(theirs, name))
            if inspect.isfunction(member) and wanted is not None and "args" not in wanted:
                mine_has = [p for p in inspect.signature(member).parameters if p != "self"]
                assert mine_has == [p for p in wanted if p != "self"][: len(mine_has)], name
            checked += 1
    assert checked > 60
    for name in simulated_cupy.UFUNCS:
        assert isinstance(getattr(real, name), real.ufunc)
