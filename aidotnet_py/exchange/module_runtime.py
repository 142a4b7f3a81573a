"""The fixed part of the modules that `export_numpy` writes: a function for each primitive, of NumPy alone."""

# Functions have the names and parameters of primitives; a name that Python has itself ends in an underscore.
from __future__ import annotations

import argparse
import base64
import math
from collections.abc import Callable
from typing import Any

import numpy as np

add, subtract, multiply, divide, power = np.add, np.subtract, np.multiply, np.divide, np.power
maximum, minimum, negative, absolute, sign = np.maximum, np.minimum, np.negative, np.absolute, np.sign
exp, expm1, log, log1p, sqrt, floor, ceil = np.exp, np.expm1, np.log, np.log1p, np.sqrt, np.floor, np.ceil
sin, cos, tan, sinh, cosh, tanh, arctan, arctan2 = (
    np.sin, np.cos, np.tan, np.sinh, np.cosh, np.tanh, np.arctan, np.arctan2
)  # fmt: skip
equal, not_equal, less, less_equal = np.equal, np.not_equal, np.less, np.less_equal
greater, greater_equal, isfinite = np.greater, np.greater_equal, np.isfinite
logical_and, logical_or, logical_not, where = np.logical_and, np.logical_or, np.logical_not, np.where
matmul, solve, cholesky, broadcast_to = np.matmul, np.linalg.solve, np.linalg.cholesky, np.broadcast_to
reshape, permute_dims = np.reshape, np.transpose


def astype(x: Any, dtype: str) -> Any:
    return np.asarray(x).astype(dtype)


def relu(x: Any) -> Any:
    return np.maximum(x, 0)


def sigmoid(x: Any) -> Any:
    return np.reciprocal(np.exp(-x) + 1)


def softplus(x: Any) -> Any:
    return np.logaddexp(x, 0)


def erf(x: Any) -> Any:
    return np.vectorize(math.erf, otypes=[float])(x).astype(np.asarray(x).dtype)


def with_value(value: Any, x: Any) -> Any:
    return value


def root(value: Any, square: Any) -> Any:
    return value


def stop_gradient(x: Any) -> Any:
    return x


def sum_(x: Any, axes: tuple[int, ...]) -> Any:
    return np.sum(x, axes, dtype=x.dtype)


def max_(x: Any, axes: tuple[int, ...]) -> Any:
    return np.max(x, axes)


def cumulative_sum(x: Any, axis: int) -> Any:
    return np.cumsum(x, axis, dtype=x.dtype)


def full(type: tuple[tuple[int, ...], str], value: Any) -> Any:
    return np.full(type[0], value, type[1])


def slice_(x: Any, spans: tuple[tuple[int, int, int], ...]) -> Any:
    return x[(*(slice(*span) for span in spans), ...)]


def flip(x: Any, axes: tuple[int, ...]) -> Any:
    return np.flip(x, axes)


def concatenate(*arrays: Any, axis: int) -> Any:
    return np.concatenate(arrays, axis)


def pad(x: Any, margins: tuple[tuple[int, int, int], ...], value: Any) -> Any:
    stretched = [n + max(n - 1, 0) * between for n, (_, _, between) in zip(x.shape, margins, strict=True)]
    lengths = [before + n + after for n, (before, after, _) in zip(stretched, margins, strict=True)]
    padded: Any = np.full(lengths, value, x.dtype)
    bounds = zip(stretched, margins, strict=True)
    padded[(*(slice(before, before + n, between + 1) for n, (before, _, between) in bounds), ...)] = x
    return padded


def patches(x: Any, window: tuple[int, int], stride: tuple[int, int]) -> Any:
    windows = np.lib.stride_tricks.sliding_window_view(x, window, (1, 2))[:, :: stride[0], :: stride[1]]
    return np.ascontiguousarray(np.moveaxis(windows, 3, 5))


def fold(x: Any, image: tuple[int, int], stride: tuple[int, int]) -> Any:
    n, rows, columns, height, width, channels = x.shape
    images = np.zeros((n, *image, channels), x.dtype)
    down, across = (rows - 1) * stride[0] + 1, (columns - 1) * stride[1] + 1
    for i in range(height):
        for j in range(width):
            images[:, i : i + down : stride[0], j : j + across : stride[1]] += x[:, :, :, i, j]
    return images


def wrap_indices(indices: Any, length: int) -> Any:
    if np.any((indices < -length) | (indices >= length)):
        raise IndexError(f"indices must be from {-length} to {length - 1}, got {indices.min()} to {indices.max()}")
    wrapped: Any = np.asarray(indices, np.int64).copy()
    return np.add(wrapped, length, out=wrapped, where=wrapped < 0)


def gather(x: Any, indices: Any) -> Any:
    return x[indices]


def scatter_add(values: Any, indices: Any, rows: int) -> Any:
    sums = np.zeros((rows, *values.shape[np.ndim(indices) :]), values.dtype)
    np.add.at(sums, indices, values)
    return sums


def argsort(x: Any) -> Any:
    return np.argsort(x, axis=-1, kind="stable")


def slogdet(x: Any) -> Any:
    return np.stack(np.linalg.slogdet(x), axis=-1)


def array_of(text: str, dtype: str, shape: tuple[int, ...]) -> Any:
    return np.frombuffer(base64.b64decode(text), dtype).reshape(shape)


def checked(x: Any, dtype: str, shape: tuple[int, ...], refused: tuple[int, ...]) -> Any:
    x = np.asarray(x)
    if x.dtype != dtype or x.ndim == 0 or x.shape[1:] != shape:
        wanted = ", ".join(["n", *map(str, shape)])
        hint = "" if x.dtype == dtype else f"; use x.astype({dtype!r})"
        raise ValueError(f"x must be an array of {dtype} and shape ({wanted}), got {x.dtype} and {x.shape}{hint}")
    if len(x) in refused:
        raise ValueError(f"x must have a number of examples that the model takes, got {len(x)}; see its Predict")
    return x


def main(predict: Callable[[Any], Any], description: str) -> None:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("inputs", help="a file of NumPy, *.npy")
    parser.add_argument("outputs", help="the file to write, *.npy")
    given = parser.parse_args()
    np.save(given.outputs, predict(np.load(given.inputs, allow_pickle=False)))
