"""What a learner's next steps depend on, in a form that equal bits alone make equal."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any, cast

from aidotnet_py.backends import backend_of
from aidotnet_py.meta_learning.learner.model_statistics import statistics_of

__all__ = ["bits", "state_of", "untouched"]


def bits(value: Any) -> Any:
    """Return the bytes of arrays, of any backend, and what else there is beside them."""
    if isinstance(value, Mapping):
        return {name: bits(one) for name, one in cast("Mapping[object, Any]", value).items()}
    if isinstance(value, (tuple, list)):
        return [bits(one) for one in cast("list[Any]", value)]
    backend = backend_of(value)
    return repr(value) if backend is None else backend.to_numpy(value).tobytes()


def state_of(learner: Any) -> dict[str, Any]:
    """Return all that the next steps depend on, and what others use: the optimizer of the options and the loader."""
    given, loader = learner.Options.MetaOptimizer, learner.Options.DataLoader
    state = {
        "parameters": learner._meta_parameters(),
        "statistics": statistics_of(learner.BaseModel),
        "optimizer": learner._meta_optimizer().GetState(),
        "iteration": learner.CurrentIteration,
        "random": learner._random.get(),
        "extra": learner._extra_state(),
        "loader": None if loader is None else loader.GetState(),
        "optimizer given": None if given is None else given.GetState(),
    }
    return {name: bits(value) for name, value in state.items()}


@contextmanager
def untouched(learner: Any) -> Generator[None]:
    """Require that what is done in this context leaves the learner's state alone."""
    before = state_of(learner)
    yield
    after = state_of(learner)
    changed = [name for name in before if before[name] != after[name]]
    if changed:
        raise AssertionError(f"it must leave the learner as it was, got other bits of its {', '.join(changed)}")
