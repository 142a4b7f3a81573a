"""Figures of how solves and meta-gradients converge: residuals against iterations, errors against inner steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
from numpy.typing import ArrayLike

from aidotnet_py.arguments import refusal
from aidotnet_py.exceptions import ArgumentException
from aidotnet_py.plotting.canvas import add_grid, add_legend, curve_style, figure_of, one_panel, real_numbers
from aidotnet_py.solvers import SolverReport

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw_meta_gradient_errors", "draw_residuals"]


def draw_residuals(
    reports: SolverReport | Mapping[str, SolverReport], title: str = "", ax: Axes | None = None
) -> Figure:
    """Draw ‖b − Ax‖ / ‖b‖ of each task against the iterations of a solve, on a logarithmic scale.

    Parameters
    ----------
    reports : SolverReport, or mapping of str to SolverReport
        What a solver returns beside its solution, or several by name. Lines are the solver's own count,
        ``residual_history``; a dot is the measured residual of the returned solution; a dotted line is the bound at
        which a task has converged, where all tasks of a report share it. Tasks with b = 0 are left out.
    title : str
        The title of the figure.
    ax : matplotlib.axes.Axes, optional
        Where to draw; None: a new figure.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ArgumentException
        When there is no report, or something else is given; when ``ax`` is no Axes.
    ImportError
        When matplotlib is not installed.

    Examples
    --------
    >>> from aidotnet_py.solvers import conjugate_gradient
    >>> _, report = conjugate_gradient(lambda v: np.array([1.0, 2.0, 4.0]) * v, np.ones(3))
    >>> draw_residuals(report).axes[0].get_yscale()
    'log'
    """
    named = {"": reports} if isinstance(reports, SolverReport) else reports
    for name, report in _entries("reports", named, "a SolverReport").items():
        if not isinstance(report, SolverReport):
            raise ArgumentException(refusal(f"reports[{name!r}]", "a SolverReport", report))
    axes = one_panel(ax, (6, 4), title)
    for place, (name, report) in enumerate(named.items()):
        _draw_report(axes, report, name, curve_style(place))
    _set_log_scale(axes, "mask")
    axes.set_xlabel("iterations")
    axes.set_ylabel("‖b − Ax‖ / ‖b‖")
    add_grid(axes)
    if axes.get_legend_handles_labels()[1]:
        add_legend(axes)
    return figure_of(axes)


def _draw_report(axes: Any, report: SolverReport, name: str, style: Mapping[str, Any]) -> None:
    norms = np.asarray(report.rhs_norms, np.float64)
    tasks = np.flatnonzero(norms > 0)
    histories, opacity = report.residual_history, max(0.4, max(1, len(tasks)) ** -0.25)
    if name:
        axes.plot([], [], label=name, **style)
    for task in tasks.tolist():
        history = histories[:, task] / norms[task]
        axes.plot(np.arange(len(history)), history, alpha=opacity, linewidth=1.2, **style)
        measured = float(report.residual_norms[task] / norms[task])
        axes.plot([int(report.iterations[task])], [measured], "o", color=style["color"], markersize=4)
    bounds = np.unique(np.asarray(report.bounds, np.float64)[tasks] / norms[tasks])
    if bounds.size and bounds[0] > 0 and np.allclose(bounds, bounds[0], atol=0.0):
        axes.axhline(float(bounds[0]), color=style["color"], linestyle=":", linewidth=1)


def draw_meta_gradient_errors(
    steps: ArrayLike,
    errors: Mapping[str, ArrayLike],
    bounds: Mapping[str, ArrayLike] | None = None,
    title: str = "",
    ax: Axes | None = None,
) -> Figure:
    """Draw errors of meta-gradients against the number of inner steps, on logarithmic scales.

    Parameters
    ----------
    steps : array_like, shape (n,)
        The numbers of inner steps, > 0.
    errors : mapping of str to array_like, shape (n,)
        The errors of each method, by name, such as ‖g − g*‖ / ‖g*‖ with the exact g*.
    bounds : mapping of str to array_like, shape (n,), optional
        Bounds on the errors of some of these methods, by the same names; dotted.
    title : str
        The title of the figure.
    ax : matplotlib.axes.Axes, optional
        Where to draw; None: a new figure.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ArgumentException
        When there are no errors; when an array is not of the shape of ``steps``, a step ≤ 0 or an error < 0, which
        logarithms do not show; when a bound is of no method; when ``ax`` is no Axes.
    ImportError
        When matplotlib is not installed.

    Examples
    --------
    >>> figure = draw_meta_gradient_errors([1, 10, 100], {"iMAML": [1.0, 1e-2, 1e-8], "FOMAML": [1.0, 0.5, 0.5]})
    >>> [line.get_label() for line in figure.axes[0].lines]
    ['iMAML', 'FOMAML']
    """
    counts = real_numbers("steps", steps)
    if (counts <= 0).any():
        raise ArgumentException(refusal("steps", "numbers above 0", counts[counts <= 0][0]))
    limits: Mapping[str, ArrayLike] = _entries("bounds", bounds, "the bounds of a method") if bounds else {}
    for name, values in _entries("errors", errors, "the errors of a method").items():
        _check_errors(f"errors[{name!r}]", values, len(counts))
    for name, values in limits.items():
        if name not in errors:
            raise ArgumentException(refusal("bounds", f"of methods among {', '.join(errors)}", name))
        _check_errors(f"bounds[{name!r}]", values, len(counts))
    axes = one_panel(ax, (6, 4), title)
    for place, (name, values) in enumerate(errors.items()):
        style = curve_style(place)
        axes.plot(counts, np.asarray(values), marker=".", label=name, **style)
        if name in limits:
            axes.plot(counts, np.asarray(limits[name]), linestyle=":", color=style["color"])
    axes.set_xscale("log")
    _set_log_scale(axes, "clip")
    axes.set_xlabel("inner steps")
    axes.set_ylabel("error of the meta-gradient")
    add_grid(axes)
    add_legend(axes, title="dotted: bounds" if limits else None, title_fontsize="small")
    return figure_of(axes)


def _set_log_scale(axes: Any, nonpositive: Literal["mask", "clip"]) -> None:
    """Give the y-axis a logarithmic scale."""
    drawn = [np.asarray(line.get_ydata(), np.float64) for line in axes.lines]
    if not any((np.isfinite(values) & (values > 0)).any() for values in drawn):
        # Matplotlib warns where no number gives it limits, such as if all errors are 0.
        axes.set_ylim(0.1, 1.0)
    axes.set_yscale("log", nonpositive=nonpositive)


def _entries(name: str, given: Any, wanted: str) -> Mapping[str, Any]:
    value: object = given
    if not isinstance(given, Mapping) or not given:
        raise ArgumentException(refusal(name, f"a mapping with {wanted} for each name", value))
    return cast("Mapping[str, Any]", given)


def _check_errors(name: str, given: ArrayLike, count: int) -> None:
    """Raise ArgumentException unless there are so many numbers of at least 0; NaN is drawn as a gap."""
    values = real_numbers(name, given)
    if len(values) != count:
        raise ArgumentException(f"{name} must have the shape (n,) of steps, {(count,)}, got {values.shape}")
    if (values < 0).any():
        raise ArgumentException(refusal(name, "numbers of at least 0", values[values < 0][0]))
