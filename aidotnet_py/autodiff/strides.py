"""The layout of arrays: strides, counted in elements, and views without copies."""

from __future__ import annotations

import math
from functools import lru_cache
from itertools import pairwise

__all__ = [
    "c_strides",
    "common_refinement",
    "fits_matrix_product",
    "is_contiguous",
    "is_in_c_order",
    "refined_strides",
    "reshaped_strides",
]


@lru_cache(maxsize=4096)
def c_strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the strides of C order."""
    return tuple(math.prod(shape[i + 1 :]) for i in range(len(shape)))


def is_contiguous(shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    """Whether the elements lie side by side in C order; axes of length 1 do not matter."""
    return all(n == 1 or s == c for n, s, c in zip(shape, strides, c_strides(shape), strict=True))


def is_in_c_order(shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    """Whether elements come one after another in C order, also with others in between."""
    long = [(n, s) for n, s in zip(shape, strides, strict=True) if n != 1]
    return all(outer > (n - 1) * inner > 0 for (_, outer), (n, inner) in pairwise(long))


def reshaped_strides(
    shape: tuple[int, ...], strides: tuple[int, ...], wanted: tuple[int, ...]
) -> tuple[int, ...] | None:
    """Return the strides of a view with another shape, or None if only a copy has that shape.

    Both shapes are cut into the shortest runs of axes of equal size; each run of the old shape must be evenly spaced,
    like one axis.
    """
    if math.prod(shape) == 0:
        return c_strides(wanted)
    old = [(n, s) for n, s in zip(shape, strides, strict=True) if n != 1]
    result: list[int] = []
    i = j = 0
    while j < len(wanted):
        if wanted[j] == 1:
            result.append(0)
            j += 1
            continue
        first_i, first_j = i, j
        have, want = old[i][0], wanted[j]
        i, j = i + 1, j + 1
        while have != want:
            if have < want:
                have, i = have * old[i][0], i + 1
            else:
                want, j = want * wanted[j], j + 1
        run = old[first_i:i]
        if any(outer != inner * n for (_, outer), (n, inner) in pairwise(run)):
            return None
        result.extend(s * run[-1][1] for s in c_strides(wanted[first_j:j]))
    return tuple(result)


def fits_matrix_product(shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    """Whether BLAS accepts the layout of the last two axes: one of unit stride, the other not overlapping it."""
    (m, n), (row, column) = shape[-2:], strides[-2:]
    by_rows = (column == 1 or n == 1) and (row >= n or m == 1)
    by_columns = (row == 1 or m == 1) and (column >= m or n == 1)
    return by_rows or by_columns


def common_refinement(x: tuple[int, ...], y: tuple[int, ...]) -> tuple[int, ...] | None:
    """Return the shape with the fewest axes that can be merged, in C order, into both shapes; None if there is none."""
    if x == y:
        return x
    if math.prod(x) != math.prod(y) or 0 in x or 0 in y:
        return None
    left, right = [n for n in reversed(x) if n != 1], [n for n in reversed(y) if n != 1]
    shape: list[int] = []
    while left:
        n, m = left.pop(), right.pop()
        small = min(n, m)
        if n % small or m % small:
            return None
        shape.append(small)
        left += [n // small] * (n != small)
        right += [m // small] * (m != small)
    return tuple(shape)


def refined_strides(shape: tuple[int, ...], strides: tuple[int, ...], refinement: tuple[int, ...]) -> tuple[int, ...]:
    """Return the strides of an array viewed in a refinement of its shape."""
    if shape == refinement:
        return strides
    axes = iter([(n, s) for n, s in zip(shape, strides, strict=True) if n != 1])
    result: list[int] = []
    rest = step = 1
    for n in refinement:
        if n != 1 and rest == 1:
            rest, step = next(axes)
        rest //= n
        result.append(step * rest)
    return tuple(result)
