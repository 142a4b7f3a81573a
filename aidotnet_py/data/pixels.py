"""Decode untrusted images by one set of rules: laid over white paper, 16 bits cut to 8, colours of a palette alone."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["MOST_PIXELS", "ImageError", "lay_on_paper", "open_image"]

# Of a decoded image; photographs of 50 megapixels pass. Decoding takes up to 16 bytes a pixel.
MOST_PIXELS = 1 << 26


class ImageError(ValueError):
    """A defect of an image; the message continues a sentence that begins with the image's name."""


def open_image(data: bytes, kind: Literal["PNG", "JPEG"], least: int | None = None) -> Image:
    """Return a decoded image.

    Parameters
    ----------
    data : bytes
        A PNG file that `essential_png` returned, or a JPEG file.
    kind : {"PNG", "JPEG"}
        Which of them.
    least : int, optional
        The sides that are enough: a JPEG image may be decoded at a half, a quarter or an eighth of its size, with both
        sides at least so long.

    Raises
    ------
    ImageError
        It cannot be decoded or has too many pixels.
    """
    from PIL import Image

    # For a broken image, Pillow raises OSError, SyntaxError, ValueError, EOFError, struct.error and others; for a huge
    # one a warning, which is an error for some callers, or an error.
    try:
        with Image.open(io.BytesIO(data), formats=[kind]) as image:
            width, height = image.size
            if width * height <= MOST_PIXELS:
                if least is not None:
                    image.draft(None, (least, least))
                image.load()
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(f"must have at most {MOST_PIXELS} pixels, got more") from error
    except Exception as error:
        raise ImageError("must be decodable") from error
    if width * height > MOST_PIXELS:
        raise ImageError(f"must have at most {MOST_PIXELS} pixels, got {width}×{height}")
    return image


def lay_on_paper(image: Image, mode: Literal["L", "RGB"]) -> Image:
    """Return an image in shades of grey or in colours, laid over white paper where it is transparent.

    Raises
    ------
    ImageError
        A pixel is not of the image's palette.
    """
    from PIL import Image

    if image.mode.startswith("I"):
        return Image.fromarray(_eight_bits(image)).convert(mode)
    palette = image.palette
    if palette is not None and int(np.max(np.asarray(image))) >= len(palette.palette) // len(palette.mode):
        raise ImageError("must have pixels of its palette alone")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        drawn = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", drawn.size, "white"), drawn).convert(mode)
    return image.convert(mode)


def _eight_bits(image: Image) -> Any:
    """Return the upper eight of 16 bits, and white for the transparent shade."""
    pixels, transparent = np.asarray(image), image.info.get("transparency")
    shades = (pixels >> 8).astype(np.uint8)
    if transparent is not None:
        shades[pixels == transparent] = 255
    return shades
