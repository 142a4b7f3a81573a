"""What the algorithms ask of a model, from least to most."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np
from typing_extensions import TypeVar

from aidotnet_py.backends import Array, Backend
from aidotnet_py.losses import ILossFunction
from aidotnet_py.models.metadata import ModelMetadata
from aidotnet_py.type_parameters import T, T_co, TInput_contra, TOutput, TOutput_contra

__all__ = [
    "ICloneable",
    "IDifferentiableModel",
    "IFullModel",
    "IGradientComputable",
    "IModel",
    "IModelSerializer",
    "INormalizedModel",
    "IParameterizable",
    "ISecondOrderGradientComputable",
]

TMetadata_co = TypeVar("TMetadata_co", covariant=True, default=ModelMetadata[np.float64])


@runtime_checkable
class IModel(Protocol[TInput_contra, TOutput, TMetadata_co]):
    """Something that can be trained and asked."""

    def Train(self, input: TInput_contra, expectedOutput: TOutput) -> None:
        """Fit to a set of examples."""
        ...

    def Predict(self, input: TInput_contra) -> TOutput:
        """The outputs for inputs."""
        ...

    def GetModelMetadata(self) -> TMetadata_co:
        """What is known about the model."""
        ...


@runtime_checkable
class IParameterizable(Protocol[T_co]):
    """Something with a flat vector of parameters."""

    @property
    def ParameterCount(self) -> int:
        """Length of the parameter vector."""
        ...

    def GetParameters(self) -> Array:
        """A copy of the parameters, shape (ParameterCount,), dtype T."""
        ...

    def SetParameters(self, parameters: Array) -> None:
        """Take these parameters in place of one's own."""
        ...

    def WithParameters(self, parameters: Array) -> Self:
        """A new model, equal but for these parameters."""
        ...


@runtime_checkable
class IModelSerializer(Protocol):
    """Something that can be put into bytes and files and taken out again."""

    def Serialize(self) -> bytes:
        """The model's state."""
        ...

    def Deserialize(self, data: bytes) -> None:
        """Take up a state that `Serialize` gave."""
        ...

    def SaveModel(self, filePath: str | os.PathLike[str]) -> None:
        """Write the state to a file."""
        ...

    def LoadModel(self, filePath: str | os.PathLike[str]) -> None:
        """Take up the state in a file."""
        ...


@runtime_checkable
class IFullModel(
    IModel[TInput_contra, TOutput, ModelMetadata[T]],
    IParameterizable[T],
    IModelSerializer,
    Protocol[T, TInput_contra, TOutput],
):
    """All that any algorithm needs at least; gradients are then estimated by simultaneous perturbation."""

    @property
    def DefaultLossFunction(self) -> ILossFunction[T]:
        """The loss to use where none is given."""
        ...

    def Clone(self) -> Self:
        """An independent copy."""
        ...


@runtime_checkable
class ICloneable(Protocol):
    """Something with independent copies; models of one's own need `Clone` alone."""

    def Clone(self) -> Self:
        """Return an independent copy."""
        ...

    def DeepCopy(self) -> Self:
        """Return an independent copy."""
        ...


@runtime_checkable
class IGradientComputable(Protocol[T_co, TInput_contra, TOutput_contra]):
    """A model that knows the gradient of its loss; curvature products are then differences of gradients."""

    def ComputeGradients(
        self, input: TInput_contra, target: TOutput_contra, lossFunction: ILossFunction[Any] | None = None
    ) -> Array:
        """The gradient of the loss with respect to the parameters, shape (ParameterCount,)."""
        ...


@runtime_checkable
class ISecondOrderGradientComputable(
    IGradientComputable[T_co, TInput_contra, TOutput_contra], Protocol[T_co, TInput_contra, TOutput_contra]
):
    """A model that knows MAML's meta-gradient; MAML asks it instead of going back through the steps itself."""

    def ComputeSecondOrderGradients(
        self,
        adaptationSteps: Sequence[tuple[TInput_contra, TOutput_contra]],
        queryInput: TInput_contra,
        queryTarget: TOutput_contra,
        lossFunction: ILossFunction[Any],
        innerLearningRate: float,
    ) -> Array:
        """Return the gradient of the query loss after some steps, with respect to the parameters before them.

        Parameters
        ----------
        adaptationSteps : sequence of (input, target)
            The set of each step of gradient descent, in order.
        queryInput, queryTarget : array
            The set of the query loss.
        lossFunction : ILossFunction
            The loss of the steps and of the query set.
        innerLearningRate : float
            The rate of the steps.

        Returns
        -------
        array, shape (ParameterCount,)
        """
        ...


@runtime_checkable
class IDifferentiableModel(IFullModel[T, TInput_contra, TOutput], Protocol[T, TInput_contra, TOutput]):
    """A pure function of parameters and input that the engine traces: exact gradients and curvature products.

    `parameter_shapes` says how the flat vector falls into named arrays; `apply` is array code on them. A model may have
    ``noise_shapes(parameters, x)`` beside them, as layers have: it is then given noise in training steps; and a
    ``dtype``, that of its parameters, which saves copying them to ask.
    """

    @property
    def backend(self) -> Backend:
        """Where the parameters live, and the computations run."""
        ...

    @property
    def parameter_shapes(self) -> Mapping[str, tuple[int, ...]]:
        """The named arrays that the parameter vector holds, in C order one after another."""
        ...

    def apply(self, parameters: Mapping[str, Array], x: Array) -> Array:
        """The outputs for inputs, in array code."""
        ...

    def check_array(self, array: Any, name: str) -> None:
        """Raise ArgumentException, naming ``name``, for an array of another backend or floating dtype."""
        ...

    def check_input(self, input: Any, name: str) -> None:
        """Raise ArgumentException, naming ``name``, when the model cannot take such an input."""
        ...


@runtime_checkable
class INormalizedModel(Protocol[TInput_contra]):
    """A model that can normalise by the statistics of given examples instead of those of the batch in hand."""

    def with_statistics_of(self, input: TInput_contra) -> Self:
        """A new model that normalises by the statistics of these examples, whatever it is asked about together."""
        ...


def parameter_dtype(model: IFullModel[Any, Any, Any], backend: Backend) -> np.dtype[Any]:
    """The dtype of the model's parameters on a backend, without a copy of them where the model has a ``dtype``."""
    # A model of the user's own may mean something else by the name.
    dtype: object = getattr(model, "dtype", None)
    # pyright tells the type parameter of a dtype from an object as unknown.
    return dtype if isinstance(dtype, np.dtype) else backend.dtype_of(model.GetParameters())  # pyright: ignore[reportUnknownVariableType]
