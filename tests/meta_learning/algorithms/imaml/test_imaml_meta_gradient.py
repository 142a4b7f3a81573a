"""The meta-gradient of nonlinear models: against dense curvature, and against the derivative of the whole procedure."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from small_learners import meta_gradient
from tanh_network import TINY, TanhNetwork, Values, batch_of

from aidotnet_py import CrossEntropyLoss, NeuralNetworkModel, iMAMLAlgorithm, iMAMLOptions
from aidotnet_py.backends import Backend, get_backend
from aidotnet_py.nn import Conv2D, Dense, Flatten, Sequential, Tanh

REGRESSION, CLASSIFICATION = TanhNetwork(), TanhNetwork(outputs=3, classify=True)


@pytest.mark.parametrize("kind", ["hessian", "gauss-newton"])
@pytest.mark.parametrize("network", [REGRESSION, CLASSIFICATION], ids=["mse", "cross-entropy"])
def test_curvature_is_that_of_dense_matrices(backend: Backend, network: TanhNetwork, kind: str) -> None:
    theta, sets, lam, steps, rate = network.start(), network.sets(2), 0.2, 5, 0.1
    curvature = network.hessian if kind == "hessian" else network.gauss_newton
    expected = []
    for x, y, query_x, query_y in sets:
        phi = theta
        for _ in range(steps):
            phi = phi - rate * network.gradient(phi, x, y)
        matrix = np.eye(len(theta)) + lam * curvature(phi, x, y)
        assert np.linalg.eigvalsh(matrix)[0] > 0
        expected.append(np.linalg.solve(matrix, network.gradient(phi, query_x, query_y)))
    found = meta_gradient(
        network.model(backend, theta),
        batch_of(backend, sets),
        AdaptationSteps=steps,
        InnerLearningRate=rate,
        LambdaRegularization=lam,
        Curvature=kind,
    )
    np.testing.assert_allclose(found, np.mean(expected, axis=0), rtol=1e-10, atol=1e-12)


def converged(network: TanhNetwork, theta: Values, x: Values, y: Values, strength: float) -> Values:
    """φ*(θ), where the gradient of L_support(φ) + (strength/2)‖φ − θ‖² is zero, by descent."""
    phi = theta
    for _ in range(400):
        phi = phi - 0.1 * (network.gradient(phi, x, y) + strength * (phi - theta))
    return phi


@pytest.mark.costly
@pytest.mark.numpy_first
@pytest.mark.parametrize("strength", [1.5, 6.0])
@pytest.mark.parametrize("network", [REGRESSION, CLASSIFICATION], ids=["mse", "cross-entropy"])
def test_with_the_proximal_term_it_is_the_derivative_of_the_whole_procedure(
    backend: Backend, network: TanhNetwork, strength: float
) -> None:
    theta, sets = network.start(), network.sets(2)

    optima = [converged(network, theta, x, y, strength) for x, y, *_ in sets]
    curvatures = [network.hessian(p, s[0], s[1]) for p, s in zip(optima, sets, strict=True)]

    def procedure(start: Values) -> Any:
        """θ ↦ mean over tasks of L_query(φ*(θ)), with a step of Newton's method from φ* at the θ of this test.

        It carries a complex step in θ along to first order, which is all that a complex step needs.
        """
        losses = []
        for optimum, curvature, (x, y, query_x, query_y) in zip(optima, curvatures, sets, strict=True):
            slope = network.gradient(optimum, x, y) + strength * (optimum - start)
            phi = optimum - np.linalg.solve(curvature + strength * np.eye(len(theta)), slope)
            losses.append(network.loss(phi, query_x, query_y))
        return np.mean(losses)

    exact = np.array([procedure(theta + 1j * TINY * e).imag / TINY for e in np.eye(len(theta))])
    options = iMAMLOptions.FromPaper(network.model(backend, theta), Lambda=strength)
    found = meta_gradient(
        network.model(backend, theta),
        batch_of(backend, sets),
        AdaptationSteps=400,
        InnerLearningRate=0.1,
        LambdaRegularization=options.LambdaRegularization,
        InnerObjective=options.InnerObjective,
    )
    assert np.linalg.norm(exact) > 1e-2
    assert np.linalg.norm(found - exact) <= 1e-9 * np.linalg.norm(exact)


def test_the_error_of_the_meta_gradient_falls_with_the_inner_steps() -> None:
    backend, network = get_backend("numpy"), REGRESSION
    theta, sets = network.start(), network.sets(2)
    found = [
        meta_gradient(
            network.model(backend, theta),
            batch_of(backend, sets),
            AdaptationSteps=steps,
            InnerLearningRate=0.1,
            LambdaRegularization=0.125,
            InnerObjective="proximal",
        )
        for steps in (4, 8, 16, 100)
    ]
    errors = [np.linalg.norm(g - found[-1]) for g in found[:-1]]
    assert errors[0] > 5 * errors[1] > 25 * errors[2] > 0


@pytest.mark.numpy_first
def test_a_convolutional_network_too(backend: Backend) -> None:
    network = Sequential(Conv2D(2, 3, padding="valid"), Tanh(), Flatten(), Dense(2))
    generator = np.random.default_rng(0)
    sets: list[tuple[Values, ...]] = [
        (
            generator.standard_normal((4, 4, 4, 1)),
            np.array([0, 1, 0, 1]),
            generator.standard_normal((2, 4, 4, 1)),
            np.array([0, 1]),
        )
        for _ in range(2)
    ]
    batch = batch_of(backend, sets)
    options = {
        "AdaptationSteps": 80,
        "InnerLearningRate": 0.1,
        "LambdaRegularization": 0.125,
        "InnerObjective": "proximal",
    }

    def model() -> Any:
        return NeuralNetworkModel(
            network, input_shape=(4, 4, 1), loss=CrossEntropyLoss(), dtype=np.float64, backend=backend, seed=3
        )

    found = meta_gradient(model(), batch, **options)
    moved = model()
    learner = iMAMLAlgorithm(iMAMLOptions(moved, **options))
    theta, h = backend.to_numpy(model().GetParameters()), 1e-5

    def procedure(point: Values) -> float:
        moved.SetParameters(backend.asarray(point))
        return float(learner.Evaluate(batch))

    for direction in generator.standard_normal((2, len(theta))):
        slope = (procedure(theta + h * direction) - procedure(theta - h * direction)) / (2 * h)
        assert abs(slope - found @ direction) <= 1e-6 * np.linalg.norm(found) * np.linalg.norm(direction)
        assert abs(slope) > 1e-3 * np.linalg.norm(found)
