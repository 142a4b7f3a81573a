"""A primitive of one's own, made from `aidotnet_py.autodiff.extend` alone: values, derivatives, batching."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from aidotnet_py import autodiff as ad
from aidotnet_py.autodiff import extend
from aidotnet_py.autodiff.extend import ArrayType, Primitive, Tracer, emit
from aidotnet_py.backends import Array, Backend
from aidotnet_py.exceptions import ArgumentException

X = np.array([[-2.0, -0.3, 0.0], [0.1, 1.5, 4.0]])
STEP = 1e-5


def _shape(x: ArrayType) -> ArrayType:
    if not x.is_floating:
        raise ArgumentException(f"x must be floating, got {x}")
    return x


def _run(backend: Backend, out: Array, x: Array) -> None:
    # The engine has no such function: NumPy computes it on the host.
    backend.copyto(out, backend.asarray(np.arctan(backend.to_numpy(x))))


def _jvp(tangents: Sequence[Any], x: Tracer, output: Tracer) -> Any:
    return tangents[0] / (1.0 + x * x)


def _batch(inputs: Sequence[Any], batched: Sequence[bool], size: int) -> Any:
    return arctan(inputs[0])


_arctan = Primitive(
    name="arctan_on_host", shape=_shape, run=_run, jvp=_jvp, transpose=None, batch=_batch, in_place=True
)


def arctan(x: Any) -> Tracer:
    return emit(_arctan, x)


def test_the_values_are_those_of_the_implementation(backend: Backend) -> None:
    x = backend.asarray(X)
    assert_array_equal(backend.to_numpy(ad.trace(lambda a: 2.0 * arctan(a), x)(x)), 2.0 * np.arctan(X))


def test_first_derivatives_match_finite_differences(backend: Backend) -> None:
    x, direction = backend.asarray(X), np.cos(X)
    wanted = (np.arctan(X + STEP) - np.arctan(X - STEP)) / (2 * STEP)
    gradient = ad.grad(lambda a: arctan(a).sum())(x)
    assert_allclose(backend.to_numpy(gradient), wanted, rtol=1e-9)
    _, tangent = ad.jvp(arctan, (x,), (backend.asarray(direction),))
    assert_allclose(backend.to_numpy(tangent), wanted * direction, rtol=1e-9)


def test_second_derivatives_match_finite_differences_of_the_first(backend: Backend) -> None:
    slopes = [1.0 / (1.0 + (X + s * STEP) ** 2) for s in (1, -1)]
    curvature = ad.hvp(lambda a: arctan(a).sum(), backend.asarray(X), backend.asarray(np.ones_like(X)))
    assert_allclose(backend.to_numpy(curvature), (slopes[0] - slopes[1]) / (2 * STEP), rtol=1e-8, atol=1e-10)


def test_vmap_of_its_gradient_is_the_gradient_of_each_row(backend: Backend) -> None:
    gradient = ad.grad(lambda row: (arctan(row) ** 2).sum())
    rows = backend.to_numpy(ad.vmap(gradient)(backend.asarray(X)))
    assert_array_equal(rows, [backend.to_numpy(gradient(backend.asarray(row))) for row in X])


def test_the_shape_rule_refuses_by_the_message_of_its_own() -> None:
    with pytest.raises(ArgumentException, match=r"^x must be floating, got int64\[2\]$"):
        ad.trace(arctan, np.arange(2))


def test_every_name_of_the_face_is_there_once() -> None:
    assert len(set(extend.__all__)) == len(extend.__all__)
    assert all(hasattr(extend, name) for name in extend.__all__)
