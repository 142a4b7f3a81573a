"""A function of named parameters cut in two: features of the fixed parameters, and the rest computed from them."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from aidotnet_py.autodiff.primitives.concatenation import concatenate
from aidotnet_py.autodiff.primitives.shape import reshape, slice_
from aidotnet_py.autodiff.program import Atom, Program, Variable
from aidotnet_py.autodiff.tracing.emission import emit_again, inline
from aidotnet_py.autodiff.tracing.recording import new_trace
from aidotnet_py.autodiff.tracing.tracer import Tracer
from aidotnet_py.autodiff.transforms.simplification import simplify
from aidotnet_py.autodiff.types import ArrayType

__all__ = ["Split", "split"]

# The name of the features among the parameters of the second part; no layer of ours has it.
_FEATURES = "features of what stays"

Shapes = Mapping[str, tuple[int, ...]]
Function = Callable[[Mapping[str, Any], Any], Any]


@dataclass(frozen=True, eq=False)
class Split:
    """A function of parameters and x, cut at the first use of the adapted parameters.

    Attributes
    ----------
    early : Program
        (The other parameters, x, noise) ↦ features, one vector.
    late : Program
        (The adapted parameters, features, x, noise) ↦ predictions.
    shapes : mapping
        The parameters of ``late``: the adapted ones, then the features.
    noise : tuple of str
        Entries among the parameters that are noise instead; both parts read them.

    Examples
    --------
    See `split`.
    """

    early: Program
    late: Program
    shapes: Shapes
    noise: tuple[str, ...]

    @property
    def features(self) -> int:
        """The number of features."""
        return self.shapes[_FEATURES][0]

    def apply(self, parameters: Mapping[str, Any], x: Any) -> Any:
        """Compute the predictions in the innermost trace."""
        own, noise = ([parameters[name] for name in names] for names in (self.shapes, self.noise))
        return inline(self.late, [*own, x, *noise])[0]


def split(
    function: Function,
    shapes: Shapes,
    adapted: Collection[str],
    x: ArrayType,
    dtype: np.dtype[Any],
    noise: Shapes = MappingProxyType({}),
) -> Split:
    """Cut a model's function, for inputs of a type, at the first use of the adapted parameters.

    The features are computed without the adapted parameters and used together with them. Views, and values of another
    dtype, are computed again in the second part from the arrays that they come from.

    Parameters
    ----------
    function : callable
        ``function(parameters, x)`` returns predictions; parameters and noise come by name.
    shapes : mapping of str to tuple of int
        The parameters.
    adapted : collection of str
        The names of the adapted parameters.
    x : ArrayType
        The type of the inputs.
    dtype : numpy.dtype
        The dtype of parameters and noise.
    noise : mapping of str to tuple of int
        The shapes of noise.

    Returns
    -------
    Split

    Examples
    --------
    >>> import numpy as np
    >>> from aidotnet_py.autodiff.extend import ArrayType, split
    >>> f64 = np.dtype(float)
    >>> cut = split(lambda p, x: np.tanh(x @ p["body"]) @ p["head"], {"body": (2, 3), "head": (3,)}, ["head"],
    ...             ArrayType((5, 2), f64), f64)
    >>> cut.features, cut.early.count("tanh"), cut.late.count("tanh")
    (15, 1, 0)
    """
    with new_trace() as trace:
        leaves = {name: trace.new_input(ArrayType(shape, dtype)) for name, shape in shapes.items()}
        example = trace.new_input(x)
        given = {name: trace.new_input(ArrayType(shape, dtype)) for name, shape in noise.items()}
        whole = simplify(trace.finish([function({**leaves, **given}, example)]))
    named = dict(zip(shapes, whole.inputs, strict=False))
    examples = whole.inputs[len(shapes) :]
    moving = [variable for name, variable in named.items() if name in adapted]
    staying = [variable for name, variable in named.items() if name not in adapted]
    cut = _cut(whole, _dependents(whole, moving), _dependents(whole, staying), dtype) or staying[:1]
    with new_trace() as trace:
        values = {variable: trace.new_input(variable.type) for variable in (*staying, *examples)}
        parts = [reshape(value, (math.prod(value.shape),)) for value in _evaluate(whole, values, cut)]
        early = trace.finish([concatenate(parts, 0)])
    size = sum(math.prod(variable.type.shape) for variable in cut)
    with new_trace() as trace:
        values = {variable: trace.new_input(variable.type) for variable in moving}
        features = trace.new_input(ArrayType((size,), dtype))
        values |= {variable: trace.new_input(variable.type) for variable in examples}
        values |= _pieces(features, cut)
        late = trace.finish(_evaluate(whole, values, whole.outputs))
    rest = {name: shape for name, shape in shapes.items() if name in adapted}
    return Split(simplify(early), simplify(late), {**rest, _FEATURES: (size,)}, tuple(noise))


def _dependents(program: Program, variables: Collection[Variable]) -> set[Variable]:
    """Return the variables and every value computed from them."""
    dependents = set(variables)
    for equation in program.equations:
        if not dependents.isdisjoint(equation.variables):
            dependents.add(equation.output)
    return dependents


def _cut(program: Program, late: set[Variable], early: set[Variable], dtype: np.dtype[Any]) -> list[Variable]:
    """Return the values of ``early`` that the outputs need if everything ``late`` runs after them."""
    made = {equation.output: equation for equation in program.equations}
    waiting: list[Atom] = list(program.outputs)
    seen: set[Atom] = set()
    cut: set[Variable] = set()
    while waiting:
        atom = waiting.pop()
        if not isinstance(atom, Variable) or atom in seen:
            continue
        seen.add(atom)
        equation = made.get(atom)
        view = equation is not None and equation.primitive.is_view
        if atom in early and atom not in late and not view and atom.type.dtype == dtype:
            cut.add(atom)
        elif equation is not None:
            waiting.extend(equation.inputs)
    return [variable for variable in (*program.inputs, *made) if variable in cut]


def _pieces(features: Tracer, cut: Sequence[Variable]) -> dict[Variable, Any]:
    """Return the values of the cut as slices of the vector of features."""
    pieces: dict[Variable, Any] = {}
    start = 0
    for variable in cut:
        stop = start + math.prod(variable.type.shape)
        pieces[variable] = reshape(slice_(features, ((start, stop, 1),)), variable.type.shape)
        start = stop
    return pieces


def _evaluate(program: Program, known: Mapping[Variable, Any], wanted: Sequence[Atom]) -> list[Any]:
    """Compute atoms of a program from its known values, in the innermost trace."""
    values: dict[Variable, Any] = {**dict(program.constants), **known}
    needed: set[Variable] = {atom for atom in wanted if isinstance(atom, Variable)}
    equations = [equation for equation in program.equations if equation.output not in values]
    for equation in reversed(equations):
        if equation.output in needed:
            needed.update(equation.variables)

    def read(atom: Atom) -> Any:
        return values[atom] if isinstance(atom, Variable) else atom

    for equation in equations:
        if equation.output in needed:
            values[equation.output] = emit_again(equation, [read(a) for a in equation.inputs])
    return [read(atom) for atom in wanted]
