"""A kit for tests of one's own parts: suites for backends and algorithms, a check of derivatives, linear systems.

The strategies for Hypothesis are in `aidotnet_py.testing.strategies`, which needs the extra ``testing``.
"""

from aidotnet_py.testing.algorithms import check_algorithm
from aidotnet_py.testing.backends import check_backend
from aidotnet_py.testing.derivatives import check_derivatives
from aidotnet_py.testing.primitives import check_primitive
from aidotnet_py.testing.systems import LinearSystem, MatrixOperator, symmetric_matrices

__all__ = [
    "LinearSystem",
    "MatrixOperator",
    "check_algorithm",
    "check_backend",
    "check_derivatives",
    "check_primitive",
    "symmetric_matrices",
]
