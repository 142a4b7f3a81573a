"""Matrix products by cuBLAS, through a handle of our own: unlike CuPy's, it can be used during a capture.

The product out = x @ y in C order is out.T = y.T @ x.T in cuBLAS's column-major order.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product as indices_of
from typing import Any

from aidotnet_py.backends.kernel import Factor, LoopNest, Operand, Product, collapsed
from aidotnet_py.exceptions import InvalidOperationException

__all__ = ["Cublas", "Gemm", "gemms"]

# The constants of cuBLAS.
_DEFAULT_MATH, _TF32_TENSOR_OP_MATH = 0, 3
# More calls for one product cost more than cuBLAS saves.
_MOST_CALLS = 16
_LARGEST = 2**31 - 1


@dataclass(frozen=True)
class Matrices:
    """One side of a call: an argument, the offset of its first matrix, the strides of lines and of matrices."""

    argument: int
    offset: int
    transposed: bool
    line: int
    step: int


@dataclass(frozen=True)
class Gemm:
    """A call of ``gemmStridedBatched``: ``count`` products c (m, n) = a (m, k) @ b (k, n), column-major."""

    dtype: str
    sizes: tuple[int, int, int]
    a: Matrices
    b: Matrices
    c: Matrices
    count: int


def gemms(product: Product) -> list[Gemm] | None:
    """Return the calls for a product; None if they are too many, or cuBLAS does not support the layout."""
    x, y, out = product.x, product.y, product.out
    lead = LoopNest(product.shape, stores=((out.operand, x.operand), (out.operand, y.operand)))
    fewer = collapsed(lead)
    (places_out, places_x), (_, places_y) = fewer.stores
    assert isinstance(places_x, Operand)
    assert isinstance(places_y, Operand)
    m, k, n = product.sizes
    layout = _by_columns((x, m, k), (y, k, n), (out, m, n))
    axis = max(range(len(fewer.shape)), key=lambda i: fewer.shape[i])
    others = [i for i in range(len(fewer.shape)) if i != axis]
    ranges = [range(fewer.shape[i]) for i in others]
    too_many = math.prod(map(len, ranges)) > _MOST_CALLS
    backwards = any(p.strides[axis] < 0 for p in (places_x, places_y, places_out))
    if (
        layout is None
        or too_many
        or backwards
        or 0 in (*fewer.shape, m, k, n)
        or max(*product.sizes, *fewer.shape) > _LARGEST
    ):
        return None
    (a, b, c), flipped = layout
    places = (places_x, places_y, places_out) if flipped else (places_y, places_x, places_out)
    sizes = (m, n, k) if flipped else (n, m, k)
    calls: list[Gemm] = []
    for index in indices_of(*ranges):
        sides = [
            Matrices(
                place.argument,
                place.offset + sum(i * place.strides[o] for i, o in zip(index, others, strict=True)),
                transposed,
                line,
                place.strides[axis],
            )
            for place, (transposed, line) in zip(places, (a, b, c), strict=True)
        ]
        calls.append(Gemm(out.operand.dtype, sizes, sides[0], sides[1], sides[2], fewer.shape[axis]))
    return calls


_Lines = tuple[bool, int]


def _by_columns(
    x: tuple[Factor, int, int], y: tuple[Factor, int, int], out: tuple[Factor, int, int]
) -> tuple[tuple[_Lines, _Lines, _Lines], bool] | None:
    """Return a, b and c, each as whether it is transposed and its line stride, and whether they are x, y, out.

    Otherwise they are y, x, out. None if cuBLAS supports neither layout.
    """
    for flipped in (False, True):
        ways = [_lines(*side, columns=flipped) for side in ((x, y, out) if flipped else (y, x, out))]
        if all(way is not None for way in ways) and not ways[2][0]:  # type: ignore[index]  # not None
            a, b, c = (way for way in ways if way is not None)
            return (a, b, c), flipped
    return None


def _lines(factor: Factor, rows: int, columns_: int, *, columns: bool) -> _Lines | None:
    """Return whether a matrix must be transposed to have contiguous rows or columns as wanted, and their stride."""
    by_rows = (factor.columns == 1 or columns_ == 1) and (factor.rows >= columns_ or rows == 1)
    by_columns = (factor.rows == 1 or rows == 1) and (factor.columns >= rows or columns_ == 1)
    row_step, column_step = max(factor.rows, columns_), max(factor.columns, rows)
    if columns and by_columns:
        return False, column_step
    if by_rows:
        return columns, row_step
    return (not columns, column_step) if by_columns else None


class Cublas:
    """A handle on cuBLAS, with a workspace of its own.

    With a fixed workspace, cuBLAS computes the same bits at each run, and can be captured.

    Parameters
    ----------
    library : ctypes.CDLL
        cuBLAS, or an object with functions of the same names.
    workspace : tuple of int
        Address and size in bytes of the workspace.
    tf32 : bool
        Whether float32 may be multiplied with 10 bits of mantissa.

    Raises
    ------
    InvalidOperationException
        When cuBLAS reports an error.
    """

    def __init__(self, library: Any, workspace: tuple[int, int], *, tf32: bool = False) -> None:
        self._library = library
        self._workspace = ctypes.c_void_p(workspace[0]), ctypes.c_size_t(workspace[1])
        self._handle = ctypes.c_void_p()
        self._stream: int | None = None
        self._call("cublasCreate_v2", ctypes.byref(self._handle))
        self._call("cublasSetMathMode", self._handle, ctypes.c_int(_TF32_TENSOR_OP_MATH if tf32 else _DEFAULT_MATH))

    def bind(self, gemm: Gemm, addresses: Sequence[int]) -> Callable[[int], None]:
        """Bind a product to addresses, and return its call, which takes a stream.

        Parameters
        ----------
        gemm : Gemm
            The product.
        addresses : sequence of int
            The addresses of the kernel's arguments.
        """
        kind = {"float32": ctypes.c_float, "float64": ctypes.c_double}[gemm.dtype]
        letter = {"float32": "S", "float64": "D"}[gemm.dtype]

        def side(matrices: Matrices) -> list[Any]:
            address = addresses[matrices.argument] + matrices.offset * ctypes.sizeof(kind)
            return [ctypes.c_void_p(address), ctypes.c_int(matrices.line), ctypes.c_longlong(matrices.step)]

        one, zero = kind(1.0), kind(0.0)
        arguments = [
            self._handle,
            *(ctypes.c_int(int(matrices.transposed)) for matrices in (gemm.a, gemm.b)),
            *map(ctypes.c_int, gemm.sizes),
            ctypes.byref(one),
            *side(gemm.a),
            *side(gemm.b),
            ctypes.byref(zero),
            *side(gemm.c),
            ctypes.c_int(gemm.count),
        ]
        return partial(self._call_on_stream, f"cublas{letter}gemmStridedBatched", arguments)

    def _call_on_stream(self, name: str, arguments: Sequence[Any], stream: int) -> None:
        if stream != self._stream:
            self._call("cublasSetStream_v2", self._handle, ctypes.c_void_p(stream))
            # A new stream resets the workspace.
            self._call("cublasSetWorkspace_v2", self._handle, *self._workspace)
            self._stream = stream
        self._call(name, *arguments)

    def _call(self, name: str, *arguments: Any) -> None:
        status = getattr(self._library, name)(*arguments)
        if status:
            raise InvalidOperationException(f"cuBLAS: {name} returned status {status}")
