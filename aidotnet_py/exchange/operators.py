"""The nodes of ONNX for each primitive."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from aidotnet_py.exceptions import NotSupportedException
from aidotnet_py.exchange.any_size import AnySizeEquation, Length, Number, NumberOfSize, SizeDependent

__all__ = ["ELEMENTWISE", "Nodes", "translate"]

_ENDS = np.iinfo(np.int64)


class Nodes:
    """The nodes and constants of a graph as they are made; values are known by their names.

    Parameters
    ----------
    onnx : module
        The package.
    input_name : str
        The input whose first axis is the batch.
    """

    def __init__(self, onnx: Any, input_name: str) -> None:
        self._onnx = onnx
        self._input_name = input_name
        self._names: dict[tuple[Any, ...], str] = {}
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []

    def node(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Add a node, and return the name of its output."""
        name = f"/{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(self._onnx.helper.make_node(operator, inputs, [name], **attributes))
        return name

    def kind(self, dtype: np.dtype[Any]) -> int:
        """Return ONNX's number of a dtype."""
        return int(self._onnx.helper.np_dtype_to_tensor_dtype(dtype))

    def named_constant(self, name: str, array: NDArray[Any]) -> str:
        """Add an array under a name."""
        # Not ascontiguousarray, which gives arrays of shape () an axis.
        self.initializers.append(self._onnx.numpy_helper.from_array(np.asarray(array, order="C"), name))
        return name

    def constant(self, value: Any, dtype: Any = np.int64) -> str:
        """Return the name of a constant, which is added once."""
        array = np.asarray(value, dtype)
        key = (array.tobytes(), array.shape, array.dtype)
        if key not in self._names:
            self._names[key] = self.named_constant(f"/constant_{len(self._names)}", array)
        return self._names[key]

    def _once(self, key: str, make: Callable[[], str]) -> str:
        if (key,) not in self._names:
            self._names[(key,)] = make()
        return self._names[(key,)]

    def _length(self, length: Length) -> str:
        """Return a length as an array of shape (1,)."""
        if not isinstance(length, SizeDependent):
            return self.constant([length])
        size = self._once("size", lambda: self.node("Shape", self._input_name, start=0, end=1))
        if length.slope != 1:
            size = self.node("Mul", size, self.constant([length.slope]))
        return self.node("Add", size, self.constant([length.offset])) if length.offset else size

    def lengths(self, lengths: Sequence[Length]) -> str:
        """Return lengths as an array of int64."""
        if not any(isinstance(length, SizeDependent) for length in lengths):
            return self.constant(lengths)
        return self._once(repr(lengths), lambda: self.node("Concat", *map(self._length, lengths), axis=0))

    def number(self, number: Number, dtype: np.dtype[Any]) -> str:
        """Return a number as an array of shape ()."""
        if isinstance(number, SizeDependent):
            return self.node("Cast", self.node("Squeeze", self._length(number)), to=self.kind(dtype))
        if not isinstance(number, NumberOfSize):
            return self.constant(number, dtype)
        size = self.number(SizeDependent(1, 0), np.dtype(np.float64))
        slope, offset, one = (self.constant(value, np.float64) for value in (number.slope, number.offset, 1.0))
        value = self.node("Add", self.node("Mul", size, slope), offset)
        return self.node("Cast", self.node("Div", one, value) if number.is_inverse else value, to=self.kind(dtype))

    def reshape(self, x: str, shape: Sequence[Length]) -> str:
        """Return a value in another shape."""
        moving = [i for i, length in enumerate(shape) if isinstance(length, SizeDependent)]
        if len(moving) == 1 and 0 not in shape:
            shape = [-1 if i in moving else length for i, length in enumerate(shape)]
        return self.node("Reshape", x, self.lengths(shape))


Rule: TypeAlias = Callable[[Nodes, AnySizeEquation, Sequence[str]], str]


def _plain(operator: str) -> Rule:
    return lambda nodes, equation, inputs: nodes.node(operator, *inputs)


def _negated(operator: str) -> Rule:
    return lambda nodes, equation, inputs: nodes.node("Not", nodes.node(operator, *inputs))


def _isfinite(nodes: Nodes, equation: AnySizeEquation, inputs: Sequence[str]) -> str:
    return nodes.node("Not", nodes.node("Or", nodes.node("IsNaN", *inputs), nodes.node("IsInf", *inputs)))


def _expm1(nodes: Nodes, equation: AnySizeEquation, inputs: Sequence[str]) -> str:
    # Kahan: the rounding of u = exp(x) is in u − 1 and in log(u), and leaves their quotient.
    one, x = nodes.constant(1.0, equation.dtype), inputs[0]
    u = nodes.node("Exp", x)
    less = nodes.node("Sub", u, one)
    exact = nodes.node("Mul", less, nodes.node("Div", x, nodes.node("Log", u)))
    # exp(x) rounded to 0 or inf, and to 1.
    is_limit = nodes.node("Or", nodes.node("Equal", less, nodes.node("Neg", one)), nodes.node("IsInf", u))
    return nodes.node("Where", nodes.node("Equal", u, one), x, nodes.node("Where", is_limit, less, exact))


def _log1p(nodes: Nodes, equation: AnySizeEquation, inputs: Sequence[str]) -> str:
    # Kahan: the rounding of u = 1 + x is in log(u) and in u − 1, and leaves their quotient.
    one = nodes.constant(1.0, equation.dtype)
    u = nodes.node("Add", inputs[0], one)
    exact = nodes.node("Mul", nodes.node("Log", u), nodes.node("Div", inputs[0], nodes.node("Sub", u, one)))
    limit = nodes.node("Or", nodes.node("Equal", u, one), nodes.node("IsInf", u, detect_negative=0))
    return nodes.node("Where", limit, inputs[0], exact)


def _softplus(nodes: Nodes, equation: AnySizeEquation, inputs: Sequence[str]) -> str:
    # max(x, 0) + log(1 + exp(−|x|)); ONNX's own operator overflows in some runtimes.
    small = nodes.node("Exp", nodes.node("Neg", nodes.node("Abs", inputs[0])))
    large = nodes.node("Max", inputs[0], nodes.constant(0.0, equation.dtype))
    return nodes.node("Add", large, _log1p(nodes, equation, [small]))


def _cast(nodes: Nodes, equation: AnySizeEquation, inputs: Sequence[str]) -> str:
    return nodes.node("Cast", inputs[0], to=nodes.kind(equation.dtype))


def _first(nodes: Nodes, equation: AnySizeEquation, inputs: Sequence[str]) -> str:
    return inputs[0]


def _reduce(operator: str) -> Rule:
    return lambda nodes, equation, inputs: nodes.node(
        operator, inputs[0], nodes.constant(equation.parameters["axes"]), keepdims=0
    )


def _reshape(nodes: Nodes, equation: AnySizeEquation, inputs: Sequence[str]) -> str:
    return nodes.reshape(inputs[0], equation.shape)


def _transpose(nodes: Nodes, equation: AnySizeEquation, inputs: Sequence[str]) -> str:
    return nodes.node("Transpose", inputs[0], perm=equation.parameters["axes"])


def _broadcast(nodes: Nodes, equation: AnySizeEquation, inputs: Sequence[str]) -> str:
    return nodes.node("Expand", inputs[0], nodes.lengths(equation.shape))


def _full(nodes: Nodes, equation: AnySizeEquation, inputs: Sequence[str]) -> str:
    value = nodes.number(equation.parameters["value"], equation.dtype)
    return nodes.node("Expand", value, nodes.lengths(equation.shape)) if equation.shape else value


def _slice(nodes: Nodes, equation: AnySizeEquation, inputs: Sequence[str]) -> str:
    starts, stops, steps = zip(*equation.parameters["spans"], strict=True)
    axes = nodes.constant(range(len(starts)))
    return nodes.node("Slice", inputs[0], nodes.lengths(starts), nodes.lengths(stops), axes, nodes.lengths(steps))


def _flip(nodes: Nodes, equation: AnySizeEquation, inputs: Sequence[str]) -> str:
    axes = equation.parameters["axes"]
    starts, ends, steps = (nodes.constant([end] * len(axes)) for end in (-1, _ENDS.min, -1))
    return nodes.node("Slice", inputs[0], starts, ends, nodes.constant(axes), steps)


def _pad(nodes: Nodes, equation: AnySizeEquation, inputs: Sequence[str]) -> str:
    before, after, between = zip(*equation.parameters["margins"], strict=True)
    if any(between):
        raise NotSupportedException(
            "the model's function must pad arrays at their ends alone to be exported, got zeros between elements, for "
            "which ONNX has no operator; use export_numpy"
        )
    value = nodes.number(equation.parameters["value"], equation.dtype)
    return nodes.node("Pad", inputs[0], nodes.lengths((*before, *after)), value)


def _concatenate(nodes: Nodes, equation: AnySizeEquation, inputs: Sequence[str]) -> str:
    return nodes.node("Concat", *inputs, axis=equation.parameters["axis"])


def _starts(windows: int, step: int, length: int) -> list[list[int]]:
    """Return the indices in each window along one axis."""
    return [[i * step + j for j in range(length)] for i in range(windows)]


def _patches(nodes: Nodes, equation: AnySizeEquation, inputs: Sequence[str]) -> str:
    """Gather the rows of each window, then its columns: (n, rows, kh, columns, kw, channels)."""
    (height, width), (down, across) = equation.parameters["window"], equation.parameters["stride"]
    rows, columns = equation.shape[1:3]
    assert isinstance(rows, int)
    assert isinstance(columns, int)
    of_rows = _starts(rows, down, height)
    of_columns = _starts(columns, across, width)
    x = nodes.node("Gather", inputs[0], nodes.constant(of_rows), axis=1)
    x = nodes.node("Gather", x, nodes.constant(of_columns), axis=3)
    return nodes.node("Transpose", x, perm=(0, 1, 3, 2, 4, 5))


def _gather(nodes: Nodes, equation: AnySizeEquation, inputs: Sequence[str]) -> str:
    return nodes.node("Gather", *inputs, axis=0)


def _wrap_indices(nodes: Nodes, equation: AnySizeEquation, inputs: Sequence[str]) -> str:
    # ONNX's Gather counts negative indices from the end too.
    return nodes.node("Cast", inputs[0], to=nodes.kind(equation.dtype))


def _cumulative_sum(nodes: Nodes, equation: AnySizeEquation, inputs: Sequence[str]) -> str:
    return nodes.node("CumSum", inputs[0], nodes.constant(equation.parameters["axis"]))


_OF_ELEMENTS: Mapping[str, Rule] = {
    **{
        name: _plain(operator)
        for name, operator in {
            "negative": "Neg", "exp": "Exp", "log": "Log", "sqrt": "Sqrt", "sin": "Sin", "cos": "Cos", "tan": "Tan",
            "sinh": "Sinh", "cosh": "Cosh", "tanh": "Tanh", "sigmoid": "Sigmoid", "relu": "Relu", "absolute": "Abs",
            "sign": "Sign", "arctan": "Atan", "erf": "Erf", "floor": "Floor", "ceil": "Ceil", "add": "Add",
            "subtract": "Sub", "multiply": "Mul", "divide": "Div", "power": "Pow", "maximum": "Max", "minimum": "Min",
            "equal": "Equal", "less": "Less", "less_equal": "LessOrEqual", "greater": "Greater",
            "greater_equal": "GreaterOrEqual", "logical_and": "And", "logical_or": "Or", "logical_not": "Not",
            "where": "Where",
        }.items()
    },
    "not_equal": _negated("Equal"),
    "isfinite": _isfinite,
    "expm1": _expm1,
    "log1p": _log1p,
    "softplus": _softplus,
    "astype": _cast,
}  # fmt: skip
_RULES: Mapping[str, Rule] = {
    **_OF_ELEMENTS,
    "with_value": _first,
    "root": _first,
    "stop_gradient": _first,
    "sum": _reduce("ReduceSum"),
    "max": _reduce("ReduceMax"),
    "matmul": _plain("MatMul"),
    "reshape": _reshape,
    "permute_dims": _transpose,
    "broadcast_to": _broadcast,
    "full": _full,
    "slice": _slice,
    "flip": _flip,
    "pad": _pad,
    "concatenate": _concatenate,
    "patches": _patches,
    "gather": _gather,
    "wrap_indices": _wrap_indices,
    "cumulative_sum": _cumulative_sum,
}

# Operators without a kernel for float64 in onnxruntime 1.32.
_SINGLE_ALONE = frozenset({"arctan", "cosh", "erf", "sinh", "tan"})

ELEMENTWISE = frozenset(_OF_ELEMENTS)


def translate(nodes: Nodes, equation: AnySizeEquation, inputs: Sequence[str]) -> str:
    """Add the nodes of an equation; return the name of its output.

    Raises
    ------
    NotSupportedException
        When ONNX has no operator for its primitive, which the message names, or onnxruntime none for float64.
    """
    if equation.primitive in _SINGLE_ALONE and equation.dtype == np.float64:
        raise NotSupportedException(
            f"model must be of float32 to export {equation.primitive}, got float64, in which onnxruntime lacks it; use "
            "export_numpy"
        )
    rule = _RULES.get(equation.primitive)
    if rule is None:
        raise NotSupportedException(
            f"the model's function must consist of operations that ONNX has to be exported, got {equation.primitive}; "
            "use export_numpy"
        )
    return rule(nodes, equation, inputs)
