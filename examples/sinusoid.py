"""Meta-train iMAML on sinusoids (Finn et al. 2017), and adapt it to a new sinusoid from ten points.

python examples/sinusoid.py
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from tqdm import trange

from aidotnet_py import NeuralNetworkModel, SGDOptimizer, iMAMLAlgorithm, iMAMLOptions
from aidotnet_py.data import SinusoidLoader
from aidotnet_py.nn import Dense, Sequential, Tanh
from aidotnet_py.plotting import draw_regression_task

Model = NeuralNetworkModel[np.float32]


def learner_of(
    model: Model, loader: SinusoidLoader[np.float32], *, first_order: bool = False
) -> iMAMLAlgorithm[np.float32]:
    options = iMAMLOptions.FromPaper(
        model,
        Lambda=0.5,
        DataLoader=loader,
        InnerOptimizer=SGDOptimizer(0.01, momentum=0.9),
        AdaptationSteps=32,
        OuterLearningRate=0.002,
        MetaBatchSize=25,
        Curvature="gauss-newton",
        UseFirstOrder=first_order,
    )
    return iMAMLAlgorithm(options)


def new_model(seed: int) -> Model:
    network = Sequential(Dense(40), Tanh(), Dense(40), Tanh(), Dense(1))
    return NeuralNetworkModel(network, input_shape=(1,), seed=seed)


def report(name: str, model: Model, tasks: int) -> None:
    result = learner_of(model, SinusoidLoader(seed=1)).Evaluate(tasks)
    interval = result.GetLossConfidenceInterval()
    print(f"  {name:<38} {interval.Mean:7.3f} ± {interval.HalfWidth:.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=3000, help="meta-training steps (default: 3000)")
    parser.add_argument("--tasks", type=int, default=600, help="test tasks (default: 600)")
    parser.add_argument("--seed", type=int, default=0, help="of weights and training tasks (default: 0)")
    parser.add_argument("--figure", type=Path, default=Path("out/sinusoid.png"), help="where the figure goes")
    arguments = parser.parse_args()

    untrained, first_order, implicit = (new_model(arguments.seed) for _ in range(3))
    for name, model, first in (("first-order", first_order, True), ("iMAML", implicit, False)):
        learner = learner_of(model, SinusoidLoader(seed=arguments.seed), first_order=first)
        for _ in trange(arguments.steps, desc=f"meta-training {name}", mininterval=1, disable=None):
            learner.MetaTrainStep(25)

    print(f"\nMean squared error on {arguments.tasks} new sinusoids, 10 points and 32 steps each, with 95 % intervals")
    report("random start, after adaptation", untrained, arguments.tasks)
    report("first-order, after adaptation", first_order, arguments.tasks)
    report("iMAML, after adaptation", implicit, arguments.tasks)

    task = SinusoidLoader(seed=2).GetNextTask()
    learner = learner_of(implicit, SinusoidLoader(seed=2))
    x = np.linspace(-5, 5, 200, dtype=np.float32)[:, None]
    truth = task.Metadata["Amplitude"] * np.sin(x - task.Metadata["Phase"])
    losses = learner.AdaptAndEvaluate(task).PerStepLosses
    figure = draw_regression_task(task, x, implicit.Predict(x), learner.Adapt(task).Predict(x), losses, truth)
    arguments.figure.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(arguments.figure, dpi=120)
    print(f"Figure: {arguments.figure}")


if __name__ == "__main__":
    main()
