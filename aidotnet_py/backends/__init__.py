"""Array backends: the one floor that imports an array library for array work.

A new backend is one folder here, and one line in `registry`. Other rooms import from here; those that describe loops
for a backend to compile also import from `kernel`.
"""

from aidotnet_py.backends.cuda.backend import CuPyBackend
from aidotnet_py.backends.foreign import adopt, to_host
from aidotnet_py.backends.memory import is_plain
from aidotnet_py.backends.numpy.backend import NumPyBackend
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
    "adopt",
    "available_backends",
    "backend_of",
    "described",
    "get_backend",
    "is_plain",
    "register_backend",
    "to_host",
]
