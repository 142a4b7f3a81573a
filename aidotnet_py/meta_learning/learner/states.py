"""States of loaders, samplers and optimizers: copied, as their owner may go on to change what it gave or was given."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from aidotnet_py.backends import backend_of
from aidotnet_py.meta_learning.contract.sources import IResumable
from aidotnet_py.optimizers import ElementwiseOptimizer, IGradientBasedOptimizer

__all__ = ["copy_of_memory", "memory_of", "place_of", "set_place"]


def place_of(source: IResumable) -> dict[str, Any]:
    """Return the place of a loader or sampler in its draws."""
    return copy.deepcopy(source.GetState())


def set_place(source: IResumable, place: Mapping[str, Any]) -> None:
    """Have a loader or sampler go on from a place."""
    source.SetState(copy.deepcopy(place))


def memory_of(optimizer: IGradientBasedOptimizer) -> Mapping[str, Any]:
    """Return the memory of an optimizer; the package's own copy it themselves."""
    memory = optimizer.GetState()
    return memory if type(optimizer).GetState is ElementwiseOptimizer.GetState else copy_of_memory(memory)


def copy_of_memory(memory: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of an optimizer's memory: arrays of any backend, and numbers."""
    copies: dict[str, Any] = {}
    for name, value in memory.items():
        backend = backend_of(value)
        copies[name] = copy.deepcopy(value) if backend is None else backend.asarray(value)
    return copies
