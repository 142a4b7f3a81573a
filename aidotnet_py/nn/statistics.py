"""What the BatchNorm layers of a pass compute of the batch in hand, layer by layer, for another pass to take."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from contextvars import ContextVar, Token
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import numpy as np

from aidotnet_py.backends import Array

__all__ = ["LayerBatch", "PassStatistics"]


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
    of_support : bool
        Whether query sets are normalised by the statistics of the support sets in training too.
    """

    layer: str
    prefix: str | None
    x: Array
    of_support: bool

    def statistics(self) -> tuple[Array, Array]:
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

    def named(self, *, of_support: bool | None = None) -> dict[str, Array]:
        """Means and variances by the names under which `BatchNorm` takes them; in the trace of the pass, if any.

        With ``of_support``, those of one kind of layer alone. A layer whose scale is no parameter has no name, and one
        that normalised several batches no one pair to hand over: both are left out.
        """
        times = Counter(batch.layer for batch in self.batches)
        named: dict[str, Array] = {}
        for batch in self.batches:
            wanted = of_support is None or batch.of_support is of_support
            if wanted and batch.prefix is not None and times[batch.layer] == 1:
                named[f"{batch.prefix}mean"], named[f"{batch.prefix}variance"] = batch.statistics()
        return named


_collector: ContextVar[PassStatistics | None] = ContextVar("_collector", default=None)
