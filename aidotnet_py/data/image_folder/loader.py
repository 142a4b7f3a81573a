"""Few-shot tasks on a folder of photographs: one folder a class, or a published layout."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, cast, overload

import numpy as np
from numpy.typing import NDArray

from aidotnet_py.arguments import SWITCH, Choice, refusal
from aidotnet_py.backends import Backend
from aidotnet_py.caller import level_outside
from aidotnet_py.data.class_pool import ClassPool
from aidotnet_py.data.image_folder.cache import UNREAD, cached_images, default_cache
from aidotnet_py.data.image_folder.decoding import ImageForm
from aidotnet_py.data.image_folder.encoding import FIT, LIMITS, SIDE, ImageEncoding
from aidotnet_py.data.image_folder.listing import SPLITS, list_images
from aidotnet_py.data.image_loader import ImageLoader
from aidotnet_py.data.pixels import ImageError
from aidotnet_py.data.safe_folder import SafeFolder
from aidotnet_py.data.weightings import WEIGHTING, WeightingName
from aidotnet_py.exceptions import ArgumentException
from aidotnet_py.keywords import suggests_keywords
from aidotnet_py.paths import check_folder, check_path
from aidotnet_py.type_parameters import T

__all__ = ["ImageFolderLoader"]

_SPLIT = Choice(*SPLITS, None)
_UNREADABLE = Choice("refuse", "skip")
# Names of files in a message.
_MOST_NAMED = 5


class ImageFolderLoader(ImageLoader[T]):
    """N-way K-shot tasks on the images of a folder: photographs, scans or drawings of any size and mode.

    Each folder in ``folder`` is a class, named by it, and every file in it an image, JPEG or PNG by its content. With
    ``split`` the folder has one of three published layouts: ``train``, ``val`` and ``test`` folders of class folders;
    the tables ``train.csv``, ``val.csv`` and ``test.csv`` with the columns filename and label, beside ``images``
    (mini-ImageNet); or class lists ``splits/…/train.txt`` beside ``data`` with class folders (CIFAR-FS). Names that
    begin with a dot are ignored.

    Inputs are (n, height, width, 3), or 1 channel, from 0 for black to 1 for white. Labels are int64, shuffled for
    every task; rows are sorted by label; ``Metadata["Classes"]`` names the classes in the order of their labels, and
    ``Metadata["Encoding"]`` is ``encoding``, which the model of a learner keeps as its property ``"encoding"``. Images
    are turned as their Exif data say, laid over white paper where they are transparent, resized, and decoded once into
    a file in ``cache``; the system reads from it what tasks need, so that memory does not grow with the folder. After a
    change of a file's size or time, all are decoded again.

    Parameters
    ----------
    folder : path
        The folder.
    NWay, KShot, QueryShots : int
        Classes of a task, and support and query images of a class.
    split : {"train", "val", "test"}, optional
        The part of a published layout.
    size : int or (int, int)
        Height and width in pixels, at most 4096.
    fit : {"crop", "stretch", "pad"}
        Whether the middle of the image is cut out, the image is stretched, or white paper is added on both sides.
    color : bool
        Whether there are three channels, or one of shades of grey.
    rotations : bool
        Whether turned images are separate classes, as for `OmniglotLoader`.
    unreadable : {"refuse", "skip"}
        Whether links, files that are no whole image, names that cannot be printed and empty classes are an error, or
        left out with a warning. ``left_out`` has all of their names, with reasons.
    weighting : {"uniform", "balanced", "proportional"}
        As for `ArrayLoader`.
    cache : path, optional
        The folder for decoded images; by default one in the user's cache.
    seed, dtype, backend
        As for all loaders: seed of the random stream, NumPy floating type, backend of the arrays.

    Raises
    ------
    ArgumentNullException
        ``folder`` is None.
    FileNotFoundError
        There is nothing at ``folder``.
    ArgumentOutOfRangeException
        NWay is below 2 or above the number of classes, another size is out of its range, or the seed is negative.
    ArgumentException
        The folder does not have the layout, has something that is no image, or has classes with too few images; or
        another argument is invalid.
    OSError
        The cache cannot be written.
    ImportError
        Pillow, or platformdirs where ``cache`` is not given, is not installed.

    References
    ----------
    Ravi, Larochelle, "Optimization as a Model for Few-Shot Learning", ICLR 2017 (mini-ImageNet's tables). Bertinetto,
    Henriques, Torr, Vedaldi, "Meta-learning with differentiable closed-form solvers", ICLR 2019 (CIFAR-FS).

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from PIL import Image
    >>> from aidotnet_py.data import ImageFolderLoader
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for shade, name in enumerate(["dusk", "night", "noon"]):
    ...         Path(folder, "photos", name).mkdir(parents=True)
    ...         for i in range(4):
    ...             Image.new("RGB", (40 + i, 30), (80 * shade,) * 3).save(Path(folder, "photos", name, f"{i}.png"))
    ...     cache = Path(folder, "cache")
    ...     loader = ImageFolderLoader(Path(folder, "photos"), 2, 1, 3, size=8, cache=cache, seed=0)
    ...     task = loader.GetNextTask()
    >>> task.QueryInput.shape, task.Metadata["Classes"]
    ((6, 8, 8, 3), ('night', 'noon'))
    """

    @overload
    def __init__(
        self: ImageFolderLoader[np.float32],
        folder: str | os.PathLike[str],
        NWay: int = 5,
        KShot: int = 1,
        QueryShots: int = 15,
        *,
        split: Literal["train", "val", "test"] | None = None,
        size: int | tuple[int, int] = 84,
        fit: Literal["crop", "stretch", "pad"] = "crop",
        color: bool = True,
        rotations: bool = False,
        unreadable: Literal["refuse", "skip"] = "refuse",
        weighting: WeightingName = "uniform",
        cache: str | os.PathLike[str] | None = None,
        seed: int | None = None,
        backend: str | Backend = "numpy",
    ) -> None: ...
    @overload
    def __init__(
        self,
        folder: str | os.PathLike[str],
        NWay: int = 5,
        KShot: int = 1,
        QueryShots: int = 15,
        *,
        split: Literal["train", "val", "test"] | None = None,
        size: int | tuple[int, int] = 84,
        fit: Literal["crop", "stretch", "pad"] = "crop",
        color: bool = True,
        rotations: bool = False,
        unreadable: Literal["refuse", "skip"] = "refuse",
        weighting: WeightingName = "uniform",
        cache: str | os.PathLike[str] | None = None,
        seed: int | None = None,
        dtype: type[T],
        backend: str | Backend = "numpy",
    ) -> None: ...
    @suggests_keywords()
    def __init__(
        self,
        folder: str | os.PathLike[str],
        NWay: int = 5,
        KShot: int = 1,
        QueryShots: int = 15,
        *,
        split: Literal["train", "val", "test"] | None = None,
        size: int | tuple[int, int] = 84,
        fit: Literal["crop", "stretch", "pad"] = "crop",
        color: bool = True,
        rotations: bool = False,
        unreadable: Literal["refuse", "skip"] = "refuse",
        weighting: WeightingName = "uniform",
        cache: str | os.PathLike[str] | None = None,
        seed: int | None = None,
        dtype: type[Any] = np.float32,
        backend: str | Backend = "numpy",
    ) -> None:
        path = check_folder("folder", folder)
        super().__init__(path.name, 255, rotations, NWay, KShot, QueryShots, seed=seed, dtype=dtype, backend=backend)
        self._split: str | None = _SPLIT.check("split", split)
        self._form = _check_form(size, fit, color, rotations)
        self._unreadable: str = _UNREADABLE.check("unreadable", unreadable)
        self._weighting: WeightingName = WEIGHTING.check("weighting", weighting)
        place = None if cache is None else _check_cache(cache, path)
        pillow = _pillow_version()
        # For the representation.
        self._folder, self._size, self._fit, self._color, self._cache = str(path), size, fit, color, cache
        self._read(path, default_cache() if place is None else place, pillow)
        self._stream = self._make_stream(seed)

    @property
    def encoding(self) -> ImageEncoding:
        """The form of the inputs, for images that come later."""
        return ImageEncoding(self._form, self._dtype)

    @property
    def left_out(self) -> Mapping[str, str]:
        """The names in the folder that are not used, each with the reason."""
        return MappingProxyType(self._left_out)

    def _read(self, path: Path, cache: Path, pillow: str) -> None:
        """List the images, decode them if the cache does not have them, and make the pool."""
        self._left_out: dict[str, str] = {}
        files = SafeFolder(path, LIMITS, self._left_out)
        images = list_images(path, files, self._split, self._left_out)
        if not images:
            left = f": {self._listed()}" if self._left_out else ""
            raise ArgumentException(
                f"folder must have a folder with images for each class, got none in {_told(path)}{left}"
            )
        if self._unreadable == "refuse":
            # Before images are decoded, which may take minutes.
            self._tell(path)
        self._check_counts({label: len(names) for label, names in images.items()})
        names = [name for own in images.values() for name in own]
        key = {
            "folder": str(path.resolve()),
            "form": self._form.settings(),
            "pillow": pillow,
            "files": [[name, *_stamp(path / name)] for name in names],
        }
        pixels, broken = cached_images(cache, key, names, lambda name: self._decode(files, name), self._form.shape)
        self._left_out.update(broken)
        places = {name: row for row, name in enumerate(names) if name not in broken}
        rows_of = {label: np.array([places[n] for n in own if n in places], np.int64) for label, own in images.items()}
        for label in [label for label, rows in rows_of.items() if not len(rows)]:
            self._left_out[label] = "must hold images, got none that can be read"
            del rows_of[label]
        self._tell(path)
        self._check_counts({label: len(rows) for label, rows in rows_of.items()})
        notes = {"Encoding": self.encoding}
        self._pool = ClassPool(
            pixels, rows_of, rotations=self._rotations, scale=self._scale, dtype=self._dtype, notes=notes
        )

    def _decode(self, files: SafeFolder, name: str) -> NDArray[np.uint8] | str:
        try:
            return self._form.decode(files.read(name))
        except ImageError as error:
            return str(error)
        except ArgumentException as error:
            return UNREAD if isinstance(error.__cause__, OSError) else f"must have at most {LIMITS.member_bytes} bytes"

    def _tell(self, path: Path) -> None:
        """Name what is left out, as an error or in a warning."""
        if not self._left_out:
            return
        if self._unreadable == "refuse":
            raise ArgumentException(
                f"folder must hold whole images alone, got {len(self._left_out)} other entries in {_told(path)}: "
                f"{self._listed()}; remove them, or pass unreadable='skip'"
            )
        message = f"{len(self._left_out)} entries of {_told(path)} are left out: {self._listed()}"
        warnings.warn(message, UserWarning, stacklevel=level_outside())

    def _listed(self) -> str:
        """Return the first names that are left out, with reasons, and the number of the others."""
        named = [f"{name!r:.100} {reason}" for name, reason in sorted(self._left_out.items())[:_MOST_NAMED]]
        more = len(self._left_out) - len(named)
        return "; ".join(named) + (f"; and {more} more" if more > 0 else "")


def _stamp(file: Path) -> tuple[int, ...]:
    """Return size and time of a file; nothing for one that is gone or hidden by now, which cannot be read then."""
    try:
        status = os.lstat(file)
    except OSError:
        return ()
    return status.st_size, status.st_mtime_ns


def _told(path: Path) -> str:
    return f"{str(path)!r:.200}"


def _check_cache(cache: Any, folder: Path) -> Path:
    path = check_path("cache", cache)
    if path.exists() and not path.is_dir():
        raise ArgumentException(refusal("cache", "a folder", str(path)))
    if path.resolve().is_relative_to(folder.resolve()):
        raise ArgumentException(refusal("cache", "outside folder, where it would be taken for a class", str(path)))
    return path


def _check_form(size: Any, fit: str, color: bool, rotations: bool) -> ImageForm:
    sides: list[Any] = list(cast(Any, size)) if isinstance(size, tuple) else [size, size]
    if len(sides) != 2:
        raise ArgumentException(refusal("size", "one whole number, or height and width", sides))
    height, width = (SIDE.check("size", side) for side in sides)
    if rotations and height != width:
        raise ArgumentException(f"size must be square where rotations is True, got {height}×{width}")
    return ImageForm(height, width, FIT.check("fit", fit), SWITCH.check("color", color))


def _pillow_version() -> str:
    try:
        import PIL
    except ImportError as error:
        raise ImportError('ImageFolderLoader needs Pillow: pip install "aidotnet-py[data]"') from error
    return PIL.__version__
