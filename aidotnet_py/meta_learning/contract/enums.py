"""The names that meta-learning chooses among: algorithms, ways to form a batch, stages of a curriculum."""

from __future__ import annotations

from enum import Enum

__all__ = ["BatchingStrategy", "CurriculumStage", "MetaLearningAlgorithmType"]


class MetaLearningAlgorithmType(Enum):
    """Which algorithm a meta-learner runs."""

    iMAML = "iMAML"
    MAML = "MAML"
    Reptile = "Reptile"
    MetaSGD = "MetaSGD"
    ANIL = "ANIL"
    BOIL = "BOIL"
    ProtoNets = "ProtoNets"


class BatchingStrategy(Enum):
    """How the tasks of a batch were chosen; a label that travels with the batch."""

    Uniform = "Uniform"
    DifficultyBased = "DifficultyBased"
    SimilarityBased = "SimilarityBased"
    CurriculumAware = "CurriculumAware"
    Adaptive = "Adaptive"
    MultiResolution = "MultiResolution"
    DomainBalanced = "DomainBalanced"
    HardNegativeMining = "HardNegativeMining"


class CurriculumStage(Enum):
    """The stage of a curriculum that a batch belongs to; ``General`` is none in particular."""

    Easy = "Easy"
    Medium = "Medium"
    Hard = "Hard"
    Mixed = "Mixed"
    General = "General"
