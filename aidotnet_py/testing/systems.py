"""Linear systems whose spectra are known, and matrices as operators on any backend: what solvers are tested on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from aidotnet_py.backends import Array, Backend, get_backend

__all__ = ["LinearSystem", "MatrixOperator", "symmetric_matrices"]

Values = NDArray[Any]


def symmetric_matrices(generator: np.random.Generator, eigenvalues: Values, dtype: DTypeLike = np.float64) -> Values:
    """Return QᵀΛQ for given eigenvalues and random orthogonal Q, one for each task.

    Parameters
    ----------
    generator : numpy.random.Generator
        Draws Q.
    eigenvalues : array, shape (tasks, n)
        The diagonals of Λ.
    dtype : dtype
        Of the result; the product is taken in the eigenvalues' dtype.

    Returns
    -------
    array, shape (tasks, n, n)
        Symmetric to the bit.

    Examples
    --------
    >>> import numpy as np
    >>> from aidotnet_py.testing import symmetric_matrices
    >>> A = symmetric_matrices(np.random.default_rng(0), np.array([[-1.0, 2.0, 3.0]]))
    >>> np.linalg.eigvalsh(A[0]).round(12)
    array([-1.,  2.,  3.])
    """
    tasks, n = eigenvalues.shape
    q = np.linalg.qr(generator.standard_normal((tasks, n, n)))[0]
    matrices = (q.transpose(0, 2, 1) * eigenvalues[:, None, :]) @ q
    return np.asarray((matrices + matrices.transpose(0, 2, 1)) / 2).astype(dtype)


class MatrixOperator:
    """Matrices on the host as an operator v ↦ Av on a backend's arrays, (n,) or (tasks, n).

    Parameters
    ----------
    matrices : array of NumPy, shape (n, n) or (tasks, n, n)
        A; several matrices multiply the vectors of their tasks.
    backend : Backend or str
        The backend of the arrays that it takes and returns.

    Attributes
    ----------
    calls : int
        The number of calls, to count the products of a solver.

    Raises
    ------
    ArgumentException
        When there is no such backend.

    Examples
    --------
    >>> import numpy as np
    >>> from aidotnet_py.testing import MatrixOperator
    >>> operator = MatrixOperator(np.diag([1.0, 2.0]))
    >>> operator(np.array([3.0, 4.0])), operator.calls
    (array([3., 8.]), 1)
    """

    def __init__(self, matrices: Values, backend: Backend | str = "numpy") -> None:
        self.matrices, self.backend, self.calls = matrices, get_backend(backend), 0

    def __call__(self, v: Array) -> Array:
        """Return Av; for rows, each by the matrix of its task."""
        self.calls += 1
        product = np.matmul(self.matrices, self.backend.to_numpy(v)[..., None])[..., 0]
        return self.backend.asarray(np.ascontiguousarray(product))


@dataclass(frozen=True, eq=False)
class LinearSystem:
    """Systems Ax = b on the host, one for each task, whose spectra are known exactly.

    Attributes
    ----------
    A : array, shape (tasks, n, n)
        The matrices.
    b : array, shape (tasks, n)
        The right-hand sides.
    values : array of float64, shape (tasks, n)
        The eigenvalues of symmetric matrices, the singular values of others.

    Examples
    --------
    >>> import numpy as np
    >>> from aidotnet_py.testing import LinearSystem
    >>> system = LinearSystem(np.diag([2.0, 4.0])[None], np.ones((1, 2)), np.array([[2.0, 4.0]]))
    >>> system.solution, system.largest / system.least
    (array([[0.5 , 0.25]]), array([2.]))
    """

    A: Values
    b: Values
    values: Values

    @property
    def tasks(self) -> int:
        """The number of systems."""
        return len(self.b)

    @property
    def n(self) -> int:
        """The number of unknowns of each."""
        return int(self.b.shape[1])

    @property
    def largest(self) -> Values:
        """The spectral norm of each matrix."""
        return np.asarray(np.abs(self.values).max(axis=1))

    @property
    def least(self) -> Values:
        """The smallest singular value of each matrix."""
        return np.asarray(np.abs(self.values).min(axis=1))

    @property
    def solution(self) -> Values:
        """The solutions (tasks, n) of a direct solve."""
        return np.linalg.solve(self.A, self.b[..., None])[..., 0]

    def operator(self, backend: Backend | str = "numpy") -> MatrixOperator:
        """Return the matrices as an operator on a backend's rows."""
        return MatrixOperator(self.A, backend)

    def residual_norms(self, x: Values) -> Values:
        """Return ‖b − Ax‖ of each task, in the precision of A."""
        return np.asarray(np.linalg.norm(self.b - np.einsum("tij,tj->ti", self.A, x), axis=1))
