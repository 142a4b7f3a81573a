"""How often each class comes into tasks: three ways to choose classes, by name, for every loader."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from aidotnet_py.arguments import Choice
from aidotnet_py.data.draws import draw_classes, draw_least_used, draw_proportionally
from aidotnet_py.data.random_stream import CountingStream, RandomStream

__all__ = ["WEIGHTING", "WEIGHTINGS", "Weighting", "WeightingName"]

WeightingName: TypeAlias = Literal["uniform", "balanced", "proportional"]


@dataclass(frozen=True)
class Weighting:
    """A choice of classes: the stream that it needs, by seed and classes, and a draw of ``ways`` different classes.

    Examples
    --------
    >>> import numpy as np
    >>> from aidotnet_py.data.weightings import WEIGHTINGS
    >>> balanced = WEIGHTINGS["balanced"]
    >>> stream, examples = balanced.stream(0, 4), np.array([9, 9, 9, 9])
    >>> sorted(c for _ in range(2) for c in balanced.choose(stream, examples, 2).tolist())
    [0, 1, 2, 3]
    """

    stream: Callable[[int | None, int], RandomStream]
    choose: Callable[[RandomStream, NDArray[np.int64], int], NDArray[np.intp]]


WEIGHTINGS: Mapping[str, Weighting] = MappingProxyType(
    {
        "uniform": Weighting(
            lambda seed, classes: RandomStream(seed),
            lambda stream, examples, ways: draw_classes(stream.generator, len(examples), ways),
        ),
        "balanced": Weighting(
            CountingStream,
            lambda stream, examples, ways: draw_least_used(stream.generator, stream.memory["counts"], ways),
        ),
        "proportional": Weighting(
            lambda seed, classes: RandomStream(seed),
            lambda stream, examples, ways: draw_proportionally(stream.generator, examples, ways),
        ),
    }
)
WEIGHTING = Choice(*WEIGHTINGS)
