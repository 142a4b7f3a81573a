"""A model made of a function of parameters and input."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Hashable, Mapping
from datetime import UTC, datetime
from typing import Any, Self, cast, overload

import numpy as np
from numpy.typing import NDArray

from aidotnet_py.archives import pack, read_file, unpack, write_file
from aidotnet_py.autodiff import trace, value_and_grad
from aidotnet_py.autodiff.transformations import TracedProgram
from aidotnet_py.backends import Array, Backend, backend_of, get_backend
from aidotnet_py.exceptions import ArgumentException, ArgumentNullException
from aidotnet_py.losses import ILossFunction, MeanSquaredErrorLoss
from aidotnet_py.models.interfaces import IDifferentiableModel, IGradientComputable
from aidotnet_py.models.metadata import ModelMetadata
from aidotnet_py.optimizers import AdamOptimizer
from aidotnet_py.type_parameters import T, TInput, TOutput

__all__ = ["FunctionModel"]

Function = Callable[[Any, Any], Any]

# Each holds buffers for one input shape; the oldest goes when another shape comes.
_MOST_PROGRAMS = 8


class FunctionModel(IDifferentiableModel[T, TInput, TOutput], IGradientComputable[T, TInput, TOutput]):
    """A model from a function ``function(parameters, x)`` in array code, which the engine traces.

    Parameters
    ----------
    function : callable
        Takes a dict of arrays, named and shaped as ``parameters``, and an input; returns the output. Operators, NumPy
        functions and those of `aidotnet_py.autodiff` may be used.
    parameters : mapping of str to array
        The initial values. The parameter vector is their C-order ravel, in the mapping's order.
    loss : ILossFunction, optional
        The default loss; None: `MeanSquaredErrorLoss`.
    dtype : floating type, optional
        Of parameters and computations; None: that of the parameters.
    backend : str or Backend
        Where they live.

    Raises
    ------
    ArgumentNullException
        When the function or the parameters are None.
    ArgumentException
        When there are no parameters, or they are not of one floating dtype.

    Examples
    --------
    >>> import numpy as np
    >>> from aidotnet_py import FunctionModel
    >>> model = FunctionModel(lambda p, x: x @ p["w"], {"w": np.array([[1.0], [2.0]])})
    >>> model.Predict(np.array([[3.0, 4.0]]))
    array([[11.]])
    >>> model.GetParameters()
    array([1., 2.])
    """

    @overload
    def __init__(
        self,
        function: Function,
        parameters: Mapping[str, NDArray[T]],
        loss: ILossFunction[Any] | None = None,
        dtype: None = None,
        backend: str | Backend = "numpy",
    ) -> None: ...

    @overload
    def __init__(
        self,
        function: Function,
        parameters: Mapping[str, Array],
        loss: ILossFunction[Any] | None = None,
        *,
        dtype: type[T],
        backend: str | Backend = "numpy",
    ) -> None: ...

    def __init__(
        self,
        function: Function,
        parameters: Mapping[str, Array],
        loss: ILossFunction[Any] | None = None,
        dtype: type[T] | None = None,
        backend: str | Backend = "numpy",
    ) -> None:
        if function is None:  # pyright: ignore[reportUnnecessaryComparison] -- callers may be untyped
            raise ArgumentNullException("function is None; a function of parameters and input is wanted")
        if parameters is None:  # pyright: ignore[reportUnnecessaryComparison] -- callers may be untyped
            raise ArgumentNullException("parameters is None; a mapping from names to arrays is wanted")
        self._function = function
        self._backend = get_backend(backend)
        self._dtype = _common_dtype(parameters, dtype)
        self._shapes = {name: tuple(np.shape(_host(value))) for name, value in parameters.items()}
        self._loss: ILossFunction[T] = MeanSquaredErrorLoss() if loss is None else loss
        host = np.concatenate([np.ravel(_host(value)) for value in parameters.values()])
        self._parameters: Array = self._backend.asarray(host, self._dtype)
        self._metadata: ModelMetadata[T] = ModelMetadata(Name=self._name(), Complexity=self.ParameterCount)
        self._optimizer = AdamOptimizer(0.001)
        # Programs by the input's type, shared by all models of this function.
        self._programs: dict[Any, TracedProgram] = {}

    def _name(self) -> str:
        return getattr(self._function, "__name__", type(self._function).__name__)

    @property
    def backend(self) -> Backend:
        """Where the parameters live, and the computations run."""
        return self._backend

    @property
    def parameter_shapes(self) -> Mapping[str, tuple[int, ...]]:
        """The named arrays that the parameter vector holds, in C order one after another."""
        return self._shapes

    @property
    def ParameterCount(self) -> int:
        """Length of the parameter vector."""
        return sum(math.prod(shape) for shape in self._shapes.values())

    @property
    def DefaultLossFunction(self) -> ILossFunction[T]:
        """The loss to use where none is given."""
        return self._loss

    def apply(self, parameters: Mapping[str, Array], x: Array) -> Array:
        """The outputs for inputs, in array code."""
        return self._function(parameters, x)

    def check_array(self, array: Any, name: str) -> None:
        """Raise ArgumentException when ``array`` is not an array of the model's backend and dtype.

        Integers and booleans pass: they are labels, or what the function makes of them.
        """
        if not self._backend.owns(array):
            owner = backend_of(array)
            found = type(array).__name__ if owner is None else f"an array on backend {owner.name!r}"
            raise ArgumentException(f"{name} is {found}; the model computes on backend {self._backend.name!r}")
        dtype = self._backend.dtype_of(array)
        if dtype.kind not in "biu" and dtype != self._dtype:
            raise ArgumentException(f"{name} has dtype {dtype}; the model computes in {self._dtype}")

    def check_input(self, input: Any, name: str = "input") -> None:
        """Raise ArgumentException when the model cannot take ``input``; what shapes it takes, the function says."""
        self.check_array(input, name)

    def GetParameters(self) -> Array:
        """A copy of the parameters, shape (ParameterCount,)."""
        return self._backend.asarray(self._parameters)

    def SetParameters(self, parameters: Array) -> None:
        """Take these parameters in place of one's own.

        Raises
        ------
        ArgumentException
            When they are not a vector of the model's length, dtype and backend.
        """
        self.check_array(parameters, "parameters")
        dtype = self._backend.dtype_of(parameters)
        if tuple(parameters.shape) != (self.ParameterCount,) or dtype != self._dtype:
            raise ArgumentException(
                f"parameters is {dtype}{tuple(parameters.shape)}; the model has {self._dtype}({self.ParameterCount},)"
            )
        self._parameters = self._backend.asarray(parameters)

    def WithParameters(self, parameters: Array) -> Self:
        """A new model, equal but for these parameters."""
        other = self.Clone()
        other.SetParameters(parameters)
        return other

    def Clone(self) -> Self:
        """An independent copy; only the function and what was traced of it are shared."""
        other = type(self).__new__(type(self))
        other.__dict__.update(self.__dict__)
        other._parameters = self.GetParameters()
        other._metadata = ModelMetadata(**self._metadata.__dict__)
        other._metadata.Properties = dict(self._metadata.Properties)
        other._metadata.AdditionalInfo = dict(self._metadata.AdditionalInfo)
        other._optimizer = self._optimizer.fresh()
        return other

    def To(self, backend: str | Backend) -> Self:
        """The same model on another backend."""
        other = self.Clone()
        other._backend = get_backend(backend)
        other._parameters = other._backend.asarray(self._backend.to_numpy(self._parameters))
        other._programs = {}
        return other

    def _unravel(self, vector: Array) -> dict[str, Array]:
        arrays: dict[str, Array] = {}
        start = 0
        for name, shape in self._shapes.items():
            stop = start + math.prod(shape)
            arrays[name] = vector[start:stop].reshape(shape)
            start = stop
        return arrays

    def _program(self, key: Hashable, function: Callable[..., Any], *examples: Array) -> TracedProgram:
        types = (key, *((tuple(e.shape), self._backend.dtype_of(e)) for e in examples))
        program = self._programs.get(types)
        if program is None:
            if len(self._programs) >= _MOST_PROGRAMS:
                self._programs.pop(next(iter(self._programs)))
            program = self._programs[types] = trace(function, *examples)
        return program

    def Predict(self, input: TInput) -> TOutput:
        """The outputs for inputs.

        Raises
        ------
        ArgumentException
            When the input has another dtype or backend, or a shape that the function cannot take.
        """
        self.check_input(input)
        vector = self._parameters
        program = self._program("predict", lambda v, x: self.apply(self._unravel(v), x), vector, input)
        return cast(TOutput, program(vector, input))

    def Train(self, input: TInput, expectedOutput: TOutput) -> None:
        """One step of Adam (rate 0.001) on the default loss of the whole set; calls remember past gradients.

        Raises
        ------
        ArgumentException
            When input and expected output do not fit the model or each other.
        """
        gradient = self.ComputeGradients(input, expectedOutput)
        self._parameters = self._optimizer.UpdateParameters(self._parameters, gradient)
        self._metadata.TrainingDate = datetime.now(UTC)

    def ComputeGradients(self, input: TInput, target: TOutput, lossFunction: ILossFunction[T] | None = None) -> Array:
        """The gradient of the loss with respect to the parameters, shape (ParameterCount,).

        Raises
        ------
        ArgumentException
            When input and target do not fit the model or each other.
        """
        loss = lossFunction or self._loss
        self.check_input(input)
        self.check_array(target, "target")
        vector = self._parameters
        program = self._program("predict", lambda v, x: self.apply(self._unravel(v), x), vector, input)
        loss.validate(program.output_types[0].shape, target, "target")
        gradient = self._program(
            ("gradient", loss),
            value_and_grad(lambda v, x, y: loss.formula(self.apply(self._unravel(v), x), y)),
            vector,
            input,
            target,
        )
        return gradient(vector, input, target)[1]

    def GetModelMetadata(self) -> ModelMetadata[T]:
        """What is known about the model."""
        return self._metadata

    def Serialize(self) -> bytes:
        """The parameters by name, as a safetensors file in memory."""
        host = self._backend.to_numpy(self._parameters)
        return pack("model", self._unravel(host), {"name": self._metadata.Name})

    def Deserialize(self, data: bytes) -> None:
        """Take up parameters that `Serialize` gave.

        Raises
        ------
        ArgumentException
            When the bytes are no such file, or hold other names, shapes or dtypes than the model's.
        """
        self._load(data, "data")

    def _load(self, data: bytes, source: str) -> None:
        arrays, _ = unpack("model", data, source)
        found = {name: (arrays[name].shape, arrays[name].dtype) for name in arrays}
        wanted = {name: (shape, self._dtype) for name, shape in self._shapes.items()}
        if found != wanted:
            odd = sorted(name for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name))
            raise ArgumentException(
                f"{source} has {found.get(odd[0], 'no array')} for parameter {odd[0]!r}; the model has "
                f"{wanted.get(odd[0], 'no such parameter')}"
            )
        host = np.concatenate([arrays[name].ravel() for name in self._shapes])
        self._parameters = self._backend.asarray(host)

    def SaveModel(self, filePath: str | os.PathLike[str]) -> None:
        """Write the parameters to a safetensors file, whole or not at all."""
        write_file(filePath, self.Serialize())

    def LoadModel(self, filePath: str | os.PathLike[str]) -> None:
        """Take up the parameters in a file; see `Deserialize`."""
        self._load(read_file(filePath), str(filePath))


def _host(value: Array) -> NDArray[Any]:
    owner = backend_of(value)
    return np.asarray(value) if owner is None else owner.to_numpy(value)


def _common_dtype(parameters: Mapping[str, Array], dtype: Any) -> np.dtype[Any]:
    if not parameters:
        raise ArgumentException("parameters is empty; at least one array is wanted")
    found = {name: _host(value).dtype for name, value in parameters.items()}
    common = np.result_type(*found.values()) if dtype is None else np.dtype(dtype)
    if common.kind != "f" or (dtype is None and len(set(found.values())) > 1):
        shown = ", ".join(f"{name}: {kind}" for name, kind in found.items())
        raise ArgumentException(f"parameters have dtypes {shown}; one floating dtype is wanted, or dtype=")
    return common
