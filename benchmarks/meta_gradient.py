"""How exact meta-gradients are, against inner steps and products: ``python -m benchmarks.meta_gradient FOLDER``.

After Figure 2 of Rajeswaran et al. 2019: linear regression, where the meta-gradient of the inner problem's solution is
known in closed form, (I + λH)⁻¹∇L_query(φ*).
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from aidotnet_py import (
    FunctionModel,
    IEpisode,
    MAMLAlgorithm,
    MAMLOptions,
    MetaLearnerBase,
    MetaLearningTask,
    ProblemConstants,
    SGDOptimizer,
    TaskBatch,
    iMAMLAlgorithm,
    iMAMLOptions,
)
from benchmarks.environment import measure_unforced
from benchmarks.machine import machine, use_cores
from benchmarks.report import table

__all__: list[str] = []

Values = NDArray[np.float64]
PARAMETERS, EXAMPLES, LAMBDA = 100, 200, 4.0


@dataclass(frozen=True)
class Problem:
    """One task: support set, query set, and a start."""

    task: MetaLearningTask[Any, Values, Values]
    theta: Values

    @classmethod
    def new(cls, seed: int) -> Problem:
        """Gaussian features whose scales fall from 1 to a tenth."""
        generator = np.random.default_rng(seed)
        scales = np.geomspace(1.0, 0.1, PARAMETERS)
        w = generator.standard_normal((PARAMETERS, 1))
        x, query_x = (generator.standard_normal((EXAMPLES, PARAMETERS)) * scales for _ in range(2))
        y, query_y = (a @ w + 0.1 * generator.standard_normal((EXAMPLES, 1)) for a in (x, query_x))
        task: MetaLearningTask[Any, Values, Values] = MetaLearningTask(
            SupportSetX=x, SupportSetY=y, QuerySetX=query_x, QuerySetY=query_y, NumWays=1, NumShots=EXAMPLES
        )
        return cls(task, generator.standard_normal(PARAMETERS))

    def hessian(self, x: Values) -> Values:
        """Of the mean squared error."""
        return 2 * x.T @ x / len(x)

    def exact(self) -> Values:
        """(I + λH)⁻¹ ∇L_query(φ*)."""
        x, y, query_x, query_y = (
            getattr(self.task, name) for name in ("SupportSetX", "SupportSetY", "QuerySetX", "QuerySetY")
        )
        system = np.eye(PARAMETERS) + LAMBDA * self.hessian(x)
        best = np.linalg.solve(system, self.theta + LAMBDA * 2 * x.T @ y[:, 0] / len(x))
        return np.linalg.solve(system, self.hessian(query_x) @ best - 2 * query_x.T @ query_y[:, 0] / len(query_x))

    def constants(self) -> ProblemConstants:
        """Those of the bound."""
        support, query = (np.linalg.eigvalsh(self.hessian(x)) for x in (self.task.SupportSetX, self.task.QuerySetX))
        return ProblemConstants(float(support[0]), float(query[-1]), 0.0)

    def rate(self) -> float:
        """One over the largest curvature of the inner problem."""
        return 1.0 / (float(np.linalg.eigvalsh(self.hessian(self.task.SupportSetX))[-1]) + 1.0 / LAMBDA)


@dataclass(frozen=True)
class Found:
    """A method's meta-gradient at one number of inner steps: its relative error, the bound on it, and its time."""

    method: str
    steps: int
    error: float
    bound: float | None
    seconds: float


def learner_of(method: str, problem: Problem, steps: int) -> MetaLearnerBase[Any, Values, Values]:
    """MAML, FOMAML, or iMAML with a number of products: "iMAML 5"."""
    model = FunctionModel(lambda p, x: x @ p["w"], {"w": problem.theta[:, None].copy()})
    options: dict[str, Any] = {
        "MetaOptimizer": SGDOptimizer(1.0),
        "GradientClipThreshold": None,
        "AdaptationSteps": steps,
        "InnerLearningRate": problem.rate(),
        "LambdaRegularization": LAMBDA,
        "InnerObjective": "proximal",
    }
    if not method.startswith("iMAML"):
        return MAMLAlgorithm(MAMLOptions(model, UseFirstOrder=method == "FOMAML", **options))
    products = int(method.split()[1])
    return iMAMLAlgorithm(
        iMAMLOptions(
            model,
            ConjugateGradientIterations=products,
            ConjugateGradientTolerance=1e-14,
            ErrorConstants=problem.constants(),
            **options,
        )
    )


def found(method: str, problem: Problem, steps: int) -> Found:
    """A few steps from the same start; the last is timed."""
    learner, exact = learner_of(method, problem, steps), problem.exact()
    sampler, seconds, metrics = _Same(TaskBatch([problem.task])), list[float](), dict[str, float]()
    # The first thirty while all is traced, planned and compiled.
    for _ in range(40):
        learner.BaseModel.SetParameters(problem.theta)
        began = time.perf_counter()
        metrics = dict(learner.MetaTrainStep(sampler, 1).AdditionalMetrics)
        seconds.append(time.perf_counter() - began)
    size = float(np.linalg.norm(exact))
    error = float(np.linalg.norm(problem.theta - learner.BaseModel.GetParameters() - exact)) / size
    bound = metrics.get("MetaGradientErrorBound")
    return Found(method, steps, error, None if bound is None else float(bound) / size, float(np.median(seconds[30:])))


class _Same:
    """A sampler that knows one batch alone."""

    NumWays, NumShots, NumQueryPerClass = 1, EXAMPLES, 15

    def __init__(self, batch: TaskBatch[Any, Values, Values]) -> None:
        self._batch = batch

    def SampleBatch(self, batchSize: int) -> TaskBatch[Any, Values, Values]:
        return self._batch

    def SampleOne(self) -> IEpisode[Any, Values, Values]:
        raise NotImplementedError("only batches are asked for")

    def UpdateWithFeedback(self, episodes: Any, losses: Any) -> None:
        pass

    def SetSeed(self, seed: int) -> None:
        pass


def draw(rows: list[Found], path: Path) -> None:
    """The error and the time against the inner steps."""
    figure, (error, seconds) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for method in dict.fromkeys(row.method for row in rows):
        own = [row for row in rows if row.method == method]
        steps = [row.steps for row in own]
        (line,) = error.plot(steps, [row.error for row in own], marker="o", markersize=3, label=method)
        if own[0].bound is not None:
            error.plot(steps, [row.bound for row in own], linestyle=":", color=line.get_color())
        seconds.plot(steps, [1e3 * row.seconds for row in own], marker="o", markersize=3, label=method)
    error.set(yscale="log", xlabel="inner steps", title="relative error (dotted: the paper's bound)")
    seconds.set(yscale="log", xlabel="inner steps", title="ms a step")
    for axes in (error, seconds):
        axes.grid(visible=True, alpha=0.3)
    seconds.legend(fontsize="small")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    measure_unforced()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where meta_gradient.png and meta_gradient.json are put")
    parser.add_argument("--steps", type=int, nargs="+", default=[1, 2, 5, 10, 20, 40, 80, 160], help="inner steps")
    parser.add_argument("--products", type=int, nargs="+", default=[2, 5, 10, 20], help="of iMAML's solves")
    parser.add_argument("--seed", type=int, default=0, help="of the problem")
    parser.add_argument("--cores", type=int, default=2, help="cores (default: 2)")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    about = machine(use_cores(options.cores))
    problem = Problem.new(options.seed)
    methods = ["MAML", *(f"iMAML {n}" for n in options.products), "FOMAML"]
    rows = [found(method, problem, steps) for method in methods for steps in options.steps]
    console = Console(width=None if Console().is_terminal else 140)
    for title, value in (("relative error", lambda f: f"{f.error:.1e}"), ("ms", lambda f: f"{1e3 * f.seconds:.2f}")):
        lines = [[method, *(value(f) for f in rows if f.method == method)] for method in methods]
        table(console, f"Meta-gradient, {title}", ["method", *(f"K = {k}" for k in options.steps)], lines)
    draw(rows, options.folder / "meta_gradient.png")
    numbers = {"machine": about, "found": [asdict(row) for row in rows]}
    (options.folder / "meta_gradient.json").write_text(json.dumps(numbers, indent=1) + "\n")


if __name__ == "__main__":
    main()
