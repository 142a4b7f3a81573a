"""Figures: what they show, where they are drawn, and that they can be read on light and dark."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from io import BytesIO
from typing import Any, cast

import matplotlib.style
import numpy as np
import pytest
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure

from aidotnet_py import ArgumentException, MetaLearningTask, MetaTrainingResult
from aidotnet_py.data import DigitsLoader, SinusoidLoader
from aidotnet_py.meta_learning import AdaptationCurve, BasicStats
from aidotnet_py.plotting import (
    draw_adaptation_curves,
    draw_classification_task,
    draw_loss_surface,
    draw_meta_gradient_errors,
    draw_regression_task,
    draw_residuals,
    draw_training,
    figure_formats,
)
from aidotnet_py.solvers import conjugate_gradient

X = np.linspace(-5, 5, 20)
INTERVALS = [BasicStats.of(np.array([mean, mean + 0.1])).ConfidenceInterval() for mean in (0.8, 0.6, 0.4)]


def regression(**options: Any) -> Any:
    return draw_regression_task(SinusoidLoader(seed=0).GetNextTask(), X, 0 * X, np.sin(X), [4.0, 1.0], **options)


def classification(**options: Any) -> Any:
    task = DigitsLoader(NWay=3, KShot=1, QueryShots=2, seed=0).GetNextTask()
    # The last query image is taken for class 0.
    after = np.eye(3)[task.QueryOutput]
    after[np.flatnonzero(task.QueryOutput == 2)[-1]] = [1, 0, 0]
    return draw_classification_task(task, np.zeros((6, 3)), after, [1.6, 0.4], **options)


def curve(tasks: int = 4, accuracies: bool = True) -> AdaptationCurve:
    generator = np.random.default_rng(0)
    shares = generator.uniform(size=(tasks, 3)) if accuracies else np.full((tasks, 3), np.nan)
    return AdaptationCurve(generator.uniform(1, 2, size=(tasks, 3)), shares)


def curves(**options: Any) -> Any:
    return draw_adaptation_curves({"A": curve(), "B": curve()}, **options)


def residuals(**options: Any) -> Any:
    _, report = conjugate_gradient(lambda v: np.geomspace(1, 9, 5) * v, np.array([[1.0] * 5, [0.0] * 5, [2.0] * 5]))
    return draw_residuals({"solve": report}, **options)


def surface(**options: Any) -> Any:
    # At θ/(1 + 2λ, 1 + 8λ), the inner problem's solution.
    return draw_loss_surface(lambda p: p[0] ** 2 + 4 * p[1] ** 2, [2.0, 1.0], [[1.5, 0.5], [1.0, 0.2]], 0.5, **options)


def errors(**options: Any) -> Any:
    return draw_meta_gradient_errors(
        [1, 10], {"iMAML": [1.0, 0.1], "MAML": [1.0, 0.5]}, {"iMAML": [2.0, 0.2]}, **options
    )


def training(**options: Any) -> Any:
    losses = np.array([3.0, 2.0, 1.0])
    return draw_training(MetaTrainingResult(losses, losses / 4, timedelta(seconds=1)), **options)


ALL = [regression, classification, curves, residuals, surface, errors, training]
SINGLE = [residuals, surface, errors]

each = pytest.mark.parametrize("draw", ALL, ids=lambda draw: draw.__name__)


class TestPlaces:
    @pytest.mark.slow
    @each
    def test_in_the_callers_axes_and_nowhere_else(self, draw: Callable[..., Any]) -> None:
        figure: Any = Figure(figsize=(16, 8), layout="constrained")
        left, right = figure.subplots(1, 2)
        assert draw(ax=left, title="A title") is figure
        figure.draw_without_rendering()
        assert left.get_title() == "A title"
        middle = right.get_position().x0
        assert all(axes.get_position().x1 <= middle for axes in figure.axes if axes is not right)
        assert not right.has_data()

    @each
    def test_in_a_figure_of_its_own_with_a_title(self, draw: Callable[..., Any]) -> None:
        assert draw(title="A title").get_suptitle() == "A title"
        assert draw().get_suptitle() == ""

    @each
    def test_not_in_something_else(self, draw: Callable[..., Any]) -> None:
        with pytest.raises(ArgumentException, match=r"^ax must be a matplotlib Axes, got 3$"):
            draw(ax=3)

    def test_not_of_something_else(self) -> None:
        with pytest.raises(ArgumentException, match=r"^result must be a MetaTrainingResult, got None$"):
            draw_training(cast(Any, None))

    @pytest.mark.parametrize("draw", [d for d in ALL if d not in SINGLE], ids=lambda draw: draw.__name__)
    def test_several_panels_need_a_grid(self, draw: Callable[..., Any]) -> None:
        with pytest.raises(ArgumentException, match=r"^ax must be an axes of a grid, as by figure.subplots\(\)"):
            draw(ax=Figure().add_axes((0, 0, 1, 1)))

    @pytest.mark.parametrize(
        "draw", [pytest.param(d, id=d.__name__, marks=() if d is training else pytest.mark.slow) for d in ALL]
    )
    def test_a_notebook_gets_a_picture(self, draw: Callable[..., Any]) -> None:
        assert draw()._repr_png_().startswith(b"\x89PNG\r\n\x1a\n")


def luminance(colour: Any) -> float:
    """WCAG 2's relative luminance."""
    parts = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
    return float(np.dot([0.2126, 0.7152, 0.0722], parts))


def contrast(one: Any, other: Any) -> float:
    dark, light = sorted([luminance(one), luminance(other)])
    return (light + 0.05) / (dark + 0.05)


class TestColours:
    @pytest.mark.slow
    @each
    @pytest.mark.parametrize("style", ["default", "dark_background"])
    def test_all_text_is_read_and_all_lines_are_seen(self, draw: Callable[..., Any], style: str) -> None:
        with matplotlib.style.context(style):
            figure = draw(title="A title")
            figure.draw_without_rendering()
        ground = figure.get_facecolor()
        visible = [t for t in figure.findobj(matplotlib.text.Text) if t.get_text() and t.get_visible()]
        # 3:1 is WCAG 2's for large text and for pictures; the green and red of captions have signs beside them.
        assert [t.get_text() for t in visible if contrast(t.get_color(), ground) < 3] == []
        lines = [line for axes in figure.axes for line in axes.lines]
        assert [to_hex(line.get_color()) for line in lines if contrast(line.get_color(), ground) < 2] == []

    def test_right_and_wrong_have_signs(self) -> None:
        task: Any = DigitsLoader(NWay=3, KShot=1, QueryShots=2, seed=0).GetNextTask()
        first, _, last = task.Metadata["Classes"]
        captions = [axes.get_title() for axes in classification().axes]
        assert captions.count(f"→ {last} ✓") == 1
        assert captions.count(f"→ {first} ✗") == 1

    def test_two_dozen_curves_differ(self) -> None:
        figure: Any = draw_adaptation_curves({str(i): curve(accuracies=False) for i in range(24)})
        looks = {(line.get_color(), line.get_linestyle()) for line in figure.axes[0].lines}
        assert len(looks) == 24


class TestAdaptationCurves:
    def test_a_curve_by_itself(self) -> None:
        one = curve()
        loss, accuracy = draw_adaptation_curves(one).axes
        np.testing.assert_allclose(loss.lines[0].get_ydata(), one.losses.mean(axis=0))
        np.testing.assert_allclose(accuracy.lines[0].get_ydata(), one.accuracies.mean(axis=0))
        lower = BasicStats.of(one.losses[:, 0]).ConfidenceInterval().Lower
        band: Any = loss.collections[0].get_paths()[0].vertices
        np.testing.assert_allclose(band[band[:, 0] == 0][:, 1].min(), lower)

    def test_of_regression(self) -> None:
        figure: Any = draw_adaptation_curves({"A": curve(accuracies=False)})
        assert [axes.get_ylabel() for axes in figure.axes] == ["query loss"]
        assert [text.get_text() for text in figure.legends[0].get_texts()] == ["A"]

    def test_a_learner_without_accuracies_keeps_its_colour_to_itself(self) -> None:
        figure: Any = draw_adaptation_curves({"regressor": curve(accuracies=False), "classifier": curve()})
        loss, accuracy = figure.axes
        assert [line.get_label() for line in accuracy.lines] == ["classifier"]
        assert accuracy.lines[0].get_color() == loss.lines[1].get_color() != loss.lines[0].get_color()

    def test_a_learner_has_one_colour_and_one_entry_though_panels_have_other_learners(self) -> None:
        panels = {"1-shot": {"MAML": INTERVALS, "iMAML": INTERVALS}, "5-shot": {"iMAML": INTERVALS, "ANIL": INTERVALS}}
        figure: Any = draw_adaptation_curves(panels)
        colours = {(line.get_label(), line.get_color()) for axes in figure.axes for line in axes.lines}
        (legend,) = figure.legends
        entries = [(t.get_text(), h.get_color()) for t, h in zip(legend.get_texts(), legend.get_lines(), strict=True)]
        assert [name for name, _ in entries] == ["MAML", "iMAML", "ANIL"]
        assert set(entries) == colours
        assert len({colour for _, colour in entries}) == 3
        left, _ = Figure(layout="constrained").subplots(1, 2)
        within: Any = draw_adaptation_curves(panels, ax=left).axes[-1].get_legend()
        assert [text.get_text() for text in within.get_texts()] == ["MAML", "iMAML", "ANIL"]

    def test_accuracies_are_under_the_losses_of_the_same_title(self) -> None:
        losses = {title: {"A": INTERVALS} for title in ("1-shot", "5-shot")}
        titles = [axes.get_title() for axes in draw_adaptation_curves(losses, dict(reversed(losses.items()))).axes]
        assert titles == ["1-shot", "5-shot"] * 2
        alone: Any = draw_adaptation_curves(losses, {"5-shot": {"A": INTERVALS}}).axes
        assert [len(axes.lines) for axes in alone] == [1, 1, 0, 1]
        with pytest.raises(
            ArgumentException, match=r"^accuracies must be of panels among 1-shot, 5-shot, got '2-shot'$"
        ):
            draw_adaptation_curves(losses, {"2-shot": {"A": INTERVALS}})

    def test_one_task_has_no_interval(self) -> None:
        loss, _ = draw_adaptation_curves(curve(tasks=1)).axes
        assert len(loss.lines) == 1
        assert len(loss.collections) == 0

    def test_accuracies_come_with_the_curve(self) -> None:
        with pytest.raises(ArgumentException, match=r"^accuracies must be left out beside an AdaptationCurve"):
            draw_adaptation_curves(curve(), {})
        with pytest.raises(
            ArgumentException, match=r"^losses must be an AdaptationCurve, or a mapping of curves, got 3"
        ):
            draw_adaptation_curves(3)  # type: ignore[arg-type]


class TestTraining:
    def test_evaluations_that_the_result_holds(self) -> None:
        losses = np.array([3.0, 2.0, 1.0, 0.5])
        metrics = {"EvaluationLoss@2": 2.5, "EvaluationAccuracy@2": 0.4, "EvaluationLoss@4": 1.5}
        metrics |= {"EvaluationAccuracy@4": 0.7, "Note": 1.0}
        figure = draw_training(MetaTrainingResult(losses, losses / 4, timedelta(seconds=1), metrics))
        for axes, means in zip(figure.axes, ([2.5, 1.5], [0.4, 0.7]), strict=True):
            (drawn,) = [line for line in axes.lines if line.get_marker() == "o"]
            np.testing.assert_array_equal(drawn.get_xydata(), [(2, means[0]), (4, means[1])])
        figure.draw_without_rendering()

    @pytest.mark.parametrize("outlier", [1e20, np.nan, np.inf, -np.inf])
    def test_a_running_mean_is_of_its_window_alone(self, outlier: float) -> None:
        losses = np.arange(1.0, 71.0)
        losses[20] = outlier
        axes: Any = draw_training(MetaTrainingResult(losses, np.full(70, np.nan), timedelta(seconds=1))).axes[0]
        # A twentieth of the steps, at the beginning those that there are.
        means = [losses[max(0, end - 3) : end].mean() for end in range(1, 71)]
        np.testing.assert_allclose(axes.lines[1].get_ydata(), means, rtol=1e-15)


IMAGES = np.random.default_rng(0).random((6, 4, 4, 1))
LABELS = np.array([0, 0, 1, 1, 2, 2])
LOGITS = np.eye(3)[LABELS]


def image_task(images: Any = IMAGES, labels: Any = LABELS, query_labels: Any = None) -> MetaLearningTask[Any, Any, Any]:
    query = labels if query_labels is None else query_labels
    return MetaLearningTask(SupportSetX=images, SupportSetY=labels, QuerySetX=images, QuerySetY=query)


def captions(task: MetaLearningTask[Any, Any, Any], logits: Any = LOGITS) -> list[str]:
    figure = draw_classification_task(task, logits, logits, [1.0, 0.5])
    return [axes.get_title() for axes in figure.axes]


class TestClassification:
    def test_one_hot_labels_are_read_as_by_the_loss(self) -> None:
        assert captions(image_task(labels=np.eye(3, dtype=np.float32)[LABELS])) == captions(image_task())

    @pytest.mark.parametrize("shape", [(1, 1, 1), (1, 4, 1), (4, 1, 1), (1, 4, 3), (4, 4, 4)])
    def test_images_of_any_size_and_of_colours(self, shape: tuple[int, ...]) -> None:
        images = np.random.default_rng(0).random((6, *shape))
        figure: Any = draw_classification_task(image_task(images), LOGITS, LOGITS, [1.0])
        shown = figure.axes[0].images[0].get_array()
        np.testing.assert_array_equal(np.reshape(shown, shape), images[0])
        assert shown.shape[:2] == shape[:2]

    def test_support_sets_in_batches(self) -> None:
        batches = MetaLearningTask(
            SupportSetX=[IMAGES[:4], IMAGES[4:]],
            SupportSetY=[LABELS[:4], LABELS[4:]],
            QuerySetX=IMAGES,
            QuerySetY=LABELS,
        )
        assert captions(batches) == captions(image_task())

    def test_classes_without_images_are_left_out(self) -> None:
        assert captions(image_task(labels=np.array([0, 0, 0, 2, 2, 2]))) == [
            *("class 0", "→ 0 ✓", "→ 0 ✓", "→ 1 ✗", "class 2", "→ 1 ✗", "→ 2 ✓", "→ 2 ✓"),
            "query accuracy\n67% → 67%",
        ]

    def test_a_class_of_query_images_alone_is_shown(self) -> None:
        assert captions(image_task(labels=np.array([0, 0, 1, 1, 1, 1]), query_labels=LABELS))[6:9] == [
            *("class 2", "→ 2 ✓", "→ 2 ✓"),
        ]

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"labels": np.array([0, 0, 1, 1, 3, 3])}, "SupportSetY must hold labels from 0 to 2 for predictions of"),
            ({"query_labels": LABELS + 1}, "QuerySetY must hold labels from 0 to 2 for predictions of"),
            ({"labels": np.eye(4)[LABELS]}, r"SupportSetY must be class indices \(6,\) or rows \(6, 3\)"),
            (
                {"query_labels": np.eye(3)[LABELS] * np.nan},
                "QuerySetY must hold one-hot rows or probabilities, got NaN",
            ),
            (
                {"images": IMAGES[..., [0, 0]]},
                r"SupportSetX must be images .* of 1, 3 or 4 channels, got shape \(6, 4, 4, 2\)",
            ),
            ({"images": IMAGES[:, 0]}, r"SupportSetX must be images .*, got shape \(6, 4, 1\)"),
        ],
    )
    def test_of_images_and_classes_alone(self, changes: Any, message: str) -> None:
        with pytest.raises(ArgumentException, match=f"^{message}"):
            captions(image_task(**changes))

    @pytest.mark.parametrize(
        ("before", "after", "message"),
        [
            (
                LOGITS[:4],
                LOGITS,
                r"before must be logits \(queries, classes\) of the 6 query images, got shape \(4, 3\)",
            ),
            (LOGITS, LABELS, r"after must be logits .*, got shape \(6,\)"),
            (LOGITS[:, :0], LOGITS, r"before must be logits .*, got shape \(6, 0\)"),
            (LOGITS, np.eye(4)[LABELS], r"after must have the shape of before, \(6, 3\), got \(6, 4\)"),
            (LOGITS * np.nan, LOGITS, "before must have a finite largest logit .*, got nan for image 0"),
            (LOGITS, np.where(LABELS == 2, -np.inf, LOGITS.T).T, "after must have .*, got -inf for image 4"),
        ],
    )
    def test_of_logits_of_the_query_images(self, before: Any, after: Any, message: str) -> None:
        with pytest.raises(ArgumentException, match=f"^{message}"):
            draw_classification_task(image_task(), before, after, [1.0])

    @pytest.mark.parametrize(
        ("names", "told"),
        [
            (("cat", "dog", "$owl$"), ["class cat", "→ cat ✓", "class dog", r"→ \$owl\$ ✓"]),
            ((7, 3, "Japanese_(katakana)/character02@90"), ["class 7", "class 3", "class Japa…er02@90"]),
            (("cat",), ["class cat", "class 1", "→ 2 ✓"]),
            ("cat", ["class 0", "class 1"]),
        ],
    )
    def test_classes_are_called_as_the_task_knows_them(self, names: Any, told: list[str]) -> None:
        task = image_task()
        task.SetMetadata("Classes", names)
        assert set(told) <= set(captions(task))

    @pytest.mark.parametrize(
        ("scale", "ink", "look"),
        [
            (1.0, None, ("gray", 0.0, 1.0)),
            (0.25, None, ("gray", 0.0, 1.0)),
            (255.0, None, ("gray", 0.0, 255 * IMAGES.max())),
            (-2.0, None, ("gray", -2 * IMAGES.max(), 1.0)),
            (1.0, True, ("gray_r", 0.0, 1.0)),
        ],
    )
    def test_high_values_are_light_but_for_ink(self, scale: float, ink: Any, look: tuple[str, float, float]) -> None:
        task = image_task(scale * IMAGES)
        if ink is not None:
            task.SetMetadata("Ink", ink)
        figure: Any = draw_classification_task(task, LOGITS, LOGITS, [1.0])
        images = [axes.images[0] for axes in figure.axes if axes.images]
        assert {(image.get_cmap().name, *image.get_clim()) for image in images} == {look}

    def test_the_digits_are_drawn_as_they_were_written(self) -> None:
        task: Any = DigitsLoader(NWay=3, seed=0).GetNextTask()
        assert task.Metadata["Ink"] is True
        figure: Any = draw_classification_task(task, np.eye(3)[task.QueryOutput], np.eye(3)[task.QueryOutput], [1.0])
        assert figure.axes[0].images[0].get_cmap().name == "gray_r"
        assert figure.axes[0].get_title() == f"class {task.Metadata['Classes'][0]}"

    def test_a_masked_class_is_never_the_largest(self) -> None:
        assert captions(image_task(), np.where(LOGITS == 0, -np.inf, LOGITS)) == captions(image_task())


class TestRegression:
    def test_support_sets_in_batches(self) -> None:
        x = np.arange(5.0)[:, None]
        task = MetaLearningTask(SupportSetX=[x[:2], x[2:]], SupportSetY=[x[:2], x[2:]], QuerySetX=x, QuerySetY=x)
        functions: Any = draw_regression_task(task, X, X, X, [1.0]).axes[0]
        np.testing.assert_array_equal(functions.lines[-1].get_xdata(), x.ravel())

    @pytest.mark.parametrize(
        ("inputs", "outputs", "name"), [((5, 2), (5,), "SupportSetX"), ((5, 1), (5, 2), "SupportSetY")]
    )
    def test_of_one_number_each(self, inputs: Any, outputs: Any, name: str) -> None:
        x, y = np.zeros(inputs), np.zeros(outputs)
        task = MetaLearningTask(SupportSetX=x, SupportSetY=y, QuerySetX=x, QuerySetY=y)
        with pytest.raises(ArgumentException, match=rf"^{name} must be one number each, .*, got shape \(5, 2\)$"):
            draw_regression_task(task, X, X, X, [1.0])

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"grid": np.zeros((20, 2))}, r"grid must be one number each, \(n,\) or \(n, 1\), got shape \(20, 2\)"),
            ({"before": X[:5]}, "before must have a number for each of the 20 points of grid, got 5"),
            ({"after": np.zeros((20, 2))}, r"after must be one number each, .*, got shape \(20, 2\)"),
            ({"truth": X[:5]}, "truth must have a number for each of the 20 points of grid, got 5"),
        ],
    )
    def test_of_functions_on_the_grid(self, changes: Any, message: str) -> None:
        given = {"grid": X, "before": X, "after": X, "losses": [1.0], **changes}
        with pytest.raises(ArgumentException, match=f"^{message}$"):
            draw_regression_task(SinusoidLoader(seed=0).GetNextTask(), **given)


class TestResiduals:
    def test_are_relative_and_leave_out_zero_right_hand_sides(self) -> None:
        axes = residuals().axes[0]
        histories = [line.get_ydata() for line in axes.lines if len(line.get_ydata()) > 2]
        assert len(histories) == 2
        # From x = 0 the residual is b.
        assert [values[0] for values in histories] == [1.0, 1.0]
        np.testing.assert_allclose(histories[0], histories[1], rtol=1e-6)
        ends = [line for line in axes.lines if line.get_marker() == "o"]
        assert [line.get_xdata()[0] for line in ends] == [5, 5]

    @pytest.mark.parametrize(("tolerances", "drawn"), [({"rtol": 1e-12}, 1), ({"rtol": 0.0, "atol": 1e-10}, 0)])
    def test_a_bound_is_drawn_where_all_tasks_share_it(self, tolerances: dict[str, float], drawn: int) -> None:
        """Bounds of 1e-10 and 1e-12 of the right-hand sides counted as one."""
        b = np.array([[1.0] * 3, [100.0] * 3])
        _, report = conjugate_gradient(lambda v: np.array([1.0, 2.0, 4.0]) * v, b, **tolerances)
        lines = [line for line in draw_residuals(report).axes[0].lines if line.get_linestyle() == ":"]
        assert len(lines) == drawn

    def test_of_exact_starts_alone(self) -> None:
        """Matplotlib warned of residuals that are all 0."""
        _, report = conjugate_gradient(lambda v: v, np.ones(3), initial=np.ones(3), rtol=0.0)
        draw_residuals(report).savefig(BytesIO())

    @pytest.mark.parametrize("given", [{}, 3, {"a": 3}])
    def test_of_reports_alone(self, given: Any) -> None:
        with pytest.raises(ArgumentException, match=r"^reports.* must be a "):
            draw_residuals(given)


class TestSurface:
    def test_forces_cancel_at_the_solution(self) -> None:
        axes = surface().axes[0]
        pulls = [c for c in axes.collections if type(c).__name__ == "Quiver"]
        loss, proximal = (np.array([*pull.U, *pull.V]) for pull in pulls)
        np.testing.assert_allclose(loss, -proximal, rtol=1e-12)
        np.testing.assert_allclose(loss[1] / loss[0], 0.8, err_msg="−∇L = (−2, −1.6) there")
        path = axes.lines[0]
        np.testing.assert_array_equal(path.get_xdata(), [2.0, 1.5, 1.0])

    def test_level_lines_are_those_of_the_loss(self) -> None:
        (levels,) = [c for c in surface().axes[0].collections if type(c).__name__ == "QuadContourSet"]
        path = levels.get_paths()[4].vertices
        # Between grid points, matplotlib interpolates.
        np.testing.assert_allclose(path[:, 0] ** 2 + 4 * path[:, 1] ** 2, levels.levels[4], rtol=2e-3)

    def test_without_a_proximal_term_there_is_one_force(self) -> None:
        axes = draw_loss_surface(lambda p: p[0] ** 2 + p[1] ** 2, [1.0, 1.0], [[0.5, 0.5]]).axes[0]
        assert axes.get_legend_handles_labels()[1] == ["path", "start θ", "adapted φ*", "−∇L(φ*)"]

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (([1.0], [[1.0, 2.0]]), r"start must have shape \(2,\), two parameters, got \(1,\)"),
            (([1.0, 2.0], [1.0, 2.0]), r"path must have shape \(steps, 2\), two parameters a step, got \(2,\)"),
            (([1.0, 2.0], np.zeros((0, 2))), r"path must have shape \(steps, 2\), two parameters a step, got \(0, 2\)"),
            (([1.0, 2.0], [[1.0, 2.0]], 0.0), r"lambda_ must be .*, got 0.0"),
            (([1.0, np.nan], [[1.0, 2.0]]), "start must hold finite numbers, got nan"),
            (([1.0, 2.0], [[1.0, np.inf]]), "path must hold finite numbers, got inf"),
        ],
    )
    def test_of_two_parameters(self, arguments: Any, message: str) -> None:
        with pytest.raises(ArgumentException, match=f"^{message}"):
            draw_loss_surface(lambda p: p[0] + p[1], *arguments)

    def test_of_one_number(self) -> None:
        with pytest.raises(ArgumentException, match=r"^loss must return one number, got an array of shape \(2,\)$"):
            draw_loss_surface(lambda p: p**2, [1.0, 2.0], [[0.0, 0.0]])

    @pytest.mark.parametrize(
        ("loss", "start", "value"),
        [
            (lambda p: p[0] * np.nan, [1.0, 2.0], "nan"),
            (lambda p: p[0] ** 2 + p[1] ** 2, [1e200, 0.0], "inf"),
        ],
    )
    def test_of_a_loss_that_is_finite_somewhere(self, loss: Any, start: Any, value: str) -> None:
        axes = Figure().subplots()
        with pytest.raises(
            ArgumentException, match=f"^loss must be finite somewhere around start and path, got {value}"
        ):
            draw_loss_surface(loss, start, [[0.0, 0.0]], ax=axes)
        assert axes.get_aspect() == "auto"

    def test_a_loss_may_lack_values_in_places(self) -> None:
        axes = draw_loss_surface(lambda p: np.log(p[0]), [1.0, 1.0], [[0.5, 0.5]]).axes[0]
        (levels,) = [c for c in axes.collections if type(c).__name__ == "QuadContourSet"]
        assert np.isfinite(levels.levels).all()


@pytest.mark.parametrize("program", [None, "xelatex"])
def test_pgf_is_offered_where_tex_is_installed(program: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: program if name == "xelatex" else None)
    assert ("pgf" in figure_formats()) is (program is not None)
    assert "png" in figure_formats()


class TestErrors:
    def test_bounds_have_the_colour_of_their_method(self) -> None:
        lines = errors().axes[0].lines
        assert [line.get_linestyle() for line in lines] == ["-", ":", "-"]
        assert lines[0].get_color() == lines[1].get_color() != lines[2].get_color()

    @pytest.mark.parametrize(
        ("given", "bounds", "message"),
        [
            ({}, None, "errors must be a mapping with the errors of a method for each name"),
            ({"A": [1.0]}, None, r"errors\['A'\] must have the shape \(n,\) of steps, \(2,\), got \(1,\)"),
            ({"A": [1.0, 2.0]}, {"B": [1.0, 2.0]}, "bounds must be of methods among A, got 'B'"),
            ({"A": ["a", "b"]}, None, r"errors\['A'\] must be real numbers \(n,\), got shape \(2,\) of <U1"),
            ({"A": [1.0, -2.0]}, None, r"errors\['A'\] must be numbers of at least 0, got -2.0"),
            ({"A": [1.0, 2.0]}, {"A": [1.0, -2.0]}, r"bounds\['A'\] must be numbers of at least 0, got -2.0"),
            ({"A": [1.0, 2.0]}, [1.0], "bounds must be a mapping with the bounds of a method for each name"),
        ],
    )
    def test_fit_the_steps(self, given: Any, bounds: Any, message: str) -> None:
        with pytest.raises(ArgumentException, match=f"^{message}"):
            draw_meta_gradient_errors([1, 2], given, bounds)

    @pytest.mark.costly
    @pytest.mark.parametrize("given", [[0.0, 0.0], [0.0, np.inf]])
    def test_errors_of_zero_alone(self, given: list[float]) -> None:
        """Matplotlib warned of data that it cannot scale."""
        draw_meta_gradient_errors([1, 2], {"A": given}).savefig(BytesIO())

    def test_no_step_is_left_out(self) -> None:
        with pytest.raises(ArgumentException, match=r"^steps must be numbers above 0, got 0.0$"):
            draw_meta_gradient_errors([0, 1], {"A": [1.0, 2.0]})


class TestLossesThatNoLogarithmShows:
    """Such as of a likelihood: on a logarithmic scale, the picture was empty."""

    @pytest.mark.parametrize(("low", "scale"), [(0.5, "log"), (0.0, "linear"), (-2.0, "linear"), (np.nan, "log")])
    def test_are_on_a_linear_scale(self, low: float, scale: str) -> None:
        losses = [1.0, low]
        pair = AdaptationCurve(np.array([losses, losses]), np.full((2, 2), np.nan))
        task = SinusoidLoader(seed=0).GetNextTask()
        result = MetaTrainingResult(np.array(losses), np.full(2, np.nan), timedelta(seconds=1))
        figures = [draw_adaptation_curves(pair), draw_regression_task(task, X, X, X, losses), draw_training(result)]
        for figure in figures:
            assert figure.axes[-1].get_yscale() == scale

    def test_among_the_evaluations(self) -> None:
        metrics = {"EvaluationLoss@1": -1.0}
        result = MetaTrainingResult(np.array([2.0, 1.0]), np.full(2, np.nan), timedelta(1), additionalMetrics=metrics)
        assert draw_training(result).axes[0].get_yscale() == "linear"


class TestCurvesOfPanels:
    @pytest.mark.parametrize(
        ("panel", "message"),
        [
            (3, r"losses\['p'\] must be a mapping of curves by the learner's name, got 3"),
            (curve(), r"losses\['p'\] must be a mapping of curves by the learner's name, got AdaptationCurve"),
            ({"A": []}, r"losses\['p'\]\['A'\] must be a sequence of at least one ConfidenceInterval, got \[\]"),
            ({"A": [1.0]}, r"losses\['p'\]\['A'\] must be a sequence of at least one ConfidenceInterval, got \[1.0\]"),
        ],
    )
    def test_are_checked(self, panel: Any, message: str) -> None:
        with pytest.raises(ArgumentException, match=f"^{message}"):
            draw_adaptation_curves({"p": panel, "q": {"A": INTERVALS}})

    def test_accuracies_too(self) -> None:
        with pytest.raises(ArgumentException, match=r"^accuracies\['p'\]\['A'\] must be a sequence of at least one"):
            draw_adaptation_curves({"p": {"A": INTERVALS}}, {"p": {"A": [0.5]}})  # type: ignore[list-item]


@pytest.mark.parametrize("losses", [1.0, [[1.0, 2.0]], ["a"], [None]])
def test_losses_of_a_task_are_checked_before_anything_is_drawn(losses: Any) -> None:
    figure = Figure()
    place = figure.subplots()
    for draw in (
        lambda: draw_regression_task(SinusoidLoader(seed=0).GetNextTask(), X, X, X, losses, ax=place),
        lambda: draw_classification_task(
            DigitsLoader(NWay=3, KShot=1, QueryShots=2, seed=0).GetNextTask(), np.eye(6), np.eye(6), losses, ax=place
        ),
    ):
        with pytest.raises(ArgumentException, match=r"^losses must be real numbers \(n,\), got shape"):
            draw()
    assert figure.axes == [place]
    assert place.axison
