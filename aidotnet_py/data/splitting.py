"""Divide the classes of a loader into disjoint parts, each a loader."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Hashable, Sequence
from typing import Any, Self, cast

import numpy as np
from numpy.typing import NDArray

from aidotnet_py.arguments import ANY_WHOLE, SEED, Number, Whole
from aidotnet_py.data.episodic import EpisodicLoader
from aidotnet_py.data.lists import as_list
from aidotnet_py.data.random_stream import RandomStream
from aidotnet_py.exceptions import ArgumentException, ArgumentOutOfRangeException
from aidotnet_py.generator_state import new_generator
from aidotnet_py.locks import Lock
from aidotnet_py.type_parameters import T

__all__ = ["SplitLoader", "part_sizes"]

_SHARE = Number(above=0, below=1)
# Shares are typed as decimals, or computed in float32, and their sum is rounded.
_ROUNDING = 1e-6


class SplitLoader(EpisodicLoader[T]):
    """A loader whose classes can be divided; a subclass says what they are and keeps some of them."""

    def split(self, *parts: float | Sequence[Any], seed: int = 0) -> tuple[Self, ...]:
        """Divide the classes into disjoint parts, and return a loader of each.

        Parts are drawn at random, by their sizes, or named, by their labels. A random division depends on the sorted
        labels and on ``seed`` alone, so that every run, machine and backend has the same. Part p also gets its random
        stream from ``seed`` and p. The examples are shared, not copied, and this loader stays as it is.

        Parameters
        ----------
        *parts : float, int or sequence of labels
            Shares of the classes, of sum 1 and rounded to whole classes by the largest remainder; or whole numbers of
            classes, of sum at most `AvailableClasses`; or, for a division that others published, labels.
        seed : int
            The seed of the division and of the parts' streams.

        Returns
        -------
        tuple of loaders
            One for each part, of the type of this loader.

        Raises
        ------
        ArgumentOutOfRangeException
            A number is out of its range, all together are too much, or a part has too few classes for a task.
        ArgumentException
            There is no part, a part is of another kind, the shares do not sum to 1, or a label is unknown or comes
            twice.
        """
        labels = self.labels
        generator = new_generator(SEED.check("seed", seed))
        given: list[Any] = [as_list(part) for part in parts]
        if given and all(_is_named(part) for part in given):
            chosen = _places(given, labels)
        else:
            sizes = part_sizes(cast("tuple[float, ...]", parts), len(labels))
            order, ends = generator.permutation(len(labels)), np.cumsum(sizes)
            chosen = [np.sort(order[end - size : end]) for end, size in zip(ends, sizes, strict=True)]
        for index, classes in enumerate(chosen):
            if len(classes) < self._least_classes():
                raise ArgumentOutOfRangeException(
                    f"parts must have at least {self._least_classes()} classes for a task, got {len(classes)} of "
                    f"{len(labels)} in parts[{index}]; pass larger parts or take smaller tasks"
                )
        return self._parts(chosen, [int(generator.integers(2**63)) for _ in chosen])

    def _parts(self, chosen: Sequence[NDArray[np.intp]], seeds: Sequence[int]) -> tuple[Self, ...]:
        """Return a loader for each of these sets of classes, in order."""
        parts: list[Self] = []
        for classes, seed in zip(chosen, seeds, strict=True):
            part = copy.copy(self)
            part._lock = Lock()
            part._keep(classes)
            part._stream = part._make_stream(seed)
            parts.append(part)
        return tuple(parts)

    @property
    @abstractmethod
    def labels(self) -> tuple[Any, ...]:
        """The labels of the classes, sorted; of a table the groups, and of images the classes without their turns."""

    @abstractmethod
    def _keep(self, classes: NDArray[np.intp]) -> None:
        """Keep these classes alone, without writing into what other loaders share."""

    @abstractmethod
    def _make_stream(self, seed: int | None) -> RandomStream:
        """Return the stream that the draws depend on; the classes are known."""

    def _least_classes(self) -> int:
        """Return the fewest classes that every task can be drawn from."""
        return self._ways


def _is_named(part: Any) -> bool:
    return isinstance(part, Sequence) and not isinstance(part, str)


def _places(parts: Sequence[Any], labels: Sequence[Any]) -> list[NDArray[np.intp]]:
    """Return the places of each part's labels among those of the data, sorted."""
    place_of = {label: place for place, label in enumerate(labels)}
    taken: set[Any] = set()
    for index, part in enumerate(parts):
        for label in part:
            if not isinstance(label, Hashable) or label not in place_of:
                raise ArgumentException(
                    f"parts[{index}] must hold labels of the data, got {label!r:.80}; there are {len(labels)}, such as "
                    f"{labels[0]!r:.80}"
                )
            if label in taken:
                raise ArgumentException(f"parts must have no label twice, got {label!r:.80} again in parts[{index}]")
            taken.add(label)
    return [np.sort(np.array([place_of[label] for label in part], np.intp)) for part in parts]


def part_sizes(parts: Sequence[float], total: int) -> list[int]:
    """Return the number of classes of each part: whole numbers as given, and shares rounded by the largest remainder.

    Examples
    --------
    >>> from aidotnet_py.data.splitting import part_sizes
    >>> part_sizes((0.64, 0.16, 0.2), 100), part_sizes((0.5, 0.5), 7), part_sizes((3, 2), 7)
    ([64, 16, 20], [4, 3], [3, 2])
    """
    if not parts:
        raise ArgumentException("parts must be one or more numbers, got none; pass for example 0.8, 0.2")
    if ANY_WHOLE.problem("parts[0]", parts[0]) is None:
        counts = [Whole(1, total).check(f"parts[{i}]", part) for i, part in enumerate(parts)]
        if sum(counts) > total:
            raise ArgumentOutOfRangeException(f"parts must sum to at most {total}, the classes, got {sum(counts)}")
        return counts
    checked = [_SHARE.check(f"parts[{i}]", part) for i, part in enumerate(parts)]
    if abs(sum(checked) - 1.0) > _ROUNDING:
        raise ArgumentException(f"parts must sum to 1, got {sum(checked):.9g}")
    exact = np.array(checked) / sum(checked) * total
    # Of equal remainders, the first part gets the class; the rounding makes remainders of decimals equal.
    sizes = np.floor(np.round(exact, 6)).astype(np.int64)
    left = total - int(sizes.sum())
    sizes[np.argsort(-np.round(exact - sizes, 6), kind="stable")[:left]] += 1
    return cast("list[int]", sizes.tolist())
