"""What mypy --strict and pyright strict must infer of the public API, and what both must refuse; see test_typing.

Nothing here asserts at run time, though the functions are run too, so that what is said of types is no dream.
A case that must be refused carries a suppression: were it accepted, each checker would call that unused.
"""

# pyright: strict, reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

from typing import Any, assert_type

import numpy as np
from numpy.typing import NDArray

import aidotnet_py
from aidotnet_py import (
    AdamOptimizer,
    ANILAlgorithm,
    ANILOptions,
    BOILAlgorithm,
    BOILOptions,
    CrossEntropyLoss,
    FunctionModel,
    IEpisode,
    IFullModel,
    IMetaDataset,
    IMetaLearner,
    ITaskSampler,
    LBFGSMinimizer,
    MAMLAlgorithm,
    MAMLOptions,
    MeanSquaredErrorLoss,
    MetaAdaptationResult,
    MetaEvaluationResult,
    MetaLearningAlgorithmType,
    MetaLearningTask,
    MetaSGDAlgorithm,
    MetaSGDOptions,
    MetaTrainingResult,
    MetaTrainingStepResult,
    NeuralNetworkModel,
    NewtonCGMinimizer,
    ReptileAlgorithm,
    ReptileOptions,
    SGDOptimizer,
    TaskBatch,
    iMAMLAlgorithm,
    iMAMLOptions,
)
from aidotnet_py.data import ArrayLoader, DigitsLoader, RandomFlip, SinusoidLoader, TableLoader
from aidotnet_py.nn import Sequential, mlp
from aidotnet_py.optimizers import VectorObjective

Arrays = NDArray[Any]
Network = NeuralNetworkModel[np.float32, Arrays, Arrays]


def single() -> NeuralNetworkModel[np.float32, Arrays, Arrays]:
    model = NeuralNetworkModel(mlp(4, 1), input_shape=(1,), seed=0)
    assert_type(model, NeuralNetworkModel[np.float32, Arrays, Arrays])
    return model


def double() -> NeuralNetworkModel[np.float64, Arrays, Arrays]:
    model = NeuralNetworkModel(mlp(4, 1), input_shape=(1,), dtype=np.float64, seed=0)
    assert_type(model, NeuralNetworkModel[np.float64, Arrays, Arrays])
    return model


def linear() -> FunctionModel[np.float64, Arrays, Arrays]:
    parameters: dict[str, NDArray[np.float64]] = {"w": np.zeros((1, 1))}
    model = FunctionModel(lambda p, x: x @ p["w"], parameters)
    assert_type(model, FunctionModel[np.float64, Arrays, Arrays])
    classifier = FunctionModel(lambda p, x: x @ p["w"], parameters, CrossEntropyLoss())
    assert_type(classifier.Predict(np.zeros((1, 1))), Arrays)
    return model


def converted() -> FunctionModel[np.float32, Arrays, Arrays]:
    model = FunctionModel(lambda p, x: x @ p["w"], {"w": np.zeros((1, 1))}, dtype=np.float32)
    assert_type(model, FunctionModel[np.float32, Arrays, Arrays])
    assert_type(model.Clone(), FunctionModel[np.float32, Arrays, Arrays])
    return model


def task() -> MetaLearningTask[np.float32, NDArray[np.float32], NDArray[np.float32]]:
    x = np.linspace(-1, 1, 4, dtype=np.float32)[:, None]
    return MetaLearningTask(SupportSetX=x, SupportSetY=x, QuerySetX=x, QuerySetY=x, NumWays=1, NumShots=4)


def learner_of_float32() -> None:
    model = single()
    options = iMAMLOptions(model, AdaptationSteps=1)
    assert_type(options, iMAMLOptions[np.float32, Arrays, Arrays, Network])
    assert_type(options.Clone(), iMAMLOptions[np.float32, Arrays, Arrays, Network])
    learner = iMAMLAlgorithm(options)
    assert_type(learner, iMAMLAlgorithm[np.float32, Arrays, Arrays, Network])
    batch = TaskBatch([task()])
    assert_type(learner.MetaTrain(batch), np.float32)
    assert_type(learner.Evaluate(batch), np.float32)
    assert_type(learner.Adapt(task()), Network)
    assert_type(learner.AdaptAndEvaluate(task()), MetaAdaptationResult[np.float32])
    assert_type(learner.AdaptAndEvaluate(task()).QueryLoss, np.float32)
    assert_type(learner.GetMetaModel(), Network)


def learner_of_float64() -> None:
    loader = SinusoidLoader(KShot=5, QueryShots=5, dtype=np.float64, seed=0)
    options = iMAMLOptions(double(), DataLoader=loader, AdaptationSteps=1, NumMetaIterations=1, EvaluationTasks=1)
    learner = iMAMLAlgorithm(options)
    assert_type(learner.MetaTrain(loader.GetTaskBatch(2)), np.float64)
    assert_type(learner.MetaTrainStep(2), MetaTrainingStepResult[np.float64])
    assert_type(learner.MetaTrainStep(2).MetaLoss, np.float64)
    assert_type(learner.Evaluate(1), MetaEvaluationResult[np.float64])
    assert_type(learner.Train(), MetaTrainingResult[np.float64])


def named_type_parameters() -> None:
    options = iMAMLOptions[np.float64, Arrays, Arrays](linear())
    assert_type(options, iMAMLOptions[np.float64, Arrays, Arrays])
    assert_type(iMAMLAlgorithm[np.float64, Arrays, Arrays](options), iMAMLAlgorithm[np.float64, Arrays, Arrays])


def losses_optimizers_and_loaders() -> None:
    loader = DigitsLoader(NWay=2, KShot=1, QueryShots=1)
    options = iMAMLOptions(
        single(),
        MetaOptimizer=AdamOptimizer(1e-3),
        InnerOptimizer=SGDOptimizer(1e-2, momentum=0.9),
        DataLoader=loader,
    )
    assert_type(options, iMAMLOptions[np.float32, Arrays, Arrays, Network])
    assert_type(MeanSquaredErrorLoss[np.float32]().CalculateLoss(np.zeros(1, np.float32), np.zeros(1)), np.float32)


def the_family() -> None:
    batch = TaskBatch([task()])
    maml = MAMLAlgorithm(MAMLOptions(single(), CheckpointSegments="sqrt"))
    assert_type(maml, MAMLAlgorithm[np.float32, Arrays, Arrays, Network])
    assert_type(maml.MetaTrain(batch), np.float32)
    assert_type(ReptileAlgorithm(ReptileOptions(single())).MetaTrain(batch), np.float32)
    assert_type(MetaSGDAlgorithm(MetaSGDOptions(single())).MetaTrain(batch), np.float32)
    layers = NeuralNetworkModel(mlp(4, 1), input_shape=(1,), seed=0)
    assert_type(ANILAlgorithm(ANILOptions(layers)).AlgorithmType, MetaLearningAlgorithmType)
    assert_type(BOILAlgorithm(BOILOptions(layers, AdaptedLayers=["0_dense"])).Evaluate(batch), np.float32)
    assert_type(
        iMAMLOptions(single(), InnerOptimizer=NewtonCGMinimizer()), iMAMLOptions[np.float32, Arrays, Arrays, Network]
    )
    assert_type(
        iMAMLOptions(single(), InnerOptimizer=LBFGSMinimizer()), iMAMLOptions[np.float32, Arrays, Arrays, Network]
    )


def own_solver(objective: VectorObjective, theta: Any) -> Any:
    return theta - 0.1 * objective(theta)[1]


def a_solver_of_ones_own() -> None:
    learner = iMAMLAlgorithm(iMAMLOptions(single(), InnerOptimizer=own_solver))
    assert_type(learner.Adapt(task()), Network)


def held_as_interfaces() -> None:
    model: IFullModel[np.float32, Arrays, Arrays] = single()
    learner: IMetaLearner[np.float32, Arrays, Arrays] = iMAMLAlgorithm(iMAMLOptions(model))
    assert_type(learner.MetaTrain(TaskBatch([task()])), np.float32)
    # On a line of its own: mypy cannot infer the class of a learner's model where a model is expected.
    inner = iMAMLAlgorithm(iMAMLOptions(single()))
    models: list[IFullModel[np.float32, Arrays, Arrays]] = [inner]
    assert_type(models[0].WithParameters(models[0].GetParameters()), IFullModel[np.float32, Arrays, Arrays])
    assert_type(iMAMLAlgorithm(iMAMLOptions(single())).DeepCopy(), iMAMLAlgorithm[np.float32, Arrays, Arrays, Network])


def the_class_of_the_model() -> None:
    """Adapt returns the model's own class; three type parameters leave it open."""
    learner = iMAMLAlgorithm(iMAMLOptions(single(), AdaptationSteps=1))
    adapted = learner.Adapt(task())
    assert_type(adapted, Network)
    assert_type(adapted.DeepCopy(), Network)
    assert_type(learner.BaseModel, Network)
    lines = MAMLAlgorithm(MAMLOptions(linear(), AdaptationSteps=1))
    x = np.ones((2, 1))
    double_task = MetaLearningTask(SupportSetX=x, SupportSetY=x, QuerySetX=x, QuerySetY=x, NumWays=1)
    assert_type(lines.Adapt(double_task), FunctionModel[np.float64, Arrays, Arrays])
    assert_type(ReptileAlgorithm(ReptileOptions(single())).Adapt(task()), Network)
    assert_type(MetaSGDAlgorithm(MetaSGDOptions(single())).Adapt(task()), Network)
    assert_type(ANILAlgorithm(ANILOptions(single())).Adapt(task()), Network)
    assert_type(BOILAlgorithm(BOILOptions(single(), AdaptedLayers=["0_dense"])).Adapt(task()), Network)
    open_class = held(learner)
    assert_type(open_class.Adapt(task()), IFullModel[np.float32, Arrays, Arrays])
    open_class.SetMetaModel(single())


def held(learner: iMAMLAlgorithm[np.float32, Arrays, Arrays]) -> iMAMLAlgorithm[np.float32, Arrays, Arrays]:
    return learner


def a_first_user() -> None:
    """The default model is of float32, and one's own arrays are of float64: T is the model's."""
    model = NeuralNetworkModel(mlp(4, 1), input_shape=(1,))
    x = np.random.default_rng(0).uniform(-5, 5, (10, 1)).astype(np.float32)
    one = MetaLearningTask(SupportSetX=x, SupportSetY=np.sin(x), QuerySetX=x, QuerySetY=np.sin(x), NumWays=1)
    learner = iMAMLAlgorithm(iMAMLOptions.FromPaper(model, Lambda=2.0, AdaptationSteps=3))
    assert_type(learner.MetaTrain(TaskBatch([one])), np.float32)
    adapted = learner.Adapt(one)
    assert_type(adapted, Network)
    assert_type(adapted.Predict(x), Arrays)
    assert_type(adapted.WithParameters(adapted.GetParameters()), Network)
    assert_type(MAMLAlgorithm(MAMLOptions(linear())).Evaluate(TaskBatch([task()])), np.float64)


def from_the_paper() -> None:
    options = iMAMLOptions.FromPaper(single(), Lambda=0.5, Curvature="gauss-newton", LossFunction=CrossEntropyLoss())
    assert_type(options, iMAMLOptions[np.float32, Arrays, Arrays, Network])
    assert_type(
        iMAMLOptions(single(), LossFunction=CrossEntropyLoss()), iMAMLOptions[np.float32, Arrays, Arrays, Network]
    )
    query = DigitsLoader(NWay=2, KShot=1, QueryShots=1).GetNextTask().QueryInput
    assert_type(query, Arrays)


def packages_are_attributes() -> None:
    assert_type(aidotnet_py.data.SinusoidLoader(4, 6, dtype=np.float64), SinusoidLoader[np.float64])
    assert_type(aidotnet_py.nn.mlp(4, 1), Sequential)


def own_data() -> None:
    arrays = ArrayLoader(np.zeros((40, 1)), ["cat", "dog"] * 20, NWay=2, QueryShots=2)
    assert_type(arrays, ArrayLoader[np.float64])
    table = TableLoader({"g": [0, 0, 1, 1], "x": [1, 2, 3, 4], "y": [1, 2, 3, 4]}, task="g", target="y")
    assert_type(table.with_transform(lambda x, rng: x + rng.normal()), TableLoader[np.float32])
    assert_type(table.split(1, 1), tuple[TableLoader[np.float32], ...])
    assert_type(iMAMLOptions(single(), DataLoader=table), iMAMLOptions[np.float32, Arrays, Arrays, Network])
    digits = DigitsLoader(NWay=2, KShot=1, QueryShots=1, dtype=np.float64)
    assert_type(digits.with_transform(RandomFlip(), "support"), DigitsLoader[np.float64])


def arrays_meta_datasets_and_samplers() -> None:
    x, y = np.zeros((40, 1), np.float32), ["cat", "dog"] * 20
    loader = aidotnet_py.UniformEpisodicDataLoader(x, y, nWay=2, kShot=1, queryShots=2, seed=0)
    assert_type(loader, aidotnet_py.UniformEpisodicDataLoader[np.float32])
    assert_type(iMAMLOptions(single(), DataLoader=loader), iMAMLOptions[np.float32, Arrays, Arrays, Network])
    wide = aidotnet_py.CurriculumEpisodicDataLoader(x, y, 2, 1, 2, initialKShot=3, dtype=np.float64)
    assert_type(wide.GetNextTask(), MetaLearningTask[np.float64, Arrays, Arrays])
    assert_type(aidotnet_py.MetaDatasetBase("pets", x, y), aidotnet_py.MetaDatasetBase[np.float32])
    waves = aidotnet_py.SineWaveMetaDataset(seed=0)
    dataset: IMetaDataset[np.float32, Arrays, Arrays] = waves
    uniform = aidotnet_py.UniformTaskSampler(dataset, 1, 5, 5)
    assert_type(uniform.SampleOne(), IEpisode[np.float32, Arrays, Arrays])
    sampler: ITaskSampler[np.float32, Arrays, Arrays] = aidotnet_py.DynamicTaskSampler(waves, 1, 5, 5, seed=0)
    cache = aidotnet_py.EpisodeCache[np.float32](2)
    cache.Put(sampler.SampleOne())
    assert_type(cache.TryGet(1), tuple[bool, IEpisode[np.float32, Arrays, Arrays] | None])
    learner = MAMLAlgorithm(MAMLOptions(single(), NumMetaIterations=1, MetaBatchSize=1))
    assert_type(learner.MetaTrainStep(uniform, 1), MetaTrainingStepResult[np.float32])
    assert_type(learner.Train(sampler), MetaTrainingResult[np.float32])


def refused() -> None:
    aidotnet_py.dataa  # type: ignore[attr-defined]  # noqa: B018
    options = iMAMLOptions(single())
    options.AdaptionSteps = 3  # type: ignore[attr-defined]
    options.AdaptationSteps = "x"  # type: ignore[assignment]
    iMAMLOptions(single(), AdaptionSteps=20)  # type: ignore[call-arg]
    iMAMLOptions()  # type: ignore[call-arg]
    iMAMLOptions.FromPaper(single(), Lamda=2.0)  # type: ignore[call-arg]
    iMAMLOptions[np.float64, Arrays, Arrays](single())  # type: ignore[arg-type]
    MAMLOptions(single(), CheckpointSegments="cube")  # type: ignore[arg-type]
    MAMLAlgorithm(iMAMLOptions(single()))  # type: ignore[arg-type]
    iMAMLOptions(single(), Curvature="fisher")  # type: ignore[arg-type]
    iMAMLAlgorithm(single())  # type: ignore[arg-type]
    iMAMLAlgorithm(iMAMLOptions(single())).Adapt(task()).weights  # type: ignore[attr-defined]  # noqa: B018
