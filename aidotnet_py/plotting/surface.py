"""The figure of a loss of two parameters: its surface, the start, the path to φ*, and the forces there."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from aidotnet_py.arguments import POSITIVE, OrNone
from aidotnet_py.autodiff import grad, vmap
from aidotnet_py.exceptions import ArgumentException
from aidotnet_py.plotting.canvas import BLUE, GREEN, ORANGE, VERMILLION, add_legend, figure_of, ink, one_panel

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw_loss_surface"]

_POINTS, _LEVELS = 81, 12
# The longest arrow, as a part of the figure's extent.
_ARROW = 0.18


def draw_loss_surface(
    loss: Callable[[Any], Any],
    start: ArrayLike,
    path: ArrayLike,
    lambda_: float | None = None,
    title: str = "",
    ax: Axes | None = None,
) -> Figure:
    """Draw the level lines of a loss of two parameters, with θ, the path to φ*, and the forces at φ*.

    The support loss pulls φ by −∇L(φ*); with ``lambda_``, the proximal term ‖φ − θ‖²/(2λ) pulls it back to θ by
    (θ − φ*)/λ. The two cancel where the inner problem is solved, which is the condition that iMAML differentiates.
    Arrows have the ratio of the forces.

    Parameters
    ----------
    loss : callable
        A function of the parameters, an array (2,), to a number, in array code that `aidotnet_py.autodiff` can trace.
    start : array_like, shape (2,)
        θ.
    path : array_like, shape (steps, 2)
        φ₁ … φ*, as in ``AdaptAndEvaluate(task, keep_steps=True).step_parameters``.
    lambda_ : float, optional
        λ of the proximal term, > 0; None: there is none.
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
        When start, path or λ is none of these or not finite; when the loss is no number, or finite at no point around
        the path; when ``ax`` is no Axes.
    ImportError
        When matplotlib is not installed.

    Examples
    --------
    For L = φ₁² + 4φ₂² and λ = ½, the inner problem is solved at θ/(1 + 2λ, 1 + 8λ):

    >>> figure = draw_loss_surface(lambda p: p[0] ** 2 + 4 * p[1] ** 2, [2.0, 1.0], [[1.2, 0.4], [1.0, 0.2]], 0.5)
    >>> figure.axes[0].get_legend_handles_labels()[1]
    ['path', 'start θ', 'adapted φ*', '−∇L(φ*)', '(θ − φ*)/λ']
    """
    theta, points = np.asarray(start, np.float64), np.asarray(path, np.float64)
    if theta.shape != (2,):
        raise ArgumentException(f"start must have shape (2,), two parameters, got {theta.shape}")
    if points.ndim != 2 or points.shape[1] != 2 or len(points) == 0:
        raise ArgumentException(f"path must have shape (steps, 2), two parameters a step, got {points.shape}")
    for name, given in (("start", theta), ("path", points)):
        if not np.isfinite(given).all():
            raise ArgumentException(f"{name} must hold finite numbers, got {given[~np.isfinite(given)][0]}")
    strength = OrNone(POSITIVE).check("lambda_", lambda_)
    whole = np.concatenate([theta[None], points])
    x, y, values = _losses_around(whole, loss)
    axes = one_panel(ax, (6.4, 4.8), title)
    axes.set_aspect("equal", adjustable="box")
    _draw_levels(axes, x, y, values)
    axes.plot(*whole.T, ".-", color=ink(axes), alpha=0.7, linewidth=1, markersize=4, label="path")
    axes.plot(*theta, "s", color=BLUE, markersize=9, label="start θ")
    axes.plot(*points[-1], "o", color=ORANGE, markersize=9, label="adapted φ*")
    forces = {"−∇L(φ*)": -np.asarray(grad(loss)(points[-1]))}
    if strength is not None:
        forces["(θ − φ*)/λ"] = (theta - points[-1]) / strength
    _draw_forces(axes, points[-1], forces)
    axes.set_xlabel("first parameter")
    axes.set_ylabel("second parameter")
    # Beside the axes: inside, it would hide arrows.
    add_legend(axes, loc="upper left", bbox_to_anchor=(1.02, 1.0))
    return figure_of(axes)


def _losses_around(points: NDArray[np.float64], loss: Callable[[Any], Any]) -> tuple[NDArray[Any], ...]:
    """Return the two axes of a grid around some points, and the losses on it."""
    middle: NDArray[np.float64] = (points.max(axis=0) + points.min(axis=0)) / 2
    # One extent for both axes; around a path of no length, that of a unit.
    reach = 0.9 * float(np.ptp(points, axis=0).max()) or 1.0
    along = np.linspace(-reach, reach, _POINTS)
    x, y = middle[0] + along, middle[1] + along
    grid = np.stack([np.tile(x, _POINTS), np.repeat(y, _POINTS)], axis=1)
    values = np.asarray(vmap(loss)(grid))
    if values.shape != (len(grid),):
        raise ArgumentException(f"loss must return one number, got an array of shape {values.shape[1:]}")
    values = values.reshape(_POINTS, _POINTS)
    if not np.isfinite(values).any():
        raise ArgumentException(
            f"loss must be finite somewhere around start and path, got {values[0, 0]} at {grid[0].tolist()}, and no "
            "finite number elsewhere"
        )
    return x, y, values


def _draw_levels(axes: Any, x: NDArray[Any], y: NDArray[Any], values: NDArray[Any]) -> None:
    """Draw level lines of equal shares of the area."""
    levels = np.unique(np.quantile(values[np.isfinite(values)], np.linspace(0.01, 0.95, _LEVELS)))
    lines = axes.contour(x, y, values, levels=levels, colors=[ink(axes)], alpha=0.4, linewidths=0.8)
    axes.clabel(lines, levels[1::3], fontsize="x-small", fmt="%.2g")
    axes.set_xlim(x[0], x[-1])
    axes.set_ylim(y[0], y[-1])


def _draw_forces(axes: Any, point: NDArray[np.float64], forces: dict[str, NDArray[np.float64]]) -> None:
    longest = max(float(np.linalg.norm(force)) for force in forces.values())
    extent = float(np.ptp(axes.get_xlim()))
    scale = _ARROW * extent / longest if longest else 0.0
    for (name, force), colour in zip(forces.items(), (VERMILLION, GREEN), strict=False):
        axes.quiver(
            *point, *(scale * force), angles="xy", scale_units="xy", scale=1, color=colour, width=0.009, zorder=3,
            label=name,
        )  # fmt: skip
