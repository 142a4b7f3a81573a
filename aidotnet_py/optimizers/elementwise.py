"""The base of optimizers that treat every parameter alike."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import Any, ClassVar, Self, cast

import numpy as np

from aidotnet_py.arguments import FINITE, POSITIVE, Number, check_given, is_pair, numbers_of, refusal, shown
from aidotnet_py.autodiff.extend import CapturedState, Program, trace_pure
from aidotnet_py.backends import Array, Backend, backend_of, described
from aidotnet_py.exceptions import (
    ArgumentException,
    InvalidOperationException,
    NotSupportedException,
)
from aidotnet_py.optimizers.row_formula import formula_of_rows
from aidotnet_py.overrides import require_overrides
from aidotnet_py.representations import concise_repr

__all__ = ["DECAY", "ElementwiseOptimizer", "TracedFormulas"]


DECAY = Number(least=0, below=1)
# Traced formulas hold buffers of several times the parameters' size; so many of them are kept.
_PROGRAMS_KEPT = 4
_FLOAT = frozenset([float])


class TracedFormulas(dict[Any, Callable[..., Any]]):
    """Traced formulas, by the parameters' shape and dtype; a deep copy or pickle of the optimizer traces its own.

    Attributes
    ----------
    settings : CapturedState or None
        What the formula reads, as the last trace left it.
    """

    settings: CapturedState | None = None

    def __reduce__(self) -> tuple[type[TracedFormulas], tuple[()]]:
        return TracedFormulas, ()


class ElementwiseOptimizer:
    """An optimizer whose every step is the same formula for each parameter.

    It therefore works on one vector (P,) or on the stacked vectors of many tasks (tasks, P) at once, each row as if it
    were alone. A subclass names its memory and writes its `formula`, by which it steps and through which algorithms
    differentiate. A formula that mixes the parameters of a vector, such as by the norm of the gradient, is mapped over
    the rows. A subclass may write `_step` beside the formula, or instead of it: the same step, written over the arrays
    at hand; see the notes. Inner loops give such a step one vector at a time.

    Attributes
    ----------
    memory : tuple of str
        Names of the arrays that a step reads and writes; each has the parameters' shape and starts at zero.
    has_formula : bool
        Whether the class has a `formula`, and for the steps that it takes: not for others, which it or one between
        changed.

    Parameters
    ----------
    learning_rate : float
        α > 0.

    Notes
    -----
    `SGDOptimizer` and `AdamOptimizer` write their step twice, since no form of the formula alone is as fast. A traced
    program checks its arguments, copies them in and copies its results out; on NumPy arrays the formula makes an array
    for each operation, and Adam's guards of the derivative add three. `UpdateParameters` on one core in
    float32, from plain descent to Adam, takes these multiples of the time with `_step`, which is 7 to 16 µs for 121
    parameters and 0.6 to 2.6 ms for 10⁶:

    =======================  ============  ============  ============
    parameters               121           10⁴           10⁶
    =======================  ============  ============  ============
    traced formula           7 to 11       5 to 11       2 to 4
    formula on NumPy arrays  1.0 to 1.6    1.2 to 2.5    1.2 to 2.5
    =======================  ============  ============  ============

    All give the same bits; the tests of both optimizers require it.

    Examples
    --------
    >>> import numpy as np
    >>> from aidotnet_py.optimizers import ElementwiseOptimizer
    >>> class SignDescent(ElementwiseOptimizer):
    ...     def formula(self, parameters, gradient, memory, coefficients):
    ...         (rate,) = coefficients
    ...         return parameters - rate * np.sign(gradient), []
    >>> SignDescent(0.5).UpdateParameters(np.array([1.0, 2.0]), np.array([-7.0, 0.1]))
    array([1.5, 1.5])
    """

    memory: tuple[str, ...] = ()
    has_formula: ClassVar[bool] = False
    # Whether the class changes GetCurrentLearningRate, and no coefficients made of it.
    _tells_own_rate: ClassVar[bool] = False

    def __init_subclass__(cls, **options: Any) -> None:
        """Give a class that changes the step no form of another step that it inherits."""
        super().__init_subclass__(**options)
        require_overrides(cls, ElementwiseOptimizer, ("formula", "coefficients"))
        if isinstance(cls.memory, str):
            raise TypeError(
                f"{cls.__name__}.memory must be a tuple of names, got {cls.memory!r}; write ({cls.memory!r},)"
            )
        formula, step, update = (_writer(cls, name) for name in ("formula", "_step", "UpdateParameters"))
        cls.has_formula = formula < cls.__mro__.index(ElementwiseOptimizer) and formula <= min(step, update)
        cls._tells_own_rate = _writer(cls, "GetCurrentLearningRate") < _writer(cls, "coefficients")
        if formula < step:
            cls._step = ElementwiseOptimizer._step  # type: ignore[method-assign]  # as if the class had written it

    __repr__ = concise_repr

    def __init__(self, learning_rate: float) -> None:
        self._learning_rate = POSITIVE.check("learning_rate", learning_rate)
        self._steps: int = 0
        self._arrays: dict[str, Array] = {}
        self._programs = TracedFormulas()

    def UpdateParameters(self, parameters: Array, gradient: Array) -> Array:
        """Return new parameters after one step; numbers that overflow become infinite or NaN in silence.

        Parameters
        ----------
        parameters, gradient : array, shape (P,) or (tasks, P)
            Of one shape, floating dtype and backend, the same at each step until `Reset`. They are not changed.

        Raises
        ------
        ArgumentException
            When they differ from each other or from earlier steps.
        """
        backend = self._checked(parameters, gradient)
        before = self._steps, self._arrays
        if not self._arrays:
            self._arrays = {name: _zeros(backend, parameters) for name in self.memory}
        self._steps += 1
        try:
            with backend.errors_ignored():
                return self._step(backend, parameters, gradient)
        except BaseException:
            self._steps, self._arrays = before
            raise

    def _step(self, backend: Backend, parameters: Array, gradient: Array) -> Array:
        """Return the new parameters; ``self._arrays`` are the memory, to be overwritten, ``self._steps`` counts."""
        memory = [self._arrays[name] for name in self.memory]
        dtype = backend.dtype_of(parameters)
        (numbers,) = self._checked_coefficients([self.coefficients(self._steps)])
        coefficients = [backend.asarray(number, dtype) for number in numbers]
        new, remembered = self._program(parameters, dtype, memory, coefficients)(
            parameters, gradient, memory, coefficients
        )
        for array, value in zip(memory, remembered, strict=True):
            backend.copyto(array, value)
        return new

    def _program(
        self, parameters: Array, dtype: np.dtype[Any], memory: list[Array], coefficients: list[Array]
    ) -> Callable[..., Any]:
        """Return the formula, traced once for parameters of a kind."""
        key = tuple(parameters.shape), dtype
        programs = self._programs
        if programs.settings is not None and programs.settings.changed(self):
            programs.clear()
        program = programs.get(key)
        if program is None:
            name, formula = f"{type(self).__name__}.formula", partial(formula_of_rows, self.checked_formula)
            traced = trace_pure(name, formula, parameters, parameters, memory, coefficients)
            self.require_result(traced)
            if len(programs) >= _PROGRAMS_KEPT:
                programs.clear()
            program = programs[key] = traced
            programs.settings = CapturedState(self.formula)
        return program

    def require_result(self, program: Program, memory: int | None = None) -> None:
        """Raise InvalidOperationException when a traced formula, of parameters first, gives other arrays than it is to.

        Those are new parameters, and one array for each name in ``memory``.
        """
        count = len(self.memory) if memory is None else memory
        given, wanted = program.output_types, [program.input_types[0]] * (1 + count)
        if list(given) != wanted:
            raise InvalidOperationException(
                f"{type(self).__name__}.formula must return new parameters and {count} arrays of memory, all "
                f"{wanted[0]}, got {', '.join(map(str, given))}"
            )

    def coefficients(self, step: int) -> tuple[float, ...]:
        """Return the numbers that step number ``step`` (1, 2, …) is taken with; here, the learning rate alone.

        All that depends on the step or on the settings, so that a `formula` traced once serves every step.
        """
        return (self._rate_of(step),)

    def _rate_of(self, step: int) -> float:
        """Return the rate of step number ``step``: what `GetCurrentLearningRate` tells before it.

        One told by the coefficients is what they make of the constructor's rate: they must not be made of it again.
        """
        if not self._tells_own_rate:
            return self._learning_rate
        before, told_by_coefficients = copy.copy(self), list[int]()
        before._steps = step - 1

        def rate_in_coefficients(step: int) -> float:
            told_by_coefficients.append(step)
            return self._learning_rate

        vars(before)["_rate_of"] = rate_in_coefficients
        told = before.GetCurrentLearningRate()
        if told_by_coefficients:
            return self._learning_rate
        return FINITE.check(f"the result of {type(self).__name__}.GetCurrentLearningRate", told)

    def first_coefficients(self, steps: int) -> list[tuple[float, ...]]:
        """Return the `coefficients` of the first so many steps."""
        # A class of one's own may count steps and calls.
        fresh, results = self.fresh(), list[Any]()
        for step in range(1, steps + 1):
            fresh._steps = step
            results.append(fresh.coefficients(step))
        rows = self._checked_coefficients(results)
        if len(set(map(len, rows))) > 1:
            raise InvalidOperationException(
                f"{type(self).__name__}.coefficients must return as many numbers at every step, got "
                f"{', '.join(str(len(row)) for row in rows)}"
            )
        return rows

    def formula(
        self, parameters: Array, gradient: Array, memory: Sequence[Array], coefficients: Sequence[Any]
    ) -> tuple[Array, list[Array]]:
        """Return one step as a function: the new parameters and the new memory, with nothing changed.

        Array code that `aidotnet_py.autodiff` can trace and differentiate. With the `coefficients` of a step it gives
        the bits of that step, whether they are Python numbers or arrays of no axes in the parameters' dtype.

        Parameters
        ----------
        parameters, gradient : array, shape (P,) or (tasks, P)
            As `UpdateParameters` takes them; also traced.
        memory : sequence of array
            One for each name in ``memory``, in that order, shaped like the parameters.
        coefficients : sequence of float or array, shape ()
            See `coefficients`.

        Raises
        ------
        NotSupportedException
            When the class wrote none.
        """
        raise NotSupportedException(
            f"{type(self).__name__} has no formula; to differentiate through its steps, write its method "
            "formula(parameters, gradient, memory, coefficients)"
        )

    def checked_formula(
        self, parameters: Array, gradient: Array, memory: Sequence[Array], coefficients: Sequence[Any]
    ) -> tuple[Array, list[Array]]:
        """Return the result of the `formula`, if it is new parameters and a sequence of arrays."""
        result: Any = self.formula(parameters, gradient, memory, coefficients)
        if is_pair(result) and isinstance(result[1], (list, tuple)):
            return result[0], list(cast("Sequence[Array]", result[1]))
        names = ", ".join(self.memory)
        raise InvalidOperationException(
            f"{type(self).__name__}.formula must return (new parameters, [{names}]), got {shown(result)}"
        )

    def _checked_coefficients(self, rows: list[Any]) -> list[tuple[float, ...]]:
        """Return the `coefficients` of steps, if each is a sequence of numbers."""
        # Mostly, and before the steps of each batch.
        if set(map(type, rows)) == {tuple} and _FLOAT.issuperset(map(type, chain.from_iterable(rows))):
            return rows
        name, wanted = f"the result of {type(self).__name__}.coefficients", "a tuple of numbers, such as (rate,)"
        try:
            return [numbers_of(name, wanted, row) for row in rows]
        except ArgumentException as error:
            raise InvalidOperationException(str(error)) from None

    def _checked(self, parameters: Array, gradient: Array) -> Backend:
        check_given("parameters", parameters, "an array")
        check_given("gradient", gradient, "an array")
        backend = backend_of(parameters)
        if backend is None:
            raise ArgumentException(refusal("parameters", "an array", parameters))
        shape, dtype = tuple(parameters.shape), backend.dtype_of(parameters)
        if dtype.kind != "f" or len(shape) not in (1, 2):
            raise ArgumentException(f"parameters must be a floating array (P,) or (tasks, P), got {dtype}{shape}")
        for name, other in (("gradient", gradient), *self._arrays.items()):
            if not backend.owns(other) or tuple(other.shape) != shape or backend.dtype_of(other) != dtype:
                past = "" if name == "gradient" else ", from earlier steps; Reset starts anew"
                raise ArgumentException(
                    f"{name} must be {dtype}{shape}, like the parameters, got {described(other)}{past}"
                )
        return backend

    def Reset(self) -> None:
        """Forget all past gradients."""
        self._steps = 0
        self._arrays = {}

    def GetCurrentLearningRate(self) -> float:
        """Return the rate of the next step.

        A class that changes it changes the steps too, unless it writes `coefficients`, by which they are taken, or
        tells the rate by them.
        """
        return self._learning_rate

    def shares_formula(self, other: ElementwiseOptimizer) -> bool:
        """Return whether `fresh` made one of the two from the other, so that both have the same traced formula."""
        return self._programs is other._programs

    def fresh(self) -> Self:
        """Return the same optimizer with no past."""
        other = copy.copy(self)
        other.Reset()
        return other

    def GetState(self) -> dict[str, Any]:
        """Return the number of steps taken, and a copy of each array remembered."""
        return {"steps": self._steps, **{name: _copied(array, name) for name, array in self._arrays.items()}}

    def SetState(self, state: Mapping[str, Any]) -> None:
        """Take up what `GetState` gave.

        Raises
        ------
        ArgumentException
            When it is not the state of such an optimizer; nothing was changed then.
        """
        check_given("state", state, "a mapping, as from GetState")
        if not isinstance(state, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance] -- callers may be untyped
            raise ArgumentException(refusal("state", "a mapping, as from GetState", state))
        arrays = {name: value for name, value in state.items() if name != "steps"}
        steps = state.get("steps")
        if not isinstance(steps, int) or steps < 0 or (arrays and set(arrays) != set(self.memory)):
            raise ArgumentException(
                f"state must have steps, a count, and {sorted(self.memory)}, got {sorted(state)} with steps {steps!r}"
            )
        if bool(arrays) != (steps > 0 and bool(self.memory)):
            raise ArgumentException(
                f"state must have arrays only with steps, got {steps} steps and arrays {sorted(arrays)}"
            )
        self._arrays = {name: _copied(array, name) for name, array in arrays.items()}
        self._steps = steps


def _writer(cls: type[ElementwiseOptimizer], name: str) -> int:
    """Return how far up a class's line the one stands that wrote a method itself, instead of being given the base's."""
    of_base = vars(ElementwiseOptimizer)[name]
    line = cls.__mro__
    own = (i for i, c in enumerate(line) if vars(c).get(name, of_base) is not of_base)
    return next(own, line.index(ElementwiseOptimizer))


def _copied(array: Array, name: str) -> Array:
    backend = backend_of(array)
    if backend is None:
        raise ArgumentException(refusal(f"state[{name!r}]", "an array", array))
    return backend.asarray(array)


def _zeros(backend: Backend, like: Array) -> Array:
    array = backend.empty(tuple(like.shape), backend.dtype_of(like))
    backend.copyto(array, 0)
    return array
