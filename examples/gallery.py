"""Draw every figure of `aidotnet_py.plotting`, on a light and on a dark background, into a folder.

python examples/gallery.py
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib.style
import numpy as np

from aidotnet_py import (
    AdamOptimizer,
    FunctionModel,
    MAMLAlgorithm,
    MAMLOptions,
    MetaLearningTask,
    NeuralNetworkModel,
    ReptileAlgorithm,
    ReptileOptions,
    RunFolder,
    SGDOptimizer,
    TaskBatch,
    iMAMLAlgorithm,
    iMAMLOptions,
)
from aidotnet_py.data import DigitsLoader, SinusoidLoader
from aidotnet_py.losses import CrossEntropyLoss
from aidotnet_py.nn import Dense, Sequential, Tanh, conv4
from aidotnet_py.plotting import (
    draw_adaptation_curves,
    draw_classification_task,
    draw_loss_surface,
    draw_meta_gradient_errors,
    draw_regression_task,
    draw_residuals,
)
from aidotnet_py.solvers import conjugate_gradient

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def regressor() -> NeuralNetworkModel[np.float32]:
    return NeuralNetworkModel(Sequential(Dense(40), Tanh(), Dense(40), Tanh(), Dense(1)), input_shape=(1,), seed=0)


def sinusoid_options() -> dict[str, Any]:
    rates = {"InnerLearningRate": 0.002, "AdaptationSteps": 16, "MetaOptimizer": AdamOptimizer(0.004)}
    return {"DataLoader": SinusoidLoader(seed=0), **rates}


def regression(steps: int) -> Callable[[], Figure]:
    """A sinusoid before and after adaptation."""
    model = regressor()
    learner = MAMLAlgorithm(MAMLOptions(model, **sinusoid_options()))
    for _ in range(steps):
        learner.MetaTrainStep(16)
    task = SinusoidLoader(seed=2).GetNextTask()
    x = np.linspace(-5, 5, 200, dtype=np.float32)[:, None]
    truth = task.Metadata["Amplitude"] * np.sin(x - task.Metadata["Phase"])
    before, after = model.Predict(x), learner.Adapt(task).Predict(x)
    losses = learner.AdaptAndEvaluate(task).PerStepLosses
    return lambda: draw_regression_task(task, x, before, after, losses, truth, "A sinusoid that was not trained on")


def classification(steps: int) -> Callable[[], Figure]:
    """Digits before and after adaptation."""
    model = NeuralNetworkModel(conv4(5, filters=16), input_shape=(8, 8, 1), loss=CrossEntropyLoss(), seed=0)
    loader = DigitsLoader(NWay=5, KShot=1, seed=0)
    options: dict[str, Any] = {"InnerLearningRate": 0.1, "AdaptationSteps": 16, "ConjugateGradientIterations": 5}
    options |= {"DataLoader": loader, "Curvature": "gauss-newton"}
    learner = iMAMLAlgorithm(iMAMLOptions.FromPaper(model, Lambda=0.5, **options))
    for _ in range(steps):
        learner.MetaTrainStep(8)
    task = DigitsLoader(split="test", seed=2).GetNextTask()
    before, after = model.Predict(task.QueryInput), learner.Adapt(task).Predict(task.QueryInput)
    losses = learner.AdaptAndEvaluate(task).PerStepLosses
    return lambda: draw_classification_task(task, before, after, losses, "Unseen digits, learned from the left column")


def adaptation(steps: int) -> Callable[[], Figure]:
    """MAML and Reptile, and the random start of both, on new sinusoids."""
    tasks = TaskBatch(SinusoidLoader(seed=3).GetTaskBatch(100))
    learners: dict[str, Any] = {}
    for name in ("random start", "MAML", "Reptile"):
        if name == "Reptile":
            learners[name] = ReptileAlgorithm(ReptileOptions(regressor(), **sinusoid_options()))
        else:
            learners[name] = MAMLAlgorithm(MAMLOptions(regressor(), **sinusoid_options()))
        for _ in range(0 if name == "random start" else steps):
            learners[name].MetaTrainStep(16)
    curves = {name: learner.adaptation_curve(tasks, steps=32) for name, learner in learners.items()}
    return lambda: draw_adaptation_curves(curves, title="100 new sinusoids, with 95 % intervals")


def residuals(steps: int) -> Callable[[], Figure]:
    """Conjugate gradient on systems of two condition numbers, four right-hand sides each."""
    generator = np.random.default_rng(0)
    reports = {}
    for condition in (10, 1000):
        diagonal = np.geomspace(1, condition, 60)
        solve = conjugate_gradient(lambda v, d=diagonal: d * v, generator.normal(size=(4, 60)), rtol=1e-8)
        reports[f"condition number {condition}"] = solve[1]
    return lambda: draw_residuals(reports, "Conjugate gradient")


def line() -> tuple[FunctionModel[Any, Any, Any], MetaLearningTask[Any, Any, Any]]:
    """A model y = ax + b, and a task of eight points."""
    generator = np.random.default_rng(1)
    x, query_x = generator.uniform(-2, 1, size=(2, 8, 1))
    y, query_y = 1.5 * x + 0.5 + 0.1 * generator.normal(size=(8, 1)), 1.5 * query_x + 0.5
    model = FunctionModel(lambda p, x: x * p["a"] + p["b"], {"a": np.array([-0.5]), "b": np.array([-1.0])})
    task = MetaLearningTask(SupportSetX=x, SupportSetY=y, QuerySetX=query_x, QuerySetY=query_y, NumWays=1, NumShots=8)
    return model, task


def surface(steps: int) -> Callable[[], Figure]:
    """The support loss of that task, with the inner steps of iMAML."""
    model, task = line()
    theta = model.GetParameters()
    learner = iMAMLAlgorithm(iMAMLOptions.FromPaper(model, Lambda=0.5, InnerLearningRate=0.1, AdaptationSteps=40))
    path = learner.AdaptAndEvaluate(task, keep_steps=True).step_parameters
    assert path is not None
    x, y = task.SupportInput[:, 0], task.SupportOutput[:, 0]

    def loss(p: Any) -> Any:
        return np.mean((p[0] * x + p[1] - y) ** 2)

    return lambda: draw_loss_surface(loss, theta, path, lambda_=2.0, title="y = ax + b: at φ* the forces cancel")


def errors(steps: int) -> Callable[[], Figure]:
    """Compare iMAML and first-order MAML with the exact meta-gradient of the inner problem's solution."""
    model, task = line()
    theta, counts = model.GetParameters(), [1, 2, 4, 8, 16, 32, 64, 128]
    found: dict[str, list[float]] = {"iMAML": [], "FOMAML": []}
    x, query_x = (np.hstack([z, np.ones_like(z)]) for z in (task.SupportInput, task.QueryInput))
    system = np.eye(2) + 2.0 * 2 * x.T @ x / len(x)
    best = np.linalg.solve(system, theta + 2.0 * 2 * x.T @ task.SupportOutput[:, 0] / len(x))
    exact = np.linalg.solve(system, 2 * query_x.T @ (query_x @ best - task.QueryOutput[:, 0]) / len(query_x))
    for count in counts:
        options: dict[str, Any] = {"InnerLearningRate": 0.1, "AdaptationSteps": count, "InnerObjective": "proximal"}
        options |= {"LambdaRegularization": 2.0, "MetaOptimizer": SGDOptimizer(1.0), "GradientClipThreshold": None}
        learners = {
            "iMAML": iMAMLAlgorithm(iMAMLOptions(model.Clone(), ConjugateGradientIterations=5, **options)),
            "FOMAML": MAMLAlgorithm(MAMLOptions(model.Clone(), UseFirstOrder=True, **options)),
        }
        for name, learner in learners.items():
            gradient = learner.mean_meta_gradient(TaskBatch([task])).parameters
            found[name].append(float(np.linalg.norm(gradient - exact) / np.linalg.norm(exact)))
    return lambda: draw_meta_gradient_errors(counts, found, title="‖g − g*‖ / ‖g*‖")


def training(steps: int, folder: Path) -> Callable[[], Figure]:
    """The curves of a run's folder."""
    options = MAMLOptions(regressor(), NumMetaIterations=steps, MetaBatchSize=16, **sinusoid_options())
    options.EvaluationFrequency, options.EvaluationTasks = max(1, steps // 8), 50
    run = RunFolder(folder)
    MAMLAlgorithm(options).Train(run=run)
    return lambda: run.draw("A training on sinusoids")


FIGURES: dict[str, Callable[[int], Callable[[], Any]]] = {
    "regression": regression,
    "classification": classification,
    "adaptation": adaptation,
    "residuals": residuals,
    "surface": surface,
    "errors": errors,
}


def save(draw: Callable[[], Figure], path: Path) -> None:
    """Save a figure on both backgrounds; matplotlib's styles set the colours of text and background."""
    for ground, style in (("light", "default"), ("dark", "dark_background")):
        with matplotlib.style.context(style):
            draw().savefig(f"{path}-{ground}.png", dpi=100)
    print(f"Figure: {path}-light.png and {path.name}-dark.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=300, help="meta-training steps (default: 300)")
    parser.add_argument("--folder", type=Path, default=Path("out/gallery"), help="where the figures go")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        works = {**FIGURES, "training": lambda steps: training(steps, Path(scratch) / "run")}
        for name, work in works.items():
            save(work(arguments.steps), arguments.folder / name)


if __name__ == "__main__":
    main()
