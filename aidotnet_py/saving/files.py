"""`save` and `load`: files that another process needs none of the training's code for."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, cast

from aidotnet_py.archives import kind_of, read_file, unpack
from aidotnet_py.arguments import refusal
from aidotnet_py.backends import Backend
from aidotnet_py.caller import level_outside
from aidotnet_py.descriptions import describe, join_clauses, settings_of
from aidotnet_py.exceptions import ArgumentException
from aidotnet_py.losses import ILossFunction
from aidotnet_py.meta_learning import (
    ANILAlgorithm,
    BOILAlgorithm,
    MAMLAlgorithm,
    MetaLearnerBase,
    MetaSGDAlgorithm,
    ProtoNetsAlgorithm,
    ReptileAlgorithm,
    iMAMLAlgorithm,
)
from aidotnet_py.meta_learning.contract.protocols import missing_members
from aidotnet_py.meta_learning.learner.checkpoint import Checkpoint
from aidotnet_py.models import FunctionModel, NeuralNetworkModel
from aidotnet_py.models.comparison import held_shapes, parameter_clauses, properties_of
from aidotnet_py.nn import Layer
from aidotnet_py.nn.layer import initialized
from aidotnet_py.saving.bounded_generator import BoundedGenerator
from aidotnet_py.saving.rebuilding import Rebuilder, require_same

__all__ = ["load", "save"]

_ALGORITHMS: Mapping[str, type[Any]] = {
    "iMAML": iMAMLAlgorithm,
    "MAML": MAMLAlgorithm,
    "Reptile": ReptileAlgorithm,
    "MetaSGD": MetaSGDAlgorithm,
    "ANIL": ANILAlgorithm,
    "BOIL": BOILAlgorithm,
    "ProtoNets": ProtoNetsAlgorithm,
}
_MODELS: Mapping[str, type[Any]] = {"NeuralNetworkModel": NeuralNetworkModel, "FunctionModel": FunctionModel}
# Sources of tasks are told of in files, and never in them.
_LOADERS = ("DataLoader", "ValidationLoader")
_MODEL = "model"


def save(item: MetaLearnerBase[Any, Any, Any] | FunctionModel[Any, Any, Any], path: str | os.PathLike[str]) -> None:
    """Write a learner, or a model such as one that `Adapt` returns, to a file that `load` makes it again from.

    The file is that of ``learner.Save`` or ``model.SaveModel``: parameters, state, and descriptions of network and
    options. Names of classes, preprocessing and the like travel in the model's metadata:
    ``model.GetModelMetadata().SetProperty("classes", ["cat", "dog"])``, in values that JSON can hold, with strings as
    the keys of mappings.

    Raises
    ------
    ArgumentException
        When it is of another class, one derived from these included; when its network, its loss or an option cannot be
        made again from its description as it is.
    InvalidOperationException
        When parameters are not finite.
    OSError
        When the file cannot be written; an older one of that name is still whole.

    Warns
    -----
    UserWarning
        When a property is left out, because JSON cannot hold it.

    Examples
    --------
    >>> import tempfile
    >>> import aidotnet_py
    >>> from aidotnet_py import MAMLAlgorithm, MAMLOptions, NeuralNetworkModel
    >>> from aidotnet_py.nn import mlp
    >>> learner = MAMLAlgorithm(MAMLOptions(NeuralNetworkModel(mlp(8, 1), input_shape=(1,)), AdaptationSteps=3))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     aidotnet_py.save(learner, f"{folder}/learner.safetensors")
    ...     aidotnet_py.load(f"{folder}/learner.safetensors").AdaptationSteps
    3
    """
    learner = item if isinstance(item, MetaLearnerBase) else None
    model: Any = item if learner is None else learner.BaseModel
    # By the classes themselves, since `load` makes none that is derived from them.
    is_known = type(model) in _MODELS.values()
    if not is_known or (learner is not None and type(learner) not in _ALGORITHMS.values()):
        wanted = f"a {' or '.join(_MODELS)}, or a learner of one by an algorithm of this package"
        came = type(item if is_known else model).__name__
        raise ArgumentException(f"item must be {wanted}, got a {came}; use its own Save or SaveModel")
    _require_rebuildable(model)
    _warn_of_properties(model)
    if learner is None:
        model.SaveModel(path)
    else:
        _require_same_options(learner)
        learner.Save(path)


def _warn_of_properties(model: Any) -> None:
    """Warn of properties that the file will lack."""
    held, kept = model.GetModelMetadata().Properties, properties_of(model)
    missing = [name for name in held if name not in kept]
    if missing:
        warnings.warn(
            f"properties should have values that JSON can hold, with strings as keys, got others in "
            f"{', '.join(f'{name!r:.80}' for name in missing)}, which the file leaves out",
            UserWarning,
            stacklevel=level_outside(),
        )


def _require_rebuildable(model: Any) -> None:
    """Raise ArgumentException unless `load` can make the model, if it trusts the modules that define its parts."""
    settings = model.settings()
    try:
        if "function" in settings:
            function = settings["function"]
            Rebuilder(sorted(_modules_of(function))).function(describe(function), "function")
        for part in ("network", "loss"):
            if part in settings:
                require_same(_made_again(settings[part], part), settings[part], part)
    except (ArgumentException, ImportError) as error:
        raise ArgumentException(
            "item must have a function at the top of a module, or layers with settings(), and a loss, that load can "
            f"make again, got another: {error}"
        ) from error


def _require_same_options(learner: MetaLearnerBase[Any, Any, Any]) -> None:
    """Raise ArgumentException where `load` would make an option of another class than it is of."""
    for name in _saved_options(type(learner)):
        value = getattr(learner.Options, name)
        if isinstance(describe(value), str):
            # Text, or a function by its name.
            continue
        try:
            made = _made_again(value, name)
        except (ArgumentException, ImportError):
            # load asks for it.
            continue
        require_same(made, value, name)


def _saved_options(algorithm: type[Any]) -> set[str]:
    return {field.name for field in fields(algorithm._options_type)} - {"MetaModel", *_LOADERS}


def _made_again(value: Any, place: str) -> Any:
    return Rebuilder(sorted(_modules_of(value))).object(describe(value), place)


def _modules_of(value: Any) -> set[str]:
    """Return the modules that define a function, or the classes and functions that a described object is made of."""
    if isinstance(value, (list, tuple)):
        return {name for part in cast("list[Any]", value) for name in _modules_of(part)}
    if hasattr(value, "__qualname__"):
        return {value.__module__} if value.__module__ else set()
    if value is None or isinstance(value, (bool, int, float, str)):
        return set()
    return {type(value).__module__} | _modules_of(list(settings_of(value).values()))


def load(
    path: str | os.PathLike[str], *, trust: Sequence[str] = (), backend: str | Backend = "numpy", **options: Any
) -> Any:
    """Make a learner or a model from a file that `save`, ``Save`` or ``SaveModel`` wrote.

    No code of the file's runs: it names classes of layers, losses and optimizers, which are those of this package.
    Functions and classes of your own are looked up in the modules that ``trust`` names.

    Parameters
    ----------
    path : str or path
        The file.
    trust : sequence of str
        Names of modules, such as ``["my_models"]``, that define the function of a `FunctionModel`, or layers and losses
        of your own. They are imported.
    backend : str or Backend
        The backend of the parameters.
    **options
        Options to have otherwise than saved; and a DataLoader, to go on training with its place in the draws.

    Returns
    -------
    MetaLearnerBase or FunctionModel

    Raises
    ------
    FileNotFoundError
        When there is no such file.
    ArgumentException
        When the file is damaged or of another kind; when it needs a function or a class that no trusted module defines.
    ImportError
        When a trusted module does not exist.

    Warns
    -----
    UserWarning
        When an option is not as it was saved, if steps or evaluations depend on it.
    """
    data, source = read_file(path), str(path)
    rebuilder = Rebuilder(trust)
    if kind_of(data, source) == _MODEL:
        if options:
            name, value = next(iter(options.items()))
            raise ArgumentException(f"{refusal(name, f'left out for {source}', value)}; the file holds no options")
        return _model(data, source, rebuilder, backend)
    return _learner(Checkpoint.of(data, source), source, rebuilder, backend, options)


def _model(data: bytes, source: str, rebuilder: Rebuilder, backend: str | Backend) -> Any:
    arrays, description = unpack(_MODEL, data, source)
    held = description.get("model")
    shapes = _shapes_of(held, source)
    parameters = {name: arrays[name] for name in shapes if name in arrays}
    model = _model_like(held, source, parameters, rebuilder, backend)
    model.Deserialize(data)
    _set_properties(model, description.get("properties"))
    return model


def _set_properties(model: Any, properties: Any) -> None:
    """Give a model's metadata the properties that its file holds, of any JSON."""
    if isinstance(properties, dict):
        for name, value in cast("dict[str, Any]", properties).items():
            model.GetModelMetadata().SetProperty(name, value)


def _learner(
    checkpoint: Checkpoint, source: str, rebuilder: Rebuilder, backend: str | Backend, given: Mapping[str, Any]
) -> MetaLearnerBase[Any, Any, Any]:
    if checkpoint.algorithm not in _ALGORITHMS:
        raise ArgumentException(
            f"{source} must be of an algorithm of this package, got {checkpoint.algorithm:.80}; make the learner and "
            "call its Load"
        )
    algorithm = _ALGORITHMS[checkpoint.algorithm]
    vector, start, parameters = checkpoint.parameters, 0, dict[str, Any]()
    for name, shape in _shapes_of(checkpoint.model, source).items():
        size = math.prod(shape)
        try:
            parameters[name], start = vector[start : start + size].reshape(shape), start + size
        # Too few are left, or there is no such array: NumPy counts the elements of an empty one too.
        except ValueError as error:
            raise ArgumentException(
                f"{source} must hold the parameters that it describes, got shape {vector.shape}"
            ) from error
    model = _model_like(checkpoint.model, source, parameters, rebuilder, backend)
    values: dict[str, Any] = {}
    names = _saved_options(algorithm)
    for name, value in checkpoint.options.items():
        if name in names and name not in given:
            values[name] = _option(name, value, rebuilder)
    learner = algorithm(algorithm._options_type(model, **{**values, **given}))
    if "DataLoader" not in given:
        # Without a loader there is no place to go on from, and nothing to warn of.
        checkpoint = replace(checkpoint, random_state={**checkpoint.random_state, "loader": None})
    learner._load(checkpoint, source)
    _set_properties(model, checkpoint.properties)
    return cast("MetaLearnerBase[Any, Any, Any]", learner)


def _option(name: str, value: Any, rebuilder: Rebuilder) -> Any:
    try:
        if isinstance(value, str) and name in ("InnerOptimizer", "OuterLearningRateSchedule", "LossFunction"):
            return rebuilder.function(value, name)
        return rebuilder.object(value, name)
    except ArgumentException as error:
        raise ArgumentException(f"{error}; or give {name} itself: load(path, {name}=…)") from error


def _shapes_of(held: Any, source: str) -> dict[str, tuple[int, ...]]:
    shapes = held_shapes(cast("dict[str, Any]", held).get("parameters")) if isinstance(held, dict) else None
    if shapes is None:
        raise ArgumentException(
            f"{source} must describe its model, got no such description; make the model in code and load the file into "
            "it"
        )
    return shapes


def _model_like(
    held: Any, source: str, parameters: Mapping[str, Any], rebuilder: Rebuilder, backend: str | Backend
) -> Any:
    """Return a model from its description and parameters."""
    kind, loss = held.get("type"), rebuilder.object(held.get("loss"), "loss")
    if missing_members(loss, ILossFunction):
        raise ArgumentException(f"{source} must hold a loss, got {loss!r:.80}")
    if not isinstance(kind, str) or kind not in _MODELS:
        raise ArgumentException(f"{source} must be of a {' or '.join(_MODELS)}, got a {kind!r:.80}")
    if not parameters:
        raise ArgumentException(f"{source} must hold parameters, got none")
    try:
        return _make_model(kind, held, parameters, loss, rebuilder, backend)
    except ArgumentException:
        raise
    # Sizes from a file may be of any kind, and too large for the memory.
    except Exception as error:
        raise ArgumentException(f"{source} must describe a model that can be made, got {error!r:.200}") from error


def _make_model(
    kind: str, held: Any, parameters: Mapping[str, Any], loss: Any, rebuilder: Rebuilder, backend: str | Backend
) -> Any:
    if kind == "FunctionModel":
        return FunctionModel(rebuilder.function(held.get("function"), "function"), parameters, loss, backend=backend)
    network, shape = rebuilder.object(held.get("network"), "network"), held.get("input_shape")
    if not isinstance(network, Layer):
        raise ArgumentException(refusal("network", "a layer", network))
    own: Any = NeuralNetworkModel
    return own._of_parameters(network, shape, _in_order_of(network, shape, parameters), loss, backend)


def _in_order_of(network: Layer, shape: Any, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters in the network's order; raise unless it has these, and take no memory for others."""
    # Its sizes may be any.
    drawn, _ = initialized(network, BoundedGenerator(sum(value.size for value in parameters.values())), tuple(shape))
    there = {name: value.shape for name, value in parameters.items()}
    clauses = parameter_clauses(there, {name: value.shape for name, value in drawn.items()})
    if clauses:
        raise ValueError(join_clauses(clauses))
    return {name: parameters[name] for name in drawn}
