"""A model made of layers."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Self, overload

import numpy as np
from numpy.typing import NDArray

from aidotnet_py.arguments import COUNT, SEED, OrNone, argument_in, check_given, refusal
from aidotnet_py.backends import Array, Backend
from aidotnet_py.caller import level_outside
from aidotnet_py.exceptions import ArgumentException
from aidotnet_py.keywords import suggests_keywords
from aidotnet_py.losses import ILossFunction
from aidotnet_py.models.function_model import FunctionModel
from aidotnet_py.models.summary import ModelSummary, layer_rows
from aidotnet_py.nn import Conv2D, Layer, Residual, Sequential
from aidotnet_py.nn.layer import initialized, shape_of_examples
from aidotnet_py.type_parameters import T, TInput, TOutput

__all__ = ["NeuralNetworkModel"]

# Of images: grey, colours, and colours with transparency.
_MOST_CHANNELS = 4


class NeuralNetworkModel(FunctionModel[T, TInput, TOutput]):
    """A model from a network of `aidotnet_py.nn` layers, channels last, with random initial parameters.

    Parameters
    ----------
    network : Layer
        Usually a `Sequential`.
    input_shape : sequence of int
        Shape of one input, without the axis of examples.
    loss : ILossFunction, optional
        The default loss; None: `MeanSquaredErrorLoss`.
    dtype : floating type
        The dtype of parameters and computations.
    backend : str or Backend
        The backend of parameters and computations.
    seed : int, optional
        The seed of the initial parameters and of the noise of `Train`, which are the same on every backend.

    Raises
    ------
    ArgumentNullException
        When the network is None.
    ArgumentException
        When a layer cannot take the outputs of the layer before it.

    Warns
    -----
    UserWarning
        When the network begins with a convolution and ``input_shape`` looks like that of images with channels first.

    Examples
    --------
    >>> import numpy as np
    >>> from aidotnet_py import NeuralNetworkModel
    >>> from aidotnet_py.nn import mlp
    >>> model = NeuralNetworkModel(mlp(40, 40, 1), input_shape=(1,), seed=0)
    >>> model.ParameterCount
    1761
    >>> model.Predict(np.zeros((3, 1), dtype=np.float32)).shape
    (3, 1)
    """

    @overload
    def __init__(
        self: NeuralNetworkModel[np.float32, NDArray[Any], NDArray[Any]],
        network: Layer,
        *,
        input_shape: Sequence[int],
        loss: ILossFunction[Any] | None = None,
        backend: str | Backend = "numpy",
        seed: int | None = None,
    ) -> None: ...

    @overload
    def __init__(
        self,
        network: Layer,
        *,
        input_shape: Sequence[int],
        loss: ILossFunction[Any] | None = None,
        dtype: type[T],
        backend: str | Backend = "numpy",
        seed: int | None = None,
    ) -> None: ...

    @suggests_keywords(loss_function="loss", LossFunction="loss")
    def __init__(
        self,
        network: Layer,
        *,
        input_shape: Sequence[int],
        loss: ILossFunction[Any] | None = None,
        dtype: Any = np.float32,
        backend: str | Backend = "numpy",
        seed: int | None = None,
    ) -> None:
        check_given("network", network, "a layer")
        if not isinstance(network, Layer):  # pyright: ignore[reportUnnecessaryIsInstance] -- callers may be untyped
            raise ArgumentException(refusal("network", "a layer", network))
        shape = _check_shape(input_shape)
        _warn_of_channels_first(network, shape)
        seeds = np.random.SeedSequence(OrNone(SEED).check("seed", seed))
        parameters, _ = initialized(network, np.random.default_rng(seeds), shape)
        self._make(network, shape, parameters, loss, dtype, backend, seeds)

    @classmethod
    def _of_parameters(
        cls, network: Layer, input_shape: Any, parameters: Mapping[str, Array], loss: Any, backend: str | Backend
    ) -> Self:
        """Return a model of seed 0 that begins with these parameters, which are known to be the network's."""
        shape = _check_shape(input_shape)
        _warn_of_channels_first(network, shape)
        model = cls.__new__(cls)
        model._make(network, shape, parameters, loss, None, backend, np.random.SeedSequence(0))
        return model

    def _make(
        self,
        network: Layer,
        shape: tuple[int, ...],
        parameters: Mapping[str, Array],
        loss: ILossFunction[Any] | None,
        dtype: Any,
        backend: str | Backend,
        seeds: np.random.SeedSequence,
    ) -> None:
        super().__init__(network.apply, parameters, loss, dtype=dtype, backend=backend)
        self._network, self._input_shape = network, shape
        # From a child seed, since the parameters are drawn from the seed itself.
        self._noise_key = [int(word) for word in seeds.spawn(1)[0].generate_state(2, np.uint64)]
        self._metadata.Name = type(network).__name__
        self._metadata.FeatureCount = math.prod(self._input_shape)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one input."""
        return self._input_shape

    def summary(self) -> ModelSummary:
        """Return a table of the layers: output shapes, n being the number of examples, and parameters.

        Examples
        --------
        >>> from aidotnet_py import NeuralNetworkModel
        >>> from aidotnet_py.nn import mlp
        >>> NeuralNetworkModel(mlp(40, 1), input_shape=(2,)).summary()
        Sequential for inputs (n, 2)
        name     layer      output   parameters
        0_dense  Dense(40)  (n, 40)         120
        1_relu   ReLU()     (n, 40)           0
        2_dense  Dense(1)   (n, 1)           41
        161 parameters, 644 bytes in float32
        """
        title = f"{type(self._network).__name__} for inputs {shape_of_examples(self._input_shape)}"
        return ModelSummary(title, layer_rows(self._network, self._input_shape), self._dtype.name)

    def noise_shapes(self, parameters: Mapping[str, Array], x: Array) -> dict[str, tuple[int, ...]]:
        """Return the shapes of the noise that `apply` takes beside these parameters in training; see `Layer`."""
        return self._network.noise_shapes(parameters, x)

    def settings(self) -> dict[str, Any]:
        """Return the model's description for files: names and shapes of parameters, layers, input shape, loss."""
        settings = super().settings()
        del settings["function"]
        return {**settings, "network": self._network, "input_shape": self._input_shape}

    def check_input(self, input: Any, name: str = "input") -> None:
        """Raise ArgumentException when ``input`` is not an array ``(n, *input_shape)`` of this backend and dtype.

        Integers and booleans pass, as in `check_array`.
        """
        super().check_input(input, name)
        if tuple(input.shape[1:]) != self._input_shape or len(input.shape) == 0:
            raise ArgumentException(
                f"{name} must have shape {shape_of_examples(self._input_shape)}, got {tuple(input.shape)}"
                f"{_shape_hint(self._input_shape, tuple(input.shape), name)}"
            )


def _shape_hint(wanted: tuple[int, ...], shape: tuple[int, ...], name: str) -> str:
    """Return the end of a message for inputs of another shape, if one change makes them fit; else nothing."""
    plain = argument_in(name)
    if shape == wanted:
        return f"; for one example, use {plain}[np.newaxis]"
    if len(wanted) == 3 and len(shape) == 4 and (*shape[2:], shape[1]) == wanted:
        return f"; channels come last: use np.moveaxis({plain}, 1, -1)"
    if len(shape) > 0 and math.prod(shape[1:]) == math.prod(wanted):
        return f"; use {plain}.reshape({', '.join(map(str, (-1, *wanted)))})"
    return ""


def _check_shape(input_shape: Any) -> tuple[int, ...]:
    given: object = input_shape
    is_sequence = isinstance(input_shape, (tuple, list))
    lengths: list[Any] = [*input_shape] if is_sequence else []  # pyright: ignore[reportUnknownArgumentType] -- of anything
    if not is_sequence or any(COUNT.problem("length", n) for n in lengths):
        hint = f"; use ({given},)" if COUNT.problem("length", given) is None else ""
        raise ArgumentException(refusal("input_shape", "a sequence of whole numbers of at least 1", given) + hint)
    return tuple(int(n) for n in lengths)


def _warn_of_channels_first(network: Layer, shape: tuple[int, ...]) -> None:
    """Warn of a shape such as (3, 84, 84) for a network that begins with a convolution.

    It may be meant: an image three pixels high, with 84 channels.
    """
    first = network
    while isinstance(first, (Sequential, Residual)):
        first = first.body if isinstance(first, Residual) else next(iter(first.layers.values()))
    if not isinstance(first, Conv2D) or len(shape) != 3:
        return
    channels, height, width = shape
    if channels <= _MOST_CHANNELS and width > 2 * channels and height <= 2 * width <= 4 * height:
        warnings.warn(
            f"input_shape {shape} is taken for images of height {channels}, width {height} and {width} channels; if "
            f"the channels are first, use {(height, width, channels)} and np.moveaxis(images, 1, -1)",
            UserWarning,
            stacklevel=level_outside(),
        )
