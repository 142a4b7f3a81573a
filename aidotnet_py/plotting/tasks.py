"""Figures of tasks before and after adaptation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from aidotnet_py.arguments import refusal
from aidotnet_py.backends import Array
from aidotnet_py.exceptions import ArgumentException
from aidotnet_py.losses import CrossEntropyLoss
from aidotnet_py.meta_learning import IMetaLearningTask
from aidotnet_py.meta_learning.contract.tasks import columns_of, is_batches, note_of, set_names
from aidotnet_py.plotting.canvas import (
    BLUE,
    GREEN,
    VERMILLION,
    add_grid,
    add_legend,
    draw_losses,
    ink,
    panel_grid,
    real_numbers,
    to_host,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw_classification_task", "draw_regression_task"]

_SHOWN_PER_CLASS = 6
# Characters of a class in a caption.
_LONGEST_NAME = 12


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
        Images (n, height, width, channels) of 1, 3 or 4 channels, and class indices (n,) or one-hot rows (n, classes),
        as `CrossEntropyLoss` takes them. Classes without images are left out. ``Metadata["Classes"]`` names the classes
        in the order of their labels; without it, they are called by these. Of one channel, 0 is black and 1 white, or
        the least and the greatest value of the task if these are beyond; the reverse if ``Metadata["Ink"]`` is True.
    before, after : array, shape (queries, classes)
        Logits of the query images, before and after adaptation. The column is the class index.
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
        When the task has no query set, its inputs are not such images, or its outputs no classes of the logits; when
        the logits are not of the query images, or those of an image have no finite largest; when the losses are no real
        numbers (n,); when ``ax`` is no Axes of a grid.
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
        raise ArgumentException(refusal(set_names(task, "Query")[0], "the images of a query set", None))
    support, query, steps = _images(task, "Support"), _images(task, "Query"), real_numbers("losses", losses)
    first, last = _logits("before", before, len(query)), _logits("after", after, len(query))
    if last.shape != first.shape:
        raise ArgumentException(f"after must have the shape of before, {first.shape}, got {last.shape}")
    labels, truth = (_labels(task, role, first.shape[1]) for role in ("Support", "Query"))
    guesses, names, shades = last.argmax(axis=1), _class_names(task, first.shape[1]), _shades(task, support, query)
    classes = np.union1d(labels, truth).tolist()
    figure, grid = panel_grid(ax, (11, 1.1 * len(classes) + 1.2), title, len(classes), _SHOWN_PER_CLASS + 5)
    for row, label in enumerate(classes):
        axes = figure.add_subplot(grid[row, 0])
        _draw_images(axes, support[labels == label][:1], f"class {names[label]}", ink(axes), shades)
        shown = np.flatnonzero(truth == label)[:_SHOWN_PER_CLASS]
        for column, place in enumerate(shown.tolist(), start=1):
            # Signs beside the colours, for those who see none.
            sign, colour = ("✓", GREEN) if guesses[place] == label else ("✗", VERMILLION)
            panel, caption = figure.add_subplot(grid[row, column]), f"→ {names[guesses[place]]} {sign}"
            _draw_images(panel, query[[place]], caption, colour, shades)
    curve = figure.add_subplot(grid[:, _SHOWN_PER_CLASS + 2 :])
    shares = [float((chosen == truth).mean()) for chosen in (first.argmax(axis=1), guesses)]
    draw_losses(curve, steps, f"query accuracy\n{shares[0]:.0%} → {shares[1]:.0%}")
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
    grid : array_like, shape (n,) or (n, 1)
        The points at which the functions are drawn.
    before, after : array, shape (n,) or (n, 1)
        Predictions on the grid, before and after adaptation.
    losses : array_like, shape (steps + 1,)
        Support losses before the first and after each inner step.
    truth : array_like, shape (n,) or (n, 1), optional
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
        When inputs or outputs are several numbers each; when a function has not the points of the grid; when the losses
        are no real numbers (n,); when ``ax`` is no Axes of a grid.
    ImportError
        When matplotlib is not installed.

    Examples
    --------
    >>> from aidotnet_py.data import SinusoidLoader
    >>> task, x = SinusoidLoader(seed=0).GetNextTask(), np.linspace(-5, 5, 50)
    >>> figure = draw_regression_task(task, x, np.zeros(50), np.sin(x), [4.0, 1.0])
    >>> figure.savefig("/dev/null", format="png")
    """
    points = [
        _numbers(name, values) for name, values in zip(set_names(task, "Support"), _set(task, "Support"), strict=True)
    ]
    x, steps = _numbers("grid", to_host(grid)), real_numbers("losses", losses)
    given = {"before": before, "after": after, **({} if truth is None else {"truth": truth})}
    lines = {name: _on_grid(name, values, len(x)) for name, values in given.items()}
    figure, places = panel_grid(ax, (10, 4), title, 1, 2, width_ratios=(2, 1))
    functions, curve = places.subplots()
    if truth is not None:
        functions.plot(x, lines["truth"], color=ink(functions), alpha=0.3, linewidth=4, label="true function")
    functions.plot(x, lines["before"], "--", color=VERMILLION, label="before adaptation")
    functions.plot(x, lines["after"], color=BLUE, label="after adaptation")
    functions.plot(*points, "o", color=ink(functions), label="support")
    functions.set_xlabel("x")
    functions.set_ylabel("y")
    add_grid(functions)
    add_legend(functions)
    draw_losses(curve, steps, "")
    return cast("Figure", figure)


def _set(task: IMetaLearningTask[Any, Any, Any], role: str) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return inputs and outputs of a task's "Support" or "Query" set on the host, batches joined."""
    (x,), (y,) = columns_of([task], role)
    joined = [np.concatenate([to_host(b) for b in data]) if is_batches(data) else to_host(data) for data in (x, y)]
    return joined[0], joined[1]


def _images(task: IMetaLearningTask[Any, Any, Any], role: str) -> NDArray[Any]:
    images = _set(task, role)[0]
    if images.ndim != 4 or images.shape[-1] not in (1, 3, 4):
        raise ArgumentException(
            f"{set_names(task, role)[0]} must be images (n, height, width, channels) of 1, 3 or 4 channels, got shape "
            f"{images.shape}"
        )
    return images


def _labels(task: IMetaLearningTask[Any, Any, Any], role: str, classes: int) -> NDArray[np.intp]:
    """Return the class indices of a set, (n,), after the check that each is a column of the logits."""
    labels, name = _set(task, role)[1], set_names(task, role)[1]
    CrossEntropyLoss[Any]().validate((len(labels), classes), labels, name)
    # The loss lets NaN pass, as numbers are checked after it.
    if np.isnan(labels).any():
        raise ArgumentException(f"{name} must hold one-hot rows or probabilities, got NaN")
    return labels.astype(np.intp) if labels.ndim == 1 else labels.argmax(axis=1)


def _logits(name: str, given: Array, queries: int) -> NDArray[Any]:
    """Return logits on the host, after the check that they have a row, with a largest number, for each query image."""
    logits = to_host(given)
    if logits.ndim != 2 or len(logits) != queries or logits.size == 0:
        raise ArgumentException(
            f"{name} must be logits (queries, classes) of the {queries} query images, got shape {logits.shape}"
        )
    largest = logits.max(axis=1)
    lacking = np.flatnonzero(~np.isfinite(largest)).tolist()
    if lacking:
        raise ArgumentException(
            f"{name} must have a finite largest logit for each query image, got {largest[lacking[0]]} for image "
            f"{lacking[0]}"
        )
    return logits


def _numbers(name: str, values: NDArray[Any]) -> NDArray[Any]:
    """Return an array (n,) or (n, 1) as (n,)."""
    if values.ndim == 0 or values.size != len(values):
        raise ArgumentException(f"{name} must be one number each, (n,) or (n, 1), got shape {values.shape}")
    return values.ravel()


def _on_grid(name: str, given: ArrayLike | Array, points: int) -> NDArray[Any]:
    values = _numbers(name, to_host(given))
    if len(values) != points:
        raise ArgumentException(f"{name} must have a number for each of the {points} points of grid, got {len(values)}")
    return values


def _class_names(task: IMetaLearningTask[Any, Any, Any], count: int) -> list[str]:
    """Return what so many classes are called in captions: by the task, or else by their labels."""
    known = note_of(task, "Classes")
    names: list[Any] = [*known] if isinstance(known, (tuple, list)) else []
    return [_short(str(name)) for name in [*names, *range(len(names), count)]]


def _short(name: str) -> str:
    """Return a name that a caption has room for; the ends tell most names apart. Dollars would begin a formula."""
    whole = name if len(name) <= _LONGEST_NAME else f"{name[:4]}…{name[5 - _LONGEST_NAME :]}"
    return whole.replace("$", r"\$")


def _shades(task: IMetaLearningTask[Any, Any, Any], *images: NDArray[Any]) -> dict[str, Any]:
    """Return how images of one channel are drawn: all of a task alike, and light where values are high, but for ink."""
    finite = [array[np.isfinite(array)].astype(np.float64) for array in images]
    low, high = min(array.min(initial=0) for array in finite), max(array.max(initial=1) for array in finite)
    return {"cmap": "gray_r" if note_of(task, "Ink") is True else "gray", "vmin": low, "vmax": high}


def _draw_images(axes: Any, images: NDArray[Any], caption: str, colour: Any, shades: dict[str, Any]) -> None:
    """Draw the one image that there is, or none, under its caption."""
    for image in images:
        axes.imshow(image[..., 0] if image.shape[-1] == 1 else image, **shades)
    axes.set_title(caption, fontsize=9, color=colour)
    axes.set_axis_off()
