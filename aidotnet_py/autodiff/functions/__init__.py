"""Array functions of traced values: NumPy's own, indexing, and those that NumPy has no name for."""
