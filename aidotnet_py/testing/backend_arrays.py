"""Checks of a backend's arrays and operations, one by one, against NumPy's."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aidotnet_py.backends import Array, Backend
from aidotnet_py.backends.protocol import ELEMENTWISE_NAMES
from aidotnet_py.testing.backend_comparison import LOGICAL, UNARY, agree, agree_with_out, reference, require
from aidotnet_py.testing.backend_operands import folded, windows_of

__all__ = ["ARRAY_CHECKS"]

Host = NDArray[Any]
# Where a formula with a difference, such as exp(x) - 1, cancels; each of these functions is close to x there.
_NEAR_ZERO = np.array([-1e-2, -1e-9, -1e-20, 1e-20, 1e-9, 1e-2])
_LIKE_X = ("atan", "erf", "expm1", "log1p", "sin", "sinh", "tan", "tanh")
_TWO_PLACES = (np.linspace(0.1, 2.0, 6).reshape(2, 3), np.linspace(2.0, 0.1, 6).reshape(2, 3))


def _protocol(backend: Backend) -> None:
    missing = [n for n in dir(Backend) if not n.startswith("_") and not hasattr(backend, n)]
    require(not missing, f"it must meet the Backend protocol, got a {type(backend).__name__} without {missing}")
    require(type(backend.name) is str, f"name must be a str, got {backend.name!r}")
    require(backend.threads >= 1, f"threads must be at least 1, got {backend.threads}")
    require(backend.flops_at_once >= 1, f"flops_at_once must be at least 1, got {backend.flops_at_once}")
    require(not backend.capturing, f"capturing must be None or False here, got {backend.capturing!r}")


def _ownership(backend: Backend) -> None:
    own = [backend.asarray([1.0]), backend.empty((), np.float32), backend.asarray(True), backend.asarray(3)]
    for array in own:
        require(backend.owns(array), f"owns must be true of its own arrays, got False of a {type(array).__name__}")
    for value in (None, 1.0, "x", [1.0], object()):
        require(not backend.owns(value), f"owns must be false of {value!r}, got True")


def _creation(backend: Backend) -> None:
    for dtype in (np.float64, np.float32, np.int64, np.int32, np.int8, np.bool_):
        array = backend.empty((2, 0, 3), dtype)
        agree(backend, f"empty of {np.dtype(dtype)}", array, np.zeros((2, 0, 3), dtype))
        host = np.array([[0, 1], [1, 0], [2, 3]]).astype(dtype)
        agree(backend, f"asarray of {np.dtype(dtype)}", backend.asarray(host), host)
        agree(backend, f"asarray to {np.dtype(dtype)}", backend.asarray(host.astype(np.float64), dtype), host)
    agree(backend, "asarray of a nested list", backend.asarray([[1, 2], [3, 4]]), [[1, 2], [3, 4]])
    agree(backend, "asarray of a number", backend.asarray(2.5), 2.5)
    apart = np.arange(12.0).reshape(3, 4)
    for what, host in {
        "a strided array": apart[:, ::2],
        "an array that runs backwards": apart[::-1, ::-1],
        "a number repeated": np.broadcast_to(1.5, (2, 3)),
        "an array of no axes": np.array(2.5),
    }.items():
        agree(backend, f"asarray of {what}", backend.asarray(host), host)
    agree(backend, "asarray of the other byte order", backend.asarray(np.arange(3, dtype=">f8")), np.arange(3.0))
    host = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    array = backend.asarray(host)
    strides = backend.strides_of(array)
    require(strides == (3, 1), f"asarray must return C order, strides (3, 1) in elements, got {strides}")
    host[...] = 9.0
    agree(backend, "asarray, after its argument has changed,", array, np.arange(6.0).reshape(2, 3))
    turned = backend.asarray(backend.permute_dims(array, (1, 0)))
    require(backend.strides_of(turned) == (2, 1), "asarray of an array of its own must return a copy in C order")
    backend.copyto(array, 0.0)
    agree(backend, "asarray of an array of its own, after that has changed,", turned, np.arange(6.0).reshape(2, 3).T)
    transfer = backend.transfer_aside([array, backend.empty((2,), np.int64)])
    moved = transfer([np.ones((2, 3)), np.array([5, 6])])
    agree(backend, "transfer_aside", moved[0], np.ones((2, 3)))
    agree(backend, "transfer_aside", moved[1], np.array([5, 6]))


# From a host's or a backend's functions to a view of an array (4, 6).
_VIEWS: dict[str, tuple[Callable[[Backend, Array], Array], Callable[[Host], Host], tuple[int, ...]]] = {
    "reshape": (lambda b, x: b.reshape(x, (2, 2, 6)), lambda x: x.reshape(2, 2, 6), (12, 6, 1)),
    "permute_dims": (lambda b, x: b.permute_dims(x, (1, 0)), lambda x: x.T, (1, 6)),
    "index": (lambda b, x: b.index(x, (slice(1, 3), slice(0, 6, 2))), lambda x: x[1:3, 0:6:2], (6, 2)),
    "index, backwards": (
        lambda b, x: b.index(x, (slice(None, None, -1), slice(None, None, -1))),
        lambda x: x[::-1, ::-1],
        (-6, -1),
    ),
    "reshape of a slice": (
        lambda b, x: b.reshape(b.index(x, (slice(None), slice(1, 2))), (2, 2)),
        lambda x: x[:, 1].reshape(2, 2),
        (12, 6),
    ),
    "permute_dims of a slice backwards": (
        lambda b, x: b.permute_dims(b.index(x, (slice(None), slice(None, None, -1))), (1, 0)),
        lambda x: x[:, ::-1].T,
        (-1, 6),
    ),
}


def _views(backend: Backend) -> None:
    host = np.arange(24.0).reshape(4, 6)
    for name, (of_backend, of_host, strides) in _VIEWS.items():
        array = backend.asarray(host)
        view, wanted = of_backend(backend, array), of_host(host)
        agree(backend, name, view, wanted)
        found = backend.strides_of(view)
        require(found == strides, f"strides_of must be {strides} for {name}, in elements, got {found}")
        agree(backend, f"a function of {name}", backend.elementwise("add")(view, 1.0), wanted + 1)
        changed = host.copy()
        of_host(changed)[...] = -1.0
        backend.copyto(view, -1.0)
        agree(backend, f"the array under {name}, after a write to the view,", array, changed)
        backend.copyto(array, 7.0)
        agree(backend, f"{name}, after a write to the array,", view, np.full(wanted.shape, 7.0))
    column = backend.asarray([[1.0], [2.0]])
    wide = backend.broadcast_to(column, (3, 2, 4))
    agree(backend, "broadcast_to", wide, np.broadcast_to([[1.0], [2.0]], (3, 2, 4)))
    repeated = (backend.strides_of(wide)[0], backend.strides_of(wide)[2])
    require(repeated == (0, 0), f"strides_of must be 0 along repeated axes of broadcast_to, got {repeated}")
    backend.copyto(column, 5.0)
    agree(backend, "broadcast_to, after a write to the array,", wide, np.full((3, 2, 4), 5.0))
    agree(backend, "index of no axes", backend.index(backend.asarray(3.0), ()), 3.0)
    agree(backend, "reshape of nothing", backend.reshape(backend.empty((0, 3), np.float64), (3, 0)), np.zeros((3, 0)))


def _copies(backend: Backend) -> None:
    out = backend.asarray(np.zeros((2, 3)))
    backend.copyto(out, backend.permute_dims(backend.asarray(np.arange(6.0).reshape(3, 2)), (1, 0)))
    agree(backend, "copyto of a strided array", out, np.arange(6.0).reshape(3, 2).T)
    backend.copyto(out, 2)
    agree(backend, "copyto of a number", out, np.full((2, 3), 2.0))
    flags = backend.asarray([True, False])
    backend.copyto(flags, True)
    agree(backend, "copyto of a boolean", flags, np.array([True, True]))


def _operators(backend: Backend) -> None:
    for dtype in (np.float64, np.float32):
        host: Host = np.arange(1, 7, dtype=dtype).reshape(2, 3)
        wide: Host = np.array([[2], [4]], dtype)
        x, column = backend.asarray(host), backend.asarray(wide)
        for name, found, wanted in (
            ("x + y", x + x, host + host),
            ("x - column", x - column, host - wide),
            ("column * x", column * x, wide * host),
            ("x / 2.0", x / 2.0, host / 2),
            ("0.5 * x", 0.5 * x, host / 2),
            ("-x", -x, -host),
        ):
            agree(backend, name, found, wanted)
        require(tuple(x.shape) == (2, 3), f"shape must be (2, 3), got {x.shape}")


def _elementwise(backend: Backend) -> None:
    for name in ELEMENTWISE_NAMES:
        require(callable(backend.elementwise(name)), f"elementwise({name!r}) must be a function")
    for dtype in (np.float64, np.float32):
        x, y = (values.astype(dtype) for values in _TWO_PLACES)
        for name in UNARY:
            wanted = np.asarray(reference(name)(x))
            wanted = wanted if wanted.dtype == bool else wanted.astype(dtype)
            agree_with_out(backend, name, backend.elementwise(name), backend.asarray(x), wanted=wanted)
        near = _NEAR_ZERO.astype(dtype)
        for name in _LIKE_X:
            found = backend.elementwise(name)(backend.asarray(near))
            agree(backend, f"{name} close to 0", found, np.asarray(reference(name)(near)).astype(dtype), least=0.0)
        for name in (n for n in ELEMENTWISE_NAMES if n not in (*UNARY, *LOGICAL, "where")):
            f, of, two = backend.elementwise(name), reference(name), dtype(2.0)
            a, b = backend.asarray(x), backend.asarray(y)
            agree_with_out(backend, name, f, a, b, wanted=of(x, y))
            agree_with_out(backend, f"{name} of an array and a number", f, a, 2.0, wanted=of(x, two))
            agree_with_out(backend, f"{name} of a number and an array", f, 2.0, a, wanted=of(two, x))
    whole = np.array([3, -5, 7, 2**40])
    for name in ("add", "multiply", "subtract", "maximum", "minimum"):
        f, of = backend.elementwise(name), reference(name)
        agree_with_out(backend, f"{name} of int64", f, backend.asarray(whole), 3, wanted=of(whole, 3))


def _in_place(backend: Backend) -> None:
    # The executor lets an output take over the memory of an operand that ends.
    for name in ELEMENTWISE_NAMES:
        operands = _TWO_PLACES[: 1 if name in UNARY else 2]
        if name in LOGICAL or name == "where" or np.asarray(reference(name)(*operands)).dtype != np.float64:
            continue
        for place in range(len(operands)):
            arrays = [backend.asarray(v) for v in operands]
            backend.elementwise(name)(*arrays, out=arrays[place])
            agree(backend, f"{name} written over operand {place}", arrays[place], reference(name)(*operands))


def _choices(backend: Backend) -> None:
    a, b = np.array([True, True, False]), np.array([True, False, False])
    mask, other = backend.asarray(a), backend.asarray(b)
    agree_with_out(backend, "logical_not", backend.elementwise("logical_not"), mask, wanted=~a)
    for name in ("logical_and", "logical_or"):
        agree_with_out(backend, name, backend.elementwise(name), mask, other, wanted=reference(name)(a, b))
    x, where = np.arange(3.0), backend.elementwise("where")
    own = backend.asarray(x)
    agree_with_out(backend, "where", where, mask, own, backend.asarray(-x), wanted=np.where(a, x, -x))
    out = backend.empty((3,), np.float64)
    for operands, wanted in (
        ((own, 7.0), np.where(a, x, 7.0)),
        ((7.0, own), np.where(a, 7.0, x)),
        ((7.0, 8.0), np.where(a, 7.0, 8.0)),
    ):
        where(mask, *operands, out=out)
        agree(backend, "where with numbers", out, wanted)
    spoilt = backend.asarray([np.nan, np.inf, 1.0])
    where(backend.asarray(b), own, spoilt, out=out)
    agree(backend, "where of values that are not finite", out, np.array([0.0, np.inf, 1.0]))


def _special_values(backend: Backend) -> None:
    # And ordinary ones below 0, and pairs of all signs, which the checks before have none of.
    values = [-np.inf, -750.0, -2.5, -0.6, -0.0, 0.0, 0.6, 2.5, 750.0, np.inf, np.nan]
    with backend.errors_ignored(), warnings.catch_warnings():
        warnings.simplefilter("error")
        for dtype, of in ((np.float64, ""), (np.float32, " of float32")):
            x = np.array(values, dtype)
            pairs = [np.repeat(x, len(x)), np.tile(x, len(x))]
            for name in (n for n in ELEMENTWISE_NAMES if n not in (*LOGICAL, "where")):
                operands = [x] if name in UNARY else pairs
                with np.errstate(all="ignore"):
                    wanted = np.asarray(reference(name)(*operands))
                    wanted = wanted if wanted.dtype == bool else wanted.astype(dtype)
                found = backend.elementwise(name)(*map(backend.asarray, operands))
                agree(backend, f"{name} of special values{of}", found, wanted)


def _conversion(backend: Backend) -> None:
    x = np.array([[-2.7, 0.0, 3.9]])
    for dtype in (np.float32, np.int32, np.int64, np.bool_):
        what = f"astype to {np.dtype(dtype)}"
        agree_with_out(backend, what, backend.astype, backend.asarray(x), dtype, wanted=x.astype(dtype))
    flags, wanted = backend.asarray([True, False]), np.array([1.0, 0.0])
    agree_with_out(backend, "astype of booleans", backend.astype, flags, np.float64, wanted=wanted)


def _reductions(backend: Backend) -> None:
    x = np.random.default_rng(0).normal(size=(2, 3, 4))
    array = backend.asarray(x)
    turned = backend.permute_dims(array, (2, 0, 1))
    for axes in ((0,), (1, 2), (0, 1, 2)):
        for own, host in ((array, x), (turned, x.transpose(2, 0, 1))):
            agree_with_out(backend, f"sum over {axes}", backend.sum, own, axes, wanted=host.sum(axes))
            agree_with_out(backend, f"max over {axes}", backend.max, own, axes, wanted=host.max(axes))
    small = backend.sum(backend.asarray(np.array([100, 100], np.int8)), (0,))
    require(backend.dtype_of(small) == np.int8, f"sum must keep int8, got {backend.dtype_of(small)}")
    agree(backend, "max with a NaN", backend.max(backend.asarray([[1.0, np.nan], [2.0, 3.0]]), (1,)), [np.nan, 3.0])
    agree(backend, "sum of nothing", backend.sum(backend.empty((0, 3), np.float64), (0,)), np.zeros(3))
    running = backend.cumulative_sum
    for axis in range(3):
        wanted = np.cumsum(x, axis=axis)
        agree_with_out(backend, f"cumulative_sum along {axis}", running, array, axis, wanted=wanted)
    whole = np.arange(-3, 4, dtype=np.int16)
    wanted = np.cumsum(whole, dtype=np.int16)
    agree_with_out(backend, "cumulative_sum of int16", running, backend.asarray(whole), 0, wanted=wanted)


def _products(backend: Backend) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.uniform(0.5, 1.5, (2, 3, 4)), rng.uniform(0.5, 1.5, (2, 4, 5))
    a: Host
    b: Host
    for dtype in (np.float64, np.float32):
        a, b = np.asarray(x, dtype), np.asarray(y, dtype)
        agree_with_out(backend, "matmul", backend.matmul, backend.asarray(a), backend.asarray(b), wanted=a @ b)
        agree_with_out(
            backend, "vecdot", backend.vecdot, backend.asarray(a), backend.asarray(2 * a), wanted=2 * (a * a).sum(-1)
        )
    turned = backend.permute_dims(backend.asarray(x), (0, 2, 1))
    agree_with_out(
        backend, "matmul of a transpose", backend.matmul, turned, backend.asarray(x), wanted=x.transpose(0, 2, 1) @ x
    )
    shared = backend.broadcast_to(backend.asarray(y[:1]), (2, 4, 5))
    agree_with_out(backend, "matmul of a broadcast array", backend.matmul, backend.asarray(x), shared, wanted=x @ y[:1])
    nothing = backend.matmul(backend.empty((2, 0), np.float64), backend.empty((0, 3), np.float64))
    agree(backend, "matmul over an axis of no elements", nothing, np.zeros((2, 3)))


def _linear_algebra(backend: Backend) -> None:
    rng = np.random.default_rng(0)
    a, b = rng.uniform(-0.5, 0.5, (2, 4, 4)) + 4 * np.eye(4), rng.normal(size=(2, 4, 3))
    array, right = backend.asarray(a), backend.asarray(b)
    agree_with_out(backend, "solve", backend.solve, array, right, wanted=np.linalg.solve(a, b))
    agree_with_out(backend, "cholesky", backend.cholesky, array, wanted=np.linalg.cholesky(a))
    wanted = np.stack(np.linalg.slogdet(-a), -1)
    agree_with_out(backend, "slogdet", backend.slogdet, backend.asarray(-a), wanted=wanted)
    turned = backend.permute_dims(array, (0, 2, 1))
    agree_with_out(backend, "solve of a transpose", backend.solve, turned, right, wanted=np.linalg.solve(a.mT, b))
    singular, indefinite = backend.asarray(np.ones((1, 2, 2))), backend.asarray(-np.eye(2)[None])
    _raises(np.linalg.LinAlgError, "solve of a singular matrix", lambda: backend.solve(singular, singular))
    _raises(np.linalg.LinAlgError, "cholesky of an indefinite matrix", lambda: backend.cholesky(indefinite))


def _raises(kind: type[Exception], what: str, call: Callable[[], object]) -> None:
    try:
        call()
    except kind:
        return
    except Exception as error:
        raise AssertionError(f"{what} must raise {kind.__name__}, got {type(error).__name__}: {error}") from error
    raise AssertionError(f"{what} must raise {kind.__name__}, got a result")


def _concatenation(backend: Backend) -> None:
    x = np.arange(12.0).reshape(4, 3)
    arrays = [backend.asarray(x), backend.asarray(-x)]
    for axis in (0, 1):
        wanted = np.concatenate([x, -x], axis)
        agree_with_out(backend, f"concat along {axis}", backend.concat, arrays, axis, wanted=wanted)
    buffer = backend.asarray(x)
    rows = [backend.reshape(backend.index(buffer, (slice(i, i + 1), slice(None))), (3,)) for i in range(4)]
    stacked = backend.stacked(rows)
    if stacked is not None:
        agree(backend, "stacked", stacked, x)
        backend.copyto(buffer, 1.0)
        agree(backend, "stacked, after a write to the arrays,", stacked, np.ones((4, 3)))


def _rows(backend: Backend) -> None:
    x, places = np.arange(12.0).reshape(4, 3), np.array([[3, 0], [0, 0]])
    own, indices = backend.asarray(x), backend.asarray(places)
    agree_with_out(backend, "take", backend.take, own, indices, wanted=x[places])
    out = backend.empty((5, 3), np.float64)
    returned = backend.scatter_add(backend.asarray(x[places]), indices, out)
    for array in (out, returned):
        agree(backend, "scatter_add", array, [3 * x[0], 0 * x[0], 0 * x[0], x[3], 0 * x[0]])
    for dtype in (np.int64, np.int32, np.int8):
        around = np.array([[-4, 3], [0, -1]], dtype)
        wanted = np.mod(around, 4).astype(np.int64)
        agree_with_out(backend, "wrap_indices", backend.wrap_indices, backend.asarray(around), 4, wanted=wanted)
    for place in (4, -5):
        try:
            found = backend.to_numpy(backend.wrap_indices(backend.asarray([place]), 4))
        except IndexError:
            continue
        # Allowed where the host would have to wait for the device.
        require(
            found.tolist() == [place % 4],
            f"wrap_indices of {place} among 4 must raise IndexError, got {found.tolist()}",
        )
    order = np.array([[2.0, np.nan, -1.0, 2.0], [0.0, 1.0, -np.inf, np.inf], [1.0, 1.0, 1.0, 1.0]])
    wanted = np.array([[2, 0, 3, 1], [2, 0, 1, 3], [0, 1, 2, 3]])
    agree_with_out(backend, "argsort", backend.argsort, backend.asarray(order), wanted=wanted)


def _windows(backend: Backend) -> None:
    x = np.random.default_rng(0).normal(size=(2, 7, 6, 3))
    settings: Sequence[tuple[tuple[int, int], tuple[int, int]]] = (
        ((3, 2), (2, 1)),
        ((1, 1), (3, 3)),
        ((7, 6), (1, 1)),
    )
    for window, stride in settings:
        wanted = windows_of(window, stride, x)
        what = f"patches of windows {window} at steps {stride}"
        agree_with_out(backend, what, backend.patches, backend.asarray(x), window, stride, wanted=wanted)
        turned = backend.permute_dims(backend.asarray(x.transpose(3, 1, 2, 0)), (3, 1, 2, 0))
        agree(backend, f"{what} of a transpose", backend.patches(turned, window, stride), wanted)
        out = backend.empty(x.shape, np.float64)
        backend.fold(backend.asarray(wanted), stride, out)
        agree(backend, f"fold of windows {window} at steps {stride}", out, folded(stride, x.shape, wanted))


def _contexts(backend: Backend) -> None:
    lane = backend.single_threaded()
    with lane:
        backend.synchronize()
    lane.__exit__(None, None, None)
    x = backend.asarray(np.ones(3))
    out = backend.empty((3,), np.float64)
    add = backend.elementwise("add")
    add(x, 1.0, out=out)
    replay = backend.capture(lambda: add(x, 1.0, out=out))
    if replay is not None:
        backend.copyto(x, 5.0)
        backend.copyto(out, 0.0)
        replay()
        agree(backend, "a captured call", out, np.full(3, 6.0))


ARRAY_CHECKS: dict[str, Callable[[Backend], None]] = {
    "the protocol": _protocol,
    "ownership": _ownership,
    "new arrays": _creation,
    "views": _views,
    "copies": _copies,
    "operators of arrays": _operators,
    "elementwise functions": _elementwise,
    "functions written over an operand": _in_place,
    "logical functions and choices": _choices,
    "special values": _special_values,
    "conversions": _conversion,
    "reductions": _reductions,
    "products": _products,
    "linear algebra": _linear_algebra,
    "concatenation": _concatenation,
    "rows and their order": _rows,
    "windows": _windows,
    "contexts and capture": _contexts,
}
