"""Solvers of linear systems that are known only by their products v ↦ Av.

A new solver is one file here, built on `rows` for its arguments and on `report` for what it says of its work; one that
improves x step by step, on `iterate`.
"""

from aidotnet_py.solvers.conjugate_gradient import conjugate_gradient
from aidotnet_py.solvers.gmres import gmres
from aidotnet_py.solvers.neumann_series import neumann_series
from aidotnet_py.solvers.report import NeumannReport, SolverReport, StopReason
from aidotnet_py.solvers.rows import Operator

__all__ = ["NeumannReport", "Operator", "SolverReport", "StopReason", "conjugate_gradient", "gmres", "neumann_series"]
