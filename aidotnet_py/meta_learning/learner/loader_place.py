"""Draws from a loader that leave the draws of its other users as they were."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, TypeGuard, TypeVar

from aidotnet_py.exceptions import ArgumentException
from aidotnet_py.locks import Lock
from aidotnet_py.meta_learning.contract.protocols import missing_members
from aidotnet_py.meta_learning.contract.sources import IEpisodicDataLoader, IResumable
from aidotnet_py.meta_learning.learner.states import place_of, set_place

__all__ = ["LoaderPlace", "look_ahead"]

R = TypeVar("R")
_Loader = IEpisodicDataLoader[Any, Any, Any]
# A learner's own place, where the loader was left at last, and whether by this learner.
_Copied = tuple[Mapping[str, Any] | None, Mapping[str, Any] | None, bool]


class _Draws:
    """What is known of the draws from a loader: which learner's was the last, and where it left the loader."""

    def __init__(self) -> None:
        self.lock = Lock()
        self.last: object = None
        self.place: Mapping[str, Any] | None = None


class LoaderPlace:
    """The position of a learner's draws from a loader.

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
        # Which loader it belongs to then, `copied_from` says.
        return LoaderPlace, ()

    def for_copy(self, loader: _Loader | None) -> _Copied | None:
        """Return what `copied_from` takes; None for a loader that nothing was drawn from."""
        if loader is None:
            return None
        draws = _draws_from(loader)
        with draws.lock:
            return (self._place, draws.place, draws.last is self._token) if self._draws is draws else None

    def copied_from(self, copied: _Copied | None, loader: _Loader | None) -> None:
        """Be to this loader what another place was to that of which this is a copy."""
        if copied is None or loader is None:
            return
        draws = _draws_from(loader)
        place, left_at, was_last = copied
        with draws.lock:
            self._draws, self._place = draws, place
            if draws.place is None:
                draws.place = left_at
            if was_last:
                draws.last = self._token

    def draw(self, loader: _Loader, work: Callable[[], R]) -> R:
        """Do something with the loader at this place, such as a draw; the place moves on with the loader.

        No other learner draws meanwhile.
        """
        draws = _draws_from(loader)
        # No context of Python's own: an interrupt at its end would leave it open.
        with draws.lock:
            if not _is_resumable(loader):
                return work()
            if self._is_behind(draws, loader):
                assert self._place is not None
                set_place(loader, self._place)
            try:
                return work()
            finally:
                place = place_of(loader)
                self._draws, self._place = draws, place
                draws.last, draws.place = self._token, place

    def lock(self, loader: _Loader) -> Lock:
        """Return the lock that keeps other learners from drawing."""
        return _draws_from(loader).lock

    def of(self, loader: _Loader | None) -> Mapping[str, Any] | None:
        """Return the position of the next draw; None for a loader without positions."""
        if not _is_resumable(loader):
            return None
        draws = _draws_from(loader)
        with draws.lock:
            return self._place if self._is_behind(draws, loader) else place_of(loader)

    def has_drawn_from(self, loader: _Loader) -> bool:
        """Return whether the last draw was from this loader."""
        return self._draws is not None and self._draws is _draws_from(loader)

    def _is_behind(self, draws: _Draws, loader: IResumable) -> bool:
        """Whether another learner drew since this one did, and nobody else moved the loader after it."""
        own = self._draws is draws and draws.last is not self._token
        return own and loader.GetState() == draws.place


def look_ahead(loader: _Loader, work: Callable[[_Loader], R]) -> R:
    """Do something with a loader, such as a draw, after which it goes on as if nothing had been drawn.

    A loader that is `IResumable` is set back, and another one is copied.

    Raises
    ------
    ArgumentException
        When a loader that is not `IResumable` cannot be copied.
    """
    resumable: object = loader
    if _is_resumable(resumable):
        # No learner may draw meanwhile.
        with _draws_from(loader).lock:
            place = place_of(resumable)
            try:
                return work(loader)
            finally:
                set_place(resumable, place)
    try:
        twin = copy.deepcopy(loader)
    except TypeError as error:
        raise ArgumentException(
            f"DataLoader must have GetState and SetState, or be one that copy.deepcopy copies, got a "
            f"{type(loader).__name__}: {error}"
        ) from error
    return work(twin)


def _is_resumable(loader: object) -> TypeGuard[IResumable]:
    return not missing_members(loader, IResumable)


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
