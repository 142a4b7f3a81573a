"""Check that an untrusted PNG image is whole and of the right size, and drop its texts, before a decoder reads it."""

from __future__ import annotations

import struct
import zlib

__all__ = ["PngError", "essential_png"]

# "Portable Network Graphics (PNG) Specification", third edition, sections 5 (structure) and 11.2 (critical chunks).
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_PALETTE = 3
# The first pixel of each pass of an interlaced image and the distance to the next: x, y, step of x, step of y.
_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


class PngError(ValueError):
    """A defect of an image; the message continues a sentence that begins with the image's name."""


def essential_png(data: bytes, side: int) -> bytes:
    """Return an image without texts and other chunks that its pixels do not need, which may inflate to any size.

    Parameters
    ----------
    data : bytes
        A PNG file.
    side : int
        The width and height of the image.

    Returns
    -------
    bytes
        A PNG file with all pixels.

    Raises
    ------
    PngError
        The data are no PNG image, or one of another size, cut, damaged or incomplete.
    """
    if not data.startswith(_SIGNATURE):
        raise PngError("must be a PNG image")
    chunks = _chunks(data)
    if chunks[0][0] != b"IHDR" or len(chunks[0][1]) != 13:
        raise PngError("must begin with a header")
    if sum(kind == b"IHDR" for kind, _ in chunks) > 1:
        raise PngError("must have one header, got several")
    width, height, depth, color, _, _, interlaced = struct.unpack(">IIBBBBB", chunks[0][1])
    if (width, height) != (side, side):
        raise PngError(f"must have {side}×{side} pixels, got {width}×{height}")
    if color not in _CHANNELS or depth not in (1, 2, 4, 8, 16) or interlaced not in (0, 1):
        raise PngError("must have a valid header, got impossible values")
    if color == _PALETTE and not any(kind == b"PLTE" for kind, _ in chunks):
        raise PngError("must have a palette for its pixels, got none")
    _check_pixels(
        b"".join(content for kind, content in chunks if kind == b"IDAT"), side, depth * _CHANNELS[color], interlaced
    )
    kept = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
    return _SIGNATURE + b"".join(_chunk(kind, content) for kind, content in chunks if kind in kept)


def _chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    """Return the kind and content of each chunk, up to the chunk that ends the image."""
    chunks: list[tuple[bytes, bytes]] = []
    place = len(_SIGNATURE)
    while not chunks or chunks[-1][0] != b"IEND":
        if place + 12 > len(data):
            raise PngError("must be whole, got the beginning alone")
        length, kind = struct.unpack_from(">I4s", data, place)
        end = place + 8 + length
        if end + 4 > len(data):
            raise PngError("must be whole, got the beginning alone")
        content = data[place + 8 : end]
        if zlib.crc32(kind + content) != int.from_bytes(data[end : end + 4], "big"):
            raise PngError(f"is damaged: a chunk {kind!r} has a wrong checksum")
        chunks.append((kind, content))
        place = end + 4
    return chunks


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _check_pixels(compressed: bytes, side: int, bits: int, interlaced: int) -> None:
    """Check that the pixels are as many as the size needs, and unpack no more of them than that."""
    passes = _PASSES if interlaced else ((0, 0, 1, 1),)
    sizes = ((-(-(side - x) // dx), -(-(side - y) // dy)) for x, y, dx, dy in passes)
    # Each row begins with a byte for its filter.
    wanted = sum(rows * (1 + -(-columns * bits // 8)) for columns, rows in sizes if columns > 0)
    unpacking = zlib.decompressobj()
    try:
        held = len(unpacking.decompress(compressed, wanted + 1))
    except zlib.error as error:
        raise PngError("is damaged: its pixels cannot be unpacked") from error
    if held != wanted:
        raise PngError(f"must have {wanted} bytes of pixels, got {f'more than {wanted}' if held > wanted else held}")
