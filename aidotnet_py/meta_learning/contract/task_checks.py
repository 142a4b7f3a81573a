"""Errors for something else where a task, or a batch of tasks, is wanted: they say how to make one of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from aidotnet_py.arguments import check_given
from aidotnet_py.backends import backend_of
from aidotnet_py.exceptions import ArgumentException
from aidotnet_py.meta_learning.contract.protocols import missing_members
from aidotnet_py.meta_learning.contract.tasks import IMetaLearningTask
from aidotnet_py.type_parameters import T, TInput, TOutput

__all__ = ["check_task", "hint_for_batch"]


def check_task(
    task: IMetaLearningTask[T, TInput, TOutput] | None, name: str = "task"
) -> IMetaLearningTask[T, TInput, TOutput]:
    """Return a task after the check that it is one."""
    check_given(name, task, "an IMetaLearningTask")
    assert task is not None
    missing = missing_members(task, IMetaLearningTask)
    if missing:
        hint = _hint_for_task(task) or f", which lacks {', '.join(missing)}"
        raise ArgumentException(f"{name} must be an IMetaLearningTask, got a {type(task).__name__}{hint}")
    return task


def hint_for_batch(value: object) -> str:
    """Return the end of a message for something that is no batch of tasks, nor a sequence of them."""
    if not missing_members(value, IMetaLearningTask):
        return "; use TaskBatch([task])"
    if isinstance(value, (list, tuple)):
        return "; use TaskBatch(tasks)"
    return "; use GetTaskBatch(numTasks) of it" if hasattr(value, "GetTaskBatch") else ""


def _hint_for_task(value: Any) -> str:
    """Return the end of a message for something that is no task; nothing if it resembles none."""
    tasks: Any = getattr(value, "Tasks", value)
    is_sequence = isinstance(tasks, (list, tuple))
    first = next(iter(cast("Sequence[Any]", tasks)), None) if is_sequence else None
    if not missing_members(first, IMetaLearningTask):
        return "; pass its tasks one by one"
    if is_sequence or backend_of(value) is not None:
        return "; use MetaLearningTask(SupportSetX=…, SupportSetY=…)"
    return "; use GetNextTask() of it" if hasattr(value, "GetNextTask") else ""
