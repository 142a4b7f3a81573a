"""Derivatives of solutions by the implicit function theorem, whatever solver found them.

`implicit_diff` is the decorator; under it lie two primitives, one a file: `root`, the solution that a function of
the user's finds, and `linear_system`, what its derivatives are solved from.
"""

from aidotnet_py.implicit.checked_solve import UnconvergedSolveWarning, checked_solve
from aidotnet_py.implicit.implicit_diff import implicit_diff

__all__ = ["UnconvergedSolveWarning", "checked_solve", "implicit_diff"]
