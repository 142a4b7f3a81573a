"""One table of functions with their domains: what the engine's primitives and functions are tested on.

A new primitive needs a case here; `test_autodiff_primitives` fails for one that no case uses.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.special
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from aidotnet_py import autodiff as ad
from aidotnet_py.autodiff import primitive
from aidotnet_py.autodiff.functions.beyond_numpy import with_value
from aidotnet_py.autodiff.primitive import Primitive
from aidotnet_py.autodiff.primitives.broadcasting import broadcast_to, sum_
from aidotnet_py.autodiff.primitives.concatenation import concatenate
from aidotnet_py.autodiff.primitives.gather import gather, scatter_add
from aidotnet_py.autodiff.primitives.shape import flip, full, pad, permute_dims, reshape, slice_
from aidotnet_py.autodiff.primitives.sorting import argsort
from aidotnet_py.autodiff.primitives.transformed_windows import Matrix, transformed_fold, transformed_patches
from aidotnet_py.autodiff.primitives.windows import fold, patches
from aidotnet_py.autodiff.types import ArrayType

__all__ = [
    "CASES",
    "Case",
    "all_primitives",
    "conv2d_reference",
    "fold_reference",
    "patches_reference",
    "pool_reference",
]


def all_primitives() -> set[Primitive]:
    """Every primitive that the package declares."""
    return {p for p in primitive._BY_NAME.values() if p.run.__module__.startswith("aidotnet_py.autodiff.primitives")}


Arrays = list[NDArray[Any]]
Shape = tuple[int, ...]
Draw = Callable[[np.random.Generator, Shape], Arrays]


@dataclass(frozen=True)
class Case:
    """A function, arguments on which it is smooth near by, and what NumPy or SciPy says it is."""

    name: str
    function: Callable[..., Any]
    draw: Draw
    reference: Callable[..., Any]
    smooth: bool = True
    axes: tuple[int, int] = (0, 3)
    least: int = 0

    def __str__(self) -> str:
        return self.name


def real(rng: np.random.Generator, shape: Shape) -> NDArray[Any]:
    return np.asarray(rng.uniform(-1.5, 1.5, shape))


def positive(rng: np.random.Generator, shape: Shape) -> NDArray[Any]:
    return np.asarray(rng.uniform(0.6, 2.0, shape))


def nonzero(rng: np.random.Generator, shape: Shape) -> NDArray[Any]:
    return np.asarray(rng.uniform(0.6, 2.0, shape) * rng.choice([-1.0, 1.0], shape))


def apart(rng: np.random.Generator, shape: Shape) -> NDArray[Any]:
    """No two elements nearer than 0.3."""
    n = math.prod(shape)
    return np.asarray(0.3 * (rng.permutation(n) - n / 2) + 0.05).reshape(shape)


def one(kind: Callable[[np.random.Generator, Shape], NDArray[Any]]) -> Draw:
    return lambda rng, shape: [kind(rng, shape)]


def _narrowed(rng: np.random.Generator, shape: Shape) -> Shape:
    """A shape that broadcasts to the one given."""
    kept = tuple(1 if rng.random() < 0.3 else n for n in shape)
    return kept[int(rng.integers(0, len(shape) + 1)) :]


def two(
    left: Callable[[np.random.Generator, Shape], NDArray[Any]],
    right: Callable[[np.random.Generator, Shape], NDArray[Any]],
) -> Draw:
    def draw(rng: np.random.Generator, shape: Shape) -> Arrays:
        shapes = [shape, _narrowed(rng, shape)]
        a, b = shapes if rng.random() < 0.5 else shapes[::-1]
        return [left(rng, a), right(rng, b)]

    return draw


def _unequal(rng: np.random.Generator, shape: Shape) -> Arrays:
    x = real(rng, shape)
    gap = nonzero(rng, shape)
    return [x, np.asarray(x + gap)]


def of(*shapes: Shape, kind: Callable[[np.random.Generator, Shape], NDArray[Any]] = real) -> Draw:
    """Arrays of fixed shapes, whatever the shape asked for."""
    return lambda rng, shape: [kind(rng, s) for s in shapes]


def _rows(length: int, index_shape: Shape, row: Shape) -> Draw:
    return lambda rng, shape: [real(rng, (length, *row)), rng.integers(0, length, index_shape)]


def _values(rows: int, index_shape: Shape, row: Shape) -> Draw:
    return lambda rng, shape: [real(rng, (*index_shape, *row)), rng.integers(0, rows, index_shape)]


def scatter_reference(values: NDArray[Any], indices: NDArray[Any], rows: int) -> NDArray[Any]:
    out = np.zeros((rows, *values.shape[indices.ndim :]), values.dtype)
    for place in np.ndindex(indices.shape):
        out[indices[place]] += values[place]
    return out


def _updates(rows: int, index_shape: Shape, row: Shape) -> Draw:
    return lambda rng, shape: [
        real(rng, (rows, *row)),
        real(rng, (*index_shape, *row)),
        rng.integers(0, rows, index_shape),
    ]


def _set_reference(key: Any) -> Callable[..., Any]:
    def assigned(x: NDArray[Any], value: NDArray[Any]) -> NDArray[Any]:
        y = x.copy()
        y[key] = value
        return y

    return assigned


def _set_rows_reference(x: NDArray[Any], values: NDArray[Any], indices: NDArray[Any]) -> NDArray[Any]:
    y = x.copy()
    for place in np.ndindex(indices.shape):
        y[indices[place]] = values[place]
    return y


def patches_reference(x: NDArray[Any], window: Sequence[int], stride: Sequence[int]) -> NDArray[Any]:
    view = np.lib.stride_tricks.sliding_window_view(x, tuple(window), (1, 2))  # type: ignore[call-overload]
    return np.moveaxis(view[:, :: stride[0], :: stride[1]], 3, -1)


def fold_reference(x: NDArray[Any], image: Sequence[int], stride: Sequence[int]) -> NDArray[Any]:
    out = np.zeros((x.shape[0], *image, x.shape[-1]), x.dtype)
    for n, i, j, a, b, c in np.ndindex(x.shape):
        out[n, i * stride[0] + a, j * stride[1] + b, c] += x[n, i, j, a, b, c]
    return out


def transformed_reference(x: NDArray[Any], matrix: Matrix, stride: int) -> NDArray[Any]:
    """Windows of each group of images, between the matrix and its transpose."""
    size = (len(matrix[0]), len(matrix[0]))
    windows = np.stack([patches_reference(images, size, (stride, stride)) for images in x])
    return np.einsum("ia,jb,gnrcabk->gijnrck", np.array(matrix), np.array(matrix), windows)


def transformed_fold_reference(x: NDArray[Any], matrix: Matrix, image: Sequence[int], stride: int) -> NDArray[Any]:
    windows = np.einsum("ia,jb,gijnrck->gnrcabk", np.array(matrix), np.array(matrix), x)
    return np.stack([fold_reference(of_images, image, (stride, stride)) for of_images in windows])


def conv2d_reference(
    x: NDArray[Any],
    weight: NDArray[Any],
    bias: NDArray[Any] | None = None,
    stride: Sequence[int] = (1, 1),
    margins: Sequence[Sequence[int]] = ((0, 0), (0, 0)),
    groups: int = 1,
) -> NDArray[Any]:
    """Each sum by itself, one image, filter and channel at a time."""
    x = np.pad(x, ((0, 0), *(tuple(m) for m in margins), (0, 0)))
    inner, filters = weight.shape[2], weight.shape[3]
    images = []
    for image in x:
        planes = []
        for f in range(filters):
            first = f // (filters // groups) * inner
            windows = sliding_window_view(image[:, :, first : first + inner], weight.shape[:2], (0, 1))
            plane = np.einsum("ijckl,klc->ij", windows, weight[:, :, :, f])
            planes.append(plane[:: stride[0], :: stride[1]])
        images.append(np.stack(planes, -1))
    y = np.stack(images)
    return y if bias is None else y + bias


def pool_reference(
    x: NDArray[Any],
    window: Sequence[int],
    stride: Sequence[int],
    reduce: Callable[..., Any],
    margins: Sequence[Sequence[int]] = ((0, 0), (0, 0)),
    fill: float = 0.0,
) -> NDArray[Any]:
    x = np.pad(x, ((0, 0), *(tuple(m) for m in margins), (0, 0)), constant_values=fill)
    return np.asarray(reduce(patches_reference(x, window, stride), axis=(3, 4)))


def _normalised(x: NDArray[Any], axes: tuple[int, ...]) -> NDArray[Any]:
    return (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + 1e-5)


_BOTH = ((1, 1), (1, 1))


def _plain(function: Callable[..., Any], draw: Draw, name: str = "", **options: Any) -> Case:
    """A case whose reference is the function itself, run by NumPy on its arrays."""
    return Case(name or function.__name__, function, draw, function, **options)


_unary = [
    *(_plain(f, one(real)) for f in (np.negative, np.exp, np.expm1, np.sin, np.cos, np.tanh, np.square, np.exp2)),
    *(_plain(f, one(real)) for f in (np.sinh, np.cosh, np.arctan)),
    _plain(np.tan, lambda rng, shape: [0.8 * real(rng, shape)]),
    *(_plain(f, one(apart), smooth=False) for f in (np.floor, np.ceil)),
    Case("erf", ad.erf, one(real), scipy.special.erf),
    *(_plain(f, one(positive)) for f in (np.log, np.sqrt, np.log2, np.log10, np.log1p)),
    *(_plain(f, one(nonzero)) for f in (np.absolute, np.fabs, np.sign, np.reciprocal, np.positive)),
    Case("sigmoid", ad.sigmoid, one(real), scipy.special.expit),
    Case("softplus", ad.softplus, one(real), lambda x: np.logaddexp(x, 0.0)),
    Case("relu", ad.relu, one(nonzero), lambda x: np.maximum(x, 0.0)),
    Case("stop_gradient", ad.stop_gradient, one(real), lambda x: x, smooth=False),
    _plain(lambda x: x.astype(np.float32), one(real), "astype", smooth=False),
    _plain(np.isfinite, one(real), smooth=False),
    _plain(lambda x: np.logical_not(x > 0), one(nonzero), "logical_not", smooth=False),
]

_binary = [
    *(_plain(f, two(real, real)) for f in (np.add, np.subtract, np.multiply, np.logaddexp)),
    _plain(np.divide, two(real, nonzero)),
    _plain(np.power, two(positive, real)),
    _plain(np.arctan2, two(real, positive)),
    _plain(lambda x: np.arctan2(x, 2.0) + np.arctan2(-1.5, x), one(positive), "arctan2 of a literal"),
    _plain(np.float_power, two(positive, real)),
    *(_plain(f, _unequal) for f in (np.maximum, np.minimum)),
    *(
        _plain(f, _unequal, smooth=False)
        for f in (np.equal, np.not_equal, np.less, np.less_equal, np.greater, np.greater_equal)
    ),
    _plain(lambda x, y: np.logical_and(x > 0, y > 0), _unequal, "logical_and", smooth=False),
    _plain(lambda x, y: np.logical_or(x > 0, y > 0), _unequal, "logical_or", smooth=False),
    _plain(lambda x, y: (x > 0) & (y > 0) | ~(x < 1), _unequal, "bitwise", smooth=False),
    *(_plain(lambda x, p=p: x**p, one(positive), f"power {p}") for p in (0, 1, 2, 3, 4, 5, -1, 0.5, -1.5)),
    *(_plain(lambda x, p=p: x**p, one(nonzero), f"whole power {p}") for p in (2, 3, 7, -3)),
    _plain(lambda x: 2.0**x, one(real), "power of 2"),
    _plain(lambda x: (3.0 - x) / 2 + 1 / (x + 4.0) - 2 * x, one(real), "literals"),
    _plain(lambda x: np.maximum(x, 0.1) + np.minimum(0.2, x), one(nonzero), "extremum with a literal"),
    _plain(lambda x, y: np.where(x > y, x * y, np.sin(x)), _unequal, "where"),
    _plain(lambda x: np.where(x > 0, x * x, 0.5), one(nonzero), "where with a literal"),
    _plain(lambda x: np.where(x > 0, -1.0, x * x), one(nonzero), "where with a literal first"),
    _plain(lambda x: np.where(x > 0, 1.0, 2.0), one(nonzero), "where of literals", smooth=False),
    _plain(lambda x: np.clip(x, -0.5, 0.5), one(nonzero), "clip"),
    Case("with_value", lambda x: with_value(np.sin(x) + 0.0, np.sin(x)), one(real), np.sin),
]

_reductions = [
    *(
        _plain(
            lambda x, f=f, a=a, k=k: f(x, axis=a, keepdims=k), one(real), f"{f.__name__} over {a}", axes=(2, 3), least=1
        )
        for f in (np.sum, np.mean, np.var)
        for a, k in ((None, False), (0, True), ((-1, 0), False))
    ),
    *(
        _plain(
            lambda x, f=f, a=a, k=k: f(x, axis=a, keepdims=k),
            one(apart),
            f"{f.__name__} over {a}",
            axes=(2, 3),
            least=1,
        )
        for f in (np.max, np.min)
        for a, k in ((None, False), (0, True), ((0, -1), False))
    ),
    *(
        _plain(lambda x, a=a, k=k: np.prod(x, axis=a, keepdims=k), one(real), f"prod over {a}", axes=(2, 3), least=1)
        for a, k in ((None, False), (1, True), ((-1, 0), False))
    ),
    _plain(
        lambda x: np.prod(x, axis=1),
        lambda rng, shape: [real(rng, (2, 5)) * [0.0, 1.0, 0.0, 1.0, 1.0]],
        "prod with zeros",
    ),
    *(_plain(lambda x, a=a: np.cumsum(x, axis=a), one(real), f"cumsum along {a}", axes=(2, 3)) for a in (None, 0, -1)),
    *(
        _plain(
            lambda x, f=f, a=a: f(x, axis=a), one(apart), f"{f.__name__} over {a}", axes=(2, 3), least=1, smooth=False
        )
        for f in (np.argmax, np.argmin)
        for a in (None, 0, -1)
    ),
    _plain(lambda x: np.std(x, axis=0), of((3, 2)), "std"),
    *(
        _plain(lambda x, p=p: np.linalg.norm(x, p, axis=-1), of((3, 2), kind=apart), f"norm {p}")
        for p in (None, 1, 2, np.inf)
    ),
    _plain(lambda x: np.linalg.norm(x, "fro", (0, 2), True), of((3, 2, 2), kind=nonzero), "norm of matrices"),
    _plain(lambda x: (0.5 * np.linalg.norm(x, axis=-1, keepdims=True)) ** 2, of((3, 2), kind=nonzero), "squared norm"),
    _plain(lambda x: np.var(x, ddof=1), of((3, 2)), "var with ddof"),
    Case(
        "logsumexp",
        lambda x: ad.logsumexp(x, -1),
        one(real),
        lambda x: scipy.special.logsumexp(x, axis=-1),
        axes=(1, 3),
        least=1,
    ),
    Case("softmax", ad.softmax, one(real), lambda x: scipy.special.softmax(x, axis=-1), axes=(1, 3), least=1),
    Case(
        "log_softmax", ad.log_softmax, one(real), lambda x: scipy.special.log_softmax(x, axis=-1), axes=(1, 3), least=1
    ),
    Case("batch_norm", ad.batch_norm, of((4, 2, 3), (3,), (3,)), lambda x, a, b: _normalised(x, (0, 1)) * a + b),
    Case("layer_norm", ad.layer_norm, of((2, 5), (5,), (5,)), lambda x, a, b: _normalised(x, (1,)) * a + b),
]

_shapes = [
    Case("reshape", lambda x: reshape(x, (3, 4)), of((2, 6)), lambda x: x.reshape(3, 4)),
    Case("permute_dims", lambda x: permute_dims(x, (2, 0, 1)), of((2, 3, 4)), lambda x: x.transpose(2, 0, 1)),
    Case("slice_", lambda x: slice_(x, ((1, 6, 2), (0, 2, 1))), of((6, 2)), lambda x: x[1:6:2]),
    Case(
        "pad",
        lambda x: pad(x, ((1, 0, 2), (0, 3, 0)), 2.5),
        of((2, 2)),
        lambda x: np.pad(np.insert(x, [1, 1], 2.5, axis=0), ((1, 0), (0, 3)), constant_values=2.5),
    ),
    Case("flip", lambda x: flip(x, (0, 2)), of((2, 3, 2)), lambda x: x[::-1, :, ::-1]),
    Case("full", lambda x: full(ArrayType((2,), x.dtype), 3.0) * x, of((2,)), lambda x: 3 * x),
    Case("broadcast_to", lambda x: broadcast_to(x, (2, 3, 2)), of((3, 1)), lambda x: np.broadcast_to(x, (2, 3, 2))),
    Case("sum_", lambda x: sum_(x, (0, 2)), of((2, 3, 2)), lambda x: x.sum((0, 2))),
    Case("concatenate", lambda x, y: concatenate([x, y, x], 1), of((2, 1), (2, 3)), lambda x, y: np.hstack([x, y, x])),
    _plain(lambda x: np.ravel(x.T), of((2, 3)), "ravel of a transpose"),
    _plain(lambda x: x.reshape(-1, 2)[::-1].T.reshape(2, -1), of((2, 3)), "reshapes that copy"),
    _plain(lambda x: np.swapaxes(x, 0, -1), of((2, 3, 4)), "swapaxes"),
    _plain(lambda x: np.moveaxis(x, (0, 1), (-1, 0)), of((2, 3, 4)), "moveaxis"),
    _plain(lambda x: np.expand_dims(x, (0, -1)), one(real), "expand_dims"),
    _plain(lambda x: np.squeeze(x, 1), of((2, 1, 1)), "squeeze"),
    _plain(lambda x, y: np.stack([x, y], -1), of((2, 3), (2, 3)), "stack"),
    _plain(lambda x: np.pad(x, ((1, 2), (0, 1)), constant_values=2.0), of((2, 3)), "np.pad"),
    _plain(lambda x: np.roll(x, 2, 1), of((2, 3)), "roll"),
    _plain(lambda x: np.roll(x, -4), of((2, 3)), "flat roll"),
    _plain(lambda x: np.repeat(x, 3, 1), of((2, 3)), "repeat"),
    _plain(lambda x: np.tile(x, (2, 1, 3)), of((2, 3)), "tile"),
    _plain(lambda x, y: np.vstack([x, y, x]), of((3,), (2, 3)), "vstack"),
    _plain(lambda x, y: np.hstack([x, y, x]), of((2, 1), (2, 3)), "hstack"),
    *(_plain(lambda x, k=k: np.diag(x, k), of((3,)), f"diag {k} of a vector") for k in (0, 1, -2)),
    *(_plain(lambda x, k=k: np.diag(x, k), of((3, 4)), f"diag {k} of a matrix") for k in (0, 2, -1)),
    _plain(lambda x: np.diagonal(x, -1, 2, 0), of((3, 2, 4)), "diagonal"),
    _plain(lambda x: np.trace(x, 1, 0, -1), of((3, 2, 4)), "trace"),
    *(_plain(lambda x, f=f: f(x, 1), of((2, 3, 3)), f.__name__) for f in (np.tril, np.triu)),
    *(_plain(lambda x, a=a: np.sort(x, a), one(apart), f"sort along {a}", axes=(1, 3)) for a in (None, 0, -1)),
    _plain(lambda x: np.argsort(x, 0), one(apart), "argsort along 0", axes=(1, 3), smooth=False),
    _plain(lambda x: np.copy(x) + np.zeros_like(x) + np.ones_like(x) + np.full_like(x, 2.0), one(real), "likes"),
]

_indexing = [
    Case("gather", gather, _rows(5, (2, 3), (2,)), lambda x, i: x[i]),
    Case(
        "scatter_add",
        lambda x, i: scatter_add(x, i, 4),
        _values(4, (2, 3), (2,)),
        lambda x, i: scatter_reference(x, i, 4),
    ),
    _plain(lambda x: x[1, ..., ::-2, None], of((2, 3, 4)), "index"),
    _plain(lambda x: x[:, [2, 0, -1]], of((2, 3)), "index with a list"),
    _plain(lambda x: x[0, :, [1, 2]], of((2, 3, 4)), "index with an int and a list apart"),
    _plain(lambda x: x[:, 1, [[1, 2], [0, 0]]], of((2, 3, 4)), "index with an int and a list"),
    _plain(lambda x: x[-1:0:-1, 5:2], of((3, 4)), "index of nothing"),
    Case("take", lambda x, i: np.take(x, i, axis=1), _rows(3, (2, 2), (3,)), lambda x, i: np.take(x, i, 1)),
    Case("take, flat", lambda x, i: np.take(x, i - 2), _rows(3, (2,), (3,)), lambda x, i: np.take(x, i - 2)),
    Case(
        "take_along_axis",
        lambda x, i: np.take_along_axis(x, i - 3, axis=0),
        lambda rng, shape: [real(rng, (3, 2)), rng.integers(0, 3, (4, 2))],
        lambda x, i: np.take_along_axis(x, i - 3, axis=0),
    ),
    Case(
        "at a span, set",
        lambda x, y: ad.at(x)[1, ::-2].set(y),
        of((2, 4), (2,)),
        _set_reference((1, slice(None, None, -2))),
    ),
    Case(
        "at a list, set",
        lambda x, y: ad.at(x)[:, [2, 0]].set(y),
        of((2, 3), (2, 2)),
        _set_reference((slice(None), [2, 0])),
    ),
    Case("at indices, set", lambda x, y, i: ad.at(x)[i].set(y), _updates(3, (4,), (2,)), _set_rows_reference),
    Case(
        "at indices, add",
        lambda x, y, i: ad.at(x)[i].add(y),
        _updates(3, (2, 2), (2,)),
        lambda x, y, i: x + scatter_reference(y, i, len(x)),
    ),
    Case(
        "argsort", lambda x: argsort(x), one(apart), lambda x: np.argsort(x, kind="stable"), axes=(1, 3), smooth=False
    ),
    Case(
        "one_hot",
        lambda i: ad.one_hot(i, 4),
        lambda rng, shape: [rng.integers(0, 4, shape)],
        lambda i: np.eye(4)[i],
        smooth=False,
    ),
]

_products = [
    *(
        _plain(np.matmul, of(a, b), f"matmul {a} {b}")
        for a, b in (
            ((3,), (3,)),
            ((2, 3), (3,)),
            ((3,), (3, 2)),
            ((2, 3), (3, 4)),
            ((2, 2, 3), (3, 2)),
            ((2, 3), (4, 3, 2)),
            ((2, 1, 2, 3), (3, 3, 2)),
            ((2, 0), (0, 3)),
        )
    ),
    _plain(lambda x, y: x.T @ y.T, of((3, 2), (4, 3)), "matmul of transposes"),
    _plain(np.dot, of((2, 2, 3), (3, 2)), "dot"),
    _plain(np.outer, of((2,), (3,)), "outer"),
    _plain(np.inner, of((2, 3), (4, 3)), "inner"),
    *(
        _plain(lambda x, y, a=a: np.tensordot(x, y, a), of((2, 3, 2), (2, 3, 2)), f"tensordot {a}")
        for a in (0, 1, ([0, 1], [2, 1]), (1, -2))
    ),
    *(
        _plain(lambda *x, s=s: np.einsum(s, *x), of(*shapes), f"einsum {s}")
        for s, *shapes in (
            ("ij->ji", (2, 3)),
            ("iji->j", (2, 3, 2)),
            ("ij,jk,kl->il", (2, 3), (3, 1), (1, 2)),
            ("i,ij,j", (2,), (2, 3), (3,)),
            ("ab,bc,ca,a->", (2, 3), (3, 2), (2, 2), (2,)),
        )
    ),
    *(
        _plain(lambda x, y, s=s: np.einsum(s, x, y), of(a, b), f"einsum {s}")
        for s, a, b in (
            ("ij,jk->ik", (2, 3), (3, 2)),
            ("bij,bkj->bki", (2, 2, 3), (2, 2, 3)),
            ("aij,k->kj", (2, 2, 3), (2,)),
            ("ij,ij->j", (2, 3), (2, 3)),
        )
    ),
]

_MATRIX: Matrix = ((1.0, 0.0, -1.0), (0.0, 0.5, 1.0), (0.0, -1.0, 0.0), (-2.0, 1.0, 0.25))

_windows = [
    Case(
        "patches",
        lambda x: patches(x, (2, 3), (2, 1)),
        of((2, 5, 4, 2)),
        lambda x: patches_reference(x, (2, 3), (2, 1)),
    ),
    Case(
        "fold",
        lambda x: fold(x, (5, 4), (2, 1)),
        of((2, 2, 2, 2, 3, 1)),
        lambda x: fold_reference(x, (5, 4), (2, 1)),
    ),
    Case(
        "transformed_patches",
        lambda x: transformed_patches(x, _MATRIX, 2),
        of((2, 1, 7, 5, 2)),
        lambda x: transformed_reference(x, _MATRIX, 2),
    ),
    Case(
        "transformed_fold",
        lambda x: transformed_fold(x, _MATRIX, (7, 6), 2),
        of((1, 4, 4, 2, 3, 2, 1)),
        lambda x: transformed_fold_reference(x, _MATRIX, (7, 6), 2),
    ),
    Case(
        "transformed_fold of windows side by side",
        lambda x: transformed_fold(x, _MATRIX, (6, 3), 3),
        of((1, 4, 4, 1, 2, 1, 2)),
        lambda x: transformed_fold_reference(x, _MATRIX, (6, 3), 3),
    ),
    Case(
        "conv2d",
        lambda x, w, b: ad.conv2d(x, w, b, stride=(2, 1), padding=1),
        of((2, 4, 3, 2), (3, 2, 2, 3), (3,)),
        lambda x, w, b: conv2d_reference(x, w, b, (2, 1), _BOTH),
    ),
    Case(
        "conv2d in groups",
        lambda x, w: ad.conv2d(x, w, padding="valid", groups=2),
        of((1, 3, 3, 4), (2, 2, 2, 4)),
        lambda x, w: conv2d_reference(x, w, groups=2),
    ),
    Case(
        "max_pool2d",
        lambda x: ad.max_pool2d(x, 2),
        of((1, 5, 4, 2), kind=apart),
        lambda x: pool_reference(x, (2, 2), (2, 2), np.max),
    ),
    Case(
        "max_pool2d, overlapping",
        lambda x: ad.max_pool2d(x, 2, stride=1, padding=1),
        of((1, 3, 3, 1), kind=apart),
        lambda x: pool_reference(x, (2, 2), (1, 1), np.max, _BOTH, -np.inf),
    ),
    Case(
        "average_pool2d",
        lambda x: ad.average_pool2d(x, (2, 3), stride=2, padding=1),
        of((1, 3, 4, 2)),
        lambda x: pool_reference(x, (2, 3), (2, 2), np.mean, _BOTH),
    ),
]


def _dominant(x: Any) -> Any:
    """x + 5I, well-conditioned whatever the numbers."""
    return x + 5.0 * np.diag(np.ones_like(x.reshape(-1)[:3]))


def _gram(x: Any) -> Any:
    return _dominant(x @ x.T)


_linear_algebra = [
    _plain(lambda x, b: np.linalg.solve(_dominant(x), b), of((2, 3, 3), (3, 2)), "solve"),
    _plain(lambda x, b: np.linalg.solve(_dominant(x), b), of((3, 3), (3,)), "solve for a vector"),
    _plain(lambda x: np.linalg.inv(_dominant(x)), of((2, 3, 3)), "inv"),
    _plain(lambda x: np.linalg.det(_dominant(x)), of((3, 3)), "det"),
    _plain(lambda x: np.linalg.slogdet(-_dominant(x))[1], of((2, 3, 3)), "slogdet"),
    _plain(lambda x: np.linalg.slogdet(-_dominant(x))[0], of((2, 3, 3)), "slogdet, sign", smooth=False),
    _plain(lambda x: np.linalg.cholesky(_dominant(x)), of((2, 3, 3)), "cholesky"),
    _plain(lambda x: np.linalg.cholesky(_gram(x), upper=True), of((3, 3)), "cholesky, upper"),
]

CASES = [*_linear_algebra, *_unary, *_binary, *_reductions, *_shapes, *_indexing, *_products, *_windows]

assert len({case.name for case in CASES}) == len(CASES)
