"""What an array library must offer to carry the engine: the `Backend` protocol.

Names are those of the Python array API standard where it has one. Every computing method takes ``out``: with an
array there, the result is written into it and nothing is allocated; with None, a new array is returned.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import DTypeLike, NDArray

from aidotnet_py.backends.kernel import Kernel, LoopRules, Product

__all__ = ["Array", "Backend", "Compilation", "Elementwise", "KernelCompiler"]

# An array of whichever library the backend in use stands for; no static type spans them all.
Array: TypeAlias = Any


# A function applied element by element, over arrays of one shape and Python numbers: ``f(*operands, out=None)``.
# Without ``out``, what it gives for arrays of no axes may be the library's scalar.
Elementwise: TypeAlias = Callable[..., Array]


class Compilation(Protocol):
    """Kernels that are being compiled."""

    def result(self, *, wait: bool = False) -> Sequence[Callable[[Sequence[int]], Callable[[], Any]]] | None:
        """For each kernel, what binds it to the addresses of its arguments and gives a call.

        Whoever keeps the call must keep the arrays. None until all are ready, unless it is to wait for them;
        InvalidOperationException where they could not be compiled.
        """
        ...


class KernelCompiler(Protocol):
    """What makes kernels into machine code, while others go on."""

    @property
    def rules(self) -> LoopRules:
        """What it wants to have as loops."""
        ...

    def submit(self, kernels: Sequence[Kernel]) -> Compilation:
        """Begin to compile kernels; returns at once, or when all are ready."""
        ...

    def can_multiply(self, product: Product) -> bool:
        """Whether a kernel may hold such a product."""
        ...

    def address_of(self, array: Array) -> int:
        """Where the array's first element lies."""
        ...

    def chain(self, calls: Sequence[Callable[[], Any]]) -> Callable[[int], Any] | None:
        """For calls that its own kernels gave: ``chained(times)`` makes all of them in turn, so many times over.

        None as long as there is no way to do that in fewer calls.
        """
        ...


@runtime_checkable
class Backend(Protocol):
    """The operations that the engine, the solvers and the optimizers need of an array library.

    Shapes are tuples of int, dtypes NumPy dtypes (every library here names the same ones). Views returned by
    `reshape`, `permute_dims`, `broadcast_to` and `index` share memory with their argument.
    """

    @property
    def name(self) -> str:
        """The name it is registered under, and shown by in error messages."""
        ...

    def owns(self, value: object) -> bool:
        """Whether ``value`` is an array of this library, on this backend's device."""
        ...

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
        """A new array with undefined content, C order."""
        ...

    def asarray(self, value: object, dtype: DTypeLike | None = None) -> Array:
        """A new array from host data (a NumPy array, numbers, nested sequences) or from an array of its own."""
        ...

    def transfer_aside(self, like: Sequence[Array]) -> Callable[[Sequence[NDArray[Any]]], Sequence[Array]]:
        """What takes host data, alike in shapes and dtypes, to arrays of its own beside the work handed over.

        It takes its memory now; it is to be called once, on any thread, and returns when the data is there.
        """
        ...

    def to_numpy(self, array: Array) -> NDArray[Any]:
        """The array's values on the host; waits for the device. May share memory: do not write to it."""
        ...

    def dtype_of(self, array: Array) -> np.dtype[Any]:
        """The array's dtype, as NumPy names it."""
        ...

    @property
    def compiler(self) -> KernelCompiler | None:
        """What compiles loop nests on its arrays; None where nothing does."""
        ...

    @property
    def threads(self) -> int:
        """How many threads may use it side by side to advantage; 1 for a device that works in parallel by itself."""
        ...

    @property
    def flops_at_once(self) -> int:
        """How many operations at once make good use of it; more of them want more memory than they save time."""
        ...

    @property
    def capturing(self) -> bool | None:
        """Whether this thread is in the middle of a `capture`; None where the backend has no such thing."""
        ...

    def single_threaded(self) -> AbstractContextManager[Any]:
        """A context in which no operation uses more than the thread that asks for it; leaving it twice does no harm."""
        ...

    def strides_of(self, array: Array) -> tuple[int, ...]:
        """Steps from one element to the next along each axis, counted in elements."""
        ...

    def reshape(self, array: Array, shape: tuple[int, ...]) -> Array:
        """A view with another shape; the caller knows that the strides allow one."""
        ...

    def permute_dims(self, array: Array, axes: tuple[int, ...]) -> Array:
        """A view with its axes in another order."""
        ...

    def broadcast_to(self, array: Array, shape: tuple[int, ...]) -> Array:
        """A view in which axes of length 1 are repeated; never written to."""
        ...

    def index(self, array: Array, key: tuple[slice, ...]) -> Array:
        """A view of the elements that one slice an axis selects."""
        ...

    def copyto(self, out: Array, value: Array | complex) -> None:
        """Copy an array of ``out``'s shape, or one number, into ``out``."""
        ...

    def elementwise(self, name: str) -> Elementwise:
        """The elementwise function of that name; see `ELEMENTWISE_NAMES` for those that must exist."""
        ...

    def astype(self, array: Array, dtype: DTypeLike, out: Array | None = None) -> Array:
        """The values converted to another dtype, as C would."""
        ...

    def sum(self, array: Array, axes: tuple[int, ...], out: Array | None = None) -> Array:
        """Sums over axes, which disappear."""
        ...

    def max(self, array: Array, axes: tuple[int, ...], out: Array | None = None) -> Array:
        """Maxima over axes, which disappear; NaN wins."""
        ...

    def cumulative_sum(self, array: Array, axis: int, out: Array | None = None) -> Array:
        """Sums of the first elements along an axis, for each number of them from 1 on."""
        ...

    def vecdot(self, x: Array, y: Array, out: Array | None = None) -> Array:
        """Inner products over the last axis."""
        ...

    def matmul(self, x: Array, y: Array, out: Array | None = None) -> Array:
        """Matrix products over the last two axes, (…, m, k) by (…, k, n), equal leading axes."""
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
        """The arrays as the entries along the first axis of one array that shares their memory; never written to.

        There is one where they are alike and lie evenly spaced, one after another, in one piece of memory. None where
        they do not, or where it takes as long to find out as to copy them.
        """
        ...

    def concat(self, arrays: Sequence[Array], axis: int, out: Array | None = None) -> Array:
        """The arrays one after another along an axis."""
        ...

    def wrap_indices(self, indices: Array, length: int, out: Array | None = None) -> Array:
        """Integer indices into an axis as int64 in 0 … length − 1; negative ones count from the end.

        IndexError for an index outside −length … length − 1. A backend for which a look at the values means to wait
        for its device counts them modulo the length instead.
        """
        ...

    def take(self, array: Array, indices: Array, out: Array | None = None) -> Array:
        """Rows ``array[indices]`` for integer indices in range: (n, …) and i… give (i…, …)."""
        ...

    def scatter_add(self, values: Array, indices: Array, out: Array) -> Array:
        """The transpose of `take`: zero ``out`` (n, …), then add each row of ``values`` (i…, …) to ``out[index]``."""
        ...

    def argsort(self, array: Array, out: Array | None = None) -> Array:
        """Indices, int64, that sort the last axis upwards; equal elements keep their order, NaN comes last."""
        ...

    def patches(
        self, array: Array, window: tuple[int, int], stride: tuple[int, int], out: Array | None = None
    ) -> Array:
        """All windows of (n, h, w, c): (n, oh, ow, kh, kw, c), channels last, no padding."""
        ...

    def fold(self, patches: Array, stride: tuple[int, int], out: Array) -> Array:
        """The transpose of `patches`: ``out`` (n, h, w, c) becomes the sums of the window elements over each pixel."""
        ...

    def errors_ignored(self) -> AbstractContextManager[Any]:
        """A context in which overflow and invalid values make inf and NaN without a warning."""
        ...

    def synchronize(self) -> None:
        """Wait until all work handed to the device is done."""
        ...

    def capture(self, work: Callable[[], object]) -> Callable[[], None] | None:
        """What ``work`` hands to the device, as one call that hands it all over again, on the same memory.

        None where the backend has no such thing, and then ``work`` was not called. Nothing is computed until the call
        is made. The work should have run once before, so that nothing is compiled or loaded while it is captured.

        Raises
        ------
        InvalidOperationException
            When the work does what cannot be captured: it waits for the device, or moves data between it and the host.
        """
        ...


# The elementwise functions that every backend must have; comparisons and logical ones give booleans.
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
