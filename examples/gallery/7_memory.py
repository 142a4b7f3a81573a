"""
Memory against inner steps
==========================

Memory limits the number of inner steps. MAML differentiates through all inner steps and stores every point, or with
checkpoints about twice the square root of their number. iMAML needs only the last point. :doc:`/performance` measures
an Omniglot network, with times.
"""

import tracemalloc

import matplotlib.pyplot as plt

from aidotnet_py import MAMLAlgorithm, MAMLOptions, NeuralNetworkModel, iMAMLAlgorithm, iMAMLOptions
from aidotnet_py.data import SinusoidLoader
from aidotnet_py.nn import Dense, Sequential, Tanh

batch = SinusoidLoader(seed=0).GetTaskBatch(4)


def new_model():
    network = Sequential(Dense(128), Tanh(), Dense(128), Tanh(), Dense(1))
    return NeuralNetworkModel(network, input_shape=(1,), seed=0)


def learner_of(name, steps):
    settings = {"AdaptationSteps": steps, "InnerLearningRate": 0.001}
    if name == "iMAML":
        return iMAMLAlgorithm(iMAMLOptions.FromPaper(new_model(), Lambda=2.0, Curvature="gauss-newton", **settings))
    segments = "sqrt" if name == "MAML, checkpoints" else None
    return MAMLAlgorithm(
        MAMLOptions(new_model(), CheckpointSegments=segments, UseFirstOrder=name == "FOMAML", **settings)
    )


def peak(name, steps):
    """Peak memory of NumPy and Python over one step, in MiB, without the first steps, which compile."""
    learner = learner_of(name, steps)
    for _ in range(2):
        learner.MetaTrain(batch)
    del learner
    tracemalloc.start()
    learner_of(name, steps).MetaTrain(batch)
    height = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return height / 2**20


# %%
# Four tasks, a network of 16,897 parameters:

counts = (1, 10, 30, 100, 200)
heights = {name: [peak(name, steps) for steps in counts] for name in ("MAML", "MAML, checkpoints", "iMAML", "FOMAML")}
for name, row in heights.items():
    print(f"{name:<18}" + "".join(f"{height:8.1f}" for height in row) + " MiB")

# %%
# The figure:

figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
for name, row in heights.items():
    axes.plot(counts, row, marker=".", label=name)
axes.set(xlabel="inner steps K", ylabel="peak memory of a step, MiB", ylim=0)
axes.legend()
axes.grid(alpha=0.3)
