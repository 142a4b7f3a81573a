"""Figures of tasks before and after adaptation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from aidotnet_py.arguments import refusal
from aidotnet_py.backends import Array
from aidotnet_py.exceptions import ArgumentException
from aidotnet_py.meta_learning import IMetaLearningTask
from aidotnet_py.plotting.canvas import (
    BLUE,
    GREEN,
    VERMILLION,
    add_grid,
    add_legend,
    draw_losses,
    ink,
    panel_grid,
    to_host,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw_classification_task", "draw_regression_task"]

_SHOWN_PER_CLASS = 6


def draw_classification_task(
    task: IMetaLearningTask[Any, Any, Any],
    before: Array,
    after: Array,
    losses: ArrayLike,
    title: str = "",
    ax: Axes | None = None,
) -> Figure:
    """Draw an image task: its support set, query images with their predicted classes, and the loss over the steps.

    Parameters
    ----------
    task : IMetaLearningTask
        Images (n, height, width, channels) and class indices (n,).
    before, after : array, shape (queries, classes)
        Logits of the query images, before and after adaptation.
    losses : array_like, shape (steps + 1,)
        Support losses before the first and after each inner step, as in ``MetaAdaptationResult.PerStepLosses``.
    title : str
        The title of the figure.
    ax : matplotlib.axes.Axes, optional
        An axes of a grid, whose place the panels take; None: a new figure.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ArgumentException
        When the task has no query set, or its inputs are not images; when ``ax`` is no Axes of a grid.
    ImportError
        When matplotlib is not installed.

    Examples
    --------
    >>> from aidotnet_py.data import DigitsLoader
    >>> task = DigitsLoader(NWay=5, KShot=1, QueryShots=6, seed=0).GetNextTask()
    >>> figure = draw_classification_task(task, np.zeros((30, 5)), np.eye(5)[task.QueryOutput], [1.6, 0.4])
    >>> figure.savefig("/dev/null", format="png")
    """
    if task.QueryInput is None or task.QueryOutput is None:
        raise ArgumentException(refusal("QueryInput", "the images of a query set", None))
    support, query = to_host(task.SupportInput), to_host(task.QueryInput)
    if support.ndim != 4 or query.ndim != 4:
        name, shape = ("SupportInput", support.shape) if support.ndim != 4 else ("QueryInput", query.shape)
        raise ArgumentException(f"{name} must be images (n, height, width, channels), got shape {shape}")
    labels, truth = to_host(task.SupportOutput), to_host(task.QueryOutput)
    classes = int(labels.max()) + 1
    columns = _SHOWN_PER_CLASS + 5
    figure, grid = panel_grid(ax, (11, 1.1 * classes + 1.2), title, classes, columns)
    guesses = _classes(after)
    for row in range(classes):
        axes = figure.add_subplot(grid[row, 0])
        _draw_image(axes, support[labels == row][0], f"class {row}", ink(axes))
        shown = np.flatnonzero(truth == row)[:_SHOWN_PER_CLASS]
        for column, place in enumerate(shown.tolist(), start=1):
            # Signs beside the colours, for those who see none.
            sign, colour = ("✓", GREEN) if guesses[place] == row else ("✗", VERMILLION)
            _draw_image(figure.add_subplot(grid[row, column]), query[place], f"→ {guesses[place]} {sign}", colour)
    curve = figure.add_subplot(grid[:, _SHOWN_PER_CLASS + 2 :])
    shares = [float((_classes(logits) == truth).mean()) for logits in (before, after)]
    draw_losses(curve, losses, f"query accuracy\n{shares[0]:.0%} → {shares[1]:.0%}")
    return cast("Figure", figure)


def draw_regression_task(
    task: IMetaLearningTask[Any, Any, Any],
    grid: ArrayLike,
    before: Array,
    after: Array,
    losses: ArrayLike,
    truth: ArrayLike | None = None,
    title: str = "",
    ax: Axes | None = None,
) -> Figure:
    """Draw a one-dimensional regression task: its points, the function before and after adaptation, and the loss.

    Parameters
    ----------
    task : IMetaLearningTask
        A task whose inputs and outputs are one number each.
    grid : array_like, shape (n,)
        The points at which the functions are drawn.
    before, after : array, shape (n,) or (n, 1)
        Predictions on the grid, before and after adaptation.
    losses : array_like, shape (steps + 1,)
        Support losses before the first and after each inner step.
    truth : array_like, shape (n,), optional
        The true function on the grid.
    title : str
        The title of the figure.
    ax : matplotlib.axes.Axes, optional
        An axes of a grid, whose place the panels take; None: a new figure.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ArgumentException
        When ``ax`` is no Axes of a grid.
    ImportError
        When matplotlib is not installed.

    Examples
    --------
    >>> from aidotnet_py.data import SinusoidLoader
    >>> task, x = SinusoidLoader(seed=0).GetNextTask(), np.linspace(-5, 5, 50)
    >>> figure = draw_regression_task(task, x, np.zeros(50), np.sin(x), [4.0, 1.0])
    >>> figure.savefig("/dev/null", format="png")
    """
    figure, places = panel_grid(ax, (10, 4), title, 1, 2, width_ratios=(2, 1))
    functions, curve = places.subplots()
    x = np.asarray(grid)
    if truth is not None:
        functions.plot(x, np.asarray(truth), color=ink(functions), alpha=0.3, linewidth=4, label="true function")
    functions.plot(x, to_host(before).ravel(), "--", color=VERMILLION, label="before adaptation")
    functions.plot(x, to_host(after).ravel(), color=BLUE, label="after adaptation")
    points = (to_host(task.SupportInput).ravel(), to_host(task.SupportOutput).ravel())
    functions.plot(*points, "o", color=ink(functions), label="support")
    functions.set_xlabel("x")
    functions.set_ylabel("y")
    add_grid(functions)
    add_legend(functions)
    draw_losses(curve, losses, "")
    return cast("Figure", figure)


def _classes(logits: Array) -> NDArray[np.int64]:
    """Return the class of the largest logit of each row."""
    return np.asarray(np.argmax(to_host(logits), axis=-1))


def _draw_image(axes: Any, image: NDArray[Any], caption: str, colour: Any) -> None:
    axes.imshow(image.squeeze(), cmap="gray_r")
    axes.set_title(caption, fontsize=9, color=colour)
    axes.set_axis_off()
