r"""
MAML by hand, and by one name
=============================

For one sigmoid layer, MAML's meta-gradient has a short formula. The formula in plain NumPy and ``MAMLAlgorithm`` give
the same numbers.

With support set :math:`X, y`, probabilities :math:`p = \sigma(X\theta)` and n samples, one inner step is :math:`\varphi
= \theta - \frac{\alpha}{n} X^T (p - y)`. The chain rule gives the meta-gradient

.. math::
    \nabla_\theta L_q(\varphi) = (I - \alpha H)\, \nabla L_q(\varphi), \qquad
    H = \frac{1}{n} X^T \operatorname{diag}(p (1 - p))\, X.
"""

import matplotlib.pyplot as plt
import numpy as np

from aidotnet_py import BinaryCrossEntropyLoss, FunctionModel, MAMLAlgorithm, MAMLOptions, MetaLearningTask, TaskBatch

generator = np.random.default_rng(0)
features, samples, rate = 50, 10, 0.1
shared = generator.normal(size=(features, 1))
boundaries = [shared + 0.3 * generator.normal(size=shared.shape) for _ in range(10)]


def draw_set(boundary):
    """Points, and on which side of the boundary they are."""
    x = generator.normal(size=(samples, features))
    return x, (x @ boundary > 0).astype(float)


def draw_tasks():
    tasks = []
    for boundary in boundaries:
        (x, y), (x_query, y_query) = draw_set(boundary), draw_set(boundary)
        tasks.append(MetaLearningTask(SupportSetX=x, SupportSetY=y, QuerySetX=x_query, QuerySetY=y_query, NumWays=2))
    return TaskBatch(tasks)


# %%
# By hand:


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def gradient(theta, x, y):
    return x.T @ (sigmoid(x @ theta) - y) / len(x)


def meta_gradient(theta, task):
    x, y = task.SupportInput, task.SupportOutput
    phi = theta - rate * gradient(theta, x, y)
    p = sigmoid(x @ theta)
    hessian = x.T @ (p * (1 - p) * x) / len(x)
    return (np.eye(features) - rate * hessian) @ gradient(phi, task.QueryInput, task.QueryOutput)


# %%
# By name. The model returns logits; the loss applies the sigmoid:

start = generator.normal(size=shared.shape)
model = FunctionModel(lambda theta, x: x @ theta["w"], {"w": start}, loss=BinaryCrossEntropyLoss())
learner = MAMLAlgorithm(MAMLOptions(model, AdaptationSteps=1, InnerLearningRate=rate, OuterLearningRate=0.02))

batch = draw_tasks()
by_hand = np.mean([meta_gradient(start, task) for task in batch], axis=0).ravel()
by_name = learner.mean_meta_gradient(batch).parameters
print("largest difference:", np.abs(by_hand - by_name).max())
np.testing.assert_allclose(by_name, by_hand, rtol=1e-10, atol=1e-14)

# %%
# Training, with new samples in every epoch:

losses = [learner.MetaTrain(draw_tasks()) for _ in range(500)]
figure, axes = plt.subplots(figsize=(7, 3.5), layout="constrained")
axes.plot(losses)
axes.set(xlabel="epoch", ylabel="loss after one step of adaptation", ylim=0)
axes.grid(alpha=0.3)
