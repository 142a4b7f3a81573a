"""iMAML: options, algorithm, and the linear system of its implicit gradient."""
