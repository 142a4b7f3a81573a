"""A child that is forked while another thread is in BLAS finds the call's output untouched or whole."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from aidotnet_py.backends import NumPyBackend
from aidotnet_py.backends.kernel import Factor, Kernel, LoopNest, Number, Operand, Product, Step
from aidotnet_py.backends.numpy.blas_calls import BLAS_CALLS
from aidotnet_py.backends.numpy.llvm import shared_compiler

N = 1200

needs_llvm = pytest.mark.skipif(shared_compiler() is None, reason="llvmlite is not installed")


def by_matmul(x: Any, out: Any) -> Callable[[], Any]:
    return lambda: NumPyBackend().matmul(x, x.T.copy(), out=out)


def by_kernel(x: Any, out: Any) -> Callable[[], Any]:
    compiler = shared_compiler()
    assert compiler is not None
    factors = [Factor(Operand(i, "float64", (N * N,)), N, 1) for i in range(3)]
    kernel = Kernel((Product((1,), (N, N, N), *factors),), 3)
    arrays = x, x.T.copy(), out
    (bind,) = compiler.submit([kernel]).result(wait=True) or ()
    call = bind([compiler.address_of(array) for array in arrays])
    return lambda: (call(), arrays)


def by_chain(x: Any, out: Any) -> Callable[[], Any]:
    """Of 1,200 rounds that each add 1."""
    compiler = shared_compiler()
    assert compiler is not None
    every = Operand(0, "float64", (N, 1))
    add = Step("subtract", (every, Number(-1.0, "float64")), "float64")
    (bind,) = compiler.submit([Kernel((LoopNest((N, N), (add,), ((every, 0),)),), 1)]).result(wait=True) or ()
    run = None
    while run is None:
        run = compiler.chain([bind([compiler.address_of(out)])])
    return lambda: run(N)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks of POSIX")
@pytest.mark.filterwarnings("ignore:.*fork")
@pytest.mark.parametrize(
    "made",
    [
        pytest.param(by_matmul, marks=pytest.mark.slow),
        pytest.param(by_kernel, marks=[needs_llvm, pytest.mark.slow]),
        pytest.param(by_chain, marks=needs_llvm),
    ],
)
def test_a_fork_waits(made: Callable[[Any, Any], Callable[[], Any]]) -> None:
    out = np.zeros((N, N))
    call = made(np.ones((N, N)), out)
    begun = threading.Event()

    def work() -> None:
        begun.set()
        call()

    thread = threading.Thread(target=work)
    thread.start()
    begun.wait()
    time.sleep(0.01)
    child = os.fork()
    if not child:
        os._exit(0 if np.unique(out).tolist() in ([0.0], [float(N)]) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    thread.join()
    np.testing.assert_array_equal(out, N)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks of POSIX")
@pytest.mark.filterwarnings("ignore:.*fork")
def test_afterwards_the_locks_are_free_in_both_processes() -> None:
    def is_free() -> bool:
        found: list[bool] = []

        def look() -> None:
            with BLAS_CALLS.lock:
                found.append(True)

        thread = threading.Thread(target=look)
        thread.start()
        thread.join(10)
        return bool(found) and not BLAS_CALLS.lock.is_owned()

    with BLAS_CALLS.lock:
        child = os.fork()
    if not child:
        os._exit(0 if is_free() else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert is_free()
