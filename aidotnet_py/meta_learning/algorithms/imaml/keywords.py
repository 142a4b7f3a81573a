"""The options that iMAMLOptions' constructors take by name: a misspelt one is an error of type checkers."""

from __future__ import annotations

from typing import Any, Literal, TypedDict

from aidotnet_py.losses import ILossFunction
from aidotnet_py.meta_learning.algorithms.imaml.error_bound import ProblemConstants
from aidotnet_py.meta_learning.contract.options import ExecutorOrMaker
from aidotnet_py.meta_learning.contract.sources import IEpisodicDataLoader
from aidotnet_py.optimizers import IGradientBasedOptimizer, InnerSolver, LearningRateSchedule, RowMinimizer

__all__ = ["LambdaKind", "PaperKeywords", "RecommendedKeywords"]

# What is learned of λ: one number, or one for each parameter.
LambdaKind = Literal["scalar", "per-parameter"]


class RecommendedKeywords(TypedDict, total=False):
    """The options that do not depend on the inner rate, the loader, or a proximal term."""

    LossFunction: ILossFunction[Any] | None
    MetaOptimizer: IGradientBasedOptimizer | None
    ValidationLoader: IEpisodicDataLoader[Any, Any, Any] | None
    InnerLearningRate: float
    OuterLearningRate: float
    OuterLearningRateSchedule: LearningRateSchedule | None
    AdaptationSteps: int
    MetaBatchSize: int
    MicroBatchSize: int | None
    NumMetaIterations: int
    GradientClipThreshold: float | None
    RandomSeed: int | None
    EvaluationTasks: int
    EvaluationFrequency: int
    EarlyStoppingPatience: int | None
    EnableCheckpointing: bool
    CheckpointFrequency: int
    Executor: ExecutorOrMaker | None
    UseFirstOrder: bool
    ConjugateGradientIterations: int
    ConjugateGradientTolerance: float
    UseNeumannApproximation: bool
    NeumannSeriesTerms: int
    ConjugateGradientDamping: float
    Curvature: Literal["hessian", "gauss-newton"]
    InnerGradientTolerance: float | None
    WarmStartSolves: bool
    PreconditionerProbes: int


class PaperKeywords(RecommendedKeywords, total=False):
    """All options of iMAML but the model, and but LambdaRegularization and InnerObjective, which Λ sets."""

    DataLoader: IEpisodicDataLoader[Any, Any, Any] | None
    InnerOptimizer: IGradientBasedOptimizer | InnerSolver | RowMinimizer | None
    LearnedLambda: LambdaKind | None
    ErrorConstants: ProblemConstants | None
