"""The page of the inner problem: θ, Λ, φ*, the forces there, and the way of a solver."""

from __future__ import annotations

from typing import Any

import numpy as np

from aidotnet_py.explorer.inner_problem import SOLVERS, InnerSolution, inner_problem, solve_inner_problem
from aidotnet_py.explorer.pages.landscape import ARROW, Landscape, add_arrow, add_marker, put
from aidotnet_py.explorer.pages.page import (
    BLUE,
    GREEN,
    ORANGE,
    VERMILLION,
    Page,
    Panel,
    checked,
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

__all__ = ["STRENGTHS", "InnerProblemPage"]

STRENGTHS = ("0", "0.01", "0.02", "0.05", "0.1", "0.2", "0.5", "1", "2", "5", "10", "20", "50", "100", "200", "1000")
# Those that the page can draw.
_FLAT = [name for name, surface in SURFACES.items() if len(surface.start) == 2]
_TURN = np.linspace(0.0, 2.0 * np.pi, 121)


class InnerProblemPage(Page):
    """Adaptation as a minimum between two forces, on surfaces of two parameters."""

    title = "The inner problem"
    lead = """<p>A task pulls the parameters φ downhill, by −∇L. A spring of strength Λ pulls them back to the start θ,
    by Λ(θ − φ). Adaptation ends at φ*, where the two cancel: at the minimum of L(φ) + (Λ/2)‖φ − θ‖². Drag θ, and turn
    Λ up from 0: the lines become circles round θ, and φ* comes back to it.</p>"""

    def __init__(self, document: Any) -> None:
        super().__init__(document)
        self._surface = widget("Select", title="Task loss L", options=_FLAT, value=_FLAT[0])
        self._strength = widget("CategoricalSlider", title="Λ", categories=list(STRENGTHS), value="0.5")
        self._solver = widget("Select", title="Inner solver", options=list(SOLVERS), value="gradient descent")
        self._steps = widget("Slider", title="Steps, at most", start=1, end=100, step=1, value=20)
        self._landscape = Landscape()
        self._circle = models.ColumnDataSource({"x": [], "y": []})
        line(self._landscape.figure, self._circle, "x", "y", line_dash="dashed", line_width=1.5)
        self._pull, self._spring = (add_arrow(self._landscape.figure, colour) for colour in (VERMILLION, GREEN))
        self._minimum = add_marker(self._landscape.figure, "circle", ORANGE, 14)
        self._theta = self.handle(self._landscape.figure, *SURFACES[_FLAT[0]].start, colour=BLUE)
        self._typed = StartInput(self, self._theta)
        for control in (self._strength, self._solver, self._steps):
            self.follow(control)
        self.on_value(self._surface, self._begin_at)
        caption = (
            f"Level lines of the regularised loss, from low (blue) to high (orange). {key(BLUE)} θ, to be dragged or "
            f"moved by the arrow keys; the way of the solver; {key(ORANGE)} φ* on the circle round θ; "
            f"{key(VERMILLION)} −∇L(φ*), {key(GREEN)} Λ(θ − φ*), at right angles to the circle."
        )
        self.show(
            [self._surface, self._typed.input, self._strength, self._solver, self._steps],
            [Panel(self._landscape.figure, caption, handle=self._theta)],
            "In numbers",
        )

    def _begin_at(self, surface: str) -> None:
        x, y = SURFACES[checked("the task loss", surface, _FLAT)].start
        self._theta.data = {"x": [x], "y": [y]}
        self.soon()

    def answer(self) -> str:
        """Solve the inner problem again."""
        strength = float(checked("Λ", self._strength.value, STRENGTHS))
        name = checked("the task loss", self._surface.value, _FLAT)
        solution = solve_inner_problem(name, point_of(self._theta), strength, self._solver.value, self._steps.value)
        self._landscape.draw_levels(inner_problem(name).levels(solution.theta, strength))
        self._landscape.draw_path(solution.path)
        self._draw_forces(solution)
        self._typed.show(solution.theta)
        return numbers_of(self._rows(solution))

    def _draw_forces(self, solution: InnerSolution) -> None:
        centre, radius = solution.theta, solution.radius
        self._circle.data = {"x": centre[0] + radius * np.cos(_TURN), "y": centre[1] + radius * np.sin(_TURN)}
        put(self._minimum, solution.minimum)
        longest = max(float(np.linalg.norm(force)) for force in (solution.pull, solution.spring))
        # As long as they are, up to what fits; both by the same factor.
        scale = min(1.0, ARROW / longest) if longest else 1.0
        for source, force in ((self._pull, solution.pull), (self._spring, solution.spring)):
            put(source, solution.minimum, solution.minimum + scale * force)

    @staticmethod
    def _rows(solution: InnerSolution) -> dict[str, str]:
        def pair(vector: Any) -> str:
            return f"({number_of(vector[0])}, {number_of(vector[1])})"

        return {
            "φ*": pair(solution.minimum),
            "−∇L(φ*)": pair(solution.pull),
            "Λ(θ − φ*)": pair(solution.spring),
            "length of their sum": number_of(solution.imbalance),
            "radius ‖φ* − θ‖": number_of(solution.radius),
            "slope of L along the circle at φ*": number_of(solution.slope_along_circle),
            "φ, where the solver stops": pair(solution.path[-1]),
            "points on its way": str(len(solution.path)),
            "‖φ − φ*‖": number_of(solution.distance),
            "slope left, ‖∇F(φ)‖": number_of(solution.gradient_norm),
        }
