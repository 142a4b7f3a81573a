"""The task objective: losses, gradients and curvature of many tasks at once, on stacked parameters (tasks, P).

Only here do tasks meet the engine. There is a class for each kind of model: traced, with gradients of its own, or
neither.
"""

from aidotnet_py.meta_learning.objective.buffers import Lease
from aidotnet_py.meta_learning.objective.factory import ObjectiveFactory
from aidotnet_py.meta_learning.objective.interface import CurvatureKind, Evaluation, TaskObjective
from aidotnet_py.meta_learning.objective.partial import PartialObjective

__all__ = [
    "CurvatureKind",
    "Evaluation",
    "Lease",
    "ObjectiveFactory",
    "PartialObjective",
    "TaskObjective",
]
