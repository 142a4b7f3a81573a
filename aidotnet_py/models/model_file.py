"""The file of a `FunctionModel`: parameters and statistics by name, and a description; see docs/files.md."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

from numpy.typing import NDArray

from aidotnet_py.archives import pack, unpack
from aidotnet_py.caller import level_outside
from aidotnet_py.descriptions import join_clauses
from aidotnet_py.exceptions import ArgumentException
from aidotnet_py.models.comparison import compare_models, describe_model, parameter_clauses, properties_of
from aidotnet_py.models.interfaces import IDifferentiableModel, parameter_dtype
from aidotnet_py.models.named_arrays import ravel_arrays, unravel_arrays
from aidotnet_py.models.statistics import check_statistics, pop_statistics, statistics_for_file

__all__ = ["ModelFile", "describe_for_file", "pack_model", "unpack_model"]


class ModelFile(NamedTuple):
    """What a model takes up from a file.

    Attributes
    ----------
    parameters : NDArray, shape (ParameterCount,)
        The parameters.
    statistics : dict
        Means and variances by name.
    properties : object
        Those of the metadata, of any JSON.
    """

    parameters: NDArray[Any]
    statistics: dict[str, NDArray[Any]]
    properties: object


def describe_for_file(model: IDifferentiableModel[Any, Any, Any], name: str) -> dict[str, Any]:
    """Return the description of a model of this name."""
    properties = properties_of(model)
    description = {"name": name, "model": describe_model(model)}
    return {**description, "properties": properties} if properties else description


def pack_model(
    parameters: NDArray[Any],
    shapes: Mapping[str, tuple[int, ...]],
    statistics: Mapping[str, NDArray[Any]],
    description: Mapping[str, Any],
) -> bytes:
    """Return the file of a vector of parameters, whose arrays have these shapes, and of statistics.

    Raises
    ------
    InvalidOperationException
        When a parameter is not finite.
    ArgumentException
        When a file cannot have the name of a parameter.
    """
    return pack("model", {**unravel_arrays(parameters, shapes), **statistics_for_file(statistics, shapes)}, description)


def unpack_model(model: IDifferentiableModel[Any, Any, Any], data: bytes, source: str) -> ModelFile:
    """Return what a file holds for a model.

    Raises
    ------
    ArgumentException
        When it is no file of this model; the message lists all differences.

    Warns
    -----
    UserWarning
        When the file's model had other settings.
    """
    arrays, description = unpack("model", data, source)
    statistics = pop_statistics(arrays)
    shapes, dtype = model.parameter_shapes, parameter_dtype(model, model.backend)
    held = description.get("model")
    compared = compare_models(held if isinstance(held, dict) else {}, model)  # pyright: ignore[reportUnknownArgumentType] -- of anything
    there = {name: f"{array.dtype}{array.shape}" for name, array in arrays.items()}
    here = {name: f"{dtype}{shape}" for name, shape in shapes.items()}
    # Their order is ignored, since they are loaded by name.
    clauses = [*parameter_clauses(there, here), *compared.layers]
    if clauses:
        raise ArgumentException(f"{source} must be of this model, got another's: {join_clauses(clauses)}")
    check_statistics(statistics, shapes, dtype, source)
    if compared.settings:
        warnings.warn(
            f"{source} was saved by a model of other settings, and this one keeps its own: "
            f"{join_clauses(compared.settings)}",
            UserWarning,
            stacklevel=level_outside(),
        )
    return ModelFile(ravel_arrays({name: arrays[name] for name in shapes}), statistics, description.get("properties"))
