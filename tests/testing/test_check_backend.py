"""`check_backend`: it passes the example over PyTorch, and names the one defect of each broken backend.

The backends that ship pass it in tests/backends.
"""

from __future__ import annotations

import runpy
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from places import ROOT

from aidotnet_py import ArgumentException
from aidotnet_py.backends import NumPyBackend, register_backend
from aidotnet_py.testing import check_backend
from aidotnet_py.testing.backend_operands import OPERAND_CHECKS

xp = pytest.importorskip("array_api_strict")
strict_backend = pytest.importorskip("strict_backend")


class Broken(strict_backend.StrictBackend):  # type: ignore[misc, name-defined]
    """Right as it stands, on a device that no other test uses."""

    def __init__(self) -> None:
        super().__init__("broken", "device2")


class WrongProduct(Broken):
    def matmul(self, x: Any, y: Any, out: Any = None) -> Any:
        return super().matmul(x, y * 1.001, out)


class WrongSlope(Broken):
    def elementwise(self, name: str) -> Any:
        return super().elementwise("sin" if name == "cos" else name)


class OutIsNotWritten(Broken):
    def sum(self, array: Any, axes: tuple[int, ...], out: Any = None) -> Any:
        return super().sum(array, axes)


class ViewsAreCopies(Broken):
    def reshape(self, array: Any, shape: tuple[int, ...]) -> Any:
        return self.asarray(super().reshape(array, shape))


class ArraysAreShared(Broken):
    def asarray(self, value: Any, dtype: Any = None) -> Any:
        return value if self.owns(value) else super().asarray(value, dtype)


class LastRowWins(Broken):
    def scatter_add(self, values: Any, indices: Any, out: Any) -> Any:
        rows = xp.reshape(values, (indices.size, *out.shape[1:]))
        out[...] = 0
        for row, index in enumerate(np.ravel(self.to_numpy(indices)).tolist()):
            out[index, ...] = rows[row, ...]
        return out


class NaNLoses(Broken):
    def max(self, array: Any, axes: tuple[int, ...], out: Any = None) -> Any:
        known = xp.where(xp.isnan(array), xp.asarray(-np.inf, device=self.device), array)
        return super().max(known, axes, out)


class AnyOrder(Broken):
    def argsort(self, array: Any, out: Any = None) -> Any:
        turned = super().argsort(xp.flip(array, axis=-1))
        return self._into(out, array.shape[-1] - 1 - turned)


class WideSums(Broken):
    def sum(self, array: Any, axes: tuple[int, ...], out: Any = None) -> Any:
        return self._into(out, xp.sum(array, axis=axes))


class SingularIsSolved(Broken):
    def solve(self, matrices: Any, right: Any, out: Any = None) -> Any:
        try:
            return super().solve(matrices, right, out)
        except np.linalg.LinAlgError:
            return self._into(out, right * float("nan"))


class IndicesAreTaken(Broken):
    def wrap_indices(self, indices: Any, length: int, out: Any = None) -> Any:
        return self._into(out, xp.astype(indices, xp.int64))


class Unfinished(Broken):
    def cumulative_sum(self, array: Any, axis: int, out: Any = None) -> Any:
        raise NotImplementedError("later")


class OwnsAll(Broken):
    def owns(self, value: object) -> bool:
        return isinstance(value, type(xp.empty(0)) | str)


class NoThreads(Broken):
    def __init__(self) -> None:
        super().__init__()
        self.threads = 0


class FlagsStay(Broken):
    def copyto(self, out: Any, value: Any) -> None:
        if value is not True:
            super().copyto(out, value)


class InTwoSteps(Broken):
    """Right, but where the result is written over the second operand."""

    def elementwise(self, name: str) -> Any:
        def add(x: Any, y: Any, out: Any = None) -> Any:
            if out is None:
                return x + y
            out[...] = x
            out[...] = out + y
            return out

        return add if name == "add" else super().elementwise(name)


class MaskedByProducts(Broken):
    def elementwise(self, name: str) -> Any:
        def where(mask: Any, x: Any, y: Any, out: Any = None) -> Any:
            chosen = xp.astype(mask, xp.float64, device=self.device)
            return self._into(out, chosen * x + (1.0 - chosen) * y)

        return where if name == "where" else super().elementwise(name)


class NaNIsRectified(Broken):
    def elementwise(self, name: str) -> Any:
        def relu(x: Any, out: Any = None) -> Any:
            return self._into(out, xp.where(x > 0, x, xp.zeros_like(x)))

        return relu if name == "relu" else super().elementwise(name)


class CutsOff(Broken):
    def elementwise(self, name: str) -> Any:
        f = super().elementwise(name)
        return (lambda x, out=None: self._into(out, xp.trunc(x))) if name == "floor" else f


class OneHalfOfAtan2(Broken):
    def elementwise(self, name: str) -> Any:
        f = super().elementwise(name)
        return (lambda y, x, out=None: self._into(out, xp.atan(y / x))) if name == "atan2" else f


class SoftplusOverflows(Broken):
    def elementwise(self, name: str) -> Any:
        f = super().elementwise(name)
        return (lambda x, out=None: self._into(out, xp.log1p(xp.exp(x)))) if name == "softplus" else f


class CancelsInExpm1(Broken):
    def elementwise(self, name: str) -> Any:
        f = super().elementwise(name)
        return (lambda x, out=None: self._into(out, xp.exp(x) - 1.0)) if name == "expm1" else f


class CancelsInLog1p(Broken):
    def elementwise(self, name: str) -> Any:
        f = super().elementwise(name)
        return (lambda x, out=None: self._into(out, xp.log(1.0 + x))) if name == "log1p" else f


class Rounds(Broken):
    def astype(self, array: Any, dtype: Any, out: Any = None) -> Any:
        whole = np.dtype(dtype).kind == "i" and self.dtype_of(array).kind == "f"
        return super().astype(xp.round(array) if whole else array, dtype, out)


class InReverse(Broken):
    def concat(self, arrays: Any, axis: int, out: Any = None) -> Any:
        return super().concat(arrays[::-1], axis, out)


class WindowsCover(Broken):
    def fold(self, patches: Any, stride: tuple[int, int], out: Any) -> Any:
        _, rows, columns, height, width, _ = patches.shape
        out[...] = 0
        for i in range(height):
            for j in range(width):
                out[self._span(i, j, rows, columns, stride)] = patches[:, :, :, i, j, :]
        return out


class LeavesOnce(Broken):
    def single_threaded(self) -> Any:
        return threading.Lock()


class Halving(np.ndarray[Any, Any]):
    """Arrays whose quotients are half of what they should be."""

    def __truediv__(self, other: Any) -> Any:
        return np.multiply(np.divide(self, other), 0.5)


class OwnArrays(NumPyBackend):
    name = "halving"

    def owns(self, value: object) -> bool:
        return isinstance(value, Halving)

    def empty(self, shape: Any, dtype: Any) -> Any:
        return super().empty(shape, dtype).view(Halving)

    def asarray(self, value: object, dtype: Any = None) -> Any:
        return super().asarray(value, dtype).view(Halving)


BROKEN: list[tuple[Callable[[], Any], str]] = [
    (NoThreads, r"fails 1 of 18 checks:\n- the protocol: threads must be at least 1, got 0"),
    (FlagsStay, r"fails 1 of 18 checks:\n- copies: copyto of a boolean must be True at \(1,\), as NumPy's is, got"),
    (InTwoSteps, r"fails 1 of 18 checks:\n- functions written over an operand: add written over operand 1 must be"),
    (MaskedByProducts, r"- logical functions and choices: where of values that are not finite must be 0\.0 at"),
    (NaNIsRectified, r"fails 1 of 18 checks:\n- special values: relu of special values must be nan at \(10,\)"),
    (CutsOff, r"fails 1 of 18 checks:\n- special values: floor of special values must be -3\.0 at \(2,\)"),
    (OneHalfOfAtan2, r"fails 1 of 18 checks:\n- special values: atan2 of special values must be"),
    (SoftplusOverflows, r"fails 1 of 18 checks:\n- special values: softplus of special values must be 750\.0"),
    (
        Rounds,
        r"fails 1 of 18 checks:\n- conversions: astype to int32 must be -2 at \(0, 0\), as NumPy's is, got -3",
    ),
    (InReverse, r"fails 1 of 18 checks:\n- concatenation: concat along 0 must be"),
    (WindowsCover, r"fails 1 of 18 checks:\n- windows: fold of windows \(3, 2\) at steps \(2, 1\) must be"),
    (LeavesOnce, r"fails 1 of 18 checks:\n- contexts and capture: raised RuntimeError: release"),
    (OwnArrays, r"- operators of arrays: x / 2\.0 must be 0\.5 at \(0, 0\), as NumPy's is, got 0\.25"),
    (WrongProduct, r"fails 1 of \d+ checks:\n- products: matmul must be [\d.]+ at \(0, 0, 0\), as NumPy's is, got"),
    (WrongSlope, r"- elementwise functions: cos must be"),
    (
        CancelsInExpm1,
        r"fails 1 of 18 checks:\n- elementwise functions: expm1 close to 0 must be -9\.99.*e-10 at \(1,\)",
    ),
    (
        CancelsInLog1p,
        r"fails 1 of 18 checks:\n- elementwise functions: log1p close to 0 must be -1\.00.*e-09 at \(1,\)",
    ),
    (OutIsNotWritten, r"- reductions: out of sum over \(0,\) must be"),
    (ViewsAreCopies, r"- views: the array under reshape, after a write to the view, must be -1\.0 at \(0, 0\), as"),
    (ArraysAreShared, r"- new arrays: asarray of an array of its own must return a copy"),
    (LastRowWins, r"- rows and their order: scatter_add must be"),
    (NaNLoses, r"- reductions: max with a NaN must be nan at \(0,\)"),
    (AnyOrder, r"- rows and their order: argsort must be"),
    (WideSums, r"- reductions: sum must keep int8, got int64"),
    (SingularIsSolved, r"- linear algebra: solve of a singular matrix must raise LinAlgError, got a result"),
    (IndicesAreTaken, r"- rows and their order: wrap_indices must be 0 at \(0, 0\), as NumPy's is, got -4"),
    (Unfinished, r"- reductions: raised NotImplementedError: later"),
    (OwnsAll, r"- ownership: owns must be false of 'x', got True"),
]
# Of the 18 checks of arrays, these are in the default tests.
BY_DEFAULT = {NoThreads, InTwoSteps, MaskedByProducts, WrongProduct, ViewsAreCopies, NaNLoses, OwnsAll}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "message"),
    [pytest.param(kind, text, marks=() if kind in BY_DEFAULT else pytest.mark.slow) for kind, text in BROKEN],
)
def test_a_broken_operation_is_named(kind: Callable[[], Any], message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_backend(kind())


class AnyOrderOfMany(Broken):
    """Right for few elements, of which most algorithms keep the order."""

    def argsort(self, array: Any, out: Any = None) -> Any:
        host = self.to_numpy(array)
        if array.size < 50:
            return super().argsort(array, out)
        return self._into(out, self.asarray(host.shape[-1] - 1 - np.argsort(host[..., ::-1], -1, kind="stable")))


class NoSigns(Broken):
    def slogdet(self, matrices: Any, out: Any = None) -> Any:
        return self._into(out, xp.abs(super().slogdet(matrices)))


class BySteps(Broken):
    """What reads memory as if it were in C order does this."""

    def elementwise(self, name: str) -> Any:
        f = super().elementwise(name)

        def ordered(x: Any) -> Any:
            return self.asarray(self.to_numpy(x).ravel("K").reshape(x.shape))

        return (lambda x, out=None: f(ordered(x), out=out)) if name == "tanh" else f


class SinglePrecisionLost(Broken):
    def cumulative_sum(self, array: Any, axis: int, out: Any = None) -> Any:
        total = super().cumulative_sum(array, axis)
        return self._into(out, total * 1.001 if self.dtype_of(array) == np.float32 else total)


class ThroughFloats(Broken):
    def elementwise(self, name: str) -> Any:
        f = super().elementwise(name)

        def maximum(x: Any, y: Any, out: Any = None) -> Any:
            if not (self.owns(x) and self.owns(y)) or self.dtype_of(x).kind == "f":
                return f(x, y, out=out)
            x, y = (xp.astype(a, xp.float64, device=self.device) for a in (x, y))
            return self._into(out, xp.astype(f(x, y), xp.int64, device=self.device))

        return maximum if name == "maximum" else f


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (AnyOrderOfMany, r"fails 1 of 8 checks:\n- rows of all operands: argsort of"),
        (NoSigns, r"fails 1 of 8 checks:\n- linear algebra of all operands: slogdet of float64 .* must be -1\.0"),
        (
            BySteps,
            r"fails 1 of 8 checks:\n- elementwise .*: tanh of \w+ \(.*\), turned in memory",
        ),
        (SinglePrecisionLost, r"fails 1 of 8 checks:\n- reductions of all operands: cumulative_sum along 0 of float32"),
        (
            ThroughFloats,
            r"fails 1 of 8 checks:\n- elementwise .*: maximum of int64 .* must be 1152921504606846977",
        ),
    ],
)
@pytest.mark.slow
def test_an_operation_that_is_broken_for_some_operands_alone_is_named(kind: Callable[[], Any], message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_backend(kind())


class HalvesAddUpInHalves(OwnArrays):
    name = "halves"

    def sum(self, array: Any, axes: Any, out: Any = None) -> Any:
        return np.add.reduce(array, axis=axes, dtype=array.dtype, out=out)


def test_sums_of_half_precision_in_half_precision_are_named() -> None:
    with pytest.raises(AssertionError, match=r"sum of float16 must add up in single precision, .* got 2048"):
        dict(OPERAND_CHECKS)["sums of half precision"](HalvesAddUpInHalves())


class WrongOnLongRows(Broken):
    """What shows in use alone: products of eight columns are off in their last."""

    def matmul(self, x: Any, y: Any, out: Any = None) -> Any:
        product = super().matmul(x, y)
        if product.shape[-1] == 8 and product.ndim == 3:
            product[..., -1] *= 1.01
        return self._into(out, product)


@pytest.mark.slow
def test_what_shows_in_use_alone_is_named() -> None:
    register_backend(WrongOnLongRows())
    wanted = r"fails 2 of 5 checks:\n- solvers: gmres .*\n- training: iMAML on sinusoids, float64, parameters"
    with pytest.raises(AssertionError, match=wanted):
        check_backend("broken")
    register_backend(Broken())


class WrongInUse(Broken):
    """What is tried of no operation alone: sums of three rows of two, and rows of three by three, are off."""

    def sum(self, array: Any, axes: tuple[int, ...], out: Any = None) -> Any:
        total = super().sum(array, axes)
        return self._into(out, total * 1.01 if array.shape == (3, 2) else total)

    def take(self, array: Any, indices: Any, out: Any = None) -> Any:
        rows = super().take(array, indices)
        return self._into(out, rows * 1.01 if array.shape == (3, 3) and "float" in str(array.dtype) else rows)


@pytest.mark.slow
def test_derivatives_and_programs_are_named() -> None:
    register_backend(WrongInUse())
    wanted = r"- derivatives: of .*\n- Programs: the Hessian product of .*\n- vmap: vmap must be NumPy's"
    with pytest.raises(AssertionError, match=wanted):
        check_backend("broken")
    register_backend(Broken())


def test_each_failure_has_a_line() -> None:
    class Both(WrongProduct, LastRowWins):
        pass

    with pytest.raises(AssertionError, match=r"fails 2 of \d+ checks:\n- products: .*\n- rows and their order: .*"):
        check_backend(Both())


def test_a_backend_must_be_registered() -> None:
    class Stranger(NumPyBackend):
        name = "stranger"

    with pytest.raises(ArgumentException, match="backend 'stranger' must be registered"):
        check_backend(Stranger())
    with pytest.raises(ArgumentException, match=r"backend must be a Backend or one of"):
        check_backend("nobody's")


@pytest.mark.slow
def test_the_example_over_pytorch_passes() -> None:
    torch = pytest.importorskip("torch")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    example = runpy.run_path(str(ROOT / "examples" / "torch_backend.py"), run_name="imported")
    register_backend(example["TorchBackend"]())
    try:
        check_backend("torch")
    finally:
        torch.set_num_threads(threads)


def test_arrays_that_another_backend_owns_too_are_told_from_a_backend_that_is_not_registered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Twin(NumPyBackend):
        name = "twin"
        compiler = None

    monkeypatch.setattr("aidotnet_py.backends.registry._backends", {"numpy": NumPyBackend()})
    twin = Twin()
    register_backend(twin)
    with pytest.raises(ArgumentException, match=r"arrays of backend 'twin' must be its own, got .* 'numpy'"):
        check_backend("twin")
