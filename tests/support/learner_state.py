"""What a learner's next steps depend on, in a form that equal bits alone make equal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from aidotnet_py.backends import backend_of

__all__ = ["bits", "state_of", "untouched"]


def bits(value: Any) -> Any:
    """The bytes of arrays, of any backend, and what else there is beside them."""
    if isinstance(value, Mapping):
        return {name: bits(one) for name, one in value.items()}
    if isinstance(value, (tuple, list)):
        return [bits(one) for one in value]
    backend = backend_of(value)
    return repr(value) if backend is None else backend.to_numpy(value).tobytes()


def state_of(learner: Any) -> Any:
    """All that the next steps depend on, and what others may use: the optimizer in the options and the loader."""
    given, loader = learner.Options.MetaOptimizer, learner.Options.DataLoader
    return bits(
        {
            "parameters": learner._meta_parameters(),
            "optimizer": learner._meta_optimizer().GetState(),
            "iteration": learner.CurrentIteration,
            "random": learner._random.get(),
            "extra": learner._extra_state(),
            "loader": None if loader is None else loader.GetState(),
            "optimizer given": None if given is None else given.GetState(),
        }
    )


@contextmanager
def untouched(learner: Any) -> Iterator[None]:
    before = state_of(learner)
    yield
    assert state_of(learner) == before
