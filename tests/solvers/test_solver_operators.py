"""What an operator may do with its argument, and what its result may be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from aidotnet_py.backends import Backend
from aidotnet_py.exceptions import ArgumentException
from aidotnet_py.solvers import conjugate_gradient, gmres, neumann_series

N = 24
RNG = np.random.default_rng(0)
Q = np.linalg.qr(RNG.standard_normal((N, N)))[0]
A = (Q * np.linspace(0.6, 1.4, N)) @ Q.T
A = (A + A.T) / 2
B = RNG.standard_normal((2, N))
WANTED = np.linalg.solve(A, B.T).T

SOLVERS: dict[str, Callable[..., Any]] = {
    "cg": conjugate_gradient,
    "cg from a start": lambda op, b: conjugate_gradient(op, b, initial=0.5 * b),
    "cg, preconditioned": lambda op, b: conjugate_gradient(op, b, preconditioner=lambda r: r),
    "gmres": gmres,
    "gmres from a start": lambda op, b: gmres(op, b, initial=0.5 * b),
    "neumann": lambda op, b: neumann_series(op, b, terms=60),
}


def product(v: Any) -> Any:
    return v @ A


class OneBuffer:
    """One array again and again."""

    def __init__(self) -> None:
        self.out = np.empty((2, N))

    def __call__(self, v: Any) -> Any:
        return np.matmul(v, A, out=self.out)


class TurnsInOneMemory:
    """Results that begin at one address, in C order and strided in turns."""

    def __init__(self) -> None:
        self.memory, self.calls = np.empty(4 * N), 0

    def __call__(self, v: Any) -> Any:
        self.calls += 1
        step = 1 + self.calls % 2
        out = self.memory[: 2 * N * step : step].reshape(2, N) if step == 1 else self.memory.reshape(2, 2 * N)[:, ::2]
        out[...] = v @ A
        return out


def strided(v: Any) -> Any:
    wide = np.full((2, 2 * N), np.nan)
    wide[:, ::2] = v @ A
    return wide[:, ::2]


def read_only(v: Any) -> Any:
    found = v @ A
    found.flags.writeable = False
    return found


def other_order(v: Any) -> Any:
    return (v @ A).astype(">f8")


def unaligned(v: Any) -> Any:
    out = np.empty(2 * N * 8 + 1, np.uint8)[1:].view(np.float64).reshape(2, N)
    out[...] = v @ A
    return out


def field(v: Any) -> Any:
    records = np.zeros((2, N), np.dtype([("kind", "u1"), ("value", "f8")]))
    records["value"] = v @ A
    return records["value"]


def column_major(v: Any) -> Any:
    return np.asfortranarray(v @ A)


RESULTS: dict[str, Callable[[], Any]] = {
    "one buffer": OneBuffer,
    "one memory in turns": TurnsInOneMemory,
    "strided": lambda: strided,
    "read-only": lambda: read_only,
    "other byte order": lambda: other_order,
    "unaligned": lambda: unaligned,
    "field of records": lambda: field,
    "column-major": lambda: column_major,
}


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("result", RESULTS)
def test_a_result_may_lie_in_memory_as_it_likes(result: str, solver: str) -> None:
    solve = SOLVERS[solver]
    right, _ = solve(product, B)
    np.testing.assert_allclose(right, WANTED, atol=1e-8)
    # Solves of a shape that comes again have compiled updates, which know addresses and nothing else.
    for _ in range(6):
        found, report = solve(RESULTS[result](), B)
        np.testing.assert_allclose(found, right, rtol=1e-12, atol=1e-12)
        assert report.converged.all()


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_result_may_be_the_argument_or_a_view_of_it(solver: str, backend: Backend) -> None:
    b = backend.asarray(B)
    x, report = SOLVERS[solver](lambda v: v, b)
    np.testing.assert_allclose(backend.to_numpy(x), B, rtol=1e-12)
    assert report.converged.all()
    if solver.startswith("gmres"):
        # Each row turned round: symmetric, orthogonal, and of eigenvalues ±1.
        flipped = (slice(None), slice(None, None, -1))
        x, report = gmres(lambda v: backend.index(v, flipped), b)
        np.testing.assert_allclose(backend.to_numpy(x), B[:, ::-1], rtol=1e-12)
        assert report.converged.all()


@pytest.mark.parametrize(("solver", "culprit"), [*((s, "operator") for s in SOLVERS), ("cg", "preconditioner")])
def test_who_writes_to_the_argument_is_told_or_harms_nobody(solver: str, culprit: str, backend: Backend) -> None:
    matrix, b = backend.asarray(A), backend.asarray(B)

    def plain(v: Any) -> Any:
        return backend.matmul(v, matrix)

    def scribbling(v: Any) -> Any:
        result = backend.asarray(v) if culprit == "preconditioner" else plain(v)
        backend.copyto(v, 0.0)
        return result

    def solve() -> Any:
        if culprit == "preconditioner":
            return conjugate_gradient(plain, b, preconditioner=scribbling)[0]
        return SOLVERS[solver](scribbling, b)[0]

    if backend.name == "numpy":
        with pytest.raises(ValueError, match="read-only"):
            solve()
    else:
        np.testing.assert_allclose(backend.to_numpy(solve()), WANTED, atol=1e-8)


@pytest.mark.parametrize("solver", ["cg", "gmres", "neumann"])
@pytest.mark.parametrize(
    "result",
    [
        lambda v: (v @ A).astype(np.float32),
        lambda v: np.rint(v @ A).astype(np.int64),
        lambda v: (v @ A).astype(np.complex128),
        lambda v: (v @ A).astype(object),
        lambda v: (v @ A).astype(">f4"),
        lambda v: (v @ A)[:, :-1],
        lambda v: (v @ A)[0],
        lambda v: (v @ A).tolist(),
        lambda v: np.ma.masked_array(v @ A),
        lambda v: None,
    ],
    ids=["float32", "int64", "complex", "object", ">f4", "short", "one row", "list", "masked", "None"],
)
def test_a_result_of_another_kind_is_refused_by_name(solver: str, result: Any) -> None:
    with pytest.raises(ArgumentException, match=r"the result of operator must have shape \(2, 24\) and dtype float64"):
        SOLVERS[solver](result, B)


@pytest.mark.parametrize("solver", ["cg", "gmres", "neumann"])
@pytest.mark.parametrize("kind", ["other byte order", "unaligned", "read-only", "strided", "column-major"])
def test_a_right_hand_side_may_lie_in_memory_as_it_likes(solver: str, kind: str) -> None:
    b = {
        "other byte order": B.astype(">f8"),
        "unaligned": unaligned(WANTED),
        "read-only": read_only(WANTED),
        "strided": strided(WANTED),
        "column-major": np.asfortranarray(B),
    }[kind]
    before = b.tobytes()
    x, report = SOLVERS[solver](product, b)
    np.testing.assert_allclose(x, WANTED, atol=1e-8)
    assert x.dtype == np.float64
    assert x.dtype.isnative
    assert report.residual_norms.dtype.isnative
    assert b.tobytes() == before


def test_a_start_may_lie_in_memory_as_it_likes() -> None:
    for solve in (conjugate_gradient, gmres):
        for start in (WANTED.astype(">f8"), np.asfortranarray(WANTED), np.repeat(WANTED, 2, axis=1)[:, ::2]):
            x, report = solve(product, B, initial=start)
            np.testing.assert_array_equal(x, WANTED)
            assert report.iterations.tolist() == [0, 0]


def test_what_is_handed_out_on_numpy_is_a_view() -> None:
    seen: list[Any] = []

    def operator(v: Any) -> Any:
        seen.append(v)
        return product(v)

    conjugate_gradient(operator, B, max_iterations=3, rtol=0.0)
    assert not any(v.flags.writeable for v in seen)
    assert np.shares_memory(seen[0], seen[1])


# NumPy 2.5 warns of the assignment, and still does it.
@pytest.mark.filterwarnings("ignore:Setting the shape")
def test_a_function_that_reshapes_its_argument_in_place_is_handed_the_right_shape_again() -> None:
    shapes: list[Any] = []

    def operator(v: Any) -> Any:
        shapes.append(v.shape)
        result = product(v)
        v.shape = (v.size,)
        return result

    found, _ = conjugate_gradient(operator, B)
    np.testing.assert_array_equal(found, conjugate_gradient(product, B)[0])
    assert set(shapes) == {B.shape}
