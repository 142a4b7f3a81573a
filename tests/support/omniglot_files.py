"""Archives of drawn alphabets that stand for Omniglot's."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from aidotnet_py.data import OmniglotLoader

__all__ = ["alphabets", "drawing", "load", "png", "write"]


def png(ink: np.ndarray | None = None, size: int = 105) -> bytes:
    pixels = np.ones((size, size), bool) if ink is None else ~ink
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


def drawing(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).random((105, 105)) < 0.2


def write(path: Path, members: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name), data, compression)
    return path


def alphabets(*names: str, characters: int = 2, images: int = 3) -> dict[str, bytes]:
    return {
        f"set/{name}/character{c:02}/{c:04}_{i:02}.png": png(drawing(1000 * a + 10 * c + i))
        for a, name in enumerate(names)
        for c in range(1, characters + 1)
        for i in range(1, images + 1)
    }


def load(path: Path, **options: Any) -> OmniglotLoader[np.float32]:
    return OmniglotLoader(path, **{"NWay": 2, "KShot": 1, "QueryShots": 2, "seed": 0, **options})
