"""Ownership of shared buffers: whose examples, evaluation and curvature they hold."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["BufferOwners"]


class BufferOwners:
    """The owners of the contents of buffers that several objectives share.

    Objectives of one `Place` share the buffers of one `BatchedPrograms`. The buffers hold three contents. Each content
    has one owner, or none:

    - *examples*: inputs, targets, noise, and all values that depend on them alone. The owner is the objective that
      loaded them. They are lost when another objective loads its examples, and all other contents with them.
    - *evaluation*: losses, predictions and gradients at the points. The owner is the objective that evaluated; steps of
      a schedule evaluate for no owner. It is lost at the next evaluation.
    - *curvature*: coefficients of a product, and all values at its point. The owner is one call of `curvature`. It is
      lost when another call loads its curvature, and at an evaluation, which moves the points.

    An owner cannot know that it has lost a content. It therefore asks for the content before each use: examples and
    curvature are loaded again if they are lost, and an evaluation that is lost is an error. A load that fails leaves
    the content without an owner.
    """

    def __init__(self) -> None:
        self._examples: object = None
        self._evaluation: object = None
        self._curvature: object = None

    def load_examples(self, owner: object, load: Callable[[], None]) -> None:
        """Call ``load`` unless the examples are the owner's already."""
        if self._examples is not owner:
            self._examples = self._evaluation = self._curvature = None
            load()
            self._examples = owner

    def load_curvature(self, owner: object, load: Callable[[], None]) -> None:
        """Call ``load`` unless the curvature is the owner's already."""
        if self._curvature is not owner:
            self._curvature = None
            load()
            self._curvature = owner

    def set_evaluation(self, owner: object | None) -> None:
        """Note the owner of an evaluation, None for steps of a schedule."""
        self._evaluation, self._curvature = owner, None

    def has_evaluation(self, owner: object) -> bool:
        """Return whether the evaluation is the owner's."""
        return self._evaluation is owner
