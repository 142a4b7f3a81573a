"""The means and variances that a model's BatchNorm layers normalise by: their checks, and their names in files."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aidotnet_py.caller import level_outside
from aidotnet_py.exceptions import ArgumentException

__all__ = ["check_statistics", "pop_statistics", "statistics_for_file", "warn_of_few_examples"]

_PREFIX = "statistics: "

# On digits, the loss of accuracy is 30 points for groups of 2 normalised together, 20 of 3, 10 of 5 and 4 of 10.
_FEW_EXAMPLES = 5


def check_statistics(
    named: Mapping[str, NDArray[Any]], shapes: Mapping[str, tuple[int, ...]], dtype: np.dtype[Any], source: str
) -> None:
    """Raise ArgumentException unless statistics are means and variances of the layers with parameters of these shapes.

    ``source`` is what the message calls them.
    """
    for name, value in named.items():
        prefix = name.removesuffix("mean").removesuffix("variance")
        shape = shapes.get(f"{prefix}scale")
        pair = f"{prefix}mean" in named and f"{prefix}variance" in named
        sound = np.isfinite(value).all() and (name.endswith("mean") or (value >= 0).all())
        # Variances beyond half precision belong to numbers within it.
        dtypes = (dtype,) if name.endswith("mean") else (dtype, np.result_type(dtype, np.float32))
        if not pair or value.dtype not in dtypes or value.shape != shape or not sound:
            layer = "no such layer" if shape is None else f"{dtype}{shape}"
            raise ArgumentException(
                f"{source} must hold means and variances of the model's layers in pairs of finite numbers, "
                f"variances of at least 0, got {value.dtype}{value.shape} for {name!r}; the model has {layer}"
            )


def statistics_for_file(statistics: Mapping[str, NDArray[Any]], others: Iterable[str] = ()) -> dict[str, NDArray[Any]]:
    """Return statistics by their names in files; refuse names of other arrays that would be taken for these."""
    for name in others:
        if name.startswith(_PREFIX):
            raise ArgumentException(f"names of parameters must not begin with {_PREFIX!r} in a file, got {name!r:.80}")
    return {_PREFIX + name: value for name, value in statistics.items()}


def pop_statistics(arrays: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Take the statistics out of the arrays of a file; return them by their own names."""
    names = [name for name in arrays if name.startswith(_PREFIX)]
    return {name.removeprefix(_PREFIX): arrays.pop(name) for name in names}


def warn_of_few_examples(examples: int, layers: Sequence[str]) -> None:
    """Warn if layers normalise by the statistics of few examples."""
    if examples >= _FEW_EXAMPLES:
        return
    more = f" and {len(layers) - 3} more" if len(layers) > 3 else ""
    warnings.warn(
        f"input has {examples} example{'s' if examples > 1 else ''}, by whose statistics {', '.join(layers[:3])}{more} "
        "normalise: the outputs for one depend on the others. A model adapted to a task (Adapt) or with_statistics_of "
        "normalises by given examples, GroupNorm (norm='group') by none",
        UserWarning,
        stacklevel=level_outside(),
    )
