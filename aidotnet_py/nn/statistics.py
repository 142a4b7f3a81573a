"""The batch statistics that the BatchNorm layers of one pass compute, collected for another pass."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from contextvars import ContextVar, Token
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Self, TypeAlias

import numpy as np

from aidotnet_py.backends import Array

__all__ = ["LayerBatch", "PassStatistics", "Statistics", "widened"]

Statistics: TypeAlias = Literal["batch", "support"]


def widened(x: Array) -> Array:
    """Return numbers in single precision at least: squares of half precision's overflow where their mean does not."""
    return x.astype(np.result_type(x.dtype, np.float32))


@dataclass(frozen=True)
class LayerBatch:
    """The batch that one layer normalised in one pass.

    Attributes
    ----------
    layer : str
        The name of the layer, such as ``1_batchnorm``.
    prefix : str or None
        The prefix of its parameter names; None: its scale is no parameter of that name.
    x : array, shape (n, …, channels)
        The input of the layer.
    statistics : "batch" or "support"
        The set whose statistics normalise query sets; see `aidotnet_py.nn.BatchNorm`.
    """

    layer: str
    prefix: str | None
    x: Array
    statistics: Statistics

    def moments(self) -> tuple[Array, Array]:
        """Return mean and variance (channels,) over all axes but the last; half precision's variance in single."""
        axes, x = tuple(range(len(self.x.shape) - 1)), widened(self.x)
        mean = np.mean(x, axis=axes)
        return mean.astype(self.x.dtype), np.mean((x - mean) ** 2, axis=axes)


class PassStatistics:
    """A collector of the statistics of the passes in its ``with`` block.

    It identifies a layer by the array of its scale, at any depth of nesting.

    Parameters
    ----------
    parameters : mapping of str to array
        The parameters that the network is applied to.

    Attributes
    ----------
    batches : list of LayerBatch
        One entry for each time that a layer normalised by batch statistics.

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
        # By identity; the mapping keeps the arrays alive, so that their ids are not reused.
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
        """Return the innermost active collector, if any."""
        return _collector.get()

    def prefix_of(self, scale: Array) -> str | None:
        """Return the prefix of the parameter names of the layer with this scale; None: it is no parameter of that name.

        Of ``norm_scale``, a layer would not get ``norm_mean`` as its mean.
        """
        name = self._names.get(id(scale), "")
        return name.removesuffix("scale") if name.split(".")[-1] == "scale" else None

    @property
    def layers(self) -> list[str]:
        """The layers that normalised by batch statistics, each once."""
        return list(dict.fromkeys(batch.layer for batch in self.batches))

    def named(self, only: Statistics | None = None) -> dict[str, Array]:
        """Return means and variances by the names that `BatchNorm` reads; in the trace of the pass, if any.

        ``only`` restricts them to layers of that kind. `unnamed` layers are left out.
        """
        named: dict[str, Array] = {}
        for batch in self.batches:
            if only in (None, batch.statistics) and batch.layer not in self.unnamed:
                named[f"{batch.prefix}mean"], named[f"{batch.prefix}variance"] = batch.moments()
        return named

    @property
    def unnamed(self) -> list[str]:
        """The layers whose scale has no such name, or that normalised several batches: their names are ambiguous."""
        times = Counter(batch.layer for batch in self.batches)
        return list(dict.fromkeys(b.layer for b in self.batches if b.prefix is None or times[b.layer] > 1))


_collector: ContextVar[PassStatistics | None] = ContextVar("_collector", default=None)
