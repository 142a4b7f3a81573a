"""HTML for notebooks: what it shows, that it stays small and well-formed, and that names stay text."""

from __future__ import annotations

import base64
import io
import re
from datetime import timedelta
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
from PIL import Image

from aidotnet_py import (
    FunctionModel,
    MetaAdaptationResult,
    MetaEvaluationResult,
    MetaLearningTask,
    MetaTrainingResult,
    MetaTrainingStepResult,
    NeuralNetworkModel,
    TaskBatch,
)
from aidotnet_py.autodiff import trace
from aidotnet_py.backends import Backend
from aidotnet_py.data import DigitsLoader
from aidotnet_py.markup import curve, scatter, table, thumbnail
from aidotnet_py.models.summary import ModelSummary
from aidotnet_py.nn import conv4, resnet18
from aidotnet_py.solvers import conjugate_gradient

HOSTILE = "<script>alert(1)</script>\"'&<img src=x onerror=y>"
EMPTY = {"img", "circle", "polyline"}


class Page(HTMLParser):
    """The tags and the text of a piece of HTML, which must be well-formed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]
        assert not [name for name, _ in attrs if name.startswith("on")]
        if tag not in EMPTY:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in EMPTY:
            assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def task(name: str = "", **sets: Any) -> MetaLearningTask[Any, Any, Any]:
    x = np.linspace(-1, 1, 6)[:, None]
    sets = {"SupportSetX": x, "SupportSetY": x**2, "QuerySetX": x / 2, "QuerySetY": x**2 / 4, **sets}
    return MetaLearningTask(**sets, Name=name)


def objects() -> dict[str, Any]:
    losses, metrics = np.array([3.0, 2.0, 1.0]), {HOSTILE: np.float64(1.0)}
    rest: dict[str, Any] = {"additionalMetrics": metrics}
    step = {"taskLoss": losses[0], "accuracy": losses[0], "numTasks": 1, "iteration": 1, "timeMs": 1.0}
    sets = {"queryAccuracy": losses[0], "queryLoss": losses[0], "supportAccuracy": losses[0], "supportLoss": losses[0]}
    return {
        "task": task(HOSTILE),
        "program": trace(lambda x: np.sum(x * x), np.ones(3)),
        "batch": TaskBatch([task(HOSTILE)] * 9),
        "report": conjugate_gradient(lambda v: 2 * v, np.ones((30, 2)))[1],
        "training": MetaTrainingResult(losses, losses, timedelta(seconds=1), **rest),
        "evaluation": MetaEvaluationResult(losses, losses, timedelta(seconds=1), **rest),
        "step": MetaTrainingStepResult(losses[0], **step, **rest),
        "adaptation": MetaAdaptationResult(
            **sets, adaptationSteps=2, adaptationTimeMs=1.0, perStepLosses=losses, **rest
        ),
        "summary": FunctionModel(lambda p, x: x, {HOSTILE: np.ones(3)}).summary(),
    }


@pytest.mark.parametrize("name", objects())
def test_all_are_well_formed_small_and_of_this_page_alone(name: str) -> None:
    html = objects()[name]._repr_html_()
    page = Page(html)
    assert not {"script", "style", "link", "iframe"} & set(page.tags)
    assert all(link.startswith("data:image/png;base64,") for link in page.links)
    assert len(html) < 20_000
    # Grey lines and the page's own ink: nothing that a dark page would hide.
    assert set(re.findall(r"(?:color|fill|stroke)[=:]\"?([^;\" ]+)", html)) <= {"currentColor", "none"}


@pytest.mark.parametrize("name", ["task", "training", "evaluation", "step", "adaptation", "summary"])
def test_hostile_names_stay_text(name: str) -> None:
    html = objects()[name]._repr_html_()
    assert "<script" not in html
    assert HOSTILE in Page(html).text


class TestTasks:
    def test_of_images_show_them_with_their_classes(self) -> None:
        digits = DigitsLoader(NWay=5, KShot=1, QueryShots=6, seed=0).GetNextTask()
        page = Page(digits._repr_html_())  # type: ignore[attr-defined]
        # All five of the support set, and ten of thirty.
        assert page.tags.count("img") == 15
        decoded = Image.open(io.BytesIO(base64.b64decode(page.links[0].partition(",")[2])))
        image = digits.SupportInput[0, :, :, 0]
        # Ink on white paper.
        np.testing.assert_array_equal(np.asarray(decoded), np.rint(255 * (1 - image.astype(np.float64))))
        paper = np.asarray(decoded)[image == 0]
        assert paper.size > 0
        assert (paper == 255).all()

    def test_of_photographs_show_them_as_they_are(self) -> None:
        dark = np.full((1, 4, 4, 3), 0.2)
        dark[0, 0, 0] = 0.4
        page = Page(task(SupportSetX=dark, SupportSetY=np.array([0]), QuerySetX=None, QuerySetY=None)._repr_html_())
        decoded = np.asarray(Image.open(io.BytesIO(base64.b64decode(page.links[0].partition(",")[2]))))
        np.testing.assert_array_equal(decoded, np.rint(255 * dark[0]))

    def test_of_functions_show_their_points(self) -> None:
        assert Page(task()._repr_html_()).tags.count("circle") == 12

    def test_of_other_data_show_their_shapes(self) -> None:
        # A query set of another shape than the support set.
        assert not Page(task(SupportSetX=np.ones((1, 4, 4, 3)), SupportSetY=np.array([0]))._repr_html_()).links
        x = np.ones((4, 7))
        page = Page(task(SupportSetX=x, SupportSetY=x, QuerySetX=None, QuerySetY=None)._repr_html_())
        assert "support (4, 7) → (4, 7)" in page.text
        assert not {"img", "svg"} & set(page.tags)

    def test_on_any_backend(self, backend: Backend) -> None:
        images = backend.asarray(np.random.default_rng(0).uniform(size=(3, 4, 4, 3)))
        classes = backend.asarray(np.arange(3))
        page = Page(task(SupportSetX=images, SupportSetY=classes, QuerySetX=None, QuerySetY=None)._repr_html_())
        assert page.tags.count("img") == 3
        x = backend.asarray(np.linspace(0, 1, 5)[:, None])
        page = Page(task(SupportSetX=x, SupportSetY=x, QuerySetX=None, QuerySetY=None)._repr_html_())
        assert page.tags.count("circle") == 5

    def test_batches_show_their_first_tasks(self) -> None:
        page = Page(TaskBatch([task()] * 9)._repr_html_())
        assert page.tags.count("svg") == 6
        assert "3 more tasks" in page.text


class TestPictures:
    @pytest.mark.parametrize("channels", [1, 2, 3, 4])
    @pytest.mark.parametrize("value", [0.0, np.nan, np.inf, 1e300])
    def test_thumbnails_of_any_numbers(self, channels: int, value: float) -> None:
        image = np.full((200, 3, channels), value)
        image[0, 0] = 1.0
        source = re.search(r"base64,([^\"]+)", thumbnail(image))
        assert source is not None
        decoded = Image.open(io.BytesIO(base64.b64decode(source[1])))
        decoded.load()
        assert decoded.mode == ("RGB" if channels == 3 else "L")
        assert max(decoded.size) <= 64

    def test_curves_of_any_numbers(self) -> None:
        points = re.search(r'points="([^"]*)"', curve(np.array([0.0, np.nan, 1e308, -1e308])))
        assert points is not None
        # Least below, largest above; in SVG, y grows downwards.
        assert points[1] == "5.0,40.0 158.3,5.0 235.0,75.0"
        assert len(curve(np.arange(100_000.0))) < 10_000

    def test_scatters_leave_out_what_is_not_finite(self) -> None:
        x = np.array([0.0, 1.0, np.nan])
        assert scatter((x, x)).count("<circle") == 2

    def test_tables_escape_every_part(self) -> None:
        assert Page(table(HOSTILE, [HOSTILE], [[HOSTILE]], HOSTILE)).text == 4 * HOSTILE


class TestPrograms:
    def test_long_ones_are_cut(self) -> None:
        def long(x: Any) -> Any:
            for _ in range(500):
                x = np.sin(x)
            return x

        program: Any = trace(long, np.ones(3))
        page = Page(program._repr_html_())
        assert "302 more lines" in page.text
        assert str(program).splitlines()[150] in page.text

    def test_short_ones_are_whole(self) -> None:
        program: Any = trace(lambda x: np.sum(x * x), np.ones(3))
        page = Page(program._repr_html_())
        assert str(program) in page.text
        assert "more lines" not in page.text


class TestReports:
    def test_have_a_row_a_task(self) -> None:
        _, report = conjugate_gradient(lambda v: 2 * v, np.ones((25, 2)))
        page = Page(report._repr_html_())
        assert page.text.startswith("SolverReport: 25 of 25 converged")
        assert page.tags.count("tr") == 21
        assert "5 more tasks" in page.text


class TestSummaries:
    @pytest.mark.parametrize(
        ("network", "shape"), [(conv4(5, filters=8), (28, 28, 1)), (resnet18(7, filters=4), (32, 32, 3))]
    )
    def test_shapes_and_counts_are_the_models(self, network: Any, shape: tuple[int, ...]) -> None:
        model = NeuralNetworkModel(network, input_shape=shape, seed=0)
        summary: ModelSummary = model.summary()
        assert summary.parameters == model.ParameterCount
        assert summary.nbytes == 4 * model.ParameterCount
        output = model.Predict(np.zeros((10, *shape), np.float32)).shape
        assert summary.rows[-1].shape == f"(n, {output[1]})"
        counts = dict.fromkeys((row.name for row in summary.rows), 0)
        for name, own in model.parameter_shapes.items():
            counts[name.rpartition(".")[0]] += int(np.prod(own))
        assert {row.name: row.parameters for row in summary.rows} == counts
        assert repr(summary).splitlines()[-1].startswith(f"{model.ParameterCount:,} parameters")

    def test_lines_have_one_width(self) -> None:
        lines = repr(NeuralNetworkModel(conv4(5, filters=8), input_shape=(28, 28, 1)).summary()).splitlines()[1:-1]
        assert len({len(line) for line in lines}) == 1
