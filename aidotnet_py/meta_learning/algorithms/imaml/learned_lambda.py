"""A learned λ: the meta-optimizer moves its logarithm, so that λ stays positive."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from aidotnet_py.backends import Array, Backend, backend_of
from aidotnet_py.exceptions import InvalidOperationException
from aidotnet_py.meta_learning.algorithms.imaml.options import iMAMLOptions
from aidotnet_py.meta_learning.learner.learned import Learned

__all__ = ["LOG_LAMBDA", "lambda_of", "learned_lambda", "slopes_of_log_lambda"]

LOG_LAMBDA = "log λ"


def learned_lambda(options: iMAMLOptions[Any, Any, Any]) -> Sequence[Learned]:
    """Return log λ, one for all parameters or one for each; nothing if λ is not learned."""
    if options.LearnedLambda is None:
        return ()
    size = 1 if options.LearnedLambda == "scalar" else None
    return (Learned(LOG_LAMBDA, math.log(float(options.LambdaRegularization)), size, check=_exponential),)


def lambda_of(options: iMAMLOptions[Any, Any, Any], logarithms: Array, backend: Backend) -> float | Array:
    """Return the learned λ, a number or an array (P,)."""
    values = _exponential(logarithms)
    return float(backend.to_numpy(values)[0]) if options.LearnedLambda == "scalar" else values


def slopes_of_log_lambda(options: iMAMLOptions[Any, Any, Any], backend: Backend, v: Array, moved: Array) -> Array:
    """Return dL_query/d(log λ) of each task, (tasks, P) or (tasks, 1): v ∘ (φ − θ), or its sum."""
    if options.LearnedLambda == "per-parameter":
        return moved * v
    return backend.reshape(backend.vecdot(v, moved), (v.shape[0], 1))


def _exponential(logarithms: Array) -> Array:
    """Return λ; InvalidOperationException when the dtype cannot hold λ or 1/λ as a positive number."""
    backend = backend_of(logarithms)
    assert backend is not None
    with backend.errors_ignored():
        values = backend.elementwise("exp")(logarithms)
    host = backend.to_numpy(values)
    # 1/λ, the weight of the proximal term, is infinite for a subnormal λ.
    if not (np.isfinite(host).all() and (host >= np.finfo(host.dtype).smallest_normal).all()):
        raise InvalidOperationException(
            f"the learned λ must be a positive number of its dtype, got {host.min():.3g}…{host.max():.3g}; nothing was "
            "changed; lower the rate of the meta-optimizer"
        )
    return values
