"""Programs compiled for CUDA give what NumPy gives; and what the compiler asks of CuPy, NVRTC and cuBLAS."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from amounts import many
from cuda_on_host import FakeCublas, HostBackend, needs_gxx
from hypothesis import given
from hypothesis import strategies as st
from random_programs import a_type, array_in_a_buffer, check_carried, random_program, special_values

from aidotnet_py import CrossEntropyLoss, MeanSquaredErrorLoss, NeuralNetworkModel
from aidotnet_py import autodiff as ad
from aidotnet_py.autodiff.execution import Executable
from aidotnet_py.autodiff.program import Program
from aidotnet_py.backends import KernelCompiler, NumPyBackend
from aidotnet_py.backends.code_files import CodeFiles
from aidotnet_py.backends.cuda import compiler as module
from aidotnet_py.backends.cuda.compiler import CompilationFailed, CudaCompiler, shared_cuda_compiler
from aidotnet_py.backends.cuda.cublas import Cublas, gemms
from aidotnet_py.backends.kernel import Factor, Kernel, LoopNest, Operand, Product, Step
from aidotnet_py.exceptions import InvalidOperationException
from aidotnet_py.meta_learning.objective.task_programs import Signature, TaskPrograms
from aidotnet_py.nn import BatchNorm, Conv2D, Dense, Flatten, MaxPool2D, ReLU, Sequential, Tanh

PLAIN = NumPyBackend(compiled=False)


def run_on(program: Program, backend: NumPyBackend, inputs: Sequence[Any]) -> list[Any]:
    executable = Executable(program, backend)
    executable.compile()
    for array, value in zip(executable.inputs, inputs, strict=True):
        array[...] = value
    for _ in range(2):
        executable.run()
    return [np.array(output) for output in executable.outputs]


def networks() -> dict[str, tuple[Any, tuple[int, ...], Any]]:
    strided = [[Conv2D(16, 3, stride=2, padding=1), BatchNorm(), ReLU()] for _ in range(3)]
    pooled = [[Conv2D(8, 3), BatchNorm(), ReLU(), MaxPool2D(2)] for _ in range(2)]
    return {
        "strided": (Sequential(*chain(*strided), Flatten(), Dense(5)), (14, 14, 1), CrossEntropyLoss()),
        "pooled": (Sequential(*chain(*pooled), Flatten(), Dense(5)), (12, 12, 3), CrossEntropyLoss()),
        "sinusoid": (Sequential(Dense(20), Tanh(), Dense(20), ReLU(), Dense(1)), (1,), MeanSquaredErrorLoss()),
    }


@pytest.mark.slow
@needs_gxx
@pytest.mark.parametrize("name", [pytest.param("strided", marks=pytest.mark.slow), "pooled", "sinusoid"])
@pytest.mark.parametrize("of", ["evaluation", "hessian"])
def test_networks(name: str, of: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sums and products run in another order, and float64 tells a wrong term from that."""
    # Small as they are, the products of the convolutions are to go through cuBLAS.
    monkeypatch.setattr(module, "_SMALL", 17**3)
    monkeypatch.setattr(module, "_THIN", 1)
    network, shape, loss = networks()[name]
    rng = np.random.default_rng(1)
    x = rng.standard_normal((10, *shape))
    y = np.arange(10) % 5 if len(shape) > 1 else rng.standard_normal((10, 1))
    model = NeuralNetworkModel(network, input_shape=shape, loss=loss, dtype=np.float64, seed=0)
    program = TaskPrograms(Signature.of(model, model.DefaultLossFunction, x, y)).for_tasks(of, 3)
    inputs = [
        rng.standard_normal(t.shape) if t.is_floating else np.broadcast_to(y, t.shape) for t in program.input_types
    ]
    backend = HostBackend()
    found, expected = run_on(program, backend, inputs), run_on(program, PLAIN, inputs)
    scale = max(np.abs(right).max() for right in expected)
    for a, b in zip(found, expected, strict=True):
        # The gradient of a bias before a normalisation is nothing but rounding.
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12 * scale)
    assert len(backend.toolkit.texts) == 1
    assert bool(backend.toolkit.fake.calls) == (name != "sinusoid")


def test_a_network_is_compiled_whole() -> None:
    """Functions that round in their own way and sums over any axes are loops too."""
    network, shape, loss = networks()["sinusoid"]
    model = NeuralNetworkModel(network, input_shape=shape, loss=loss, seed=0)
    x = np.ones((10, 1), np.float32)
    program = TaskPrograms(Signature.of(model, model.DefaultLossFunction, x, x)).for_tasks("evaluation", 3)
    toolkit = Recorder()

    class Backend(NumPyBackend):
        compiler = CudaCompiler(toolkit)  # type: ignore[assignment]

    executable = Executable(program, Backend())
    executable.compile()
    assert len(executable.parts(0)) == 1
    (text,) = toolkit.texts
    assert "tanh(" in text


@pytest.mark.slow
@needs_gxx
def test_float32_stays_within_the_rounding_of_its_sums() -> None:
    network, shape, loss = networks()["strided"]
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((10, *shape)), np.arange(10) % 5
    results = []
    for dtype, backend in ((np.float64, PLAIN), (np.float32, PLAIN), (np.float32, HostBackend())):
        model = NeuralNetworkModel(network, input_shape=shape, loss=loss, dtype=dtype, seed=0)
        program = TaskPrograms(Signature.of(model, model.DefaultLossFunction, x.astype(dtype), y)).for_tasks(
            "hessian", 2
        )
        values = np.random.default_rng(2)
        inputs = [
            values.standard_normal(t.shape).astype(np.float32) if t.is_floating else np.broadcast_to(y, t.shape)
            for t in program.input_types
        ]
        results.append(np.concatenate([np.ravel(a).astype(float) for a in run_on(program, backend, inputs)]))
    exact, plain, found = results
    # No further from the truth than NumPy's own float32, but for a small factor.
    assert np.linalg.norm(found - exact) <= 2 * np.linalg.norm(plain - exact)


def check_random_program(rng: Any, backend: HostBackend) -> None:
    program = random_program(rng, [a_type(rng) for _ in range(3)], int(rng.integers(6, 30)))
    stages = rng.integers(0, 3, 3).tolist()
    inputs = [array_in_a_buffer(rng, PLAIN, t) for t in program.input_types]
    bound, layouts = [rng.random() < 0.5 for _ in program.output_types], int(rng.integers(2**32))

    def made(backend: NumPyBackend) -> Executable:
        same = np.random.default_rng(layouts)
        outputs = [
            array_in_a_buffer(same, backend, t) if b else None for t, b in zip(program.output_types, bound, strict=True)
        ]
        return Executable(program, backend, stages=stages, inputs=inputs, outputs=outputs)

    plain, compiled = made(PLAIN), made(backend)
    compiled.compile()
    for stage in (None, *rng.integers(0, max(stages) + 1, 3).tolist()):
        for array, of_stage in zip(inputs, stages, strict=True):
            if stage is None or of_stage == stage:
                array[...] = special_values(rng, array.shape)
        for executable in (plain, compiled):
            executable.run(*([] if stage is None else [stage]))
        for found, right in zip(compiled.outputs, plain.outputs, strict=True):
            np.testing.assert_allclose(found, right, rtol=1e-10, atol=1e-10)


# Each takes a second of g++.
SEEDS = pytest.mark.parametrize("seed", [0, *(pytest.param(s, marks=pytest.mark.slow) for s in range(1, many(40)))])


@pytest.mark.slow
@needs_gxx
@SEEDS
def test_random_programs(seed: int) -> None:
    check_random_program(np.random.default_rng(seed), HostBackend())


@needs_gxx
@SEEDS
def test_what_is_written_over_inputs_is_no_longer_read(seed: int) -> None:
    check_carried(np.random.default_rng(seed), HostBackend())


@needs_gxx
def test_a_sum_over_an_axis_of_length_one_is_not_written_over_what_its_loop_reads() -> None:
    """Otherwise the halves would be those of the sums: the loop stores them after it has added up."""
    a, b = np.arange(1.0, 9.0).reshape(2, 4), np.arange(11.0, 19.0).reshape(2, 4)

    def step(a: Any, b: Any) -> Any:
        halves = b * 0.5
        products = a * b
        return halves, np.sum(products.reshape(2, 4, 1), -1), np.sum(a)

    executable = Executable(ad.trace(step, a, b), HostBackend(), inputs=[a.copy(), b.copy()], carried={0: 0, 1: 1})
    executable.compile()
    executable.run()
    for found, right in zip(executable.outputs, step(a, b), strict=True):
        np.testing.assert_allclose(found, right, rtol=1e-15)


class Recorder:
    """A toolkit that compiles and runs nothing."""

    def __init__(self, error: str | None = None) -> None:
        self.texts: list[str] = []
        self.calls: list[Any] = []
        self.error = error
        self.fake = FakeCublas()

    def load(self, text: str) -> Callable[[str], Callable[[int, int, Sequence[int]], Any]]:
        if self.error is not None:
            raise CompilationFailed(self.error)
        self.texts.append(text)
        return lambda name: lambda *arguments: self.calls.append((name, *arguments))

    def stream(self) -> int:
        return 5

    def cublas(self) -> Cublas:
        return Cublas(self.fake, (4096, 512))

    def address_of(self, array: Any) -> int:
        return int(array.__array_interface__["data"][0])


def doubled(n: int) -> Kernel:
    step = Step("add", (Operand(0, "float32", (1,)), Operand(0, "float32", (1,))), "float32")
    return Kernel((LoopNest((n,), (step,), ((Operand(1, "float32", (1,)), 0),)),), 2)


def test_a_submission_is_one_module_of_what_was_not_compiled_before() -> None:
    toolkit = Recorder()
    compiler: KernelCompiler = CudaCompiler(toolkit)
    first = compiler.submit([doubled(300), doubled(300), doubled(500)])
    assert first.result() is not None
    (text,) = toolkit.texts
    assert text.count("__global__") == 2
    again = compiler.submit([doubled(500), doubled(700)]).result()
    assert toolkit.texts[1].count("__global__") == 1
    compiler.submit([doubled(700)])
    assert len(toolkit.texts) == 2
    assert again is not None
    again[1]([64, 128])()
    ((_, blocks, threads, addresses),) = toolkit.calls
    assert blocks * threads >= 700
    assert addresses == (64, 128)


def test_what_nvrtc_says_is_in_the_error() -> None:
    compiler = CudaCompiler(Recorder('kern.cu(3): error: identifier "q" is undefined\n' + "more\n" * 50))
    with pytest.raises(InvalidOperationException, match=r'could not be compiled: .*identifier "q"') as caught:
        compiler.submit([doubled(3)])
    assert str(caught.value).count("more") < 10


def product_of(lead: tuple[int, ...], m: int, k: int, n: int, dtype: str = "float32") -> Product:
    def factor(argument: int, rows: int, columns: int) -> Factor:
        steps = tuple(int(np.prod(lead[i + 1 :])) * rows * columns for i in range(len(lead)))
        return Factor(Operand(argument, dtype, steps), columns, 1)

    return Product(lead, (m, k, n), factor(0, m, k), factor(1, k, n), factor(2, m, n))


def test_large_products_are_for_cublas_and_small_ones_are_not() -> None:
    toolkit = Recorder()
    compiler = CudaCompiler(toolkit)
    thin = [product_of((32,), 9, 14700, 64), product_of((32,), 980, 9, 64), product_of((3,), 500, 1000, 1)]
    products = [product_of((32,), 245, 576, 64), product_of((100,), 10, 40, 40), *thin]
    assert all(map(compiler.can_multiply, products))
    compiler.submit([Kernel((product,), 3) for product in products[1:]])
    assert compiler._cublas is None
    compiler.submit([Kernel((products[0],), 3)])
    assert compiler._cublas is not None
    assert len(toolkit.texts) == 1


@st.composite
def layouts(draw: st.DrawFn) -> tuple[Product, list[Any]]:
    """Matrices of a product in rows or columns, parts of larger ones, shared by tasks or with axes in any order."""
    dtype = draw(st.sampled_from(["float32", "float64"]))
    m, k, n = (draw(st.integers(1, 6)) for _ in range(3))
    lead = tuple(draw(st.lists(st.integers(1, 4), min_size=1, max_size=3)))
    seed = iter(range(3))

    def matrix(rows: int, columns: int, *, may_be_shared: bool) -> Any:
        held = tuple(1 if may_be_shared and draw(st.booleans()) else length for length in lead)
        gap, order = draw(st.integers(0, 2)), draw(st.permutations(range(len(lead))))
        by_rows = draw(st.booleans())
        shape = (*(held[i] for i in order), *((rows, columns + gap) if by_rows else (columns, rows + gap)))
        x = np.random.default_rng(next(seed)).integers(-5, 5, shape).astype(dtype)
        x = x if by_rows else np.swapaxes(x, -1, -2)
        x = np.transpose(x[..., :rows, :columns], (*np.argsort(order).tolist(), len(lead), len(lead) + 1))
        return np.broadcast_to(x, (*lead, rows, columns))

    arrays = [matrix(m, k, may_be_shared=True), matrix(k, n, may_be_shared=True), matrix(m, n, may_be_shared=False)]
    factors = []
    for i, array in enumerate(arrays):
        *steps, row, column = (s // array.itemsize for s in array.strides)
        factors.append(Factor(Operand(i, dtype, tuple(steps)), row, column))
    return Product(lead, (m, k, n), *factors), arrays


@given(layouts())
def test_calls_of_cublas(case: tuple[Product, list[Any]]) -> None:
    product, (x, y, out) = case
    calls = gemms(product)
    assert calls is not None
    fake = FakeCublas()
    cublas = Cublas(fake, (4096, 512))
    addresses = [int(a.__array_interface__["data"][0]) for a in (x, y, out)]
    for call in calls:
        cublas.bind(call, addresses)(3)
    np.testing.assert_array_equal(out, x @ y)
    assert len(calls) <= 16


def test_products_that_cublas_does_not_take() -> None:
    whole = product_of((2,), 80, 80, 80)
    assert gemms(whole) is not None
    with_gaps = Factor(whole.x.operand, 160, 2)
    assert gemms(Product((2,), whole.sizes, with_gaps, whole.y, whole.out)) is None
    many = [
        Factor(Operand(f.operand.argument, "float32", (2**20, 2**14)), 80, 1) for f in (whole.x, whole.y, whole.out)
    ]
    assert gemms(Product((17, 17), whole.sizes, *many)) is None
    backwards = Factor(Operand(0, "float32", (-6400,), 6400), 80, 1)
    assert gemms(Product((2,), whole.sizes, backwards, whole.y, whole.out)) is None


def test_what_a_kernel_calls_is_not_mixed_with_what_another_thread_calls() -> None:
    """Sums in two passes have one place for what they keep in between."""
    n = 2**20
    total, x = Operand(1, "float64", (0,)), Operand(0, "float64", (1,))
    kernel = Kernel((LoopNest((n,), sums=((total, x),)),), 2)
    order: list[int] = []
    first_call, others_turn = threading.Event(), threading.Event()

    class Toolkit(Recorder):
        def load(self, text: str) -> Callable[[str], Callable[[int, int, Sequence[int]], Any]]:
            def call(blocks: int, threads: int, addresses: Sequence[int]) -> None:
                order.append(addresses[-1])
                first_call.set()
                others_turn.wait(0.05)

            return lambda name: call

    (bind,) = CudaCompiler(Toolkit()).submit([kernel]).result()
    one, other = (threading.Thread(target=bind([i, i])) for i in (1, 2))
    one.start()
    first_call.wait()
    other.start()
    one.join()
    other.join()
    assert len(order) == 4
    assert order == [1, 1, 2, 2]


class TestCublas:
    def call_of(self, cublas: Cublas) -> Callable[[int], None]:
        x = self.x = np.ones((2, 3, 3), np.float32)
        (gemm,) = gemms(product_of((2,), 3, 3, 3)) or ()
        return cublas.bind(gemm, [int(x.__array_interface__["data"][0])] * 3)

    def test_the_workspace_is_given_anew_for_each_stream(self) -> None:
        fake = FakeCublas()
        call = self.call_of(Cublas(fake, (4096, 512)))
        for stream in (1, 1, 2, 0, 1):
            call(stream)
        assert fake.calls == ["float32"] * 5
        assert fake.workspace == 512

    @pytest.mark.parametrize(("tf32", "mode"), [(False, 0), (True, 3)])
    def test_tf32_is_off_unless_asked_for(self, tf32: bool, mode: int) -> None:
        fake = FakeCublas()
        Cublas(fake, (4096, 512), tf32=tf32)
        assert fake.math == mode

    def test_its_errors_are_raised(self) -> None:
        fake = FakeCublas()
        call = self.call_of(Cublas(fake, (4096, 512)))
        fake.cublasSgemmStridedBatched = lambda *arguments: 13  # type: ignore[method-assign]
        with pytest.raises(InvalidOperationException, match="cublasSgemmStridedBatched returned status 13"):
            call(1)


class FakeCupy:
    """The parts of CuPy that the toolkit uses, with NVRTC that gives back its source."""

    def __init__(self) -> None:
        self.compiled: list[Any] = []
        self.launched: list[Any] = []
        self.has_cublas = False
        outer = self

        class Cuda(SimpleNamespace):
            @property
            def cublas(self) -> None:
                outer.has_cublas = True

        class CUDADriverError(RuntimeError):
            pass

        class CompileException(Exception):
            def get_message(self) -> str:
                return str(self)

        class Module:
            def load(self, code: bytes) -> None:
                if code == b"junk":
                    raise CUDADriverError("CUDA_ERROR_INVALID_IMAGE")
                self.code = code.decode()

            def get_function(self, name: str) -> Any:
                assert name in self.code
                return lambda *call: outer.launched.append(call)

        def compile_using_nvrtc(source: str, options: tuple[str, ...], cache_in_memory: bool) -> tuple[bytes, None]:
            if "broken" in source:
                raise CompileException("broken(1): error")
            outer.compiled.append(options)
            return source.encode(), None

        self.cuda = Cuda(
            Device=lambda device=1: SimpleNamespace(id=device, compute_capability="90"),
            nvrtc=SimpleNamespace(getVersion=lambda: (13, 0)),
            compiler=SimpleNamespace(compile_using_nvrtc=compile_using_nvrtc, CompileException=CompileException),
            function=SimpleNamespace(Module=Module),
            driver=SimpleNamespace(CUDADriverError=CUDADriverError),
            get_current_stream=lambda: SimpleNamespace(ptr=11),
            is_available=lambda: True,
            alloc=lambda size: SimpleNamespace(ptr=512),
            runtime=SimpleNamespace(runtimeGetVersion=lambda: 13020),
        )


@pytest.fixture
def cupy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeCupy:
    fake = FakeCupy()
    monkeypatch.setitem(sys.modules, "cupy", fake)  # type: ignore[arg-type]
    monkeypatch.setenv("CUPY_CACHE_DIR", str(tmp_path))
    return fake


class TestCupy:
    def test_code_is_compiled_for_denormals_and_kept(self, cupy: FakeCupy) -> None:
        for _ in range(2):
            compiler = CudaCompiler(module._CupyToolkit(cupy, 1, tf32=False))
            (bind,) = compiler.submit([doubled(300)]).result()
            bind([64, 128])()
        (options,) = cupy.compiled
        assert "--ftz=false" in options
        assert "--fmad=false" in options
        assert cupy.launched == [((3,), (128,), (64, 128))] * 2

    def test_what_the_driver_does_not_load_is_compiled_anew(self, cupy: FakeCupy, tmp_path: Path) -> None:
        files = CodeFiles(tmp_path / "aidotnet_py")
        for _ in range(2):
            compiler = CudaCompiler(module._CupyToolkit(cupy, 1, tf32=False))
            (bind,) = compiler.submit([doubled(300)]).result()
            bind([64, 128])()
            (file,) = (tmp_path / "aidotnet_py").iterdir()
            files.write(file.name, b"junk")
        assert len(cupy.compiled) == len(cupy.launched) == 2

    def test_errors_of_nvrtc(self, cupy: FakeCupy) -> None:
        with pytest.raises(CompilationFailed, match=r"broken\(1\): error"):
            module._CupyToolkit(cupy, 1, tf32=False).load("broken")

    def test_arrays_of_another_device(self, cupy: FakeCupy) -> None:
        compiler = CudaCompiler(module._CupyToolkit(cupy, 1, tf32=False))
        here, there = (SimpleNamespace(device=SimpleNamespace(id=i), data=SimpleNamespace(ptr=640)) for i in (1, 0))
        assert compiler.address_of(here) == 640
        with pytest.raises(
            InvalidOperationException,
            match="arrays must be on device 1, for which kernels are compiled, got one on device 0",
        ):
            compiler.address_of(there)

    @pytest.mark.parametrize("asked", [False, True])
    def test_cublas_is_the_one_that_cupy_loads(
        self, cupy: FakeCupy, monkeypatch: pytest.MonkeyPatch, asked: bool
    ) -> None:
        fake, names = FakeCublas(), []
        monkeypatch.setattr("ctypes.CDLL", lambda name: (cupy.has_cublas and names.append(name)) or fake)
        toolkit = module._CupyToolkit(cupy, 1, tf32=asked)
        toolkit.cublas()
        assert names in (["libcublas.so.13"], ["cublas64_13.dll"])
        assert fake.math == (3 if asked else 0)
        assert toolkit.stream() == 11


def test_without_cupy_or_a_device_there_is_no_compiler(cupy: FakeCupy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    found = shared_cuda_compiler()
    assert isinstance(found, CudaCompiler)
    assert shared_cuda_compiler() is found
    assert shared_cuda_compiler(tf32=True) is not found
    cupy.cuda.Device = lambda device=2: SimpleNamespace(id=device, compute_capability="90")
    assert shared_cuda_compiler() is not found
    cupy.cuda.is_available = lambda: False
    assert shared_cuda_compiler() is None
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert shared_cuda_compiler() is None


@pytest.mark.gpu
class TestOnAGpu:
    @pytest.fixture
    def real(self) -> Any:
        cupy = pytest.importorskip("cupy", reason="CuPy is not installed")
        if not cupy.cuda.is_available():
            pytest.skip("there is no CUDA device")
        return cupy

    def test_kernels_run_and_are_captured(self, real: Any) -> None:
        rng = np.random.default_rng(0)
        lead, m, k, n = 4, 245, 576, 64
        x, y = (rng.standard_normal(s).astype(np.float32) for s in ((lead, m, k), (lead, k, n)))
        arrays = [real.asarray(x), real.asarray(y), real.empty((lead, m, n), "f"), real.empty((lead, n), "f")]
        product = product_of((lead,), m, k, n)
        total = LoopNest((lead, m, n), sums=((Operand(3, "float32", (n, 0, 1)), Operand(2, "float32", (m * n, n, 1))),))
        compiler = shared_cuda_compiler()
        assert compiler is not None
        (bind,) = compiler.submit([Kernel((product, total), 4)]).result()
        call = bind([compiler.address_of(a) for a in arrays])
        stream = real.cuda.Stream(non_blocking=True)
        real.cuda.Device().synchronize()
        results = []
        with stream:
            arrays[3][...] = 0
            call()
            results.append(arrays[3].get())
            stream.begin_capture()
            call()
            graph = stream.end_capture()
            for _ in range(2):
                arrays[3][...] = 0
                graph.launch(stream)
                results.append(arrays[3].get())
        exact = (x.astype(float) @ y).sum(1)
        bound = (k + m) * np.finfo(np.float32).eps * (np.abs(x).astype(float) @ np.abs(y)).sum(1)
        assert (np.abs(results[0] - exact) <= bound).all()
        np.testing.assert_array_equal(results[1], results[0])
        np.testing.assert_array_equal(results[2], results[0])
