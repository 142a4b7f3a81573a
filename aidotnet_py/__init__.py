"""Meta-learning on NumPy and CuPy: iMAML over an exact autodiff and Hessian-vector-product engine."""
