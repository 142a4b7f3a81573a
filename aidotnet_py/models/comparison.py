"""The differences between the model that a file describes and the model that loads the file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, cast

from aidotnet_py.descriptions import Described, describe, differences
from aidotnet_py.json_text import json_text
from aidotnet_py.models.raw_data import properties_of_model

__all__ = [
    "ModelDifferences",
    "compare_models",
    "describe_model",
    "held_shapes",
    "parameter_clauses",
    "properties_of",
]

# NumPy has no longer axes.
_TOO_LONG = 2**63


class ModelDifferences(NamedTuple):
    """One clause for each difference.

    Attributes
    ----------
    parameters : list of str
        In names, shapes and order of the parameters.
    layers : list of str
        In the network, which gives the same parameters another meaning.
    settings : list of str
        In the loss, the input shape and the function's name. These may differ: the name of a function proves nothing.
    """

    parameters: list[str]
    layers: list[str]
    settings: list[str]


def describe_model(model: Any) -> dict[str, Any]:
    """Return a model's description in files, as JSON; only the type if the model does not describe itself."""
    return cast("dict[str, Any]", describe(model)) if isinstance(model, Described) else {"type": type(model).__name__}


def properties_of(model: Any) -> dict[str, Any]:
    """Return the properties of a model's metadata that a file can hold: those of names and values in JSON."""
    properties = properties_of_model(model) or {}
    return {name: value for name, value in properties.items() if _is_json({name: value})}


def _is_json(value: Any) -> bool:
    try:
        json_text(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return False
    return True


def compare_models(held: Mapping[str, Any], model: Any) -> ModelDifferences:
    """Compare a file's description of a model, which may be any JSON, with a model.

    Entries of only one side are ignored: files of older versions and models of other types have fewer entries.
    """
    own = describe_model(model)
    differing = ModelDifferences([], [], [])
    for name in [name for name in own if name in held]:
        if name == "parameters":
            differing.parameters.extend(_compare_parameters(held[name], own[name]))
        else:
            clauses = differing.layers if name == "network" else differing.settings
            clauses.extend(differences(held[name], own[name], name))
    return differing


def held_shapes(held: Any) -> dict[str, tuple[int, ...]] | None:
    """Return the shapes of the parameters that a file describes, by name and in their order; None of other JSON."""
    try:
        shapes = {name: (*shape,) for name, shape in held}
    except (TypeError, ValueError):
        return None
    lengths = [n for shape in shapes.values() for n in shape]
    sound = all(type(name) is str for name in shapes) and all(type(n) is int and 0 <= n < _TOO_LONG for n in lengths)
    return shapes if sound else None


def _compare_parameters(held: Any, own: list[Any]) -> list[str]:
    """Compare named shapes, in the order of the parameter vector."""
    there = held_shapes(held)
    if there is None:
        return ["parameters are malformed there"]
    here = {name: tuple(shape) for name, shape in own}
    if there == here and list(there) != list(here):
        return [f"parameters are in the order {', '.join(there)} there and {', '.join(here)} here"]
    return parameter_clauses(there, here)


def parameter_clauses(there: Mapping[str, object], here: Mapping[str, object]) -> list[str]:
    """Return a clause for each parameter, by name, that differs or is missing on one side."""
    names = [*here, *(name for name in there if name not in here)]
    return [
        f"parameter {name!r} is {there.get(name, 'missing')} there and {here.get(name, 'missing')} here"
        for name in names
        if there.get(name) != here.get(name)
    ]
