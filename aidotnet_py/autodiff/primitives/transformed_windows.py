"""Windows of images, multiplied from both sides by a small matrix: the linear primitive and its transpose.

A window d of w × w pixels becomes m·d·mᵀ, for a matrix m of k × w numbers without a row or a column of zeros. Places
in a window come first in the result, so that those of equal place are one matrix: (…, n, height, width, channels) ↔
(…, k, k, n, rows, columns, channels).
"""

# Rules are lambdas, whose parameters no annotation can reach; what they call is typed.
# pyright: reportUnknownLambdaType=false, reportUnknownMemberType=false
# pyright: reportUnknownArgumentType=false, reportUnknownVariableType=false

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from aidotnet_py.autodiff.primitive import Primitive, one_flop_per_element
from aidotnet_py.autodiff.tracing.emission import emit
from aidotnet_py.autodiff.types import ArrayType
from aidotnet_py.backends import Array, Backend

__all__ = [
    "Matrix",
    "combinations",
    "covers",
    "transformed_fold",
    "transformed_patches",
    "transposed",
    "window_places",
]

Matrix: TypeAlias = tuple[tuple[float, ...], ...]
Operation: TypeAlias = Callable[..., Any]


def transposed(matrix: Matrix) -> Matrix:
    """Return the transpose of a matrix."""
    return tuple(zip(*matrix, strict=True))


def combinations(
    matrix: Matrix, terms: Sequence[Any], operation: Operation, outs: Sequence[Any] | None = None
) -> list[Any]:
    """Return m·terms by few operations, ``operation(name, *operands, out)``; the last of a row gets the row's out.

    A row of one 1 is a term itself, without an operation.
    """
    places = [None] * len(matrix) if outs is None else outs
    return [_combination(row, terms, operation, out) for row, out in zip(matrix, places, strict=True)]


def _combination(factors: Sequence[float], terms: Sequence[Any], operation: Operation, out: Any) -> Any:
    # Positive factors come first, and spare a change of sign.
    pairs = sorted(((f, t) for f, t in zip(factors, terms, strict=True) if f), key=lambda pair: pair[0] < 0)
    total: Any = None
    for index, (factor, term) in enumerate(pairs, 1):
        place = out if index == len(pairs) else None
        if total is None:
            total = term if factor == 1 else operation("multiply", term, factor, out=place)
            continue
        multiple = term if abs(factor) == 1 else operation("multiply", term, abs(factor), out=None)
        total = operation("add" if factor > 0 else "subtract", total, multiple, out=place)
    return total


def window_places(window: int, stride: int) -> list[int]:
    """Return the places in a window in the order in which a pixel meets them, when windows go from first to last."""
    return [a for first in reversed(range(0, window, stride)) for a in range(first, min(first + stride, window))]


def covers(window: int, stride: int, windows: Sequence[int], image: Sequence[int]) -> bool:
    """Return whether windows lie side by side, and each pixel of an image is in one."""
    return window == stride and all(n * stride == length for n, length in zip(windows, image, strict=True))


def _patches_shape(x: ArrayType, matrix: Matrix, stride: int) -> ArrayType:
    *lead, n, height, width, channels = x.shape
    rows, columns = ((length - len(matrix[0])) // stride + 1 for length in (height, width))
    return x.with_shape((*lead, len(matrix), len(matrix), n, rows, columns, channels))


def _along(backend: Backend, x: Array, axis: int, key: slice) -> Array:
    return backend.index(x, tuple(key if i == axis else slice(None) for i in range(len(x.shape))))


def _places(backend: Backend, x: Array, axis: int, window: int, stride: int, windows: int) -> list[Array]:
    """Return, for each place in a window along an axis, the elements there of all windows."""
    last = (windows - 1) * stride + 1
    return [_along(backend, x, axis, slice(place, place + last, stride)) for place in range(window)]


def _parts(backend: Backend, x: Array, axis: int) -> list[Array]:
    """Return the arrays that lie along an axis."""
    shape = (*x.shape[:axis], *x.shape[axis + 1 :])
    return [backend.reshape(_along(backend, x, axis, slice(i, i + 1)), shape) for i in range(x.shape[axis])]


def _combine(backend: Backend, matrix: Matrix, terms: Sequence[Array], outs: Sequence[Array]) -> None:
    """Write m·terms."""

    def operation(name: str, *operands: Any, out: Array | None) -> Array:
        return backend.elementwise(name)(*operands, out=out)

    for value, out in zip(combinations(matrix, terms, operation, outs), outs, strict=True):
        if value is not out:
            backend.copyto(out, value)


def _empty(backend: Backend, like: Array, shape: tuple[int, ...], count: int) -> list[Array]:
    return [backend.empty(shape, backend.dtype_of(like)) for _ in range(count)]


def _run_patches(backend: Backend, out: Array, x: Array, matrix: Matrix, stride: int) -> None:
    window, lead = len(matrix[0]), len(x.shape) - 4
    rows, columns = out.shape[-3:-1]
    by_rows = _empty(backend, x, (*x.shape[:-3], rows, *x.shape[-2:]), len(matrix))
    _combine(backend, matrix, _places(backend, x, lead + 1, window, stride, rows), by_rows)
    for value, place in zip(by_rows, _parts(backend, out, lead), strict=True):
        _combine(
            backend,
            matrix,
            _places(backend, value, lead + 2, window, stride, columns),
            _parts(backend, place, lead),
        )


def _run_fold(backend: Backend, out: Array, x: Array, matrix: Matrix, image: tuple[int, int], stride: int) -> None:
    back, window, lead = transposed(matrix), len(matrix[0]), len(x.shape) - 6
    rows, columns = x.shape[-3:-1]
    alone = covers(window, stride, (rows, columns), image)
    if not alone:
        backend.copyto(out, 0.0)
    add, order = backend.elementwise("add"), window_places(window, stride)
    by_rows = _empty(backend, x, (*x.shape[:lead], *x.shape[lead + 1 :]), window)
    _combine(backend, back, _parts(backend, x, lead), by_rows)
    values = _empty(backend, x, (*x.shape[:lead], *x.shape[lead + 2 :]), window)
    places = _places(backend, out, lead + 1, window, stride, rows)
    for a in order:
        pixels = _places(backend, places[a], lead + 2, window, stride, columns)
        _combine(backend, back, _parts(backend, by_rows[a], lead), pixels if alone else values)
        for b in () if alone else order:
            add(pixels[b], values[b], out=pixels[b])


_transformed_patches = Primitive(
    name="transformed_patches",
    shape=_patches_shape,
    run=_run_patches,
    jvp=lambda tangents, x, output, matrix, stride: transformed_patches(tangents[0], matrix, stride),
    transpose=lambda ct, x, matrix, stride: [transformed_fold(ct, matrix, x.shape[-3:-1], stride)],
    batch=lambda inputs, batched, size, matrix, stride: transformed_patches(inputs[0], matrix, stride),
    flops=one_flop_per_element,
)


def transformed_patches(x: Any, matrix: Matrix, stride: int) -> Any:
    """Return m·d·mᵀ for each window d of images."""
    return emit(_transformed_patches, x, matrix=matrix, stride=stride)


_transformed_fold = Primitive(
    name="transformed_fold",
    shape=lambda x, matrix, image, stride: x.with_shape((*x.shape[:-6], x.shape[-4], *image, x.shape[-1])),
    run=_run_fold,
    jvp=lambda tangents, x, output, matrix, image, stride: transformed_fold(tangents[0], matrix, image, stride),
    transpose=lambda ct, x, matrix, image, stride: [transformed_patches(ct, matrix, stride)],
    batch=lambda inputs, batched, size, matrix, image, stride: transformed_fold(inputs[0], matrix, image, stride),
    flops=one_flop_per_element,
)


def transformed_fold(x: Any, matrix: Matrix, image: tuple[int, int], stride: int) -> Any:
    """Add mᵀ·v·m, for v of each window, onto the pixels that the window has in images of that size."""
    return emit(_transformed_fold, x, matrix=matrix, image=image, stride=stride)
