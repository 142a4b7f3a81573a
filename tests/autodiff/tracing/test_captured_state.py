"""Settings that functions read beside their arguments count from the moment that they are changed."""

from __future__ import annotations

import functools
import importlib
import logging
import sys
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from tanh_network import TanhNetwork, apply, batch_of

from aidotnet_py import (
    ANILAlgorithm,
    ANILOptions,
    FunctionModel,
    MAMLAlgorithm,
    MAMLOptions,
    NeuralNetworkModel,
    ReptileAlgorithm,
    ReptileOptions,
    iMAMLAlgorithm,
    iMAMLOptions,
)
from aidotnet_py.autodiff.tracing.captured_state import CapturedState
from aidotnet_py.backends import Backend, get_backend
from aidotnet_py.losses import LossFunctionBase
from aidotnet_py.nn import Dense, Layer, LayerNorm, Residual, Sequential, Tanh
from aidotnet_py.optimizers import ElementwiseOptimizer

NETWORK = TanhNetwork()
FACTOR = 2.0
settings = types.ModuleType("settings_of_a_test")


@pytest.fixture(autouse=True)
def module_of_settings() -> Iterator[None]:
    settings.FACTOR = 2.0  # type: ignore[attr-defined]
    sys.modules["settings_of_a_test"] = settings
    yield
    del sys.modules["settings_of_a_test"]


class Mode(Enum):
    DOUBLE = 2.0
    FIVEFOLD = 5.0


class Config:
    factor: ClassVar[float] = 2.0


class Holder:
    def __init__(self, **values: Any) -> None:
        self.__dict__.update(values)

    def method(self, x: Any) -> Any:
        return x * self.factor  # type: ignore[attr-defined]

    @property
    def doubled(self) -> float:
        return 2.0 * float(self.half)  # type: ignore[attr-defined]


class Slotted:
    __slots__ = ("factor",)

    def __init__(self) -> None:
        self.factor = 2.0


def by_global(x: Any) -> Any:
    return x * FACTOR


def by_helper(x: Any) -> Any:
    return by_global(x)


class Scaling:
    def __init__(self) -> None:
        self.factor = 2.0

    def method(self, x: Any) -> Any:
        return x * self.factor


class Extended(Scaling):
    def method(self, x: Any) -> Any:
        return super().method(x) + 0.0


class Twice(Extended):
    def method(self, x: Any) -> Any:
        return super().method(x)


Case = tuple[Callable[[Any], Any], Callable[[], None]]


def closure() -> Case:
    factor = 2.0

    def change() -> None:
        nonlocal factor
        factor = 5.0

    return lambda x: x * factor, change


def flag() -> Case:
    training = True

    def change() -> None:
        nonlocal training
        training = False

    return lambda x: x * 2.0 if training else x * 5.0, change


def global_variable() -> Case:
    return by_global, lambda: globals().update(FACTOR=5.0)


def global_of_a_helper() -> Case:
    return by_helper, lambda: globals().update(FACTOR=5.0)


def global_in_a_comprehension() -> Case:
    return lambda x: sum([x * FACTOR for _ in range(1)]), lambda: globals().update(FACTOR=5.0)


def attribute() -> Case:
    held = Holder(factor=2.0)
    return lambda x: x * held.factor, lambda: setattr(held, "factor", 5.0)  # type: ignore[attr-defined]


def attribute_of_a_method() -> Case:
    held = Holder(factor=2.0)
    return held.method, lambda: setattr(held, "factor", 5.0)


def attribute_of_a_method_that_is_extended() -> Case:
    held = Extended()
    return held.method, lambda: setattr(held, "factor", 5.0)


def attribute_of_a_method_that_is_extended_twice() -> Case:
    held = Holder(scaling=Twice())
    return lambda x: held.scaling.method(x), lambda: setattr(held.scaling, "factor", 5.0)  # type: ignore[attr-defined]


def defaults_that_are_others() -> Case:
    def f(x: Any, factor: float = 2.0) -> Any:
        return x * factor

    return f, lambda: setattr(f, "__defaults__", (5.0,))


def defaults_by_name_that_are_others() -> Case:
    def f(x: Any, *, factor: float = 2.0) -> Any:
        return x * factor

    return f, lambda: setattr(f, "__kwdefaults__", {"factor": 5.0})


def attribute_by_property() -> Case:
    held = Holder(half=1.0)
    return lambda x: x * held.doubled, lambda: setattr(held, "half", 2.5)


def attribute_by_string() -> Case:
    held = Holder(factor=2.0)
    return lambda x: x * getattr(held, "factor", 1.0), lambda: setattr(held, "factor", 5.0)


def attribute_of_the_class() -> Case:
    return lambda x: x * Config.factor, lambda: setattr(Config, "factor", 5.0)


def attribute_in_front_of_the_classs() -> Case:
    held = Config()
    return lambda x: x * held.factor, lambda: setattr(held, "factor", 5.0)


def attribute_in_a_slot() -> Case:
    held = Slotted()
    return lambda x: x * held.factor, lambda: setattr(held, "factor", 5.0)


def attribute_three_deep() -> Case:
    held = Holder(inner=[Holder(table={"a": Holder(factor=2.0)})])
    change = lambda: setattr(held.inner[0].table["a"], "factor", 5.0)  # type: ignore[attr-defined]  # noqa: E731
    return lambda x: held.inner[0].table["a"].method(x), change  # type: ignore[attr-defined]


def attribute_of_a_module() -> Case:
    return lambda x: x * settings.FACTOR, lambda: setattr(settings, "FACTOR", 5.0)


def attribute_of_a_function() -> Case:
    def f(x: Any) -> Any:
        return x * f.factor  # type: ignore[attr-defined]

    f.factor = 2.0  # type: ignore[attr-defined]
    return f, lambda: setattr(f, "factor", 5.0)


def called_object() -> Case:
    class Called(Holder):
        def __call__(self, x: Any) -> Any:
            return self.method(x)

    held = Called(factor=2.0)
    return lambda x: held(x), lambda: setattr(held, "factor", 5.0)


def entry_of_a_dict() -> Case:
    table = {"factor": 2.0}
    return lambda x: x * table["factor"], lambda: table.update(factor=5.0)


def new_entry_of_a_dict() -> Case:
    table: dict[str, float] = {}
    return lambda x: x * table.get("factor", 2.0), lambda: table.update(factor=5.0)


def member_of_a_list() -> Case:
    members = [2.0]
    return lambda x: x * members[0], lambda: members.__setitem__(0, 5.0)


def member_of_a_set() -> Case:
    members = {2.0}
    return lambda x: x * max(members), lambda: members.add(5.0)


def default() -> Case:
    table = [2.0]

    def f(x: Any, factors: list[float] = table) -> Any:
        return x * factors[0]

    return f, lambda: table.__setitem__(0, 5.0)


def partial() -> Case:
    table = [2.0]
    return functools.partial(lambda factors, x: x * factors[0], table), lambda: table.__setitem__(0, 5.0)


def wrapped() -> Case:
    table = [2.0]

    @functools.lru_cache
    def factor() -> list[float]:
        return table

    return lambda x: x * factor()[0], lambda: table.__setitem__(0, 5.0)


def enumeration() -> Case:
    held = Holder(mode=Mode.DOUBLE)
    return lambda x: x * held.mode.value, lambda: setattr(held, "mode", Mode.FIVEFOLD)  # type: ignore[attr-defined]


def code_of_a_helper() -> Case:
    def helper(x: Any) -> Any:
        return x * 2.0

    return lambda x: helper(x), lambda: setattr(helper, "__code__", (lambda x: x * 5.0).__code__)


def attribute_that_is_new() -> Case:
    held = Holder()
    return lambda x: x * getattr(held, "factor", 2.0), lambda: setattr(held, "factor", 5.0)


def attribute_that_is_new_where_it_is_looked_for() -> Case:
    held = Holder()
    return lambda x: x * (5.0 if hasattr(held, "flag") else 2.0), lambda: setattr(held, "flag", True)


def attribute_that_is_new_to_a_try() -> Case:
    held = Holder()

    def f(x: Any) -> Any:
        try:
            return x * held.factor  # type: ignore[attr-defined]
        except AttributeError:
            return x * 2.0

    return f, lambda: setattr(held, "factor", 5.0)


def attribute_in_a_slot_that_is_new() -> Case:
    held = Slotted()
    del held.factor
    return lambda x: x * getattr(held, "factor", 2.0), lambda: setattr(held, "factor", 5.0)


def attribute_by_vars() -> Case:
    held = Holder(factor=2.0)
    return lambda x: x * vars(held)["factor"], lambda: setattr(held, "factor", 5.0)


def attribute_by_dict() -> Case:
    held = Holder(factor=2.0)
    return lambda x: x * held.__dict__["factor"], lambda: setattr(held, "factor", 5.0)


def global_by_string() -> Case:
    return lambda x: x * globals()["FACTOR"], lambda: globals().update(FACTOR=5.0)


def global_that_is_new() -> Case:
    def f(x: Any) -> Any:
        try:
            return x * NEW_FACTOR  # type: ignore[name-defined]
        except NameError:
            return x * 2.0

    return f, lambda: globals().update(NEW_FACTOR=5.0)


def attribute_of_a_method_that_a_library_calls() -> Case:
    class Scaler(logging.Handler):
        factor = 2.0

        def acquire(self) -> None: ...

        def release(self) -> None: ...

        def filter(self, record: Any) -> Any:
            return True

        def emit(self, record: Any) -> None:
            record.append(record[0] * self.factor)

    handler = Scaler()

    def f(x: Any) -> Any:
        handler.handle(record := [x])  # type: ignore[arg-type]
        return record[1]

    return f, lambda: setattr(handler, "factor", 5.0)


def attribute_of_an_object_of_a_library() -> Case:
    held = types.SimpleNamespace(factor=2.0)
    return lambda x: x * held.factor, lambda: setattr(held, "factor", 5.0)


def array_in_place() -> Case:
    table = np.full((1,), 2.0)
    return lambda x: x * table, lambda: table.fill(5.0)


def array_with_strides() -> Case:
    table = np.full((4, 6), 2.0)
    view = table[1:3:2, ::3]
    return lambda x: x * view[:, :1], lambda: table.fill(5.0)


def array_worked_into_another() -> Case:
    table = np.full((1,), 1.0)
    return lambda x: x * (table + 1.0), lambda: table.fill(4.0)


def array_of_another_shape() -> Case:
    table = np.ones(4)
    return lambda x: x * (2.0 if table.ndim == 1 else 5.0), lambda: table.resize((2, 2), refcheck=False)


def array_that_is_another() -> Case:
    held = Holder(table=np.full((1,), 2.0))
    return lambda x: x * held.table, lambda: setattr(held, "table", np.full((1,), 5.0))  # type: ignore[attr-defined]


CASES = [
    *(closure, flag, global_variable, global_of_a_helper, global_in_a_comprehension, attribute, attribute_of_a_method),
    *(attribute_of_a_method_that_is_extended, attribute_of_a_method_that_is_extended_twice),
    *(defaults_that_are_others, defaults_by_name_that_are_others),
    *(attribute_by_property, attribute_by_string, attribute_of_the_class, attribute_in_front_of_the_classs),
    *(attribute_in_a_slot, attribute_three_deep, attribute_of_a_module, attribute_of_a_function, called_object),
    *(entry_of_a_dict, new_entry_of_a_dict, member_of_a_list, member_of_a_set, default, partial, wrapped, enumeration),
    *(code_of_a_helper, attribute_that_is_new, attribute_that_is_new_where_it_is_looked_for),
    *(attribute_that_is_new_to_a_try, attribute_in_a_slot_that_is_new, attribute_by_vars, attribute_by_dict),
    *(global_by_string, global_that_is_new, attribute_of_a_method_that_a_library_calls),
    *(attribute_of_an_object_of_a_library, array_of_another_shape),
    *(array_in_place, array_with_strides, array_worked_into_another, array_that_is_another),
]


@pytest.fixture(params=CASES, ids=lambda case: case.__name__)
def case(request: pytest.FixtureRequest) -> Iterator[Case]:
    yield request.param()
    globals().update(FACTOR=2.0)
    globals().pop("NEW_FACTOR", None)
    Config.factor = 2.0


class TestChanged:
    def test_once_it_is_and_not_before(self, case: Case) -> None:
        function, change = case
        state = CapturedState(function)
        assert not state.changed()
        assert not state.changed()
        change()
        assert state.changed()
        assert not CapturedState(function).changed()

    def test_is_a_zero_of_the_other_sign(self) -> None:
        held = Holder(factor=0.0)
        state = CapturedState(held.method)
        held.__dict__.update(factor=-0.0)
        assert state.changed()

    def test_is_not_what_stays_equal(self) -> None:
        held = Holder(factor=2.0, nan=np.float64(np.nan), table=np.ones(2), names=["a"], other=1)

        def f(x: Any) -> Any:
            return x * held.factor * held.nan * held.table[0] * len(held.names)  # type: ignore[attr-defined]

        state = CapturedState(f)
        held.__dict__.update(factor=float("2"), nan=np.float64(np.nan), names=held.names, other=2)  # type: ignore[attr-defined]
        held.table[...] = 1.0  # type: ignore[attr-defined]
        assert not state.changed()
        held.factor = 2  # type: ignore[attr-defined]
        assert state.changed()

    def test_takes_read_only_arrays_for_constants(self) -> None:
        table = np.ones(3)
        view = table[:]
        table.flags.writeable = view.flags.writeable = False
        assert CapturedState(lambda x: x * table)._arrays == []
        assert len(CapturedState(lambda x: x * view)._arrays) == 1

    def test_looks_at_the_length_alone_of_long_containers(self) -> None:
        long = list(range(2000))
        state = CapturedState(lambda x: x * long[0])
        long[0] = 5
        assert not state.changed()
        long.append(0)
        assert state.changed()

    def test_of_code_without_a_module_is_found(self) -> None:
        """As of a page's code that is run by exec, whose classes Python puts down to builtins."""
        names: dict[str, Any] = {}
        exec("factor = 2.0\nclass Scale:\n    by = 1.0\n    def f(self, x): return x * factor * self.by", names)
        for change in (lambda: names.update(factor=3.0), lambda: setattr(names["Scale"], "by", 3.0)):
            state = CapturedState(names["Scale"]().f)
            change()
            assert state.changed()

    def test_of_a_variable_without_a_value_is_found(self) -> None:
        """As of a function that is used above the line that gives its variable a value."""
        state = CapturedState(lambda x: x if x is None else x * factor)
        assert not state.changed()
        factor = 2.0
        assert state.changed()

    def test_of_libraries_is_not_searched(self) -> None:
        """Their functions name much, through which a search would reach all that is imported."""
        log = logging.getLogger("a_test")

        def f(x: Any) -> Any:
            log.debug("input of shape %s", x.shape)
            return x

        state = CapturedState(f)
        assert len(state._reads) + len(state._containers) < 100

    def test_of_installed_packages_is_searched_where_a_model_comes_from_one(
        self, installed: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Large packages count as libraries, except for layers and functions that a model is given from them."""
        state = CapturedState(lambda x: installed.scaled(x))
        installed.FACTOR = 6.0
        assert state.changed()
        monkeypatch.setattr("aidotnet_py.autodiff.tracing.libraries._MOST_MODULES", 0)
        layers = [installed.Scale(), installed.Scale()]
        network = NeuralNetworkModel(
            Sequential(layers[0], Sequential(layers[1], Tanh()), Dense(1)), input_shape=(2,), seed=0
        )
        start = {"w": np.ones(1, np.float32)}
        plain = FunctionModel(installed.of_parameters, start)
        held = FunctionModel(functools.partial(installed.of_parameters, scale=installed.Scale().times), start)
        x = np.full((1, 2), 1e-3, np.float32)
        for model, holder, name, value in (
            (plain, installed, "FACTOR", 3.0),
            (held, installed, "FACTOR", 4.0),
            (network, installed, "FACTOR", 5.0),
            (network, layers[0], "factor", 3.0),
            (network, layers[1], "factor", 3.0),
            (network, installed.Scale, "power", 2),
        ):
            before = model.Predict(x)
            setattr(holder, name, value)
            assert not np.array_equal(model.Predict(x), before)
        state = CapturedState(lambda x: installed.scaled(x))
        installed.FACTOR = 7.0
        assert not state.changed()

    def test_of_a_large_package_that_leads_too_far_is_not_searched(
        self, installed: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("aidotnet_py.autodiff.tracing.libraries._MOST_MODULES", 0)
        opened = len(CapturedState(installed.scaled)._reads)
        monkeypatch.setattr("aidotnet_py.autodiff.tracing.captured_state._MOST_READS", opened - 1)
        state = CapturedState(installed.scaled)
        assert len(state._reads) < opened
        installed.FACTOR = 8.0
        assert not state.changed()

    def test_is_sought_in_so_many_objects_alone(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("aidotnet_py.autodiff.tracing.captured_state._MOST_HOLDERS", 100)
        many = [[Holder(factor=2.0) for _ in range(100)] for _ in range(3)]
        assert len(CapturedState(lambda x: x * many[0][0].factor)._reads) < 150  # type: ignore[attr-defined]

    def test_of_objects_that_hold_each_other_is_found(self) -> None:
        one, other = Holder(factor=2.0), Holder()
        one.other, other.other = other, one  # type: ignore[attr-defined]
        state = CapturedState(lambda x: x * one.other.other.factor)  # type: ignore[attr-defined]
        one.factor = 3.0  # type: ignore[attr-defined]
        assert state.changed()


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A module in the folder of installed packages, with settings."""
    folder = tmp_path / "site-packages"
    folder.mkdir()
    (folder / "installed_layers.py").write_text(
        "from aidotnet_py.nn import Layer\n"
        "FACTOR = 2.0\n"
        "def scaled(x):\n"
        "    return x * FACTOR\n"
        "def of_parameters(parameters, x, scale=scaled):\n"
        "    return parameters['w'] * scale(x)\n"
        "class Scale(Layer):\n"
        "    power = 1\n"
        "    def __init__(self):\n"
        "        self.factor = 2.0\n"
        "    def initialize(self, generator, shape):\n"
        "        return {}, shape\n"
        "    def times(self, x):\n"
        "        return scaled(x) * self.factor**self.power\n"
        "    def apply(self, parameters, x):\n"
        "        return self.times(x)\n"
    )
    monkeypatch.syspath_prepend(str(folder))
    yield importlib.import_module("installed_layers")
    del sys.modules["installed_layers"]


def scaled(function: Callable[[Any], Any], backend: Any = "numpy", **more: Any) -> Any:
    start = NETWORK.parts(NETWORK.start())
    return FunctionModel(lambda p, x: function(apply(p, x)), start, dtype=np.float64, backend=backend, **more)


# What is found to have changed is tested of all above; that models and learners ask, of some by default.
SOME = pytest.mark.parametrize(
    "case",
    [
        pytest.param(
            made, marks=() if made in (closure, attribute, entry_of_a_dict, array_in_place) else pytest.mark.slow
        )
        for made in CASES
    ],
    indirect=True,
    ids=lambda made: made.__name__,
)


class TestModels:
    """Against a model made after the change."""

    @SOME
    def test_heed_it(self, case: Case) -> None:
        (function, change), (x, y, *_) = case, NETWORK.sets(1)[0]

        def found(model: Any) -> list[Any]:
            trained = model.Clone()
            trained.Train(x, y)
            parts = [model.Predict(x), model.ComputeGradients(x, y), trained.GetParameters()]
            return [part.tolist() for part in parts]

        model = scaled(function)
        before = found(model)
        assert found(model) == before
        change()
        after = found(model)
        assert after == found(scaled(function))
        assert after[0] != before[0]

    def test_trace_no_more_than_they_must(self) -> None:
        """A function that counts its traces changes nothing that the next call would have to trace again for."""
        runs: list[Any] = []
        held = Holder(calls=0)

        def function(y: Any) -> Any:
            runs.append(y.shape)
            held.calls += 1  # type: ignore[attr-defined]
            return y

        model = scaled(function)
        for _ in range(3):
            for n in (2, 3):
                model.Predict(np.zeros((n, 2)))
                model.ComputeGradients(np.zeros((n, 2)), np.zeros((n, 1)))
        assert len(runs) == 8


LEARNERS: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "maml": (MAMLAlgorithm, MAMLOptions, {}),
    "imaml": (iMAMLAlgorithm, iMAMLOptions, {"InnerObjective": "proximal"}),
    "reptile": (ReptileAlgorithm, ReptileOptions, {}),
    "anil": (ANILAlgorithm, ANILOptions, {"AdaptedLayers": ["w2"]}),
}


def learner_of(name: str, model: Any, **more: Any) -> Any:
    kind, options, own = LEARNERS[name]
    return kind(options(model, AdaptationSteps=2, InnerLearningRate=0.05, **own, **more))


def step_and_use(learner: Any, backend: Backend) -> list[Any]:
    batch = batch_of(backend, NETWORK.sets(2))
    before = learner.BaseModel.GetParameters()
    numbers: list[Any] = [float(learner.Evaluate(batch)), float(learner.MetaTrain(batch))]
    arrays = [learner.BaseModel.GetParameters(), learner.Adapt(batch[0]).GetParameters()]
    learner.BaseModel.SetParameters(before)
    learner.Reset()
    return numbers + [backend.to_numpy(array).tolist() for array in arrays]


@pytest.mark.numpy_first
class TestLearners:
    """Against a learner made after the change."""

    @pytest.mark.parametrize("name", LEARNERS)
    @SOME
    def test_heed_their_model(self, case: Case, name: str) -> None:
        (function, change), numpy = case, get_backend("numpy")
        learner = learner_of(name, scaled(function))
        before = step_and_use(learner, numpy)
        assert step_and_use(learner, numpy) == before
        change()
        after = step_and_use(learner, numpy)
        assert after == step_and_use(learner_of(name, scaled(function)), numpy)
        assert after[:2] != before[:2]

    @pytest.mark.costly
    @pytest.mark.parametrize("name", LEARNERS)
    def test_heed_their_loss(self, backend: Backend, name: str) -> None:
        class Weighted(LossFunctionBase):
            weight = 1.0

            def formula(self, predicted: Any, actual: Any) -> Any:
                return self.weight * np.mean((predicted - actual) ** 2)

        loss = Weighted()
        learner = learner_of(name, scaled(lambda y: y, backend, loss=loss))
        before = step_and_use(learner, backend)
        loss.weight = 3.0
        after = step_and_use(learner, backend)
        other = Weighted()
        other.weight = 3.0
        assert after == step_and_use(learner_of(name, scaled(lambda y: y, backend, loss=other)), backend)
        assert after[0] != before[0]

    def test_heed_a_loss_that_was_changed_while_another_was_used(self) -> None:
        @dataclass
        class Weighted(LossFunctionBase):
            weight: float

            def formula(self, predicted: Any, actual: Any) -> Any:
                return self.weight * np.mean((predicted - actual) ** 2)

        one, other, numpy = Weighted(1.0), Weighted(2.0), get_backend("numpy")
        learner = learner_of("maml", scaled(lambda y: y), LossFunction=one)
        first = step_and_use(learner, numpy)
        learner.Options.LossFunction = other
        second = step_and_use(learner, numpy)
        one.weight = 2.0
        learner.Options.LossFunction = one
        assert step_and_use(learner, numpy) == second != first

    def test_heed_settings_of_layers(self, backend: Backend) -> None:
        def model_with(layer: Layer) -> Any:
            net = Sequential(Dense(3), Residual(Sequential(layer, Tanh())), Dense(1))
            return NeuralNetworkModel(net, input_shape=(2,), dtype=np.float64, backend=backend, seed=0)

        norm = LayerNorm()
        learner = learner_of("maml", model_with(norm))
        before = step_and_use(learner, backend)
        norm.epsilon = 0.5
        after = step_and_use(learner, backend)
        assert after == step_and_use(learner_of("maml", model_with(LayerNorm(epsilon=0.5))), backend)
        assert after[0] != before[0]

    def test_trace_no_more_than_they_must(self) -> None:
        runs: list[Any] = []

        def function(y: Any) -> Any:
            runs.append(y.shape)
            return y

        learner = learner_of("imaml", scaled(function))
        batches = [batch_of(get_backend("numpy"), NETWORK.sets(2))] * 2
        learner.MetaTrain(batches[0])
        learner.Evaluate(batches[0])
        count = len(runs)
        for batch in batches * 3:
            learner.MetaTrain(batch)
            learner.Evaluate(batch)
        assert len(runs) == count


class Decaying(ElementwiseOptimizer):
    """Reads what is better among the coefficients."""

    decay = 0.0

    def formula(self, parameters: Any, gradient: Any, memory: Any, coefficients: Any) -> Any:
        return parameters * (1.0 - self.decay) - coefficients[0] * gradient, []


@pytest.mark.numpy_first
class TestOptimizers:
    def test_heed_settings_of_their_formula(self, backend: Backend) -> None:
        optimizer, x = Decaying(0.1), backend.asarray(np.ones(3))
        for one in (optimizer, optimizer.fresh()):
            assert backend.to_numpy(one.UpdateParameters(x, x)).tolist() == [0.9] * 3
        optimizer.decay = 0.5
        for one in (optimizer, optimizer.fresh()):
            assert backend.to_numpy(one.UpdateParameters(x, x)).tolist() == [0.4] * 3

    @pytest.mark.parametrize("name", ["maml", "imaml", "reptile"])
    def test_heed_them_in_inner_steps_and_backwards_through_these(self, backend: Backend, name: str) -> None:
        optimizer = Decaying(0.05)
        learner = learner_of(name, scaled(lambda y: y, backend), InnerOptimizer=optimizer)
        before = step_and_use(learner, backend)
        optimizer.decay = 0.25
        after = step_and_use(learner, backend)
        other = Decaying(0.05)
        other.decay = 0.25
        assert after == step_and_use(learner_of(name, scaled(lambda y: y, backend), InnerOptimizer=other), backend)
        assert after[0] != before[0]
