"""A model made of a function of parameters and input."""

from __future__ import annotations

import copy
import os
import sys
import warnings
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from types import FunctionType
from typing import Any, ClassVar, NamedTuple, Self, cast, overload

import numpy as np
from numpy.typing import NDArray

from aidotnet_py.archives import check_file_name, read_file, write_file
from aidotnet_py.arguments import argument_in, array_hint, check_given, refusal
from aidotnet_py.autodiff import value_and_grad
from aidotnet_py.autodiff.extend import is_array, type_of
from aidotnet_py.backends import Array, Backend, adopt, backend_of, get_backend, to_host
from aidotnet_py.caller import is_called_from, level_outside
from aidotnet_py.descriptions import Described
from aidotnet_py.exceptions import ArgumentException, InvalidOperationException
from aidotnet_py.keywords import suggests_keywords
from aidotnet_py.known_attributes import KnownAttributes
from aidotnet_py.locks import Lock
from aidotnet_py.losses import ILossFunction, MeanSquaredErrorLoss
from aidotnet_py.losses.interface import labels_hint
from aidotnet_py.models.interfaces import IDifferentiableModel, IGradientComputable
from aidotnet_py.models.metadata import ModelMetadata
from aidotnet_py.models.model_file import describe_for_file, pack_model, unpack_model
from aidotnet_py.models.named_arrays import FLOATING, convert_arrays, ravel_arrays
from aidotnet_py.models.noise import draw_noise, noise_shapes
from aidotnet_py.models.passes import Prediction, loss_of, trace_prediction, trace_statistics
from aidotnet_py.models.program_cache import ProgramCache
from aidotnet_py.models.raw_data import take_raw_data
from aidotnet_py.models.statistics import check_statistics, warn_of_few_examples
from aidotnet_py.models.summary import ModelSummary, array_rows
from aidotnet_py.optimizers import AdamOptimizer
from aidotnet_py.representations import concise_repr
from aidotnet_py.type_parameters import T, TInput, TOutput

__all__ = ["FunctionModel"]

Function = Callable[[Any, Any], Any]


class _Held(NamedTuple):
    """What a prediction depends on, read and replaced in one piece: other threads may change the model meanwhile.

    The arrays are never written into.

    Attributes
    ----------
    parameters : array, shape (ParameterCount,)
        The parameters.
    statistics : dict
        Means and variances of `FunctionModel.with_statistics_of`, by name, for normalisation.
    """

    parameters: Array
    statistics: dict[str, Array]


class FunctionModel(
    KnownAttributes, IDifferentiableModel[T, TInput, TOutput], IGradientComputable[T, TInput, TOutput], Described
):
    """A model from a pure function ``function(parameters, x)`` in array code, which the engine traces.

    The function is traced for each type of input, then replayed: it must depend on its arguments alone. Random numbers
    in it are refused. It may read settings; it is traced again if a change of them is detected (docs/models.md).

    Parameters
    ----------
    function : callable
        A function of a dict of arrays, named and shaped as ``parameters``, and an input, to one array of outputs. It
        may use operators and functions of NumPy and `aidotnet_py.autodiff`.
    parameters : mapping of str to array
        The initial values. The parameter vector is their C-order ravel, in the mapping's order.
    loss : ILossFunction, optional
        The default loss; None: `MeanSquaredErrorLoss`.
    dtype : floating type, optional
        The dtype of parameters and computations; None: the parameters' own.
    backend : str or Backend
        The backend of parameters and computations.

    Raises
    ------
    ArgumentNullException
        When the function or the parameters are None.
    ArgumentException
        When the parameters have no number, or are not named arrays of one floating dtype.

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

    # The defaults that None stands for.
    _implied: ClassVar = {"loss": MeanSquaredErrorLoss}
    __repr__ = concise_repr

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

    @suggests_keywords(loss_function="loss", LossFunction="loss")
    def __init__(
        self,
        function: Function,
        parameters: Mapping[str, Array],
        loss: ILossFunction[Any] | None = None,
        dtype: type[T] | None = None,
        backend: str | Backend = "numpy",
    ) -> None:
        check_given("function", function, "a function of parameters and input")
        if not callable(function):
            raise ArgumentException(refusal("function", "a function of parameters and input", function))
        _check_loss("loss", loss)
        check_given("parameters", parameters, "a mapping from names to arrays")
        host, self._dtype = convert_arrays(parameters, dtype)
        self._function = function
        self._backend = get_backend(backend)
        self._shapes = {name: value.shape for name, value in host.items()}
        self._loss: ILossFunction[T] = MeanSquaredErrorLoss() if loss is None else loss
        self._hold(self._backend.asarray(ravel_arrays(host), self._dtype), {})
        self._metadata: ModelMetadata[T] = ModelMetadata(Name=self._name(), Complexity=self.ParameterCount)
        self._optimizer = AdamOptimizer(0.001)
        self._programs = ProgramCache(self._backend, self._function)
        self._noise_key = [0, 0]
        # Held while parameters or optimizer change: `Train` must update the parameters that it read.
        self._lock = Lock()

    @property
    def _parameters(self) -> Array:
        # By the argument's name, for `concise_repr`.
        return self._held.parameters

    def __getstate__(self) -> object:
        """Return the state, of which pickles hold the function by its name.

        Raises
        ------
        InvalidOperationException
            When `pickle` could not find the function by its name. Copies, and picklers that hold functions themselves,
            need no name.
        """
        function = self._function
        is_nameless = isinstance(function, FunctionType) and not _is_importable(function)
        if is_nameless and not is_called_from("copy", "cloudpickle", "dill"):
            raise InvalidOperationException(
                "function must be one that can be imported by its name for a FunctionModel to be pickled, got "
                f"{function.__qualname__} of {function.__module__}; define it at the top level of a module, or use "
                "cloudpickle"
            )
        return super().__getstate__()

    def _name(self) -> str:
        return getattr(self._function, "__name__", type(self._function).__name__)

    @property
    def backend(self) -> Backend:
        """The backend of parameters and computations."""
        return self._backend

    @property
    def parameter_shapes(self) -> Mapping[str, tuple[int, ...]]:
        """The shapes of the named arrays in the parameter vector, concatenated in C order."""
        return self._shapes

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of parameters and computations."""
        return self._dtype

    @property
    def ParameterCount(self) -> int:
        """Length of the parameter vector."""
        return int(self._parameters.shape[0])

    @property
    def DefaultLossFunction(self) -> ILossFunction[T]:
        """The loss that applies if none is given."""
        return self._loss

    def summary(self) -> ModelSummary:
        """Return a table of the parameters: names, shapes and sizes; it prints, and shows in a notebook.

        Examples
        --------
        >>> import numpy as np
        >>> from aidotnet_py import FunctionModel
        >>> def line(p, x):
        ...     return x @ p["w"] + p["b"]
        >>> FunctionModel(line, {"w": np.ones((3, 1)), "b": np.zeros(1)}).summary()
        line
        name  shape   parameters
        w     (3, 1)           3
        b     (1,)             1
        4 parameters, 32 bytes in float64
        """
        return ModelSummary(self._name(), array_rows(self._shapes), self._dtype.name)

    def apply(self, parameters: Mapping[str, Array], x: Array) -> Array:
        """Compute the outputs for inputs, in array code, in the model's dtype.

        Raises
        ------
        ArgumentException
            When the function returns anything but one floating array.
        """
        output = self._function(parameters, x)
        if not is_array(output):
            raise ArgumentException(f"the model's function must return one array, got a {type(output).__name__}")
        output_type = type_of(output)
        if not output_type.is_floating:
            raise ArgumentException(f"the model's function must return a floating array, got {output_type}")
        # By NumPy's rules, an integer input and float32 parameters give float64.
        return output if output_type.dtype == self._dtype else output.astype(self._dtype)

    def check_array(self, array: Any, name: str) -> None:
        """Raise ArgumentException when ``array`` is None or not an array of the model's backend and dtype.

        Integers and booleans pass: they may be labels.
        """
        check_given(name, array, "an array")
        if not self._backend.owns(array):
            owner = backend_of(array)
            kind = f"a {type(array).__name__}" if owner is None else f"one on backend {owner.name!r}"
            hint = array_hint(name, array) if owner is None else f"; move it, or use model.To({owner.name!r})"
            raise ArgumentException(
                f"{name} must be an array on the model's backend {self._backend.name!r}, got {kind}{hint}"
            )
        dtype = self._backend.dtype_of(array)
        if dtype.kind not in "biufc":
            raise ArgumentException(f"{name} must hold numbers, got dtype {dtype}{labels_hint(name, dtype.kind)}")
        if dtype.kind not in "biu" and dtype != self._dtype:
            remedy = f"; use {argument_in(name)}.astype(np.{self._dtype})" if dtype.kind == "f" else ""
            if dtype in FLOATING:
                remedy += f", or make the model with dtype=np.{dtype}"
            raise ArgumentException(f"{name} must have the model's dtype {self._dtype}, got {dtype}{remedy}")

    def check_input(self, input: Any, name: str = "input") -> None:
        """Raise ArgumentException when the model cannot take ``input``; only the function itself checks the shape."""
        self.check_array(input, name)

    def GetParameters(self) -> Array:
        """Return a copy of the parameters, shape (ParameterCount,)."""
        return self._backend.asarray(self._parameters)

    def SetParameters(self, parameters: Array) -> None:
        """Replace the model's parameters.

        Raises
        ------
        ArgumentException
            When they are not a vector of the model's length, dtype and backend.
        """
        copied = self._copy_parameters(parameters)
        with self._lock:
            self._hold(copied, self._held.statistics)

    def _copy_parameters(self, parameters: Any) -> Array:
        """Return a copy of a parameter vector, after its checks."""
        parameters = adopt(parameters, "parameters")
        self.check_array(parameters, "parameters")
        dtype = self._backend.dtype_of(parameters)
        if tuple(parameters.shape) != (self.ParameterCount,) or dtype != self._dtype:
            raise ArgumentException(
                f"parameters must be {self._dtype}({self.ParameterCount},) like the model's, got "
                f"{dtype}{tuple(parameters.shape)}"
            )
        return self._backend.asarray(parameters)

    def WithParameters(self, parameters: Array) -> Self:
        """Return a new model with other parameters and no training history; see `SetParameters`."""
        other = self.Clone()
        other.SetParameters(parameters)
        other._optimizer.Reset()
        return other

    def Clone(self) -> Self:
        """Return an independent copy, which shares only the function and its programs."""
        with self._lock:
            other = copy.copy(self)
            other._metadata = self._metadata.copy()
            other._optimizer = self._optimizer.fresh()
            other._optimizer.SetState(self._optimizer.GetState())
        other._lock = Lock()
        return other

    def DeepCopy(self) -> Self:
        """Return an independent copy; see `Clone`."""
        return self.Clone()

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        # Programs hold locks and buffers, which cannot be copied; the copy shares them.
        return self.Clone()

    def To(self, backend: str | Backend) -> Self:
        """Return the model on another backend, without its training history.

        Raises
        ------
        ArgumentException
            When no backend of that name is registered.
        """
        other = self.Clone()
        other._backend = get_backend(backend)
        to_numpy, asarray = self._backend.to_numpy, other._backend.asarray
        parameters, statistics = other._held
        moved = {name: asarray(to_numpy(value)) for name, value in statistics.items()}
        other._hold(asarray(to_numpy(parameters)), moved)
        other._optimizer.Reset()
        other._programs = ProgramCache(other._backend, other._function)
        return other

    @property
    def statistics(self) -> Mapping[str, Array]:
        """Copies of means and variances by name, such as ``1_batchnorm.mean``, that replace those of the batch.

        Empty unless `with_statistics_of`, `Adapt` or `set_statistics` gave the model some.
        """
        return {name: self._backend.asarray(value) for name, value in self._statistics.items()}

    def set_statistics(self, statistics: Mapping[str, Array], parameters: Array | None = None) -> None:
        """Normalise by these means and variances from now on; by those of the current batch where there are none.

        Parameters
        ----------
        statistics : mapping
            Means and variances by name, as `statistics` has them.
        parameters : array, shape (ParameterCount,), optional
            The parameters that they belong to, replaced with them: no other thread sees one without the other.

        Raises
        ------
        ArgumentException
            When they are not means and variances of the model's layers in pairs, of its dtype and finite, where
            variances of a float16 model may be float32; when the parameters are none, see `SetParameters`.
        """
        check_given("statistics", statistics, "a mapping from names to arrays")
        host = {name: to_host(value, f"statistics[{name!r}]") for name, value in statistics.items()}
        check_statistics(host, self._shapes, self._dtype, "statistics")
        kept = {name: self._backend.asarray(value) for name, value in host.items()}
        if parameters is not None:
            self._replace(self._copy_parameters(parameters), kept)
            return
        with self._lock:
            self._hold(self._held.parameters, kept)

    def _hold(self, parameters: Array, statistics: dict[str, Array]) -> None:
        self._held = _Held(parameters, statistics)
        # Apart from the parameters too: programs are traced anew when something changes that their code names, and
        # BatchNorm's names `statistics`.
        self._statistics = statistics

    def _replace(self, parameters: Array, statistics: dict[str, Array]) -> None:
        """Replace parameters and statistics in one piece, by way of `SetParameters` if a subclass has its own."""
        with self._lock:
            if type(self).SetParameters is not FunctionModel.SetParameters:
                self.SetParameters(parameters)
                parameters = self._parameters
            self._hold(parameters, statistics)

    def with_statistics_of(self, input: TInput) -> Self:
        """Return a new model that always normalises by the statistics of these examples, not of the current batch.

        Each `aidotnet_py.nn.BatchNorm` layer uses mean and variance of these examples at the model's parameters, in
        `Predict`, `ComputeGradients` and `Train`. They do not change with the parameters, and are copied and saved with
        the model.

        Parameters
        ----------
        input : array, (n, …)
            The examples, as for `Predict`.

        Raises
        ------
        ArgumentException
            When the model cannot take the input.

        Warns
        -----
        UserWarning
            When a layer still normalises by the current batch, because its scale is not a parameter of the model, or
            the layer is applied several times in a pass.

        Examples
        --------
        >>> import numpy as np
        >>> from aidotnet_py import NeuralNetworkModel
        >>> from aidotnet_py.nn import conv4
        >>> model = NeuralNetworkModel(conv4(2, filters=4), input_shape=(8, 8, 1), seed=0)
        >>> x = np.random.default_rng(0).random((20, 8, 8, 1), np.float32)
        >>> fixed = model.with_statistics_of(x[:10])
        >>> bool(np.allclose(fixed.Predict(x)[:1], fixed.Predict(x[:1]), atol=1e-5))
        True
        """
        # Of the copy, whose parameters no other thread changes meanwhile.
        other = self.Clone()
        other._keep_statistics_of(input)
        return other

    def _keep_statistics_of(self, input: TInput) -> None:
        """Normalise by the statistics of these examples from now on; see `with_statistics_of`."""
        input = adopt(input, "input")
        self.check_input(input)
        parameters = self._parameters
        program, names, unnamed = self._traced_programs.get_or_make(
            lambda: trace_statistics(self, parameters, input), "statistics", None, parameters, input
        )
        if unnamed:
            warnings.warn(
                f"{', '.join(unnamed)} must have a parameter of the model as scale, and take part once in a pass, for "
                "its statistics to be kept: it goes on with those of the batch in hand",
                UserWarning,
                stacklevel=level_outside(),
            )
        if names:
            self._hold(parameters, dict(zip(names, program(parameters, input), strict=True)))

    @property
    def _traced_programs(self) -> ProgramCache:
        """The programs, which copies share; an `apply` of a class of one's own may read what they have otherwise."""
        apply = self.apply
        is_own = getattr(apply, "__func__", None) is not FunctionModel.apply
        if is_own and self._programs.function != apply:
            self._programs = ProgramCache(self._backend, apply)
        return self._programs

    def _prediction(self, input: Any, held: _Held) -> Prediction:
        return self._traced_programs.get_or_make(
            lambda: trace_prediction(self, held.parameters, input, held.statistics),
            ("predict", tuple(held.statistics)),
            None,
            held.parameters,
            input,
        )

    def Predict(self, input: TInput) -> TOutput:
        """Return the outputs for inputs.

        Parameters
        ----------
        input : array, (n, …)
            On the model's backend, in its dtype, or integers.

        Returns
        -------
        array
            The function's outputs, in the model's dtype.

        Raises
        ------
        ArgumentException
            When the input has another dtype or backend, or a shape that the function cannot take.

        Warns
        -----
        UserWarning
            When `aidotnet_py.nn.BatchNorm` layers normalise by the statistics of very few examples.
        """
        input = adopt(input, "input")
        self.check_input(input)
        held = self._held
        program, layers = self._prediction(input, held)
        if layers:
            warn_of_few_examples(int(cast(Array, input).shape[0]), layers)
        return cast(TOutput, program(held.parameters, input, *held.statistics.values()))

    def Train(self, input: TInput, expectedOutput: TOutput) -> None:
        """Take a step of Adam (rate 0.001) on the default loss of the whole set; its state persists between calls.

        Dropout is active, with random numbers that depend on the model's seed and on the number of steps taken. An
        interrupt leaves parameters and optimizer state either both updated or both unchanged.

        Raises
        ------
        ArgumentException
            When input and expected output do not fit the model or each other; when a layer takes noise that the model
            does not name.
        InvalidOperationException
            When the loss, its gradient or the step's result is not finite; the model is then unchanged.
        """
        with self._lock:
            held, memory = self._held, self._optimizer.GetState()
            loss, gradient = self._loss_and_gradient(
                input, expectedOutput, "expectedOutput", self._loss, step=int(memory["steps"])
            )
            self._require_finite("loss is", loss)
            self._require_finite("gradient of the loss is", gradient)
            try:
                new = self._optimizer.UpdateParameters(self._parameters, gradient)
                self._require_finite("new parameters are", new)
                # An infinite second moment would make this step and all later ones 0.
                state = self._optimizer.GetState()
                for name in self._optimizer.memory:
                    self._require_finite(f"{name} of the optimizer is", state[name])
                self._hold(new, self._held.statistics)
            except BaseException:
                # An interrupt may come when the parameters are there already: after the assignment that moves them.
                if self._held is held:
                    self._optimizer.SetState(memory)
                raise
            self._metadata.TrainingDate = datetime.now(UTC)

    def _require_finite(self, subject: str, values: Array) -> None:
        if not np.isfinite(self._backend.to_numpy(values)).all():
            raise InvalidOperationException(f"the {subject} not finite; nothing was changed")

    def ComputeGradients(self, input: TInput, target: TOutput, lossFunction: ILossFunction[Any] | None = None) -> Array:
        """Return the gradient of the loss with respect to the parameters, shape (ParameterCount,).

        Parameters
        ----------
        input, target : array, (n, …)
            On the model's backend, in its dtype, or integers.
        lossFunction : ILossFunction, optional
            None: the default loss.

        Raises
        ------
        ArgumentException
            When input and target do not fit the model or each other.
        """
        _check_loss("lossFunction", lossFunction)
        loss = self._loss if lossFunction is None else lossFunction
        return self._loss_and_gradient(input, target, "target", loss)[1]

    def _noise_of_step(self, x: Any, step: int) -> dict[str, Array]:
        """Return the noise that `Train` passes to `apply` after ``step`` steps, by name."""
        shapes = self._traced_programs.get_or_make(lambda: noise_shapes(self, type_of(x)), "noise", None, x)
        if not shapes:
            return {}
        drawn = draw_noise(self._noise_key, step, shapes, self._dtype)
        return {name: self._backend.asarray(value) for name, value in drawn.items()}

    def _loss_and_gradient(
        self, x: Any, y: Any, name: str, loss: ILossFunction[Any], step: int | None = None
    ) -> tuple[Array, Array]:
        """Return loss and gradient at the parameters, with the noise of a step of `Train` if it is given."""
        x, y = adopt(x, "input"), adopt(y, name)
        self.check_input(x)
        self.check_array(y, name)
        held = self._held
        loss.validate(self._prediction(x, held).program.output_types[0].shape, y, name)
        beside = {**held.statistics, **({} if step is None else self._noise_of_step(x, step))}
        role, arguments = ("gradient", tuple(beside)), (held.parameters, x, y, *beside.values())
        cost = value_and_grad(loss_of(self, loss, tuple(beside)))
        program = self._traced_programs.program(cost, role, loss, *arguments)
        value, gradient = program(*arguments)
        return value, gradient

    def GetModelMetadata(self) -> ModelMetadata[T]:
        """Return the model's metadata."""
        return self._metadata

    def settings(self) -> dict[str, Any]:
        """Return the model's description for files: names and shapes of parameters, name of the function, loss."""
        parameters = [[name, list(shape)] for name, shape in self._shapes.items()]
        return {"parameters": parameters, "function": self._function, "loss": self._loss}

    def Serialize(self) -> bytes:
        """Return a file of the parameters by name, statistics if there are any, and a description; see docs/files.md.

        Returns
        -------
        bytes
            A safetensors file in memory.

        Raises
        ------
        InvalidOperationException
            When a parameter is not finite.
        """
        with self._lock:
            held, description = self._held, describe_for_file(self, self._metadata.Name)
        statistics = {name: self._backend.to_numpy(value) for name, value in held.statistics.items()}
        return pack_model(self._backend.to_numpy(held.parameters), self._shapes, statistics, description)

    def Deserialize(self, data: bytes) -> None:
        """Load parameters by name, and statistics if there are any, from bytes that `Serialize` returned.

        Of the properties, ``"encoding"`` and ``"classes"`` go with the parameters; `aidotnet_py.load` takes up
        all of them.

        Raises
        ------
        ArgumentException
            When the bytes are no such file or are damaged, a parameter is not finite, or names, shapes, dtypes or
            layers differ from the model's; the message lists all differences, and the model is unchanged.

        Warns
        -----
        UserWarning
            When the file's model had another loss, input shape or function name; when version 0.1.0, which wrote no
            checksums, wrote the file.
        """
        self._load(data, "data")

    def _load(self, data: bytes, source: str) -> None:
        file = unpack_model(self, data, source)
        kept = {name: self._backend.asarray(value) for name, value in file.statistics.items()}
        with self._lock:
            self._replace(self._backend.asarray(file.parameters), kept)
            take_raw_data(self, file.properties)

    def SaveModel(self, filePath: str | os.PathLike[str]) -> None:
        """Write `Serialize` to a file, completely or not at all.

        Raises
        ------
        ArgumentException
            When the folder does not exist, the path is not a regular file, or its ending is that of another format.
        InvalidOperationException
            When a parameter is not finite.
        OSError
            When the file cannot be written; an older file of that name is then intact.
        """
        check_file_name("filePath", filePath)
        write_file(filePath, self.Serialize())

    def LoadModel(self, filePath: str | os.PathLike[str]) -> None:
        """Load the parameters in a file; see `Deserialize`."""
        self._load(read_file(filePath), str(filePath))


def _is_importable(function: FunctionType) -> bool:
    """Return whether the name of a function leads to it."""
    value: object = sys.modules.get(function.__module__)
    for name in function.__qualname__.split("."):
        value = getattr(value, name, None)
    return value is function


def _check_loss(name: str, loss: object) -> None:
    """Refuse anything but None and objects with the members of a loss, which classes of losses have too."""
    if loss is not None and (isinstance(loss, type) or not isinstance(loss, ILossFunction)):
        raise ArgumentException(refusal(name, "an object of an ILossFunction class", loss))
