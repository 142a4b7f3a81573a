"""Inner steps: one step and its derivative, many steps, the way back through them, and minimisers in their place."""
