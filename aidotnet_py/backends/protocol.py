"""The `Backend` protocol: the operations that the engine needs of an array library.

Names follow the Python array API standard. Every computing method takes ``out``: the result is written into it without
allocation; if it is None, a new array is returned.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import DTypeLike, NDArray

from aidotnet_py.backends.kernel import Kernel, LoopRules, Product

__all__ = ["Array", "Backend", "Compilation", "Elementwise", "KernelCompiler"]

# An array of the backend's library; no static type spans all libraries.
Array: TypeAlias = Any


#: A function applied element by element, over arrays of one shape and Python numbers: ``f(*operands, out=None)``.
#: Without ``out``, the result for arrays of no axes may be the library's scalar.
Elementwise: TypeAlias = Callable[..., Array]


class Compilation(Protocol):
    """The compilation of kernels, perhaps still in progress."""

    def result(self, *, wait: bool = False) -> Sequence[Callable[[Sequence[int]], Callable[[], Any]]] | None:
        """Return for each kernel a function from the addresses of its arguments to a call; None until all are ready.

        The call does not keep the arrays alive; its holder must.

        Parameters
        ----------
        wait : bool
            Whether to wait until all are ready, or the main thread has ended and nothing is compiled any more.

        Raises
        ------
        InvalidOperationException
            When they could not be compiled.
        """
        ...


class KernelCompiler(Protocol):
    """A compiler of kernels to machine code, which may work in the background."""

    @property
    def rules(self) -> LoopRules:
        """The operations that it accepts as loops."""
        ...

    def submit(self, kernels: Sequence[Kernel]) -> Compilation:
        """Start to compile kernels; return at once, or when all are ready."""
        ...

    def can_multiply(self, product: Product) -> bool:
        """Return whether a kernel may hold such a product."""
        ...

    def address_of(self, array: Array) -> int:
        """Return the address of the array's first element."""
        ...

    def chain(self, calls: Sequence[Callable[[], Any]]) -> Callable[[int], Any] | None:
        """Join calls of its own kernels into ``chained(times)``, which makes all of them in order, ``times`` times.

        Return None as long as this takes no fewer calls from Python.
        """
        ...


@runtime_checkable
class Backend(Protocol):
    """The operations that the engine, the solvers and the optimizers need of an array library.

    Shapes are tuples of int, dtypes are NumPy dtypes, which all libraries share. Views returned by `reshape`,
    `permute_dims`, `broadcast_to` and `index` share memory with their argument.
    """

    @property
    def name(self) -> str:
        """The name in the registry and in error messages."""
        ...

    def owns(self, value: object) -> bool:
        """Return whether ``value`` is an array of this library, on this backend's device."""
        ...

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
        """Return a new array with undefined content, C order."""
        ...

    def asarray(self, value: object, dtype: DTypeLike | None = None) -> Array:
        """Return a new array from host data (a NumPy array, numbers, nested sequences) or from an array of its own."""
        ...

    def transfer_aside(self, like: Sequence[Array]) -> Callable[[Sequence[NDArray[Any]]], Sequence[Array]]:
        """Return a function that copies host data to new arrays of the same shapes and dtypes, beside queued work.

        Memory is allocated now. The function may be called once, on any thread, and returns when the data has arrived.
        """
        ...

    def to_numpy(self, array: Array) -> NDArray[Any]:
        """Return the array's values on the host, perhaps in shared memory, which is read-only; wait for the device."""
        ...

    def dtype_of(self, array: Array) -> np.dtype[Any]:
        """Return the array's dtype as a NumPy dtype."""
        ...

    @property
    def compiler(self) -> KernelCompiler | None:
        """The compiler of loop nests on its arrays; None if there is none."""
        ...

    @property
    def threads(self) -> int:
        """The number of threads that can use it in parallel with profit; 1 for a device that is parallel by itself."""
        ...

    @property
    def flops_at_once(self) -> int:
        """The number of operations per call that uses it fully; more would cost more memory than they save time."""
        ...

    @property
    def capturing(self) -> bool | None:
        """Whether this thread is inside a `capture`; None if the backend cannot capture."""
        ...

    def single_threaded(self) -> AbstractContextManager[Any]:
        """Return a context in which operations run on the calling thread alone; leaving it twice is harmless."""
        ...

    def strides_of(self, array: Array) -> tuple[int, ...]:
        """Return the stride along each axis, counted in elements."""
        ...

    def reshape(self, array: Array, shape: tuple[int, ...]) -> Array:
        """Return a view with another shape; the caller ensures that the strides allow one."""
        ...

    def permute_dims(self, array: Array, axes: tuple[int, ...]) -> Array:
        """Return a view with the axes in another order."""
        ...

    def broadcast_to(self, array: Array, shape: tuple[int, ...]) -> Array:
        """Return a read-only view in which axes of length 1 are repeated."""
        ...

    def index(self, array: Array, key: tuple[slice, ...]) -> Array:
        """Return a view of the elements selected by one slice per axis."""
        ...

    def copyto(self, out: Array, value: Array | complex) -> None:
        """Copy an array of ``out``'s shape, or one number, into ``out``."""
        ...

    def elementwise(self, name: str) -> Elementwise:
        """Return the elementwise function of a name; those of `ELEMENTWISE_NAMES` must exist."""
        ...

    def astype(self, array: Array, dtype: DTypeLike, out: Array | None = None) -> Array:
        """Convert the values to another dtype, by the rules of C."""
        ...

    def sum(self, array: Array, axes: tuple[int, ...], out: Array | None = None) -> Array:
        """Sum over axes, which disappear; half precision adds up in single precision, as in all sums here."""
        ...

    def max(self, array: Array, axes: tuple[int, ...], out: Array | None = None) -> Array:
        """Return maxima over axes, which disappear; NaN wins."""
        ...

    def cumulative_sum(self, array: Array, axis: int, out: Array | None = None) -> Array:
        """Return sums of the first elements along an axis, for each number of them from 1 on."""
        ...

    def vecdot(self, x: Array, y: Array, out: Array | None = None) -> Array:
        """Return inner products over the last axis."""
        ...

    def matmul(self, x: Array, y: Array, out: Array | None = None) -> Array:
        """Multiply matrices over the last two axes, (…, m, k) by (…, k, n), with equal leading axes."""
        ...

    def solve(self, matrices: Array, right: Array, out: Array | None = None) -> Array:
        """Solutions of linear systems, (…, n, n) and (…, n, k), equal leading axes, float32 or float64.

        LinAlgError for a singular matrix.
        """
        ...

    def cholesky(self, matrices: Array, out: Array | None = None) -> Array:
        """Lower Cholesky factors of the lower triangles of (…, n, n); LinAlgError where there is none."""
        ...

    def slogdet(self, matrices: Array, out: Array | None = None) -> Array:
        """Signs of determinants of (…, n, n) and logarithms of their absolute values, as (…, 2)."""
        ...

    def stacked(self, arrays: Sequence[Array]) -> Array | None:
        """Return a read-only array that shares memory with the arrays, its entries along the first axis; or None.

        It exists if the arrays have one type and lie evenly spaced, in order, in one allocation. The result may be
        None even then, if the test would take as long as a copy.
        """
        ...

    def concat(self, arrays: Sequence[Array], axis: int, out: Array | None = None) -> Array:
        """Concatenate arrays along an axis."""
        ...

    def wrap_indices(self, indices: Array, length: int, out: Array | None = None) -> Array:
        """Convert integer indices into an axis to int64 in 0 … length − 1; negative ones count from the end.

        Raises
        ------
        IndexError
            When an index is outside −length … length − 1. A backend that would have to wait for its device to see the
            values takes them modulo the length instead.
        """
        ...

    def take(self, array: Array, indices: Array, out: Array | None = None) -> Array:
        """Return rows ``array[indices]`` for integer indices in range: (n, …) and i… give (i…, …)."""
        ...

    def scatter_add(self, values: Array, indices: Array, out: Array) -> Array:
        """Transpose `take`: zero ``out`` (n, …), then add each row of ``values`` (i…, …) to ``out[index]``."""
        ...

    def argsort(self, array: Array, out: Array | None = None) -> Array:
        """Return indices, int64, that sort the last axis upwards; equal elements keep their order, NaN comes last."""
        ...

    def patches(
        self, array: Array, window: tuple[int, int], stride: tuple[int, int], out: Array | None = None
    ) -> Array:
        """Return all windows of (n, h, w, c): (n, oh, ow, kh, kw, c), channels last, no padding."""
        ...

    def fold(self, patches: Array, stride: tuple[int, int], out: Array) -> Array:
        """Transpose `patches`: write to ``out`` (n, h, w, c) the sum of the window elements over each pixel."""
        ...

    def errors_ignored(self) -> AbstractContextManager[Any]:
        """Return a context in which overflow and invalid values give inf and NaN without a warning."""
        ...

    def synchronize(self) -> None:
        """Wait until the device has done all queued work."""
        ...

    def capture(self, work: Callable[[], object]) -> Callable[[], None] | None:
        """Record the device work that ``work`` queues, and return a call that queues it again, on the same memory.

        Nothing is computed before the call. If the backend cannot capture, return None without calling ``work``. The
        work should have run once before, so that nothing is compiled or loaded during the capture.

        Raises
        ------
        InvalidOperationException
            When the work waits for the device, or moves data between device and host.
        """
        ...


# The elementwise functions of every backend; comparisons and logical functions return booleans.
ELEMENTWISE_NAMES = (
    "abs",
    "add",
    "atan",
    "atan2",
    "ceil",
    "cos",
    "cosh",
    "divide",
    "equal",
    "erf",
    "exp",
    "expm1",
    "floor",
    "greater",
    "greater_equal",
    "isfinite",
    "less",
    "less_equal",
    "log",
    "log1p",
    "logical_and",
    "logical_not",
    "logical_or",
    "maximum",
    "minimum",
    "multiply",
    "negative",
    "not_equal",
    "pow",
    "relu",
    "sigmoid",
    "sign",
    "sin",
    "sinh",
    "softplus",
    "sqrt",
    "subtract",
    "tan",
    "tanh",
    "where",
)
