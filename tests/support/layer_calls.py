"""Initial parameters and outputs of layers, on any backend."""

from __future__ import annotations

import numpy as np

from aidotnet_py.autodiff import trace

__all__ = ["applied", "rng", "started"]


def rng(seed=5):
    return np.random.default_rng(seed)


def started(layer, shape):
    """A layer's initial parameters, with the zeros and ones among them stirred so that they matter."""
    parameters, output = layer.initialize(rng(), shape)
    return {k: v + 0.1 * rng(9).standard_normal(v.shape) for k, v in parameters.items()}, output


def applied(backend, layer, parameters, x):
    """The layer's outputs on a backend, on the host."""
    own = {name: backend.asarray(value) for name, value in parameters.items()}
    inputs = backend.asarray(x)
    return np.array(backend.to_numpy(trace(layer.apply, own, inputs)(own, inputs)))
