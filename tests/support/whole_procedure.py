"""The whole procedure, from θ to the query loss after adaptation, in NumPy: what meta-gradients are held to.

It works on complex numbers, so that its derivatives are had to the last digit by a complex step. Nothing here uses the
package's engine or optimizers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from imaml_reference import Optimizer, adam, sgd
from tanh_network import TINY, TanhNetwork, Values

from aidotnet_py import AdamOptimizer, IGradientBasedOptimizer, SGDOptimizer, TaskBatch

# By name: the optimizer, and its paper's formulas.
OPTIMIZERS: dict[str, tuple[Callable[[], IGradientBasedOptimizer | None], Callable[[], Optimizer]]] = {
    "the default": (lambda: None, lambda: sgd(0.1)),
    "sgd": (lambda: SGDOptimizer(0.05), lambda: sgd(0.05)),
    "momentum": (lambda: SGDOptimizer(0.05, momentum=0.8), lambda: sgd(0.05, 0.8)),
    "adam": (lambda: AdamOptimizer(0.05), lambda: adam(0.05)),
    "adam with other decays": (
        lambda: AdamOptimizer(0.03, beta1=0.5, beta2=0.7, epsilon=1e-3),
        lambda: adam(0.03, 0.5, 0.7, 1e-3),
    ),
}


def adapted(
    network: TanhNetwork,
    theta: Values,
    batches: Sequence[tuple[Values, Values]],
    steps: int,
    optimizer: Optimizer,
    *,
    strength: float = 0.0,
    scale: Any = 1.0,
) -> Values:
    """φ_K; step k looks at batch k mod n, and follows the gradient times ``scale``."""
    phi = theta
    for k in range(steps):
        gradient = network.gradient(phi, *batches[k % len(batches)]) + strength * (phi - theta)
        phi = optimizer(phi, scale * gradient, k + 1)
    return phi


def derivative(f: Callable[[Values], Any], theta: Values) -> Values:
    """The gradient of an analytic function by complex steps."""
    return np.array([np.imag(f(theta + 1j * TINY * e)) / TINY for e in np.eye(len(theta))])


def split(support: tuple[Values, Values], batches: int) -> list[tuple[Values, Values]]:
    """A support set as so many batches of the same shape."""
    return list(zip(*(np.split(values, batches) for values in support), strict=True))


def meta_gradient(algorithm: Any, options: Any, batch: TaskBatch[Any, Any, Any]) -> Values:
    """What the learner hands to its meta-optimizer: the step of gradient descent at rate 1."""
    options.MetaOptimizer, options.GradientClipThreshold = SGDOptimizer(1.0), None
    learner = algorithm(options)
    backend, model = options.MetaModel.backend, options.MetaModel
    before = np.array(backend.to_numpy(learner._meta_parameters()))
    theta = backend.to_numpy(model.GetParameters())
    learner.MetaTrain(batch)
    found: Values = before - backend.to_numpy(learner._meta_parameters())
    model.SetParameters(backend.asarray(theta))
    return found
