"""Programs: flat lists of equations over typed variables, as tracing records them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count, islice
from typing import Any, TypeAlias

from aidotnet_py.autodiff.primitive import Primitive
from aidotnet_py.autodiff.types import ArrayType
from aidotnet_py.markup import text

__all__ = ["Atom", "Equation", "Literal", "Program", "Variable"]

# Of the HTML for notebooks.
_MOST_LINES, _LONGEST_LINE = 200, 400


@dataclass(frozen=True, eq=False, slots=True)
class Variable:
    """A value that one equation or input defines; variables are compared by identity.

    Attributes
    ----------
    type : ArrayType
        Its shape and dtype.

    Examples
    --------
    >>> import numpy as np
    >>> from aidotnet_py.autodiff import trace
    >>> str(trace(lambda x: 2.0 * x, np.ones(3)).inputs[0].type)
    'float64[3]'
    """

    type: ArrayType


@dataclass(frozen=True, slots=True)
class Literal:
    """A number written into an equation; its shape is ().

    Attributes
    ----------
    value : int, float or bool
        The number.
    type : ArrayType
        Its dtype, and the shape ().

    Examples
    --------
    >>> import numpy as np
    >>> from aidotnet_py.autodiff import trace
    >>> trace(lambda x: 2.0 * x, np.ones(3)).equations[0].inputs[0].value
    2.0
    """

    value: int | float | bool
    type: ArrayType

    def __str__(self) -> str:
        return repr(self.value)


#: An operand of an equation, or an output of a Program.
Atom: TypeAlias = Variable | Literal


# Not frozen: a frozen class sets each field by a call, and a trace makes thousands of equations.
@dataclass(eq=False, slots=True)
class Equation:
    """``output = primitive(*inputs, **parameters)``; never changed.

    Attributes
    ----------
    primitive : Primitive
        The operation.
    inputs : tuple of Variable or Literal
        The operands.
    output : Variable
        The value that the equation defines.
    parameters : dict
        Settings of the operation that are no arrays, such as axes.
    variables : tuple of Variable
        The inputs that are variables.

    Examples
    --------
    >>> import numpy as np
    >>> from aidotnet_py.autodiff import trace
    >>> (equation,) = trace(lambda x: np.sum(x, axis=0), np.ones((2, 3))).equations
    >>> equation.primitive, equation.parameters
    (sum, {'axes': (0,)})
    """

    primitive: Primitive
    inputs: tuple[Atom, ...]
    output: Variable
    parameters: dict[str, Any] = field(default_factory=dict[str, Any])
    # The inputs that are variables; a field, since each pass reads it several times.
    variables: tuple[Variable, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.variables = tuple([atom for atom in self.inputs if isinstance(atom, Variable)])


@dataclass(frozen=True, eq=False)
class Program:
    """A traced function: equations in order of execution, over typed variables, each defined once.

    Attributes
    ----------
    inputs : tuple of Variable
        The arguments of the function, flattened.
    constants : tuple of (Variable, value)
        Arrays that the function used beside its arguments, with their values.
    equations : tuple of Equation
        The operations, in order.
    outputs : tuple of Variable or Literal
        The results of the function, flattened.

    Notes
    -----
    ``str(program)`` prints one equation a line, in the order of execution.

    Examples
    --------
    >>> import numpy as np
    >>> from aidotnet_py.autodiff import trace
    >>> print(trace(lambda x: np.sum(x * x), np.ones(3)))
    program(a:float64[3])
      b:float64[3] = multiply a a
      c:float64[] = sum axes=(0,) b
      return c
    """

    inputs: tuple[Variable, ...]
    constants: tuple[tuple[Variable, Any], ...]
    equations: tuple[Equation, ...]
    outputs: tuple[Atom, ...]

    @property
    def input_types(self) -> tuple[ArrayType, ...]:
        """Types of the inputs."""
        return tuple(v.type for v in self.inputs)

    @property
    def output_types(self) -> tuple[ArrayType, ...]:
        """Types of the outputs."""
        return tuple(a.type for a in self.outputs)

    @property
    def flops(self) -> int:
        """Floating-point operations of one run: two for each multiply-add of a product, one for each other element."""
        return sum(e.primitive.flops(*(a.type for a in e.inputs), output=e.output.type) for e in self.equations)

    @property
    def bytes(self) -> int:
        """Bytes read and written by one run without caches; views count as free."""
        return sum(
            sum(v.type.nbytes for v in e.variables) + e.output.type.nbytes
            for e in self.equations
            if not e.primitive.is_view
        )

    def count(self, primitive: str) -> int:
        """Return how many equations use the primitive of that name."""
        return sum(e.primitive.name == primitive for e in self.equations)

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _repr_html_(self) -> str:
        title = f"Program of {len(self.equations):,} equations, {self.flops:,} floating-point operations"
        left_out = len(self.equations) + 2 - _MOST_LINES
        note = f"{left_out:,} more lines; print(program) shows them" if left_out > 0 else ""
        return text(title, "\n".join(line[:_LONGEST_LINE] for line in islice(self._lines(), _MOST_LINES)), note)

    def _lines(self) -> Iterator[str]:
        names = _names(self)

        def show(atom: Atom) -> str:
            return str(atom) if isinstance(atom, Literal) else names[atom]

        def declare(variable: Variable) -> str:
            return f"{names[variable]}:{variable.type}"

        yield f"program({', '.join(map(declare, self.inputs))})"
        if self.constants:
            yield f"  with {', '.join(declare(v) for v, _ in self.constants)}"
        for equation in self.equations:
            extra = "".join(f" {key}={_short(value)}" for key, value in equation.parameters.items())
            operands = " ".join(map(show, equation.inputs))
            yield f"  {declare(equation.output)} = {equation.primitive.name}{extra} {operands}".rstrip()
        yield f"  return {', '.join(map(show, self.outputs))}"


def _short(value: Any) -> str:
    return str(value).replace(" ", "")


def _names(program: Program) -> dict[Variable, str]:
    letters = (_letters(i) for i in count())
    defined = [*program.inputs, *(v for v, _ in program.constants), *(e.output for e in program.equations)]
    return dict(zip(defined, letters, strict=False))


def _letters(index: int) -> str:
    """Return the name of a variable: a, …, z, aa, ab, …, as spreadsheets name columns."""
    name = ""
    index += 1
    while index:
        index, digit = divmod(index - 1, 26)
        name = chr(ord("a") + digit) + name
    return name
