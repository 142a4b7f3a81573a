"""From a published Omniglot archive, or its unpacked folder, to small images of ink, character by character."""

from __future__ import annotations

import io
import struct
from collections import defaultdict
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from aidotnet_py.data.safe_folder import SafeFolder
from aidotnet_py.data.safe_zip import SafeZip
from aidotnet_py.exceptions import ArgumentException

__all__ = ["FULL_INK", "OmniglotImages", "open_omniglot"]

_SIDE = 105
_SMALL = 28
_PNG = b"\x89PNG\r\n\x1a\n"

# 105 pixels are 28 cells of 15 quarters of a pixel. An entry says how many quarters of pixel j lie in cell i; so the
# ink of a cell is a whole number of sixteenths of a pixel, at most 15 · 15, and area averages are exact in uint8.
_QUARTERS = np.zeros((_SMALL, _SIDE), np.float32)
np.add.at(_QUARTERS, (np.arange(4 * _SIDE) // 15, np.arange(4 * _SIDE) // 4), 1)
FULL_INK = 15 * 15


class _Files(Protocol):
    @property
    def names(self) -> tuple[str, ...]: ...
    def read(self, name: str) -> bytes: ...


class OmniglotImages:
    """The characters of an open source: ``members`` maps ``"Alphabet/character01"`` to the names of its images."""

    def __init__(self, path: Path, files: _Files) -> None:
        self._path = path
        self._files = files
        self.members = _by_character(path, files.names)

    @property
    def alphabets(self) -> tuple[str, ...]:
        """The alphabets, sorted by name."""
        return tuple(sorted({character.split("/")[0] for character in self.members}))

    def read_character(self, character: str) -> NDArray[np.uint8]:
        """Return a character's images, (n, 28, 28): ink averaged over each cell's area, `FULL_INK` where full.

        Raises
        ------
        ArgumentException
            An image cannot be read, or is not a PNG of 105×105 pixels.
        """
        ink = np.stack([self._decode(name) for name in self.members[character]])
        cells: NDArray[np.float32] = np.matmul(np.matmul(_QUARTERS, ink), _QUARTERS.T)
        return cells.astype(np.uint8)

    def _decode(self, name: str) -> NDArray[np.float32]:
        data = self._files.read(name)
        where = f"{self._path}: {name!r:.200}"
        if not data.startswith(_PNG) or data[12:16] != b"IHDR" or len(data) < 24:
            raise ArgumentException(f"{where} is not a PNG image")
        # The size is read by hand, so that no decoder ever sees an image that would unpack to gigabytes.
        _check_size(where, *struct.unpack(">II", data[16:24]))
        pixels = _decode_png(where, data)
        return (pixels < 128).astype(np.float32)


@contextmanager
def open_omniglot(path: Path) -> Generator[OmniglotImages]:
    """Open a zip archive or a folder for reading.

    Raises
    ------
    ArgumentException
        There is nothing at ``path``, or it is not laid out as Omniglot is.
    """
    if path.is_dir():
        yield OmniglotImages(path, SafeFolder(path))
    elif path.is_file():
        with SafeZip(path) as archive:
            yield OmniglotImages(path, archive)
    else:
        raise ArgumentException(f"source is {str(path)!r}, where there is neither a zip archive nor a folder")


def _by_character(path: Path, names: tuple[str, ...]) -> dict[str, list[str]]:
    found: defaultdict[str, list[str]] = defaultdict(list)
    roots: set[str] = set()
    for name in sorted(names):
        *folders, file = name.split("/")
        # What macOS leaves in archives and folders is passed over, unread.
        if file.startswith(".") or "__MACOSX" in folders:
            continue
        if len(folders) not in (2, 3) or not file.endswith(".png"):
            raise ArgumentException(
                f"{path}: {name!r:.200} has no place in Omniglot; wanted 'Alphabet/character01/0001_01.png', "
                "in one folder or none"
            )
        roots.add("/".join(folders[:-2]))
        found["/".join(folders[-2:])].append(name)
    if len(roots) > 1:
        raise ArgumentException(f"{path} holds several sets, {', '.join(sorted(roots))}; wanted one")
    if not found:
        raise ArgumentException(f"{path} holds no images")
    return dict(found)


def _check_size(where: str, width: int, height: int) -> None:
    if (width, height) != (_SIDE, _SIDE):
        raise ArgumentException(f"{where} has {width}×{height} pixels; Omniglot's images have {_SIDE}×{_SIDE}")


def _decode_png(where: str, data: bytes) -> NDArray[np.uint8]:
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError('OmniglotLoader needs Pillow: pip install "aidotnet-py[data]"') from error
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            # Once more before pixels are decoded: a later header chunk overrides the first.
            _check_size(where, *image.size)
            if "A" not in image.getbands() and "transparency" not in image.info:
                return np.asarray(image.convert("L"))
            # Laid over paper: what transparent pixels have for a colour was not drawn, and is black as a rule.
            paper = Image.new("RGBA", image.size, "white")
            return np.asarray(Image.alpha_composite(paper, image.convert("RGBA")).convert("L"))
    except ArgumentException:
        raise
    # Pillow tells a broken image by OSError, SyntaxError, ValueError, EOFError, struct.error and others.
    except Exception as error:
        raise ArgumentException(f"{where} cannot be decoded: {error}") from error
