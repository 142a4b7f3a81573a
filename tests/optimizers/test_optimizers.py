"""Optimizers against their papers' formulas in high precision, their memory, and every refusal with its message."""

from __future__ import annotations

import copy
import pickle
import re
from typing import Any

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aidotnet_py import (
    AdamOptimizer,
    ArgumentException,
    ArgumentOutOfRangeException,
    FunctionModel,
    IGradientBasedOptimizer,
    InvalidOperationException,
    MAMLAlgorithm,
    MAMLOptions,
    MetaLearningTask,
    NotSupportedException,
    SGDOptimizer,
    TaskBatch,
)
from aidotnet_py.arguments import shown
from aidotnet_py.autodiff import grad, trace, vjp
from aidotnet_py.autodiff.extend import Executable
from aidotnet_py.backends import get_backend
from aidotnet_py.optimizers import ElementwiseOptimizer

MAKERS = {
    "sgd": lambda: SGDOptimizer(0.1),
    "momentum": lambda: SGDOptimizer(0.1, momentum=0.9),
    "adam": lambda: AdamOptimizer(0.05, beta1=0.8, beta2=0.99, epsilon=1e-6),
}
STEPS = 7
NUMPY = get_backend("numpy")


@pytest.fixture(params=list(MAKERS))
def make(request):
    return MAKERS[request.param]


def gradients(shape, dtype=np.float64):
    return np.random.default_rng(7).standard_normal((STEPS, *shape)).astype(dtype)


def run(backend, optimizer, start, slopes):
    """The parameters after each step, on the host."""
    point, seen = backend.asarray(start), []
    for slope in slopes:
        point = optimizer.UpdateParameters(point, backend.asarray(slope))
        seen.append(np.array(backend.to_numpy(point)))
    return np.array(seen)


# The witnesses: one parameter at a time, 50 digits, as the papers write them.


def sgd(start, slopes, rate, momentum=0.0):
    point, velocity = mpmath.mpf(start), mpmath.mpf(0)
    for slope in slopes:
        velocity = mpmath.mpf(momentum) * velocity + mpmath.mpf(slope)
        point -= mpmath.mpf(rate) * velocity
        yield point


def adam(start, slopes, rate, beta1, beta2, epsilon):
    rate, beta1, beta2, epsilon = map(mpmath.mpf, (rate, beta1, beta2, epsilon))
    point, m, v = mpmath.mpf(start), mpmath.mpf(0), mpmath.mpf(0)
    for t, slope in enumerate(map(mpmath.mpf, slopes), start=1):
        m = beta1 * m + (1 - beta1) * slope
        v = beta2 * v + (1 - beta2) * slope**2
        point -= rate * (m / (1 - beta1**t)) / (mpmath.sqrt(v / (1 - beta2**t)) + epsilon)
        yield point


def in_high_precision(formula, start, slopes):
    with mpmath.workdps(50):
        columns = [[float(x) for x in formula(float(s), map(float, g))] for s, g in zip(start, slopes.T, strict=True)]
    return np.array(columns).T


@pytest.mark.parametrize(
    ("optimizer", "formula"),
    [
        (SGDOptimizer(0.1), lambda s, g: sgd(s, g, 0.1)),
        (SGDOptimizer(0.3, momentum=0.9), lambda s, g: sgd(s, g, 0.3, 0.9)),
        (AdamOptimizer(0.05), lambda s, g: adam(s, g, 0.05, 0.9, 0.999, 1e-8)),
        (AdamOptimizer(0.05, beta1=0.5, beta2=0.7, epsilon=0.1), lambda s, g: adam(s, g, 0.05, 0.5, 0.7, 0.1)),
        (AdamOptimizer(0.05, beta1=0.0, beta2=0.0), lambda s, g: adam(s, g, 0.05, 0.0, 0.0, 1e-8)),
    ],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_follows_its_formula(backend, optimizer, formula, dtype):
    start = np.random.default_rng(3).standard_normal(5).astype(dtype)
    slopes = gradients((5,), dtype)
    seen = run(backend, optimizer.fresh(), start, slopes)
    assert seen.dtype == dtype
    # About ten roundings a step, each relative to numbers of at most 4, over 7 steps; (1 − β₂ᵗ) loses 3 digits to
    # cancellation where β₂ = 0.999, but in float64 whatever the dtype.
    bound = 4 * 10 * STEPS * np.finfo(dtype).eps + 1e-12
    np.testing.assert_allclose(seen, in_high_precision(formula, start, slopes), rtol=0, atol=bound)


def test_first_step_of_adam_is_the_rate_in_the_gradients_direction(backend):
    # m̂ = g and v̂ = g², so the step is α g / (|g| + ε): what the bias corrections are for.
    slopes = np.array([[1e-3, -5.0, 2e4]])
    np.testing.assert_allclose(
        run(backend, AdamOptimizer(0.01), np.zeros(3), slopes)[0], [-0.01, 0.01, -0.01], rtol=1e-4
    )


def test_adam_takes_gradients_whose_squares_half_precision_lacks():
    """Their moment was infinite, and every step 0."""
    slopes = np.full((3, 2), [300.0, -3000.0], np.float16)
    seen = run(NUMPY, AdamOptimizer(0.1), np.zeros(2, np.float16), slopes)
    np.testing.assert_allclose(seen[-1], [-0.3, 0.3], rtol=2e-3)


class TestArguments:
    def test_are_not_changed_and_the_result_is_new(self, backend, make):
        optimizer = make()
        point, slope = backend.asarray(np.ones(4)), backend.asarray(np.full(4, 2.0))
        for _ in range(3):
            result = optimizer.UpdateParameters(point, slope)
            assert not np.shares_memory(backend.to_numpy(result), backend.to_numpy(slope))
            assert not np.shares_memory(backend.to_numpy(result), backend.to_numpy(point))
        assert backend.to_numpy(point).tolist() == [1.0] * 4
        assert backend.to_numpy(slope).tolist() == [2.0] * 4

    def test_later_steps_do_not_change_earlier_results(self, backend, make):
        optimizer = make()
        first = optimizer.UpdateParameters(backend.asarray(np.ones(3)), backend.asarray(np.ones(3)))
        before = np.array(backend.to_numpy(first))
        optimizer.UpdateParameters(first, backend.asarray(np.ones(3)))
        assert (backend.to_numpy(first) == before).all()

    def test_may_be_views_and_read_only(self, make):
        table = np.random.default_rng(0).standard_normal((6, 4))
        table.flags.writeable = False
        strided = make().UpdateParameters(table[::2, 1], table[::2, 2])
        assert (strided == make().UpdateParameters(table[::2, 1].copy(), table[::2, 2].copy())).all()

    @pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
    def test_keep_their_dtype(self, make, dtype):
        result = run(NUMPY, make(), np.ones(3, dtype), gradients((3,), dtype))
        assert result.dtype == dtype
        assert np.isfinite(result).all()

    def test_that_overflow_warn_of_nothing(self, make):
        huge = np.full(2, np.finfo(np.float32).max)
        result = make().UpdateParameters(-huge, huge)
        # g² is infinite in Adam, whose step then is 0; −max − max/10 in the others.
        assert (result == (-huge if make is MAKERS["adam"] else -np.inf)).all()


@given(st.sampled_from(sorted(MAKERS)), st.integers(1, 4), st.integers(1, 9), st.sampled_from([np.float32, np.float64]))
def test_rows_are_each_as_if_alone_bit_for_bit(name, tasks, count, dtype):
    backend = get_backend("numpy")
    start = np.random.default_rng(1).standard_normal((tasks, count)).astype(dtype)
    slopes = gradients((tasks, count), dtype)
    together = run(backend, MAKERS[name](), start, slopes)
    for t in range(tasks):
        assert (run(backend, MAKERS[name](), start[t], slopes[:, t]) == together[:, t]).all()


class Descent(ElementwiseOptimizer):
    """Descent by its formula alone."""

    def formula(self, parameters, gradient, memory, coefficients):
        return parameters - coefficients[0] * gradient, []


class OfUnitLength(ElementwiseOptimizer):
    """Steps along the gradient's direction, a mean of which is remembered: no parameter is by itself."""

    memory = ("mean",)

    def formula(self, parameters, gradient, memory, coefficients):
        direction = gradient / np.sqrt(np.sum(gradient**2)) + memory[0] / len(gradient)
        return parameters - coefficients[0] * direction, [0.5 * memory[0] + gradient]


@pytest.mark.parametrize("tasks", [1, 2, 4])
def test_a_formula_that_mixes_the_parameters_of_a_vector_does_not_mix_rows(tasks):
    start, slopes = np.random.default_rng(1).standard_normal((tasks, 5)), gradients((tasks, 5))
    together = run(NUMPY, OfUnitLength(0.1), start, slopes)
    for t in range(tasks):
        np.testing.assert_allclose(run(NUMPY, OfUnitLength(0.1), start[t], slopes[:, t]), together[:, t], rtol=1e-12)


def formula_inputs(optimizer, shape, dtype=np.float64):
    """Parameters, gradient and a memory like that of an optimizer some steps old."""
    random = np.random.default_rng(5)
    point, slope = random.standard_normal((2, *shape)).astype(dtype)
    memory = [m.astype(dtype) for m in random.standard_normal((len(optimizer.memory), *shape))]
    if isinstance(optimizer, AdamOptimizer):
        memory[1] = memory[0] ** 2 + dtype(0.5)
    return point, slope, memory


def numbers(optimizer, step, dtype):
    return [np.asarray(c, dtype) for c in optimizer.coefficients(step)]


class Lion(ElementwiseOptimizer):
    """Chen et al. 2023, by its formula alone."""

    memory = ("mean",)

    def formula(self, parameters, gradient, memory, coefficients):
        direction = np.sign(0.9 * memory[0] + 0.1 * gradient)
        return parameters - coefficients[0] * direction, [0.99 * memory[0] + 0.01 * gradient]


class TestFormula:
    @pytest.mark.parametrize("shape", [(5,), (3, 5)])
    @pytest.mark.parametrize(
        ("where", "traced", "dtype"),
        [
            ("strict", True, np.float32),
            ("strict", True, np.float64),
            *(("numpy", traced, d) for traced in (True, False) for d in (np.float16, np.float32, np.float64)),
        ],
    )
    def test_takes_the_steps_bit_for_bit(self, make, shape, where, traced, dtype):
        backend, optimizer, slopes = get_backend(where), make(), gradients(shape, dtype)
        slopes[:, ..., 0] = 0.0  # a dead unit's
        slopes[3:, ..., 1] = np.nan
        formula = optimizer.formula
        point = backend.asarray(np.ones(shape, dtype))
        memory = [backend.asarray(np.zeros(shape, dtype)) for _ in optimizer.memory]
        if traced:
            formula = trace(formula, point, point, memory, [np.zeros((), dtype) for _ in optimizer.coefficients(1)])
        for step, new in enumerate(run(backend, make(), np.ones(shape, dtype), slopes), start=1):
            coefficients = optimizer.coefficients(step)
            if traced:
                coefficients = [backend.asarray(np.asarray(c, dtype)) for c in coefficients]
            with np.errstate(all="ignore"):
                point, memory = formula(point, backend.asarray(slopes[step - 1]), memory, coefficients)
            assert backend.dtype_of(point) == dtype
            np.testing.assert_array_equal(backend.to_numpy(point), new)

    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_takes_the_steps_bit_for_bit_when_compiled(self, make, dtype):
        """Over several vectors of the machine's and a remainder."""
        optimizer, slopes = make(), gradients((2, 517), dtype)
        point, slope = np.ones((2, 517), dtype), np.empty((2, 517), dtype)
        memory = [np.zeros((2, 517), dtype) for _ in optimizer.memory]
        coefficients = numbers(optimizer, 1, dtype)
        program = trace(optimizer.formula, point, slope, memory, coefficients)
        executable = Executable(program, NUMPY, inputs=[point, slope, *memory, *coefficients], compile_at=1)
        executable.compile()
        for step, new in enumerate(run(NUMPY, make(), np.ones((2, 517), dtype), slopes), start=1):
            slope[...] = slopes[step - 1]
            for array, number in zip(coefficients, optimizer.coefficients(step), strict=True):
                array[...] = number
            executable.run()
            for array, result in zip([point, *memory], executable.outputs, strict=True):
                array[...] = result
            np.testing.assert_array_equal(point, new)

    def test_leaves_the_memory_of_the_steps(self, make):
        optimizer, slopes = make(), gradients((4,), np.float32)
        point, memory = np.ones(4, np.float32), [np.zeros(4, np.float32) for _ in optimizer.memory]
        own = point.copy()
        for step, slope in enumerate(slopes, start=1):
            point, memory = optimizer.formula(point, slope, memory, numbers(optimizer, step, np.float32))
            own = optimizer.UpdateParameters(own, slope)
        state = optimizer.GetState()
        assert state.pop("steps") == STEPS
        assert list(state) == list(optimizer.memory)
        np.testing.assert_array_equal([own, *state.values()], [point, *memory])

    def test_stays_in_float32(self, make):
        optimizer = make()
        point, slope, memory = formula_inputs(optimizer, (3,), np.float32)
        program = trace(optimizer.formula, point, slope, memory, numbers(optimizer, 1, np.float32))
        assert "float64" not in str(program)

    def test_is_traced_once_for_all_steps_and_settings(self):
        one, other = AdamOptimizer(0.1), AdamOptimizer(0.3, beta1=0.5, beta2=0.6, epsilon=0.1)
        point, slope, memory = formula_inputs(one, (3,))
        program = trace(one.formula, point, slope, memory, numbers(one, 1, np.float64))
        for step in (1, 9):
            coefficients = numbers(other, step, np.float64)
            np.testing.assert_array_equal(
                program(point, slope, memory, coefficients)[0], other.formula(point, slope, memory, coefficients)[0]
            )

    def test_has_the_derivatives_of_the_papers_formula(self, make):
        """Pulled-back cotangents against a central difference in 50 digits, in each argument and coefficient."""
        optimizer = make()
        point, slope, memory = formula_inputs(optimizer, (4,))
        leaves = [point, slope, *memory, *numbers(optimizer, 3, np.float64)]
        count = len(memory)

        def flat(*values):
            new, remembered = optimizer.formula(*values[:2], list(values[2 : 2 + count]), list(values[2 + count :]))
            return [new, *remembered]

        seeds = list(np.random.default_rng(8).standard_normal((1 + count, 4)))
        _, pullback = vjp(flat, *leaves)
        for place, pulled in enumerate(pullback(seeds)):
            wanted = np.zeros(leaves[place].shape)
            for index in np.ndindex(wanted.shape):
                wanted[index] = central_difference(optimizer, leaves, seeds, place, index)
            np.testing.assert_allclose(pulled, wanted, rtol=1e-13, atol=1e-13)

    def test_of_adam_has_finite_derivatives_where_no_gradient_ever_came(self):
        adam = AdamOptimizer(0.1, epsilon=1e-3)
        zeros, coefficients = np.zeros(2), numbers(adam, 1, np.float64)

        def step(slope):
            return adam.formula(np.ones(2), slope, [zeros, zeros], coefficients)[0].sum()

        # The first step is −α g / (|g| + ε), whose derivative −α ε / (|g| + ε)² is −α / ε at 0.
        np.testing.assert_allclose(grad(step)(zeros), [-100.0, -100.0], rtol=1e-13)
        _, pullback = vjp(lambda *values: adam.formula(values[0], values[1], values[2:], coefficients)[0], *[zeros] * 4)
        for pulled in pullback(np.ones(2)):
            assert np.isfinite(pulled).all()

        # And so has the derivative of that derivative, at 0 as beside it.
        second = grad(lambda slope: (grad(step)(slope) ** 2).sum())
        assert np.isfinite(second(np.array([0.0, 1e-3]))).all()

    def test_of_a_class_without_one_is_refused(self):
        class Plain(ElementwiseOptimizer):
            def _step(self, backend, parameters, gradient):
                return parameters - gradient

        assert not Plain(0.1).has_formula
        assert Plain(0.1).memory == ()
        assert Plain(0.1).coefficients(4) == (0.1,)
        with pytest.raises(NotSupportedException, match=r"Plain has no formula; to differentiate .* method formula\("):
            Plain(0.1).formula(np.ones(1), np.ones(1), [], [0.1])

    def test_is_not_that_of_a_subclass_which_steps_otherwise(self, make):
        assert make().has_formula

        class Named(type(make())):
            """Changes nothing."""

        class Otherwise(type(make())):
            def _step(self, backend, parameters, gradient):
                return parameters

        assert Named(0.1).has_formula
        assert not Otherwise(0.1).has_formula
        place = np.ones(2)
        place = Otherwise(0.1).UpdateParameters(place, np.ones(2))
        assert (place == 1.0).all()

    def test_is_not_that_of_another_step_mixed_in(self, make):
        class Still:
            def _step(self, backend, parameters, gradient):
                return parameters

        class Mixed(Still, type(make())):
            """Changes nothing but by what it is mixed of."""

        class Named(Mixed):
            """Changes nothing."""

        assert not Named.has_formula
        place = np.ones(2)
        place = Named(0.1).UpdateParameters(place, np.ones(2))
        assert (place == 1.0).all()

    def test_mixed_in_is_what_is_stepped_by(self, make):
        class Back:
            def formula(self, parameters, gradient, memory, coefficients):
                return parameters + gradient, list(memory)

        class Mixed(Back, type(make())):
            """Changes nothing but by what it is mixed of."""

        class Named(Mixed):
            """Changes nothing."""

        assert Named.has_formula
        place = np.ones(2)
        assert (Named(0.1).UpdateParameters(place, np.ones(2)) == 2.0).all()
        place = Named(0.1).UpdateParameters(place, np.ones(2))
        assert (place == 2.0).all()

    def test_of_a_subclass_is_what_it_steps_by(self, backend, make):
        class Doubled(type(make())):
            def formula(self, parameters, gradient, memory, coefficients):
                return super().formula(parameters, gradient + gradient, memory, coefficients)

        slopes = gradients((2, 3))
        optimizer, other, place = Doubled(0.1), type(make())(0.1), backend.asarray(np.ones((2, 3)))
        assert optimizer.has_formula
        wanted = run(backend, other, np.ones((2, 3)), 2 * slopes)
        np.testing.assert_array_equal(run(backend, optimizer, np.ones((2, 3)), slopes), wanted)
        optimizer.Reset()
        for slope in slopes:
            place = optimizer.UpdateParameters(place, backend.asarray(slope))
        np.testing.assert_array_equal(backend.to_numpy(place), wanted[-1])
        assert optimizer.GetState().keys() == other.GetState().keys()

    @pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
    def test_alone_makes_an_optimizer(self, dtype):
        optimizer = Lion(0.1)
        run(NUMPY, optimizer, np.zeros((2, 3), dtype), gradients((2, 3), dtype))
        optimizer.Reset()
        place, copies = np.zeros((2, 3), dtype), [copy.deepcopy(optimizer), optimizer.fresh()]
        copies.append(pickle.loads(pickle.dumps(optimizer)))
        for other in (optimizer, *copies):
            assert run(NUMPY, other, place, gradients((2, 3), dtype)).dtype == dtype
        (mean,) = (value for name, value in optimizer.GetState().items() if name != "steps")
        exact = sum(0.01 * 0.99 ** (STEPS - 1 - k) * slope for k, slope in enumerate(gradients((2, 3))))
        np.testing.assert_allclose(mean, exact, rtol=0, atol=40 * np.finfo(dtype).eps)
        assert all((other.GetState()["mean"] == mean).all() for other in copies)

    def test_is_traced_once_for_parameters_of_a_kind(self):
        traced = []

        class Counting(Lion):
            def formula(self, parameters, gradient, memory, coefficients):
                traced.append(parameters.shape)
                return super().formula(parameters, gradient, memory, coefficients)

        optimizer = Counting(0.1)
        for count in (2, 3, 2, 3, 2):
            run(NUMPY, optimizer.fresh(), np.ones(count), gradients((count,)))
        # Each time twice, to see that the formula is pure.
        assert traced == [(2,), (2,), (3,), (3,)]
        for count in range(4, 12):
            run(NUMPY, optimizer.fresh(), np.ones(count), gradients((count,)))
        assert len(optimizer._programs) <= 4

    def test_keeps_its_memory_apart_whatever_order_its_state_came_in(self):
        class Twins(AdamOptimizer):
            def formula(self, parameters, gradient, memory, coefficients):
                return super().formula(parameters, gradient, memory, coefficients)

        slopes = gradients((3,))
        whole, half, rest = Twins(0.1), Twins(0.1), Twins(0.1)
        wanted = run(NUMPY, whole, np.ones(3), slopes)
        middle = run(NUMPY, half, np.ones(3), slopes[:4])
        rest.SetState(dict(reversed(half.GetState().items())))
        np.testing.assert_array_equal(run(NUMPY, rest, middle[-1], slopes[4:]), wanted[4:])

    @pytest.mark.parametrize(
        ("result", "given"),
        [
            (lambda p, m: (p, []), r"float32\[2\]"),
            (lambda p, m: (p, [m, m]), r"float32\[2\], float32\[2\], float32\[2\]"),
            (lambda p, m: (p * np.float64(2.0), [m]), r"float64\[2\], float32\[2\]"),
            (lambda p, m: (p.sum(), [m]), r"float32\[\], float32\[2\]"),
        ],
    )
    def test_that_gives_something_else_is_refused(self, result, given):
        class Odd(Lion):
            def formula(self, parameters, gradient, memory, coefficients):
                return result(parameters, memory[0])

        message = rf"Odd.formula must return new parameters and 1 arrays of memory, all float32\[2\], got {given}"
        with pytest.raises(InvalidOperationException, match=message):
            Odd(0.1).UpdateParameters(np.ones(2, np.float32), np.ones(2, np.float32))

    def test_and_step_follow_coefficients_that_a_subclass_changed(self):
        class Halving(SGDOptimizer):
            def coefficients(self, step):
                return (self._learning_rate / 2 ** (step - 1),)

        optimizer, place = Halving(0.5), np.ones(1)
        assert optimizer.has_formula
        assert optimizer.UpdateParameters(place, np.ones(1)) == 0.5
        place = optimizer.UpdateParameters(place, np.ones(1))
        assert place == 0.75


def central_difference(optimizer, leaves, seeds, place, index):
    """Of the sum of seeds times results, along one number; the step's formula, in mpmath."""
    count = len(optimizer.memory)
    with mpmath.workdps(50):
        width = mpmath.mpf(10) ** -20

        def value(shift):
            point, slope, *rest = ([mpmath.mpf(float(x)) for x in np.ravel(leaf)] for leaf in leaves)
            columns = [point, slope, *rest]
            columns[place][index[0] if index else 0] += shift
            memory, numbers_ = columns[2 : 2 + count], [c[0] for c in columns[2 + count :]]
            results = [precise_step(*columns[0:2], memory, numbers_, i) for i in range(len(point))]
            return sum(float(s[i]) * r for i, row in enumerate(results) for s, r in zip(seeds, row, strict=True))

        return float((value(width) - value(-width)) / (2 * width))


def precise_step(point, slope, memory, coefficients, i):
    """The new parameter and memory number i."""
    if len(memory) == 2:
        decay1, weight1, decay2, weight2, epsilon, rate = coefficients
        first = decay1 * memory[0][i] + weight1 * slope[i]
        second = decay2 * memory[1][i] + weight2 * slope[i] ** 2
        return point[i] - rate * first / (mpmath.sqrt(second) + epsilon), first, second
    velocity = coefficients[1] * memory[0][i] + slope[i] if memory else slope[i]
    return (point[i] - coefficients[0] * velocity, velocity)[: 1 + len(memory)]


class TestState:
    def test_resumes_bit_for_bit(self, backend, make):
        slopes = gradients((3,))
        whole = run(backend, make(), np.ones(3), slopes)
        first = make()
        half = run(backend, first, np.ones(3), slopes[:4])
        second = make()
        second.SetState(first.GetState())
        assert (run(backend, second, half[-1], slopes[4:]) == whole[4:]).all()

    def test_is_a_copy_both_ways(self, backend, make):
        optimizer = make()
        slopes = gradients((3,))
        run(backend, optimizer, np.ones(3), slopes[:2])
        state = optimizer.GetState()
        other = make()
        other.SetState(state)
        run(backend, optimizer, np.ones(3), slopes)
        assert (
            run(backend, other, np.ones(3), slopes) == run(backend, _restored(make, state), np.ones(3), slopes)
        ).all()

    def test_names_what_it_holds(self, backend):
        adam = AdamOptimizer(0.1)
        assert adam.GetState() == {"steps": 0}
        run(backend, adam, np.ones(3), gradients((3,))[:2])
        assert sorted(adam.GetState()) == ["first_moment", "second_moment", "steps"]
        assert adam.GetState()["steps"] == 2

    def test_is_gone_after_reset(self, backend, make):
        optimizer, slopes = make(), gradients((3,))
        first = run(backend, optimizer, np.ones(3), slopes)
        optimizer.Reset()
        assert optimizer.GetState() == {"steps": 0}
        assert (run(backend, optimizer, np.ones(3), slopes) == first).all()

    def test_of_a_fresh_one_is_empty_and_its_own(self, backend, make):
        optimizer, slopes = make(), gradients((3,))
        run(backend, optimizer, np.ones(3), slopes[:3])
        fresh = optimizer.fresh()
        assert (run(backend, fresh, np.ones(3), slopes) == run(backend, make(), np.ones(3), slopes)).all()
        assert optimizer.GetState()["steps"] == 3

    @pytest.mark.parametrize(
        ("state", "message"),
        [
            ({}, r"state must have steps, a count, and \['first_moment', 'second_moment'\], got \[\] with steps None"),
            ({"steps": -1}, r"with steps -1"),
            ({"steps": 1.5}, r"with steps 1.5"),
            ({"steps": 1, "velocity": np.ones(2)}, r"state must have .*, got \['steps', 'velocity'\]"),
            ({"steps": 3}, r"state must have arrays only with steps, got 3 steps and arrays \[\]"),
            (
                {"steps": 0, "first_moment": np.ones(2), "second_moment": np.ones(2)},
                r"state must have .*, got 0 steps and arrays \['first_moment', 'second_moment'\]",
            ),
            (
                {"steps": 1, "first_moment": np.ones(2), "second_moment": [1.0, 1.0]},
                r"state\['second_moment'\] must be an array, got \[1\.0, 1\.0\]",
            ),
            (None, "state must be a mapping, as from GetState, got None"),
            ([1], r"state must be a mapping, as from GetState, got \[1\]"),
        ],
    )
    def test_of_something_else_is_refused_and_changes_nothing(self, state, message):
        adam = AdamOptimizer(0.1)
        adam.UpdateParameters(np.ones(2), np.ones(2))
        before = adam.GetState()
        with pytest.raises(ArgumentException, match=message):
            adam.SetState(state)
        assert {k: np.array(v).tolist() for k, v in adam.GetState().items()} == {
            k: np.array(v).tolist() for k, v in before.items()
        }


def _restored(make, state):
    optimizer = make()
    optimizer.SetState(state)
    return optimizer


class TestRefusals:
    @pytest.mark.parametrize("value", [0, -1.0, float("nan"), float("inf"), "0.1", None])
    @pytest.mark.parametrize(
        ("build", "name"),
        [
            (lambda v: SGDOptimizer(v), "learning_rate"),
            (lambda v: AdamOptimizer(v), "learning_rate"),
            (lambda v: AdamOptimizer(0.1, epsilon=v), "epsilon"),
        ],
    )
    def test_of_what_is_not_above_zero(self, build, name, value):
        message = f"{name} must be a finite number above 0, got {shown(value)}"
        error = ArgumentOutOfRangeException if isinstance(value, (int, float)) else ArgumentException
        with pytest.raises(error, match=re.escape(message)):
            build(value)

    @pytest.mark.parametrize("value", [-0.1, 1.0, float("nan"), "0.9"])
    @pytest.mark.parametrize(
        ("build", "name"),
        [
            (lambda v: SGDOptimizer(0.1, momentum=v), "momentum"),
            (lambda v: AdamOptimizer(0.1, beta1=v), "beta1"),
            (lambda v: AdamOptimizer(0.1, beta2=v), "beta2"),
        ],
    )
    def test_of_what_is_not_below_one(self, build, name, value):
        message = f"{name} must be a number in [0, 1), got {shown(value)}"
        error = ArgumentOutOfRangeException if isinstance(value, (int, float)) else ArgumentException
        with pytest.raises(error, match=re.escape(message)):
            build(value)

    @pytest.mark.parametrize(
        ("parameters", "gradient", "message"),
        [
            ([1.0], np.ones(1), r"parameters must be an array, got \[1\.0\]"),
            (np.ones(2), None, r"gradient must be an array, got None"),
            (np.ones(2), 1.0, r"gradient must be float64\(2,\).*, got a float"),
            (np.ones(2), np.ones(3), r"gradient must be float64\(2,\).*, got float64\(3,\) on backend 'numpy'"),
            (np.ones(2), np.ones((1, 2)), r"gradient must be float64\(2,\).*, got float64\(1, 2\) .*"),
            (np.ones(2), np.ones(2, np.float32), r"gradient must be float64\(2,\).*, got float32\(2,\) .*"),
            (
                np.ones(2, int),
                np.ones(2, int),
                r"parameters must be a floating array \(P,\) or \(tasks, P\).*, got int64\(2,\)",
            ),
            (
                np.array(1.0),
                np.array(1.0),
                r"parameters must be a floating array \(P,\) or \(tasks, P\).*, got float64\(\)",
            ),
        ],
    )
    def test_of_arrays_that_do_not_fit(self, make, parameters, gradient, message):
        with pytest.raises(ArgumentException, match=message):
            make().UpdateParameters(parameters, gradient)

    def test_of_two_backends(self, make):
        with pytest.raises(ArgumentException, match=r"gradient must be .*, got float64\(2,\) on backend 'strict'"):
            make().UpdateParameters(np.ones(2), get_backend("strict").asarray(np.ones(2)))

    @pytest.mark.parametrize("later", [np.ones(3), np.ones((1, 2)), np.ones(2, np.float32)])
    def test_of_a_change_between_steps(self, later):
        adam = AdamOptimizer(0.1)
        adam.UpdateParameters(np.ones(2), np.ones(2))
        with pytest.raises(
            ArgumentException, match=r"first_moment must be .*, got float64\(2,\).* from earlier steps; Reset"
        ):
            adam.UpdateParameters(later, later)
        adam.Reset()
        adam.UpdateParameters(later, later)

    def test_a_refused_step_does_not_count(self, make):
        optimizer = make()
        with pytest.raises(ArgumentException):
            optimizer.UpdateParameters(np.ones(2), np.ones(3))
        assert optimizer.GetState() == {"steps": 0}

    def test_a_failed_step_does_not_count(self):
        class Counting(ElementwiseOptimizer):
            memory = ("sum",)
            fails = True

            def coefficients(self, step):
                return (float(step),)

            def formula(self, parameters, gradient, memory, coefficients):
                if self.fails:
                    raise ValueError("not ready")
                return parameters - coefficients[0] * gradient, [memory[0] + gradient]

        optimizer = Counting(0.1)
        with pytest.raises(ValueError, match="not ready"):
            optimizer.UpdateParameters(np.zeros(1), np.ones(1))
        assert optimizer.GetState() == {"steps": 0}
        optimizer.fails = False
        assert optimizer.UpdateParameters(np.zeros(1), np.ones(1)) == [-1.0]


@pytest.mark.parametrize("base", [SGDOptimizer, AdamOptimizer, Descent])
def test_steps_have_the_rate_that_a_class_of_ones_own_tells(base):
    class Harmonic(base):
        def GetCurrentLearningRate(self):
            return 0.1 / (1 + self._steps)

    optimizer, place, told, moved = Harmonic(0.3), np.zeros(1), [], []
    for _ in range(4):
        told.append(optimizer.GetCurrentLearningRate())
        before, place = place, optimizer.UpdateParameters(place, np.ones(1))
        moved.append(float((before - place)[0]))
    np.testing.assert_allclose(moved, told, rtol=1e-7)
    np.testing.assert_allclose(told, [0.1, 0.1 / 2, 0.1 / 3, 0.1 / 4])


def test_a_rate_told_by_coefficients_of_ones_own():
    class Halving(SGDOptimizer):
        def coefficients(self, step):
            (rate,) = super().coefficients(step)
            return (rate * 0.5 ** (step - 1),)

        def GetCurrentLearningRate(self):
            return self.coefficients(self._steps + 1)[0]

    optimizer, place = Halving(0.8), np.zeros(1)
    for rate in (0.8, 0.4, 0.2):
        assert optimizer.GetCurrentLearningRate() == rate
        before, place = place, optimizer.UpdateParameters(place, np.ones(1))
        assert (before - place)[0] == pytest.approx(rate)


def _halving(base):
    class Halving(base):
        def coefficients(self, step):
            *others, rate = super().coefficients(step)
            return (*others, rate * 0.5 ** (step - 1))

    return Halving


@pytest.mark.parametrize("base", [SGDOptimizer, AdamOptimizer, _halving(SGDOptimizer), _halving(AdamOptimizer)])
def test_a_rate_told_by_inherited_coefficients_leaves_the_steps_as_they_are(base):
    class Telling(base):
        def GetCurrentLearningRate(self):
            return self.coefficients(self._steps + 1)[-1]

    start, slopes = np.zeros(3), gradients((3,))
    assert (run(NUMPY, Telling(0.3), start, slopes) == run(NUMPY, base(0.3), start, slopes)).all()


@pytest.mark.parametrize("told", [None, "0.1", float("nan")])
def test_a_rate_that_is_no_number_is_refused_before_a_step(told):
    class Telling(SGDOptimizer):
        def GetCurrentLearningRate(self):
            return told

    optimizer, message = Telling(0.1), "the result of Telling.GetCurrentLearningRate must be a finite number, got "
    for use in (lambda: optimizer.UpdateParameters(np.ones(2), np.ones(2)), lambda: optimizer.first_coefficients(2)):
        with pytest.raises(ArgumentException, match=re.escape(message + shown(told))):
            use()
    assert optimizer.GetState() == {"steps": 0}


def test_they_are_optimizers_and_know_their_rate(make):
    assert isinstance(make(), IGradientBasedOptimizer)
    assert isinstance(make(), ElementwiseOptimizer)
    assert SGDOptimizer(np.float32(0.5)).GetCurrentLearningRate() == 0.5


START = np.ones(3)


def own_optimizer(**members: Any) -> ElementwiseOptimizer:
    methods = {"formula": lambda self, p, g, memory, c: (p - c[0] * g, []), **members}
    return type("Mine", (ElementwiseOptimizer,), methods)(0.1)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"formula": lambda self, p, g, memory, c: p - g}, r"Mine.formula must return \(new parameters, \[\]\), got"),
        (
            {"memory": ("mean",), "formula": lambda self, p, g, memory, c: (p - g, g)},
            r"Mine.formula must return \(new parameters, \[mean\]\), got",
        ),
        ({"coefficients": lambda self, step: 0.1}, "the result of Mine.coefficients must be a tuple of numbers"),
        ({"coefficients": lambda self, step: (START,)}, "the result of Mine.coefficients must be a tuple of numbers"),
        (
            {"coefficients": lambda self, step: (np.complex128(0.1),)},
            "the result of Mine.coefficients must be a tuple of",
        ),
        (
            {"coefficients": lambda self, step: (0.1, True)},
            "the result of Mine.coefficients must be a tuple of numbers",
        ),
    ],
)
def test_what_a_formula_and_coefficients_return_is_checked(members: dict[str, Any], message: str) -> None:
    optimizer = own_optimizer(**members)
    with pytest.raises(InvalidOperationException, match=message):
        optimizer.UpdateParameters(START, START)
    # A step that was refused leaves no trace.
    assert optimizer.GetState() == own_optimizer().GetState()


def test_coefficients_must_be_as_many_at_every_step() -> None:
    with pytest.raises(InvalidOperationException, match="as many numbers at every step, got 1, 2"):
        own_optimizer(coefficients=lambda self, step: (0.1,) * step).first_coefficients(2)


def test_a_formula_may_return_its_memory_as_a_tuple() -> None:
    def tuple_of(self: Any, p: Any, g: Any, memory: Any, c: Any) -> Any:
        return p - c[0] * g, (memory[0] + g,)

    def list_of(self: Any, p: Any, g: Any, memory: Any, c: Any) -> Any:
        return p - c[0] * g, [memory[0] + g]

    # MAML differentiates it too.
    found = []
    for formula in (tuple_of, list_of):
        optimizer = own_optimizer(memory=("sum",), formula=formula)
        model = FunctionModel(lambda p, x: x @ p["w"], {"w": np.ones((1, 1))})
        x = np.array([[1.0], [2.0]])
        task = MetaLearningTask(SupportSetX=x, SupportSetY=2 * x, QuerySetX=x, QuerySetY=2 * x, NumWays=1)
        learner = MAMLAlgorithm(MAMLOptions(model, InnerOptimizer=optimizer, AdaptationSteps=2))
        found.append(learner.mean_meta_gradient(TaskBatch([task])).parameters)
    assert found[0] == found[1]


def test_a_class_of_a_wrong_form_is_refused_as_it_is_defined() -> None:
    with pytest.raises(TypeError, match=r"Mine.memory must be a tuple of names, got 'mean'; write \('mean',\)"):
        own_optimizer(memory="mean")
    with pytest.raises(TypeError, match=r"Mine.formula must take \(self, parameters, gradient, memory, coefficients\)"):
        own_optimizer(formula=lambda self, p, g: (p, []))


def test_an_impure_formula_of_an_inner_optimizer_is_named() -> None:
    random = np.random.default_rng(0)
    optimizer = own_optimizer(formula=lambda self, p, g, memory, c: (p - g * random.normal(), []))
    model = FunctionModel(lambda p, x: x @ p["w"], {"w": np.ones((1, 1))})
    x = np.ones((2, 1))
    task = MetaLearningTask(SupportSetX=x, SupportSetY=x, QuerySetX=x, QuerySetY=x, NumWays=1)
    with pytest.raises(InvalidOperationException, match=r"Mine\.formula, or the direction of the inner rule, must be"):
        MAMLAlgorithm(MAMLOptions(model, InnerOptimizer=optimizer)).MetaTrain(TaskBatch([task]))
