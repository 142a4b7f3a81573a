"""The page of the race: algorithms that learn a start from sinusoids, and what they make of a wave of one's own."""

from __future__ import annotations

from typing import Any

import numpy as np

from aidotnet_py.arguments import FINITE
from aidotnet_py.explorer.pages.page import (
    BLUE,
    GREEN,
    ORANGE,
    PURPLE,
    SKY,
    VERMILLION,
    Page,
    Panel,
    figure,
    key,
    line,
    models,
    number_of,
    numbers_of,
    point_of,
    widget,
)
from aidotnet_py.explorer.race import GRID, RACERS, Race, Wave

__all__ = ["RacePage"]

_COLOURS = dict(zip(RACERS, (PURPLE, SKY, ORANGE, VERMILLION, GREEN, BLUE), strict=True))
_CHOSEN = ("transfer", "MAML", "iMAML")
_SEEDS = 1000
# Of the sliders of amplitude and phase.
_STEP = 0.01


class RacePage(Page):
    """Six ways to a start, on the same tasks."""

    title = "The race"
    lead = """<p>A task is a sine wave of unknown height and phase, of which ten points are known. All racers begin with
    the same network and see the same 25 waves a step. <em>random</em> stays where it is; <em>transfer</em> learns from
    all points at once, without adaptation; the others learn a start. Then each adapts to your wave by 16 steps of
    gradient descent, iMAML with its spring.</p>"""

    def __init__(self, document: Any) -> None:
        super().__init__(document)
        self._race, self._running = Race(seed=0), False
        self._run, self._step = widget("Button", label="Start"), widget("Button", label="Step")
        self._again = widget("Button", label="Restart")
        self._seed = widget(
            "Spinner", title="Seed of weights and tasks", low=0, high=_SEEDS, step=1, value=0, mode="int"
        )
        self._amplitude = widget("Slider", title="Amplitude of your wave", start=0.1, end=5.0, step=_STEP, value=3.0)
        self._phase = widget("Slider", title="Phase of your wave", start=0.0, end=3.14, step=_STEP, value=1.0)
        self._chosen = widget(
            "CheckboxButtonGroup", labels=list(RACERS), active=[RACERS.index(name) for name in _CHOSEN]
        )
        self._waves = models.ColumnDataSource({"x": GRID.ravel()})
        self._points = models.ColumnDataSource({"x": [], "y": []})
        self._losses = models.ColumnDataSource({"iteration": []})
        self._lines: dict[str, list[Any]] = {name: [] for name in RACERS}
        functions, curves = self._function_figure(), self._loss_figure()
        self._crest = self.handle(functions, *_crest_of(3.0, 1.0), colour="#7a828e")
        for button, action in ((self._run, self._toggle), (self._step, self._take), (self._again, self._begin_again)):
            self.on_click(button, action)
        for control in (self._amplitude, self._phase):
            self.on_value(control, lambda _: self._move_crest())
        self.on_value(self._chosen, lambda _: self._show_chosen(), "active")
        buttons = models.Row(children=[self._run, self._step, self._again], sizing_mode="stretch_width")
        keys = ", ".join(f"{key(_COLOURS[name])} {name}" for name in RACERS)
        self.show(
            [buttons, self._seed, self._amplitude, self._phase, self._chosen],
            [
                Panel(
                    functions,
                    "Your wave (grey), its ten points, and each network before adaptation (dashed) and after it. Drag "
                    f"the crest, or move it by the arrow keys. {keys}.",
                    handle=self._crest,
                ),
                Panel(curves, f"Mean squared error after adaptation, on twenty waves that nobody trains on. {keys}."),
            ],
            "Mean squared errors: on your wave, and after adaptation on the twenty others",
        )
        self._show_chosen()

    def _function_figure(self) -> Any:
        made = figure(x_range=(-5, 5), y_range=(-6, 6))
        made.xaxis.axis_label, made.yaxis.axis_label = "x", "y"
        line(made, self._waves, "x", "truth", colour="#7a828e", line_width=6, line_alpha=0.45)
        for name, colour in _COLOURS.items():
            dashed = line(made, self._waves, "x", f"{name} before", colour=colour, line_width=1.3, line_dash="dashed")
            self._lines[name] += [dashed, line(made, self._waves, "x", f"{name} after", colour=colour, line_width=2.2)]
        dots = made.scatter("x", "y", source=self._points, size=8, line_color="white", fill_color="#555555")
        dots.glyph.tags = ["ink"]
        return made

    def _loss_figure(self) -> Any:
        made = figure(y_axis_type="log", y_range=(0.03, 10), x_range=models.DataRange1d(start=0, min_interval=50))
        made.xaxis.axis_label, made.yaxis.axis_label = "steps of training", "error after adaptation"
        for name, colour in _COLOURS.items():
            self._lines[name].append(line(made, self._losses, "iteration", name, colour=colour, line_width=2))
            dots = made.scatter("iteration", name, source=self._losses, size=4, color=colour)
            self._lines[name].append(dots)
        return made

    def _toggle(self) -> None:
        self._running = not self._running
        self._run.label = "Pause" if self._running else "Start"
        self.when_drawn = self._take if self._running else None
        if self._running:
            self._take()

    def _take(self) -> None:
        self._race.step()
        self.respond()

    def _begin_again(self) -> None:
        self._race = Race(self._seed.value)
        self.respond()

    def _show_chosen(self) -> None:
        for place, name in enumerate(RACERS):
            for drawn in self._lines[name]:
                drawn.visible = place in self._chosen.active

    def _move_crest(self) -> None:
        """Follow the sliders; they follow the crest in turn, rounded to their steps."""
        wave = self._wave()
        amplitude, phase = self._amplitude.value, self._phase.value
        if abs(amplitude - wave.amplitude) >= _STEP or abs(phase - wave.phase) >= _STEP:
            x, y = _crest_of(amplitude, phase)
            self._crest.data = {"x": [x], "y": [y]}

    def _wave(self) -> Wave:
        """Return the wave with this crest, or the nearest: a hand may go further than waves do."""
        x, y = point_of(self._crest)
        FINITE.check("x", x)
        FINITE.check("y", y)
        return Wave(min(max(y, 0.1), 5.0), min(max(x - np.pi / 2, 0.0), np.pi))

    def answer(self) -> str:
        """Adapt to the wave again, and show how far the race is."""
        wave = self._wave()
        adaptations, task = self._race.adapt(wave), wave.task(self._race.shots)
        columns = {"x": GRID.ravel(), "truth": wave.at(GRID).ravel()}
        for name, adaptation in adaptations.items():
            columns[f"{name} before"], columns[f"{name} after"] = adaptation.before, adaptation.after
        self._waves.data = columns
        self._points.data = {"x": task.SupportInput.ravel(), "y": task.SupportOutput.ravel()}
        self._losses.data = {"iteration": self._race.iterations, **self._race.losses}
        self._amplitude.value, self._phase.value = wave.amplitude, wave.phase
        rows = {
            name: [number_of(loss) for loss in (one.loss_before, one.loss_after, self._race.losses[name][-1])]
            for name, one in adaptations.items()
        }
        header = (f"after {self._race.iteration} steps", "before", "after", f"others, at {self._race.iterations[-1]}")
        return numbers_of(rows, header)


def _crest_of(amplitude: float, phase: float) -> tuple[float, float]:
    """Return where A sin(x − φ) is highest."""
    return phase + np.pi / 2, amplitude
