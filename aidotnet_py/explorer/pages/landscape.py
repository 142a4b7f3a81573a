"""A figure of two parameters: level lines of a loss, points, paths and arrows."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aidotnet_py.explorer.inner_problem import GRID
from aidotnet_py.explorer.pages.page import LEVELS, figure, line, models
from aidotnet_py.explorer.surfaces import VIEW

__all__ = ["Landscape", "add_arrow", "add_marker", "put"]

_contours: Any = import_module("bokeh.plotting.contour")

Vector = NDArray[np.float64]

# The longest arrow, in the unit of the axes.
ARROW = 1.3


class Landscape:
    """A square figure of both parameters within the view, with the level lines of a loss."""

    def __init__(self) -> None:
        self.figure = figure(square=True, x_range=(-VIEW, VIEW), y_range=(-VIEW, VIEW))
        self.figure.xaxis.axis_label, self.figure.yaxis.axis_label = "first parameter", "second parameter"
        self.figure.grid.visible = False
        self._levels = models.ColumnDataSource({"xs": [], "ys": [], "colour": []})
        self.figure.multi_line("xs", "ys", source=self._levels, line_color="colour", line_width=1.2)
        self._path = models.ColumnDataSource({"x": [], "y": []})
        line(self.figure, self._path, "x", "y", line_width=1.5)
        dots = self.figure.scatter("x", "y", source=self._path, size=5, line_color=None, fill_color="#555555")
        dots.glyph.tags = ["ink"]

    def draw_levels(self, values: Vector) -> None:
        """Draw lines that part the grid's points into shares of equal size, so that they show plains and cliffs."""
        levels = np.quantile(values, np.linspace(0.01, 0.95, len(LEVELS)))
        # Equal ones would be no levels.
        levels += np.arange(len(levels)) * 1e-12 * (1.0 + np.abs(levels).max())
        lines = _contours.contour_data(GRID, GRID, values, levels, want_fill=False).line_data
        single = (
            [np.asarray(part, np.float32) for part in lines.xs],
            [np.asarray(part, np.float32) for part in lines.ys],
        )
        self._levels.data = {"xs": single[0], "ys": single[1], "colour": list(LEVELS)}

    def draw_path(self, path: Vector) -> None:
        """Draw a path (points, 2)."""
        self._path.data = {"x": path[:, 0], "y": path[:, 1]}


def add_arrow(target: Any, colour: str) -> Any:
    """Add an arrow of no length, and return its source for `put`."""
    source = models.ColumnDataSource({"x_start": [0.0], "y_start": [0.0], "x_end": [0.0], "y_end": [0.0]})
    head = models.VeeHead(size=11, fill_color=colour, line_color=colour)
    target.add_layout(models.Arrow(end=head, source=source, line_color=colour, line_width=4))
    return source


def add_marker(target: Any, marker: str, colour: str, size: int) -> Any:
    """Add a marker, and return its source for `put`."""
    source = models.ColumnDataSource({"x": [0.0], "y": [0.0]})
    target.scatter("x", "y", source=source, marker=marker, size=size, color=colour, line_color="white", line_width=1.5)
    return source


def put(source: Any, start: Vector, end: Vector | None = None) -> None:
    """Put a marker, or an arrow from a start to an end."""
    if end is None:
        source.data = {"x": [start[0]], "y": [start[1]]}
    else:
        source.data = {"x_start": [start[0]], "y_start": [start[1]], "x_end": [end[0]], "y_end": [end[1]]}
