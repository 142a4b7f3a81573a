"""What a learner needs to go on bit for bit, in one file."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aidotnet_py.archives import pack, read_file, unpack, write_file
from aidotnet_py.backends import backend_of
from aidotnet_py.exceptions import ArgumentException

__all__ = ["Checkpoint"]

_KIND = "meta-learner"
_PREFIX = "optimizer."


@dataclass(frozen=True)
class Checkpoint:
    """The state of a learner; arrays are on the host, so that any backend can take them up."""

    algorithm: str
    parameters: NDArray[Any]
    optimizer: str
    optimizer_state: dict[str, Any]
    iteration: int
    random_state: dict[str, Any]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it to a safetensors file, whole or not at all."""
        arrays = {"parameters": self.parameters}
        numbers: dict[str, Any] = {}
        for name, value in self.optimizer_state.items():
            backend = backend_of(value)
            if backend is None:
                numbers[name] = value
            else:
                arrays[_PREFIX + name] = backend.to_numpy(value)
        description = {
            "algorithm": self.algorithm,
            "optimizer": self.optimizer,
            "optimizer_state": numbers,
            "iteration": self.iteration,
            "random_state": self.random_state,
        }
        write_file(path, pack(_KIND, arrays, description))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Checkpoint:
        """Read what `save` wrote.

        Raises
        ------
        ArgumentException
            When there is no such file, or it is something else.
        """
        arrays, description = unpack(_KIND, read_file(path), str(path))
        try:
            parameters = arrays.pop("parameters")
            moments = {name.removeprefix(_PREFIX): array for name, array in arrays.items()}
            checkpoint = cls(
                algorithm=description["algorithm"],
                parameters=parameters,
                optimizer=description["optimizer"],
                optimizer_state={**description["optimizer_state"], **moments},
                iteration=description["iteration"],
                random_state=description["random_state"],
            )
        except (KeyError, TypeError) as error:
            raise ArgumentException(f"{path} is not a whole checkpoint: {error} is missing or malformed") from error
        if type(checkpoint.iteration) is not int or checkpoint.iteration < 0 or not np.isfinite(parameters).all():
            raise ArgumentException(f"{path} holds an iteration or parameters that no learner can have")
        return checkpoint
