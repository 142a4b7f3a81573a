"""Array backends: the one floor that imports an array library for array work.

May import: nothing of this package but its exceptions and locks. A new backend is one file here, and one line in
`registry`.
"""

from aidotnet_py.backends.cupy_backend import CuPyBackend
from aidotnet_py.backends.memory import is_plain
from aidotnet_py.backends.numpy_backend import NumPyBackend
from aidotnet_py.backends.protocol import Array, Backend, Compilation, Elementwise, KernelCompiler
from aidotnet_py.backends.registry import (
    BackendNames,
    available_backends,
    backend_of,
    described,
    get_backend,
    register_backend,
)

__all__ = [
    "Array",
    "Backend",
    "BackendNames",
    "Compilation",
    "CuPyBackend",
    "Elementwise",
    "KernelCompiler",
    "NumPyBackend",
    "available_backends",
    "backend_of",
    "described",
    "get_backend",
    "is_plain",
    "register_backend",
]
