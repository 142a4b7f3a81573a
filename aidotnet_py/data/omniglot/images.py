"""Read a published Omniglot archive or its folder as small images of ink, character by character."""

from __future__ import annotations

import errno
from collections import defaultdict
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from aidotnet_py.data.pixels import ImageError, lay_on_paper, open_image
from aidotnet_py.data.safe_folder import SafeFolder
from aidotnet_py.data.safe_png import essential_png
from aidotnet_py.data.safe_zip import SafeZip
from aidotnet_py.exceptions import ArgumentException

__all__ = ["FULL_INK", "OmniglotImages", "open_omniglot"]

_SIDE = 105
_SMALL = 28
# Images decoded at a time; a bound on this number bounds the memory for images of full size.
_AT_ONCE = 64

# 105 pixels are 28 cells of 15 quarters of a pixel. Entry (i, j) counts the quarters of pixel j in cell i. The ink of a
# cell is then a whole number of sixteenths of a pixel, at most 15 · 15, and area averages are exact in uint8.
_QUARTERS = np.zeros((_SMALL, _SIDE), np.float32)
np.add.at(_QUARTERS, (np.arange(4 * _SIDE) // 15, np.arange(4 * _SIDE) // 4), 1)
FULL_INK = 15 * 15


class _Files(Protocol):
    @property
    def names(self) -> tuple[str, ...]: ...
    def read(self, name: str) -> bytes: ...


class OmniglotImages:
    """The characters of an open source; ``members`` maps ``"Alphabet/character01"`` to the names of its images."""

    def __init__(self, path: Path, files: _Files) -> None:
        self._path = path
        self._files = files
        self.members = _by_character(path, files.names)

    @property
    def alphabets(self) -> tuple[str, ...]:
        """The alphabets, sorted by name."""
        return tuple(sorted({character.split("/")[0] for character in self.members}))

    def read_character(self, character: str) -> NDArray[np.uint8]:
        """Return a character's images, (n, 28, 28): the average ink of each cell, `FULL_INK` for a full one.

        Raises
        ------
        ArgumentException
            An image cannot be read, or is no PNG of 105×105 pixels.
        """
        names = self.members[character]
        images = np.empty((len(names), _SMALL, _SMALL), np.uint8)
        for start in range(0, len(names), _AT_ONCE):
            ink = np.stack([self._decode(name) for name in names[start : start + _AT_ONCE]])
            images[start : start + _AT_ONCE] = np.matmul(np.matmul(_QUARTERS, ink), _QUARTERS.T)
        return images

    def _decode(self, name: str) -> NDArray[np.float32]:
        try:
            image = open_image(essential_png(self._files.read(name), _SIDE), "PNG")
            pixels = np.asarray(lay_on_paper(image, "L"))
        except ImageError as error:
            raise ArgumentException(f"{self._path}: {name!r:.200} {error}") from error
        except ImportError as error:
            raise ImportError('OmniglotLoader needs Pillow: pip install "aidotnet-py[data]"') from error
        return (pixels < 128).astype(np.float32)


@contextmanager
def open_omniglot(path: Path) -> Generator[OmniglotImages]:
    """Open a zip archive or a folder for reading.

    Raises
    ------
    FileNotFoundError
        There is nothing at ``path``.
    ArgumentException
        It has not the layout of Omniglot.
    """
    if path.is_dir():
        yield OmniglotImages(path, SafeFolder(path))
    elif path.is_file():
        with SafeZip(path) as archive:
            yield OmniglotImages(path, archive)
    else:
        wanted = "an existing zip archive or folder (OmniglotLoader's download=True fetches published archives)"
        raise FileNotFoundError(errno.ENOENT, f"source must be {wanted}, got nothing", str(path))


def _by_character(path: Path, names: tuple[str, ...]) -> dict[str, list[str]]:
    members: defaultdict[str, list[str]] = defaultdict(list)
    roots: set[str] = set()
    for name in sorted(names):
        *folders, file = name.split("/")
        # Files that macOS adds to archives and folders.
        if file.startswith(".") or "__MACOSX" in folders:
            continue
        if len(folders) not in (2, 3) or not file.endswith(".png"):
            raise ArgumentException(
                f"{path}: names must be like 'Alphabet/character01/0001_01.png', in one folder or none, "
                f"got {name!r:.200}"
            )
        roots.add("/".join(folders[:-2]))
        members["/".join(folders[-2:])].append(name)
    if len(roots) > 1:
        raise ArgumentException(f"{path} must hold one set, got {', '.join(sorted(roots))}")
    if not members:
        raise ArgumentException(f"{path} must hold images, got none")
    return dict(members)
