"""Loop nests in CUDA C++: elementwise work, with the sums and maxima of its results."""

from __future__ import annotations

import math
from dataclasses import replace

from aidotnet_py.backends.cuda.launch import BLOCK, Launch, function_text, unflattened
from aidotnet_py.backends.cuda.reductions import Reduction, groups_of
from aidotnet_py.backends.cuda.steps import Element, Parameters, index_type
from aidotnet_py.backends.kernel import LoopNest, Operand, Reference, Step, collapsed

__all__ = ["loop_launches", "ordered_by_stores", "targets_of"]

# With so many elements, a quarter of the threads still fills a GPU.
_LARGE = 2**20


def loop_launches(nest: LoopNest, *, cleared: frozenset[Operand] = frozenset()) -> list[Launch]:
    """Translate a nest into calls.

    Parameters
    ----------
    nest : LoopNest
        The nest.
    cleared : frozenset of Operand
        Targets of sums and maxima whose old values are ignored.
    """
    if 0 in nest.shape:
        return []
    fewer = collapsed(nest)
    launches: list[Launch] = []
    was_cleared = dict(zip(targets_of(fewer), (place in cleared for place in targets_of(nest)), strict=True))
    groups = groups_of(fewer)
    # A reduction that is not gathered visits each index once, so it can carry the stores. Stores may overwrite inputs:
    # reductions without stores run first.
    carrier = next((g for g in reversed(groups) if not g.is_gathered), None)
    for group in groups:
        if group is not carrier:
            launches += Reduction(replace(fewer, stores=()), group, was_cleared).launches()
    if carrier is not None:
        launches += Reduction(fewer, carrier, was_cleared).launches()
    elif fewer.stores:
        launches.append(_elementwise(replace(fewer, sums=(), maxima=())))
    return launches


def targets_of(nest: LoopNest) -> list[Operand]:
    """Return the targets of a nest's sums and maxima."""
    return [place for place, _ in (*nest.sums, *nest.maxima)]


def ordered_by_stores(nest: LoopNest, *, leading: int = 0) -> LoopNest:
    """Sort the axes by the strides of the first store, so that the fastest index runs over neighbours in memory.

    So many leading axes stay as they are.
    """
    (first, _), *_ = nest.stores
    order = sorted(range(len(nest.shape)), key=lambda axis: (axis >= leading, -abs(first.strides[axis])))

    def reorder(reference: Reference) -> Reference:
        if not isinstance(reference, Operand):
            return reference
        return replace(reference, strides=tuple(reference.strides[axis] for axis in order))

    steps = tuple(Step(s.operation, tuple(map(reorder, s.inputs)), s.dtype) for s in nest.steps)
    stores = tuple((reorder(place), reorder(value)) for place, value in nest.stores)
    return collapsed(LoopNest(tuple(nest.shape[axis] for axis in order), steps, stores), leading=leading)  # type: ignore[arg-type]  # operands stay operands


def _elementwise(nest: LoopNest) -> Launch:
    """Write a call with one thread per element.

    In large nests, a thread has four elements a block apart, to have more loads in flight.
    """
    nest = ordered_by_stores(nest)
    index, count = index_type(nest.shape, nest.operands), math.prod(nest.shape)
    each = 4 if count >= _LARGE and count % (4 * BLOCK) == 0 else 1
    parameters = Parameters(nest.operands, nest.written)
    axes = range(len(nest.shape))
    flat = unflattened("t", axes, nest.shape)
    element = Element(nest, parameters, [f"i{axis}" for axis in axes])
    values = element.values([value for _, value in nest.stores])
    places = [parameters.place(place, [f"i{axis}" for axis in axes]) for place, _ in nest.stores]
    body = [
        "#pragma unroll",
        f"for (unsigned e = 0; e < {each}u; ++e) {{",
        f"const U t = ((U)blockIdx.x * {each}u + e) * {BLOCK}u + threadIdx.x;",
        f"if (t >= {count}u) return;" if count % (each * BLOCK) else "",
        *(f"const I i{axis} = {flat[axis]};" for axis in axes),
        *element.lines,
        *(f"{place} = {value};" for place, value in zip(places, values, strict=True)),
        "}",
    ]
    code = function_text("", parameters, index, body, BLOCK)
    return Launch(code, "", -(-count // (each * BLOCK)), BLOCK, parameters.arguments)
