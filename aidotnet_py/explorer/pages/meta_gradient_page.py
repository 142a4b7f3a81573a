"""The page of the meta-gradient: the implicit one beside the exact one, and the solve that gives it."""

from __future__ import annotations

from typing import Any

import numpy as np

from aidotnet_py.explorer.inner_problem import inner_problem
from aidotnet_py.explorer.meta_gradient import ITERATIONS, MetaGradients, compare_meta_gradients
from aidotnet_py.explorer.pages.inner_problem_page import STRENGTHS
from aidotnet_py.explorer.pages.landscape import Landscape, add_arrow, add_marker, put
from aidotnet_py.explorer.pages.page import (
    BLUE,
    GREEN,
    ORANGE,
    PURPLE,
    VERMILLION,
    Page,
    Panel,
    checked,
    figure,
    key,
    line,
    models,
    number_of,
    numbers_of,
    point_of,
    widget,
)
from aidotnet_py.explorer.pages.start_input import StartInput
from aidotnet_py.explorer.surfaces import SURFACES

__all__ = ["MetaGradientPage"]

_COLOURS = {"first order": VERMILLION, "implicit": BLUE, "exact": GREEN}
# What rounding leaves of a solve that is done would stretch the axis.
_LEAST = 1e-16


class MetaGradientPage(Page):
    """The implicit gradient, exact at the minimum alone."""

    title = "The implicit gradient"
    lead = """<p>How should the start θ move, so that the adapted φ does better on the query set? At φ* the answer is v
    with (I + H/Λ) v = g: one linear system, whatever the way to φ* was. A learner has φ after some inner steps instead
    of φ*, and v after some iterations of conjugate gradient. Take more of both, and watch v come to the exact one.
    First-order methods take g.</p>"""

    def __init__(self, document: Any) -> None:
        super().__init__(document)
        first = next(iter(SURFACES))
        self._surface = widget("Select", title="Task loss L", options=list(SURFACES), value=first)
        self._strength = widget("CategoricalSlider", title="Λ", categories=list(STRENGTHS[1:]), value="0.5")
        self._steps = widget("Slider", title="Inner steps", start=1, end=100, step=1, value=5)
        self._iterations = widget(
            "Slider", title="CG iterations, at most", start=1, end=ITERATIONS.most, step=1, value=1
        )
        self._landscape = Landscape()
        self._minimum = add_marker(self._landscape.figure, "circle", ORANGE, 14)
        self._adapted = add_marker(self._landscape.figure, "diamond", PURPLE, 12)
        self._theta = self.handle(self._landscape.figure, *SURFACES[first].start, colour=BLUE)
        self._compass = figure(square=True, x_range=(-1.15, 1.15), y_range=(-1.15, 1.15))
        self._arrows = {name: add_arrow(self._compass, colour) for name, colour in _COLOURS.items()}
        self._residuals = models.ColumnDataSource({"iteration": [], "residual": []})
        self._solve = self._curve()
        self._typed = StartInput(self, self._theta)
        for control in (self._strength, self._steps, self._iterations):
            self.follow(control)
        self.on_value(self._surface, self._begin_at)
        self.show(
            [self._surface, self._typed.input, self._strength, self._steps, self._iterations],
            [
                Panel(
                    self._landscape.figure,
                    f"The regularised loss. {key(BLUE)} θ, to be dragged or moved by the arrow keys; {key(PURPLE)} φ, "
                    f"after the inner steps; {key(ORANGE)} φ*. Of 40 weights there is no picture, and θ is 0.",
                    handle=self._theta,
                ),
                Panel(
                    self._compass,
                    f"Gradients of the query loss in θ: {key(VERMILLION)} first order, g; {key(BLUE)} implicit, v; "
                    f"{key(GREEN)} exact, v*. The longest has length 1; of 40 weights, the plane of v* and g.",
                ),
                Panel(self._solve, "What the solve has left, ‖g − (I + H/Λ)v‖ / ‖g‖, after each iteration."),
            ],
            "In numbers",
        )

    def _curve(self) -> Any:
        made = figure(y_axis_type="log")
        made.xaxis.axis_label, made.yaxis.axis_label = "iteration of conjugate gradient", "relative residual"
        made.xaxis.ticker = models.BasicTicker(min_interval=1)
        line(made, self._residuals, "iteration", "residual", colour=BLUE, line_width=2)
        made.scatter("iteration", "residual", source=self._residuals, size=7, color=BLUE)
        return made

    def _begin_at(self, surface: str) -> None:
        start = SURFACES[checked("the task loss", surface, SURFACES)].start
        self._theta.data = {"x": [start[0]], "y": [start[1]]}
        self.soon()

    def answer(self) -> str:
        """Compute both gradients again."""
        name = checked("the task loss", self._surface.value, SURFACES)
        strength = float(checked("Λ", self._strength.value, STRENGTHS))
        drawn = len(SURFACES[name].start) == 2
        theta = point_of(self._theta) if drawn else SURFACES[name].start
        found = compare_meta_gradients(name, theta, strength, self._steps.value, self._iterations.value)
        self._landscape.figure.visible, self._typed.input.disabled = drawn, not drawn
        if drawn:
            start = np.array(theta)
            self._landscape.draw_levels(inner_problem(name).levels(start, strength))
            put(self._adapted, found.adapted)
            put(self._minimum, found.minimum)
            self._typed.show(start)
        arrows = found.in_a_plane()
        longest = max(float(np.linalg.norm(arrow)) for arrow in arrows.values()) or 1.0
        for arrow, vector in arrows.items():
            put(self._arrows[arrow], np.zeros(2), vector / longest)
        residuals = np.maximum(found.residuals, _LEAST)
        self._residuals.data = {"iteration": np.arange(len(residuals)), "residual": residuals}
        return numbers_of(self._rows(found))

    @staticmethod
    def _rows(found: MetaGradients) -> dict[str, str]:
        def vector(values: Any) -> str:
            if len(values) > 2:
                return f"of length {number_of(float(np.linalg.norm(values)))}"
            return f"({number_of(values[0])}, {number_of(values[1])})"

        return {
            "first order, g": vector(found.first_order),
            "implicit, v": vector(found.implicit),
            "exact, v*": vector(found.exact),
            "error of g, ‖g − v*‖": number_of(found.first_order_error),
            "error of v, ‖v − v*‖": number_of(found.error),
            "the paper's bound on it": "none: L is not convex" if found.bound is None else number_of(found.bound),
            "‖φ − φ*‖": number_of(float(np.linalg.norm(found.adapted - found.minimum))),
            "iterations": str(int(found.report.iterations[0])),
            "the solve stopped at": found.report.stop_reasons[0].value,
        }
