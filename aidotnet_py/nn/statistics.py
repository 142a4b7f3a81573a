"""What the BatchNorm layers of a pass compute of the batch in hand, layer by layer, for another pass to take."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from contextvars import ContextVar, Token
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Self, TypeAlias

import numpy as np

from aidotnet_py.backends import Array

__all__ = ["LayerBatch", "PassStatistics", "Statistics"]

Statistics: TypeAlias = Literal["batch", "support"]


@dataclass(frozen=True)
class LayerBatch:
    """What one layer normalised in one pass.

    Attributes
    ----------
    layer : str
        Its name, such as ``1_batchnorm``.
    prefix : str or None
        What the names of its parameters begin with; None: its scale is no parameter of the network.
    x : array, shape (n, …, channels)
        Its input.
    statistics : "batch" or "support"
        Whose statistics a learner normalises query sets by; see `aidotnet_py.nn.BatchNorm`.
    """

    layer: str
    prefix: str | None
    x: Array
    statistics: Statistics

    def moments(self) -> tuple[Array, Array]:
        """Mean and variance (channels,) over all axes but the last."""
        axes = tuple(range(len(self.x.shape) - 1))
        mean = np.mean(self.x, axis=axes)
        return mean, np.mean((self.x - mean) ** 2, axis=axes)


class PassStatistics:
    """Collects the statistics of the passes that run inside its ``with`` block.

    A layer is known by the array that it was given as scale, whatever layers it lies in.

    Parameters
    ----------
    parameters : mapping of str to array
        What the network is applied to.

    Attributes
    ----------
    batches : list of LayerBatch
        One each time that a layer normalised by the batch in hand.

    Examples
    --------
    >>> import numpy as np
    >>> from aidotnet_py.nn import BatchNorm
    >>> from aidotnet_py.nn.statistics import PassStatistics
    >>> parameters, _ = BatchNorm().initialize(np.random.default_rng(0), (1,))
    >>> with PassStatistics(parameters) as statistics:
    ...     y = BatchNorm().apply(parameters, np.array([[1.0], [3.0]]))
    >>> statistics.named()
    {'mean': array([2.]), 'variance': array([1.])}
    >>> BatchNorm().apply({**parameters, **statistics.named()}, np.array([[3.0]])).round(3)
    array([[1.]])
    """

    def __init__(self, parameters: Mapping[str, Array]) -> None:
        # By identity; the mapping keeps them alive, so that no other array can take one over.
        self._parameters = parameters
        self._names = {id(value): name for name, value in parameters.items()}
        self.batches: list[LayerBatch] = []
        self._token: Token[PassStatistics | None] | None = None

    def __enter__(self) -> Self:
        self._token = _collector.set(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._token is not None
        _collector.reset(self._token)

    @staticmethod
    def current() -> PassStatistics | None:
        """The innermost that collects."""
        return _collector.get()

    def prefix_of(self, scale: Array) -> str | None:
        """What the parameter names of the layer with this scale begin with; None: it is no parameter."""
        name = self._names.get(id(scale), "")
        return name.removesuffix("scale") if name.endswith("scale") else None

    @property
    def layers(self) -> list[str]:
        """The layers that normalised by the batch in hand, each once."""
        return list(dict.fromkeys(batch.layer for batch in self.batches))

    def named(self, only: Statistics | None = None) -> dict[str, Array]:
        """Means and variances by the names under which `BatchNorm` takes them; in the trace of the pass, if any.

        With ``only``, of the layers of that kind. Those of `unnamed` layers are not among them.
        """
        named: dict[str, Array] = {}
        for batch in self.batches:
            if only in (None, batch.statistics) and batch.layer not in self.unnamed:
                named[f"{batch.prefix}mean"], named[f"{batch.prefix}variance"] = batch.moments()
        return named

    @property
    def unnamed(self) -> list[str]:
        """The layers whose scale is no parameter, or that normalised several batches: no one pair has their name."""
        times = Counter(batch.layer for batch in self.batches)
        return list(dict.fromkeys(b.layer for b in self.batches if b.prefix is None or times[b.layer] > 1))


_collector: ContextVar[PassStatistics | None] = ContextVar("_collector", default=None)
