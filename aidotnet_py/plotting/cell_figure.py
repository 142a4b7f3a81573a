"""A figure without pyplot that a notebook shows; imported where a figure is made, since matplotlib is an extra."""

from __future__ import annotations

from io import BytesIO
from typing import Any, cast

from matplotlib.figure import Figure

__all__ = ["CellFigure"]


class CellFigure(Figure):
    """A figure that shows as the last line of a cell, also where no ``%matplotlib inline`` has registered figures."""

    def _repr_png_(self) -> bytes:
        file = BytesIO()
        # Any: matplotlib's stubs leave the types of its keywords open, which pyright strict reports at each call.
        cast(Any, self).savefig(file, format="png")
        return file.getvalue()
