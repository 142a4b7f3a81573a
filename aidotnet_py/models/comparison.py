"""How the model that a file describes differs from the one that is to take the file up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, cast

from aidotnet_py.descriptions import Described, describe, differences

__all__ = ["ModelDifferences", "compare_models", "describe_model", "parameter_clauses"]


class ModelDifferences(NamedTuple):
    """Clauses, one for each difference.

    Attributes
    ----------
    parameters : list of str
        Of names, shapes and order of the parameters.
    layers : list of str
        Of the network: the same parameters mean something else in it.
    settings : list of str
        Of what a model may have otherwise: loss, input shape, and the name of the function, which proves nothing.
    """

    parameters: list[str]
    layers: list[str]
    settings: list[str]


def describe_model(model: Any) -> dict[str, Any]:
    """Return the JSON that files hold of a model: of one that does not describe itself, the type alone."""
    return cast("dict[str, Any]", describe(model)) if isinstance(model, Described) else {"type": type(model).__name__}


def compare_models(held: Mapping[str, Any], model: Any) -> ModelDifferences:
    """Compare what a file says of a model, which may be anything that JSON can hold, with a model.

    What only one of both tells is passed over: a file of an older version, or a model of another type, tells less.
    """
    own = describe_model(model)
    found = ModelDifferences([], [], [])
    for name in [name for name in own if name in held]:
        if name == "parameters":
            found.parameters.extend(_of_parameters(held[name], own[name]))
        else:
            clauses = found.layers if name == "network" else found.settings
            clauses.extend(differences(held[name], own[name], name))
    return found


def _of_parameters(held: Any, own: list[Any]) -> list[str]:
    """Of named shapes, in the order in which they lie in the parameter vector."""
    try:
        there = {str(name): tuple(int(n) for n in shape) for name, shape in held}
    except (TypeError, ValueError):
        return ["parameters are malformed there"]
    here = {name: tuple(shape) for name, shape in own}
    if there == here and list(there) != list(here):
        return [f"parameters are in the order {', '.join(there)} there and {', '.join(here)} here"]
    return parameter_clauses(there, here)


def parameter_clauses(there: Mapping[str, object], here: Mapping[str, object]) -> list[str]:
    """One clause for each parameter, by name, that is otherwise or missing in one of them."""
    names = [*here, *(name for name in there if name not in here)]
    return [
        f"parameter {name!r} is {there.get(name, 'missing')} there and {here.get(name, 'missing')} here"
        for name in names
        if there.get(name) != here.get(name)
    ]
