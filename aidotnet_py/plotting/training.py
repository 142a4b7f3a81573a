"""Figures of trainings: losses and accuracies against steps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from aidotnet_py.arguments import refusal
from aidotnet_py.exceptions import ArgumentException
from aidotnet_py.meta_learning import EvaluationRecord, MetaTrainingResult
from aidotnet_py.plotting.canvas import BLUE, add_grid, add_legend, ink, loss_scale, panel_grid

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw_training"]


def draw_training(
    result: MetaTrainingResult[Any],
    evaluations: Sequence[EvaluationRecord] = (),
    title: str = "",
    ax: Axes | None = None,
) -> Figure:
    """Draw losses, and accuracies if there are any, of the steps of a training, with evaluations and their intervals.

    Parameters
    ----------
    result : MetaTrainingResult
        The histories of the steps; a line through running means stands before the single steps.
    evaluations : sequence of EvaluationRecord
        Evaluations between the steps. Without them, those of the result are drawn, of which it has the means alone.
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
        When ``result`` is no MetaTrainingResult, or ``ax`` no Axes of a grid.
    ImportError
        When matplotlib is not installed.

    Examples
    --------
    >>> from datetime import timedelta
    >>> from aidotnet_py import MetaTrainingResult
    >>> figure = draw_training(MetaTrainingResult(np.array([3.0, 2.0, 1.0]), np.full(3, np.nan), timedelta(seconds=1)))
    >>> figure.savefig("/dev/null", format="png")
    """
    if not isinstance(result, MetaTrainingResult):  # pyright: ignore[reportUnnecessaryIsInstance] -- callers may be untyped
        raise ArgumentException(refusal("result", "a MetaTrainingResult", result))
    loss, accuracy = np.asarray(result.LossHistory, float), np.asarray(result.AccuracyHistory, float)
    points = [_Points.of(record) for record in evaluations] or _points_in(result.AdditionalMetrics)
    panels = [("loss", loss, [point.loss for point in points])]
    if np.isfinite(accuracy).any():
        panels.append(("accuracy", accuracy, [point.accuracy for point in points]))
    places = [point.iteration for point in points]
    figure, grid = panel_grid(ax, (5.0 * len(panels) + 1.0, 4.0), title, 1, len(panels))
    last = max(len(loss), *places, 0)
    steps = np.arange(last - len(loss), last) + 1
    for axes, (name, values, intervals) in zip(grid.subplots(squeeze=False)[0], panels, strict=True):
        axes.plot(steps, values, color=ink(axes), alpha=0.25, linewidth=0.8)
        axes.plot(steps, _running_mean(values), color=ink(axes), alpha=0.8, label="steps, running mean")
        if intervals:
            means, widths = zip(*intervals, strict=True)
            axes.errorbar(
                places, means, yerr=widths, color=BLUE, marker="o", markersize=4, capsize=3, label="evaluation"
            )
        if name == "loss":
            axes.set_yscale(loss_scale([*values, *(mean for mean, _ in intervals)]))
        axes.set_xlabel("step")
        axes.set_ylabel(name)
        add_grid(axes)
        add_legend(axes)
    return cast("Figure", figure)


class _Points(NamedTuple):
    """Mean and half-width of the interval of an evaluation's losses, and of its accuracies."""

    iteration: int
    loss: tuple[float, float]
    accuracy: tuple[float, float]

    @staticmethod
    def of(record: EvaluationRecord) -> _Points:
        loss, accuracy = ((float(of.Mean), float(of.HalfWidth)) for of in (record.loss, record.accuracy))
        return _Points(record.iteration, loss, accuracy)


def _points_in(metrics: Mapping[str, Any]) -> list[_Points]:
    """Return the evaluations among the metrics of `Train`, whose intervals are unknown."""
    means = {
        name: {int(key.removeprefix(name)): float(value) for key, value in metrics.items() if key.startswith(name)}
        for name in ("EvaluationLoss@", "EvaluationAccuracy@")
    }
    losses, accuracies = means.values()
    return [
        _Points(iteration, (loss, math.nan), (accuracies.get(iteration, math.nan), math.nan))
        for iteration, loss in losses.items()
    ]


def _running_mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the means over the last twentieth of the steps."""
    count, width = len(values), max(1, len(values) // 20)
    # A window is the begin of one block and the end of the block before it. Both are sums of the window's own values:
    # differences of sums over all steps would spread a large value, or NaN, to all later means.
    blocks: NDArray[np.float64] = np.pad(values, (0, -count % width)).reshape(-1, width)
    sums = blocks.cumsum(axis=1)
    sums[1:, :-1] += blocks[:-1, :0:-1].cumsum(axis=1)[:, ::-1]
    means: NDArray[np.float64] = sums.ravel()[:count] / np.minimum(np.arange(1, count + 1), width)
    return means
