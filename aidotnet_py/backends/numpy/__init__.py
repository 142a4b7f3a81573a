"""The NumPy backend, and its compiler of kernels for this processor."""
