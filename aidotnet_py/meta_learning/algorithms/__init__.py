"""The algorithms, one file each with its options beside it.

May import: the base of the learners and everything under it.
"""

from aidotnet_py.meta_learning.algorithms.imaml import NonPositiveCurvatureWarning, SeriesGrowthWarning, iMAMLAlgorithm
from aidotnet_py.meta_learning.algorithms.imaml_options import iMAMLOptions

__all__ = ["NonPositiveCurvatureWarning", "SeriesGrowthWarning", "iMAMLAlgorithm", "iMAMLOptions"]
