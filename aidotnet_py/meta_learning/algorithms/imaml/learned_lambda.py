"""A λ that is learned: its logarithm, so that it stays positive whatever the meta-optimizer does."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from aidotnet_py.backends import Array, Backend
from aidotnet_py.exceptions import InvalidOperationException

__all__ = ["LambdaKind", "LogLambda"]

LambdaKind = Literal["scalar", "per-parameter"]


class LogLambda:
    """log λ, one for all parameters or one for each.

    Parameters
    ----------
    kind : "scalar" or "per-parameter"
        Of which.
    backend : Backend
        Where it is.
    logarithms : array, shape (1,) or (P,)
        log λ.

    Raises
    ------
    InvalidOperationException
        When the dtype cannot hold λ or 1/λ as a positive number.
    """

    def __init__(self, kind: LambdaKind, backend: Backend, logarithms: Array) -> None:
        self.kind: LambdaKind = kind
        self.logarithms = logarithms
        self._backend = backend
        with backend.errors_ignored():
            self._values = backend.elementwise("exp")(logarithms)
        host = backend.to_numpy(self._values)
        # Of subnormal numbers the inverse, which is the weight of the proximal term, is infinite.
        if not (np.isfinite(host).all() and (host >= np.finfo(host.dtype).smallest_normal).all()):
            raise InvalidOperationException(
                f"the learned λ has gone to {host.min():.3g}…{host.max():.3g}; a smaller rate of the meta-optimizer is "
                "wanted; nothing was changed"
            )
        self._number = float(host[0])

    @classmethod
    def beginning(cls, kind: LambdaKind, backend: Backend, lam: float, like: Array) -> LogLambda:
        """The same λ everywhere, for parameters like these."""
        logarithms = backend.empty(tuple(like.shape) if kind == "per-parameter" else (1,), backend.dtype_of(like))
        backend.copyto(logarithms, math.log(lam))
        return cls(kind, backend, logarithms)

    @property
    def value(self) -> float | Array:
        """λ: a number, or an array (P,)."""
        return self._number if self.kind == "scalar" else self._values

    def slopes(self, v: Array, moved: Array) -> Array:
        """dL_query/d(log λ) of each task, (tasks, 1) or (tasks, P): v ∘ (φ − θ), or its sum."""
        if self.kind == "per-parameter":
            return moved * v
        return self._backend.reshape(self._backend.vecdot(v, moved), (v.shape[0], 1))
