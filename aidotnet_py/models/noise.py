"""The random numbers of a training step: the shapes that a model requests, and the draw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aidotnet_py.autodiff.extend import ArrayType, new_trace
from aidotnet_py.exceptions import ArgumentException
from aidotnet_py.models.interfaces import IDifferentiableModel, parameter_dtype
from aidotnet_py.nn.layer import Shape
from aidotnet_py.nn.noise import unmet_requests
from aidotnet_py.nn.statistics import PassStatistics

__all__ = ["draw_noise", "noise_shapes"]

# Multiples of 2⁻¹¹ are below 1 in half precision too.
_HALF_STEPS = 2048


def noise_shapes(
    model: IDifferentiableModel[Any, Any, Any], x: ArrayType, support: ArrayType | None = None
) -> dict[str, Shape]:
    """Return the shapes, by name, of the uniform numbers that the model takes beside its parameters for such an input.

    A model that takes noise has a method ``noise_shapes(parameters, x)``, as layers have. ``support`` is the type of
    the inputs whose statistics normalise ``x``, if others do: a single example has none.

    Raises
    ------
    ArgumentException
        When a layer of the model takes noise that the model does not name: it would silently be off in training.
    """
    with new_trace() as trace, unmet_requests() as unmet:
        dtype = parameter_dtype(model, model.backend)
        parameters: dict[str, Any] = {
            name: trace.new_input(ArrayType(tuple(shape), dtype)) for name, shape in model.parameter_shapes.items()
        }
        if support is not None:
            with PassStatistics(parameters) as statistics:
                model.apply(parameters, trace.new_input(support))
            parameters |= statistics.named("support")
        example = trace.new_input(x)
        named: Mapping[str, Any] = getattr(model, "noise_shapes", _no_noise)(parameters, example)
        shapes = {name: tuple(shape) for name, shape in named.items()}
        # To compute their shapes, some layers apply their inner layers, without noise.
        unmet.clear()
        noise = {name: trace.new_input(ArrayType(shape, dtype)) for name, shape in shapes.items()}
        model.apply({**parameters, **noise}, example)
        if unmet:
            raise ArgumentException(
                f"the model must name the noise of all layers that take some, such as Dropout; {len(unmet)} would be "
                f"off in training, with inputs of shape {', '.join(map(str, unmet))}. Put the layers into a "
                "NeuralNetworkModel, and give a layer that holds others the method noise_shapes (docs/models.md)"
            )
        return shapes


def _no_noise(parameters: Any, x: Any) -> dict[str, Any]:
    return {}


def draw_noise(
    key: Sequence[int], place: int, shapes: Mapping[str, Shape], dtype: np.dtype[Any]
) -> dict[str, NDArray[Any]]:
    """Draw the noise of one set of examples: uniform on [0, 1), a function of key, place, shapes and dtype alone.

    Parameters
    ----------
    key : two integers in [0, 2⁶⁴)
        The key of the step.
    place : int
        The index of the set within the step. Sets are independent, so they may be drawn in any order on any thread.
    shapes : mapping
        The shapes by name.
    dtype : dtype
        float16, float32 or float64.

    References
    ----------
    Salmon, J. K., Moraes, M. A., Dror, R. O. & Shaw, D. E. (2011). Parallel random numbers: as easy as 1, 2, 3. SC11.
    """
    philox = np.random.Philox(key=np.array(key, np.uint64), counter=[0, 0, 0, place])
    generator = np.random.Generator(philox)
    return {name: _uniform(generator, shape, dtype) for name, shape in shapes.items()}


def _uniform(generator: np.random.Generator, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    if dtype == np.float16:
        return (generator.integers(0, _HALF_STEPS, shape) / _HALF_STEPS).astype(dtype)
    return generator.random(shape, np.float32 if dtype == np.float32 else np.float64)
