"""A model made of a function of parameters and input."""

from __future__ import annotations

import copy
import math
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from types import FunctionType
from typing import Any, ClassVar, Self, cast, overload

import numpy as np
from numpy.typing import NDArray

from aidotnet_py.archives import pack, read_file, unpack, write_file
from aidotnet_py.arguments import check_given, conversion_hint
from aidotnet_py.autodiff import value_and_grad
from aidotnet_py.autodiff.extend import TracedProgram, is_array, trace_pure, type_of
from aidotnet_py.backends import Array, Backend, backend_of, get_backend
from aidotnet_py.caller import is_called_from, level_outside
from aidotnet_py.descriptions import Described, join_clauses
from aidotnet_py.exceptions import ArgumentException, ArgumentNullException, InvalidOperationException
from aidotnet_py.locks import Lock
from aidotnet_py.losses import ILossFunction, MeanSquaredErrorLoss
from aidotnet_py.models.comparison import compare_models, describe_model, parameter_clauses
from aidotnet_py.models.interfaces import IDifferentiableModel, IGradientComputable
from aidotnet_py.models.metadata import ModelMetadata
from aidotnet_py.models.noise import draw_noise, noise_shapes
from aidotnet_py.models.program_cache import ProgramCache
from aidotnet_py.nn.statistics import PassStatistics
from aidotnet_py.optimizers import AdamOptimizer
from aidotnet_py.representations import concise_repr
from aidotnet_py.type_parameters import T, TInput, TOutput

__all__ = ["FunctionModel"]

Function = Callable[[Any, Any], Any]

# Those that every backend computes in and safetensors can hold.
_FLOATING = tuple(np.dtype(name) for name in ("float16", "float32", "float64"))

# What the names of statistics begin with in files; parameters are named by code, in which no colon stands.
_STATISTICS = "statistics: "

# On digits, groups of 2 normalised together lose 30 points of accuracy, of 3 twenty, of 5 ten, of 10 four.
_FEW_EXAMPLES = 5


class FunctionModel(IDifferentiableModel[T, TInput, TOutput], IGradientComputable[T, TInput, TOutput], Described):
    """A model from a pure function ``function(parameters, x)`` in array code, which the engine traces.

    It is run a few times for each type of input, when it is traced, and what it did is replayed: it must depend
    on its arguments alone. Random numbers in it are refused; settings that it reads and that change later are heeded,
    as far as they can be noticed (docs/models.md).

    Parameters
    ----------
    function : callable
        Takes a dict of arrays, named and shaped as ``parameters``, and an input; returns one array of outputs.
        Operators, NumPy functions and those of `aidotnet_py.autodiff` may be used.
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
        When there are no parameters, or they are not named arrays of one floating dtype.

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

    # The classes of arguments that stand for None.
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
        if not callable(function):
            raise ArgumentException(f"function is {function!r}; a function of parameters and input is wanted")
        if isinstance(loss, (type, str)):
            raise ArgumentException(f"loss is {loss!r}; an object of an ILossFunction class is wanted")
        if parameters is None:  # pyright: ignore[reportUnnecessaryComparison] -- callers may be untyped
            raise ArgumentNullException("parameters is None; a mapping from names to arrays is wanted")
        host, self._dtype = _checked_parameters(parameters, dtype)
        self._function = function
        self._backend = get_backend(backend)
        self._shapes = {name: value.shape for name, value in host.items()}
        self._loss: ILossFunction[T] = MeanSquaredErrorLoss() if loss is None else loss
        flat = np.concatenate([value.ravel() for value in host.values()])
        self._parameters: Array = self._backend.asarray(flat, self._dtype)
        self._metadata: ModelMetadata[T] = ModelMetadata(Name=self._name(), Complexity=self.ParameterCount)
        self._optimizer = AdamOptimizer(0.001)
        self._programs = ProgramCache(self._backend, self._function)
        self._noise_key = [0, 0]
        # Of `with_statistics_of`: means and variances by name, which Predict normalises by.
        self._statistics: dict[str, Array] = {}
        # Held by what changes parameters or optimizer: a step of `Train` goes from the parameters that it read.
        self._lock = Lock()

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
        """Where the parameters live, and the computations run."""
        return self._backend

    @property
    def parameter_shapes(self) -> Mapping[str, tuple[int, ...]]:
        """The named arrays that the parameter vector holds, in C order one after another."""
        return self._shapes

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of the parameters, in which the model computes."""
        return self._dtype

    @property
    def ParameterCount(self) -> int:
        """Length of the parameter vector."""
        return sum(math.prod(shape) for shape in self._shapes.values())

    @property
    def DefaultLossFunction(self) -> ILossFunction[T]:
        """The loss to use where none is given."""
        return self._loss

    def apply(self, parameters: Mapping[str, Array], x: Array) -> Array:
        """The outputs for inputs, in array code, in the model's dtype.

        Raises
        ------
        ArgumentException
            When the function returns anything but one floating array.
        """
        output = self._function(parameters, x)
        if not is_array(output):
            raise ArgumentException(f"the model's function returned a {type(output).__name__}; one array is wanted")
        found = type_of(output)
        if not found.is_floating:
            raise ArgumentException(f"the model's function returned {found}; a floating array is wanted")
        # An integer input beside float32 parameters makes float64, by NumPy's rules.
        return output if found.dtype == self._dtype else output.astype(self._dtype)

    def check_array(self, array: Any, name: str) -> None:
        """Raise ArgumentException when ``array`` is None or not an array of the model's backend and dtype.

        Integers and booleans pass: they are labels, or what the function makes of them.
        """
        check_given(name, array, "an array")
        if not self._backend.owns(array):
            owner = backend_of(array)
            found = f"a {type(array).__name__}" if owner is None else f"an array on backend {owner.name!r}"
            hint = conversion_hint(name, array)
            raise ArgumentException(
                f"{name} is {found}; the model takes arrays on backend {self._backend.name!r}{hint}"
            )
        dtype = self._backend.dtype_of(array)
        if dtype.kind not in "biufc":
            raise ArgumentException(
                f"{name} must hold numbers, got dtype {dtype}; labels are numbered from 0, as by "
                "np.unique(labels, return_inverse=True)[1]"
            )
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
        with self._lock:
            self._parameters = self._backend.asarray(parameters)

    def WithParameters(self, parameters: Array) -> Self:
        """A new model, equal but for these parameters, which `Train` has not touched yet; see `SetParameters`."""
        other = self.Clone()
        other.SetParameters(parameters)
        other._optimizer.Reset()
        return other

    def Clone(self) -> Self:
        """An independent copy; only the function and what was traced of it are shared."""
        with self._lock:
            other = copy.copy(self)
            other._parameters = self.GetParameters()
            other._metadata = self._metadata.copy()
            other._optimizer = self._optimizer.fresh()
            other._optimizer.SetState(self._optimizer.GetState())
        other._lock = Lock()
        return other

    def DeepCopy(self) -> Self:
        """Return an independent copy; see `Clone`."""
        return self.Clone()

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        # Programs hold locks and buffers, which cannot be copied and need not be.
        return self.Clone()

    def To(self, backend: str | Backend) -> Self:
        """The same model on another backend, which `Train` has not touched yet.

        Raises
        ------
        ArgumentException
            When no backend of that name is registered.
        """
        other = self.Clone()
        other._backend = get_backend(backend)
        to_numpy, asarray = self._backend.to_numpy, other._backend.asarray
        other._parameters = asarray(to_numpy(self._parameters))
        other._statistics = {name: asarray(to_numpy(value)) for name, value in self._statistics.items()}
        other._optimizer.Reset()
        other._programs = ProgramCache(other._backend, other._function)
        return other

    def _unravel(self, vector: Array) -> dict[str, Array]:
        arrays: dict[str, Array] = {}
        start = 0
        for name, shape in self._shapes.items():
            stop = start + math.prod(shape)
            arrays[name] = vector[start:stop].reshape(shape)
            start = stop
        return arrays

    def with_statistics_of(self, input: TInput) -> Self:
        """A new model that normalises by the statistics of these examples, whatever it is asked about together.

        Each `aidotnet_py.nn.BatchNorm` layer takes mean and variance of these examples at the model's parameters, in
        `Predict`, `ComputeGradients` and `Train`. They stay as they are when parameters change, and are copied and
        saved with the model.

        Parameters
        ----------
        input : array, (n, …)
            As for `Predict`.

        Raises
        ------
        ArgumentException
            When the model cannot take the input.

        Warns
        -----
        UserWarning
            When a layer goes on with the batch in hand, since its scale is no parameter of the model, or it takes part
            several times in a pass.

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
        self.check_input(input)
        names, unnamed, program = self._programs.get_or_make(
            lambda: self._statistics_program(input), "statistics", None, self._parameters, input
        )
        if unnamed:
            warnings.warn(
                f"{', '.join(unnamed)} must have a parameter of the model as scale, and take part once in a pass, for "
                "its statistics to be kept: it goes on with those of the batch in hand",
                UserWarning,
                stacklevel=level_outside(),
            )
        other = self.Clone()
        if names:
            other._statistics = dict(zip(names, program(self._parameters, input), strict=True))
        return other

    def _statistics_program(self, input: Any) -> tuple[list[str], list[str], TracedProgram]:
        """The names of the statistics, the layers that have none, and the program."""
        names: list[str] = []
        unnamed: list[str] = []

        def statistics_of(vector: Array, x: Array) -> list[Array]:
            parameters = self._unravel(vector)
            with PassStatistics(parameters) as statistics:
                self.apply(parameters, x)
            found = statistics.named()
            # Anew in each trace, of which there are two.
            names[:], unnamed[:] = found, statistics.unnamed
            return list(found.values())

        program = self._traced(statistics_of, input)
        return names, unnamed, program

    def _traced(self, function: Callable[..., Any], input: Any, *others: Array) -> TracedProgram:
        """A function of the parameters, an input and more."""
        try:
            return trace_pure("the model's function", function, self._parameters, input, *others)
        except ArgumentException as error:
            raise ArgumentException(
                f"input has shape {tuple(input.shape)}; the model cannot take it: {error}"
            ) from error

    def _held(self, vector: Array, names: Iterable[str], values: Sequence[Array]) -> dict[str, Array]:
        """The parameters by name, and what `apply` is given beside them."""
        return {**self._unravel(vector), **dict(zip(names, values, strict=True))}

    def _prediction(self, input: Any) -> tuple[TracedProgram, list[str]]:
        """The program of (parameters, input, *statistics), and the layers that normalise by the input's own."""
        held = tuple(self._statistics)

        def make() -> tuple[TracedProgram, list[str]]:
            layers: list[str] = []

            def predict(vector: Array, x: Array, *values: Array) -> Array:
                parameters = self._held(vector, held, values)
                with PassStatistics(parameters) as statistics:
                    output = self.apply(parameters, x)
                # Anew in each trace, of which there are two.
                layers[:] = statistics.layers
                return output

            return self._traced(predict, input, *self._statistics.values()), layers

        return self._programs.get_or_make(make, ("predict", held), None, self._parameters, input)

    def Predict(self, input: TInput) -> TOutput:
        """The outputs for inputs.

        Parameters
        ----------
        input : array, (n, …)
            On the model's backend, in its dtype, or integers.

        Returns
        -------
        array
            What the function gives, in the model's dtype.

        Raises
        ------
        ArgumentException
            When the input has another dtype or backend, or a shape that the function cannot take.

        Warns
        -----
        UserWarning
            When `aidotnet_py.nn.BatchNorm` layers normalise by the statistics of very few examples.
        """
        self.check_input(input)
        program, layers = self._prediction(input)
        if layers:
            _warn_of_few(cast(Array, input), layers)
        return cast(TOutput, program(self._parameters, input, *self._statistics.values()))

    def Train(self, input: TInput, expectedOutput: TOutput) -> None:
        """One step of Adam (rate 0.001) on the default loss of the whole set; calls remember past gradients.

        Dropout is active, with numbers that depend on the model's seed and on how many steps were taken. Stopped by
        Ctrl-C or otherwise, it has moved both parameters and what is remembered, or neither.

        Raises
        ------
        ArgumentException
            When input and expected output do not fit the model or each other; when a layer takes noise that the model
            does not name.
        InvalidOperationException
            When the loss or its gradient is not finite; nothing was changed then.
        """
        with self._lock:
            memory = self._optimizer.GetState()
            loss, gradient = self._loss_and_gradient(
                input, expectedOutput, "expectedOutput", self._loss, step=int(memory["steps"])
            )
            for quantity, values in (("loss", loss), ("gradient of the loss", gradient)):
                if not np.isfinite(self._backend.to_numpy(values)).all():
                    raise InvalidOperationException(f"the {quantity} is not finite; nothing was changed")
            try:
                self._parameters = self._optimizer.UpdateParameters(self._parameters, gradient)
            except BaseException:
                self._optimizer.SetState(memory)
                raise
            self._metadata.TrainingDate = datetime.now(UTC)

    def ComputeGradients(self, input: TInput, target: TOutput, lossFunction: ILossFunction[Any] | None = None) -> Array:
        """The gradient of the loss with respect to the parameters, shape (ParameterCount,).

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
        loss = self._loss if lossFunction is None else lossFunction
        return self._loss_and_gradient(input, target, "target", loss)[1]

    def _noise_of_step(self, x: Any, step: int) -> dict[str, Array]:
        """What `Train` hands to `apply` beside the parameters after so many steps, by name."""
        shapes = self._programs.get_or_make(lambda: noise_shapes(self, type_of(x)), "noise", None, x)
        if not shapes:
            return {}
        drawn = draw_noise(self._noise_key, step, shapes, self._dtype)
        return {name: self._backend.asarray(value) for name, value in drawn.items()}

    def _loss_and_gradient(
        self, x: Any, y: Any, name: str, loss: ILossFunction[Any], step: int | None = None
    ) -> tuple[Array, Array]:
        """Both at the parameters; with the noise of a step of `Train`, where one is given."""
        self.check_input(x)
        self.check_array(y, name)
        loss.validate(self._prediction(x)[0].output_types[0].shape, y, name)
        beside = {**self._statistics, **({} if step is None else self._noise_of_step(x, step))}

        def cost(vector: Array, x: Array, y: Array, *values: Array) -> Array:
            return loss.formula(self.apply(self._held(vector, beside, values), x), y)

        role, arguments = ("gradient", tuple(beside)), (self._parameters, x, y, *beside.values())
        value, gradient = self._programs.program(value_and_grad(cost), role, loss, *arguments)(*arguments)
        return value, gradient

    def GetModelMetadata(self) -> ModelMetadata[T]:
        """What is known about the model."""
        return self._metadata

    def settings(self) -> dict[str, Any]:
        """What files say of the model: names and shapes of the parameters, the name of the function, the loss."""
        parameters = [[name, list(shape)] for name, shape in self._shapes.items()]
        return {"parameters": parameters, "function": self._function, "loss": self._loss}

    def Serialize(self) -> bytes:
        """The parameters by name, the statistics if the model holds some, and a description of it; see docs/files.md.

        Returns
        -------
        bytes
            A safetensors file in memory.

        Raises
        ------
        InvalidOperationException
            When a parameter is not finite.
        """
        arrays: dict[str, Array] = self._unravel(self._backend.to_numpy(self._parameters))
        for name, value in self._statistics.items():
            arrays[_STATISTICS + name] = self._backend.to_numpy(value)
        return pack("model", arrays, {"name": self._metadata.Name, "model": describe_model(self)})

    def Deserialize(self, data: bytes) -> None:
        """Take up parameters that `Serialize` gave, by their names, and the statistics, if any, in place of one's own.

        Raises
        ------
        ArgumentException
            When the bytes are no such file or are damaged, a parameter is not finite, or names, shapes, dtypes or
            layers are others than the model's; the message tells each difference, and nothing is changed.

        Warns
        -----
        UserWarning
            When the file's model had another loss, input shape or function's name; when it was written by version
            0.1.0, which wrote no checksums.
        """
        self._load(data, "data")

    def _load(self, data: bytes, source: str) -> None:
        arrays, description = unpack("model", data, source)
        statistics = {name: arrays.pop(name) for name in list(arrays) if name.startswith(_STATISTICS)}
        held = description.get("model")
        compared = compare_models(held if isinstance(held, dict) else {}, self)  # pyright: ignore[reportUnknownArgumentType] -- of anything
        found = {name: f"{array.dtype}{array.shape}" for name, array in arrays.items()}
        wanted = {name: f"{self._dtype}{shape}" for name, shape in self._shapes.items()}
        clauses = parameter_clauses(found, wanted)
        # Their order does not matter, as they are taken up by their names.
        if clauses or compared.layers:
            raise ArgumentException(f"{source} is of another model: {join_clauses([*clauses, *compared.layers])}")
        named = self._checked_statistics(statistics, source)
        if compared.settings:
            warnings.warn(
                f"{source} was saved by a model of other settings, and this one keeps its own: "
                f"{join_clauses(compared.settings)}",
                UserWarning,
                stacklevel=level_outside(),
            )
        flat = np.concatenate([arrays[name].ravel() for name in self._shapes])
        with self._lock:
            self._parameters = self._backend.asarray(flat)
            self._statistics = {name: self._backend.asarray(value) for name, value in named.items()}

    def _checked_statistics(self, found: Mapping[str, NDArray[Any]], source: str) -> dict[str, NDArray[Any]]:
        """Statistics by the names of layers, once each is a mean or a variance of a layer that the model has."""
        named = {name.removeprefix(_STATISTICS): value for name, value in found.items()}
        for name, value in named.items():
            prefix = name.removesuffix("mean").removesuffix("variance")
            shape = self._shapes.get(f"{prefix}scale")
            pair = f"{prefix}mean" in named and f"{prefix}variance" in named
            sound = np.isfinite(value).all() and (name.endswith("mean") or (value >= 0).all())
            if not pair or value.dtype != self._dtype or value.shape != shape or not sound:
                wanted = "no such layer" if shape is None else f"{self._dtype}{shape}"
                raise ArgumentException(
                    f"{source} holds {value.dtype}{value.shape} for {name!r}; the model has {wanted}, and means and "
                    "variances must come in pairs of finite numbers, variances of at least 0"
                )
        return named

    def SaveModel(self, filePath: str | os.PathLike[str]) -> None:
        """Write `Serialize` to a file, whole or not at all.

        Raises
        ------
        ArgumentException
            When there is no such folder, or something is there that is no regular file.
        InvalidOperationException
            When a parameter is not finite.
        OSError
            When the file cannot be written; an older one of that name is then still whole.
        """
        write_file(filePath, self.Serialize())

    def LoadModel(self, filePath: str | os.PathLike[str]) -> None:
        """Take up the parameters in a file; see `Deserialize`."""
        self._load(read_file(filePath), str(filePath))


def _warn_of_few(x: Array, layers: Sequence[str]) -> None:
    """Warn when there are few examples in x, by whose statistics layers normalise."""
    examples = int(x.shape[0])
    if examples >= _FEW_EXAMPLES:
        return
    more = f" and {len(layers) - 3} more" if len(layers) > 3 else ""
    warnings.warn(
        f"input has {examples} example{'s' if examples > 1 else ''}, by whose statistics {', '.join(layers[:3])}{more} "
        "normalise: the outputs for one depend on the others. A model adapted to a task (Adapt) or with_statistics_of "
        "normalises by given examples, GroupNorm (norm='group') by none",
        UserWarning,
        stacklevel=level_outside(),
    )


def _host(value: Array) -> NDArray[Any]:
    owner = backend_of(value)
    return np.asarray(value) if owner is None else owner.to_numpy(value)


def _is_importable(function: FunctionType) -> bool:
    """Return whether the name of a function leads to it."""
    value: object = sys.modules.get(function.__module__)
    for name in function.__qualname__.split("."):
        value = getattr(value, name, None)
    return value is function


def _checked_parameters(parameters: Mapping[str, Array], dtype: Any) -> tuple[dict[str, NDArray[Any]], np.dtype[Any]]:
    """The parameters on the host and in the one dtype that they are to have."""
    if not isinstance(parameters, Mapping) or not parameters:  # pyright: ignore[reportUnnecessaryIsInstance] -- as above
        raise ArgumentException(f"parameters is {parameters!r}; a mapping from names to arrays, not empty, is wanted")
    host = {name: _host(value) for name, value in parameters.items()}
    for name, value in host.items():
        if not isinstance(name, str) or value.dtype.kind not in "biuf":  # pyright: ignore[reportUnnecessaryIsInstance] -- as above
            kind = type(parameters[name]).__name__
            raise ArgumentException(f"parameter {name!r} is a {kind}; a name that is a str and an array are wanted")
    found = {name: value.dtype.newbyteorder("=") for name, value in host.items()}
    common = next(iter(found.values())) if dtype is None else np.dtype(dtype).newbyteorder("=")
    if common not in _FLOATING or (dtype is None and len(set(found.values())) > 1):
        shown = ", ".join(f"{name}: {kind}" for name, kind in found.items())
        raise ArgumentException(
            f"dtype is {dtype} and the parameters have {shown}; one of {', '.join(map(str, _FLOATING))} is wanted"
        )
    return {name: value.astype(common) for name, value in host.items()}, common
