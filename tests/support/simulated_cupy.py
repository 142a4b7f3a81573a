"""A stand-in for CuPy over the host's memory, as strict as CuPy on a GPU, for tests on a machine without one.

Its arrays refuse whatever would read them on the host in passing, and mixing with NumPy's: ``get`` and ``asnumpy`` are
the only ways out, ``array`` the only one in. It has only those functions of CuPy that the package uses, under CuPy's
signatures; see `test_cupy_backend` for the comparison. Kernels given as CUDA C++ are compiled for the host and run.

While a stream is captured, work is recorded and done when the graph is launched. Reading on the host, a product of
cuBLAS, a transfer, and memory from the common pool raise then; so does launching a graph whose memory has been freed.
"""

from __future__ import annotations

import itertools
import re
import sys
import threading
import types
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partialmethod
from typing import Any
from unittest import mock

import numpy as np
from host_kernels import run_elementwise, run_reduction

from aidotnet_py.backends import CuPyBackend, KernelCompiler

# What the simulated backends compile with. Its calls must go through `hand_over`, since it knows of no streams.
compiler: KernelCompiler | None = None

# How often data went to the device and to the host.
transfers: Counter[str] = Counter()

# Each product of cuBLAS: its dtype, axes, CuPy's compute type and cuBLAS's math mode.
products: list[tuple[str, int, int, int]] = []

DEVICES = 2


class CUDARuntimeError(RuntimeError):
    """What CUDA refuses."""


class _State(threading.local):
    def __init__(self) -> None:
        self.streams: list[Stream] = [Stream.null]
        self.devices = [0]
        self.pools: list[MemoryPool | None] = [None]
        self.linalg = "ignore"


class _Block:
    """A piece of memory; all views of it hold on to it."""

    def __init__(self, pool: MemoryPool | None, device: int) -> None:
        self.pool = None if pool is None else weakref.ref(pool)
        self.device = device
        # The stream of a transfer that has not been waited for.
        self.filled_by: Stream | None = None


class _Use:
    """That recorded work uses a block: which must be alive, or its pool, when the work is done."""

    def __init__(self, block: _Block) -> None:
        self._block, self._pool = weakref.ref(block), block.pool

    def check(self) -> None:
        alive = self._block() if self._pool is None else self._pool()
        assert alive is not None, "a graph uses memory that has been freed"


class ndarray:
    """An array on a simulated device."""

    __array_priority__ = 100
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, shape: tuple[int, ...], dtype: Any = float) -> None:
        self._init(*_allocated(shape, dtype))

    def _init(self, memory: Any, block: _Block) -> None:
        self._memory, self._block = memory, block

    def _view(self, memory: Any) -> ndarray:
        view = ndarray.__new__(ndarray)
        view._init(memory, self._block)
        return view

    shape = property(lambda self: self._memory.shape)
    dtype = property(lambda self: self._memory.dtype)
    strides = property(lambda self: self._memory.strides)
    size = property(lambda self: self._memory.size)
    ndim = property(lambda self: self._memory.ndim)
    itemsize = property(lambda self: self._memory.itemsize)
    nbytes = property(lambda self: self._memory.nbytes)
    flags = property(lambda self: self._memory.flags)
    T = property(lambda self: self.transpose())

    @property
    def data(self) -> Any:
        return types.SimpleNamespace(ptr=self._memory.ctypes.data, device_id=self._block.device, mem=self._block)

    def __len__(self) -> int:
        return len(self._memory)

    def __getitem__(self, key: Any) -> ndarray:
        _require_plain(key)
        view = self._memory[key if Ellipsis in _as_tuple(key) else (*_as_tuple(key), ...)]
        return self._view(view)

    def __setitem__(self, key: Any, value: Any) -> None:
        target = self[key]
        target.fill(value) if not isinstance(value, ndarray) else copyto(target, value)

    def get(self, stream: Any = None, order: str = "C", out: Any = None, blocking: bool = True) -> Any:
        if _state.streams[-1].is_capturing():
            raise RuntimeError("the current stream is capturing, so D2H transfers are disallowed")
        transfers["to host"] += 1
        return np.array(self._memory, order="C")

    def set(self, arr: Any, stream: Any = None) -> None:
        assert isinstance(arr, np.ndarray)
        assert (arr.dtype, arr.shape) == (self.dtype, self.shape)
        stream = stream or _state.streams[-1]
        stream._wait("a transfer of pageable memory")
        assert self._block.device == _state.devices[-1]
        assert stream.waited_for, "memory was written while work handed over before may still use it"
        transfers["to device, aside"] += 1
        self._memory[...] = arr
        self._block.filled_by = stream
        stream.filling.append(self._block)

    def reshape(self, *shape: Any, order: str = "C", copy: bool | None = None) -> ndarray:
        wanted = shape[0] if len(shape) == 1 and isinstance(shape[0], tuple) else shape
        try:
            return self._view(np.reshape(self._memory, wanted, copy=False))
        except ValueError:
            memory = self._memory
            return _called(lambda: np.reshape(memory, wanted), [self])

    def transpose(self, *axes: Any) -> ndarray:
        return self._view(self._memory.transpose(*axes))

    def astype(
        self, dtype: Any, order: str = "K", casting: Any = None, subok: Any = None, copy: bool = True
    ) -> ndarray:
        memory = self._memory
        return _called(lambda: memory.astype(dtype), [self])

    def copy(self, order: str = "C") -> ndarray:
        memory = self._memory
        return _called(lambda: memory.copy(), [self])

    def fill(self, value: Any) -> None:
        assert isinstance(value, (bool, int, float, complex, np.generic)), f"filled with a {type(value).__name__}"
        _called(lambda: value, [], out=self, casting="unsafe")

    def __array__(self, *_: Any) -> Any:
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Use .get() instead.")

    def __array_ufunc__(self, function: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        known = all(isinstance(x, (ndarray, np.ndarray, bool, int, float, complex, np.generic)) for x in inputs)
        mine = getattr(cupy, function.__name__, None)
        return mine(*inputs, **options) if known and mine is not None and method == "__call__" else NotImplemented

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        mine = getattr(cupy, function.__name__, None)
        if mine is None or not all(issubclass(t, (ndarray, np.ndarray)) for t in types):
            return NotImplemented
        return mine(*args, **kwargs)

    def _read(self) -> Any:
        """What CuPy waits for the device to give; the package has no business to ask for it in passing."""
        caller = sys._getframe(2).f_globals["__name__"]
        assert not caller.startswith("aidotnet_py"), "the package read a device's array on the host in passing"
        return self.get()

    def __bool__(self) -> bool:
        return bool(self._read())

    def __int__(self) -> int:
        return int(self._read())

    def __float__(self) -> float:
        return float(self._read())

    def item(self) -> Any:
        return self._read().item()

    def tolist(self) -> Any:
        return self._read().tolist()

    def __repr__(self) -> str:
        return repr(self._read())


def _as_tuple(key: Any) -> tuple[Any, ...]:
    return key if isinstance(key, tuple) else (key,)


def _require_plain(key: Any) -> None:
    for part in _as_tuple(key):
        if not (part is None or part is Ellipsis or isinstance(part, (slice, int))):
            raise AssertionError(f"indexed by a {type(part).__name__}")


def _allocated(shape: Sequence[int], dtype: Any) -> tuple[Any, _Block]:
    pool = _state.pools[-1]
    assert pool is not None or not _state.streams[-1].is_capturing(), "captured work took memory of the common pool"
    memory = np.empty(shape, dtype)
    # Reading what was never written shows.
    memory.fill(np.nan if memory.dtype.kind == "f" else 1)
    return memory, _Block(pool, _state.devices[-1])


def _host(operand: Any) -> Any:
    if isinstance(operand, ndarray):
        assert operand._block.device == _state.devices[-1], "an array was used on another device than its own"
        assert operand._block.filled_by is None, "an array was used while a transfer to it was under way"
        return operand._memory
    assert not isinstance(operand, np.generic), "CuPy 13 and 14 promote NumPy's scalars by different rules"
    if isinstance(operand, (bool, int, float, complex)):
        return operand
    raise TypeError(f"Unsupported type {type(operand)}")


def _called(
    compute: Callable[[], Any], operands: Sequence[Any], out: ndarray | None = None, casting: Any = "same_kind"
) -> ndarray:
    """What ``compute`` makes of the operands' memory, now or when the captured graph is launched."""
    for operand in operands:
        _host(operand)
    with np.errstate(all="ignore"):
        value = np.asarray(compute())
    if out is None:
        out = ndarray(value.shape, value.dtype)
        if value.ndim > 0 and not value.flags.c_contiguous:  # CuPy keeps the order of axes, as NumPy does.
            memory = np.empty_like(value)
            out._init(memory, out._block)
    elif not isinstance(out, ndarray):
        raise TypeError(f"out is a {type(out).__name__}")
    else:
        if not np.can_cast(value.dtype, out.dtype, casting):
            raise TypeError(f"output (typecode '{value.dtype.char}') could not be cast to '{out.dtype.char}'")
        if np.broadcast_shapes(value.shape, out.shape) != out.shape:
            raise ValueError(f"out has shape {out.shape}; {value.shape} is wanted")
    target = _host(out)

    def work() -> None:
        with np.errstate(all="ignore"):
            target[...] = compute()

    if _state.streams[-1].is_capturing():
        hand_over(work, [a for a in (*operands, out) if isinstance(a, ndarray)])
    else:
        # As the work would do, but without computing the value twice.
        target[...] = value
    return out


def hand_over(work: Callable[[], object], used: Sequence[ndarray] = ()) -> None:
    """Have the current stream do work: at once, or, while it is captured, whenever the graph is launched."""
    stream = _state.streams[-1]
    if stream.is_capturing():
        stream._record(work, used)
    else:
        work()


class _Ufunc:
    def __init__(self, name: str) -> None:
        self._name, self._function = name, getattr(np, name)

    def __call__(self, *args: Any, out: Any = None, casting: str = "same_kind", dtype: Any = None) -> ndarray:
        if not any(isinstance(a, ndarray) for a in args):
            raise TypeError(f"cupy_{self._name} of numbers alone")
        hosts = [_host(a) for a in args]
        return _called(lambda: self._function(*hosts), args, out, casting)


UFUNCS = (
    *("absolute", "add", "arctan", "arctan2", "ceil", "cos", "cosh", "divide", "equal", "exp", "expm1", "floor"),
    *("greater", "greater_equal", "isfinite", "less", "less_equal", "log", "log1p", "logaddexp", "logical_and"),
    *("logical_not", "logical_or", "maximum", "minimum", "multiply", "negative", "not_equal", "power", "sin", "sinh"),
    *("sqrt", "subtract", "tan", "tanh"),
)


def _operator(name: str, *, turned: bool = False, in_place: bool = False) -> Callable[..., Any]:
    function = matmul if name == "matmul" else _Ufunc(name)

    def apply(self: ndarray, other: Any) -> Any:
        if getattr(other, "__array_ufunc__", ndarray) is None:
            return NotImplemented
        operands = (other, self) if turned else (self, other)
        if in_place or isinstance(other, ndarray):
            return function(*operands, out=self if in_place else None)
        # NumPy asks each operand in turn, so that values being traced have their say.
        return getattr(np, name)(*operands)

    return apply


def _give_operators() -> None:
    binary = {"add": "add", "sub": "subtract", "mul": "multiply", "truediv": "divide", "pow": "power"}
    for short, name in (binary | {"matmul": "matmul"}).items():
        setattr(ndarray, f"__{short}__", _operator(name))
        setattr(ndarray, f"__r{short}__", _operator(name, turned=True))
        setattr(ndarray, f"__i{short}__", _operator(name, in_place=True))
    compared = {"eq": "equal", "ne": "not_equal", "lt": "less", "le": "less_equal"}
    for short, name in (compared | {"gt": "greater", "ge": "greater_equal"}).items():
        setattr(ndarray, f"__{short}__", _operator(name))
    for short, name in {"neg": "negative", "abs": "absolute", "invert": "logical_not"}.items():
        setattr(ndarray, f"__{short}__", partialmethod(_Ufunc(name)))


def empty(shape: Any, dtype: Any = float, order: str = "C") -> ndarray:
    return ndarray(shape, dtype)


def array(
    obj: Any,
    dtype: Any = None,
    copy: bool = True,
    order: str = "K",
    subok: bool = False,
    ndmin: int = 0,
    *,
    blocking: bool = False,
) -> ndarray:
    if isinstance(obj, ndarray):
        memory = _host(obj)
        return _called(lambda: np.array(memory, dtype=dtype, order=order), [obj])
    assert not _state.streams[-1].is_capturing(), "captured work would read the host's memory each time again"
    made = np.array(obj, dtype=dtype)
    if made.dtype.kind not in "biufc" or not made.dtype.isnative:
        raise ValueError(f"Unsupported dtype {made.dtype}")
    transfers["to device"] += 1
    new = ndarray(made.shape, made.dtype)
    new._memory[...] = made
    return new


def asnumpy(a: Any, stream: Any = None, order: str = "C", out: Any = None, *, blocking: bool = True) -> Any:
    return a.get(stream=stream, order=order, out=out)


def copyto(dst: ndarray, src: Any, casting: str = "same_kind", where: Any = None) -> None:
    if not isinstance(src, ndarray):
        raise AssertionError("CuPy 13 and NumPy 2 disagree on the casting of numbers in copyto")
    memory = _host(src)
    _called(lambda: memory, [src], out=dst, casting=casting)


def where(condition: ndarray, x: Any = None, y: Any = None) -> ndarray:
    hosts = [_host(a) for a in (condition, x, y)]
    return _called(lambda: np.where(*hosts), [condition, x, y])


def broadcast_to(array: ndarray, shape: tuple[int, ...]) -> ndarray:
    return array._view(np.broadcast_to(array._memory, shape))


def sum(a: ndarray, axis: Any = None, dtype: Any = None, out: Any = None, keepdims: bool = False) -> ndarray:
    memory = _host(a)
    return _called(lambda: np.sum(memory, axis=axis, dtype=dtype), [a], out, "unsafe")


def max(a: ndarray, axis: Any = None, out: Any = None, keepdims: bool = False) -> ndarray:
    memory = _host(a)
    return _called(lambda: np.max(memory, axis=axis), [a], out, "unsafe")


def argsort(a: ndarray, axis: Any = -1, kind: Any = None) -> ndarray:
    assert kind in (None, "stable")
    memory = _host(a)
    return _called(lambda: np.argsort(memory, axis=axis, kind="stable"), [a])


def take(a: ndarray, indices: ndarray, axis: Any = None, out: Any = None) -> ndarray:
    rows, places = _host(a), _host(indices)
    if out is not None and (out.dtype != a.dtype or out.shape != (*indices.shape, *a.shape[1:])):
        raise TypeError("Output dtype or shape mismatch")
    return _called(lambda: np.take(rows, places, axis=axis, mode="wrap"), [a, indices], out)


def matmul(*args: Any, out: Any = None) -> ndarray:
    x, y = (_host(a) for a in args)
    if x.dtype.kind == "f":
        if _state.streams[-1].is_capturing():
            raise NotImplementedError("calling cuBLAS API during stream capture is currently unsupported")
        kind = np.dtype(np.float32)
        products.append((x.dtype.name, x.ndim, _get_compute_type(kind), _cublas["mode"]))
    return _called(lambda: x @ y, args, out)


@contextmanager
def errstate(
    *, divide: Any = None, over: Any = None, under: Any = None, invalid: Any = None, linalg: Any = None
) -> Any:
    assert linalg == "raise"
    before, _state.linalg = _state.linalg, linalg
    try:
        yield
    finally:
        _state.linalg = before


def _checked(function: Callable[..., Any], *hosts: Any) -> Any:
    """What CuPy gives: an error where it was asked to look, or else numbers without meaning."""
    try:
        return function(*hosts)
    except np.linalg.LinAlgError:
        if _state.linalg == "raise":
            raise
        return np.full_like(hosts[-1], 1e99)


def _solve(a: ndarray, b: ndarray) -> ndarray:
    hosts = [_host(a), _host(b)]
    return _called(lambda: _checked(np.linalg.solve, *hosts), [a, b])


def _cholesky(a: ndarray) -> ndarray:
    memory = _host(a)
    return _called(lambda: _checked(np.linalg.cholesky, memory), [a])


def _slogdet(a: ndarray) -> tuple[ndarray, ndarray]:
    memory = _host(a)
    sign, logarithm = (_called(lambda i=i: np.linalg.slogdet(memory)[i], [a]) for i in range(2))
    return sign, logarithm


def as_strided(x: ndarray, shape: Any = None, strides: Any = None) -> ndarray:
    return x._view(np.lib.stride_tricks.as_strided(x._memory, shape, strides, writeable=False))


class ElementwiseKernel:
    def __init__(
        self, in_params: str, out_params: str, operation: str, name: str = "kernel", *, preamble: str = ""
    ) -> None:
        self._inputs, self._outputs = in_params.split(","), out_params.split(",")
        self._operation, self._preamble = operation, preamble
        assert re.fullmatch(r"\w+", name)

    def __call__(self, *args: Any) -> ndarray:
        count = len(self._inputs)
        if len(args) not in (count, count + 1):
            raise TypeError(f"{len(args)} arguments; {count} or {count + 1} are wanted")
        hosts = [_host(a) for a in args[:count]]
        out = args[count] if len(args) > count else None
        like = None if out is None else out._memory

        def compute() -> Any:
            return run_elementwise((*self._inputs, *self._outputs), self._operation, self._preamble, hosts, like)

        return _called(compute, args[:count], out)


class ReductionKernel:
    def __init__(
        self,
        in_params: str,
        out_params: str,
        map_expr: str,
        reduce_expr: str,
        post_map_expr: str,
        identity: str,
        name: str = "reduce_kernel",
    ) -> None:
        self._parameters = (*in_params.split(","), out_params)
        self._text = (map_expr, reduce_expr, post_map_expr, identity)

    def __call__(self, *args: Any, out: Any = None, axis: Any = None) -> ndarray:
        hosts = [_host(a) for a in args]
        return _called(lambda: run_reduction(self._parameters, self._text, hosts, axis), args, out)


class Device:
    def __init__(self, device: int | None = None) -> None:
        self.id = _state.devices[-1] if device is None else device

    def __enter__(self) -> Device:
        _state.devices.append(self.id)
        return self

    def __exit__(self, *_: Any) -> None:
        _state.devices.pop()


class Graph:
    def __init__(self, work: Sequence[tuple[Callable[[], object], list[_Use]]]) -> None:
        self._work = work

    def __reduce__(self) -> Any:
        raise TypeError("no default __reduce__ due to non-trivial __cinit__")

    def launch(self, stream: Any = None) -> None:
        current = stream or _state.streams[-1]
        if current.is_capturing():
            raise CUDARuntimeError(
                "cudaErrorStreamCaptureUnsupported: operation not permitted when stream is capturing"
            )
        for work, used in self._work:
            for use in used:
                use.check()
            work()


class Stream:
    null: Any = None
    _numbers = itertools.count(1)

    def __init__(
        self, null: bool = False, non_blocking: bool = False, ptds: bool = False, priority: int | None = None
    ) -> None:
        self.ptr = 0 if null else next(self._numbers)
        self._recorded: list[tuple[Callable[[], object], list[_Use]]] | None = None
        self._broken = False
        self.waited_for: list[Event] = []
        self.filling: list[_Block] = []

    def __enter__(self) -> Stream:
        _state.streams.append(self)
        return self

    def __exit__(self, *_: Any) -> None:
        _state.streams.pop()

    def is_capturing(self) -> bool:
        return self._recorded is not None

    def begin_capture(self, mode: int | None = None) -> None:
        if self.ptr == 0:
            raise RuntimeError("cannot capture on the default (legacy) stream")
        self._recorded = []

    def end_capture(self) -> Graph:
        recorded, self._recorded = self._recorded, None
        if recorded is None or self._broken:
            self._broken = False
            raise CUDARuntimeError("cudaErrorStreamCaptureInvalidated: operation failed due to a previous error")
        return Graph(recorded)

    def _record(self, work: Callable[[], object], used: Sequence[ndarray]) -> None:
        assert self._recorded is not None
        self._recorded.append((work, [_Use(a._block) for a in used]))

    def _wait(self, what: str) -> None:
        if self.is_capturing():
            self._broken = True
            raise CUDARuntimeError(
                f"cudaErrorStreamCaptureUnsupported: operation not permitted when stream is capturing ({what})"
            )

    def record(self, event: Event | None = None) -> Event:
        assert event is None
        return Event()

    def wait_event(self, event: Event) -> None:
        self.waited_for.append(event)

    def synchronize(self) -> None:
        self._wait("synchronize")
        for block in self.filling:
            block.filled_by = None
        self.filling.clear()


class Event:
    """A point in the work of a stream."""


class MemoryPool:
    def malloc(self, size: int) -> None:
        raise AssertionError("the simulation allocates by itself")


@contextmanager
def using_allocator(allocator: Any = None) -> Iterator[None]:
    _state.pools.append(None if allocator is None else allocator.__self__)
    try:
        yield
    finally:
        _state.pools.pop()


_compute_types: dict[str, int] = {}
_cublas = {"mode": 0}


def _get_compute_type(dtype: np.dtype[Any]) -> int:
    return _compute_types.get(dtype.name, 1)


def _set_compute_type(dtype: np.dtype[Any], compute_type: int) -> None:
    _compute_types[dtype.name] = compute_type


_give_operators()
Stream.null = Stream(null=True)
_state = _State()


def _module(name: str, **members: Any) -> types.ModuleType:
    module = types.ModuleType(name)
    vars(module).update(members)
    return module


def _built() -> types.ModuleType:
    functions = (argsort, array, asnumpy, broadcast_to, copyto, empty, matmul, max, sum, take, where)
    kinds = (ElementwiseKernel, ReductionKernel, ndarray)
    ufuncs: dict[str, Any] = {name: _Ufunc(name) for name in UFUNCS}
    cublas = _module(
        "cupy.cuda.cublas",
        getMathMode=lambda handle: _cublas["mode"],
        setMathMode=lambda handle, mode: _cublas.update(mode=mode),
    )
    runtime = _module("cupy.cuda.runtime", CUDARuntimeError=CUDARuntimeError, getDeviceCount=lambda: DEVICES)
    cuda = _module(
        "cupy.cuda",
        **{kind.__name__: kind for kind in (Device, Graph, MemoryPool, Stream)},
        cublas=cublas,
        get_cublas_handle=lambda: 1,
        get_current_stream=lambda device_id=-1: _state.streams[-1],
        runtime=runtime,
        using_allocator=using_allocator,
    )
    linalg = _module("cupy.linalg", cholesky=_cholesky, slogdet=_slogdet, solve=_solve)
    core = _module("cupy._core", get_compute_type=_get_compute_type, set_compute_type=_set_compute_type)
    return _module(
        "cupy",
        __version__="14.2.0",
        _core=core,
        cuda=cuda,
        linalg=linalg,
        **{f.__name__: f for f in (*functions, *kinds)},
        **ufuncs,
    )


cupy = _built()
# CuPy has this part imported apart.
stride_tricks = _module("cupy.lib.stride_tricks", as_strided=as_strided)
cupyx = _module("cupyx", errstate=errstate)


@contextmanager
def installed() -> Iterator[types.ModuleType]:
    """A time in which ``import cupy`` gives the simulation."""
    with mock.patch.dict(sys.modules, {"cupy": cupy, "cupy.lib.stride_tricks": stride_tricks, "cupyx": cupyx}):
        yield cupy


class SimulatedBackend(CuPyBackend):
    """The CuPy backend on the simulation, under a name of its own."""

    name = "simulated"

    def __init__(self, device: int = 0, **settings: Any) -> None:
        with installed():
            super().__init__(device, **settings)

    @property
    def compiler(self) -> KernelCompiler | None:
        return compiler
