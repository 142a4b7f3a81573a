"""The algorithms, one file each with its options."""

from aidotnet_py.meta_learning.algorithms.anil import ANILAlgorithm, ANILOptions, BOILAlgorithm, BOILOptions
from aidotnet_py.meta_learning.algorithms.imaml.algorithm import iMAMLAlgorithm
from aidotnet_py.meta_learning.algorithms.imaml.options import iMAMLOptions
from aidotnet_py.meta_learning.algorithms.imaml.report import (
    LooseToleranceWarning,
    NonPositiveCurvatureWarning,
    SeriesGrowthWarning,
)
from aidotnet_py.meta_learning.algorithms.maml import MAMLAlgorithm, MAMLOptions
from aidotnet_py.meta_learning.algorithms.meta_sgd import MetaSGDAlgorithm, MetaSGDOptions
from aidotnet_py.meta_learning.algorithms.proto_nets import ProtoNetsAlgorithm, ProtoNetsOptions
from aidotnet_py.meta_learning.algorithms.reptile import ReptileAlgorithm, ReptileOptions

__all__ = [
    "ANILAlgorithm",
    "ANILOptions",
    "BOILAlgorithm",
    "BOILOptions",
    "LooseToleranceWarning",
    "MAMLAlgorithm",
    "MAMLOptions",
    "MetaSGDAlgorithm",
    "MetaSGDOptions",
    "NonPositiveCurvatureWarning",
    "ProtoNetsAlgorithm",
    "ProtoNetsOptions",
    "ReptileAlgorithm",
    "ReptileOptions",
    "SeriesGrowthWarning",
    "iMAMLAlgorithm",
    "iMAMLOptions",
]
