"""Values that a learner learns beside θ: what they are, and where they stand."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from aidotnet_py.arguments import COUNT, refusal
from aidotnet_py.backends import Array, Backend
from aidotnet_py.exceptions import ArgumentException

__all__ = ["Learned", "LearnedValues"]


@dataclass(frozen=True)
class Learned:
    """A vector that the meta-optimizer moves together with θ.

    It is saved and loaded with the learner, put back when a step fails, and starts anew at Reset and with a new model.

    Parameters
    ----------
    name : str
        Its key in `Tasks.learned`.
    start : float or sequence of float
        The first values.
    size : int, optional
        How many entries there are; None: one for each parameter.
    bounds : (float, float), optional
        Entries are brought back between these after a meta-update.
    check : callable, optional
        Raises InvalidOperationException for a vector that cannot be; the meta-update is undone then.

    Raises
    ------
    ArgumentException
        When the name is no string, the size no whole number of at least 1, or the start neither a finite number nor as
        many as the size.

    Examples
    --------
    >>> from aidotnet_py.meta_learning.extend import Learned
    >>> Learned("rates", 0.01, bounds=(1e-6, 1.0)).size is None
    True
    """

    name: str
    start: float | Sequence[float]
    size: int | None = None
    bounds: tuple[float, float] | None = None
    check: Callable[[Array], object] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:  # pyright: ignore[reportUnnecessaryIsInstance] -- callers may be untyped
            raise ArgumentException(refusal("name", "a string", self.name))
        if self.size is not None:
            COUNT.check("size", self.size)
        try:
            values = np.asarray(self.start)
        except ValueError:
            # Sequences of several lengths.
            values = np.asarray(None)
        if values.dtype.kind not in "iuf" or values.ndim > 1 or not np.isfinite(values).all():
            raise ArgumentException(refusal("start", "a finite number or a sequence of them", self.start))
        if values.ndim and self.size is not None and len(values) != self.size:
            raise ArgumentException(
                f"start must be a number or as many as size, {self.size}, got {len(values)} numbers"
            )


class LearnedValues:
    """The learned vectors of a learner, by name."""

    def __init__(self) -> None:
        self._vectors: dict[str, Array] = {}

    def begin(self, kinds: Sequence[Learned], like: Array, backend: Backend) -> None:
        """Forget all vectors, and start those of these kinds, for parameters like these."""
        self._vectors = {}
        self.read(kinds, like, backend)

    def read(self, kinds: Sequence[Learned], like: Array, backend: Backend) -> Mapping[str, Array]:
        """Return the vectors of these kinds; a new kind, or one of another size, starts."""
        vectors: dict[str, Array] = {}
        for kind in kinds:
            shape = tuple(like.shape) if kind.size is None else (kind.size,)
            vector = self._vectors.get(kind.name)
            if vector is None or tuple(vector.shape) != shape:
                vector = backend.empty(shape, backend.dtype_of(like))
                count = np.shape(kind.start)
                if count not in ((), shape):
                    raise ArgumentException(
                        f"start of {kind.name!r} must be a number or as many as the parameters, {shape[0]}, got "
                        f"{count[0]} numbers"
                    )
                start = (
                    kind.start if isinstance(kind.start, (int, float)) else backend.asarray(kind.start, vector.dtype)
                )
                backend.copyto(vector, start)
                self._vectors = {**self._vectors, kind.name: vector}
            vectors[kind.name] = vector
        return vectors

    def write(self, kinds: Sequence[Learned], vectors: Mapping[str, Array], backend: Backend) -> None:
        """Take new vectors, within their bounds; all of them, or none if a check fails."""
        written: dict[str, Array] = {}
        for kind in kinds:
            vector = vectors[kind.name]
            if kind.bounds is not None:
                # A bound beyond the largest number of the dtype is none.
                with backend.errors_ignored():
                    raised = backend.elementwise("maximum")(vector, float(kind.bounds[0]))
                    vector = backend.elementwise("minimum")(raised, float(kind.bounds[1]))
            if kind.check is not None:
                kind.check(vector)
            written[kind.name] = vector
        self.restore(written)

    def restore(self, vectors: Mapping[str, Array]) -> None:
        """Take vectors that stood here or in another learner as they are, whatever bounds and checks are now."""
        self._vectors = {**self._vectors, **vectors}
