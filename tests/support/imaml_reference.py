"""iMAML on linear least squares, by dense linear algebra and closed forms: what the learner is held to.

The model is y = [x, 1] φ, a task's loss ‖Zφ − y‖²/n, so its gradient is Aφ − b with A = 2ZᵀZ/n, b = 2Zᵀy/n, and its
Hessian is A everywhere. Nothing here uses the package's engine, solvers or optimizers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aidotnet_py import FunctionModel, MetaLearningTask, TaskBatch
from aidotnet_py.backends import Backend

Vector = NDArray[np.float64]
Optimizer = Callable[[Vector, Vector, int], Vector]


@dataclass(frozen=True)
class LeastSquares:
    """One loss ‖Zφ − y‖²/n."""

    x: Vector
    y: Vector

    @property
    def z(self) -> Vector:
        return np.hstack([self.x, np.ones((len(self.x), 1))])

    @property
    def hessian(self) -> Vector:
        return 2 * self.z.T @ self.z / len(self.x)

    @property
    def pull(self) -> Vector:
        return 2 * self.z.T @ self.y[:, 0] / len(self.x)

    def gradient(self, phi: Vector) -> Vector:
        return self.hessian @ phi - self.pull

    def loss(self, phi: Vector) -> float:
        return float(np.mean((self.z @ phi - self.y[:, 0]) ** 2))


@dataclass(frozen=True)
class LinearTask:
    """A support and a query set."""

    support: LeastSquares
    query: LeastSquares

    def on(self, backend: Backend, dtype: Any = np.float64) -> MetaLearningTask[Any, Any, Any]:
        def move(values: Vector) -> Any:
            return backend.asarray(values, dtype)

        return MetaLearningTask(
            SupportSetX=move(self.support.x),
            SupportSetY=move(self.support.y),
            QuerySetX=move(self.query.x),
            QuerySetY=move(self.query.y),
            NumWays=1,
        )


def linear_tasks(count: int = 3, *, features: int = 3, seed: int = 0) -> list[LinearTask]:
    """Tasks with slopes of their own; support sets of 7 points, query sets of 5."""
    generator = np.random.default_rng(seed)

    def points(slope: Vector, n: int) -> LeastSquares:
        x = generator.uniform(-1, 1, (n, features))
        return LeastSquares(x, x @ slope[:, None] + 0.1 * generator.standard_normal((n, 1)))

    slopes = [generator.standard_normal(features) for _ in range(count)]
    return [LinearTask(points(slope, 7), points(slope, 5)) for slope in slopes]


def batch_on(backend: Backend, tasks: Sequence[LinearTask], dtype: Any = np.float64) -> TaskBatch[Any, Any, Any]:
    return TaskBatch([task.on(backend, dtype) for task in tasks])


def start(features: int = 3, seed: int = 9) -> Vector:
    return np.random.default_rng(seed).standard_normal(features + 1)


def linear_model(backend: Backend, theta: Vector, dtype: Any = np.float64) -> FunctionModel[Any, Any, Any]:
    """Slopes and intercept as two arrays, so that the layout of the vector is put to use."""
    parameters = {"slope": theta[:-1, None], "intercept": theta[-1:]}
    return FunctionModel(lambda p, x: x @ p["slope"] + p["intercept"], parameters, dtype=dtype, backend=backend)


# Optimizers as their papers write them: (gradients so far are the closure's) parameters, gradient, step from 1.


def sgd(rate: float, momentum: float = 0.0) -> Optimizer:
    velocity: list[Vector] = [np.zeros(())]

    def step(parameters: Vector, gradient: Vector, t: int) -> Vector:
        velocity[0] = momentum * velocity[0] + gradient
        return parameters - rate * velocity[0]

    return step


def adam(rate: float, beta1: float = 0.9, beta2: float = 0.999, epsilon: float = 1e-8) -> Optimizer:
    moments: list[Vector] = [np.zeros(()), np.zeros(())]

    def step(parameters: Vector, gradient: Vector, t: int) -> Vector:
        moments[0] = beta1 * moments[0] + (1 - beta1) * gradient
        moments[1] = beta2 * moments[1] + (1 - beta2) * gradient**2
        corrected = moments[0] / (1 - beta1**t), moments[1] / (1 - beta2**t)
        return parameters - rate * corrected[0] / (np.sqrt(corrected[1]) + epsilon)

    return step


def descent(theta: Vector, loss: LeastSquares, steps: int, rate: float, proximal: float = 0.0) -> Vector:
    """K steps of gradient descent on the loss + (proximal/2)‖φ − θ‖², in closed form.

    φ_K = C^K θ + rate · Σ_{k<K} C^k c with C = I − rate·(A + proximal·I) and c = b + proximal·θ. No minimum is asked
    for, since fewer examples than unknowns have many.
    """
    contraction = np.eye(len(theta)) - rate * (loss.hessian + proximal * np.eye(len(theta)))
    powers = [np.linalg.matrix_power(contraction, k) for k in range(steps + 1)]
    series = sum(powers[:-1], np.zeros_like(contraction))
    return powers[-1] @ theta + rate * series @ (loss.pull + proximal * theta)


def followed(theta: Vector, loss: LeastSquares, steps: int, optimizer: Optimizer, proximal: float = 0.0) -> Vector:
    """K steps of any optimizer on the same objective, by its recursion."""
    phi = theta
    for t in range(1, steps + 1):
        phi = optimizer(phi, loss.gradient(phi) + proximal * (phi - theta), t)
    return phi


Solver = Callable[[Vector, Vector], Vector]


def dense(lam: float, damping: float = 0.0) -> Solver:
    """((1 + damping)I + λH)⁻¹ g."""
    return lambda h, g: np.linalg.solve((1 + damping) * np.eye(len(g)) + lam * h, g)


def textbook_conjugate_gradient(lam: float, iterations: int, tolerance: float = 0.0) -> Solver:
    """Hestenes and Stiefel's method on the matrix I + λH, from zero."""

    def solve(h: Vector, g: Vector) -> Vector:
        matrix = np.eye(len(g)) + lam * h
        x, r, p = np.zeros_like(g), g.copy(), g.copy()
        for _ in range(iterations):
            if np.linalg.norm(r) <= tolerance:
                break
            alpha = (r @ r) / (p @ matrix @ p)
            x = x + alpha * p
            following = r - alpha * matrix @ p
            p = following + (following @ following) / (r @ r) * p
            r = following
        return x

    return solve


def series(lam: float, terms: int, damping: float = 0.0) -> Solver:
    """Σ_{j<J} (I − M)ʲ g with M = (1 + damping)I + λH."""

    def solve(h: Vector, g: Vector) -> Vector:
        ratio = -lam * h - damping * np.eye(len(g))
        return sum((np.linalg.matrix_power(ratio, j) @ g for j in range(terms)), np.zeros_like(g))

    return solve


def first_order(h: Vector, g: Vector) -> Vector:
    return g


def meta_gradient(adapted: Sequence[Vector], tasks: Sequence[LinearTask], solve: Solver) -> Vector:
    """The mean over tasks of the solve of each."""
    return np.mean(
        [solve(t.support.hessian, t.query.gradient(phi)) for t, phi in zip(tasks, adapted, strict=True)], axis=0
    )


def mean_query_loss(adapted: Sequence[Vector], tasks: Sequence[LinearTask]) -> float:
    return float(np.mean([t.query.loss(phi) for t, phi in zip(tasks, adapted, strict=True)]))
