"""Weights from and to the ``state_dict`` of a PyTorch module, without PyTorch."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from aidotnet_py.archives import check_file_name, read_file, write_file
from aidotnet_py.arguments import check_given, refusal
from aidotnet_py.backends import to_host
from aidotnet_py.descriptions import join_clauses
from aidotnet_py.exceptions import ArgumentException
from aidotnet_py.exchange.layouts import Names, Tensor, tensors
from aidotnet_py.models import NeuralNetworkModel
from aidotnet_py.models.named_arrays import unravel_arrays

__all__ = ["METAOPTNET_RESNET12", "TORCHVISION_RESNET18", "load_state_dict", "save_state_dict", "state_dict"]

#: The modules of torchvision's ``resnet18`` in the order of the layers of `aidotnet_py.nn.resnet18`, for ``names``.
TORCHVISION_RESNET18: tuple[str, ...] = (
    *("conv1", "bn1"),
    *(
        f"layer{stage}.{block}.{module}"
        for stage in (1, 2, 3, 4)
        for block in (0, 1)
        for module in (
            *("conv1", "bn1", "conv2", "bn2"),
            *(("downsample.0", "downsample.1") if stage > 1 and block == 0 else ()),
        )
    ),
    "fc",
)
#: The modules of MetaOptNet's ResNet-12 in the order of the layers of `aidotnet_py.nn.resnet12`, for ``names``. It is
#: an embedding: None leaves out the linear layer at the end.
METAOPTNET_RESNET12: tuple[str | None, ...] = (
    *(
        f"layer{stage}.0.{module}"
        for stage in (1, 2, 3, 4)
        for module in ("conv1", "bn1", "conv2", "bn2", "conv3", "bn3", "downsample.0", "downsample.1")
    ),
    None,
)


def load_state_dict(
    model: NeuralNetworkModel[Any, Any, Any],
    source: str | os.PathLike[str] | Mapping[str, Any],
    names: Names | None = None,
) -> None:
    """Give a model the weights of a PyTorch module with the same layers.

    Kernels (filters, channels, height, width) become (height, width, channels, filters), weights of `torch.nn.Linear`
    are transposed, and their features come in the order of images flattened with the channels last. If a batch norm
    has ``running_mean`` and ``running_var``, the model normalises by them as PyTorch does in ``eval()``; if not, by the
    batch.

    Parameters
    ----------
    model : NeuralNetworkModel
        Changed, unless an error is raised.
    source : path or mapping of str to array
        A safetensors file, or a ``state_dict``: tensors or arrays that NumPy's protocol or DLPack can read, on the CPU.
        Floating numbers are converted to the model's dtype.
    names : mapping of str to str, or sequence of str, optional
        The module of each layer with parameters: ``{"0_conv2d": "conv1", …}``, or the modules in the order of the
        layers, such as `TORCHVISION_RESNET18`. None for a layer leaves its parameters as they are. Without names, the
        modules are those of `torch.nn.Sequential`: ``0_conv2d.weight`` is ``0.weight``.

    Raises
    ------
    FileNotFoundError
        When there is no such file.
    ArgumentException
        When tensors are missing, left over, of another shape or not finite, all of which are listed; when a layer has
        no counterpart in PyTorch; the model is then unchanged.

    Examples
    --------
    >>> import numpy as np
    >>> from aidotnet_py import NeuralNetworkModel
    >>> from aidotnet_py.exchange import load_state_dict
    >>> from aidotnet_py.nn import mlp
    >>> model = NeuralNetworkModel(mlp(1), input_shape=(2,))
    >>> load_state_dict(model, {"0.weight": np.array([[1.0, 2.0]]), "0.bias": np.array([3.0])})
    >>> model.Predict(np.array([[1.0, 1.0]], np.float32))
    array([[6.]], dtype=float32)
    """
    wanted = _tensors(model, names)
    held, label = _read(source)
    left_over = _left_over(held, wanted)
    clauses = [*_compare(held, wanted, model), *left_over]
    if clauses:
        hint = "; names can give other modules" if names is None and left_over else ""
        raise ArgumentException(
            f"{label} must hold the tensors of the model's layers, got {join_clauses(clauses)}{hint}"
        )
    with np.errstate(over="ignore"):
        converted = {t.ours: t.from_torch(held[t.theirs]).astype(model.dtype) for t in wanted if t.theirs in held}
    beyond = [t.theirs for t in wanted if t.ours in converted and not np.isfinite(converted[t.ours]).all()]
    if beyond:
        raise ArgumentException(
            f"{label} must hold numbers within the range of {model.dtype}, got {beyond[0]!r} beyond it"
        )
    backend, statistics = model.backend, {t.ours for t in wanted if t.is_statistic}
    parameters = _unravel(model) | {name: value for name, value in converted.items() if name not in statistics}
    kept = {name: value for name, value in model.statistics.items() if name not in statistics}
    loaded = {name: backend.asarray(value) for name, value in converted.items() if name in statistics}
    vector = backend.asarray(np.concatenate([parameters[name].ravel() for name in model.parameter_shapes]))
    model.set_statistics(kept | loaded, vector)


def state_dict(model: NeuralNetworkModel[Any, Any, Any], names: Names | None = None) -> dict[str, NDArray[Any]]:
    """Return a model's weights as the ``state_dict`` of a PyTorch module with the same layers.

    ``module.load_state_dict({name: torch.from_numpy(value) for name, value in state_dict(model).items()})`` takes them.
    Running statistics are among them if the model has statistics, as one that `Adapt` returns; without, the module's
    batch norms must have ``track_running_stats=False``.

    Parameters
    ----------
    model : NeuralNetworkModel
        A meta-model or an adapted model.
    names : mapping or sequence, optional
        As for `load_state_dict`.

    Returns
    -------
    dict of str to ndarray
        Contiguous copies, in the order of the layers.

    Raises
    ------
    ArgumentException
        When a layer has no counterpart in PyTorch, or two layers of different weights have one module.

    Examples
    --------
    >>> from aidotnet_py import NeuralNetworkModel
    >>> from aidotnet_py.exchange import state_dict
    >>> from aidotnet_py.nn import Conv2D
    >>> model = NeuralNetworkModel(Conv2D(8, 3, bias=False), input_shape=(28, 28, 1))
    >>> {name: value.shape for name, value in state_dict(model).items()}
    {'weight': (8, 1, 3, 3)}
    """
    # Of one moment, whatever other threads load into the model.
    model = model.Clone()
    wanted = _tensors(model, names)
    values = _unravel(model) | {name: model.backend.to_numpy(value) for name, value in model.statistics.items()}
    state: dict[str, NDArray[Any]] = {}
    for tensor in (t for t in wanted if t.ours in values):
        value = np.array(tensor.to_torch(values[tensor.ours]), order="C")
        if not np.array_equal(state.setdefault(tensor.theirs, value), value):
            raise ArgumentException(
                f"names must give layers of different weights different modules, got {tensor.theirs!r} for two"
            )
    return state


def save_state_dict(
    model: NeuralNetworkModel[Any, Any, Any], path: str | os.PathLike[str], names: Names | None = None
) -> None:
    """Write `state_dict` to a safetensors file, which ``safetensors.torch.load_file`` reads.

    Parameters
    ----------
    model : NeuralNetworkModel
        A meta-model or an adapted model.
    path : str or path
        The file, usually ``*.safetensors``.
    names : mapping or sequence, optional
        As for `load_state_dict`.

    Raises
    ------
    ArgumentException
        When a layer has no counterpart in PyTorch, the path is no file's, or its ending that of another format.
    OSError
        When the file cannot be written, such as into a missing folder; an older file of that name is then intact.

    Examples
    --------
    >>> import tempfile
    >>> from aidotnet_py import NeuralNetworkModel
    >>> from aidotnet_py.exchange import load_state_dict, save_state_dict
    >>> from aidotnet_py.nn import mlp
    >>> model, other = (NeuralNetworkModel(mlp(8, 1), input_shape=(2,), seed=seed) for seed in (0, 1))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_state_dict(model, f"{folder}/weights.safetensors")
    ...     load_state_dict(other, f"{folder}/weights.safetensors")
    >>> bool((other.GetParameters() == model.GetParameters()).all())
    True
    """
    check_file_name("path", path)
    write_file(path, save(state_dict(model, names)))


def _tensors(model: Any, names: Names | None) -> list[Tensor]:
    check_given("model", model, "a NeuralNetworkModel")
    if not isinstance(model, NeuralNetworkModel):
        raise ArgumentException(
            f"{refusal('model', 'a NeuralNetworkModel', model)}; convert the arrays of other models by hand, and use "
            "SetParameters"
        )
    settings = model.settings()  # pyright: ignore[reportUnknownMemberType] -- of any type parameters
    return tensors(settings["network"], settings["input_shape"], names)


def _read(source: Any) -> tuple[dict[str, NDArray[Any]], str]:
    """Return the tensors on the host, and what messages call the source."""
    check_given("source", source, "a path or a mapping of tensors")
    if isinstance(source, Mapping):
        named = cast("Mapping[str, Any]", source)
        return {str(name): to_host(value, f"source[{name!r}]") for name, value in named.items()}, "source"
    if not isinstance(source, (str, os.PathLike)):
        raise ArgumentException(refusal("source", "a path or a mapping of tensors", source))
    path = cast("str | os.PathLike[str]", source)
    try:
        return load(read_file(path)), str(path)
    # Of dtypes that NumPy lacks, such as bfloat16.
    except KeyError as error:
        raise ArgumentException(
            f"{path} must hold tensors of dtypes that NumPy has, got {error}; convert them to float32 before "
            "safetensors.torch.save_file writes them"
        ) from error
    except (SafetensorError, ValueError) as error:
        raise ArgumentException(
            f"{path} must be a safetensors file of numbers, got another ({error!s:.200}); "
            "safetensors.torch.save_file writes a state_dict"
        ) from error


def _unravel(model: NeuralNetworkModel[Any, Any, Any]) -> dict[str, NDArray[Any]]:
    return unravel_arrays(model.backend.to_numpy(model.GetParameters()), model.parameter_shapes)


def _compare(
    held: Mapping[str, NDArray[Any]], wanted: list[Tensor], model: NeuralNetworkModel[Any, Any, Any]
) -> list[str]:
    """Return a clause for each tensor that is missing, or cannot be taken."""
    shapes, clauses = model.parameter_shapes, list[str]()
    for tensor in wanted:
        layer, module = (name.rpartition(".")[0] for name in (tensor.ours, tensor.theirs))
        scale, pair = _within(layer, "scale"), {_within(module, "running_mean"), _within(module, "running_var")}
        shape = shapes[scale if tensor.is_statistic else tensor.ours]
        expected = tensor.to_torch(np.broadcast_to(0.0, shape)).shape
        value = held.get(tensor.theirs)
        if value is None:
            # A module may have no running statistics, but not half of them.
            if not tensor.is_statistic or pair & held.keys():
                clauses.append(f"no {tensor.theirs!r}")
        elif value.shape != expected:
            clauses.append(f"{tensor.theirs!r} of shape {value.shape} and not {expected}")
        elif value.dtype.kind != "f" or not np.isfinite(value).all():
            kind = "NaN or infinity" if value.dtype.kind == "f" else str(value.dtype)
            clauses.append(f"{kind} in {tensor.theirs!r}, which must be of finite floating numbers")
    return clauses


def _left_over(held: Mapping[str, NDArray[Any]], wanted: list[Tensor]) -> list[str]:
    names = {t.theirs for t in wanted}
    # A counter that no formula reads.
    left = [name for name in held if name not in names and not name.endswith("num_batches_tracked")]
    return [f"{', '.join(map(repr, left))} left over"] if left else []


def _within(layer: str, name: str) -> str:
    return f"{layer}.{name}" if layer else name
