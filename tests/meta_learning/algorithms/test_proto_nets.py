"""ProtoNets: the exact gradient through the prototypes, adapted models of the scores, tasks of any sizes."""

from __future__ import annotations

import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from numpy_doubles import Threads
from plain_models import HandWrittenModel
from scipy.special import softmax
from tanh_network import TanhNetwork, Values, batch_of
from whole_procedure import derivative, meta_gradient

import aidotnet_py
from aidotnet_py import (
    ArgumentException,
    CrossEntropyLoss,
    FunctionModel,
    InvalidOperationException,
    MeanSquaredErrorLoss,
    MetaLearningAlgorithmType,
    MetaLearningTask,
    NeuralNetworkModel,
    NewtonCGMinimizer,
    ProtoNetsAlgorithm,
    ProtoNetsOptions,
    SGDOptimizer,
    TaskBatch,
)
from aidotnet_py.archives import unpack
from aidotnet_py.backends import Backend, get_backend
from aidotnet_py.data import ArrayLoader, DigitsLoader, SinusoidLoader
from aidotnet_py.estimators import FewShotClassifier
from aidotnet_py.nn import BatchNorm, Dense, Flatten, Sequential, conv4, mlp
from aidotnet_py.testing.learner_state import untouched

NUMPY = get_backend("numpy")
# An embedding in three dimensions.
NETWORK = TanhNetwork(outputs=3, classify=True)
# Unequal numbers of support examples of a class.
LABELS = np.array([0, 2, 1, 0, 0, 2]), np.array([1, 0, 2, 2, 1])


def sets(count: int, labels: Any = LABELS) -> list[Any]:
    rng = np.random.default_rng(0)
    support, query = labels
    return [
        (rng.normal(size=(len(support), 2)), support, rng.normal(size=(len(query), 2)), query) for _ in range(count)
    ]


def scores(theta: Values, x: Values, y: Values, queries: Values) -> Values:
    """−‖f(q) − p_c‖², written out; analytic in θ."""
    embedded = NETWORK.predictions(theta, x)
    prototypes = np.array([embedded[y == c].mean(axis=0) for c in range(y.max() + 1)])
    apart = NETWORK.predictions(theta, queries)[:, None] - prototypes
    return -(apart**2).sum(axis=2)


def query_loss(theta: Values, x: Values, y: Values, queries: Values, wanted: Values) -> Any:
    z = scores(theta, x, y, queries)
    z = z - z.real.max(axis=1, keepdims=True)
    return -np.mean(z[np.arange(len(z)), wanted] - np.log(np.exp(z).sum(axis=1)))


def options(backend: Backend, **more: Any) -> Any:
    return ProtoNetsOptions(NETWORK.model(backend, NETWORK.start()), **more)


def scaled(parameters: Any, x: Any) -> Any:
    """An embedding at the top of a module, for files."""
    return x * parameters["scale"]


class TestMetaGradient:
    def test_by_complex_steps(self, backend: Backend) -> None:
        tasks = sets(3)
        found = meta_gradient(ProtoNetsAlgorithm, options(backend), batch_of(backend, tasks))
        expected = derivative(lambda theta: np.mean([query_loss(theta, *task) for task in tasks]), NETWORK.start())
        np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)

    def test_the_prototypes_have_their_part(self) -> None:
        """Prototypes that stay give another gradient."""
        ((x, y, queries, wanted),) = sets(1)
        start = NETWORK.start()
        embedded = NETWORK.predictions(start, x)
        still = np.array([embedded[y == c].mean(axis=0) for c in range(3)])

        def loss(theta: Values) -> Any:
            z = -((NETWORK.predictions(theta, queries)[:, None] - still) ** 2).sum(axis=2)
            return -np.mean(z[np.arange(len(z)), wanted] - np.log(np.exp(z).sum(axis=1)))

        found = meta_gradient(ProtoNetsAlgorithm, options(NUMPY), batch_of(NUMPY, sets(1)))
        assert np.linalg.norm(found - derivative(loss, start)) > 0.1 * np.linalg.norm(found)

    def test_losses_and_accuracies(self, backend: Backend) -> None:
        ((x, y, queries, wanted),) = tasks = sets(1)
        learner = ProtoNetsAlgorithm(options(backend))
        batch = batch_of(backend, tasks)
        loss = query_loss(NETWORK.start(), *tasks[0])
        with untouched(learner):
            result = learner.AdaptAndEvaluate(batch[0])
            assert result.QueryLoss == pytest.approx(loss, rel=1e-12)
            assert result.SupportLoss == pytest.approx(query_loss(NETWORK.start(), x, y, x, y), rel=1e-12)
            guessed = scores(NETWORK.start(), x, y, queries).argmax(axis=1)
            assert result.QueryAccuracy == pytest.approx(np.mean(guessed == wanted))
            assert learner.Evaluate(batch) == pytest.approx(loss, rel=1e-12)
            curve = learner.adaptation_curve(batch, steps=2)
            np.testing.assert_allclose(curve.losses, [[loss] * 3], rtol=1e-12)
            assert curve.accuracies.shape == (1, 3)
        assert learner.MetaTrain(batch) == pytest.approx(loss, rel=1e-12)
        assert learner.AlgorithmType is MetaLearningAlgorithmType.ProtoNets

    def test_one_hot_labels(self) -> None:
        ((x, y, queries, wanted),) = sets(1)
        eye = np.eye(3)
        losses = [
            ProtoNetsAlgorithm(options(NUMPY)).MetaTrain(batch_of(NUMPY, [(x, of[y], queries, of[wanted])]))
            for of in (eye, eye.astype(np.int64), np.arange(3))
        ]
        assert losses[0] == losses[1] == losses[2]


def test_one_query_example_is_normalised_with_the_support_examples() -> None:
    """It was refused, as having no spread of its own."""
    model = NeuralNetworkModel(Sequential(Dense(3), BatchNorm()), input_shape=(2,), loss=CrossEntropyLoss(), seed=0)
    x, y = np.random.default_rng(0).normal(size=(5, 2)).astype(np.float32), np.array([0, 1, 1, 0])
    embedded = model.Predict(x)
    z = [-np.sum((embedded[4] - embedded[:4][y == c].mean(axis=0)) ** 2) for c in (0, 1)]
    task = MetaLearningTask(
        SupportSetX=[x[:2], x[2:4]], SupportSetY=[y[:2], y[2:]], QuerySetX=x[4:], QuerySetY=np.array([1])
    )
    learner, batch = ProtoNetsAlgorithm(ProtoNetsOptions(model)), TaskBatch([task])
    loss = learner.Evaluate(batch)
    assert loss == pytest.approx(np.log1p(np.exp(z[0] - z[1])), rel=1e-3)
    assert learner.MetaTrain(batch) == pytest.approx(loss, rel=1e-6)


@pytest.mark.numpy_first
class TestTasksOfUnequalSize:
    def test_a_step_is_the_mean_of_the_steps_one_by_one(self, backend: Backend) -> None:
        labels = [LABELS, (np.array([0, 1]), np.array([1, 0, 0])), (np.array([0, 1, 2, 1]), np.array([2, 1]))]
        tasks = [task for one in labels for task in sets(1, one)]
        together = meta_gradient(ProtoNetsAlgorithm, options(backend), batch_of(backend, tasks))
        alone = [meta_gradient(ProtoNetsAlgorithm, options(backend), batch_of(backend, [task])) for task in tasks]
        np.testing.assert_allclose(together, np.mean(alone, axis=0), rtol=1e-11, atol=1e-14)

    @pytest.mark.parametrize("threads", [1, 3])
    def test_threads_and_micro_batches_keep_the_bits(self, threads: int) -> None:
        tasks = sets(5)
        expected = meta_gradient(ProtoNetsAlgorithm, options(NUMPY), batch_of(NUMPY, tasks))
        found = meta_gradient(
            ProtoNetsAlgorithm, options(Threads(threads), MicroBatchSize=2), batch_of(Threads(threads), tasks)
        )
        np.testing.assert_array_equal(found, expected)

    @pytest.mark.slow
    @pytest.mark.parametrize("size", [1, 2, 3])
    def test_micro_batches_of_tasks_with_other_classes_keep_the_bits(self, size: int) -> None:
        """Twelve classes beside two, of unequal and of equal numbers of examples, and labels with gaps."""
        ways = [2, 12, 9, 12, 5, 3]
        labels = [(np.arange(2 * n) % n, np.arange(n)) for n in ways] + [(np.arange(24) % 4 * 5, np.arange(12) % 4 * 5)]
        tasks = [task for one in labels for task in sets(1, one)]
        expected = meta_gradient(ProtoNetsAlgorithm, options(NUMPY), batch_of(NUMPY, tasks))
        found = meta_gradient(ProtoNetsAlgorithm, options(NUMPY, MicroBatchSize=size), batch_of(NUMPY, tasks))
        np.testing.assert_array_equal(found, expected)


@pytest.mark.numpy_first
class TestLabelsWithGaps:
    """Classes whose numbers are missing have no part."""

    def test_give_the_numbers_of_labels_without(self, backend: Backend) -> None:
        close, apart = (ProtoNetsAlgorithm(options(backend)) for _ in range(2))
        gaps = np.array([1, 4, 70])
        ((x, y, queries, wanted),) = sets(1)
        losses = [
            learner.MetaTrain(batch_of(backend, [(x, of[y], queries, of[wanted])]))
            for learner, of in ((close, np.arange(3)), (apart, gaps))
        ]
        assert losses[0] == losses[1]
        task = batch_of(backend, [(x, gaps[y], queries, gaps[wanted])])[0]
        found = backend.to_numpy(apart.Adapt(task).Predict(backend.asarray(queries)))
        expected = backend.to_numpy(
            close.Adapt(batch_of(backend, [(x, y, queries, wanted)])[0]).Predict(backend.asarray(queries))
        )
        np.testing.assert_array_equal(found[:, gaps], expected)
        assert (np.delete(found, gaps, axis=1) == np.finfo(np.float64).min).all()
        assert apart.AdaptAndEvaluate(task).QueryAccuracy == CrossEntropyLoss().accuracy(found, gaps[wanted])

    def test_in_half_precision_far_from_all_prototypes(self) -> None:
        """The squared distances are as large as half precision holds."""
        half, y = np.eye(3, dtype=np.float16), np.array([0, 0, 2, 2])
        model = FunctionModel(scaled, {"scale": np.ones(3, np.float16)}, CrossEntropyLoss())
        task = MetaLearningTask(
            SupportSetX=130 * half[y], SupportSetY=y, QuerySetX=150 * half[[0, 2, 1]], QuerySetY=np.array([0, 2, 0])
        )
        assert ProtoNetsAlgorithm(ProtoNetsOptions(model)).AdaptAndEvaluate(task).QueryAccuracy == 1.0

    def test_an_evaluation_has_the_accuracies_of_the_adapted_models(self) -> None:
        rng = np.random.default_rng(0)
        y = np.array([0, 0, 3, 3])

        class Gaps(SinusoidLoader):
            def GetTaskBatch(self, numTasks: int = 1) -> Any:
                inputs = rng.normal(size=(numTasks, 2, 4, 2)).astype(np.float32)
                return TaskBatch(
                    [MetaLearningTask(SupportSetX=x, SupportSetY=y, QuerySetX=q, QuerySetY=y) for x, q in inputs]
                )

        network = Sequential(Dense(3), BatchNorm())
        model = NeuralNetworkModel(network, input_shape=(2,), loss=CrossEntropyLoss(), seed=0)
        learner = ProtoNetsAlgorithm(ProtoNetsOptions(model, DataLoader=Gaps(seed=0)))
        result = learner.Evaluate(numTasks=3)
        assert result.single_accuracies is not None
        assert len(result.single_accuracies) == 3


class TestAdapt:
    def test_scores_are_those_of_the_distances(self, backend: Backend) -> None:
        ((x, y, queries, _),) = tasks = sets(1)
        adapted = ProtoNetsAlgorithm(options(backend)).Adapt(batch_of(backend, tasks)[0])
        found = backend.to_numpy(adapted.Predict(backend.asarray(queries)))
        expected = softmax(scores(NETWORK.start(), x, y, queries), axis=1)
        np.testing.assert_allclose(softmax(found, axis=1), expected, rtol=1e-12)

    def test_scores_where_all_features_are_far_from_zero(self) -> None:
        """Such as years or sensor counts: the model that `Adapt` gives says what the evaluation measures."""
        rng = np.random.default_rng(0)
        y, wanted = np.repeat(np.arange(3), 5), np.repeat(np.arange(3), 50)
        centers = 5000 + rng.normal(size=(3, 4))
        x, queries = ((centers[k] + 0.1 * rng.normal(size=(len(k), 4))).astype(np.float32) for k in (y, wanted))
        task = MetaLearningTask(SupportSetX=x, SupportSetY=y, QuerySetX=queries, QuerySetY=wanted, NumWays=3)
        model = FunctionModel(scaled, {"scale": np.ones(4, np.float32)}, CrossEntropyLoss())
        learner = ProtoNetsAlgorithm(ProtoNetsOptions(model))
        result, predicted = learner.AdaptAndEvaluate(task), learner.Adapt(task).Predict(queries)
        assert CrossEntropyLoss().accuracy(predicted, wanted) == result.QueryAccuracy == 1.0
        assert CrossEntropyLoss().CalculateLoss(predicted, wanted) == pytest.approx(result.QueryLoss, rel=2e-3)

    @pytest.mark.slow
    def test_of_a_network_with_batch_norm(self) -> None:
        layers = list(conv4(5, filters=8).layers.values())[:-1]
        model = NeuralNetworkModel(Sequential(*layers), input_shape=(8, 8, 1), loss=CrossEntropyLoss(), seed=0)
        learner = ProtoNetsAlgorithm(ProtoNetsOptions(model, DataLoader=DigitsLoader(KShot=3, seed=0)))
        task = DigitsLoader(KShot=3, split="test", seed=0).GetNextTask()
        adapted = learner.Adapt(task)
        assert type(adapted) is NeuralNetworkModel
        # The same, whatever else is asked about.
        whole = adapted.Predict(task.QueryInput)
        np.testing.assert_allclose(adapted.Predict(task.QueryInput[:1]), whole[:1], rtol=1e-3, atol=1e-4)
        embed = model.with_statistics_of(task.SupportInput).Predict
        support, query = embed(task.SupportInput).astype(float), embed(task.QueryInput).astype(float)
        prototypes = support.reshape(5, 3, -1).mean(axis=1)
        expected = softmax(-((query[:, None] - prototypes) ** 2).sum(axis=2), axis=1)
        np.testing.assert_allclose(softmax(whole.astype(float), axis=1), expected, atol=1e-4)
        result = learner.Evaluate(numTasks=5)
        assert result.GenerateReport().count("accuracy") == 2

    def test_files(self, tmp_path: Path) -> None:
        model = NeuralNetworkModel(mlp(8, 4), input_shape=(2,), loss=CrossEntropyLoss(), dtype=np.float64, seed=0)
        learner = ProtoNetsAlgorithm(ProtoNetsOptions(model))
        batch = batch_of(NUMPY, sets(2))
        learner.MetaTrain(batch)
        aidotnet_py.save(learner, tmp_path / "learner.safetensors")
        loaded = aidotnet_py.load(tmp_path / "learner.safetensors")
        assert type(loaded) is ProtoNetsAlgorithm
        assert learner.MetaTrain(batch) == loaded.MetaTrain(batch)
        np.testing.assert_array_equal(learner.GetParameters(), loaded.GetParameters())
        adapted = learner.Adapt(batch[0])
        aidotnet_py.save(adapted, tmp_path / "adapted.safetensors")
        again = aidotnet_py.load(tmp_path / "adapted.safetensors")
        np.testing.assert_array_equal(again.Predict(batch[0].QueryInput), adapted.Predict(batch[0].QueryInput))

    def test_files_and_pickles_of_a_function(self, tmp_path: Path) -> None:
        """Scores of a function's embedding are made again from the function alone."""
        rng = np.random.default_rng(0)
        x, y = rng.normal(size=(6, 2)), np.array([0, 2, 1, 0, 2, 1])
        learner = ProtoNetsAlgorithm(ProtoNetsOptions(FunctionModel(scaled, {"scale": np.ones(2)}, CrossEntropyLoss())))
        adapted = learner.Adapt(MetaLearningTask(SupportSetX=x, SupportSetY=y))
        aidotnet_py.save(adapted, tmp_path / "adapted.safetensors")
        # The form in all files since 0.2.0, which later versions must read.
        description = unpack("model", (tmp_path / "adapted.safetensors").read_bytes())[1]
        assert description["model"]["function"] == {"type": "Scores", "embedding": "scaled"}
        loaded = aidotnet_py.load(tmp_path / "adapted.safetensors", trust=[__name__])
        for again in (loaded, pickle.loads(pickle.dumps(adapted))):
            np.testing.assert_array_equal(again.Predict(x), adapted.Predict(x))
        with pytest.raises(ArgumentException, match=r"function must be .*, got the function scaled; .* in trust="):
            aidotnet_py.load(tmp_path / "adapted.safetensors")

    def test_as_an_estimator(self) -> None:
        """There may be more classes than the embedding has dimensions."""
        rng = np.random.default_rng(0)
        centers = 10 * rng.normal(size=(6, 2))
        y = np.repeat(["a", "b", "c", "d", "e", "f"], 4)
        X = np.repeat(centers, 4, axis=0) + rng.normal(size=(24, 2))
        model = NeuralNetworkModel(Sequential(Dense(2)), input_shape=(2,), loss=CrossEntropyLoss(), seed=0)
        assert FewShotClassifier(ProtoNetsAlgorithm(ProtoNetsOptions(model))).fit(X, y).score(X, y) > 0.9


class TestRefusals:
    def test_classes_without_support_examples(self) -> None:
        batch = batch_of(NUMPY, [*sets(1), *sets(1, (np.array([0, 2, 2]), np.array([0, 1])))])
        learner = ProtoNetsAlgorithm(options(NUMPY))
        message = r"^SupportSetY of task 1 must have an example of each class of QuerySetY, got none of 1"
        with untouched(learner), pytest.raises(ArgumentException, match=message):
            learner.MetaTrain(batch)

    @pytest.mark.parametrize(
        ("y", "message"),
        [
            (np.zeros(6), "must be class indices from 0 on"),
            (np.array([0, 1, 2, 0, 1, -1]), "must be class indices from 0 on"),
            (np.full((6, 3), 1 / 3), "must be class indices from 0 on"),
            (np.zeros((6, 2)), "must hold one-hot rows or probabilities, which sum to 1, got sums from 0.0 to 0.0"),
            (np.eye(6) + np.eye(6)[::-1], "must hold one-hot rows or probabilities, which sum to 1, got sums from 2.0"),
            (np.array([0, 1, 2, 0, 1, 10**12]), "must hold labels from 0 to 65535, got 1000000000000; .*np.unique"),
            (np.array([0, 1, 2, 0, 1, 2**63], np.uint64), "must hold labels from 0 to 65535, got 9223372036854775808"),
        ],
    )
    def test_what_are_no_labels(self, y: Any, message: str) -> None:
        ((x, _, queries, wanted),) = sets(1)
        task = MetaLearningTask(SupportSetX=x, SupportSetY=y, QuerySetX=queries, QuerySetY=wanted)
        learner = ProtoNetsAlgorithm(options(NUMPY))
        for call in (learner.Adapt, learner.AdaptAndEvaluate, lambda task: learner.MetaTrain(TaskBatch([task]))):
            with untouched(learner), pytest.raises(ArgumentException, match="^SupportSetY " + message):
                call(task)

    @pytest.mark.parametrize(
        ("wrong", "message"),
        [
            ({"SupportInput": np.zeros((0, 2)), "SupportOutput": LABELS[0][:0]}, "SupportInput must have .*at least"),
            ({"QueryInput": None}, "QueryInput must be an array, got None"),
            ({"QueryInput": [[0.0, 1.0]]}, "QueryInput must be an array, got a list"),
            ({"QueryInput": np.zeros((5, 3))}, r"QueryInput must be an input that the model takes, got shape \(5, 3\)"),
            ({"QueryOutput": LABELS[1][:4]}, "QueryInput must have as many examples as QueryOutput"),
        ],
    )
    def test_sets_of_a_class_of_ones_own(self, wrong: dict[str, Any], message: str) -> None:
        ((x, y, queries, asked),) = sets(1)
        own = {"SupportInput": x, "SupportOutput": y, "QueryInput": queries, "QueryOutput": asked, **wrong}
        names = {"SupportSetX": None, "SupportSetY": None, "QuerySetX": None, "QuerySetY": None}
        others = {"NumWays": 3, "NumShots": 1, "NumQueryPerClass": 1, "Name": "own", "Metadata": None, "TaskId": 1}
        learner = ProtoNetsAlgorithm(options(NUMPY))
        with untouched(learner), pytest.raises(ArgumentException, match="^" + message):
            learner.AdaptAndEvaluate(cast(Any, SimpleNamespace(**own, **names, **others)))

    def test_query_examples_unlike_the_support_examples(self) -> None:
        """A model that takes either cannot embed both together."""
        model = FunctionModel(scaled, {"scale": np.ones(1)}, CrossEntropyLoss())
        y = np.array([0, 1])
        task = MetaLearningTask(SupportSetX=np.ones((2, 3)), SupportSetY=y, QuerySetX=np.ones((2, 4)), QuerySetY=y)
        with pytest.raises(
            ArgumentException, match=r"^QuerySetX must have examples float64\(3,\), like SupportSetX, .*4"
        ):
            ProtoNetsAlgorithm(ProtoNetsOptions(model)).AdaptAndEvaluate(task)

    def test_options(self) -> None:
        network = NeuralNetworkModel(mlp(4, 2), input_shape=(2,), seed=0)
        with pytest.raises(
            ArgumentException, match=r"LossFunction must be a CrossEntropyLoss, .* got a MeanSquaredErr"
        ):
            ProtoNetsAlgorithm(ProtoNetsOptions(network))
        loss = CrossEntropyLoss[Any]()
        assert ProtoNetsAlgorithm(ProtoNetsOptions(network, LossFunction=loss)).DefaultLossFunction is loss
        with pytest.raises(ArgumentException, match="LossFunction must be a CrossEntropyLoss"):
            ProtoNetsAlgorithm(options(NUMPY, LossFunction=MeanSquaredErrorLoss()))
        for optimizer in (SGDOptimizer(0.1), NewtonCGMinimizer()):
            with pytest.raises(ArgumentException, match="InnerOptimizer must be None, as there are no inner steps"):
                ProtoNetsAlgorithm(options(NUMPY, InnerOptimizer=optimizer))
        with pytest.raises(ArgumentException, match="MetaModel must be a FunctionModel or a NeuralNetworkModel"):
            ProtoNetsAlgorithm(ProtoNetsOptions(HandWrittenModel(NETWORK, NETWORK.start(), NUMPY)))

    @pytest.mark.parametrize("name", ["formula", "accuracy"])
    def test_a_loss_with_a_formula_of_its_own(self, name: str) -> None:
        """It would not be heeded."""
        loss = type("Own", (CrossEntropyLoss,), {name: lambda self, predicted, actual: 0.5})()
        with pytest.raises(
            ArgumentException, match=f"LossFunction must have CrossEntropyLoss's own {name}, .* got a Own with another"
        ):
            ProtoNetsAlgorithm(options(NUMPY, LossFunction=loss))
        renamed = type("Own", (CrossEntropyLoss,), {})()
        assert ProtoNetsAlgorithm(options(NUMPY, LossFunction=renamed)).DefaultLossFunction is renamed

    def test_a_model_of_scores_as_the_embedding(self) -> None:
        ((x, y, _, _),) = sets(1)
        scoring = ProtoNetsAlgorithm(options(NUMPY)).Adapt(MetaLearningTask(SupportSetX=x, SupportSetY=y))
        with pytest.raises(ArgumentException, match=r"MetaModel must have no parameters named 'prototypes\.weight'"):
            ProtoNetsAlgorithm(ProtoNetsOptions(scoring))

    def test_embeddings_that_are_no_vectors(self) -> None:
        model = NeuralNetworkModel(Sequential(BatchNorm()), input_shape=(4, 4, 1), loss=CrossEntropyLoss(), seed=0)
        task = DigitsLoader(seed=0).GetNextTask()
        images = MetaLearningTask(SupportSetX=task.SupportInput[:, :4, :4], SupportSetY=task.SupportOutput)
        with pytest.raises(ArgumentException, match=r"MetaModel must predict a vector for each example, .*add Flatten"):
            ProtoNetsAlgorithm(ProtoNetsOptions(model)).Adapt(images)

    def test_what_is_not_finite(self) -> None:
        model = FunctionModel(lambda p, x: x * p["scale"], {"scale": np.ones(2)}, CrossEntropyLoss())
        x = np.array([[1e200, 0.0], [-1e200, 1.0]])
        task = MetaLearningTask(SupportSetX=x, SupportSetY=np.array([0, 1]), QuerySetX=x, QuerySetY=np.array([0, 1]))
        learner = ProtoNetsAlgorithm(ProtoNetsOptions(model))
        with untouched(learner), pytest.raises(InvalidOperationException, match="of task 0"):
            learner.MetaTrain(TaskBatch([task]))


@pytest.mark.slow
def test_it_learns_to_tell_new_classes_apart() -> None:
    """Classes differ in the first two of ten inputs; the others are noise that an embedding can leave out."""
    rng = np.random.default_rng(0)
    classes = np.repeat(np.arange(60), 12)
    X = 4 * rng.normal(size=(len(classes), 10))
    X[:, :2] = 3 * rng.normal(size=(60, 2))[classes] + 0.3 * rng.normal(size=(len(classes), 2))
    train, test = ArrayLoader(X, classes, NWay=5, KShot=1, QueryShots=8, seed=0).split(40, 20, seed=0)
    model = NeuralNetworkModel(
        Sequential(Flatten(), Dense(4)), input_shape=(10,), loss=CrossEntropyLoss(), dtype=np.float64, seed=0
    )
    learner = ProtoNetsAlgorithm(ProtoNetsOptions(model, DataLoader=train, OuterLearningRate=0.01))
    learner.Options.DataLoader = test
    before = learner.Evaluate(numTasks=100).AccuracyStats.Mean
    learner.Options.DataLoader = train
    for _ in range(150):
        learner.MetaTrainStep(8)
    learner.Options.DataLoader = test
    after = learner.Evaluate(numTasks=100).AccuracyStats.Mean
    assert before < 0.5
    assert after > 0.75
