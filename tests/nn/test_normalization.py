"""What networks are normalised by: support statistics, adapted models that hold them, warnings of few examples."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from layer_calls import applied, rng, started

from aidotnet_py import (
    ANILAlgorithm,
    ANILOptions,
    CrossEntropyLoss,
    FunctionModel,
    MAMLAlgorithm,
    MAMLOptions,
    MetaLearningTask,
    NeuralNetworkModel,
    SGDOptimizer,
    TaskBatch,
    iMAMLAlgorithm,
    iMAMLOptions,
)
from aidotnet_py.archives import pack
from aidotnet_py.data import DigitsLoader
from aidotnet_py.exceptions import ArgumentException, ArgumentOutOfRangeException
from aidotnet_py.nn import (
    BatchNorm,
    Conv2D,
    Dense,
    GroupNorm,
    Layer,
    LayerNorm,
    Residual,
    Sequential,
    Tanh,
    conv4,
    resnet18,
)
from aidotnet_py.nn.statistics import PassStatistics

# Dense, batch norm, tanh, dense: small enough to be written again in NumPy below.
SHAPES = {
    "0_dense.weight": (3, 4),
    "0_dense.bias": (4,),
    "1_batchnorm.scale": (4,),
    "1_batchnorm.shift": (4,),
    "3_dense.weight": (4, 2),
    "3_dense.bias": (2,),
}


def small(statistics="support", backend="numpy"):
    network = Sequential(Dense(4), BatchNorm(statistics=statistics), Tanh(), Dense(2))
    model = NeuralNetworkModel(network, input_shape=(3,), dtype=np.float64, backend=backend, seed=0)
    assert dict(model.parameter_shapes) == SHAPES
    noise = np.random.default_rng(1).normal(size=model.ParameterCount) / 4
    return model.WithParameters(model.backend.asarray(model.backend.to_numpy(model.GetParameters()) + noise))


def outputs(vector, x, by=None):
    """The network in NumPy, normalised by the examples of ``by``; None: by its own."""
    parameters, start = {}, 0
    for name, shape in SHAPES.items():
        parameters[name] = vector[start : start + np.prod(shape)].reshape(shape)
        start += int(np.prod(shape))
    hidden, others = (
        z @ parameters["0_dense.weight"] + parameters["0_dense.bias"] for z in (x, x if by is None else by)
    )
    normal = (hidden - others.mean(axis=0)) / np.sqrt(others.var(axis=0) + 1e-5)
    normal = normal * parameters["1_batchnorm.scale"] + parameters["1_batchnorm.shift"]
    return np.tanh(normal) @ parameters["3_dense.weight"] + parameters["3_dense.bias"]


def loss_of(vector, x, y, by=None):
    return np.mean((outputs(vector, x, by) - y) ** 2)


def differences(function, vector, step=1e-5):
    """Central differences of a number."""
    rows = np.eye(len(vector)) * step
    return np.array([(function(vector + row) - function(vector - row)) / (2 * step) for row in rows])


def task_of(seed, backend, queries=6, batches=None):
    generator = np.random.default_rng(seed)
    arrays = [generator.normal(size=(n, width)) for n, width in ((5, 3), (5, 2), (queries, 3), (queries, 2))]
    x, y, query_x, query_y = map(backend.asarray, arrays)
    if batches is not None:
        x, y = ([backend.index(a, (slice(i, j), slice(None))) for i, j in batches] for a in (x, y))
    task = MetaLearningTask(SupportSetX=x, SupportSetY=y, QuerySetX=query_x, QuerySetY=query_y)
    return task, arrays


def digit_model(norm="batch", seed=0):
    return NeuralNetworkModel(conv4(5, filters=8, norm=norm), input_shape=(8, 8, 1), loss=CrossEntropyLoss(), seed=seed)


def meta_gradient(learner, tasks):
    """What MetaTrain hands to a meta-optimizer that steps along it by 1."""
    model, to_numpy = learner.BaseModel, learner.BaseModel.backend.to_numpy
    before = to_numpy(model.GetParameters()).copy()
    learner.MetaTrain(TaskBatch(tasks))
    return before - to_numpy(model.GetParameters())


PLAIN = {"MetaOptimizer": SGDOptimizer(1.0), "GradientClipThreshold": None, "InnerLearningRate": 0.1}


class TestGroupNorm:
    @pytest.mark.parametrize(
        ("shape", "groups"), [((6,), 2), ((6,), 3), ((4, 3, 6), 1), ((4, 3, 6), 2), ((4, 3, 6), 6)]
    )
    def test_is_by_example_and_group(self, backend, shape, groups):
        x = 3 + 2 * rng().standard_normal((5, *shape))
        parameters, output = started(GroupNorm(groups), shape)
        assert output == shape
        expected = np.empty_like(x)
        size = shape[-1] // groups
        for i, g in np.ndindex(5, groups):
            part = x[i, ..., g * size : (g + 1) * size]
            expected[i, ..., g * size : (g + 1) * size] = (part - part.mean()) / np.sqrt(part.var() + 1e-5)
        expected = expected * parameters["scale"] + parameters["shift"]
        np.testing.assert_allclose(applied(backend, GroupNorm(groups), parameters, x), expected, rtol=1e-10, atol=1e-12)

    def test_refuses_what_it_cannot_group(self):
        with pytest.raises(ArgumentOutOfRangeException, match="groups must be a whole number of at least 1, got 0"):
            GroupNorm(0)
        with pytest.raises(ArgumentException, match="groups must divide the channels, 6, got 4"):
            GroupNorm(4).initialize(rng(), (3, 3, 6))
        with pytest.raises(
            ArgumentException, match=r"at least 2 values .* got 1 with groups 6 on inputs \(n, 1, 1, 6\)"
        ):
            GroupNorm(6).initialize(rng(), (1, 1, 6))


class TestBatchNorm:
    def test_takes_statistics_that_it_is_given(self, backend):
        x = rng().standard_normal((3, 2, 2, 4))
        parameters, _ = started(BatchNorm(), (2, 2, 4))
        mean, variance = np.array([0.5, -1.0, 0.0, 2.0]), np.array([1.0, 0.25, 4.0, 0.0])
        given = {**parameters, "mean": mean, "variance": variance}
        expected = (x - mean) / np.sqrt(variance + 1e-5) * parameters["scale"] + parameters["shift"]
        np.testing.assert_allclose(applied(backend, BatchNorm(), given, x), expected, rtol=1e-10)

    def test_an_epsilon_below_half_precision_keeps_constant_channels(self):
        """Their variance is 0, and so was 1e-9 in float16: the outputs were NaN."""
        x, one = np.ones((3, 1), np.float16), np.ones(1, np.float16)
        given = {"scale": one, "shift": one, "mean": one, "variance": 0 * one}
        found = BatchNorm(epsilon=1e-9).apply(given, x)
        assert found.dtype == np.float16
        np.testing.assert_array_equal(found, 1.0)

    def test_refuses_other_statistics(self):
        with pytest.raises(ArgumentException, match="statistics must be 'batch' or 'support', got 'running'"):
            BatchNorm(statistics="running")


class TestPassStatistics:
    def test_are_known_by_layer_however_deep(self):
        block = Residual(Sequential(Conv2D(2, 3), BatchNorm()), shortcut=Sequential(Conv2D(2, 1), BatchNorm()))
        network = Sequential(BatchNorm(statistics="support"), block)
        parameters, _ = network.initialize(rng(), (4, 4, 3))
        x = rng().standard_normal((3, 4, 4, 3))
        with PassStatistics(parameters) as statistics:
            network.apply(parameters, x)
        layers = ["0_batchnorm", "1_residual.shortcut.1_batchnorm", "1_residual.body.1_batchnorm"]
        assert statistics.layers == layers
        assert statistics.unnamed == []
        assert set(statistics.named()) == {f"{layer}.{name}" for layer in layers for name in ("mean", "variance")}
        assert list(statistics.named("support")) == ["0_batchnorm.mean", "0_batchnorm.variance"]
        np.testing.assert_allclose(statistics.named()["0_batchnorm.mean"], x.mean(axis=(0, 1, 2)), rtol=1e-12)
        np.testing.assert_allclose(statistics.named()["0_batchnorm.variance"], x.var(axis=(0, 1, 2)), rtol=1e-12)

    def test_handed_over_give_the_same_pass(self):
        network = conv4(3, filters=4)
        parameters, _ = network.initialize(rng(), (8, 8, 1))
        x = rng().standard_normal((6, 8, 8, 1))
        with PassStatistics(parameters) as statistics:
            whole = network.apply(parameters, x)
        again = network.apply({**parameters, **statistics.named()}, x[2:3])
        np.testing.assert_allclose(again, whole[2:3], rtol=1e-9, atol=1e-12)

    def test_squares_beyond_half_precision(self):
        """One outlier made the variance infinite, and with it all outputs of the adapted model the shift."""
        x = np.array([[300.0], *([0.0],) * 99], np.float16)
        parameters = {"scale": np.ones(1, np.float16), "shift": np.zeros(1, np.float16)}
        with PassStatistics(parameters) as statistics:
            BatchNorm().apply(parameters, x)
        np.testing.assert_allclose([*statistics.named().values()], [[3.0], [891.0]], rtol=1e-3)

    @pytest.mark.parametrize("statistics", ["batch", "support"])
    def test_a_variance_beyond_half_precision(self, statistics, tmp_path):
        """It was infinite, and the outputs of the adapted model the shift."""
        network = Sequential(BatchNorm(statistics=statistics), Dense(1))
        model = NeuralNetworkModel(network, input_shape=(2,), dtype=np.float16, seed=0)
        x = (1000 * rng().standard_normal((20, 2))).astype(np.float16)
        fixed, expected = model.with_statistics_of(x), model.Predict(x)
        np.testing.assert_allclose(fixed.Predict(x), expected, rtol=1e-2, atol=1e-3)
        fixed.SaveModel(tmp_path / "fixed.safetensors")
        model.LoadModel(tmp_path / "fixed.safetensors")
        np.testing.assert_array_equal(model.Predict(x), fixed.Predict(x))
        # Of the outputs, in a query pass by the support set.
        task = MetaLearningTask(SupportSetX=x, SupportSetY=expected, QuerySetX=x, QuerySetY=expected)
        learner = MAMLAlgorithm(MAMLOptions(model, InnerLearningRate=1e-4, AdaptationSteps=1))
        assert learner.Evaluate(TaskBatch([task])) < 1e-3


class TestOneValueAChannel:
    """Less its mean it is 0, whatever it was."""

    MESSAGE = "1_batchnorm must have at least 2 values of each channel to normalise over, got 1"

    def test_is_refused_by_name_of_layer(self, backend):
        model = small("batch", backend)
        (task, _), one = task_of(0, backend), (slice(0, 1), slice(None))
        x, y = backend.index(task.SupportInput, one), backend.index(task.SupportOutput, one)
        before = backend.to_numpy(model.GetParameters()).copy()
        learner = MAMLAlgorithm(MAMLOptions(model, MetaOptimizer=SGDOptimizer(1.0)))
        lone = MetaLearningTask(SupportSetX=x, SupportSetY=y, QuerySetX=task.QueryInput, QuerySetY=task.QueryOutput)
        lone_query = MetaLearningTask(
            SupportSetX=task.SupportInput, SupportSetY=task.SupportOutput, QuerySetX=x, QuerySetY=y
        )
        for call in (
            lambda: model.Predict(x),
            lambda: model.ComputeGradients(x, y),
            lambda: model.Train(x, y),
            lambda: model.with_statistics_of(x),
            lambda: learner.Adapt(lone),
            lambda: learner.MetaTrain(TaskBatch([lone])),
            lambda: learner.MetaTrain(TaskBatch([lone_query])),
            lambda: learner.Evaluate(TaskBatch([lone])),
        ):
            with pytest.raises(ArgumentException, match=self.MESSAGE):
                call()
        np.testing.assert_array_equal(backend.to_numpy(model.GetParameters()), before)

    def test_of_images_too(self):
        model = digit_model()
        with pytest.raises(ArgumentException, match=self.MESSAGE.replace("1_", "7_")):
            model.Predict(np.zeros((1, 8, 8, 1), np.float32))

    def test_is_refused_of_a_layer_by_itself(self):
        parameters, _ = BatchNorm().initialize(rng(), (3,))
        with pytest.raises(ArgumentException, match=r"BatchNorm must have at least 2 values"):
            BatchNorm().apply(parameters, np.ones((1, 3)))

    def test_of_layer_norm_is_refused_too(self):
        with pytest.raises(ArgumentException, match=r"at least 2 channels .* got 1 of inputs \(n, 5, 1\)"):
            LayerNorm().initialize(rng(), (5, 1))


class TestFewExamples:
    def test_are_warned_of_by_name_of_layer(self):
        model = digit_model()
        x = np.random.default_rng(0).random((5, 8, 8, 1), np.float32)
        said = r"input has 4 examples, by whose statistics 1_batchnorm, 4_batchnorm, 7_batchnorm and 1 more normalise"
        for _ in range(2):  # also of a program that was traced before
            with pytest.warns(UserWarning, match=said) as caught:
                model.Predict(x[:4])
            assert caught[0].filename == __file__
        model.Predict(x)

    @pytest.mark.parametrize("norm", ["group", "layer"])
    def test_are_nothing_to_networks_that_look_at_one(self, norm):
        model = digit_model(norm)
        x = np.random.default_rng(0).random((5, 8, 8, 1), np.float32)
        alone = np.concatenate([model.Predict(x[i : i + 1]) for i in range(5)])
        np.testing.assert_allclose(alone, model.Predict(x), rtol=1e-4, atol=1e-5)


@pytest.mark.numpy_first
@pytest.mark.parametrize("statistics", ["batch", "support"])
class TestAdaptedModel:
    def test_normalises_by_the_support_set_at_its_own_parameters(self, backend, statistics):
        model = small(statistics, backend)
        task, (x, y, query, _) = task_of(0, backend)
        adapted = MAMLAlgorithm(MAMLOptions(model, AdaptationSteps=1, InnerLearningRate=0.1)).Adapt(task)
        theta = backend.to_numpy(model.GetParameters())
        phi = theta - 0.1 * differences(lambda p: loss_of(p, x, y), theta)
        np.testing.assert_allclose(backend.to_numpy(adapted.GetParameters()), phi, rtol=1e-7)
        expected = outputs(phi, query, by=x)
        for rows in (slice(None), slice(0, 1), slice(2, 4)):
            asked = backend.index(task.QueryInput, (rows, slice(None)))
            np.testing.assert_allclose(backend.to_numpy(adapted.Predict(asked)), expected[rows], rtol=1e-7)

    def test_of_a_support_set_in_batches_takes_all_of_it(self, backend, statistics):
        model = small(statistics, backend)
        task, (x, _, query, _) = task_of(0, backend, batches=[(0, 2), (2, 5)])
        adapted = MAMLAlgorithm(MAMLOptions(model, AdaptationSteps=2, InnerLearningRate=0.1)).Adapt(task)
        expected = outputs(backend.to_numpy(adapted.GetParameters()), query, by=x)
        np.testing.assert_allclose(backend.to_numpy(adapted.Predict(task.QueryInput)), expected, rtol=1e-9)

    def test_is_the_one_copy_of_the_model(self, statistics, monkeypatch):
        model, made, clone = small(statistics), [], FunctionModel.Clone
        monkeypatch.setattr(FunctionModel, "Clone", lambda self: made.append(clone(self)) or made[-1])
        adapted = MAMLAlgorithm(MAMLOptions(model)).Adapt(task_of(0, model.backend)[0])
        assert made == [adapted]
        assert adapted.statistics
        assert not model.statistics

    def test_is_what_a_class_of_ones_own_returns(self, statistics):
        class Noted(FunctionModel):
            def with_statistics_of(self, input):
                other = super().with_statistics_of(input)
                other.noted = input
                return other

            def SetParameters(self, parameters):
                super().SetParameters(parameters * 2)

        plain = small(statistics)
        model = Noted(plain._function, {name: np.ones(shape) for name, shape in plain.parameter_shapes.items()})
        model.SetParameters(plain.GetParameters() / 2)
        task = task_of(0, plain.backend)[0]
        adapted, expected = (MAMLAlgorithm(MAMLOptions(m)).Adapt(task) for m in (model, plain))
        np.testing.assert_array_equal(adapted.noted, task.SupportInput)
        np.testing.assert_array_equal(adapted.GetParameters(), expected.GetParameters() * 2)

    def test_has_the_gradient_of_what_it_predicts(self, backend, statistics):
        task, (x, _, query, target) = task_of(0, backend)
        model = small(statistics, backend).with_statistics_of(task.SupportInput)
        vector = backend.to_numpy(model.GetParameters())
        held = dict(zip(("mean", "variance"), moments(vector, x), strict=True))

        def loss(parameters):
            return np.mean((outputs_with(parameters, query, **held) - target) ** 2)

        found = backend.to_numpy(model.ComputeGradients(task.QueryInput, task.QueryOutput))
        np.testing.assert_allclose(found, differences(loss, vector), rtol=1e-6, atol=1e-9)

    def test_keeps_its_statistics(self, tmp_path, statistics):
        task, _ = task_of(0, small().backend)
        start = small(statistics)
        adapted = MAMLAlgorithm(MAMLOptions(start, InnerLearningRate=0.1)).Adapt(task)
        one = task.QueryInput[:1]
        expected = adapted.Predict(one)
        adapted.SaveModel(tmp_path / "adapted.safetensors")
        loaded, deserialized = small(statistics), small(statistics)
        loaded.LoadModel(tmp_path / "adapted.safetensors")
        deserialized.Deserialize(adapted.Serialize())
        same = adapted.WithParameters(adapted.GetParameters())
        for model in (adapted.Clone(), same, adapted.To("numpy"), loaded, deserialized):
            np.testing.assert_array_equal(model.Predict(one), expected)
        moved = adapted.To("simulated")
        np.testing.assert_allclose(
            moved.backend.to_numpy(moved.Predict(moved.backend.asarray(one))), expected, rtol=1e-12
        )
        # What was saved without statistics has none when it is loaded.
        adapted.Deserialize(start.Serialize())
        with pytest.raises(ArgumentException, match="1_batchnorm must have at least 2 values"):
            adapted.Predict(one)


def moments(vector, x):
    hidden = x @ vector[:12].reshape(3, 4) + vector[12:16]
    return hidden.mean(axis=0), hidden.var(axis=0)


def outputs_with(vector, x, mean, variance):
    normal = (x @ vector[:12].reshape(3, 4) + vector[12:16] - mean) / np.sqrt(variance + 1e-5)
    return np.tanh(normal * vector[16:20] + vector[20:24]) @ vector[24:32].reshape(4, 2) + vector[32:]


class TestFilesOfStatistics:
    @pytest.mark.parametrize(
        "wrong",
        [
            {"1_batchnorm.mean": np.zeros(4)},
            {"2_batchnorm.mean": np.zeros(4), "2_batchnorm.variance": np.ones(4)},
            {"1_batchnorm.mean": np.zeros(3), "1_batchnorm.variance": np.ones(3)},
            {"1_batchnorm.mean": np.zeros(4, np.float32), "1_batchnorm.variance": np.ones(4, np.float32)},
            {"1_batchnorm.mean": np.zeros(4), "1_batchnorm.variance": np.array([1.0, 1.0, -1.0, 1.0])},
            {"1_batchnorm.scale": np.ones(4)},
        ],
        ids=["alone", "layer", "shape", "dtype", "negative", "no statistic"],
    )
    def test_are_refused_whole(self, wrong):
        model = small()
        before = model.GetParameters()
        arrays = {name: np.ones(shape) for name, shape in SHAPES.items()}
        data = pack(
            "model", {**arrays, **{f"statistics: {name}": value for name, value in wrong.items()}}, {"name": ""}
        )
        with pytest.raises(ArgumentException, match=r"data must hold means .* for '._batchnorm"):
            model.Deserialize(data)
        np.testing.assert_array_equal(model.GetParameters(), before)


@cache
def through_two_steps(batches):
    """Differences of the mean query loss of two tasks after two steps, of a batch each where there are some."""
    model = small("support")
    sets = [task_of(seed, model.backend)[1] for seed in (0, 1)]

    def after(vector, x, y, query, target):
        for i, j in batches or [(0, 5), (0, 5)]:
            vector = vector - 0.1 * differences(lambda p, i=i, j=j: loss_of(p, x[i:j], y[i:j]), vector, 1e-4)
        by = x if batches is None else np.concatenate([x[i:j] for i, j in batches])
        return loss_of(vector, query, target, by)

    return differences(lambda p: np.mean([after(p, *data) for data in sets]), model.GetParameters(), 3e-4)


@pytest.mark.numpy_first
class TestMetaGradientsBySupport:
    """Against differences of the query loss of a network in NumPy, whose query set the support set normalises."""

    def test_of_first_order_go_through_the_statistics(self, backend):
        task, (x, _, query, target) = task_of(0, backend)
        for algorithm, options in (
            (MAMLAlgorithm, lambda m: MAMLOptions(m, AdaptationSteps=1, UseFirstOrder=True, **PLAIN)),
            (iMAMLAlgorithm, lambda m: iMAMLOptions(m, AdaptationSteps=1, UseFirstOrder=True, **PLAIN)),
        ):
            model = small("support", backend)
            phi = backend.to_numpy(algorithm(options(model)).Adapt(task).GetParameters())
            found = meta_gradient(algorithm(options(model)), [task])
            expected = differences(lambda p: loss_of(p, query, target, by=x), phi)
            np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-9)

    @pytest.mark.slow
    @pytest.mark.parametrize("batches", [None, ((0, 3), (2, 5))])
    def test_of_maml_are_exact(self, backend, batches):
        tasks = [task_of(seed, backend, batches=batches)[0] for seed in (0, 1)]
        learner = MAMLAlgorithm(MAMLOptions(small("support", backend), AdaptationSteps=2, **PLAIN))
        np.testing.assert_allclose(meta_gradient(learner, tasks), through_two_steps(batches), rtol=5e-4, atol=5e-5)

    @pytest.mark.slow
    def test_of_imaml_solve_for_that_query_gradient(self):
        # (I + λH) v = g with H the Hessian of the support loss at φ, both by differences.
        backend = small().backend
        task, (x, y, query, target) = task_of(0, backend)
        model = small()
        options = {"AdaptationSteps": 3, "LambdaRegularization": 0.1, "ConjugateGradientIterations": 60, **PLAIN}
        phi = iMAMLAlgorithm(iMAMLOptions(model, **options)).Adapt(task).GetParameters()
        found = meta_gradient(iMAMLAlgorithm(iMAMLOptions(model, **options)), [task])
        g = differences(lambda p: loss_of(p, query, target, by=x), phi)
        rows = np.eye(len(phi)) * 1e-4
        support = [
            (differences(lambda p: loss_of(p, x, y), phi + r) - differences(lambda p: loss_of(p, x, y), phi - r)) / 2e-4
            for r in rows
        ]
        expected = np.linalg.solve(np.eye(len(phi)) + 0.1 * np.array(support), g)
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)

    @pytest.mark.slow
    def test_of_anil_are_those_of_its_loss(self):
        backend = small().backend
        task, (x, y, query, target) = task_of(0, backend)
        model = small()
        theta = model.GetParameters()
        found = meta_gradient(ANILAlgorithm(ANILOptions(model, AdaptationSteps=1, **PLAIN)), [task])
        head = np.arange(len(theta)) >= 24

        def after(vector):
            phi = vector - 0.1 * head * differences(lambda p: loss_of(p, x, y), vector, 1e-4)
            return loss_of(phi, query, target, by=x)

        np.testing.assert_allclose(found, differences(after, theta, 1e-3), rtol=2e-4, atol=2e-5)

    def test_are_others_than_under_the_convention(self, backend):
        task, _ = task_of(0, backend)
        found = [
            meta_gradient(MAMLAlgorithm(MAMLOptions(small(kind, backend), AdaptationSteps=1, **PLAIN)), [task])
            for kind in ("batch", "support")
        ]
        assert np.abs(found[0] - found[1]).max() > 1e-3

    def test_take_a_query_set_of_one(self, backend):
        task, (x, _, query, target) = task_of(0, backend, queries=1)
        learner = MAMLAlgorithm(MAMLOptions(small("support", backend), AdaptationSteps=1, InnerLearningRate=0.1))
        phi = backend.to_numpy(learner.Adapt(task).GetParameters())
        found = learner.Evaluate(TaskBatch([task]))
        np.testing.assert_allclose(found, loss_of(phi, query, target, by=x), rtol=1e-9)
        # In training the model is also asked for its noise, which had the example normalised by itself.
        np.testing.assert_allclose(learner.MetaTrain(TaskBatch([task])), found, rtol=1e-12)

    def test_want_query_examples_like_those_of_the_support_set(self):
        model = small()
        task, _ = task_of(0, model.backend)
        odd = MetaLearningTask(
            SupportSetX=task.SupportInput,
            SupportSetY=task.SupportOutput,
            QuerySetX=np.ones((6, 3), np.int64),
            QuerySetY=task.QueryOutput,
        )
        with pytest.raises(ArgumentException, match=r"query examples must be .* float64\(3,\), got int64\(3,\)"):
            MAMLAlgorithm(MAMLOptions(model)).MetaTrain(TaskBatch([odd]))


class Named(Layer):
    """A batch norm whose parameters have names of its own, or that takes part twice."""

    def __init__(self, statistics, twice, scale):
        self.norm, self.twice, self.scale = BatchNorm(statistics=statistics), twice, scale

    def initialize(self, generator, shape):
        inner, output = self.norm.initialize(generator, shape)
        return {self.scale: inner["scale"], "shift": inner["shift"]}, output

    def apply(self, parameters, x):
        if self.twice:
            return self.norm.apply(parameters, self.norm.apply(parameters, x))
        return self.norm.apply({"scale": parameters[self.scale], "shift": parameters["shift"]}, x)


# The name of another parameter may end like that of a scale: the statistics were kept under names that nothing reads.
@pytest.mark.parametrize(("twice", "scale"), [(False, "gamma"), (False, "norm_scale"), (True, "scale")])
class TestStatisticsWithoutAName:
    def test_stay_those_of_the_batch_and_that_is_said(self, twice, scale):
        model = NeuralNetworkModel(
            Sequential(Named("batch", twice, scale), Dense(2)), input_shape=(3,), dtype=np.float64
        )
        task, _ = task_of(0, model.backend)
        with pytest.warns(UserWarning, match=r"(0_named|BatchNorm) must have a parameter of the model as scale"):
            adapted = MAMLAlgorithm(MAMLOptions(model)).Adapt(task)
        assert not np.allclose(adapted.Predict(task.QueryInput)[:5], adapted.Predict(task.QueryInput[:5]))

    def test_cannot_be_those_of_the_support_set(self, twice, scale):
        model = NeuralNetworkModel(
            Sequential(Named("support", twice, scale), Dense(2)), input_shape=(3,), dtype=np.float64
        )
        task, _ = task_of(0, model.backend)
        with pytest.raises(ArgumentException, match=r"(0_named|BatchNorm) must have a parameter of the model as scale"):
            MAMLAlgorithm(MAMLOptions(model)).MetaTrain(TaskBatch([task]))


class TestEvaluate:
    def found(self, norm, tasks=12):
        model = digit_model(norm)
        loader = DigitsLoader(seed=0)
        learner = MAMLAlgorithm(MAMLOptions(model, DataLoader=loader, InnerLearningRate=0.1, MetaBatchSize=5))
        return learner, learner.Evaluate(tasks)

    def test_says_that_query_sets_were_normalised_as_a_whole_and_gives_both_figures(self):
        learner, result = self.found("batch")
        assert result.normalization == "batch"
        tasks = DigitsLoader(seed=0).GetTaskBatch(12)
        loss = learner.BaseModel.DefaultLossFunction
        adapted = [learner.Adapt(task) for task in tasks]
        expected = [loss.accuracy(m.Predict(t.QueryInput), t.QueryOutput) for m, t in zip(adapted, tasks, strict=True)]
        np.testing.assert_array_equal(result.single_accuracies, np.float32(expected))
        together = [
            loss.accuracy(learner.BaseModel.WithParameters(m.GetParameters()).Predict(t.QueryInput), t.QueryOutput)
            for m, t in zip(adapted, tasks, strict=True)
        ]
        np.testing.assert_array_equal(result.PerTaskAccuracies, np.float32(together))
        assert not np.array_equal(result.PerTaskAccuracies, result.single_accuracies)
        report = result.GenerateReport().splitlines()
        assert report[5] == "  normalised by        each query set as a whole"
        assert report[6].startswith(f"  accuracy one by one  {float(np.mean(result.single_accuracies)):.6g} ±"[:28])

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("norm", "said"),
        [
            ("support", "support"),
            pytest.param("group", None, marks=pytest.mark.slow),
            pytest.param("layer", None, marks=pytest.mark.slow),
        ],
    )
    def test_has_one_figure_where_there_is_one(self, norm, said):
        learner, result = self.found(norm)
        assert result.normalization == said
        np.testing.assert_array_equal(result.PerTaskAccuracies, result.single_accuracies)
        task = DigitsLoader(seed=0).GetNextTask()
        alone = [learner.Adapt(task).Predict(task.QueryInput[i : i + 1]) for i in range(len(task.QueryInput))]
        accuracy = np.mean(np.argmax(np.concatenate(alone), axis=1) == task.QueryOutput)
        np.testing.assert_allclose(result.PerTaskAccuracies[0], accuracy, rtol=1e-6)

    def test_of_a_support_network_measures_its_adapted_models(self):
        backend = small().backend
        task, (x, _, query, target) = task_of(0, backend)
        learner = MAMLAlgorithm(MAMLOptions(small(), AdaptationSteps=2, InnerLearningRate=0.1))
        phi = learner.Adapt(task).GetParameters()
        np.testing.assert_allclose(learner.Evaluate(TaskBatch([task])), loss_of(phi, query, target, by=x), rtol=1e-9)
        found = learner.AdaptAndEvaluate(task)
        np.testing.assert_allclose(found.QueryLoss, loss_of(phi, query, target, by=x), rtol=1e-9)


class TestNetworks:
    @pytest.mark.parametrize("norm", ["batch", "support", "group", "layer"])
    @pytest.mark.parametrize(("network", "shape"), [(conv4, (28, 28, 1)), (resnet18, (32, 32, 3))])
    def test_have_the_same_parameters_under_every_norm(self, network, norm, shape):
        parameters, output = network(5, filters=4, norm=norm).initialize(rng(), shape)
        wanted, _ = network(5, filters=4).initialize(rng(), shape)
        assert output == (5,)
        assert [v.shape for v in parameters.values()] == [v.shape for v in wanted.values()]

    @pytest.mark.parametrize(("filters", "groups"), [(4, 1), (16, 1), (32, 2), (48, 3), (50, 2), (64, 4)])
    def test_have_groups_of_sixteen_channels(self, filters, groups):
        norm = conv4(5, filters=filters, norm="group").layers["1_groupnorm"]
        assert norm.groups == groups
        assert conv4(5, filters=filters, norm="layer").layers["1_groupnorm"].groups == 1

    @pytest.mark.parametrize("network", [conv4, resnet18])
    def test_refuse_other_norms(self, network):
        with pytest.raises(
            ArgumentException, match="norm must be 'batch', 'support', 'group' or 'layer', got 'instance'"
        ):
            network(5, filters=4, norm="instance")

    def test_name_the_layer_that_cannot_take_an_image(self):
        with pytest.raises(
            ArgumentException,
            match=r"15_maxpool2d cannot take \(n, 1, 1, 4\), which inputs \(n, 8, 8, 1\) have become there: "
            r"window must be no",
        ):
            conv4(5, filters=4, reduction="pool").initialize(rng(), (8, 8, 1))
        with pytest.raises(
            ArgumentException, match=r"0_conv2d cannot take \(n, 784\): inputs of Conv2D must be images"
        ):
            conv4(5, filters=4).initialize(rng(), (784,))
