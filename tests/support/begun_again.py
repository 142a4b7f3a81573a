"""Learners at their beginning, for tests of many rounds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from amounts import rounds

__all__ = ["begun_again"]

_SEED = 5


def begun_again(make: Callable[[], Any]) -> Iterator[Any]:
    """Yield a learner at its beginning for each round, every tenth a new one.

    A long training would stand still or diverge, and a new learner each time would mostly trace its model.
    """
    learner = start = None
    for turn in range(rounds()):
        if turn % 10 == 0:
            learner = make()
            start = learner.BaseModel.GetParameters()
        learner.BaseModel.SetParameters(start)
        learner.Reset()
        if learner.Options.DataLoader is not None:
            learner.Options.DataLoader.SetSeed(_SEED)
        yield learner
