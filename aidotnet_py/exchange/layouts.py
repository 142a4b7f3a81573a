"""The tensors that PyTorch has for a network's parameters: names, and the order of axes and features."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from aidotnet_py.arguments import refusal
from aidotnet_py.descriptions import join_clauses
from aidotnet_py.exceptions import ArgumentException
from aidotnet_py.nn import (
    AveragePool2D,
    BatchNorm,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    GlobalAveragePool2D,
    GroupNorm,
    Layer,
    LayerNorm,
    LeakyReLU,
    MaxPool2D,
    ReLU,
    Residual,
    Sequential,
    Sigmoid,
    Tanh,
)

__all__ = ["Names", "Tensor", "tensors"]

Names: TypeAlias = Mapping[str, str | None] | Sequence[str | None]

# For each feature of ours, its place among PyTorch's; None: the same order.
_Order: TypeAlias = NDArray[np.intp] | None
_Convert: TypeAlias = Callable[[NDArray[Any]], NDArray[Any]]

_WITHOUT_PARAMETERS = (
    *(ReLU, LeakyReLU, Tanh, Sigmoid, Dropout, Flatten),
    *(MaxPool2D, AveragePool2D, GlobalAveragePool2D),
)
_NORMS = (BatchNorm, GroupNorm, LayerNorm)


@dataclass(frozen=True)
class Tensor:
    """One tensor of PyTorch, for one parameter or one statistic of ours.

    Attributes
    ----------
    ours, theirs : str
        The names, such as ``0_conv2d.weight`` and ``0.weight``.
    is_statistic : bool
        Whether it is a running mean or variance.
    from_torch, to_torch : callable
        The array in the other's layout.
    """

    ours: str
    theirs: str
    is_statistic: bool
    from_torch: _Convert
    to_torch: _Convert


@dataclass(frozen=True)
class _Leaf:
    """A layer without layers in it, and the order of the features that come to it."""

    name: str
    layer: Layer
    order: _Order


def tensors(network: Layer, input_shape: tuple[int, ...], names: Names | None) -> list[Tensor]:
    """Return the tensors of PyTorch for all parameters and possible statistics of a network.

    ``names`` has the module of PyTorch for each layer with parameters, by our name or in order; None in it leaves a
    layer out. Without names, the modules are those of `torch.nn.Sequential`s nested alike.

    Raises
    ------
    ArgumentException
        When a layer has no counterpart in PyTorch, or the names are not those of the layers with parameters.
    """
    leaves = [leaf for leaf in _walk(network, input_shape) if type(leaf.layer) not in _WITHOUT_PARAMETERS]
    modules = _modules([leaf.name for leaf in leaves], names)
    return [
        tensor for leaf in leaves if (module := modules[leaf.name]) is not None for tensor in _tensors_of(leaf, module)
    ]


def _modules(layers: Sequence[str], names: Names | None) -> Mapping[str, str | None]:
    """Return the module of each layer."""
    if names is None:
        # 8_residual.body.0_conv2d is 8.body.0.
        return {name: ".".join(part.partition("_")[0] for part in name.split(".")) for name in layers}
    given: Any = names
    if isinstance(given, str) or not isinstance(given, (Mapping, Sequence)):
        raise ArgumentException(refusal("names", "a mapping from layers to modules, or a sequence of modules", given))
    if isinstance(given, Mapping):
        modules = cast("Mapping[str, str | None]", given)
        if set(modules) != set(layers):
            clauses = [f"no {name!r}" for name in layers if name not in modules]
            clauses += [f"an unknown {name!r}" for name in modules if name not in layers]
            raise ArgumentException(
                f"names must have the layers with parameters, {', '.join(layers)}, got {join_clauses(clauses)}"
            )
        return _require_names(modules)
    modules_in_order = list(cast("Sequence[str | None]", given))
    if len(modules_in_order) != len(layers):
        raise ArgumentException(
            f"names must have a module for each of the {len(layers)} layers with parameters, {', '.join(layers)}, got "
            f"{len(modules_in_order)}"
        )
    return _require_names(dict(zip(layers, modules_in_order, strict=True)))


def _require_names(modules: Mapping[str, str | None]) -> Mapping[str, str | None]:
    for layer, module in cast("Mapping[str, object]", modules).items():
        if module is not None and not isinstance(module, str):
            raise ArgumentException(refusal(f"names[{layer!r}]", "a module's name or None", module))
    return modules


def _walk(network: Layer, shape: tuple[int, ...]) -> list[_Leaf]:
    leaves: list[_Leaf] = []
    _visit("", network, shape, None, leaves)
    return leaves


def _visit(
    name: str, layer: Layer, shape: tuple[int, ...], order: _Order, leaves: list[_Leaf]
) -> tuple[tuple[int, ...], _Order]:
    """Add the leaves of a layer; return the shape and the order of its outputs."""
    prefix = f"{name}." if name else ""
    if type(layer) is Sequential:
        for part, inner in layer.layers.items():
            shape, order = _visit(prefix + part, inner, shape, order, leaves)
        return shape, order
    if type(layer) is Residual:
        output, after = _visit(f"{prefix}body", layer.body, shape, order, leaves)
        if layer.shortcut is not None:
            _, order = _visit(f"{prefix}shortcut", layer.shortcut, shape, order, leaves)
        if not _is_same(after, order):
            raise ArgumentException(
                f"body and shortcut of {name or 'Residual'} must have features in one order to be those of "
                "PyTorch, got images flattened in only one of them; put Flatten before or after the Residual"
            )
        return output, after
    _require_counterpart(name, layer, order)
    leaves.append(_Leaf(name, layer, order))
    _, output = layer.initialize(np.random.default_rng(0), shape)
    if type(layer) is Flatten and len(shape) == 3:
        return output, _order_of_features(shape)
    return output, None if type(layer) is Dense else order


def _require_counterpart(name: str, layer: Layer, order: _Order) -> None:
    if type(layer) not in (Dense, Conv2D, *_NORMS, *_WITHOUT_PARAMETERS):
        raise ArgumentException(
            f"layer {name or 'network'} must be one of aidotnet_py.nn to have a counterpart in PyTorch, got a "
            f"{type(layer).__name__}; convert its arrays by hand and use SetParameters"
        )
    if type(layer) is GroupNorm and order is not None:
        raise ArgumentException(
            f"layer {name} must not normalise flattened images, got a GroupNorm, whose groups differ in PyTorch; "
            "put it before Flatten"
        )


def _order_of_features(shape: tuple[int, ...]) -> _Order:
    """Return the places of flattened (height, width, channels) among flattened (channels, height, width)."""
    height, width, channels = shape
    places = np.arange(height * width * channels).reshape(channels, height, width).transpose(1, 2, 0).ravel()
    return None if (places == np.arange(places.size)).all() else places


def _is_same(one: _Order, other: _Order) -> bool:
    return one is other or (one is not None and other is not None and np.array_equal(one, other))


def _tensors_of(leaf: _Leaf, module: str) -> Iterator[Tensor]:
    def tensor(ours: str, theirs: str, from_torch: _Convert, to_torch: _Convert, is_statistic: bool = False) -> Tensor:
        own, other = (f"{prefix}." if prefix else "" for prefix in (leaf.name, module))
        return Tensor(own + ours, other + theirs, is_statistic, from_torch, to_torch)

    layer, order = leaf.layer, leaf.order
    forth, back = partial(_take, order), partial(_take, None if order is None else np.argsort(order))
    if isinstance(layer, Dense):
        yield tensor("weight", "weight", lambda w: forth(w.T), lambda w: back(w).T)
    elif isinstance(layer, Conv2D):
        yield tensor("weight", "weight", lambda w: w.transpose(2, 3, 1, 0), lambda w: w.transpose(3, 2, 0, 1))
    else:
        yield tensor("scale", "weight", forth, back)
        yield tensor("shift", "bias", forth, back)
    if isinstance(layer, (Dense, Conv2D)) and layer.bias:
        yield tensor("bias", "bias", _as_is, _as_is)
    if isinstance(layer, BatchNorm):
        yield tensor("mean", "running_mean", forth, back, is_statistic=True)
        yield tensor("variance", "running_var", forth, back, is_statistic=True)


def _take(order: _Order, array: NDArray[Any]) -> NDArray[Any]:
    return array if order is None else array[order]


def _as_is(array: NDArray[Any]) -> NDArray[Any]:
    return array
