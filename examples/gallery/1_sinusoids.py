"""
A sine wave from ten points
===========================

Each task is a sine wave with its own amplitude and phase (Finn et al. 2017). iMAML learns a start from which a small
network fits a new wave from ten points. ``examples/sinusoid.py`` trains longer and tests on 600 waves.
"""

import numpy as np

from aidotnet_py import NeuralNetworkModel, iMAMLAlgorithm, iMAMLOptions
from aidotnet_py.data import SinusoidLoader
from aidotnet_py.nn import Dense, Sequential, Tanh
from aidotnet_py.plotting import draw_regression_task

network = Sequential(Dense(40), Tanh(), Dense(40), Tanh(), Dense(1))
model = NeuralNetworkModel(network, input_shape=(1,), seed=0)
options = iMAMLOptions.FromPaper(
    model,
    Lambda=2.0,
    DataLoader=SinusoidLoader(seed=0),
    AdaptationSteps=16,
    InnerLearningRate=0.002,
    OuterLearningRate=0.004,
    Curvature="gauss-newton",
)
learner = iMAMLAlgorithm(options)

# %%
# Meta-training: each step draws 25 waves, adapts to each, and updates the start with the implicit gradient.

losses = [float(learner.MetaTrainStep(25).MetaLoss) for _ in range(1000)]
for begin, end in ((0, 10), (90, 100), (900, 1000)):
    print(f"steps {begin + 1:3} to {end:4}: median query loss after adaptation {np.median(losses[begin:end]):.3f}")

# %%
# An unseen wave. ``Adapt`` returns a new model and does not change the start.

task = SinusoidLoader(seed=2).GetNextTask()
adapted = learner.Adapt(task)
losses = learner.AdaptAndEvaluate(task).PerStepLosses
x = np.linspace(-5, 5, 200, dtype=np.float32)[:, None]
truth = task.Metadata["Amplitude"] * np.sin(x - task.Metadata["Phase"])
figure = draw_regression_task(task, x, model.Predict(x), adapted.Predict(x), losses, truth)
