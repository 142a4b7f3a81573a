"""What turns images into inputs: the form that a loader decodes them to, for images and folders that come later."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from aidotnet_py.arguments import SWITCH, Choice, Whole, check_given, refusal
from aidotnet_py.data.episodic import DTYPE_NAME
from aidotnet_py.data.image_folder.decoding import ImageForm
from aidotnet_py.data.image_folder.listing import list_images
from aidotnet_py.data.pixels import ImageError
from aidotnet_py.data.safe_folder import SafeFolder
from aidotnet_py.data.safe_zip import ReadLimits
from aidotnet_py.exceptions import ArgumentException
from aidotnet_py.meta_learning.contract.tasks import MetaLearningTask
from aidotnet_py.paths import check_folder, check_path

__all__ = ["FIT", "LIMITS", "SIDE", "ImageEncoding"]

FIT = Choice("crop", "stretch", "pad")
SIDE = Whole(1, 4096)
LIMITS = ReadLimits(members=1 << 22, member_bytes=1 << 26, total_bytes=1 << 62)


@dataclass(frozen=True)
class ImageEncoding:
    """The encoding of images: pixels of one size and mode as numbers from 0 for black to 1 for white.

    An `ImageFolderLoader` keeps its own as ``encoding``.

    Attributes
    ----------
    form : ImageForm
        Height, width, fit and colours.
    dtype : numpy dtype
        The floating type of the arrays.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from PIL import Image
    >>> from aidotnet_py.data import ImageEncoding
    >>> encoding = ImageEncoding.from_settings(
    ...     {"height": 8, "width": 8, "fit": "crop", "color": False, "dtype": "float32"}
    ... )
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for label, shade in {"dawn": 200, "dusk": 50}.items():
    ...         Path(folder, label).mkdir()
    ...         Image.new("L", (30, 20), shade).save(Path(folder, label, "1.png"))
    ...     task = encoding.task(folder)
    ...     found = encoding.inputs([Path(folder, "dusk", "1.png")])
    >>> task.SupportInput.shape, task.SupportOutput.tolist(), task.Metadata["Classes"]
    ((2, 8, 8, 1), [0, 1], ('dawn', 'dusk'))
    >>> float(found.max() * 255)
    50.0
    """

    form: ImageForm
    dtype: np.dtype[Any]

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """The shape of one input, for a model's ``input_shape``."""
        return self.form.shape

    def inputs(self, images: Sequence[str | os.PathLike[str]]) -> NDArray[Any]:
        """Return the inputs of image files, (n, height, width, channels).

        Raises
        ------
        FileNotFoundError
            There is no such file.
        ArgumentException
            ``images`` are no paths, or a file is no whole image; the message names it.
        """
        given: Any = images
        if isinstance(given, (str, os.PathLike)) or not isinstance(given, Sequence) or not given:
            raise ArgumentException(refusal("images", "a list of one or more paths of images", images))
        paths = [check_path(f"images[{index}]", image) for index, image in enumerate(cast(Any, given))]
        for path in paths:
            if not path.exists():
                raise FileNotFoundError(errno.ENOENT, "images must be existing files, got nothing", str(path))
        inputs = np.empty((len(paths), *self.form.shape), self.dtype)
        for path, out in zip(paths, inputs, strict=True):
            self._encode(path, _read(path), out)
        return inputs

    def task(
        self, support: str | os.PathLike[str], query: str | os.PathLike[str] | None = None
    ) -> MetaLearningTask[Any, Any, Any]:
        """Return the task of new classes: a folder of class folders to adapt to, and perhaps one to evaluate on.

        Labels are those of the sorted names of the support's class folders, in ``Metadata["Classes"]``. For images
        whose classes are not known, ``adapted.Predict(encoding.inputs(paths))`` scores the classes.

        Raises
        ------
        FileNotFoundError
            There is no such folder.
        ArgumentException
            A folder has something that is no whole image, or the query has a class that the support does not have.
        """
        classes, inputs, labels = self._folder("support", support, None)
        x, y = (None, None) if query is None else self._folder("query", query, classes)[1:]
        return MetaLearningTask(
            SupportSetX=inputs,
            SupportSetY=labels,
            QuerySetX=x,
            QuerySetY=y,
            NumWays=len(classes),
            NumShots=int(np.bincount(labels).min()),
            NumQueryPerClass=1 if y is None else int(max(np.bincount(y).min(), 1)),
            Metadata={"Classes": classes, "Encoding": self},
        )

    def settings(self) -> dict[str, Any]:
        """Return all of it as plain JSON values, for `from_settings`."""
        return {"kind": "images", **self.form.settings(), "dtype": self.dtype.name}

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> ImageEncoding:
        """Return the encoding that `settings` described.

        Raises
        ------
        ArgumentException
            ``settings`` is no such description.
        """
        check_given("settings", settings, "a mapping of ImageEncoding.settings")
        try:
            form = ImageForm(
                SIDE.check("height", settings["height"]),
                SIDE.check("width", settings["width"]),
                FIT.check("fit", settings["fit"]),
                SWITCH.check("color", settings["color"]),
            )
            return cls(form, np.dtype(DTYPE_NAME.check("dtype", settings["dtype"])))
        except (KeyError, TypeError) as error:
            raise ArgumentException(f"settings must be those of an ImageEncoding, got {settings!r:.80}") from error

    def _folder(
        self, name: str, folder: Any, known: tuple[str, ...] | None
    ) -> tuple[tuple[str, ...], NDArray[Any], NDArray[np.int64]]:
        """Return the classes of a folder, or the known ones, its inputs and their labels."""
        path, left_out = check_folder(name, folder), dict[str, str]()
        files = SafeFolder(path, LIMITS, left_out)
        images = list_images(path, files, None, left_out)
        if left_out or not images:
            entry, reason = next(
                iter(left_out.items()), ("", "must hold a folder with images for each class, got none")
            )
            raise ArgumentException(f"{str(path / entry)!r:.200} {reason}")
        classes = tuple(images) if known is None else known
        for label in images:
            if label not in classes:
                raise ArgumentException(
                    f"{name} must have classes of the support, {', '.join(classes)!r:.200}, got {label!r:.100}"
                )
        names = [file for own in images.values() for file in own]
        inputs = np.empty((len(names), *self.form.shape), self.dtype)
        for file, out in zip(names, inputs, strict=True):
            self._encode(path / file, files.read(file), out)
        counts = [len(own) for own in images.values()]
        return classes, inputs, np.repeat([classes.index(label) for label in images], counts).astype(np.int64)

    def _encode(self, path: Path, data: bytes, out: NDArray[Any]) -> None:
        try:
            np.divide(self.form.decode(data), 255, dtype=self.dtype, out=out)
        except ImageError as error:
            raise ArgumentException(f"{str(path)!r:.200} {error}") from error


def _read(path: Path) -> bytes:
    """Return the bytes of a file that the caller has named, at most as many as of one in a folder."""
    try:
        with open(path, "rb") as file:
            data = file.read(LIMITS.member_bytes + 1)
    except OSError as error:
        raise ArgumentException(f"{str(path)!r:.200} must be readable: {error}") from error
    if len(data) > LIMITS.member_bytes:
        raise ArgumentException(f"{str(path)!r:.200} must have at most {LIMITS.member_bytes} bytes, got more")
    return data
