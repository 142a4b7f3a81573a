"""One element of a loop nest in CUDA C++: the addresses of its operands, and its steps."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from aidotnet_py.backends.kernel import LOOP_OPERATIONS, LoopNest, Number, Operand, Reference, Step

__all__ = ["CUDA_OPERATIONS", "PRELUDE", "TYPES", "Element", "Parameters", "index_type", "joined", "literal"]

TYPES = {"float32": "float", "float64": "double", "bool": "bool"}

# Definitions at the start of all modules. Where C and NumPy differ, they follow NumPy. Infinities and NaN are made from
# bits, because no header is included.
PRELUDE = """\
#define INFINITY_float __int_as_float(0x7f800000)
#define INFINITY_double __longlong_as_double(0x7ff0000000000000ll)
#define NAN_float __int_as_float(0x7fc00000)
#define NAN_double __longlong_as_double(0x7ff8000000000000ll)
template <class T> __device__ __forceinline__ T larger(T old, T value) {
  return old != old ? old : value < old ? old : value;
}
template <class T> __device__ __forceinline__ T smaller(T old, T value) {
  return old != old ? old : value > old ? old : value;
}
template <class T> __device__ __forceinline__ T relu(T x) { return x <= T(0) ? T(0) : x; }
template <class T> __device__ __forceinline__ T sign(T x) {
  return x > T(0) ? T(1) : x < T(0) ? T(-1) : x == T(0) ? T(0) : x;
}
template <class T> __device__ __forceinline__ T sigmoid(T x) { return T(1) / (T(1) + exp(-x)); }
template <class T> __device__ __forceinline__ T softplus(T x) {
  return x > T(0) ? x + log1p(exp(-x)) : log1p(exp(x));
}
template <class I> __device__ __forceinline__ I floor_quotient(I a, I b) {
  return a >= I(0) ? a / b : -((b - I(1) - a) / b);
}
"""

_FUNCTIONS = (
    *("atan", "ceil", "cos", "cosh", "erf", "exp", "expm1", "floor", "log", "log1p", "sin", "sinh", "sqrt", "tan"),
    "tanh",
)

_EXPRESSIONS = {
    "abs": "fabs({0})",
    "add": "{0} + {1}",
    "atan2": "atan2({0}, {1})",
    "divide": "{0} / {1}",
    "equal": "{0} == {1}",
    "greater": "{0} > {1}",
    "greater_equal": "{0} >= {1}",
    "identity": "{0}",
    "isfinite": "fabs({0}) < INFINITY_{type}",
    "less": "{0} < {1}",
    "less_equal": "{0} <= {1}",
    "logical_and": "{0} && {1}",
    "logical_not": "!{0}",
    "logical_or": "{0} || {1}",
    "maximum": "larger<{type}>({0}, {1})",
    "minimum": "smaller<{type}>({0}, {1})",
    "multiply": "{0} * {1}",
    "negative": "-{0}",
    "not_equal": "{0} != {1}",
    "pow": "pow({0}, {1})",
    "subtract": "{0} - {1}",
    "where": "{0} ? {1} : {2}",
    **{name: name + "({0})" for name in _FUNCTIONS},
    **{name: name + "<{type}>({0})" for name in ("relu", "sigmoid", "sign", "softplus")},
}

# The operations of CUDA's steps, more than on other backends: functions on a GPU round in their own way in any case, so
# no other library's bits must be reproduced.
CUDA_OPERATIONS = LOOP_OPERATIONS | frozenset(_EXPRESSIONS)


def literal(value: float, dtype: str) -> str:
    """Write a number of a dtype exactly."""
    kind = TYPES[dtype]
    if dtype == "bool":
        return "true" if value else "false"
    rounded = float(np.dtype(dtype).type(value))
    if math.isnan(rounded):
        return f"NAN_{kind}"
    if math.isinf(rounded):
        return f"INFINITY_{kind}" if rounded > 0 else f"(-INFINITY_{kind})"
    text = rounded.hex() + ("f" if dtype == "float32" else "")
    return f"({text})" if text.startswith("-") else text


def index_type(nest_shape: Sequence[int], operands: Sequence[Operand]) -> str:
    """Return the integer type for indices and offsets: 32 bits if they suffice, otherwise 64."""
    reach = [
        abs(o.offset) + sum(abs(s) * max(n - 1, 0) for n, s in zip(nest_shape, o.strides, strict=True))
        for o in operands
    ]
    # Counters overrun the end by one step of all threads.
    return "int" if max([math.prod(nest_shape), *reach]) < 2**30 else "long long"


def joined(terms: Sequence[str]) -> str:
    """Write a sum in C."""
    return " + ".join(terms) or "0"


class Parameters:
    """The pointers of a function: one for each argument of the kernel that it uses."""

    def __init__(self, operands: Sequence[Operand], written: Sequence[Operand]) -> None:
        self._written = {o.argument for o in written}
        self._dtypes: dict[int, str] = {}
        for operand in operands:
            self._dtypes.setdefault(operand.argument, operand.dtype)
        self.arguments = tuple(self._dtypes)

    def text(self) -> str:
        """Return the list of parameters in the function's declaration."""
        return ", ".join(
            f"{'' if argument in self._written else 'const '}{TYPES[dtype]} *__restrict__ p{i}"
            for i, (argument, dtype) in enumerate(self._dtypes.items())
        )

    def place(self, operand: Operand, indices: Sequence[str]) -> str:
        """Return the expression for an operand's element at an index of the nest."""
        name = f"p{self.arguments.index(operand.argument)}"
        if self._dtypes[operand.argument] != operand.dtype:
            const = "" if operand.argument in self._written else "const "
            name = f"(({const}{TYPES[operand.dtype]} *){name})"
        steps = [i if s == 1 else f"{i} * {s}" for i, s in zip(indices, operand.strides, strict=True) if s and i != "0"]
        return f"{name}[{joined([*([str(operand.offset)] if operand.offset else []), *steps])}]"


class Element:
    """The work of a nest at one index: lines that load and compute, and the names of their values.

    Parameters
    ----------
    nest : LoopNest
        The nest.
    parameters : Parameters
        The pointers of the surrounding function.
    indices : sequence of str
        An expression for the index along each axis.
    """

    def __init__(self, nest: LoopNest, parameters: Parameters, indices: Sequence[str]) -> None:
        self._nest = nest
        self._parameters = parameters
        self._indices = indices
        self._loaded: dict[Operand, str] = {}
        self.lines: list[str] = []

    def values(self, references: Sequence[Reference]) -> list[str]:
        """Write the lines that these values need, and return the values' names."""
        steps = self._nest.steps
        needed = {r for r in references if isinstance(r, int)}
        for place in reversed(range(len(steps))):
            if place in needed:
                needed.update(r for r in steps[place].inputs if isinstance(r, int))
        for place in sorted(needed):
            step = steps[place]
            expression = self._expression(step, [self._read(r) for r in step.inputs])
            self.lines.append(f"const {TYPES[step.dtype]} v{place} = {expression};")
        return [self._read(r) for r in references]

    def _read(self, reference: Reference) -> str:
        if isinstance(reference, int):
            return f"v{reference}"
        if isinstance(reference, Number):
            return literal(reference.value, reference.dtype)
        if reference not in self._loaded:
            self._loaded[reference] = f"x{len(self._loaded)}"
            place = self._parameters.place(reference, self._indices)
            self.lines.append(f"const {TYPES[reference.dtype]} {self._loaded[reference]} = {place};")
        return self._loaded[reference]

    def _expression(self, step: Step, inputs: list[str]) -> str:
        last = self._dtype(step.inputs[-1])
        if step.operation == "convert":
            return f"{inputs[0]} != 0" if step.dtype == "bool" else f"({TYPES[step.dtype]}){inputs[0]}"
        exponent = step.inputs[-1]
        if step.operation == "pow" and isinstance(exponent, Number) and exponent.value == 2:
            return f"{inputs[0]} * {inputs[0]}"
        return _EXPRESSIONS[step.operation].format(*inputs, type=TYPES[last])

    def _dtype(self, reference: Reference) -> str:
        return self._nest.steps[reference].dtype if isinstance(reference, int) else reference.dtype
