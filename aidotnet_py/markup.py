"""HTML for notebooks: tables, texts, thumbnails and small curves that need no network and read on light and dark.

Whatever comes from outside is escaped. Colours are the page's own, and grey.
"""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["curve", "figures", "scatter", "table", "text", "thumbnail"]

_LINE = "1px solid rgba(128,128,128,.4)"
_WIDTH, _HEIGHT, _MARGIN = 240, 80, 5
# The longest side of a thumbnail in pixels of the image, and on the page.
_MOST_PIXELS, _SIDE = 64, 48
# A longer curve is thinned out: the text of a page holds every point.
_MOST_POINTS = 400


def table(title: str, header: Sequence[str], rows: Iterable[Sequence[object]], note: str = "") -> str:
    """Return a table under a title, with a note under it; an empty header is left out."""
    head = "".join(_cell("th", name) for name in header)
    body = "".join(f"<tr>{''.join(_cell('td', value) for value in row)}</tr>" for row in rows)
    return (
        f'<div><strong>{escape(title)}</strong><table style="border-collapse:collapse;border-top:{_LINE};'
        f'border-bottom:{_LINE}">'
        + (f"<thead><tr>{head}</tr></thead>" if header else "")
        + f"<tbody>{body}</tbody></table>{_note(note)}</div>"
    )


def _cell(tag: str, value: object) -> str:
    return f'<{tag} style="text-align:left;padding:2px 8px">{escape(str(value))}</{tag}>'


def _note(note: str) -> str:
    return f'<div style="opacity:.7;font-size:smaller">{escape(note)}</div>' if note else ""


def text(title: str, lines: str, note: str = "") -> str:
    """Return lines of text of fixed width that a click folds away and that scroll where there are many."""
    return (
        f'<details open><summary><strong>{escape(title)}</strong></summary><pre style="max-height:24em;overflow:auto">'
        f"{escape(lines)}</pre>{_note(note)}</details>"
    )


def figures(title: str, rows: Iterable[tuple[str, Sequence[tuple[str, str]]]], note: str = "") -> str:
    """Return rows of pictures, given as HTML with their captions, each row under a name."""
    body = "".join(
        f'<div style="display:flex;flex-wrap:wrap;gap:6px;align-items:end;margin:4px 0"><span style="min-width:4em">'
        f"{escape(name)}</span>{''.join(_figure(picture, caption) for picture, caption in pictures)}</div>"
        for name, pictures in rows
    )
    return f"<div><strong>{escape(title)}</strong>{body}{_note(note)}</div>"


def _figure(picture: str, caption: str) -> str:
    below = f'<div style="font-size:smaller;text-align:center">{escape(caption)}</div>' if caption else ""
    return f"<div>{picture}{below}</div>"


def thumbnail(image: NDArray[Any], *, is_ink: bool = False) -> str:
    """Return an image (height, width, channels) as an ``img``: of three channels in colour, else the first in grey.

    0 is black and 1 white, or the least and the largest value if these are beyond; the reverse for ink. What is not
    finite is as the least value. Large images are thinned out.
    """
    stride = max(1, -(-max(image.shape[:2]) // _MOST_PIXELS))
    pixels = np.asarray(image[::stride, ::stride], np.float64)
    pixels = pixels if pixels.shape[2] == 3 else pixels[:, :, :1]
    sound = np.isfinite(pixels)
    least, most = float(pixels[sound].min(initial=0.0)), float(pixels[sound].max(initial=1.0))
    scaled = np.where(sound, pixels - least, 0.0) / (most - least)
    scaled = 1.0 - scaled if is_ink else scaled
    data = base64.b64encode(_png(np.rint(255 * scaled).astype(np.uint8))).decode()
    height, width = pixels.shape[:2]
    size = _SIDE / max(height, width)
    return (
        f'<img src="data:image/png;base64,{data}" width="{max(1, round(width * size))}" '
        f'height="{max(1, round(height * size))}" style="image-rendering:pixelated" alt="">'
    )


def _png(pixels: NDArray[np.uint8]) -> bytes:
    """Return a PNG file of 8 bits, of grey or of three colours."""
    height, width, channels = pixels.shape
    header = struct.pack(">IIBBBBB", width, height, 8, 2 if channels == 3 else 0, 0, 0, 0)
    # Each line begins with its filter, 0: none.
    lines = np.concatenate([np.zeros((height, 1), np.uint8), pixels.reshape(height, -1)], axis=1)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(lines.tobytes())), (b"IEND", b""))
    chunks = (struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def curve(values: NDArray[Any]) -> str:
    """Return numbers as a line over their places, without axes; those that are not finite are left out."""
    places = np.unique(np.linspace(0, max(0, len(values) - 1), min(len(values), _MOST_POINTS)).astype(int))
    x, y = places.astype(np.float64), np.asarray(values, np.float64)[places]
    sound = np.isfinite(y)
    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in _placed(x[sound], y[sound], x[sound], y[sound]))
    return _drawing(f'<polyline points="{points}" fill="none" stroke="currentColor" stroke-width="1.5"/>')


def scatter(*sets: tuple[NDArray[Any], NDArray[Any]]) -> str:
    """Return points in one frame, without axes: those of the first set filled, those of others as rings."""
    finite = [(x[sound], y[sound]) for x, y in sets for sound in [np.isfinite(x) & np.isfinite(y)]]
    every_x, every_y = (np.concatenate([points[axis] for points in finite]) for axis in (0, 1))
    marks: list[str] = []
    for place, (x, y) in enumerate(finite):
        fill = "none" if place else "currentColor"
        marks += [
            f'<circle cx="{a:.1f}" cy="{b:.1f}" r="2.5" fill="{fill}" stroke="currentColor"/>'
            for a, b in _placed(x[:_MOST_POINTS], y[:_MOST_POINTS], every_x, every_y)
        ]
    return _drawing("".join(marks))


def _placed(
    x: NDArray[np.float64], y: NDArray[np.float64], every_x: NDArray[np.float64], every_y: NDArray[np.float64]
) -> Iterable[tuple[float, float]]:
    """Return where points stand in a drawing that shows all points of ``every_x`` and ``every_y``."""
    across = _shares(x, every_x) * (_WIDTH - 2 * _MARGIN) + _MARGIN
    down = (1 - _shares(y, every_y)) * (_HEIGHT - 2 * _MARGIN) + _MARGIN
    return zip(across.tolist(), down.tolist(), strict=True)


def _shares(values: NDArray[np.float64], among: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return how far from the least to the largest values stand, from 0 to 1; ½ where all are equal."""
    if among.size == 0 or among.min() == among.max():
        return np.full(values.shape, 0.5)
    # Halves, since the difference of two large numbers overflows.
    least, most = float(among.min()) / 2, float(among.max()) / 2
    return np.asarray((values / 2 - least) / (most - least))


def _drawing(marks: str) -> str:
    return (
        f'<svg width="{_WIDTH}" height="{_HEIGHT}" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        f'style="border:{_LINE}">{marks}</svg>'
    )
