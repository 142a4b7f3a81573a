"""The backend over CuPy: arrays in the memory of a CUDA device."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import partial
from importlib import import_module
from typing import Any, Self, cast

import numpy as np
from numpy.typing import DTypeLike, NDArray

from aidotnet_py.backends.cuda.library_kernels import CuPyKernels
from aidotnet_py.backends.protocol import Array, Elementwise, KernelCompiler
from aidotnet_py.exceptions import ArgumentException, InvalidOperationException
from aidotnet_py.locks import Lock
from aidotnet_py.representations import concise_repr

__all__ = ["CuPyBackend", "missing_for_cupy"]

_INSTALL = 'pip install "aidotnet_py[cuda13]" brings all that is needed ([cuda12] for a driver of CUDA 12)'

# CuPy's names of functions, where they differ from the standard's.
_UFUNC_NAMES = {"abs": "absolute", "atan": "arctan", "atan2": "arctan2", "pow": "power"}

# The values of CuPy's COMPUTE_TYPE_… and cuBLAS's CUBLAS_…_MATH; some versions lack the names.
_DEFAULT_TYPE, _TF32_TYPE = 1, 7
_DEFAULT_MATH, _TF32_MATH = 0, 3

# CuPy adds an output's terms in one block of threads; longer inner products are divided among several blocks.
_VECDOT_BLOCK = 4096

_PRECISION = Lock()


def missing_for_cupy(device: int = 0) -> str | None:
    """Return why CuPy cannot use a device, and the remedy; None if it can."""
    try:
        cupy: Any = import_module("cupy")
    except ImportError as error:
        return f"CuPy cannot be imported ({_last_line(error)}); {_INSTALL}"
    try:
        count = int(cupy.cuda.runtime.getDeviceCount())
    except cupy.cuda.runtime.CUDARuntimeError as error:
        return f"CuPy {cupy.__version__} finds no usable CUDA device or driver; CUDA says: {error}"
    if not 0 <= device < count:
        return f"there is no CUDA device {device}; CUDA finds {count}, counted from 0"
    try:
        cupy.cuda.cublas  # noqa: B018 -- loaded when first looked at
    except ImportError as error:
        return f"CuPy {cupy.__version__} does not find CUDA's libraries ({_last_line(error)}); {_INSTALL}"
    return None


def _last_line(error: ImportError) -> str:
    # CuPy prints a page of advice, then the reason, then a line of =.
    lines = [line.strip() for line in str(error).splitlines() if line.strip(" =")]
    return lines[-1] if lines else type(error).__name__


class CuPyBackend:
    """CuPy (13 or newer) as a `Backend`.

    Work is queued on CuPy's current stream and runs in order; only `to_numpy`, `synchronize`, `solve` and `cholesky`
    wait for it. Repeated work gives the same bits, since all sums have a fixed order.

    Parameters
    ----------
    device : int
        The CUDA device of its arrays.
    compiled : bool
        Whether repeated work is compiled into kernels.
    allow_tf32 : bool
        Whether products of float32 may be rounded to TF32, with 10 bits of mantissa instead of 23, which is several
        times faster. The environment variable ``CUPY_TF32`` is ignored.

    Raises
    ------
    ArgumentException
        When CuPy cannot be imported or the device does not exist; the message names the packages to install, or quotes
        CUDA.

    Notes
    -----
    Indices out of range are not detected, since the test would wait for the device: `wrap_indices` and `take` use
    indices modulo the number of rows, like CuPy, and `scatter_add` counts negative indices down to −n from the end and
    ignores all others out of range.

    Examples
    --------
    >>> from aidotnet_py.backends import available_backends, get_backend
    >>> if "cupy" in available_backends():
    ...     backend = get_backend("cupy")
    ...     assert backend.to_numpy(backend.asarray([1.0, 2.0])).tolist() == [1.0, 2.0]
    """

    name = "cupy"
    threads = 1
    # A tenth of a second's work or less: all tasks of any usual batch.
    flops_at_once = 10**12

    __repr__ = concise_repr

    def __init__(self, device: int = 0, *, compiled: bool = True, allow_tf32: bool = False) -> None:
        missing = missing_for_cupy(device)
        if missing is not None:
            raise ArgumentException(f"backend 'cupy' is not available: {missing}")
        # CuPy has no types.
        self._cupy: Any = import_module("cupy")
        self._as_strided: Any = import_module("cupy.lib.stride_tricks").as_strided
        self._errstate: Any = import_module("cupyx").errstate
        self._device = self._cupy.cuda.Device(device)
        self._compiled = compiled
        self._allow_tf32 = allow_tf32
        self._kernels = CuPyKernels(self._cupy)
        self._composed: dict[str, Elementwise] = {
            "relu": self._relu,
            "sigmoid": self._kernels.sigmoid,
            "erf": self._kernels.erf,
            "sign": self._kernels.sign,
            "softplus": self._softplus,
            "where": self._where,
        }
        self._capture = threading.local()

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        # A copy of an object that uses the device uses the same device.
        return self

    @property
    def compiler(self) -> KernelCompiler | None:
        if not self._compiled:
            return None
        with self._device:
            compiler: KernelCompiler | None = import_module("aidotnet_py.backends.cuda.compiler").shared_cuda_compiler(
                tf32=self._allow_tf32
            )
            return compiler

    def owns(self, value: object) -> bool:
        return isinstance(value, self._cupy.ndarray) and cast(Any, value).data.device_id == self._device.id

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
        with self._device:
            return self._cupy.empty(shape, dtype)

    def asarray(self, value: object, dtype: DTypeLike | None = None) -> Array:
        with self._device:
            if self.owns(value):
                return self._cupy.array(value, dtype=dtype, order="C")
            self._require_no_capture("a transfer to the device")
            # Converted on the host first, so that one transfer is enough.
            host = np.asarray(value, dtype=dtype, order="C")
            return self._cupy.array(host.astype(host.dtype.newbyteorder("="), copy=False))

    def transfer_aside(self, like: Sequence[Array]) -> Callable[[Sequence[NDArray[Any]]], Sequence[Array]]:
        self._require_no_capture("a transfer to the device")
        arrays = [self.empty(array.shape, array.dtype) for array in like]
        with self._device:
            # Queued work may still use the memory, which may have been another array's. Work queued later cannot: the
            # memory is freed on this stream, and only after the transfer.
            free = self._cupy.cuda.get_current_stream().record()

        def transfer(values: Sequence[NDArray[Any]]) -> Sequence[Array]:
            # Alive until the end of the transfer: some systems read pageable memory while they copy.
            hosts = [np.ascontiguousarray(value) for value in values]
            with self._device:
                stream = self._cupy.cuda.Stream(non_blocking=True)
                stream.wait_event(free)
                try:
                    for array, value in zip(arrays, hosts, strict=True):
                        array.set(value, stream)
                finally:
                    stream.synchronize()
            return arrays

        return transfer

    def to_numpy(self, array: Array) -> NDArray[Any]:
        self._require_no_capture("a transfer to the host")
        with self._device:
            host: NDArray[Any] = self._cupy.asnumpy(array)
            return host

    def dtype_of(self, array: Array) -> np.dtype[Any]:
        dtype: np.dtype[Any] = array.dtype
        return dtype

    def strides_of(self, array: Array) -> tuple[int, ...]:
        return tuple(s // array.itemsize for s in array.strides)

    def reshape(self, array: Array, shape: tuple[int, ...]) -> Array:
        return array.reshape(shape)

    def permute_dims(self, array: Array, axes: tuple[int, ...]) -> Array:
        return array.transpose(axes)

    def broadcast_to(self, array: Array, shape: tuple[int, ...]) -> Array:
        return self._cupy.broadcast_to(array, shape)

    def index(self, array: Array, key: tuple[slice, ...]) -> Array:
        return array[(*key, ...)]

    def copyto(self, out: Array, value: Array | complex) -> None:
        with self._device:
            if isinstance(value, self._cupy.ndarray):
                self._cupy.copyto(out, value)
            else:
                out.fill(value)

    def elementwise(self, name: str) -> Elementwise:
        function = self._composed.get(name) or getattr(self._cupy, _UFUNC_NAMES.get(name, name))
        return partial(self._launch, function)

    def _launch(self, function: Elementwise, *operands: Array, out: Array | None = None) -> Array:
        with self._device:
            return function(*operands, out=out)

    def _relu(self, x: Array, out: Array | None = None) -> Array:
        return self._cupy.maximum(x, 0, out=out)

    def _softplus(self, x: Array, out: Array | None = None) -> Array:
        return self._cupy.logaddexp(x, 0, out=out)

    def _where(self, mask: Array, x: Array, y: Array, out: Array | None = None) -> Array:
        return self._cupy.where(mask, x, y) if out is None else self._kernels.where(mask, x, y, out=out)

    def astype(self, array: Array, dtype: DTypeLike, out: Array | None = None) -> Array:
        with self._device:
            if out is None:
                return array.astype(dtype)
            self._cupy.copyto(out, array, casting="unsafe")
            return out

    def sum(self, array: Array, axes: tuple[int, ...], out: Array | None = None) -> Array:
        if array.dtype == np.float16:
            return self.astype(self.sum(self.astype(array, np.float32), axes), np.float16, out)
        with self._device:
            # CuPy would widen small integers, but a Program's types are fixed.
            return self._cupy.sum(array, axis=axes, dtype=array.dtype, out=out)

    def max(self, array: Array, axes: tuple[int, ...], out: Array | None = None) -> Array:
        with self._device:
            return self._cupy.max(array, axis=axes, out=out)

    def cumulative_sum(self, array: Array, axis: int, out: Array | None = None) -> Array:
        if array.dtype == np.float16:
            return self.astype(self.cumulative_sum(self.astype(array, np.float32), axis), np.float16, out)
        # Each round adds what lies twice as far back. CuPy's own scan may add up in another order each time.
        result = self.empty(array.shape, array.dtype) if out is None else out
        self.copyto(result, array)
        lead, step = (slice(None),) * axis, 1
        while step < array.shape[axis]:
            with self._device:
                later = result[(*lead, slice(step, None))]
                self._cupy.copyto(later, later + result[(*lead, slice(None, -step))])
            step *= 2
        return result

    def vecdot(self, x: Array, y: Array, out: Array | None = None) -> Array:
        if x.dtype == np.float16:
            return self.astype(self.vecdot(self.astype(x, np.float32), self.astype(y, np.float32)), np.float16, out)
        with self._device:
            blocks, rest = divmod(x.shape[-1], _VECDOT_BLOCK)
            if blocks < 2:
                return self._kernels.vecdot(x, y, out=out)
            whole, lead = blocks * _VECDOT_BLOCK, x.shape[:-1]
            parts = self._cupy.empty((*lead, blocks + (rest > 0)), x.dtype)
            left, right = (array[..., :whole].reshape(*lead, blocks, _VECDOT_BLOCK) for array in (x, y))
            self._kernels.vecdot(left, right, out=parts[..., :blocks])
            if rest:
                self._kernels.vecdot(x[..., whole:], y[..., whole:], out=parts[..., blocks])
            return self._cupy.sum(parts, axis=-1, out=out)

    def matmul(self, x: Array, y: Array, out: Array | None = None) -> Array:
        with self._device, self._precision() if x.dtype == np.float32 else nullcontext():
            return self._cupy.matmul(x, y, out=out)

    @contextmanager
    def _precision(self) -> Generator[None, None, None]:
        """Set TF32 as configured: CuPy obeys its own setting for one product, and cuBLAS's for many at once."""
        core, cublas = self._cupy._core, self._cupy.cuda.cublas
        # CuPy's setting belongs to the whole process: of two concurrent threads, one would use the other's.
        with _PRECISION:
            handle = self._cupy.cuda.get_cublas_handle()
            before = core.get_compute_type(np.dtype(np.float32)), cublas.getMathMode(handle)
            wanted = (_TF32_TYPE, _TF32_MATH) if self._allow_tf32 else (_DEFAULT_TYPE, _DEFAULT_MATH)
            core.set_compute_type(np.dtype(np.float32), wanted[0])
            cublas.setMathMode(handle, wanted[1])
            try:
                yield
            finally:
                core.set_compute_type(np.dtype(np.float32), before[0])
                cublas.setMathMode(handle, before[1])

    def solve(self, matrices: Array, right: Array, out: Array | None = None) -> Array:
        self._require_no_capture("a linear solve")
        with self._device, self._errstate(linalg="raise"):
            return self._result(self._cupy.linalg.solve(matrices, right), out)

    def cholesky(self, matrices: Array, out: Array | None = None) -> Array:
        self._require_no_capture("a Cholesky factorisation")
        with self._device, self._errstate(linalg="raise"):
            return self._result(self._cupy.linalg.cholesky(matrices), out)

    def slogdet(self, matrices: Array, out: Array | None = None) -> Array:
        self._require_no_capture("a determinant")
        result = self.empty((*matrices.shape[:-2], 2), matrices.dtype) if out is None else out
        with self._device:
            for place, part in enumerate(self._cupy.linalg.slogdet(matrices)):
                self._cupy.copyto(result[..., place], part)
        return result

    def _result(self, value: Array, out: Array | None) -> Array:
        """Write the value of a function of CuPy that has no ``out``."""
        if out is None:
            return value
        self._cupy.copyto(out, value)
        return out

    def stacked(self, arrays: Sequence[Array]) -> Array | None:
        first = arrays[0]
        shape, strides, dtype, data = first.shape, first.strides, first.dtype, first.data
        memory, place = data.mem, data.ptr
        # The bytes of one array from first to last: at a smaller distance, arrays would overlap or interlace.
        reach = sum((n - 1) * abs(s) for n, s in zip(shape, strides, strict=True)) + first.itemsize
        step = reach if len(arrays) == 1 else arrays[1].data.ptr - place
        if step < reach or not first.size:
            return None
        for array in arrays:
            data = array.data
            # Arrays of several allocations may be freed one by one; arrays of one allocation keep it alive.
            if data.ptr != place or data.mem is not memory:
                return None
            if array.shape != shape or array.strides != strides or array.dtype != dtype:
                return None
            place += step
        with self._device:
            return self._as_strided(first, (len(arrays), *shape), (step, *strides))

    def concat(self, arrays: Sequence[Array], axis: int, out: Array | None = None) -> Array:
        result: Any = out
        if out is None:
            shape = list(arrays[0].shape)
            shape[axis] = sum(array.shape[axis] for array in arrays)
            result = self.empty(tuple(shape), np.result_type(*(array.dtype for array in arrays)))
        # Part by part: for many arrays, CuPy's concatenate reads their addresses from host memory, which a captured
        # graph would read again after it was freed.
        start = 0
        lead = (slice(None),) * (axis % arrays[0].ndim)
        for array in arrays:
            stop = start + array.shape[axis]
            self.copyto(result[(*lead, slice(start, stop))], array)
            start = stop
        return result

    def wrap_indices(self, indices: Array, length: int, out: Array | None = None) -> Array:
        with self._device:
            return self._kernels.wrap_indices(indices, length, out)

    def take(self, array: Array, indices: Array, out: Array | None = None) -> Array:
        with self._device:
            return self._cupy.take(array, indices, axis=0, out=out)

    def scatter_add(self, values: Array, indices: Array, out: Array) -> Array:
        if out.dtype == np.float16:
            wide = self.empty(out.shape, np.float32)
            return self.astype(self.scatter_add(self.astype(values, np.float32), indices, wide), np.float16, out)
        with self._device:
            return self._kernels.scatter_add(values, indices, out)

    def argsort(self, array: Array, out: Array | None = None) -> Array:
        self._require_no_capture("sorting")
        with self._device:
            return self._result(self._cupy.argsort(array, axis=-1, kind="stable"), out)

    def patches(
        self, array: Array, window: tuple[int, int], stride: tuple[int, int], out: Array | None = None
    ) -> Array:
        n, height, width, channels = array.shape
        rows = (height - window[0]) // stride[0] + 1
        columns = (width - window[1]) // stride[1] + 1
        sn, sh, sw, sc = array.strides
        with self._device:
            view = self._as_strided(
                array,
                (n, rows, columns, *window, channels),
                (sn, sh * stride[0], sw * stride[1], sh, sw, sc),
            )
            if out is None:
                return view.copy()
            self._cupy.copyto(out, view)
            return out

    def fold(self, patches: Array, stride: tuple[int, int], out: Array) -> Array:
        if out.dtype == np.float16:
            wide = self.empty(out.shape, np.float32)
            return self.astype(self.fold(self.astype(patches, np.float32), stride, wide), np.float16, out)
        with self._device:
            return self._kernels.fold(patches, stride, out)

    def single_threaded(self) -> AbstractContextManager[Any]:
        return nullcontext()

    def errors_ignored(self) -> AbstractContextManager[Any]:
        # The device never warns, but host computations on its results may.
        return np.errstate(all="ignore")

    def synchronize(self) -> None:
        self._require_no_capture("waiting for the device")
        with self._device:
            self._cupy.cuda.get_current_stream().synchronize()

    def capture(self, work: Callable[[], object]) -> Callable[[], None] | None:
        self._require_no_capture("another capture")
        cuda = self._cupy.cuda
        with self._device:
            # A pool for this graph alone: later allocations must not reuse the temporary memory of `work`.
            pool, stream = cuda.MemoryPool(), cuda.Stream(non_blocking=True)
            with cuda.using_allocator(pool.malloc), stream:
                graph = self._record(stream, work)
        # The stream stays alive too, since a library may keep using it until it gets another.
        return partial(self._replay, graph, (work, pool, stream))

    @property
    def capturing(self) -> bool:
        return getattr(self._capture, "active", False)

    def _record(self, stream: Any, work: Callable[[], object]) -> Any:
        self._capture.active = True
        try:
            stream.begin_capture()
            work()
        except BaseException as error:
            # Until the capture ends, the stream is unusable. If CUDA has aborted it, ending it raises again.
            with suppress(Exception):
                stream.end_capture()
            if not isinstance(error, Exception):
                raise
            raise InvalidOperationException(f"this work cannot be captured: {error}") from error
        finally:
            self._capture.active = False
        try:
            return stream.end_capture()
        except Exception as error:
            raise InvalidOperationException(f"this work cannot be captured: {error}") from error

    def _replay(self, graph: Any, kept: object) -> None:
        with self._device:
            graph.launch()

    def _require_no_capture(self, operation: str) -> None:
        if self.capturing:
            raise InvalidOperationException(f"{operation} cannot be part of captured work")
