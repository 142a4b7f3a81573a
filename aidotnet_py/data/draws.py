"""Draws without replacement: the classes of an episode, and the examples of each class."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from aidotnet_py.arguments import COUNT
from aidotnet_py.arguments import Whole as WholeNumbers
from aidotnet_py.exceptions import ArgumentException, ArgumentOutOfRangeException

__all__ = [
    "WAYS",
    "ChooseClasses",
    "check_classes",
    "draw_classes",
    "draw_least_used",
    "draw_proportionally",
    "draw_rows",
    "inclusion_probabilities",
    "whole_weights",
]

Whole: TypeAlias = NDArray[np.int64]
Indices: TypeAlias = NDArray[np.intp]
# Chooses the classes of the next task, by their indices.
ChooseClasses: TypeAlias = Callable[[], Indices]

# A task with one class has nothing to tell apart.
WAYS = WholeNumbers(2, COUNT.most)

# A key for each of more examples would cost more than a draw by class.
_MOST_KEYS = 1024


def draw_classes(generator: np.random.Generator, classes: int, ways: int) -> Indices:
    """Draw ``ways`` different classes in random order, each with probability ways / classes."""
    return generator.choice(classes, ways, replace=False)


def draw_least_used(generator: np.random.Generator, uses: Whole, ways: int) -> Indices:
    """Draw the ``ways`` classes with the fewest uses, ties broken at random, in random order, and count their uses.

    Counts that differ by at most one still do so afterwards.

    Examples
    --------
    >>> import numpy as np
    >>> from aidotnet_py.data.draws import draw_least_used
    >>> uses = np.array([1, 0, 1, 0])
    >>> sorted(draw_least_used(np.random.default_rng(0), uses, ways=2).tolist()), uses.tolist()
    ([1, 3], [1, 1, 1, 1])
    """
    order = np.lexsort((generator.random(len(uses)), uses))
    chosen: Indices = generator.permutation(order[:ways])
    uses[chosen] += 1
    return chosen


def inclusion_probabilities(weights: Whole, ways: int) -> NDArray[np.float64]:
    """Return the probability of each class to be among those of `draw_proportionally`: min(1, t·w), of sum ``ways``.

    If fewer than ``ways`` weights are positive, these classes are certain, and the others equally probable.

    Examples
    --------
    >>> import numpy as np
    >>> from aidotnet_py.data.draws import inclusion_probabilities
    >>> inclusion_probabilities(np.array([10, 3, 2, 1]), ways=2).tolist()
    [1.0, 0.5, 0.3333333333333333, 0.16666666666666666]
    """
    certain, others, left = _split_certain(weights, ways)
    probabilities = left * others / max(int(others.sum()), 1)
    probabilities[certain] = 1.0
    return probabilities


def draw_proportionally(generator: np.random.Generator, weights: Whole, ways: int) -> Indices:
    """Draw ``ways`` different classes in random order with exactly the probabilities `inclusion_probabilities`.

    Systematic sampling: classes in random order take up lengths left·w on a line, and ``left`` points at distances
    Σw, from a random start, pick those that they fall on. No length exceeds Σw, so no class is picked twice.
    """
    certain, others, left = _split_certain(weights, ways)
    picked: Indices = np.empty(0, np.intp)
    if left:
        order = generator.permutation(len(others))
        ends, total = np.cumsum(left * others[order]), int(others.sum())
        points = generator.integers(total) + total * np.arange(left)
        picked = order[np.searchsorted(ends, points, side="right")]
    return generator.permutation(np.concatenate([certain, picked]))


def _split_certain(weights: Whole, ways: int) -> tuple[Indices, Whole, int]:
    """Return the classes with probability 1, the weights of the others (0 for the certain), and the ways left."""
    others = weights.copy()
    descending = np.argsort(-weights, kind="stable")
    total, taken = int(weights.sum()), 0
    while taken < ways and 0 < total <= (ways - taken) * int(weights[descending[taken]]):
        total -= int(weights[descending[taken]])
        taken += 1
    certain = descending[:taken]
    if total == 0:
        others[:] = 1
    others[certain] = 0
    return certain, others, ways - taken


def whole_weights(values: NDArray[np.float64], ways: int) -> Whole:
    """Return integers in proportion to non-negative values, as fine as sums in `draw_proportionally` allow."""
    largest = float(values.max())
    if largest == 0.0:
        return np.ones(len(values), np.int64)
    finest = 2**62 // (ways * len(values))
    return np.round(values / largest * min(finest, 2**52)).astype(np.int64)


def draw_rows(
    generator: np.random.Generator, starts: Whole, counts: Whole, most: int, examples: int
) -> NDArray[np.int64]:
    """Draw different examples of each class in random order, (classes, examples), as rows of the data.

    Parameters
    ----------
    generator : Generator
        Where the draws come from.
    starts, counts : array of int64, (classes,)
        The first row of each drawn class, and the number of its rows.
    most : int
        The largest number of rows of any class in the data.
    examples : int
        How many to draw of each class; at most the smallest count.
    """
    if most > _MOST_KEYS:
        picks = np.stack([generator.choice(int(count), examples, replace=False) for count in counts])
        return starts[:, np.newaxis] + picks
    # Rows with the smallest of independent random keys are a uniform draw without replacement, here for all classes at
    # once. A class with fewer rows has keys above 1 in the remaining places.
    keys = generator.random((len(counts), most))
    keys[np.arange(most) >= counts[:, np.newaxis]] = 2.0
    rows: NDArray[np.int64] = starts[:, np.newaxis] + np.argsort(keys, axis=1)[:, :examples]
    return rows


def check_classes(
    counts: Mapping[Any, int],
    ways: int,
    shots: int,
    queries: int,
    *,
    turns: int = 1,
    names: tuple[str, str, str] = ("NWay", "KShot", "QueryShots"),
) -> None:
    """Check, before any example is read, that the classes have enough examples for an episode.

    Raises
    ------
    ArgumentOutOfRangeException
        There are fewer than ``ways`` classes, of which each counts ``turns`` times.
    ArgumentException
        A class has fewer than ``shots + queries`` examples; the message names it.
    """
    classes = len(counts) * turns
    if ways > classes:
        only = ", ".join(map(repr, counts)) or "none"
        hint = f"; tasks need at least 2 classes, the data have {only}" if classes < 2 else ""
        raise ArgumentOutOfRangeException(
            f"{names[0]} must be at most {classes}, the number of classes, got {ways}{hint}"
        )
    needed = shots + queries
    few = [f"{name!r} ({count})" for name, count in counts.items() if count < needed]
    if few:
        more = f" and {len(few) - 5} more" if len(few) > 5 else ""
        raise ArgumentException(
            f"{names[1]} + {names[2]} must be at most the examples of a class, got {shots} + {queries} = {needed}; "
            f"classes with fewer examples are {', '.join(few[:5])}{more}"
        )
