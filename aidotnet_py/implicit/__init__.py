"""Derivatives of solutions by the implicit function theorem, for any solver.

`implicit_diff` is the decorator. It uses two primitives, each in its own file: `root`, a solution by the user's
function, and `linear_system`, the linear systems that give its derivatives.
"""

from aidotnet_py.implicit.checked_solve import UnconvergedSolveWarning, checked_solve
from aidotnet_py.implicit.implicit_diff import implicit_diff

__all__ = ["UnconvergedSolveWarning", "checked_solve", "implicit_diff"]
