"""Checks an untrusted PNG image before a decoder sees it: whole, of the size that is wanted, and nothing else in it."""

from __future__ import annotations

import struct
import zlib

__all__ = ["PngError", "essential_png"]

# "Portable Network Graphics (PNG) Specification", third edition, sections 5 (structure) and 11.2 (critical chunks).
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_PALETTE = 3
# Where the pixels of each pass of an interlaced image begin, and how far apart they lie: x, y, step of x, step of y.
_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


class PngError(ValueError):
    """What is wrong with an image, to be said after its name."""


def essential_png(data: bytes, side: int) -> bytes:
    """The image with all that its pixels need, and without texts and other additions, which may inflate to anything.

    Parameters
    ----------
    data : bytes
        A PNG file.
    side : int
        How wide and high the image must be.

    Returns
    -------
    bytes
        A PNG file whose pixels are all there.

    Raises
    ------
    PngError
        It is no PNG image, has another size, or is cut, damaged or incomplete.
    """
    if not data.startswith(_SIGNATURE):
        raise PngError("is not a PNG image")
    chunks = _chunks(data)
    if chunks[0][0] != b"IHDR" or len(chunks[0][1]) != 13:
        raise PngError("does not begin with a header")
    if sum(kind == b"IHDR" for kind, _ in chunks) > 1:
        raise PngError("has several headers")
    width, height, depth, color, _, _, interlaced = struct.unpack(">IIBBBBB", chunks[0][1])
    if (width, height) != (side, side):
        raise PngError(f"has {width}×{height} pixels; Omniglot's images have {side}×{side}")
    if color not in _CHANNELS or depth not in (1, 2, 4, 8, 16) or interlaced not in (0, 1):
        raise PngError("has a header with impossible values")
    if color == _PALETTE and not any(kind == b"PLTE" for kind, _ in chunks):
        raise PngError("has no palette, and its pixels are places in one")
    _check_pixels(
        b"".join(content for kind, content in chunks if kind == b"IDAT"), side, depth * _CHANNELS[color], interlaced
    )
    kept = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
    return _SIGNATURE + b"".join(_chunk(kind, content) for kind, content in chunks if kind in kept)


def _chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    """Kind and content of every chunk up to the one that ends the image."""
    found: list[tuple[bytes, bytes]] = []
    place = len(_SIGNATURE)
    while not found or found[-1][0] != b"IEND":
        if place + 12 > len(data):
            raise PngError("is cut short")
        length, kind = struct.unpack_from(">I4s", data, place)
        end = place + 8 + length
        if end + 4 > len(data):
            raise PngError("is cut short")
        content = data[place + 8 : end]
        if zlib.crc32(kind + content) != int.from_bytes(data[end : end + 4], "big"):
            raise PngError(f"is damaged: the checksum of a chunk {kind!r} is wrong")
        found.append((kind, content))
        place = end + 4
    return found


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _check_pixels(compressed: bytes, side: int, bits: int, interlaced: int) -> None:
    """Refuse pixels that are fewer or more than the image has, unpacking no more of them than that."""
    passes = _PASSES if interlaced else ((0, 0, 1, 1),)
    sizes = ((-(-(side - x) // dx), -(-(side - y) // dy)) for x, y, dx, dy in passes)
    # Each row has a byte in front, which names its filter.
    wanted = sum(rows * (1 + -(-columns * bits // 8)) for columns, rows in sizes if columns > 0)
    unpacking = zlib.decompressobj()
    try:
        came = len(unpacking.decompress(compressed, wanted + 1))
    except zlib.error as error:
        raise PngError("is damaged: its pixels cannot be unpacked") from error
    if came < wanted:
        raise PngError(f"has {came} bytes of pixels; its size asks for {wanted}")
    if came > wanted:
        raise PngError(f"has more bytes of pixels than the {wanted} that its size asks for")
