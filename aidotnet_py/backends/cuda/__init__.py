"""The CuPy backend, and its compiler of kernels for CUDA devices."""
