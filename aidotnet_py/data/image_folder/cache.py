"""Decoded images in one file on disk, written once and mapped into memory."""

from __future__ import annotations

import hashlib
import json
import math
import mmap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from aidotnet_py.cache_folder import cache_folder
from aidotnet_py.exceptions import InvalidOperationException
from aidotnet_py.progress import progress_bar
from aidotnet_py.whole_files import replacing, write_file

__all__ = ["UNREAD", "CachedImages", "cached_images", "default_cache"]

# The reason for a file that could not be read, which may pass: of rights, or of a share that was away.
UNREAD = "must be readable"

# A part of the names of files; raised when the same images would be decoded to other pixels.
_VERSION = 2
# Not on Windows.
_DROP: int | None = getattr(mmap, "MADV_DONTNEED", None)


class CachedImages:
    """Images of uint8 in an ``.npy`` file, (n, h, w, channels), which the system reads as they are asked for.

    A pickle holds the path alone.

    Parameters
    ----------
    path : Path
        The file.
    shape : tuple of int
        The shape that it must have.

    Raises
    ------
    InvalidOperationException
        The file is missing or has another shape.
    """

    def __init__(self, path: Path, shape: tuple[int, ...]) -> None:
        self._path, self.shape = path, shape
        self._map, self._images = _mapped(path, shape)

    def __getitem__(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        images = self._images[rows]
        if _DROP is not None:
            # What was read stays in the system's cache of files, but no longer counts as memory of this process.
            self._map.madvise(_DROP)
        return images

    def __reduce__(self) -> tuple[Any, ...]:
        return CachedImages, (self._path, self.shape)


def cached_images(
    folder: Path,
    key: Mapping[str, Any],
    names: Sequence[str],
    decode: Callable[[str], NDArray[np.uint8] | str],
    shape: tuple[int, int, int],
) -> tuple[CachedImages, dict[str, str]]:
    """Return decoded images from the cache, after decoding them there if need be.

    Images that could not be read are tried again each time; if one now can, all are decoded again.

    Parameters
    ----------
    folder : Path
        Where the cache is; made if it is missing.
    key : mapping
        What the pixels depend on, as JSON values.
    names : sequence of str
        The images.
    decode : callable
        Returns the pixels of an image by its name, or why there are none: `UNREAD` or a lasting reason.
    shape : tuple of int
        The shape of one image.

    Returns
    -------
    images : CachedImages
        One for each name; black where there are no pixels.
    left_out : dict
        Names without pixels, with the reason.
    """
    digest = hashlib.sha256(json.dumps([_VERSION, key], sort_keys=True).encode()).hexdigest()[:32]
    pixels, index = folder / f"{digest}.npy", folder / f"{digest}.json"
    whole = (len(names), *shape)
    # The index is written last: without it, the images are not all there.
    left_out = _read_index(index)
    if left_out is not None and _still_unread(left_out, decode):
        try:
            return CachedImages(pixels, whole), left_out
        except InvalidOperationException:
            pass
    folder.mkdir(parents=True, exist_ok=True)
    index.unlink(missing_ok=True)
    left_out = _write(pixels, whole, names, decode)
    write_file(index, json.dumps(left_out).encode())
    return CachedImages(pixels, whole), left_out


def default_cache() -> Path:
    """Return the folder of this user for decoded images."""
    try:
        return cache_folder("images")
    except ImportError as error:
        raise ImportError(
            'ImageFolderLoader without cache needs platformdirs: pip install "aidotnet-py[data]", or pass cache=FOLDER'
        ) from error


def _write(
    path: Path, shape: tuple[int, ...], names: Sequence[str], decode: Callable[[str], NDArray[np.uint8] | str]
) -> dict[str, str]:
    left_out: dict[str, str] = {}
    nothing = np.zeros(shape[1:], np.uint8)
    with replacing(path) as file:
        header: Any = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        for name in progress_bar(names, desc="decoding images", unit="image", leave=False):
            image = decode(name)
            if isinstance(image, str):
                left_out[name], image = image, nothing
            file.write(image.tobytes())
    return left_out


def _still_unread(left_out: Mapping[str, str], decode: Callable[[str], NDArray[np.uint8] | str]) -> bool:
    """Return whether all that could not be read still cannot."""
    answers = (decode(name) for name, reason in left_out.items() if reason == UNREAD)
    return all(isinstance(answer, str) and answer == UNREAD for answer in answers)


def _read_index(path: Path) -> dict[str, str] | None:
    try:
        index: Any = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    if not isinstance(index, dict) or not all(isinstance(reason, str) for reason in cast(Any, index).values()):
        return None
    return cast("dict[str, str]", index)


def _mapped(path: Path, shape: tuple[int, ...]) -> tuple[mmap.mmap, NDArray[np.uint8]]:
    """Return the map of a file, and the images in it."""
    try:
        with open(path, "rb") as file:
            np.lib.format.read_magic(file)
            found, _, dtype = np.lib.format.read_array_header_1_0(file)
            start = file.tell()
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        if found != shape or dtype != np.uint8 or len(mapped) != start + math.prod(shape):
            raise ValueError(f"it has {len(mapped)} bytes, {dtype}, of shape {found}")
        images = np.frombuffer(mapped, np.uint8, offset=start).reshape(shape)
    # A file that is cut or garbled gives ValueError, EOFError, SyntaxError and others.
    except Exception as error:
        raise InvalidOperationException(
            f"{str(path)!r} must hold uint8 images of shape {shape}: {error}; make the loader anew"
        ) from error
    return mapped, images
