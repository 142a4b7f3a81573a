"""A learner's own place in a loader that other learners may draw from too."""

from __future__ import annotations

import weakref
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from aidotnet_py.locks import Lock
from aidotnet_py.meta_learning.sampling import IEpisodicDataLoader, IResumable

__all__ = ["LoaderPlace"]

_Loader = IEpisodicDataLoader[Any, Any, Any]


class _Draws:
    """What is known of the draws from a loader: which learner's was the last, and where it left the loader."""

    def __init__(self) -> None:
        self.lock = Lock()
        self.last: object = None
        self.place: Mapping[str, Any] | None = None


class LoaderPlace:
    """Where a learner's draws from a loader have come to.

    Learners with one loader do not move each other's draws: whoever draws next goes on from its own last draw, and one
    that has drawn nothing yet from where the loader is. Whatever else moves the loader meanwhile, such as a draw or a
    ``SetState`` of the user's, counts for the learner that draws next. A loader that is not `IResumable` has one place
    for all.
    """

    def __init__(self) -> None:
        self._token = object()
        self._draws: _Draws | None = None
        self._place: Mapping[str, Any] | None = None

    def __reduce__(self) -> tuple[type[LoaderPlace], tuple[()]]:
        return LoaderPlace, ()

    @contextmanager
    def taken(self, loader: _Loader) -> Generator[None]:
        """Have the loader at this place; where it is in the end is the place from then on. No other learner draws."""
        draws = _draws_from(loader)
        with draws.lock:
            if not isinstance(loader, IResumable):
                yield
                return
            if self._is_behind(draws, loader):
                assert self._place is not None
                loader.SetState(self._place)
            try:
                yield
            finally:
                self._draws, self._place = draws, loader.GetState()
                draws.last, draws.place = self._token, self._place

    @contextmanager
    def put_aside(self, loader: _Loader) -> Generator[None]:
        """Draws that do not count: the loader is in the end where it was. No other learner draws meanwhile."""
        with self.taken(loader):
            place = loader.GetState() if isinstance(loader, IResumable) else None
            try:
                yield
            finally:
                if isinstance(loader, IResumable) and place is not None:
                    loader.SetState(place)

    def of(self, loader: _Loader | None) -> Mapping[str, Any] | None:
        """Where the next draw would begin; None where no loader tells."""
        if not isinstance(loader, IResumable):
            return None
        draws = _draws_from(loader)
        with draws.lock:
            return self._place if self._is_behind(draws, loader) else loader.GetState()

    def _is_behind(self, draws: _Draws, loader: IResumable) -> bool:
        """Whether another learner drew since this one did, and nobody else moved the loader after it."""
        own = self._draws is draws and draws.last is not self._token
        return own and loader.GetState() == draws.place


# By the loader's id, since it need not have a hash.
_DRAWS: dict[int, tuple[weakref.ref[Any], _Draws]] = {}
_LOCK = Lock()


def _draws_from(loader: Any) -> _Draws:
    key = id(loader)
    with _LOCK:
        known = _DRAWS.get(key)
        if known is not None and known[0]() is loader:
            return known[1]
        draws = _Draws()
        # Of a class without room for weak references nothing is remembered.
        with suppress(TypeError):
            _DRAWS[key] = weakref.ref(loader, lambda _: _DRAWS.pop(key, None)), draws
        return draws
