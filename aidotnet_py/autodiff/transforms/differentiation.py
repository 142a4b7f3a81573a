"""Derivatives of Programs: forward mode, its transpose, and reverse mode as their composition."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aidotnet_py.autodiff.primitive import Guarded
from aidotnet_py.autodiff.primitives.elementwise import where
from aidotnet_py.autodiff.primitives.shape import full
from aidotnet_py.autodiff.program import Atom, Equation, Literal, Program, Variable
from aidotnet_py.autodiff.tracing.emission import inline
from aidotnet_py.autodiff.tracing.recording import new_trace
from aidotnet_py.autodiff.transforms.replay import Replay
from aidotnet_py.autodiff.transforms.simplification import simplify
from aidotnet_py.autodiff.transforms.squares import with_exact_squares
from aidotnet_py.autodiff.types import ArrayType
from aidotnet_py.exceptions import NotSupportedException

__all__ = ["grad_program", "jvp_program", "vjp_program"]

Mask = Sequence[bool]


def jvp_program(program: Program, wrt: Mask) -> Program:
    """Return the Program from inputs, and tangents of those in ``wrt``, to outputs and their tangents: y, J t.

    Output tangents are linear in the input tangents; everything else is computed independently of them.

    Parameters
    ----------
    program : Program
        The function.
    wrt : sequence of bool
        Whether each input has a tangent.

    Returns
    -------
    Program

    Examples
    --------
    >>> import numpy as np
    >>> from aidotnet_py.autodiff import trace
    >>> from aidotnet_py.autodiff.extend import jvp_program
    >>> print(jvp_program(trace(np.sin, 1.0), [True]))
    program(a:float64[], b:float64[])
      c:float64[] = sin a
      d:float64[] = cos a
      e:float64[] = multiply b d
      return c, e
    """
    program = with_exact_squares(program)
    with new_trace() as trace:
        primals = [trace.new_input(t) for t in program.input_types]
        seeds = [trace.new_input(t) for t, chosen in zip(program.input_types, wrt, strict=True) if chosen]
        replay = Replay(program, primals)
        given = (v for v, chosen in zip(program.inputs, wrt, strict=True) if chosen)
        tangents: dict[Atom, Any] = dict(zip(given, seeds, strict=True))
        for equation in program.equations:
            output = replay.emit(equation)
            incoming = [None if isinstance(a, Literal) else tangents.get(a) for a in equation.inputs]
            if equation.primitive.jvp is None or all(t is None for t in incoming):
                continue
            arguments = map(replay.argument, equation.inputs)
            tangent = equation.primitive.jvp(incoming, *arguments, output=output, **equation.parameters)
            if tangent is not None:
                tangents[equation.output] = tangent
        results = [replay.operand(a) for a in program.outputs]
        moved = [tangents.get(a) for a in program.outputs]
        zeros = [full(a.type, 0.0) if t is None else t for a, t in zip(program.outputs, moved, strict=True)]
        return simplify(trace.finish([*results, *zeros]))


def vjp_program(program: Program, wrt: Mask) -> Program:
    """Return the Program from inputs and output cotangents to outputs and cotangents of inputs in ``wrt``: y, Jᵀ c.

    The forward derivative is transposed: the equations of its tangents run backwards.

    Parameters
    ----------
    program : Program
        The function.
    wrt : sequence of bool
        Whether to return the cotangent of each input.

    Returns
    -------
    Program

    Examples
    --------
    >>> import numpy as np
    >>> from aidotnet_py.autodiff import trace
    >>> from aidotnet_py.autodiff.extend import vjp_program
    >>> program = vjp_program(trace(lambda w, x: w @ x, np.ones((2, 3)), np.ones(3)), [True, False])
    >>> list(map(str, program.input_types)), list(map(str, program.output_types))
    (['float64[2,3]', 'float64[3]', 'float64[2]'], ['float64[2]', 'float64[2,3]'])
    """
    forward = jvp_program(program, wrt)
    count = len(program.outputs)
    with new_trace() as trace:
        primals = [trace.new_input(t) for t in program.input_types]
        seeds = [trace.new_input(t) for t in program.output_types]
        linear = forward.inputs[len(program.inputs) :]
        outputs, cotangents = _transpose(forward, primals, linear, dict(enumerate(seeds, start=count)))
        return simplify(trace.finish([*outputs[:count], *cotangents]))


def grad_program(program: Program, wrt: Mask) -> Program:
    """Return the Program from inputs to its single scalar output and the gradients of the inputs in ``wrt``.

    Parameters
    ----------
    program : Program
        A function with one output of shape ().
    wrt : sequence of bool
        Whether to return the gradient of each input.

    Returns
    -------
    Program

    Examples
    --------
    >>> import numpy as np
    >>> from aidotnet_py.autodiff import trace
    >>> from aidotnet_py.autodiff.extend import grad_program
    >>> program = grad_program(trace(lambda x: np.sum(x**2), np.ones(3)), [True])
    >>> list(map(str, program.output_types))
    ['float64[]', 'float64[3]']
    """
    backward = vjp_program(program, wrt)
    with new_trace() as trace:
        primals = [trace.new_input(t) for t in program.input_types]
        one = full(program.output_types[0], 1.0)
        return simplify(trace.finish(inline(backward, [*primals, one])))


def _transpose(
    program: Program, known: Sequence[Any], linear: Sequence[Variable], seeds: dict[int, Any]
) -> tuple[list[Any], list[Any]]:
    """Run the equations that do not depend on linear inputs, then transpose the others from output cotangents."""
    unknown: set[Atom] = set(linear)
    replay = Replay(program, [*known, *([None] * len(linear))])
    backwards: list[Equation] = []
    for equation in program.equations:
        if not unknown.isdisjoint(equation.variables):
            unknown.add(equation.output)
            backwards.append(equation)
        else:
            replay.emit(equation)
    cotangents: dict[Atom, Guarded] = {}
    for place, seed in seeds.items():
        _add(cotangents, program.outputs[place], Guarded(seed))
    for equation in reversed(backwards):
        cotangent = cotangents.pop(equation.output, None)
        if cotangent is not None:
            _step_back(equation, cotangent, unknown, replay, cotangents)
    outputs = [None if a in unknown else replay.operand(a) for a in program.outputs]
    results = [cotangents.get(v) for v in linear]
    return outputs, [full(v.type, 0.0) if c is None else _mask(c) for v, c in zip(linear, results, strict=True)]


# Linear operations whose elements depend on one element each, at the same place; and operations that move or add
# elements, and can move masks in the same way.
_PLACE_BY_PLACE = frozenset({"add", "astype", "divide", "multiply", "negative", "subtract", "where"})
_MOVES = frozenset({"flip", "permute_dims", "reshape", "sum"})


def _step_back(
    equation: Equation, cotangent: Guarded, unknown: set[Atom], replay: Replay, cotangents: dict[Atom, Guarded]
) -> None:
    """Pass a cotangent on to the inputs.

    Its guards are applied as late as possible: a zero written at `where` itself would meet the infinite slope of the
    branch that was not selected, and 0 · inf is NaN.
    """
    name, rule = equation.primitive.name, equation.primitive.transpose
    if rule is None:
        raise NotSupportedException(f"{name} must be linear in its input to be transposed, got no transpose rule")
    arguments: list[Any] = [a.type if a in unknown else replay.argument(a) for a in equation.inputs]
    guards = cotangent.guards
    if name in _MOVES:
        guards = tuple((rule(mask, *arguments, **equation.parameters)[0], chosen) for mask, chosen in guards)
    elif name not in _PLACE_BY_PLACE:
        cotangent, guards = Guarded(_mask(cotangent)), ()
    results = rule(cotangent.value, *arguments, **equation.parameters)
    for atom, argument, result in zip(equation.inputs, arguments, results, strict=True):
        if isinstance(argument, ArrayType):
            own = result if isinstance(result, Guarded) else Guarded(result)
            _add(cotangents, atom, Guarded(own.value, guards + own.guards))


def _add(cotangents: dict[Atom, Guarded], atom: Atom, cotangent: Guarded) -> None:
    before = cotangents.get(atom)
    cotangents[atom] = cotangent if before is None else _sum(before, cotangent)


def _sum(a: Guarded, b: Guarded) -> Guarded:
    one, other = ([(mask.variable, chosen) for mask, chosen in c.guards] for c in (a, b))
    return Guarded(a.value + b.value, a.guards) if one == other else Guarded(_mask(a) + _mask(b))


def _mask(cotangent: Guarded) -> Any:
    """Return the cotangent with zeros where its guards exclude it."""
    value = cotangent.value
    for mask, chosen in cotangent.guards:
        value = where(mask, value, 0.0) if chosen else where(mask, 0.0, value)
    return value
