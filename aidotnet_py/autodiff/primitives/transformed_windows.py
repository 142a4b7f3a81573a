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


def combinations(matrix: Matrix, terms: Sequence[Any], operation: Operation) -> list[Any]:
    """Return m·terms, by as few operations (a name and its operands) as the zeros and ones of m allow."""
    return [_combination(row, terms, operation) for row in matrix]


def _combination(factors: Sequence[float], terms: Sequence[Any], operation: Operation) -> Any:
    """Return a sum of multiples; those of positive factors come first, and spare a change of sign."""
    total: Any = None
    pairs = [(factor, term) for factor, term in zip(factors, terms, strict=True) if factor]
    for factor, term in sorted(pairs, key=lambda pair: pair[0] < 0):
        size = abs(factor)
        multiple = term if size == 1 else operation("multiply", term, size)
        if total is not None:
            total = operation("add" if factor > 0 else "subtract", total, multiple)
        else:
            total = multiple if factor > 0 else operation("negative", multiple)
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


def _run_patches(backend: Backend, out: Array, x: Array, matrix: Matrix, stride: int) -> None:
    def operation(name: str, *operands: Any) -> Array:
        return backend.elementwise(name)(*operands)

    window, lead = len(matrix[0]), len(x.shape) - 4
    rows, columns = out.shape[-3:-1]
    by_rows = combinations(matrix, _places(backend, x, lead + 1, window, stride, rows), operation)
    for place, value in zip(_parts(backend, out, lead), by_rows, strict=True):
        values = combinations(matrix, _places(backend, value, lead + 2, window, stride, columns), operation)
        for one, of in zip(_parts(backend, place, lead), values, strict=True):
            backend.copyto(one, of)


def _run_fold(backend: Backend, out: Array, x: Array, matrix: Matrix, image: tuple[int, int], stride: int) -> None:
    def operation(name: str, *operands: Any) -> Array:
        return backend.elementwise(name)(*operands)

    window, lead = len(matrix[0]), len(x.shape) - 6
    rows, columns = x.shape[-3:-1]
    alone = covers(window, stride, (rows, columns), image)
    if not alone:
        backend.copyto(out, 0.0)
    add, order = backend.elementwise("add"), window_places(window, stride)
    by_rows = combinations(transposed(matrix), _parts(backend, x, lead), operation)
    places = _places(backend, out, lead + 1, window, stride, rows)
    for a in order:
        values = combinations(transposed(matrix), _parts(backend, by_rows[a], lead), operation)
        pixels = _places(backend, places[a], lead + 2, window, stride, columns)
        for b in order:
            if alone:
                backend.copyto(pixels[b], values[b])
            else:
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
