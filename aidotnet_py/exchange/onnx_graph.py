"""A model as a standard ONNX graph, which onnxruntime and others run."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aidotnet_py.archives import check_file_name, write_file
from aidotnet_py.caller import level_outside
from aidotnet_py.exceptions import ArgumentException
from aidotnet_py.exchange.any_size import AnySizeProgram, SizeDependent
from aidotnet_py.exchange.operators import ELEMENTWISE, Nodes, translate
from aidotnet_py.exchange.predictions import check_model, example_of, repeats_of_operators, trace_prediction
from aidotnet_py.models import FunctionModel
from aidotnet_py.models.comparison import properties_of
from aidotnet_py.version import __version__

__all__ = ["OPSET", "export_onnx"]

# The newest that onnxruntime 1.32 takes.
OPSET = 28
_INPUT, _OUTPUT, _BATCH = "input", "output", "batch"


def export_onnx(model: FunctionModel[Any, Any, Any], path: str | os.PathLike[str], example: Any = None) -> None:
    """Write a model's prediction as an ONNX graph, for any number of examples.

    The graph has one ``input``, whose first axis is ``batch``, and one ``output``; parameters keep their names.
    A model that holds statistics, as one that `Adapt` returns, normalises by them; any other batch norm by the batch
    that it is given, as in `Predict`. Properties of the metadata are in the file's, as JSON under ``properties``.

    Parameters
    ----------
    model : FunctionModel or NeuralNetworkModel
        A meta-model, such as ``learner.BaseModel``, or an adapted model; float32 or float64.
    path : str or path
        The file, usually ``*.onnx``.
    example : array, (n, …), optional
        An input, of which shape and dtype count. None: the ``input_shape`` of a `NeuralNetworkModel`, in the model's
        dtype; for other models it must be given.

    Raises
    ------
    ImportError
        When the package onnx is missing.
    ArgumentException
        When the model is of another class or float16; when ``example`` is missing or does not fit; when the function
        depends on the number of examples in a way that a graph cannot.
    NotSupportedException
        When ONNX has no operator for an operation, which the message names.
    OSError
        When the file cannot be written; an older file of that name is then intact.

    Examples
    --------
    >>> import tempfile
    >>> from aidotnet_py import NeuralNetworkModel
    >>> from aidotnet_py.exchange import export_onnx
    >>> from aidotnet_py.nn import conv4
    >>> model = NeuralNetworkModel(conv4(5, filters=8, norm="layer"), input_shape=(28, 28, 1))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     export_onnx(model, f"{folder}/conv4.onnx")
    """
    check_model(model)
    check_file_name("path", path, ".onnx")
    if model.dtype == np.float16:
        raise ArgumentException(
            "model must be of float32 or float64 to be exported, got float16, in which runtimes lack operators; use "
            "export_numpy"
        )
    example = example_of(model, example)
    onnx = _package()
    program, parameters = trace_prediction(model, example)
    graph = _graph(onnx, program, parameters)
    _warn_of_refused(program)
    # The newest that the package has an IR version for: 1.22.0 defines opset 27, which its own table lacks.
    newest = max(row[2] for row in onnx.helper.VERSION_TABLE)
    opsets = [onnx.helper.make_opsetid("", min(OPSET, newest))]
    made = onnx.helper.make_model(
        graph,
        opset_imports=opsets,
        ir_version=onnx.helper.find_min_ir_version_for(opsets),
        producer_name="aidotnet_py",
        producer_version=__version__,
    )
    properties = properties_of(model)
    if properties:
        onnx.helper.set_model_props(made, {"properties": json.dumps(properties)})
    onnx.checker.check_model(made, full_check=True)
    write_file(path, made.SerializeToString())


def _warn_of_refused(program: AnySizeProgram) -> None:
    sizes = [size for size in program.refused if size]
    if sizes:
        warnings.warn(
            f"model refuses a number of examples, {', '.join(map(str, sizes))}, for which its graph will answer; "
            "give the graph others, or export a model that holds statistics (`with_statistics_of`), or a module "
            "(`export_numpy`), which refuses them too",
            UserWarning,
            stacklevel=level_outside(),
        )


def _package() -> Any:
    try:
        onnx = import_module("onnx")
    except ImportError as error:
        raise ImportError('export_onnx needs onnx: pip install "aidotnet-py[onnx]"') from error
    for name in ("checker", "helper", "numpy_helper"):
        import_module(f"onnx.{name}")
    return onnx


def _graph(onnx: Any, program: AnySizeProgram, parameters: Mapping[str, NDArray[Any]]) -> Any:
    reserved = next((n for n in parameters if n in ("", _INPUT, _OUTPUT) or n.startswith("/")), None)
    if reserved is not None:
        raise ArgumentException(
            "names of parameters must not be empty, 'input' or 'output', nor begin with '/', to be exported, got "
            f"{reserved!r}"
        )
    nodes = Nodes(onnx, _INPUT)
    names = [nodes.named_constant(name, value) for name, value in parameters.items()]
    names.append(_INPUT)
    names.extend(nodes.named_constant(f"/array_{i}", array) for i, array in enumerate(program.constants))
    repeated = repeats_of_operators(program, ELEMENTWISE)
    first = len(names)
    for place, equation in enumerate(program.equations, start=first):
        inputs = [names[atom] if isinstance(atom, int) else nodes.number(*atom) for atom in equation.inputs]
        names.append(inputs[0] if place in repeated else translate(nodes, equation, inputs))
    nodes.nodes.append(onnx.helper.make_node("Identity", [names[program.output]], [_OUTPUT]))
    taken = program.inputs[-1]
    kind = nodes.kind(taken.dtype)
    lengths = [_shown(length) for length in program.output_shape]
    return onnx.helper.make_graph(
        nodes.nodes,
        "prediction",
        [onnx.helper.make_tensor_value_info(_INPUT, kind, [_BATCH, *taken.shape[1:]])],
        [onnx.helper.make_tensor_value_info(_OUTPUT, nodes.kind(program.output_dtype), lengths)],
        initializer=nodes.initializers,
    )


def _shown(length: Any) -> str | int:
    """Return a length of the output's shape: a number, or a name for one that follows the batch size."""
    if not isinstance(length, SizeDependent):
        return int(length)
    if length == SizeDependent(1, 0):
        return _BATCH
    return f"{length.slope} * {_BATCH} + {length.offset}"
