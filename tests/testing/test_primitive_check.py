"""`check_primitive` passes a primitive that is right, and names each rule that is not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from aidotnet_py.autodiff import erf
from aidotnet_py.autodiff.extend import Primitive, emit
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
        ({"run": by_memory}, "a strided out of doubled.run must be"),
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
    ],
)
def test_a_wrong_rule_is_named(rules: dict[str, Any], message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_primitive(doubled(**rules), POINT)


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
