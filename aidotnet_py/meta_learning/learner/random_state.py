"""The state of a learner's random draws: its own generator and its place in the DataLoader."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any, TypeVar

from aidotnet_py.generator_state import HasGenerator, check_state, new_generator, unsigned_seed
from aidotnet_py.meta_learning.contract.options import MetaLearnerOptions
from aidotnet_py.meta_learning.contract.sources import IEpisodicDataLoader, IResumable
from aidotnet_py.meta_learning.learner.loader_place import LoaderPlace
from aidotnet_py.meta_learning.learner.states import set_place

__all__ = ["RandomState"]

R = TypeVar("R")


class RandomState(HasGenerator):
    """Seeded together by RandomSeed, where there is one; saved, restored and rewound together.

    A loader without `GetState` is only seeded. A loader that came into the options later is not rewound to what was
    another loader's beginning, but seeded.
    """

    def __init__(self, options: MetaLearnerOptions[Any, Any, Any]) -> None:
        self._options = options
        self.generator = new_generator(self._seed())
        self.place, self.validation_place = LoaderPlace(), LoaderPlace()
        self._seed_loader()
        self._first_loader = options.DataLoader
        self._first = self.get()
        # Within a run, the loader of its evaluations and their place in it.
        self._in_run = False
        self._evaluated: tuple[object, Mapping[str, Any] | None] | None = None

    def __getstate__(self) -> dict[str, Any]:
        loader, validation = self._options.DataLoader, self._options.ValidationLoader
        copied = self.place.for_copy(loader), self.validation_place.for_copy(validation)
        return {**vars(self), "_copied": copied}

    def __setstate__(self, state: dict[str, Any]) -> None:
        place, validation_place = state.pop("_copied")
        super().__setstate__(state)
        self.place.copied_from(place, self._options.DataLoader)
        self.validation_place.copied_from(validation_place, self._options.ValidationLoader)

    def _seed(self) -> int | None:
        seed = self._options.RandomSeed
        return None if seed is None else unsigned_seed(int(seed))

    def _seed_loader(self) -> None:
        loader, seed = self._options.DataLoader, self._seed()
        if seed is not None and loader is not None:
            self.place.draw(loader, lambda: loader.SetSeed(seed))

    def get(self) -> dict[str, Any]:
        """Return the state, in values that JSON can hold."""
        return {
            "generator": self.generator.bit_generator.state,
            "loader": self.place.of(self._options.DataLoader),
        }

    def saved(self) -> dict[str, Any]:
        """Return the state with the place in the ValidationLoader, for a file."""
        return {**self.get(), "validation": self._place_of_evaluations() if self._has_place_of_evaluations() else None}

    def set(self, state: Mapping[str, Any]) -> None:
        """Take up a state that `get` or `saved` returned."""
        loader, validation = self._options.DataLoader, self._options.ValidationLoader
        self.generator.bit_generator.state = check_state(state["generator"])
        if loader is not None and state["loader"] is not None:
            self._set_loader(loader, state["loader"])
        # `get` leaves it where it is.
        if validation is not None and state.get("validation") is not None:
            self._move(self.validation_place, validation, state["validation"])

    def take_up(self, state: Mapping[str, Any], *, any_loader: bool) -> list[str]:
        """Take up a state of a file; return warnings of loaders that stay where they are, as its places do not fit.

        Of a loader like the one that the file was saved with, such a place is an error, unless ``any_loader``.
        """
        loader, validation = self._options.DataLoader, self._options.ValidationLoader
        self.set({**state, "loader": None, "validation": None})
        told = [self._place_warning(state)]
        if loader is not None and state["loader"] is not None:
            if any_loader:
                told.append(self._move_if_it_fits(self.place, "DataLoader", loader, state["loader"]))
            else:
                self._set_loader(loader, state["loader"])
        # Files before version 0.2.0 have none.
        if validation is not None and (place := state.get("validation")) is not None:
            told.append(self._move_if_it_fits(self.validation_place, "ValidationLoader", validation, place))
        return [warning for warning in told if warning is not None]

    def begin_run(self) -> None:
        """Have all evaluations from now on draw the same tasks from the ValidationLoader, whoever else moves it."""
        self._in_run, self._evaluated = True, None
        if self._has_place_of_evaluations():
            self._place_of_evaluations()

    def end_run(self) -> None:
        """Have the ValidationLoader as it is again."""
        self._in_run, self._evaluated = False, None

    def _has_place_of_evaluations(self) -> bool:
        """Whether there is one: of a loader that training draws from too, only after the first evaluation."""
        loader, validation = self._options.DataLoader, self._options.ValidationLoader
        return validation is not loader or validation is None or self.validation_place.has_drawn_from(validation)

    def _place_of_evaluations(self) -> Mapping[str, Any] | None:
        """Return the place in the ValidationLoader that evaluations begin at."""
        validation = self._options.ValidationLoader
        if self._evaluated is not None and self._evaluated[0] is validation:
            return self._evaluated[1]
        place = self.validation_place.of(validation)
        if self._in_run:
            self._evaluated = validation, place
        return place

    def _set_loader(self, loader: IEpisodicDataLoader[Any, Any, Any], place: Mapping[str, Any]) -> None:
        self._move(self.place, loader, place)

    @staticmethod
    def _move(own: LoaderPlace, loader: IEpisodicDataLoader[Any, Any, Any], place: Mapping[str, Any]) -> None:
        if isinstance(loader, IResumable):
            own.draw(loader, lambda: set_place(loader, place))

    def _move_if_it_fits(
        self, own: LoaderPlace, name: str, loader: IEpisodicDataLoader[Any, Any, Any], place: Mapping[str, Any]
    ) -> str | None:
        """Move a loader to a place of a file; if it refuses that, leave it where it is and return a warning."""
        before = own.of(loader)
        try:
            self._move(own, loader, place)
            return None
        except Exception as error:
            assert before is not None
            self._move(own, loader, before)
            return (
                f"the saved place does not fit {type(loader).__name__}, the {name} of this learner, which stays where "
                f"it is and will give other tasks than the saved learner's: {error}"
            )

    def generator_aside(self) -> Callable[[], None]:
        """Return a function that puts the learner's own draws back to where they are now."""
        state = self.generator.bit_generator.state

        def put_back() -> None:
            self.generator.bit_generator.state = state

        return put_back

    def aside(self, work: Callable[[], R]) -> R:
        """Do something whose draws do not count: in the end all is where it was. No other learner draws meanwhile."""
        loader, validation = self._options.DataLoader, self._options.ValidationLoader
        with (
            nullcontext() if loader is None else self.place.lock(loader),
            nullcontext() if validation is None else self.validation_place.lock(validation),
        ):
            before, place = self.get(), self._place_of_evaluations()

            def go_to_place() -> None:
                if validation is not None and place is not None:
                    self._move(self.validation_place, validation, place)

            def put_back() -> None:
                self.set(before)
                go_to_place()

            try:
                go_to_place()
                result = work()
                put_back()
                return result
            except BaseException:
                put_back()
                raise

    def _place_warning(self, state: Mapping[str, Any]) -> str | None:
        """Return the warning if only one of a state and this learner has a loader's place; None otherwise."""
        loader = self._options.DataLoader
        if (loader is None) == (state["loader"] is None):
            return None
        held = "no place of a loader" if state["loader"] is None else "a loader's place"
        here = "no DataLoader" if loader is None else f"a {type(loader).__name__}"
        return f"the saved state holds {held} and this learner has {here}: it will draw other tasks than the saved one"

    def rewind(self) -> None:
        """Back to the state at construction."""
        loader, place = self._options.DataLoader, self._first["loader"]
        self.generator.bit_generator.state = self._first["generator"]
        if loader is not None and loader is self._first_loader and place is not None:
            self._set_loader(loader, place)
        else:
            self._seed_loader()
