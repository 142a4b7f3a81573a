"""Indices: each counts along its own axis, in its own row of a batch, and one beyond it is read and written nowhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from amounts import many
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from aidotnet_py import (
    ANILAlgorithm,
    ANILOptions,
    BOILAlgorithm,
    BOILOptions,
    CrossEntropyLoss,
    FunctionModel,
    MAMLAlgorithm,
    MAMLOptions,
    MetaLearningTask,
    MetaSGDAlgorithm,
    MetaSGDOptions,
    ReptileAlgorithm,
    ReptileOptions,
    TaskBatch,
    iMAMLAlgorithm,
    iMAMLOptions,
)
from aidotnet_py import autodiff as ad
from aidotnet_py.autodiff.execution import Executable
from aidotnet_py.backends import Backend, NumPyBackend, get_backend
from aidotnet_py.backends.numpy.llvm import shared_compiler
from aidotnet_py.optimizers import LBFGSMinimizer
from aidotnet_py.testing.learner_state import untouched

Function = Callable[[Any, Any], Any]

# Each is the same function to NumPy and to the engine; with the axis indexed, None for that of the flattened array.
# Arrays have the axes (2, n, m).
INDEXINGS: dict[str, tuple[Function, int | None]] = {
    "take flat": (lambda a, i: np.take(a, i), None),
    "take 0": (lambda a, i: np.take(a, i, axis=0), 0),
    "take 2": (lambda a, i: np.take(a, i, axis=2), 2),
    "a[i]": (lambda a, i: a[i], 0),
    "a[:, i]": (lambda a, i: a[:, i], 1),
    "a[1, i]": (lambda a, i: a[1, i], 1),
    "a[..., None, i]": (lambda a, i: a[..., None, i], 2),
    "a[1, :, i]": (lambda a, i: a[1, :, i], 2),
    "take_along_axis 0": (lambda a, i: np.take_along_axis(a, i, 0), 0),
    "take_along_axis 1": (lambda a, i: np.take_along_axis(a, i, 1), 1),
    "take_along_axis -1": (lambda a, i: np.take_along_axis(a, i, -1), 2),
}
INTEGERS = (np.int8, np.uint8, np.int32, np.int64, np.uint64, ">i4", ">u8")


def length_of(shape: tuple[int, ...], axis: int | None) -> int:
    return int(np.prod(shape)) if axis is None else shape[axis]


def shape_of(name: str, shape: tuple[int, ...], axis: int | None, rng: np.random.Generator) -> tuple[int, ...]:
    """A shape that indices may have."""
    if name.startswith("take_along_axis"):
        return tuple(int(rng.integers(1, 4)) if k == axis else n for k, n in enumerate(shape))
    return tuple(rng.integers(1, 4, int(rng.integers(0, 3))).tolist())


def drawn(name: str, rng: np.random.Generator, rows: int) -> tuple[Any, Any, int]:
    """A batch of arrays, one of indices, and the length of the axis that they are of."""
    _, axis = INDEXINGS[name]
    shape = (2, int(rng.integers(1, 4)), int(rng.integers(1, 5)))
    length = length_of(shape, axis)
    indices = rng.integers(-length, length, (rows, *shape_of(name, shape, axis, rng)))
    return rng.standard_normal((rows, *shape)), indices, length


def by_rows(f: Callable[..., Any], *batches: Any) -> Any:
    return np.stack([f(*row) for row in zip(*batches, strict=True)])


def scattered(f: Function, shape: tuple[int, ...], i: Any, weights: Any) -> Any:
    """Σ weights · f(x, i) has this gradient: what f does to the numbers of the places says where each weight goes."""
    places = f(np.arange(int(np.prod(shape))).reshape(shape), i)
    gradient = np.zeros(int(np.prod(shape)))
    np.add.at(gradient, places, weights)
    return gradient.reshape(shape)


class TestEachRowHasIndicesOfItsOwn:
    @pytest.mark.numpy_first
    @pytest.mark.parametrize("name", INDEXINGS)
    @given(seed=st.integers(0, 2**32 - 1))
    @settings(max_examples=many(4))
    def test_values_and_derivatives_are_those_of_plain_numpy_row_by_row(
        self, backend: Backend, name: str, seed: int
    ) -> None:
        rng, (f, _) = np.random.default_rng(seed), INDEXINGS[name]
        x, i, _ = drawn(name, rng, 3)
        weights, t = rng.standard_normal(by_rows(f, x, i).shape), rng.standard_normal(x.shape)
        to = backend.asarray

        def value(a: Any, j: Any, w: Any) -> Any:
            return np.sum(w * f(a, j) ** 2)

        def gradient(a: Any, j: Any, w: Any) -> Any:
            return ad.grad(value)(a, j, w)

        def curved(a: Any, j: Any, w: Any, v: Any) -> Any:
            return ad.hvp(lambda b: value(b, j, w), a, v)

        def pushed(a: Any, j: Any, v: Any) -> Any:
            return ad.jvp(lambda b: f(b, j), (a,), (v,))[1]

        def pulled(a: Any, j: Any, w: Any) -> Any:
            return ad.vjp(lambda b: f(b, j), a)[1](w)[0]

        def check(found: Any, wanted: Any) -> None:
            assert_allclose(backend.to_numpy(found), wanted, rtol=1e-13, atol=1e-13)

        def back(j: Any, w: Any) -> Any:
            return scattered(f, x.shape[1:], j, w)

        arrays = to(x), to(i)
        check(ad.vmap(f)(*arrays), by_rows(f, x, i))
        check(ad.vmap(pushed)(*arrays, to(t)), by_rows(f, t, i))
        check(ad.vmap(pulled)(*arrays, to(weights)), by_rows(back, i, weights))
        check(ad.vmap(gradient)(*arrays, to(weights)), by_rows(back, i, 2 * weights * by_rows(f, x, i)))
        check(ad.vmap(curved)(*arrays, to(weights), to(t)), by_rows(back, i, 2 * weights * by_rows(f, t, i)))
        # One of them for all rows, and a batch of batches.
        check(ad.vmap(f, (None, 0))(to(x[0]), to(i)), np.stack([f(x[0], j) for j in i]))
        check(ad.vmap(f, (0, None))(to(x), to(i[0])), np.stack([f(a, i[0]) for a in x]))
        twice = ad.vmap(ad.vmap(f))(to(np.stack([x, -x])), to(np.stack([i, i[::-1]])))
        check(twice, np.stack([by_rows(f, x, i), by_rows(f, -x, i[::-1])]))

    @pytest.mark.parametrize("name", INDEXINGS)
    def test_gradients_by_finite_differences(self, name: str) -> None:
        f, (x, i, _) = INDEXINGS[name][0], drawn(name, np.random.default_rng(0), 2)

        def loss(a: Any) -> Any:
            return np.sum(np.sin(ad.vmap(f)(a, i)) * np.arange(1.0, 3.0).reshape(2, *[1] * (len(f(x[0], i[0]).shape))))

        gradient, step, flat = ad.grad(loss)(x), 1e-6, np.eye(x.size).reshape(x.size, *x.shape)
        program = ad.trace(loss, x)
        slopes = [(program(x + step * e) - program(x - step * e)) / (2 * step) for e in flat]
        assert_allclose(gradient.ravel(), slopes, rtol=1e-8, atol=1e-8)

    @pytest.mark.parametrize("kind", INTEGERS)
    def test_of_any_integer_type(self, kind: Any) -> None:
        x, i = np.arange(300.0).reshape(3, 100), np.array([[99, 0], [5, 99], [1, 2]]).astype(kind)
        assert_array_equal(ad.vmap(np.take)(x, i), np.take_along_axis(x, i.astype(int), 1))
        if np.dtype(kind).kind == "i":
            assert_array_equal(ad.vmap(np.take)(x, -i - 1), np.take_along_axis(x, -i.astype(int) - 1, 1))


def is_on_a_device(backend: Backend) -> bool:
    """Whether a look at values waits, so that indices count modulo the length (docs/gpu.md)."""
    return backend.name in ("simulated", "cupy")


def everything(f: Function) -> dict[str, Callable[[Any, Any], Any]]:
    """What may be asked of the rows f(x, i), for a batch."""

    def total(a: Any, j: Any) -> Any:
        return np.sum(f(a, j) ** 2)

    def pulled(a: Any, j: Any) -> Any:
        y, pullback = ad.vjp(lambda b: f(b, j), a)
        return pullback(y)[0]

    return {
        "value": f,
        "grad": ad.grad(total),
        "hvp": lambda a, j: ad.hvp(lambda b: total(b, j), a, a),
        "jvp": lambda a, j: ad.jvp(lambda b: f(b, j), (a,), (a,))[1],
        "vjp": pulled,
        "linearize": lambda a, j: ad.linearize(lambda b: f(b, j), a)[1](a),
    }


@pytest.mark.numpy_first
class TestBeyondTheAxis:
    @pytest.mark.parametrize("name", INDEXINGS)
    @pytest.mark.parametrize("what", ["value", "grad", "hvp", "jvp", "vjp", "linearize"])
    def test_in_any_row_it_is_an_error_or_counted_modulo(self, backend: Backend, name: str, what: str) -> None:
        f, rows, to = INDEXINGS[name][0], 3, backend.asarray
        asked = everything(f)[what]
        x, i, length = drawn(name, np.random.default_rng(1), rows)
        for row in range(rows):
            for beyond in (length, -length - 1, 7 * length + 1):
                j = i.copy()
                j[row].flat[-1] = beyond
                place = np.unravel_index(np.flatnonzero(j.ravel() == beyond)[0], j.shape)
                if is_on_a_device(backend):
                    wanted = ad.vmap(asked)(x, j % length)
                    assert_allclose(backend.to_numpy(ad.vmap(asked)(to(x), to(j))), wanted, rtol=1e-14, atol=1e-14)
                    continue
                with pytest.raises(IndexError, match=f"{beyond}.* out of bounds for an axis of length {length}") as at:
                    ad.vmap(asked)(to(x), to(j))
                if backend.name == "numpy":
                    assert f"(at {tuple(map(int, place))} in indices of shape {j.shape})" in str(at.value)
                with pytest.raises(IndexError):
                    ad.vmap(ad.vmap(asked))(to(x[None]), to(j[None]))
                fixed = to(j[row])
                with pytest.raises(IndexError):
                    ad.vmap(lambda a, b=fixed: asked(a, b))(to(x))

    @pytest.mark.parametrize("kind", INTEGERS)
    def test_of_any_integer_type(self, kind: Any) -> None:
        top = int(np.iinfo(kind).max)
        x = np.zeros((2, min(top, 300)))
        for value in {top, x.shape[1]} if top > 300 else {top}:
            with pytest.raises(IndexError, match=f"index {value} is out of bounds"):
                ad.vmap(np.take)(x, np.array([value, 0], kind))

    @pytest.mark.parametrize("kind", [np.int8, np.uint8, np.int32, np.uint32, np.int64, np.uint64])
    def test_a_device_counts_modulo_the_length(self, cupy_backend: Backend, kind: Any) -> None:
        limits = np.iinfo(kind)
        values = np.array([limits.min, limits.min + 1, 0, 1, 6, 7, limits.max - 1, limits.max], kind)
        for length in (1, 7, 300):
            found = cupy_backend.wrap_indices(cupy_backend.asarray(values), length)
            assert cupy_backend.to_numpy(found).tolist() == [int(v) % length for v in values]

    def test_without_a_batch(self, backend: Backend) -> None:
        to, x = backend.asarray, np.arange(12.0).reshape(3, 4)
        cases: list[tuple[Function, Any]] = [
            (lambda a, i: a[i], 3),
            (lambda a, i: a[:, i], [-5]),
            (lambda a, i: a[2, i], [4]),
            (lambda a, i: np.take(a, i), [12]),
            (lambda a, i: np.take_along_axis(a, i, 1), [[0], [0], [4]]),
            (lambda a, i: np.take_along_axis(a, i, 1), [[4], [0], [0]]),
        ]
        for f, i in cases:
            program = ad.trace(f, to(x), to(np.zeros_like(i)))
            if is_on_a_device(backend):
                wrapped = f(x, np.asarray(i) % (3 if i == 3 else 12 if i == [12] else 4))
                assert_array_equal(backend.to_numpy(program(to(x), to(i))), wrapped)
            else:
                with pytest.raises(IndexError):
                    program(to(x), to(i))
            with pytest.raises(IndexError):
                ad.trace(lambda a, f=f, i=i: f(a, np.asarray(i)), to(x))

    def test_into_an_axis_without_elements(self, backend: Backend) -> None:
        none, some = backend.asarray(np.zeros((2, 0))), backend.asarray(np.zeros((2, 1), int))
        with pytest.raises(IndexError, match="an axis of length 0"):
            ad.vmap(np.take)(none, some)
        assert ad.vmap(np.take)(none, backend.asarray(np.zeros((2, 0), int))).shape == (2, 0)

    def test_one_hot_has_a_row_of_zeros(self, backend: Backend) -> None:
        rows = ad.vmap(lambda i: ad.one_hot(i, 3))(backend.asarray([[0, 3], [-1, 2]]))
        assert backend.to_numpy(rows).tolist() == [[[1, 0, 0], [0, 0, 0]], [[0, 0, 0], [0, 0, 1]]]


def lookup(table: Any, i: Any) -> Any:
    return np.sum(np.tanh(np.take(table, i, axis=0)) ** 2, axis=-1)


class TestProgramsThatRunAgain:
    @pytest.mark.parametrize("compiled", [False, True])
    def test_indices_are_checked_once_in_their_stage(self, compiled: bool) -> None:
        if compiled and shared_compiler() is None:
            pytest.skip("llvmlite is not installed")
        backend = get_backend("numpy") if compiled else NumPyBackend(compiled=False)
        table, i = np.random.default_rng(0).standard_normal((2, 4, 3)), np.array([[0, 3], [-1, 2]])
        program = ad.trace(ad.vmap(lambda t, j: ad.grad(lambda u: np.sum(lookup(u, j)))(t)), table, i)
        executable = Executable(program, backend, stages=[1, 0], compile_at=1)
        executable.compile()
        checks = [part for stage in (0, 1) for part in executable.parts(stage) if "wrap_indices" in names(part)]
        assert len(checks) == 1
        assert any(part.compiled for part in executable.parts(1)) == compiled
        executable.inputs[0][...] = table
        for change, good in ((4, False), (0, True), (-5, False), (-4, True)):
            i[0, 1] = change
            executable.inputs[1][...] = i
            if not good:
                with pytest.raises(IndexError, match=rf"index {change} is out of bounds .* \(at \(0, 1\)"):
                    executable.run()
                continue
            executable.run()
            wanted = [ad.grad(lambda u, j=j: np.sum(lookup(u, j)))(t) for t, j in zip(table, i, strict=True)]
            assert_allclose(executable.outputs[0], wanted, rtol=1e-14)

    def test_one_that_was_refused_serves_the_next_call(self, backend: Backend) -> None:
        if is_on_a_device(backend):
            pytest.skip("nothing is refused there")
        to, x = backend.asarray, np.arange(8.0).reshape(2, 4)
        program = ad.trace(ad.vmap(np.take), to(x), to([[0], [0]]))
        for _ in range(4):
            with pytest.raises(IndexError):
                program(to(x), to([[4], [0]]))
            assert backend.to_numpy(program(to(x), to([[3], [-4]]))).tolist() == [[3.0], [4.0]]


def names(part: Any) -> list[str]:
    return [work.primitive.name for work in part.work if work.primitive is not None]


TOKENS, CLASSES = 5, 3
START = {
    "table": np.random.default_rng(0).standard_normal((TOKENS, 4)),
    "head": np.random.default_rng(1).standard_normal((4, CLASSES)),
}


def scores(p: Any, tokens: Any) -> Any:
    return np.tanh(np.sum(np.take(p["table"], tokens, axis=0), axis=1)) @ p["head"]


def sentences(backend: Backend, seed: int, *, bad: tuple[int, str, int] | None = None) -> TaskBatch[Any, Any, Any]:
    """Three tasks of sentences of two tokens; ``bad`` names a task, a set, and the token that comes into it."""
    rng, tasks = np.random.default_rng(seed), []
    for place in range(3):
        sets = {role: rng.integers(-TOKENS, TOKENS, (6, 2)) for role in ("Support", "Query")}
        if bad is not None and bad[0] == place:
            sets[bad[1]][3, 1] = bad[2]
        arrays = {f"{role}SetX": backend.asarray(x) for role, x in sets.items()}
        arrays |= {f"{role}SetY": backend.asarray(rng.integers(0, CLASSES, 6)) for role in sets}
        tasks.append(MetaLearningTask(**arrays))
    return TaskBatch(tasks)


def by(algorithm: Any, options: Any, **settings_: Any) -> Callable[[Backend], Any]:
    def learner(backend: Backend) -> Any:
        model = FunctionModel(scores, START, loss=CrossEntropyLoss(), backend=backend)
        return algorithm(options(model, **({"AdaptationSteps": 2} | settings_)))

    return learner


LEARNERS: dict[str, Callable[[Backend], Any]] = {
    "maml": by(MAMLAlgorithm, MAMLOptions),
    "fomaml": by(MAMLAlgorithm, MAMLOptions, UseFirstOrder=True),
    "reptile": by(ReptileAlgorithm, ReptileOptions),
    "meta-sgd": by(MetaSGDAlgorithm, MetaSGDOptions),
    "anil": by(ANILAlgorithm, ANILOptions, AdaptedLayers=["head"]),
    "boil": by(BOILAlgorithm, BOILOptions, AdaptedLayers=["table"]),
    "imaml": by(iMAMLAlgorithm, iMAMLOptions),
    "gauss-newton": by(iMAMLAlgorithm, iMAMLOptions, Curvature="gauss-newton", InnerObjective="proximal"),
    "in full": by(
        iMAMLAlgorithm,
        iMAMLOptions,
        InnerObjective="proximal",
        LearnedLambda="scalar",
        WarmStartSolves=True,
        PreconditionerProbes=2,
    ),
    "checkpoints": by(MAMLAlgorithm, MAMLOptions, CheckpointSegments=2),
    "l-bfgs": by(iMAMLAlgorithm, iMAMLOptions, InnerObjective="proximal", InnerOptimizer=LBFGSMinimizer()),
}


BY_DEFAULT = {"maml", "reptile", "anil", "imaml"}


class TestTokensOfTasks:
    @pytest.mark.slow
    @pytest.mark.parametrize("flops", [1, NumPyBackend.flops_at_once])
    @pytest.mark.parametrize(
        "name", [pytest.param(n, marks=() if n in BY_DEFAULT else pytest.mark.slow) for n in LEARNERS]
    )
    def test_one_beyond_the_table_changes_nothing(self, name: str, flops: int, monkeypatch: pytest.MonkeyPatch) -> None:
        """In no task of any call, together or apart; and the next steps are those of a learner that never met it."""
        monkeypatch.setattr(NumPyBackend, "flops_at_once", flops)
        backend = get_backend("numpy")
        learner, other = LEARNERS[name](backend), LEARNERS[name](backend)
        for seed in range(3):
            assert learner.MetaTrain(sentences(backend, seed)) == other.MetaTrain(sentences(backend, seed))
        for call in ("MetaTrain", "Evaluate", "AdaptAndEvaluate", "Adapt"):
            for role in ("Support", "Query")[: 1 if call == "Adapt" else 2]:
                for place, token in ((0, TOKENS), (2, TOKENS), (0, -TOKENS - 1), (2, -TOKENS - 1)):
                    batch = sentences(backend, 7, bad=(place, role, token))
                    data = batch if call in ("MetaTrain", "Evaluate") else batch[place]
                    with untouched(learner), pytest.raises(IndexError, match=f"index {token} is out of bounds"):
                        getattr(learner, call)(data)
        for seed in range(3):
            assert learner.Evaluate(sentences(backend, seed)) == other.Evaluate(sentences(backend, seed))
            assert learner.MetaTrain(sentences(backend, seed)) == other.MetaTrain(sentences(backend, seed))
        assert_array_equal(learner.BaseModel.GetParameters(), other.BaseModel.GetParameters())

    @pytest.mark.parametrize("token", [TOKENS, -TOKENS - 1])
    @pytest.mark.parametrize("name", ["maml", "imaml"])
    def test_on_each_backend(self, backend: Backend, name: str, token: int) -> None:
        learner = LEARNERS[name](backend)
        batch = sentences(backend, 0, bad=(1, "Support", token))
        if is_on_a_device(backend):
            counted = sentences(backend, 0, bad=(1, "Support", token % TOKENS))
            assert learner.MetaTrain(batch) == LEARNERS[name](backend).MetaTrain(counted)
        else:
            with untouched(learner), pytest.raises(IndexError, match="out of bounds for an axis of length 5"):
                learner.MetaTrain(batch)

    @pytest.mark.parametrize("token", [TOKENS, -TOKENS - 1])
    def test_by_the_model_itself(self, token: int) -> None:
        model = FunctionModel(scores, START, loss=CrossEntropyLoss())
        before = model.GetParameters()
        x, y = np.array([[0, 1], [token, 0]]), np.array([0, 1])
        for call in (
            lambda: model.Predict(x),
            lambda: model.Train(x, y),
            lambda: model.ComputeGradients(x, y),
        ):
            with pytest.raises(
                IndexError, match=rf"index {token} is out of bounds for an axis of length 5 \(at \(1, 0\)"
            ):
                call()
        assert_array_equal(model.GetParameters(), before)
