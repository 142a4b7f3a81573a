"""Meta-learning on NumPy and CuPy: iMAML over an exact autodiff and Hessian-vector-product engine.

Everything that AiDotNet documents imports from here. `autodiff`, `backends`, `comparison`, `data`, `estimators`,
`exchange`, `explorer`, `implicit`, `losses`, `meta_learning`, `models`, `nn`, `optimizers`, `plotting`, `runs`,
`saving`, `solvers` and `testing` are attributes of this package too.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from aidotnet_py.exceptions import (
    ArgumentException,
    ArgumentNullException,
    ArgumentOutOfRangeException,
    InvalidOperationException,
    NotSupportedException,
)
from aidotnet_py.losses import BinaryCrossEntropyLoss, CrossEntropyLoss, ILossFunction, MeanSquaredErrorLoss
from aidotnet_py.meta_learning import (
    ANILAlgorithm,
    ANILOptions,
    BasicStats,
    BatchingStrategy,
    BestValue,
    BOILAlgorithm,
    BOILOptions,
    ConfidenceInterval,
    CurriculumStage,
    IEpisode,
    IEpisodicDataLoader,
    IMetaDataset,
    IMetaLearner,
    IMetaLearningTask,
    IResumable,
    ITaskSampler,
    ITrainingCallback,
    LooseToleranceWarning,
    MAMLAlgorithm,
    MAMLOptions,
    MetaAdaptationResult,
    MetaEvaluationResult,
    MetaLearnerBase,
    MetaLearnerOptions,
    MetaLearningAlgorithmType,
    MetaLearningTask,
    MetaLearningTaskBase,
    MetaSGDAlgorithm,
    MetaSGDOptions,
    MetaTrainingResult,
    MetaTrainingStepResult,
    NonPositiveCurvatureWarning,
    ProblemConstants,
    ProtoNetsAlgorithm,
    ProtoNetsOptions,
    ReptileAlgorithm,
    ReptileOptions,
    SeriesGrowthWarning,
    TaskBatch,
    iMAMLAlgorithm,
    iMAMLOptions,
    meta_gradient_error_bound,
)
from aidotnet_py.models import (
    FunctionModel,
    ICloneable,
    IDifferentiableModel,
    IFullModel,
    IGradientComputable,
    IModel,
    IModelSerializer,
    INormalizedModel,
    IParameterizable,
    ISecondOrderGradientComputable,
    ModelMetadata,
    NeuralNetworkModel,
)
from aidotnet_py.optimizers import (
    AdamOptimizer,
    ConstantSchedule,
    CosineSchedule,
    IGradientBasedOptimizer,
    LBFGSMinimizer,
    NewtonCGMinimizer,
    SGDOptimizer,
    StepSchedule,
    WarmUpSchedule,
)
from aidotnet_py.version import __version__ as __version__

if TYPE_CHECKING:
    from aidotnet_py import autodiff as autodiff
    from aidotnet_py import backends as backends
    from aidotnet_py import comparison as comparison
    from aidotnet_py import data as data
    from aidotnet_py import estimators as estimators
    from aidotnet_py import exchange as exchange
    from aidotnet_py import explorer as explorer
    from aidotnet_py import implicit as implicit
    from aidotnet_py import losses as losses
    from aidotnet_py import meta_learning as meta_learning
    from aidotnet_py import models as models
    from aidotnet_py import nn as nn
    from aidotnet_py import optimizers as optimizers
    from aidotnet_py import plotting as plotting
    from aidotnet_py import runs as runs
    from aidotnet_py import saving as saving
    from aidotnet_py import solvers as solvers
    from aidotnet_py import testing as testing
    from aidotnet_py.data import (
        BalancedEpisodicDataLoader,
        BalancedTaskSampler,
        CurriculumEpisodicDataLoader,
        CurriculumTaskSampler,
        DynamicTaskSampler,
        Episode,
        EpisodeCache,
        GaussianClassificationMetaDataset,
        MetaDatasetBase,
        RotatedDigitsMetaDataset,
        SineWaveMetaDataset,
        StratifiedEpisodicDataLoader,
        UniformEpisodicDataLoader,
        UniformTaskSampler,
    )
    from aidotnet_py.runs import RunFolder
    from aidotnet_py.saving import load, save

__all__ = [
    "ANILAlgorithm",
    "ANILOptions",
    "AdamOptimizer",
    "ArgumentException",
    "ArgumentNullException",
    "ArgumentOutOfRangeException",
    "BOILAlgorithm",
    "BOILOptions",
    "BalancedEpisodicDataLoader",
    "BalancedTaskSampler",
    "BasicStats",
    "BatchingStrategy",
    "BestValue",
    "BinaryCrossEntropyLoss",
    "ConfidenceInterval",
    "ConstantSchedule",
    "CosineSchedule",
    "CrossEntropyLoss",
    "CurriculumEpisodicDataLoader",
    "CurriculumStage",
    "CurriculumTaskSampler",
    "DynamicTaskSampler",
    "Episode",
    "EpisodeCache",
    "FunctionModel",
    "GaussianClassificationMetaDataset",
    "ICloneable",
    "IDifferentiableModel",
    "IEpisode",
    "IEpisodicDataLoader",
    "IFullModel",
    "IGradientBasedOptimizer",
    "IGradientComputable",
    "ILossFunction",
    "IMetaDataset",
    "IMetaLearner",
    "IMetaLearningTask",
    "IModel",
    "IModelSerializer",
    "INormalizedModel",
    "IParameterizable",
    "IResumable",
    "ISecondOrderGradientComputable",
    "ITaskSampler",
    "ITrainingCallback",
    "InvalidOperationException",
    "LBFGSMinimizer",
    "LooseToleranceWarning",
    "MAMLAlgorithm",
    "MAMLOptions",
    "MeanSquaredErrorLoss",
    "MetaAdaptationResult",
    "MetaDatasetBase",
    "MetaEvaluationResult",
    "MetaLearnerBase",
    "MetaLearnerOptions",
    "MetaLearningAlgorithmType",
    "MetaLearningTask",
    "MetaLearningTaskBase",
    "MetaSGDAlgorithm",
    "MetaSGDOptions",
    "MetaTrainingResult",
    "MetaTrainingStepResult",
    "ModelMetadata",
    "NeuralNetworkModel",
    "NewtonCGMinimizer",
    "NonPositiveCurvatureWarning",
    "NotSupportedException",
    "ProblemConstants",
    "ProtoNetsAlgorithm",
    "ProtoNetsOptions",
    "ReptileAlgorithm",
    "ReptileOptions",
    "RotatedDigitsMetaDataset",
    "RunFolder",
    "SGDOptimizer",
    "SeriesGrowthWarning",
    "SineWaveMetaDataset",
    "StepSchedule",
    "StratifiedEpisodicDataLoader",
    "TaskBatch",
    "UniformEpisodicDataLoader",
    "UniformTaskSampler",
    "WarmUpSchedule",
    "iMAMLAlgorithm",
    "iMAMLOptions",
    "load",
    "meta_gradient_error_bound",
    "save",
]

# The modules above need none of these; imported here, they would make this import slower.
_IMPORTED_ON_FIRST_USE = (
    "comparison",
    "data",
    "estimators",
    "exchange",
    "explorer",
    "implicit",
    "plotting",
    "runs",
    "saving",
    "testing",
)
_NAMES_OF_DATA = (
    "BalancedEpisodicDataLoader",
    "BalancedTaskSampler",
    "CurriculumEpisodicDataLoader",
    "CurriculumTaskSampler",
    "DynamicTaskSampler",
    "Episode",
    "EpisodeCache",
    "GaussianClassificationMetaDataset",
    "MetaDatasetBase",
    "RotatedDigitsMetaDataset",
    "SineWaveMetaDataset",
    "StratifiedEpisodicDataLoader",
    "UniformEpisodicDataLoader",
    "UniformTaskSampler",
)

_NAMES_OF_OTHERS = {"RunFolder": "runs", "load": "saving", "save": "saving"}

# A checker that saw this function would accept every name.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """Import a package that is not imported with this one, or a name from such a package."""
        if name in _IMPORTED_ON_FIRST_USE:
            return import_module(f"{__name__}.{name}")
        if name in _NAMES_OF_DATA:
            return getattr(import_module(f"{__name__}.data"), name)
        if name in _NAMES_OF_OTHERS:
            return getattr(import_module(f"{__name__}.{_NAMES_OF_OTHERS[name]}"), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        """List the packages and names that are imported on first use too."""
        return sorted({*globals(), *_IMPORTED_ON_FIRST_USE, *_NAMES_OF_DATA, *_NAMES_OF_OTHERS})
