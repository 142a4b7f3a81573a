"""Windows of images, multiplied from both sides by a small matrix: the linear primitive and its transpose.

A window d of w × w pixels becomes m·d·mᵀ, for a matrix m of k × w numbers. The places of the result come first, so that
those of equal place are one matrix: (…, n, height, width, channels) ↔ (…, k, k, n, rows, columns, channels).
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

__all__ = ["Matrix", "transformed", "transformed_fold", "transformed_patches", "transposed", "window_places"]

Matrix: TypeAlias = tuple[tuple[float, ...], ...]


def transposed(matrix: Matrix) -> Matrix:
    """Return the transpose of a matrix."""
    return tuple(zip(*matrix, strict=True))


def transformed(
    matrix: Matrix, window: Sequence[Sequence[Any]], operation: Callable[..., Any]
) -> list[list[Any]]:
    """Return m·d·mᵀ, by as few operations (a name and its operands) as the zeros and ones of m allow."""
    columns = [_combined(matrix, column, operation) for column in zip(*window, strict=True)]
    return [_combined(matrix, row, operation) for row in zip(*columns, strict=True)]


def _combined(matrix: Matrix, terms: Sequence[Any], operation: Callable[..., Any]) -> list[Any]:
    return [_combination(row, terms, operation) for row in matrix]


def _combination(factors: Sequence[float], terms: Sequence[Any], operation: Callable[..., Any]) -> Any:
    """Return a sum of multiples; those of positive factors come first, and spare a change of sign."""
    total: Any = None
    pairs = [(f, t) for f, t in zip(factors, terms, strict=True) if f]
    for factor, term in sorted(pairs, key=lambda pair: pair[0] < 0):
        size = abs(factor)
        term = term if size == 1 else operation("multiply", term, size)
        if total is None:
            total = term if factor > 0 else operation("negative", term)
        else:
            total = operation("add" if factor > 0 else "subtract", total, term)
    return total


def window_places(window: int, stride: int) -> list[int]:
    """Return the places in a window in the order in which a pixel meets them, when windows go from first to last."""
    return [a for first in reversed(range(0, window, stride)) for a in range(first, min(first + stride, window))]


def _patches_shape(x: ArrayType, matrix: Matrix, stride: int) -> ArrayType:
    *lead, n, height, width, channels = x.shape
    window = len(matrix[0])
    rows, columns = ((length - window) // stride + 1 for length in (height, width))
    return x.with_shape((*lead, len(matrix), len(matrix), n, rows, columns, channels))


def _places_in(backend: Backend, image: Array, window: int, stride: int, rows: int, columns: int) -> list[list[Array]]:
    """Return, for each place in a window, the pixels there of all windows."""

    def span(first: int, count: int) -> slice:
        return slice(first, first + (count - 1) * stride + 1, stride)

    lead = (slice(None),) * (len(image.shape) - 3)
    return [
        [backend.index(image, (*lead, span(a, rows), span(b, columns))) for b in range(window)] for a in range(window)
    ]


def _parts(backend: Backend, x: Array, k: int) -> list[list[Array]]:
    """Return the k × k matrices of equal place in their windows."""

    def at(i: int) -> slice:
        return slice(i, i + 1)

    lead = (slice(None),) * (len(x.shape) - 6)
    shape = (*x.shape[:-6], *x.shape[-4:])
    return [[backend.reshape(backend.index(x, (*lead, at(i), at(j))), shape) for j in range(k)] for i in range(k)]


def _run_patches(backend: Backend, out: Array, x: Array, matrix: Matrix, stride: int) -> None:
    rows, columns = out.shape[-3:-1]
    window = _places_in(backend, x, len(matrix[0]), stride, rows, columns)
    values = transformed(matrix, window, lambda name, *operands: backend.elementwise(name)(*operands))
    for place, value in zip(_parts(backend, out, len(matrix)), values, strict=True):
        for one, of in zip(place, value, strict=True):
            backend.copyto(one, of)


def _run_fold(backend: Backend, out: Array, x: Array, matrix: Matrix, image: tuple[int, int], stride: int) -> None:
    window, parts = len(matrix[0]), _parts(backend, x, len(matrix))
    values = transformed(transposed(matrix), parts, lambda name, *operands: backend.elementwise(name)(*operands))
    places = _places_in(backend, out, window, stride, *x.shape[-3:-1])
    backend.copyto(out, 0.0)
    add = backend.elementwise("add")
    for a in window_places(window, stride):
        for b in window_places(window, stride):
            add(places[a][b], values[a][b], out=places[a][b])


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
