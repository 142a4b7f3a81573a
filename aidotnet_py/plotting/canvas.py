"""What all figures share: where they are drawn, their colours, and their legends."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from aidotnet_py.arguments import refusal
from aidotnet_py.backends import Array, backend_of
from aidotnet_py.exceptions import ArgumentException

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "BLUE",
    "GREEN",
    "ORANGE",
    "VERMILLION",
    "add_grid",
    "add_legend",
    "curve_style",
    "draw_losses",
    "figure_formats",
    "figure_of",
    "ink",
    "loss_scale",
    "one_panel",
    "panel_grid",
    "real_numbers",
    "to_host",
]

# Okabe & Ito 2008, told apart by people who are colour-blind; black, which dark pages hide, and yellow, which light
# pages hide, are left out.
BLUE, ORANGE, GREEN, VERMILLION, PURPLE, SKY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9"
_CURVES = (BLUE, ORANGE, GREEN, VERMILLION, PURPLE, SKY)
_DASHES = ("-", "--", "-.", ":")


def curve_style(place: int) -> dict[str, Any]:
    """Return colour and dashes of the curve at a place, from 0; 24 curves differ."""
    return {"color": _CURVES[place % len(_CURVES)], "linestyle": _DASHES[place // len(_CURVES) % len(_DASHES)]}


def one_panel(ax: Axes | None, size: tuple[float, float], title: str) -> Any:
    """Return the caller's axes, or those of a new figure."""
    if ax is None:
        return _new_figure(size, title).add_subplot()
    axes = _check_axes(ax)
    if title:
        axes.set_title(title)
    return axes


def panel_grid(
    ax: Axes | None, size: tuple[float, float], title: str, rows: int, columns: int, **ratios: Any
) -> tuple[Any, Any]:
    """Return a figure and a grid of places in it: of a new figure, or of the place of the caller's axes.

    The caller's axes stay, without lines, as the bearer of the title.

    Raises
    ------
    ArgumentException
        When ``ax`` is not an axes of a grid, as by ``figure.subplots()``.
    """
    if ax is None:
        figure = _new_figure(size, title)
        return figure, figure.add_gridspec(rows, columns, **ratios)
    axes = _check_axes(ax)
    place = axes.get_subplotspec()
    if place is None:
        raise ArgumentException(
            "ax must be an axes of a grid, as by figure.subplots(), for a figure of several panels, got one of "
            "figure.add_axes()"
        )
    axes.set_axis_off()
    if not title:
        return axes.figure, place.subgridspec(rows, columns, **ratios)
    axes.set_title(title)
    # The panels begin under the title, whose place no layout keeps free of them.
    below = place.subgridspec(2, 1, height_ratios=(0.08, 1))
    return axes.figure, below[1].subgridspec(rows, columns, **ratios)


def figure_of(axes: Any) -> Figure:
    """Return the figure that axes belong to."""
    return cast("Figure", axes.figure)


def _check_axes(ax: object) -> Any:
    from matplotlib.axes import Axes

    if not isinstance(ax, Axes):
        raise ArgumentException(refusal("ax", "a matplotlib Axes", ax))
    return ax


def _new_figure(size: tuple[float, float], title: str) -> Any:
    try:
        from aidotnet_py.plotting.cell_figure import CellFigure
    except ImportError as error:
        raise ImportError('figures need matplotlib: pip install "aidotnet-py[plot]"') from error
    # Without pyplot: no window system, no global state, nothing to close.
    figure: Any = CellFigure(figsize=size, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.1, h_pad=0.08)
    if title:
        figure.suptitle(title)
    return figure


def figure_formats() -> tuple[str, ...]:
    """Return the file name extensions in which figures can be saved, without the dot; ``pgf`` where TeX is installed.

    Raises
    ------
    ImportError
        When matplotlib is not installed.

    Examples
    --------
    >>> "png" in figure_formats()
    True
    """
    formats = set[str](_new_figure((1, 1), "").canvas.get_supported_filetypes())
    return tuple(sorted(formats if _has_tex() else formats - {"pgf"}))


def _has_tex() -> bool:
    """Return whether the program is there by which matplotlib measures the text of PGF figures."""
    from matplotlib import rcParams

    return shutil.which(rcParams["pgf.texsystem"]) is not None


def ink(axes: Any) -> Any:
    """Return the colour of text in these axes: dark on a light figure, light on a dark one."""
    return axes.xaxis.label.get_color()


def add_grid(axes: Any) -> None:
    """Add fine lines behind the data."""
    axes.grid(color=ink(axes), alpha=0.2, linewidth=0.6)
    axes.set_axisbelow(True)


def add_legend(axes: Any, **options: Any) -> None:
    """Add a legend that hides no more than it must, in the colours of the axes."""
    options = {"fontsize": "small", "framealpha": 0.75, "edgecolor": "none", **options}
    axes.legend(facecolor=axes.get_facecolor(), labelcolor=ink(axes), **options)


def loss_scale(losses: ArrayLike) -> str:
    """Return the scale of an axis of losses: "log", or "linear" where one is ≤ 0, which no logarithm shows."""
    return "linear" if (np.asarray(losses, np.float64) <= 0).any() else "log"


def draw_losses(axes: Any, losses: NDArray[np.float64], title: str) -> None:
    """Draw the support loss before the first and after each inner step."""
    axes.plot(np.arange(len(losses)), losses, marker=".", color=BLUE)
    axes.set_yscale(loss_scale(losses))
    axes.set_xlabel("inner steps")
    axes.set_ylabel("support loss")
    axes.set_title(title, fontsize="medium")
    add_grid(axes)


def real_numbers(name: str, given: ArrayLike) -> NDArray[np.float64]:
    """Return a sequence of numbers, (n,), NaN and infinities included.

    Raises
    ------
    ArgumentException
        When it has another shape, or holds something else.
    """
    values = np.asarray(given)
    if values.ndim != 1 or values.dtype.kind not in "biuf":
        raise ArgumentException(f"{name} must be real numbers (n,), got shape {values.shape} of {values.dtype}")
    return values.astype(np.float64)


def to_host(array: Array) -> NDArray[Any]:
    """Return an array of any backend, or a list of numbers, as one of NumPy."""
    backend = backend_of(array)
    return np.asarray(array) if backend is None else backend.to_numpy(array)
