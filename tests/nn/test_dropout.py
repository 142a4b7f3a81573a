"""Dropout: the layer, the noise that steps hand to it, and meta-gradients of the network that it leaves."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy_doubles import Threads
from tanh_network import Values, batch_of

from aidotnet_py import (
    AdamOptimizer,
    ANILAlgorithm,
    ANILOptions,
    ArgumentException,
    ArgumentOutOfRangeException,
    BOILAlgorithm,
    BOILOptions,
    CrossEntropyLoss,
    FunctionModel,
    InvalidOperationException,
    MAMLAlgorithm,
    MAMLOptions,
    MetaLearningTask,
    MetaSGDAlgorithm,
    MetaSGDOptions,
    NeuralNetworkModel,
    NewtonCGMinimizer,
    ReptileAlgorithm,
    ReptileOptions,
    SGDOptimizer,
    TaskBatch,
    iMAMLAlgorithm,
    iMAMLOptions,
)
from aidotnet_py import autodiff as ad
from aidotnet_py.backends import Backend, NumPyBackend, get_backend
from aidotnet_py.data import SinusoidLoader
from aidotnet_py.models import function_model
from aidotnet_py.models.named_arrays import unravel_arrays
from aidotnet_py.models.noise import draw_noise
from aidotnet_py.nn import BatchNorm, Conv2D, Dense, Dropout, Flatten, Layer, ReLU, Residual, Sequential, Tanh
from aidotnet_py.nn.layer import parts

RATE = 0.4
ALGORITHMS: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "maml": (MAMLAlgorithm, MAMLOptions, {}),
    "maml, adam inside, few kept": (MAMLAlgorithm, MAMLOptions, {"InnerOptimizer": "adam", "CheckpointSegments": 2}),
    "fomaml": (MAMLAlgorithm, MAMLOptions, {"UseFirstOrder": True}),
    "imaml": (iMAMLAlgorithm, iMAMLOptions, {"InnerObjective": "proximal"}),
    "imaml, gauss-newton": (iMAMLAlgorithm, iMAMLOptions, {"InnerObjective": "proximal", "Curvature": "gauss-newton"}),
    "imaml, newton inside": (
        *(iMAMLAlgorithm, iMAMLOptions),
        {"InnerObjective": "proximal", "InnerOptimizer": NewtonCGMinimizer(max_iterations=3)},
    ),
    "imaml, warm, learned": (
        *(iMAMLAlgorithm, iMAMLOptions),
        {"InnerObjective": "proximal", "LearnedLambda": "per-parameter", "WarmStartSolves": True},
    ),
    "reptile": (ReptileAlgorithm, ReptileOptions, {"OuterLearningRate": 0.5}),
    "reptile, serial": (ReptileAlgorithm, ReptileOptions, {"OuterLearningRate": 0.5, "UseSerialUpdate": True}),
    "meta-sgd": (MetaSGDAlgorithm, MetaSGDOptions, {}),
    "anil": (ANILAlgorithm, ANILOptions, {"AdaptedLayers": ["3_dense"]}),
    "boil": (BOILAlgorithm, BOILOptions, {"AdaptedLayers": ["0_dense"]}),
}
BY_DEFAULT = {"maml", "imaml", "reptile", "meta-sgd", "anil"}
EACH = pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n in BY_DEFAULT else pytest.mark.slow) for n in ALGORITHMS]
)


def network(*, dropout: bool = True) -> Sequential:
    return Sequential(Dense(5), Tanh(), Dropout(RATE if dropout else 0.0), Dense(1))


def model_on(backend: Any = "numpy", *, dropout: bool = True, dtype: Any = np.float64) -> Any:
    return NeuralNetworkModel(network(dropout=dropout), input_shape=(2,), dtype=dtype, backend=backend, seed=3)


def learner_of(name: str, model: Any, **options: Any) -> Any:
    kind, options_kind, own = ALGORITHMS[name]
    own = {k: AdamOptimizer(0.05) if v == "adam" else v for k, v in own.items()}
    return kind(options_kind(model, AdaptationSteps=3, InnerLearningRate=0.1, RandomSeed=11, **own, **options))


def sets_of(tasks: int, seed: int = 0, shots: int = 4, queries: int = 6) -> list[tuple[Values, ...]]:
    rng = np.random.default_rng(seed)
    found: list[tuple[Values, ...]] = []
    for _ in range(tasks):
        x, q = rng.normal(size=(shots, 2)), rng.normal(size=(queries, 2))
        w = rng.normal(size=(2, 1))
        found.append((x, np.sin(x @ w), q, np.sin(q @ w)))
    return found


class Keys:
    """The keys of the noise that a learner draws, from a twin of its generator."""

    def __init__(self, learner: Any) -> None:
        self.generator = copy.deepcopy(learner._random.generator)

    def __call__(self, place: int, examples: int, width: int = 5) -> Values:
        """The noise of one task's next set; of one call, since each set of a batch has one key."""
        return draw_noise(self.next(), place, {"u": (examples, width)}, np.dtype(np.float64))["u"]

    def next(self) -> list[int]:
        return [int(word) for word in self.generator.integers(0, 2**64, 2, np.uint64)]


class TestLayer:
    def test_zeroes_and_scales_by_the_noise_and_has_the_masks_derivative(self, backend: Backend) -> None:
        x, u = np.array([[1.0, -2.0, 3.0, 4.0]]), np.array([[0.1, 0.4, 0.39999, 0.9]])
        kept = (u >= 0.4) / 0.6
        layer = Dropout(0.4)
        given = {"noise": backend.asarray(u)}
        found = ad.vmap(lambda a: layer.apply(given, a))(backend.asarray(x[None]))
        np.testing.assert_allclose(backend.to_numpy(found)[0], x * kept, rtol=1e-15)
        slope = ad.grad(lambda a: np.sum(layer.apply(given, a) ** 2))(backend.asarray(x))
        np.testing.assert_allclose(backend.to_numpy(slope), 2 * x * kept**2, rtol=1e-14)

    def test_is_the_identity_without_noise(self) -> None:
        x = np.arange(3.0)[None]
        assert Dropout(0.9).apply({}, x) is x
        assert Dropout(0.9).initialize(np.random.default_rng(0), (3,)) == ({}, (3,))

    def test_what_is_dropped_may_be_infinite(self) -> None:
        found = Dropout(0.5).apply({"noise": np.array([[0.0, 0.9]])}, np.array([[np.inf, 1.0]]))
        np.testing.assert_array_equal(found, [[0.0, 2.0]])

    @pytest.mark.parametrize("rate", [-0.1, 1.0, 1, float("nan"), "0.5", None, 1j])
    def test_refuses_other_rates(self, rate: Any) -> None:
        with pytest.raises(ArgumentOutOfRangeException, match=r"rate must be a number in \[0, 1\), got"):
            Dropout(rate)

    def test_is_named_wherever_it_lies(self) -> None:
        inner = Sequential(Conv2D(3, 3), Dropout(0.1))
        whole = Sequential(Residual(inner, Sequential(Conv2D(3, 1), Dropout(0.2))), Flatten(), Dropout(0.3), Dense(2))
        model = NeuralNetworkModel(whole, input_shape=(4, 4, 1), seed=0)
        shapes = model.noise_shapes(
            unravel_arrays(model.GetParameters(), model.parameter_shapes), np.zeros((7, 4, 4, 1), np.float32)
        )
        assert shapes == {
            "0_residual.body.1_dropout.noise": (7, 4, 4, 3),
            "0_residual.shortcut.1_dropout.noise": (7, 4, 4, 3),
            "2_dropout.noise": (7, 48),
        }


class TestDraws:
    @pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
    def test_are_uniform_on_the_half_open_interval(self, dtype: Any) -> None:
        (drawn,) = draw_noise([1, 2], 0, {"u": (200_000,)}, np.dtype(dtype)).values()
        assert drawn.dtype == dtype
        assert drawn.min() >= 0
        assert drawn.max() < 1
        wide = drawn.astype(np.float64)
        # Standard errors of the mean, 1/√(12 n), and of the variance, 1/√(180 n), n = 200 000; four of each.
        assert abs(wide.mean() - 0.5) < 4 / np.sqrt(12 * 2e5) + 2.0**-11
        assert abs(wide.var() - 1 / 12) < 4 / np.sqrt(180 * 2e5) + 2.0**-11
        for rate in (0.1, 0.5, 0.9):
            assert abs((wide < rate).mean() - rate) < 4 * np.sqrt(rate * (1 - rate) / 2e5) + 2.0**-11

    def test_depend_on_key_place_and_order_alone(self) -> None:
        shapes = {"a": (3, 2), "b": (4,)}
        kinds = [([1, 2], 0), ([1, 2], 1), ([2, 2], 0), ([1, 3], 0)]
        drawn = [draw_noise(key, place, shapes, np.dtype(np.float64)) for key, place in kinds]
        values = [tuple(np.concatenate([d["a"].ravel(), d["b"]])) for d in drawn]
        assert len({v for of_one in values for v in of_one}) == 4 * 10
        again = draw_noise([1, 2], 1, shapes, np.dtype(np.float64))
        assert all((again[name] == drawn[1][name]).all() for name in shapes)

    def test_are_of_the_stream_that_is_written_down(self) -> None:
        """Philox 4×64-10 with this key and counter, so that a checkpoint means the same years from now."""
        drawn = draw_noise([7, 9], 2, {"u": (3,)}, np.dtype(np.float64))["u"]
        words = np.random.Philox(key=np.array([7, 9], np.uint64), counter=[0, 0, 0, 2]).random_raw(3)
        np.testing.assert_array_equal(drawn, [(int(word) >> 11) * 2.0**-53 for word in words])


def gradients_of(p: dict[str, Values], x: Values, y: Values, mask: Values) -> dict[str, Values]:
    """Of mean((f − y)²), f = (tanh(x w1 + b1) · mask) w2 + b2; for complex parameters too."""
    z = np.tanh(x @ p["w1"] + p["b1"])
    error = 2 * ((z * mask) @ p["w2"] + p["b2"] - y) / y.size
    before = (error @ p["w2"].T) * mask * (1 - z * z)
    return {"w1": x.T @ before, "b1": before.sum(0), "w2": (z * mask).T @ error, "b2": error.sum(0)}


def loss_of(p: dict[str, Values], x: Values, y: Values, mask: Values) -> Any:
    return np.mean(((np.tanh(x @ p["w1"] + p["b1"]) * mask) @ p["w2"] + p["b2"] - y) ** 2)


@pytest.mark.numpy_first
class TestMetaGradient:
    """With its masks, one network like any other; the masks stay through a step."""

    def test_of_maml_by_complex_steps(self, backend: Backend) -> None:
        sets, model = sets_of(3), model_on(backend)
        learner = learner_of("maml", model, MetaOptimizer=SGDOptimizer(1.0))
        keys = Keys(learner)
        support, query = keys.next(), keys.next()
        start = np.array(backend.to_numpy(model.GetParameters()))

        def mask(key: list[int], place: int, examples: int) -> Values:
            drawn = draw_noise(key, place, {"u": (examples, 5)}, np.dtype(np.float64))["u"]
            return (drawn >= RATE) / (1 - RATE)

        def whole(theta: Values) -> Any:
            losses = []
            for place, (x, y, q, t) in enumerate(sets):
                p = dict(zip(("w1", "b1", "w2", "b2"), np.split(theta, [10, 15, 20]), strict=True))
                p["w1"], p["w2"] = p["w1"].reshape(2, 5), p["w2"].reshape(5, 1)
                for _ in range(3):
                    slopes = gradients_of(p, x, y, mask(support, place, 4))
                    p = {n: p[n] - 0.1 * slopes[n] for n in p}
                losses.append(loss_of(p, q, t, mask(query, place, 6)))
            return np.mean(losses)

        loss = learner.MetaTrain(batch_of(backend, sets))
        exact = np.array([whole(start + 1e-40j * one).imag / 1e-40 for one in np.eye(start.size)])
        np.testing.assert_allclose(float(loss), whole(start), rtol=1e-12)
        found = start - backend.to_numpy(model.GetParameters())
        np.testing.assert_allclose(found, exact, rtol=1e-9, atol=1e-12)

    def test_of_imaml_in_closed_form(self, backend: Backend) -> None:
        """A linear model behind Dropout: φ = (A + I)⁻¹(λ 2XᵀY/n + θ), the meta-gradient (A + I)⁻¹∇L_q, A = λ 2XᵀX/n."""
        lam, sets = 0.3, sets_of(2, queries=4)
        net = Sequential(Dropout(RATE), Dense(1, bias=False))
        model = NeuralNetworkModel(net, input_shape=(2,), dtype=np.float64, backend=backend, seed=0)
        options = iMAMLOptions(
            model,
            AdaptationSteps=400,
            InnerLearningRate=0.1,
            InnerObjective="proximal",
            LambdaRegularization=lam,
            ConjugateGradientIterations=10,
            MetaOptimizer=SGDOptimizer(1.0),
            RandomSeed=5,
        )
        learner = iMAMLAlgorithm(options)
        keys = Keys(learner)
        support, query = keys.next(), keys.next()
        theta = np.array(backend.to_numpy(model.GetParameters()))
        wanted = np.zeros(2)
        for place, (x, y, q, t) in enumerate(sets):
            noises = (draw_noise(k, place, {"u": (4, 2)}, np.dtype(np.float64))["u"] for k in (support, query))
            x, q = (data * (u >= RATE) / (1 - RATE) for data, u in zip((x, q), noises, strict=True))
            stiff = np.eye(2) + lam * 2 * x.T @ x / 4
            phi = np.linalg.solve(stiff, lam * 2 * x.T @ y[:, 0] / 4 + theta)
            wanted += np.linalg.solve(stiff, 2 * q.T @ (q @ phi - t[:, 0]) / 4) / len(sets)
        learner.MetaTrain(batch_of(backend, sets))
        np.testing.assert_allclose(theta - backend.to_numpy(model.GetParameters()), wanted, rtol=1e-8, atol=1e-12)

    @pytest.mark.slow
    @EACH
    @pytest.mark.parametrize("batches", [1, 2])
    def test_is_that_of_a_model_with_the_masks_among_its_inputs(
        self, backend: Backend, name: str, batches: int
    ) -> None:
        if batches > 1 and "newton" in name:
            pytest.skip("a solver of the whole inner problem has no steps that batches could be shared out to")
        sets, model = sets_of(3), model_on(backend)
        learner = learner_of(name, model)
        plain = network()

        def apply(p: Any, xu: Any) -> Any:
            return plain.apply({**p, "2_dropout.noise": xu[:, 2:]}, xu[:, :2])

        start = unravel_arrays(backend.to_numpy(model.GetParameters()), model.parameter_shapes)
        twin = FunctionModel(apply, start, dtype=np.float64, backend=backend)
        other = learner_of(name, twin)
        for _ in range(2):
            keys = Keys(learner)
            with_noise = beside_noise(sets, keys, batches, serial="serial" in name)
            losses = [learner.MetaTrain(tasks_of(backend, sets, batches)), other.MetaTrain(with_noise(backend))]
            np.testing.assert_allclose(float(losses[0]), float(losses[1]), rtol=1e-12)
            found, wanted = (backend.to_numpy(m.GetParameters()) for m in (model, twin))
            np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-11)


def pieces(x: Values, batches: int) -> Any:
    return x if batches == 1 else np.split(x, batches)


def tasks_of(backend: Backend, sets: Any, batches: int) -> TaskBatch[Any, Any, Any]:
    def at(x: Any) -> Any:
        return [backend.asarray(one) for one in x] if isinstance(x, list) else backend.asarray(x)

    return TaskBatch(
        MetaLearningTask(
            SupportSetX=at(pieces(x, batches)), SupportSetY=at(pieces(y, batches)), QuerySetX=at(q), QuerySetY=at(t),
            TaskId=place,
        )
        for place, (x, y, q, t) in enumerate(sets)
    )  # fmt: skip


def beside_noise(sets: Any, keys: Keys, batches: int, *, serial: bool) -> Any:
    """The tasks with the noise of their examples as further columns, as the learner is about to draw it."""

    def of_tasks(places: Any) -> dict[int, tuple[Any, ...]]:
        """One key for each batch of the support sets and for the query sets; the tasks by their places."""
        support, query = [keys.next() for _ in range(batches)], keys.next()
        found = {}
        for place, task in places:
            x, y, q, t = sets[task]
            shapes = {"u": (len(x) // batches, 5)}
            noise = [draw_noise(key, place, shapes, np.dtype(np.float64))["u"] for key in support]
            of_query = draw_noise(query, place, {"u": (len(q), 5)}, np.dtype(np.float64))["u"]
            found[task] = (np.hstack([x, np.vstack(noise)]), y, np.hstack([q, of_query]), t)
        return found

    count = range(len(sets))
    # In a serial step each task is a batch of its own.
    alone = [of_tasks([(0, task)]) for task in count] if serial else [of_tasks(zip(count, count, strict=True))]
    whole = {task: found for part in alone for task, found in part.items()}
    return lambda backend: tasks_of(backend, [whole[task] for task in count], batches)


@pytest.mark.numpy_first
class TestSteps:
    def test_have_new_masks_each(self) -> None:
        learner = learner_of("maml", model_on(), MetaOptimizer=SGDOptimizer(1e-300))
        batch = batch_of(get_backend("numpy"), sets_of(2))
        losses = [learner.MetaTrain(batch) for _ in range(5)]
        assert len(set(losses)) == 5

    def test_differ_between_tasks_and_sets(self) -> None:
        """Four copies of one task, query set like support set: without masks all would be alike."""
        x, y, *_ = sets_of(1)[0]
        learner = learner_of("fomaml", model_on(), MetaOptimizer=SGDOptimizer(1e-300))
        learner.MetaTrain(batch_of(get_backend("numpy"), [(x, y, x, y)] * 4))
        assert len(set(learner._record.losses)) == 4
        whole = learner._open(list(batch_of(get_backend("numpy"), [(x, y, x, y)])), "Support", "Query")[0]
        whole, at = whole.part(0, 1, 0), learner.BaseModel.GetParameters()[None]
        assert float(whole.support.evaluate(at).losses[0]) != float(whole.query.evaluate(at).losses[0])

    @pytest.mark.costly
    @EACH
    def test_are_the_only_ones(self, backend: Backend, name: str) -> None:
        """Whatever is for use has the bits of the network without Dropout."""
        batch = batch_of(backend, sets_of(2))
        found = []
        for dropout in (True, False):
            kind, options_kind, own = ALGORITHMS[name]
            own = {k: AdamOptimizer(0.05) if v == "adam" else v for k, v in own.items()}
            net = Sequential(Dense(5), Tanh(), Dropout(0.7) if dropout else Sequential(Tanh()), Dense(1))
            if not dropout:
                net.layers["2_sequential"] = Identity()
            model = NeuralNetworkModel(net, input_shape=(2,), dtype=np.float64, backend=backend, seed=1)
            learner = kind(options_kind(model, AdaptationSteps=2, InnerLearningRate=0.1, **own))
            task = batch[0]
            result = learner.AdaptAndEvaluate(task)
            curve = [] if "newton" in name else learner.adaptation_curve(batch).losses.ravel().tolist()
            adapted = backend.to_numpy(learner.Adapt(task).Predict(task.QueryInput)).tolist()
            gradient = backend.to_numpy(model.ComputeGradients(task.QueryInput, task.QueryOutput)).tolist()
            losses = [learner.Evaluate(batch), result.QueryLoss, result.SupportLoss, *result.PerStepLosses]
            found.append([losses, curve, adapted, gradient])
        assert found[0] == found[1]

    @pytest.mark.slow
    @EACH
    def test_are_the_same_however_the_batch_is_split(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        found = []
        for flops, threads in ((10**9, 1), (1, 1), (1, 5), (4000, 2)):
            monkeypatch.setattr(NumPyBackend, "flops_at_once", flops)
            backend = Threads(threads)
            learner = learner_of(name, model_on(backend))
            batch = batch_of(backend, sets_of(7))
            losses = [learner.MetaTrain(batch) for _ in range(2)]
            found.append((losses, learner.BaseModel.GetParameters().tobytes()))
        assert found.count(found[0]) == 4

    def test_of_float32_and_float16_and_of_classes(self, backend: Backend) -> None:
        rng = np.random.default_rng(0)
        # Half precision is more than the stand-ins have.
        for dtype in (np.float32, np.float16) if backend.name == "numpy" else (np.float32,):
            net = Sequential(Conv2D(3, 3), Dropout(0.25), ReLU(), Flatten(), Dropout(0.5), Dense(3))
            model = NeuralNetworkModel(
                net, input_shape=(4, 4, 1), loss=CrossEntropyLoss(), dtype=dtype, backend=backend, seed=0
            )
            x, y = rng.normal(size=(2, 6, 4, 4, 1)).astype(dtype), rng.integers(0, 3, (2, 6))
            batch = tasks_of(backend, [(x[0], y[0], x[1], y[1])], 1)
            options = MAMLOptions(model, InnerLearningRate=0.01, RandomSeed=0, MetaOptimizer=SGDOptimizer(0.01))
            learner = MAMLAlgorithm(options)
            losses = [learner.MetaTrain(batch) for _ in range(2)]
            assert losses[0] != losses[1]
            assert np.isfinite(losses).all()

    def test_rate_changed_between_steps_counts(self) -> None:
        losses = []
        for first in (0.4, 0.0):
            net = Sequential(Dense(5), Tanh(), Dropout(first), Dense(1))
            learner = learner_of("maml", NeuralNetworkModel(net, input_shape=(2,), dtype=np.float64, seed=3))
            batch = batch_of(get_backend("numpy"), sets_of(2))
            learner.MetaTrain(batch)
            learner.BaseModel.SetParameters(np.arange(21.0) / 21)
            layer: Any = net.layers["2_dropout"]
            layer.rate = 0.6
            losses.append(learner.MetaTrain(batch))
        assert losses[0] == losses[1]


class Identity(Layer):
    def initialize(self, generator: Any, shape: Any) -> Any:
        return {}, shape

    def apply(self, parameters: Any, x: Any) -> Any:
        return x


def _interrupt(meta_gradients: Any) -> float:
    raise KeyboardInterrupt


class TestGoingOn:
    @pytest.mark.slow
    @EACH
    def test_from_a_file_has_the_bits_of_going_on(self, name: str, tmp_path: Path) -> None:
        def made() -> Any:
            model = NeuralNetworkModel(network(), input_shape=(1,), dtype=np.float64, seed=3)
            return learner_of(name, model, DataLoader=SinusoidLoader(seed=4, dtype=np.float64))

        whole = made()
        for _ in range(2):
            whole.MetaTrainStep(3)
        whole.Save(tmp_path / "half.safetensors")
        wanted = [whole.MetaTrainStep(3).MetaLoss for _ in range(3)]
        again = made()
        again.Load(tmp_path / "half.safetensors")
        assert [again.MetaTrainStep(3).MetaLoss for _ in range(3)] == wanted
        assert (again.BaseModel.GetParameters() == whole.BaseModel.GetParameters()).all()
        again.Reset()
        again.BaseModel.SetParameters(made().BaseModel.GetParameters())
        first = made()
        assert again.MetaTrainStep(3).MetaLoss == first.MetaTrainStep(3).MetaLoss

    @pytest.mark.costly
    @EACH
    def test_after_a_step_that_failed(self, name: str) -> None:
        """It has drawn nothing: the next step is the one that would have come."""
        losses = []
        for fails in (True, False):
            learner = learner_of(name, model_on())
            numpy = get_backend("numpy")
            if fails:
                x, y, q, t = sets_of(1)[0]
                with pytest.raises(InvalidOperationException, match="not finite"):
                    learner.MetaTrain(batch_of(numpy, [(x, y * np.nan, q, t)]))
            losses.append(learner.MetaTrain(batch_of(numpy, sets_of(2))))
        assert losses[0] == losses[1]

    @pytest.mark.parametrize("name", ["maml", "reptile, serial"])
    def test_after_an_interrupt(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        losses = []
        for interrupted in (True, False):
            learner, batch = learner_of(name, model_on()), batch_of(get_backend("numpy"), sets_of(2))
            if interrupted:
                with monkeypatch.context() as patch:
                    patch.setattr(learner, "_meta_update", _interrupt)
                    with pytest.raises(KeyboardInterrupt):
                        learner.MetaTrain(batch)
            losses.append([learner.MetaTrain(batch) for _ in range(2)])
        assert losses[0] == losses[1]

    def test_in_a_copy(self) -> None:
        learner = learner_of("maml", model_on())
        batch = batch_of(get_backend("numpy"), sets_of(2))
        learner.MetaTrain(batch)
        twin = copy.deepcopy(learner)
        assert [twin.MetaTrain(batch) for _ in range(2)] == [learner.MetaTrain(batch) for _ in range(2)]

    def test_evaluation_draws_nothing(self) -> None:
        batch = batch_of(get_backend("numpy"), sets_of(2))
        losses = []
        for evaluates in (True, False):
            learner = learner_of("maml", model_on())
            if evaluates:
                learner.Evaluate(batch)
                learner.Adapt(batch[0])
            losses.append(learner.MetaTrain(batch))
        assert losses[0] == losses[1]

    def test_a_model_without_it_leaves_the_generator_alone(self) -> None:
        net = Sequential(Dense(5), Tanh(), Dense(1))
        learner = learner_of("maml", NeuralNetworkModel(net, input_shape=(2,), dtype=np.float64, seed=3))
        before = learner._random.generator.bit_generator.state
        learner.MetaTrain(batch_of(get_backend("numpy"), sets_of(2)))
        assert learner._random.generator.bit_generator.state == before


class TestTrain:
    """The model's own steps: Adam at 0.001, whose first step is −0.001 g/(|g| + ε)."""

    def test_takes_masks_of_the_models_seed(self, backend: Backend) -> None:
        x, y, *_ = sets_of(1)[0]
        model = model_on(backend)
        key = np.random.SeedSequence(3).spawn(1)[0].generate_state(2, np.uint64)
        p = unravel_arrays(np.array(backend.to_numpy(model.GetParameters())), model.parameter_shapes)
        named = dict(zip(("w1", "b1", "w2", "b2"), p.values(), strict=True))
        u = draw_noise([int(k) for k in key], 0, {"u": (4, 5)}, np.dtype(np.float64))["u"]
        slopes = gradients_of(named, x, y, (u >= RATE) / (1 - RATE))
        flat = np.concatenate([slopes[n].ravel() for n in named])
        before = np.array(backend.to_numpy(model.GetParameters()))
        model.Train(backend.asarray(x), backend.asarray(y))
        moved = backend.to_numpy(model.GetParameters()) - before
        np.testing.assert_allclose(moved, -0.001 * flat / (abs(flat) + 1e-8), rtol=1e-6, atol=1e-12)

    def test_is_reproducible_and_has_new_masks_each_step(self, monkeypatch: pytest.MonkeyPatch) -> None:
        x, y, *_ = sets_of(1)[0]
        ends = []
        for seed in (3, 3, 4):
            model: Any = NeuralNetworkModel(network(), input_shape=(2,), dtype=np.float64, seed=seed)
            model.SetParameters(np.arange(21.0) / 21)
            for _ in range(3):
                model.Train(x, y)
            ends.append(model.GetParameters().tolist())
        assert ends[0] == ends[1]
        assert ends[0] != ends[2]
        drawn: list[Any] = []

        def recorded(*arguments: Any) -> Any:
            drawn.append(draw_noise(*arguments))
            return drawn[-1]

        monkeypatch.setattr(function_model, "draw_noise", recorded)
        model = model_on()
        for _ in range(3):
            model.Train(x, y)
        assert len({noise["2_dropout.noise"].tobytes() for noise in drawn}) == 3

    def test_goes_on_in_a_copy_and_starts_anew_with_other_parameters(self) -> None:
        x, y, *_ = sets_of(1)[0]
        model = model_on()
        first = model.WithParameters(np.arange(21.0) / 21)
        model.Train(x, y)
        copies = [model.Clone(), copy.deepcopy(model), model]
        for one in copies:
            one.Train(x, y)
        assert len({one.GetParameters().tobytes() for one in copies}) == 1
        again = model.WithParameters(np.arange(21.0) / 21)
        for one in (first, again):
            one.Train(x, y)
        assert (first.GetParameters() == again.GetParameters()).all()

    def test_a_step_that_failed_draws_nothing(self) -> None:
        x, y, *_ = sets_of(1)[0]
        models = model_on(), model_on()
        with pytest.raises(InvalidOperationException, match="not finite"):
            models[0].Train(x, y * np.nan)
        for model in models:
            model.Train(x, y)
        assert (models[0].GetParameters() == models[1].GetParameters()).all()


class Block(Layer):
    """Holds layers, and says nothing of their noise."""

    def __init__(self, inner: Layer) -> None:
        self.inner = inner

    def initialize(self, generator: Any, shape: Any) -> Any:
        parameters, output = self.inner.initialize(generator, shape)
        return {f"inner.{name}": value for name, value in parameters.items()}, output

    def apply(self, parameters: Any, x: Any) -> Any:
        return self.inner.apply(parts(parameters, "inner"), x)


class OpenBlock(Block):
    def noise_shapes(self, parameters: Any, x: Any) -> Any:
        return {f"inner.{n}": s for n, s in self.inner.noise_shapes(parts(parameters, "inner"), x).items()}


class TestLayersOfOnesOwn:
    def test_that_hide_a_dropout_are_refused_in_training(self) -> None:
        x, y, *_ = sets_of(1)[0]
        batch = batch_of(get_backend("numpy"), sets_of(1))
        hidden = NeuralNetworkModel(Sequential(Block(network())), input_shape=(2,), dtype=np.float64, seed=0)
        inside = network()
        function = FunctionModel(inside.apply, inside.initialize(np.random.default_rng(0), (2,))[0])
        for model in (hidden, function):
            before = model.GetParameters()
            model.Predict(x)
            learner = learner_of("maml", model)
            assert np.isfinite(learner.Evaluate(batch))
            for train in (lambda m=model: m.Train(x, y), lambda one=learner: one.MetaTrain(batch)):
                for _ in range(2):
                    with pytest.raises(ArgumentException, match=r"1 would be off in training.*noise_shapes"):
                        train()
            assert (model.GetParameters() == before).all()

    def test_that_hand_it_on_are_trained(self) -> None:
        batch = batch_of(get_backend("numpy"), sets_of(2))
        losses = []
        for net in (OpenBlock(network()), network()):
            model = NeuralNetworkModel(net, input_shape=(2,), dtype=np.float64, seed=0)
            losses.append(learner_of("maml", model).MetaTrain(batch))
        assert losses[0] == losses[1]

    def test_may_take_noise_themselves(self) -> None:
        class DropConnect(Layer):
            """Weights that are left out, the same for all examples (Wan et al. 2013)."""

            def initialize(self, generator: Any, shape: Any) -> Any:
                return {"weight": generator.standard_normal((*shape, 1))}, (1,)

            def noise_shapes(self, parameters: Any, x: Any) -> Any:
                return {"noise": parameters["weight"].shape}

            def apply(self, parameters: Any, x: Any) -> Any:
                kept = np.where(parameters["noise"] < 0.5, 2.0, 0.0) if "noise" in parameters else 1.0
                return x @ (parameters["weight"] * kept)

        (x, y, q, t), numpy = sets_of(1)[0], get_backend("numpy")
        model = NeuralNetworkModel(DropConnect(), input_shape=(2,), dtype=np.float64, seed=0)
        w = np.array(model.GetParameters())[:, None]
        learner = MAMLAlgorithm(MAMLOptions(model, AdaptationSteps=1, InnerLearningRate=1e-300, RandomSeed=0))
        keys = Keys(learner)
        keys.next()
        kept = np.where(draw_noise(keys.next(), 0, {"u": (2, 1)}, np.dtype(np.float64))["u"] < 0.5, 2.0, 0.0)
        loss = learner.MetaTrain(batch_of(numpy, [(x, y, q, t)]))
        np.testing.assert_allclose(float(loss), np.mean((q @ (w * kept) - t) ** 2), rtol=1e-12)


class TestBesideSupportStatistics:
    """Query sets that are normalised by the support set's statistics: those of a pass without noise."""

    def learner(self, *, rate: float | None, seed: int = 0, steps: int = 1) -> Any:
        drop = [] if rate is None else [Dropout(rate)]
        network = Sequential(Dense(6), BatchNorm(statistics="support"), Tanh(), *drop, Dense(1))
        model = NeuralNetworkModel(network, input_shape=(3,), dtype=np.float64, seed=0)
        return MAMLAlgorithm(MAMLOptions(model, InnerLearningRate=0.05, AdaptationSteps=steps, RandomSeed=seed))

    def batch(self) -> TaskBatch[Any, Any, Any]:
        rng = np.random.default_rng(0)
        tasks = []
        for _ in range(3):
            x, q = rng.standard_normal((5, 3)), rng.standard_normal((4, 3))
            tasks.append(
                MetaLearningTask(
                    SupportSetX=x, SupportSetY=x[:, :1], QuerySetX=q, QuerySetY=q[:, :1], NumWays=1, NumShots=5
                )
            )
        return TaskBatch(tasks)

    @pytest.mark.slow
    def test_steps_draw_and_use_does_not(self) -> None:
        plain, dropped, same, other = (
            self.learner(rate=None),
            self.learner(rate=0.5),
            self.learner(rate=0.5),
            self.learner(rate=0.5, seed=1),
        )
        batch = self.batch()
        assert dropped.Evaluate(batch) == plain.Evaluate(batch)
        losses = [one.MetaTrain(batch) for one in (plain, dropped, same, other)]
        assert losses[1] == losses[2]
        assert len(set(losses)) == 3
        np.testing.assert_array_equal(dropped.BaseModel.GetParameters(), same.BaseModel.GetParameters())

    @pytest.mark.slow
    def test_the_meta_gradient_is_that_of_one_function(self) -> None:
        """With the noise of a step held, by differences of its loss at other starts."""
        batch = self.batch()

        def loss_at(theta: Any) -> float:
            learner = self.learner(rate=0.5, steps=2)
            learner.BaseModel.SetParameters(theta)
            return float(learner.MetaTrain(batch))

        learner = self.learner(rate=0.5, steps=2)
        options = learner.Options
        options.MetaOptimizer, options.GradientClipThreshold = SGDOptimizer(1.0), None
        theta = learner.BaseModel.GetParameters()
        learner.MetaTrain(batch)
        gradient, h = theta - learner.BaseModel.GetParameters(), 1e-6
        for direction in np.random.default_rng(1).standard_normal((4, len(theta))):
            slope = (loss_at(theta + h * direction) - loss_at(theta - h * direction)) / (2 * h)
            np.testing.assert_allclose(gradient @ direction, slope, rtol=1e-6, atol=1e-9)
