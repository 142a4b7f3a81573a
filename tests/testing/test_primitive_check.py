"""`check_primitive` passes a primitive that is right, and names each rule that is not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from aidotnet_py.autodiff import erf, stop_gradient
from aidotnet_py.autodiff.extend import ArrayType, Primitive, emit
from aidotnet_py.exceptions import ArgumentException
from aidotnet_py.testing import check_primitive

POINT = np.arange(6.0).reshape(2, 3) + 0.5


def doubled(**rules: Any) -> Callable[[Any], Any]:
    """Return a function made of a primitive that doubles, with some rules replaced."""
    good: dict[str, Any] = {
        "name": "doubled",
        "shape": lambda x: x,
        "run": lambda backend, out, x: backend.elementwise("multiply")(x, 2.0, out=out),
        "jvp": lambda tangents, x, output: emit(primitive, tangents[0]),
        "transpose": lambda cotangent, x: [emit(primitive, cotangent)],
        "batch": lambda inputs, batched, size: emit(primitive, inputs[0]),
    }
    primitive = Primitive(**{**good, **rules})
    return lambda x: emit(primitive, x)


def into_the_input(backend: Any, out: Any, x: Any) -> None:
    x *= 2.0
    out[...] = x


def by_memory(backend: Any, out: Any, x: Any) -> None:
    """Double what lies in memory from the first element on, as a C function without strides does."""
    flat = np.lib.stride_tricks.as_strided(x, (x.size,), (x.itemsize,))
    np.lib.stride_tricks.as_strided(out, (x.size,), (x.itemsize,))[...] = 2.0 * flat


def wrong_if(condition: Callable[[Any], bool]) -> Callable[..., None]:
    """Return a run that forgets to double inputs of some layout."""

    def run(backend: Any, out: Any, x: Any) -> None:
        out[...] = x if condition(x) else 2.0 * x

    return run


def test_a_primitive_that_is_right_passes() -> None:
    check_primitive(doubled(), POINT)
    check_primitive(doubled(), POINT.astype(np.float32))
    check_primitive(lambda x: erf(x) * np.exp(x), POINT / 3)


@pytest.mark.parametrize("arguments", [(POINT, POINT.T @ POINT), (POINT[0], POINT.T)])
def test_primitives_of_two_arguments_are_mapped_over_each(arguments: tuple[Any, Any]) -> None:
    check_primitive(np.matmul, *arguments)


def test_arguments_may_be_integers() -> None:
    check_primitive(lambda table, index: np.take_along_axis(table, index, 0), np.arange(3.0), np.array([0, 2, 1]))


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"run": lambda backend, out, x: None}, r"doubled.run must write every element of out, got none at \(0, 0\)"),
        ({"run": lambda backend, out, x: np.multiply(x[:1], 2, out=out[:1])}, "must write into out and return None"),
        (
            {"run": lambda backend, out, x: x * 2},
            r"must write into out and return None, got an array of shape \(2, 3\)",
        ),
        ({"run": into_the_input}, "doubled.run must not change its inputs, got a change of input 0"),
        ({"run": by_memory}, "a spaced out of doubled.run must be"),
        ({"jvp": None}, "- derivatives: the derivative of order 1"),
        ({"transpose": lambda cotangent, x: [cotangent]}, r"- derivatives: .* \(reverse mode\)"),
        (
            {"batch": None},
            "- vmap: raised NotSupportedException: doubled must have a batch rule to be mapped, got none",
        ),
        (
            {"batch": lambda inputs, batched, size: np.sum(inputs[0], 0)},
            "- vmap: vmap over arguments 0 must have shape",
        ),
        ({"batch": lambda inputs, batched, size: inputs[0] + 1.0}, "- vmap: vmap over arguments 0 must be"),
        ({"run": wrong_if(lambda x: x.flags.f_contiguous)}, r"- runs: doubled.run of turned inputs must be"),
        ({"run": wrong_if(lambda x: x.strides[-1] < 0)}, r"- runs: doubled.run of backward inputs must be"),
        ({"run": wrong_if(lambda x: 0 in x.strides)}, r"- runs: doubled.run of repeated inputs must be"),
        ({"batch": lambda inputs, batched, size: inputs[0] * (2.0 if size > 1 else 3.0)}, "vmap of one row over"),
        (
            {"batch": lambda inputs, batched, size: stop_gradient(2.0 * inputs[0])},
            r"fails 1 of 5 checks:\n- derivatives of vmap: over arguments 0, the derivative of order 1",
        ),
        (
            {"transpose": lambda cotangent, x: [2.0 * stop_gradient(cotangent)]},
            r"fails 1 of 5 checks:\n- derivatives: the derivative of order 3 .forward over reverse over forward mode",
        ),
        (
            {"transpose": lambda cotangent, x: [doubled(batch=lambda inputs, batched, size: inputs[0])(cotangent)]},
            r"fails 1 of 5 checks:\n- vmap of derivatives: vmap of the derivatives over arguments 0, 1 must be",
        ),
        (
            {"transpose": lambda cotangent, x: [doubled(run=by_memory)(cotangent)]},
            r"fails 1 of 5 checks:\n- vmap of derivatives: a spaced out of doubled.run must be",
        ),
    ],
)
def test_a_wrong_rule_is_named(rules: dict[str, Any], message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_primitive(doubled(**rules), POINT)


def reversed_into(backend: Any, out: Any, x: Any) -> None:
    """Write from both ends, so that what is written over an input is read again."""
    for place in range(x.shape[-1]):
        out[..., place] = x[..., -1 - place]


def test_what_may_be_written_over_its_input_is_held_to_it() -> None:
    rules: dict[str, Any] = {"run": reversed_into, "transpose": lambda cotangent, x: [np.flip(cotangent, -1)]}
    rules |= {"jvp": lambda tangents, x, output: np.flip(tangents[0], -1)}
    check_primitive(doubled(**rules), POINT)
    with pytest.raises(AssertionError, match=r"doubled.run over its input 0, as it is in_place, must be"):
        check_primitive(doubled(**rules, in_place=True), POINT)


def test_rows_differ_in_direction_too() -> None:
    def run(backend: Any, out: Any, x: Any) -> None:
        out[...] = x / np.linalg.norm(x, axis=-1, keepdims=True)

    def of_the_first(inputs: Any, batched: Any, size: int) -> Any:
        return np.broadcast_to(emit(unit, inputs[0][0]), inputs[0].shape)

    # The same for rows that differ in size alone.
    unit = Primitive("unit", lambda x: x, run, None, None, of_the_first)
    with pytest.raises(AssertionError, match=r"- vmap: vmap over arguments 0 must be"):
        check_primitive(lambda x: emit(unit, x), POINT[0])


def difference(count: int = 2, **rules: Any) -> Callable[..., Any]:
    """Return a function of some arguments, x − y − …, made of a primitive with some rules replaced."""

    def run(backend: Any, out: Any, x: Any, *rest: Any) -> None:
        out[...] = x - sum(rest)

    def jvp(tangents: Any, *primals: Any, **_: Any) -> Any:
        signed = [t if place == 0 else -t for place, t in enumerate(tangents) if t is not None]
        return sum(signed[1:], signed[0])

    def transpose(cotangent: Any, *inputs: Any) -> list[Any]:
        signed = [cotangent, *[-cotangent] * (count - 1)]
        return [c if isinstance(x, ArrayType) else None for c, x in zip(signed, inputs, strict=True)]

    good: dict[str, Any] = {
        "name": "difference",
        "shape": lambda x, *rest: x,
        "run": run,
        "jvp": jvp,
        "transpose": transpose,
        "batch": lambda inputs, batched, size: emit(primitive, *_lifted(inputs, batched, size)),
    }
    primitive = Primitive(**{**good, **rules})
    return lambda *xs: emit(primitive, *xs)


def _lifted(inputs: Any, batched: Any, size: int) -> list[Any]:
    return [x if b else np.broadcast_to(x, (size, *x.shape)) for x, b in zip(inputs, batched, strict=True)]


def for_two(inputs: Any, batched: Any, size: int) -> Any:
    """Forget one of three arguments where two have the new axis."""
    x, y, z = _lifted(inputs, batched, size)
    return x - y - (0.0 if sum(batched) == 2 else z)


@pytest.mark.parametrize(
    ("count", "rules", "message"),
    [
        (2, {"commutative": True}, "difference.run of inputs in reverse order, as it is commutative, must be"),
        (
            2,
            {"jvp": lambda tangents, *primals, output: tangents[0] - tangents[1]},
            "fails 2 of 7 checks:\n- derivatives in argument 0 alone: raised .*got NoneType",
        ),
        (3, {"batch": for_two}, "- vmap: vmap over arguments 1, 2 must be"),
    ],
)
def test_a_wrong_rule_of_several_arguments_is_named(count: int, rules: dict[str, Any], message: str) -> None:
    points = [POINT[0], POINT[1], POINT[0] ** 2][:count]
    check_primitive(difference(count), *points, order=1)
    with pytest.raises(AssertionError, match=message):
        check_primitive(difference(count, **rules), *points, order=1)


def test_there_must_be_arguments() -> None:
    with pytest.raises(ArgumentException, match="args must hold at least one array"):
        check_primitive(lambda: 1.0)


@pytest.mark.parametrize("shape", [lambda x: None, lambda x: (3,)])
def test_a_shape_rule_must_give_a_type(shape: Callable[[Any], Any]) -> None:
    with pytest.raises(ArgumentException, match="the result of doubled's shape rule must be an ArrayType"):
        check_primitive(doubled(shape=shape), POINT)


@pytest.mark.parametrize("name", ["sum", "where", "add", "matmul"])
def test_a_primitive_cannot_take_a_name_of_the_engines(name: str) -> None:
    # Transforms and compiler know theirs by name, and would take one for the other.
    with pytest.raises(ArgumentException, match="name must be none of the engine's own primitives"):
        doubled(name=name)
