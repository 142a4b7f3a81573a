"""Which images of a folder belong to which class: class folders, and the layouts of mini-ImageNet and CIFAR-FS."""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from pathlib import Path

from aidotnet_py.data.safe_folder import SafeFolder
from aidotnet_py.exceptions import ArgumentException

__all__ = ["SPLITS", "is_hidden", "list_images"]

SPLITS = ("train", "val", "test")
_OTHER_NAMES = {"val": ("val", "validation")}
_IMAGES = (".jpg", ".jpeg", ".png")
# Of macOS's archives, and of Windows' folders of pictures; other names that systems add begin with a dot.
_ADDED = ("__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini")


def list_images(
    path: Path, files: SafeFolder, split: str | None, left_out: dict[str, str]
) -> dict[str, tuple[str, ...]]:
    """Return the names of each class's images, both sorted, without reading any image.

    Parameters
    ----------
    path : Path
        The folder, for messages.
    files : SafeFolder
        Its files.
    split : {"train", "val", "test"} or None
        The part of a published layout; None for class folders.
    left_out : dict
        Takes the names of what is left out, with reasons.

    Raises
    ------
    ArgumentException
        The folder does not have the layout, or a list of it is broken.
    """
    if split is None:
        _check_undivided(path, files)
        return _by_folder(files, "", left_out)
    names = _OTHER_NAMES.get(split, (split,))
    for name in names:
        if f"{name}.csv" in files.names:
            return _by_csv(path, files, f"{name}.csv", left_out)
    lists = [
        file for file in files.names if file.startswith("splits/") and file.endswith(tuple(f"/{n}.txt" for n in names))
    ]
    if len(lists) > 1:
        raise ArgumentException(f"{str(path)!r:.200} must have one list of {split} classes, got {', '.join(lists)}")
    if lists:
        return _by_class_list(path, files, lists[0], left_out)
    for name in names:
        if name in files.folders:
            return _by_folder(files, f"{name}/", left_out)
    raise ArgumentException(
        f"split must be None for {str(path)!r:.200}, got {split!r}; it has no {split}.csv, splits/…/{split}.txt or "
        f"folder {split}"
    )


def _check_undivided(path: Path, files: SafeFolder) -> None:
    """Refuse a published layout, of which a part must be named."""
    top = {name for name in files.folders if "/" not in name and not is_hidden(name)}
    parts = {other for split in SPLITS for other in _OTHER_NAMES.get(split, (split,))}
    if "train.csv" in files.names or {"data", "splits"} <= top or (top and top <= parts):
        raise ArgumentException(
            f"split must be 'train', 'val' or 'test' for {str(path)!r:.200}, which is divided, got None"
        )


def _by_folder(files: SafeFolder, inside: str, left_out: dict[str, str]) -> dict[str, tuple[str, ...]]:
    """Return the images of class folders in a folder, whose name ends with a slash."""
    images: dict[str, list[str]] = {}
    for folder in files.folders:
        label = folder.removeprefix(inside)
        if not folder.startswith(inside) or "/" in label or is_hidden(label):
            continue
        if label.isprintable():
            images[label] = []
        else:
            left_out[folder] = "must have a name of printable characters"
    for file in files.names:
        label, *rest = file.removeprefix(inside).split("/")
        if not file.startswith(inside) or is_hidden(file):
            continue
        if not rest:
            if label.lower().endswith(_IMAGES):
                left_out[file] = "must lie in the folder of its class"
        elif len(rest) > 1:
            left_out[file] = "must lie in the folder of its class itself, got a folder in it"
        elif label in images:
            _add(images[label], file, left_out)
    return _without_empty(images, left_out, inside)


def _by_csv(path: Path, files: SafeFolder, table: str, left_out: dict[str, str]) -> dict[str, tuple[str, ...]]:
    """Return the images of a table ``filename,label``, as published by Ravi and Larochelle for mini-ImageNet."""
    known, images, seen = set(files.names), defaultdict[str, list[str]](list), set[str]()
    lines = csv.DictReader(io.StringIO(_text(path, files, table), newline=""))
    try:
        columns, rows = lines.fieldnames or (), list(lines)
    # Such as of a quotation mark without the other one.
    except csv.Error as error:
        raise ArgumentException(f"{table} must be a table with commas, got another: {error}") from error
    if not {"filename", "label"} <= set(columns):
        raise ArgumentException(f"{table} must have the columns filename and label, got {', '.join(columns)}")
    for row in rows:
        file, label = row["filename"], (row["label"] or "").strip()
        # Only files that the walk has found are read, so that a name cannot lead out of the folder.
        place = next((name for name in (f"images/{file}", file) if name in known), None)
        # A file has two names, with the folder and without.
        if not file or not label or (place or file) in seen:
            raise ArgumentException(
                f"{table} must name each file once, with a label, got {file!r:.100}, {label!r:.100}"
            )
        seen.add(place or file)
        if place is None:
            left_out[file] = f"must be a file in images, as {table} has it, got none"
        else:
            _add(images[label], place, left_out)
    return _without_empty(images, left_out, "")


def _by_class_list(path: Path, files: SafeFolder, table: str, left_out: dict[str, str]) -> dict[str, tuple[str, ...]]:
    """Return the images in ``data`` of the classes in a list, one a line, as published by Bertinetto et al."""
    unlisted: dict[str, str] = {}
    everything = _by_folder(files, "data/", unlisted)
    wanted = [line.strip() for line in _text(path, files, table).splitlines() if line.strip()]
    if not wanted:
        raise ArgumentException(f"{table} must name classes, got none")
    for label in sorted(set(wanted) - set(everything)):
        left_out[f"data/{label}"] = f"must be a folder with images, as {table} has it, got none"
    left_out.update({name: reason for name, reason in unlisted.items() if name.split("/")[1] in wanted})
    return {label: files for label, files in everything.items() if label in set(wanted)}


def _add(images: list[str], file: str, left_out: dict[str, str]) -> None:
    if file.isprintable():
        images.append(file)
    else:
        left_out[file] = "must have a name of printable characters"


def _without_empty(images: dict[str, list[str]], left_out: dict[str, str], inside: str) -> dict[str, tuple[str, ...]]:
    for label in [label for label, files in images.items() if not files]:
        left_out[f"{inside}{label}"] = "must hold images, got none"
        del images[label]
    return {label: tuple(sorted(images[label])) for label in sorted(images)}


def is_hidden(name: str) -> bool:
    """Return whether a name is one of those that systems and tools add, such as ``.DS_Store`` and ``Thumbs.db``."""
    return any(part.startswith(".") or part.lower() in _ADDED for part in name.split("/"))


def _text(path: Path, files: SafeFolder, name: str) -> str:
    try:
        return files.read(name).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ArgumentException(f"{str(path / name)!r:.200} must be a text in UTF-8: {error}") from error
