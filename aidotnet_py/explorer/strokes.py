"""Drawn strokes as images like those of scikit-learn's digits: 8 × 8 shares of ink in blocks of a 32 × 32 bitmap."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from aidotnet_py.exceptions import ArgumentException

__all__ = ["MOST_POINTS", "MOST_STROKES", "rasterize"]

# A drawing of more points or strokes is none that a hand has made, and would keep the server busy for long.
MOST_POINTS, MOST_STROKES = 20_000, 200

_SIDE, _BLOCK = 32, 4
# Half the width of a line, and how much room a digit fills, in pixels of the bitmap.
_PEN, _HEIGHT, _WIDTH = 2.0, 28.0, 21.0


def rasterize(strokes: Sequence[tuple[Sequence[float], Sequence[float]]]) -> NDArray[np.float32]:
    """Return an image (8, 8) of strokes, with their middle in its middle, as large as the digits of the data.

    Parameters
    ----------
    strokes : sequence of (xs, ys)
        The points of each stroke, x to the right and y up, in any unit.

    Returns
    -------
    NDArray of float32, shape (8, 8)
        The share of ink in each block of 4 × 4 pixels, from 0 to 1.

    Raises
    ------
    ArgumentException
        When there is no stroke, one has not as many xs as ys, there are too many strokes or points, or a point is
        not finite.
    """
    if len(strokes) > MOST_STROKES:
        raise ArgumentException(f"the drawing must have at most {MOST_STROKES} strokes, got {len(strokes)}")
    points = [_points(*stroke) for stroke in strokes]
    points = [stroke for stroke in points if len(stroke)]
    if not points:
        raise ArgumentException("the drawing must have a stroke, got none")
    if sum(map(len, points)) > MOST_POINTS:
        raise ArgumentException(f"the drawing must have at most {MOST_POINTS} points, got {sum(map(len, points))}")
    every = np.concatenate(points)
    low, high = every.min(axis=0), every.max(axis=0)
    # The sum of both may be too large.
    size, middle = np.maximum(high - low, 1e-9), low / 2 + high / 2
    # A dot stays a dot: it is not blown up to the size of a digit.
    scale = min(_WIDTH / size[0], _HEIGHT / size[1]) if size.max() > 1e-6 else 0.0
    bitmap = np.zeros((_SIDE, _SIDE), np.bool_)
    for stroke in points:
        _ink(bitmap, _dense((stroke - middle) * scale))
    blocks = bitmap.reshape(_SIDE // _BLOCK, _BLOCK, _SIDE // _BLOCK, _BLOCK)
    return np.asarray(blocks.mean(axis=(1, 3)), np.float32)


def _points(xs: Sequence[float], ys: Sequence[float]) -> NDArray[np.float64]:
    try:
        across, up = np.asarray(xs, np.float64).ravel(), np.asarray(ys, np.float64).ravel()
    except (TypeError, ValueError) as error:
        raise ArgumentException(f"a stroke must be numbers, got {error}") from error
    if len(across) != len(up):
        raise ArgumentException(f"a stroke must have as many xs as ys, got {len(across)} and {len(up)}")
    points = np.stack([across, up], axis=1)
    if not np.isfinite(points).all():
        raise ArgumentException("a stroke must have finite points, got one that is not")
    return points


def _dense(stroke: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return points of a line no more than half a pixel apart."""
    lengths = np.linalg.norm(np.diff(stroke, axis=0), axis=1)
    at = np.concatenate([[0.0], np.cumsum(lengths)])
    places: NDArray[np.float64] = np.linspace(0.0, float(at[-1]), math.ceil(2 * at[-1]) + 1)
    return np.stack([np.interp(places, at, stroke[:, axis]) for axis in (0, 1)], axis=1)


def _ink(bitmap: NDArray[np.bool_], dots: NDArray[np.float64]) -> None:
    """Blacken all pixels whose middle is in the pen's reach of a dot."""
    # Rows of an image go down.
    across, down = dots[:, 0] + _SIDE / 2, _SIDE / 2 - dots[:, 1]
    column, row = np.floor(across).astype(np.intp), np.floor(down).astype(np.intp)
    reach = range(-int(_PEN), int(_PEN) + 1)
    for x, y in itertools.product(reach, reach):
        near = (column + x + 0.5 - across) ** 2 + (row + y + 0.5 - down) ** 2 <= _PEN**2
        bitmap[row[near] + y, column[near] + x] = True
