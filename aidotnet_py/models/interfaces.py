"""The interfaces of models, from the least to the most capable."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np
from typing_extensions import TypeVar

from aidotnet_py.backends import Array, Backend
from aidotnet_py.losses import ILossFunction
from aidotnet_py.models.metadata import ModelMetadata
from aidotnet_py.type_parameters import T, T_co, TInput, TInput_contra, TOutput, TOutput_contra

__all__ = [
    "ICloneable",
    "IDifferentiableModel",
    "IFullModel",
    "IFullModelOf",
    "IGradientComputable",
    "IModel",
    "IModelSerializer",
    "INormalizedModel",
    "IParameterizable",
    "ISecondOrderGradientComputable",
    "TModel_co",
]

TMetadata_co = TypeVar("TMetadata_co", covariant=True, default=ModelMetadata[np.float64])


@runtime_checkable
class IModel(Protocol[TInput_contra, TOutput, TMetadata_co]):
    """A model with training and predictions."""

    def Train(self, input: TInput_contra, expectedOutput: TOutput) -> None:
        """Fit to a set of examples."""
        ...

    def Predict(self, input: TInput_contra) -> TOutput:
        """Return the outputs for inputs."""
        ...

    def GetModelMetadata(self) -> TMetadata_co:
        """Return the model's metadata."""
        ...


@runtime_checkable
class IParameterizable(Protocol[T_co]):
    """A model with a flat vector of parameters."""

    @property
    def ParameterCount(self) -> int:
        """Length of the parameter vector."""
        ...

    def GetParameters(self) -> Array:
        """Return a copy of the parameters, shape (ParameterCount,), dtype T."""
        ...

    def SetParameters(self, parameters: Array) -> None:
        """Replace the model's parameters."""
        ...

    def WithParameters(self, parameters: Array) -> Self:
        """Return a new model that differs only in its parameters."""
        ...


@runtime_checkable
class IModelSerializer(Protocol):
    """A model that can be written to bytes and files, and read from them."""

    def Serialize(self) -> bytes:
        """Return the model's state."""
        ...

    def Deserialize(self, data: bytes) -> None:
        """Load a state that `Serialize` returned."""
        ...

    def SaveModel(self, filePath: str | os.PathLike[str]) -> None:
        """Write the state to a file."""
        ...

    def LoadModel(self, filePath: str | os.PathLike[str]) -> None:
        """Load the state in a file."""
        ...


@runtime_checkable
class IFullModel(
    IModel[TInput_contra, TOutput, ModelMetadata[T]],
    IParameterizable[T],
    IModelSerializer,
    Protocol[T, TInput_contra, TOutput],
):
    """The least that an algorithm needs; gradients are estimated by simultaneous perturbation."""

    @property
    def DefaultLossFunction(self) -> ILossFunction[T]:
        """The loss that applies if none is given."""
        ...

    def Clone(self) -> Self:
        """Return an independent copy."""
        ...


# The class of a learner's model; annotations with three type parameters leave it open.
TModel_co = TypeVar(
    "TModel_co", bound=IFullModel[Any, Any, Any], covariant=True, default=IFullModel[T, TInput, TOutput]
)
_Own_co = TypeVar("_Own_co", covariant=True, default=Any)


class IFullModelOf(IFullModel[T, TInput_contra, TOutput], Protocol[T, TInput_contra, TOutput, _Own_co]):
    """An `IFullModel` with its class as a type parameter, which checkers infer from the result of WithParameters."""

    def WithParameters(self, parameters: Array) -> _Own_co:  # type: ignore[override]
        """See `IParameterizable`."""
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
    """A model that computes the gradient of its loss; curvature products are differences of gradients."""

    def ComputeGradients(
        self, input: TInput_contra, target: TOutput_contra, lossFunction: ILossFunction[Any] | None = None
    ) -> Array:
        """Return the gradient of the loss with respect to the parameters, shape (ParameterCount,)."""
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
    """A pure function of parameters and input, traced by the engine: exact gradients and curvature products.

    `parameter_shapes` describes the named arrays in the flat vector; `apply` is array code on them. Two members are
    optional: ``noise_shapes(parameters, x)``, as in layers, requests noise in training steps, and ``dtype``, the dtype
    of the parameters, saves a copy of them.
    """

    @property
    def backend(self) -> Backend:
        """The backend of parameters and computations."""
        ...

    @property
    def parameter_shapes(self) -> Mapping[str, tuple[int, ...]]:
        """The shapes of the named arrays in the parameter vector, concatenated in C order."""
        ...

    def apply(self, parameters: Mapping[str, Array], x: Array) -> Array:
        """Compute the outputs for inputs, in array code."""
        ...

    def check_array(self, array: Any, name: str) -> None:
        """Raise ArgumentException, naming ``name``, for an array of another backend or floating dtype."""
        ...

    def check_input(self, input: Any, name: str) -> None:
        """Raise ArgumentException, naming ``name``, when the model cannot take such an input."""
        ...


@runtime_checkable
class INormalizedModel(Protocol[TInput_contra]):
    """A model that can normalise by the statistics of given examples instead of the current batch's."""

    def with_statistics_of(self, input: TInput_contra) -> Self:
        """Return a new model that always normalises by the statistics of these examples, not of the current batch."""
        ...


def parameter_dtype(model: IFullModel[Any, Any, Any], backend: Backend) -> np.dtype[Any]:
    """Return the dtype of the model's parameters on a backend; without a copy if the model has a ``dtype``."""
    # In a user's model, the name may mean something else.
    dtype: object = getattr(model, "dtype", None)
    # pyright reports the type parameter of a dtype narrowed from object as unknown.
    return dtype if isinstance(dtype, np.dtype) else backend.dtype_of(model.GetParameters())  # pyright: ignore[reportUnknownVariableType]
