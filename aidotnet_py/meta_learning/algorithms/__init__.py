"""The algorithms, one file each with its options.

May import: the bases of the learners and everything under them.
"""

from aidotnet_py.meta_learning.algorithms.imaml import NonPositiveCurvatureWarning, SeriesGrowthWarning, iMAMLAlgorithm
from aidotnet_py.meta_learning.algorithms.imaml_options import iMAMLOptions
from aidotnet_py.meta_learning.algorithms.maml import MAMLAlgorithm, MAMLOptions

__all__ = [
    "MAMLAlgorithm",
    "MAMLOptions",
    "NonPositiveCurvatureWarning",
    "SeriesGrowthWarning",
    "iMAMLAlgorithm",
    "iMAMLOptions",
]
