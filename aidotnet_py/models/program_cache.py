"""A cache of traced programs, for later calls with arrays of the same types."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, TypeVar

from aidotnet_py.autodiff.extend import CapturedState, TracedProgram, trace_pure
from aidotnet_py.backends import Array, Backend
from aidotnet_py.caching import BoundedCache
from aidotnet_py.locks import Lock

__all__ = ["ProgramCache"]

V = TypeVar("V")

# Each program holds buffers for one set of shapes.
_MOST_PROGRAMS = 8


class ProgramCache:
    """The programs of one pure function on one backend; threads may share the cache, and its copies are empty.

    If a setting read by the function or by the formula of a loss changes, all programs are traced again.
    """

    def __init__(self, backend: Backend, function: Callable[..., Any]) -> None:
        self._backend = backend
        #: Whose settings are watched.
        self.function = function
        self._lock = Lock()
        self._programs: BoundedCache[Hashable, tuple[Any, object]] = BoundedCache(_MOST_PROGRAMS)
        # Noted after each trace, which may itself change settings, such as a count of traces.
        self._settings: CapturedState | None = None

    def __reduce__(self) -> tuple[type[ProgramCache], tuple[Backend, Callable[..., Any]]]:
        return ProgramCache, (self._backend, self.function)

    def __len__(self) -> int:
        return len(self._programs)

    def program(self, function: Callable[..., Any], role: Hashable, subject: object, *examples: Array) -> TracedProgram:
        """Return ``function`` traced on arrays like the examples; see `get_or_make`."""
        name = "the model's function" if subject is None else "the model's function, with the loss's formula,"
        return self.get_or_make(lambda: trace_pure(name, function, *examples), role, subject, *examples)

    def get_or_make(self, make: Callable[[], V], role: Hashable, subject: object, *examples: Array) -> V:
        """Return the object for a role, a subject and arrays like the examples; ``make`` it the first time.

        The subject, such as a loss, is compared by identity, as it may be unhashable. The cache keeps it alive, so that
        its identity is not reused.
        """

        def make_pair() -> tuple[V, object]:
            made = make()
            self._note_settings(subject)
            return made, subject

        types = tuple((tuple(e.shape), self._backend.dtype_of(e)) for e in examples)
        with self._lock:
            if self._settings is not None and self._settings.changed():
                self._programs.clear()
        made: V = self._programs.get_or_make((role, id(subject), types), make_pair)[0]
        return made

    def _note_settings(self, subject: object) -> None:
        with self._lock:
            losses = {id(loss): loss for loss in (*(loss for _, loss in self._programs.values()), subject)}
            formulas = [getattr(loss, "formula", None) for loss in losses.values()]
            self._settings = CapturedState(self.function, *formulas)
