"""What all pages share: Bokeh's models, figures with handles to drag, numbers, refusals, and the HTML around them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Container, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from importlib import import_module
from importlib.resources import files
from typing import Any

from jinja2 import Environment, Template

from aidotnet_py.arguments import refusal
from aidotnet_py.exceptions import ArgumentException

__all__ = [
    "BLUE",
    "GREEN",
    "LEVELS",
    "ORANGE",
    "PURPLE",
    "SKY",
    "VERMILLION",
    "Page",
    "Panel",
    "checked",
    "figure",
    "key",
    "line",
    "models",
    "number_of",
    "numbers_in",
    "numbers_of",
    "point_of",
    "strokes_of",
    "widget",
]

# By name, since Bokeh makes its properties while it runs: type checkers know few of them.
models: Any = import_module("bokeh.models")
_plotting: Any = import_module("bokeh.plotting")
_templates: Any = import_module("bokeh.core.templates")

# Okabe & Ito 2008, as in `aidotnet_py.plotting`.
BLUE, ORANGE, GREEN, VERMILLION, PURPLE, SKY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9"
# Level lines from low to high, on light and on dark ground.
LEVELS = ("#2B7BBA", "#3D86BD", "#5091BF", "#639BC0", "#78A4BF", "#8DACBC", "#A5A9A4", "#B79F87", "#C4936C",
          "#CD8653", "#D3773B", "#D66725")  # fmt: skip
# After the frame that the answer is in.
_TELL_WHEN_DRAWN = """
const answer = Number(cb_obj.text.match(/<!-- (\\d+) -->$/)[1]);
requestAnimationFrame(() => setTimeout(() => { drawn.data = {answer: [answer]}; }));
"""


def figure(*, square: bool = False, **options: Any) -> Any:
    """Return an empty figure that is as wide as its place."""
    clear = dict.fromkeys(
        ("background_fill_color", "border_fill_color", "border_line_color", "outline_line_color"), None
    )
    sizes = {"sizing_mode": "stretch_width", "aspect_ratio": 1 if square else 1.5, "min_height": 220}
    made = _plotting.figure(tools="", toolbar_location=None, **clear, **{**sizes, **options})
    for axis in made.axis:
        axis.axis_label_text_font_style = "normal"
        axis.axis_label_text_font_size = axis.major_label_text_font_size = "13px"
    return made


def widget(kind: str, **options: Any) -> Any:
    """Return one of Bokeh's widgets in the colours of the page."""
    return getattr(models, kind)(stylesheets=[_asset("widgets.css")], **{"sizing_mode": "stretch_width", **options})


def line(target: Any, source: Any, x: str, y: str, *, colour: str | None = None, **options: Any) -> Any:
    """Draw a line; without a colour, in the ink of the page."""
    drawn = target.line(x, y, source=source, line_color=colour or "#555555", **options)
    if colour is None:
        drawn.glyph.tags = ["ink"]
    return drawn


def number_of(value: float | None) -> str:
    """Return a number as pages show it."""
    # Zero has no sign here.
    return "–" if value is None else f"{value + 0.0:.4g}".replace("-", "−")


def numbers_of(rows: Mapping[str, str | Sequence[str]], header: Sequence[str] = ()) -> str:
    """Return the HTML of a table of named numbers, one or more a row."""
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in header)
    body = "".join(
        f'<tr><th scope="row">{escape(name)}</th>'
        + "".join(f"<td>{escape(value)}</td>" for value in ([values] if isinstance(values, str) else values))
        + "</tr>"
        for name, values in rows.items()
    )
    return f"<table>{f'<tr>{head}</tr>' if head else ''}{body}</table>"


@dataclass(frozen=True)
class Panel:
    """A part of a page: a Bokeh model with its caption.

    Attributes
    ----------
    model : bokeh.models.UIElement
        Figure, or layout of widgets.
    caption : str
        What it shows, in a sentence or two.
    handle : ColumnDataSource, optional
        A point that follows the pointer, and the arrow keys once the panel has the focus.
    pen : ColumnDataSource, optional
        Lines to be drawn instead; the space bar sets the handle down and lifts it.
    """

    model: Any
    caption: str
    handle: Any = None
    pen: Any = None


class Page(ABC):
    """A page for one session: its document, its answers to changes, and a line for refusals.

    A page answers once the browser has drawn the answer before, for all changes that have come by then: a drag brings
    more of them than a slow browser draws.

    Parameters
    ----------
    document : bokeh.document.Document
        The session's document.

    Attributes
    ----------
    title, lead : str
        The heading, and HTML of a few sentences under it.
    """

    title: str
    lead: str

    def __init__(self, document: Any) -> None:
        self._document = document
        self._alert, self._numbers = _text(role="alert"), _text(role="status")
        self._waiting, self._sent, self._seen = False, 0, 0
        # What comes next when the browser has drawn an answer and nobody waits for another.
        self.when_drawn: Callable[[], None] | None = None
        drawn = models.ColumnDataSource({"answer": [0]})
        self._numbers.js_on_change("text", models.CustomJS(args={"drawn": drawn}, code=_TELL_WHEN_DRAWN))
        drawn.on_change("data", self._take_note)

    @abstractmethod
    def answer(self) -> str:
        """Compute from the state of all controls, show the results, and return HTML of the numbers among them.

        What may be refused is so before anything is shown.
        """

    def show(self, controls: Sequence[Any], panels: Sequence[Panel], numbers: str) -> None:
        """Put controls, panels, and the numbers under their caption into the document, and answer a first time."""
        self._numbers.name = "numbers"
        layout = models.Column(children=[*controls, self._alert], sizing_mode="stretch_width", name="controls")
        places: list[dict[str, str]] = []
        for place, panel in enumerate(panels):
            panel.model.name = f"panel{place}"
            names = {"root": panel.model.name, "caption": panel.caption}
            for role, source in (("handle", panel.handle), ("pen", panel.pen)):
                if source is not None:
                    names[role] = source.name = f"{role}{place}"
            places.append(names)
        for root in (layout, self._numbers, *(panel.model for panel in panels)):
            self._document.add_root(root)
        self._document.title = f"{self.title} · aidotnet_py explorer"
        self._document.template = _template()
        self._document.template_variables.update(
            heading=self.title, lead=self.lead, panels=places, numbers=numbers, style=_asset("explorer.css"),
            script=_asset("explorer.js"),
        )  # fmt: skip
        self._document.js_on_event("document_ready", models.CustomJS(code="window.explorer.begin()"))
        self.respond()
        # A browser gets this answer with the page itself.
        self._seen = self._sent

    def handle(self, target: Any, x: float, y: float, *, colour: str) -> Any:
        """Draw a point to be dragged in a `Panel`, and return its source."""
        source = models.ColumnDataSource({"x": [x], "y": [y]})
        target.scatter(
            "x", "y", source=source, size=16, color=colour, line_color="white", line_width=2, level="overlay"
        )
        self.follow(source, "data")
        return source

    def follow(self, control: Any, attribute: str = "value") -> None:
        """Answer when a control has another value."""
        self.on_value(control, lambda _: self.soon(), attribute)

    def on_value(self, control: Any, action: Callable[[Any], None], attribute: str = "value") -> None:
        """Do something with each new value of a control."""

        def act(_attribute: str, _old: Any, new: Any) -> None:
            with self.refusals():
                action(new)

        control.on_change(attribute, act)

    def soon(self) -> None:
        """Answer, once the browser is ready for it."""
        if not self._waiting:
            self._waiting = True
            self._document.add_next_tick_callback(self._catch_up)

    def _catch_up(self) -> None:
        if self._waiting and self._seen == self._sent:
            self._waiting = False
            with self.refusals():
                self.respond()

    def _take_note(self, _attribute: str, _old: Any, new: Any) -> None:
        if list(new.get("answer", [])) == [self._sent]:
            self._seen = self._sent
            if self._waiting:
                self._catch_up()
            elif self.when_drawn is not None:
                with self.refusals():
                    self.when_drawn()

    def respond(self) -> None:
        """Answer now."""
        numbers = self.answer()
        self._sent += 1
        # With the number of the answer, so that the browser sees a change.
        self._numbers.text = f"{numbers}<!-- {self._sent} -->"

    @contextmanager
    def refusals(self) -> Generator[None]:
        """Show why an input is refused; all else stays as it was."""
        try:
            yield
        except ArgumentException as error:
            self._alert.text = escape(str(error))
        else:
            self._alert.text = ""

    def on_click(self, button: Any, action: Callable[[], None]) -> None:
        """Do something when a button is pressed."""

        def act(_event: Any) -> None:
            with self.refusals():
                action()

        button.on_event("button_click", act)


def key(colour: str) -> str:
    """Return the HTML of a dot of a colour, for captions."""
    return f'<span class="key" style="background: {colour}"></span>'


def checked(name: str, value: Any, known: Container[Any]) -> Any:
    """Return a value that a control offers; a browser may send another."""
    if value not in known:
        raise ArgumentException(refusal(name, "an entry of the list", value))
    return value


def numbers_in(name: str, text: str) -> list[float]:
    """Return the numbers that a person typed, with blanks or commas between."""
    words = text.replace("−", "-").replace(",", " ").replace(";", " ").split()
    try:
        return [float(word) for word in words]
    except ValueError as error:
        raise ArgumentException(refusal(name, "numbers, such as 1.5, -0.3", text)) from error


def point_of(handle: Any) -> tuple[Any, Any]:
    """Return where a handle is, whatever a browser sent; its numbers are not checked."""
    try:
        (x,), (y,) = list(handle.data["x"]), list(handle.data["y"])
    except (KeyError, TypeError, ValueError) as error:
        raise ArgumentException("the handle must be a single point, got other data") from error
    return x, y


def strokes_of(pen: Any) -> list[tuple[Any, Any]]:
    """Return the lines that a pen has drawn, whatever a browser sent, each as its xs and ys, which are not checked."""
    try:
        return list(zip(pen.data["xs"], pen.data["ys"], strict=True))
    except (KeyError, ValueError) as error:
        raise ArgumentException("the drawing must be lines with as many xs as ys, got other data") from error


def _text(role: str) -> Any:
    """Return a place for HTML, with its role for screen readers."""
    return models.Div(
        text="", sizing_mode="stretch_width", stylesheets=[_asset("texts.css")], html_attributes={"role": role}
    )


def _asset(name: str) -> str:
    return files("aidotnet_py.explorer.pages").joinpath(name).read_text(encoding="utf-8")


def _template() -> Template:
    environment: Environment = _templates.get_env()
    return environment.from_string(_asset("page.html.jinja"))
