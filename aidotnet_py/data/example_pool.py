"""Examples of arrays by class, and draws of episodes from them."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from aidotnet_py.arguments import check_given, conversion_hint, shown
from aidotnet_py.backends import adopt
from aidotnet_py.data.drawn_tasks import DrawnTasks
from aidotnet_py.data.draws import ChooseClasses, draw_rows
from aidotnet_py.data.times import times_of_python
from aidotnet_py.exceptions import ArgumentException

__all__ = ["ExamplePool", "check_labels", "check_numbers", "read_labels"]


class ExamplePool:
    """Inputs, a label for each, and perhaps targets; a draw needs no loop over examples.

    Classes are numbered in the order of their sorted labels. Inputs are kept without a copy if they have the dtype.

    Parameters
    ----------
    X : array_like, (examples, …)
        Real, finite inputs.
    y : array_like, (examples,)
        A label for each input: integers, strings, booleans, whatever can be sorted.
    dtype : type or None
        The floating type of the inputs; None keeps theirs, or takes float32 for integers and booleans.
    targets : array_like, (examples, …), optional
        Real, finite values to learn in place of labels, converted to the type of the inputs.

    Raises
    ------
    ArgumentNullException
        X or y is None.
    ArgumentException
        X or y is no such array; the message says what to pass instead.

    Examples
    --------
    >>> import numpy as np
    >>> from aidotnet_py.data.example_pool import ExamplePool
    >>> pool = ExamplePool(np.arange(12.0).reshape(6, 2), ["cat", "dog", "cat", "cat", "dog", "dog"], None)
    >>> pool.labels, pool.counts.tolist()
    (('cat', 'dog'), [3, 3])
    >>> drawn = pool.draw(np.random.default_rng(0), 4, lambda: np.array([1, 0]), shots=1, queries=2, name="pets")
    >>> [array.shape for array in drawn.arrays]
    [(4, 2, 2), (4, 2), (4, 4, 2), (4, 4)]
    """

    def __init__(self, X: ArrayLike, y: ArrayLike, dtype: type[Any] | None, targets: ArrayLike | None = None) -> None:
        self.inputs = check_numbers("X", X, dtype)
        self.labels, classes = check_labels("y", y, len(self.inputs))
        self.targets = None if targets is None else check_numbers("targets", targets, self.inputs.dtype.type)
        if self.targets is not None and len(self.targets) != len(self.inputs):
            raise ArgumentException(
                f"targets must be as many as the examples of X, {len(self.inputs)}, got {len(self.targets)}"
            )
        self.counts = np.bincount(classes, minlength=len(self.labels)).astype(np.int64)
        self._starts = np.cumsum(self.counts) - self.counts
        self._order = np.argsort(classes, kind="stable")

    @property
    def names(self) -> tuple[Any, ...]:
        """The labels; those of a `ClassPool` may have turns too."""
        return self.labels

    @property
    def count_of(self) -> dict[Any, int]:
        """The number of examples of each label."""
        return dict(zip(self.labels, self.counts.tolist(), strict=True))

    def of_classes(self, classes: NDArray[np.intp]) -> ExamplePool:
        """Return a pool of some classes, in this order, over the same arrays."""
        part = copy.copy(self)
        part.labels = tuple(self.labels[c] for c in classes.tolist())
        part.counts, part._starts = self.counts[classes], self._starts[classes]
        return part

    def values_of(self, index: int) -> Iterator[NDArray[Any]]:
        """Yield the inputs of a class, or its targets where there are some; here all at once."""
        rows = self._order[self._starts[index] :][: self.counts[index]]
        yield (self.inputs if self.targets is None else self.targets)[rows]

    def draw(
        self,
        generator: np.random.Generator,
        count: int,
        choose: ChooseClasses,
        *,
        shots: int,
        queries: int,
        name: str,
    ) -> DrawnTasks:
        """Draw ``count`` tasks: for each its classes, then different examples of each class, in random order."""
        most, examples = int(self.counts.max()), shots + queries
        chosen: list[NDArray[np.intp]] = []
        rows: list[NDArray[np.int64]] = []
        for _ in range(count):
            classes = choose()
            chosen.append(classes)
            rows.append(draw_rows(generator, self._starts[classes], self.counts[classes], most, examples))
        places = self._order[np.array(rows)]
        metadata = [{"Classes": tuple(self.labels[c] for c in classes.tolist())} for classes in chosen]
        drawn = DrawnTasks.of_classes(self.inputs[places], shots, name, metadata)
        return drawn if self.targets is None else drawn.with_targets(self.targets[places])


def check_numbers(name: str, value: ArrayLike, dtype: type[Any] | None) -> NDArray[Any]:
    """Return finite numbers of a floating type, with an axis of examples and at least one more."""
    array = _check_array(name, value, "an array of real numbers, (examples, …)")
    if array.dtype.kind not in "fiub":
        raise ArgumentException(f"{name} must hold real numbers, got dtype {array.dtype}")
    if array.ndim < 2:
        raise ArgumentException(
            f"{name} must have an axis of examples and at least one of features, got shape {array.shape}; "
            f"for one feature pass {name}[:, np.newaxis]"
        )
    kept = array.dtype.type if array.dtype.kind == "f" else np.float32
    # A value too large for the dtype becomes inf, which is refused below.
    with np.errstate(over="ignore"):
        numbers: NDArray[Any] = np.asarray(array, np.dtype(cast("type[Any]", dtype or kept)))
    finite = np.isfinite(numbers)
    if not finite.all():
        place = tuple(np.argwhere(~finite)[0].tolist())
        remedy = "drop or fill such examples"
        if np.isfinite(array[place]):
            remedy = f"numbers as large are inf in {numbers.dtype}; scale them, or drop such examples"
        raise ArgumentException(f"{name} must be finite, got {array[place]} at {list(place)}; {remedy}")
    return numbers


def check_labels(name: str, y: ArrayLike, examples: int) -> tuple[tuple[Any, ...], NDArray[np.intp]]:
    """Return the sorted labels and, for each example, the index of its label; messages call them by ``name``."""
    array = read_labels(name, y)
    if array.ndim != 1:
        one_hot = array.ndim == 2 and array.shape[1] > 1
        remedy = f"for one-hot labels pass {name}.argmax(axis=1)" if one_hot else f"pass {name}.ravel()"
        raise ArgumentException(f"{name} must be 1-D, a label for each example, got shape {array.shape}; {remedy}")
    if len(array) != examples:
        raise ArgumentException(f"{name} must have as many labels as X has examples, {examples}, got {len(array)}")
    try:
        labels, classes = np.unique(array, return_inverse=True)
    except TypeError as error:
        raise ArgumentException(f"{name} must hold labels of one kind, such as integers or strings: {error}") from error
    return tuple(labels.tolist()), classes


def read_labels(name: str, y: ArrayLike) -> NDArray[Any]:
    """Return labels as an array of any shape, in which none is missing, and each equals what was given."""
    array = times_of_python(name, _check_array(name, y, "an array of labels, (examples,)"))
    # A list becomes an array of one type, where NaN beside strings is 'nan', and large integers are rounded.
    converts = not hasattr(y, "dtype")
    given = (np.asarray(y, object) if converts else array).ravel()
    missing = [place for place, label in enumerate(given.tolist()) if _is_missing(label)]
    if missing:
        raise ArgumentException(
            f"{name} must hold a label for each example, got {given[missing[0]]} at {missing[0]}; drop such examples"
        )
    # Times become no other type.
    if converts and array.dtype.kind not in "mM":
        for place, (label, read) in enumerate(zip(given.tolist(), array.ravel().tolist(), strict=True)):
            # NumPy would compare its integers to a float as floats.
            if (label.item() if isinstance(label, np.generic) else label) != read:
                raise ArgumentException(
                    f"{name} must hold labels of one kind, such as integers or strings, got {label!r:.80} at {place}, "
                    f"which beside the others is read as {read!r:.80}; convert them"
                )
    return array


def _is_missing(label: Any) -> bool:
    try:
        # Only NaN and the like differ from themselves.
        return label is None or bool(label != label)
    except TypeError:
        # The truth of pandas' NA is unknown.
        return True


def _check_array(name: str, value: Any, wanted: str) -> NDArray[Any]:
    check_given(name, value, wanted)
    hint = conversion_hint(name, value)
    if hint:
        raise ArgumentException(f"{name} must be an array, got a {type(value).__name__}{hint}")
    try:
        return np.asarray(adopt(value, name))
    except (TypeError, ValueError) as error:
        raise ArgumentException(f"{name} must be {wanted}, got {shown(value)}: {error}") from error
