"""Figures of how losses and accuracies change over the steps of adaptation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from aidotnet_py.arguments import refusal
from aidotnet_py.exceptions import ArgumentException
from aidotnet_py.meta_learning import AdaptationCurve, BasicStats, ConfidenceInterval
from aidotnet_py.plotting.canvas import add_grid, curve_style, ink, loss_scale, panel_grid

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw_adaptation_curves"]

# From titles of panels to curves by learner: an interval after 0, 1, … steps.
Panels: TypeAlias = Mapping[str, Mapping[str, Sequence[ConfidenceInterval[Any]]]]


def draw_adaptation_curves(
    losses: AdaptationCurve | Mapping[str, AdaptationCurve] | Panels,
    accuracies: Panels | None = None,
    title: str = "",
    ax: Axes | None = None,
) -> Figure:
    """Draw losses and accuracies on query sets after 0, 1, … steps of adaptation, losses above accuracies.

    Parameters
    ----------
    losses : AdaptationCurve, mapping of AdaptationCurve, or mapping of mappings of sequences of ConfidenceInterval
        What ``adaptation_curve`` returns; or such curves by the learner's name; or, for several panels, by title, the
        intervals of each learner, by name. A curve has its accuracies with it. Losses have a logarithmic scale if
        all of their means are above 0; bands are 95 % intervals of the mean over the tasks.
    accuracies : mapping of mappings of sequences of ConfidenceInterval, optional
        The accuracies beside losses that are given by panel, by the same titles; None or empty for regression. A panel
        or a learner without accuracies may be left out.
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
        When there are no losses; when a panel is no mapping of intervals by name; when accuracies are given beside
        curves, which have theirs, or of a panel without losses; when ``ax`` is of no grid.
    ImportError
        When matplotlib is not installed.

    Examples
    --------
    >>> import numpy as np
    >>> from aidotnet_py.meta_learning import AdaptationCurve
    >>> curve = AdaptationCurve(np.array([[3.0, 0.7, 0.4], [4.0, 1.1, 0.6]]), np.full((2, 3), np.nan))
    >>> figure = draw_adaptation_curves({"MAML": curve})
    >>> [axes.get_ylabel() for axes in figure.axes]
    ['query loss']
    """
    losses, accuracies = _as_panels(losses, accuracies)
    means = [float(point.Mean) for curves in losses.values() for curve in curves.values() for point in curve]
    rows: list[tuple[str, Panels, str]] = [("query loss", losses, loss_scale(means))]
    if accuracies:
        rows.append(("query accuracy", accuracies, "linear"))
    # A learner looks the same in all panels, also in those where learners before it are missing.
    names = dict.fromkeys(name for _, panels, _ in rows for curves in panels.values() for name in curves)
    styles = {name: curve_style(place) for place, name in enumerate(names)}
    size = (max(6.0, 3.6 * len(losses) + 1.2), 3.4 * len(rows) + 0.4)
    figure, grid = panel_grid(ax, size, title, len(rows), len(losses))
    axes = grid.subplots(sharex=True, sharey="row", squeeze=False)
    for row, (quantity, panels, scale) in zip(axes, rows, strict=True):
        row[0].set_ylabel(quantity)
        row[0].set_yscale(scale)
        for panel, name in zip(row, losses, strict=True):
            panel.set_title(name, fontsize="medium")
            panel.margins(x=0)
            add_grid(panel)
            _draw_intervals(panel, panels.get(name, {}), styles)
    for panel in axes[-1]:
        panel.set_xlabel("steps of adaptation")
    _add_one_legend(figure, axes, within=ax is not None)
    return cast("Figure", figure)


def _add_one_legend(figure: Any, axes: NDArray[Any], within: bool) -> None:
    """Add one legend for all panels: beside them, or in the last one of a figure that has other axes."""
    # One entry a learner, though several panels have its curve.
    entries = {
        name: handle for panel in axes.flat for handle, name in zip(*panel.get_legend_handles_labels(), strict=True)
    }
    options = {"handles": entries.values(), "labels": entries, "frameon": False, "labelcolor": ink(axes[0, 0])}
    if entries and within:
        axes[0, -1].legend(**options, fontsize="small")
    elif entries:
        figure.legend(**options, loc="outside center right")


def _as_panels(losses: Any, accuracies: Panels | None) -> tuple[Panels, Panels | None]:
    """Return all forms of curves as panels."""
    if isinstance(losses, AdaptationCurve):
        losses = {"": losses}
    if not isinstance(losses, Mapping):
        raise ArgumentException(refusal("losses", "an AdaptationCurve, or a mapping of curves", losses))
    panels = cast("Mapping[str, Any]", losses)
    if not panels:
        raise ArgumentException("losses must have the curves of at least one panel, got none")
    if not all(isinstance(curve, AdaptationCurve) for curve in panels.values()):
        _check_panels("losses", panels)
        for title in accuracies or ():
            if title not in panels:
                raise ArgumentException(refusal("accuracies", f"of panels among {', '.join(panels)}", title))
        _check_panels("accuracies", accuracies or {})
        return panels, accuracies
    if accuracies is not None:
        raise ArgumentException("accuracies must be left out beside an AdaptationCurve, which has them, got both")
    curves = {name: _intervals(curve.losses) for name, curve in panels.items()}
    shares = {name: curve.accuracies for name, curve in panels.items() if np.isfinite(curve.accuracies).any()}
    return {"": curves}, {"": {name: _intervals(values) for name, values in shares.items()}} if shares else None


def _check_panels(name: str, panels: Mapping[str, Any]) -> None:
    """Raise ArgumentException unless each panel has at least one interval for each learner."""
    for title, curves in cast("Mapping[str, object]", panels).items():
        if not isinstance(curves, Mapping):
            raise ArgumentException(refusal(f"{name}[{title!r}]", "a mapping of curves by the learner's name", curves))
        for learner, given in cast("Mapping[str, object]", curves).items():
            curve: object = given
            points = [*cast("Sequence[object]", given)] if isinstance(given, Sequence) else []
            if not points or not all(isinstance(point, ConfidenceInterval) for point in points):
                wanted = "a sequence of at least one ConfidenceInterval"
                raise ArgumentException(refusal(f"{name}[{title!r}][{learner!r}]", wanted, curve))


def _intervals(values: NDArray[Any]) -> list[ConfidenceInterval[Any]]:
    """Return the mean over the tasks after each step, with its interval, from values (tasks, steps + 1)."""
    return [BasicStats.of(column).ConfidenceInterval() for column in values.T]


def _draw_intervals(
    axes: Any, curves: Mapping[str, Sequence[ConfidenceInterval[Any]]], styles: Mapping[str, Mapping[str, Any]]
) -> None:
    for name, curve in curves.items():
        steps = np.arange(len(curve))
        (line,) = axes.plot(steps, [float(point.Mean) for point in curve], label=name, **styles[name])
        lower, upper = ([float(end) for end in ends] for ends in zip(*curve, strict=True))
        if np.isfinite(lower).all():
            axes.fill_between(steps, lower, upper, color=line.get_color(), alpha=0.2, linewidth=0)
