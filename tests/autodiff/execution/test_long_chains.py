"""Programs of thousands of equations in a row: no part of tracing, planning or running recurses along them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from aidotnet_py import autodiff as ad
from aidotnet_py.autodiff.execution import Executable
from aidotnet_py.backends import NumPyBackend

# More than the frames that Python allows.
LENGTH = 1200


def views(x: Any) -> Any:
    """Turn a matrix over and over; each equation is a view of the one before."""
    for _ in range(LENGTH):
        x = x[:, ::-1].reshape(3, 4)
    return x


def sums(x: Any) -> Any:
    for _ in range(LENGTH):
        x = x + 1.0
    return x


X = np.arange(12.0).reshape(3, 4)


@pytest.mark.slow
@pytest.mark.parametrize("chain", [views, sums])
@pytest.mark.parametrize("compiled", [False, True])
def test_runs(chain: Callable[[Any], Any], compiled: bool) -> None:
    program = ad.trace(chain, X)
    executable = Executable(program, NumPyBackend(compiled=compiled))
    executable.inputs[0][...] = X
    if compiled:
        executable.compile()
    executable.run()
    np.testing.assert_array_equal(executable.outputs[0], chain(X))


@pytest.mark.parametrize("chain", [views, sums])
def test_derivatives_and_batches(chain: Callable[[Any], Any]) -> None:
    weights = np.arange(12.0).reshape(3, 4) ** 2
    gradient = ad.grad(lambda x: (chain(x) * weights).sum())(X)
    np.testing.assert_array_equal(gradient, weights)
    batch = np.stack([X, -X])
    np.testing.assert_array_equal(ad.vmap(chain)(batch), np.stack([chain(X), chain(-X)]))
