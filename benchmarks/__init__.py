"""Side-by-side measurements of aidotnet_py and its rivals: ``python -m benchmarks.run``."""
