"""Where the repository and its data are."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["OMNIGLOT", "ROOT"]

ROOT = Path(__file__).resolve().parents[2]
OMNIGLOT = Path(os.environ.get("AIDOTNET_PY_OMNIGLOT", ROOT.parent / "shared" / "data" / "omniglot"))
OMNIGLOT /= "images_background_small1.zip"
