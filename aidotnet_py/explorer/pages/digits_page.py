"""The page of digits: examples of unseen digits, picked or drawn, and the answers of the model that adapts to them."""

from __future__ import annotations

import math
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aidotnet_py.arguments import FINITE
from aidotnet_py.explorer.digits import DigitTask
from aidotnet_py.explorer.pages.page import (
    BLUE,
    ORANGE,
    Page,
    Panel,
    checked,
    figure,
    key,
    models,
    numbers_of,
    strokes_of,
    widget,
)
from aidotnet_py.explorer.strokes import rasterize

__all__ = ["DigitsPage"]

_palettes: Any = import_module("bokeh.palettes")

# The side of the pad, of forty steps of the arrow keys; and the margin of an image in its place of unit size.
_PAD, _MARGIN = 4.0, 0.05
# The height of the names of digits, in images.
_NAME = 0.3


class DigitsPage(Page):
    """Few-shot classification by hand."""

    title = "Digits"
    lead = """<p>The model was meta-trained on the digits 0, 1, 6, 8 and 9, by iMAML. It has never seen a 2, 3, 4, 5 or
    7. Give it a few examples of these, from the data or by your own hand, and it adapts in 16 steps of gradient
    descent. Then ask: draw a digit, or take an image that it has not seen.</p>"""

    def __init__(self, document: Any) -> None:
        super().__init__(document)
        self._seed = 0
        # The digit in question; None where it is the person's drawing.
        self._truth: str | None = None
        self._ways = widget("Slider", title="Digits to tell apart (ways)", start=2, end=5, step=1, value=5)
        self._shots = widget("Slider", title="Examples of each (shots)", start=1, end=5, step=1, value=1)
        self._place = widget("Select", title="Chosen example", options=[], value="")
        self._support, self._examples, self._frame = _image_figure()
        self._support.xaxis.visible, self._support.xaxis.axis_line_color = True, None
        self._support.xaxis.major_tick_line_color = None
        asked, self._asked, _ = _image_figure()
        asked.max_width = 240
        self._answers = models.ColumnDataSource({"digit": [], "probability": []})
        self._bars = figure(y_range=models.FactorRange(), x_range=(0, 1))
        self._bars.xaxis.axis_label = "probability"
        self._bars.hbar("digit", right="probability", height=0.7, source=self._answers, color=BLUE)
        pad = self._pad()
        self._deal()
        for control in (self._ways, self._shots):
            self.on_value(control, lambda _: self._deal_again())
        self.follow(self._place)
        self.on_value(self._strokes, lambda _: self._follow_strokes(), "data")
        self._support.on_event("tap", self._choose)
        self.show(
            [self._ways, self._shots, self._place, *self._buttons()],
            [
                Panel(
                    self._support,
                    f"The support set, a column for each digit. {key(ORANGE)} the chosen example: press another to "
                    "choose it.",
                ),
                Panel(self._bars, "The probabilities of the digits"),
                Panel(
                    pad,
                    "Draw here with the pointer. By keys: the arrows move the pen, the space bar sets it down and "
                    "lifts it.",
                    handle=self._pen,
                    pen=self._strokes,
                ),
                Panel(asked, "The image in question as the model sees it, 8 × 8 shares of ink"),
            ],
            "What the adapted model answers",
        )

    def _buttons(self) -> list[Any]:
        actions = {
            "Ask about an unseen image": self._ask,
            "Ask about my drawing": self._ask_drawing,
            "Clear the drawing": self._clear,
            "Make my drawing the chosen example": self._use_drawing,
            "Another image as the chosen example": self._pick,
            "Other examples of all": self._deal_other,
        }
        buttons = [widget("Button", label=label) for label in actions]
        for button, action in zip(buttons, actions.values(), strict=True):
            self.on_click(button, action)
        return buttons

    def _pad(self) -> Any:
        made = figure(square=True, x_range=(0, _PAD), y_range=(0, _PAD))
        made.axis.visible = made.grid.visible = False
        made.styles = {"border": "1px solid var(--line)"}
        self._strokes = models.ColumnDataSource({"xs": [], "ys": []})
        strokes = made.multi_line("xs", "ys", source=self._strokes, line_width=14, line_cap="round", line_join="round")
        strokes.glyph.tags = ["ink"]
        self._pen = models.ColumnDataSource({"x": [_PAD / 2], "y": [_PAD / 2], "down": [0.2]})
        made.scatter(
            "x", "y", source=self._pen, size=14, line_color=ORANGE, line_width=2, fill_color=ORANGE, fill_alpha="down"
        )
        return made

    def _deal(self) -> None:
        """Begin with other examples, and a question about them."""
        self._task = DigitTask(self._ways.value, self._shots.value, self._seed)
        self._image, self._truth = self._task.question()
        names = [f"{digit}, {shot + 1}" for digit in self._task.digits for shot in range(self._task.shots)]
        self._place.options, self._place.value = names, names[0]

    def _deal_again(self) -> None:
        self._deal()
        self.soon()

    def _deal_other(self) -> None:
        self._seed += 1
        self._deal()
        self.respond()

    def _chosen(self) -> tuple[int, int]:
        """Return the way and the shot of the chosen example."""
        place = self._place.options.index(checked("the chosen example", self._place.value, self._place.options))
        return int(place) // self._task.shots, int(place) % self._task.shots

    def _choose(self, event: Any) -> None:
        places = [place for place in (event.x, event.y) if FINITE.problem("the place", place) is None]
        # A press beside the examples chooses none; a browser may send no numbers.
        if len(places) < 2:
            return
        way, shot = math.floor(places[0]), self._task.shots - 1 - math.floor(places[1])
        if 0 <= way < self._task.ways and 0 <= shot < self._task.shots:
            self._place.value = self._place.options[way * self._task.shots + shot]

    def _pick(self) -> None:
        self._task.pick(*self._chosen())
        self.respond()

    def _use_drawing(self) -> None:
        self._task.draw(*self._chosen(), self._drawing())
        self.respond()

    def _ask(self) -> None:
        self._image, self._truth = self._task.question()
        self.respond()

    def _ask_drawing(self) -> None:
        self._image, self._truth = self._drawing(), None
        self.respond()

    def _clear(self) -> None:
        self._strokes.data = {"xs": [], "ys": []}

    def _follow_strokes(self) -> None:
        """Ask about a drawing whenever a stroke ends."""
        if strokes_of(self._strokes):
            self._image, self._truth = self._drawing(), None
        self.soon()

    def _drawing(self) -> NDArray[np.float32]:
        return rasterize(strokes_of(self._strokes))

    def _size_support(self) -> None:
        """Make room for a column a digit, under its name."""
        columns = max(self._task.ways, self._task.shots)
        self._support.x_range.end, self._support.y_range.end = columns, self._task.shots
        self._support.aspect_ratio = columns / (self._task.shots + _NAME)
        axis = self._support.xaxis[0]
        axis.ticker = [way + 0.5 for way in range(self._task.ways)]
        axis.major_label_overrides = {way + 0.5: digit for way, digit in enumerate(self._task.digits)}

    def answer(self) -> str:
        """Ask the adapted model again, and show what it was given."""
        task, (way, shot) = self._task, self._chosen()
        probabilities = task.answer(self._image)
        ways, shots = np.divmod(np.arange(task.ways * task.shots), task.shots)
        images, rows = task.images.reshape(-1, 8, 8), task.shots - 1 - shots
        self._size_support()
        self._examples.data = {"image": [image[::-1] for image in images], "x": ways + _MARGIN, "y": rows + _MARGIN}
        self._frame.data = {"x": [way + 0.5], "y": [task.shots - 0.5 - shot]}
        self._asked.data = {"image": [self._image[::-1]], "x": [_MARGIN], "y": [_MARGIN]}
        self._bars.y_range.factors = task.digits[::-1]
        self._answers.data = {"digit": task.digits, "probability": probabilities}
        best = int(np.argmax(probabilities))
        return numbers_of(
            {
                "the model answers": task.digits[best],
                "the image is": "your drawing" if self._truth is None else f"a {self._truth}",
                **{
                    f"probability of {name}": f"{value:.1%}"
                    for name, value in zip(task.digits, probabilities, strict=True)
                },
                "examples drawn by you": f"{int(task.drawn.sum())} of {task.drawn.size}",
            }
        )


def _image_figure() -> tuple[Any, Any, Any]:
    """Return a figure of images, and sources of these and of a frame round one of them."""
    made = figure(square=True, x_range=(0, 1), y_range=(0, 1), min_height=70)
    made.axis.visible = made.grid.visible = False
    images, frame = (
        models.ColumnDataSource({"image": [], "x": [], "y": []}),
        models.ColumnDataSource({"x": [], "y": []}),
    )
    # Dark ink on white paper, on a dark page too.
    mapper = models.LinearColorMapper(palette=_palettes.Greys256[::-1], low=0.0, high=1.0)
    side = 1.0 - 2 * _MARGIN
    made.image("image", x="x", y="y", dw=side, dh=side, source=images, color_mapper=mapper)
    made.rect("x", "y", width=0.97, height=0.97, source=frame, fill_color=None, line_color=ORANGE, line_width=4)
    return made, images, frame
