"""Algorithms side by side: the same tasks, the same start, the same test; what `aidotnet-py compare` runs.

A new algorithm is an entry in `contestants`, a data set one in `problems`.
"""

from aidotnet_py.comparison.contestants import ALGORITHMS, BASELINES
from aidotnet_py.comparison.problems import PROBLEMS
from aidotnet_py.comparison.results import Comparison, Run
from aidotnet_py.comparison.running import compare
from aidotnet_py.comparison.settings import ComparisonSettings

__all__ = ["ALGORITHMS", "BASELINES", "PROBLEMS", "Comparison", "ComparisonSettings", "Run", "compare"]
