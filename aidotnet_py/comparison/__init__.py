"""Comparisons of algorithms with the same tasks, start and test; the command `aidotnet-py compare` runs them.

A new algorithm is an entry in `contestants`, a new data set an entry in `problems`.
"""

from aidotnet_py.comparison.contestants import ALGORITHMS, BASELINES
from aidotnet_py.comparison.problems import PROBLEMS
from aidotnet_py.comparison.results import Comparison, Run, merge
from aidotnet_py.comparison.running import compare
from aidotnet_py.comparison.settings import ComparisonSettings
from aidotnet_py.comparison.speed import Speed, measure_speed

__all__ = [
    "ALGORITHMS",
    "BASELINES",
    "PROBLEMS",
    "Comparison",
    "ComparisonSettings",
    "Run",
    "Speed",
    "compare",
    "measure_speed",
    "merge",
]
