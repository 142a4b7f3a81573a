"""What is compiled gives the bits of what is not: networks, products, solver updates; and failures on the way."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from waiting import until_all_is_compiled

from aidotnet_py import CrossEntropyLoss, NeuralNetworkModel
from aidotnet_py import autodiff as ad
from aidotnet_py.autodiff.execution import Executable, compiling
from aidotnet_py.autodiff.execution.fusion import units_of
from aidotnet_py.autodiff.program import Program
from aidotnet_py.backends import NumPyBackend, code_files
from aidotnet_py.backends.kernel import LoopRules
from aidotnet_py.backends.numpy import library, machine_code
from aidotnet_py.backends.numpy import llvm as llvm_compiler_module
from aidotnet_py.backends.numpy.llvm import LlvmCompiler, shared_compiler
from aidotnet_py.exceptions import InvalidOperationException
from aidotnet_py.meta_learning.objective.task_programs import Signature, TaskPrograms
from aidotnet_py.nn import BatchNorm, Conv2D, Dense, Flatten, MaxPool2D, ReLU, Sequential, Tanh
from aidotnet_py.solvers import conjugate_gradient

pytestmark = pytest.mark.skipif(shared_compiler() is None, reason="llvmlite is not installed")

PLAIN = NumPyBackend(compiled=False)
BITS = {2: np.uint16, 4: np.uint32, 8: np.uint64}


def run_on(program: Program, backend: NumPyBackend, inputs: Sequence[Any]) -> list[Any]:
    executable = Executable(program, backend)
    executable.compile()
    for array, value in zip(executable.inputs, inputs, strict=True):
        array[...] = value
    executable.run()
    return [np.array(output) for output in executable.outputs]


def assert_same_bits(found: Sequence[Any], expected: Sequence[Any]) -> None:
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == b.dtype
        if a.dtype.kind == "f":
            a, b = (np.ascontiguousarray(x).view(BITS[x.dtype.itemsize]) for x in (a, b))
        np.testing.assert_array_equal(a, b)


def networks() -> dict[str, tuple[Any, tuple[int, ...]]]:
    strided = [[Conv2D(16, 3, stride=2, padding=1), BatchNorm(), ReLU()] for _ in range(3)]
    pooled = [[Conv2D(8, 3), BatchNorm(), ReLU(), MaxPool2D(2)] for _ in range(2)]
    return {
        "strided": (Sequential(*chain(*strided), Flatten(), Dense(5)), (14, 14, 1)),
        "pooled": (Sequential(*chain(*pooled), Flatten(), Dense(5)), (12, 12, 3)),
        "smooth": (Sequential(Dense(20), Tanh(), Dense(20), Tanh(), Dense(5)), (7,)),
    }


@pytest.mark.parametrize("name", [*(pytest.param(n, marks=pytest.mark.slow) for n in ("strided", "pooled")), "smooth"])
@pytest.mark.parametrize("of", ["evaluation", "hessian", "gauss-newton"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_networks(name: str, of: Any, dtype: Any) -> None:
    network, shape = networks()[name]
    model = NeuralNetworkModel(network, input_shape=shape, loss=CrossEntropyLoss(), dtype=dtype, seed=0)
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((10, *shape)).astype(dtype), np.arange(10) % 5
    programs = TaskPrograms(Signature.of(model, model.DefaultLossFunction, x, y))
    program = programs.for_tasks(of, 3)
    inputs = [
        rng.standard_normal(t.shape) if t.is_floating else np.broadcast_to(y, t.shape) for t in program.input_types
    ]
    assert_same_bits(run_on(program, NumPyBackend(), inputs), run_on(program, PLAIN, inputs))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "terms", [1, 7, 8, 9, 128, *(pytest.param(n, marks=pytest.mark.slow) for n in (2, 5, 16, 23, 64, 127))]
)
def test_short_rows_are_summed_in_numpys_order_within_a_kernel(terms: int, dtype: Any) -> None:
    rng = np.random.default_rng(terms)
    x = (rng.standard_normal((6, terms, 1)) * np.exp(3 * rng.standard_normal((6, terms, 1)))).astype(dtype)
    x[0] = -0.0
    program = ad.trace(lambda x: [(x * 1).sum(axis=(1, 2)) * 3, (x * 1).sum(axis=1)], x)
    executable = Executable(program, NumPyBackend())
    executable.compile()
    assert len(executable.parts(0)) == 1
    assert_same_bits(run_on(program, NumPyBackend(), [x]), run_on(program, PLAIN, [x]))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("reduce", [np.sum, np.max])
def test_reductions_of_what_is_cut_out_are_loops(reduce: Any, dtype: Any) -> None:
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((5, 7, 9, 6)) * np.exp(3 * rng.standard_normal((5, 7, 9, 6)))).astype(dtype)
    x[0], x[1, 1], x[1, 2, 1], x[2, ::2] = -0.0, 0.0, -0.0, np.nan

    def function(x: Any) -> Any:
        y = x * 1
        pooled = y[:, :6, :8].reshape(5, 3, 2, 4, 2, 6)
        return [reduce(pooled, axis=(2, 4)), reduce(y[1:, ::2, 1:-1, 1:4], axis=(0, 2)), reduce(y[..., ::2], axis=1)]

    program = ad.trace(function, x)
    executable = Executable(program, NumPyBackend())
    executable.compile()
    assert executable.kernels(0) is not None
    assert_same_bits(run_on(program, NumPyBackend(), [x]), run_on(program, PLAIN, [x]))


def test_equal_work_on_parts_of_a_result_is_one_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling, "_LARGE", 0)
    x = np.random.default_rng(0).standard_normal((4, 6, 5)).astype(np.float32)

    def function(x: Any) -> Any:
        return np.concatenate([np.pad(part, ((1, 1), (0, 2))) for part in x])

    program = ad.trace(function, x)
    executable = Executable(program, NumPyBackend())
    executable.compile()
    calls: list[Any] = executable.kernels(0) or []
    assert len(calls) == 4
    assert len({call.kernel for call in calls}) == 1
    assert_same_bits(run_on(program, NumPyBackend(), [x]), run_on(program, PLAIN, [x]))


@pytest.mark.parametrize("seed", [s if s < 20 else pytest.param(s, marks=pytest.mark.slow) for s in range(60)])
def test_products_of_all_shapes_and_layouts(seed: int) -> None:
    rng = np.random.default_rng(seed)
    m, k, n = (int(v) for v in rng.choice([1, 2, 3, 5, 8, 17, 40, 64, 130], 3))
    lead = tuple(int(v) for v in rng.choice([1, 2, 5], int(rng.integers(0, 3))))
    dtype = rng.choice([np.float32, np.float64])

    def matrix(rows: int, columns: int) -> Any:
        if rng.random() < 0.5:
            return rng.standard_normal((*lead, rows, columns)).astype(dtype)
        return np.swapaxes(rng.standard_normal((*lead, columns, rows)).astype(dtype), -1, -2)

    x, y = matrix(m, k), matrix(k, n)
    program = ad.trace(lambda a, b: a @ b, x, y)
    results = []
    for backend in (PLAIN, NumPyBackend()):
        executable = Executable(program, backend, inputs=[x, y])
        executable.compile()
        executable.run()
        results.append([np.array(executable.outputs[0])])
    assert_same_bits(*results)


@pytest.mark.parametrize("dtype", [np.float16, np.int64, np.int8, bool])
def test_dtypes_that_no_loop_knows_stay_with_the_backend(dtype: Any) -> None:
    x = (np.arange(12).reshape(3, 4) % 3).astype(dtype)
    column, row = x[:, :1], x[:1]
    program = ad.trace(lambda a, b, c, d: (a @ b, c @ d, np.where(a > a[0, 0], a, a[0])), x, x.T, column, row)
    inputs = [x, x.T, column, row]
    assert_same_bits(run_on(program, NumPyBackend(), inputs), run_on(program, PLAIN, inputs))


def test_a_run_of_a_network_is_a_few_calls() -> None:
    network, shape = networks()["strided"]
    model = NeuralNetworkModel(network, input_shape=shape, loss=CrossEntropyLoss(), seed=0)
    x, y = np.ones((10, *shape), np.float32), np.arange(10) % 5
    program = TaskPrograms(Signature.of(model, model.DefaultLossFunction, x, y)).for_tasks("evaluation", 1)
    executable = Executable(program, NumPyBackend())
    before, memory = len(executable.parts(0)), executable.nbytes
    executable.compile()
    assert len(executable.parts(0)) < before / 8
    assert executable.nbytes < memory


def test_solves_of_one_shape_keep_their_bits_when_their_updates_are_compiled() -> None:
    rng = np.random.default_rng(0)
    a = rng.standard_normal((3, 50, 50)).astype(np.float32)
    a = a @ np.swapaxes(a, 1, 2) + 50 * np.eye(50, dtype=np.float32)
    b = rng.standard_normal((3, 50)).astype(np.float32)

    def solve() -> Any:
        return conjugate_gradient(lambda v: (a @ v[..., None])[..., 0], b, max_iterations=7)[0]

    first = solve()
    for _ in range(5):
        solve()
    until_all_is_compiled()
    assert_same_bits([solve()], [first])


class _Failing:
    """A compiler that fails after a while."""

    rules = LoopRules()

    def submit(self, kernels: Any) -> Any:
        return self

    def can_multiply(self, product: Any) -> bool:
        return False

    def address_of(self, array: Any) -> int:
        return int(array.__array_interface__["data"][0])

    def result(self, *, wait: bool = False) -> Any:
        raise InvalidOperationException("kernels could not be compiled: out of luck")


class _OnFailing(NumPyBackend):
    compiler = _Failing()  # type: ignore[assignment]


class _Later:
    """The compiler's kernels, which are ready after so many questions."""

    def __init__(self, compiler: LlvmCompiler, questions: int) -> None:
        self._compiler, self._questions = compiler, questions

    def __getattr__(self, name: str) -> Any:
        return getattr(self._compiler, name)

    def submit(self, kernels: Any) -> Any:
        self._compilation = self._compiler.submit(kernels)
        return self

    def result(self, *, wait: bool = False) -> Any:
        self._questions -= 1
        return None if self._questions >= 0 and not wait else self._compilation.result(wait=True)


def test_kernels_that_get_ready_during_a_run_make_the_rest_of_its_calls() -> None:
    def function(x: Any, y: Any) -> Any:
        a = x * 2.0 + 1.0
        b = np.sin(a)
        small = np.sum(b * y) * np.arange(5.0)
        c = np.cumsum(b) * small[1]
        return [np.sqrt(c * c + a), small @ np.ones((5, 3)), np.maximum(a, b) - small[2]]

    size = 2**17
    program = ad.trace(function, np.ones(size), np.ones(size))
    rng = np.random.default_rng(0)
    inputs = [rng.standard_normal(size), rng.standard_normal(size)]
    wanted = run_on(program, PLAIN, inputs)
    calls = len(Executable(program, PLAIN).parts(0))
    assert calls > 8
    for questions in range(calls + 3):

        class OnLater(NumPyBackend):
            compiler = _Later(LlvmCompiler(), questions)  # type: ignore[assignment]

        executable = Executable(program, OnLater(), compile_at=1)
        for array, value in zip(executable.inputs, inputs, strict=True):
            array[...] = value
        for runs in (1, 2):
            executable.run()
            assert_same_bits([np.array(output) for output in executable.outputs], wanted)
            assert executable.is_settled() is (questions <= calls or runs == 2)
        assert 4 < sum(part.compiled for part in executable.parts(0)) < len(executable.parts(0))


def test_what_a_subclass_does_otherwise_is_not_compiled_away() -> None:
    class Tripling(NumPyBackend):
        def elementwise(self, name: str) -> Any:
            return np.multiply if name == "add" else super().elementwise(name)

    program = ad.trace(lambda a: a + 3.0, np.ones(4))
    assert_same_bits(run_on(program, Tripling(), [np.arange(4.0)]), [3 * np.arange(4.0)])


def test_where_compiling_fails_all_goes_on_without() -> None:
    x = np.linspace(0, 1, 12).reshape(3, 4)
    program = ad.trace(lambda a: a * 2.0 + 1.0, x)
    executable = Executable(program, _OnFailing())
    executable.inputs[0][...] = x
    executable.run()
    with pytest.warns(RuntimeWarning, match="could not be compiled: out of luck; falling back to uncompiled kernels"):
        executable.run()
    executable.run()
    np.testing.assert_array_equal(executable.outputs[0], x * 2 + 1)
    with pytest.raises(InvalidOperationException, match="out of luck"):
        Executable(program, _OnFailing()).compile()


def test_without_llvmlite_there_is_no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert shared_compiler.__wrapped__() is None


class TestCache:
    @pytest.fixture
    def folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.setattr("platformdirs.user_cache_path", lambda name: tmp_path / name)
        # `until_all_is_compiled` waits for a process that would wait two seconds for more work.
        monkeypatch.setattr(llvm_compiler_module, "_IDLE", 0.0)
        monkeypatch.setattr(llvm_compiler_module, "_QUIET", 0.0)
        return tmp_path / "aidotnet_py" / "kernels"

    def doubled(self) -> Any:
        """By a compiler of its own, as in a new process."""

        class Backend(NumPyBackend):
            compiler = LlvmCompiler()  # type: ignore[assignment]

        executable = Executable(ad.trace(lambda a: a * 2.0, np.ones(6)), Backend())
        executable.compile()
        executable.inputs[0][...] = np.arange(6.0)
        executable.run()
        # A run also has the function compiled that calls kernels in order. What is still in use is optimized.
        until_all_is_compiled()
        return executable.outputs[0]

    def contents(self, folder: Path) -> dict[Path, bytes]:
        return {file: file.read_bytes() for file in folder.iterdir()}

    @pytest.mark.slow
    def test_code_is_kept_and_found_again(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        expected = 2 * np.arange(6.0)
        np.testing.assert_array_equal(self.doubled(), expected)
        files = self.contents(folder)
        # The kernel, the function that calls kernels in order, and the one that shares them out.
        assert len(files) == 3
        monkeypatch.setattr(library.Library, "_compile", None)  # it would be called
        np.testing.assert_array_equal(self.doubled(), expected)
        assert self.contents(folder) == files

    @pytest.mark.parametrize("damage", [lambda b: b[:-9], lambda b: b"", lambda b: b[:40] + b"\0" + b[41:]])
    def test_damaged_files_are_not_run_but_replaced(self, folder: Path, damage: Any) -> None:
        self.doubled()
        files = self.contents(folder)
        for file, whole in files.items():
            file.write_bytes(damage(whole))
        np.testing.assert_array_equal(self.doubled(), 2 * np.arange(6.0))
        assert self.contents(folder) == files

    @pytest.mark.parametrize("code", [b"", b"junk" * 100, b"\x7fELF\x02\x01\x01" + bytes(200)])
    def test_what_is_no_code_but_has_the_right_sum_is_compiled_anew(self, folder: Path, code: bytes) -> None:
        self.doubled()
        files = self.contents(folder)
        for file in files:
            code_files.CodeFiles(folder).write(file.name, code)
        np.testing.assert_array_equal(self.doubled(), 2 * np.arange(6.0))
        assert self.contents(folder) == files

    @pytest.mark.parametrize("error", [RuntimeError, LookupError])
    def test_what_llvm_does_not_load_from_disk_is_compiled_anew(
        self, folder: Path, error: type[Exception], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """On systems whose object files LLVM alone can load."""
        monkeypatch.setattr(library, "can_load", lambda: False)
        monkeypatch.setattr(library, "load", lambda code, function: None)
        loaded, tried = machine_code.Machine.load, []

        def load(machine: Any, code: bytes, name: str) -> int:
            if not tried:
                tried.append(code)
                raise error
            return loaded(machine, code, name)

        tried.append(b"")
        self.doubled()
        tried.clear()
        monkeypatch.setattr(machine_code.Machine, "load", load)
        np.testing.assert_array_equal(self.doubled(), 2 * np.arange(6.0))
        (code,) = tried
        assert code

    @pytest.mark.skipif(not hasattr(os, "getuid"), reason="permissions are those of POSIX")
    def test_a_folder_that_others_may_write_to_is_left_alone(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        folder.chmod(0o777)
        np.testing.assert_array_equal(self.doubled(), 2 * np.arange(6.0))
        assert list(folder.iterdir()) == []

    def test_a_file_where_the_folder_should_be(self, folder: Path) -> None:
        folder.parent.mkdir(parents=True)
        folder.write_text("in the way")
        np.testing.assert_array_equal(self.doubled(), 2 * np.arange(6.0))
        assert folder.read_text() == "in the way"

    def test_the_oldest_files_go(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(code_files, "_MOST_FILES", 2)
        folder.mkdir(parents=True, mode=0o700)
        for age, name in enumerate(("new", "middle", "old")):
            (folder / name).write_bytes(b"")
            os.utime(folder / name, (1_000_000 - age, 1_000_000 - age))
        self.doubled()
        assert not (folder / "old").exists()
        assert (folder / "new").exists()


def test_a_large_cheap_value_waits_for_its_readers() -> None:
    """Each loop that reads it computes it again, so that it is never written to memory."""
    x, row = np.ones((64, 128)), np.ones((1, 128))
    weights = np.ones((128, 3))

    def function(x: Any, row: Any) -> Any:
        value = np.sqrt(row * row + np.zeros((64, 1)))  # as large as x, from one row
        first = value * x
        return [first, (first @ weights), value - 2.0 * (first @ np.ones((128, 128)))]

    program = ad.trace(function, x, row)
    stage_of = dict.fromkeys(
        [*program.inputs, *(v for v, _ in program.constants), *(e.output for e in program.equations)], 0
    )
    units = units_of(program, stage_of, LoopRules())
    computed = [e.primitive.name for unit in units for e in unit.equations]
    assert computed.count("sqrt") == 2
    assert {e.primitive.name for e in program.equations} <= {*computed, "broadcast_to"}
    rng = np.random.default_rng(0)
    inputs = [rng.standard_normal(x.shape), rng.standard_normal(row.shape)]
    assert_same_bits(run_on(program, NumPyBackend(), inputs), run_on(program, PLAIN, inputs))


def test_work_on_large_values_is_a_kernel_of_its_own() -> None:
    def function(x: Any, y: Any) -> Any:
        small = x * x + 1.0
        large = y * 2.0 + small[0]
        return [small, large, np.sqrt(small)]

    def kernels(size: int, *, merge: bool = True) -> int:
        program = ad.trace(function, np.ones(8), np.ones(size))
        executable = Executable(program, NumPyBackend(), merge=merge)
        executable.compile()
        executable.inputs[0][...], executable.inputs[1][...] = np.arange(8.0), np.arange(float(size))
        executable.run()
        np.testing.assert_array_equal(executable.outputs[1], np.arange(float(size)) * 2.0 + 1.0)
        np.testing.assert_array_equal(executable.outputs[2], np.sqrt(np.arange(8.0) ** 2 + 1.0))
        assert all(part.compiled for part in executable.parts(0))
        return len(executable.parts(0))

    assert kernels(8) == 1
    assert kernels(2**18) > 1
    assert kernels(8, merge=False) > 1
