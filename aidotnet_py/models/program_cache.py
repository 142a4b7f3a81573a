"""Traced programs, kept for the next call with arrays of the same types."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

from aidotnet_py.autodiff.extend import CapturedState, TracedProgram, trace_pure
from aidotnet_py.backends import Array, Backend
from aidotnet_py.locks import Lock

__all__ = ["ProgramCache"]

V = TypeVar("V")

# Each program holds buffers for one set of shapes; the one that has not been asked for longest goes first.
_MOST_PROGRAMS = 8


class ProgramCache:
    """The programs of one pure function on one backend; threads may share them.

    All of it is made anew once a setting that the function, or the formula of a loss, reads is changed.
    """

    def __init__(self, backend: Backend, function: Callable[..., Any]) -> None:
        self._backend = backend
        self._function = function
        self._lock = Lock()
        self._kept: OrderedDict[Hashable, tuple[Any, object]] = OrderedDict()
        # As the last trace left them, which may have changed some itself, such as a count of traces.
        self._settings: CapturedState | None = None

    def __reduce__(self) -> tuple[type[ProgramCache], tuple[Backend, Callable[..., Any]]]:
        """Copied and pickled with nothing kept."""
        return ProgramCache, (self._backend, self._function)

    def __len__(self) -> int:
        return len(self._kept)

    def program(self, function: Callable[..., Any], role: Hashable, subject: object, *examples: Array) -> TracedProgram:
        """``function`` traced on arrays like the examples; see `kept`."""
        name = "the model's function" if subject is None else "the model's function, with the loss's formula,"
        return self.kept(lambda: trace_pure(name, function, *examples), role, subject, *examples)

    def kept(self, make: Callable[[], V], role: Hashable, subject: object, *examples: Array) -> V:
        """What ``make`` returns for arrays like the examples, made once.

        ``role`` and ``subject`` tell it from others on such arrays: ``subject`` by its identity, as it need not be
        hashable, and is kept alive beside the program, so that no other object can take over its identity.
        """
        types = tuple((tuple(e.shape), self._backend.dtype_of(e)) for e in examples)
        key = (role, id(subject), types)
        with self._lock:
            if self._settings is not None and self._settings.changed():
                self._kept.clear()
            if key in self._kept:
                self._kept.move_to_end(key)
                kept: V = self._kept[key][0]
                return kept
        made = make()
        with self._lock:
            self._kept[key] = made, subject
            while len(self._kept) > _MOST_PROGRAMS:
                self._kept.popitem(last=False)
            losses = {id(loss): loss for _, loss in self._kept.values()}.values()
            self._settings = CapturedState(self._function, *(getattr(loss, "formula", None) for loss in losses))
        return made
