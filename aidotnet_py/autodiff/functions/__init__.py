"""Functions of arrays: NumPy's, as they act on traced values, and those that NumPy lacks."""

# Traced values find NumPy's functions in the table that this module fills.
from aidotnet_py.autodiff.functions import numpy_dispatch

__all__ = ["numpy_dispatch"]
