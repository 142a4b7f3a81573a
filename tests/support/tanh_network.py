"""A network with one tanh layer written out in NumPy: values, gradients and curvature without any autodiff.

Everything works on complex numbers too, so that derivatives of any of it can be had to the last digit by a complex
step: f′(x) = Im f(x + ih)/h, h tiny.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aidotnet_py import CrossEntropyLoss, FunctionModel, MeanSquaredErrorLoss, MetaLearningTask, TaskBatch
from aidotnet_py.backends import Backend

Values = NDArray[Any]

TINY = 1e-40


def apply(p: Any, x: Any) -> Any:
    """The network as the engine traces it."""
    return np.tanh(x @ p["w1"] + p["b1"]) @ p["w2"] + p["b2"]


@dataclass(frozen=True)
class TanhNetwork:
    """φ is w1 (inputs, hidden), b1, w2 (hidden, outputs), b2, raveled in this order."""

    inputs: int = 2
    hidden: int = 3
    outputs: int = 1
    classify: bool = False

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {
            "w1": (self.inputs, self.hidden),
            "b1": (self.hidden,),
            "w2": (self.hidden, self.outputs),
            "b2": (self.outputs,),
        }

    def parts(self, phi: Values) -> dict[str, Values]:
        ends = np.cumsum([np.prod(s) for s in self.shapes.values()])[:-1]
        return {n: a.reshape(s) for (n, s), a in zip(self.shapes.items(), np.split(phi, ends), strict=True)}

    def start(self, seed: int = 1) -> Values:
        size = sum(int(np.prod(s)) for s in self.shapes.values())
        return 0.7 * np.random.default_rng(seed).standard_normal(size)

    def predictions(self, phi: Values, x: Values) -> Values:
        return apply(self.parts(phi), x)

    def jacobian(self, phi: Values, x: Values) -> Values:
        """(n, outputs, P)."""
        p = self.parts(phi)
        z = np.tanh(x @ p["w1"] + p["b1"])
        n, o = len(x), self.outputs
        through = (1 - z**2)[:, None, :] * p["w2"].T
        eye = np.eye(o)
        blocks = (
            np.einsum("ni,noh->noih", x, through).reshape(n, o, -1),
            through,
            np.einsum("nh,ok->nohk", z, eye).reshape(n, o, -1),
            np.broadcast_to(eye, (n, o, o)),
        )
        return np.concatenate(blocks, axis=2)

    def _softmax(self, logits: Values) -> Values:
        powers = np.exp(logits - logits.real.max(axis=1, keepdims=True))
        return powers / powers.sum(axis=1, keepdims=True)

    def loss(self, phi: Values, x: Values, y: Values) -> Any:
        out = self.predictions(phi, x)
        if self.classify:
            return -np.mean(np.log(self._softmax(out)[np.arange(len(x)), y]))
        return np.mean((out - y) ** 2)

    def gradient(self, phi: Values, x: Values, y: Values) -> Values:
        out = self.predictions(phi, x)
        wrong = (self._softmax(out) - np.eye(self.outputs)[y]) if self.classify else 2 * (out - y) / self.outputs
        slope = wrong / len(x)
        return np.einsum("no,nop->p", slope, self.jacobian(phi, x))

    def hessian(self, phi: Values, x: Values, y: Values) -> Values:
        return np.array([self.gradient(phi + 1j * TINY * e, x, y).imag / TINY for e in np.eye(len(phi))])

    def gauss_newton(self, phi: Values, x: Values, y: Values) -> Values:
        """Σ JᵀH_ℓJ, H_ℓ the Hessian of the loss in the predictions."""
        jacobian, out = self.jacobian(phi, x), self.predictions(phi, x)
        if self.classify:
            s = self._softmax(out)
            inner = (np.einsum("no,ok->nok", s, np.eye(self.outputs)) - np.einsum("no,nk->nok", s, s)) / len(x)
        else:
            inner = np.broadcast_to(2 * np.eye(self.outputs) / out.size, (len(x), self.outputs, self.outputs))
        return np.einsum("nop,nok,nkq->pq", jacobian, inner, jacobian)

    def model(self, backend: Backend, phi: Values, dtype: Any = np.float64) -> FunctionModel[Any, Any, Any]:
        loss = CrossEntropyLoss() if self.classify else MeanSquaredErrorLoss()
        return FunctionModel(apply, self.parts(phi), loss, dtype=dtype, backend=backend)

    def sets(self, count: int, seed: int = 0, support: int = 6, query: int = 4) -> list[tuple[Values, ...]]:
        """(support x, support y, query x, query y) of each task."""
        generator = np.random.default_rng(seed)
        found = []
        for _ in range(count):
            true = self.start(int(generator.integers(1000)))
            x = generator.uniform(-2, 2, (support + query, self.inputs))
            y = 2 * self.predictions(true, x) + 0.1 * generator.standard_normal((len(x), self.outputs))
            if self.classify:
                y = np.argmax(y, axis=1)
            found.append((x[:support], y[:support], x[support:], y[support:]))
        return found


def batch_of(backend: Backend, sets: list[tuple[Values, ...]], dtype: Any = np.float64) -> TaskBatch[Any, Any, Any]:
    """The sets as tasks; labels stay integers."""

    def move(values: Values) -> Any:
        return backend.asarray(values, dtype if values.dtype.kind == "f" else values.dtype)

    names = ("SupportSetX", "SupportSetY", "QuerySetX", "QuerySetY")
    return TaskBatch(
        [
            MetaLearningTask(**dict(zip(names, map(move, four), strict=True)), Name=f"task {t}")
            for t, four in enumerate(sets)
        ]
    )
