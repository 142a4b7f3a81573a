"""Ownership of shared buffers: whose examples, evaluation and curvature they hold."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias
from weakref import ref

__all__ = ["BufferOwners"]

Owner: TypeAlias = Callable[[], object]


def _nobody() -> None:
    """Return None, like the reference to an owner that is gone."""


class BufferOwners:
    """The owners of the contents of buffers that several objectives share.

    Objectives of one `Place` share the buffers of one `BatchedPrograms`. The buffers hold three contents. Each content
    has one owner, or none:

    - *examples*: inputs, targets, noise, and all values that depend on them alone. The owner is the objective that
      loaded them. They are lost when another objective loads its examples, and all other contents with them.
    - *evaluation*: losses, predictions and gradients at the points. The owner is the objective that evaluated; steps of
      a schedule evaluate for no owner. It is lost at the next evaluation.
    - *curvature*: coefficients of a product, and all values at its point. The owner is the function that loaded them,
      one for each call of `curvature`. It is lost when another function loads its curvature, and at an evaluation,
      which moves the points.

    An owner cannot know that it has lost a content. It therefore asks for the content before each use: examples and
    curvature are loaded again if they are lost, and an evaluation that is lost is an error. A load that fails leaves
    the content without an owner.

    Owners are not kept alive: an objective refers to its buffers, and both should go when the last call has ended with
    them, without waiting for the garbage collector.
    """

    def __init__(self) -> None:
        self._examples: Owner = _nobody
        self._evaluation: Owner = _nobody
        self._curvature: Owner = _nobody

    def load_examples(self, owner: object, load: Callable[[], None]) -> None:
        """Call ``load`` unless the examples are the owner's already."""
        if self._examples() is not owner:
            self._examples = self._evaluation = self._curvature = _nobody
            load()
            self._examples = ref(owner)

    def load_curvature(self, load: Callable[[], None]) -> None:
        """Call ``load`` unless it has loaded the curvature already."""
        if self._curvature() is not load:
            self._curvature = _nobody
            load()
            self._curvature = ref(load)

    def set_evaluation(self, owner: object | None) -> None:
        """Note the owner of an evaluation, None for steps of a schedule."""
        self._evaluation, self._curvature = _nobody if owner is None else ref(owner), _nobody

    def has_evaluation(self, owner: object) -> bool:
        """Return whether the evaluation is the owner's."""
        return self._evaluation() is owner
