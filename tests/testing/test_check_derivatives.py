"""`check_derivatives`: it passes right derivatives of any order, and names wrong ones by order, mode and difference."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from aidotnet_py.autodiff import stop_gradient
from aidotnet_py.autodiff.extend import Primitive, emit
from aidotnet_py.backends import Backend
from aidotnet_py.exceptions import ArgumentException, ArgumentOutOfRangeException
from aidotnet_py.testing import check_derivatives

x = np.array([0.3, -0.8, 1.1])


def several(a: Any, tree: Any) -> Any:
    return {"u": np.tanh(a) * tree["y"], "v": [np.sum(np.exp(a)) * tree["y"] ** 3]}


@pytest.mark.numpy_first
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_right_derivatives_pass(backend: Backend, dtype: Any) -> None:
    check_derivatives(several, backend.asarray(x, dtype), {"y": backend.asarray(0.7, dtype)}, order=3)


def test_numbers_and_half_precision_pass() -> None:
    check_derivatives(np.sin, 0.3, order=4)
    check_derivatives(lambda a: np.sum(np.tanh(a)), x.astype(np.float16))


def cubed(wrong: str) -> Callable[[Any], Any]:
    """x³, with a rule that is wrong in one place, by 1 %."""
    square = Primitive(
        name="square",
        shape=lambda a: a,
        run=lambda backend, out, a: backend.elementwise("multiply")(a, a, out=out),
        jvp=lambda t, a, output: 2.02 * a * t[0] if wrong == "jvp" else scaled(2.0 * a, t[0]),
        transpose=None,
        batch=lambda inputs, batched, size: emit(square, *inputs),
    )
    product = Primitive(
        name="product",
        shape=lambda a, t: a,
        run=lambda backend, out, a, t: backend.elementwise("multiply")(a, t, out=out),
        jvp=lambda ts, a, t, output: sum(
            ([] if ts[0] is None else [ts[0] * t * (1.01 if wrong == "second" else 1.0)])
            + ([] if ts[1] is None else [scaled(a, ts[1])])
        ),
        transpose=lambda ct, a, t: [None, ct * a * (1.01 if wrong == "transpose" else 1.0)],
        batch=lambda inputs, batched, size: emit(product, *inputs),
    )

    def scaled(a: Any, t: Any) -> Any:
        return emit(product, a, t)

    return lambda a: emit(square, a) * a


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("jvp", r"the derivative of order 1 \(forward mode\) must agree .* got a largest difference of 0\.0"),
        ("transpose", r"the derivative of order 1 \(reverse mode\) must agree .* got a largest difference of 0\.0"),
        ("second", r"the derivative of order 2 \(forward over forward mode\) must agree"),
    ],
)
def test_wrong_rules_are_named_by_order_and_mode(wrong: str, message: str) -> None:
    check_derivatives(cubed(""), x, order=3)
    with pytest.raises(AssertionError, match=message):
        check_derivatives(cubed(wrong), x, order=2)


def test_the_argument_whose_derivative_is_wrong_is_named() -> None:
    def halved(a: Any, tree: Any) -> Any:
        return np.sum(a * tree["y"] + a * tree["z"] * 0.5 + stop_gradient(a * tree["z"] * 0.5))

    with pytest.raises(AssertionError, match=r"forward mode.*; wrong in arguments\[0\], arguments\[1\]\['z'\]$"):
        check_derivatives(halved, x, {"y": 0.7, "z": 0.5})
    with pytest.raises(AssertionError, match=r"order 1 .* wrong in arguments\[1\]$"):
        check_derivatives(lambda a, b: np.sum(np.sin(a) * stop_gradient(np.exp(b))), x, 0.5)


def test_the_order_and_the_tolerance_are_the_callers() -> None:
    check_derivatives(cubed("second"), x, order=1)
    check_derivatives(cubed("second"), x, order=2, tolerance=0.05)


def test_kinks_and_poles_do_not_pass() -> None:
    with pytest.raises(AssertionError, match=r"order 2 \(forward over forward mode\)"):
        check_derivatives(np.abs, 0.0)
    with pytest.raises(AssertionError, match="got a largest difference of nan"):
        check_derivatives(np.log, -1.0)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: check_derivatives(np.sin, 1),
            ArgumentException,
            r"arguments\[0\] must have a floating dtype .* int",
        ),
        (lambda: check_derivatives(lambda a: a > 0, 1.0), ArgumentException, r"floating values to be .*, got bool\[\]"),
        (lambda: check_derivatives(lambda a: [], 1.0), ArgumentException, "floating values .*, got nothing"),
        (lambda: check_derivatives(np.sin, 1.0, order=0), ArgumentOutOfRangeException, "order must be a whole number"),
        (lambda: check_derivatives(np.sin, 1.0, tolerance=-1.0), ArgumentOutOfRangeException, "tolerance must be"),
    ],
)
def test_what_cannot_be_checked_is_refused(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
