"""What a learner needs to go on bit for bit, in one file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from aidotnet_py.archives import pack, read_file, unpack, write_file
from aidotnet_py.backends import Backend, backend_of
from aidotnet_py.descriptions import describe, differences, join_clauses
from aidotnet_py.exceptions import ArgumentException
from aidotnet_py.meta_learning.contract.options import MetaLearnerOptions
from aidotnet_py.models.comparison import ModelDifferences
from aidotnet_py.models.statistics import pop_statistics, statistics_for_file
from aidotnet_py.optimizers import ElementwiseOptimizer, IGradientBasedOptimizer

__all__ = ["Checkpoint"]

_KIND = "meta-learner"
_PREFIX, _EXTRA = "optimizer.", "learner."
# No run counts further, and arithmetic on longer numbers fails in odd places.
_MOST_STEPS = 2**53


@dataclass(frozen=True)
class Checkpoint:
    """The state of a learner; arrays are on the host once it was loaded, so that any backend can take them up.

    Model and options are descriptions, to be compared with those at hand; of a file of version 0.1.0 they are empty.
    Properties are those of the model's metadata. Statistics are those that the model normalises by: None if it can hold
    none, and of a file from before they were saved.
    """

    algorithm: str
    parameters: NDArray[Any]
    optimizer: str
    optimizer_state: Mapping[str, Any]
    iteration: int
    random_state: Mapping[str, Any]
    extra_state: Mapping[str, Any]
    model: Mapping[str, Any]
    options: Mapping[str, Any]
    properties: Mapping[str, Any] = field(default_factory=dict[str, Any])
    statistics: Mapping[str, NDArray[Any]] | None = None

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it to a safetensors file, whole or not at all.

        Raises
        ------
        ArgumentException
            When a state holds what neither an array file nor JSON can.
        InvalidOperationException
            When an array is not finite.
        """
        arrays = {"parameters": self.parameters}
        numbers: dict[str, Any] = {}
        for name, value in self.optimizer_state.items():
            backend = backend_of(value)
            # A name that is no string is refused with the numbers.
            if backend is None or not isinstance(name, str):  # pyright: ignore[reportUnnecessaryIsInstance] -- a user's
                numbers[name] = value
            else:
                arrays[_PREFIX + name] = backend.to_numpy(value)
        for name, value in self.extra_state.items():
            arrays[_EXTRA + name] = value
        description: dict[str, Any] = {
            "algorithm": self.algorithm,
            "optimizer": self.optimizer,
            "optimizer_state": numbers,
            "iteration": self.iteration,
            "random_state": self.random_state,
            "model": self.model,
            "options": self.options,
            "properties": self.properties,
        }
        if self.statistics is not None:
            arrays |= statistics_for_file(self.statistics)
            description["statistics"] = sorted(self.statistics)
        try:
            data = pack(_KIND, arrays, description)
        except ArgumentException as error:
            raise ArgumentException(
                f"the states of the optimizer {self.optimizer} and the DataLoader must consist of arrays, numbers and "
                f"strings, and mappings by strings and lists of the latter two, to be saved: {error}"
            ) from error
        write_file(path, data)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Checkpoint:
        """Read what `save` wrote.

        Raises
        ------
        FileNotFoundError
            When there is no such file.
        ArgumentException
            When it is something else.
        """
        return cls.of(read_file(path), str(path))

    @classmethod
    def of(cls, data: bytes, path: str) -> Checkpoint:
        """Return the checkpoint in the bytes of a file; messages name ``path``."""
        arrays, description = unpack(_KIND, data, path)
        description.setdefault("properties", {})
        for name in ("model", "options"):
            description.setdefault(name, {})
        kinds = {"algorithm": str, "optimizer": str, "iteration": int}
        kinds |= dict.fromkeys(("optimizer_state", "random_state", "model", "options", "properties"), dict)
        for name, kind in kinds.items():
            if type(description.get(name)) is not kind:
                raise ArgumentException(
                    f"{path} must be a whole checkpoint, got one whose {name} is missing or malformed"
                )
        if "parameters" not in arrays:
            raise ArgumentException(f"{path} must be a whole checkpoint, got one without parameters")
        statistics = pop_statistics(arrays) if "statistics" in description else None
        if statistics is not None and sorted(statistics) != description["statistics"]:
            raise ArgumentException(f"{path} must be a whole checkpoint, got one without the statistics that it lists")
        parameters, steps = arrays.pop("parameters"), description["iteration"]
        if not 0 <= steps <= _MOST_STEPS:
            raise ArgumentException(f"{path} must hold an iteration from 0 to {_MOST_STEPS}, got {steps}")
        extra = {name.removeprefix(_EXTRA): array for name, array in arrays.items() if name.startswith(_EXTRA)}
        moments = {name.removeprefix(_PREFIX): array for name, array in arrays.items() if not name.startswith(_EXTRA)}
        return cls(
            algorithm=description["algorithm"],
            parameters=parameters,
            optimizer=description["optimizer"],
            optimizer_state={**description["optimizer_state"], **moments},
            iteration=steps,
            random_state=description["random_state"],
            extra_state=extra,
            model=description["model"],
            options=description["options"],
            properties=description["properties"],
            statistics=statistics,
        )

    def require_fit(
        self,
        source: str,
        algorithm: str,
        optimizer: IGradientBasedOptimizer,
        parameters: NDArray[Any],
        compared: ModelDifferences,
    ) -> None:
        """Raise ArgumentException, naming the source, unless it was saved by such a learner of such a model."""
        needed = {
            "algorithm": (self.algorithm, algorithm),
            "optimizer": (self.optimizer, type(optimizer).__name__),
            "the parameter vector": (_describe(self.parameters), _describe(parameters)),
        }
        for name, value in self.optimizer_state.items():
            if backend_of(value) is not None and isinstance(optimizer, ElementwiseOptimizer):
                needed[f"optimizer state {name}"] = (_describe(value), _describe(parameters))
            if isinstance(value, int) and abs(value) > _MOST_STEPS:
                raise ArgumentException(
                    f"optimizer state {name} in {source} must be from -{_MOST_STEPS} to {_MOST_STEPS}, got {value}"
                )
        clauses = [
            f"{n} is {came:.80} there and {wanted} here" for n, (came, wanted) in needed.items() if came != wanted
        ]
        clauses += [*compared.parameters, *compared.layers]
        if clauses:
            raise ArgumentException(f"{source} is of another learner: {join_clauses(clauses)}")

    def caution(
        self, source: str, compared: ModelDifferences, options: MetaLearnerOptions[Any, Any, Any]
    ) -> str | None:
        """Return the warning for a file that fits, but was saved with other settings; None without differences."""
        clauses = [*compared.settings, *options.differences(self.options)]
        if not clauses:
            return None
        return f"{source} was saved with other settings, and this learner keeps its own: {join_clauses(clauses)}"

    def has_loader_like(self, options: MetaLearnerOptions[Any, Any, Any]) -> bool:
        """Return whether the DataLoaders of file and options have one type and sizes, as far as both have one."""
        there, own = self.options.get("DataLoader"), describe(options)["DataLoader"]
        return there is None or own is None or not [*differences(there, own)]

    def differences_of_evaluations(self, options: MetaLearnerOptions[Any, Any, Any]) -> list[str]:
        """Return a clause for each option that has evaluations draw other tasks than with those of the file."""
        there, own, names = self.options, describe(options), ("EvaluationTasks", "ValidationLoader")
        return [clause for name in names if name in there for clause in differences(there[name], own[name], name)]

    def optimizer_state_on(self, backend: Backend) -> dict[str, Any]:
        """Return the optimizer's state with its arrays on a backend."""
        return {
            name: value if backend_of(value) is None else backend.asarray(value)
            for name, value in self.optimizer_state.items()
        }


def _describe(array: NDArray[Any]) -> str:
    return f"{array.dtype}{array.shape}"
