"""Meta-gradients of models that compute them themselves."""

from __future__ import annotations

from typing import Any

from aidotnet_py.backends import Array, described
from aidotnet_py.exceptions import ArgumentException
from aidotnet_py.locks import Lock
from aidotnet_py.losses import ILossFunction
from aidotnet_py.meta_learning.contract.protocols import with_parameters
from aidotnet_py.meta_learning.contract.tasks import is_batches
from aidotnet_py.meta_learning.objective.chunk import Chunk
from aidotnet_py.meta_learning.objective.stacking import stack_rows

__all__ = ["second_order_gradients"]


def second_order_gradients(chunk: Chunk, loss: ILossFunction[Any], steps: int, rate: float, asking: Lock) -> Array:
    """Return MAML's meta-gradients (tasks, P) of an `ISecondOrderGradientComputable` model, task by task.

    Parameters
    ----------
    chunk : Chunk
        The tasks, the model and θ.
    loss : ILossFunction
        Of the steps and of the query sets.
    steps, rate : int, float
        Of gradient descent; step k looks at support batch k, and again at the first after the last.
    asking : Lock
        Held while the model is asked.

    Raises
    ------
    ArgumentException
        When the model returns anything but a vector like its parameters.
    """
    rows: list[Array] = []
    wanted = described(chunk.parameters)
    for task in chunk.tasks:
        x, y = task.SupportInput, task.SupportOutput
        sets = list(zip(x, y, strict=True)) if is_batches(x) else [(x, y)]
        path = [sets[step % len(sets)] for step in range(steps)]
        with asking:
            model = with_parameters(chunk.model, chunk.parameters)
            gradient = model.ComputeSecondOrderGradients(path, task.QueryInput, task.QueryOutput, loss, rate)
            if described(gradient) != wanted:
                name = type(chunk.model).__name__
                raise ArgumentException(
                    f"ComputeSecondOrderGradients of {name} must return {wanted}, got {described(gradient)}"
                )
            # A copy, since the next task's gradient may come in the same array.
            rows.append(chunk.backend.asarray(gradient))
    return stack_rows(chunk.backend, rows)
