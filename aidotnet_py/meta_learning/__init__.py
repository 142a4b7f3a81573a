"""The contract: tasks, options, learners, results.

A new algorithm is a file in `algorithms`, with its options beside it.
"""

from aidotnet_py.meta_learning.algorithms import (
    ANILAlgorithm,
    ANILOptions,
    BOILAlgorithm,
    BOILOptions,
    LooseToleranceWarning,
    MAMLAlgorithm,
    MAMLOptions,
    MetaSGDAlgorithm,
    MetaSGDOptions,
    NonPositiveCurvatureWarning,
    ProtoNetsAlgorithm,
    ProtoNetsOptions,
    ReptileAlgorithm,
    ReptileOptions,
    SeriesGrowthWarning,
    iMAMLAlgorithm,
    iMAMLOptions,
)
from aidotnet_py.meta_learning.algorithms.imaml.error_bound import ProblemConstants, meta_gradient_error_bound
from aidotnet_py.meta_learning.contract.enums import BatchingStrategy, CurriculumStage, MetaLearningAlgorithmType
from aidotnet_py.meta_learning.contract.learner import IMetaLearner
from aidotnet_py.meta_learning.contract.options import MetaLearnerOptions, ProximalOptions
from aidotnet_py.meta_learning.contract.results import (
    MetaAdaptationResult,
    MetaEvaluationResult,
    MetaTrainingResult,
    MetaTrainingStepResult,
)
from aidotnet_py.meta_learning.contract.sources import (
    IEpisode,
    IEpisodicDataLoader,
    IMetaDataset,
    IResumable,
    ITaskSampler,
)
from aidotnet_py.meta_learning.contract.statistics import BasicStats, BestValue, ConfidenceInterval
from aidotnet_py.meta_learning.contract.task_batch import TaskBatch
from aidotnet_py.meta_learning.contract.tasks import IMetaLearningTask, MetaLearningTask, MetaLearningTaskBase
from aidotnet_py.meta_learning.contract.training_run import (
    EvaluationRecord,
    IRunFolder,
    ITrainingCallback,
    TrainingHistory,
    TrainingRun,
)
from aidotnet_py.meta_learning.learner.base import MetaLearnerBase
from aidotnet_py.meta_learning.learner.learned import Learned
from aidotnet_py.meta_learning.learner.records import AdaptationCurve, MetaGradient, StepRecord
from aidotnet_py.meta_learning.learner.tasks import Tasks

__all__ = [
    "ANILAlgorithm",
    "ANILOptions",
    "AdaptationCurve",
    "BOILAlgorithm",
    "BOILOptions",
    "BasicStats",
    "BatchingStrategy",
    "BestValue",
    "ConfidenceInterval",
    "CurriculumStage",
    "EvaluationRecord",
    "IEpisode",
    "IEpisodicDataLoader",
    "IMetaDataset",
    "IMetaLearner",
    "IMetaLearningTask",
    "IResumable",
    "IRunFolder",
    "ITaskSampler",
    "ITrainingCallback",
    "Learned",
    "LooseToleranceWarning",
    "MAMLAlgorithm",
    "MAMLOptions",
    "MetaAdaptationResult",
    "MetaEvaluationResult",
    "MetaGradient",
    "MetaLearnerBase",
    "MetaLearnerOptions",
    "MetaLearningAlgorithmType",
    "MetaLearningTask",
    "MetaLearningTaskBase",
    "MetaSGDAlgorithm",
    "MetaSGDOptions",
    "MetaTrainingResult",
    "MetaTrainingStepResult",
    "NonPositiveCurvatureWarning",
    "ProblemConstants",
    "ProximalOptions",
    "ProtoNetsAlgorithm",
    "ProtoNetsOptions",
    "ReptileAlgorithm",
    "ReptileOptions",
    "SeriesGrowthWarning",
    "StepRecord",
    "TaskBatch",
    "Tasks",
    "TrainingHistory",
    "TrainingRun",
    "iMAMLAlgorithm",
    "iMAMLOptions",
    "meta_gradient_error_bound",
]
