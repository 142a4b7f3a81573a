"""One image of any size and mode, untrusted, as pixels of the size and mode that a model takes."""

from __future__ import annotations

import warnings
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from aidotnet_py.data.pixels import ImageError, lay_on_paper, open_image
from aidotnet_py.data.safe_png import PNG_SIGNATURE, essential_png

if TYPE_CHECKING:
    from PIL.Image import Image, Resampling

__all__ = ["ImageForm"]

_JPEG_SIGNATURE = b"\xff\xd8\xff"


@dataclass(frozen=True)
class ImageForm:
    """The form of decoded images.

    Attributes
    ----------
    height, width : int
        Pixels.
    fit : {"crop", "stretch", "pad"}
        Whether what exceeds the form's proportions is cut off on both sides, the image is stretched, or white paper is
        added on both sides.
    color : bool
        Whether there are three channels, red, green and blue, or one.
    """

    height: int
    width: int
    fit: str
    color: bool

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape of one image."""
        return self.height, self.width, 3 if self.color else 1

    def settings(self) -> dict[str, Any]:
        """Return all of it as plain JSON values."""
        return asdict(self)

    def decode(self, data: bytes) -> NDArray[np.uint8]:
        """Return the pixels of a JPEG or PNG file, turned as its Exif data say, in this form.

        Raises
        ------
        ImageError
            The data are no such image, or one that is broken or too large.
        """
        with warnings.catch_warnings():
            # Pillow warns of odd Exif data, without the name of the file, and goes on. Whether an image is taken must
            # not depend on the filters of warnings.
            warnings.simplefilter("ignore")
            return self._decode(data)

    def _decode(self, data: bytes) -> NDArray[np.uint8]:
        from PIL import ImageOps
        from PIL.Image import Resampling

        if data.startswith(PNG_SIGNATURE):
            image = open_image(essential_png(data), "PNG")
        elif data.startswith(_JPEG_SIGNATURE):
            # Twice the size that is needed leaves the choice of pixels to the resampling below.
            image = open_image(data, "JPEG", least=2 * max(self.height, self.width))
        else:
            raise ImageError("must be a JPEG or PNG image")
        mode: Literal["L", "RGB"] = "RGB" if self.color else "L"
        try:
            turned = ImageOps.exif_transpose(image)
        # Exif data of others may fail in any way.
        except Exception as error:
            raise ImageError("must have readable Exif data") from error
        drawn, size, how = lay_on_paper(turned, mode), (self.width, self.height), Resampling.BILINEAR
        if self.fit == "crop":
            drawn = ImageOps.fit(drawn, size, how)
        elif self.fit == "pad":
            drawn = _padded(drawn, size, how)
        else:
            drawn = drawn.resize(size, how)
        return np.asarray(drawn).reshape(self.shape)


def _padded(image: Image, size: tuple[int, int], how: Resampling) -> Image:
    """Return an image in the middle of white paper, with a pixel of it at least."""
    from PIL import Image

    # Pillow's own `pad` rounds the short side of a long image to nothing.
    width, height = size
    if image.width * height >= image.height * width:
        inside = width, max(1, round(image.height / image.width * width))
    else:
        inside = max(1, round(image.width / image.height * height)), height
    paper = Image.new(image.mode, size, "white")
    paper.paste(image.resize(inside, how), (round((width - inside[0]) / 2), round((height - inside[1]) / 2)))
    return paper
