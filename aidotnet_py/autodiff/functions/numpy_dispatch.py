"""NumPy's own functions on traced values: `np.tanh(x @ w + b)` records equations when x is traced.

A new function has NumPy's name and arguments, and an entry in `numpy_functions` at the end.
"""

# Rules are lambdas, whose parameters no annotation can reach; what they call is typed.
# pyright: reportUnknownLambdaType=false, reportUnknownMemberType=false
# pyright: reportUnknownArgumentType=false, reportUnknownVariableType=false

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from aidotnet_py.autodiff.functions.assignment import at
from aidotnet_py.autodiff.functions.axes import Axes, expand_reduced, ints, normalise_axes, one_axis, positive_axes
from aidotnet_py.autodiff.functions.diagonals import diag, diagonal, tril, triu
from aidotnet_py.autodiff.functions.indexing import getitem, take_along
from aidotnet_py.autodiff.functions.indexing import take_along_axis as _take_along_axis
from aidotnet_py.autodiff.functions.linalg import cholesky, det, inv, slogdet, solve
from aidotnet_py.autodiff.functions.ordering import along, argmax, argmin, argsort, sort
from aidotnet_py.autodiff.functions.products import dot, einsum, inner, outer, tensordot
from aidotnet_py.autodiff.primitives import elementwise as ew
from aidotnet_py.autodiff.primitives.broadcasting import broadcast_to as _broadcast_to
from aidotnet_py.autodiff.primitives.broadcasting import spread, sum_
from aidotnet_py.autodiff.primitives.concatenation import concatenate as _concatenate
from aidotnet_py.autodiff.primitives.cumulative import cumulative_sum
from aidotnet_py.autodiff.primitives.matmul import matmul
from aidotnet_py.autodiff.primitives.reductions import max_, min_
from aidotnet_py.autodiff.primitives.shape import as_array, full, permute_dims, stop_gradient
from aidotnet_py.autodiff.primitives.shape import flip as _flip
from aidotnet_py.autodiff.primitives.shape import pad as _pad
from aidotnet_py.autodiff.primitives.shape import reshape as _reshape
from aidotnet_py.autodiff.tracing.tracer import numpy_functions
from aidotnet_py.autodiff.tracing.value_types import dtype_of_values, type_of
from aidotnet_py.autodiff.types import ArrayType
from aidotnet_py.exceptions import ArgumentException, NotSupportedException

__all__ = ["numpy_functions"]


def _reduction(reduce: Callable[[Any, tuple[int, ...]], Any]) -> Callable[..., Any]:
    def function(a: Any, axis: Axes = None, *, keepdims: bool = False) -> Any:
        axes = normalise_axes(axis, len(a.shape))
        y = reduce(a, axes)
        return expand_reduced(y, a.shape, axes) if keepdims else y

    return function


def _count(a: Any, axes: tuple[int, ...]) -> int:
    count = math.prod(type_of(a).shape[i] for i in axes)
    if count == 0:
        raise ArgumentException(f"a mean must have at least one element, got axes {axes} of shape {a.shape}")
    return count


def _float(a: Any) -> Any:
    return a if type_of(a).is_floating else ew.astype(a, np.float64)


def _sum(a: Any, axes: tuple[int, ...]) -> Any:
    return sum_(_widened(a), axes)


def _widened(a: Any) -> Any:
    """Return small integers in 64 bits, in which NumPy sums and multiplies them."""
    wide = {"b": np.int64, "i": np.int64, "u": np.uint64}.get(type_of(a).dtype.kind)
    return a if wide is None else ew.astype(a, wide)


def _mean(a: Any, axes: tuple[int, ...], ddof: int = 0) -> Any:
    """Compute NumPy's mean: integers in float64, float16 in float32 and back."""
    a, dtype = ew.for_mean(a)
    total = sum_(a, axes)
    return ew.astype(total / float(_count(a, axes) - ddof), dtype)


def _prod(a: Any, axes: tuple[int, ...]) -> Any:
    """Multiply halves until one is left: no quotients, so that derivatives hold also where factors are 0."""
    a = _widened(a)
    kept = tuple(i for i in range(len(a.shape)) if i not in axes)
    lead = tuple(a.shape[i] for i in kept)
    count = math.prod(a.shape[i] for i in axes)
    flat = _reshape(permute_dims(a, (*kept, *axes)), (*lead, count))
    while count > 1:
        half = count // 2
        product = ew.multiply(flat[..., :half], flat[..., half : 2 * half])
        flat = product if count % 2 == 0 else _concatenate([product, flat[..., 2 * half :]], len(lead))
        count -= half
    return _reshape(flat, lead) if count else full(flat.type.with_shape(lead), 1.0)


def cumsum(a: Any, axis: int | None = None) -> Any:
    a, i = along(_widened(a), axis)
    return cumulative_sum(a, i)


def trace(a: Any, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Any:
    of = diagonal(a, offset, axis1, axis2)
    return _sum(of, (len(of.shape) - 1,))


def var(a: Any, axis: Axes = None, *, ddof: int = 0, keepdims: bool = False) -> Any:
    axes = normalise_axes(axis, len(a.shape))
    if _count(a, axes) <= ddof:
        raise ArgumentException(f"ddof must be less than the {_count(a, axes)} elements of axes {axes}, got {ddof}")
    a, dtype = ew.for_mean(a)
    centred = a - expand_reduced(_mean(a, axes), a.shape, axes)
    y = ew.astype(_mean(centred * centred, axes, ddof), dtype)
    return expand_reduced(y, a.shape, axes) if keepdims else y


def std(a: Any, axis: Axes = None, *, ddof: int = 0, keepdims: bool = False) -> Any:
    variance = var(a, axis, ddof=ddof, keepdims=keepdims)
    return ew.root(ew.sqrt(variance), variance)


def reshape(a: Any, *lengths_: Any, shape: Any = None, order: str = "C") -> Any:
    if order != "C":
        raise NotSupportedException(f"order must be 'C' for a traced value, got {order!r}")
    lengths = ints(shape if shape is not None else lengths_[0] if len(lengths_) == 1 else lengths_)
    if lengths.count(-1) > 1 or any(n < -1 for n in lengths):
        raise ArgumentException(f"shape must have {type_of(a).size} elements like {a.shape}, got {tuple(lengths)}")
    if -1 in lengths:
        known = math.prod(n for n in lengths if n != -1)
        if known == 0 or type_of(a).size % known:
            raise ArgumentException(f"shape must fit an array of shape {a.shape}, got {tuple(lengths)}")
        lengths[lengths.index(-1)] = type_of(a).size // known
    return _reshape(a, tuple(lengths))


def ravel(a: Any, order: str = "C") -> Any:
    return reshape(a, -1, order=order)


def transpose(a: Any, *axes: Any) -> Any:
    n = len(a.shape)
    given = axes[0] if len(axes) == 1 else axes
    if given is None or given == ():
        return permute_dims(a, tuple(reversed(range(n))))
    order = positive_axes(given, n)
    if len(order) != n:
        raise ArgumentException(f"axes must have each of {n} axes once, got {given}")
    return permute_dims(a, tuple(order))


def swapaxes(a: Any, axis1: int, axis2: int) -> Any:
    n = len(a.shape)
    (i,), (j,) = positive_axes(axis1, n), positive_axes(axis2, n)
    order = list(range(n))
    order[i], order[j] = j, i
    return permute_dims(a, tuple(order))


def moveaxis(a: Any, source: int | Sequence[int], destination: int | Sequence[int]) -> Any:
    n = len(a.shape)
    sources, places = positive_axes(source, n), positive_axes(destination, n)
    if len(sources) != len(places):
        raise ArgumentException(f"source and destination must have one length, got {source} and {destination}")
    order = [i for i in range(n) if i not in sources]
    for place, i in sorted(zip(places, sources, strict=True)):
        order.insert(place, i)
    return permute_dims(a, tuple(order))


def expand_dims(a: Any, axis: int | Sequence[int]) -> Any:
    count = len(ints(axis))
    new = normalise_axes(axis, len(a.shape) + count)
    rest = iter(a.shape)
    return _reshape(a, tuple(1 if i in new else next(rest) for i in range(len(a.shape) + count)))


def squeeze(a: Any, axis: Axes = None) -> Any:
    axes = [i for i, n in enumerate(a.shape) if n == 1] if axis is None else normalise_axes(axis, len(a.shape))
    if any(a.shape[i] != 1 for i in axes):
        raise ArgumentException(f"axis must be axes of length 1 of shape {a.shape}, got {axis}")
    return _reshape(a, tuple(n for i, n in enumerate(a.shape) if i not in axes))


def broadcast_to(array: Any, shape: int | Sequence[int]) -> Any:
    lengths = tuple(ints(shape))
    if any(n < 0 for n in lengths):
        raise ArgumentException(f"shape must have lengths of at least 0, got {lengths}")
    return _broadcast_to(array, lengths)


def concatenate(arrays: Sequence[Any], axis: int | None = 0) -> Any:
    dtype = np.result_type(*(type_of(a).dtype for a in arrays))
    parts = [ew.astype(a, dtype) for a in arrays]
    if axis is None:
        return _concatenate([ravel(as_array(a)) for a in parts], 0)
    return _concatenate(parts, one_axis(axis, len(type_of(parts[0]).shape)))


def stack(arrays: Sequence[Any], axis: int = 0) -> Any:
    shapes = {type_of(a).shape for a in arrays}
    if len(shapes) > 1:
        raise ArgumentException(f"arrays must have one shape to be stacked, got {sorted(shapes)}")
    place = one_axis(axis, len(shapes.pop()) + 1)
    return concatenate([expand_dims(as_array(a), place) for a in arrays], place)


def vstack(tup: Sequence[Any]) -> Any:
    # Numbers and vectors are rows.
    shapes = [(1, 1, *type_of(a).shape)[-max(2, len(type_of(a).shape)) :] for a in tup]
    return concatenate([_reshape(as_array(a), shape) for a, shape in zip(tup, shapes, strict=True)], 0)


def hstack(tup: Sequence[Any]) -> Any:
    arrays = [ravel(as_array(a)) if not type_of(a).shape else a for a in tup]
    return concatenate(arrays, min(len(type_of(arrays[0]).shape) - 1, 1))


def pad(array: Any, pad_width: Any, mode: str = "constant", *, constant_values: Any = 0.0) -> Any:
    if mode != "constant":
        raise NotSupportedException(f"mode must be 'constant' for a traced value, got {mode!r}")
    n, given = len(array.shape), np.asarray(pad_width)
    if given.dtype.kind not in "iu" or (given < 0).any():
        raise ArgumentException(f"pad_width must be integers of at least 0, got {pad_width}")
    widths = np.broadcast_to(given, (n, 2)).tolist()
    values = np.broadcast_to(np.asarray(constant_values), (n, 2)).tolist()
    distinct = {value for pair in values for value in pair}
    if len(distinct) <= 1:
        return _pad(array, tuple((before, after, 0) for before, after in widths), *distinct or {0.0})
    for i, side in itertools.product(range(n), range(2)):
        margins = [(0, 0, 0)] * n
        margins[i] = (0, widths[i][1], 0) if side else (widths[i][0], 0, 0)
        array = _pad(array, tuple(margins), values[i][side])
    return array


def flip(m: Any, axis: Axes = None) -> Any:
    return _flip(m, normalise_axes(axis, len(m.shape)))


def roll(a: Any, shift: int | Sequence[int], axis: Axes = None) -> Any:
    if axis is None:
        return _reshape(roll(ravel(a), shift, 0), a.shape)
    for amount, place in np.broadcast(shift, axis):
        a = _roll(a, operator.index(amount), one_axis(operator.index(place), len(a.shape)))
    return a


def _roll(a: Any, shift: int, axis: int) -> Any:
    cut = -shift % a.shape[axis] if a.shape[axis] else 0
    lead = (slice(None),) * axis
    return _concatenate([getitem(a, (*lead, slice(cut, None))), getitem(a, (*lead, slice(None, cut)))], axis)


def repeat(a: Any, repeats: int | Sequence[int], axis: int | None = None) -> Any:
    a, i = along(a, axis)
    shape, counts = a.shape, np.asarray(repeats)
    if counts.dtype.kind not in "iu" or counts.shape not in ((), (1,), (shape[i],)) or (counts < 0).any():
        raise ArgumentException(
            f"repeats must be an integer of at least 0, or one for each of the {shape[i]} entries of axis {i}, got "
            f"{repeats!r}"
        )
    if counts.size != 1:
        return take(a, np.repeat(np.arange(shape[i]), counts), i)
    count = int(counts.item())
    wide = _broadcast_to(_reshape(a, (*shape[: i + 1], 1, *shape[i + 1 :])), (*shape[: i + 1], count, *shape[i + 1 :]))
    return _reshape(wide, (*shape[:i], shape[i] * count, *shape[i + 1 :]))


def tile(A: Any, reps: int | Sequence[int]) -> Any:
    counts = ints(reps)
    if any(c < 0 for c in counts):
        raise ArgumentException(f"reps must be integers of at least 0, got {reps}")
    n = max(len(counts), len(A.shape))
    shape = (1,) * (n - len(A.shape)) + tuple(A.shape)
    counts = [1] * (n - len(counts)) + counts
    split = _reshape(A, tuple(m for length in shape for m in (1, length)))
    wide = _broadcast_to(split, tuple(m for c, length in zip(counts, shape, strict=True) for m in (c, length)))
    return _reshape(wide, tuple(c * length for c, length in zip(counts, shape, strict=True)))


def take(a: Any, indices: Any, axis: int | None = None) -> Any:
    a, i = along(a, axis)
    return take_along(a, indices, i)


def take_along_axis(arr: Any, indices: Any, axis: int | None = -1) -> Any:
    arr, i = along(arr, axis)
    return _take_along_axis(arr, indices, i)


def clip(a: Any, a_min: Any = None, a_max: Any = None, *, min: Any = None, max: Any = None) -> Any:
    least, most = (a_min if min is None else min), (a_max if max is None else max)
    # As in NumPy, integers have no need of a bound that they can't reach.
    least = None if ew.is_beyond(least, a) and least < 0 else least
    most = None if ew.is_beyond(most, a) and most > 0 else most
    a = a if least is None else ew.maximum(a, least)
    return a if most is None else ew.minimum(a, most)


def where(condition: Any, x: Any = None, y: Any = None) -> Any:
    if x is None or y is None:
        raise NotSupportedException(
            "np.where must have three arguments to be traced, got one; the shape of its result would depend on values"
        )
    return ew.where(condition, x, y)


def square(x: Any) -> Any:
    # NumPy squares booleans as the smallest integers.
    x = ew.astype(x, np.int8) if type_of(x).dtype.kind == "b" else x
    return ew.multiply(x, x)


def exp2(x: Any) -> Any:
    return ew.power(2.0, ew.astype(x, ew.common_dtype(x, least=np.float16)))


def _logarithm(base: float) -> Callable[[Any], Any]:
    def function(x: Any) -> Any:
        x = ew.astype(x, ew.common_dtype(x, least=np.float16))
        y = ew.log(x) * (1.0 / math.log(base))
        # Powers of the base have whole logarithms, which rounding would take below.
        whole = ew.floor(y + 0.5)
        return ew.with_value(ew.where(ew.equal(ew.power(base, whole), x), whole, y), y)

    return function


def float_power(x: Any, y: Any) -> Any:
    dtype = np.result_type(ew.common_dtype(x, y), np.float64)
    return ew.power(*(ew.astype(as_array(v), dtype) for v in (x, y)))


def reciprocal(x: Any) -> Any:
    if not type_of(x).is_floating:
        raise ArgumentException(
            f"x must be floating, since 1/x of integers is cut off, got {type_of(x)}; write 1.0 / x"
        )
    return ew.divide(1.0, x)


def logaddexp(x: Any, y: Any) -> Any:
    # Selection keeps the derivatives of the larger and the smaller, also where they tie.
    x, y = ew.floats_of(x, y)
    swapped = ew.less(x, y)
    large, small = (ew.where(swapped, *pair) for pair in ((y, x), (x, y)))
    gap = ew.where(ew.logical_or(ew.isfinite(large), ew.not_equal(small, small)), small - large, 0.0)
    return large + ew.softplus(gap)


def _constant(value: float) -> Callable[..., Any]:
    def function(a: Any, dtype: Any = None, *, shape: Any = None) -> Any:
        have = type_of(a)
        lengths = have.shape if shape is None else tuple(ints(shape))
        return full(ArrayType(lengths, dtype_of_values(dtype or have.dtype)), value)

    return function


def full_like(a: Any, fill_value: Any, dtype: Any = None) -> Any:
    have = type_of(a)
    kind = dtype_of_values(dtype or have.dtype)
    if isinstance(fill_value, int):
        # As in NumPy, one that the dtype cannot hold is an error.
        fill_value = kind.type(fill_value)
    return _broadcast_to(ew.astype(as_array(fill_value), kind), have.shape)


def norm(x: Any, ord: Any = None, axis: Axes = None, keepdims: bool = False) -> Any:
    axes = normalise_axes(axis, len(x.shape))
    x = _float(x)
    if ord is None or (ord == 2 and len(axes) == 1) or (ord == "fro" and len(axes) == 2):
        y = _length(x, axes)
    elif ord in (1, math.inf) and len(axes) == 1:
        y = (sum_ if ord == 1 else max_)(ew.absolute(x), axes)
    else:
        raise NotSupportedException(
            f"ord must be None, 1, 2 or inf over one axis, or None or 'fro' over two, for a traced value, got {ord!r} "
            f"over axes {axes}"
        )
    return expand_reduced(y, x.shape, axes) if keepdims else y


def _length(x: Any, axes: tuple[int, ...]) -> Any:
    """Return √Σx²; float16 in float32 and back, as with means."""
    x, dtype = ew.for_mean(x)
    squares = sum_(x * x, axes)
    scale = _scale(squares)
    scaled = stop_gradient(x) * spread(scale, x.shape, axes)
    return ew.astype(ew.root(ew.sqrt(sum_(scaled * scaled, axes)) / scale, squares), dtype)


def _scale(squares: Any) -> Any:
    """Return powers of two that scale x before it is squared: 1, except where the squares overflow or lose digits."""
    limits = np.finfo(squares.dtype)
    # Of the dtype: powers of two of long doubles are beyond Python's floats.
    two = squares.dtype.type(2.0)
    up, down = two ** ((limits.nmant - limits.minexp) * 2 // 3), two ** -(limits.maxexp * 5 // 8)
    large = ew.where(ew.greater(squares, limits.max), down, full(squares.type, 1.0))
    return ew.where(ew.less(squares, limits.smallest_normal), up, large)


def _boolean(function: Callable[..., Any]) -> Callable[..., Any]:
    def apply(*operands: Any) -> Any:
        if any(type_of(x).dtype.kind != "b" for x in operands):
            raise NotSupportedException("operands of bitwise operators must be booleans to be traced, got other dtypes")
        return function(*operands)

    return apply


numpy_functions.update(
    {
        # ufuncs
        **{f.__name__: f for f in (ew.exp, ew.expm1, ew.log, ew.log1p, ew.sqrt, ew.sign, ew.floor, ew.ceil)},
        **{f.__name__: f for f in (ew.sin, ew.cos, ew.tan, ew.arctan, ew.arctan2, ew.sinh, ew.cosh, ew.tanh)},
        **{f.__name__: f for f in (ew.add, ew.subtract, ew.multiply, ew.divide, ew.power, ew.maximum, ew.minimum)},
        **{f.__name__: f for f in (ew.equal, ew.not_equal, ew.less, ew.less_equal, ew.greater, ew.greater_equal)},
        **{
            f.__name__: f
            for f in (ew.logical_and, ew.logical_or, ew.logical_not, ew.isfinite, ew.negative, ew.absolute)
        },
        "fabs": lambda x: ew.absolute(ew.astype(x, ew.common_dtype(x, least=np.float16))),
        "true_divide": ew.divide,
        "positive": lambda x: x,
        "square": square,
        "float_power": float_power,
        "reciprocal": reciprocal,
        "exp2": exp2,
        "log2": _logarithm(2.0),
        "log10": _logarithm(10.0),
        "logaddexp": logaddexp,
        "bitwise_and": _boolean(ew.logical_and),
        "bitwise_or": _boolean(ew.logical_or),
        "invert": _boolean(ew.logical_not),
        "matmul": matmul,
        # reductions
        "sum": _reduction(_sum),
        "mean": _reduction(_mean),
        "max": _reduction(max_),
        "amax": _reduction(max_),
        "min": _reduction(min_),
        "amin": _reduction(min_),
        "prod": _reduction(_prod),
        "var": var,
        "std": std,
        **{f.__name__: f for f in (argmax, argmin, cumsum, trace)},
        "linalg.norm": norm,
        **{f"linalg.{f.__name__}": f for f in (cholesky, det, inv, slogdet, solve)},
        # shapes
        **{f.__name__: f for f in (reshape, ravel, transpose, swapaxes, moveaxis, expand_dims, squeeze, broadcast_to)},
        **{f.__name__: f for f in (concatenate, stack, vstack, hstack, pad, flip, roll, repeat, tile, diag, diagonal)},
        **{f.__name__: f for f in (take, take_along_axis, getitem, at, argsort, sort, tril, triu)},
        "permute_dims": transpose,
        "matrix_transpose": lambda x: swapaxes(x, -1, -2),
        "flatten": ravel,
        "copy": lambda a: a,
        "astype": lambda x, dtype, copy=True: ew.astype(x, dtype),
        "shape": lambda a: a.shape,
        "ndim": lambda a: len(a.shape),
        "size": lambda a: type_of(a).size,
        # the rest
        "where": where,
        "clip": clip,
        **{f.__name__: f for f in (dot, inner, outer, tensordot, einsum)},
        "zeros_like": _constant(0.0),
        "ones_like": _constant(1.0),
        "full_like": full_like,
    }
)
