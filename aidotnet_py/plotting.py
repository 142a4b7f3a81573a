"""Figures of tasks and of adaptation, by matplotlib (the ``plot`` extra).

Functions return figures, for the caller to show or save.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from aidotnet_py.arguments import refusal
from aidotnet_py.backends import Array, backend_of
from aidotnet_py.exceptions import ArgumentException
from aidotnet_py.meta_learning import ConfidenceInterval, IMetaLearningTask

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["draw_adaptation_curves", "draw_classification_task", "draw_regression_task", "figure_formats"]

# From titles of panels to curves by learner: an interval after 0, 1, … steps.
Panels: TypeAlias = Mapping[str, Mapping[str, Sequence[ConfidenceInterval[Any]]]]

_SHOWN_PER_CLASS = 6
_RIGHT, _WRONG = "#2b7a3d", "#c0392b"


def draw_classification_task(
    task: IMetaLearningTask[Any, Any, Any], before: Array, after: Array, losses: ArrayLike, title: str = ""
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

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ArgumentException
        When the task has no query set, or its inputs are not images.
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
    support, query = _host(task.SupportInput), _host(task.QueryInput)
    if support.ndim != 4 or query.ndim != 4:
        name, shape = ("SupportInput", support.shape) if support.ndim != 4 else ("QueryInput", query.shape)
        raise ArgumentException(f"{name} must be images (n, height, width, channels), got shape {shape}")
    labels, truth = _host(task.SupportOutput), _host(task.QueryOutput)
    classes = int(labels.max()) + 1
    figure = _new_figure((11, 1.1 * classes + 1.2), title)
    grid = figure.add_gridspec(classes, _SHOWN_PER_CLASS + 5)
    guesses = _classes(after)
    for row in range(classes):
        _image(figure.add_subplot(grid[row, 0]), support[labels == row][0], f"class {row}", "black")
        shown = np.flatnonzero(truth == row)[:_SHOWN_PER_CLASS]
        for column, place in enumerate(shown.tolist(), start=1):
            colour = _RIGHT if guesses[place] == row else _WRONG
            _image(figure.add_subplot(grid[row, column]), query[place], f"→ {guesses[place]}", colour)
    curve = figure.add_subplot(grid[:, _SHOWN_PER_CLASS + 2 :])
    shares = [float((_classes(logits) == truth).mean()) for logits in (before, after)]
    _loss_curve(curve, losses, f"query accuracy {shares[0]:.0%} → {shares[1]:.0%}")
    return cast("Figure", figure)


def draw_regression_task(
    task: IMetaLearningTask[Any, Any, Any],
    grid: ArrayLike,
    before: Array,
    after: Array,
    losses: ArrayLike,
    truth: ArrayLike | None = None,
    title: str = "",
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

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ImportError
        When matplotlib is not installed.

    Examples
    --------
    >>> from aidotnet_py.data import SinusoidLoader
    >>> task, x = SinusoidLoader(seed=0).GetNextTask(), np.linspace(-5, 5, 50)
    >>> figure = draw_regression_task(task, x, np.zeros(50), np.sin(x), [4.0, 1.0])
    >>> figure.savefig("/dev/null", format="png")
    """
    figure = _new_figure((10, 4), title)
    axes = figure.subplots(1, 2, width_ratios=(2, 1))
    x = np.asarray(grid)
    if truth is not None:
        axes[0].plot(x, np.asarray(truth), color="0.7", linewidth=3, label="true function")
    axes[0].plot(x, _host(before).ravel(), "--", color="0.4", label="before adaptation")
    axes[0].plot(x, _host(after).ravel(), color="#1f5fa8", label="after adaptation")
    points = (_host(task.SupportInput).ravel(), _host(task.SupportOutput).ravel())
    axes[0].plot(*points, "o", color="black", label="support")
    axes[0].set_xlabel("x")
    axes[0].set_ylabel("y")
    axes[0].legend(frameon=False)
    _loss_curve(axes[1], losses, "")
    return cast("Figure", figure)


def draw_adaptation_curves(losses: Panels, accuracies: Panels | None = None, title: str = "") -> Figure:
    """Draw losses and accuracies on query sets after 0, 1, … steps of adaptation, losses above accuracies.

    Parameters
    ----------
    losses : mapping of mappings of sequences of ConfidenceInterval
        For each panel, by title, the curve of each learner, by name; on a logarithmic scale.
    accuracies : likewise, optional
        The curves of accuracy; None or empty for regression.
    title : str
        The title of the figure.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ArgumentException
        When there are no losses.
    ImportError
        When matplotlib is not installed.

    Examples
    --------
    >>> from aidotnet_py import ConfidenceInterval
    >>> def curve(*means):
    ...     return [ConfidenceInterval(np.float64(mean), np.float64(0.1)) for mean in means]
    >>> figure = draw_adaptation_curves({"seed 0": {"MAML": curve(3.0, 0.7, 0.4), "random": curve(6.0, 4.8, 4.5)}})
    >>> figure.savefig("/dev/null", format="png")
    """
    if not losses:
        raise ArgumentException("losses must have the curves of at least one panel, got none")
    rows = [("query loss", losses, "log")]
    if accuracies:
        rows.append(("query accuracy", accuracies, "linear"))
    figure = _new_figure((max(8.0, 3.6 * len(losses) + 1.2), 3.8 * len(rows) + 0.4), title)
    axes = figure.subplots(len(rows), len(losses), sharex=True, sharey="row", squeeze=False)
    for row, (quantity, panels, scale) in zip(axes, rows, strict=True):
        row[0].set_ylabel(quantity)
        row[0].set_yscale(scale)
        for panel, (name, curves) in zip(row, panels.items(), strict=True):
            panel.set_title(name, fontsize=10)
            panel.grid(alpha=0.3)
            panel.margins(x=0)
            _intervals(panel, curves)
    for panel in axes[-1]:
        panel.set_xlabel("steps of adaptation")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside center right", frameon=False)
    return cast("Figure", figure)


def figure_formats() -> tuple[str, ...]:
    """Return the file name extensions in which figures can be saved, without the dot.

    Raises
    ------
    ImportError
        When matplotlib is not installed.

    Examples
    --------
    >>> "png" in figure_formats()
    True
    """
    return tuple(sorted(_new_figure((1, 1), "").canvas.get_supported_filetypes()))


def _new_figure(size: tuple[float, float], title: str) -> Any:
    # Not Figure: matplotlib's stubs leave the types of its keywords open, which pyright strict reports at each call.
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError('figures need matplotlib: pip install "aidotnet-py[plot]"') from error
    # Without pyplot: no window system, no global state, nothing to close.
    figure: Any = Figure(figsize=size, layout="constrained")
    figure.suptitle(title)
    return figure


def _host(array: Array) -> NDArray[Any]:
    backend = backend_of(array)
    return np.asarray(array) if backend is None else backend.to_numpy(array)


def _classes(logits: Array) -> NDArray[np.int64]:
    """Return the class of the largest logit of each row."""
    return np.asarray(np.argmax(_host(logits), axis=-1))


def _image(axes: Any, image: NDArray[Any], caption: str, colour: str) -> None:
    axes.imshow(image.squeeze(), cmap="gray_r")
    axes.set_title(caption, fontsize=9, color=colour)
    axes.set_axis_off()


def _intervals(axes: Any, curves: Mapping[str, Sequence[ConfidenceInterval[Any]]]) -> None:
    for name, curve in curves.items():
        steps = np.arange(len(curve))
        (line,) = axes.plot(steps, [point.Mean for point in curve], label=name)
        lower, upper = [point.Lower for point in curve], [point.Upper for point in curve]
        axes.fill_between(steps, lower, upper, color=line.get_color(), alpha=0.2, linewidth=0)


def _loss_curve(axes: Any, losses: ArrayLike, caption: str) -> None:
    values = np.asarray(losses)
    axes.semilogy(np.arange(len(values)), values, marker=".", color="#1f5fa8")
    axes.set_xlabel("inner steps")
    axes.set_ylabel("support loss")
    axes.set_title(caption, fontsize=10)
