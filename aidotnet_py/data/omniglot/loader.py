"""Few-shot tasks on Omniglot: handwritten characters of fifty alphabets."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np

from aidotnet_py.arguments import refusal
from aidotnet_py.backends import Backend
from aidotnet_py.data.download import PublishedFile, download
from aidotnet_py.data.image_loader import ImageLoader
from aidotnet_py.data.omniglot.images import FULL_INK, open_omniglot
from aidotnet_py.exceptions import ArgumentException
from aidotnet_py.keywords import suggests_keywords
from aidotnet_py.paths import check_path
from aidotnet_py.type_parameters import T

__all__ = ["OmniglotLoader"]

_FOLDER = "https://github.com/brendenlake/omniglot/raw/master/python/"
_ARCHIVES = {
    name: PublishedFile(f"{_FOLDER}{name}", size, sha256)
    for name, size, sha256 in (
        ("images_background.zip", 9464212, "ad41ab679c8b5d90b271ef46be6987cc81211774a695c29dcc5367b2b26ee640"),
        ("images_evaluation.zip", 6462886, "1f61a8f3366785b057fc117d9228e78a16e3d976c8953b2a10fcc74cf0609cee"),
        ("images_background_small1.zip", 1319022, "f38eb80f801274ac2b4dff5b24289016bfaba4a7d5bb50deebf27104ad6cb8a4"),
        ("images_background_small2.zip", 1580917, "3ccaa407515a8778e5d0861875af38b17e418f301ad5bb3b5a6b65d901a41c7f"),
    )
}


class OmniglotLoader(ImageLoader[T]):
    """N-way K-shot tasks on Omniglot's characters; a character has twenty images, by twenty writers.

    A loader draws from whole alphabets, in one of three ways: the alphabets that ``alphabets`` names; with ``split``,
    the first four fifths ("train") or the last fifth, rounded up ("test"), of the source's alphabets, sorted by name;
    without either, all alphabets, as in the published division into a background and an evaluation archive. With
    rotations each character is four classes, ``"Greek/character01"``, ``"Greek/character01@90"``, ``@180`` and ``@270``
    (counter-clockwise), which stay with their alphabet.

    Inputs are (n, 28, 28, 1), ink 1 and paper 0: exact averages of the 105×105 pixels over the area of each of 28×28
    cells. Labels are int64, shuffled for every task; rows are sorted by label. ``Metadata["Classes"]`` names the
    classes in the order of their labels, and ``Metadata["Ink"]`` is True. Images are decoded once and kept as 784 bytes
    each.

    Parameters
    ----------
    source : path
        A published archive (``images_background.zip``, ``images_evaluation.zip``, ``images_background_small1.zip``
        or ``images_background_small2.zip``), or its unpacked folder. Archives are read in memory, within limits, and
        never unpacked to disk; links in folders are refused.
    NWay, KShot, QueryShots : int
        Classes of a task, and support and query images of a class; KShot + QueryShots is at most 20.
    split : {"train", "test"}, optional
        The side of the division.
    alphabets : sequence of str, optional
        The names of alphabets; not together with ``split``.
    rotations : bool
        Whether turned characters are separate classes.
    download : bool
        Whether to fetch the published archive with the file name of ``source`` if there is no such file.
    seed, dtype, backend
        As for all loaders: seed of the random stream, NumPy floating type, backend of the arrays.

    Raises
    ------
    ArgumentOutOfRangeException
        NWay is below 2 or above the number of classes, another size is below 1, or the seed is negative.
    ArgumentException
        Another argument is invalid, or the source is damaged, unsafe or not laid out as Omniglot; the message names
        file and member.
    FileNotFoundError
        There is nothing at the source, and ``download`` is False.
    InvalidOperationException
        A download failed, or its size or checksum was wrong.
    ImportError
        Pillow is not installed, or pooch where ``download`` needs it.

    References
    ----------
    Lake, Salakhutdinov, Tenenbaum, "Human-level concept learning through probabilistic program induction",
    Science 350 (2015), 1332–1338.

    Examples
    --------
    >>> import tempfile, zipfile
    >>> from io import BytesIO
    >>> from pathlib import Path
    >>> from PIL import Image
    >>> from aidotnet_py.data import OmniglotLoader
    >>> def drawing(side):
    ...     image = Image.new("1", (105, 105), 1)
    ...     image.paste(0, (0, 0, side, side))
    ...     file = BytesIO()
    ...     image.save(file, "png")
    ...     return file.getvalue()
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "drawn.zip")
    ...     with zipfile.ZipFile(path, "w") as archive:
    ...         for side in range(3, 12):
    ...             archive.writestr(f"drawn/Squares/character{side // 3}/{side}.png", drawing(9 * side))
    ...     loader = OmniglotLoader(path, NWay=3, KShot=1, QueryShots=1, seed=0)
    >>> loader.AvailableClasses
    12
    >>> loader.GetNextTask().QueryInput.shape
    (3, 28, 28, 1)
    """

    @overload
    def __init__(
        self: OmniglotLoader[np.float32],
        source: str | os.PathLike[str],
        NWay: int = 5,
        KShot: int = 1,
        QueryShots: int = 15,
        *,
        split: Literal["train", "test"] | None = None,
        alphabets: Sequence[str] | None = None,
        rotations: bool = True,
        download: bool = False,
        seed: int | None = None,
        backend: str | Backend = "numpy",
    ) -> None: ...
    @overload
    def __init__(
        self,
        source: str | os.PathLike[str],
        NWay: int = 5,
        KShot: int = 1,
        QueryShots: int = 15,
        *,
        split: Literal["train", "test"] | None = None,
        alphabets: Sequence[str] | None = None,
        rotations: bool = True,
        download: bool = False,
        seed: int | None = None,
        dtype: type[T],
        backend: str | Backend = "numpy",
    ) -> None: ...
    @suggests_keywords()
    def __init__(
        self,
        source: str | os.PathLike[str],
        NWay: int = 5,
        KShot: int = 1,
        QueryShots: int = 15,
        *,
        split: Literal["train", "test"] | None = None,
        alphabets: Sequence[str] | None = None,
        rotations: bool = True,
        download: bool = False,
        seed: int | None = None,
        dtype: type[Any] = np.float32,
        backend: str | Backend = "numpy",
    ) -> None:
        super().__init__(
            "omniglot", FULL_INK, rotations, NWay, KShot, QueryShots, seed=seed, dtype=dtype, backend=backend
        )
        _check_choice(split, alphabets)
        path = check_path("source", source, "the path of an archive or a folder")
        # For the representation.
        self._source, self._split, self._alphabets = str(path), split, alphabets
        if download:
            _download_missing(path)
        with open_omniglot(path) as images:
            drawn = _choose(images.alphabets, split, alphabets)
            counts = {c: len(names) for c, names in images.members.items() if c.split("/")[0] in drawn}
            self._fill(counts, images.read_character)


def _check_choice(split: object, alphabets: object) -> None:
    if split not in ("train", "test", None):
        raise ArgumentException(refusal("split", "'train', 'test' or None", split))
    if alphabets is None:
        return
    if split is not None:
        raise ArgumentException(f"split must be None if alphabets is given, got {split!r} and {alphabets!r}")
    if isinstance(alphabets, str) or not isinstance(alphabets, Sequence):
        raise ArgumentException(refusal("alphabets", "a sequence of names", alphabets))


def _download_missing(path: Path) -> None:
    if path.exists():
        return
    if path.name not in _ARCHIVES:
        raise ArgumentException(f"source must be one of {', '.join(_ARCHIVES)} for a download, got {str(path)!r}")
    if not path.parent.is_dir():
        raise ArgumentException(
            f"source must lie in an existing folder for a download, got {str(path)!r}; make {str(path.parent)!r}"
        )
    download(_ARCHIVES[path.name], path)


def _choose(known: tuple[str, ...], split: str | None, alphabets: Sequence[str] | None) -> frozenset[str]:
    if alphabets is not None:
        unknown = sorted(set(alphabets) - set(known))
        if unknown or not alphabets:
            raise ArgumentException(f"alphabets must be one or more of {', '.join(known)}, got {list(alphabets)!r}")
        return frozenset(alphabets)
    held_out = -(-len(known) // 5)
    if split is not None and held_out == len(known):
        raise ArgumentException(f"split must be None for a source with one alphabet, {known[0]}, got {split!r}")
    parts = {None: known, "train": known[:-held_out], "test": known[-held_out:]}
    return frozenset(parts[split])
