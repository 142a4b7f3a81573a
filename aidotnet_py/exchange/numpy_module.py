"""A model as a module of Python that predicts with NumPy alone."""

from __future__ import annotations

import base64
import builtins
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aidotnet_py.archives import check_file_name, write_file
from aidotnet_py.exceptions import NotSupportedException
from aidotnet_py.exchange import module_runtime
from aidotnet_py.exchange.any_size import AnySizeEquation, AnySizeProgram, Number, NumberOfSize, SizeDependent
from aidotnet_py.exchange.predictions import check_model, example_of, repeats_of_operators, trace_prediction
from aidotnet_py.models import FunctionModel
from aidotnet_py.models.comparison import properties_of
from aidotnet_py.version import __version__

__all__ = ["export_numpy"]

# Functions of elements, which repeat arrays as they need.
_BROADCASTING = frozenset(
    {name for name, made in vars(module_runtime).items() if isinstance(made, np.ufunc) and made.signature is None}
    | {"where"}
)


def export_numpy(model: FunctionModel[Any, Any, Any], path: str | os.PathLike[str], example: Any = None) -> None:
    """Write a model's prediction as a module of Python, which needs NumPy and nothing of this package.

    The module has ``predict(x)``, for any number of examples; ``PARAMETERS``, by name, and ``PROPERTIES``, those of the
    metadata. Its text is the network, an operation a line. A model that holds statistics, as one that `Adapt` returns,
    normalises by them; any other batch norm by the batch that it is given, as in `Predict`.

    Parameters
    ----------
    model : FunctionModel or NeuralNetworkModel
        A meta-model, such as ``learner.BaseModel``, or an adapted model.
    path : str or path
        The file, ``*.py``.
    example : array, (n, …), optional
        An input, of which shape and dtype count. None: the ``input_shape`` of a `NeuralNetworkModel`, in the model's
        dtype; for other models it must be given.

    Raises
    ------
    ArgumentException
        When the model is of another class; when ``example`` is missing or does not fit; when the function depends on
        the number of examples in another way than in a straight line.
    NotSupportedException
        When the function has a primitive of your own, which the message names.
    OSError
        When the file cannot be written; an older file of that name is then intact.

    Examples
    --------
    >>> import runpy
    >>> import tempfile
    >>> import numpy as np
    >>> from aidotnet_py import NeuralNetworkModel
    >>> from aidotnet_py.exchange import export_numpy
    >>> from aidotnet_py.nn import mlp
    >>> model = NeuralNetworkModel(mlp(8, 2), input_shape=(3,))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     export_numpy(model, f"{folder}/scores.py")
    ...     predict = runpy.run_path(f"{folder}/scores.py")["predict"]
    >>> predict(np.zeros((4, 3), np.float32)).shape
    (4, 2)
    """
    check_model(model)
    check_file_name("path", path, ".py")
    example = example_of(model, example)
    program, arrays = trace_prediction(model, example)
    parts = [
        _docstring(example, program),
        # Without its first line, which says what it is here.
        resources.files("aidotnet_py.exchange").joinpath("module_runtime.py").read_text("utf-8").split("\n", 1)[1],
        _prediction(program, arrays),
        _data(program, arrays, properties_of(model)),
        'if __name__ == "__main__":\n    main(predict, __doc__)\n',
    ]
    write_file(path, "\n\n".join(parts).encode())


def _docstring(example: NDArray[Any], program: AnySizeProgram) -> str:
    taken = _type_text(("n", *map(str, example.shape[1:])), example.dtype)
    given = _type_text([_text(length) for length in program.output_shape], program.output_dtype)
    return (
        f'"""A model that aidotnet_py {__version__} wrote: `predict` takes {taken} and gives {given}.\n\n'
        'It needs NumPy 2 alone. As a command: python FILE inputs.npy outputs.npy\n"""'
    )


def _type_text(lengths: Any, dtype: np.dtype[Any]) -> str:
    return f"{dtype.name} ({', '.join(lengths)}{',' if len(lengths) == 1 else ''})"


def _prediction(program: AnySizeProgram, arrays: Mapping[str, NDArray[Any]]) -> str:
    """Return the text of ``predict``: a line for each equation, and one that lets go of arrays after their last use."""
    names = [f"PARAMETERS[{name!r}]" for name in arrays] + ["x"]
    names += [f"CONSTANTS[{i}]" for i in range(len(program.constants))]
    repeated = repeats_of_operators(program, _BROADCASTING)
    calls, last_uses = dict[str, str](), dict[str, str]()
    for place, equation in enumerate(program.equations, start=len(names)):
        operands = [names[atom] if isinstance(atom, int) else _typed(*atom) for atom in equation.inputs]
        if place in repeated:
            names.append(operands[0])
            continue
        name = f"v{len(calls)}"
        names.append(name)
        last_uses.update((operand, name) for operand in operands if operand in calls)
        calls[name] = _call(equation, operands)
    last_uses.pop(names[program.output], None)
    taken = program.inputs[-1]
    lines = [
        "def predict(x):",
        f"    x = checked(x, {taken.dtype.name!r}, {tuple(taken.shape[1:])!r}, {program.refused!r})",
        "    n = len(x)",
        '    with np.errstate(all="ignore"):',
    ]
    for name, call in calls.items():
        lines.append(f"        {name} = {call}")
        ended = [operand for operand, last in last_uses.items() if last == name]
        lines.extend([f"        del {', '.join(ended)}"] if ended else [])
    return "\n".join([*lines, f"        return np.asarray({names[program.output]})", ""])


def _call(equation: AnySizeEquation, operands: Sequence[str]) -> str:
    """Return the call of an equation's function."""
    name = f"{equation.primitive}_" if hasattr(builtins, equation.primitive) else equation.primitive
    if not hasattr(module_runtime, name):
        raise NotSupportedException(
            "the model's function must consist of primitives of this package to be exported, got "
            f"{equation.primitive}; write it with NumPy's functions"
        )
    return f"{name}({', '.join([*operands, *_keywords(equation)])})"


def _keywords(equation: AnySizeEquation) -> Iterator[str]:
    for key, value in equation.parameters.items():
        yield f"{key}={_text(value)}"


def _typed(number: Number, dtype: np.dtype[Any]) -> str:
    return f"np.{dtype.type.__name__}({_text(number)})"


def _text(value: Any) -> str:
    """Return a parameter as Python writes it; n is the number of examples."""
    match value:
        case SizeDependent(slope, offset):
            return _line(slope, offset)
        case NumberOfSize(slope, offset, is_inverse):
            line = _line(slope, offset)
            return f"1.0 / ({line})" if is_inverse else line
        case tuple():
            parts = [_text(part) for part in value]  # pyright: ignore[reportUnknownVariableType] - mypy has Any
            return f"({', '.join(parts)}{',' if len(parts) == 1 else ''})"
        case np.dtype():
            return repr(value.name)
        case float() if not math.isfinite(value):
            return f'float("{value}")'
        case _:
            return repr(value)


def _line(slope: float, offset: float) -> str:
    line = "n" if slope == 1 else f"{slope!r} * n"
    return f"{line} + {offset!r}" if offset else line


def _data(program: AnySizeProgram, arrays: Mapping[str, NDArray[Any]], properties: Any) -> str:
    """Return the text of parameters, constants and properties."""
    held = "".join(f"    {name!r}: {_array_text(array)},\n" for name, array in arrays.items())
    others = "".join(f"    {_array_text(array)},\n" for array in program.constants)
    return (
        f"import json\n\nPROPERTIES = json.loads({json.dumps(properties)!r})\n"
        f"PARAMETERS = {{\n{held}}}\nCONSTANTS = [\n{others}]\n"
    )


def _array_text(array: NDArray[Any]) -> str:
    little = array.astype(array.dtype.newbyteorder("<"), order="C", copy=False)
    return f'array_of("{base64.b64encode(little.tobytes()).decode()}", "{little.dtype.str}", {array.shape!r})'
