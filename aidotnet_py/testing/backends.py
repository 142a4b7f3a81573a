"""The suite that a backend of one's own must pass."""

from __future__ import annotations

from functools import partial

from aidotnet_py.backends import Backend, available_backends, backend_of, get_backend
from aidotnet_py.exceptions import ArgumentException
from aidotnet_py.testing.backend_arrays import ARRAY_CHECKS
from aidotnet_py.testing.backend_engine import ENGINE_CHECKS
from aidotnet_py.testing.backend_operands import OPERAND_CHECKS
from aidotnet_py.testing.running import run_checks

__all__ = ["check_backend"]


def check_backend(backend: Backend | str) -> None:
    """Hold a registered backend to the protocol: each operation to NumPy's, then derivatives, solves and training.

    Each operation is called without ``out``, with a new one and with a strided one; views must share memory. Then it
    gets operands of all dtypes, float16 if the backend has it, in many shapes and layouts. If all operations pass,
    Programs of Hessian products run on the backend until they are compiled, all solvers
    solve, and iMAML takes steps in float64 and MAML in float32, beside NumPy. It takes a second or two.

    Parameters
    ----------
    backend : Backend or str
        A backend, or its name.

    Raises
    ------
    ArgumentException
        When it is not registered, or its arrays belong to another registered backend too.
    AssertionError
        When checks fail; the message has a line for each.

    Examples
    --------
    >>> from aidotnet_py.backends import NumPyBackend
    >>> from aidotnet_py.testing import check_backend
    >>> check_backend("numpy")
    >>> class Rounding(NumPyBackend):
    ...     name = "rounding"
    ...     def vecdot(self, x, y, out=None):
    ...         return super().vecdot(x.astype("f4"), y.astype("f4"), out)
    >>> check_backend(Rounding())
    Traceback (most recent call last):
    AssertionError: backend 'rounding' fails 1 of 18 checks:
    - products: vecdot must return float64(2, 3), got float32(2, 3)
    """
    known = get_backend(backend)
    subject = f"backend {getattr(known, 'name', '?')!r}"
    # What an operation gets wrong would show in the rest too, at places where nobody can read it.
    for checks in (ARRAY_CHECKS, OPERAND_CHECKS):
        run_checks(subject, {name: partial(check, known) for name, check in checks.items()})
    owner = backend_of(known.asarray(0.0))
    if owner is None or known.name not in available_backends() or get_backend(known.name) is not known:
        raise ArgumentException(
            f"{subject} must be registered, so that its arrays are known; call register_backend first"
        )
    if owner is not known:
        raise ArgumentException(
            f"arrays of {subject} must be its own, got arrays of backend {owner.name!r}, which runs what is done with "
            f"them; make arrays of a class of your own, or name the backend {owner.name!r}, in place of that one"
        )
    run_checks(subject, {name: partial(check, known) for name, check in ENGINE_CHECKS.items()})
