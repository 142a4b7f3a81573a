"""Attributes that a user's class added to a learner, which workers need beside its options."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Collection, Mapping
from typing import Any

from aidotnet_py.exceptions import InvalidOperationException

__all__ = ["own_attributes", "require_picklable", "require_unchanged", "take_up", "those_of_library"]

_LIBRARY = __name__.partition(".")[0] + "."


def those_of_library(kind: type[Any], options: Any) -> frozenset[str]:
    """Return the names of the attributes that learners of the class have from the classes of this package."""
    nearest = next(cls for cls in kind.__mro__ if cls.__module__.startswith(_LIBRARY))
    # `MetaLearnerBase` itself leaves this one member open.
    bare = type(nearest.__name__, (nearest,), {"AlgorithmType": None})
    return frozenset[str](vars(bare(options)))


def own_attributes(learner: Any, known: Collection[str]) -> dict[str, Any]:
    """Return the attributes beside the known ones.

    Raises
    ------
    InvalidOperationException
        When `pickle` does not take one.
    """
    attributes: dict[str, Any] = learner.__dict__
    own = {name: value for name, value in attributes.items() if name not in known}
    for name, value in own.items():
        require_picklable(f"{type(learner).__name__}.{name}", value)
    return own


def take_up(learner: Any, own: Mapping[str, Any]) -> dict[str, bytes]:
    """Set copies of the attributes of another learner; return what tells changes to them, for `require_unchanged`."""
    # A worker that is a thread would share them with the learner at home.
    copies = copy.deepcopy(dict(own))
    learner.__dict__.update(copies)
    return {name: pickle.dumps(value) for name, value in copies.items()}


def require_unchanged(learner: Any, before: Mapping[str, bytes], names: Collection[str]) -> None:
    """Refuse work that changed an attribute, or added one to the names, since the learner at home would not have it."""
    attributes: dict[str, Any] = learner.__dict__
    for name, value in attributes.items():
        if name not in names or (name in before and pickle.dumps(value) != before[name]):
            raise InvalidOperationException(
                f"{type(learner).__name__}.{name} must stay as it is while workers compute, since only results come "
                f"back from them, got a change to {value!r:.80}; set it before the step, or leave Executor out"
            )


def require_picklable(name: str, value: Any) -> None:
    """Raise InvalidOperationException where `pickle` does not take something that workers get."""
    try:
        pickle.dumps(value)
    except InvalidOperationException:
        raise
    # Pickling runs code of the value's class, and `pickle` itself raises three kinds.
    except Exception as error:
        raise InvalidOperationException(
            f"{name} must be something that pickle can take, since workers get it, got {value!r:.80} ({error}); "
            "classes and functions must be such as can be imported by their names, at the top level of a module"
        ) from error
