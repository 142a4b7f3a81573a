"""The explorer in Chromium: all controls moved, numbers against the library's, sessions, refusals, sizes, colours."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from places import ROOT

from aidotnet_py.explorer.digits import DigitTask
from aidotnet_py.explorer.inner_problem import SOLVERS, solve_inner_problem
from aidotnet_py.explorer.meta_gradient import compare_meta_gradients
from aidotnet_py.explorer.race import RACERS, Race, Wave
from aidotnet_py.explorer.strokes import rasterize
from aidotnet_py.explorer.surfaces import SURFACES

pytest.importorskip("bokeh", reason="Bokeh is not installed")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on the path"),
]

QUIET = ["--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]  # fmt: skip
PAGES = ("/", "/gradient", "/race", "/digits")
# For a page that other work on the machine slows down.
PATIENCE = 20_000


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """The explorer as the command serves it."""
    command = [sys.executable, "-m", "aidotnet_py", "explore", "--port", str(free_port())]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as server:
        assert server.stdout is not None
        assert server.stderr is not None
        found = re.search(r"http://127\.0\.0\.1:\d+", server.stdout.readline())
        assert found is not None, server.stderr.read()
        yield found.group()
        server.terminate()
        assert "Traceback" not in server.stderr.read()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    # Chromium's sandbox does not work for root.
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=CHROMIUM, args=[*QUIET, *sandbox])
        yield started
        started.close()


class View:
    """A page of the explorer in a browser."""

    def __init__(self, page: Any, address: str, path: str) -> None:
        self.page, self.outside, self.errors = page, [], []
        page.set_default_timeout(PATIENCE)
        page.on(
            "request", lambda request: request.url.startswith((address, "data:")) or self.outside.append(request.url)
        )
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", lambda line: line.type == "error" and self.errors.append(line.text))
        page.goto(address + path)
        page.wait_for_selector("body[data-ready]")

    def numbers(self) -> dict[str, str]:
        rows = self.page.locator(".numbers tr").all_inner_texts()
        return {name: value for name, _, value in (row.partition("\t") for row in rows)}

    def until(self, holds: Callable[[], Any]) -> None:
        """Wait until something holds; the assertion says what did not."""
        for _ in range(PATIENCE // 50):
            try:
                if holds():
                    return
            except (AssertionError, KeyError):  # such as of a table that is being replaced
                pass
            self.page.wait_for_timeout(50)
        assert holds()

    def shows(self, **wanted: str) -> None:
        self.until(lambda: wanted.items() <= self.numbers().items())

    def slider(self, name: str) -> Any:
        return self.page.get_by_role("slider", name=name, exact=True)

    def field(self, name: str) -> Any:
        return self.page.get_by_label(name, exact=True)

    def press(self, name: str) -> None:
        self.page.get_by_role("button", name=name, exact=True).click()

    def alert(self) -> str:
        return str(self.page.get_by_role("alert").locator("div").first.inner_text())

    def place(self, figure: int, across: float, down: float) -> tuple[float, float]:
        """Where a point of a figure's canvas is, in shares of its width and height."""
        canvas = self.page.locator("figure").nth(figure).locator("canvas").first
        canvas.scroll_into_view_if_needed()
        box = canvas.bounding_box()
        return box["x"] + box["width"] * across, box["y"] + box["height"] * down

    def handle(self, name: str = "handle0") -> tuple[float, float]:
        data = self.page.evaluate(f"() => {{ const {{x, y}} = {MODEL}('{name}').data; return [x[0], y[0]]; }}")
        return float(data[0]), float(data[1])

    def send(self, name: str, attribute: str, value: str) -> None:
        """Set what no control of the page would, as a browser with other scripts may."""
        self.page.evaluate(f"() => {{ {MODEL}('{name}').{attribute} = {value}; }}")


MODEL = "Bokeh.documents[0].get_model_by_name"


@pytest.fixture
def view(browser: Any, address: str) -> Iterator[Callable[..., View]]:
    """Open pages, each in a session of its own; whatever they report or fetch from elsewhere fails the test."""
    opened: list[tuple[Any, View]] = []

    def open_page(path: str, **options: Any) -> View:
        context = browser.new_context(**{"viewport": {"width": 1400, "height": 1000}, **options})
        opened.append((context, View(context.new_page(), address, path)))
        return opened[-1][1]

    yield open_page
    for context, one in opened:
        assert one.outside == []
        assert one.errors == []
        context.close()


def shown(value: float | None) -> str:
    return "–" if value is None else f"{value + 0.0:.4g}".replace("-", "−")


def pair(vector: Any) -> str:
    return f"({shown(vector[0])}, {shown(vector[1])})"


class TestInnerProblem:
    def wanted(self, *settings: Any) -> dict[str, str]:
        solution = solve_inner_problem(*settings)
        return {
            "φ*": pair(solution.minimum),
            "−∇L(φ*)": pair(solution.pull),
            "Λ(θ − φ*)": pair(solution.spring),
            "radius ‖φ* − θ‖": shown(solution.radius),
            "φ, where the solver stops": pair(solution.path[-1]),
            "points on its way": str(len(solution.path)),
        }

    def test_every_control(self, view: Callable[..., View]) -> None:
        page = view("/")
        start = (-1.5, 1.8)
        page.shows(**self.wanted("bowl", start, 0.5, "gradient descent", 20))
        page.slider("Steps, at most").press("ArrowLeft")
        page.shows(**self.wanted("bowl", start, 0.5, "gradient descent", 19))
        page.slider("Λ").press("Home")
        page.shows(**self.wanted("bowl", start, 0.0, "gradient descent", 19))
        page.slider("Λ").press("End")
        page.shows(**self.wanted("bowl", start, 1000.0, "gradient descent", 19))
        page.slider("Λ").press("ArrowLeft")
        for solver in SOLVERS:
            page.field("Inner solver").select_option(solver)
            page.shows(**self.wanted("bowl", start, 200.0, solver, 19))
        for surface in [name for name, one in SURFACES.items() if len(one.start) == 2]:
            page.field("Task loss L").select_option(surface)
            page.shows(**self.wanted(surface, SURFACES[surface].start, 200.0, "Newton-CG", 19))

    def test_theta_by_pointer_keys_and_text(self, view: Callable[..., View]) -> None:
        page = view("/")
        x, y = page.place(0, 0.5, 0.4)
        page.page.mouse.move(x, y)
        page.page.mouse.down()
        # A pointer that rests before it moves drags all the same.
        page.page.wait_for_timeout(400)
        for step in range(30):
            page.page.mouse.move(x + 3 * step, y + step)
        page.page.mouse.up()
        # Whatever was dropped under way, the last place counts.
        settings = (0.5, "gradient descent", 20)
        page.until(lambda: page.numbers()["φ*"] == self.wanted("bowl", page.handle(), *settings)["φ*"])
        assert page.handle()[0] > 0.5
        before = page.handle()
        page.page.locator("figure").first.focus()
        page.page.keyboard.press("ArrowUp")
        page.page.keyboard.press("Shift+ArrowLeft")
        after = (before[0] - 0.5, before[1] + 0.1)
        assert page.handle() == pytest.approx(after)
        page.shows(**self.wanted("bowl", after, 0.5, "gradient descent", 20))
        page.field("θ").fill("2, -1.25")
        page.field("θ").press("Enter")
        page.shows(**self.wanted("bowl", (2.0, -1.25), 0.5, "gradient descent", 20))
        assert page.handle() == (2.0, -1.25)
        assert page.field("θ").input_value() == "2.00, −1.25"

    def test_nonsense_is_refused_and_changes_nothing(self, view: Callable[..., View]) -> None:
        page = view("/")
        before = page.numbers()
        for text, message in (
            ("one, two", "θ must be numbers"),
            ("1", "2 numbers"),
            ("nan, 1", "θ[0]"),
            ("9, 0", "θ[0]"),
        ):
            page.field("θ").fill(text)
            page.field("θ").press("Enter")
            page.until(lambda message=message: message in page.alert())
            assert page.numbers() == before
        page.send("handle0", "data", "{x: [NaN], y: [1]}")
        page.until(lambda: "theta[0] must be" in page.alert())
        page.send("handle0", "data", "{x: [1, 2, 3], y: []}")
        page.until(lambda: "single point" in page.alert())
        assert page.numbers() == before
        page.field("θ").fill("1, 1")
        page.field("θ").press("Enter")
        page.until(lambda: page.alert() == "")
        page.shows(**self.wanted("bowl", (1.0, 1.0), 0.5, "gradient descent", 20))

    def test_two_sessions_are_independent(self, view: Callable[..., View]) -> None:
        one, other = view("/"), view("/")
        before = other.numbers()
        one.field("Task loss L").select_option("banana")
        one.slider("Λ").press("End")
        wanted = self.wanted("banana", SURFACES["banana"].start, 1000.0, "gradient descent", 20)
        one.shows(**wanted)
        other.slider("Steps, at most").press("ArrowLeft")
        other.shows(**self.wanted("bowl", (-1.5, 1.8), 0.5, "gradient descent", 19))
        one.shows(**wanted)
        assert other.numbers()["φ*"] == before["φ*"]


class TestMetaGradient:
    def wanted(self, *settings: Any) -> dict[str, str]:
        found = compare_meta_gradients(*settings)
        return {
            "error of g, ‖g − v*‖": shown(found.first_order_error),
            "error of v, ‖v − v*‖": shown(found.error),
            "the paper's bound on it": "none: L is not convex" if found.bound is None else shown(found.bound),
            "iterations": str(int(found.report.iterations[0])),
        }

    def test_every_control(self, view: Callable[..., View]) -> None:
        page = view("/gradient")
        start = (-1.5, 1.8)
        page.shows(**self.wanted("bowl", start, 0.5, 5, 1))
        found = compare_meta_gradients("bowl", start, 0.5, 5, 1)
        page.shows(**{"implicit, v": pair(found.implicit), "exact, v*": pair(found.exact)})
        page.slider("Inner steps").press("ArrowRight")
        page.slider("CG iterations, at most").press("ArrowRight")
        page.shows(**self.wanted("bowl", start, 0.5, 6, 2))
        page.slider("Λ").press("Home")
        page.shows(**self.wanted("bowl", start, 0.01, 6, 2))
        page.page.locator("figure").first.focus()
        page.page.keyboard.press("ArrowDown")
        page.shows(**self.wanted("bowl", page.handle(), 0.01, 6, 2))
        page.field("Task loss L").select_option("two minima")
        page.shows(**self.wanted("two minima", SURFACES["two minima"].start, 0.01, 6, 2))

    def test_forty_weights_and_the_curve_of_their_solve(self, view: Callable[..., View]) -> None:
        page = view("/gradient")
        page.field("Task loss L").select_option("regression with 40 weights")
        for _ in range(7):
            page.slider("CG iterations, at most").press("ArrowRight")
        page.shows(**self.wanted("regression with 40 weights", (0.0,) * 40, 0.5, 5, 8))
        wanted = compare_meta_gradients("regression with 40 weights", (0.0,) * 40, 0.5, 5, 8).residuals
        drawn = page.page.evaluate(f"() => Array.from({MODEL}('panel2').renderers[0].data_source.data.residual)")
        np.testing.assert_allclose(drawn, wanted)
        assert page.field("θ").is_disabled()
        page.until(lambda: not page.page.locator("figure").first.locator("canvas").first.is_visible())


class TestRace:
    def wanted(self, race: Race, wave: Wave) -> dict[str, str]:
        return {
            name: "\t".join(map(shown, (one.loss_before, one.loss_after, race.losses[name][-1])))
            for name, one in race.adapt(wave).items()
        }

    def test_step_start_pause_and_restart(self, view: Callable[..., View]) -> None:
        page, race, wave = view("/race"), Race(0), Wave(3.0, 1.0)
        page.shows(**self.wanted(race, wave))
        page.press("Step")
        race.step()
        page.shows(**self.wanted(race, wave))
        page.press("Start")
        page.until(lambda: int(self.steps(page)) > 12)
        page.press("Pause")
        page.until(lambda: page.page.get_by_role("button", name="Start").is_visible())
        page.page.wait_for_timeout(300)
        for _ in range(int(self.steps(page)) - 1):
            race.step()
        page.shows(**self.wanted(race, wave))
        page.field("Seed of weights and tasks").fill("3")
        page.field("Seed of weights and tasks").press("Enter")
        page.press("Restart")
        page.shows(**self.wanted(Race(3), wave))

    @staticmethod
    def steps(page: View) -> str:
        head = page.page.locator(".numbers tr").first.inner_text()
        found = re.match(r"after (\d+) steps", head)
        assert found is not None, head
        return found.group(1)

    def test_the_wave_by_pointer_keys_and_sliders(self, view: Callable[..., View]) -> None:
        page, race = view("/race"), Race(0)
        page.slider("Amplitude of your wave").press("End")
        page.shows(**self.wanted(race, Wave(5.0, 1.0)))
        page.slider("Phase of your wave").press("Home")
        page.shows(**self.wanted(race, Wave(5.0, 0.0)))
        page.page.locator("figure").first.focus()
        page.page.keyboard.press("Shift+ArrowDown")
        page.page.keyboard.press("ArrowRight")
        page.shows(**self.wanted(race, Wave(4.5, 0.1)))
        x, y = page.place(0, 0.75, 0.4)
        page.page.mouse.click(x, y)

        def at_the_crest() -> bool:
            x, y = page.handle()
            wanted = self.wanted(race, Wave(y, x - np.pi / 2))
            return wanted.items() <= page.numbers().items()

        page.until(at_the_crest)

    def test_racers_come_and_go(self, view: Callable[..., View]) -> None:
        page = view("/race")
        visible = f"() => {MODEL}('panel0').renderers.filter((r) => r.visible).length"
        before = page.page.evaluate(visible)
        for name in RACERS:
            page.press(name)
        # Three of six were there; now the other three are.
        page.until(lambda: page.page.evaluate(visible) == before)
        page.press("iMAML")
        page.until(lambda: page.page.evaluate(visible) == before + 2)

    def test_nonsense_is_refused(self, view: Callable[..., View]) -> None:
        page = view("/race")
        before = page.numbers()
        page.send("handle0", "data", "{x: [2], y: [NaN]}")
        page.until(lambda: "y must be a finite number" in page.alert())
        assert page.numbers() == before
        page.page.mouse.click(*page.place(0, 0.75, 0.4))
        page.until(lambda: page.alert() == "" and page.numbers() != before)
        before = page.numbers()
        page.field("Seed of weights and tasks").fill("-5")
        page.field("Seed of weights and tasks").press("Enter")
        page.press("Restart")
        page.page.wait_for_timeout(500)
        assert page.numbers() == before, "the spinner keeps its range: 0 again"


SEVEN = ((0.3, 0.2), (0.7, 0.2), (0.45, 0.85))


class TestDigits:
    def wanted(self, task: DigitTask, image: Any, truth: str | None) -> dict[str, str]:
        probabilities = task.answer(image)
        return {
            "the model answers": task.digits[int(probabilities.argmax())],
            "the image is": "your drawing" if truth is None else f"a {truth}",
            **{f"probability of {name}": f"{one:.1%}" for name, one in zip(task.digits, probabilities, strict=True)},
        }

    def strokes(self, page: View) -> list[tuple[list[float], list[float]]]:
        xs, ys = page.page.evaluate(
            f"() => ['xs', 'ys'].map((name) => Array.from({MODEL}('pen2').data[name], (one) => Array.from(one)))"
        )
        return list(zip(xs, ys, strict=True))

    def draw(self, page: View) -> None:
        page.page.mouse.move(*page.place(2, *SEVEN[0]))
        page.page.mouse.down()
        for point in SEVEN[1:]:
            page.page.mouse.move(*page.place(2, *point), steps=8)
        page.page.mouse.up()

    def test_ways_shots_questions_and_examples(self, view: Callable[..., View]) -> None:
        page, task = view("/digits"), DigitTask(5, 1, 0)
        page.shows(**self.wanted(task, *task.question()))
        page.press("Ask about an unseen image")
        asked = task.question()
        page.shows(**self.wanted(task, *asked))
        page.field("Chosen example").select_option("7, 1")
        page.press("Another image as the chosen example")
        task.pick(4, 0)
        page.shows(**self.wanted(task, *asked))
        page.slider("Digits to tell apart (ways)").press("ArrowLeft")
        task = DigitTask(4, 1, 0)
        page.shows(**self.wanted(task, *task.question()))
        page.slider("Examples of each (shots)").press("ArrowRight")
        task = DigitTask(4, 2, 0)
        page.shows(**self.wanted(task, *task.question()))
        page.press("Other examples of all")
        task = DigitTask(4, 2, 1)
        page.shows(**self.wanted(task, *task.question()))
        x, y = page.place(0, 0.9, 0.8)
        page.page.mouse.click(x, y)
        page.until(lambda: page.field("Chosen example").input_value() == f"{task.digits[3]}, 2")

    def test_a_drawing_by_the_pointer(self, view: Callable[..., View]) -> None:
        page, task = view("/digits"), DigitTask(5, 1, 0)
        asked = task.question()
        self.draw(page)
        # The model answers while one draws.
        page.until(lambda: page.numbers()["the image is"] == "your drawing")
        image = rasterize(self.strokes(page))
        page.shows(**self.wanted(task, image, None))
        assert page.numbers()["the model answers"] == "7"
        page.press("Make my drawing the chosen example")
        task.draw(0, 0, image)
        page.shows(**self.wanted(task, image, None), **{"examples drawn by you": "1 of 5"})
        assert page.numbers()["the model answers"] == "2", "it was told that this is a 2"
        page.press("Clear the drawing")
        page.press("Ask about my drawing")
        page.until(lambda: "must have a stroke" in page.alert())
        page.press("Ask about an unseen image")
        page.until(lambda: page.numbers()["the image is"] != "your drawing")
        assert page.alert() == ""
        assert asked is not None

    def test_a_drawing_by_keys(self, view: Callable[..., View]) -> None:
        page, task = view("/digits"), DigitTask(5, 1, 0)
        page.page.locator("figure[data-pen]").focus()
        for key in [
            "Shift+ArrowUp",
            "Shift+ArrowLeft",
            " ",
            "Shift+ArrowRight",
            "Shift+ArrowRight",
            *3 * ["Shift+ArrowDown"],
            " ",
        ]:
            page.page.keyboard.press(key)
        page.page.keyboard.press("ArrowLeft")
        strokes = self.strokes(page)
        assert [[round(x, 6) for x in xs] for xs, _ in strokes] == [[1.5, 2.0, 2.5, 2.5, 2.5, 2.5]]
        page.shows(**self.wanted(task, rasterize(strokes), None))

    def test_nonsense_is_refused(self, view: Callable[..., View]) -> None:
        page = view("/digits")
        before = page.numbers()
        page.send("pen2", "data", "{xs: [[1, NaN]], ys: [[1, 2]]}")
        page.until(lambda: "finite" in page.alert())
        page.send("pen2", "data", "{xs: [['a', 2]], ys: [[1, 2]]}")
        page.until(lambda: "numbers" in page.alert())
        assert page.numbers() == before


class TestAllPages:
    @pytest.mark.parametrize("scheme", ["light", "dark"])
    @pytest.mark.parametrize("width", [400, 1600])
    @pytest.mark.parametrize("path", PAGES)
    def test_sizes_and_colours(
        self, view: Callable[..., View], path: str, width: int, scheme: str, tmp_path: Path
    ) -> None:
        page = view(path, viewport={"width": width, "height": 900}, color_scheme=scheme)
        page.page.wait_for_timeout(200)
        assert page.page.evaluate("document.documentElement.scrollWidth") <= width, "no sideways scrolling"
        colours = page.page.evaluate(
            "() => [getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
        )
        ground, ink = (sum(map(int, re.findall(r"\d+", colour)[:3])) for colour in colours)
        assert (ground > 600 and ink < 200) if scheme == "light" else (ground < 200 and ink > 600)
        panel = {"/gradient": 2, "/digits": 1}.get(path, 0)
        labels = page.page.evaluate(f"() => {MODEL}('panel{panel}').below[0].major_label_text_color")
        assert labels == ("#1d2126" if scheme == "light" else "#e7eaee")
        # No part of a page is wider than its place.
        parts = "[...document.querySelectorAll('section, figure')]"
        assert page.page.evaluate(f"() => {parts}.every((part) => part.scrollWidth <= part.clientWidth + 1)")
        folder = os.environ.get("AIDOTNET_PY_SCREENSHOTS")
        name = f"{path.strip('/') or 'inner'}-{width}-{scheme}.png"
        page.page.screenshot(path=str((Path(folder) if folder else tmp_path) / name), full_page=True)

    @pytest.mark.parametrize("path", PAGES)
    def test_everything_has_a_name_and_takes_the_focus(self, view: Callable[..., View], path: str) -> None:
        page = view(path)
        reached: set[str] = set()
        for _ in range(40):
            page.page.keyboard.press("Tab")
            reached.add(
                page.page.evaluate(
                    """() => { let one = document.activeElement;
                    while (one?.shadowRoot?.activeElement) one = one.shadowRoot.activeElement;
                    return one.getAttribute("aria-label") || one.innerText || ""; }"""
                ).strip()
            )
        controls = page.page.locator("input, select, [role=slider], button:not([aria-hidden])").all()
        names = {(one.get_attribute("aria-label") or one.inner_text()).strip() for one in controls}
        assert "" not in names
        assert names <= reached
        assert "Digits" in reached, "the links to the other pages"

    def test_only_this_machine_is_served(self, address: str) -> None:
        port = int(address.rpartition(":")[2])
        with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.2", port), timeout=5):
            pass

    def test_pages_of_other_sites_get_no_session(self, browser: Any, address: str) -> None:
        context = browser.new_context()
        page = context.new_page()
        page.route(
            "http://elsewhere.example/", lambda route: route.fulfill(body="<p>elsewhere</p>", content_type="text/html")
        )
        page.goto("http://elsewhere.example/")
        came = page.evaluate(
            f"""() => new Promise((tell) => {{
                const socket = new WebSocket("{address.replace("http", "ws")}/ws", ["bokeh", "token"]);
                socket.onopen = () => tell("open"); socket.onerror = () => tell("refused");
            }})"""
        )
        assert came == "refused"
        context.close()
