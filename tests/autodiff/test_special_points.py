"""Poles, kinks and limits: the table of docs/engine.md against the engine, and what lies beside the table."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from places import ROOT

from aidotnet_py import (
    BinaryCrossEntropyLoss,
    CrossEntropyLoss,
    FunctionModel,
    MAMLAlgorithm,
    MAMLOptions,
    MetaLearningTask,
    SGDOptimizer,
    TaskBatch,
    iMAMLAlgorithm,
    iMAMLOptions,
)
from aidotnet_py import autodiff as ad
from aidotnet_py.autodiff.execution import Executable
from aidotnet_py.autodiff.tracing.emission import as_traced
from aidotnet_py.autodiff.tracing.host_data import HostData
from aidotnet_py.backends import Backend, NumPyBackend, get_backend
from aidotnet_py.losses import LossFunctionBase
from aidotnet_py.meta_learning.objective.finiteness import host_norms, norm_of, row_norms

Function = Callable[..., Any]
Host = np.ndarray[Any, np.dtype[Any]]

inf = math.inf
PAGE = ROOT / "docs" / "engine.md"


def _cross_entropy(target: Any) -> Function:
    return lambda v: CrossEntropyLoss().formula(v[None], as_traced(HostData(np.array([target]))))


def _binary(target: float) -> Function:
    return lambda x: BinaryCrossEntropyLoss().formula(x, as_traced(HostData(np.array(target))))


# What the names in the table mean.
FUNCTIONS: dict[str, Function] = {
    "log(x)": np.log,
    "log1p(x)": np.log1p,
    "log2(x)": np.log2,
    "log10(x)": np.log10,
    "sqrt(x)": np.sqrt,
    "sqrt(x)**2": lambda x: np.sqrt(x) ** 2,
    "reciprocal(x)": np.reciprocal,
    "divide(x, y)": np.divide,
    "power(x, y)": np.power,
    **{f"x**{p}".replace("-", "−"): lambda x, p=p: x**p for p in (0, 1, 2, 3, 0.5, 1.5, -1)},
    "0**x": lambda x: 0.0**x,
    "exp(x)": np.exp,
    "exp2(x)": np.exp2,
    "expm1(x)": np.expm1,
    "sin(x)": np.sin,
    "cos(x)": np.cos,
    "tan(x)": np.tan,
    "arctan(x)": np.arctan,
    "arctan2(y, x)": np.arctan2,
    "sinh(x)": np.sinh,
    "cosh(x)": np.cosh,
    "floor(x)": np.floor,
    "ceil(x)": np.ceil,
    "erf(x)": ad.erf,
    "tanh(x)": np.tanh,
    "sigmoid(x)": ad.sigmoid,
    "softplus(x)": ad.softplus,
    "logaddexp(x, y)": np.logaddexp,
    "absolute(x)": np.absolute,
    "sign(x)": np.sign,
    "relu(x)": ad.relu,
    "maximum(x, y)": np.maximum,
    "minimum(x, y)": np.minimum,
    "clip(x, 0, 1)": lambda x: np.clip(x, 0.0, 1.0),
    "max(v)": np.max,
    "min(v)": np.min,
    "prod(v)": np.prod,
    "sort(v)[0]": lambda v: np.sort(v)[0],
    "norm(v)": np.linalg.norm,
    "norm(v, 1)": lambda v: np.linalg.norm(v, 1),
    "norm(v, inf)": lambda v: np.linalg.norm(v, np.inf),
    "norm(v)**2": lambda v: np.linalg.norm(v) ** 2,
    "norm(v)**3": lambda v: np.linalg.norm(v) ** 3,
    "var(v)": np.var,
    "std(v)": np.std,
    "std(v, ddof=1)": lambda v: np.std(v, ddof=1),
    "std(v)**2": lambda v: np.std(v) ** 2,
    "logsumexp(v)": ad.logsumexp,
    "softmax(v)[0]": lambda v: ad.softmax(v)[0],
    "log_softmax(v)[0]": lambda v: ad.log_softmax(v)[0],
    "cross-entropy(v), class 0": _cross_entropy(0),
    "cross-entropy(v), class 1": _cross_entropy(1),
    "cross-entropy(v), halves": _cross_entropy([0.5, 0.5, 0.0]),
    "binary cross-entropy(x), target 0": _binary(0.0),
    "binary cross-entropy(x), target ½": _binary(0.5),
    "binary cross-entropy(x), target 1": _binary(1.0),
    "where(x > 0, log(x), 0)": lambda x: np.where(x > 0, np.log(x), 0.0),
    "where(x > 0, sqrt(x), 0)": lambda x: np.where(x > 0, np.sqrt(x), 0.0),
    "where(x > 0, x log(x), 0)": lambda x: np.where(x > 0, x * np.log(x), 0.0),
    "where(x == 0, 1, sin(x)/x)": lambda x: np.where(x == 0, 1.0, np.sin(x) / x),
}


def _numbers(cell: str) -> list[float]:
    return [float(number.replace("−", "-")) for number in cell.split(",")]


def _rows() -> list[tuple[str, list[float], list[float]]]:
    """Name, point, and value with first and second derivatives, of each row of the table."""
    section = PAGE.read_text(encoding="utf-8").split("\n## Special points\n")[1].split("\n## ")[0]
    cells = [
        [c.strip() for c in line.strip("|").split(" | ")] for line in section.splitlines() if line.startswith("| `")
    ]
    return [(name.strip("`"), _numbers(at), [n for c in rest for n in _numbers(c)]) for name, at, *rest in cells]


ROWS = _rows()


def _modes(f: Function, x: Any, direction: Any, element: Function) -> tuple[list[Any], list[Any]]:
    """One first derivative, in two ways, and the second with respect to the same, in three."""

    def forward(x: Any) -> Any:
        return ad.jvp(f, (x,), (direction,))[1]

    def backward(x: Any) -> Any:
        return element(ad.grad(f)(x))

    second = [
        ad.jvp(forward, (x,), (direction,))[1],
        element(ad.hvp(f, x, direction)),
        element(ad.grad(backward)(x)),
    ]
    return [forward(x), backward(x)], second


def _results(function: Function, vector: bool, point: Any, directions: Any) -> list[Any]:
    """The value; the first derivatives, each in two ways; the second ones, each in three."""
    places = range(point.shape[0])
    arguments = [point] if vector else [point[i] for i in places]
    if vector:
        found = [_modes(function, point, directions[i], lambda g, i=i: g[i]) for i in places]
    else:
        found = [
            _modes(
                lambda x, i=i: function(*arguments[:i], x, *arguments[i + 1 :]),
                arguments[i],
                directions[i, i],
                lambda g: g,
            )
            for i in places
        ]
    return [function(*arguments), *(f for first, _ in found for f in first), *(s for _, both in found for s in both)]


@cache
def _program(row: int, dtype: str) -> Any:
    name, at, _ = ROWS[row]
    point, directions = np.array(at, dtype), np.eye(len(at), dtype=dtype)
    return ad.trace(lambda p, d: _results(FUNCTIONS[name], "(v" in name, p, d), point, directions)


def _expected(row: int) -> list[float]:
    """As `_results` has it: each first derivative twice, each second one three times."""
    _, at, (value, *derivatives) = ROWS[row]
    count = len(at)
    return [value, *np.repeat(derivatives[:count], 2), *np.repeat(derivatives[count:], 3)]


def _fitting(dtype: str) -> list[int]:
    largest = float(np.finfo(dtype).max)
    return [i for i, (_, at, _) in enumerate(ROWS) if all(math.isinf(n) or abs(n) <= largest for n in at)]


def _assert_close(found: Any, row: int, dtype: str) -> None:
    assert_allclose(
        np.stack([np.asarray(f) for f in found]), _expected(row), rtol=4 * np.finfo(dtype).eps, err_msg=str(ROWS[row])
    )


def test_the_table_and_the_functions_of_this_file_are_the_same() -> None:
    assert {name for name, _, _ in ROWS} == set(FUNCTIONS)
    assert all(len(rest) == 1 + 2 * len(at) for _, at, rest in ROWS)


@pytest.mark.slow
@pytest.mark.numpy_first
@pytest.mark.parametrize("dtype", [pytest.param("float32", marks=pytest.mark.slow), "float64"])
def test_each_row_of_the_table_is_what_the_engine_gives(backend: Backend, dtype: str) -> None:
    for row in _fitting(dtype):
        at = ROWS[row][1]
        found = _program(row, dtype)(*map(backend.asarray, (np.array(at, dtype), np.eye(len(at), dtype=dtype))))
        _assert_close([backend.to_numpy(f) for f in found], row, dtype)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_compiled_loops_give_the_same(dtype: str) -> None:
    for row in _fitting(dtype):
        at = ROWS[row][1]
        inputs = [np.array(at, dtype), np.eye(len(at), dtype=dtype)]
        executable = Executable(_program(row, dtype), NumPyBackend(), inputs=inputs, compile_at=1)
        executable.compile()
        executable.run()
        _assert_close(executable.outputs, row, dtype)


@pytest.mark.slow
def test_each_row_of_a_batch_is_by_itself(backend: Backend) -> None:
    for row in range(len(ROWS)):
        at = np.array(ROWS[row][1])
        # Beside the special point, one where all is smooth.
        points = np.stack([at, np.linspace(0.3, 0.6, len(at)), at])
        found = ad.vmap(_program(row, "float64"), (0, None))(backend.asarray(points), backend.asarray(np.eye(len(at))))
        columns = [backend.to_numpy(f) for f in found]
        for place in (0, 2):
            _assert_close([c[place] for c in columns], row, "float64")
        assert all(np.isfinite(c[1]) for c in columns), ROWS[row]


def test_the_table_is_what_pytorch_gives() -> None:
    torch: Any = pytest.importorskip("torch")
    nn = torch.nn.functional
    functions: dict[str, Function] = {
        **{
            f"{f}(x)": getattr(torch, f) for f in ("log", "log1p", "log2", "log10", "sqrt", "reciprocal", "exp", "exp2")
        },
        **{
            f"{f}(x)": getattr(torch, f) for f in ("expm1", "sin", "cos", "tanh", "sigmoid", "absolute", "sign", "relu")
        },
        "divide(x, y)": torch.divide,
        "power(x, y)": torch.pow,
        **{f"x**{p}".replace("-", "−"): lambda x, p=p: x**p for p in (0, 1, 2, 3, 0.5, 1.5, -1)},
        "softplus(x)": nn.softplus,
        "logaddexp(x, y)": torch.logaddexp,
        "maximum(x, y)": torch.maximum,
        "minimum(x, y)": torch.minimum,
        "max(v)": torch.amax,
        "min(v)": torch.amin,
        "norm(v)": torch.linalg.norm,
        "norm(v, 1)": lambda v: torch.linalg.norm(v, 1),
        "norm(v, inf)": lambda v: torch.linalg.norm(v, inf),
        "norm(v)**2": lambda v: torch.linalg.norm(v) ** 2,
        "var(v)": lambda v: torch.var(v, correction=0),
        "std(v)": lambda v: torch.std(v, correction=0),
        "std(v, ddof=1)": lambda v: torch.std(v, correction=1),
        "std(v)**2": lambda v: torch.std(v, correction=0) ** 2,
        "logsumexp(v)": lambda v: torch.logsumexp(v, 0),
        "softmax(v)[0]": lambda v: torch.softmax(v, 0)[0],
        "log_softmax(v)[0]": lambda v: torch.log_softmax(v, 0)[0],
        **{f"cross-entropy(v), class {c}": lambda v, c=c: nn.cross_entropy(v[None], torch.tensor([c])) for c in (0, 1)},
        **{
            f"binary cross-entropy(x), target {name}": lambda x, y=y: nn.binary_cross_entropy_with_logits(
                x, torch.tensor(y, dtype=torch.float64)
            )
            for name, y in (("0", 0.0), ("½", 0.5), ("1", 1.0))
        },
    }
    compared = 0
    for name, at, (value, *derivatives) in ROWS:
        if name not in functions:
            continue
        vector = "(v" in name
        leaves = [torch.tensor(a, dtype=torch.float64, requires_grad=True) for a in ([at] if vector else at)]
        result = functions[name](*leaves)
        gradients = torch.autograd.grad(result, leaves)
        found = [result.item(), *(g for gradient in gradients for g in gradient.reshape(-1).tolist())]
        for mine, theirs in zip([value, *derivatives], found, strict=False):
            # Some of the values that PyTorch has not.
            if not math.isnan(theirs):
                assert mine == pytest.approx(theirs, rel=1e-12, nan_ok=True), (name, at)
                compared += 1
    assert compared > 150


def _derivatives(f: Function, x: Any, order: int) -> list[Any]:
    """f and its derivatives along ones, forward over forward."""
    if order == 0:
        return [f(x)]
    ones = np.ones(x.shape, x.dtype)
    lower = lambda t: _derivatives(f, t, order - 1)[-1]  # noqa: E731
    return [*_derivatives(f, x, order - 1), ad.jvp(lower, (x,), (ones,))[1]]


@pytest.mark.parametrize("logits", [[-inf, 0.3, 1.0], [2.0, -inf, 1e4], [-1e4, 1e300, 0.0], [-inf, -inf, 2.0]])
@pytest.mark.parametrize("targets", ["classes", "rows", "probabilities"])
def test_masked_classes_are_as_if_they_were_not_there(backend: Backend, logits: list[float], targets: str) -> None:
    """To the third derivative, for all kinds of targets."""
    z = np.array([logits, [0.5, 0.25, -1.0]])
    label = int(np.argmax(z[0]))
    kept = [i for i in range(3) if z[0, i] > -inf]
    weights = np.eye(3)[[label, 2]]
    if targets == "probabilities":
        weights[0, kept] = 1.0 / len(kept)
    actual = np.array([label, 2]) if targets == "classes" else weights

    def third(z: Any, y: Any, direction: Any) -> list[Any]:
        loss = lambda z: CrossEntropyLoss().formula(z, y)  # noqa: E731
        slope = lambda z: ad.jvp(loss, (z,), (direction,))[1]  # noqa: E731
        curvature = lambda z: ad.jvp(slope, (z,), (direction,))[1]  # noqa: E731
        return [loss(z), ad.grad(loss)(z), ad.grad(slope)(z), ad.grad(curvature)(z)]

    direction = np.random.default_rng(1).normal(size=(2, 3))
    given = [z, actual, direction]
    found = [backend.to_numpy(f) for f in ad.trace(third, *given)(*map(backend.asarray, given))]

    # Each example by itself, over the classes that are not masked.
    value, derivatives = 0.0, np.zeros((3, 2, 3))
    for row, classes in enumerate((kept, [0, 1, 2])):
        part, along, w = z[row, classes], direction[row, classes], weights[row, classes]
        p = np.exp(part - np.logaddexp.reduce(part))
        mean = p @ along
        centred = along - mean
        value -= (part - np.logaddexp.reduce(part)) @ w
        derivatives[0, row, classes] = p * w.sum() - w
        derivatives[1, row, classes] = p * centred
        derivatives[2, row, classes] = p * (centred**2 - p @ centred**2)
    assert_allclose(found[0], value / 2, rtol=1e-12)
    for mine, wanted in zip(found[1:], derivatives / 2, strict=True):
        assert_allclose(mine, wanted, rtol=1e-11, atol=1e-14)


def test_a_target_on_a_masked_class_costs_infinity_and_nan_stays_nan(backend: Backend) -> None:
    loss = CrossEntropyLoss()
    z = backend.asarray(np.array([[-inf, 0.0], [0.0, 0.0]]))
    assert loss.CalculateLoss(z, backend.asarray(np.array([0, 0]))) == inf
    assert loss.CalculateLoss(z, backend.asarray(np.array([[0.25, 0.75], [1.0, 0.0]]))) == inf
    spoilt = backend.asarray(np.array([[np.nan, 0.0], [0.0, 0.0]]))
    assert np.isnan(loss.CalculateLoss(spoilt, backend.asarray(np.array([1, 0]))))
    assert np.isnan(BinaryCrossEntropyLoss().CalculateLoss(spoilt, backend.asarray(np.zeros((2, 2)))))


def test_weights_that_are_0_have_their_slope_too() -> None:
    z, w = np.array([[0.5, -1.0, 0.25]]), np.array([[1.0, 0.0, 0.0]])
    slopes = ad.grad(lambda w: CrossEntropyLoss().formula(z, w))(w)
    assert_allclose(slopes, np.logaddexp.reduce(z[0]) - z, rtol=1e-14)


@pytest.mark.parametrize(
    "square",
    [
        lambda x: np.linalg.norm(x) ** 2,
        lambda x: np.linalg.norm(x) * np.linalg.norm(x),
        lambda x: np.square(np.linalg.norm(x, axis=0)),
        lambda x: np.linalg.norm(x) ** np.float64(2.0),
        lambda x: np.sum(np.linalg.norm(x.reshape(1, 3), axis=1, keepdims=True) ** 2),
        lambda x: 4.0 * (np.linalg.norm(x) / 2.0) ** 2,
        lambda x: (-(np.linalg.norm(x) * 0.5) * 2.0) ** 2,
        lambda x: np.sum(np.stack([np.linalg.norm(x[None], axis=-1)[0]] * 2) ** 2) / 2.0,
        lambda x: np.exp(np.linalg.norm(x) ** 2),
        lambda x: np.where(np.max(x) > 1.0, 0.0, np.linalg.norm(x) ** 2),
        lambda x: np.sum((np.linalg.norm(np.stack([x, x]), axis=1)[[1, 0]]) ** 2) / 2.0,
        lambda x: np.mean(ad.vmap(lambda r: np.linalg.norm(r) ** 2)(np.stack([x, -x]))),
        lambda x: 3.0 * np.std(np.concatenate([x, -x, 0.0 * x])) ** 2 * 1.5,
    ],
)
def test_squares_of_lengths_have_all_derivatives_at_0(backend: Backend, square: Function) -> None:
    x, v = np.zeros(3), np.array([1.0, -2.0, 0.5])
    program = ad.trace(lambda x, v: [ad.grad(square)(x), ad.hvp(square, x, v)], x, v)
    slope, product = program(backend.asarray(x), backend.asarray(v))
    assert_array_equal(backend.to_numpy(slope), 0.0)
    assert_allclose(backend.to_numpy(product), 2 * v, rtol=1e-14)


def test_the_fourth_derivative_of_a_fourth_power() -> None:
    # ‖x‖⁴ along v is t⁴‖v‖⁴.
    v = np.array([1.0, 2.0])
    values = _derivatives(lambda t: np.linalg.norm(t * v) ** 4, np.zeros(()), 4)
    assert_allclose(np.stack(values), [0, 0, 0, 0, 24 * 25.0], rtol=1e-14)


def test_a_square_root_that_is_scaled_by_what_moves_too() -> None:
    # (c√s)² = c²s, at s = 0: the mixed third derivative ∂³/∂s∂c² is 2.
    f = lambda s, c: (c * np.sqrt(s)) ** 2  # noqa: E731
    s, c, one = np.zeros(()), np.array(3.0), np.ones(())
    by_s = lambda c: ad.grad(lambda s: f(s, c))(s)  # noqa: E731
    assert by_s(c) == 9.0
    assert ad.grad(by_s)(c) == 6.0
    assert ad.hvp(by_s, c, one) == 2.0
    assert ad.grad(lambda c: ad.grad(lambda c: f(s, c))(c))(c) == 0.0


def test_lengths_of_rows_of_which_one_is_0(backend: Backend) -> None:
    x = np.array([[0.0, 0.0], [3.0, 4.0]])
    v = np.array([[1.0, 1.0], [1.0, -1.0]])
    f = lambda x: np.sum(np.linalg.norm(x, axis=1))  # noqa: E731
    program = ad.trace(lambda x, v: [f(x), ad.grad(f)(x), ad.hvp(f, x, v)], x, v)
    value, slopes, products = map(backend.to_numpy, program(backend.asarray(x), backend.asarray(v)))
    unit = np.array([0.6, 0.8])
    assert value == 5.0
    assert_allclose(slopes, [[0, 0], unit], rtol=1e-15)
    assert_allclose(products, [[0, 0], (v[1] - unit * (unit @ v[1])) / 5], rtol=1e-14)


@pytest.mark.parametrize(
    ("dtype", "size"),
    [("float64", 1e200), ("float64", 1e-200), ("float64", 3e-320), ("float32", 1e30), ("float32", 1e-30)],
)
@pytest.mark.parametrize("axis", [None, 1, 0])
def test_lengths_whose_squares_overflow_or_vanish(backend: Backend, dtype: str, size: float, axis: int | None) -> None:
    x = np.array([[3.0, 4.0], [6.0, 8.0]], dtype)
    f = lambda x: np.linalg.norm(x, axis=axis)  # noqa: E731
    program = ad.trace(lambda x: [f(x), ad.grad(lambda x: np.sum(f(x)))(x)], x)
    values, slopes = map(backend.to_numpy, program(backend.asarray((x * size).astype(dtype))))
    tolerance = 8 * np.finfo(dtype).eps if size > 1e-300 else 1e-2
    assert values.dtype == dtype
    assert_allclose(values / np.float64(size), np.linalg.norm(x, axis=axis), rtol=tolerance)
    if size > 1e-300:
        wanted = x / np.broadcast_to(np.linalg.norm(x, axis=axis, keepdims=True), x.shape)
        assert_allclose(slopes, wanted, rtol=2 * tolerance)


@pytest.mark.parametrize(
    ("dtype", "size"), [("float64", 1e200), ("float64", 1e-200), ("float32", 1e30), ("float32", 1e-30)]
)
@pytest.mark.parametrize(("y", "x"), [(1.0, 2.0), (-2.0, 1.0), (1.0, -1.0)])
def test_slopes_of_angles_whose_squares_overflow_or_vanish(dtype: str, size: float, y: float, x: float) -> None:
    slopes = ad.grad(np.arctan2, argument=(0, 1))(*(np.array(v * size).astype(dtype) for v in (y, x)))
    wanted = np.array([x, -y]) / (x * x + y * y) / size
    assert_allclose(np.array(slopes, dtype), wanted, rtol=8 * np.finfo(dtype).eps)


def test_lengths_in_half_precision_are_taken_in_single() -> None:
    x = np.full(100, 200.0, np.float16)
    length = ad.trace(np.linalg.norm, x)(x)
    assert (length.dtype, float(length)) == (np.float16, 2000.0)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_where_nothing_is_special_lengths_and_losses_have_the_bits_of_their_formulas(dtype: str) -> None:
    rng = np.random.default_rng(5)
    x, v = rng.normal(size=(2, 40, 3)).astype(dtype)
    labels = np.eye(3)[rng.integers(0, 3, 40)].astype(dtype)
    pairs: list[tuple[Function, Function]] = [
        (lambda x: np.sum(np.linalg.norm(x, axis=1)), lambda x: np.sum(np.sqrt(np.sum(x * x, axis=1)))),
        (lambda x: np.linalg.norm(x) ** 2, lambda x: np.sqrt(np.sum(x * x)) ** 2),
        (lambda x: np.sum(np.std(x, axis=0)), lambda x: np.sum(np.sqrt(np.var(x, axis=0)))),
        (
            lambda x: CrossEntropyLoss().formula(x, labels),
            lambda x: (ad.log_softmax(x) * labels).sum() * (-1.0 / 40),
        ),
        (
            lambda x: BinaryCrossEntropyLoss().formula(x, labels),
            lambda x: (ad.softplus(-np.absolute(x)) + x * np.where(x > 0.0, 1.0 - labels, -labels)).mean(),
        ),
    ]
    for mine, formula in pairs:
        for order in (lambda f: f, ad.grad, lambda f: lambda x: ad.hvp(f, x, v)):
            assert_array_equal(ad.trace(order(mine), x)(x), ad.trace(order(formula), x)(x))


@pytest.mark.parametrize(
    "guarded",
    [
        lambda x: np.where(x > 0, np.log(x), 0.0).sum(),
        lambda x: np.where(x > 0, 0.5 * np.sqrt(x) - 1.0 / x, 2.0).sum(),
        lambda x: np.where(x[:, :1] > 0, x[:, :1] * np.log(x[:, 1:]) / x[:, 1:], 0.0).sum(),
        lambda x: np.where(np.min(x, axis=1) > 0, np.sum(np.log(x), axis=1), 0.0).sum(),
        lambda x: np.where(np.min(x, axis=1) > 0, np.mean(x.T / x.T**2, axis=0) ** 2, 0.0).sum(),
        lambda x: np.where(x > 0, np.where(x < 2, np.log(2 - x) * np.log(x), 1.0), 0.0).sum(),
        lambda x: np.where(x > 0, x**-0.5, np.where(x < 0, np.log(-x), 0.0)).sum(),
    ],
)
def test_what_where_leaves_out_has_no_part_in_derivatives(backend: Backend, guarded: Function) -> None:
    """At rows with poles, and in the others as if there were none."""
    sound = np.array([[0.5, 1.5], [1.25, 0.75]])
    x = np.vstack([[[0.0, 0.0]], sound, [[0.0, 0.0]]])
    v = np.array([[1.0, 2.0], [-1.0, 0.5], [0.25, 1.0], [3.0, 1.0]])

    def results(x: Any, v: Any) -> list[Any]:
        forward = lambda x: ad.jvp(guarded, (x,), (v,))[1]  # noqa: E731
        return [ad.grad(guarded)(x), ad.hvp(guarded, x, v), ad.jvp(forward, (x,), (v,))[1]]

    program = ad.trace(results, x, v)
    slopes, products, curvature = map(backend.to_numpy, program(backend.asarray(x), backend.asarray(v)))
    alone = ad.trace(results, sound, v[1:3])(sound, v[1:3])
    assert_allclose(slopes, [[0, 0], *alone[0], [0, 0]], rtol=1e-13)
    assert_allclose(products, [[0, 0], *alone[1], [0, 0]], rtol=1e-13)
    assert_allclose(curvature, alone[2], rtol=1e-13)


class Distance(LossFunctionBase[Any]):
    """The mean distance of predictions from their targets."""

    def formula(self, predicted: Any, actual: Any) -> Any:
        return np.mean(np.linalg.norm(predicted - actual, axis=1))


LEARNERS = [
    lambda model: MAMLAlgorithm(MAMLOptions(model, AdaptationSteps=2, RandomSeed=0)),
    lambda model: iMAMLAlgorithm(iMAMLOptions.FromPaper(model, Lambda=2.0, AdaptationSteps=3, RandomSeed=0)),
]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("learner", LEARNERS, ids=["MAML", "iMAML"])
def test_a_step_on_a_prediction_that_is_exact(backend: Backend, learner: Function, dtype: str) -> None:
    parameters = {"a": np.ones(2, dtype), "b": np.zeros(2, dtype)}
    model = FunctionModel(lambda p, x: x * p["a"] + p["b"], parameters, Distance()).To(backend.name)
    x, y = (backend.asarray(np.array(v, dtype)) for v in ([[0.0, 1.0], [2.0, 3.0]], [[0.0, 1.0], [1.0, 1.0]]))
    one = learner(model)
    task = MetaLearningTask(SupportSetX=x, SupportSetY=y, QuerySetX=x, QuerySetY=y)
    assert np.isfinite(one.MetaTrain(TaskBatch([task, task])))
    assert np.isfinite(backend.to_numpy(one.GetMetaModel().GetParameters())).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("learner", LEARNERS, ids=["MAML", "iMAML"])
def test_a_step_with_a_masked_class_is_the_step_without_it(backend: Backend, learner: Function, dtype: str) -> None:
    rng = np.random.default_rng(0)
    weights, x = rng.normal(size=(3, 3)).astype(dtype), rng.normal(size=(2, 6, 3)).astype(dtype)
    labels = rng.integers(0, 3, (2, 6))

    def trained(mask: list[float]) -> tuple[Any, Any]:
        kept = [i for i, m in enumerate(mask) if m == 0]
        places, shift = np.array(kept), HostData(np.array(mask, dtype))
        wide = np.zeros((3, len(mask)), dtype)
        wide[:, kept] = weights
        model = FunctionModel(lambda p, x: x @ p["w"] + as_traced(shift), {"w": wide}, CrossEntropyLoss())
        one = learner(model.To(backend.name))
        (xs, ys), (xq, yq) = ((backend.asarray(a), backend.asarray(places[b])) for a, b in zip(x, labels, strict=True))
        task = MetaLearningTask(SupportSetX=xs, SupportSetY=ys, QuerySetX=xq, QuerySetY=yq)
        loss = one.MetaTrain(TaskBatch([task, task]))
        return loss, backend.to_numpy(one.GetMetaModel().GetParameters()).reshape(3, -1)[:, kept]

    loss, parameters = trained([0.0, 0.0, -inf, 0.0])
    wanted, fewer = trained([0.0, 0.0, 0.0])
    assert_allclose(loss, wanted, rtol=100 * np.finfo(dtype).eps)
    assert_allclose(parameters, fewer, rtol=1e4 * np.finfo(dtype).eps)


class Steep(LossFunctionBase[Any]):
    """A plane with a slope beyond what can be squared."""

    def __init__(self, slope: float) -> None:
        self.slope = slope

    def formula(self, predicted: Any, actual: Any) -> Any:
        return np.sum((predicted - actual) * self.slope)


@pytest.mark.parametrize(
    ("dtype", "slope"), [("float64", 1e200), ("float64", 1e-200), ("float32", 1e30), ("float32", 1e-30)]
)
def test_a_gradient_that_is_too_steep_to_be_squared_is_clipped(backend: Backend, dtype: str, slope: float) -> None:
    model = FunctionModel(lambda p, x: x @ p["w"], {"w": np.zeros((2, 1), dtype)}, Steep(slope)).To(backend.name)
    x, y = backend.asarray(np.array([[3.0, 4.0]], dtype)), backend.asarray(np.zeros((1, 1), dtype))
    task = MetaLearningTask(SupportSetX=x, SupportSetY=y, QuerySetX=x, QuerySetY=y)
    one = MAMLAlgorithm(
        MAMLOptions(
            model,
            AdaptationSteps=1,
            InnerLearningRate=1e-3 / slope,
            GradientClipThreshold=slope,
            MetaOptimizer=SGDOptimizer(1.0 / slope),
        )
    )
    one.MetaTrain(TaskBatch([task]))
    assert_allclose(backend.to_numpy(one.GetMetaModel().GetParameters()), [-0.6, -0.8], rtol=1e-6)


def test_norms_of_rows_are_those_of_rows_that_can_be_squared(backend: Backend) -> None:
    x = np.array([[3.0, 4.0], [5.0, 12.0], [0.0, 0.0]])
    for dtype, size in (
        ("float64", 1e200),
        ("float64", 1e-200),
        ("float64", 1.0),
        ("float32", 1e30),
        ("float32", 1e-30),
    ):
        rows = backend.asarray((x * size).astype(dtype))
        tolerance = 4 * float(np.finfo(dtype).eps)
        assert_allclose(row_norms(backend, rows) / np.float64(size), [5, 13, 0], rtol=tolerance)
        assert_allclose(host_norms(backend.to_numpy(rows)) / np.float64(size), [5, 13, 0], rtol=tolerance)
        first = backend.reshape(backend.index(rows, (slice(1, 2), slice(None))), (2,))
        assert norm_of(backend, first) / size == pytest.approx(13, rel=tolerance)
    spoilt = backend.asarray(np.array([[np.nan, 1.0], [inf, 1.0], [-inf, 0.0], [3.0, 4.0]]))
    assert_array_equal(row_norms(backend, spoilt), [np.nan, inf, inf, 5.0])


def test_norms_of_zero_rows_change_no_other() -> None:
    rows = np.random.default_rng(3).normal(size=(3, 50)).astype(np.float32)
    alone = row_norms(get_backend("numpy"), rows)
    rows[1] = 0.0
    found = row_norms(get_backend("numpy"), rows)
    assert found.dtype == np.float32
    assert_array_equal(found, [alone[0], 0.0, alone[2]])
