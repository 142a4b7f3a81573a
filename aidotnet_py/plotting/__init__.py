"""Figures of tasks, adaptation, solves, surfaces and trainings, by matplotlib (the ``plot`` extra)."""

from aidotnet_py.plotting.adaptation import draw_adaptation_curves
from aidotnet_py.plotting.canvas import figure_formats
from aidotnet_py.plotting.convergence import draw_meta_gradient_errors, draw_residuals
from aidotnet_py.plotting.surface import draw_loss_surface
from aidotnet_py.plotting.tasks import draw_classification_task, draw_regression_task
from aidotnet_py.plotting.training import draw_training

__all__ = [
    "draw_adaptation_curves",
    "draw_classification_task",
    "draw_loss_surface",
    "draw_meta_gradient_errors",
    "draw_regression_task",
    "draw_residuals",
    "draw_training",
    "figure_formats",
]
