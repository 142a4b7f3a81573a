"""What tracing refuses and how it says so; constants, closures, structures, and what a traced value can do."""

from __future__ import annotations

import copy
import operator
import pickle
from collections import OrderedDict, namedtuple
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from aidotnet_py import FunctionModel
from aidotnet_py import autodiff as ad
from aidotnet_py.autodiff.tracing.recording import active_trace, new_trace
from aidotnet_py.autodiff.tracing.tracer import Tracer
from aidotnet_py.autodiff.tree import flatten
from aidotnet_py.backends import Backend, get_backend
from aidotnet_py.exceptions import ArgumentException, InvalidOperationException, NotSupportedException

ones = np.ones((2, 3))


def assign(x: Any, key: Any, value: Any) -> None:
    x[key] = value


@pytest.mark.parametrize(
    ("f", "error", "message"),
    [
        (lambda x: x if x > 0 else -x, InvalidOperationException, r"bool\(\) .* of a traced bool\[\].* use np.where"),
        (lambda x: 0 < x < 1, InvalidOperationException, r"comparison chain"),
        (float, InvalidOperationException, r"float\(\) asks for the value of a traced float64\[\].*outside the traced"),
        (int, InvalidOperationException, r"int\(\) asks for the value"),
        (complex, InvalidOperationException, "complex numbers are not supported"),
        (lambda x: [1, 2][x], InvalidOperationException, r"indexing or range\(\) with it .* use np.take"),
        (lambda x: range(x), InvalidOperationException, "use np.take_along_axis.* a plain int for a length"),
        (lambda x: np.arange(3)[x], InvalidOperationException, "use np.take_along_axis"),
        (lambda x: np.take(np.arange(3), x), InvalidOperationException, "use np.take_along_axis"),
        (lambda x: np.asarray(x), InvalidOperationException, r"np.array\(\) or an untraceable function .* np.stack"),
        (lambda x: np.array([x, x]), InvalidOperationException, "np.stack to put values together"),
        (lambda x: x.item(), InvalidOperationException, r"item\(\) asks .* return the value"),
        (lambda x: x.tolist(), InvalidOperationException, r"tolist\(\) asks"),
        (
            lambda x: assign(x, 0, 1.0),
            NotSupportedException,
            r"assigned to in place; write x = .*\.at\(x\)\[",
        ),
        (
            lambda x: operator.iadd(x, 1.0),
            NotSupportedException,
            r"np.add into an array that exists .* write x = x \+ y",
        ),
        (lambda x: np.add(x, 1.0, out=np.zeros(())), NotSupportedException, "np.add into an array that exists"),
        (lambda x: np.sum(x, out=np.zeros(())), NotSupportedException, "np.sum into an array that exists"),
        (
            lambda x: np.trunc(x),
            NotSupportedException,
            "np.trunc is not among the functions that can be traced",
        ),
        (lambda x: x.foo, AttributeError, "a traced value has no attribute 'foo'$"),
        (
            lambda x: (x > 0).all(),
            AttributeError,
            r"no attribute 'all'; use np.min\(mask\), .* np.where\(np.min\(mask\), a",
        ),
        (
            lambda x: (x > 0).any(),
            AttributeError,
            r"no attribute 'any'; use np.max\(mask\), .* np.where\(np.max\(mask\), a",
        ),
        (lambda x: np.all(x > 0), NotSupportedException, r"np.all is not among .* traced; use np.min\(mask\), "),
        (lambda x: np.any(x > 0), NotSupportedException, r"np.any is not among .* traced; use np.max\(mask\), "),
        (
            lambda x: x.round(),
            AttributeError,
            "no attribute 'round'; docs/engine.md lists the functions that can be tra",
        ),
        (
            lambda x: len(x),
            ArgumentException,
            r"a value must have an axis to have a length, got a traced value of shape \(\)",
        ),
        (
            lambda x: list(x),
            ArgumentException,
            r"a value must have an axis to have a length, got a traced value of shape \(\)",
        ),
        (lambda x: x + "a", Exception, "str"),
        (lambda x: x @ 2.0, ArgumentException, r"shapes must fit a matrix product, got \(\) and \(\)"),
        (
            lambda x: "text",
            ArgumentException,
            "the function's result must consist of arrays, numbers, and mappings and sequences of them, got str",
        ),
        (
            lambda x: {1, 2},
            ArgumentException,
            "the function's result must consist of arrays, numbers, and mappings and sequences of them, got set",
        ),
        (lambda x: object(), ArgumentException, "a value must be an array or a number, got object"),
    ],
)
def test_asking_for_a_value_says_what_to_use_instead(
    f: Callable[..., Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        ad.trace(f, 1.0)
    assert active_trace() is None


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.ones(2, complex), "must hold booleans, integers or floats, got dtype complex128"),
        (np.array(["a"]), "must hold booleans, integers or floats, got dtype <U1"),
        (np.array([None]), "must hold booleans, integers or floats, got dtype object"),
        (np.complex64(1), "must hold booleans, integers or floats, got dtype complex64"),
        (np.ma.masked_array([1.0, 2.0], mask=[True, False]), "must be an array or a number, got MaskedArray"),
        (1j, "must be an array or a number, got complex"),
    ],
)
def test_arrays_of_other_kinds_are_refused(value: Any, message: str) -> None:
    for call in (lambda: ad.trace(np.sin, value), lambda: ad.trace(lambda x: x * value, 1.0), lambda: ad.relu(value)):
        with pytest.raises(ArgumentException, match=message):
            call()


def test_a_traced_value_shows_its_type() -> None:
    shown: list[str] = []
    ad.trace(lambda x: (shown.append(repr(x)), x)[1], ones.astype(np.float32))
    assert shown == ["Tracer(float32[2,3])"] * 2


def leaked() -> Any:
    kept: list[Any] = []
    ad.trace(lambda x: (kept.append(x), x)[1], ones)
    return kept[0]


@pytest.mark.parametrize(
    "use",
    [
        lambda x: x + 1.0,
        lambda x: np.tanh(x),
        lambda x: ad.grad(np.sum)(x),
        lambda x: ad.relu(x),
        lambda x: ad.trace(lambda y: y * x, ones),
        lambda x: ad.vmap(np.sum)(x),
        lambda x: ad.jvp(np.sin, (x,), (ones,)),
        lambda x: ad.trace(np.sin, ones)(x),
        lambda x: ad.linearize(np.sin, ones)[1](x),
        lambda x: ad.vjp(np.sin, ones)[1](x),
    ],
)
def test_a_value_that_left_its_trace_is_refused_wherever_it_turns_up(use: Callable[[Any], Any]) -> None:
    with pytest.raises(
        InvalidOperationException, match=r"traced value of type float64\[2,3\] was used after its trace"
    ):
        use(leaked())
    assert active_trace() is None


def test_a_value_in_another_thread_than_its_trace_is_refused() -> None:
    message = "was used in another thread than its trace; compute with it in the thread that called"
    with ThreadPoolExecutor(1) as pool, pytest.raises(InvalidOperationException, match=message):
        ad.trace(lambda x: pool.submit(np.sin, x).result(), ones)


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy], ids=lambda f: f.__name__)
def test_a_copy_of_a_traced_value_is_the_value(duplicate: Callable[[Any], Any]) -> None:
    gradient = ad.grad(lambda tree: np.sum(duplicate(tree)["w"] ** 2))({"w": ones})
    assert_array_equal(gradient["w"], 2 * ones)


def test_an_error_in_the_function_leaves_no_trace_open() -> None:
    def wrong(x: Any) -> Any:
        raise KeyError("theirs")

    for transform in (ad.trace, lambda f, x: ad.grad(f)(x), lambda f, x: ad.vmap(f)(x)):
        with pytest.raises(KeyError, match="theirs"):
            transform(wrong, ones)
        assert active_trace() is None
    assert float(ad.grad(np.sin)(0.0)) == 1.0


def test_the_function_runs_twice_and_its_program_without_it() -> None:
    calls: list[int] = []

    def f(x: Any) -> Any:
        calls.append(1)
        return np.sin(x)

    program = ad.trace(f, 0.0)
    for t in range(5):
        assert float(program(float(t))) == np.sin(float(t))
    # The second time to see that it is pure.
    assert len(calls) == 2


def test_constants_keep_the_values_they_had_while_tracing(backend: Backend) -> None:
    held = backend.asarray([1.0, 2.0])
    program = ad.trace(lambda x: x * held, backend.asarray([1.0, 1.0]))
    backend.copyto(held, 7.0)
    assert backend.to_numpy(program(backend.asarray([1.0, 1.0]))).tolist() == [1.0, 2.0]


def with_a_buffer(x: Any) -> Any:
    """Six times the sum of x, from what a buffer held in turn."""
    buffer, total = np.zeros(3), 0.0
    for i in range(4):
        buffer[:] = i
        total = total + np.sum(x * buffer)
    return total


@pytest.mark.parametrize(
    ("of", "expected"),
    [
        (ad.trace(with_a_buffer, np.ones(3)), 18.0),
        (ad.grad(with_a_buffer), [6.0] * 3),
        (lambda x: ad.vmap(with_a_buffer)(x[None]), [18.0]),
        (lambda x: ad.jvp(with_a_buffer, (x,), (x,))[1], 18.0),
        (ad.grad(lambda x: ad.grad(lambda y: with_a_buffer(y) ** 2)(x)[0]), [72.0] * 3),
        (lambda x: FunctionModel(lambda p, x: with_a_buffer(x) * p["w"], {"w": np.ones(1)}).Predict(x), [18.0]),
    ],
    ids=["trace", "grad", "vmap", "jvp", "twice", "model"],
)
def test_an_array_that_the_function_writes_into_counts_as_it_was_at_each_use(of: Any, expected: Any) -> None:
    assert_array_equal(of(np.ones(3)), expected)


def test_views_of_what_is_written_into_count_as_they_were() -> None:
    def f(x: Any) -> Any:
        buffer = np.zeros((2, 3))
        view = buffer[1]
        first = x * view
        buffer[...] = -0.0
        second = x / view
        buffer[...] = 2.0
        return np.stack([first, second, x * view, x + view])

    with np.errstate(divide="ignore"):
        expected = f(np.ones(3))
    assert_array_equal(ad.trace(f, np.ones(3))(np.ones(3)), expected)


def test_functions_may_return_constants_inputs_and_duplicates(backend: Backend) -> None:
    held = backend.asarray([5.0])
    x = backend.asarray([1.0])
    program = ad.trace(lambda a: {"a": (a, a), "b": [held, 3.0, True, np.float32(2.0)], "c": None, "d": ()}, x)
    result = program(x)
    assert result["c"] is None
    assert result["d"] == ()
    values = [backend.to_numpy(v).tolist() for v in (*result["a"], *result["b"])]
    assert values == [[1.0], [1.0], [5.0], 3.0, True, 2.0]
    assert backend.dtype_of(result["b"][3]) == np.float32
    first, second = result["a"]
    backend.copyto(first, 9.0)
    assert backend.to_numpy(second).tolist() == [1.0]
    assert backend.to_numpy(x).tolist() == [1.0]


def test_results_of_calls_do_not_share_memory() -> None:
    program = ad.trace(lambda x: x * 2.0, np.ones(3))
    first = program(np.ones(3))
    second = program(np.zeros(3))
    assert (first.tolist(), second.tolist()) == ([2.0] * 3, [0.0] * 3)


Point = namedtuple("Point", ["x", "y"])


def test_arguments_and_results_are_trees() -> None:
    tree = {"w": [np.ones(2), (np.zeros(3),)], "p": Point(1.0, {"z": np.ones(())}), "none": None, "empty": {}}
    leaves, structure = flatten(tree)
    assert structure.leaves == len(leaves) == 4
    built = structure.unflatten(leaves)
    assert isinstance(built["p"], Point)
    assert built["w"][1][0] is leaves[1]
    assert built["none"] is None
    assert built["empty"] == {}
    gradient = ad.grad(lambda t: np.sum(t["w"][0]) + 2 * t["p"].x + 3 * t["p"].y["z"])(tree)
    assert flatten(gradient)[1] == structure
    assert gradient["w"][0].tolist() == [1, 1]
    assert gradient["w"][1][0].tolist() == [0, 0, 0]
    assert (float(gradient["p"].x), float(gradient["p"].y["z"])) == (2.0, 3.0)


def test_any_mapping_counts_and_the_order_of_its_keys_matters() -> None:
    program = ad.trace(lambda d: d["a"] - d["b"], OrderedDict(a=1.0, b=2.0))
    assert float(program({"a": 5.0, "b": 2.0})) == 3.0
    with pytest.raises(
        ArgumentException, match="arguments must be nested like the examples that the program was traced on"
    ):
        program({"b": 2.0, "a": 5.0})


def test_a_call_wants_the_structure_shapes_and_dtypes_it_was_traced_on() -> None:
    program = ad.trace(lambda x, y: x * y, ones, 2.0)
    with pytest.raises(
        ArgumentException, match="arguments must be nested like the examples that the program was traced on"
    ):
        program(ones)
    with pytest.raises(
        ArgumentException, match="arguments must be nested like the examples that the program was traced on"
    ):
        program([ones], 2.0)
    with pytest.raises(
        ArgumentException,
        match=r"arguments\[0\] must be float64\[2,3\] like the example .*, got float64\[3,2\]",
    ):
        program(ones.T, 2.0)
    with pytest.raises(
        ArgumentException, match=r"arguments\[0\] must be float64\[2,3\] like the example .*, got float32\[2,3\]"
    ):
        program(ones.astype(np.float32), 2.0)
    with pytest.raises(
        ArgumentException, match=r"arguments\[1\] must be float64\[\] like the example .*, got float64\[3\]"
    ):
        program(ones, np.ones(3))
    assert_array_equal(program(ones, 3), 3 * ones)
    with pytest.raises(ArgumentException, match=r"arguments\[0\] must be int8\[\] like the example .*, got int64\[\]"):
        ad.trace(np.negative, np.int8(1))(300)


def test_a_program_called_while_tracing_joins_the_trace() -> None:
    square = ad.trace(lambda x: x * x, 0.0)
    assert float(ad.grad(lambda x: square(x) * 3)(2.0)) == 12.0
    assert ad.vmap(square)(np.arange(3.0)).tolist() == [0, 1, 4]
    with pytest.raises(
        ArgumentException,
        match=r"arguments\[0\] must be float64\[\] like the example that the program was traced on, got float64\[2\]",
    ):
        ad.trace(lambda x: square(np.stack([x, x])), 0.0)


def test_arrays_of_different_devices_do_not_mix() -> None:
    a = np.ones(3)
    b = get_backend("strict").asarray(a)
    c = get_backend("strict-device1").asarray(a)
    for x, y in ((a, b), (b, c), (c, a), (b, a)):
        for call in (
            lambda x=x, y=y: ad.trace(np.add, x, y)(x, y),
            lambda x=x, y=y: ad.grad(lambda z: np.sum(z * y))(x),
            lambda x=x, y=y: ad.jvp(np.sin, (x,), (y,)),
            lambda x=x, y=y: ad.vmap(np.multiply)(x, y),
            lambda x=x, y=y: ad.linearize(np.sin, x)[1](y),
            lambda x=x, y=y: ad.vjp(np.sin, x)[1](y),
            lambda x=x, y=y: ad.linearize(lambda z: np.sum(z) * y, x),
            lambda x=x, y=y: ad.batch_norm(x[:, None], y[:1]),
        ):
            with pytest.raises(ArgumentException, match=r"arrays must be on one backend, got .*move them to one first"):
                call()


def test_integers_and_booleans_pass_through(backend: Backend) -> None:
    x, labels, mask = (backend.asarray(v) for v in ([[1.0, 2.0], [3.0, 4.0]], [1, 0], [True, False]))

    def f(a: Any, i: Any, m: Any) -> Any:
        return np.sum(np.where(m, np.take_along_axis(a, np.expand_dims(i, 1), 1)[:, 0], 0.0) * i)

    value, gradient = ad.value_and_grad(f)(x, labels, mask)
    assert float(value) == 2.0
    assert backend.to_numpy(gradient).tolist() == [[0.0, 1.0], [0.0, 0.0]]
    with pytest.raises(
        ArgumentException, match=r"arguments\[1\] must have a floating dtype to be differentiated, got int64"
    ):
        ad.grad(f, argument=1)(x, labels, mask)


def test_tracers_compare_by_identity_where_python_hashes_them() -> None:
    with new_trace() as trace:
        x = trace.new_input(ad.trace(np.sin, ones).input_types[0])
        assert len({x, x}) == 1
        assert isinstance(x == x, Tracer)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ad.trace(lambda x: f"{x[0]:.3f}", np.ones(2)), "formatting asks for the value of a traced float64"),
        (lambda: ad.trace(pickle.dumps, np.ones(2)), "pickling asks for the value of a traced float64"),
        (
            lambda: ad.trace(lambda x: x[x > 1], np.ones(2)),
            r"indices must be integers, got dtype bool; for a mask, use np\.where",
        ),
        (
            lambda: ad.trace(lambda x: np.where(x > 1), np.ones(2)),
            r"np\.where must have three arguments to be traced, got one; the shape of its result would depend",
        ),
        (
            lambda: ad.trace(lambda x: np.einsum("...i->i", x), np.ones(2)),
            r"einsum must have letters, without an ellipsis, to be traced, got '\.\.\.i->i'",
        ),
        (
            lambda: ad.jvp(np.sin, np.ones(2), np.ones(2)),
            "primals must be a tuple with one entry for each argument, got ndarray",
        ),
        (lambda: ad.grad(3)(1.0), "f must be a function, got int"),
    ],
)
def test_a_slip_is_told_its_remedy(call: Callable[[], Any], message: str) -> None:
    with pytest.raises((ArgumentException, InvalidOperationException, NotSupportedException), match=message):
        call()


def _filled(write: Callable[[Any, Any], Any], dtype: Any = float, shape: Any = (3,)) -> Callable[[Any], Any]:
    """A function that makes an array, has a traced vector written into it, and goes on from there."""

    def function(x: Any) -> Any:
        out = np.zeros(shape, dtype)
        write(out, x)
        return np.sum(out)

    return function


def _augment(out: Any, x: Any) -> None:
    out += x


def _augment_part(out: Any, x: Any) -> None:
    out[:2] *= x[:2]


def _augment_element(out: Any, x: Any) -> None:
    out[0] += x[0]


def _augment_product(out: Any, x: Any) -> None:
    out @= np.outer(x, x)


WRITES: dict[str, Callable[[Any], Any]] = {
    "an element": _filled(lambda o, x: assign(o, 0, x[0])),
    "an element of float32": _filled(lambda o, x: assign(o, 0, x[0]), np.float32),
    "an element of integers": _filled(lambda o, x: assign(o, 0, x[0]), np.int64),
    "an element of booleans": _filled(lambda o, x: assign(o, 0, x[0] > 0), bool),
    "an element of long doubles": _filled(lambda o, x: assign(o, 0, x[0]), np.longdouble),
    "an element of a matrix": _filled(lambda o, x: assign(o, (1, 2), x[0]), shape=(2, 3)),
    "a vector as an element": _filled(lambda o, x: assign(o, 0, x)),
    "a span": _filled(lambda o, x: assign(o, slice(2), x[:2])),
    "a span from one value": _filled(lambda o, x: assign(o, slice(2), x[0])),
    "all": _filled(lambda o, x: assign(o, Ellipsis, x)),
    "a row": _filled(lambda o, x: assign(o, 1, x), shape=(2, 3)),
    "by a mask": _filled(lambda o, x: assign(o, np.array([True, False, True]), x[:2])),
    "by a list": _filled(lambda o, x: assign(o, [0, 2], x[:2])),
    "at a traced place": _filled(lambda o, x: assign(o, x.astype(int), 1.0)),
    "flat": _filled(lambda o, x: setattr(o, "flat", x)),
    "+=": _filled(_augment),
    "*= of a part": _filled(_augment_part),
    "+= of an element": _filled(_augment_element),
    "@=": _filled(_augment_product, shape=(3, 3)),
    "fill": _filled(lambda o, x: o.fill(x[0])),
    "put, a method": _filled(lambda o, x: o.put([0], x[0])),
    "put": _filled(lambda o, x: np.put(o, [0], x[0])),
    "place": _filled(lambda o, x: np.place(o, o == 0, x)),
    "putmask": _filled(lambda o, x: np.putmask(o, o == 0, x)),
    "put_along_axis": _filled(lambda o, x: np.put_along_axis(o, np.array([0]), x[:1], 0)),
    "fill_diagonal": _filled(lambda o, x: np.fill_diagonal(o, x), shape=(3, 3)),
    "copyto": _filled(lambda o, x: np.copyto(o, x)),
    "add.at": _filled(lambda o, x: np.add.at(o, [0, 0, 1], x)),
    "multiply.at": _filled(lambda o, x: np.multiply.at(o, [0, 0, 1], x)),
    "out=": _filled(lambda o, x: np.exp(x, out=o)),
    "full": lambda x: np.sum(np.full(3, x[0])),
    "asarray": lambda x: np.sum(np.asarray(x)),
    "array of values": lambda x: np.sum(np.array([x[0], 1.0])),
    "array of vectors": lambda x: np.sum(np.array([x, x])),
    "fromiter": lambda x: np.sum(np.fromiter((v for v in x), float)),
    "a traced array": lambda x: assign(x * 1, 0, 2.0),
}


@pytest.mark.parametrize("name", WRITES)
def test_what_is_written_into_an_array_is_told_what_to_write_instead(name: str) -> None:
    for call in (
        lambda: ad.grad(WRITES[name])(np.ones(3)),
        lambda: ad.trace(WRITES[name], np.ones(3)),
        lambda: ad.vmap(WRITES[name])(np.ones((2, 3))),
        lambda: FunctionModel(lambda p, x: x * WRITES[name](p["w"]), {"w": np.ones(3)}).Predict(np.ones((2, 1))),
    ):
        with pytest.raises(
            (NotSupportedException, InvalidOperationException),
            match=r"autodiff\.at\(x\)\[index\]\.set\(value\).* np\.where, np\.concatenate or np\.",
        ):
            call()


def test_errors_of_the_function_itself_pass() -> None:
    def own(x: Any) -> Any:
        try:
            raise InvalidOperationException("first")
        except InvalidOperationException as error:
            raise ValueError("second") from error

    with pytest.raises(ValueError, match=r"^second$"):
        ad.trace(own, 1.0)


def test_where_numpy_lets_nobody_in_nothing_is_silent() -> None:
    """What docs/engine.md says of flat, of text, and of arrays of objects."""

    def flat(out: Any, x: Any) -> None:
        out.flat[0] = x[0]

    for f in (_filled(flat), lambda x: assign(np.zeros(2, "U3"), 0, x[0])):
        with pytest.raises(ValueError, match=r"array|item"):
            ad.trace(f, np.ones(3))
    objects = _filled(lambda o, x: assign(o, 0, x[0] * x[0]), object)
    assert ad.grad(objects)(np.array([3.0, 2.0, 1.0])).tolist() == [6.0, 0.0, 0.0]

    def of_objects(x: Any) -> Any:
        out = np.zeros(1, object)
        out[0] = x
        return np.tanh(out)

    with pytest.raises(TypeError, match="tanh"):
        ad.trace(of_objects, 1.0)
