"""The face of meta-learning for algorithms of one's own: the base, what it shows of the tasks, and what it may write.

docs/algorithms.md writes three. Everything else in this folder may change without notice.
"""

from aidotnet_py.meta_learning.contract.options import MetaLearnerOptions, ProximalOptions, with_suggestions
from aidotnet_py.meta_learning.inner.path import InnerPath
from aidotnet_py.meta_learning.inner.rule import InnerRule, along_gradient, along_proximal_gradient
from aidotnet_py.meta_learning.learner.base import MetaLearnerBase
from aidotnet_py.meta_learning.learner.learned import Learned
from aidotnet_py.meta_learning.learner.records import StepRecord
from aidotnet_py.meta_learning.learner.tasks import AdaptedPath, Tasks

__all__ = [
    "AdaptedPath",
    "InnerPath",
    "InnerRule",
    "Learned",
    "MetaLearnerBase",
    "MetaLearnerOptions",
    "ProximalOptions",
    "StepRecord",
    "Tasks",
    "along_gradient",
    "along_proximal_gradient",
    "with_suggestions",
]
