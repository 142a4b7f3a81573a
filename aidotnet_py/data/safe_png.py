"""Check that an untrusted PNG image is whole and of the right size, and drop its texts, before a decoder reads it."""

from __future__ import annotations

import struct
import zlib

from aidotnet_py.data.pixels import MOST_PIXELS, ImageError

__all__ = ["PNG_SIGNATURE", "essential_png"]

# "Portable Network Graphics (PNG) Specification", third edition, sections 5 (structure) and 11.2 (critical chunks).
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_GREY, _COLOUR, _PALETTE = 0, 2, 3
# Bytes that are unpacked at a time.
_PIECE = 1 << 18
# The first pixel of each pass of an interlaced image and the distance to the next: x, y, step of x, step of y.
_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def essential_png(data: bytes, side: int | None = None) -> bytes:
    """Return an image without texts and other chunks that its pixels do not need, which may inflate to any size.

    Parameters
    ----------
    data : bytes
        A PNG file.
    side : int, optional
        The width and height of the image. By default, any with at most `MOST_PIXELS` pixels.

    Returns
    -------
    bytes
        A PNG file with all pixels, and the Exif data, which say how they are turned.

    Raises
    ------
    ImageError
        The data are no PNG image, or one of another size, cut, damaged or incomplete, or one of 16-bit colours of which
        one is transparent. No pixel is decoded then.
    """
    if not data.startswith(PNG_SIGNATURE):
        raise ImageError("must be a PNG image")
    chunks = _chunks(data)
    if chunks[0][0] != b"IHDR" or len(chunks[0][1]) != 13:
        raise ImageError("must begin with a header")
    if sum(kind == b"IHDR" for kind, _ in chunks) > 1:
        raise ImageError("must have one header, got several")
    width, height, depth, color, _, _, interlaced = struct.unpack(">IIBBBBB", chunks[0][1])
    if side is not None and (width, height) != (side, side):
        raise ImageError(f"must have {side}×{side} pixels, got {width}×{height}")
    if not 0 < width * height <= MOST_PIXELS:
        raise ImageError(f"must have from 1 to {MOST_PIXELS} pixels, got {width}×{height}")
    if color not in _CHANNELS or depth not in (1, 2, 4, 8, 16) or interlaced not in (0, 1):
        raise ImageError("must have a valid header, got impossible values")
    if color == _PALETTE and not any(kind == b"PLTE" for kind, _ in chunks):
        raise ImageError("must have a palette for its pixels, got none")
    compressed = [content for kind, content in chunks if kind == b"IDAT"]
    _check_pixels(compressed, width, height, depth * _CHANNELS[color], interlaced)
    kept = (b"IHDR", b"PLTE", b"tRNS", b"eXIf", b"IDAT", b"IEND")
    return PNG_SIGNATURE + b"".join(
        _chunk(kind, _as_decoded(content, depth, color) if kind == b"tRNS" else content)
        for kind, content in chunks
        if kind in kept
    )


def _chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    """Return the kind and content of each chunk, up to the chunk that ends the image."""
    chunks: list[tuple[bytes, bytes]] = []
    place = len(PNG_SIGNATURE)
    while not chunks or chunks[-1][0] != b"IEND":
        if place + 12 > len(data):
            raise ImageError("must be whole, got the beginning alone")
        length, kind = struct.unpack_from(">I4s", data, place)
        end = place + 8 + length
        if end + 4 > len(data):
            raise ImageError("must be whole, got the beginning alone")
        content = data[place + 8 : end]
        if zlib.crc32(kind + content) != int.from_bytes(data[end : end + 4], "big"):
            raise ImageError(f"is damaged: a chunk {kind!r} has a wrong checksum")
        chunks.append((kind, content))
        place = end + 4
    return chunks


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _as_decoded(transparent: bytes, depth: int, color: int) -> bytes:
    """Return a transparent shade or colour as Pillow finds it in pixels, which it brings to 8 bits before it looks."""
    if color == _COLOUR and depth == 16:
        # The lower bytes are gone by then, and other colours would be transparent too.
        raise ImageError("must have 8 bits, or an alpha channel, where a colour is transparent, got 16 bits")
    if color == _GREY and depth in (2, 4) and len(transparent) == 2:
        white = (1 << depth) - 1
        return struct.pack(">H", (int.from_bytes(transparent, "big") & white) * (255 // white))
    return transparent


def _check_pixels(compressed: list[bytes], width: int, height: int, bits: int, interlaced: int) -> None:
    """Check that the pixels are as many as the size needs, and unpack no more of them than that, a piece at a time."""
    passes = _PASSES if interlaced else ((0, 0, 1, 1),)
    sizes = ((-(-(width - x) // dx), -(-(height - y) // dy)) for x, y, dx, dy in passes)
    # Each row begins with a byte for its filter.
    wanted = sum(rows * (1 + -(-columns * bits // 8)) for columns, rows in sizes if columns > 0 and rows > 0)
    try:
        held = _unpacked_size(compressed, wanted)
    except zlib.error as error:
        raise ImageError("is damaged: its pixels cannot be unpacked") from error
    if held != wanted:
        raise ImageError(f"must have {wanted} bytes of pixels, got {f'more than {wanted}' if held > wanted else held}")


def _unpacked_size(compressed: list[bytes], enough: int) -> int:
    """Return how many bytes a stream unpacks to, or some number above ``enough``."""
    unpacking, held = zlib.decompressobj(), 0
    for content in compressed:
        for start in range(0, len(content), _PIECE):
            pending = content[start : start + _PIECE]
            while held <= enough and not unpacking.eof:
                unpacked = len(unpacking.decompress(pending, _PIECE))
                held, pending = held + unpacked, unpacking.unconsumed_tail
                if unpacked < _PIECE:
                    break
    return held
