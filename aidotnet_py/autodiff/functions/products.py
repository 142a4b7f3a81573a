"""NumPy's products of arrays, on traced values."""

# What has rules that are lambdas is not typed.
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from aidotnet_py.autodiff.functions.axes import positive_axes
from aidotnet_py.autodiff.functions.diagonals import diagonal
from aidotnet_py.autodiff.primitives import elementwise as ew
from aidotnet_py.autodiff.primitives.broadcasting import sum_
from aidotnet_py.autodiff.primitives.matmul import matmul
from aidotnet_py.autodiff.primitives.shape import as_array, permute_dims, reshape
from aidotnet_py.autodiff.tracing.value_types import type_of
from aidotnet_py.exceptions import ArgumentException, NotSupportedException

__all__ = ["dot", "einsum", "inner", "outer", "tensordot"]


def dot(a: Any, b: Any) -> Any:
    """Compute `numpy.dot`, for at most two axes on the right."""
    if not type_of(a).shape or not type_of(b).shape:
        return _scaled(a, b)
    if len(type_of(b).shape) > 2:
        raise NotSupportedException(
            "np.dot must have at most two axes on the right for a traced value, got more; use np.matmul"
        )
    return matmul(a, b)


def _scaled(a: Any, b: Any) -> Any:
    # Unlike operators, NumPy's products take a plain number for an array of its own dtype.
    return ew.multiply(as_array(a), as_array(b))


def outer(a: Any, b: Any) -> Any:
    """Compute `numpy.outer`."""
    return ew.multiply(reshape(a, (type_of(a).size, 1)), reshape(b, (1, type_of(b).size)))


def inner(a: Any, b: Any) -> Any:
    """Compute `numpy.inner`: products summed over the last axes."""
    if not type_of(a).shape or not type_of(b).shape:
        return _scaled(a, b)
    return tensordot(a, b, (-1, -1))


def tensordot(a: Any, b: Any, axes: Any = 2) -> Any:
    """Compute `numpy.tensordot`: products summed over pairs of axes."""
    left, right = type_of(a).shape, type_of(b).shape
    if isinstance(axes, (int, np.integer)):
        count = int(axes)
        if not 0 <= count <= min(len(left), len(right)):
            raise ArgumentException(f"axes must be a number of axes of the shapes {left} and {right}, got {axes}")
        of_left, of_right = list(range(len(left) - count, len(left))), list(range(count))
    else:
        of_left, of_right = positive_axes(axes[0], len(left)), positive_axes(axes[1], len(right))
    if [left[i] for i in of_left] != [right[i] for i in of_right]:
        raise ArgumentException(f"axes must pair axes of one length of the shapes {left} and {right}, got {axes}")
    rows = [i for i in range(len(left)) if i not in of_left]
    columns = [i for i in range(len(right)) if i not in of_right]
    m, n = math.prod(left[i] for i in rows), math.prod(right[i] for i in columns)
    k = math.prod(left[i] for i in of_left)
    product = matmul(
        reshape(permute_dims(a, (*rows, *of_left)), (m, k)), reshape(permute_dims(b, (*of_right, *columns)), (k, n))
    )
    return reshape(product, (*(left[i] for i in rows), *(right[i] for i in columns)))


# An operand of einsum with the letters of its axes.
_Term = tuple[Any, str]


def einsum(subscripts: Any, *operands: Any, optimize: Any = False) -> Any:
    """Compute `numpy.einsum` of letters without an ellipsis: products of two operands at a time, in a greedy order."""
    if not isinstance(subscripts, str):
        raise NotSupportedException(
            f"einsum must have its subscripts first, as a text, to be traced, got {type(subscripts).__name__}"
        )
    arrays = [as_array(x) for x in operands]
    inputs, result = _parsed(subscripts, [x.shape for x in arrays])
    dtype = np.result_type(*(type_of(x).dtype for x in arrays))
    terms = [_without_repeats(ew.astype(x, dtype), letters) for x, letters in zip(arrays, inputs, strict=True)]
    for chosen in _order(terms, result):
        group = [terms[i] for i in chosen]
        terms = [term for i, term in enumerate(terms) if i not in chosen]
        while len(group) > 1:
            first, second, *group = group
            others = "".join(letters for _, letters in (*group, *terms))
            group.insert(0, _contracted(first, second, {*result, *others}))
        terms += group
    ((x, letters),) = terms
    x = sum_(x, tuple(i for i, c in enumerate(letters) if c not in result))
    letters = "".join(c for c in letters if c in result)
    return permute_dims(x, tuple(letters.index(c) for c in result))


def _parsed(subscripts: str, shapes: Sequence[tuple[int, ...]]) -> tuple[list[str], str]:
    """Return the letters of each operand and of the result."""
    text = subscripts.replace(" ", "")
    if not set(text) <= {*"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ,->"}:
        raise NotSupportedException(f"einsum must have letters, without an ellipsis, to be traced, got {subscripts!r}")
    left, arrow, result = text.partition("->")
    inputs = left.split(",")
    if not arrow:
        # As NumPy has it: the letters that appear once, in their alphabetical order.
        result = "".join(sorted(c for c in left if c != "," and left.count(c) == 1))
    if not set(result) <= {*left} - {","} or len(set(result)) < len(result):
        raise ArgumentException(
            f"einsum must have only letters of its operands in the result, each once, got {subscripts!r}"
        )
    pairs = [pair for part, shape in zip(inputs, shapes, strict=False) for pair in zip(part, shape, strict=False)]
    if [len(part) for part in inputs] != [len(shape) for shape in shapes] or len(set(pairs)) > len(dict(pairs)):
        raise ArgumentException(f"einsum must fit the shapes {' and '.join(map(str, shapes))}, got {subscripts!r}")
    return inputs, result


def _without_repeats(x: Any, letters: str) -> _Term:
    """Return the operand with the diagonal of axes that have one letter."""
    for c in dict.fromkeys(letters):
        while letters.count(c) > 1:
            i, j = letters.index(c), letters.rindex(c)
            x = diagonal(x, 0, i, j)
            letters = "".join(d for k, d in enumerate(letters) if k not in (i, j)) + c
    return x, letters


def _order(terms: Sequence[_Term], result: str) -> list[tuple[int, ...]]:
    """Return the places of the operands to contract, step after step; a step's product joins at the end."""
    if len(terms) <= 2:
        return [tuple(range(len(terms)))]
    subscripts = ",".join(letters for _, letters in terms) + "->" + result
    # The order hangs on shapes alone.
    zeros = [np.broadcast_to(np.float64(0.0), x.shape) for x, _ in terms]
    return [tuple(step) for step in np.einsum_path(subscripts, *zeros, optimize="greedy")[0][1:]]


def _contracted(first: _Term, second: _Term, kept: Collection[str]) -> _Term:
    """Return the product of two operands, summed over the letters that are not kept."""
    (a, left), (b, right) = first, second
    a = sum_(a, tuple(i for i, c in enumerate(left) if c not in right and c not in kept))
    left = "".join(c for c in left if c in right or c in kept)
    b = sum_(b, tuple(i for i, c in enumerate(right) if c not in left and c not in kept))
    right = "".join(c for c in right if c in left or c in kept)
    batch = [c for c in left if c in right and c in kept]
    inside = [c for c in left if c in right and c not in kept]
    rows = [c for c in left if c not in right]
    columns = [c for c in right if c not in left]
    size = dict(zip(left, a.shape, strict=True)) | dict(zip(right, b.shape, strict=True))

    def arrange(x: Any, have: str, *groups: list[str]) -> Any:
        ordered = permute_dims(x, tuple(have.index(c) for group in groups for c in group))
        lead, *last = groups
        return reshape(ordered, (*(size[c] for c in lead), *(math.prod(size[c] for c in g) for g in last)))

    product = matmul(arrange(a, left, batch, rows, inside), arrange(b, right, batch, inside, columns))
    letters = "".join([*batch, *rows, *columns])
    return reshape(product, tuple(size[c] for c in letters)), letters
